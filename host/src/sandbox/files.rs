//! Stage: files. By Landlock, the process opens, makes and removes files in the places that it names, and nowhere else.
//!
//! For programs that live long beside others: their files may be replaced, directories and mounts come and go, and here
//! that goes on as before. The stage [`super::mounts`] shows a picture of the moment in which it was taken, and keeps
//! what is mounted in it busy; it is for those that live as long as one container. Source: landlock(7).
//!
//! Along with files go some things that a program in here has no business with either: abstract Unix sockets and
//! signals of processes outside (Linux 6.12), and every process outside is as if it were another user's to ptrace(2).
//!
//! Limits. A kernel without Landlock (before 5.13, or switched off) leaves the files in sight; that is told in the log,
//! and the other stages have to do. stat(2) and what is open already are not concerned, nor, on kernels of today, Unix
//! sockets that have a path.

use super::SandboxError;
use landlock::{
    ABI, Access as _, AccessFs, BitFlags, CompatLevel, Compatible as _, PathBeneath, PathFd, Ruleset,
    RulesetAttr as _, RulesetCreated, RulesetCreatedAttr as _, RulesetStatus, Scope, make_bitflags,
};
use std::io;
use std::path::{Path, PathBuf};

/// The newest rights that this was tested with; a kernel that knows fewer enforces those.
const TESTED: ABI = ABI::V7;

/// A place, and what may be done beneath it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    path: PathBuf,
    rights: BitFlags<AccessFs>,
}

impl Place {
    /// Files are read there, directories listed.
    #[must_use]
    pub fn read(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), rights: make_bitflags!(AccessFs::{ReadFile | ReadDir}) }
    }

    /// Files are made, written, replaced and removed there as well.
    #[must_use]
    pub fn write(path: impl Into<PathBuf>) -> Self {
        let write = make_bitflags!(AccessFs::{WriteFile | Truncate | MakeReg | RemoveFile});
        let read = Self::read(path);
        Self { rights: read.rights | write, ..read }
    }

    /// A device, which is opened for what it is there for.
    #[must_use]
    pub fn device(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), rights: make_bitflags!(AccessFs::{ReadFile | WriteFile | IoctlDev}) }
    }

    /// Sockets are made there, and removed; by the kernel's book, so is whatever else is no directory.
    #[must_use]
    pub fn sockets(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), rights: make_bitflags!(AccessFs::{MakeSock | RemoveFile}) }
    }

    /// What is no directory is removed there, and nothing is looked at.
    #[must_use]
    pub fn removal(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), rights: AccessFs::RemoveFile.into() }
    }
}

/// Where `resolv.conf` may be, now and when it is replaced: what [`super::mounts`] keeps in sight, and the directories
/// that its links lead through.
#[must_use]
pub fn of_resolv_conf(path: &Path) -> Vec<Place> {
    let trail = crate::resolv_conf::trail::Trail::of(path);
    let hops = trail.hops.into_iter().map(|hop| hop.directory);
    // A link in / would lay everything open.
    let beyond = hops.filter(|directory| directory.parent().is_some());
    ["/etc".into(), "/run".into()].into_iter().chain(beyond).map(Place::read).collect()
}

/// Leaves the process these places. One that is not there is passed over.
///
/// What the kernel cannot do is told in the log and no error.
///
/// # Errors
/// When the kernel knows Landlock and fails all the same.
pub fn keep(places: &[Place]) -> Result<(), SandboxError> {
    let failed = |error: &dyn std::fmt::Display| {
        SandboxError::new("leave the files", io::Error::other(error.to_string()))
    };
    let status = ruleset()
        .and_then(|ruleset| places.iter().try_fold(ruleset, admit))
        .and_then(RulesetCreated::restrict_self)
        .map_err(|error| failed(&error))?;
    match status.ruleset {
        RulesetStatus::FullyEnforced => {}
        RulesetStatus::PartiallyEnforced => {
            log::debug!("this kernel's Landlock knows less than was asked for");
        }
        RulesetStatus::NotEnforced => log::debug!("files stay in sight: this kernel has no Landlock"),
    }
    Ok(())
}

fn ruleset() -> Result<RulesetCreated, landlock::RulesetError> {
    Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(TESTED))?
        .scope(Scope::from_all(TESTED))?
        .create()
}

fn admit(ruleset: RulesetCreated, place: &Place) -> Result<RulesetCreated, landlock::RulesetError> {
    match PathFd::new(&place.path) {
        Ok(fd) => ruleset.add_rule(PathBeneath::new(fd, place.rights)),
        Err(error) => {
            log::debug!("no place of files: {error}");
            Ok(ruleset)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::proc::{fork_child, wait_for};
    use nix::sys::wait::WaitStatus;
    use std::fs;

    /// `work` in a process with these places; a skip where the kernel has no Landlock.
    fn in_child(test: &str, places: &[Place], work: impl FnOnce()) {
        if crate::sys::landlock::version().is_err() {
            println!("SKIP {test}: this kernel has no Landlock");
            return;
        }
        let child = fork_child(|| {
            keep(places).unwrap();
            assert!(fs::read_dir("/usr/bin").is_err());
            work();
            0
        });
        let status = wait_for(child.unwrap()).unwrap();
        assert!(matches!(status, WaitStatus::Exited(_, 0)), "{status:?}");
    }

    #[test]
    fn what_is_elsewhere_is_neither_read_nor_written() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for name in ["mine", "shown", "hidden"] {
            fs::create_dir(at(name)).unwrap();
            fs::write(at(name).join("file"), name).unwrap();
        }
        let places = [Place::write(at("mine")), Place::read(at("shown")), Place::read(at("missing"))];
        in_child("what_is_elsewhere_is_neither_read_nor_written", &places, || {
            let denied = |result: io::Result<()>| {
                assert_eq!(result.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
            };
            fs::write(at("mine/fresh"), "replaced").unwrap();
            fs::rename(at("mine/fresh"), at("mine/file")).unwrap();
            assert_eq!(fs::read(at("mine/file")).unwrap(), b"replaced");
            fs::remove_file(at("mine/file")).unwrap();
            assert_eq!(fs::read(at("shown/file")).unwrap(), b"shown");
            assert_eq!(fs::read_dir(at("shown")).unwrap().count(), 1);
            denied(fs::write(at("shown/file"), "x"));
            denied(fs::remove_file(at("shown/file")));
            denied(fs::read(at("hidden/file")).map(drop));
            denied(fs::read_dir(at("hidden")).map(drop));
            denied(fs::create_dir(at("mine/directory")));
            denied(nix::unistd::execv(c"/bin/true", &[c"true"]).map(drop).map_err(io::Error::from));
        });
        assert_eq!(fs::read(at("shown/file")).unwrap(), b"shown");
    }

    #[test]
    fn a_replaced_resolv_conf_is_read_wherever_its_links_lead() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("resolv.conf");
        fs::create_dir(dir.path().join("far")).unwrap();
        fs::write(dir.path().join("far/text"), "first").unwrap();
        std::os::unix::fs::symlink("far/text", &path).unwrap();
        let places = of_resolv_conf(&path);
        let (ready, told) = nix::unistd::pipe().unwrap();
        let child = fork_child(|| {
            keep(&places).unwrap();
            nix::unistd::write(&told, b"1").unwrap();
            for _ in 0..2000 {
                if fs::read(&path).unwrap() == b"second" {
                    return 0;
                }
                std::thread::sleep(std::time::Duration::from_millis(2));
            }
            1
        });
        nix::unistd::read(&ready, &mut [0]).unwrap();
        fs::write(dir.path().join("far/new"), "second").unwrap();
        fs::rename(dir.path().join("far/new"), dir.path().join("far/text")).unwrap();
        assert!(matches!(wait_for(child.unwrap()).unwrap(), WaitStatus::Exited(_, 0)));
        let root = of_resolv_conf(Path::new("/no-such-entry"));
        assert_eq!(root, [Place::read("/etc"), Place::read("/run")], "not all of the file system");
    }
}
