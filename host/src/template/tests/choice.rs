//! Which interface, which addresses, which gateway: by what the host has and by what is wished.

use super::dump::{Dump, RouteText};
use crate::template::{ChooseError, Side, Template, Wish, Wishes};
use ipnet::IpNet;

/// A family of a template as `eth0 10.0.0.2/24 via 10.0.0.1`.
fn told(side: Option<&Side>) -> String {
    let Some(side) = side else { return "not wanted".to_owned() };
    let name = side.interface.as_ref().map_or("local", |link| &link.name);
    let addresses: Vec<String> = side.addresses.iter().map(IpNet::to_string).collect();
    let gateway = side.gateway.map_or_else(|| "none".to_owned(), |gateway| gateway.to_string());
    format!("{name} {} via {gateway}", addresses.join(","))
}

fn v4(dump: &Dump) -> String {
    told(dump.template(&Wishes::default()).v4.as_ref())
}

fn v6(dump: &Dump) -> String {
    told(dump.template(&Wishes::default()).v6.as_ref())
}

fn usual() -> Dump {
    Dump::links(&["eth0", "eth1"])
        .address("lo", "127.0.0.1/8")
        .address("eth0", "10.0.0.2/24")
        .address("eth1", "10.1.0.2/24")
}

const LOCAL: &str = "local 169.254.2.1/16 via 169.254.2.2";
const LOCAL6: &str = "local  via fe80::1";

#[test]
fn the_first_default_route_of_the_main_table_says_which() {
    let both = [("10.1.0.1", "eth1", 0), ("10.0.0.1", "eth0", 0)];
    let dead = [("10.1.0.1", "eth1", 1), ("10.0.0.1", "eth0", 0)];
    let route = |to| RouteText::new(2, to);
    let eth0 = "eth0 10.0.0.2/24 via 10.0.0.1";
    let eth1 = "eth1 10.1.0.2/24 via 10.1.0.1";
    let rows = [
        ("one", usual().via("default", Some("10.0.0.1"), "eth0"), eth0),
        (
            "the first of two",
            usual().via("default", Some("10.1.0.1"), "eth1").via("default", Some("10.0.0.1"), "eth0"),
            eth1,
        ),
        ("the first next hop", usual().route(route("default").multipath(&both)), eth1),
        ("the first that works", usual().route(route("default").multipath(&dead)), eth0),
        ("not loopback", usual().via("default", None, "lo").via("default", Some("10.0.0.1"), "eth0"), eth0),
        (
            "not another table",
            usual().route(route("default").gateway("10.1.0.1").interface("eth1").table(100)).via(
                "default",
                Some("10.0.0.1"),
                "eth0",
            ),
            eth0,
        ),
        (
            "a default route behind others",
            usual().via("10.1.0.0/24", None, "eth1").via("default", Some("10.0.0.1"), "eth0"),
            eth0,
        ),
        ("no default route", usual().via("10.1.0.0/24", None, "eth1"), "eth1 10.1.0.2/24 via none"),
        ("on the link alone", usual().via("169.254.0.0/16", None, "eth1"), LOCAL),
        ("nothing", usual(), LOCAL),
        ("an interface that has gone", usual().via("default", Some("10.7.0.1"), "eth7"), LOCAL),
        (
            "one without an address is passed over",
            Dump::links(&["eth0", "eth1"]).address("eth1", "10.1.0.2/24").via("default", None, "eth0").via(
                "default",
                Some("10.1.0.1"),
                "eth1",
            ),
            eth1,
        ),
        (
            "a route that leads nowhere",
            usual().route({
                let mut blackhole = route("default").interface("eth0");
                blackhole.head[7] = 6;
                blackhole
            }),
            LOCAL,
        ),
    ];
    for (name, dump, expected) in rows {
        assert_eq!(v4(&dump), expected, "{name}");
    }
}

#[test]
fn a_tunnel_without_mac_and_gateway_is_a_template() {
    let dump = Dump::links(&["tun0"]).address("tun0", "10.8.0.6/32").via("default", None, "tun0");
    let template = dump.template(&Wishes::default());
    assert_eq!(told(template.v4.as_ref()), "tun0 10.8.0.6/32 via none");
    assert_eq!(template.v4.as_ref().unwrap().interface.as_ref().unwrap().mac, None);
    assert_eq!(template.ifname(), "tun0");
    let via6 = RouteText::new(2, "default").interface("eth0").bytes(18, &{
        let mut via = vec![10, 0];
        via.extend(super::dump::octets("fe80::9".parse().unwrap()));
        via
    });
    assert_eq!(v4(&usual().route(via6)), "eth0 10.0.0.2/24 via none", "a gateway of the other family");
}

#[test]
fn the_longest_prefix_that_is_of_use_comes_first() {
    let dump = Dump::links(&["eth0"])
        .address("eth0", "169.254.9.9/32")
        .address("eth0", "10.0.0.2/24")
        .address_with("eth0", "10.0.0.3/32", 0, 0xa0)
        .address_with("eth0", "10.0.0.4/32", 0, 0x88)
        .address_with("eth0", "10.0.0.5/32", 254, 0x80)
        .address("eth0", "10.2.0.2/28")
        .address("eth0", "10.3.0.2/28")
        .address("eth0", "fe80::5/64")
        .address("eth0", "2001:db8::1/64")
        .address("eth0", "2001:db8::2/128")
        .via("default", Some("10.0.0.1"), "eth0")
        .via("default", Some("fe80::9"), "eth0");
    assert_eq!(v4(&dump), "eth0 10.2.0.2/28,10.0.0.2/24,10.3.0.2/28 via 10.0.0.1");
    assert_eq!(v6(&dump), "eth0 2001:db8::2/128,2001:db8::1/64 via fe80::9");
    let template = dump.template(&Wishes::default());
    assert_eq!(template.v6.unwrap().link_local, Some("fe80::5".parse().unwrap()), "its own is ours");
    let bare =
        Dump::links(&["tun0"]).address("tun0", "2001:db8::1/64").via("default", Some("2001:db8::9"), "tun0");
    let template = bare.template(&Wishes::default());
    assert_eq!(template.v6.unwrap().link_local, Some("fe80::1".parse().unwrap()), "it has none");
}

#[test]
fn without_an_interface_there_is_local_mode() {
    let template = Dump::links(&[]).template(&Wishes::default());
    assert_eq!(
        (told(template.v4.as_ref()), told(template.v6.as_ref())),
        (LOCAL.to_owned(), LOCAL6.to_owned())
    );
    assert_eq!(template.ifname(), "tap0");
    let infos: Vec<_> = template.infos().collect();
    assert_eq!(
        infos,
        [
            "IPv4: no external interface as template, use local mode",
            "IPv6: no external interface as template, use local mode",
        ]
    );
    let one = usual().via("default", Some("10.0.0.1"), "eth0").template(&Wishes::default());
    assert_eq!(one.infos().collect::<Vec<_>>(), ["IPv6: no external interface as template, use local mode"]);
    assert_eq!(one.ifname(), "eth0");
    // An address of the link alone is none that IPv6 could be like.
    let dump = Dump::links(&["eth0"]).address("eth0", "fe80::5/64").via("default", Some("fe80::9"), "eth0");
    assert_eq!(v6(&dump), LOCAL6);
    let only4 = Dump::links(&[]).template(&Wishes { v6: None, ..Wishes::default() });
    assert_eq!(told(only4.v6.as_ref()), "not wanted");
    assert_eq!(only4.infos().count(), 1);
}

#[test]
fn what_is_wished_counts() {
    let host = usual()
        .address("eth0", "10.0.0.9/24")
        .address("eth0", "2001:db8::1/64")
        .via("default", Some("10.0.0.1"), "eth0")
        .via("10.1.0.0/24", None, "eth1")
        .via("default", Some("fe80::9"), "eth0");
    let wish = |address: &str, prefix, gateway: &str| Wish {
        address: address.parse().ok(),
        prefix,
        gateway: gateway.parse().ok(),
        ..Wish::default()
    };
    let all = Wishes::default;
    let out = |name: &str| Some(Wish { outbound: Some(name.to_owned()), ..Wish::default() });
    let rows = [
        ("-a", Wishes { v4: Some(wish("10.9.9.9", None, "")), ..all() }, "eth0 10.9.9.9/8 via 10.0.0.1"),
        (
            "-a, class B",
            Wishes { v4: Some(wish("172.16.9.9", None, "")), ..all() },
            "eth0 172.16.9.9/16 via 10.0.0.1",
        ),
        (
            "-a, class C",
            Wishes { v4: Some(wish("192.0.2.9", None, "")), ..all() },
            "eth0 192.0.2.9/24 via 10.0.0.1",
        ),
        (
            "-a -n",
            Wishes { v4: Some(wish("10.9.9.9", Some(24), "")), ..all() },
            "eth0 10.9.9.9/24 via 10.0.0.1",
        ),
        (
            "-a -g",
            Wishes { v4: Some(wish("10.9.9.9", Some(24), "10.9.9.1")), ..all() },
            "eth0 10.9.9.9/24 via 10.9.9.1",
        ),
        (
            "-n",
            Wishes { v4: Some(wish("", Some(16), "")), ..all() },
            "eth0 10.0.0.2/16,10.0.0.9/24 via 10.0.0.1",
        ),
        (
            "-g",
            Wishes { v4: Some(wish("", None, "10.0.0.7")), ..all() },
            "eth0 10.0.0.2/24,10.0.0.9/24 via 10.0.0.7",
        ),
        ("-i", Wishes { interface: Some("eth1".to_owned()), ..all() }, "eth1 10.1.0.2/24 via none"),
        ("--outbound-if4", Wishes { v4: out("eth1"), ..all() }, "eth1 10.1.0.2/24 via none"),
        (
            "-i before --outbound-if4",
            Wishes { interface: Some("eth0".to_owned()), v4: out("eth1"), ..all() },
            "eth0 10.0.0.2/24,10.0.0.9/24 via 10.0.0.1",
        ),
        (
            "--no-copy-addrs",
            Wishes { v4: Some(Wish { copy_addresses: false, ..Wish::default() }), ..all() },
            "eth0 10.0.0.2/24 via 10.0.0.1",
        ),
    ];
    for (name, wishes, expected) in rows {
        assert_eq!(told(host.template(&wishes).v4.as_ref()), expected, "{name}");
    }
    let v6 = |address: &str, prefix, gateway: &str| Wish {
        address: address.parse().ok(),
        prefix,
        gateway: gateway.parse().ok(),
        ..Wish::default()
    };
    let wishes = Wishes { v6: Some(v6("fc00::3", Some(48), "fc00::1")), ..all() };
    assert_eq!(told(host.template(&wishes).v6.as_ref()), "eth0 fc00::3/64 via fc00::1");
    // A host without IPv6: Podman's rootless namespace wants it all the same.
    let wanted = usual().template(&wishes);
    assert_eq!(told(wanted.v6.as_ref()), "local fc00::3/64 via fc00::1");
    assert_eq!(host.template(&Wishes { ifname: Some("net7".to_owned()), ..all() }).ifname(), "net7");
}

#[test]
fn an_interface_that_is_named_must_be_there() {
    let host = usual().via("default", Some("10.0.0.1"), "eth0");
    let choose = |wishes: Wishes| Template::choose(&host.snapshot(), &wishes);
    let named = Wishes { interface: Some("eth9".to_owned()), ..Wishes::default() };
    let error = choose(named).unwrap_err();
    assert_eq!(error, ChooseError::Unknown("eth9".to_owned()));
    assert_eq!(error.to_string(), "Invalid interface name eth9: No such device");
    let out = |name: &str| Wish { outbound: Some(name.to_owned()), ..Wish::default() };
    let error = choose(Wishes { v4: Some(out("eth9")), ..Wishes::default() }).unwrap_err();
    assert_eq!(error.to_string(), "External interface not usable");
    let out6 = Wish { outbound: Some("eth0".to_owned()), ..Wish::default() };
    assert_eq!(
        choose(Wishes { v6: Some(out6), ..Wishes::default() }),
        Err(ChooseError::Outbound),
        "no IPv6 there"
    );
}
