//! The DNS address: queries to its port 53 go to the host's nameservers, whole and unread.
//!
//! Only the two bytes of the query's id are looked at, to match answers. A query that is not answered within [`PATIENCE`], or
//! whose server is unreachable, is sent to the next server; the one that answered last is preferred from then on, so
//! that one dead server costs one delay and not one for each query. EDNS, DNSSEC and any record type pass
//! because nothing is parsed. Over TCP the connection goes to the preferred server, or the next one that accepts it.

use crate::clock::Instant;
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use std::collections::VecDeque;

/// The port of DNS.
pub(crate) const PORT: u16 = 53;
/// After this long without an answer the next server is asked. glibc's own patience is 5 s a try.
const PATIENCE: Duration = Duration::from_millis(1500);
/// Unanswered queries remembered for one guest socket. A resolver has two (A and AAAA) or a few more.
const MAX_PENDING: usize = 16;
/// A query is a question with options; longer ones are not remembered for a second try.
const MAX_QUERY: usize = 512;
/// Nameservers that are used. resolv.conf has three at most.
const MAX_SERVERS: usize = 16;

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

    /// `server` answered.
    pub(crate) fn prefer(&mut self, server: IpAddr) {
        if let Some(place) = self.list.iter().position(|s| *s == server) {
            self.preferred = place;
        }
    }

    pub(crate) fn contains(&self, addr: IpAddr) -> bool {
        self.list.contains(&addr)
    }
}

/// A query that waits for its answer.
#[derive(Debug)]
struct Pending {
    id: [u8; 2],
    query: Vec<u8>,
    server: IpAddr,
    attempt: usize,
    retry_at: Instant,
}

/// The queries of one guest socket.
#[derive(Debug, Default)]
pub(crate) struct Relay {
    pending: VecDeque<Pending>,
    /// The family that the flow's socket has, once it has one.
    pub(crate) open: Option<bool>,
}

/// A query to be sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Send<'a> {
    pub(crate) to: SocketAddr,
    pub(crate) query: &'a [u8],
}

impl Relay {
    /// The guest asks; returns what is to be sent, or `None` when there is no server.
    pub(crate) fn ask<'a>(
        &mut self,
        now: Instant,
        query: &'a [u8],
        servers: &Nameservers,
    ) -> Option<Send<'a>> {
        let server = servers.get(0)?;
        if let Some(&id) = query.first_chunk::<2>()
            && query.len() <= MAX_QUERY
        {
            self.pending.retain(|p| p.id != id); // the guest repeats itself
            if self.pending.len() >= MAX_PENDING {
                self.pending.pop_front();
            }
            self.pending.push_back(Pending {
                id,
                query: query.to_vec(),
                server,
                attempt: 0,
                retry_at: now + PATIENCE,
            });
        }
        Some(Send { to: SocketAddr::new(server, PORT), query })
    }

    /// Whether the guest may have an answer that comes from there.
    pub(crate) fn is_server(&self, from: SocketAddr, servers: &Nameservers) -> bool {
        from.port() == PORT
            && (servers.contains(from.ip()) || self.pending.iter().any(|p| p.server == from.ip()))
    }

    /// A server answered. It is preferred from then on if it was the one that was waited for: not when its answer comes
    /// late, behind that of another.
    pub(crate) fn answered(&mut self, from: SocketAddr, answer: &[u8], servers: &mut Nameservers) {
        let Some(&id) = answer.first_chunk::<2>() else { return };
        let place = self.pending.iter().position(|p| p.id == id);
        if let Some(pending) = place.and_then(|place| self.pending.remove(place))
            && pending.server == from.ip()
        {
            servers.prefer(from.ip());
        }
    }

    /// Bytes of memory held.
    pub(crate) fn held(&self) -> usize {
        self.pending.iter().map(|p| size_of::<Pending>() + p.query.capacity()).sum()
    }

    /// When [`Relay::retry`] should be called.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.pending.iter().map(|p| p.retry_at).min()
    }

    /// `server` is unreachable: its queries are due for the next one.
    pub(crate) fn failed(&mut self, now: Instant, server: IpAddr) {
        for pending in self.pending.iter_mut().filter(|p| p.server == server) {
            pending.retry_at = now;
        }
    }

    /// The next query that is due for another server. Queries that all servers have left unanswered are forgotten:
    /// the guest's resolver asks again in its own time.
    pub(crate) fn retry(&mut self, now: Instant, servers: &Nameservers) -> Option<Send<'_>> {
        let due = self.pending.iter().position(|p| p.retry_at <= now)?;
        let mut pending = self.pending.remove(due)?;
        // The server that failed may have lost its preference meanwhile: ask any other than it.
        loop {
            pending.attempt += 1;
            let server = servers.get(pending.attempt)?;
            if server != pending.server {
                pending.server = server;
                break;
            }
        }
        pending.retry_at = now + PATIENCE;
        self.pending.push_back(pending);
        let sent = self.pending.back()?;
        Some(Send { to: SocketAddr::new(sent.server, PORT), query: &sent.query })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers() -> (Nameservers, IpAddr, IpAddr) {
        let (a, b) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        let mut servers = Nameservers::default();
        servers.set(vec![a, b]);
        (servers, a, b)
    }

    #[test]
    fn a_silent_server_is_followed_by_the_next_which_is_then_preferred() {
        let (mut servers, a, b) = servers();
        let (mut relay, start) = (Relay::default(), Instant::ZERO);
        assert_eq!(relay.ask(start, b"\x12\x34question", &servers).unwrap().to.ip(), a);
        assert_eq!(relay.retry(start, &servers), None);
        let late = start + PATIENCE;
        assert_eq!(relay.deadline(), Some(late));
        let again = relay.retry(late, &servers).unwrap();
        assert_eq!((again.to.ip(), again.query), (b, &b"\x12\x34question"[..]));
        assert!(relay.is_server(SocketAddr::new(b, 53), &servers));
        relay.answered(SocketAddr::new(b, 53), b"\x12\x34answer", &mut servers);
        assert_eq!(relay.deadline(), None);
        assert_eq!(relay.ask(late, b"\x00\x01next", &servers).unwrap().to.ip(), b);
    }

    #[test]
    fn strangers_are_not_believed() {
        let (servers, a, _) = servers();
        let mut relay = Relay::default();
        relay.ask(Instant::ZERO, b"\x00\x01q", &servers);
        assert!(!relay.is_server("192.0.2.9:53".parse().unwrap(), &servers));
        assert!(!relay.is_server(SocketAddr::new(a, 5353), &servers));
        assert!(relay.deadline().is_some());
    }

    #[test]
    fn unreachable_servers_are_left_at_once_and_the_list_ends() {
        let (servers, a, b) = servers();
        let mut relay = Relay::default();
        relay.ask(Instant::ZERO, b"\x00\x01q", &servers);
        relay.failed(Instant::ZERO, a);
        assert_eq!(relay.retry(Instant::ZERO, &servers).unwrap().to.ip(), b);
        relay.failed(Instant::ZERO, b);
        assert_eq!(relay.retry(Instant::ZERO, &servers), None);
        assert_eq!(relay.deadline(), None);
    }

    #[test]
    fn memory_is_bounded_and_no_server_is_no_answer() {
        let (servers, ..) = servers();
        let mut relay = Relay::default();
        for n in 0..10_000u16 {
            relay.ask(Instant::ZERO, &n.to_be_bytes(), &servers);
        }
        assert_eq!(relay.pending.len(), MAX_PENDING);
        assert_eq!(relay.ask(Instant::ZERO, b"\x00\x01", &Nameservers::default()), None);
    }
}
