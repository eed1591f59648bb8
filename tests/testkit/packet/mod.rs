//! Packets field by field: built and taken apart without any code of the engine.
//!
//! Whoever tests an encoder with its own decoder tests nothing, so this is a second, independent reading of the
//! RFCs: plain structs with public fields, an `emit` that writes exactly what the fields say (a wrong field on
//! purpose is a test case), and a strict parser that **panics** on anything a well-behaved sender would not send:
//! it is only ever shown what the engine produced.
//!
//! Sources: RFC 791, 8200, 826, 768, 792, 4443, 9293, 7323, 2018.

mod ip;
mod small;
mod tcp;

pub use ip::{Fragment, Ip};
pub use small::{Arp, Icmp, Quoted, Udp};
pub use tcp::{Options, Tcp, flag};

use slipway_netstack::addr::MacAddr;

/// Bytes of an Ethernet header.
pub const ETHERNET_LEN: usize = 14;
/// EtherType of IPv4.
pub const ETHERTYPE_IPV4: u16 = 0x0800;
/// EtherType of ARP.
pub const ETHERTYPE_ARP: u16 = 0x0806;
/// EtherType of IPv6.
pub const ETHERTYPE_IPV6: u16 = 0x86dd;

/// IP protocol numbers.
pub mod protocol {
    /// ICMP for IPv4.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// IPv6 fragment header.
    pub const FRAGMENT: u8 = 44;
    /// ICMPv6.
    pub const ICMP6: u8 = 58;
    /// IPv6 destination options.
    pub const DESTINATION: u8 = 60;
}

/// A frame as parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Destination MAC.
    pub dst: MacAddr,
    /// Source MAC.
    pub src: MacAddr,
    /// What it carries.
    pub body: Body,
}

/// What a frame carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// ARP.
    Arp(Arp),
    /// A whole IP packet with TCP in it.
    Tcp(Ip, Tcp),
    /// A whole IP packet with UDP in it.
    Udp(Ip, Udp),
    /// A whole IP packet with ICMP or ICMPv6 in it.
    Icmp(Ip, Icmp),
    /// A fragment, or another protocol.
    Other(Ip),
}

impl Frame {
    /// Takes a complete frame apart, all checksums verified.
    ///
    /// # Panics
    /// When anything about it is wrong.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Self {
        assert!(bytes.len() >= ETHERNET_LEN, "runt frame: {bytes:02x?}");
        let (header, rest) = bytes.split_at(ETHERNET_LEN);
        let mac = |at: usize| MacAddr(header[at..at + 6].try_into().expect("six bytes"));
        let body = match u16::from_be_bytes([header[12], header[13]]) {
            ETHERTYPE_ARP => Body::Arp(Arp::parse(rest)),
            kind @ (ETHERTYPE_IPV4 | ETHERTYPE_IPV6) => {
                let ip = Ip::parse(rest);
                assert_eq!(kind == ETHERTYPE_IPV4, ip.src.is_ipv4(), "EtherType and version differ");
                Body::of(ip)
            }
            other => panic!("EtherType {other:#06x}"),
        };
        Self { dst: mac(0), src: mac(6), body }
    }
}

impl Body {
    fn of(ip: Ip) -> Self {
        if ip.fragment.is_some() {
            return Self::Other(ip);
        }
        match ip.protocol {
            protocol::TCP => {
                let tcp = Tcp::parse(&ip);
                Self::Tcp(ip, tcp)
            }
            protocol::UDP => {
                let udp = Udp::parse(&ip);
                Self::Udp(ip, udp)
            }
            protocol::ICMP | protocol::ICMP6 => {
                let icmp = Icmp::parse(&ip);
                Self::Icmp(ip, icmp)
            }
            _ => Self::Other(ip),
        }
    }
}

/// A frame around `packet`; the EtherType follows its version nibble.
#[must_use]
pub fn ethernet(dst: MacAddr, src: MacAddr, packet: &[u8]) -> Vec<u8> {
    let kind = match packet.first().map(|b| b >> 4) {
        Some(6) => ETHERTYPE_IPV6,
        _ => ETHERTYPE_IPV4,
    };
    ethernet_of(dst, src, kind, packet)
}

/// A frame with any EtherType.
#[must_use]
pub fn ethernet_of(dst: MacAddr, src: MacAddr, kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(ETHERNET_LEN + payload.len());
    frame.extend_from_slice(&dst.0);
    frame.extend_from_slice(&src.0);
    frame.extend_from_slice(&kind.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// The one's complement sum of `bytes` added to `start`, folded to 16 bits (RFC 1071).
#[must_use]
pub fn sum(start: u16, bytes: &[u8]) -> u16 {
    let of = |words: &[[u8; 2]]| words.iter().map(|word| u64::from(u16::from_be_bytes(*word))).sum::<u64>();
    // In blocks of a known length, which need no comparison for each word: a fuzzer would spend half its time on
    // counting those.
    let (blocks, rest) = bytes.as_chunks::<64>();
    let whole: u64 = blocks.iter().map(|block| of(block.as_chunks().0)).sum();
    let (words, last) = rest.as_chunks();
    let mut total = u64::from(start) + whole + of(words);
    if let [last] = last {
        total += u64::from(*last) << 8;
    }
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    u16::try_from(total).expect("folded")
}

/// A length for a 16-bit field.
///
/// # Panics
/// When it does not fit: build such packets from bytes.
#[must_use]
pub fn len16(len: usize) -> u16 {
    u16::try_from(len).expect("longer than a 16-bit length field can say")
}

pub(crate) fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

pub(crate) fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
