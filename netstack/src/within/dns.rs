//! The DNS address: queries to its port 53 are handed out, and answers come back the same way.
//!
//! The engine carries questions; it does not know names. A datagram to the DNS address waits in a short queue until
//! whoever drives the engine takes it ([`Engine::dns_query`](crate::Engine::dns_query)), has it resolved and gives the
//! answer back ([`Engine::dns_answer`](crate::Engine::dns_answer)), at once or seconds later. What the query says is not
//! looked at here. No flow is made for it: the asker's addresses travel with the query, so nothing is held while it is
//! under way, and a guest that asks from ten thousand ports costs ten thousand datagrams.
//!
//! Over TCP the connection goes to the preferred nameserver of the host, or the next one that accepts it, as it is.

use crate::addr::MacAddr;
use core::net::{IpAddr, SocketAddr};
use std::collections::VecDeque;

/// The port of DNS.
pub const PORT: u16 = 53;
/// Queries that wait to be taken. They are taken after every round of the event loop.
const MAX_WAITING: usize = 128;
/// A query is a question with options. Longer ones come over TCP, if there are any.
const MAX_QUERY: usize = 4096;
/// Nameservers that are used. resolv.conf has three at most.
const MAX_SERVERS: usize = 16;

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

/// Queries that wait to be taken.
#[derive(Debug, Default)]
pub(crate) struct Queries {
    waiting: VecDeque<Query>,
}

impl Queries {
    /// `false`: there are too many, or it is too long.
    pub(crate) fn push(&mut self, asker: Asker, message: &[u8]) -> bool {
        let fits = self.waiting.len() < MAX_WAITING && message.len() <= MAX_QUERY;
        if fits {
            self.waiting.push_back(Query { asker, message: message.to_vec() });
        }
        fits
    }

    pub(crate) fn pop(&mut self) -> Option<Query> {
        self.waiting.pop_front()
    }
}

/// The host's nameservers and the one that is preferred.
#[derive(Debug, Default)]
pub(crate) struct Nameservers {
    list: Vec<IpAddr>,
    preferred: usize,
}

impl Nameservers {
    /// Replaces the list. The preferred server stays so if it is still in it.
    pub(crate) fn set(&mut self, list: Vec<IpAddr>) {
        let favourite = self.get(0);
        self.list = list;
        self.list.truncate(MAX_SERVERS);
        self.preferred = self.list.iter().position(|s| Some(*s) == favourite).unwrap_or(0);
    }

    /// The server that is number `attempt` in order of preference; `None` when all were tried.
    pub(crate) fn get(&self, attempt: usize) -> Option<IpAddr> {
        if attempt >= self.list.len() {
            return None;
        }
        self.list.get((self.preferred + attempt) % self.list.len()).copied()
    }

    /// `server` answers.
    pub(crate) fn prefer(&mut self, server: IpAddr) {
        if let Some(place) = self.list.iter().position(|s| *s == server) {
            self.preferred = place;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_preferred_server_is_first_and_stays_so() {
        let [a, b, c]: [IpAddr; 3] = ["192.0.2.1", "192.0.2.2", "2001:db8::3"].map(|s| s.parse().unwrap());
        let mut servers = Nameservers::default();
        servers.set(vec![a, b, c]);
        servers.prefer(b);
        assert_eq!((0..4).map(|n| servers.get(n)).collect::<Vec<_>>(), [Some(b), Some(c), Some(a), None]);
        servers.set(vec![c, b]);
        assert_eq!((servers.get(0), servers.get(2)), (Some(b), None));
        servers.prefer(a);
        assert_eq!(servers.get(0), Some(b), "not in the list");
        servers.set(vec![c]);
        assert_eq!(servers.get(0), Some(c));
        servers.set((0..5000).map(|n| IpAddr::from([192, 0, 2, u8::try_from(n % 250).unwrap()])).collect());
        assert_eq!(servers.get(MAX_SERVERS), None);
    }

    #[test]
    fn what_waits_is_bounded() {
        let at = "10.0.2.3:53".parse().unwrap();
        let asker = Asker { guest: at, at, mac: MacAddr([0; 6]) };
        let mut queries = Queries::default();
        assert!(!queries.push(asker, &[0; MAX_QUERY + 1]));
        let taken = (0..10_000).filter(|_| queries.push(asker, &[0; MAX_QUERY])).count();
        assert_eq!((taken, core::iter::from_fn(|| queries.pop()).count()), (MAX_WAITING, MAX_WAITING));
    }
}
