//! Plans as text.

use super::bridge::{Bridge, Found, Leaving};
use super::child::Child;
use super::*;
use crate::spec::{Compat, Ipam};
use crate::testing::options;
use insta::assert_snapshot;
use slipway_host::netlink::Interface;

const TWO: &str = r#","subnets":[{"subnet":"10.88.0.0/16","gateway":"10.88.0.1"},{"subnet":"fd10:88::/64","gateway":"fd10:88::1"}],
    "routes":[{"destination":"10.99.0.0/24","route_type":"blackhole"},{"destination":"10.98.0.0/24","gateway":"10.88.0.9","metric":7}]"#;

fn ipam(ips: &str, rest: &str) -> Ipam {
    let options = options("bridge", ips, rest, "");
    let (_, per_network) = &options.networks.list[0];
    Ipam::of(options.network("net1").unwrap(), per_network, Compat::Two).unwrap()
}

fn bridge() -> Bridge<'static> {
    Bridge {
        name: "podman1",
        managed: true,
        internal: false,
        mtu: None,
        vlan: None,
        vrf: None,
        metric: 100,
        default_route: true,
        publishes: false,
        port: "",
        inside: "eth0",
        mac: None,
        ipam: ipam(r#""10.88.0.2","fd10:88::2""#, TWO),
    }
}

fn there(vlan_filtering: bool) -> Found {
    let bridge =
        Interface { name: "podman1".to_owned(), mtu: 9000, vlan_filtering, up: true, ..Interface::default() };
    let addresses = ["10.88.0.1/16", "fd10:88::1/64", "fe80::1/64"].map(|net| net.parse().unwrap()).into();
    Found { bridge: Some(bridge), addresses, rules: true, ..Found::default() }
}

#[test]
fn the_first_container_of_a_network() {
    let found = Found { mtu: Some(1400), sysctl_files: true, rules: true, ..Found::default() };
    assert_snapshot!(text(&bridge().setup(&found)));
    // Without rules nobody closes the loopback.
    let without = text(&bridge().setup(&Found { rules: false, ..found }));
    assert!(!without.contains("route_localnet") && without.contains("ip_forward"), "{without}");
}

#[test]
fn another_container_of_the_network() {
    assert_snapshot!(text(&bridge().setup(&there(false))));
}

#[test]
fn a_bridge_that_is_not_what_its_definition_says() {
    let on_bridge = |found: &Found| -> Vec<String> {
        let lines = text(&bridge().setup(found));
        lines
            .lines()
            .filter(|line| line.contains(" BRIDGE") && line.contains("ip "))
            .map(str::to_owned)
            .collect()
    };
    // What it was made as does not say what its definition is now.
    let settings = |bridge: &Bridge<'_>| {
        let lines = text(&bridge.setup(&there(false)));
        lines.lines().filter(|line| line.contains("conf/BRIDGE/forwarding=")).map(str::to_owned).collect()
    };
    let as_wished =
        |value| ["v4", "v6"].map(|ip| format!("host       sysctl net/ip{ip}/conf/BRIDGE/forwarding={value}"));
    let (open, internal): (Vec<_>, Vec<_>) =
        (settings(&bridge()), settings(&Bridge { internal: true, ..bridge() }));
    assert_eq!((&open[..], &internal[..]), (&as_wished(1)[..], &as_wished(0)[..]));
    assert_eq!(
        on_bridge(&there(false)),
        ["host       ip link add veth# master BRIDGE type veth peer eth0 netns CONTAINER mtu 9000"]
    );
    let mut found = there(false);
    found.addresses = vec!["10.77.0.1/16".parse().unwrap(), "fd10:88::1/48".parse().unwrap()];
    assert_eq!(on_bridge(&found)[0], "host       ip addr add 10.88.0.1/16 dev BRIDGE");
    found.bridge.as_mut().unwrap().up = false;
    found.addresses.clear();
    assert_eq!(
        on_bridge(&found)[..3],
        [
            "host       ip addr add 10.88.0.1/16 dev BRIDGE",
            "host       ip addr add fd10:88::1/64 dev BRIDGE",
            "host       ip link set BRIDGE up"
        ]
    );
    assert!(text(&bridge().setup(&found)).contains("sysctl net/ipv6/conf/all/forwarding=1"));
    assert!(!text(&Bridge { managed: false, ..bridge() }.setup(&found)).contains("BRIDGE up"));
}

#[test]
fn everything_that_can_be_asked_for() {
    let asked = Bridge {
        internal: true,
        mtu: Some(1300),
        vlan: Some(42),
        vrf: Some("blue"),
        port: "my-veth",
        mac: Some(MacAddr([2, 0, 0, 0, 0, 1])),
        ..bridge()
    };
    assert_snapshot!("everything_new", text(&asked.setup(&Found { vrf: Some(5), ..Found::default() })));
    assert_snapshot!("everything_there", text(&asked.setup(&there(false))));
    let settings = |found: &Found| {
        let plan = asked.setup(found);
        plan.iter().filter(|op| matches!(op, Op::Change { change: Change::VlanFiltering, .. })).count()
    };
    assert_eq!((settings(&there(false)), settings(&there(true))), (1, 0));
}

#[test]
fn a_container_may_use_its_own_published_ports() {
    let lines = |publishes| {
        let plan = text(&Bridge { publishes, ..bridge() }.setup(&there(false)));
        plan.lines().filter(|line| line.contains("hairpin")).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(lines(true), ["host       bridge link set dev PORT hairpin on"]);
    assert_eq!(lines(false), [""; 0]);
}

#[test]
fn a_bridge_of_somebody_else() {
    let theirs = Bridge { managed: false, default_route: false, ..bridge() };
    assert_snapshot!(text(&theirs.setup(&there(false))));
}

#[test]
fn without_addresses() {
    let bare = Bridge { ipam: ipam("", r#","ipam_options":{"driver":"none"}"#), ..bridge() };
    assert_snapshot!(text(&bare.setup(&Found::default())));
}

#[test]
fn the_metric_of_a_network_is_that_of_its_default_routes() {
    let slow = Bridge { metric: 200, ..bridge() };
    let routes = |plan: &[Op]| {
        let lines = text(plan);
        lines.lines().filter(|line| line.contains(" route ")).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(
        routes(&slow.setup(&there(false))),
        [
            "container  ip route add 0.0.0.0/0 via 10.88.0.1 metric 200",
            "container  ip route add ::/0 via fd10:88::1 metric 200",
            "container  ip route add blackhole 10.99.0.0/24 metric 100",
            "container  ip route add 10.98.0.0/24 via 10.88.0.9 metric 7",
        ]
    );
    assert_eq!(slow.forget_routes(), bridge().forget_routes());
}

#[test]
fn what_teardown_deletes() {
    let of = |inside, port, complete| {
        text(&bridge().teardown(Leaving { inside, port, complete, orphaned: false }))
    };
    assert_snapshot!(text(&bridge().forget_routes()), @r"
    container  ip route del blackhole 10.99.0.0/24 metric 100
    container  ip route del 10.98.0.0/24 via 10.88.0.9 metric 7
    ");
    assert_snapshot!(of(true, true, false), @"host       ip link del PORT");
    assert_snapshot!(of(true, true, true), @r"
    host       rm /run/sysctl.d/10-netavark-podman1.conf
    host       ip link del PORT BRIDGE
    ");
    assert_snapshot!(of(true, false, true), @r"
    container  ip link del INSIDE
    host       rm /run/sysctl.d/10-netavark-podman1.conf
    host       ip link del BRIDGE
    ");
    assert_eq!(of(false, false, false), "");
}

#[test]
fn children() {
    let mut child = Child {
        kind: ChildKind::Macvlan { mode: MacvlanMode::Vepa, broadcast_cutoff: Some(3) },
        inside: "eth0",
        mtu: Some(1400),
        mac: Some(MacAddr([2, 0, 0, 0, 0, 1])),
        metric: 99,
        default_route: true,
        ipam: ipam(r#""10.88.0.2","fd10:88::2""#, TWO),
    };
    assert_snapshot!("macvlan", text(&child.setup(3)));
    child.kind = ChildKind::Ipvlan(IpvlanMode::L3s);
    child.mac = None;
    child.default_route = false;
    assert_snapshot!("ipvlan", text(&child.setup(3)));
    assert_snapshot!("teardown_of_a_child", text(&child.teardown()));
}

#[test]
fn ipv6_from_the_network_itself() {
    let dhcp = |ipv6: bool| Ipam { ipv6, ..ipam("", r#","ipam_options":{"driver":"dhcp"}"#) };
    let child = |ipv6: bool| Child {
        kind: ChildKind::Macvlan { mode: MacvlanMode::Bridge, broadcast_cutoff: None },
        inside: "eth0",
        mtu: None,
        mac: None,
        metric: 99,
        default_route: !ipv6,
        ipam: dhcp(ipv6),
    };
    assert_snapshot!(text(&child(true).setup(3)), @r"
    host       ip link add eth0 link #3 netns CONTAINER type macvlan mode bridge
    container  sysctl net/ipv6/conf/INSIDE/accept_ra=2 (if it can be set)
    container  sysctl net/ipv6/conf/INSIDE/autoconf=1 (if it can be set)
    container  sysctl net/ipv6/conf/INSIDE/accept_ra_defrtr=0 (if it can be set)
    container  sysctl net/ipv6/conf/INSIDE/ra_defrtr_metric=99 (if it can be set)
    container  sysctl net/ipv6/conf/INSIDE/optimistic_dad=1 (if it can be set)
    container  sysctl net/ipv6/conf/INSIDE/use_optimistic=1 (if it can be set)
    container  sysctl net/ipv6/conf/INSIDE/ndisc_notify=1 (if it can be set)
    container  ip link set INSIDE up
    ");
    assert_snapshot!(text(&child(false).setup(3)), @r"
    host       ip link add eth0 link #3 netns CONTAINER type macvlan mode bridge
    container  sysctl net/ipv6/conf/INSIDE/autoconf=0 (if it can be set)
    container  sysctl net/ipv6/conf/INSIDE/ndisc_notify=1 (if it can be set)
    container  ip link set INSIDE up
    ");
    let theirs = |ipv6| Bridge { managed: false, metric: 7, ipam: dhcp(ipv6), ..bridge() };
    let settings = |plan: Vec<Op>| text(&plan).lines().filter(|line| line.contains("sysctl")).count();
    assert_eq!(
        (settings(theirs(true).setup(&there(false))), settings(theirs(false).setup(&there(false)))),
        (7, 1)
    );
    assert!(text(&theirs(true).setup(&there(false))).contains("accept_ra_defrtr=1"));
}
