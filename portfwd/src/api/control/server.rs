//! The control socket and its clients, of which there may be many, each with as many requests as it likes.
//!
//! A request is one packet and so is its reply; a client is not heard again before it has taken the last reply. Nothing
//! here blocks: a client that reads nothing waits with its own reply. When all places are taken, the client that has
//! been silent longest gives way. Every change is whole or not at all. The socket belongs to the user who started us.

use super::message::{self, MAX_CONNECTIONS, MAX_LISTED, MAX_REQUEST, Refusal, Request, granted, listed};
use crate::api::socket::{ACCEPTS_PER_ROUND, Access, BindError, Caller, Next, Reception, listen_at};
use crate::forwarder::Forwarder;
use crate::rule::Rule;
use crate::rule::passt::Context;
use crate::table::{AddError, RuleId, Table};
use core::ops::Range;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, SockType, recv, send};
use serde_json::json;
use slipway_host::driver::Interest;
use slipway_netstack::clock::Instant;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

/// Clients served at once.
const SLOTS: u32 = 32;
/// Requests of one client that are answered in one round.
const REQUESTS_PER_ROUND: usize = 16;

/// The control socket and its clients.
#[derive(Debug)]
pub struct Server {
    reception: Reception<Client>,
    context: Context,
    /// Room for a packet; none before the first.
    packet: Vec<u8>,
    /// Rounds so far, to know who has been silent longest.
    rounds: u64,
}

#[derive(Debug)]
struct Client {
    socket: OwnedFd,
    /// What could not be written as yet.
    reply: Option<String>,
    heard: u64,
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Server {
    /// How many tokens a server uses, from its first on.
    pub const TOKENS: u32 = SLOTS + 1;

    /// Listens at `path`, for rules that are read with `context`. Events carry tokens from `first_token` on.
    ///
    /// # Errors
    /// See [`BindError`].
    pub fn bind(path: &Path, first_token: u32, context: Context) -> Result<Self, BindError> {
        let listener = listen_at(path, SockType::SeqPacket, Access::Owner)?;
        let reception = Reception::new(listener, "control", first_token, SLOTS);
        Ok(Self { reception, context, packet: Vec::new(), rounds: 0 })
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
        self.rounds = self.rounds.wrapping_add(1);
        match self.reception.caller(token) {
            None => {}
            Some(Caller::Newcomer) => self.accept_all(now, host),
            Some(Caller::Client(place)) => self.serve(place, table, host),
        }
    }

    /// When [`Server::on_deadline`] wants to be called.
    #[must_use]
    pub const fn next_deadline(&self) -> Option<Instant> {
        self.reception.resumes_at()
    }

    /// Accepts clients again.
    pub fn on_deadline(&mut self, now: Instant, host: &mut impl Forwarder) {
        self.reception.resume(now, host);
    }

    fn accept_all(&mut self, now: Instant, host: &mut impl Forwarder) {
        for _ in 0..ACCEPTS_PER_ROUND {
            let Some(client) = self.reception.accept(now, host) else { return };
            let client = Client { socket: client.into(), reply: None, heard: self.rounds };
            self.reception.admit(client, Interest::READ, |client| client.heard, host);
        }
    }

    fn serve(&mut self, place: usize, table: &mut Table, host: &mut impl Forwarder) {
        let Some(mut client) = self.reception.take(place) else { return };
        client.heard = self.rounds;
        // A byte more than a request has: what is longer shows.
        self.packet.resize(MAX_REQUEST + 1, 0);
        let mut next = client.write();
        for _ in 0..REQUESTS_PER_ROUND {
            if next != Next::Wait(Interest::READ) {
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
        self.reception.put_back(place, client, next, host);
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
        Request::Connections(after) => Ok(connections(after, host)),
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

fn connections(after: u64, host: &impl Forwarder) -> serde_json::Value {
    let mut rest = host.connections().filter(|one| one.id() > after);
    let some: Vec<_> = rest.by_ref().take(MAX_CONNECTIONS).map(|one| message::connection(&one)).collect();
    json!({ "connections": some, "more": rest.next().is_some() })
}

#[cfg(test)]
mod tests;
