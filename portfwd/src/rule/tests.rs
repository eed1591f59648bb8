use super::*;
use core::net::{Ipv4Addr, Ipv6Addr};
use proptest::prelude::*;
use slipway_host::scope::Zone;

fn parse(text: &str) -> Rule {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn zoned(text: &str) -> ZonedAddr {
    text.parse().unwrap()
}

fn refusal(text: &str) -> String {
    text.parse::<Rule>().expect_err(text).to_string()
}

fn first_pair(rule: Rule) -> (u16, u16) {
    rule.ports().pairs().next().map(|(listen, target)| (listen, target.get())).unwrap()
}

#[test]
fn the_common_forms() {
    let rule = parse("8080:80");
    assert_eq!((rule.proto(), rule.listen(), rule.target()), (Proto::Tcp, None, None));
    assert_eq!(first_pair(rule), (8080, 80));
    assert_eq!(first_pair(parse("80")), (0, 80));
    assert_eq!(first_pair(parse("0:80")), (0, 80));
    assert_eq!(first_pair(parse(":80")), (0, 80));
    assert_eq!(parse("127.0.0.1::80").listen(), Some(zoned("127.0.0.1")));
    assert_eq!(parse("[::1]:8080:80/tcp").listen(), Some(zoned("::1")));
    assert_eq!(parse("53:53/UDP").proto(), Proto::Udp);
    assert_eq!(parse("[::ffff:127.0.0.1]:1:2").listen(), Some(zoned("127.0.0.1")));
}

#[test]
fn ranges_keep_their_offset() {
    let rule = parse("8000-8010:9000-9010/udp");
    let pairs: Vec<_> = rule.ports().pairs().map(|(a, b)| (a, b.get())).collect();
    assert_eq!(pairs.len(), 11);
    assert_eq!(pairs.first(), Some(&(8000, 9000)));
    assert_eq!(pairs.last(), Some(&(8010, 9010)));
    let chosen: Vec<_> = parse("9000-9001").ports().pairs().map(|(a, b)| (a, b.get())).collect();
    assert_eq!(chosen, [(0, 9000), (0, 9001)]);
    assert_eq!(parse("1-65535:1-65535").ports().pairs().count(), 65535);
}

#[test]
fn another_guest_address_goes_before_the_guest_port() {
    let rule = parse("8080:10.0.2.7:80");
    assert_eq!((rule.listen(), rule.target()), (None, Some("10.0.2.7".parse().unwrap())));
    let rule = parse("[::1]::[fd00::7]:80");
    assert_eq!(rule.listen(), Some(zoned("::1")));
    assert_eq!(rule.target(), Some("fd00::7".parse().unwrap()));
}

#[test]
fn a_link_local_address_is_listened_on_with_its_interface() {
    let rule = parse("[fe80::1%eth0]:8080:80");
    assert_eq!(rule.listen(), Some(zoned("fe80::1%eth0")));
    assert_eq!(rule.to_string(), "[fe80::1%eth0]:8080:80/tcp");
    // On the guest's side there is one link.
    assert_eq!(parse("8080:[fe80::5]:80").to_string(), "8080:[fe80::5]:80/tcp");
}

#[test]
fn refusals_say_what_was_expected() {
    for (text, expected) in [
        ("", "expected [IP:][HOSTPORT:]PORT"),
        ("8080:", "expected [IP:][HOSTPORT:]PORT"),
        ("1:2:3:4:5", "expected [IP:][HOSTPORT:]PORT"),
        ("::1:8080:80", "in brackets"),
        ("[::1]8080:80", "in brackets"),
        ("[::1:8080:80", "in brackets"),
        ("[::1%eth0]:8080:80", "only link-local"),
        ("[fe80::1%]:8080:80", "not the name of an interface"),
        ("[fe80::1]:8080:80", "write it as fe80::1%eth0"),
        ("[1.2.3.4]:8080:80", "not an IP address"),
        ("[1.2.3.4%eth0]:8080:80", "only link-local"),
        ("8080:[fe80::1%eth0]:80", "an address of the guest has no interface"),
        ("127.0.0.1:80", "write 127.0.0.1::80"),
        ("[::1]:80", "write [::1]::80"),
        ("300.0.0.1:1:2", "not an IP address"),
        ("localhost:1:2", "not a port"),
        ("8080:0", "from 1 to 65535"),
        ("8080:+80", "not a port"),
        ("8080:65536", "from 1 to 65535"),
        ("8080:80-", "not a port"),
        ("0-3:1-4", "not a port"),
        ("9-8:9-8", "ends before it begins"),
        ("8000-8001:80", "2 host ports cannot lead to 1"),
        ("80:80/sctp", "expected tcp or udp"),
        ("80:80/", "expected tcp or udp"),
        ("127.0.0.1:80:[fd00::1]:80", "different families"),
        ("80:224.0.0.1:80", "unicast"),
        ("80:[::]:80", "unicast"),
    ] {
        let got = refusal(text);
        assert!(got.contains(expected), "{text}: {got}");
    }
}

fn any_rule() -> impl Strategy<Value = Rule> {
    let address = prop_oneof![any::<Ipv4Addr>().prop_map(IpAddr::V4), any::<Ipv6Addr>().prop_map(IpAddr::V6)];
    let link_local = (any::<u64>(), "[a-z0-9.@-]{1,15}").prop_filter_map("a zone", |(low, zone)| {
        ZonedAddr::link_local(Ipv6Addr::from_bits(0xfe80 << 112 | u128::from(low)), Zone::new(&zone)?)
    });
    let plain = address.clone().prop_map(ZonedAddr::from);
    let listen = proptest::option::of(prop_oneof![3 => plain, 1 => link_local]);
    let target = proptest::option::of(address);
    let port = (1..=u16::MAX).prop_filter_map("not 0", NonZeroU16::new);
    let ports = (proptest::option::of(port.clone()), port.clone(), port);
    let proto = prop_oneof![Just(Proto::Tcp), Just(Proto::Udp)];
    (proto, listen, ports, target).prop_filter_map(
        "valid",
        |(proto, listen, (host, guest, count), target)| {
            let count = NonZeroU16::new(count.get() % 64 + 1)?;
            Rule::new(proto, listen, Ports::run(host, guest, count)?, target).ok()
        },
    )
}

proptest! {
    #[test]
    fn what_is_printed_parses_to_the_same_rule(rule in any_rule()) {
        let text = rule.to_string();
        prop_assert_eq!(text.parse::<Rule>(), Ok(rule), "{}", text);
    }

    #[test]
    fn whatever_parses_prints_canonically(text in "[0-9a-f:\\[\\].\\-/tcpud*%]{0,24}") {
        if let Ok(rule) = text.parse::<Rule>() {
            prop_assert_eq!(rule.to_string().parse::<Rule>(), Ok(rule));
        }
    }

    #[test]
    fn no_text_panics(text in any::<String>()) {
        let _ = text.parse::<Rule>().map_err(|error| error.to_string());
    }
}
