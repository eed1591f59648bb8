//! For tests: a closure in a network namespace of its own.

use crate::sys::proc::{fork_child, wait_for};
use nix::sched::{CloneFlags, unshare};
use nix::sys::wait::WaitStatus;

/// The child's exit status when this machine gives it no namespace.
const SKIPPED: u8 = 77;

/// Runs `work` in a child with a new network namespace (and a new user namespace when not root). Fails when it panics;
/// says so and passes where no namespace is to be had.
pub(crate) fn in_new_namespace(name: &str, work: impl FnOnce()) {
    let child = fork_child(|| {
        let flags = if nix::unistd::geteuid().is_root() {
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
    match wait_for(child).unwrap() {
        WaitStatus::Exited(_, 0) => {}
        WaitStatus::Exited(_, status) if status == i32::from(SKIPPED) => {
            println!("SKIP {name}: no network namespace may be made here");
        }
        status => panic!("{name}: {status:?}"),
    }
}
