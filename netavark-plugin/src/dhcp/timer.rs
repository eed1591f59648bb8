//! The clock of leases, which goes on while the machine sleeps (CLOCK_BOOTTIME): a server's does, too.

use super::async_fd;
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::time::clock_gettime;
use slipway_netstack::Instant;
use std::io;
use std::time::Duration;

/// Now.
///
/// # Errors
/// None on a kernel that can run this (Linux 2.6.39).
pub(super) fn now() -> io::Result<Instant> {
    let since_boot = Duration::from(clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME)?);
    Ok(Instant::ZERO + since_boot)
}

/// Waits until `deadline`; for ever without one.
///
/// # Errors
/// When there is no descriptor left for a timer.
pub(super) async fn until(deadline: Option<Instant>) -> io::Result<()> {
    let Some(deadline) = deadline else { return std::future::pending().await };
    let left = deadline.since(now()?);
    if left.is_zero() {
        return Ok(());
    }
    let timer = TimerFd::new(ClockId::CLOCK_BOOTTIME, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)?;
    timer.set(Expiration::OneShot(TimeSpec::from_duration(left)), TimerSetTimeFlags::empty())?;
    async_fd::watch(timer.into())?.readable().await?.retain_ready();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_met_and_not_before() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let start = now().unwrap();
            until(Some(start)).await.unwrap();
            until(Some(start + Duration::from_millis(20))).await.unwrap();
            assert!(now().unwrap().since(start) >= Duration::from_millis(20));
        });
    }
}
