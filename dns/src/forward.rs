//! Questions for other servers: whom to ask, how long to wait, what to do when nobody answers. Without a socket.
//!
//! ```text
//!  ask ------------------+                 +--> SendUdp, SendTcp   one attempt at one server
//!  received, failed -----+--> Forwarder ---+--> Repeat             the same once more: a datagram may be lost
//!  timeout <- deadline --+                 +--> Close              its socket is of no more use
//!                                          +--> Part               of an answer of many messages
//!                                          +--> Reply, GiveUp      the end of the question
//! ```
//!
//! The caller calls a verb, then does all actions. Every attempt is meant to have a socket of its own, from a port of
//! the kernel's choice, connected to the server: with the id, drawn anew for each attempt, a forger has to guess some
//! 30 bits. An answer counts when it comes from the server that was asked, with the id of that attempt, the same
//! question, and all its records unless it says that it is truncated; anything else is as if it had not come. Queries
//! and answers are relayed as they are, of any type, with all of EDNS; only the id differs on the way.
//!
//! Servers are asked in listed order, the next one as well when one is slow, and those known to be dead last
//! (`health.rs`). What is final and what is only in hand, `question.rs` says; the two manners of the whole,
//! `policy.rs`.
//!
//! Where answers are kept, a question is asked once at a time; who asks the same meanwhile waits for the same answer.
//!
//! Zone transfers over TCP are relayed message by message (`transfer.rs`).
//!
//! Everything is bounded: questions under way and what waits for its turn (`queue.rs`), attempts, servers of one
//! question, the memory of servers, the cache, the attempts that outlive their question (one for each server).
//!
//! Datagrams get lost: one that is not answered is sent again, twice, over the same socket and with the same id.

mod admission;
mod attempt;
mod health;
mod ids;
mod policy;
mod question;
mod queue;
mod slab;
mod transfer;
mod twins;
mod verbs;

use crate::cache::Cache;
use crate::message::{self, Query, RecordType, Reply, Transport};
use attempt::Attempt;
use core::net::SocketAddr;
use core::time::Duration;
use health::{Health, Server, Standing};
use ids::Ids;
use question::{Asker, Worth};
use queue::{Queue, Queued};
use slab::Slab;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use twins::{Twin, Twins, Waiter, for_twin};

pub use attempt::AttemptId;
pub use policy::{OnFail, Patience, Policy};
pub use verbs::{Action, Counters, Fault, Question, Received};

/// Servers of one question. As many as an attempt's number can tell apart, with room for retries over TCP.
const MAX_SERVERS: usize = 64;
/// Attempts that outlive their question.
const MAX_LINGERING: usize = 32;
/// Attempts for each question that may be under way: as many again for those that ask a second server.
const ATTEMPTS: usize = 2;

/// All questions under way. `C` names a client.
#[derive(Debug)]
pub struct Forwarder<C> {
    policy: Policy,
    ids: Ids,
    pending: Slab<C>,
    /// Questions that somebody waits for.
    under_way: usize,
    /// Attempts under way.
    open: usize,
    /// Servers with an attempt whose question is answered: it is to tell whether they are dead.
    lingering: BTreeMap<(SocketAddr, Transport), (usize, Attempt)>,
    queue: Queue<C>,
    twins: Twins,
    deadlines: BTreeSet<(Duration, usize)>,
    health: Health,
    cache: Option<Cache>,
    actions: VecDeque<Action<C>>,
    key: Vec<u8>,
    counters: Counters,
}

impl<C: Clone> Forwarder<C> {
    /// One without questions. `key` must be random and secret.
    #[must_use]
    pub fn new(policy: Policy, key: [u8; 16]) -> Self {
        Self {
            policy,
            ids: Ids::new(key),
            pending: Slab::default(),
            under_way: 0,
            open: 0,
            lingering: BTreeMap::new(),
            queue: Queue::default(),
            twins: Twins::default(),
            deadlines: BTreeSet::new(),
            health: Health::default(),
            cache: policy.cache.map(Cache::new),
            actions: VecDeque::new(),
            key: Vec::new(),
            counters: Counters::default(),
        }
    }

    /// Something came to the socket of an attempt.
    pub fn received(
        &mut self,
        now: Duration,
        attempt: AttemptId,
        from: SocketAddr,
        message: &[u8],
    ) -> Received {
        let Some((index, open)) = self.pending.find(attempt) else { return Received::Stale };
        let Some(pending) = self.pending.get(index) else { return Received::Stale };
        let Some(reply) = pending.matches(&open, from, message) else {
            self.counters.mismatches += 1;
            return Received::Mismatch;
        };
        let quick = now < open.sent + pending.times.next;
        self.health.alive(now, open.key(), quick, &self.policy);
        if self.pending.get_mut(index).is_some_and(|pending| pending.goes_on(now, &open, &reply)) {
            self.part(attempt, index, message);
            self.wait(index);
            return Received::Part;
        }
        self.ended(index, &open);
        if self.pending.get(index).is_some_and(|pending| pending.asker.is_some()) {
            self.answered(now, index, &open, &reply, message);
        }
        self.go_on(now, index);
        self.admit(now);
        Received::Accepted
    }

    /// A message of a transfer that is not the last.
    fn part(&mut self, attempt: AttemptId, index: usize, message: &[u8]) {
        let Some(pending) = self.pending.get(index) else { return };
        let Some(asker) = &pending.asker else { return };
        let mut message = message.to_vec();
        message::set_id(&mut message, message::id(&pending.query).unwrap_or_default());
        self.actions.push_back(Action::Part { attempt, client: asker.client.clone(), message });
    }

    /// A server that was asked has answered.
    fn answered(&mut self, now: Duration, index: usize, open: &Attempt, reply: &Reply<'_>, message: &[u8]) {
        let place = open.server.place;
        if reply.truncated() && open.transport == Transport::Udp && self.policy.retry_truncated {
            if self.health.is_fine(Transport::Tcp, open.server.address) {
                return self.fetch(now, index, open.server, message);
            }
        } else if let Some(pending) = self.pending.get_mut(index)
            && let Some(worth) = pending.worth(reply, place, &self.health)
        {
            pending.keep(worth, message);
            if worth == Worth::Error {
                pending.hurry(now, open.number);
            }
            return;
        }
        self.finish(now, index, (open.transport, place), message);
    }

    /// The socket of an attempt failed.
    pub fn failed(&mut self, now: Duration, attempt: AttemptId, fault: Fault) {
        let Some((index, open)) = self.pending.find(attempt) else { return };
        if fault == Fault::Refused {
            self.health.refused(now, open.key(), &self.policy);
        }
        self.ended(index, &open);
        if let Some(pending) = self.pending.get_mut(index) {
            pending.hurry(now, open.number);
            pending.starved |= fault == Fault::Ours;
        }
        self.go_on(now, index);
        self.admit(now);
    }

    /// Time has passed.
    pub fn timeout(&mut self, now: Duration) {
        while let Some(&(deadline, index)) = self.deadlines.first()
            && deadline <= now
        {
            self.deadlines.pop_first();
            if let Some(pending) = self.pending.get_mut(index) {
                pending.deadline = None;
                self.elapsed(now, index);
                self.go_on(now, index);
            }
        }
        self.admit(now);
    }

    /// What time makes of the attempts of a question.
    fn elapsed(&mut self, now: Duration, index: usize) {
        let Some(pending) = self.pending.get_mut(index) else { return };
        let (times, ends) = (pending.times, pending.ends);
        let listens = times.late && pending.asker.is_some() && now < ends;
        let mut over = Vec::new();
        let mut repeated = Vec::new();
        for attempt in &mut pending.open {
            if now >= attempt.sent + times.next {
                self.health.slow(attempt.key(), attempt.sent, &self.policy);
            }
            if !attempt.missed && now >= attempt.until {
                attempt.missed = true;
                self.counters.timeouts += 1;
                self.health.missed(now, attempt.key(), attempt.sent, &self.policy);
                over.push(*attempt);
            } else if attempt.repeats() && now >= attempt.again {
                attempt.repeats -= 1;
                attempt.again = now + self.policy.repeat_after;
                repeated.push(*attempt);
            }
        }
        if !listens {
            over.iter().for_each(|attempt| self.ended(index, attempt));
        }
        for attempt in repeated {
            let named = self.pending.name(index, attempt.number);
            let repeat = named.zip(self.pending.message(index, attempt.id));
            self.actions.extend(repeat.map(|(attempt, message)| Action::Repeat { attempt, message }));
        }
    }

    /// When [`Forwarder::timeout`] has to be called.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// The next thing to do.
    pub fn action(&mut self) -> Option<Action<C>> {
        self.actions.pop_front()
    }

    /// Forgets answers and what is known of servers: the host's servers changed, or the way to them, and with them
    /// perhaps what they say.
    pub fn forget(&mut self) {
        self.health = Health::default();
        self.cache = self.policy.cache.map(Cache::new);
    }

    /// Questions under way.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.under_way
    }

    /// What happened so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// After anything that happened to a question: gives what is in hand, asks who is to be asked, ends it, or waits.
    fn go_on(&mut self, now: Duration, index: usize) {
        while let Some(pending) = self.pending.get_mut(index) {
            if pending.asker.is_none() {
                if pending.open.is_empty() {
                    return self.remove(index);
                }
                break;
            }
            if now >= pending.ends || !pending.may_get_better(now, &self.health) {
                self.fail(now, index);
            } else if let Some(server) =
                pending.next_server(now, self.open < self.policy.max_pending * ATTEMPTS)
            {
                let transport = pending.transport;
                self.start(now, index, server, transport);
            } else if pending.open.is_empty() {
                self.fail(now, index);
            } else {
                break;
            }
        }
        self.wait(index);
    }

    /// Asks a server.
    fn start(&mut self, now: Duration, index: usize, server: Server, transport: Transport) {
        let id = self.ids.next();
        let Some(pending) = self.pending.get_mut(index) else { return };
        let times = pending.times;
        let held_back = match server.standing {
            Standing::Fine | Standing::Dead => times.next,
            Standing::Slow | Standing::Trial => Duration::ZERO,
        };
        pending.next_at = now + held_back;
        let number = pending.started;
        pending.started += 1;
        self.open += 1;
        pending.open.push(Attempt {
            number,
            server,
            transport,
            id,
            sent: now,
            repeats: if transport == Transport::Udp && pending.may_repeat() {
                self.policy.repeats
            } else {
                0
            },
            again: now + self.policy.repeat_after,
            until: now + times.server,
            missed: false,
        });
        let Some(attempt) = self.pending.name(index, number) else { return };
        let Some(message) = self.pending.message(index, id) else { return };
        let server = server.address;
        self.actions.push_back(match transport {
            Transport::Udp => Action::SendUdp { attempt, server, message },
            Transport::Tcp => Action::SendTcp { attempt, server, message },
        });
    }

    /// A truncated answer is asked for again over TCP. It is kept, in case that does not work.
    fn fetch(&mut self, now: Duration, index: usize, server: Server, truncated: &[u8]) {
        let Some(pending) = self.pending.get_mut(index) else { return };
        pending.keep(Worth::Truncated, truncated);
        pending.fetch_until = now + pending.times.next;
        self.start(now, index, server, Transport::Tcp);
    }

    /// An attempt is over.
    fn ended(&mut self, index: usize, attempt: &Attempt) {
        if self.pending.get(index).is_some_and(|pending| pending.asker.is_none()) {
            self.lingering.remove(&attempt.key());
        }
        self.close(index, attempt);
    }

    /// The socket of an attempt is of no more use.
    fn close(&mut self, index: usize, attempt: &Attempt) {
        if let Some(pending) = self.pending.get_mut(index) {
            pending.end_attempt(attempt.number);
            self.open -= 1;
        }
        self.actions
            .extend(self.pending.name(index, attempt.number).map(|attempt| Action::Close { attempt }));
    }

    /// Sets the deadline.
    fn wait(&mut self, index: usize) {
        let Some(pending) = self.pending.get_mut(index) else { return };
        let due = pending.due();
        let before = core::mem::replace(&mut pending.deadline, due);
        if before != due {
            before.map(|before| self.deadlines.remove(&(before, index)));
            self.deadlines.extend(due.map(|due| (due, index)));
        }
    }

    /// Nothing is left to do for a question.
    fn remove(&mut self, index: usize) {
        let removed = self.pending.remove(index).and_then(|pending| pending.deadline);
        removed.map(|deadline| self.deadlines.remove(&(deadline, index)));
    }

    /// Ends a question with this answer.
    fn finish(
        &mut self,
        now: Duration,
        index: usize,
        (transport, place): (Transport, usize),
        message: &[u8],
    ) {
        let Some(ended) = self.end(index, true) else { return };
        self.counters.answered += 1;
        // Of two servers that disagree the earlier one is right, so that there is nothing is believed of the first
        // alone.
        let keeps = place == 0 || Reply::parse(message).is_ok_and(|reply| !reply.is_negative());
        if let (Some(cache), Some(twin)) = (self.cache.as_mut().filter(|_| keeps), &ended.twin) {
            cache.put(now, &twin.key, message);
        }
        let fetched = transport == Transport::Tcp && ended.transport == Transport::Udp;
        let too_long = || Query::parse(&ended.query).is_ok_and(|q| message.len() > limit(&q, Transport::Udp));
        let message = match &ended.in_hand {
            Some((Worth::Truncated, truncated)) if fetched && too_long() => truncated.clone(),
            _ => message.to_vec(),
        };
        self.reply_all(ended, &message);
    }

    /// Ends a question with what is in hand, or without an answer.
    fn fail(&mut self, now: Duration, index: usize) {
        let Some(pending) = self.pending.get_mut(index) else { return };
        match pending.in_hand.take() {
            Some((Worth::Negative(core::cmp::Reverse(place)), message)) => {
                let transport = pending.transport;
                self.finish(now, index, (transport, place), &message);
            }
            Some((_, message)) => {
                let Some(ended) = self.end(index, true) else { return };
                self.counters.answered += 1;
                self.reply_all(ended, &message);
            }
            None => {
                let silent = pending.starved || pending.has_begun();
                let Some(ended) = self.end(index, false) else { return };
                self.counters.failed += 1;
                let askers = ended.waiters.into_iter().map(|waiter| (waiter.client, waiter.query));
                for (client, query) in core::iter::once((ended.asker.client, ended.query)).chain(askers) {
                    if silent {
                        self.actions.push_back(Action::GiveUp { client });
                    } else {
                        self.no_answer(client, &query);
                    }
                }
            }
        }
    }

    /// The answer, for who asked first and all who wait with him.
    fn reply_all(&mut self, ended: Ended<C>, message: &[u8]) {
        self.reply(&ended.query, ended.asker.client, message.to_vec());
        for waiter in ended.waiters {
            self.reply(&waiter.query, waiter.client, for_twin(message, &waiter.query));
        }
    }

    fn reply(&mut self, query: &[u8], client: C, mut message: Vec<u8>) {
        message::set_id(&mut message, message::id(query).unwrap_or_default());
        if self.policy.claim_recursion && is_ordinary(query) {
            message::claim_recursion(&mut message);
        }
        self.actions.push_back(Action::Reply { client, message });
    }

    fn no_answer(&mut self, client: C, query: &[u8]) {
        let mut message = Vec::new();
        let told = self.policy.on_fail == OnFail::ServFail && message::servfail(query, &mut message);
        self.actions.push_back(if told {
            Action::Reply { client, message }
        } else {
            Action::GiveUp { client }
        });
    }

    /// Nobody waits for a question any more. What is open is closed, unless it `lingers`: one attempt for each server
    /// that still has time, to tell whether that is dead.
    fn end(&mut self, index: usize, lingers: bool) -> Option<Ended<C>> {
        let pending = self.pending.get_mut(index)?;
        let ended = Ended {
            asker: pending.asker.take()?,
            transport: pending.transport,
            query: pending.query.clone(),
            twin: pending.twin.take(),
            waiters: core::mem::take(&mut pending.waiters),
            in_hand: pending.in_hand.take(),
            servers: pending.listed(),
        };
        let open = pending.open.clone();
        let lingers = lingers && self.policy.remembers();
        for attempt in open {
            let key = attempt.key();
            let room = self.lingering.len() < MAX_LINGERING && !self.lingering.contains_key(&key);
            if lingers && !attempt.missed && room {
                self.lingering.insert(key, (index, attempt));
            } else {
                self.close(index, &attempt);
            }
        }
        self.under_way -= 1;
        self.queue.ended(ended.asker.source);
        if let Some(twin) = &ended.twin {
            self.twins.asked.remove(twin);
        }
        for waiter in &ended.waiters {
            self.queue.released(waiter.source, waiter.cost());
        }
        Some(ended)
    }
}

/// What is left of a question that has ended.
#[derive(Debug)]
struct Ended<C> {
    asker: Asker<C>,
    transport: Transport,
    query: Vec<u8>,
    twin: Option<Twin>,
    waiters: Vec<Waiter<C>>,
    in_hand: Option<(Worth, Vec<u8>)>,
    servers: Vec<SocketAddr>,
}

impl<C> Ended<C> {
    /// The question, to be asked again.
    fn into_queued(self) -> Queued<C> {
        let Asker { client, source, since } = self.asker;
        Queued { client, source, transport: self.transport, query: self.query, servers: self.servers, since }
    }
}

/// Whether a query is about what a name stands for. Answers to others may be signed as they are (RFC 8945).
fn is_ordinary(query: &[u8]) -> bool {
    Query::parse(query).is_ok_and(|query| {
        query.opcode() == 0 && !matches!(query.record_type(), RecordType::AXFR | RecordType::IXFR)
    })
}

/// How long an answer the client takes.
fn limit(query: &Query<'_>, transport: Transport) -> usize {
    match transport {
        Transport::Udp => usize::from(query.udp_size()),
        Transport::Tcp => message::MAX_MESSAGE,
    }
}

#[cfg(test)]
mod tests;
