//! ARP, UDP and ICMP: the small ones.

use super::{Ip, be16, be32, len16, protocol, sum};
use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use slipway_netstack::addr::MacAddr;

/// An ARP message for IPv4 over Ethernet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arp {
    /// 1: request, 2: reply.
    pub operation: u16,
    /// Who says it.
    pub sender: (MacAddr, Ipv4Addr),
    /// Whom it is about.
    pub target: (MacAddr, Ipv4Addr),
}

impl Arp {
    /// "Who has `wanted`? Tell `sender`."
    #[must_use]
    pub const fn request(sender: (MacAddr, Ipv4Addr), wanted: Ipv4Addr) -> Self {
        Self { operation: 1, sender, target: (MacAddr([0; 6]), wanted) }
    }

    /// The bytes.
    #[must_use]
    pub fn emit(&self) -> Vec<u8> {
        let mut out = vec![0, 1, 8, 0, 6, 4];
        out.extend_from_slice(&self.operation.to_be_bytes());
        for (mac, ip) in [self.sender, self.target] {
            out.extend_from_slice(&mac.0);
            out.extend_from_slice(&ip.octets());
        }
        out
    }

    pub(super) fn parse(bytes: &[u8]) -> Self {
        assert!(bytes.len() >= 28, "ARP cut short");
        assert_eq!(bytes[..6], [0, 1, 8, 0, 6, 4], "ARP for something else than IPv4 over Ethernet");
        let pair = |at: usize| {
            let mac = MacAddr(bytes[at..at + 6].try_into().expect("six bytes"));
            let ip: [u8; 4] = bytes[at + 6..at + 10].try_into().expect("four bytes");
            (mac, Ipv4Addr::from(ip))
        };
        Self { operation: be16(bytes, 6), sender: pair(8), target: pair(18) }
    }
}

/// A UDP datagram.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Udp {
    /// Source port.
    pub src: u16,
    /// Destination port.
    pub dst: u16,
    /// Data.
    pub payload: Vec<u8>,
}

impl Udp {
    /// The packet from `from` to `to` that carries `payload`, checksum complete.
    #[must_use]
    pub fn packet(from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Ip {
        let mut bytes = Vec::with_capacity(8 + payload.len());
        bytes.extend_from_slice(&from.port().to_be_bytes());
        bytes.extend_from_slice(&to.port().to_be_bytes());
        bytes.extend_from_slice(&len16(8 + payload.len()).to_be_bytes());
        bytes.extend_from_slice(&[0, 0]);
        bytes.extend_from_slice(payload);
        let mut ip = Ip::new(from.ip(), to.ip(), protocol::UDP, bytes);
        // RFC 768: a sum of zero is sent as all ones, zero means "none".
        let check = match !sum(ip.pseudo_sum(ip.payload.len()), &ip.payload) {
            0 => 0xffff,
            check => check,
        };
        ip.payload[6..8].copy_from_slice(&check.to_be_bytes());
        ip
    }

    pub(super) fn parse(ip: &Ip) -> Self {
        let bytes = &ip.payload[..];
        assert!(bytes.len() >= 8, "UDP header cut short");
        assert_eq!(usize::from(be16(bytes, 4)), bytes.len(), "UDP length");
        let check = be16(bytes, 6);
        assert!(check != 0 || ip.src.is_ipv4(), "UDP over IPv6 without checksum");
        if check != 0 {
            assert_eq!(sum(ip.pseudo_sum(bytes.len()), bytes), 0xffff, "UDP checksum");
        }
        Self { src: be16(bytes, 0), dst: be16(bytes, 2), payload: bytes[8..].to_vec() }
    }
}

/// An ICMP or ICMPv6 message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Icmp {
    /// Type.
    pub kind: u8,
    /// Code.
    pub code: u8,
    /// The four bytes behind the checksum: identifier and sequence number, MTU, or nothing.
    pub word: u32,
    /// The rest.
    pub body: Vec<u8>,
}

impl Icmp {
    /// An echo request.
    #[must_use]
    pub fn echo_request(family: IpAddr, id: u16, sequence: u16, data: &[u8]) -> Self {
        let kind = if family.is_ipv4() { 8 } else { 128 };
        Self { kind, code: 0, word: u32::from(id) << 16 | u32::from(sequence), body: data.to_vec() }
    }

    /// Identifier and sequence number of an echo message.
    #[must_use]
    pub const fn echo(&self) -> (u16, u16) {
        let [a, b, c, d] = self.word.to_be_bytes();
        (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]))
    }

    /// The packet from `from` to `to`, checksum complete.
    #[must_use]
    pub fn packet(&self, from: IpAddr, to: IpAddr) -> Ip {
        let mut bytes = vec![self.kind, self.code, 0, 0];
        bytes.extend_from_slice(&self.word.to_be_bytes());
        bytes.extend_from_slice(&self.body);
        let number = if from.is_ipv4() { protocol::ICMP } else { protocol::ICMP6 };
        let mut ip = Ip::new(from, to, number, bytes);
        let start = if from.is_ipv4() { 0 } else { ip.pseudo_sum(ip.payload.len()) };
        let check = !sum(start, &ip.payload);
        ip.payload[2..4].copy_from_slice(&check.to_be_bytes());
        ip
    }

    /// The packet that an error message quotes, as far as it quotes it: protocol, source, destination and the
    /// first bytes of the transport header.
    #[must_use]
    pub fn quoted(&self) -> Quoted {
        let bytes = &self.body[..];
        if bytes[0] >> 4 == 4 {
            let header_len = usize::from(bytes[0] & 15) * 4;
            let addr = |at: usize| IpAddr::from(<[u8; 4]>::try_from(&bytes[at..at + 4]).expect("four"));
            Quoted {
                protocol: bytes[9],
                src: addr(12),
                dst: addr(16),
                transport: bytes[header_len..].to_vec(),
            }
        } else {
            let addr = |at: usize| IpAddr::from(<[u8; 16]>::try_from(&bytes[at..at + 16]).expect("sixteen"));
            Quoted { protocol: bytes[6], src: addr(8), dst: addr(24), transport: bytes[40..].to_vec() }
        }
    }

    pub(super) fn parse(ip: &Ip) -> Self {
        let bytes = &ip.payload[..];
        assert!(bytes.len() >= 8, "ICMP cut short");
        let start = if ip.src.is_ipv4() { 0 } else { ip.pseudo_sum(bytes.len()) };
        assert_eq!(sum(start, bytes), 0xffff, "ICMP checksum");
        assert_eq!(ip.src.is_ipv4(), ip.protocol == protocol::ICMP, "ICMP of the other family");
        Self { kind: bytes[0], code: bytes[1], word: be32(bytes, 4), body: bytes[8..].to_vec() }
    }
}

/// What an ICMP error quotes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quoted {
    /// IP protocol.
    pub protocol: u8,
    /// Source of the offending packet.
    pub src: IpAddr,
    /// Its destination.
    pub dst: IpAddr,
    /// The beginning of its payload.
    pub transport: Vec<u8>,
}
