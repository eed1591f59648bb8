//! Ethernet, IPv4 and UDP around a DHCP message, in both directions.
//!
//! A client speaks before its interface has an address, or for an interface that is not its own, so the kernel's UDP
//! cannot be used. What arrives was let through by a filter of the kernel's, but is checked as if nobody had looked.

use crate::addr::MacAddr;
use crate::checksum;
use core::net::Ipv4Addr;

/// The server's port.
const SERVER: u16 = 67;
/// The client's.
const CLIENT: u16 = 68;

/// EtherType of IPv4.
const IPV4: u16 = 0x0800;
const UDP: u8 = 17;

const ETHERNET_HEADER: usize = 14;
const IP_HEADER: usize = 20;
const UDP_HEADER: usize = 8;

/// Where a message goes from and to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Way {
    pub(super) from: (MacAddr, Ipv4Addr),
    pub(super) to: (MacAddr, Ipv4Addr),
}

impl Way {
    /// To everyone on the link, with the address that the client has already, if any.
    pub(super) fn broadcast(mac: MacAddr, own: Ipv4Addr) -> Self {
        Self { from: (mac, own), to: (MacAddr::BROADCAST, Ipv4Addr::BROADCAST) }
    }
}

/// The frame around a message to a server.
pub(super) fn to_server(way: Way, message: &[u8]) -> Vec<u8> {
    around(way, (CLIENT, SERVER), message)
}

/// The frame in which a server at `from` would send a message to everyone, for tests and the fuzzer.
pub(super) fn to_client(from: MacAddr, message: &[u8]) -> Vec<u8> {
    let way = Way::broadcast(from, Ipv4Addr::new(198, 51, 100, 1));
    around(way, (SERVER, CLIENT), message)
}

fn around(way: Way, (source, destination): (u16, u16), message: &[u8]) -> Vec<u8> {
    let len = |header: usize| u16::try_from(header + message.len()).unwrap_or(u16::MAX).to_be_bytes();
    let ((from_mac, from), (to_mac, to)) = (way.from, way.to);
    let mut ip = vec![0x45, 0xc0];
    ip.extend(len(IP_HEADER + UDP_HEADER));
    // Identification 0 and "don't fragment" (RFC 6864 §4.1: a packet that is not cut needs no number); 64 hops.
    ip.extend([0, 0, 0x40, 0, 64, UDP, 0, 0]);
    ip.extend(from.octets());
    ip.extend(to.octets());
    let sum = checksum::finish(checksum::sum(&ip));
    set(&mut ip, 10, sum);
    let mut udp = Vec::with_capacity(UDP_HEADER + message.len());
    udp.extend(source.to_be_bytes());
    udp.extend(destination.to_be_bytes());
    udp.extend(len(UDP_HEADER));
    udp.extend([0, 0]);
    udp.extend(message);
    let length = u32::try_from(udp.len()).unwrap_or(u32::MAX);
    let pseudo = checksum::pseudo_header(from.into(), to.into(), UDP, length);
    let sum = checksum::finish_udp(checksum::add(pseudo, checksum::sum(&udp)));
    set(&mut udp, 6, sum);
    [&to_mac.0[..], &from_mac.0, &IPV4.to_be_bytes(), &ip, &udp].concat()
}

fn set(bytes: &mut [u8], at: usize, value: u16) {
    if let Some(field) = bytes.get_mut(at..at + 2) {
        field.copy_from_slice(&value.to_be_bytes());
    }
}

/// The sender's MAC address and the message of a frame from a server; `None` when it is something else.
///
/// The checksum of UDP is not looked at: a server on this machine leaves it to a device that the frame has not met yet.
/// What travelled over a wire is protected by the wire's own.
pub(super) fn from_server(frame: &[u8]) -> Option<(MacAddr, &[u8])> {
    let (ethernet, packet) = frame.split_at_checked(ETHERNET_HEADER)?;
    let sender = MacAddr(ethernet.get(6..12)?.try_into().ok()?);
    if ethernet.get(12..)? != IPV4.to_be_bytes() {
        return None;
    }
    let [first, _, l0, l1, _, _, f0, f1, _, protocol, ..] = *packet else { return None };
    let header = usize::from(first & 0xf) * 4;
    let whole = first >> 4 == 4 && header >= IP_HEADER && u16::from_be_bytes([f0, f1]) & 0x3fff == 0;
    if !whole || protocol != UDP || !checksum::fits(packet.get(..header)?) {
        return None;
    }
    // Short frames are padded.
    let segment = packet.get(header..u16::from_be_bytes([l0, l1]).into())?;
    let [s0, s1, d0, d1, u0, u1, _, _, ..] = *segment else { return None };
    if u16::from_be_bytes([s0, s1]) != SERVER || u16::from_be_bytes([d0, d1]) != CLIENT {
        return None;
    }
    Some((sender, segment.get(UDP_HEADER..u16::from_be_bytes([u0, u1]).into())?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
    const OTHER: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);

    #[test]
    fn checksums_are_right() {
        let frame = to_server(Way::broadcast(MAC, Ipv4Addr::UNSPECIFIED), b"odd message");
        let ip = &frame[14..34];
        assert!(checksum::fits(ip));
        assert!(checksum::transport_fits(
            Ipv4Addr::UNSPECIFIED.into(),
            Ipv4Addr::BROADCAST.into(),
            UDP,
            &frame[34..]
        ));
        assert_eq!(frame[..12], [[0xff; 6], MAC.0].concat());
    }

    #[test]
    fn only_a_servers_datagram_is_taken() {
        let good = to_client(OTHER, b"hello");
        assert_eq!(from_server(&good), Some((OTHER, &b"hello"[..])));
        let padded = [&good[..], &[0; 20]].concat();
        assert_eq!(from_server(&padded), Some((OTHER, &b"hello"[..])));
        for (at, what) in [
            (12, "another EtherType"),
            (14, "no IPv4"),
            (16, "longer than the frame"),
            (20, "a fragment"),
            (23, "no UDP"),
            (24, "a broken header"),
            (35, "another source port"),
            (37, "another port"),
            (38, "longer than the packet"),
        ] {
            let mut bad = good.clone();
            bad[at] ^= 0x1f;
            assert_eq!(from_server(&bad), None, "{what}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_borne(frame in proptest::collection::vec(any::<u8>(), 0..400), cut in 0usize..400) {
            let _ = from_server(&frame);
            let mut good = to_client(OTHER, &frame);
            good.truncate(cut);
            let _ = from_server(&good);
        }
    }
}
