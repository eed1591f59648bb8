//! The manner of gvproxy: whole messages, and who gets which address.

use super::*;
use crate::ip::plan::Plan;
use crate::ip::plan::gvproxy::Gvproxy;

const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 168, 127, 1);
/// For whom `.2` is kept.
const FIRST: MacAddr = MacAddr([0x5a, 0x94, 0xef, 0xe4, 0x0c, 0xee]);

fn at_home(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 168, 127, n)
}

fn of(subnet: &str, reserved: &[(Ipv4Addr, MacAddr)], search: &[&str]) -> Server {
    let subnet: ipnet::Ipv4Net = subnet.parse().unwrap();
    let gateway = Ipv4Addr::from_bits(subnet.network().to_bits() + 1);
    let host = Ipv4Addr::from_bits(subnet.broadcast().to_bits() - 1);
    let plan = Plan::gvproxy(&Gvproxy {
        subnet,
        gateway,
        aliases: vec![host],
        nat: vec![(host, Ipv4Addr::LOCALHOST)],
        reserved: reserved.to_vec(),
        link_local: false,
        preserve_source: false,
        v6: None,
    });
    let dns_search = search.iter().map(ToString::to_string).collect();
    Server::new(&Config { plan, dns_search, ..testing::config() }).unwrap()
}

fn server() -> Server {
    of("192.168.127.0/24", &[(at_home(2), FIRST)], &[])
}

fn reply(answer: Answer) -> Reply {
    match answer {
        Answer::Reply(reply) => reply,
        Answer::Ignore(reason) => panic!("{reason:?}"),
    }
}

/// What kind of answer, and which address.
fn told(answer: &Answer) -> Option<(u8, Ipv4Addr)> {
    let Answer::Reply(reply) = answer else { return None };
    let kind = reply.payload[240..].windows(3).find(|part| part[..2] == [53, 1])?[2];
    Some((kind, Ipv4Addr::new(reply.payload[16], reply.payload[17], reply.payload[18], reply.payload[19])))
}

/// The address that a client gets in both rounds.
fn lease_of(server: &mut Server, now: Instant, mac: MacAddr) -> Option<Ipv4Addr> {
    let (kind, addr) = told(&server.answer(now, &message(DISCOVER, mac, NONE, &[])))?;
    assert_eq!(kind, 2);
    let gateway = server.address().octets();
    let request = message(REQUEST, mac, NONE, &[(50, &addr.octets()), (54, &gateway)]);
    assert_eq!(told(&server.answer(now, &request)), Some((5, addr)));
    Some(addr)
}

/// The contract's transcript, byte by byte.
#[test]
fn an_offer_has_these_options_in_this_order() {
    for (search, encoded) in [
        (vec![], vec![119, 0]),
        (vec!["crc.testing", "b"], [&[119, 16][..], b"\x03crc\x07testing\0\x01b\0"].concat()),
    ] {
        let mut server = of("192.168.127.0/24", &[(at_home(2), FIRST)], &search);
        // What it asks for (55), whatever order, a wish (50), a name (61) and a relay's note (82).
        let asked: &[(u8, &[u8])] = &[
            (82, b"\x01\x04port"),
            (55, &[119, 6, 3, 1, 28, 12, 15]),
            (50, &[192, 168, 127, 77]),
            (61, &[1, 0x5a, 0x94, 0xef, 0xe4, 0x0c, 0xee]),
            (80, &[]),
        ];
        let offer = reply(server.answer(at(0), &message(DISCOVER, FIRST, NONE, asked)));
        assert_eq!((offer.to_mac, offer.to_ip), (MacAddr::BROADCAST, Ipv4Addr::BROADCAST));
        let mut expected = vec![2, 1, 6, 0, 0xde, 0xad, 0xbe, 0xef, 0, 0, 0, 0, 0, 0, 0, 0, 192, 168, 127, 2];
        expected.resize(28, 0);
        expected.extend(FIRST.0);
        expected.resize(236, 0);
        expected.extend([99, 130, 83, 99]);
        expected
            .extend([1, 4, 255, 255, 255, 0, 3, 4, 192, 168, 127, 1, 6, 4, 192, 168, 127, 1, 26, 2, 5, 220]);
        expected.extend([51, 4, 0, 0, 14, 16, 53, 1, 2, 54, 4, 192, 168, 127, 1]);
        expected.extend([61, 7, 1, 0x5a, 0x94, 0xef, 0xe4, 0x0c, 0xee]);
        expected.extend(encoded);
        expected.extend([82, 6, 1, 4]);
        expected.extend(b"port\xff");
        expected.resize(expected.len().max(300), 0);
        assert_eq!(offer.payload, expected);
        // The acknowledgement differs in one byte.
        let asked: &[(u8, &[u8])] = &[(50, &[192, 168, 127, 2]), (54, &GATEWAY.octets()), asked[0], asked[3]];
        let ack = reply(server.answer(at(1), &message(REQUEST, FIRST, NONE, asked)));
        let kind = expected.windows(3).position(|part| part == [53, 1, 2]).unwrap() + 2;
        expected[kind] = 5;
        assert_eq!(ack.payload, expected);
        assert_eq!(ack.to_ip, Ipv4Addr::BROADCAST);
        // Whoever has an address is answered there.
        let renewed = reply(server.answer(at(2), &message(REQUEST, FIRST, at_home(2), &[])));
        assert_eq!((renewed.to_mac, renewed.to_ip), (FIRST, at_home(2)));
    }
}

#[test]
fn addresses_go_by_hardware_and_the_lowest_free_first() {
    let mut server = server();
    assert_eq!(lease_of(&mut server, at(0), nth_mac(1)), Some(at_home(3)), "neither ours nor kept");
    assert_eq!(lease_of(&mut server, at(0), FIRST), Some(at_home(2)));
    assert_eq!(lease_of(&mut server, at(0), nth_mac(2)), Some(at_home(4)));
    // A wish counts for nothing, nor does another name of the same machine.
    let named = message(DISCOVER, nth_mac(1), NONE, &[(61, b"\0another"), (50, &[192, 168, 127, 99])]);
    assert_eq!(told(&server.answer(at(1), &named)), Some((2, at_home(3))));
    let leases: Vec<_> = server.leases(at(1)).collect();
    assert_eq!(leases.len(), 3);
    assert_eq!(server.reserved().collect::<Vec<_>>(), [(at_home(2), FIRST)]);
}

#[test]
fn what_a_client_cannot_have_is_refused() {
    let mut server = server();
    lease_of(&mut server, at(0), nth_mac(1));
    let reboot = |mac, n: u8| message(REQUEST, mac, NONE, &[(50, &at_home(n).octets())]);
    for (mac, n, expected) in [
        (nth_mac(1), 3, Some((5, at_home(3)))),
        (nth_mac(2), 3, Some((6, NONE))),
        (nth_mac(2), 1, Some((6, NONE))),
        (nth_mac(2), 2, Some((6, NONE))),
        (nth_mac(2), 254, Some((6, NONE))),
        (nth_mac(2), 255, Some((6, NONE))),
        (nth_mac(2), 0, Some((6, NONE))),
        (FIRST, 9, Some((6, NONE))),
        (FIRST, 2, Some((5, at_home(2)))),
        // After a restart of ours, a machine keeps what nobody else has.
        (nth_mac(3), 77, Some((5, at_home(77)))),
    ] {
        assert_eq!(told(&server.answer(at(1), &reboot(mac, n))), expected, "{mac} {n}");
    }
    let elsewhere = message(REQUEST, nth_mac(4), NONE, &[(50, &[10, 0, 2, 15])]);
    assert_eq!(told(&server.answer(at(1), &elsewhere)), Some((6, NONE)));
}

#[test]
fn neither_the_gateway_nor_its_aliases_nor_the_broadcast_are_leased() {
    let mut server = of("10.0.0.0/29", &[], &[]);
    let leased: Vec<_> = (0..9).map_while(|n| lease_of(&mut server, at(0), nth_mac(n))).collect();
    assert_eq!(leased.iter().map(|addr| addr.octets()[3]).collect::<Vec<_>>(), [2, 3, 4, 5]);
}

#[test]
fn an_address_that_cannot_be_kept_for_anybody_is_not() {
    let ours = [at_home(1), at_home(254), at_home(255), at_home(0), Ipv4Addr::new(10, 0, 0, 1)];
    let kept: Vec<_> = ours.into_iter().zip([5, 6, 7, 8, 9].map(nth_mac)).collect();
    let mut server = of("192.168.127.0/24", &kept, &[]);
    assert_eq!(server.reserved().count(), 0);
    assert_eq!(lease_of(&mut server, at(0), nth_mac(5)), Some(at_home(2)));
}

fn made_up(n: u32) -> MacAddr {
    let [a, b, c, d] = n.to_be_bytes();
    MacAddr([2, 9, a, b, c, d])
}

#[test]
fn a_flood_takes_no_address_from_whoever_has_one() {
    for both_rounds in [false, true] {
        let mut server = server();
        let early = lease_of(&mut server, at(0), nth_mac(1)).unwrap();
        lease_of(&mut server, at(0), FIRST);
        for n in 0..3000 {
            let mac = made_up(n);
            if both_rounds {
                lease_of(&mut server, at(1), mac);
            } else {
                server.answer(at(1), &message(DISCOVER, mac, NONE, &[]));
            }
            assert!(server.leases.len() <= 254, "{}", server.leases.len());
        }
        let renew = message(REQUEST, nth_mac(1), early, &[]);
        assert_eq!(told(&server.answer(at(2), &renew)), Some((5, early)));
        assert_eq!(lease_of(&mut server, at(2), FIRST), Some(at_home(2)), "and what is kept is kept");
        // Offers that nobody has taken up yield to who needs an address; leases do not.
        assert_eq!(lease_of(&mut server, at(2), nth_mac(9)).is_some(), !both_rounds);
        // An hour later there is room again.
        assert!(lease_of(&mut server, at(3602), nth_mac(10)).is_some());
    }
}

#[test]
fn a_wide_network_leases_a_bounded_number() {
    let mut server = of("10.0.0.0/8", &[], &[]);
    let leased = (0..5000).filter(|&n| lease_of(&mut server, at(0), made_up(n)).is_some()).count();
    assert_eq!((leased, server.leases.len()), (1023, 1023), "1024, less the gateway");
}

proptest! {
    /// Whatever clients say: an address has one holder, what is kept is its owner's, and nothing of ours goes away.
    #[test]
    fn what_is_kept_and_what_is_ours_is_nobody_elses(
        steps in prop::collection::vec((step(), any::<bool>()), 1..120),
    ) {
        let mut server = of("10.0.2.0/28", &[(ip(5), nth_mac(1)), (ip(9), nth_mac(2))], &[]);
        let mut now = 0;
        for ((who, kind, wish, ciaddr, ours, pause), named) in steps {
            now += pause * u64::from(pause % 7 == 0);
            let mac = nth_mac(who);
            let ciaddr = if ciaddr < 10 { NONE } else { ip(ciaddr % 16) };
            let (wished, server_id) = (ip(wish % 16).octets(), if ours { ip(1) } else { ip(7) }.octets());
            let mut options: Vec<(u8, &[u8])> = vec![(82, b"note")];
            if wish % 3 != 0 { options.push((50, &wished)); }
            if wish % 2 == 0 { options.push((54, &server_id)); }
            if named { options.push((61, b"the same name")); }
            let answer = server.answer(at(now), &message(kind, mac, ciaddr, &options));
            if let Some((2 | 5, addr)) = told(&answer).filter(|_| kind != INFORM) {
                let last = addr.octets()[3];
                prop_assert!((2..14).contains(&last), "{}", addr);
                prop_assert_eq!(last == 5, who == 1);
                prop_assert_eq!(last == 9, who == 2);
            }
            let mut addrs: Vec<_> = server.leases.iter().map(|lease| lease.addr).collect();
            addrs.sort();
            addrs.dedup();
            prop_assert_eq!(addrs.len(), server.leases.len());
            prop_assert!(addrs.len() <= 12);
        }
    }

    #[test]
    fn options_of_any_length_and_number_never_panic(options: Vec<u8>, kind in 0_u8..10, note: Vec<u8>) {
        let note = note.get(..255).unwrap_or(&note);
        let mut bytes = message(kind, FIRST, NONE, &[(82, note), (57, &[5, 220]), (61, note)]);
        bytes.pop();
        bytes.extend_from_slice(&options);
        if let Answer::Reply(reply) = server().answer(at(0), &bytes) {
            prop_assert!((300..=1472).contains(&reply.payload.len()));
        }
    }
}
