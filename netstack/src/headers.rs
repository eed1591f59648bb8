//! Lengths and numbers of the headers that frames are made of, and where their checksums stand.

use core::net::IpAddr;

/// Bytes of an Ethernet header.
pub(crate) const ETHERNET_LEN: usize = 14;
/// Bytes of an IPv4 header without options.
pub(crate) const IPV4_LEN: usize = 20;
/// Bytes of an IPv6 header.
pub(crate) const IPV6_LEN: usize = 40;

pub(crate) const PROTO_ICMP: u8 = 1;
pub(crate) const PROTO_TCP: u8 = 6;
pub(crate) const PROTO_UDP: u8 = 17;
pub(crate) const PROTO_ICMPV6: u8 = 58;

/// Bytes of the IP header of `addr`'s family, without options.
pub(crate) const fn ip_header_len(addr: IpAddr) -> usize {
    match addr {
        IpAddr::V4(_) => IPV4_LEN,
        IpAddr::V6(_) => IPV6_LEN,
    }
}

/// Where a transport header has its checksum, in bytes from its beginning.
pub(crate) const fn checksum_at(protocol: u8) -> Option<usize> {
    match protocol {
        PROTO_TCP => Some(TCP_CHECKSUM),
        PROTO_UDP => Some(UDP_CHECKSUM),
        PROTO_ICMP | PROTO_ICMPV6 => Some(ICMP_CHECKSUM),
        _ => None,
    }
}

pub(crate) const TCP_CHECKSUM: usize = 16;
pub(crate) const UDP_CHECKSUM: usize = 6;
pub(crate) const ICMP_CHECKSUM: usize = 2;
