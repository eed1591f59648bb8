//! Answers of other servers, kept for as long as they hold.
//!
//! * Kept: NOERROR with records, for the smallest TTL in it; NXDOMAIN and NODATA for as long as their SOA says
//!   (RFC 2308 §5), not at all without one. Never what is truncated, what has a TTL of zero, and failures.
//! * Given out with TTLs reduced by the time it lay here, the asker's id and the asker's spelling of the question.
//! * Asked by: name (without case), type, class, the bits RD, AD and CD, whether the client speaks EDNS and wants
//!   DNSSEC, and the list of servers, because two containers may have servers that disagree. A query with EDNS options
//!   is between the client and the server: it is neither answered from here nor kept.
//! * Nothing of servers on the loopback: such a one is a cache itself (systemd-resolved, dnsmasq, unbound), next door,
//!   and knows at once what has changed when a VPN comes up. One that keeps nothing cannot be told from that.
//! * Bounded in entries and bytes; the oldest goes first.

use crate::message::{self, CLASS_IN, Query, Rcode, RecordType, Reply};
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Answers.
    pub entries: usize,
    /// Bytes of them, with what it takes to find them.
    pub bytes: usize,
    /// The longest time for an answer.
    pub max_ttl: Duration,
    /// The longest time for the answer that there is none.
    pub max_negative_ttl: Duration,
}

impl Limits {
    /// Enough for a container, little enough not to be noticed.
    pub const DEFAULT: Self = Self {
        entries: 1024,
        bytes: 256 << 10,
        max_ttl: Duration::from_secs(3600),
        max_negative_ttl: Duration::from_secs(5),
    };
}

/// The longest answer that is kept.
const MAX_ANSWER: usize = 4096;
/// RFC 2181 §8: a TTL with the highest bit is zero.
const MAX_TTL: u32 = i32::MAX.unsigned_abs();

/// The answers.
#[derive(Debug)]
pub struct Cache {
    limits: Limits,
    entries: BTreeMap<Box<[u8]>, Entry>,
    /// The keys in the order in which they were put in, each with the stamp that the entry had then.
    order: VecDeque<(u64, Box<[u8]>)>,
    stamp: u64,
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    stamp: u64,
    message: Vec<u8>,
    /// Where the TTLs stand, and what they were.
    ttls: Vec<(usize, u32)>,
    since: Duration,
    until: Duration,
}

impl Entry {
    fn bytes(&self, key: &[u8]) -> usize {
        2 * key.len() + self.message.len() + self.ttls.len() * size_of::<(usize, u32)>() + size_of::<Self>()
    }
}

/// Writes what a query is found by. `false` if it must not be answered from a cache.
pub fn key(query: &Query<'_>, servers: &[SocketAddr], key: &mut Vec<u8>) -> bool {
    key.clear();
    let flags = query.bytes().get(2..4).unwrap_or_default();
    let [high, low] = flags else { return false };
    let near = servers.iter().any(|server| server.ip().to_canonical().is_loopback());
    // What may be asked for, but is no type of a record: transfers, keys, signatures. All that there is of a name is.
    let other = query.record_type().is_meta() && query.record_type() != RecordType::ANY;
    if near || other || query.opcode() != 0 || query.questions() != 1 || query.class() != CLASS_IN {
        return false;
    }
    let edns = match query.opt() {
        None => 0,
        // RFC 6891 §6.1.2: name 1, type 2, size 2, extended code 1, version 1, flags 2, length 2.
        Some([0, _, _, _, _, 0, 0, dnssec, _, 0, 0]) => 1 | dnssec & 0x80,
        Some(_) => return false,
    };
    key.extend_from_slice(&[high & 0x01, low & 0x30, edns]);
    key.extend_from_slice(&query.record_type().0.to_be_bytes());
    for server in servers {
        match server.ip() {
            IpAddr::V4(address) => key.extend_from_slice(&address.octets()),
            IpAddr::V6(address) => key.extend_from_slice(&address.octets()),
        }
        key.extend_from_slice(&server.port().to_be_bytes());
    }
    key.push(u8::try_from(servers.len()).unwrap_or(u8::MAX));
    let name = query.question_section();
    key.extend(name.iter().map(u8::to_ascii_lowercase));
    true
}

impl Cache {
    /// An empty one.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits, entries: BTreeMap::new(), order: VecDeque::new(), stamp: 0, bytes: 0 }
    }

    /// Answers `query` from what is kept, if that is no longer than `limit`.
    pub fn get(
        &mut self,
        now: Duration,
        key: &[u8],
        query: &Query<'_>,
        limit: usize,
        out: &mut Vec<u8>,
    ) -> bool {
        let Some(entry) = self.entries.get(key) else { return false };
        if entry.until <= now || entry.message.len() > limit {
            return false;
        }
        out.clear();
        out.extend_from_slice(&entry.message);
        message::set_id(out, query.id());
        let question = query.question_section();
        if let Some(place) = out.get_mut(message::HEADER_LEN..message::HEADER_LEN + question.len()) {
            place.copy_from_slice(question);
        }
        let age = u32::try_from(now.saturating_sub(entry.since).as_secs()).unwrap_or(u32::MAX);
        for (at, ttl) in &entry.ttls {
            if let Some(place) = out.get_mut(*at..).and_then(<[u8]>::first_chunk_mut::<4>) {
                *place = ttl.saturating_sub(age).to_be_bytes();
            }
        }
        true
    }

    /// Keeps an answer, if it is one to keep.
    pub fn put(&mut self, now: Duration, key: &[u8], message: &[u8]) {
        let Some((lifetime, ttls)) = lifetime(message, &self.limits) else { return };
        self.stamp += 1;
        let entry =
            Entry { stamp: self.stamp, message: message.to_vec(), ttls, since: now, until: now + lifetime };
        self.bytes += entry.bytes(key);
        if let Some(before) = self.entries.insert(key.into(), entry) {
            self.bytes -= before.bytes(key);
        }
        self.order.push_back((self.stamp, key.into()));
        while self.entries.len() > self.limits.entries
            || self.bytes > self.limits.bytes
            || self.order.len() > 2 * self.limits.entries
        {
            let Some((stamp, key)) = self.order.pop_front() else { return };
            if self.entries.get(&key).is_some_and(|entry| entry.stamp == stamp)
                && let Some(entry) = self.entries.remove(&key)
            {
                self.bytes -= entry.bytes(&key);
            }
        }
    }

    /// How many answers are kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

/// How long an answer holds, and where its TTLs stand.
fn lifetime(message: &[u8], limits: &Limits) -> Option<(Duration, Vec<(usize, u32)>)> {
    let reply = Reply::parse(message).ok()?;
    if !matches!(reply.rcode(), Rcode::NOERROR | Rcode::NXDOMAIN) {
        return None;
    }
    let negative = reply.is_negative();
    if reply.truncated() || reply.questions() != 1 || message.len() > MAX_ANSWER {
        return None;
    }
    let mut ttls = Vec::new();
    let mut shortest = None;
    let mut shorten = |ttl| shortest = Some(shortest.map_or(ttl, |so_far: u32| so_far.min(ttl)));
    let mut authority = false;
    reply
        .records(|section, record_type, at, ttl, data| {
            if record_type == RecordType::OPT {
                return; // its TTL is flags
            }
            let ttl = if ttl > MAX_TTL { 0 } else { ttl };
            ttls.push((at, ttl));
            if section < 2 || !negative {
                shorten(ttl);
            }
            // RFC 2308 §3: the last number of the SOA bounds the negative answer.
            if let (1, RecordType::SOA, Some(minimum)) = (section, record_type, data.last_chunk::<4>()) {
                authority = true;
                if negative {
                    shorten(u32::from_be_bytes(*minimum));
                }
            }
        })
        .ok()?;
    let longest = if negative { limits.max_negative_ttl } else { limits.max_ttl };
    let lifetime = Duration::from_secs(shortest?.into()).min(longest);
    (!lifetime.is_zero() && (authority || !negative)).then_some((lifetime, ttls))
}

#[cfg(test)]
mod tests;
