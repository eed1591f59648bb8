//! Processes: a child that runs a closure, and descriptors that stand for processes.
//!
//! setns(2) and unshare(2) into a user namespace refuse a process with several threads, and change the whole
//! process when they succeed. So that work is always done in a child, which has exactly one thread.

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The exit status of a child whose closure panicked.
const PANICKED: u8 = 101;

/// Forks; the child runs `work` and exits with what it returns, without running the parent's destructors or exit
/// handlers. Nothing buffered is flushed twice.
///
/// Call it before starting threads: in the child only the calling thread lives on, so a lock that another thread held
/// at that moment stays locked there for ever. (The allocator's locks are an exception: glibc and musl
/// make them usable again.)
///
/// # Errors
/// Those of fork(2).
pub fn fork_child(work: impl FnOnce() -> u8) -> io::Result<Pid> {
    // SAFETY: the child runs on with a copy of our memory. With one thread that is unconditionally sound. With several,
    // no memory-safety rule is broken either: locks of other threads stay locked, which can only make the child wait.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => {
            let status = catch_unwind(AssertUnwindSafe(work)).unwrap_or(PANICKED);
            exit_now(status)
        }
    }
}

/// Ends this process without exit handlers.
pub fn exit_now(status: u8) -> ! {
    // SAFETY: _exit takes an integer and never returns; it runs no code of ours.
    unsafe { libc::_exit(libc::c_int::from(status)) }
}

/// Waits for the end of `child`, however long it takes.
///
/// # Errors
/// ECHILD when it is no child of ours or has been waited for already.
pub fn wait_for(child: Pid) -> io::Result<WaitStatus> {
    loop {
        match waitpid(child, None) {
            Err(Errno::EINTR) => {}
            Ok(status @ (WaitStatus::Exited(..) | WaitStatus::Signaled(..))) => return Ok(status),
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// A descriptor for the process `pid`, readable when it has ended (Linux 5.3).
///
/// # Errors
/// ESRCH when there is no such process; ENOSYS on older kernels.
pub fn pidfd_open(pid: Pid) -> io::Result<OwnedFd> {
    // SAFETY: pidfd_open takes two integers and returns a new descriptor or -1.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
    let fd = Errno::result(fd)?;
    let fd = i32::try_from(fd).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just made this descriptor for us (it sets close-on-exec by itself).
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Gives `signal` its default effect again, which exec keeps.
///
/// # Errors
/// EINVAL for SIGKILL and SIGSTOP.
pub fn default_signal(signal: Signal) -> io::Result<()> {
    // SAFETY: the default action runs no code of ours.
    unsafe { nix::sys::signal::signal(signal, nix::sys::signal::SigHandler::SigDfl) }?;
    Ok(())
}

/// Closes every descriptor above the standard streams but `kept`: what a parent forgot to mark close-on-exec. For the
/// beginning of a program's `main` only; a descriptor that some value owns by then would be closed under it.
///
/// # Errors
/// When neither close_range(2) (Linux 5.9) nor /proc is there.
pub fn close_inherited(kept: Option<RawFd>) -> io::Result<()> {
    let kept = kept.and_then(|kept| u32::try_from(kept).ok()).filter(|kept| *kept > 2);
    let close = |first: u32, last: u32| {
        // SAFETY: no memory is touched. Nothing that has been opened by this process exists yet, so no owner of a
        // descriptor is cheated; that is what the caller is told to see to.
        first > last || unsafe { libc::syscall(libc::SYS_close_range, first, last, 0_u32) } == 0
    };
    let done = match kept {
        None => close(3, u32::MAX),
        Some(kept) => close(3, kept - 1) && close(kept.saturating_add(1), u32::MAX),
    };
    if done {
        return Ok(());
    }
    let open: Vec<i32> = std::fs::read_dir("/proc/self/fd")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|&number| number > 2 && u32::try_from(number).ok() != kept)
        .collect();
    for number in open {
        // SAFETY: as above. The directory's own descriptor is closed already: EBADF, which is no matter.
        unsafe { libc::close(number) };
    }
    Ok(())
}

/// How many threads this process has.
///
/// # Errors
/// When /proc cannot be read.
pub fn thread_count() -> io::Result<usize> {
    Ok(std::fs::read_dir("/proc/self/task")?.count())
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use nix::sys::signal::kill;
    use std::os::fd::AsFd;

    #[test]
    fn a_child_runs_its_closure_and_returns_its_status() {
        let child = fork_child(|| 7).unwrap();
        assert_eq!(wait_for(child).unwrap(), WaitStatus::Exited(child, 7));
        assert!(wait_for(child).is_err());
    }

    #[test]
    fn a_panic_ends_the_child_alone() {
        let child = fork_child(|| {
            std::panic::set_hook(Box::new(|_| {}));
            panic!("on purpose")
        })
        .unwrap();
        assert_eq!(wait_for(child).unwrap(), WaitStatus::Exited(child, i32::from(PANICKED)));
    }

    #[test]
    fn a_pidfd_tells_the_end() {
        let child = fork_child(|| {
            default_signal(Signal::SIGTERM).unwrap();
            std::thread::sleep(std::time::Duration::from_secs(30));
            0
        })
        .unwrap();
        let pidfd = pidfd_open(child).unwrap();
        let mut fds = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut fds, PollTimeout::ZERO).unwrap(), 0);
        kill(child, Signal::SIGTERM).unwrap();
        let mut fds = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut fds, PollTimeout::from(5000_u16)).unwrap(), 1);
        assert_eq!(wait_for(child).unwrap(), WaitStatus::Signaled(child, Signal::SIGTERM, false));
        assert!(pidfd_open(child).is_err());
    }

    #[test]
    fn inherited_descriptors_are_closed() {
        for keep in [false, true] {
            let child = fork_child(|| {
                let open = || std::mem::ManuallyDrop::new(std::fs::File::open("/dev/null").unwrap());
                let is_open = |fd| nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_GETFD).is_ok();
                let files = [open(), open(), open()];
                let kept = keep.then(|| std::os::fd::AsRawFd::as_raw_fd(&*files[1]));
                close_inherited(kept).unwrap();
                u8::from(files.each_ref().map(|file| is_open(file.as_fd())) != [false, keep, false])
            });
            let child = child.unwrap();
            assert_eq!(wait_for(child).unwrap(), WaitStatus::Exited(child, 0), "{keep}");
        }
    }

    #[test]
    fn there_is_at_least_one_thread() {
        assert!(thread_count().unwrap() >= 1);
    }
}
