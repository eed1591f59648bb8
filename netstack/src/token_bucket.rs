//! A token bucket: so many events at once, and one more per interval after that.
//!
//! Used where the protocol asks for a limit on what we send of our own accord: ICMP errors, router advertisements.
//! Integer arithmetic on the time that an event "costs" (the generic cell rate algorithm): no tick, no drift.

use crate::clock::Instant;
use core::time::Duration;

/// A limit on how often something happens.
#[derive(Debug, Clone, Copy)]
pub struct TokenBucket {
    interval: Duration,
    /// How far the debt may run ahead of the clock: the burst, as time.
    depth: Duration,
    /// When all tokens will be back.
    full_at: Instant,
}

impl TokenBucket {
    /// A full bucket of `burst` tokens (at least 1) that gains one per `interval`.
    #[must_use]
    pub fn new(burst: u32, interval: Duration) -> Self {
        Self { interval, depth: interval.saturating_mul(burst.max(1) - 1), full_at: Instant::ZERO }
    }

    /// When the next token can be had; never before `now`.
    #[must_use]
    pub fn ready_at(&self, now: Instant) -> Instant {
        let wait = self.full_at.since(now).saturating_sub(self.depth);
        now + wait
    }

    /// Takes a token; `false` if there is none.
    #[must_use]
    pub fn take(&mut self, now: Instant) -> bool {
        if self.ready_at(now) > now {
            return false;
        }
        self.full_at = self.full_at.max(now) + self.interval;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::from_micros(millis * 1000)
    }

    #[test]
    fn a_burst_then_one_per_interval() {
        let mut bucket = TokenBucket::new(3, Duration::from_millis(100));
        for _ in 0..3 {
            assert!(bucket.take(at(1000)));
        }
        assert!(!bucket.take(at(1000)));
        assert_eq!(bucket.ready_at(at(1000)), at(1100));
        assert!(!bucket.take(at(1099)));
        assert!(bucket.take(at(1100)));
        assert!(!bucket.take(at(1100)));
    }

    #[test]
    fn idle_time_refills_no_more_than_the_burst() {
        let mut bucket = TokenBucket::new(2, Duration::from_millis(100));
        assert!(bucket.take(at(0)));
        let taken = (0..10).filter(|_| bucket.take(at(1_000_000))).count();
        assert_eq!(taken, 2);
    }

    #[test]
    fn in_the_long_run_the_rate_holds() {
        let mut bucket = TokenBucket::new(5, Duration::from_millis(10));
        let taken = (0..10_000).filter(|&ms| bucket.take(at(ms))).count();
        assert!((1000..=1005).contains(&taken), "{taken}");
    }
}
