//! Log lines on stderr, in the form that callers match: `[INFO  netavark::firewall] Using ...`.
//!
//! No time, the level padded to five letters, then the target. A target is the module's path; our crates are called
//! `slipway_...` inside, and `netavark` in what they log. `RUST_LOG` says what is written: a list of `level`, `target`
//! or `target=level` between commas, of which the longest target that fits counts; anything behind a `/` is ignored.
//! Without it only errors are written, so that a success says nothing.

use log::{LevelFilter, Log, Metadata, Record};
use slipway_host::logging::stream::STDERR;
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};

/// See [`never_wait`].
static NEVER_WAIT: AtomicBool = AtomicBool::new(false);

/// From now on nobody waits for whoever reads stderr: for a program that serves others. Lines without room are lost and
/// counted.
pub fn never_wait() {
    STDERR.own(std::io::stderr());
    NEVER_WAIT.store(true, Ordering::Relaxed);
}

/// Has lines written to stderr, as `filter` (the value of `RUST_LOG`) says.
pub fn init(filter: Option<&str>) {
    let filter = Filter::parse(filter.unwrap_or_default());
    let max = filter.max();
    if log::set_boxed_logger(Box::new(Stderr(filter))).is_ok() {
        log::set_max_level(max);
    }
}

/// What is written.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Filter {
    /// Target and level, the longest target first.
    directives: Vec<(String, LevelFilter)>,
}

impl Filter {
    /// Reads a list of directives. What makes no sense is left out: a log setting must not stop a container.
    fn parse(text: &str) -> Self {
        let list = text.split('/').next().unwrap_or_default();
        let mut directives: Vec<_> = list
            .split(',')
            .map(str::trim)
            .filter(|directive| !directive.is_empty())
            .filter_map(|directive| match directive.split_once('=') {
                Some((target, "")) => Some((target.to_owned(), LevelFilter::Trace)),
                Some((target, level)) => Some((target.to_owned(), level.parse().ok()?)),
                None => Some(directive.parse().map_or_else(
                    |_| (directive.to_owned(), LevelFilter::Trace),
                    |level| (String::new(), level),
                )),
            })
            .collect();
        if directives.is_empty() {
            directives.push((String::new(), LevelFilter::Error));
        }
        // A stable sort, reversed first: of two for the same target the later one counts.
        directives.reverse();
        directives.sort_by_key(|(target, _)| std::cmp::Reverse(target.len()));
        Self { directives }
    }

    fn max(&self) -> LevelFilter {
        self.directives.iter().map(|(_, level)| *level).max().unwrap_or(LevelFilter::Off)
    }

    fn level(&self, target: &str) -> LevelFilter {
        self.directives
            .iter()
            .find(|(prefix, _)| target.starts_with(prefix.as_str()))
            .map_or(LevelFilter::Off, |(_, level)| *level)
    }
}

/// The name that a module has in the log.
fn public_name(target: &str) -> String {
    match target.strip_prefix("slipway_") {
        Some("netavark") => "netavark".to_owned(),
        Some(rest) => match rest.strip_prefix("netavark::") {
            Some(module) => format!("netavark::{module}"),
            None => format!("netavark::{rest}"),
        },
        None => target.to_owned(),
    }
}

struct Stderr(Filter);

impl Log for Stderr {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= self.0.level(&public_name(metadata.target()))
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let line =
                format!("[{:<5} {}] {}\n", record.level(), public_name(record.target()), record.args());
            let mut stderr = std::io::stderr().lock();
            if NEVER_WAIT.load(Ordering::Relaxed) {
                STDERR.offer(stderr, "", &line);
            } else {
                // There is nobody left to tell.
                let _ = stderr.write_all(line.as_bytes());
            }
        }
    }

    fn flush(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use LevelFilter::{Debug, Error, Info, Off, Trace, Warn};

    #[test]
    fn directives_as_people_write_them() {
        for (text, target, level) in [
            ("", "netavark::firewall", Error),
            ("netavark=info", "netavark::firewall", Info),
            ("netavark=info", "other", Off),
            ("NETAVARK=info", "netavark", Off),
            ("warn", "netavark::commands::setup", Warn),
            ("DEBUG", "netavark", Debug),
            ("netavark", "netavark::apply", Trace),
            ("netavark=", "netavark::apply", Trace),
            ("netavark=warn,netavark::firewall=debug", "netavark::firewall", Debug),
            ("netavark::firewall=debug, netavark=warn", "netavark::apply", Warn),
            ("info,netavark=off", "netavark", Off),
            ("warn,info", "netavark", Info),
            ("netavark=nonsense", "netavark", Error),
            ("netavark=info/regular.*", "netavark", Info),
        ] {
            assert_eq!(Filter::parse(text).level(target), level, "{text:?}");
        }
        assert_eq!(Filter::parse("a=warn,b=debug").max(), Debug);
    }

    #[test]
    fn our_modules_are_called_netavark_in_the_log() {
        for (inside, outside) in [
            ("slipway_netavark::firewall", "netavark::firewall"),
            ("slipway_netavark::commands::firewall_reload", "netavark::commands::firewall_reload"),
            ("slipway_netavark", "netavark"),
            ("slipway_host::netlink", "netavark::host::netlink"),
            ("zbus::connection", "zbus::connection"),
        ] {
            assert_eq!(public_name(inside), outside);
        }
    }
}
