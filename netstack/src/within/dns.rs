//! The DNS address: queries to its port 53 are handed out, and answers come back the same way.
//!
//! The engine carries questions; it does not know names. A datagram to the DNS address waits in a short queue until
//! whoever drives the engine takes it ([`Engine::dns_query`](crate::Engine::dns_query)), has it resolved and gives the
//! answer back ([`Engine::dns_answer`](crate::Engine::dns_answer)), at once or seconds later. What the query says is not
//! looked at here. No flow is made for it: the asker's addresses travel with the query, so nothing is held while it is
//! under way, and a guest that asks from ten thousand ports costs ten thousand datagrams.
//!
//! A connection over TCP leads to the same place, as a flow whose other end is not a socket but whoever resolves names
//! ([`Upstream::tcp_connect_dns`](crate::upstream::Upstream::tcp_connect_dns)): so a nameserver that is dead, or does not
//! speak TCP, is met with the same patience however the guest asks.

use crate::addr::MacAddr;
use core::net::SocketAddr;
use std::collections::VecDeque;

pub use crate::ip::plan::DNS_PORT as PORT;
/// Queries that wait to be taken. They are taken after every round of the event loop.
const MAX_WAITING: usize = 128;
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

#[cfg(test)]
mod tests {
    use super::*;

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
