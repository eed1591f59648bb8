//! A bound on log lines: a burst goes through, a flood is counted and summed up in one line.

use slipway_netstack::Instant;
use std::time::Duration;

/// Lines per [`WINDOW`].
pub const BURST: u32 = 50;
/// The same for somebody who has asked for more than is said by itself: enough for a start and a busy guest, and a log
/// that grows by less than 100 KiB a second whatever the guest does.
pub const LARGE_BURST: u32 = 5000;
/// How long a count lasts.
pub const WINDOW: Duration = Duration::from_secs(10);

/// What has been written in this window.
#[derive(Debug)]
pub struct Limit {
    burst: u32,
    since: Instant,
    lines: u32,
}

/// What becomes of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is written.
    Write,
    /// It is written after saying how many were left out.
    WriteAfter(u32),
    /// It is counted.
    Drop,
}

impl Limit {
    /// Nothing written yet.
    #[must_use]
    pub const fn new() -> Self {
        Self::of(BURST)
    }

    /// The same with so many lines per [`WINDOW`].
    #[must_use]
    pub const fn of(burst: u32) -> Self {
        Self { burst, since: Instant::ZERO, lines: 0 }
    }

    /// One more line wants to be written.
    pub fn judge(&mut self, now: Instant) -> Verdict {
        let mut dropped = 0;
        if now.since(self.since) >= WINDOW {
            dropped = self.lines.saturating_sub(self.burst);
            *self = Self { since: now, lines: 0, ..*self };
        }
        self.lines = self.lines.saturating_add(1);
        match dropped {
            _ if self.lines > self.burst => Verdict::Drop,
            0 => Verdict::Write,
            count => Verdict::WriteAfter(count),
        }
    }
}

impl Default for Limit {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floods_are_summed_up() {
        let start = Instant::ZERO + WINDOW;
        let mut limit = Limit::new();
        for _ in 0..BURST {
            assert_eq!(limit.judge(start), Verdict::Write);
        }
        for _ in 0..7 {
            assert_eq!(limit.judge(start), Verdict::Drop);
        }
        assert_eq!(limit.judge(start + WINDOW), Verdict::WriteAfter(7));
        assert_eq!(limit.judge(start + WINDOW), Verdict::Write);
        assert_eq!(limit.judge(start + WINDOW + WINDOW), Verdict::Write);
    }
}
