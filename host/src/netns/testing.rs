//! For tests: a closure in a network namespace of its own, or without privileges.

use crate::sys::proc::{fork_child, wait_for};
use nix::mount::{MsFlags, mount};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::set_dumpable;
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::sys::wait::WaitStatus;
use nix::unistd::{Gid, Pid, Uid, geteuid, setgroups, setresgid, setresuid};
use std::fs::Permissions;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::PermissionsExt as _;

/// Whoever has no rights.
pub(super) const NOBODY: (Uid, Gid) = (Uid::from_raw(65534), Gid::from_raw(65534));

/// The child's exit status when this machine gives it no namespace.
const SKIPPED: u8 = 77;

/// Runs `work` in a child with a new network namespace (and a new user namespace when not root). Fails when it panics;
/// says so and passes where no namespace is to be had.
pub(crate) fn in_new_namespace(name: &str, work: impl FnOnce()) {
    let child = fork_child(|| {
        let flags = if geteuid().is_root() {
            CloneFlags::CLONE_NEWNET
        } else {
            CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET
        };
        if unshare(flags).is_err() {
            return SKIPPED;
        }
        work();
        0
    })
    .unwrap();
    judge(name, child);
}

fn judge(name: &str, child: Pid) {
    match wait_for(child).unwrap() {
        WaitStatus::Exited(_, 0) => {}
        WaitStatus::Exited(_, status) if status == i32::from(SKIPPED) => {
            println!("SKIP {name}: this machine gives it no namespace or device");
        }
        status => panic!("{name}: {status:?}"),
    }
}

/// Runs `work` in a child whose mounts are its own. Passes over where the tests do not run as root.
pub(super) fn in_new_mounts(name: &str, work: impl FnOnce()) {
    let child = fork_child(|| {
        if unshare(CloneFlags::CLONE_NEWNS).is_err() || keep_mounts().is_err() {
            return SKIPPED;
        }
        work();
        0
    })
    .unwrap();
    judge(name, child);
}

fn keep_mounts() -> nix::Result<()> {
    const NONE: Option<&str> = None;
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)
}

/// Runs `work` in a child as [`NOBODY`], for whom there is a `/dev/net/tun` of mode 0666. Passes over where the tests do
/// not run as root.
pub(super) fn unprivileged(name: &str, work: impl FnOnce()) {
    unprivileged_with_tun(name, Some(0o666), work);
}

/// The same with another mode, or without the device.
pub(super) fn unprivileged_with_tun(name: &str, mode: Option<u32>, work: impl FnOnce()) {
    if !geteuid().is_root() {
        println!("SKIP {name}: only root can become nobody");
        return;
    }
    let child = fork_child(|| {
        if unshare(CloneFlags::CLONE_NEWNS).is_err() || device(mode).is_err() {
            return SKIPPED;
        }
        let (uid, gid) = NOBODY;
        setgroups(&[]).unwrap();
        setresgid(gid, gid, gid).unwrap();
        setresuid(uid, uid, uid).unwrap();
        // The change of user has given our /proc to root.
        set_dumpable(true).unwrap();
        work();
        0
    })
    .unwrap();
    judge(name, child);
}

/// A /dev/net of this process's own, with a `tun` of that mode.
fn device(mode: Option<u32>) -> nix::Result<()> {
    let path = "/dev/net/tun";
    keep_mounts()?;
    mount(Some("tmpfs"), "/dev/net", Some("tmpfs"), MsFlags::empty(), Some("mode=0755"))?;
    if let Some(mode) = mode {
        mknod(path, SFlag::S_IFCHR, Mode::empty(), makedev(10, 200))?;
        std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }
    Ok(())
}

/// Whether something is written to a pipe, or its other end closed, within five seconds.
pub(super) fn ended(pipe: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::new(pipe, PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::from(5000_u16)).unwrap() == 1
}
