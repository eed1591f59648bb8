//! Privileges only fall: the stages that shut the program in before it meets the guest.
//!
//! | stage | what is gone afterwards | who asks |
//! |---|---|---|
//! | [`mounts`] | the host's files but /etc and /run (read-only), so that resolv.conf can be followed | `--enable-sandbox` |
//! | [`caps`] | every capability but CAP_NET_BIND_SERVICE; set-uid programs give none back | `--enable-sandbox`, our own commands |
//! | [`seccomp`] | every system call that the event loop does not make | `--enable-seccomp`, our own commands |
//!
//! The stages come after all descriptors are open (TAP, listeners, API socket, log) and before the ready byte; their order is
//! that of the table, since mounting needs capabilities and dropping them needs prctl(2), which the filter
//! forbids. CAP_NET_BIND_SERVICE stays because ports are opened while running, and a container engine that was
//! granted low ports expects them to work. Source: contract slirp4netns §6 and §7.
//!
//! Limits: a kernel bug reachable through the allowed calls is not stopped; the network itself is the program's
//! purpose and stays open. docs/threat-model.md says what each stage is for.

pub mod caps;
pub mod mounts;
pub mod seccomp;

use ::caps::{CapSet, Capability};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getegid, geteuid};
use std::io;
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
    fn new(doing: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self { doing: doing.into(), source: source.into() }
    }
}

/// The stages `mounts` and `caps`: what `--enable-sandbox` asks for.
///
/// `userns` is the user namespace in which mounting is allowed: that of the guest. It is joined unless we are real root; that
/// we are in it already is no error. Only for a process with one thread.
///
/// # Errors
/// When a step fails that the rest depends on. The process is then in an undefined state and should end.
pub fn enter(userns: Option<&Path>) -> Result<(), SandboxError> {
    mounts::isolate(userns)?;
    caps::drop_all()
}

/// The stage `mounts` for a process that knows nobody's user namespace: one that is not root makes its own for this. It is not
/// taken by one that may open low ports of the host, which it could not do from another user namespace. Only for a process
/// with one thread.
///
/// # Errors
/// When no user namespace may be made, or the low ports count more. Everything is as before then. When a later step fails.
pub fn enter_own() -> Result<(), SandboxError> {
    if geteuid().is_root() {
        return mounts::isolate(None);
    }
    if ::caps::has_cap(None, CapSet::Effective, Capability::CAP_NET_BIND_SERVICE).unwrap_or(false) {
        return Err(SandboxError::new(
            "hide the host's files",
            io::Error::other("low ports may be opened, which needs the host's user namespace"),
        ));
    }
    let (uid, gid) = (geteuid(), getegid());
    unshare(CloneFlags::CLONE_NEWUSER).map_err(|error| SandboxError::new("make a user namespace", error))?;
    let maps = [
        ("setgroups", "deny".to_owned()),
        ("uid_map", format!("0 {uid} 1")),
        ("gid_map", format!("0 {gid} 1")),
    ];
    for (name, text) in maps {
        std::fs::write(format!("/proc/self/{name}"), text)
            .map_err(|error| SandboxError::new(format!("write {name}"), error))?;
    }
    mounts::isolate(Some(Path::new("/proc/self/ns/user")))
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
                match enter_own() {
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
}
