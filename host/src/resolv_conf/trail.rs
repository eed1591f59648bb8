//! The way to a file: which directory entries decide where a path leads.
//!
//! `/etc/resolv.conf` is often a link, sometimes through a directory that is a link itself (`/var/run` -> `/run`).
//! Whoever wants to notice a change has to look at each entry on that way where it could turn: every link, the file at
//! the end, and the first entry that is missing. The sandbox needs the same list, to rebuild the way inside its small
//! tree.
//!
//! This is the kernel's own path walk (path_resolution(7)) spelled out, with its bound on links.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::path::{Component, Path, PathBuf};

/// As many links as the kernel follows (path_resolution(7)).
const MAX_LINKS: usize = 40;

/// One directory entry that decides where the path leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hop {
    /// The directory, free of links.
    pub directory: PathBuf,
    /// The entry's name in it.
    pub name: OsString,
    /// Where it points, if it is a symbolic link.
    pub link: Option<PathBuf>,
}

impl Hop {
    /// The entry's own path.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.directory.join(&self.name)
    }
}

/// All deciding entries of a path, in the order of the walk.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Trail {
    /// Every symbolic link, then the last entry: the file, or the first one that is missing.
    pub hops: Vec<Hop>,
    /// The file, free of links; `None` if something on the way is missing, no directory, or a loop of links.
    pub end: Option<PathBuf>,
}

impl Trail {
    /// Walks `path`, which is taken as absolute.
    #[must_use]
    pub fn of(path: &Path) -> Self {
        let mut trail = Self::default();
        let mut ahead: VecDeque<OsString> = VecDeque::new();
        let mut at = PathBuf::from("/");
        let mut links = 0;
        push_front(&mut ahead, path);
        while let Some(name) = ahead.pop_front() {
            if name == OsStr::new("..") {
                at.pop();
                continue;
            }
            let here = at.join(&name);
            // Asked in one call: a separate look at the type could meet another entry.
            if let Ok(target) = std::fs::read_link(&here) {
                links += 1;
                trail.hops.push(Hop { directory: at.clone(), name, link: Some(target.clone()) });
                if links > MAX_LINKS {
                    return trail;
                }
                if target.is_absolute() {
                    at = PathBuf::from("/");
                }
                push_front(&mut ahead, &target);
                continue;
            }
            let exists = std::fs::symlink_metadata(&here).is_ok();
            if !exists || ahead.is_empty() {
                trail.hops.push(Hop { directory: at, name, link: None });
                trail.end = exists.then_some(here);
                return trail;
            }
            at = here;
        }
        trail
    }
}

/// Puts the components of `path` in front of what is still to be walked.
fn push_front(ahead: &mut VecDeque<OsString>, path: &Path) {
    for component in path.components().rev() {
        match component {
            Component::Normal(name) => ahead.push_front(name.to_owned()),
            Component::ParentDir => ahead.push_front(OsString::from("..")),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn names(trail: &Trail) -> Vec<String> {
        trail.hops.iter().map(|hop| hop.name.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn follows_links_of_files_and_of_directories() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        std::fs::create_dir_all(root.join("run/systemd")).unwrap();
        std::fs::create_dir_all(root.join("etc")).unwrap();
        std::fs::create_dir_all(root.join("var")).unwrap();
        std::fs::write(root.join("run/systemd/stub"), b"").unwrap();
        symlink("../run", root.join("var/run")).unwrap();
        symlink("../var/./run/systemd/stub", root.join("etc/resolv.conf")).unwrap();

        let trail = Trail::of(&root.join("etc/resolv.conf"));
        assert_eq!(names(&trail), ["resolv.conf", "run", "stub"]);
        assert_eq!(trail.end, Some(root.join("run/systemd/stub")));
        assert_eq!(trail.hops[1].path(), root.join("var/run"));
        assert_eq!(trail.hops[1].link, Some(PathBuf::from("../run")));
    }

    #[test]
    fn ends_at_the_first_missing_entry() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        symlink("gone/deeper/file", root.join("link")).unwrap();
        let trail = Trail::of(&root.join("link"));
        assert_eq!(names(&trail), ["link", "gone"]);
        assert_eq!(trail.end, None);
    }

    #[test]
    fn a_loop_and_a_file_in_the_place_of_a_directory_end() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        symlink("b", root.join("a")).unwrap();
        symlink("a", root.join("b")).unwrap();
        let trail = Trail::of(&root.join("a"));
        assert_eq!(trail.hops.len(), MAX_LINKS + 1);
        assert_eq!(trail.end, None);

        std::fs::write(root.join("plain"), b"").unwrap();
        let trail = Trail::of(&root.join("plain/below"));
        assert_eq!(names(&trail), ["below"]);
        assert_eq!(trail.end, None);
    }

    #[test]
    fn the_root_has_no_parent() {
        assert_eq!(Trail::of(Path::new("/../../..")), Trail::default());
    }
}
