use super::*;
use proptest::prelude::*;

pub(in crate::dhcp::v6) const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
const CONTAINER: &str = "0123456789abcdef0123456789abcdeffedcba9876543210fedcba9876543210";

pub(in crate::dhcp::v6) fn identity() -> Identity {
    Identity::new(MAC, CONTAINER, "eth0", "box")
}

pub(in crate::dhcp::v6) const ADVERTISE: u8 = 2;
pub(in crate::dhcp::v6) const REPLY: u8 = 7;

/// One option.
pub(in crate::dhcp::v6) fn opt(code: u16, value: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    put(&mut out, code, value);
    out
}

/// An IA_NA with addresses: each with its preferred and valid lifetime.
pub(in crate::dhcp::v6) fn association(
    times: [u32; 2],
    addresses: &[(&str, u32, u32)],
    more: &[u8],
) -> Vec<u8> {
    let mut body = identity().iaid.to_vec();
    body.extend(times.iter().flat_map(|time| time.to_be_bytes()));
    for (address, preferred, valid) in addresses {
        let address: Ipv6Addr = address.parse().unwrap();
        let times = [preferred.to_be_bytes(), valid.to_be_bytes()].concat();
        put(&mut body, option::IA_ADDRESS, &[&address.octets()[..], &times].concat());
    }
    body.extend(more);
    opt(option::IA_NA, &body)
}

/// A message of the server `server` for us, with these options.
pub(in crate::dhcp::v6) fn reply(kind: u8, exchange: [u8; 3], server: u8, options: &[u8]) -> Vec<u8> {
    let head = [&[kind][..], &exchange].concat();
    let (client, server) =
        (opt(option::CLIENT_ID, &identity().duid), opt(option::SERVER_ID, &[0, 3, 0, 1, server]));
    [&head[..], &client, &server, options].concat()
}

fn parse(options: &[u8]) -> Option<Reply> {
    Reply::parse(&reply(REPLY, [1, 2, 3], 9, options), &identity())
}

fn codes(message: &[u8]) -> Vec<u16> {
    Options(&message[4..]).map(|option| option.unwrap().0).collect()
}

#[test]
fn an_identity_stays_with_the_container() {
    let identity = identity();
    assert_eq!(
        identity.duid,
        [0, 4, 1, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef, 1, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef]
    );
    let other = Identity::new(MacAddr([2, 0, 0, 0, 0, 2]), CONTAINER, "eth0", "");
    assert_eq!((&other.duid, other.iaid), (&identity.duid, identity.iaid));
    assert_ne!(Identity::new(MAC, CONTAINER, "eth1", "").iaid, identity.iaid);
    let named = Identity::new(MAC, "my container", "eth0", "");
    assert_eq!((named.duid.len(), &named.duid[..2]), (18, &[0, 4][..]));
    assert_eq!(Identity::new(MAC, "", "eth0", "").duid, [0, 3, 0, 1, 2, 0, 0, 0, 0, 1]);
    // No digit of more than one byte is cut.
    assert_eq!(Identity::new(MAC, &"é".repeat(40), "eth0", "").duid.len(), 18);
}

#[test]
fn each_message_has_what_it_must_have() {
    let server: &[u8] = &[0, 3, 0, 1, 9];
    let addresses = ["2001:db8::7".parse().unwrap()];
    let said = |kind, server, addresses| {
        let ask = Ask { kind, server, addresses };
        let bytes = ask.to_bytes(&identity(), [1, 2, 3], 250);
        assert_eq!(bytes[..4], [kind as u8, 1, 2, 3]);
        (codes(&bytes), bytes)
    };
    assert_eq!(said(Kind::Solicit, None, &[]).0, [1, 8, 3, 14, 6, 39]);
    assert_eq!(said(Kind::Request, Some(server), &addresses).0, [1, 8, 2, 3, 6, 39]);
    assert_eq!(said(Kind::Renew, Some(server), &addresses).0, [1, 8, 2, 3, 6, 39]);
    assert_eq!(said(Kind::Rebind, None, &addresses).0, [1, 8, 3, 6, 39]);
    assert_eq!(said(Kind::Release, Some(server), &addresses).0, [1, 8, 2, 3]);
    assert_eq!(said(Kind::Decline, Some(server), &addresses).0, [1, 8, 2, 3]);
    let (codes, bytes) = said(Kind::Information, None, &[]);
    assert_eq!(codes, [1, 8, 6]);
    assert!(bytes.ends_with(&[0, 6, 0, 6, 0, 23, 0, 24, 0, 83]));
    let (_, solicit) = said(Kind::Solicit, None, &[]);
    assert!(solicit.ends_with(b"\x00\x27\x00\x05\x01\x03box"), "{solicit:?}");
    assert!(solicit.windows(6).any(|window| window == [0, 8, 0, 2, 0, 250]), "when it began");
}

#[test]
fn a_name_with_a_domain_has_an_end() {
    assert_eq!(fqdn("box").unwrap(), b"\x01\x03box");
    assert_eq!(fqdn("box.example.org").unwrap(), b"\x01\x03box\x07example\x03org\0");
    assert_eq!(fqdn(""), None);
    assert_eq!(fqdn(&"x".repeat(64)), None);
}

#[test]
fn an_answer_is_read() {
    // Those of no use to a container: nobody, itself, many.
    let servers = ["fd00::53", "::", "::1", "ff02::fb", "::ffff:127.0.0.1"]
        .map(|server| server.parse::<Ipv6Addr>().unwrap().octets());
    let options = [
        association([50, 80], &[("2001:db8::7", 100, 200), ("fd00::7", 0, 0)], &[]),
        opt(option::DNS_SERVERS, &servers.concat()),
        opt(option::DNS_SEARCH, b"\x03lan\0\x02a\n\0\x02..\0\x03a.b\0\x07example\x03org\0\x05cut"),
        opt(option::PREFERENCE, &[7]),
        opt(option::RAPID_COMMIT, &[]),
        opt(option::SOLICIT_MAX, &300_u32.to_be_bytes()),
        opt(99, &[1, 2, 3]),
    ];
    let read = parse(&options.concat()).unwrap();
    assert_eq!((read.offer, read.exchange, read.server.as_slice()), (false, [1, 2, 3], &[0, 3, 0, 1, 9][..]));
    assert!(read.succeeded() && read.rapid_commit);
    assert_eq!((read.preference, read.longest_wait), (7, Some(300)));
    assert_eq!(read.dns_servers, ["fd00::53".parse::<Ipv6Addr>().unwrap()]);
    assert_eq!(read.search, ["lan", "example.org"]);
    let found = read.association.unwrap();
    assert_eq!((found.renew, found.rebind, found.addresses.len()), (50, 80, 2));
    assert_eq!(found.addresses[0].preferred, 100);
}

#[test]
fn what_is_not_for_us_is_not_taken() {
    let good = reply(REPLY, [1, 2, 3], 9, &[]);
    assert!(Reply::parse(&good, &identity()).is_some());
    let stranger = Identity::new(MAC, "somebody else", "eth0", "");
    assert_eq!(Reply::parse(&good, &stranger), None);
    for kind in [0, 1, 3, 5, 8, 10, 12, 13, 255] {
        assert_eq!(Reply::parse(&reply(kind, [1, 2, 3], 9, &[]), &identity()), None, "{kind}");
    }
    let nobody = [&[REPLY, 1, 2, 3][..], &opt(option::CLIENT_ID, &identity().duid)].concat();
    assert_eq!(Reply::parse(&nobody, &identity()), None, "no server");
    for len in [0, 2, 131] {
        let odd = [&nobody[..], &opt(option::SERVER_ID, &vec![0; len])].concat();
        assert_eq!(Reply::parse(&odd, &identity()), None, "a server's name of {len} bytes");
    }
    let twice = [&good[..], &opt(option::CLIENT_ID, &[0, 3, 0, 1])].concat();
    assert!(Reply::parse(&twice, &identity()).is_some(), "the first one counts");
}

#[test]
fn what_makes_no_sense_is_absent() {
    let addresses = |list: &[(&str, u32, u32)]| {
        let reply = parse(&association([0, 0], list, &[])).unwrap();
        reply.association.unwrap().addresses.len()
    };
    assert_eq!(addresses(&[("2001:db8::7", 100, 50)]), 0, "preferred longer than valid");
    for bad in ["::", "::1", "ff02::1", "fe80::1", "::ffff:192.0.2.1"] {
        assert_eq!(addresses(&[(bad, 1, 1), ("2001:db8::7", 1, 1)]), 1, "{bad}");
    }
    assert_eq!(addresses(&[("2001:db8::7", 1, 1); 20]), MOST);
    let association_of = |options: &[u8]| parse(options).unwrap().association;
    assert_eq!(association_of(&association([90, 80], &[("2001:db8::7", 1, 1)], &[])), None, "T1 behind T2");
    let mut strange = association([0, 0], &[], &[]);
    strange[4] ^= 1;
    assert_eq!(association_of(&strange), None, "another interface's");
    let both = [strange, association([1, 2], &[], &[])].concat();
    assert_eq!(association_of(&both).unwrap().rebind, 2);
    let refused = opt(option::STATUS, &[0, 2]);
    let read = parse(&association([0, 0], &[], &refused)).unwrap();
    assert!(!read.succeeded());
    for wait in [59, 86_401] {
        assert_eq!(parse(&opt(option::SOLICIT_MAX, &u32::to_be_bytes(wait))).unwrap().longest_wait, None);
    }
    // An address that came with a refusal of its own.
    let body =
        [&"2001:db8::7".parse::<Ipv6Addr>().unwrap().octets()[..], &[0, 0, 0, 1, 0, 0, 0, 1], &refused]
            .concat();
    let read = parse(&association([0, 0], &[], &opt(option::IA_ADDRESS, &body))).unwrap();
    assert!(read.association.unwrap().addresses.is_empty());
}

#[test]
fn names_are_those_of_dns() {
    assert_eq!(names(b"\x01a\0\0\0"), ["a"]);
    assert_eq!(names(b"\xc0\x00\x01a\0"), [""; 0], "no pointers");
    assert_eq!(names(b"\x01a"), [""; 0], "no end");
    assert_eq!(names(&b"\x01a\0".repeat(20)).len(), MOST);
    let long = [b"\x3f".as_slice(), &[b'x'; 63]].concat().repeat(5);
    assert_eq!(names(&[&long[..], b"\0"].concat()), [""; 0]);
}

proptest! {
    #[test]
    fn any_bytes_are_borne(bytes in proptest::collection::vec(any::<u8>(), 0..300), cut in 0usize..300) {
        let _ = Reply::parse(&bytes, &identity());
        if let Some(read) = parse(&bytes) {
            prop_assert!(read.dns_servers.len() <= MOST && read.search.len() <= MOST);
            prop_assert!(read.search.iter().all(|name| !name.contains(|c: char| c.is_whitespace() || c.is_control())));
        }
        let _ = parse(&association([1, 2], &[("fd00::1", 1, 2)], &bytes));
        let good = [association([1, 2], &[("fd00::1", 1, 2)], &[]), opt(option::DNS_SERVERS, &[7; 32])].concat();
        let _ = parse(&good[..cut.min(good.len())]);
    }
}
