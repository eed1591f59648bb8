//! Signals by their number: the real-time ones have no name in `nix`, and are as good as any other.

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::Pid;
use std::io;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// With this status.
    Exited(u8),
    /// By the signal of this number.
    Signaled(i32),
}

/// The numbers of the real-time signals; the C library keeps the first few for itself.
#[must_use]
pub fn real_time() -> std::ops::RangeInclusive<i32> {
    libc::SIGRTMIN()..=libc::SIGRTMAX()
}

/// The set of these signals; a number that is none is left out.
#[must_use]
pub fn set_of(numbers: impl IntoIterator<Item = i32>) -> SigSet {
    let mut raw = core::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset fills the set that it is given.
    unsafe { libc::sigemptyset(raw.as_mut_ptr()) };
    for number in numbers {
        // SAFETY: the set was filled above; a number that is no signal is refused with EINVAL.
        unsafe { libc::sigaddset(raw.as_mut_ptr(), number) };
    }
    // SAFETY: it was filled above, and has no other form.
    unsafe { SigSet::from_sigset_t_unchecked(raw.assume_init()) }
}

/// Sends the process `pid` the signal of this number.
///
/// # Errors
/// Those of kill(2): ESRCH, EPERM; EINVAL when there is no such signal.
pub fn send(pid: Pid, number: i32) -> nix::Result<()> {
    // SAFETY: kill takes two integers.
    Errno::result(unsafe { libc::kill(pid.as_raw(), number) }).map(drop)
}

/// Sends this thread the signal of this number.
pub fn raise(number: i32) {
    // SAFETY: raise takes an integer.
    unsafe { libc::raise(number) };
}

/// Ends this process by the signal of this number, if that is what it does.
pub fn die_of(number: i32) {
    // SAFETY: SIG_DFL is no handler of ours.
    unsafe { libc::signal(number, libc::SIG_DFL) };
    let _ = set_of([number]).thread_unblock();
    raise(number);
}

/// Waits for the end of `child`.
///
/// # Errors
/// ECHILD when it is no child of ours or has been waited for already.
pub fn wait_end(child: Pid) -> io::Result<Ended> {
    loop {
        match wait(child.as_raw(), 0) {
            Err(Errno::EINTR) => {}
            // Stopped or continued children are not asked for.
            Ok(None) => {}
            Ok(Some((_, ended))) => return Ok(ended),
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Any child that has ended, without waiting. `None`: none has; ECHILD: there is none at all.
///
/// # Errors
/// Those of waitpid(2).
pub fn reap() -> io::Result<Option<(Pid, Ended)>> {
    match wait(-1, libc::WNOHANG) {
        Err(Errno::EINTR) => Ok(None),
        other => Ok(other?),
    }
}

fn wait(pid: i32, options: i32) -> nix::Result<Option<(Pid, Ended)>> {
    let mut status = 0;
    // SAFETY: the status is written to `status`, which lives until the call returns.
    let found = Errno::result(unsafe { libc::waitpid(pid, &raw mut status, options) })?;
    let ended = if libc::WIFEXITED(status) {
        Ended::Exited(u8::try_from(libc::WEXITSTATUS(status)).unwrap_or(u8::MAX))
    } else if libc::WIFSIGNALED(status) {
        Ended::Signaled(libc::WTERMSIG(status))
    } else {
        return Ok(None);
    };
    Ok((found > 0).then_some((Pid::from_raw(found), ended)))
}

/// The name of a signal, for messages.
#[must_use]
pub fn name(number: i32) -> String {
    match Signal::try_from(number) {
        Ok(signal) => signal.to_string(),
        Err(_) => format!("signal {number}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::proc::fork_child;

    #[test]
    fn real_time_signals_kill_and_are_told() {
        for number in [*real_time().start(), *real_time().end(), Signal::SIGUSR1 as i32] {
            let child = fork_child(|| {
                die_of(number);
                0
            })
            .unwrap();
            assert_eq!(wait_end(child).unwrap(), Ended::Signaled(number), "{}", name(number));
            let child = fork_child(|| {
                std::thread::sleep(std::time::Duration::from_secs(30));
                0
            })
            .unwrap();
            send(child, number).unwrap();
            assert_eq!(wait_end(child).unwrap(), Ended::Signaled(number));
            assert_eq!(send(child, number), Err(Errno::ESRCH));
        }
        assert_eq!(send(Pid::this(), 255), Err(Errno::EINVAL));
    }

    #[test]
    fn a_status_is_told() {
        let child = fork_child(|| 7).unwrap();
        assert_eq!(wait_end(child).unwrap(), Ended::Exited(7));
        assert_eq!(wait_end(child).unwrap_err().raw_os_error(), Some(Errno::ECHILD as i32));
    }

    #[test]
    fn whoever_has_ended_is_found() {
        // In a process of its own: the other tests of this one have children too.
        let judge = fork_child(|| {
            assert_eq!(reap().unwrap_err().raw_os_error(), Some(Errno::ECHILD as i32));
            let child = fork_child(|| {
                std::thread::sleep(std::time::Duration::from_secs(30));
                0
            })
            .unwrap();
            assert_eq!(reap().unwrap(), None);
            send(child, libc::SIGKILL).unwrap();
            while reap().unwrap() != Some((child, Ended::Signaled(libc::SIGKILL))) {}
            0
        })
        .unwrap();
        assert_eq!(wait_end(judge).unwrap(), Ended::Exited(0));
    }

    #[test]
    fn sets_hold_real_time_signals() {
        let last = *real_time().end();
        let before = SigSet::thread_get_mask().unwrap();
        set_of([last, 0, 1000]).thread_block().unwrap();
        // Blocked, so that it does not kill.
        send(Pid::this(), 0).unwrap();
        before.thread_set_mask().unwrap();
        assert!(set_of([Signal::SIGINT as i32]).contains(Signal::SIGINT));
    }
}
