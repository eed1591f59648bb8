//! Stage: mounts. The process gets a file system of its own in which only /etc and /run of the host are left, read-only.
//!
//! Those two stay because the host's resolv.conf is followed while running, and with systemd-resolved it lives in /run.
//! They are bound as *slaves*: mounts that the host makes later appear here, but what happens here never travels back
//! (a recursive unmount here must not unmount anything there). Flags that a parent user namespace has locked on a mount
//! (nodev, noexec, ...) may not be cleared when it is mounted again, so they are read and kept. Source:
//! mount_namespaces(7), pivot_root(2); contract slirp4netns §6.

use super::SandboxError;
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::statvfs::{FsFlags, statvfs};
use nix::unistd::{Gid, Uid, chdir, geteuid, pivot_root, setegid, seteuid};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

const NOTHING: Option<&str> = None;
/// Where the new root is built. Every system has it, and what lies there is of no use to us.
const ROOT: &str = "/tmp";
/// Where the old root hangs for the moment between pivot_root and its unmounting.
const OLD: &str = "old";
/// What stays visible.
const KEPT: [&str; 2] = ["etc", "run"];

fn hardened() -> MsFlags {
    MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC
}

/// Goes into a mount namespace of its own as described above.
///
/// # Errors
/// When a step fails; most often because mounting is not permitted (no user namespace to be root in).
pub fn isolate(userns: Option<&Path>) -> Result<(), SandboxError> {
    // Before anything moves: afterwards the way to its target is gone.
    let resolv_conf = outside_target(Path::new("/etc/resolv.conf"));
    become_root_of(userns)?;
    unshare(CloneFlags::CLONE_NEWNS).map_err(|e| SandboxError::new("make a mount namespace", e))?;
    remount("/", MsFlags::MS_REC | MsFlags::MS_PRIVATE, "make / private")?;
    mount(Some("tmpfs"), ROOT, Some("tmpfs"), hardened(), Some("size=1k,mode=755"))
        .map_err(|e| SandboxError::new("mount a tmpfs", e))?;
    let root = Path::new(ROOT);
    for name in KEPT.iter().chain([&OLD]) {
        fs::create_dir(root.join(name)).map_err(|e| SandboxError::new(format!("make {name}"), e))?;
    }
    for name in KEPT {
        bind(&Path::new("/").join(name), &root.join(name), true)?;
    }
    if let Some(target) = resolv_conf {
        bind_file(&target, root)?;
    }
    chdir(ROOT).map_err(|e| SandboxError::new("enter the new root", e))?;
    pivot_root(".", OLD).map_err(|e| SandboxError::new("pivot_root", e))?;
    chdir("/").map_err(|e| SandboxError::new("enter the new root", e))?;
    umount2(OLD, MntFlags::MNT_DETACH).map_err(|e| SandboxError::new("leave the old root", e))?;
    let _ = fs::remove_dir(Path::new("/").join(OLD));
    // A tmpfs of a kilobyte that stays writable is no loss.
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY | hardened();
    if let Err(error) = mount(NOTHING, "/", NOTHING, flags, NOTHING) {
        log::debug!("/ stays writable: {error}");
    }
    Ok(())
}

/// Mounting takes CAP_SYS_ADMIN: as root of the guest's user namespace, unless we are real root.
fn become_root_of(userns: Option<&Path>) -> Result<(), SandboxError> {
    if !geteuid().is_root()
        && let Some(path) = userns
    {
        let doing = || format!("join the user namespace {}", path.display());
        let file = File::open(path).map_err(|e| SandboxError::new(doing(), e))?;
        match setns(&file, CloneFlags::CLONE_NEWUSER) {
            Ok(()) | Err(Errno::EINVAL) => {} // EINVAL: we are in it
            Err(error) => return Err(SandboxError::new(doing(), error)),
        }
    }
    if !geteuid().is_root() || userns.is_some() {
        // Not every namespace maps an id 0; then the capabilities that joining gave have to do.
        let _ = setegid(Gid::from_raw(0));
        let _ = seteuid(Uid::from_raw(0));
    }
    Ok(())
}

fn remount(at: &str, flags: MsFlags, doing: &str) -> Result<(), SandboxError> {
    mount(NOTHING, at, NOTHING, flags, NOTHING).map_err(|e| SandboxError::new(doing, e))
}

/// Shows `from` at `to`, read-only.
fn bind(from: &Path, to: &Path, recursive: bool) -> Result<(), SandboxError> {
    let failed = |error: Errno| SandboxError::new(format!("bind {}", from.display()), error);
    let rec = if recursive { MsFlags::MS_REC } else { MsFlags::empty() };
    match mount(Some(from), to, NOTHING, MsFlags::MS_BIND | rec, NOTHING) {
        // A system without /run still has an /etc.
        Err(Errno::ENOENT) => return Ok(()),
        result => result.map_err(failed)?,
    }
    mount(NOTHING, to, NOTHING, MsFlags::MS_SLAVE | rec, NOTHING).map_err(failed)?;
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY | hardened() | locked(to);
    mount(NOTHING, to, NOTHING, flags, NOTHING).map_err(failed)
}

/// Shows the single file `target` at its own place below `root`.
fn bind_file(target: &Path, root: &Path) -> Result<(), SandboxError> {
    let Ok(relative) = target.strip_prefix("/") else { return Ok(()) };
    let place = root.join(relative);
    let made = place.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| File::create(&place));
    made.map_err(|e| SandboxError::new(format!("make {}", place.display()), e))?;
    bind(target, &place, false)
}

/// The flags that the mount at `path` has and that may be locked.
fn locked(path: &Path) -> MsFlags {
    let Ok(info) = statvfs(path) else { return MsFlags::empty() };
    let pairs = [
        (FsFlags::ST_NOATIME, MsFlags::MS_NOATIME),
        (FsFlags::ST_NODIRATIME, MsFlags::MS_NODIRATIME),
        (FsFlags::ST_RELATIME, MsFlags::MS_RELATIME),
    ];
    pairs.into_iter().filter(|(has, _)| info.flags().contains(*has)).map(|(_, keep)| keep).collect()
}

/// Where a symbolic link leads, if that is outside of what stays visible.
fn outside_target(link: &Path) -> Option<PathBuf> {
    if !fs::symlink_metadata(link).ok()?.is_symlink() {
        return None;
    }
    let target = fs::canonicalize(link).ok()?;
    let inside = KEPT.iter().any(|kept| target.starts_with(Path::new("/").join(kept)));
    (!inside).then_some(target)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::proc::{fork_child, wait_for};
    use nix::sys::wait::WaitStatus;

    /// Runs `work` in a child; 77 means that the machine does not permit it.
    fn in_child(name: &str, work: impl FnOnce() -> u8) {
        match wait_for(fork_child(work).unwrap()).unwrap() {
            WaitStatus::Exited(_, 0) => {}
            WaitStatus::Exited(_, 77) => println!("SKIP {name}: no namespace may be made here"),
            status => panic!("{name}: {status:?}"),
        }
    }

    fn look_around() {
        let seen = |path: &str| Path::new(path).exists();
        assert!(seen("/etc") && seen("/etc/passwd"), "/etc is there");
        for gone in ["/home", "/root", "/var", "/usr", "/tmp", "/proc", "/old"] {
            assert!(!seen(gone), "{gone} is gone");
        }
        for place in ["/etc/slipway-test", "/run/slipway-test", "/slipway-test"] {
            assert!(File::create(place).is_err(), "{place} cannot be written");
        }
    }

    #[test]
    fn only_etc_and_run_are_left_for_root() {
        if !geteuid().is_root() {
            println!("SKIP only_etc_and_run_are_left_for_root: not root");
            return;
        }
        in_child("only_etc_and_run_are_left_for_root", || {
            isolate(None).unwrap();
            look_around();
            crate::sandbox::caps::drop_all().unwrap();
            look_around();
            0
        });
    }

    #[test]
    fn an_unprivileged_user_does_it_inside_a_user_namespace() {
        in_child("an_unprivileged_user_does_it_inside_a_user_namespace", || {
            if geteuid().is_root() {
                nix::unistd::setgid(Gid::from_raw(65534)).unwrap();
                nix::unistd::setuid(Uid::from_raw(65534)).unwrap();
                // setuid makes /proc/self unreadable until the next exec; the maps below need it.
                nix::sys::prctl::set_dumpable(true).unwrap();
            }
            if unshare(CloneFlags::CLONE_NEWUSER).is_err() {
                return 77;
            }
            fs::write("/proc/self/setgroups", "deny").unwrap();
            fs::write("/proc/self/uid_map", "0 65534 1").unwrap();
            fs::write("/proc/self/gid_map", "0 65534 1").unwrap();
            isolate(Some(Path::new("/proc/self/ns/user"))).unwrap();
            look_around();
            0
        });
    }
}
