//! The control socket and its clients, of which there may be many, each with as many requests as it likes.
//!
//! A request is one packet and so is its reply; a client is not heard again before it has taken the last reply. Nothing
//! here blocks: a client that reads nothing waits with its own reply. When all places are taken, the client that has
//! been silent longest gives way. Every change is whole or not at all. The socket belongs to the user who started us.

use super::message::{MAX_LISTED, MAX_REQUEST, Refusal, Request, granted, listed};
use crate::api::socket::{Access, BindError, listen_at};
use crate::forwarder::Forwarder;
use crate::rule::Rule;
use crate::rule::passt::Context;
use crate::table::{AddError, RuleId, Table};
use core::ops::Range;
use core::time::Duration;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, SockType, recv, send};
use serde_json::json;
use slipway_host::driver::Interest;
use slipway_netstack::clock::Instant;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;

/// Clients served at once.
const SLOTS: u32 = 32;
/// Clients accepted in one round.
const ACCEPTS_PER_ROUND: usize = 16;
/// Requests of one client that are answered in one round.
const REQUESTS_PER_ROUND: usize = 16;
/// How long nobody is accepted when the host is out of descriptors or memory.
const BACKOFF: Duration = Duration::from_millis(100);

/// The control socket and its clients.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    first_token: u32,
    context: Context,
    clients: Vec<Option<Client>>,
    /// Room for a packet; none before the first.
    packet: Vec<u8>,
    /// Rounds so far, to know who has been silent longest.
    rounds: u64,
    resume_at: Option<Instant>,
    /// A pause was logged, and nobody has been accepted since.
    complained: bool,
}

#[derive(Debug)]
struct Client {
    socket: OwnedFd,
    /// What could not be written as yet.
    reply: Option<String>,
    heard: u64,
}

/// Whether a client has to be seen again.
#[derive(Clone, Copy)]
enum Next {
    Wait(Interest),
    Done,
}

impl Server {
    /// How many tokens a server uses, from its first on.
    pub const TOKENS: u32 = SLOTS + 1;

    /// Listens at `path`, for rules that are read with `context`. Events carry tokens from `first_token` on.
    ///
    /// # Errors
    /// See [`BindError`].
    pub fn bind(path: &Path, first_token: u32, context: Context) -> Result<Self, BindError> {
        Ok(Self {
            listener: listen_at(path, SockType::SeqPacket, Access::Owner)?,
            first_token,
            context,
            clients: (0..SLOTS).map(|_| None).collect(),
            packet: Vec::new(),
            rounds: 0,
            resume_at: None,
            complained: false,
        })
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
        self.rounds = self.rounds.wrapping_add(1);
        match token.checked_sub(self.first_token) {
            None => {}
            Some(0) => self.accept_all(now, host),
            Some(place) => self.serve(place - 1, table, host),
        }
    }

    /// When [`Server::on_deadline`] wants to be called.
    #[must_use]
    pub const fn next_deadline(&self) -> Option<Instant> {
        self.resume_at
    }

    /// Accepts clients again.
    pub fn on_deadline(&mut self, now: Instant, host: &mut impl Forwarder) {
        if self.resume_at.is_some_and(|at| at <= now) {
            self.resume_at = None;
            if let Err(error) = host.modify(self.listener.as_fd(), Interest::READ, self.first_token) {
                log::warn!("the control socket is not watched any more: {error}");
            }
        }
    }

    fn accept_all(&mut self, now: Instant, host: &mut impl Forwarder) {
        for _ in 0..ACCEPTS_PER_ROUND {
            let client = match self.listener.accept() {
                Ok((client, _)) => client,
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => return,
                    io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted => continue,
                    _ => return self.pause(&error, now, host),
                },
            };
            self.complained = false;
            if client.set_nonblocking(true).is_ok() {
                self.admit(client.into(), host);
            }
        }
    }

    /// Nobody can be accepted just now; the listener would be ready all the time.
    fn pause(&mut self, error: &io::Error, now: Instant, host: &mut impl Forwarder) {
        if !core::mem::replace(&mut self.complained, true) {
            log::warn!("control clients have to wait: {error}");
        }
        if host.modify(self.listener.as_fd(), Interest::NONE, self.first_token).is_ok() {
            self.resume_at = Some(now + BACKOFF);
        }
    }

    fn admit(&mut self, socket: OwnedFd, host: &mut impl Forwarder) {
        let vacant = self.clients.iter().position(Option::is_none);
        let quietest = || {
            let heard = self.clients.iter().enumerate();
            heard.min_by_key(|(_, client)| client.as_ref().map(|client| client.heard)).map(|(at, _)| at)
        };
        let Some(place) = vacant.or_else(quietest) else { return };
        let Some(slot) = self.clients.get_mut(place) else { return };
        if let Some(old) = slot.take() {
            host.unwatch(old.socket.as_fd());
        }
        let token =
            u32::try_from(place).unwrap_or(u32::MAX).saturating_add(self.first_token).saturating_add(1);
        if host.watch(socket.as_fd(), Interest::READ, token).is_ok() {
            *slot = Some(Client { socket, reply: None, heard: self.rounds });
        }
    }

    fn serve(&mut self, place: u32, table: &mut Table, host: &mut impl Forwarder) {
        let slot = usize::try_from(place).ok().and_then(|place| self.clients.get_mut(place));
        let Some(slot) = slot else { return };
        let Some(mut client) = slot.take() else { return };
        client.heard = self.rounds;
        // A byte more than a request has: what is longer shows.
        self.packet.resize(MAX_REQUEST + 1, 0);
        let mut next = client.write();
        for _ in 0..REQUESTS_PER_ROUND {
            if !matches!(next, Next::Wait(interest) if interest == Interest::READ) {
                break;
            }
            let request = match recv(client.socket.as_raw_fd(), &mut self.packet, MsgFlags::empty()) {
                Ok(len @ 1..) => self.packet.get(..len).unwrap_or_default(),
                Err(Errno::EAGAIN | Errno::EINTR) => break,
                Ok(0) | Err(_) => {
                    next = Next::Done;
                    break;
                }
            };
            client.reply = Some(answer(request, &self.context, table, host));
            next = client.write();
        }
        let token = self.first_token.saturating_add(1).saturating_add(place);
        match next {
            Next::Wait(interest) if host.modify(client.socket.as_fd(), interest, token).is_ok() => {
                *slot = Some(client);
            }
            Next::Wait(_) | Next::Done => host.unwatch(client.socket.as_fd()),
        }
    }
}

impl Client {
    /// Writes what is to be written.
    fn write(&mut self) -> Next {
        let Some(reply) = &self.reply else { return Next::Wait(Interest::READ) };
        // MSG_NOSIGNAL: a client that has gone away is no reason for SIGPIPE.
        match send(self.socket.as_raw_fd(), reply.as_bytes(), MsgFlags::MSG_NOSIGNAL) {
            Ok(_) => {
                self.reply = None;
                Next::Wait(Interest::READ)
            }
            Err(Errno::EAGAIN | Errno::EINTR) => Next::Wait(Interest::WRITE),
            Err(_) => Next::Done,
        }
    }
}

/// Does what is asked, and says what came of it.
fn answer(packet: &[u8], context: &Context, table: &mut Table, host: &mut impl Forwarder) -> String {
    let done = Request::parse(packet, context).and_then(|request| match request {
        Request::Add(entries) => add(&entries, table, host),
        Request::Replace(entries) => replace(&entries, table, host),
        Request::Remove(ids) => remove(&ids, table, host),
        Request::List(after) => Ok(list(after, table)),
    });
    match done {
        Ok(value) => granted(&value),
        Err(refusal) => {
            log::debug!("a control client is refused: {}", refusal.text.replace('\n', "; "));
            refusal.to_json()
        }
    }
}

fn add(
    entries: &[Vec<Rule>],
    table: &mut Table,
    host: &mut impl Forwarder,
) -> Result<serde_json::Value, Refusal> {
    let mut added = Vec::new();
    for (entry, rules) in entries.iter().enumerate() {
        let mut ids = Vec::new();
        for rule in rules {
            match table.add(*rule, host) {
                Ok(id) => ids.push(id.get()),
                Err(error) => {
                    let so_far = added.iter().flatten().chain(&ids).copied();
                    for id in so_far.collect::<Vec<_>>() {
                        core::num::NonZeroU64::new(id).and_then(|id| table.remove(id.into(), host));
                    }
                    return Err(refusal(&error, error.in_passts_words(rule), entry));
                }
            }
        }
        added.push(ids);
    }
    Ok(json!({ "ids": added }))
}

fn replace(
    entries: &[Vec<Rule>],
    table: &mut Table,
    host: &mut impl Forwarder,
) -> Result<serde_json::Value, Refusal> {
    let rules: Vec<Rule> = entries.iter().flatten().copied().collect();
    let ids = table.replace(&rules, host).map_err(|error| {
        let entry = entries.iter().position(|rules| rules.contains(&error.rule)).unwrap_or_default();
        refusal(&error.error, error.in_passts_words(), entry)
    })?;
    let mut ids = ids.into_iter().map(RuleId::get);
    let ids: Vec<Vec<u64>> = entries.iter().map(|rules| ids.by_ref().take(rules.len()).collect()).collect();
    Ok(json!({ "ids": ids }))
}

fn refusal(error: &AddError, text: String, entry: usize) -> Refusal {
    let errno = error.raw_os_error().map_or(Errno::EINVAL, Errno::from_raw);
    Refusal { text, errno, entry: Some(entry) }
}

fn remove(
    ids: &[RuleId],
    table: &mut Table,
    host: &mut impl Forwarder,
) -> Result<serde_json::Value, Refusal> {
    if let Some(entry) = ids.iter().position(|id| table.get(*id).is_none()) {
        let text = "there is no rule of this id".to_owned();
        return Err(Refusal { text, errno: Errno::ENOENT, entry: Some(entry) });
    }
    for id in ids {
        // Twice in one request is once.
        table.remove(*id, host);
    }
    Ok(json!({}))
}

fn list(after: u64, table: &Table) -> serde_json::Value {
    let mut rest = table.list().filter(|info| info.id.get() > after);
    let rules: Vec<_> = rest.by_ref().take(MAX_LISTED).map(|info| listed(&info)).collect();
    json!({ "rules": rules, "more": rest.next().is_some() })
}

#[cfg(test)]
mod tests;
