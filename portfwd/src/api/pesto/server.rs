//! Our end of pesto's protocol: tells what is in force, and puts in force what it is told.
//!
//! A client has read all rules when it sends all rules, so two that did so side by side would undo each other's change.
//! So each has its *turn*, from the greeting to the end; the others wait in the kernel's queue. Nothing here blocks,
//! and a packet never waits for a client. One that is silent for 2 s, or has not finished after 10 s (a byte now and
//! then is silence, too), loses its turn.
//!
//! A change is whole or not at all ([`Table::replace`]). Its client learns what came of it ([`Status`]), which a client
//! of the original does not wait for. Who may connect is the umask's business, as in the original; who does is logged.

use super::wire::{self, Status, Update, WireError};
use crate::api::socket::{Access, BindError, listen_at};
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
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

/// How long a client may be silent.
const SILENCE: Duration = Duration::from_secs(2);
/// How long a turn lasts at most.
const TURN: Duration = Duration::from_secs(10);
/// How long nobody is accepted when the host is out of descriptors or memory.
const BACKOFF: Duration = Duration::from_millis(100);

/// The socket, and the client whose turn it is.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    first_token: u32,
    tables: Vec<(Side, Capabilities)>,
    turn: Option<Turn>,
    resume_at: Option<Instant>,
    /// A pause was logged, and nobody has been accepted since.
    complained: bool,
}

#[derive(Debug)]
struct Turn {
    stream: UnixStream,
    /// What is still to be written.
    unsent: Vec<u8>,
    update: Update,
    /// Nothing more is expected once everything is written.
    finished: bool,
    silent_since: Instant,
    began: Instant,
}

/// Whether the client has to be seen again.
#[derive(Clone, Copy)]
enum Next {
    Wait(Interest),
    Done,
}

impl Server {
    /// How many tokens a server uses, from its first on.
    pub const TOKENS: u32 = 2;

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
        let tables = tables.into_iter().collect();
        Ok(Self { listener, first_token, tables, turn: None, resume_at: None, complained: false })
    }

    /// Has the socket watched. Until then clients wait in the kernel's queue.
    ///
    /// # Errors
    /// What epoll_ctl says.
    pub fn start(&self, host: &mut impl Forwarder) -> io::Result<()> {
        host.watch(self.listener.as_fd(), Interest::READ, self.first_token)
    }

    /// The tokens in use.
    #[must_use]
    pub const fn tokens(&self) -> Range<u32> {
        self.first_token..self.first_token.saturating_add(Self::TOKENS)
    }

    /// Whether an event with this token is for [`Server::on_ready`].
    #[must_use]
    pub fn owns(&self, token: u32) -> bool {
        self.tokens().contains(&token)
    }

    /// The socket watched with `token` has something, or had it when the event was made.
    pub fn on_ready(&mut self, token: u32, now: Instant, table: &mut Table, host: &mut impl Forwarder) {
        if token == self.first_token {
            self.accept(now, table, host);
        } else if let Some(turn) = &mut self.turn {
            let next = turn.step(now, &self.tables, table, host);
            self.go_on(next, host);
        }
    }

    /// When [`Server::on_deadline`] wants to be called.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        let turn = self.turn.as_ref().map(Turn::ends);
        turn.into_iter().chain(self.resume_at).min()
    }

    /// Ends the turn of a client whose time is up.
    pub fn on_deadline(&mut self, now: Instant, host: &mut impl Forwarder) {
        if self.resume_at.is_some_and(|at| at <= now) {
            self.resume_at = None;
            self.listen_again(host);
        }
        if self.turn.as_ref().is_some_and(|turn| turn.ends() <= now) {
            log::warn!("a configuration client is silent and loses its turn");
            self.go_on(Next::Done, host);
        }
    }

    fn listen_again(&self, host: &mut impl Forwarder) {
        if let Err(error) = host.modify(self.listener.as_fd(), Interest::READ, self.first_token) {
            log::warn!("the configuration socket is not watched any more: {error}");
        }
    }

    /// Begins a turn with whoever is next.
    fn accept(&mut self, now: Instant, table: &mut Table, host: &mut impl Forwarder) {
        if self.turn.is_some() {
            return;
        }
        let stream = match self.listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted => {
                    return;
                }
                _ => return self.pause(&error, now, host),
            },
        };
        self.complained = false;
        let pid = getsockopt(&stream, sockopt::PeerCredentials).map_or(0, |peer| peer.pid());
        log::info!("Accepted configuration client, PID {pid}");
        if let Err(error) = stream.set_nonblocking(true) {
            log::warn!("a configuration client is turned away: {error}");
            return;
        }
        let mut turn = Turn {
            stream,
            unsent: self.everything(table),
            update: Update::default(),
            finished: false,
            silent_since: now,
            began: now,
        };
        let Next::Wait(interest) = turn.step(now, &self.tables, table, host) else { return };
        if let Err(error) = host.watch(turn.stream.as_fd(), interest, self.first_token.saturating_add(1)) {
            log::warn!("a configuration client is turned away: {error}");
            return;
        }
        self.turn = Some(turn);
        if let Err(error) = host.modify(self.listener.as_fd(), Interest::NONE, self.first_token) {
            log::warn!("the configuration socket: {error}");
        }
    }

    /// Nobody can be accepted just now; the listener would be ready all the time.
    fn pause(&mut self, error: &io::Error, now: Instant, host: &mut impl Forwarder) {
        if !core::mem::replace(&mut self.complained, true) {
            log::warn!("configuration clients have to wait: {error}");
        }
        if host.modify(self.listener.as_fd(), Interest::NONE, self.first_token).is_ok() {
            self.resume_at = Some(now + BACKOFF);
        }
    }

    /// Waits for the client, or lets the next one in.
    fn go_on(&mut self, next: Next, host: &mut impl Forwarder) {
        let Some(turn) = self.turn.take() else { return };
        if let Next::Wait(interest) = next
            && host.modify(turn.stream.as_fd(), interest, self.first_token.saturating_add(1)).is_ok()
        {
            self.turn = Some(turn);
            return;
        }
        host.unwatch(turn.stream.as_fd());
        log::debug!("Closing configuration socket");
        drop(turn);
        self.listen_again(host);
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

impl Turn {
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
                Ok(Some(true)) => self.finish(&apply(&self.update, tables, table, host)),
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

/// Puts in force what a client wants.
fn apply(
    update: &Update,
    tables: &[(Side, Capabilities)],
    table: &mut Table,
    host: &mut impl Forwarder,
) -> Status {
    let rules = match rules(update, tables) {
        Ok(rules) => rules,
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
