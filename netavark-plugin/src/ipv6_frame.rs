//! Ethernet and IPv6 around a message, as frames for a packet socket: what is said here is said for an interface that
//! is not this program's own, so the kernel's sockets cannot say it.

use slipway_netstack::addr::MacAddr;
use slipway_netstack::checksum;
use std::net::{IpAddr, Ipv6Addr};

pub(crate) const ETHERTYPE: u16 = 0x86dd;
pub(crate) const UDP: u8 = 17;
pub(crate) const ICMPV6: u8 = 58;

pub(crate) const ETHERNET_HEADER: usize = 14;
pub(crate) const IP_HEADER: usize = 40;
pub(crate) const UDP_HEADER: usize = 8;

pub(crate) const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// A UDP datagram, from one address and port to another.
pub(crate) fn datagram(mac: MacAddr, from: (Ipv6Addr, u16), to: (Ipv6Addr, u16), message: &[u8]) -> Vec<u8> {
    let mut udp = Vec::with_capacity(UDP_HEADER + message.len());
    udp.extend(from.1.to_be_bytes());
    udp.extend(to.1.to_be_bytes());
    udp.extend(length(UDP_HEADER + message.len()));
    udp.extend([0, 0]);
    udp.extend(message);
    let sum = checksum::transport(from.0.into(), to.0.into(), UDP, &udp);
    // RFC 8200 §8.1: zero would mean that there is none.
    set(&mut udp, 6, if sum == 0 { u16::MAX } else { sum });
    around(mac, (from.0, to.0), (UDP, 1), &udp)
}

/// A message of neighbour discovery, which cannot come from beyond the link (RFC 4861 §6.1.1: 255 hops left); its
/// checksum is filled in.
pub(crate) fn neighbour_discovery(
    mac: MacAddr,
    from: Ipv6Addr,
    to: Ipv6Addr,
    mut message: Vec<u8>,
) -> Vec<u8> {
    set(&mut message, 2, 0);
    let sum = checksum::transport(from.into(), to.into(), ICMPV6, &message);
    set(&mut message, 2, sum);
    around(mac, (from, to), (ICMPV6, 255), &message)
}

fn around(mac: MacAddr, (from, to): (Ipv6Addr, Ipv6Addr), (kind, hops): (u8, u8), payload: &[u8]) -> Vec<u8> {
    let receiver =
        if to.is_multicast() { MacAddr::for_multicast(IpAddr::V6(to)) } else { MacAddr::BROADCAST };
    let [l0, l1] = length(payload.len());
    let ip = [0x60, 0, 0, 0, l0, l1, kind, hops];
    [&receiver.0[..], &mac.0, &ETHERTYPE.to_be_bytes(), &ip, &from.octets(), &to.octets(), payload].concat()
}

fn length(len: usize) -> [u8; 2] {
    u16::try_from(len).unwrap_or(u16::MAX).to_be_bytes()
}

fn set(bytes: &mut [u8], at: usize, value: u16) {
    if let Some(field) = bytes.get_mut(at..at + 2) {
        field.copy_from_slice(&value.to_be_bytes());
    }
}
