//! Where the `log` facade ends: lines on stderr, a bounded number of them.
//!
//! What a guest or a client does may cause a line, so lines are limited: a burst goes through, a flood is counted and
//! summed up in one line. The messages that are part of a contract do not come this way.

use log::{LevelFilter, Log, Metadata, Record};
use slipway_host::clock;
use slipway_netstack::Instant;
use std::io::Write as _;
use std::sync::Mutex;
use std::time::Duration;

/// Lines per [`WINDOW`].
const BURST: u32 = 50;
const WINDOW: Duration = Duration::from_secs(10);

/// Has lines of `level` and above written to stderr. Only the first call of a process counts.
pub fn init(level: LevelFilter) {
    static STDERR: Stderr = Stderr { limit: Mutex::new(Limit { since: Instant::ZERO, lines: 0 }) };
    if log::set_logger(&STDERR).is_ok() {
        log::set_max_level(level);
    }
}

struct Stderr {
    limit: Mutex<Limit>,
}

/// What has been written in this window.
#[derive(Debug)]
struct Limit {
    since: Instant,
    lines: u32,
}

/// What becomes of a line.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Write,
    /// After saying how many were left out.
    WriteAfter(u32),
    Drop,
}

impl Limit {
    fn judge(&mut self, now: Instant) -> Verdict {
        let mut dropped = 0;
        if now.since(self.since) >= WINDOW {
            dropped = self.lines.saturating_sub(BURST);
            *self = Self { since: now, lines: 0 };
        }
        self.lines = self.lines.saturating_add(1);
        match dropped {
            _ if self.lines > BURST => Verdict::Drop,
            0 => Verdict::Write,
            count => Verdict::WriteAfter(count),
        }
    }
}

impl Log for Stderr {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let Ok(mut limit) = self.limit.lock() else { return };
        let verdict = limit.judge(clock::now());
        drop(limit);
        let line = match verdict {
            Verdict::Drop => return,
            Verdict::Write => format!("slipway: {}\n", record.args()),
            Verdict::WriteAfter(count) => {
                format!("slipway: {count} lines left out\nslipway: {}\n", record.args())
            }
        };
        let _ = std::io::stderr().lock().write_all(line.as_bytes());
    }

    fn flush(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floods_are_summed_up() {
        let start = Instant::ZERO + WINDOW;
        let mut limit = Limit { since: Instant::ZERO, lines: 0 };
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
