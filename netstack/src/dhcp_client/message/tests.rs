use super::*;
use proptest::prelude::*;
use smoltcp::wire::{DhcpMessageType, DhcpPacket, DhcpRepr};

pub(in crate::dhcp_client) const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);

pub(in crate::dhcp_client) fn identity() -> Identity {
    Identity { mac: MAC, name: "0123456789abcdef".into(), host_name: "box".into(), is_host: false }
}

/// A server's message of a kind (2 offer, 5 ack, 6 nak) with these options.
pub(in crate::dhcp_client) fn reply(
    kind: u8,
    exchange: u32,
    ip: Ipv4Addr,
    options: &[(u8, &[u8])],
) -> Vec<u8> {
    let mut out = vec![REPLY, ETHERNET, 6, 0];
    out.extend(exchange.to_be_bytes());
    out.extend([0; 8]);
    out.extend(ip.octets());
    out.extend([198, 51, 100, 1]);
    out.extend([0; 4]);
    out.extend(MAC.0);
    out.resize(FILE.end, 0);
    out.extend(COOKIE);
    put(&mut out, option::MESSAGE_TYPE, &[kind]);
    for (number, value) in options {
        put(&mut out, *number, value);
    }
    out.push(option::END);
    out
}

const IP: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
const SERVER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);

fn read<T>(bytes: &[u8], check: impl FnOnce(&DhcpRepr<'_>) -> T) -> T {
    let packet = DhcpPacket::new_checked(bytes).unwrap();
    check(&DhcpRepr::parse(&packet).unwrap())
}

#[test]
fn another_implementation_reads_what_is_written() {
    let bytes = Ask::Discover(None).to_bytes(&identity(), 7, 3);
    assert!(bytes.len() >= SHORTEST);
    read(&bytes, |discover| {
        assert_eq!(discover.message_type, DhcpMessageType::Discover);
        assert_eq!((discover.transaction_id, discover.secs, discover.broadcast), (7, 3, false));
        assert_eq!(discover.client_hardware_address.0, MAC.0);
        assert_eq!((discover.requested_ip, discover.server_identifier), (None, None));
        assert_eq!(discover.parameter_request_list, Some(WISHES));
        assert_eq!(discover.max_size, Some(LARGEST));
    });
    read(&Ask::Select(IP, SERVER).to_bytes(&identity(), 7, 0), |request| {
        assert_eq!(request.message_type, DhcpMessageType::Request);
        assert_eq!((request.requested_ip, request.server_identifier), (Some(IP), Some(SERVER)));
        assert!(request.client_ip.is_unspecified());
    });
    read(&Ask::Keep(IP).to_bytes(&identity(), 7, 0), |request| {
        assert_eq!((request.requested_ip, request.server_identifier), (None, None));
        assert_eq!(request.client_ip, IP);
    });
    read(&Ask::Release(IP, SERVER).to_bytes(&identity(), 7, 0), |release| {
        assert_eq!(release.message_type, DhcpMessageType::Release);
        assert_eq!((release.client_ip, release.server_identifier), (IP, Some(SERVER)));
        assert_eq!((release.requested_ip, release.parameter_request_list), (None, None));
    });
}

#[test]
fn the_client_names_itself_by_the_container() {
    let has = |bytes: &[u8], wanted: &[u8]| bytes.windows(wanted.len()).any(|window| window == wanted);
    let bytes = Ask::Discover(None).to_bytes(&identity(), 7, 0);
    assert!(has(&bytes, b"\x3d\x11\x000123456789abcdef"), "type 0, then the ID");
    assert!(has(&bytes, b"\x0c\x03box"));
    let plain = Identity::of_mac(MAC);
    let bytes = Ask::Discover(None).to_bytes(&plain, 7, 0);
    assert!(has(&bytes, &[61, 7, 1, 2, 0, 0, 0, 0, 1]));
    assert!(!has(&bytes[OPTIONS..], &[option::HOST_NAME, 0]));
    let long = Identity { mac: MAC, name: "x".repeat(1000), host_name: "y".repeat(1000), is_host: true };
    let bytes = Ask::Discover(None).to_bytes(&long, 7, 0);
    assert!(DhcpPacket::new_checked(&bytes[..]).is_ok_and(|packet| DhcpRepr::parse(&packet).is_ok()));
}

#[test]
fn a_host_asks_for_routes_and_search_domains_and_reads_them() {
    let host = Identity { is_host: true, ..Identity::of_mac(MAC) };
    read(&Ask::Discover(None).to_bytes(&host, 7, 0), |discover| {
        assert_eq!(discover.parameter_request_list, Some(WISHES_OF_HOST));
    });
    let of = |options: &[(u8, &[u8])]| Reply::parse(&reply(5, 9, IP, options)).unwrap().options;
    let given = of(&[
        (option::ROUTES, &[0, 198, 51, 100, 1, 25, 10, 1, 2, 0xff, 0, 0, 0, 0]),
        (option::SEARCH, b"\x01a\x02bc\0\x03new"),
        (option::SEARCH, b"\xc0\0"),
    ]);
    let expected = [("0.0.0.0/0".parse().unwrap(), Some(SERVER)), ("10.1.2.128/25".parse().unwrap(), None)];
    assert_eq!(given.routes(), expected);
    assert_eq!(given.search(), ["a.bc", "new.a.bc"]);
    for senseless in [&[33, 1, 2, 3, 4, 5, 198, 51, 100, 1][..], &[24, 10, 1], &[0, 1, 2, 3], &[255]] {
        assert_eq!(of(&[(option::ROUTES, senseless)]).routes(), [], "{senseless:?}");
    }
    assert_eq!(of(&[(option::ROUTES, &[0, 127, 0, 0, 1])]).routes(), [], "nobody else has that");
}

#[test]
fn options_that_come_in_parts_are_put_together() {
    let parts: &[(u8, &[u8])] =
        &[(option::ROUTERS, &[198, 51, 100]), (option::ROUTERS, &[1, 198, 51, 100, 2])];
    let parsed = Reply::parse(&reply(5, 9, IP, parts)).unwrap();
    assert_eq!((parsed.kind, parsed.exchange, parsed.mac, parsed.your_address), (Kind::Ack, 9, MAC, IP));
    assert_eq!(parsed.options.addresses(option::ROUTERS), [SERVER, Ipv4Addr::new(198, 51, 100, 2)]);
}

#[test]
fn options_go_on_in_the_other_fields() {
    let mut bytes = reply(5, 9, IP, &[(option::OVERLOAD, &[3])]);
    bytes[FILE][..7].copy_from_slice(&[option::SUBNET_MASK, 4, 255, 255, 255, 0, option::END]);
    bytes[SNAME][..7].copy_from_slice(&[option::ROUTERS, 4, 198, 51, 100, 1, option::END]);
    let options = Reply::parse(&bytes).unwrap().options;
    assert_eq!(options.address(option::SUBNET_MASK), Some(Ipv4Addr::new(255, 255, 255, 0)));
    assert_eq!(options.addresses(option::ROUTERS), [SERVER]);
}

#[test]
fn options_of_odd_lengths_count_as_absent() {
    let odd: &[(u8, &[u8])] = &[
        (option::ROUTERS, &[1, 2, 3]),
        (option::SUBNET_MASK, &[255, 255]),
        (option::LEASE_TIME, &[1]),
        (option::MTU, &[1, 2, 3]),
        (option::HOST_NAME, b"two words"),
        (option::NTP_SERVERS, &[0; 8]),
        // Nobody's, the container's own, many machines'.
        (option::DNS_SERVERS, &[0, 0, 0, 0, 127, 0, 0, 53, 224, 0, 0, 251, 255, 255, 255, 255]),
    ];
    let options = Reply::parse(&reply(2, 9, IP, odd)).unwrap().options;
    for list in [option::ROUTERS, option::NTP_SERVERS, option::DNS_SERVERS] {
        assert_eq!(options.addresses(list), [Ipv4Addr::UNSPECIFIED; 0], "{list}");
    }
    assert_eq!(options.address(option::SUBNET_MASK), None);
    assert_eq!(options.seconds(option::LEASE_TIME), None);
    assert_eq!(options.number(option::MTU), None);
    assert_eq!(options.text(option::HOST_NAME), "");
}

#[test]
fn what_is_no_servers_message_is_not_taken() {
    let good = reply(2, 9, IP, &[]);
    assert!(Reply::parse(&good).is_some());
    for (at, value, what) in [
        (0, REQUEST, "a client's"),
        (1, 6, "not for Ethernet"),
        (2, 8, "a longer address"),
        (236, 0, "no cookie"),
        (242, 1, "a client's type"),
        (241, 200, "an option over the end"),
        (240, option::END, "no type"),
    ] {
        let mut bad = good.clone();
        bad[at] = value;
        assert_eq!(Reply::parse(&bad), None, "{what}");
    }
    assert_eq!(Reply::parse(&good[..OPTIONS - 1]), None);
    assert_eq!(Reply::parse(&reply(2, 9, IP, &[(option::OVERLOAD, &[1, 2])])), None);
}

proptest! {
    #[test]
    fn any_bytes_are_borne(
        noise in proptest::collection::vec(any::<u8>(), 0..600),
        options in proptest::collection::vec((any::<u8>(), proptest::collection::vec(any::<u8>(), 0..20)), 0..10),
        cut in 0usize..600,
    ) {
        let _ = Reply::parse(&noise);
        let options: Vec<(u8, &[u8])> = options.iter().map(|(number, value)| (*number, value.as_slice())).collect();
        let mut bytes = reply(2, 9, IP, &options);
        bytes.truncate(cut);
        bytes.extend(noise);
        let _ = Reply::parse(&bytes);
    }
}
