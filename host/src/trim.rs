//! When memory that was given up goes back to the system.
//!
//! The heap keeps what is freed, and can give back by itself only what lies at its end; after three hundred uploads
//! that nobody read, or thousands of connections, a program of three megabytes would stay at a hundred for good. Asking
//! the heap to give everything back costs a walk over all of it, and the pages are paid for again when they are needed
//! again: so it is done after a large release only, and when the memory has not been wanted again for a second.

use slipway_netstack::Instant;
use std::time::Duration;

/// A release that is worth it, in bytes.
const WORTH: usize = 4 << 20;
/// How long it must have been over: uploads fill and empty their buffers many times a second.
const CALM: Duration = Duration::from_secs(1);

/// Watches how much memory is in use.
#[derive(Debug, Default)]
pub(crate) struct Trim {
    /// The most that was in use since the heap was trimmed.
    high: usize,
    /// Since when much less is.
    low_since: Option<Instant>,
}

impl Trim {
    /// `used` bytes are in use. Says whether to trim the heap now.
    pub(crate) fn is_due(&mut self, now: Instant, used: usize) -> bool {
        if used.saturating_add(WORTH) > self.high {
            self.high = self.high.max(used);
            self.low_since = None;
            return false;
        }
        if now - *self.low_since.get_or_insert(now) < CALM {
            return false;
        }
        *self = Self { high: used, low_since: None };
        true
    }

    /// When to ask again, if nothing happens before.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.low_since.map(|since| since + CALM)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const M: usize = 1 << 20;

    fn at(ms: u64) -> Instant {
        Instant::from_micros(ms * 1000)
    }

    #[test]
    fn after_a_large_release_and_a_second_of_calm_the_heap_is_trimmed_once() {
        let mut trim = Trim::default();
        assert!(!trim.is_due(at(0), 3 * M) && trim.deadline().is_none());
        assert!(!trim.is_due(at(5000), 0) && trim.deadline().is_none(), "too little");
        assert!(!trim.is_due(at(6000), 100 * M));
        assert!(!trim.is_due(at(7000), 10 * M));
        assert_eq!(trim.deadline(), Some(at(8000)));
        assert!(!trim.is_due(at(7999), 5 * M));
        assert!(trim.is_due(at(8000), 5 * M));
        assert!(!trim.is_due(at(20_000), 4 * M) && trim.deadline().is_none());
        assert!(!trim.is_due(at(30_000), M));
        assert!(trim.is_due(at(31_000), M), "what was left is a release, too");
    }

    #[test]
    fn memory_that_comes_and_goes_is_kept() {
        let mut trim = Trim::default();
        for n in 0..100 {
            assert!(!trim.is_due(at(n * 900), if n % 2 == 0 { 50 * M } else { 0 }));
        }
    }
}
