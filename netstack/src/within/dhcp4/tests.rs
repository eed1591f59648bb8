//! The four states of a client, the pool at its limits, and messages that nobody should send. smoltcp reads the
//! answers.

use super::*;
use crate::testing::{self, GUEST};
use proptest::prelude::*;
use smoltcp::wire::{DhcpMessageType, DhcpPacket, DhcpRepr};

mod gvproxy;

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
const OTHER: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);

fn at(seconds: u64) -> Instant {
    Instant::from_micros(seconds * 1_000_000)
}

fn ip(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 2, n)
}

fn server() -> Server {
    Server::new(&testing::config()).unwrap()
}

fn with(change: impl FnOnce(&mut Config)) -> Server {
    let mut config = testing::config();
    change(&mut config);
    Server::new(&config).unwrap()
}

/// A client's message; options are given as code and bytes.
fn message(kind: u8, mac: MacAddr, ciaddr: Ipv4Addr, options: &[(u8, &[u8])]) -> Vec<u8> {
    let mut bytes = vec![0; 240];
    bytes[..8].copy_from_slice(&[1, 1, 6, 0, 0xde, 0xad, 0xbe, 0xef]);
    bytes[12..16].copy_from_slice(&ciaddr.octets());
    bytes[28..34].copy_from_slice(&mac.0);
    bytes[236..240].copy_from_slice(&[99, 130, 83, 99]);
    for (code, data) in [(53, &[kind][..])].iter().chain(options) {
        bytes.extend_from_slice(&[*code, u8::try_from(data.len()).unwrap()]);
        bytes.extend_from_slice(data);
    }
    bytes.push(255);
    bytes
}

const NONE: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
const DISCOVER: u8 = 1;
const REQUEST: u8 = 3;
const DECLINE: u8 = 4;
const RELEASE: u8 = 7;
const INFORM: u8 = 8;

/// What a reply is, of which address, as smoltcp reads it.
fn read(answer: &Answer) -> Option<(DhcpMessageType, Ipv4Addr)> {
    let Answer::Reply(reply) = answer else { return None };
    let packet = DhcpPacket::new_checked(&reply.payload[..]).unwrap();
    let repr = DhcpRepr::parse(&packet).unwrap();
    assert_eq!(repr.transaction_id, 0xdead_beef);
    assert_eq!(repr.server_identifier, Some(SERVER));
    Some((repr.message_type, repr.your_ip))
}

fn option_of(answer: &Answer, code: u8) -> Option<Vec<u8>> {
    let Answer::Reply(reply) = answer else { panic!("{answer:?}") };
    let packet = DhcpPacket::new_checked(&reply.payload[..]).unwrap();
    packet.options().find(|option| option.kind == code).map(|option| option.data.to_vec())
}

fn ack(n: u8) -> Option<(DhcpMessageType, Ipv4Addr)> {
    Some((DhcpMessageType::Ack, ip(n)))
}

fn offer(n: u8) -> Option<(DhcpMessageType, Ipv4Addr)> {
    Some((DhcpMessageType::Offer, ip(n)))
}

const NAK: Option<(DhcpMessageType, Ipv4Addr)> = Some((DhcpMessageType::Nak, NONE));

/// Both rounds of a client without any wish.
fn lease(server: &mut Server, now: Instant, mac: MacAddr) -> Option<Ipv4Addr> {
    let (kind, addr) = read(&server.answer(now, &message(DISCOVER, mac, NONE, &[])))?;
    assert_eq!(kind, DhcpMessageType::Offer);
    let request = message(REQUEST, mac, NONE, &[(50, &addr.octets()), (54, &SERVER.octets())]);
    assert_eq!(read(&server.answer(now, &request)), Some((DhcpMessageType::Ack, addr)));
    Some(addr)
}

fn nth_mac(n: u8) -> MacAddr {
    MacAddr([2, 1, 0, 0, 0, n])
}

#[test]
fn a_new_client_gets_the_first_address_and_all_it_needs() {
    let mut server = with(|config| config.dns_search = vec!["example.org".into()]);
    assert_eq!(lease(&mut server, at(0), GUEST), Some(ip(15)));
    let request = message(REQUEST, GUEST, NONE, &[(50, &ip(15).octets()), (54, &SERVER.octets())]);
    let answer = server.answer(at(0), &request);
    let expected: [(u8, &[u8]); 9] = [
        (1, &[255, 255, 255, 0]),
        (3, &[10, 0, 2, 2]),
        (6, &[10, 0, 2, 3]),
        (26, &1500_u16.to_be_bytes()),
        (28, &[10, 0, 2, 255]),
        (51, &86_400_u32.to_be_bytes()),
        (58, &43_200_u32.to_be_bytes()),
        (59, &75_600_u32.to_be_bytes()),
        (119, b"\x07example\x03org\0"),
    ];
    for (code, data) in expected {
        assert_eq!(option_of(&answer, code).as_deref(), Some(data), "option {code}");
    }
    let Answer::Reply(reply) = &answer else { unreachable!() };
    assert!(reply.payload.len() >= 300);
    assert_eq!((reply.to_mac, reply.to_ip), (GUEST, ip(15)));
    assert_eq!(server.leases(at(1)).collect::<Vec<_>>(), [(ip(15), GUEST)]);
    assert_eq!(server.leases(at(86_400)).count(), 0);
}

#[test]
fn what_is_not_configured_is_not_told() {
    let mut server =
        with(|config| config.plan = testing::plan(|slirp| slirp.v4.as_mut().unwrap().dns = None));
    let answer = server.answer(at(0), &message(DISCOVER, GUEST, NONE, &[]));
    for code in [6, 119, 121, 80] {
        assert_eq!(option_of(&answer, code), None, "option {code}");
    }
    let mut off = testing::config();
    off.plan.dhcp = None;
    assert!(Server::new(&off).is_none());
}

#[test]
fn each_client_has_its_own_address_and_keeps_it() {
    let mut server = server();
    assert_eq!(lease(&mut server, at(0), GUEST), Some(ip(15)));
    assert_eq!(lease(&mut server, at(0), OTHER), Some(ip(16)));
    assert_eq!(lease(&mut server, at(1), GUEST), Some(ip(15)));
    // One machine, two identities (RFC 2131 §4.2).
    let named = message(DISCOVER, GUEST, NONE, &[(61, b"\0another")]);
    let answer = server.answer(at(2), &named);
    assert_eq!(read(&answer), offer(17));
    assert_eq!(option_of(&answer, 61).as_deref(), Some(&b"\0another"[..]), "RFC 6842");
    // Its address is its own for long after the lease has ended, while there are others.
    assert_eq!(lease(&mut server, at(1_000_000), OTHER), Some(ip(16)));
}

#[test]
fn a_wish_is_granted_if_it_can_be() {
    let wish = |server: &mut Server, mac, n: u8| {
        read(&server.answer(at(0), &message(DISCOVER, mac, NONE, &[(50, &ip(n).octets())])))
    };
    let mut server = server();
    assert_eq!(wish(&mut server, nth_mac(1), 20), offer(20));
    assert_eq!(wish(&mut server, nth_mac(2), 20), offer(15), "taken");
    assert_eq!(wish(&mut server, nth_mac(3), 100), offer(16), "not in the pool");
    assert_eq!(wish(&mut server, nth_mac(4), 2), offer(17), "ours");
}

#[test]
fn an_offer_lapses_and_goes_to_the_next_in_need() {
    let mut server = with(|config| config.plan.dhcp.as_mut().unwrap().count = 1);
    let discover = |mac| message(DISCOVER, mac, NONE, &[]);
    assert_eq!(read(&server.answer(at(0), &discover(GUEST))), offer(15));
    assert_eq!(server.answer(at(59), &discover(OTHER)), Answer::Ignore(DropReason::NoRoom));
    assert_eq!(read(&server.answer(at(60), &discover(OTHER))), offer(15));
    // Too late now for the first.
    let request = message(REQUEST, GUEST, NONE, &[(50, &ip(15).octets()), (54, &SERVER.octets())]);
    assert_eq!(read(&server.answer(at(61), &request)), NAK);
}

#[test]
fn a_client_that_chose_another_server_frees_its_offer() {
    let mut server = with(|config| config.plan.dhcp.as_mut().unwrap().count = 1);
    server.answer(at(0), &message(DISCOVER, GUEST, NONE, &[]));
    let elsewhere = message(REQUEST, GUEST, NONE, &[(50, &ip(77).octets()), (54, &ip(4).octets())]);
    assert_eq!(server.answer(at(0), &elsewhere), Answer::Ignore(DropReason::Unsolicited));
    assert_eq!(lease(&mut server, at(0), OTHER), Some(ip(15)));
}

#[test]
fn a_returning_client_is_confirmed_or_refused() {
    let init_reboot = |mac, n: u8| message(REQUEST, mac, NONE, &[(50, &ip(n).octets())]);
    let mut server = server();
    lease(&mut server, at(0), GUEST);
    assert_eq!(read(&server.answer(at(1), &init_reboot(GUEST, 15))), ack(15));
    assert_eq!(read(&server.answer(at(1), &init_reboot(OTHER, 15))), NAK, "somebody else's");
    assert_eq!(read(&server.answer(at(1), &init_reboot(OTHER, 100))), NAK, "not in the pool");
    let wrong_net = message(REQUEST, OTHER, NONE, &[(50, &[192, 168, 1, 5])]);
    let answer = server.answer(at(1), &wrong_net);
    assert_eq!(read(&answer), NAK);
    let Answer::Reply(reply) = &answer else { unreachable!() };
    assert_eq!((reply.to_mac, reply.to_ip), (MacAddr::BROADCAST, Ipv4Addr::BROADCAST));
    assert_eq!(option_of(&answer, 51), None);
    // After a restart of ours nobody is known; the address is free, so it stays with who has it.
    let mut restarted = with(|_| ());
    assert_eq!(read(&restarted.answer(at(1), &init_reboot(OTHER, 22))), ack(22));
}

#[test]
fn renewing_and_rebinding_extend_the_lease() {
    let mut server = server();
    lease(&mut server, at(0), GUEST);
    let renew = message(REQUEST, GUEST, ip(15), &[]);
    let answer = server.answer(at(80_000), &renew);
    assert_eq!(read(&answer), ack(15));
    let Answer::Reply(reply) = &answer else { unreachable!() };
    assert_eq!(reply.to_ip, ip(15));
    assert_eq!(reply.payload[12..16], ip(15).octets(), "ciaddr goes back");
    assert_eq!(server.leases(at(160_000)).count(), 1);
    assert_eq!(read(&server.answer(at(80_001), &message(REQUEST, OTHER, ip(15), &[]))), NAK);
    // A client that changes its mind has one address, not two.
    assert_eq!(read(&server.answer(at(80_002), &message(REQUEST, GUEST, ip(20), &[]))), ack(20));
    assert_eq!(server.leases(at(80_003)).collect::<Vec<_>>(), [(ip(20), GUEST)]);
}

#[test]
fn the_broadcast_flag_is_obeyed_and_returned() {
    let mut discover = message(DISCOVER, GUEST, NONE, &[]);
    discover[10] = 0x80;
    let Answer::Reply(reply) = server().answer(at(0), &discover) else { panic!("no answer") };
    assert_eq!((reply.to_mac, reply.to_ip), (MacAddr::BROADCAST, Ipv4Addr::BROADCAST));
    assert_eq!(reply.payload[10], 0x80);
}

#[test]
fn rapid_commit_saves_a_round() {
    let mut server = server();
    let answer = server.answer(at(0), &message(DISCOVER, GUEST, NONE, &[(80, &[])]));
    assert_eq!(read(&answer), ack(15));
    assert_eq!(option_of(&answer, 80), Some(vec![]));
    assert_eq!(server.leases(at(1)).count(), 1);
}

#[test]
fn a_declined_address_rests() {
    let mut server = server();
    lease(&mut server, at(0), GUEST);
    let decline = message(DECLINE, GUEST, NONE, &[(50, &ip(15).octets()), (54, &SERVER.octets())]);
    assert!(matches!(server.answer(at(1), &decline), Answer::Ignore(_)));
    assert_eq!(lease(&mut server, at(2), GUEST), Some(ip(16)));
    // Nobody can decline for somebody else.
    let foreign = message(DECLINE, OTHER, NONE, &[(50, &ip(16).octets()), (54, &SERVER.octets())]);
    server.answer(at(3), &foreign);
    assert_eq!(server.leases(at(3)).collect::<Vec<_>>(), [(ip(16), GUEST)]);
}

#[test]
fn a_released_address_is_free_but_remembered() {
    let mut server = with(|config| config.plan.dhcp.as_mut().unwrap().count = 2);
    lease(&mut server, at(0), GUEST);
    let release = message(RELEASE, GUEST, ip(15), &[(54, &SERVER.octets())]);
    assert!(matches!(server.answer(at(1), &release), Answer::Ignore(_)));
    assert_eq!(server.leases(at(1)).count(), 0);
    assert_eq!(lease(&mut server, at(2), OTHER), Some(ip(16)), "the fresh one first");
    assert_eq!(lease(&mut server, at(3), GUEST), Some(ip(15)));
}

#[test]
fn inform_tells_all_but_an_address() {
    let mut server = server();
    let answer = server.answer(at(0), &message(INFORM, GUEST, ip(100), &[]));
    assert_eq!(read(&answer), Some((DhcpMessageType::Ack, NONE)));
    assert_eq!(option_of(&answer, 6), Some(vec![10, 0, 2, 3]));
    assert_eq!(option_of(&answer, 51), None);
    let Answer::Reply(reply) = &answer else { unreachable!() };
    assert_eq!((reply.to_mac, reply.to_ip), (GUEST, ip(100)));
    for claimed in [NONE, ip(2), ip(3), ip(0), ip(255), Ipv4Addr::new(8, 8, 8, 8)] {
        let answer = server.answer(at(0), &message(INFORM, GUEST, claimed, &[]));
        assert_eq!(answer, Answer::Ignore(DropReason::Martian), "{claimed}");
    }
}

#[test]
fn the_pool_leaves_out_what_no_guest_can_have() {
    let mut server = with(|config| {
        let pool = config.plan.dhcp.as_mut().unwrap();
        (pool.first, pool.count) = (ip(0), 6);
    });
    let leased: Vec<_> = (0..4).map_while(|n| lease(&mut server, at(0), nth_mac(n))).collect();
    assert_eq!(leased, [ip(1), ip(4), ip(5)]);
    let end = with(|config| {
        config.plan.v4.as_mut().unwrap().network = "255.255.255.0/24".parse().unwrap();
        config.plan.dhcp.as_mut().unwrap().first = Ipv4Addr::new(255, 255, 255, 250);
    });
    assert_eq!(end.pool().count(), 5);
}

#[test]
fn when_all_are_taken_the_one_unused_for_longest_goes() {
    let mut server = server();
    for n in 0..16 {
        assert_eq!(lease(&mut server, at(u64::from(n)), nth_mac(n)), Some(ip(15 + n)));
    }
    let late = message(DISCOVER, OTHER, NONE, &[]);
    assert_eq!(server.answer(at(100), &late), Answer::Ignore(DropReason::NoRoom));
    for n in [5, 9] {
        let release = message(RELEASE, nth_mac(n), ip(15 + n), &[(54, &SERVER.octets())]);
        server.answer(at(200 + u64::from(n)), &release);
    }
    assert_eq!(read(&server.answer(at(300), &late)), offer(20));
    assert_eq!(server.leases.len(), 16, "no more on record than the pool has");
}

#[test]
fn a_router_outside_the_prefix_comes_with_a_route_to_it() {
    let mut server = with(|config| {
        config.plan.v4.as_mut().unwrap().gateway = Some(Ipv4Addr::new(192, 168, 1, 1));
    });
    let Answer::Reply(reply) = server.answer(at(0), &message(DISCOVER, GUEST, NONE, &[])) else { panic!() };
    let routes = option_of(&Answer::Reply(reply), 121).unwrap();
    assert_eq!(routes, [32, 192, 168, 1, 1, 0, 0, 0, 0, 0, 192, 168, 1, 1]);
}

#[test]
fn a_small_message_leaves_out_the_least_important() {
    let many = (0..12).map(|n| format!("domain-number-{n}.example.org")).collect();
    let mut server = with(|config| config.dns_search = many);
    let name = [7; 250];
    let small = message(DISCOVER, GUEST, NONE, &[(61, &name)]);
    let answer = server.answer(at(0), &small);
    assert_eq!((option_of(&answer, 119), option_of(&answer, 6).is_some()), (None, true));
    let Answer::Reply(reply) = &answer else { unreachable!() };
    assert!(reply.payload.len() <= 548);
    let large = message(DISCOVER, GUEST, NONE, &[(61, &name), (57, &1500_u16.to_be_bytes())]);
    assert!(option_of(&server.answer(at(0), &large), 119).unwrap().len() > 200);
    let liar = message(DISCOVER, GUEST, NONE, &[(57, &[0, 1])]);
    assert!(option_of(&server.answer(at(0), &liar), 51).is_some(), "less than 576 is not believed");
}

#[test]
fn a_lease_without_end_has_no_renewal() {
    let mut server = with(|config| config.plan.dhcp.as_mut().unwrap().lease = Duration::MAX);
    let answer = server.answer(at(0), &message(DISCOVER, GUEST, NONE, &[]));
    assert_eq!(option_of(&answer, 51), Some(vec![255; 4]));
    assert_eq!((option_of(&answer, 58), option_of(&answer, 59)), (None, None));
}

#[test]
fn overloaded_fields_are_read() {
    let mut discover = message(DISCOVER, GUEST, NONE, &[(52, &[3])]);
    discover[108..115].copy_from_slice(&[50, 4, 10, 0, 2, 25, 255]);
    discover[44..49].copy_from_slice(&[61, 2, 9, 9, 255]);
    let answer = server().answer(at(0), &discover);
    assert_eq!(read(&answer), offer(25));
    assert_eq!(option_of(&answer, 61), Some(vec![9, 9]));
}

#[test]
fn messages_that_are_not_for_us() {
    let good = message(DISCOVER, GUEST, NONE, &[]);
    let changed = |at_byte: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[at_byte] = value;
        server().answer(at(0), &bytes)
    };
    let (malformed, unsolicited) =
        (Answer::Ignore(DropReason::Malformed), Answer::Ignore(DropReason::Unsolicited));
    assert_eq!(changed(0, 2), unsolicited, "from a server");
    assert_eq!(changed(3, 1), unsolicited, "through a relay");
    assert_eq!(changed(24, 10), unsolicited, "through a relay");
    for kind in [0, 2, 5, 6, 9, 255] {
        assert_eq!(changed(242, kind), unsolicited, "message type {kind}");
    }
    for (at_byte, value) in [(1, 6), (2, 16), (28, 1), (236, 0), (241, 2), (241, 200)] {
        assert_eq!(changed(at_byte, value), malformed, "byte {at_byte}");
    }
    for cut in 0..240 {
        assert_eq!(server().answer(at(0), &good[..cut]), malformed, "{cut}");
    }
    assert_eq!(server().answer(at(0), &good[..240]), unsolicited, "BOOTP");
    assert_eq!(server().answer(at(0), &message(REQUEST, GUEST, NONE, &[])), malformed);
    assert_eq!(server().answer(at(0), &message(DECLINE, GUEST, NONE, &[])), malformed);
}

/// A guest that is alone: `pasta --address 10.0.2.15`.
fn alone(change: impl FnOnce(&mut Config)) -> Server {
    with(|config| {
        let plan = &mut config.plan;
        plan.v4.as_mut().unwrap().alone = true;
        plan.dhcp = Some(DhcpPool { first: ip(15), count: 1, lease: Duration::from_secs(u32::MAX.into()) });
        change(config);
    })
}

/// Firmware, ramdisk and system are three clients, and none gives back what it had.
#[test]
fn whoever_is_alone_gets_the_address_whatever_it_calls_itself() {
    let mut server = alone(|_| {});
    assert_eq!(lease(&mut server, at(0), GUEST), Some(ip(15)));
    assert_eq!(lease(&mut server, at(1), OTHER), Some(ip(15)));
    let named = message(DISCOVER, GUEST, NONE, &[(61, b"\x01name")]);
    assert_eq!(read(&server.answer(at(2), &named)), offer(15));
    let answer = server.answer(at(3), &message(REQUEST, nth_mac(3), ip(15), &[]));
    assert_eq!((read(&answer), option_of(&answer, 51)), (ack(15), Some(vec![0xff; 4])));
    assert_eq!((option_of(&answer, 58), option_of(&answer, 59)), (None, None), "it is never renewed");
    let Answer::Reply(reply) = answer else { panic!() };
    assert_eq!(reply.grants, Some(ip(15)));
    assert_eq!(read(&server.answer(at(4), &message(REQUEST, GUEST, ip(16), &[]))), NAK, "no other one");
    let decline = [(50, &ip(15).octets()[..]), (54, &SERVER.octets()[..])];
    server.answer(at(5), &message(DECLINE, nth_mac(3), NONE, &decline));
    assert_eq!(lease(&mut server, at(6), GUEST), Some(ip(15)), "there is no other to be had");
}

/// RFC 951, RFC 1534.
#[test]
fn whoever_is_alone_may_ask_by_bootp() {
    let mut server = alone(|_| {});
    let mut question = message(0, GUEST, NONE, &[]);
    question.splice(240..243, []);
    let Answer::Reply(reply) = server.answer(at(0), &question) else { panic!("no answer") };
    let packet = DhcpPacket::new_checked(&reply.payload[..]).unwrap();
    assert_eq!((packet.your_ip(), packet.transaction_id()), (ip(15), 0xdead_beef));
    let codes: Vec<_> = packet.options().map(|option| option.kind).collect();
    assert_eq!(codes, [1, 3, 6, 26, 28], "neither a type nor a lease");
    assert_eq!((reply.to_ip, reply.to_mac, reply.grants), (ip(15), GUEST, Some(ip(15))));
    assert!(reply.payload.len() >= 300);
}

#[test]
fn what_the_client_asks_for_comes_first_and_in_its_order() {
    let names = crate::config::GuestNames { host: Some("vm".into()), full: Some("vm.example.org".into()) };
    let mut server = with(|config| {
        config.names = names;
        config.plan.v4.as_mut().unwrap().dns = vec![ip(3), ip(4)];
    });
    let order = |server: &mut Server, asked: &[u8]| {
        let answer = server.answer(at(0), &message(DISCOVER, GUEST, NONE, &[(55, asked)]));
        let Answer::Reply(reply) = answer else { panic!("{answer:?}") };
        let packet = DhcpPacket::new_checked(&reply.payload[..]).unwrap();
        packet.options().map(|option| option.kind).collect::<Vec<_>>()
    };
    assert_eq!(order(&mut server, &[]), [53, 54, 51, 58, 59, 1, 3, 6, 26, 28, 12, 81]);
    assert_eq!(order(&mut server, &[12, 99, 6, 1]), [53, 54, 51, 58, 59, 12, 6, 1, 3, 26, 28, 81]);
    let answer = server.answer(at(0), &message(DISCOVER, GUEST, NONE, &[]));
    assert_eq!(option_of(&answer, 12).as_deref(), Some(&b"vm"[..]));
    assert_eq!(option_of(&answer, 81).as_deref(), Some(&b"\x0c\xff\xff\x02vm\x07example\x03org\0"[..]));
    assert_eq!(option_of(&answer, 6), Some([ip(3).octets(), ip(4).octets()].concat()));
    let mut silent = with(|config| config.tell_mtu = false);
    assert_eq!(option_of(&silent.answer(at(0), &message(DISCOVER, GUEST, NONE, &[])), 26), None);
}

/// A step of some client: who, which message, which addresses, at which moment.
fn step() -> impl Strategy<Value = (u8, u8, u8, u8, bool, u64)> {
    (
        0_u8..24,
        prop::sample::select(vec![1_u8, 3, 4, 7, 8]),
        10_u8..36,
        0_u8..40,
        any::<bool>(),
        0_u64..100_000,
    )
}

proptest! {
    #[test]
    fn no_two_clients_ever_share_an_address(steps in prop::collection::vec(step(), 1..120)) {
        let mut server = server();
        let mut now = 0;
        for (who, kind, wish, ciaddr, ours, pause) in steps {
            now += pause * u64::from(pause % 7 == 0);
            let ciaddr = if ciaddr < 10 { NONE } else { ip(ciaddr) };
            let from = if ours { SERVER } else { ip(9) };
            let wished = ip(wish).octets();
            let server_id = from.octets();
            let mut options: Vec<(u8, &[u8])> = Vec::new();
            if wish % 3 != 0 { options.push((50, &wished)); }
            if wish % 2 == 0 { options.push((54, &server_id)); }
            let answer = server.answer(at(now), &message(kind, nth_mac(who), ciaddr, &options));
            if let Some((DhcpMessageType::Ack | DhcpMessageType::Offer, addr)) = read(&answer) {
                prop_assert!(kind == INFORM || (15..31).contains(&addr.octets()[3]));
            }
            let mut addrs: Vec<_> = server.leases.iter().map(|lease| lease.addr).collect();
            addrs.sort();
            addrs.dedup();
            prop_assert_eq!(addrs.len(), server.leases.len());
            prop_assert!(addrs.len() <= 16);
        }
    }

    #[test]
    fn random_options_never_panic(options: Vec<u8>, kind in 0_u8..10, overload in 0_u8..4) {
        let mut bytes = message(kind, GUEST, NONE, &[(52, &[overload])]);
        bytes.pop();
        bytes.extend_from_slice(&options);
        let _ = server().answer(at(0), &bytes);
        let mut fields = message(kind, GUEST, NONE, &[(52, &[overload])]);
        for (place, value) in fields[44..236].iter_mut().zip(options) { *place = value; }
        let _ = server().answer(at(0), &fields);
    }

    #[test]
    fn random_bytes_never_panic(bytes: Vec<u8>) {
        let _ = server().answer(at(0), &bytes);
    }
}

#[test]
fn an_address_is_kept_for_a_station_from_now_on() {
    let mut server = server();
    assert_eq!(lease(&mut server, at(0), GUEST), Some(ip(15)));
    let refused = [
        (ip(2), OTHER, KeepError::NoHost),
        (ip(0), OTHER, KeepError::NoHost),
        (ip(255), OTHER, KeepError::NoHost),
        (Ipv4Addr::new(10, 0, 3, 9), OTHER, KeepError::NoHost),
        (ip(15), OTHER, KeepError::Taken),
    ];
    for (addr, mac, error) in refused {
        assert_eq!(server.keep(at(1), addr, mac), Err(error), "{addr}");
    }
    assert_eq!(server.keep(at(1), ip(16), OTHER), Ok(()));
    assert_eq!(server.keep(at(1), ip(16), GUEST), Err(KeepError::Taken));
    assert_eq!(lease(&mut server, at(2), nth_mac(1)), Some(ip(17)), "not the one that is kept");
    assert_eq!(lease(&mut server, at(2), OTHER), Some(ip(16)));
    // Whoever has another one hears of it when it renews.
    assert_eq!(server.keep(at(3), ip(200), GUEST), Ok(()));
    assert_eq!(read(&server.answer(at(4), &message(REQUEST, GUEST, ip(15), &[]))), NAK);
    assert_eq!(lease(&mut server, at(5), GUEST), Some(ip(200)));
    // A station has one; what was kept for it before is free.
    assert_eq!(server.keep(at(6), ip(201), GUEST), Ok(()));
    assert!(server.reserved().eq([(ip(16), OTHER), (ip(201), GUEST)]));
    // What a lease of a day kept from others is theirs afterwards.
    assert_eq!(server.keep(at(100_000), ip(17), GUEST), Ok(()));
    for n in 0..MOST_KEPT {
        let n = u32::try_from(n).unwrap().to_be_bytes();
        server.manner.reserved.push((ip(1), MacAddr([2, 2, n[0], n[1], n[2], n[3]])));
    }
    assert_eq!(server.keep(at(100_001), ip(18), nth_mac(9)), Err(KeepError::TooMany));
    assert_eq!(server.keep(at(100_001), ip(18), GUEST), Ok(()));
}
