//! The DNS address: queries to its port 53 are handed out, and answers come back the same way.
//!
//! The engine carries questions; it does not know names. A datagram to the DNS address waits in a short queue until
//! whoever drives the engine takes it ([`Engine::dns_query`](crate::Engine::dns_query)), has it resolved and gives the
//! answer back ([`Engine::dns_answer`](crate::Engine::dns_answer)), at once or seconds later. What the query says is
//! not looked at here. No flow is made for it: the asker's addresses travel with the query, so nothing is held while it
//! is under way, and a guest that asks from ten thousand ports costs ten thousand datagrams.
//!
//! What waits is bounded in bytes, and shared by source: one may hold as much as is free. So a source alone has half of
//! the place, which is more than the round of an event loop brings, and whoever has nothing there yet finds room beside
//! any other. Who loses at the bound is the source that fills the place, and it loses what it sent last.
//!
//! A connection over TCP leads to the same place, as a flow whose other end is not a socket but whoever resolves names
//! ([`Upstream::tcp_connect_dns`](crate::upstream::Upstream::tcp_connect_dns)): so a nameserver that is dead, or does
//! not speak TCP, is met with the same patience however the guest asks.

use crate::addr::MacAddr;
use core::net::{IpAddr, SocketAddr};
use std::collections::{BTreeMap, VecDeque};

pub use crate::ip::plan::DNS_PORT as PORT;
/// What queries cost that wait to be taken, in bytes. They are taken after every round of the event loop, which brings
/// some two thousand at most; half of this is room for so many questions.
const MAX_BYTES: usize = 512 << 10;
/// Places that are kept when all queries have been taken.
const KEPT_PLACES: usize = 64;
/// A query is a question with options. Longer ones come over TCP, if there are any.
const MAX_QUERY: usize = 4096;

/// Who asked: where the answer goes, and where it seems to come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asker {
    /// The guest's address and port.
    pub guest: SocketAddr,
    /// The DNS address that it asked.
    pub at: SocketAddr,
    pub(crate) mac: MacAddr,
}

/// A query over UDP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// Who asks.
    pub asker: Asker,
    /// The message, as it came.
    pub message: Vec<u8>,
}

impl Query {
    fn cost(&self) -> usize {
        size_of::<Self>() + self.message.len()
    }
}

/// Queries that wait to be taken.
#[derive(Debug, Default)]
pub(crate) struct Queries {
    waiting: VecDeque<Query>,
    bytes: usize,
    /// What those of each source cost.
    sources: BTreeMap<IpAddr, usize>,
}

impl Queries {
    /// `false`: its source has too many, or it is too long.
    pub(crate) fn push(&mut self, asker: Asker, message: &[u8]) -> bool {
        let cost = size_of::<Query>() + message.len();
        let source = asker.guest.ip();
        let held = self.sources.get(&source).copied().unwrap_or_default();
        let free = MAX_BYTES.saturating_sub(self.bytes);
        let fits = message.len() <= MAX_QUERY && held + cost <= free;
        if fits {
            self.bytes += cost;
            self.sources.insert(source, held + cost);
            self.waiting.push_back(Query { asker, message: message.to_vec() });
        }
        fits
    }

    /// The one that has waited longest.
    pub(crate) fn pop(&mut self) -> Option<Query> {
        let query = self.waiting.pop_front()?;
        let (source, cost) = (query.asker.guest.ip(), query.cost());
        self.bytes = self.bytes.saturating_sub(cost);
        match self.sources.get_mut(&source) {
            Some(held) if *held > cost => *held -= cost,
            _ => drop(self.sources.remove(&source)),
        }
        if self.waiting.is_empty() {
            self.waiting.shrink_to(KEPT_PLACES);
        }
        Some(query)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(source: u8) -> Asker {
        let guest = SocketAddr::new([10, 0, 2, source].into(), 4000);
        Asker { guest, at: "10.0.2.3:53".parse().unwrap(), mac: MacAddr([0; 6]) }
    }

    /// One source's, how many of `count` found room.
    fn ask(queries: &mut Queries, source: u8, count: usize, len: usize) -> usize {
        let message = vec![0; len];
        (0..count).filter(|_| queries.push(from(source), &message)).count()
    }

    #[test]
    fn what_waits_is_bounded() {
        for len in [0, 30, MAX_QUERY] {
            let mut queries = Queries::default();
            assert!(!queries.push(from(1), &[0; MAX_QUERY + 1]));
            let taken: usize = (0..=40).map(|source| ask(&mut queries, source, 10_000, len)).sum();
            assert!(taken * (size_of::<Query>() + len) <= MAX_BYTES);
            assert_eq!(core::iter::from_fn(|| queries.pop()).count(), taken);
            assert_eq!((queries.bytes, queries.sources.len()), (0, 0));
            assert!(queries.waiting.capacity() <= 2 * KEPT_PLACES, "{}", queries.waiting.capacity());
        }
    }

    /// What 128 KiB of frames can be: Ethernet, IPv4 and UDP are 42 bytes, the name of one letter makes 19.
    #[test]
    fn one_source_may_ask_as_much_as_a_round_brings() {
        for len in 19..=MAX_QUERY {
            let round = (128 << 10) / (42 + len) + 1;
            assert_eq!(ask(&mut Queries::default(), 100, round, len), round, "{len}");
        }
    }

    #[test]
    fn a_flood_costs_another_source_no_query() {
        let mut queries = Queries::default();
        for round in 0..30 {
            let kept: Vec<usize> = [1, 2, 3].map(|source| ask(&mut queries, source, 10_000, 30)).into();
            assert_eq!(kept[0] > 2000 && kept[1] > 1000 && kept[2] > 500, round == 0, "{kept:?}");
            assert_eq!(ask(&mut queries, 100, 1, 30), 1, "{round}");
        }
        let others = core::iter::from_fn(|| queries.pop()).filter(|query| query.asker == from(100)).count();
        assert_eq!(others, 30);
    }
}
