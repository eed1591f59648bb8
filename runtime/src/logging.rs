//! Where the `log` facade ends: lines on stderr, a bounded number of them.
//!
//! What a guest or a client does may cause a line, so lines are limited: a burst goes through, a flood is counted and
//! summed up in one line. The messages that are part of a contract do not come this way. A program that goes to the
//! background has a [`journal`] instead.

pub mod journal;

use log::{LevelFilter, Log, Metadata, Record};
use slipway_host::clock;
use slipway_host::logging::limit::{Limit, Verdict};
use slipway_host::logging::stream::STDERR;
use std::sync::Mutex;

/// Has lines of `level` and above written to stderr. Only the first call of a process counts.
pub fn init(level: LevelFilter) {
    static LOGGER: Stderr = Stderr { limit: Mutex::new(Limit::new()) };
    if log::set_logger(&LOGGER).is_ok() {
        STDERR.own(std::io::stderr());
        log::set_max_level(level);
    }
}

/// Says something on stderr, whole lines, without waiting for whoever reads it: what there is no room for is lost and
/// counted.
pub fn tell(text: &str) {
    STDERR.offer(std::io::stderr().lock(), "slipway: ", text);
}

struct Stderr {
    limit: Mutex<Limit>,
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
        tell(&line);
    }

    fn flush(&self) {}
}
