//! The messages of RFC 8415 §16 and §18.3, one by one, and what must be discarded.

use super::*;
use crate::ip::plan::Dhcp6Pool;
use crate::testing::{self, OURS};
use core::cell::RefCell;
use core::time::Duration;
use proptest::prelude::*;

const CLIENT: &[u8] = &[0, 3, 0, 1, 2, 0, 0, 0, 0, 1];
const GUEST: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x64);

fn duid() -> Vec<u8> {
    [&[0, 3, 0, 1][..], &OURS.0].concat()
}

/// A server that one station asks.
struct Alone(RefCell<Server>);

impl Alone {
    fn answer(&self, payload: &[u8], to_group: bool) -> Result<Vec<u8>, DropReason> {
        self.0.borrow_mut().answer(Instant::ZERO, testing::GUEST, payload, to_group)
    }
}

fn server(guest: Option<Ipv6Addr>) -> Alone {
    let mut config = testing::config();
    config.dns_search = vec!["example.org".into()];
    config.plan.v6.as_mut().unwrap().guests = guest.into_iter().collect();
    Alone(Server::new(&config).unwrap().into())
}

fn message(kind: u8, options: &[(u16, &[u8])]) -> Vec<u8> {
    let mut bytes = vec![kind, 0xaa, 0xbb, 0xcc];
    for (code, data) in options {
        put_option(&mut bytes, *code, data);
    }
    bytes
}

/// An IA_NA that names `addresses`.
fn ia(id: u8, addresses: &[Ipv6Addr]) -> Vec<u8> {
    let mut body = vec![0, 0, 0, id, 0, 0, 0, 0, 0, 0, 0, 0];
    for &addr in addresses {
        put_address(&mut body, addr, 256);
    }
    body
}

type Options = Vec<(u16, Vec<u8>)>;

fn options(bytes: &[u8]) -> Options {
    let mut found = Vec::new();
    for_each_option(bytes, |code, data| {
        found.push((code, data.to_vec()));
        Ok(())
    })
    .unwrap();
    found
}

/// Type and options of a reply, whose transaction is that of [`message`].
fn read(reply: &[u8]) -> (u8, Options) {
    assert_eq!(reply[1..4], [0xaa, 0xbb, 0xcc]);
    assert!(reply.len() <= LARGEST);
    let options = options(&reply[4..]);
    assert_eq!(options[0], (option::SERVER_ID, duid()));
    (reply[0], options)
}

fn find(options: &Options, code: u16) -> Option<&[u8]> {
    options.iter().find(|(found, _)| *found == code).map(|(_, data)| &data[..])
}

/// Status inside an option list, or at its top.
fn status(options: &Options) -> Option<u8> {
    find(options, option::STATUS).map(|data| data[1])
}

#[test]
fn an_information_request_tells_names_and_nothing_else() {
    let request = message(11, &[(6, &[0, 23, 0, 24])]);
    let (kind, options) = read(&server(None).answer(&request, true).unwrap());
    assert_eq!(kind, 7);
    assert_eq!(find(&options, option::DNS), Some(&"fd00::3".parse::<Ipv6Addr>().unwrap().octets()[..]));
    assert_eq!(find(&options, option::SEARCH), Some(&b"\x07example\x03org\0"[..]));
    assert_eq!(options.len(), 3, "no client identifier came, none goes back");
    let named = message(11, &[(1, CLIENT), (2, &duid())]);
    let (_, options) = read(&server(None).answer(&named, true).unwrap());
    assert_eq!(find(&options, option::CLIENT_ID), Some(CLIENT));
}

#[test]
fn solicit_request_and_rapid_commit_lease_the_guests_address() {
    let association = ia(7, &[]);
    let server = server(Some(GUEST));
    let ours = duid();
    for (request, expected) in [
        (message(1, &[(1, CLIENT), (3, &association)]), 2),
        (message(1, &[(1, CLIENT), (3, &association), (14, &[])]), 7),
        (message(3, &[(1, CLIENT), (2, &ours), (3, &association)]), 7),
    ] {
        let (kind, found) = read(&server.answer(&request, true).unwrap());
        assert_eq!(kind, expected);
        assert_eq!(find(&found, option::RAPID_COMMIT).is_some(), request[0] == 1 && expected == 7);
        assert!(find(&found, option::DNS).is_some());
        let leased = find(&found, option::IA_NA).unwrap();
        assert_eq!(leased[..12], [0, 0, 0, 7, 255, 255, 255, 255, 255, 255, 255, 255]);
        let inner = options(&leased[12..]);
        assert_eq!(inner[0].1[..16], GUEST.octets());
        assert_eq!(inner[0].1[16..], [255; 8]);
    }
}

#[test]
fn a_second_association_gets_no_address_and_prefixes_are_not_delegated() {
    let (first, second) = (ia(1, &[]), ia(2, &[]));
    let request =
        message(1, &[(1, CLIENT), (25, &ia(3, &[])), (4, &[0, 0, 0, 4]), (3, &first), (3, &second)]);
    let (_, found) = read(&server(Some(GUEST)).answer(&request, true).unwrap());
    let inner = |at: usize, fixed: usize| options(&found[at].1[fixed..]);
    assert_eq!((found[4].0, status(&inner(4, 12))), (option::IA_PD, Some(6)));
    assert_eq!((found[5].0, status(&inner(5, 4))), (option::IA_TA, Some(2)));
    assert_eq!(inner(6, 12)[0].0, option::IA_ADDRESS);
    assert_eq!(status(&inner(7, 12)), Some(2));
    assert_eq!(found[7].1[4..12], [0; 8], "no timers without an address");
}

#[test]
fn without_an_address_to_give_it_says_so() {
    let association = ia(1, &[GUEST]);
    let ours = duid();
    for (request, expected) in [
        (message(1, &[(1, CLIENT), (3, &association)]), 2),
        (message(3, &[(1, CLIENT), (2, &ours), (3, &association)]), 2),
        (message(5, &[(1, CLIENT), (2, &ours), (3, &association)]), 3),
        (message(6, &[(1, CLIENT), (3, &association)]), 3),
    ] {
        let (_, found) = read(&server(None).answer(&request, true).unwrap());
        let inner = options(&find(&found, option::IA_NA).unwrap()[12..]);
        assert_eq!((status(&inner), inner.len()), (Some(expected), 1), "message {}", request[0]);
    }
}

#[test]
fn renewing_takes_wrong_addresses_away() {
    let old: Ipv6Addr = "fd00::bad".parse().unwrap();
    let association = ia(1, &[old, GUEST]);
    let ours = duid();
    for request in [
        message(5, &[(1, CLIENT), (2, &ours), (3, &association)]),
        message(6, &[(1, CLIENT), (3, &association)]),
    ] {
        let (_, found) = read(&server(Some(GUEST)).answer(&request, true).unwrap());
        let inner = options(&find(&found, option::IA_NA).unwrap()[12..]);
        assert_eq!(inner.len(), 2);
        assert_eq!((&inner[0].1[..16], &inner[0].1[16..]), (&GUEST.octets()[..], &[255; 8][..]));
        assert_eq!((&inner[1].1[..16], &inner[1].1[16..]), (&old.octets()[..], &[0; 8][..]));
    }
}

#[test]
fn confirm_says_whether_addresses_fit_the_link() {
    let server = server(Some(GUEST));
    let confirm = |addresses: &[Ipv6Addr]| {
        let answer = server.answer(&message(4, &[(1, CLIENT), (3, &ia(1, addresses))]), true);
        answer.map(|reply| status(&read(&reply).1))
    };
    let foreign = "2001:db8::1".parse().unwrap();
    assert_eq!(confirm(&[GUEST]), Ok(Some(0)));
    assert_eq!(confirm(&[GUEST, foreign]), Ok(Some(4)));
    assert_eq!(confirm(&[]), Err(DropReason::Unsolicited));
}

#[test]
fn release_and_decline_are_confirmed() {
    let ours = duid();
    for kind in [8, 9] {
        let request = message(kind, &[(1, CLIENT), (2, &ours), (3, &ia(1, &[GUEST]))]);
        let (kind, found) = read(&server(Some(GUEST)).answer(&request, true).unwrap());
        assert_eq!((kind, status(&found)), (7, Some(0)));
    }
}

/// RFC 8415 §16: each row is message type, client identifier, our identifier, verdict.
#[test]
fn messages_without_the_right_identifiers_are_discarded() {
    let (ours, association) = (duid(), ia(1, &[GUEST]));
    let server = server(Some(GUEST));
    for kind in 0..=13 {
        for (client, named) in [(false, false), (false, true), (true, false), (true, true)] {
            let mut list: Vec<(u16, &[u8])> = Vec::new();
            if client {
                list.push((1, CLIENT));
            }
            if named {
                list.push((2, &ours));
            }
            if kind != 11 {
                list.push((3, &association));
            }
            let accepted = match kind {
                1 | 4 | 6 => client && !named,
                3 | 5 | 8 | 9 => client && named,
                11 => true,
                _ => false,
            };
            let answer = server.answer(&message(kind, &list), true);
            assert_eq!(answer.is_ok(), accepted, "{kind} {client} {named}");
        }
    }
    let other = [0, 3, 0, 1, 9, 9, 9, 9, 9, 9];
    for kind in [3, 5, 8, 9, 11] {
        let answer = server.answer(&message(kind, &[(1, CLIENT), (2, &other)]), true);
        assert_eq!(answer, Err(DropReason::Unsolicited), "for another server: {kind}");
    }
    let with_ia = message(11, &[(3, &association)]);
    assert_eq!(server.answer(&with_ia, true), Err(DropReason::Malformed));
    for len in [0, 1, 2, 131, 200] {
        let request = message(1, &[(1, &vec![0; len])]);
        assert_eq!(server.answer(&request, true), Err(DropReason::Malformed), "DUID of {len}");
    }
}

#[test]
fn unicast_is_sent_back_to_the_group_or_discarded() {
    let ours = duid();
    for kind in [3, 5, 8, 9] {
        let request = message(kind, &[(1, CLIENT), (2, &ours)]);
        let (_, found) = read(&server(Some(GUEST)).answer(&request, false).unwrap());
        assert_eq!(status(&found), Some(5));
        assert_eq!(found.len(), 3);
    }
    for kind in [1, 4, 6, 11] {
        let request = message(kind, &[(1, CLIENT)]);
        assert_eq!(server(Some(GUEST)).answer(&request, false), Err(DropReason::Unsolicited));
    }
}

#[test]
fn broken_options_are_malformed() {
    let server = server(Some(GUEST));
    let good = message(1, &[(1, CLIENT), (3, &ia(1, &[GUEST]))]);
    assert!(server.answer(&good, true).is_ok());
    for cut in (0..4).chain(5..18).chain(19..good.len()) {
        assert_eq!(server.answer(&good[..cut], true), Err(DropReason::Malformed), "{cut}");
    }
    for body in [&[0; 11][..], &[0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 23]] {
        assert_eq!(server.answer(&message(1, &[(1, CLIENT), (3, body)]), true), Err(DropReason::Malformed));
    }
    let mut short = ia(1, &[]);
    put_option(&mut short, option::IA_ADDRESS, &[0; 23]);
    assert_eq!(server.answer(&message(1, &[(1, CLIENT), (3, &short)]), true), Err(DropReason::Malformed));
}

/// RFC 4704 §4.
#[test]
fn the_guest_is_told_its_name() {
    let told = |host: Option<&str>, full: Option<&str>| {
        let mut config = testing::config();
        config.names = GuestNames { host: host.map(Into::into), full: full.map(Into::into) };
        let reply = Alone(Server::new(&config).unwrap().into()).answer(&message(11, &[]), true).unwrap();
        find(&read(&reply).1, option::FULL_NAME).map(<[u8]>::to_vec)
    };
    assert_eq!(told(None, None), None);
    assert_eq!(told(Some("vm"), None).unwrap(), b"\x04\x02vm");
    assert_eq!(told(Some("vm"), Some("vm.example")).unwrap(), b"\x04\x02vm\x07example\0");
    assert_eq!(told(None, Some("a..b")), None);
}

/// A network of several stations: which address and lifetime a message brings `mac`.
fn shared(server: &mut Server, seconds: u64, mac: MacAddr, request: &[u8]) -> Option<(Ipv6Addr, u32)> {
    let now = Instant::from_micros(seconds * 1_000_000);
    let (_, found) = read(&server.answer(now, mac, request, true).unwrap());
    let association = find(&found, option::IA_NA)?.to_vec();
    let (code, addr) = options(&association[12..]).first()?.clone();
    (code == option::IA_ADDRESS).then(|| {
        let number = |at: usize| u32::from_be_bytes(*addr[at..].first_chunk().unwrap());
        let timer = |at: usize| u32::from_be_bytes(*association[at..].first_chunk().unwrap());
        assert_eq!((timer(4), timer(8)), (number(16) / 2, number(16) / 5 * 4));
        (Ipv6Addr::from(*addr.first_chunk().unwrap()), number(16))
    })
}

#[test]
fn stations_that_share_a_link_have_addresses_of_their_own() {
    let mut config = testing::config();
    let first = "fd00::1:0:0:0".parse().unwrap();
    config.plan.dhcp6_pool = Some(Dhcp6Pool { first, count: 2, lease: Duration::from_secs(3600) });
    let mut server = Server::new(&config).unwrap();
    let macs = [0, 1, 2].map(|last| MacAddr([2, 0, 0, 0, 0, last]));
    let address = |last| Some((Ipv6Addr::from_bits(first.to_bits() + last), 3600));
    // They are copies of each other: one DUID, one number of their association.
    let (ours, association) = (duid(), ia(1, &[]));
    let solicit = message(1, &[(1, CLIENT), (3, &association)]);
    let request = message(3, &[(1, CLIENT), (2, &ours), (3, &association)]);
    assert_eq!(shared(&mut server, 0, macs[0], &solicit), address(0));
    assert_eq!(server.leases(Instant::ZERO).count(), 0, "an offer is no lease");
    assert_eq!(shared(&mut server, 0, macs[0], &request), address(0));
    assert_eq!(shared(&mut server, 0, macs[1], &request), address(1));
    assert_eq!(shared(&mut server, 1, macs[2], &request), None, "there is no third");
    let theirs: Vec<_> = server.leases(Instant::ZERO).collect();
    assert_eq!(theirs, [0, 1].map(|at| (address(at as u128).unwrap().0, macs[at])));
    // Who renews keeps it, and what it should not have it is told.
    let stale = ia(1, &[address(0).unwrap().0, address(1).unwrap().0]);
    let renew = message(5, &[(1, CLIENT), (2, &ours), (3, &stale)]);
    assert_eq!(shared(&mut server, 3000, macs[1], &renew), address(1));
    let (_, found) = read(&server.answer(Instant::ZERO, macs[1], &renew, true).unwrap());
    let inner = options(&find(&found, option::IA_NA).unwrap()[12..]);
    assert_eq!((inner.len(), &inner[1].1[16..]), (2, &[0; 8][..]));
    let release = message(8, &[(1, CLIENT), (2, &ours), (3, &ia(1, &[address(1).unwrap().0]))]);
    assert!(server.answer(Instant::from_micros(3_000_000_000), macs[1], &release, true).is_ok());
    assert_eq!(shared(&mut server, 3001, macs[2], &request), address(1));
    server.retell(&config);
    assert_eq!(server.leases(Instant::ZERO).count(), 2, "names change, leases stay");
    // A process that has just started believes who says that it has an address, if nobody else does.
    let mut fresh = Server::new(&config).unwrap();
    let rebind = message(6, &[(1, CLIENT), (3, &ia(1, &[address(1).unwrap().0]))]);
    assert_eq!(shared(&mut fresh, 0, macs[0], &rebind), address(1));
    assert_eq!(shared(&mut fresh, 0, macs[1], &rebind), address(0));
}

#[test]
fn a_switched_off_server_is_none() {
    let mut config = testing::config();
    config.plan.dhcp6 = false;
    assert!(Server::new(&config).is_none());
}

proptest! {
    #[test]
    fn a_reply_stays_small_whatever_is_asked(
        kind in prop::sample::select(vec![1_u8, 3, 4, 5, 6, 8, 9, 11]), client in 3_usize..131, guest: bool,
        associations in prop::collection::vec((prop::sample::select(vec![3_u16, 4, 25]), 0_usize..20), 0..40),
    ) {
        let ours = duid();
        let client = vec![1; client];
        let bodies: Vec<_> = associations.iter().map(|&(code, count)| (code, ia(1, &vec![GUEST; count]))).collect();
        let mut list: Vec<(u16, &[u8])> = vec![(1, &client)];
        if matches!(kind, 3 | 5 | 8 | 9) { list.push((2, &ours)); }
        for (code, body) in &bodies { list.push((*code, body)); }
        if let Ok(reply) = server(guest.then_some(GUEST)).answer(&message(kind, &list), true) {
            read(&reply);
        }
    }

    #[test]
    fn random_bytes_never_panic(mut bytes: Vec<u8>, kind in 0_u8..14, to_group: bool) {
        if let Some(first) = bytes.first_mut() { *first = kind; }
        for chunk in bytes.chunks_mut(8) {
            chunk[0] = 0;
            if let Some(high) = chunk.get_mut(2) { *high = 0; }
            if let Some(low) = chunk.get_mut(3) { *low %= 32; }
        }
        if let Some(first) = bytes.first_mut() { *first = kind; }
        let _ = server(Some(GUEST)).answer(&bytes, to_group);
    }
}
