//! Time that calls to connect() may take.
//!
//! Such a call takes microseconds, but milliseconds when the kernel must search through ports that are nearly all
//! taken, and nothing else is carried meanwhile. So in one round of the event loop [`MOST`] is spent on them, and half
//! of the time in the long run: a call that took longer is worked off before the next one. It is others that it is kept
//! for: a look at the sockets that finds nothing to do for anybody makes up for everything.

use slipway_netstack::Instant;
use std::time::Duration;

/// In one round.
const MOST: Duration = Duration::from_millis(1);
/// Of the time that passes, one part in so many is for connect().
const PART: u32 = 2;

/// What is left.
#[derive(Debug)]
pub(super) struct Allowance {
    left: Duration,
    /// Spent beyond what there was.
    debt: Duration,
    counted: Instant,
}

impl Default for Allowance {
    fn default() -> Self {
        Self { left: MOST, debt: Duration::ZERO, counted: Instant::ZERO }
    }
}

impl Allowance {
    /// Time has passed.
    pub(super) fn begin_round(&mut self, now: Instant) {
        let mut earned = (now - self.counted) / PART;
        self.counted = now;
        let paid = earned.min(self.debt);
        self.debt -= paid;
        earned -= paid;
        self.left = self.left.saturating_add(earned).min(MOST);
    }

    /// Nobody has anything to do.
    pub(super) const fn begin_anew(&mut self) {
        (self.left, self.debt) = (MOST, Duration::ZERO);
    }

    /// Whether there is some.
    pub(super) const fn is_left(&self) -> bool {
        !self.left.is_zero()
    }

    /// A call has taken so long.
    pub(super) fn spend(&mut self, time: Duration) {
        self.debt += time.saturating_sub(self.left);
        self.left = self.left.saturating_sub(time);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(micros: u64) -> Instant {
        Instant::from_micros(micros)
    }

    const fn micros(micros: u64) -> Duration {
        Duration::from_micros(micros)
    }

    #[test]
    fn a_round_has_a_millisecond() {
        let mut time = Allowance::default();
        let mut calls = 0;
        while time.is_left() {
            time.spend(micros(20));
            calls += 1;
        }
        assert_eq!(calls, 50);
        time.begin_round(at(1_000_000));
        time.begin_round(at(9_000_000));
        assert_eq!((time.left, time.debt), (MOST, Duration::ZERO), "what is not spent is not saved up");
    }

    #[test]
    fn a_long_call_is_worked_off() {
        let mut time = Allowance::default();
        time.spend(micros(6000));
        assert!(!time.is_left());
        time.begin_round(at(10_000));
        assert!(!time.is_left(), "half of it");
        time.begin_round(at(10_002));
        assert!(time.is_left());
    }

    #[test]
    fn time_that_nobody_wants_is_not_waited_out() {
        let mut time = Allowance::default();
        time.spend(micros(6000));
        time.begin_anew();
        assert!(time.is_left());
        time.spend(micros(900));
        time.spend(micros(900));
        assert_eq!((time.left, time.debt), (Duration::ZERO, micros(800)));
    }
}
