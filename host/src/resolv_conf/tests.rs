//! The watcher against a real directory tree.

use super::*;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::os::unix::fs::symlink;

struct Tree {
    _dir: tempfile::TempDir,
    root: PathBuf,
}

impl Tree {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        std::fs::create_dir(root.join("etc")).unwrap();
        std::fs::create_dir(root.join("run")).unwrap();
        Self { _dir: dir, root }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    fn write(&self, name: &str, server: &str) {
        std::fs::write(self.path(name), format!("nameserver {server}\n")).unwrap();
    }

    fn replace(&self, name: &str, server: &str) {
        self.write("new", server);
        std::fs::rename(self.path("new"), self.path(name)).unwrap();
    }
}

/// Whether the descriptor is readable within a moment. Events are queued by the system call that makes them, so no
/// waiting is needed for those that come.
fn readable(follower: &Follower) -> bool {
    let mut fds = [PollFd::new(follower.fd().unwrap(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::ZERO).unwrap() == 1
}

fn next(follower: &mut Follower) -> Option<Vec<String>> {
    assert!(readable(follower), "no event");
    let changed = follower.on_ready().is_some();
    // A watch that was given up says so once.
    if readable(follower) {
        assert!(follower.on_ready().is_none());
    }
    assert!(!readable(follower), "events left over");
    changed.then(|| follower.nameservers().iter().map(ToString::to_string).collect())
}

fn one(server: &str) -> Option<Vec<String>> {
    Some(vec![server.to_owned()])
}

#[test]
fn written_in_place_and_replaced_by_rename() {
    let tree = Tree::new();
    tree.write("etc/resolv.conf", "192.0.2.1");
    let mut follower = Follower::open(&tree.path("etc/resolv.conf"));
    assert_eq!(follower.nameservers(), ["192.0.2.1".parse::<ZonedAddr>().unwrap()]);
    assert!(!readable(&follower), "quiet while nothing happens");

    tree.write("etc/resolv.conf", "192.0.2.2");
    assert_eq!(next(&mut follower), one("192.0.2.2"));
    tree.replace("etc/resolv.conf", "192.0.2.3");
    assert_eq!(next(&mut follower), one("192.0.2.3"));
    // The new inode is watched as well as the old one was.
    tree.write("etc/resolv.conf", "192.0.2.4");
    assert_eq!(next(&mut follower), one("192.0.2.4"));
    tree.write("etc/resolv.conf", "192.0.2.4");
    assert_eq!(next(&mut follower), None, "the same content is no change");
}

#[test]
fn unrelated_files_beside_it_do_not_count() {
    let tree = Tree::new();
    tree.write("etc/resolv.conf", "192.0.2.1");
    let mut follower = Follower::open(&tree.path("etc/resolv.conf"));
    tree.write("etc/passwd", "192.0.2.9");
    assert_eq!(next(&mut follower), None);
}

#[test]
fn created_late_and_removed() {
    let tree = Tree::new();
    let mut follower = Follower::open(&tree.path("etc/resolv.conf"));
    assert!(follower.nameservers().is_empty());
    tree.write("etc/resolv.conf", "192.0.2.1");
    assert_eq!(next(&mut follower), one("192.0.2.1"));
    std::fs::remove_file(tree.path("etc/resolv.conf")).unwrap();
    assert_eq!(next(&mut follower), Some(vec![]));
    tree.replace("etc/resolv.conf", "192.0.2.2");
    assert_eq!(next(&mut follower), one("192.0.2.2"));
}

#[test]
fn the_target_of_a_link_is_followed() {
    let tree = Tree::new();
    symlink("../run/stub.conf", tree.path("etc/resolv.conf")).unwrap();
    tree.write("run/stub.conf", "192.0.2.1");
    let mut follower = Follower::open(&tree.path("etc/resolv.conf"));
    assert_eq!(follower.nameservers().len(), 1);

    tree.replace("run/stub.conf", "192.0.2.2");
    assert_eq!(next(&mut follower), one("192.0.2.2"));

    // The link is pointed elsewhere, atomically, as `ln -sf` and systemd do.
    tree.write("run/other.conf", "192.0.2.3");
    assert_eq!(next(&mut follower), None);
    symlink(tree.path("run/other.conf"), tree.path("link")).unwrap();
    std::fs::rename(tree.path("link"), tree.path("etc/resolv.conf")).unwrap();
    assert_eq!(next(&mut follower), one("192.0.2.3"));

    // The former target no longer matters, the new one does.
    tree.write("run/stub.conf", "192.0.2.4");
    assert_eq!(next(&mut follower), None);
    tree.write("run/other.conf", "192.0.2.5");
    assert_eq!(next(&mut follower), one("192.0.2.5"));
}

#[test]
fn a_directory_on_the_way_that_appears_later() {
    let tree = Tree::new();
    symlink("../run/systemd/resolve/stub.conf", tree.path("etc/resolv.conf")).unwrap();
    let mut follower = Follower::open(&tree.path("etc/resolv.conf"));
    std::fs::create_dir_all(tree.path("run/systemd")).unwrap();
    assert_eq!(next(&mut follower), None);
    std::fs::create_dir_all(tree.path("run/systemd/resolve")).unwrap();
    tree.write("run/systemd/resolve/stub.conf", "192.0.2.1");
    assert_eq!(next(&mut follower), one("192.0.2.1"));
    std::fs::remove_dir_all(tree.path("run/systemd")).unwrap();
    assert_eq!(next(&mut follower), Some(vec![]));
    std::fs::create_dir_all(tree.path("run/systemd/resolve")).unwrap();
    tree.write("run/systemd/resolve/stub.conf", "192.0.2.2");
    assert_eq!(next(&mut follower), one("192.0.2.2"));
}

#[test]
fn strange_things_in_its_place_neither_block_nor_flood() {
    let tree = Tree::new();
    nix::unistd::mkfifo(&tree.path("etc/resolv.conf"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(Follower::open(&tree.path("etc/resolv.conf")).nameservers().is_empty());
    assert!(Follower::open(Path::new("/dev/zero")).nameservers().is_empty());
    assert!(Follower::open(&tree.path("etc")).nameservers().is_empty());
    symlink("loop", tree.path("etc/loop")).unwrap();
    assert!(Follower::open(&tree.path("etc/loop")).nameservers().is_empty());
}

#[test]
fn without_inotify_the_file_is_looked_at_on_demand() {
    let tree = Tree::new();
    tree.write("etc/resolv.conf", "192.0.2.1");
    let mut follower = Follower::open(&tree.path("etc/resolv.conf"));
    follower.watcher.inotify = None;
    assert!(follower.needs_polling());
    assert!(follower.refresh_if_changed().is_none());
    tree.replace("etc/resolv.conf", "192.0.2.2");
    assert!(follower.refresh_if_changed().is_some());
    assert!(follower.refresh_if_changed().is_none());
}
