//! Privileges only fall: the stages that shut the program in before it meets the guest.
//!
//! | stage | what is gone afterwards | who asks |
//! |---|---|---|
//! | [`tracers`] | being traced, or looked into, by the guest's root or the same user | all that serve a guest |
//! | [`mounts`] | the host's files but /etc and /run (read-only), so that resolv.conf can be followed | `--enable-sandbox` |
//! | [`files`] | files but those in named places, by Landlock | daemons ([`settle`]) |
//! | [`caps`] | every capability but CAP_NET_BIND_SERVICE; set-uid programs give none back | `--enable-sandbox`, our own commands, daemons |
//! | [`seccomp`] | every system call that the event loop does not make | `--enable-seccomp`, our own commands, daemons |
//!
//! The stages come after all descriptors are open (TAP, listeners, API socket, log) and before the ready byte; their
//! order is that of the table, since mounting needs capabilities and dropping them needs prctl(2), which the filter
//! forbids. CAP_NET_BIND_SERVICE stays because ports are opened while running, and a container engine that was granted
//! low ports expects them to work. Source: contract slirp4netns §6 and §7.
//!
//! Limits: a kernel bug reachable through the allowed calls is not stopped; the network itself is the program's
//! purpose and stays open. docs/threat-model.md says what each stage is for.

pub mod caps;
pub mod files;
pub mod mounts;
pub mod seccomp;
pub mod tracers;
pub mod trial;

use crate::sys::proc::{fork_child, wait_for};
use ::caps::{CapSet, Capability};
use mounts::Leave;
use nix::sched::{CloneFlags, unshare};
use nix::sys::wait::WaitStatus;
use nix::unistd::{getegid, geteuid};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// A stage that could not be taken.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing}: {source}")]
pub struct SandboxError {
    doing: String,
    #[source]
    source: io::Error,
}

impl SandboxError {
    pub(crate) fn new(doing: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self { doing: doing.into(), source: source.into() }
    }
}

/// The stages `tracers`, `mounts` and `caps`: what `--enable-sandbox` asks for.
///
/// `userns` is the guest's user namespace, if it is known. Mounting takes one: real root needs none; where the guest's
/// is another than ours, we make one of our own, on which the guest's root has no hold; otherwise, and where none may
/// be made, the guest's is joined, and that we are in it already is no error. Only for a process with one thread.
///
/// In a namespace of our own the user may look into `/proc/PID` as ever: engines and tests look for the root directory
/// there. In the guest's, that would be the guest's root as well.
///
/// # Errors
/// When a step fails that the rest depends on. The process is then in an undefined state and should end.
pub fn enter(userns: Option<&Path>) -> Result<(), SandboxError> {
    tracers::keep_out()?;
    if userns.is_some_and(is_apart) && can_make_own() {
        make_own()?;
        mounts::isolate(Some(Path::new(OWN)), Leave::Pivot)?;
        caps::drop_all()?;
        return tracers::let_the_user_in();
    }
    mounts::isolate(userns, Leave::Pivot)?;
    caps::drop_all()
}

const OWN: &str = "/proc/self/ns/user";

/// Whether a process that is not root has nothing in common with the user namespace at `path`.
fn is_apart(path: &Path) -> bool {
    let number = |path: &Path| std::fs::metadata(path).map(|meta| (meta.dev(), meta.ino()));
    !geteuid().is_root()
        && matches!((number(path), number(Path::new(OWN))), (Ok(theirs), Ok(ours)) if theirs != ours)
}

/// Whether a user namespace of our own is good for anything: a child tries. There is no way back from one in which
/// nothing may be mounted (AppArmor), or whose maps cannot be written (a read-only /proc).
fn can_make_own() -> bool {
    let tried = fork_child(|| {
        let mounts = || {
            make_own().is_ok() && unshare(CloneFlags::CLONE_NEWNS).is_ok() && mounts::become_slave().is_ok()
        };
        u8::from(!mounts())
    });
    matches!(tried.map(wait_for), Ok(Ok(WaitStatus::Exited(_, 0))))
}

/// What a daemon keeps of its privileges, once everything that takes more is done.
#[derive(Debug)]
pub struct Needs<'a> {
    /// The places of its files.
    pub files: &'a [files::Place],
    /// Its capabilities.
    pub capabilities: &'a [Capability],
    /// Its system calls.
    pub calls: seccomp::Profile,
}

/// The stages `tracers`, `files`, `caps` and `seccomp`, for a daemon. It has to run on systems that know none of them,
/// as it always did: a stage that cannot be taken is told in the log, and the next one is taken. Only for a process
/// with one thread.
pub fn settle(needs: &Needs<'_>) {
    let stages: [&dyn Fn() -> Result<(), SandboxError>; 4] = [
        &tracers::keep_out,
        &|| files::keep(needs.files),
        &|| caps::drop_all_but(needs.capabilities),
        &|| seccomp::install(needs.calls, seccomp::Mode::Enforce),
    ];
    for error in stages.into_iter().filter_map(|stage| stage().err()) {
        log::warn!("a stage of the sandbox is left out: {error}");
    }
}

/// The stages `tracers` and `mounts` for a process that knows nobody's user namespace: one that is not root makes its
/// own for this. It is not taken by one that may open low ports of the host, which it could not do from another user
/// namespace. Only for a process with one thread.
///
/// # Errors
/// When no user namespace may be made, or the low ports count more. Everything is as before then. When a later step
/// fails.
pub fn enter_own(leave: Leave) -> Result<(), SandboxError> {
    if geteuid().is_root() {
        tracers::keep_out()?;
        return mounts::isolate(None, leave);
    }
    make_own()?;
    tracers::keep_out()?;
    mounts::isolate(Some(Path::new(OWN)), leave)
}

/// Makes a user namespace in which this user is root, and nobody else is anything. With an error everything is as
/// before, unless the namespace was made and could not be filled.
fn make_own() -> Result<(), SandboxError> {
    if ::caps::has_cap(None, CapSet::Effective, Capability::CAP_NET_BIND_SERVICE).unwrap_or(false) {
        return Err(SandboxError::new(
            "hide the host's files",
            io::Error::other("low ports may be opened, which needs the host's user namespace"),
        ));
    }
    let (uid, gid) = (geteuid(), getegid());
    unshare(CloneFlags::CLONE_NEWUSER).map_err(|error| SandboxError::new("make a user namespace", error))?;
    // Of one that is not dumpable, the maps are root's to write. Nobody is in the namespace but us.
    nix::sys::prctl::set_dumpable(true).map_err(|error| SandboxError::new("own /proc/self", error))?;
    let maps = [
        ("setgroups", "deny".to_owned()),
        ("uid_map", format!("0 {uid} 1")),
        ("gid_map", format!("0 {gid} 1")),
    ];
    for (name, text) in maps {
        std::fs::write(format!("/proc/self/{name}"), text)
            .map_err(|error| SandboxError::new(format!("write {name}"), error))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::proc::{fork_child, wait_for};
    use nix::sys::wait::WaitStatus;
    use nix::unistd::{Gid, Uid, setgid, setuid};

    #[test]
    fn anybody_can_hide_the_hosts_files() {
        for user in [None, Some(65534)] {
            if user.is_some() && !geteuid().is_root() {
                continue;
            }
            let child = fork_child(|| {
                if let Some(user) = user {
                    setgid(Gid::from_raw(user)).unwrap();
                    setuid(Uid::from_raw(user)).unwrap();
                    nix::sys::prctl::set_dumpable(true).unwrap();
                }
                match enter_own(Leave::Pivot) {
                    Err(error) if error.to_string().contains("namespace") => return 77,
                    result => result.unwrap(),
                }
                caps::drop_all().unwrap();
                u8::from(Path::new("/home").exists() || !Path::new("/etc/passwd").exists())
            });
            match wait_for(child.unwrap()).unwrap() {
                WaitStatus::Exited(_, 0) => {}
                WaitStatus::Exited(_, 77) => {
                    println!("SKIP anybody_can_hide_the_hosts_files: no namespace may be made here");
                }
                status => panic!("{user:?}: {status:?}"),
            }
        }
    }

    /// A program that was taken over behind all stages of a network's process.
    #[test]
    fn nothing_leads_out_of_all_stages_together() {
        use nix::sys::signal::Signal;
        use std::fs;
        let name = "nothing_leads_out_of_all_stages_together";
        let shut_in = |attempt: fn() -> u8| {
            let child = fork_child(|| {
                if enter(None).is_err() {
                    return 77;
                }
                seccomp::install(seccomp::Profile::Network, seccomp::Mode::Enforce).unwrap();
                attempt()
            });
            wait_for(child.unwrap()).unwrap()
        };
        if !matches!(shut_in(|| 0), WaitStatus::Exited(_, 0)) {
            println!("SKIP {name}: no mount namespace may be made here");
            return;
        }
        let seen = shut_in(|| {
            let absent = [
                "/home",
                "/root",
                "/usr",
                "/proc/1",
                "/dev/null",
                "/old",
                "/tmp",
                "/etc/../../usr",
                "/run/../../proc",
            ];
            let present = ["/etc/passwd", "/etc/../../../etc/passwd"];
            let hidden =
                absent.iter().all(|path| fs::metadata(path).is_err() && fs::File::open(path).is_err());
            // Reading is permitted, so what is there is found; removing it is not, although the call passes.
            let kept = fs::remove_file("/etc/passwd").is_err() && fs::metadata("/etc/passwd").is_ok();
            u8::from(!(hidden && kept && present.iter().all(|path| fs::File::open(path).is_ok())))
        });
        assert!(matches!(seen, WaitStatus::Exited(_, 0)), "{seen:?}");
        let attempts: [fn() -> u8; 5] = [
            || u8::from(fs::write("/etc/slipway-was-here", "x").is_ok()),
            || u8::from(fs::create_dir("/run/slipway-was-here").is_ok()),
            || u8::from(nix::unistd::chroot("/etc").is_ok()),
            || u8::from(nix::unistd::pivot_root("/etc", "/etc").is_ok()),
            || u8::from(nix::mount::umount("/etc").is_ok()),
        ];
        for attempt in attempts {
            let status = shut_in(attempt);
            assert!(matches!(status, WaitStatus::Signaled(_, Signal::SIGSYS, _)), "{status:?}");
        }
    }

    /// What becomes of a daemon with these calls that was taken over and makes this attempt.
    fn attempt(calls: seccomp::Profile, own: &Path, attempt: fn() -> u8) -> WaitStatus {
        let child = fork_child(|| {
            let files = [files::Place::write(own)];
            settle(&Needs { files: &files, capabilities: &[Capability::CAP_NET_BIND_SERVICE], calls });
            attempt()
        });
        wait_for(child.unwrap()).unwrap()
    }

    #[test]
    fn a_daemon_is_refused_what_it_has_no_business_with() {
        use crate::sys::testing::socket;
        use nix::libc;
        use nix::sys::signal::Signal;
        let own = tempfile::tempdir().unwrap();
        for calls in [
            seccomp::Profile::Names { report: false },
            seccomp::Profile::Leases,
            seccomp::Profile::Uplink,
            seccomp::Profile::Control,
        ] {
            let ended = |name: &str, work: fn() -> u8| {
                let status = attempt(calls, own.path(), work);
                assert!(
                    matches!(status, WaitStatus::Signaled(_, Signal::SIGSYS, _)),
                    "{calls:?} {name}: {status:?}"
                );
            };
            ended("executes", || u8::from(nix::unistd::execv(c"/bin/true", &[c"true"]).is_err()));
            ended("traces", || u8::from(nix::sys::ptrace::attach(nix::unistd::getppid()).is_err()));
            ended("joins a namespace", || {
                // Any descriptor will do: the call itself is not to be had.
                u8::from(nix::sched::setns(io::stdin(), CloneFlags::CLONE_NEWUTS).is_err())
            });
            ended("makes a namespace", || u8::from(unshare(CloneFlags::CLONE_NEWUSER).is_err()));
            ended("makes a socket of another family", || {
                u8::from(socket(libc::AF_VSOCK, libc::SOCK_STREAM, 0).is_err())
            });
            let status = attempt(calls, own.path(), || {
                let errno = std::fs::read("/usr/bin/env").map_or_else(|error| error.raw_os_error(), |_| None);
                errno.and_then(|errno| u8::try_from(errno).ok()).unwrap_or(0)
            });
            match status {
                WaitStatus::Exited(_, 13) => {}
                WaitStatus::Exited(_, 0) if crate::sys::landlock::version().is_err() => {
                    println!("SKIP a_daemon_is_refused_what_it_has_no_business_with: no Landlock here");
                }
                status => panic!("{calls:?} opens a file: {status:?}"),
            }
        }
    }
}
