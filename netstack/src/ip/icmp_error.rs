//! ICMP errors towards the guest: destination unreachable, packet too big, time exceeded, parameter problem.
//!
//! What there is to say is a [`Problem`]; its code tables stand with it. A message quotes the packet that it is
//! about and is itself a whole IP packet without Ethernet header. Which packets must not be answered with an error
//! (RFC 1122 §3.2.2, RFC 1812 §4.3.2.7, RFC 4443 §2.4 (e)) is decided here, and so is how many per second (RFC 1812
//! §4.3.2.8, RFC 4443 §2.4 (f)): a token bucket over all of them, since there is one receiver.
//!
//! When the host's error queue tells about a datagram sent long ago, the guest's own packet is gone; [`quote_udp`] and
//! [`quote_echo`] make it anew as far as the guest's kernel looks at it: addresses, ports, first bytes.

use crate::bytes;
use crate::checksum;
use crate::clock::Instant;
use crate::drop_reason::DropReason;
use crate::ip::extension;
use crate::ip::plan::Plan;
use crate::ip::problem::Problem;
use crate::token_bucket::TokenBucket;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use core::time::Duration;
use ipnet::Ipv4Net;

/// Errors sent at once after a pause.
pub const BURST: u32 = 200;
/// Time in which one more is earned: a thousand per second.
pub const INTERVAL: Duration = Duration::from_millis(1);

/// RFC 1812 §4.3.2.3: as much of the packet as fits without making the message longer than this.
const V4_MAX: usize = 576;
/// RFC 4443 §2.4 (c): the minimum IPv6 MTU.
const V6_MAX: usize = 1280;

const ICMPV4: u8 = 1;
const ICMPV6: u8 = 58;

/// The source of ICMP errors, with its limit.
#[derive(Debug)]
pub struct IcmpErrors {
    network: Option<Ipv4Net>,
    bucket: TokenBucket,
}

impl IcmpErrors {
    /// The broadcast address of the guest's network in `plan` must not be answered for.
    #[must_use]
    pub fn new(plan: &Plan) -> Self {
        let mut errors = Self { network: None, bucket: TokenBucket::new(BURST, INTERVAL) };
        errors.readdress(plan);
        errors
    }

    /// The guest's network is another one from now on. What may be said in a second is not.
    pub fn readdress(&mut self, plan: &Plan) {
        self.network = plan.v4.as_ref().map(|v4| v4.network);
    }

    /// The message from `from` that tells the sender of `offending`, an IP packet of the same family, about `problem`.
    ///
    /// # Errors
    /// [`DropReason::Unsolicited`] when such a packet must not be answered, [`DropReason::RateLimited`] when too many
    /// were, [`DropReason::Malformed`] when it has no complete header.
    pub fn build(
        &mut self,
        now: Instant,
        problem: Problem,
        from: IpAddr,
        offending: &[u8],
    ) -> Result<Vec<u8>, DropReason> {
        match from {
            IpAddr::V4(from) => {
                let to = self.answerable_v4(offending)?;
                self.spend(now)?;
                Ok(build_v4(problem, from, to, offending))
            }
            IpAddr::V6(from) => {
                let (to, pointer) = answerable_v6(problem, offending)?;
                self.spend(now)?;
                Ok(build_v6(problem, from, to, pointer, offending))
            }
        }
    }

    fn spend(&mut self, now: Instant) -> Result<(), DropReason> {
        if self.bucket.take(now) { Ok(()) } else { Err(DropReason::RateLimited) }
    }

    /// Whom to tell about an IPv4 packet.
    fn answerable_v4(&self, packet: &[u8]) -> Result<Ipv4Addr, DropReason> {
        let header: [u8; 20] = bytes::array(packet, 0).ok_or(DropReason::Malformed)?;
        let [first, _, _, _, _, _, fragment_high, fragment_low, _, protocol, _, _, addresses @ ..] = header;
        let header_len = usize::from(first & 15) * 4;
        if first >> 4 != 4 || header_len < 20 || packet.len() < header_len {
            return Err(DropReason::Malformed);
        }
        let [s0, s1, s2, s3, d0, d1, d2, d3] = addresses;
        let (src, dst) = (Ipv4Addr::new(s0, s1, s2, s3), Ipv4Addr::new(d0, d1, d2, d3));
        // RFC 1122 §3.2.2: not about a packet to a group, not to a sender that is not a single host.
        let to_group = dst.is_multicast() || self.is_broadcast(dst);
        let no_host = src.is_unspecified()
            || src.is_loopback()
            || src.is_multicast()
            || self.is_broadcast(src)
            || s0 >= 240
            || s0 == 0;
        // Not about any fragment but the first, and not about an error.
        let later_fragment = u16::from_be_bytes([fragment_high, fragment_low]) & 0x1fff != 0;
        let error = protocol == ICMPV4
            && !matches!(bytes::byte(packet, header_len), Some(0 | 8 | 13 | 14 | 15 | 16 | 17 | 18));
        if to_group || no_host || later_fragment || error { Err(DropReason::Unsolicited) } else { Ok(src) }
    }

    fn is_broadcast(&self, addr: Ipv4Addr) -> bool {
        addr.is_broadcast()
            || self.network.is_some_and(|network| network.prefix_len() < 31 && addr == network.broadcast())
    }
}

/// Whom to tell about an IPv6 packet, and where it names its transport protocol.
fn answerable_v6(problem: Problem, packet: &[u8]) -> Result<(Ipv6Addr, usize), DropReason> {
    let (src, dst) = bytes::ipv6(packet, 8).zip(bytes::ipv6(packet, 24)).ok_or(DropReason::Malformed)?;
    if packet.first().is_none_or(|first| first >> 4 != 6) {
        return Err(DropReason::Malformed);
    }
    // A chain that cannot be followed is not known to be free of ICMP errors and fragments.
    let upper = extension::upper(packet).ok_or(DropReason::Malformed)?;
    // RFC 4443 §2.4 (e.1), (e.2): not about an error or a redirect. A message without a type is taken for one.
    let kind = bytes::byte(packet, upper.offset);
    let error = upper.protocol == ICMPV6 && kind.is_none_or(|kind| kind < 128 || kind == 137);
    let later_fragment = upper.fragment.is_some_and(|fragment| fragment.offset != 0);
    // (e.3): about a packet to a group only if that is what the two exceptions are made for.
    let excepted = matches!(problem, Problem::TooBig { .. } | Problem::Parameter { code: 2, .. });
    let to_group = dst.is_multicast() && !excepted;
    // (e.6): not to a sender that is not a single host.
    let no_host = src.is_unspecified() || src.is_multicast() || src.is_loopback();
    if error || later_fragment || to_group || no_host {
        Err(DropReason::Unsolicited)
    } else {
        Ok((src, upper.pointer))
    }
}

fn build_v4(problem: Problem, from: Ipv4Addr, to: Ipv4Addr, offending: &[u8]) -> Vec<u8> {
    let (kind, code, rest) = problem.v4();
    let quoted = offending.get(..V4_MAX - 28).unwrap_or(offending);
    let mut packet = Vec::with_capacity(28 + quoted.len());
    // RFC 1812 §4.3.2.5: precedence 6, "internetwork control".
    ipv4_header(&mut packet, 0xc0, ICMPV4, from, to, 8 + quoted.len());
    packet.extend_from_slice(&[kind, code, 0, 0]);
    packet.extend_from_slice(&rest.to_be_bytes());
    packet.extend_from_slice(quoted);
    let sum = packet.get(20..).map_or(0, checksum::sum);
    bytes::put(&mut packet, 22, checksum::finish(sum).to_be_bytes());
    packet
}

fn build_v6(problem: Problem, from: Ipv6Addr, to: Ipv6Addr, pointer: usize, offending: &[u8]) -> Vec<u8> {
    let (kind, code, rest) = problem.v6(pointer);
    let quoted = offending.get(..V6_MAX - 48).unwrap_or(offending);
    let mut packet = Vec::with_capacity(48 + quoted.len());
    ipv6_header(&mut packet, ICMPV6, from, to, 8 + quoted.len());
    packet.extend_from_slice(&[kind, code, 0, 0]);
    packet.extend_from_slice(&rest.to_be_bytes());
    packet.extend_from_slice(quoted);
    let sum =
        packet.get(40..).map_or(0, |message| checksum::transport(from.into(), to.into(), ICMPV6, message));
    bytes::put(&mut packet, 42, sum.to_be_bytes());
    packet
}

/// The UDP datagram that the guest sent from `from` to `to`, as far as an ICMP error quotes it: `payload` may be empty
/// or just the beginning, `len` is its length as it was.
#[must_use]
pub fn quote_udp(from: SocketAddr, to: SocketAddr, payload: &[u8], len: usize) -> Vec<u8> {
    let mut transport = Vec::with_capacity(8 + payload.len());
    transport.extend_from_slice(&from.port().to_be_bytes());
    transport.extend_from_slice(&to.port().to_be_bytes());
    transport.extend_from_slice(&bytes::len16(8 + len).to_be_bytes());
    // The checksum over a payload that is not there cannot be made; nobody verifies that of a quoted packet.
    transport.extend_from_slice(&[0, 0]);
    transport.extend_from_slice(payload);
    quote(from.ip(), to.ip(), 17, &transport, 8 + len)
}

/// The echo request with this identifier and sequence number that the guest sent.
#[must_use]
pub fn quote_echo(from: IpAddr, to: IpAddr, ident: u16, sequence: u16) -> Vec<u8> {
    let (protocol, kind) = if from.is_ipv6() { (ICMPV6, 128) } else { (ICMPV4, 8) };
    let ([i0, i1], [s0, s1]) = (ident.to_be_bytes(), sequence.to_be_bytes());
    quote(from, to, protocol, &[kind, 0, 0, 0, i0, i1, s0, s1], 8)
}

/// A packet of `protocol` whose transport part begins with `transport` and was `len` bytes long. Both addresses are
/// of one family.
#[must_use]
pub fn quote(from: IpAddr, to: IpAddr, protocol: u8, transport: &[u8], len: usize) -> Vec<u8> {
    let mut packet = Vec::with_capacity(40 + transport.len());
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => ipv4_header(&mut packet, 0, protocol, from, to, len),
        (from, to) => ipv6_header(&mut packet, protocol, as_v6(from), as_v6(to), len),
    }
    packet.extend_from_slice(transport);
    packet
}

fn as_v6(addr: IpAddr) -> Ipv6Addr {
    match addr {
        IpAddr::V4(a) => a.to_ipv6_mapped(),
        IpAddr::V6(a) => a,
    }
}

/// Appends a 20-byte IPv4 header (DF, TTL 64) for `len` bytes of payload.
fn ipv4_header(packet: &mut Vec<u8>, tos: u8, protocol: u8, from: Ipv4Addr, to: Ipv4Addr, len: usize) {
    let begin = packet.len();
    let [l0, l1] = bytes::len16(20 + len).to_be_bytes();
    packet.extend_from_slice(&[0x45, tos, l0, l1, 0, 0, 0x40, 0, 64, protocol, 0, 0]);
    packet.extend_from_slice(&from.octets());
    packet.extend_from_slice(&to.octets());
    let sum = packet.get(begin..).map_or(0, checksum::sum);
    bytes::put(packet, begin + 10, checksum::finish(sum).to_be_bytes());
}

/// Appends an IPv6 header (hop limit 64) for `len` bytes of payload.
fn ipv6_header(packet: &mut Vec<u8>, next: u8, from: Ipv6Addr, to: Ipv6Addr, len: usize) {
    let [l0, l1] = bytes::len16(len).to_be_bytes();
    packet.extend_from_slice(&[0x60, 0, 0, 0, l0, l1, next, 64]);
    packet.extend_from_slice(&from.octets());
    packet.extend_from_slice(&to.octets());
}

#[cfg(test)]
mod tests;
