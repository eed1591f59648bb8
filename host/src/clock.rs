//! The real clock behind the engine's time: CLOCK_MONOTONIC, counted from this process's first use of it.
//!
//! Nothing that decides asks the operating system for the time elsewhere. One call costs some 25 ns (vDSO), and the
//! event loop makes one for each round, not one for each packet. The time of day is for eyes alone: [`LocalTime`] for
//! lines of the log, and what a capture (`pcap.rs`) is stamped with.

use crate::sys;
use slipway_netstack::Instant;
use std::sync::OnceLock;
use std::time::Duration;

/// The first moment is not zero: a TCP timestamp of zero reads as "none" to some peers.
const FIRST: Duration = Duration::from_secs(1);

static ORIGIN: OnceLock<std::time::Instant> = OnceLock::new();

/// Now. Never earlier than what an earlier call said.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is where time comes from")]
pub fn now() -> Instant {
    let origin = ORIGIN.get_or_init(std::time::Instant::now);
    Instant::ZERO + FIRST + origin.elapsed()
}

/// Now, by a clock that goes on while the machine sleeps (CLOCK_BOOTTIME): for what others count along, such as leases.
/// Its moments and those of [`now`] have nothing to do with each other.
#[must_use]
pub fn boot() -> Instant {
    let since_boot = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME);
    // Every kernel that can run this has the clock (Linux 2.6.39).
    since_boot.map_or_else(|_| now(), |since| Instant::ZERO + Duration::from(since))
}

/// Day and time where the machine stands, as log lines have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalTime {
    /// 0 is January.
    pub month: u8,
    /// 1 to 31.
    pub day: u8,
    /// 0 to 23.
    pub hour: u8,
    /// 0 to 59.
    pub minute: u8,
    /// 0 to 60.
    pub second: u8,
}

impl LocalTime {
    /// Now. A clock that stands before 1970 counts as 1970.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is where time comes from")]
    pub fn now() -> Self {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let seconds = i64::try_from(since.as_secs()).unwrap_or(0);
        let [month, day, hour, minute, second] = sys::local_time::split(seconds)
            .unwrap_or([0, 1, 0, 0, 0])
            .map(|part| u8::try_from(part).unwrap_or(0));
        Self { month, day, hour, minute, second }
    }
}

/// The wall clock: for moments that are written down for people, never for durations.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is where time comes from")]
pub fn since_1970() -> Duration {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_later_than_the_day_this_was_written() {
        assert!(since_1970() > Duration::from_secs(1_767_225_600));
    }

    #[test]
    fn the_clock_of_leases_does_not_run_back() {
        let first = boot();
        std::thread::sleep(Duration::from_millis(2));
        assert!(boot().since(first) >= Duration::from_millis(2));
    }

    #[test]
    fn local_time_is_within_its_bounds() {
        let LocalTime { month, day, hour, minute, second } = LocalTime::now();
        assert!(month < 12 && (1..=31).contains(&day) && hour < 24 && minute < 60 && second <= 60);
    }

    #[test]
    fn time_starts_above_zero_and_never_runs_back() {
        let first = now();
        assert!(first >= Instant::ZERO + FIRST);
        let mut last = first;
        for _ in 0..1000 {
            let next = now();
            assert!(next >= last);
            last = next;
        }
    }
}
