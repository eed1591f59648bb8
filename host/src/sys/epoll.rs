//! epoll_pwait2: an epoll wait with nanoseconds, for which libc and `nix` have no wrapper.

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollEvent};
use slipway_netstack::surely::Surely;
use std::os::fd::AsRawFd;
use std::time::Duration;

/// Waits at most `timeout` (`None`: for ever) and returns how many `events` were written.
pub(crate) fn wait(
    epoll: &Epoll,
    events: &mut [EpollEvent],
    timeout: Option<Duration>,
) -> Result<usize, Errno> {
    // The kernel reads a `struct __kernel_timespec`: two 64-bit fields on every architecture.
    let spec: Option<[i64; 2]> =
        timeout.map(|t| [i64::try_from(t.as_secs()).unwrap_or(i64::MAX), i64::from(t.subsec_nanos())]);
    let spec_ptr = spec.as_ref().map_or(std::ptr::null(), |spec| spec.as_ptr());
    let room = i32::try_from(events.len()).unwrap_or(i32::MAX);
    // SAFETY: `events` is a live, exclusively borrowed array of at least `room` elements of the kernel's
    // `struct epoll_event` (EpollEvent is transparent over it); `spec_ptr` is null or points to `spec`, which
    // outlives the call; a null signal mask is allowed and its size then ignored.
    let found = unsafe {
        libc::syscall(
            libc::SYS_epoll_pwait2,
            epoll.0.as_raw_fd(),
            events.as_mut_ptr(),
            room,
            spec_ptr,
            std::ptr::null::<libc::sigset_t>(),
            0usize,
        )
    };
    Errno::result(found).map(|found| usize::try_from(found).surely())
}
