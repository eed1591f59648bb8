//! Questions for other servers: whom to ask, how long to wait, what to do when nobody answers. Without a socket.
//!
//! ```text
//!  ask ------------------+                 +--> SendUdp, SendTcp   one attempt at one server
//!  received, failed -----+--> Forwarder ---+--> Repeat             the same once more: a datagram may be lost
//!  timeout <- deadline --+                 +--> Close              its socket is of no more use
//!                                          +--> Reply, GiveUp      the end of the question
//! ```
//!
//! The caller calls a verb, then does all actions. Every attempt is meant to have a socket of its own, from a port of
//! the kernel's choice, connected to the server: with the id, drawn anew for each attempt, a forger has to guess some
//! 30 bits. An answer counts when it comes from the server that was asked, with the id of that attempt, the same
//! question, and all its records unless it says that it is truncated; anything else is as if it had not come. Queries
//! and answers are relayed as they are, of any type, with all of EDNS; only the id differs on the way.
//!
//! Where answers are kept, a question is asked once at a time; who asks the same meanwhile waits for the same answer.
//!
//! Everything is bounded: questions under way in all and from one source address, servers of one question, the memory
//! of dead servers, the cache.
//!
//! Datagrams get lost: one that is not answered is sent again, twice, over the same socket and with the same id.
//!
//! Two policies. [`Policy::aardvark`] behaves as aardvark-dns does and as its test-suite times it: servers in listed
//! order, five seconds shared among them, each asked over one socket, silence at the end, no memory. [`Policy::trusted`] is for
//! the stack's own resolvers: a server that did not answer is asked last for a while, late answers still count, a
//! server's SERVFAIL sends the question to the next, truncated answers are fetched over TCP when the policy says so,
//! answers are kept for their TTL, SERVFAIL at the end.

mod attempt;
mod health;
mod ids;
mod policy;
mod twins;
mod verbs;

use crate::answer::Transport;
use crate::cache::{self, Cache};
use crate::message::{self, Query, Rcode};
use attempt::{Pending, Slab};
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use health::Health;
use ids::Ids;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use twins::{Twin, Twins, Waiter, for_twin};

pub use attempt::AttemptId;
pub use policy::{OnFail, Patience, Policy};
pub use verbs::{Action, Counters, Question, Received};

/// Servers of one question. As many as an attempt's number can tell apart, with room for retries over TCP.
const MAX_SERVERS: usize = 64;

/// All questions under way. `C` names a client.
#[derive(Debug)]
pub struct Forwarder<C> {
    policy: Policy,
    ids: Ids,
    pending: Slab<C>,
    twins: Twins,
    per_source: BTreeMap<IpAddr, usize>,
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
            twins: Twins::default(),
            per_source: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            health: Health::default(),
            cache: policy.cache.map(Cache::new),
            actions: VecDeque::new(),
            key: Vec::new(),
            counters: Counters::default(),
        }
    }

    /// A client asks.
    pub fn ask(&mut self, now: Duration, question: Question<'_, C>) {
        self.counters.asked += 1;
        let Question { client, source, transport, message, servers } = question;
        let Ok(query) = Query::parse(message) else {
            self.counters.failed += 1;
            self.actions.push_back(Action::GiveUp { client });
            return;
        };
        let key = cache::key(&query, servers, &mut self.key).then_some(&self.key);
        if let (Some(cache), Some(key)) = (&mut self.cache, key) {
            let mut reply = Vec::new();
            if cache.get(now, key, &query, limit(&query, transport), &mut reply) {
                self.counters.cached += 1;
                return self.reply(message, client, reply);
            }
        }
        let busy = self.per_source.get(&source).copied().unwrap_or(0);
        if self.pending.len() + self.twins.waiting >= self.policy.max_pending
            || busy >= self.policy.max_per_source
        {
            self.counters.refused += 1;
            self.no_answer(client, message);
            return;
        }
        *self.per_source.entry(source).or_default() += 1;
        let room = limit(&query, transport);
        let twin = key.filter(|_| self.cache.is_some());
        let twin = twin.map(|key| Twin { key: key.as_slice().into(), transport, room });
        let asked = twin.as_ref().and_then(|twin| self.twins.asked.get(twin));
        if let Some(pending) = asked.and_then(|index| self.pending.get_mut(*index)) {
            self.counters.shared += 1;
            self.twins.waiting += 1;
            pending.waiters.push(Waiter { client, source, query: message.to_vec() });
            return;
        }
        let servers = self.health.order(now, transport, servers, &self.policy);
        let pending = Pending::new(client, source, transport, message.to_vec(), servers, twin.clone(), now);
        let index = self.pending.insert(pending);
        self.twins.asked.extend(twin.map(|twin| (twin, index)));
        self.next_server(now, index);
    }

    /// Something came to the socket of an attempt.
    pub fn received(
        &mut self,
        now: Duration,
        attempt: AttemptId,
        from: SocketAddr,
        message: &[u8],
    ) -> Received {
        let Some((index, number)) = self.pending.find(attempt) else { return Received::Stale };
        let Some(pending) = self.pending.get_mut(index).filter(|pending| pending.has_open(number)) else {
            return Received::Stale;
        };
        let Some(reply) = pending.matches(number, from, message) else {
            self.counters.mismatches += 1;
            return Received::Mismatch;
        };
        let Some(ended) = pending.end_attempt(number) else { return Received::Stale };
        self.health.alive(ended.server, ended.transport);
        self.actions.push_back(Action::Close { attempt });
        if reply.truncated()
            && ended.transport == Transport::Udp
            && self.wants_tcp(now, index, ended.server, message)
        {
            self.start(now, index, ended.server, Transport::Tcp);
        } else if self.policy.next_on_error && is_error(reply.rcode()) && self.has_more(index) {
            self.keep(index, message);
            self.after(now, index, number);
        } else {
            self.finish(now, index, ended.transport, message);
        }
        Received::Accepted
    }

    /// The socket of an attempt failed: refused, unreachable, closed.
    pub fn failed(&mut self, now: Duration, attempt: AttemptId) {
        let Some((index, number)) = self.pending.find(attempt) else { return };
        let Some(pending) = self.pending.get_mut(index) else { return };
        let Some(ended) = pending.end_attempt(number) else { return };
        self.actions.push_back(Action::Close { attempt });
        self.health.dead(now, ended.server, ended.transport, &self.policy);
        if ended.transport == pending.transport {
            self.after(now, index, number);
        } else {
            self.fail(index); // the truncated answer has to do
        }
    }

    /// Time has passed.
    pub fn timeout(&mut self, now: Duration) {
        while let Some(&(deadline, index)) = self.deadlines.first()
            && deadline <= now
        {
            self.deadlines.pop_first();
            let Some(pending) = self.pending.get_mut(index) else { continue };
            pending.deadline = None;
            if now < pending.until {
                self.repeat(now, index);
                continue;
            }
            self.counters.timeouts += 1;
            // Without one, what was waited for were late answers.
            if let Some(attempt) = pending.current() {
                let again = attempt.transport != pending.transport;
                self.health.dead(now, attempt.server, attempt.transport, &self.policy);
                if again {
                    self.fail(index); // the truncated answer has to do
                    continue;
                }
            }
            if !self.policy.late_answers {
                self.close(index);
            }
            self.next_server(now, index);
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

    /// Forgets answers and dead servers: the host's servers changed, and with them perhaps what they say.
    pub fn forget(&mut self) {
        self.health = Health::default();
        self.cache = self.policy.cache.map(Cache::new);
    }

    /// Questions under way.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// What happened so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// An attempt ended without an answer to give.
    fn after(&mut self, now: Duration, index: usize, number: u8) {
        if self.pending.get(index).is_some_and(|pending| pending.is_current(number) || !pending.waits()) {
            self.next_server(now, index);
        }
    }

    /// Asks the next server. When there is none, waits for late answers while there is time, or ends the question.
    fn next_server(&mut self, now: Duration, index: usize) {
        let Some(pending) = self.pending.get_mut(index) else { return };
        match pending.next_server() {
            Some(server) => {
                let transport = pending.transport;
                self.start(now, index, server, transport);
            }
            None if pending.waits() && pending.deadline.is_some() => {}
            None => self.fail(index),
        }
    }

    fn start(&mut self, now: Duration, index: usize, server: SocketAddr, transport: Transport) {
        let id = self.ids.next();
        let Some(pending) = self.pending.get_mut(index) else { return };
        pending.until = now + pending.patience(now, transport, self.policy.patience);
        pending.repeats = match transport {
            Transport::Udp => self.policy.repeats,
            Transport::Tcp => 0,
        };
        let Some((attempt, message)) = self.pending.start(index, server, transport, id) else { return };
        self.wait(now, index);
        self.actions.push_back(match transport {
            Transport::Udp => Action::SendUdp { attempt, server, message },
            Transport::Tcp => Action::SendTcp { attempt, server, message },
        });
    }

    /// Sends the newest attempt's message once more, if that is still open.
    fn repeat(&mut self, now: Duration, index: usize) {
        if let Some((attempt, message)) = self.pending.again(index) {
            self.actions.push_back(Action::Repeat { attempt, message });
        }
        self.wait(now, index);
    }

    /// Sets the deadline: when to repeat, or when it has taken too long.
    fn wait(&mut self, now: Duration, index: usize) {
        let Some(pending) = self.pending.get_mut(index) else { return };
        let repeats = pending.repeats > 0 && pending.current().is_some();
        let again = repeats.then_some(now + self.policy.repeat_after);
        let deadline = again.unwrap_or(pending.until).min(pending.until);
        if let Some(before) = pending.deadline.replace(deadline) {
            self.deadlines.remove(&(before, index));
        }
        self.deadlines.insert((deadline, index));
    }

    /// Whether a truncated answer should be fetched over TCP. If so it is kept, in case that does not work.
    fn wants_tcp(&mut self, now: Duration, index: usize, server: SocketAddr, truncated: &[u8]) -> bool {
        let wants =
            self.policy.retry_truncated && self.health.answers(now, Transport::Tcp, server, &self.policy);
        if wants {
            self.keep(index, truncated);
        }
        wants
    }

    fn has_more(&self, index: usize) -> bool {
        self.pending.get(index).is_some_and(Pending::has_more)
    }

    /// Keeps an answer that is better than none.
    fn keep(&mut self, index: usize, message: &[u8]) {
        if let Some(pending) = self.pending.get_mut(index) {
            pending.fallback.get_or_insert_with(|| message.to_vec());
        }
    }

    /// Ends a question with this answer.
    fn finish(&mut self, now: Duration, index: usize, transport: Transport, message: &[u8]) {
        let Some(pending) = self.take(index) else { return };
        self.counters.answered += 1;
        if let (Some(cache), Some(twin)) = (&mut self.cache, &pending.twin) {
            cache.put(now, &twin.key, message);
        }
        let fetched = transport == Transport::Tcp && pending.transport == Transport::Udp;
        let too_long =
            || Query::parse(&pending.query).is_ok_and(|q| message.len() > limit(&q, Transport::Udp));
        let message = match &pending.fallback {
            Some(truncated) if fetched && too_long() => truncated.clone(),
            _ => message.to_vec(),
        };
        self.reply_all(pending, &message);
    }

    /// Ends a question that no server answered.
    fn fail(&mut self, index: usize) {
        let Some(mut pending) = self.take(index) else { return };
        match pending.fallback.take() {
            Some(message) => {
                self.counters.answered += 1;
                self.reply_all(pending, &message);
            }
            None => {
                self.counters.failed += 1;
                self.no_answer(pending.client, &pending.query);
                for waiter in pending.waiters {
                    self.no_answer(waiter.client, &waiter.query);
                }
            }
        }
    }

    /// The answer, for who asked first and all who wait with him.
    fn reply_all(&mut self, pending: Pending<C>, message: &[u8]) {
        self.reply(&pending.query, pending.client, message.to_vec());
        for waiter in pending.waiters {
            self.reply(&waiter.query, waiter.client, for_twin(message, &waiter.query));
        }
    }

    fn reply(&mut self, query: &[u8], client: C, mut message: Vec<u8>) {
        message::set_id(&mut message, message::id(query).unwrap_or_default());
        if self.policy.claim_recursion {
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

    /// Closes what is open for a question.
    fn close(&mut self, index: usize) {
        for attempt in self.pending.end_all(index) {
            self.actions.push_back(Action::Close { attempt });
        }
    }

    /// Removes a question.
    fn take(&mut self, index: usize) -> Option<Pending<C>> {
        self.close(index);
        let pending = self.pending.remove(index)?;
        if let Some(deadline) = pending.deadline {
            self.deadlines.remove(&(deadline, index));
        }
        if let Some(twin) = &pending.twin {
            self.twins.asked.remove(twin);
        }
        self.twins.waiting -= pending.waiters.len();
        for source in pending.waiters.iter().map(|waiter| waiter.source).chain([pending.source]) {
            if let Some(count) = self.per_source.get_mut(&source) {
                *count -= 1;
                if *count == 0 {
                    self.per_source.remove(&source);
                }
            }
        }
        Some(pending)
    }
}

/// Answers that say nothing about the name.
fn is_error(rcode: Rcode) -> bool {
    matches!(rcode, Rcode::SERVFAIL | Rcode::REFUSED | Rcode::NOTIMP)
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
