//! For tests: a closure in a network namespace of its own, or without privileges.

use crate::sys::proc::{fork_child, wait_for};
use crate::sys::tun;
use nix::mount::{MsFlags, mount};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::set_dumpable;
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::sys::wait::WaitStatus;
use nix::unistd::{Gid, Pid, Uid, geteuid, setgroups, setresgid, setresuid};
use std::fs::Permissions;
use std::net::{Ipv6Addr, UdpSocket};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// Whoever has no rights.
pub(super) const NOBODY: (Uid, Gid) = (Uid::from_raw(65534), Gid::from_raw(65534));

/// What a machine may lack, as exit statuses of the child.
const NO_NAMESPACE: u8 = 77;
const NO_DEVICE: u8 = 78;
const NO_DRIVER: u8 = 79;

/// The words for it.
const LACKS: [(u8, &str); 3] = [
    (NO_NAMESPACE, "no namespace may be made here"),
    (NO_DEVICE, "no device may be made here, which needs CAP_MKNOD and a /dev/net"),
    (NO_DRIVER, "this machine lets nobody open /dev/net/tun (modprobe tun)"),
];

/// Whether TAPs can be made here by somebody with the right to; says so when not.
pub(crate) fn has_tun(name: &str) -> bool {
    match tun::open_device(Path::new(tun::DEVICE)) {
        Ok(_) => true,
        Err(error) => {
            println!("SKIP {name}: no TAP can be made here: {error}");
            false
        }
    }
}

/// Whether the kernel has sockets of IPv6; says so when not. New namespaces have its addresses even where they are
/// switched off in this one.
pub(crate) fn has_ipv6(name: &str) -> bool {
    match UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)) {
        Ok(_) => true,
        Err(error) => {
            println!("SKIP {name}: nothing over IPv6 on this machine: {error}");
            false
        }
    }
}

/// Runs `work`, which makes TAPs, as [`in_new_namespace`] does.
pub(crate) fn with_tun(name: &str, work: impl FnOnce()) {
    if has_tun(name) {
        in_new_namespace(name, work);
    }
}

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
            return NO_NAMESPACE;
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
        WaitStatus::Exited(_, status) => {
            let lack = LACKS.iter().find(|(lack, _)| i32::from(*lack) == status);
            let (_, words) = lack.unwrap_or_else(|| panic!("{name}: exit status {status}"));
            println!("SKIP {name}: {words}");
        }
        status => panic!("{name}: {status:?}"),
    }
}

/// Runs `work` in a child whose mounts are its own. Passes over where the tests do not run as root.
pub(super) fn in_new_mounts(name: &str, work: impl FnOnce()) {
    let child = fork_child(|| {
        if unshare(CloneFlags::CLONE_NEWNS).is_err() || keep_mounts().is_err() {
            return NO_NAMESPACE;
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

/// Runs `work` in a child as [`NOBODY`], for whom there is a `/dev/net/tun` of mode 0666. Passes over where the tests
/// do not run as root.
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
        if unshare(CloneFlags::CLONE_NEWNS).is_err() {
            return NO_NAMESPACE;
        }
        if device(mode).is_err() {
            return NO_DEVICE;
        }
        if mode == Some(0o666) && tun::open_device(Path::new(tun::DEVICE)).is_err() {
            return NO_DRIVER;
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

/// Whether something is written to a pipe, or its other end closed, within half a minute.
pub(super) fn ended(pipe: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::new(pipe, PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::from(30_000_u16)).unwrap() == 1
}
