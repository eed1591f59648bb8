//! Stage 3 of the data path: IPv4 and IPv6 packets of the guest, checked and opened.
//!
//! [`Packet::parse`] is the border: behind it lengths are true, the header checksum was right, and the source address
//! is one that a host may have. Fragments are not yet whole then ([`Packet::fragment`]); the engine passes them through
//! `fragment` and parses the result again.

pub mod bare;
mod complaint;
pub mod extension;
pub mod fragment;
pub mod group;
pub(crate) mod guests;
pub mod icmp_error;
mod input;
pub mod ndp;
mod output;
pub(crate) mod path_mtu;
pub mod plan;
pub mod problem;

use crate::drop_reason::DropReason;
use crate::headers::{ETHERNET_LEN, IPV4_LEN, IPV6_LEN, checksum_at};
use crate::surely::Surely;
use core::net::{IpAddr, Ipv4Addr};
use smoltcp::wire::{Ipv4Packet, Ipv6Packet};

/// An IP packet from the guest.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Packet<'a> {
    pub(crate) src: IpAddr,
    pub(crate) dst: IpAddr,
    pub(crate) hops: u8,
    pub(crate) traffic_class: u8,
    /// The transport protocol: for IPv6 the last next-header value.
    pub(crate) protocol: u8,
    /// What follows the IP headers.
    pub(crate) payload: &'a [u8],
    /// From the beginning of the IP header to the end of the payload.
    pub(crate) whole: &'a [u8],
    /// A fragment: `payload` is a part of something.
    pub(crate) fragment: bool,
    /// Its sender wants no router to fragment it: IPv4's flag; of IPv6, what is not a fragment already.
    pub(crate) dont_fragment: bool,
}

impl<'a> Packet<'a> {
    /// Opens what follows an Ethernet header with an IP EtherType.
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, DropReason> {
        let packet = match bytes.first().map(|b| b >> 4) {
            Some(4) => Self::parse_v4(bytes)?,
            Some(6) => Self::parse_v6(bytes)?,
            _ => return Err(DropReason::Malformed),
        };
        if is_martian(packet.src) { Err(DropReason::Martian) } else { Ok(packet) }
    }

    /// Whether a partial checksum is that of the packet's own transport header. If so, there is nothing to verify and
    /// nothing to complete, for that header goes no further. A fragment has none: what was left undone in it is not the
    /// whole's.
    pub(crate) fn owns_checksum(&self, start: u16, offset: u16) -> bool {
        let at = ETHERNET_LEN + self.whole.len() - self.payload.len();
        usize::from(start) == at && checksum_at(self.protocol) == Some(offset.into()) && !self.fragment
    }

    fn parse_v4(bytes: &'a [u8]) -> Result<Self, DropReason> {
        let ip = Ipv4Packet::new_checked(bytes).map_err(|_| DropReason::Malformed)?;
        let header_len = usize::from(ip.header_len());
        if header_len < IPV4_LEN {
            return Err(DropReason::Malformed);
        }
        if !ip.verify_checksum() {
            return Err(DropReason::Checksum);
        }
        let total = usize::from(ip.total_len());
        Ok(Self {
            src: IpAddr::V4(ip.src_addr()),
            dst: IpAddr::V4(ip.dst_addr()),
            hops: ip.hop_limit(),
            traffic_class: bytes.get(1).copied().surely(),
            protocol: ip.next_header().into(),
            payload: bytes.get(header_len..total).ok_or(DropReason::Malformed)?,
            whole: bytes.get(..total).ok_or(DropReason::Malformed)?,
            fragment: ip.more_frags() || ip.frag_offset() != 0,
            dont_fragment: ip.dont_frag(),
        })
    }

    fn parse_v6(bytes: &'a [u8]) -> Result<Self, DropReason> {
        let ip = Ipv6Packet::new_checked(bytes).map_err(|_| DropReason::Malformed)?;
        let total = IPV6_LEN + usize::from(ip.payload_len());
        let whole = bytes.get(..total).ok_or(DropReason::Malformed)?;
        let upper = extension::upper(whole).ok_or(DropReason::Malformed)?;
        Ok(Self {
            src: IpAddr::V6(ip.src_addr()),
            dst: IpAddr::V6(ip.dst_addr()),
            hops: ip.hop_limit(),
            traffic_class: ip.traffic_class(),
            protocol: upper.protocol,
            payload: whole.get(upper.offset..).ok_or(DropReason::Malformed)?,
            whole,
            // RFC 6946: an atomic fragment (offset 0, no more) is a whole packet with a header too many.
            fragment: upper.fragment.is_some_and(|f| f.more || f.offset != 0),
            // With one, its sender has heard of a narrow path (RFC 8200 §4.5), and the fragments are the kernel's to
            // make.
            dont_fragment: upper.fragment.is_none(),
        })
    }
}

/// Source addresses that no host may use (RFC 1122 §3.2.1.3, RFC 4291 §2.5.3, §2.7). The unspecified address
/// is let through: DHCP and duplicate address detection come from it; flows refuse it.
fn is_martian(src: IpAddr) -> bool {
    match src {
        IpAddr::V4(a) => a.is_loopback() || a.is_multicast() || a == Ipv4Addr::BROADCAST,
        IpAddr::V6(a) => a.is_loopback() || a.is_multicast(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXT_HOP_BY_HOP: u8 = 0;
    const EXT_FRAGMENT: u8 = 44;
    const EXT_DESTINATION: u8 = 60;

    fn v6(next: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0x60, 0, 0, 0];
        bytes.extend(crate::bytes::len16(payload.len()).to_be_bytes());
        bytes.extend([next, 64]);
        bytes.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        bytes.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
        bytes.extend(payload);
        bytes
    }

    #[test]
    fn extension_headers_are_walked() {
        let mut payload = vec![EXT_DESTINATION, 0, 0, 0, 0, 0, 0, 0]; // hop-by-hop, 8 bytes
        payload.extend([17, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]); // destination options, 16 bytes
        payload.extend(b"udp");
        let bytes = v6(EXT_HOP_BY_HOP, &payload);
        let packet = Packet::parse(&bytes).unwrap();
        assert_eq!((packet.protocol, packet.payload, packet.fragment), (17, &b"udp"[..], false));
    }

    #[test]
    fn fragments_are_told_from_atomic_ones() {
        let atomic = v6(EXT_FRAGMENT, &[17, 0, 0, 0, 0, 0, 0, 1, 9]);
        let packet = Packet::parse(&atomic).unwrap();
        assert_eq!((packet.protocol, packet.payload, packet.fragment), (17, &[9][..], false));
        let first = v6(EXT_FRAGMENT, &[17, 0, 0, 1, 0, 0, 0, 1, 9]);
        assert!(Packet::parse(&first).unwrap().fragment);
    }

    #[test]
    fn random_bytes_are_survived() {
        proptest::proptest!(|(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..120))| {
            let _ = Packet::parse(&bytes);
        });
    }
}
