//! What each network was asked, and what it was told.
//!
//! Written on SIGUSR1, as one text: a line for each network, a word `name=number` for each count, and a line
//! about what was asked upstream for all of them together. Counts last as long as
//! the network does; a reload keeps them.

use super::logging::ASKED_FOR;
use crate::forward;
use crate::message::Rcode;
use crate::zone::Snapshot;
use slipway_host::files;
use std::fmt::{self, Write as _};
use std::path::Path;

/// Counts by response code.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct ByRcode([u64; 16]);

impl ByRcode {
    pub(super) fn add(&mut self, rcode: Rcode) {
        if let Some(count) = self.0.get_mut(usize::from(rcode.0)) {
            *count += 1;
        }
    }

    /// ` PREFIX.NOERROR=7`, those that are not zero.
    fn write(&self, prefix: &str, out: &mut String) {
        for (code, count) in (0..).zip(&self.0).filter(|(_, count)| **count > 0) {
            let _ = write!(out, " {prefix}.{}={count}", Rcode(code));
        }
    }
}

/// The counts of one network.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counters {
    /// Messages that came over UDP.
    pub(super) udp: u64,
    /// Messages that came over TCP.
    pub(super) tcp: u64,
    /// Messages that were no query.
    pub(super) malformed: u64,
    /// Answers of our own.
    pub(super) local: ByRcode,
    /// Queries that were asked upstream.
    pub(super) forwarded: u64,
    /// What was said in answer to those.
    pub(super) relayed: ByRcode,
    /// Those in answer to which nothing was said.
    pub(super) unanswered: u64,
}

/// A line of the report.
struct Line<'a>(&'a str, &'a Counters);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(name, counters) = self;
        let Counters { udp, tcp, malformed, local, forwarded, relayed, unanswered } = counters;
        let mut codes = String::new();
        local.write("local", &mut codes);
        relayed.write("relayed", &mut codes);
        write!(
            f,
            "network={name} udp={udp} tcp={tcp} malformed={malformed} forwarded={forwarded} \
             unanswered={unanswered}{codes}"
        )
    }
}

/// The counts of all networks of `snapshot`, in its order.
#[derive(Debug, Default)]
pub(super) struct AllCounters(Vec<Counters>);

impl AllCounters {
    /// For `new`, keeping what was counted for the networks of `old` that are still there.
    pub(super) fn carry_over(&self, old: &Snapshot, new: &Snapshot) -> Self {
        let kept = |name: &str| old.network(name).and_then(|id| self.0.get(id.index())).copied();
        Self(new.networks().map(|(_, network)| kept(network.name()).unwrap_or_default()).collect())
    }

    /// Those of one network.
    pub(super) fn of(&mut self, id: crate::zone::NetworkId) -> Option<&mut Counters> {
        self.0.get_mut(id.index())
    }

    fn lines<'a>(&'a self, snapshot: &'a Snapshot) -> impl Iterator<Item = Line<'a>> {
        snapshot.networks().zip(&self.0).map(|((_, network), counters)| Line(network.name(), counters))
    }

    /// Writes all of them to a file, or to the log.
    pub(super) fn report(&self, snapshot: &Snapshot, forwarder: &forward::Counters, file: Option<&Path>) {
        let forward::Counters {
            asked,
            cached,
            shared,
            answered,
            failed,
            queued,
            refused,
            timeouts,
            mismatches,
        } = forwarder;
        let last = format!(
            "upstream asked={asked} cached={cached} shared={shared} answered={answered} failed={failed} queued={queued} \
             refused={refused} timeouts={timeouts} mismatches={mismatches}"
        );
        let Some(path) = file else {
            for line in self.lines(snapshot) {
                log::info!(target: ASKED_FOR, "{line}");
            }
            log::info!(target: ASKED_FOR, "{last}");
            return;
        };
        let mut text = String::new();
        for line in self.lines(snapshot) {
            let _ = writeln!(text, "{line}");
        }
        text.push_str(&last);
        text.push('\n');
        let mut fresh = path.to_owned();
        fresh.as_mut_os_string().push(".new");
        if let Err(error) = files::replace(path, &fresh, text.as_bytes(), files::PUBLIC) {
            log::error!("counters: {}: {error}", path.display());
        }
    }
}
