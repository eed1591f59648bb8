//! `/etc/resolv.conf` as a command is to see it, whatever the host makes of its own meanwhile.
//!
//! Our text is a file in a tmpfs that has no name, bound over the file that `/etc/resolv.conf` leads to. Nothing else
//! of `/etc` changes, and the host's later changes there are seen. But the host may replace its file by rename, as
//! NetworkManager, systemd-resolved and VPN clients do: then the kernel takes the mount away with the file it lay on,
//! in every namespace. Or the link is pointed elsewhere. So the keeper watches both, the table of mounts and the way to
//! the file, and covers again what is there then ([`Cover::renew`]). While the host has no file there is none inside
//! either. What the command itself has mounted there, on the file or on a directory above it, is left alone.
//!
//! **The file's place.** To be bound again later it has to stay mounted in the command's namespace, where nobody meets
//! it: the tmpfs lies on a directory, and a copy of that very directory, with everything mounted in it, lies on the
//! tmpfs. A descriptor leads there.
//!
//! **Nothing to cover.** A mount needs something to lie on. Where there is no file at the start (none at all, or a link
//! into a `/run` that nobody has filled), the whole of `/etc` is covered by a tmpfs with our file in it, and everything
//! else of `/etc` bound in there as it is. Then a file of the host's that is replaced later is not seen any more;
//! directories are. What root writes beside them is lost.
//!
//! Limit: a mount namespace that the command makes of its own loses the cover when the host replaces the file, and
//! nobody lays it again there.
//!
//! Only mount(2) as of old is used: an outer container's filter may know nothing newer. Source: mount_namespaces(7),
//! proc_pid_mountinfo(5), proc_pid_fdinfo(5).

use crate::resolv_conf::trail::Trail;
use crate::resolv_conf::watch::Watcher;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::poll::{PollFd, PollFlags};
use nix::sys::stat::Mode;
use nix::unistd::geteuid;
use std::fs::{self, File, Permissions};
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

const NOTHING: Option<&str> = None;
const ETC: &str = "/etc";
const NAME: &str = "resolv.conf";
const PATH: &str = "/etc/resolv.conf";
/// Where the tmpfs may lie, rarely used ones first; two of them are needed for a moment.
const PLACES: [&str; 6] = ["/mnt", "/media", "/srv", "/tmp", "/run", "/dev/shm"];

/// The text over the host's file.
#[derive(Debug)]
pub(super) struct Cover {
    /// What is to be kept up; `None` once `/etc` itself is covered.
    file: Option<Kept>,
}

/// A file that others may replace.
#[derive(Debug)]
struct Kept {
    /// The directory with our file.
    root: OwnedFd,
    /// Tells that some mount has come or gone.
    mounts: File,
    way: Watcher,
    /// The mount that `/etc` is in.
    etc: Option<u64>,
    /// What was covered last, and the mount that its directory is in.
    last: (PathBuf, Option<u64>),
}

impl Cover {
    /// Covers the file in the mount namespace of this process, which nobody else is in yet.
    pub(super) fn lay(text: &str) -> io::Result<Self> {
        // Both watch from before the first look.
        let (way, mounts) = (Watcher::open(Path::new(PATH)), File::open("/proc/self/mountinfo"));
        let file = match Trail::of(Path::new(PATH)).end {
            Some(target) => hide(text, &target)
                .and_then(|root| bind_from(&root, &target).map(|()| root))
                .and_then(|root| {
                    Ok(Kept {
                        root,
                        mounts: mounts?,
                        way,
                        etc: mount_of(Path::new(ETC)),
                        last: placed(&target),
                    })
                }),
            None => Err(Errno::ENOENT.into()),
        };
        let file = match file {
            Ok(file) => Some(file),
            Err(error) => {
                log::debug!("{PATH} is covered with all of {ETC}: {error}");
                cover_etc(text)?;
                if geteuid().is_root() {
                    log::warn!("there is no {PATH} to cover: what the command writes into {ETC} is lost");
                }
                None
            }
        };
        Ok(Self { file })
    }

    /// What becomes ready when [`Cover::renew`] may have something to do.
    pub(super) fn wakers(&self) -> impl Iterator<Item = PollFd<'_>> {
        let mounts = self.file.iter().map(|kept| PollFd::new(kept.mounts.as_fd(), PollFlags::POLLPRI));
        let way = self.file.iter().filter_map(|kept| kept.way.fd());
        mounts.chain(way.map(|fd| PollFd::new(fd, PollFlags::POLLIN)))
    }

    /// Covers again what has come uncovered.
    pub(super) fn renew(&mut self) {
        let Some(kept) = &mut self.file else { return };
        let _ = kept.way.changed();
        // Without an end it has gone, for a moment as a rule; what comes in its place wakes us.
        let Some(target) = Trail::of(Path::new(PATH)).end else { return };
        let now = placed(&target);
        let (path, mount) = &kept.last;
        let above = mount_of(Path::new(ETC)) != kept.etc || (*path == now.0 && *mount != now.1);
        // Ours is still there, or something that the command has mounted, on the file or above it.
        if above || is_covered(&target) {
            return;
        }
        match bind_from(&kept.root, &target) {
            Ok(()) => kept.last = now,
            // Gone again.
            Err(error) if error.raw_os_error() == Some(Errno::ENOENT as i32) => {}
            Err(error) => log::warn!("the command sees the host's {PATH}: {error}"),
        }
    }
}

/// Whether something is mounted on this file: it is in another mount than its directory.
fn is_covered(file: &Path) -> bool {
    mount_of(file) != file.parent().and_then(mount_of)
}

/// A file, and the mount that its directory is in.
fn placed(file: &Path) -> (PathBuf, Option<u64>) {
    (file.to_owned(), file.parent().and_then(mount_of))
}

/// The number of the mount that something is in.
fn mount_of(path: &Path) -> Option<u64> {
    let fd = open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()).ok()?;
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).ok()?;
    info.lines().find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok())
}

/// Makes the file in a tmpfs that nobody meets; gives the directory.
fn hide(text: &str, target: &Path) -> io::Result<OwnedFd> {
    let mut usable = PLACES.iter().filter(|place| Path::new(place).is_dir() && !target.starts_with(place));
    let (place, aside) = usable.next().zip(usable.next()).ok_or(Errno::ENOENT)?;
    mount(Some(*place), *aside, NOTHING, MsFlags::MS_BIND | MsFlags::MS_REC, NOTHING)?;
    let made = tmpfs(place, "size=64k,mode=0755").and_then(|root| {
        let written = write(&root, text).and_then(|()| {
            // The copy of the directory, on top.
            Ok(mount(Some(*aside), *place, NOTHING, MsFlags::MS_MOVE, NOTHING)?)
        });
        written.map(|()| root).inspect_err(|_| take_off(place))
    });
    made.inspect_err(|_| take_off(aside))
}

/// Covers `/etc` with a tmpfs that has our file, and everything else as it was.
fn cover_etc(text: &str) -> io::Result<()> {
    let etc = directory(ETC)?;
    let entries: Vec<_> = fs::read_dir(of(&etc, ""))?.filter_map(Result::ok).collect();
    // Whoever may not write into the host's /etc may not write into this one either; root may.
    let root = tmpfs(ETC, "size=4m,mode=0555")?;
    for entry in entries.iter().filter(|entry| entry.file_name() != NAME) {
        let (from, to) = (of(&etc, entry.file_name()), Path::new(ETC).join(entry.file_name()));
        let shown = entry.file_type().and_then(|kind| {
            if kind.is_symlink() {
                return symlink(fs::read_link(&from)?, &to);
            }
            if kind.is_dir() {
                fs::create_dir(&to)?;
            } else {
                File::create(&to)?;
            }
            Ok(mount(Some(&from), &to, NOTHING, MsFlags::MS_BIND | MsFlags::MS_REC, NOTHING)?)
        });
        if let Err(error) = shown {
            log::debug!("{} is not there for the command: {error}", to.display());
            let _ = fs::remove_file(&to).or_else(|_| fs::remove_dir(&to));
        }
    }
    write(&root, text)
}

/// Mounts a tmpfs; gives its directory.
fn tmpfs(at: &str, options: &str) -> io::Result<OwnedFd> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("tmpfs"), at, Some("tmpfs"), flags, Some(options))?;
    directory(at).inspect_err(|_| take_off(at))
}

/// Takes a mount away again. What cannot be taken away stays: there is a reason to complain already.
fn take_off(at: &str) {
    let _ = umount2(at, MntFlags::MNT_DETACH);
}

fn directory(path: &str) -> io::Result<OwnedFd> {
    Ok(open(path, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?)
}

/// Writes our file into `root`.
fn write(root: &OwnedFd, text: &str) -> io::Result<()> {
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
    let mut file = File::from(openat(root, NAME, flags, Mode::from_bits_truncate(0o644))?);
    file.write_all(text.as_bytes())?;
    // Whatever our umask: it is for every user in there.
    file.set_permissions(Permissions::from_mode(0o644))
}

/// Binds our file in `root` over `target`.
fn bind_from(root: &OwnedFd, target: &Path) -> io::Result<()> {
    Ok(mount(Some(&of(root, NAME)), target, NOTHING, MsFlags::MS_BIND, NOTHING)?)
}

/// A path that leads through a descriptor, below whatever has been mounted over it since.
fn of(directory: &OwnedFd, name: impl AsRef<Path>) -> PathBuf {
    Path::new(&format!("/proc/self/fd/{}", directory.as_raw_fd())).join(name)
}

#[cfg(test)]
mod tests {
    use super::super::testing::in_new_mounts;
    use super::*;

    #[test]
    fn what_lies_on_a_file_is_noticed() {
        in_new_mounts("what_lies_on_a_file_is_noticed", || {
            let dir = tempfile::tempdir().unwrap();
            let (file, other) = (dir.path().join("file"), dir.path().join("other"));
            fs::write(&file, "below").unwrap();
            fs::write(&other, "above").unwrap();
            assert!(!is_covered(&file));
            mount(Some(&other), &file, NOTHING, MsFlags::MS_BIND, NOTHING).unwrap();
            assert!(is_covered(&file) && !is_covered(&other));
            umount2(&file, MntFlags::MNT_DETACH).unwrap();
            assert!(!is_covered(&file));
        });
    }

    #[test]
    fn the_hidden_file_can_be_bound_again_and_its_place_is_as_before() {
        in_new_mounts("the_hidden_file_can_be_bound_again_and_its_place_is_as_before", || {
            let dir = tempfile::tempdir().unwrap();
            let target = dir.path().join("resolv.conf");
            fs::write(&target, "theirs").unwrap();
            let names = |place: &str| {
                let mut names: Vec<_> =
                    fs::read_dir(place).unwrap().map(|entry| entry.unwrap().file_name()).collect();
                names.sort();
                names
            };
            let before = PLACES.map(|place| Path::new(place).is_dir().then(|| names(place)));
            let root = hide("ours", &target).unwrap();
            for _ in 0..3 {
                bind_from(&root, &target).unwrap();
                assert_eq!(fs::read_to_string(&target).unwrap(), "ours");
                umount2(&target, MntFlags::MNT_DETACH).unwrap();
                assert_eq!(fs::read_to_string(&target).unwrap(), "theirs");
            }
            for (place, before) in PLACES.iter().zip(before) {
                // Other tests have their files in /tmp, and come and go.
                if let Some(before) = before.filter(|_| *place != "/tmp") {
                    assert_eq!(names(place), before, "{place}");
                }
            }
        });
    }
}
