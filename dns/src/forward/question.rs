//! A question under way: its servers, what has come so far, and what that is worth.
//!
//! The first good answer is final. One of three kinds is only *in hand*, to be given when there is nothing better to
//! wait for:
//!
//! | in hand | it waits for |
//! |---|---|
//! | an error (SERVFAIL, REFUSED, NOTIMP) | every server that is not known dead; another error takes its place |
//! | that there is no such name, or nothing of that type | servers *earlier* in the list that are out and not known dead: of two that disagree the earlier one is right, be it slower |
//! | a truncated answer | the same over TCP, as long as the next server is held back |
//!
//! An answered question stays while attempts of it are open whose servers still have time: what becomes of them tells
//! who is dead.

use super::Patience;
use super::attempt::Attempt;
use super::health::{Health, Server};
use super::policy::Times;
use super::transfer::Transfer;
use super::twins::{Twin, Waiter};
use crate::message::{self, Query, Rcode, Reply, Transport};
use core::cmp::Reverse;
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

/// What is kept of an answer is worth; the larger is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Worth {
    /// It says nothing about the name.
    Error,
    /// There is nothing, says the server in that place.
    Negative(Reverse<usize>),
    /// It is cut off.
    Truncated,
}

/// Who asked, from where, and when.
#[derive(Debug)]
pub(super) struct Asker<C> {
    pub(super) client: C,
    pub(super) source: IpAddr,
    pub(super) since: Duration,
}

/// A question.
#[derive(Debug)]
pub(super) struct Pending<C> {
    /// `None`: it is answered.
    pub(super) asker: Option<Asker<C>>,
    pub(super) transport: Transport,
    pub(super) query: Vec<u8>,
    /// Whether it is an ordinary one, about what a name stands for.
    ordinary: bool,
    /// What has come of the zone, if it asks for a transfer.
    transfer: Option<Transfer>,
    /// What it has in common with others, if its answer is to be kept.
    pub(super) twin: Option<Twin>,
    pub(super) waiters: Vec<Waiter<C>>,
    /// An answer to give if there is no better one.
    pub(super) in_hand: Option<(Worth, Vec<u8>)>,
    /// When something has to be done without an answer.
    pub(super) deadline: Option<Duration>,
    pub(super) times: Times,
    /// We had not what it takes to ask a server.
    pub(super) starved: bool,
    /// When it ends.
    pub(super) ends: Duration,
    /// When the next server is asked.
    pub(super) next_at: Duration,
    /// How long a truncated answer waits for the same over TCP.
    pub(super) fetch_until: Duration,
    /// In the order to ask them.
    servers: Vec<Server>,
    tried: usize,
    pub(super) open: Vec<Attempt>,
    pub(super) started: u8,
}

impl<C> Pending<C> {
    pub(super) fn new(
        asker: Asker<C>,
        transport: Transport,
        query: Vec<u8>,
        servers: Vec<Server>,
        twin: Option<Twin>,
        (now, patience): (Duration, Patience),
    ) -> Self {
        let mut times = patience.of(servers.len());
        let (ordinary, transfer) = Query::parse(&query).map_or((false, None), |query| {
            let transfer = Transfer::of(&query).filter(|_| transport == Transport::Tcp);
            (query.opcode() == 0, transfer)
        });
        if !ordinary || transfer.is_some() {
            // What changes something, or takes long, is asked of one server at a time.
            times.next = times.server;
        }
        // Whoever asked earlier waits no longer for it, but each server has its time.
        let ends = (asker.since + times.question).max(now + times.server);
        Self {
            asker: Some(asker),
            transport,
            query,
            ordinary,
            transfer,
            twin,
            waiters: Vec::new(),
            in_hand: None,
            deadline: None,
            starved: false,
            times,
            ends,
            next_at: now,
            fetch_until: now,
            servers,
            tried: 0,
            open: Vec::new(),
            started: 0,
        }
    }

    /// Whether its message may be sent twice to one server.
    pub(super) const fn may_repeat(&self) -> bool {
        self.ordinary
    }

    /// The server to ask next, if it is time. Without `room` for another attempt, one that is still worth waiting for
    /// is not left for it.
    pub(super) fn next_server(&mut self, now: Duration, room: bool) -> Option<Server> {
        let alone = self.open.is_empty();
        let server = self.untried().filter(|_| now >= self.next_at || alone)?;
        if !room && !alone {
            self.next_at = now + self.times.next.max(MIN_PAUSE);
            return None;
        }
        self.tried += 1;
        Some(server)
    }

    /// The servers as they were listed.
    pub(super) fn listed(&self) -> Vec<SocketAddr> {
        let mut servers = self.servers.clone();
        servers.sort_by_key(|server| server.place);
        servers.into_iter().map(|server| server.address).collect()
    }

    /// Whether part of a transfer has come.
    pub(super) fn has_begun(&self) -> bool {
        self.transfer.as_ref().is_some_and(Transfer::has_begun)
    }

    /// Whether more messages are to follow this one: then its server has its time anew.
    pub(super) fn goes_on(&mut self, now: Duration, attempt: &Attempt, reply: &Reply<'_>) -> bool {
        let Some(transfer) = self.transfer.as_mut().filter(|_| self.asker.is_some()) else { return false };
        if reply.rcode() != Rcode::NOERROR || transfer.message(reply) {
            return false;
        }
        self.ends = now + self.times.question;
        // Nobody else is asked from here on.
        self.servers.truncate(self.tried);
        for open in self.open.iter_mut().filter(|open| open.number == attempt.number) {
            (open.sent, open.until, open.missed) = (now, now + self.times.question, false);
        }
        true
    }

    /// The server that is next, unless what is in hand says more than it could.
    fn untried(&self) -> Option<Server> {
        match self.in_hand {
            Some((Worth::Negative(_) | Worth::Truncated, _)) => None,
            _ => self.servers.get(self.tried).copied(),
        }
    }

    /// When something has to be done, whatever comes.
    pub(super) fn due(&self) -> Option<Duration> {
        let attempts = self.open.iter().flat_map(|attempt| {
            let again = attempt.repeats().then_some(attempt.again);
            [again, (!attempt.missed).then_some(attempt.until)]
        });
        let question = self.asker.as_ref().map(|_| self.ends);
        let next = question.and_then(|_| self.untried()).map(|_| self.next_at);
        let fetch = question.filter(|_| self.fetches()).map(|_| self.fetch_until);
        attempts.chain([question, next, fetch]).flatten().min()
    }

    fn fetches(&self) -> bool {
        matches!(self.in_hand, Some((Worth::Truncated, _)))
    }

    /// Keeps an answer that is better than none.
    pub(super) fn keep(&mut self, worth: Worth, message: &[u8]) {
        if self.in_hand.as_ref().is_none_or(|(so_far, _)| worth >= *so_far) {
            self.in_hand = Some((worth, message.to_vec()));
        }
    }

    /// What a good or bad answer of the server in that place is worth; `None`: it is final.
    pub(super) fn worth(&self, reply: &Reply<'_>, place: usize, health: &Health) -> Option<Worth> {
        let worth = if is_error(reply.rcode()) {
            Worth::Error
        } else if reply.is_negative() {
            Worth::Negative(Reverse(place))
        } else {
            return None;
        };
        (self.ordinary && self.waits_for_better(worth, health)).then_some(worth)
    }

    /// Whether something better than what is in hand may still come.
    pub(super) fn may_get_better(&self, now: Duration, health: &Health) -> bool {
        match self.in_hand {
            None => true,
            Some((Worth::Truncated, _)) => {
                now < self.fetch_until && self.open.iter().any(|attempt| attempt.transport != self.transport)
            }
            Some((worth, _)) => self.waits_for_better(worth, health),
        }
    }

    fn waits_for_better(&self, worth: Worth, health: &Health) -> bool {
        let mut out = self.open.iter().filter(|attempt| {
            attempt.is_awaited() && !health.is_dead(attempt.transport, attempt.server.address)
        });
        match worth {
            Worth::Negative(Reverse(place)) => out.any(|attempt| attempt.server.place < place),
            Worth::Truncated => out.next().is_some(),
            Worth::Error => out.next().is_some() || self.has_untried(health),
        }
    }

    /// Whether a server is left that is not known to be dead.
    fn has_untried(&self, health: &Health) -> bool {
        let mut left = self.servers.iter().skip(self.tried);
        left.any(|server| !server.standing.is_dead() && !health.is_dead(self.transport, server.address))
    }

    /// The answer, if it is one to this attempt.
    pub(super) fn matches<'m>(
        &self,
        attempt: &Attempt,
        from: SocketAddr,
        message: &'m [u8],
    ) -> Option<Reply<'m>> {
        let address = attempt.server.address;
        let same_server =
            address.port() == from.port() && address.ip().to_canonical() == from.ip().to_canonical();
        if !same_server || message::id(message) != Some(attempt.id) {
            return None;
        }
        let reply = Reply::parse(message).ok()?;
        let query = Query::parse(&self.query).ok()?;
        // RFC 5936 §2.2.1: only the first message of a transfer has to repeat the question.
        let further = reply.questions() == 0 && self.has_begun();
        // Servers that cannot read a query, or do not want to, may leave out the question. RFC 2136 §3.8: of an update
        // the server may leave out all sections, whatever it says.
        let bare = reply.questions() == 0
            && (reply.rcode() != Rcode::NOERROR || query.opcode() != 0 && query.opcode() == reply.opcode());
        // Of several questions servers look at the first, as we do, and may not repeat the others (RFC 9619).
        let same = message::same_question(reply.first_question(), query.first_question());
        ((same || bare || further) && reply.is_whole()).then_some(reply)
    }

    pub(super) fn end_attempt(&mut self, number: u8) {
        self.open.retain(|attempt| attempt.number != number);
    }

    /// That attempt has come to nothing: if it was the newest, the next server has no more to be held back.
    pub(super) fn hurry(&mut self, now: Duration, number: u8) {
        if number + 1 == self.started {
            self.next_at = now;
        }
    }
}

/// Between two looks whether there is room for another attempt.
const MIN_PAUSE: Duration = Duration::from_millis(100);

/// Answers that say nothing about the name.
fn is_error(rcode: Rcode) -> bool {
    matches!(rcode, Rcode::SERVFAIL | Rcode::REFUSED | Rcode::NOTIMP)
}
