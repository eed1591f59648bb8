//! Our end of pesto's protocol: tells what is in force, and puts in force what it is told.
//!
//! A client has read all rules when it sends all rules, so two that did so side by side would undo each other's change.
//! So each has its *turn*, from the greeting to the end; the others wait in the kernel's queue. Nothing here blocks,
//! and a packet never waits for a client. One that is silent for 2 s, or has not finished after 10 s (a byte now and
//! then is silence, too), is dropped.
//!
//! **Those who say nothing do not hold up those who do.** A program sends its change microseconds after it has read the
//! rules. When one is silent for longer, and others wait, it stands aside for the next: its turn is over, but not its
//! connection. The more stand aside the sooner the next one does ([`Server::grace`]), so that a whole queue of silent
//! clients costs whoever is behind them about a second. A change that comes from the side counts as made when its rules
//! were read ([`rebased`]): it removes what it removed, adds what it added, and undoes nothing of what others did
//! since.
//!
//! A change is whole or not at all ([`Table::replace`]). Its client learns what came of it ([`Status`]), which a client
//! of the original does not wait for. Who may connect is the umask's business, as in the original; who does is logged.

use super::wire::{self, Status, Update, WireError};
use crate::api::socket::{Access, BindError, Caller, Next, Reception, listen_at};
use crate::forwarder::Forwarder;
use crate::rule::Rule;
use crate::rule::passt::{Capabilities, Draft, Verb};
use crate::table::Table;
use core::ops::Range;
use core::time::Duration;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, SockType, getsockopt, send, sockopt};
use slipway_host::driver::Interest;
use slipway_host::inside::Side;
use slipway_netstack::clock::Instant;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

/// How long a client may be silent.
const SILENCE: Duration = Duration::from_secs(2);
/// How long a client has from the greeting to the end.
const TURN: Duration = Duration::from_secs(10);
/// How long it may be silent before somebody else has a turn.
const GRACE: Duration = Duration::from_millis(200);
/// Clients at once: one whose turn it is, and those who stand aside. One more, and the oldest is dropped.
const SLOTS: u32 = 64;

/// The socket, and its clients.
#[derive(Debug)]
pub struct Server {
    reception: Reception<Visit>,
    tables: Vec<(Side, Capabilities)>,
    /// The place of the client whose turn it is.
    turn: Option<usize>,
    /// Newcomers are heeded, although it is somebody's turn.
    heeding: bool,
}

/// A client, from its greeting to its end.
#[derive(Debug)]
struct Visit {
    stream: UnixStream,
    /// What is still to be written.
    unsent: Vec<u8>,
    /// The rules that it was told.
    told: Vec<Rule>,
    update: Update,
    /// Nothing more is expected once everything is written.
    finished: bool,
    silent_since: Instant,
    began: Instant,
}

impl AsFd for Visit {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl Server {
    /// How many tokens a server uses, from its first on.
    pub const TOKENS: u32 = SLOTS + 1;

    /// Listens at `path`, for changes to the rules of these sides, which may ask for so much. Events carry tokens from
    /// `first_token` on.
    ///
    /// # Errors
    /// See [`BindError`].
    pub fn bind(
        path: &Path,
        first_token: u32,
        tables: impl IntoIterator<Item = (Side, Capabilities)>,
    ) -> Result<Self, BindError> {
        let listener = listen_at(path, SockType::Stream, Access::Umask)?;
        let reception = Reception::new(listener, "configuration", first_token, SLOTS);
        Ok(Self { reception, tables: tables.into_iter().collect(), turn: None, heeding: true })
    }

    /// Has the socket watched. Until then clients wait in the kernel's queue.
    ///
    /// # Errors
    /// What epoll_ctl says.
    pub fn start(&self, host: &mut impl Forwarder) -> io::Result<()> {
        self.reception.start(host)
    }

    /// The tokens in use.
    #[must_use]
    pub fn tokens(&self) -> Range<u32> {
        self.reception.tokens()
    }

    /// Whether an event with this token is for [`Server::on_ready`].
    #[must_use]
    pub fn owns(&self, token: u32) -> bool {
        self.reception.caller(token).is_some()
    }

    /// The socket watched with `token` has something, or had it when the event was made.
    pub fn on_ready(&mut self, token: u32, now: Instant, table: &mut Table, host: &mut impl Forwarder) {
        match self.reception.caller(token) {
            None => {}
            Some(Caller::Newcomer) if self.steps_aside_at().is_none_or(|at| at <= now) => {
                self.begin_turn(now, table, host);
            }
            // Whose turn it is has spoken meanwhile.
            Some(Caller::Newcomer) => self.heed(false, host),
            Some(Caller::Client(place)) => {
                let Some(mut visit) = self.reception.take(place) else { return };
                let next = visit.step(now, &self.tables, table, host);
                self.go_on(place, visit, next, host);
            }
        }
    }

    /// When [`Server::on_deadline`] wants to be called.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        let ends = self.reception.clients().map(Visit::ends);
        let aside = self.steps_aside_at().filter(|_| !self.heeding);
        ends.chain(aside).chain(self.reception.resumes_at()).min()
    }

    /// Drops clients whose time is up, and lets in others if whose turn it is says nothing.
    pub fn on_deadline(&mut self, now: Instant, host: &mut impl Forwarder) {
        self.reception.resume(now, host);
        while let Some(place) = self.reception.find(|visit| visit.ends() <= now) {
            let Some(visit) = self.reception.take(place) else { return };
            log::warn!("a configuration client is silent and loses its turn");
            self.go_on(place, visit, Next::Done, host);
        }
        if !self.heeding && self.steps_aside_at().is_some_and(|at| at <= now) {
            self.heed(true, host);
        }
    }

    /// When the client whose turn it is has been silent long enough for another to have one.
    fn steps_aside_at(&self) -> Option<Instant> {
        let visit = self.turn.and_then(|place| self.reception.client(place))?;
        Some(visit.silent_since + self.grace())
    }

    /// Less for each one that stands aside: the sum of 1/n grows slowly.
    fn grace(&self) -> Duration {
        let present = u32::try_from(self.reception.clients().count()).unwrap_or(u32::MAX);
        GRACE / present.max(1)
    }

    fn heed(&mut self, heed: bool, host: &mut impl Forwarder) {
        self.heeding = heed;
        self.reception.heed_newcomers(heed, host);
    }

    /// Begins a turn with whoever is next. Whose turn it was stands aside.
    fn begin_turn(&mut self, now: Instant, table: &mut Table, host: &mut impl Forwarder) {
        let Some(stream) = self.reception.accept(now, host) else { return };
        let pid = getsockopt(&stream, sockopt::PeerCredentials).map_or(0, |peer| peer.pid());
        log::info!("Accepted configuration client, PID {pid}");
        let mut visit = Visit {
            stream,
            unsent: self.everything(table),
            told: rules_of(table),
            update: Update::default(),
            finished: false,
            silent_since: now,
            began: now,
        };
        let Next::Wait(interest) = visit.step(now, &self.tables, table, host) else { return };
        if let Some(place) = self.reception.admit(visit, interest, |visit| visit.began, host) {
            self.turn = Some(place);
            self.heed(false, host);
        }
    }

    /// Waits for the client, or lets the next one in.
    fn go_on(&mut self, place: usize, visit: Visit, next: Next, host: &mut impl Forwarder) {
        if self.reception.put_back(place, visit, next, host).is_none() {
            return;
        }
        log::debug!("Closing configuration socket");
        if self.turn == Some(place) {
            self.turn = None;
            self.heed(true, host);
        }
    }

    /// The greeting and all tables.
    fn everything(&self, table: &Table) -> Vec<u8> {
        let mut bytes = wire::greeting();
        for &(side, can) in &self.tables {
            let here = table.list().filter(|info| info.rule.side() == side);
            let drafts: Vec<_> = here.map(|info| Draft::from(info.rule)).collect();
            wire::table(side, can, &drafts, &mut bytes);
        }
        bytes.push(0);
        bytes
    }
}

fn rules_of(table: &Table) -> Vec<Rule> {
    table.list().map(|info| *info.rule).collect()
}

impl Visit {
    fn ends(&self) -> Instant {
        (self.silent_since + SILENCE).min(self.began + TURN)
    }

    /// Does what can be done without waiting.
    fn step(
        &mut self,
        now: Instant,
        tables: &[(Side, Capabilities)],
        table: &mut Table,
        host: &mut impl Forwarder,
    ) -> Next {
        loop {
            match self.write(now) {
                Ok(true) if self.finished => return Next::Done,
                Ok(true) => {}
                Ok(false) => return Next::Wait(Interest::WRITE),
                Err(error) => {
                    log::debug!("a configuration client: {error}");
                    return Next::Done;
                }
            }
            match self.read(now) {
                Ok(Some(true)) => self.finish(&apply(&self.update, &self.told, tables, table, host)),
                Ok(Some(false)) => {}
                Ok(None) => return Next::Wait(Interest::READ),
                Err(Gone::HungUp) => return Next::Done,
                Err(Gone::Senseless(error)) => self.finish(&refused(error.to_string())),
            }
        }
    }

    /// Tells what came of it, and ends.
    fn finish(&mut self, status: &Status) {
        self.unsent = status.to_bytes();
        self.finished = true;
    }

    /// Writes what the kernel takes; whether that was all.
    fn write(&mut self, now: Instant) -> io::Result<bool> {
        while !self.unsent.is_empty() {
            // MSG_NOSIGNAL: a client that has gone away is no reason for SIGPIPE.
            match send(self.stream.as_raw_fd(), &self.unsent, MsgFlags::MSG_NOSIGNAL) {
                Ok(count) => {
                    self.unsent.drain(..count);
                    self.silent_since = now;
                }
                Err(Errno::EAGAIN) => return Ok(false),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(true)
    }

    /// Reads a portion: whether the change is complete now. `None`: nothing is there.
    fn read(&mut self, now: Instant) -> Result<Option<bool>, Gone> {
        let mut buffer = [0; 4096];
        match self.stream.read(&mut buffer) {
            Ok(0) => {
                if !self.update.is_empty() {
                    log::warn!(
                        "a configuration client hung up in the middle of a change: nothing is changed"
                    );
                }
                Err(Gone::HungUp)
            }
            Ok(count) => {
                self.silent_since = now;
                let complete = self.update.feed(buffer.get(..count).unwrap_or_default());
                complete.map(Some).map_err(Gone::Senseless)
            }
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock => Ok(None),
                io::ErrorKind::Interrupted => Ok(Some(false)),
                _ => Err(Gone::HungUp),
            },
        }
    }
}

/// Why nothing more is read.
enum Gone {
    HungUp,
    Senseless(WireError),
}

fn refused(text: String) -> Status {
    log::warn!("a configuration client is refused: {}", text.replace('\n', "; "));
    Status { done: false, text }
}

/// Puts in force what a client wants who was told of other rules.
fn apply(
    update: &Update,
    told: &[Rule],
    tables: &[(Side, Capabilities)],
    table: &mut Table,
    host: &mut impl Forwarder,
) -> Status {
    let rules = match rules(update, tables) {
        Ok(rules) => rebased(told, rules, &rules_of(table)),
        Err(text) => return refused(text),
    };
    match table.replace(&rules, host) {
        Ok(ids) => {
            log::debug!("{} forwarding rules are in force", ids.len());
            let missing = ids.iter().filter_map(|id| table.get(*id)).filter(|info| info.missing > 0);
            let lines = missing.map(|info| {
                let draft = Draft::from(info.rule).to_string();
                format!("{} ports could not be listened on: {}", info.missing, draft.trim_end())
            });
            Status { done: true, text: lines.collect::<Vec<_>>().join("\n") }
        }
        Err(error) => refused(format!("{}\nCouldn't listen on requested ports", error.in_passts_words())),
    }
}

/// What a change comes to when the rules are no longer those that its client was `told`: what it does without goes,
/// what it has new comes. It is as if the change had been made when the rules were read, and the others after it.
fn rebased(told: &[Rule], wanted: Vec<Rule>, current: &[Rule]) -> Vec<Rule> {
    if told == current {
        return wanted;
    }
    let kept = current.iter().filter(|rule| wanted.contains(rule) || !told.contains(rule));
    let new = wanted.iter().filter(|rule| !told.contains(rule) && !current.contains(rule));
    kept.chain(new).copied().collect()
}

fn rules(update: &Update, tables: &[(Side, Capabilities)]) -> Result<Vec<Rule>, String> {
    let mut rules = Vec::new();
    for (side, drafts) in update.tables() {
        let can = tables.iter().find(|(other, _)| other == side).map(|(_, can)| *can);
        let can = can.ok_or_else(|| WireError::Place(wire::place(*side)).to_string())?;
        for draft in drafts {
            if draft.scan && !can.scan {
                return Err(crate::rule::passt::ParseError::Auto.to_string());
            }
            let rule = draft.check(*side, can);
            rules.push(rule.map_err(|reason| draft.refused(Verb::Add, reason).to_string())?);
        }
    }
    Ok(rules)
}

#[cfg(test)]
mod tests;
