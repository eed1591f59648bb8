//! Where the `log` facade ends: the system's log, and nothing else.
//!
//! Standard error belongs to the start (netavark shows it to the user) and is /dev/null afterwards. What strangers can
//! cause is limited in number; the query log is not, for somebody has asked for it.

use log::{Level, LevelFilter, Log, Metadata, Record};
use slipway_host::clock;
use slipway_host::logging::limit::{Limit, Verdict};
use slipway_host::logging::syslog::{Facility, Syslog};
use std::sync::Mutex;

/// The target of lines that somebody has asked for: they are written at any level.
pub(super) const ASKED_FOR: &str = "asked-for";

/// The level that the value of `RUST_LOG` asks for, and what there is to complain about.
pub(super) fn level(value: Option<&str>) -> (LevelFilter, Option<String>) {
    match value.map(str::parse::<Level>) {
        None => (LevelFilter::Info, None),
        Some(Ok(level)) => (level.to_level_filter(), None),
        Some(Err(error)) => (LevelFilter::Info, Some(format!("failed to parse RUST_LOG level: {error}"))),
    }
}

/// Has lines of `level` and above written to the system's log. Only the first call of a process counts.
pub(super) fn init(level: LevelFilter, tag: &'static str) {
    let logger = Logger {
        level,
        inner: Mutex::new(Inner { syslog: Syslog::new(tag, Facility::User), limit: Limit::new() }),
    };
    if log::set_boxed_logger(Box::new(logger)).is_ok() {
        // What was asked for has to come through to where it is told apart.
        log::set_max_level(level.max(LevelFilter::Info));
    }
}

struct Logger {
    level: LevelFilter,
    inner: Mutex<Inner>,
}

struct Inner {
    syslog: Syslog,
    limit: Limit,
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == ASKED_FOR || metadata.level() <= self.level
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let Ok(mut inner) = self.inner.lock() else { return };
        let Inner { syslog, limit } = &mut *inner;
        // Debugging is for those who want to see everything.
        if record.target() != ASKED_FOR && record.level() <= Level::Info {
            match limit.judge(clock::now()) {
                Verdict::Write => {}
                Verdict::WriteAfter(count) => {
                    syslog.write(Level::Warn.into(), format_args!("{count} lines left out"));
                }
                Verdict::Drop => return,
            }
        }
        syslog.write(record.level().into(), *record.args());
    }

    fn flush(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_word_is_a_level() {
        assert_eq!(level(None), (LevelFilter::Info, None));
        assert_eq!(level(Some("WARN")), (LevelFilter::Warn, None));
        assert_eq!(level(Some("trace")), (LevelFilter::Trace, None));
        for value in ["", "off", "aardvark=debug", "debug,info"] {
            let (level, complaint) = level(Some(value));
            assert_eq!(level, LevelFilter::Info);
            assert!(complaint.unwrap().starts_with("failed to parse RUST_LOG level: "), "{value}");
        }
    }
}
