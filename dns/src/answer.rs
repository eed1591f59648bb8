//! One query, one outcome: the rules by which names are resolved.
//!
//! 1. A and AAAA of a name that one of the asker's networks has: all its addresses of that family, network by
//!    network, in the order of the files, TTL 0 because a container may come back with another address at any
//!    moment. None of that family: an empty answer, which unlike NXDOMAIN does not make the C library give up on the
//!    other family.
//! 2. PTR of an address that one of the asker's networks has: all its names.
//! 3. Any other type of a name or address of ours: an empty answer. The name is there, whatever a stranger says of it.
//! 4. Else the gate: NXDOMAIN if nothing is forwarded, if the asker lives on internal networks only, or if the name is
//!    in the filter domain.
//! 5. Else it is forwarded as it came.
//!
//! Only the first question counts; without one it is the address of the root. Classes other than IN have no names of
//! ours.

use crate::message::{
    self, AnswerBuilder, CLASS_ANY, CLASS_IN, Malformed, Query, Rcode, RecordType, Transport,
};
use crate::zone::{Asker, NetworkId, Order, Snapshot, Upstreams};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The longest datagram there is room for in an IPv4 packet, and close to it in IPv6.
const MAX_DATAGRAM: usize = 65_507;
/// A container may come back with another address at any moment.
const TTL: u32 = 0;

/// Who asks, and how.
#[derive(Clone, Copy, Debug)]
pub struct Origin {
    /// The address that the query came from.
    pub source: IpAddr,
    /// The network on which it came.
    pub network: NetworkId,
    /// How it came.
    pub transport: Transport,
    /// Any number, another one each time: where a rotated answer starts.
    pub turn: u32,
}

/// What becomes of a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome<'s> {
    /// The answer is in the buffer.
    Answered(Rcode),
    /// It goes to these servers as it came.
    Forward(Upstreams<'s>),
    /// It is not answered at all.
    Drop(Malformed),
}

/// Decides about a message. The answer, if there is one, is all that is in `out` afterwards.
pub fn answer<'s>(snapshot: &'s Snapshot, origin: Origin, message: &[u8], out: &mut Vec<u8>) -> Outcome<'s> {
    match Query::parse(message) {
        Ok(query) => answer_query(snapshot, origin, &query, out),
        Err(malformed) => Outcome::Drop(malformed),
    }
}

/// The same for a query that has been read already.
pub fn answer_query<'s>(
    snapshot: &'s Snapshot,
    origin: Origin,
    query: &Query<'_>,
    out: &mut Vec<u8>,
) -> Outcome<'s> {
    let settings = snapshot.settings();
    let asker = snapshot.asker(origin.source, origin.network);
    if matches!(query.class(), CLASS_IN | CLASS_ANY)
        && let Some(name) = query.name().plain()
    {
        let limit = limit(query, origin.transport, settings.keep_udp_size);
        let rotation = if settings.order == Order::Rotated { origin.turn } else { 0 };
        let key = key(name, &settings.filter_domain);
        if local(&asker, query, (name, key), limit, rotation, out) {
            return Outcome::Answered(Rcode::NOERROR);
        }
        let ours = || reverse_address(name).is_some_and(|address| asker.names_of(address).is_some());
        if asker.knows(key) || ours() {
            message::empty(query, Rcode::NOERROR, out);
            return Outcome::Answered(Rcode::NOERROR);
        }
    }
    let filtered = !settings.filter_domain.is_empty()
        && if settings.strict_names {
            query.name().text().ends_with(settings.filter_domain.as_bytes())
        } else {
            query.ends_with_exactly(settings.filter_domain.as_bytes())
        };
    if !settings.forwarding || asker.internal() || filtered {
        message::empty(query, Rcode::NXDOMAIN, out);
        return Outcome::Answered(Rcode::NXDOMAIN);
    }
    Outcome::Forward(asker.upstreams())
}

/// Answers from what we know. `false` when this is no question about a name or an address of ours.
fn local(
    asker: &Asker<'_>,
    query: &Query<'_>,
    (name, key): (&[u8], &[u8]),
    limit: usize,
    turn: u32,
    out: &mut Vec<u8>,
) -> bool {
    let answer = |out| AnswerBuilder::new(query, Rcode::NOERROR, limit, out);
    match query.record_type() {
        RecordType::A => {
            let mut found = asker.addresses(key).peekable();
            if found.peek().is_none() {
                return false;
            }
            let mut answer = answer(out);
            let record = |address: &Ipv4Addr| answer.record(RecordType::A, TTL, &address.octets());
            if turn == 0 {
                found.flat_map(|a| &a.v4).for_each(record);
            } else {
                rotate(|| asker.addresses(key).flat_map(|a| &a.v4), turn, record);
            }
            answer.finish();
        }
        RecordType::AAAA => {
            let mut found = asker.addresses(key).peekable();
            if found.peek().is_none() {
                return false;
            }
            let mut answer = answer(out);
            let record = |address: &Ipv6Addr| answer.record(RecordType::AAAA, TTL, &address.octets());
            if turn == 0 {
                found.flat_map(|a| &a.v6).for_each(record);
            } else {
                rotate(|| asker.addresses(key).flat_map(|a| &a.v6), turn, record);
            }
            answer.finish();
        }
        RecordType::PTR => {
            let Some(names) = reverse_address(name).and_then(|address| asker.names_of(address)) else {
                return false;
            };
            let mut answer = answer(out);
            names.iter().for_each(|name| answer.record(RecordType::PTR, TTL, name));
            answer.finish();
        }
        _ => return false,
    }
    true
}

/// Visits all items, beginning with item `turn` modulo their number.
fn rotate<I: Iterator>(items: impl Fn() -> I, turn: u32, mut each: impl FnMut(I::Item)) {
    let start = usize::try_from(turn).map_or(0, |turn| turn % items().count().max(1));
    items().skip(start).for_each(&mut each);
    items().take(start).for_each(each);
}

/// The name as the files have it: without the filter domain and without the final dot.
fn key<'n>(name: &'n [u8], filter_domain: &str) -> &'n [u8] {
    let name = name.strip_suffix(filter_domain.as_bytes()).unwrap_or(name);
    name.strip_suffix(b".").unwrap_or(name)
}

/// How long the answer may be.
fn limit(query: &Query<'_>, transport: Transport, keep_udp_size: bool) -> usize {
    match transport {
        Transport::Tcp => message::MAX_MESSAGE,
        Transport::Udp if keep_udp_size => usize::from(query.udp_size()),
        Transport::Udp => MAX_DATAGRAM,
    }
}

/// The address that a name in `in-addr.arpa` or `ip6.arpa` stands for (RFC 1035 §3.5, RFC 3596 §2.5).
#[must_use]
pub fn reverse_address(name: &[u8]) -> Option<IpAddr> {
    if let Some(labels) = name.strip_suffix(b".in-addr.arpa.") {
        let mut octets = [0; 4];
        let mut labels = labels.rsplit(|byte| *byte == b'.');
        for octet in &mut octets {
            let label = core::str::from_utf8(labels.next()?).ok()?;
            // As in an address: no sign, no needless zero.
            let plain =
                label.starts_with(|c: char| c.is_ascii_digit()) && (label == "0" || !label.starts_with('0'));
            *octet = label.parse().ok().filter(|_| plain)?;
        }
        return labels.next().is_none().then(|| Ipv4Addr::from(octets).into());
    }
    let labels = name.strip_suffix(b".ip6.arpa.")?;
    let mut address = 0u128;
    let mut count = 0;
    for label in labels.rsplit(|byte| *byte == b'.') {
        let [digit] = label else { return None };
        address = address << 4 | u128::from(char::from(*digit).to_digit(16)?);
        count += 1;
    }
    (count == 32).then(|| Ipv6Addr::from(address).into())
}

#[cfg(test)]
mod tests;
