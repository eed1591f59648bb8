//! IPv4 and IPv6 packets.

use super::{be16, be32, len16, protocol, sum};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An IP packet of either version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ip {
    /// Source.
    pub src: IpAddr,
    /// Destination, of the same family.
    pub dst: IpAddr,
    /// Protocol of the payload; for IPv6 behind the fragment header, if there is one.
    pub protocol: u8,
    /// TTL or hop limit.
    pub hops: u8,
    /// Type of service or traffic class.
    pub traffic_class: u8,
    /// IPv4 "don't fragment".
    pub dont_fragment: bool,
    /// Set if this is a piece of a larger packet (IPv6: if there is a fragment header).
    pub fragment: Option<Fragment>,
    /// IPv4 header options, padded to four bytes; empty for IPv6.
    pub options: Vec<u8>,
    /// What it carries.
    pub payload: Vec<u8>,
}

/// Which piece of a larger packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fragment {
    /// Which packet.
    pub id: u32,
    /// Where the piece begins, in bytes (a multiple of 8).
    pub offset: u16,
    /// Whether more follow.
    pub more: bool,
}

impl Ip {
    /// A plain packet.
    #[must_use]
    pub fn new(src: IpAddr, dst: IpAddr, protocol: u8, payload: Vec<u8>) -> Self {
        assert_eq!(src.is_ipv4(), dst.is_ipv4(), "mixed families");
        Self {
            src,
            dst,
            protocol,
            hops: 64,
            traffic_class: 0,
            dont_fragment: false,
            fragment: None,
            options: Vec::new(),
            payload,
        }
    }

    /// The bytes.
    #[must_use]
    pub fn emit(&self) -> Vec<u8> {
        match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => self.emit_v4(src, dst),
            (IpAddr::V6(src), IpAddr::V6(dst)) => self.emit_v6(src, dst),
            _ => panic!("mixed families"),
        }
    }

    fn emit_v4(&self, src: Ipv4Addr, dst: Ipv4Addr) -> Vec<u8> {
        let header_len = 20 + self.options.len();
        let fragment = self.fragment.unwrap_or(Fragment { id: 0, offset: 0, more: false });
        let flags = u16::from(self.dont_fragment) << 14 | u16::from(fragment.more) << 13;
        let id = fragment.id.to_be_bytes();
        let mut out = vec![0x40 | u8::try_from(header_len / 4).expect("short header"), self.traffic_class];
        out.extend_from_slice(&len16(header_len + self.payload.len()).to_be_bytes());
        out.extend_from_slice(&id[2..]);
        out.extend_from_slice(&(flags | (fragment.offset / 8)).to_be_bytes());
        out.extend_from_slice(&[self.hops, self.protocol, 0, 0]);
        out.extend_from_slice(&src.octets());
        out.extend_from_slice(&dst.octets());
        out.extend_from_slice(&self.options);
        let check = !sum(0, &out);
        out[10..12].copy_from_slice(&check.to_be_bytes());
        out.extend_from_slice(&self.payload);
        out
    }

    fn emit_v6(&self, src: Ipv6Addr, dst: Ipv6Addr) -> Vec<u8> {
        let extension = match self.fragment {
            None => Vec::new(),
            Some(fragment) => {
                let mut header = vec![self.protocol, 0];
                header.extend_from_slice(&(fragment.offset | u16::from(fragment.more)).to_be_bytes());
                header.extend_from_slice(&fragment.id.to_be_bytes());
                header
            }
        };
        let next = if extension.is_empty() { self.protocol } else { protocol::FRAGMENT };
        let mut out = vec![0x60 | self.traffic_class >> 4, self.traffic_class << 4, 0, 0];
        out.extend_from_slice(&len16(extension.len() + self.payload.len()).to_be_bytes());
        out.extend_from_slice(&[next, self.hops]);
        out.extend_from_slice(&src.octets());
        out.extend_from_slice(&dst.octets());
        out.extend_from_slice(&extension);
        out.extend_from_slice(&self.payload);
        out
    }

    /// Takes a packet apart.
    ///
    /// # Panics
    /// When anything about it is wrong.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Self {
        match bytes.first().map(|b| b >> 4) {
            Some(4) => Self::parse_v4(bytes),
            Some(6) => Self::parse_v6(bytes),
            other => panic!("IP version {other:?}"),
        }
    }

    fn parse_v4(bytes: &[u8]) -> Self {
        let header_len = usize::from(bytes[0] & 15) * 4;
        let total = usize::from(be16(bytes, 2));
        assert!(header_len >= 20 && total >= header_len, "IPv4 lengths {header_len}, {total}");
        assert!(total <= bytes.len(), "IPv4 says {total} bytes, {} are there", bytes.len());
        assert_eq!(sum(0, &bytes[..header_len]), 0xffff, "IPv4 header checksum");
        let piece = be16(bytes, 6);
        assert_eq!(piece & 0x8000, 0, "reserved IPv4 flag");
        let fragment = (piece & 0x3fff != 0).then(|| Fragment {
            id: u32::from(be16(bytes, 4)),
            offset: (piece & 0x1fff) * 8,
            more: piece & 0x2000 != 0,
        });
        Self {
            src: IpAddr::from(<[u8; 4]>::try_from(&bytes[12..16]).expect("four bytes")),
            dst: IpAddr::from(<[u8; 4]>::try_from(&bytes[16..20]).expect("four bytes")),
            protocol: bytes[9],
            hops: bytes[8],
            traffic_class: bytes[1],
            dont_fragment: piece & 0x4000 != 0,
            fragment,
            options: bytes[20..header_len].to_vec(),
            payload: bytes[header_len..total].to_vec(),
        }
    }

    fn parse_v6(bytes: &[u8]) -> Self {
        let len = usize::from(be16(bytes, 4));
        assert!(bytes.len() >= 40 + len, "IPv6 says {len} bytes, {} are there", bytes.len() - 40);
        let mut packet = Self {
            src: IpAddr::from(<[u8; 16]>::try_from(&bytes[8..24]).expect("sixteen bytes")),
            dst: IpAddr::from(<[u8; 16]>::try_from(&bytes[24..40]).expect("sixteen bytes")),
            protocol: bytes[6],
            hops: bytes[7],
            traffic_class: bytes[0] << 4 | bytes[1] >> 4,
            dont_fragment: true,
            fragment: None,
            options: Vec::new(),
            payload: bytes[40..40 + len].to_vec(),
        };
        if packet.protocol == protocol::FRAGMENT {
            let word = be16(&packet.payload, 2);
            packet.protocol = packet.payload[0];
            packet.fragment =
                Some(Fragment { id: be32(&packet.payload, 4), offset: word & !7, more: word & 1 != 0 });
            packet.payload.drain(..8);
        }
        packet
    }

    /// The sum over the pseudo-header of a transport payload of `len` bytes.
    #[must_use]
    pub fn pseudo_sum(&self, len: usize) -> u16 {
        let len = u32::try_from(len).expect("a packet's length");
        let start = sum(u16::from(self.protocol), &len.to_be_bytes());
        match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => sum(sum(start, &src.octets()), &dst.octets()),
            (IpAddr::V6(src), IpAddr::V6(dst)) => sum(sum(start, &src.octets()), &dst.octets()),
            _ => panic!("mixed families"),
        }
    }

    /// Cuts the packet into fragments that carry at most `payload` bytes each (a multiple of 8).
    #[must_use]
    pub fn cut(&self, id: u32, payload: usize) -> Vec<Self> {
        assert_eq!(payload % 8, 0, "fragments are cut at multiples of eight");
        let last = self.payload.len().saturating_sub(1) / payload;
        self.payload
            .chunks(payload)
            .enumerate()
            .map(|(n, piece)| Self {
                fragment: Some(Fragment { id, offset: len16(n * payload), more: n != last }),
                payload: piece.to_vec(),
                ..self.clone()
            })
            .collect()
    }
}
