//! What is sent, what must not be sent, and that both third-party parsers read it as meant.

use super::*;
use crate::upstream::{DatagramError, Errno};
use proptest::prelude::*;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    Icmpv4DstUnreachable, Icmpv4Packet, Icmpv4Repr, Icmpv6Packet, Icmpv6Repr, Ipv4Packet, Ipv6Packet,
};

const GUEST: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 2, 100)), 4000);
const WORLD: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(203, 0, 113, 7)), 53);
const ROUTER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 2, 2));

fn v6(text: &str, port: u16) -> SocketAddr {
    SocketAddr::new(text.parse().unwrap(), port)
}

fn errors() -> IcmpErrors {
    IcmpErrors::new(&crate::testing::config().plan)
}

fn build(problem: Problem, from: IpAddr, offending: &[u8]) -> Result<Vec<u8>, DropReason> {
    errors().build(Instant::ZERO, problem, from, offending)
}

#[test]
fn a_v4_port_unreachable_is_read_back_by_smoltcp() {
    let offending = quote_udp(GUEST, WORLD, b"hello", 5);
    let packet = build(Problem::PortUnreachable, ROUTER, &offending).unwrap();
    let ip = Ipv4Packet::new_checked(&packet[..]).unwrap();
    assert!(ip.verify_checksum());
    assert_eq!((IpAddr::V4(ip.src_addr()), IpAddr::V4(ip.dst_addr())), (ROUTER, GUEST.ip()));
    let icmp = Icmpv4Packet::new_checked(ip.payload()).unwrap();
    let repr = Icmpv4Repr::parse(&icmp, &ChecksumCapabilities::default()).unwrap();
    let Icmpv4Repr::DstUnreachable { reason, header, data } = repr else { panic!("{repr:?}") };
    assert_eq!(reason, Icmpv4DstUnreachable::PortUnreachable);
    assert_eq!(IpAddr::V4(header.dst_addr), WORLD.ip());
    assert_eq!(&data[8..], b"hello");
}

#[test]
fn a_v6_packet_too_big_is_read_back_by_smoltcp() {
    let (guest, world) = (v6("fd00::1234", 4000), v6("2001:db8::7", 443));
    let offending = quote_udp(guest, world, &[7; 4000], 4000);
    let packet = build(Problem::TooBig { mtu: 1400 }, world.ip(), &offending).unwrap();
    assert_eq!(packet.len(), 1280);
    let ip = Ipv6Packet::new_checked(&packet[..]).unwrap();
    let icmp = Icmpv6Packet::new_checked(ip.payload()).unwrap();
    let repr =
        Icmpv6Repr::parse(&ip.src_addr(), &ip.dst_addr(), &icmp, &ChecksumCapabilities::default()).unwrap();
    let Icmpv6Repr::PktTooBig { mtu, header, .. } = repr else { panic!("{repr:?}") };
    assert_eq!(mtu, 1400);
    assert_eq!(IpAddr::V6(header.src_addr), guest.ip());
}

#[test]
fn both_code_tables() {
    let v4 = quote_udp(GUEST, WORLD, &[], 0);
    let v6 = quote_udp(v6("fd00::1234", 1), v6("2001:db8::7", 2), &[], 0);
    let router6: IpAddr = "fd00::2".parse().unwrap();
    for (problem, four, six) in [
        (Problem::NetUnreachable, (3, 0, 0), (1, 0, 0)),
        (Problem::HostUnreachable, (3, 1, 0), (1, 3, 0)),
        (Problem::ProtocolUnreachable, (3, 2, 0), (4, 1, 6)),
        (Problem::PortUnreachable, (3, 3, 0), (1, 4, 0)),
        (Problem::Prohibited, (3, 13, 0), (1, 1, 0)),
        (Problem::TooBig { mtu: 1400 }, (3, 4, 1400), (2, 0, 1400)),
        (Problem::TooBig { mtu: 0 }, (3, 4, 0), (2, 0, 1280)),
        (Problem::TimeExceeded, (11, 0, 0), (3, 0, 0)),
        (Problem::ReassemblyTimeExceeded, (11, 1, 0), (3, 1, 0)),
        (Problem::Parameter { code: 0, pointer: 20 }, (12, 0, 20 << 24), (4, 0, 20)),
        (Problem::Relayed { kind: 3, code: 9, rest: 5 }, (3, 9, 5), (3, 9, 5)),
    ] {
        let read = |packet: &[u8], at: usize| {
            (packet[at], packet[at + 1], u32::from_be_bytes(bytes::array(packet, at + 4).unwrap()))
        };
        let packet = build(problem, ROUTER, &v4).unwrap();
        assert_eq!(read(&packet, 20), four, "{problem:?}");
        assert!(checksum::fits(&packet[20..]) && checksum::fits(&packet[..20]));
        let packet = build(problem, router6, &v6).unwrap();
        assert_eq!(read(&packet, 40), six, "{problem:?}");
    }
}

#[test]
fn a_v4_message_has_at_most_576_bytes() {
    let packet = build(Problem::TimeExceeded, ROUTER, &quote_udp(GUEST, WORLD, &[1; 2000], 2000)).unwrap();
    assert_eq!(packet.len(), 576);
    assert_eq!(bytes::be16(&packet, 2), Some(576));
}

#[test]
fn v4_packets_that_must_not_be_answered() {
    let good = quote_udp(GUEST, WORLD, &[0; 8], 8);
    let refused = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut packet = good.clone();
        change(&mut packet);
        build(Problem::NetUnreachable, ROUTER, &packet)
    };
    assert!(refused(&|_| ()).is_ok());
    for dst in [[255; 4], [224, 0, 0, 251], [10, 0, 2, 255]] {
        assert_eq!(refused(&|p| p[16..20].copy_from_slice(&dst)), Err(DropReason::Unsolicited), "{dst:?}");
    }
    for src in
        [[0; 4], [255; 4], [127, 0, 0, 1], [224, 0, 0, 1], [240, 0, 0, 1], [10, 0, 2, 255], [0, 1, 2, 3]]
    {
        assert_eq!(refused(&|p| p[12..16].copy_from_slice(&src)), Err(DropReason::Unsolicited), "{src:?}");
    }
    assert_eq!(refused(&|p| p[7] = 1), Err(DropReason::Unsolicited), "later fragment");
    assert!(refused(&|p| p[6] = 0x20).is_ok(), "first fragment");
    for kind in 0..=255 {
        let answered = refused(&|p| {
            p[9] = 1;
            p[20] = kind;
        });
        assert_eq!(answered.is_ok(), matches!(kind, 0 | 8 | 13..=18), "ICMP type {kind}");
    }
    for cut in 0..20 {
        assert_eq!(refused(&|p| p.truncate(cut)), Err(DropReason::Malformed));
    }
    assert_eq!(refused(&|p| p[0] = 0x44), Err(DropReason::Malformed));
    assert_eq!(refused(&|p| p[0] = 0x65), Err(DropReason::Malformed));
}

#[test]
fn v6_packets_that_must_not_be_answered() {
    let good = quote_udp(v6("fd00::1234", 1), v6("2001:db8::7", 2), &[0; 8], 8);
    let router: IpAddr = "fd00::2".parse().unwrap();
    let refused = |problem, change: &dyn Fn(&mut Vec<u8>)| {
        let mut packet = good.clone();
        change(&mut packet);
        build(problem, router, &packet)
    };
    let net = Problem::NetUnreachable;
    assert!(refused(net, &|_| ()).is_ok());
    for src in ["::", "ff02::1", "::1"] {
        let src: Ipv6Addr = src.parse().unwrap();
        assert_eq!(refused(net, &|p| p[8..24].copy_from_slice(&src.octets())), Err(DropReason::Unsolicited));
    }
    let to_group = |p: &mut Vec<u8>| p[24] = 0xff;
    assert_eq!(refused(net, &to_group), Err(DropReason::Unsolicited));
    assert!(refused(Problem::TooBig { mtu: 1280 }, &to_group).is_ok());
    assert!(refused(Problem::Parameter { code: 2, pointer: 42 }, &to_group).is_ok());
    assert!(refused(Problem::Parameter { code: 1, pointer: 42 }, &to_group).is_err());
    for kind in 0..=255 {
        let answered = refused(net, &|p| {
            p[6] = 58;
            p[40] = kind;
        });
        assert_eq!(answered.is_ok(), kind >= 128 && kind != 137, "ICMPv6 type {kind}");
    }
    // Behind a destination options header the error is still seen.
    let hidden = refused(net, &|p| {
        p[6] = 60;
        p[40..48].copy_from_slice(&[58, 0, 1, 4, 0, 0, 0, 0]);
        p[48] = 1;
    });
    assert_eq!(hidden, Err(DropReason::Unsolicited));
    let fragment = |offset| {
        refused(net, &move |p| {
            p[6] = 44;
            p[40..48].copy_from_slice(&[17, 0, 0, offset, 0, 0, 0, 1]);
        })
    };
    assert!(fragment(0).is_ok());
    assert_eq!(fragment(8), Err(DropReason::Unsolicited));
    assert_eq!(build(net, router, &good[..39]), Err(DropReason::Malformed));
}

#[test]
fn a_flood_is_answered_up_to_the_limit() {
    let mut errors = errors();
    let offending = quote_udp(GUEST, WORLD, &[], 0);
    let mut send = |millis: u64| {
        errors.build(Instant::from_micros(millis * 1000), Problem::PortUnreachable, ROUTER, &offending)
    };
    for _ in 0..BURST {
        assert!(send(0).is_ok());
    }
    assert_eq!(send(0), Err(DropReason::RateLimited));
    assert!(send(1).is_ok());
    assert_eq!(send(1), Err(DropReason::RateLimited));
}

#[test]
fn unanswerable_packets_cost_no_tokens() {
    let mut errors = errors();
    let mut broadcast = quote_udp(GUEST, WORLD, &[], 0);
    broadcast[16..20].fill(255);
    for _ in 0..1000 {
        let _ = errors.build(Instant::ZERO, Problem::PortUnreachable, ROUTER, &broadcast);
    }
    assert!(
        errors
            .build(Instant::ZERO, Problem::PortUnreachable, ROUTER, &quote_udp(GUEST, WORLD, &[], 0))
            .is_ok()
    );
}

#[test]
fn reports_pass_through_in_their_own_family() {
    let report = |to, error, icmp| {
        Problem::from_report(&DatagramError { to, error, reporter: None, icmp, sequence: None })
    };
    let world6 = v6("2001:db8::7", 53);
    let relayed = |kind, code| Some(Problem::Relayed { kind, code, rest: 0 });
    assert_eq!(report(WORLD, Errno::HostUnreachable, Some((11, 0))), relayed(11, 0));
    assert_eq!(report(WORLD, Errno::Refused, Some((3, 3))), relayed(3, 3));
    assert_eq!(report(world6, Errno::Refused, Some((1, 4))), relayed(1, 4));
    assert_eq!(report(world6, Errno::HostUnreachable, Some((3, 0))), relayed(3, 0));
    assert_eq!(report(WORLD, Errno::TooBig { mtu: 1400 }, Some((3, 4))), Some(Problem::TooBig { mtu: 1400 }));
    // An MTU that the report does not tell must not become one of zero.
    assert_eq!(report(world6, Errno::Other, Some((2, 0))), Some(Problem::TooBig { mtu: 0 }));
    assert_eq!(report(WORLD, Errno::Other, Some((3, 4))), Some(Problem::TooBig { mtu: 0 }));
    // Nothing that is not an error, or redirects, gets through as itself.
    assert_eq!(report(WORLD, Errno::Other, Some((5, 0))), None);
    assert_eq!(report(WORLD, Errno::Refused, Some((0, 0))), Some(Problem::PortUnreachable));
    assert_eq!(report(world6, Errno::Other, Some((137, 0))), None);
    assert_eq!(report(WORLD, Errno::NetUnreachable, None), Some(Problem::NetUnreachable));
    assert_eq!(report(WORLD, Errno::Exhausted, None), None);
}

#[test]
fn quoted_packets_look_like_what_the_guest_sent() {
    let echo = quote_echo(GUEST.ip(), WORLD.ip(), 0x1234, 7);
    let sliced = etherparse::SlicedPacket::from_ip(&echo).unwrap();
    let Some(etherparse::TransportSlice::Icmpv4(icmp)) = sliced.transport else { panic!("not ICMP") };
    let etherparse::Icmpv4Type::EchoRequest(header) = icmp.icmp_type() else { panic!("not an echo request") };
    assert_eq!((header.id, header.seq), (0x1234, 7));
    let udp = quote_udp(v6("fd00::1", 1000), v6("2001:db8::7", 2000), &[], 300);
    assert_eq!((bytes::be16(&udp, 4), bytes::be16(&udp, 44)), (Some(308), Some(308)), "the length as it was");
    assert_eq!((bytes::be16(&udp, 40), bytes::be16(&udp, 42)), (Some(1000), Some(2000)));
}

proptest! {
    #[test]
    fn random_offenders_never_panic(packet: Vec<u8>, four: bool) {
        let from = if four { ROUTER } else { "fd00::2".parse().unwrap() };
        if let Ok(message) = build(Problem::ProtocolUnreachable, from, &packet) {
            prop_assert!(etherparse::SlicedPacket::from_ip(&message).is_ok());
        }
    }
}
