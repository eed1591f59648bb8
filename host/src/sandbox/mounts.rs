//! Stage: mounts. The process gets a file system of its own in which only /etc and /run of the host are left,
//! read-only.
//!
//! Those two stay because the host's resolv.conf is followed while running, and with systemd-resolved it lives in /run.
//! They are bound as *slaves*: mounts that the host makes later appear here, but what happens here never travels back
//! (a recursive unmount here must not unmount anything there). Flags that a parent user namespace has locked on a mount
//! (nodev, noexec, ...) may not be cleared when it is mounted again, so they are read and kept. Source:
//! mount_namespaces(7), pivot_root(2); contract slirp4netns §6.
//!
//! Where the root is none that can be pivoted (the kernel's first one, of an initramfs; a chroot), chroot(2) has to do
//! if the caller wants that ([`Leave::Chroot`]). It is weaker: the old root is still mounted, only nothing leads there
//! for a process that has no descriptor of it, and no CAP_SYS_CHROOT after the next stage.

use super::{SandboxError, tracers};
use crate::resolv_conf::trail::{Hop, Trail};
use crate::sys::mount_attr::restrict_tree;
use nix::errno::Errno;
use nix::libc;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::statvfs::{FsFlags, statvfs};
use nix::unistd::{Gid, Uid, chdir, chroot, geteuid, pivot_root, setegid, seteuid};
use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{OpenOptionsExt as _, symlink};
use std::path::Path;

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

/// How the old root is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leave {
    /// For good, or not at all.
    Pivot,
    /// By chroot(2), where it cannot be done otherwise.
    Chroot,
}

/// Goes into a mount namespace of its own as described above.
///
/// # Errors
/// When a step fails; most often because mounting is not permitted (no user namespace to be root in).
pub fn isolate(userns: Option<&Path>, leave: Leave) -> Result<(), SandboxError> {
    become_root_of(userns)?;
    isolate_with(Path::new("/etc/resolv.conf"), leave)
}

/// The same, once mounting is allowed; `resolv_conf` stays readable at its path wherever its links lead.
fn isolate_with(resolv_conf: &Path, leave: Leave) -> Result<(), SandboxError> {
    unshare(CloneFlags::CLONE_NEWNS).map_err(|e| SandboxError::new("make a mount namespace", e))?;
    // Slave, not private: nothing travels back either way, but what the host unmounts below /run later is unmounted
    // here too, so that we do not keep somebody's medium busy.
    become_slave()?;
    // Before the tmpfs hides what may lie in /tmp; after unshare, because only mounts of our own namespace can be
    // bound.
    let way = Way::of(resolv_conf);
    mount(Some("tmpfs"), ROOT, Some("tmpfs"), hardened(), Some("size=1k,mode=755"))
        .map_err(|e| SandboxError::new("mount a tmpfs", e))?;
    let root = Path::new(ROOT);
    for name in KEPT.iter().chain([&OLD]) {
        fs::create_dir(root.join(name)).map_err(|e| SandboxError::new(format!("make {name}"), e))?;
    }
    for name in KEPT {
        bind(&Path::new("/").join(name), &root.join(name), true)?;
    }
    way.rebuild(root)?;
    chdir(ROOT).map_err(|e| SandboxError::new("enter the new root", e))?;
    match pivot_root(".", OLD) {
        Ok(()) => {
            chdir("/").map_err(|e| SandboxError::new("enter the new root", e))?;
            umount2(OLD, MntFlags::MNT_DETACH).map_err(|e| SandboxError::new("leave the old root", e))?;
        }
        Err(error) if leave == Leave::Chroot => {
            log::debug!("pivot_root: {error}; chroot has to do");
            chroot(".").map_err(|e| SandboxError::new("chroot", e))?;
            chdir("/").map_err(|e| SandboxError::new("enter the new root", e))?;
        }
        Err(error) => return Err(SandboxError::new("pivot_root", error)),
    }
    let _ = fs::remove_dir(Path::new("/").join(OLD));
    // A tmpfs of a kilobyte that stays writable is no loss.
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY | hardened();
    if let Err(error) = mount(NOTHING, "/", NOTHING, flags, NOTHING) {
        log::debug!("/ stays writable: {error}");
    }
    Ok(())
}

pub(super) fn become_slave() -> Result<(), SandboxError> {
    remount("/", MsFlags::MS_REC | MsFlags::MS_SLAVE, "make / a slave")
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
    // Another user, or more capabilities than before: the kernel may have taken it back.
    tracers::keep_out()
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
    // What is mounted below, such as the users' /run/user/ID, is restricted as well; kernels before 5.12 cannot do that
    // at once.
    if CString::new(to.as_os_str().as_bytes()).is_ok_and(|path| restrict_tree(&path).is_ok()) {
        return Ok(());
    }
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY | hardened() | locked(to);
    mount(NOTHING, to, NOTHING, flags, NOTHING).map_err(failed)
}

/// The part of the way to a file that leads through places which do not stay visible.
struct Way {
    hops: Vec<Hop>,
    /// The file itself, if it lies in such a place.
    end: Option<File>,
}

impl Way {
    fn of(path: &Path) -> Self {
        let trail = Trail::of(path);
        let hidden = |path: &Path| !KEPT.iter().any(|kept| path.starts_with(Path::new("/").join(kept)));
        let end = trail.end.filter(|end| hidden(end)).and_then(|end| {
            // Only a place to bind from: a FIFO does not block, a file that may not be read is no error.
            File::options().read(true).custom_flags(libc::O_PATH | libc::O_NOFOLLOW).open(end).ok()
        });
        Self { hops: trail.hops.into_iter().filter(|hop| hidden(&hop.path())).collect(), end }
    }

    /// Makes the same links, and the file at their end, below `root`.
    fn rebuild(&self, root: &Path) -> Result<(), SandboxError> {
        for hop in &self.hops {
            let path = hop.path();
            let place = root.join(path.strip_prefix("/").unwrap_or(&path));
            let failed = |error: io::Error| SandboxError::new(format!("make {}", place.display()), error);
            place.parent().map_or(Ok(()), fs::create_dir_all).map_err(failed)?;
            match (&hop.link, &self.end) {
                (Some(target), _) => match symlink(target, &place) {
                    // A loop of links passes the same place more than once.
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                    result => result.map_err(failed)?,
                },
                (None, Some(end)) => {
                    File::create(&place).map_err(failed)?;
                    bind(Path::new(&format!("/proc/self/fd/{}", end.as_raw_fd())), &place, false)?;
                }
                // It does not exist, so there is nothing to show.
                (None, None) => {}
            }
        }
        Ok(())
    }
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
            isolate(None, Leave::Pivot).unwrap();
            look_around();
            crate::sandbox::caps::drop_all().unwrap();
            look_around();
            0
        });
    }

    /// The kernel refuses to pivot a root whose parent mount is shared, as it refuses that of an initramfs.
    #[test]
    fn where_the_root_cannot_be_pivoted_chroot_does_if_it_may() {
        let name = "where_the_root_cannot_be_pivoted_chroot_does_if_it_may";
        if !geteuid().is_root() {
            println!("SKIP {name}: not root");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        for (place, file) in [("etc", "etc/passwd"), ("run", "run/x"), ("tmp", "tmp/x"), ("home", "home/x")] {
            fs::create_dir(dir.path().join(place)).unwrap();
            fs::write(dir.path().join(file), "").unwrap();
        }
        for leave in [Leave::Pivot, Leave::Chroot] {
            in_child(name, || {
                if unshare(CloneFlags::CLONE_NEWNS).is_err() {
                    return 77;
                }
                remount("/", MsFlags::MS_REC | MsFlags::MS_PRIVATE, "make / private").unwrap();
                remount("/", MsFlags::MS_SHARED, "make / shared").unwrap();
                mount(Some(dir.path()), dir.path(), NOTHING, MsFlags::MS_BIND, NOTHING).unwrap();
                chroot(dir.path()).unwrap();
                chdir("/").unwrap();
                let left = isolate_with(Path::new("/etc/resolv.conf"), leave);
                if leave == Leave::Pivot {
                    return u8::from(!left.unwrap_err().to_string().contains("pivot_root"));
                }
                left.unwrap();
                look_around();
                0
            });
        }
    }

    #[test]
    fn the_way_to_resolv_conf_stays_open() {
        let name = "the_way_to_resolv_conf_stays_open";
        if !geteuid().is_root() {
            println!("SKIP {name}: not root");
            return;
        }
        // Below /tmp, which the new root hides: a link through a linked directory to a file.
        let dir = tempfile::tempdir_in("/tmp").unwrap();
        fs::create_dir(dir.path().join("real")).unwrap();
        fs::write(dir.path().join("real/file"), "nameserver 192.0.2.1").unwrap();
        symlink("real", dir.path().join("linked")).unwrap();
        symlink("linked/file", dir.path().join("resolv.conf")).unwrap();
        let path = dir.path().join("resolv.conf");
        in_child(name, || {
            isolate_with(&path, Leave::Pivot).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), "nameserver 192.0.2.1");
            assert!(File::options().append(true).open(&path).is_err(), "read-only");
            0
        });
        // The form of older systems: /etc/resolv.conf -> /var/run/... with /var/run -> /run.
        symlink("/etc", dir.path().join("run")).unwrap();
        fs::remove_file(&path).unwrap();
        symlink("run/passwd", &path).unwrap();
        in_child(name, || {
            isolate_with(&path, Leave::Pivot).unwrap();
            assert!(fs::read(&path).is_ok(), "the linked directory is there");
            0
        });
    }

    #[test]
    fn what_is_mounted_below_run_is_read_only_too() {
        let name = "what_is_mounted_below_run_is_read_only_too";
        if !geteuid().is_root() || !Path::new("/run").is_dir() {
            println!("SKIP {name}: not root, or no /run");
            return;
        }
        in_child(name, || {
            // A namespace of its own first, so that the host sees nothing of this mount.
            unshare(CloneFlags::CLONE_NEWNS).unwrap();
            remount("/", MsFlags::MS_REC | MsFlags::MS_PRIVATE, "make / private").unwrap();
            mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), NOTHING).unwrap();
            fs::create_dir_all("/run/user/1000").unwrap();
            mount(Some("tmpfs"), "/run/user/1000", Some("tmpfs"), MsFlags::empty(), NOTHING).unwrap();
            File::create("/run/user/1000/before").unwrap();
            isolate(None, Leave::Pivot).unwrap();
            assert!(Path::new("/run/user/1000/before").exists());
            assert!(File::create("/run/user/1000/after").is_err());
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
            isolate(Some(Path::new("/proc/self/ns/user")), Leave::Pivot).unwrap();
            look_around();
            0
        });
    }
}
