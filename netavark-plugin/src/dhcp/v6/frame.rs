//! Ethernet, IPv6 and what is in it, in both directions: DHCPv6 in UDP, and the messages of neighbour discovery.
//!
//! As with IPv4 the proxy speaks for an interface that is not its own (as in the frames of [`crate::dhcp::v4`]). What
//! arrives was let through by the kernel's filter, which looks at no more than whom it is for, and is checked here.
//! Packets with extension headers are not taken: neither kind has a use for them.

use super::advert;
use crate::ipv6_frame::{
    ALL_NODES, ETHERNET_HEADER, ETHERTYPE, ICMPV6, IP_HEADER, UDP, UDP_HEADER, datagram, neighbour_discovery,
};
use nix::libc;
use slipway_host::sys::packet::Instruction;
use slipway_netstack::addr::MacAddr;
use slipway_netstack::checksum;
use std::net::Ipv6Addr;

/// Ports of DHCPv6.
const CLIENT: u16 = 546;
const SERVER: u16 = 547;

const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
/// RFC 8415 §7.1: All_DHCP_Relay_Agents_and_Servers.
const ALL_SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);

/// What came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard<'a> {
    /// A message of DHCPv6 to a client.
    Dhcp(&'a [u8]),
    /// A router's advertisement, and its address.
    Advert(Ipv6Addr, &'a [u8]),
}

/// The frame around a message to all DHCPv6 servers, from the interface's own address.
#[must_use]
pub(super) fn to_servers(mac: MacAddr, own: Ipv6Addr, message: &[u8]) -> Vec<u8> {
    datagram(mac, (own, CLIENT), (ALL_SERVERS, SERVER), message)
}

/// The frame that asks routers to say what there is.
#[must_use]
pub(super) fn to_routers(mac: MacAddr, own: Option<Ipv6Addr>) -> Vec<u8> {
    let message = advert::solicitation(mac, own);
    neighbour_discovery(mac, own.unwrap_or(Ipv6Addr::UNSPECIFIED), ALL_ROUTERS, message)
}

/// The frame in which a server at `from` would send a message to the client `to`, for tests and the fuzzer.
pub(super) fn from_server(from: MacAddr, to: Ipv6Addr, message: &[u8]) -> Vec<u8> {
    datagram(from, (from.link_local(), SERVER), (to, CLIENT), message)
}

/// The frame in which a router at `from` would send a message to all, for tests and the fuzzer.
pub(super) fn from_router(from: MacAddr, message: Vec<u8>) -> Vec<u8> {
    neighbour_discovery(from, from.link_local(), ALL_NODES, message)
}

/// What a frame brings to `mac`; `None` when it is neither, or for somebody else.
///
/// That matters for advertisements: one that a router sends to another machine alone never reaches the kernel of the
/// container, which has to act on it.
///
/// The checksum of UDP is not looked at, for the reason that the frames of [`crate::dhcp::v4`] give.
#[must_use]
pub(super) fn read(frame: &[u8], mac: MacAddr) -> Option<Heard<'_>> {
    let (ethernet, packet) = frame.split_at_checked(ETHERNET_HEADER)?;
    let receiver = MacAddr(*ethernet.first_chunk()?);
    let for_us = receiver == mac || receiver.is_multicast();
    if !for_us || ethernet.get(12..)? != ETHERTYPE.to_be_bytes() {
        return None;
    }
    let (header, behind) = packet.split_first_chunk::<IP_HEADER>()?;
    let [version, _, _, _, l0, l1, kind, hops, addresses @ ..] = *header;
    let (from, to) = addresses.split_first_chunk::<16>()?;
    let (from, to) = (Ipv6Addr::from(*from), Ipv6Addr::from(*to.first_chunk::<16>()?));
    // Short frames are padded.
    let payload = behind.get(..u16::from_be_bytes([l0, l1]).into()).filter(|_| version >> 4 == 6)?;
    match (kind, payload) {
        (UDP, &[s0, s1, d0, d1, u0, u1, ..]) => {
            let ports = (u16::from_be_bytes([s0, s1]), u16::from_be_bytes([d0, d1]));
            let message = payload.get(UDP_HEADER..u16::from_be_bytes([u0, u1]).into())?;
            (ports == (SERVER, CLIENT)).then_some(Heard::Dhcp(message))
        }
        // RFC 4861 §6.1.2: a packet from beyond the link cannot have 255 hops left.
        (ICMPV6, &[advert::ADVERTISEMENT, ..]) if hops == 255 => {
            let whole = checksum::transport_fits(from.into(), to.into(), ICMPV6, payload);
            whole.then_some(Heard::Advert(from, payload))
        }
        _ => None,
    }
}

/// The kernel's filter: advertisements, and DHCPv6 for the hardware address `mac`.
#[must_use]
pub(super) fn filter(mac: MacAddr) -> Vec<Instruction> {
    const KEEP: u8 = 13;
    const DROP: u8 = 14;
    const NOT_ICMPV6: u8 = 6;
    const BYTE: u32 = libc::BPF_LD | libc::BPF_B | libc::BPF_ABS;
    const HALF: u32 = libc::BPF_LD | libc::BPF_H | libc::BPF_ABS;
    const WORD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    let step = |code: u32, operand: u32| {
        let code = u16::try_from(code).unwrap_or_default();
        Instruction { code, if_true: 0, if_false: 0, operand }
    };
    // Jumps count from the instruction after the test, which stands at the place `at`.
    let equal = |at: u8, operand: u32, (yes, no): (u8, u8)| Instruction {
        if_true: yes - at - 1,
        if_false: no - at - 1,
        ..step(libc::BPF_JMP | libc::BPF_JEQ, operand)
    };
    let [a, b, c, d, e, f] = mac.0;
    vec![
        step(HALF, 12),
        equal(1, ETHERTYPE.into(), (2, DROP)),
        step(BYTE, 20), // the next header
        equal(3, ICMPV6.into(), (4, NOT_ICMPV6)),
        step(BYTE, 54),
        equal(5, advert::ADVERTISEMENT.into(), (KEEP, DROP)),
        equal(6, UDP.into(), (7, DROP)),
        step(WORD, 54), // both ports
        equal(8, u32::from(SERVER) << 16 | u32::from(CLIENT), (9, DROP)),
        step(WORD, 0), // whom it is for
        equal(10, u32::from_be_bytes([a, b, c, d]), (11, DROP)),
        step(HALF, 4),
        equal(12, u16::from_be_bytes([e, f]).into(), (KEEP, DROP)),
        step(libc::BPF_RET, u16::MAX.into()),
        step(libc::BPF_RET, 0),
    ]
}

#[cfg(test)]
mod tests;
