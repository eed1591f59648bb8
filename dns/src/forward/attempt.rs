//! Questions under way and their attempts, addressed by index and generation, so that what belongs to an old one misses.

use super::twins::{Twin, Waiter};
use super::{MAX_SERVERS, Patience};
use crate::answer::Transport;
use crate::message::{self, Query, Rcode, Reply};
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

/// One attempt at one server. Fits an epoll token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AttemptId {
    index: u32,
    generation: u16,
    number: u8,
}

impl AttemptId {
    /// As a number below 2^56.
    #[must_use]
    pub fn to_bits(self) -> u64 {
        u64::from(self.index) << 24 | u64::from(self.generation) << 8 | u64::from(self.number)
    }

    /// From such a number. Any other number names no attempt.
    #[must_use]
    pub fn from_bits(bits: u64) -> Option<Self> {
        let [0, i0, i1, i2, i3, g0, g1, number] = bits.to_be_bytes() else { return None };
        Some(Self {
            index: u32::from_be_bytes([i0, i1, i2, i3]),
            generation: u16::from_be_bytes([g0, g1]),
            number,
        })
    }
}

/// An attempt whose socket is open.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attempt {
    number: u8,
    pub(super) server: SocketAddr,
    pub(super) transport: Transport,
    id: u16,
}

/// A question under way.
#[derive(Debug)]
pub(super) struct Pending<C> {
    pub(super) client: C,
    pub(super) source: IpAddr,
    pub(super) transport: Transport,
    pub(super) query: Vec<u8>,
    /// What it has in common with others, if its answer is to be kept.
    pub(super) twin: Option<Twin>,
    pub(super) waiters: Vec<Waiter<C>>,
    /// An answer to give if there is no better one.
    pub(super) fallback: Option<Vec<u8>>,
    /// When something has to be done without an answer.
    pub(super) deadline: Option<Duration>,
    /// How long the newest attempt may take.
    pub(super) until: Duration,
    /// How often its message may still be repeated.
    pub(super) repeats: u8,
    since: Duration,
    servers: Vec<SocketAddr>,
    tried: usize,
    open: Vec<Attempt>,
    started: u8,
}

impl<C> Pending<C> {
    pub(super) fn new(
        client: C,
        source: IpAddr,
        transport: Transport,
        query: Vec<u8>,
        mut servers: Vec<SocketAddr>,
        twin: Option<Twin>,
        since: Duration,
    ) -> Self {
        servers.truncate(MAX_SERVERS);
        Self {
            client,
            source,
            transport,
            query,
            twin,
            waiters: Vec::new(),
            fallback: None,
            deadline: None,
            until: since,
            repeats: 0,
            since,
            servers,
            tried: 0,
            open: Vec::new(),
            started: 0,
        }
    }

    /// The server to ask next.
    pub(super) fn next_server(&mut self) -> Option<SocketAddr> {
        let server = self.servers.get(self.tried).copied()?;
        self.tried += 1;
        Some(server)
    }

    pub(super) fn has_more(&self) -> bool {
        self.tried < self.servers.len() || !self.open.is_empty()
    }

    /// How long the server has that is about to be asked. One that is asked again over TCP has answered a moment ago, and
    /// there is something to give to the client meanwhile.
    pub(super) fn patience(&self, now: Duration, transport: Transport, patience: Patience) -> Duration {
        match patience {
            Patience::Each(each, _) if transport != self.transport => each,
            Patience::Shared(all) => all / u32::try_from(self.servers.len().max(1)).unwrap_or(u32::MAX),
            Patience::Each(each, _) if self.tried < self.servers.len() => each,
            Patience::Each(each, all) => (self.since + all).saturating_sub(now).max(each),
        }
    }

    /// The answer, if it is one to this attempt.
    pub(super) fn matches<'m>(&self, number: u8, from: SocketAddr, message: &'m [u8]) -> Option<Reply<'m>> {
        let attempt = self.open.iter().find(|attempt| attempt.number == number)?;
        let same_server = attempt.server.port() == from.port()
            && attempt.server.ip().to_canonical() == from.ip().to_canonical();
        if !same_server || message::id(message) != Some(attempt.id) {
            return None;
        }
        let reply = Reply::parse(message).ok()?;
        let query = Query::parse(&self.query).ok()?;
        // Servers that cannot read a query, or do not want to, may leave out the question.
        let bare_error = reply.questions() == 0 && reply.rcode() != Rcode::NOERROR;
        // Of several questions servers look at the first, as we do, and may not repeat the others (RFC 9619).
        let same = message::same_question(reply.first_question(), query.first_question());
        ((same || bare_error) && reply.is_whole()).then_some(reply)
    }

    pub(super) fn has_open(&self, number: u8) -> bool {
        self.open.iter().any(|attempt| attempt.number == number)
    }

    pub(super) fn end_attempt(&mut self, number: u8) -> Option<Attempt> {
        let place = self.open.iter().position(|attempt| attempt.number == number)?;
        Some(self.open.remove(place))
    }

    /// Whether that was the newest attempt, the one that the deadline is about.
    pub(super) fn is_current(&self, number: u8) -> bool {
        number + 1 == self.started
    }

    /// The newest attempt, if that is still open.
    pub(super) fn current(&self) -> Option<Attempt> {
        self.open.iter().copied().find(|attempt| self.is_current(attempt.number))
    }

    /// Whether an attempt is open.
    pub(super) fn waits(&self) -> bool {
        !self.open.is_empty()
    }
}

/// All questions under way.
#[derive(Debug)]
pub(super) struct Slab<C> {
    slots: Vec<Slot<C>>,
    free: Vec<usize>,
}

#[derive(Debug)]
struct Slot<C> {
    generation: u16,
    pending: Option<Pending<C>>,
}

impl<C> Default for Slab<C> {
    fn default() -> Self {
        Self { slots: Vec::new(), free: Vec::new() }
    }
}

impl<C> Slot<C> {
    /// The newest attempt, if that is open, and its message.
    fn message(&self, index: usize) -> Option<(AttemptId, Vec<u8>)> {
        let pending = self.pending.as_ref()?;
        let Attempt { number, id, .. } = pending.current()?;
        let mut message = pending.query.clone();
        message::set_id(&mut message, id);
        let index = u32::try_from(index).ok()?;
        Some((AttemptId { index, generation: self.generation, number }, message))
    }
}

impl<C> Slab<C> {
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub(super) fn insert(&mut self, pending: Pending<C>) -> usize {
        let index = self.free.pop().unwrap_or(self.slots.len());
        match self.slots.get_mut(index) {
            Some(slot) => slot.pending = Some(pending),
            None => self.slots.push(Slot { generation: 0, pending: Some(pending) }),
        }
        index
    }

    pub(super) fn remove(&mut self, index: usize) -> Option<Pending<C>> {
        let slot = self.slots.get_mut(index)?;
        let pending = slot.pending.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(index);
        Some(pending)
    }

    pub(super) fn get(&self, index: usize) -> Option<&Pending<C>> {
        self.slots.get(index)?.pending.as_ref()
    }

    pub(super) fn get_mut(&mut self, index: usize) -> Option<&mut Pending<C>> {
        self.slots.get_mut(index)?.pending.as_mut()
    }

    /// The question and the number of an attempt.
    pub(super) fn find(&self, attempt: AttemptId) -> Option<(usize, u8)> {
        let index = usize::try_from(attempt.index).ok()?;
        let slot = self.slots.get(index)?;
        (slot.generation == attempt.generation && slot.pending.is_some()).then_some((index, attempt.number))
    }

    /// Begins an attempt; returns its name and the message to send.
    pub(super) fn start(
        &mut self,
        index: usize,
        server: SocketAddr,
        transport: Transport,
        id: u16,
    ) -> Option<(AttemptId, Vec<u8>)> {
        let slot = self.slots.get_mut(index)?;
        let pending = slot.pending.as_mut()?;
        let number = pending.started;
        pending.started += 1;
        pending.open.push(Attempt { number, server, transport, id });
        slot.message(index)
    }

    /// Repeats the newest attempt, if that is still open and may be; returns its name and the message to send.
    pub(super) fn again(&mut self, index: usize) -> Option<(AttemptId, Vec<u8>)> {
        let slot = self.slots.get_mut(index)?;
        let pending = slot.pending.as_mut()?;
        pending.repeats = pending.repeats.checked_sub(1)?;
        slot.message(index)
    }

    /// Ends all attempts of a question; returns their names.
    pub(super) fn end_all(&mut self, index: usize) -> Vec<AttemptId> {
        let (Some(slot), Ok(index)) = (self.slots.get_mut(index), u32::try_from(index)) else {
            return Vec::new();
        };
        let Some(pending) = slot.pending.as_mut() else { return Vec::new() };
        let name =
            |attempt: Attempt| AttemptId { index, generation: slot.generation, number: attempt.number };
        pending.open.drain(..).map(name).collect()
    }
}
