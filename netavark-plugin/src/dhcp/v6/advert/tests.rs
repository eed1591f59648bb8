use super::*;
use proptest::prelude::*;
use slipway_netstack::config::{Config, Keys, Mtu};
use slipway_netstack::device::Capabilities;
use slipway_netstack::ip::plan::Plan;
use slipway_netstack::ip::plan::slirp::{Ipv6Config, Slirp};
use slipway_netstack::within::ra;
use smoltcp::wire::{Icmpv6Packet, NdiscRepr};

const ROUTER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);

/// A message with these flags and options; the router leads somewhere for half an hour.
fn message(flags: u8, options: &[&[u8]]) -> Vec<u8> {
    let head = [ADVERTISEMENT, 0, 0, 0, 64, flags, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0];
    [&head[..], &options.concat()].concat()
}

fn prefix(net: &str, flags: u8, valid: u32, preferred: u32) -> Vec<u8> {
    let net: Ipv6Net = net.parse().unwrap();
    let times = [valid.to_be_bytes(), preferred.to_be_bytes()].concat();
    [&[3, 4, net.prefix_len(), flags], &times[..], &[0; 4], &net.addr().octets()].concat()
}

fn parse(flags: u8, options: &[&[u8]]) -> Option<Advert> {
    Advert::parse(ROUTER, &message(flags, options))
}

#[test]
fn another_implementation_reads_the_question() {
    let message = solicitation(MAC, Some(MAC.link_local()));
    let packet = Icmpv6Packet::new_checked(&message[..]).unwrap();
    let NdiscRepr::RouterSolicit { lladdr } = NdiscRepr::parse(&packet).unwrap() else {
        panic!("no question")
    };
    assert_eq!(lladdr.unwrap().as_bytes(), MAC.0);
    // RFC 4861 §4.1: without an address of its own it must not say whose MAC address it is.
    assert_eq!(solicitation(MAC, None).len(), 8);
}

#[test]
fn what_our_own_router_says_is_read() {
    let keys = Keys { flow_hash: [0; 16], isn: [0; 16], others: [0; 16] };
    let v6 = Ipv6Config::slirp("fd00:5::/64".parse().unwrap());
    let v6 = Some(Ipv6Config { guest: "fd00:5::9".parse().ok(), ..v6 });
    let mac = MacAddr([2, 0, 0, 0, 0, 2]);
    let config = Config {
        mtu: Mtu::new(9000).unwrap(),
        plan: Plan::slirp(mac, &Slirp { v6, ..Slirp::default() }),
        dns_search: vec!["example.org".into(), "lan".into()],
        ..Config::new(mac, keys, Capabilities::default())
    };
    let frame = ra::advertisement(&config, MAC.link_local(), MAC).unwrap();
    let advert = Advert::parse(config.mac.link_local(), &frame[54..]).unwrap();
    assert_eq!(advert.router, Some(config.mac.link_local()));
    assert!(advert.managed && advert.other);
    assert_eq!(advert.mtu, Some(9000));
    assert_eq!(advert.dns_servers, ["fd00:5::3".parse::<Ipv6Addr>().unwrap()]);
    assert_eq!(advert.search, ["example.org", "lan"]);
    assert_eq!(advert.autonomous().collect::<Vec<_>>(), ["fd00:5::/64".parse().unwrap()]);
}

#[test]
fn flags_and_prefixes_decide() {
    let advert = parse(
        0x40,
        &[
            &prefix("2001:db8::/64", 0xc0, 100, 50),
            &prefix("fd00::/48", 0xc0, 100, 50),
            &prefix("fd01::/64", 0x80, 100, 50),
            &prefix("fd02::/64", 0x40, 0, 0),
            &prefix("fd03::/64", 0xc0, 50, 100),
            &prefix("fe80::/64", 0xc0, 100, 50),
            &prefix("ff00::/8", 0xc0, 100, 50),
            &prefix("::/0", 0xc0, 100, 50),
        ],
    );
    let advert = advert.unwrap();
    assert!(advert.other && !advert.managed);
    assert_eq!(advert.prefixes.len(), 4);
    assert_eq!(advert.autonomous().collect::<Vec<_>>(), ["2001:db8::/64".parse().unwrap()]);
    let with_prefix = |address: &str| advert.with_prefix(address.parse().unwrap()).to_string();
    assert_eq!(with_prefix("2001:db8::7"), "2001:db8::7/64");
    assert_eq!(with_prefix("fd00:0:0:9::7"), "fd00:0:0:9::7/48");
    assert_eq!(with_prefix("fd02::7"), "fd02::7/128", "not on the link");
}

#[test]
fn lifetimes_of_zero_withdraw() {
    let mut silent = message(0, &[]);
    silent[6..8].copy_from_slice(&[0, 0]);
    assert_eq!(Advert::parse(ROUTER, &silent).unwrap().router, None);
    let server = |lifetime: u8| [&[25, 3, 0, 0, 0, 0, 0, lifetime][..], &[0xfd; 16]].concat();
    assert_eq!(parse(0, &[&server(0)]).unwrap().dns_servers.len(), 0);
    assert_eq!(parse(0, &[&server(1)]).unwrap().dns_servers.len(), 1);
    let domain = |lifetime: u8| [&[31, 2, 0, 0, 0, 0, 0, lifetime][..], b"\x03lan\0\0\0\0"].concat();
    assert_eq!(parse(0, &[&domain(0)]).unwrap().search.len(), 0);
    assert_eq!(parse(0, &[&domain(1)]).unwrap().search, ["lan"]);
    assert_eq!(parse(0, &[&[5, 1, 0, 0, 0, 0, 4, 0]]).unwrap().mtu, None, "too small for IPv6");
}

#[test]
fn what_is_broken_is_not_taken_at_all() {
    let good = message(0, &[&prefix("2001:db8::/64", 0xc0, 100, 50)]);
    assert!(Advert::parse(ROUTER, &good).is_some());
    assert_eq!(Advert::parse("2001:db8::1".parse().unwrap(), &good), None, "not a neighbour");
    for len in 0..16 {
        assert_eq!(Advert::parse(ROUTER, &good[..len]), None);
    }
    for (at, value, what) in [(0, 133, "type"), (1, 1, "code"), (17, 0, "no length"), (17, 5, "over the end")]
    {
        let mut bad = good.clone();
        bad[at] = value;
        assert_eq!(Advert::parse(ROUTER, &bad), None, "{what}");
    }
    assert_eq!(Advert::parse(ROUTER, &[&good[..], &[1]].concat()), None, "half an option");
    let mut long = good;
    long[18] = 129;
    assert!(Advert::parse(ROUTER, &long).unwrap().prefixes.is_empty(), "a prefix of 129 bits");
}

#[test]
fn several_routers_are_one_link() {
    let mut first = parse(0, &[&prefix("2001:db8::/64", 0xc0, 100, 50)]).unwrap();
    let second =
        parse(0x80, &[&prefix("fd00::/64", 0xc0, 9, 9), &prefix("2001:db8::/64", 0xc0, 100, 50)]).unwrap();
    first.join(second.clone());
    first.join(second);
    assert!(first.managed);
    assert_eq!(first.prefixes.len(), 2);
}

proptest! {
    #[test]
    fn any_bytes_are_borne(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        fuzz(&bytes);
    }
}
