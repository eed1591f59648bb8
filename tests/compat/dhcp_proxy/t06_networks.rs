//! A container engine's request for a network whose addresses come from the network itself, from setup to teardown.

use serde_json::{Value, json};
use slipway_lab::Namespace;

use crate::fixture;
use crate::place::{MAC, Place};

const RA: &str = "--enable-ra";
const RANGE: &str = "--dhcp-range=fd00:5::50,fd00:5::50,slaac,64,2m";
const DNS: &str = "--dhcp-option=option6:dns-server,[fd00:5::53]";
const SEARCH: &str = "--dhcp-option=option6:domain-search,example.org";

fn network(driver: &str, link: &str, ipv6: bool) -> Value {
    let mode = if driver == "bridge" { "unmanaged" } else { "bridge" };
    json!({
        "name": "lan", "id": "6c616e", "driver": driver, "network_interface": link, "ipv6_enabled": ipv6,
        "internal": false, "dns_enabled": false, "options": {"mode": mode}, "ipam_options": {"driver": "dhcp"},
    })
}

/// A container that is on no network yet. The one that the place has makes way, for there is one MAC address.
fn newcomer(place: &Place) -> Namespace {
    place.in_container("ip link set eth0 down");
    place.machine.namespace().unwrap()
}

fn out(container: &Namespace, script: &str) -> String {
    let output = container.sh(script).unwrap();
    assert!(output.success(), "{script}: {output}");
    output.out()
}

/// Sets up; gives the part about the network and what was said besides.
fn setup(place: &Place, container: &Namespace, network: &Value) -> (Value, String) {
    let output = place.netavark("setup", container, network);
    assert!(output.success(), "{output}");
    let answer: Value = serde_json::from_str(&output.out()).unwrap();
    (answer["lan"].clone(), output.err())
}

fn nets(block: &Value) -> Vec<&str> {
    let subnets = block["interfaces"]["eth0"]["subnets"].as_array().unwrap();
    subnets.iter().map(|subnet| subnet["ipnet"].as_str().unwrap()).collect()
}

/// What both drivers have in common.
fn joins(place: &Place, driver: &str, link: &str) {
    place.world_with_ipv6(&["fd00:5::1/64"]);
    let _server = place.server("198.51.100.50", &[RA, RANGE, DNS, SEARCH]);
    let _proxy = place.proxy(&[]);
    let container = newcomer(place);
    let lan = network(driver, link, true);
    let (block, said) = setup(place, &container, &lan);
    assert_eq!(said, "");
    assert_eq!(nets(&block), ["198.51.100.50/24", "fd00:5::50/64", "fd00:5::ff:fe00:7/64"], "{block}");
    let subnets = &block["interfaces"]["eth0"]["subnets"];
    assert_eq!(subnets[0]["gateway"], json!("198.51.100.1"));
    let router = subnets[1]["gateway"].as_str().unwrap();
    assert!(router.starts_with("fe80:"), "{block}");
    assert_eq!(block["dns_server_ips"], json!(["198.51.100.1", "fd00:5::53"]));
    assert_eq!(block["dns_search_domains"], json!(["example.org"]));
    let shown = out(&container, "ip -6 address show dev eth0 scope global");
    assert!(shown.contains("fd00:5::50/64") && shown.contains("fd00:5::ff:fe00:7/64"), "{shown}");
    let routes = out(&container, "ip -6 route show default");
    assert!(routes.contains(&format!("via {router} dev eth0 proto ra metric 100")), "{routes}");
    let ping = container.sh("ping -6 -c 1 -W 5 fd00:5::1").unwrap();
    assert!(ping.success(), "{ping}");
    assert_eq!(place.cache()[MAC].as_array().unwrap().len(), 2);

    let output = place.netavark("teardown", &container, &lan);
    assert!(output.success() && output.err().is_empty(), "{output}");
    assert_eq!(place.cache(), json!({}));
    let leased = || std::fs::read_to_string(place.server_leases()).unwrap_or_default();
    Place::until("the server hears of both", || !leased().contains(" box "));
}

#[test]
fn t06_a_bridge_with_ipv6() {
    let place = fixture!("t06_a_bridge_with_ipv6");
    joins(&place, "bridge", "br0");
}

/// The host's end of another port of the bridge, for children to ride on; whether the kernel has them.
fn parent(place: &Place, test: &str) -> bool {
    place
        .sh("ip link add lan0 type veth peer name lan1; ip link set lan1 master br0 up; ip link set lan0 up");
    let made =
        place.machine.sh("ip link add probe0 link lan0 type macvlan mode bridge && ip link delete probe0");
    let made = made.is_ok_and(|made| made.success());
    if !made {
        println!("SKIP {test}: this kernel has no macvlan");
    }
    made
}

#[test]
fn t06_a_macvlan_with_ipv6() {
    let place = fixture!("t06_a_macvlan_with_ipv6");
    if parent(&place, "t06_a_macvlan_with_ipv6") {
        joins(&place, "macvlan", "lan0");
    }
}

#[test]
fn t06_a_network_that_does_not_ask_for_ipv6_gets_none() {
    let place = fixture!("t06_a_network_that_does_not_ask_for_ipv6_gets_none");
    if !parent(&place, "t06_a_network_that_does_not_ask_for_ipv6_gets_none") {
        return;
    }
    place.world_with_ipv6(&["fd00:5::1/64"]);
    let server = place.server("198.51.100.50", &[RA, RANGE, DNS, SEARCH]);
    let _proxy = place.proxy(&[]);
    let container = newcomer(&place);
    let (block, said) = setup(&place, &container, &network("macvlan", "lan0", false));
    assert_eq!((nets(&block), said.as_str()), (vec!["198.51.100.50/24"], ""), "{block}");
    assert_eq!(
        (&block["dns_server_ips"], &block["dns_search_domains"]),
        (&json!(["198.51.100.1"]), &json!([]))
    );
    assert_eq!(out(&container, "cat /proc/sys/net/ipv6/conf/eth0/autoconf").trim(), "0");
    assert!(!server.stderr().contains("DHCPSOLICIT"), "{}", server.stderr());
}

#[test]
fn t06_a_network_that_leads_nowhere_has_no_router() {
    let place = fixture!("t06_a_network_that_leads_nowhere_has_no_router");
    place.world_with_ipv6(&["fd00:5::1/64"]);
    let _server = place.server("198.51.100.50", &[RA, RANGE]);
    let _proxy = place.proxy(&[]);
    let container = newcomer(&place);
    let mut lan = network("bridge", "br0", true);
    lan["options"]["no_default_route"] = json!("true");
    let (block, _) = setup(&place, &container, &lan);
    assert_eq!(block["interfaces"]["eth0"]["subnets"][1], json!({"gateway": null, "ipnet": "fd00:5::50/64"}));
    assert_eq!(out(&container, "ip -6 route show default"), "");
    assert!(place.netavark("teardown", &container, &lan).success());
    lan["options"] = json!({"mode": "unmanaged", "metric": "7"});
    setup(&place, &container, &lan);
    let routes = out(&container, "ip -6 route show default");
    assert!(
        routes.contains("metric 7 ")
            || !std::path::Path::new("/proc/sys/net/ipv6/conf/lo/ra_defrtr_metric").exists(),
        "{routes}"
    );
}

#[test]
fn t06_a_link_without_ipv6_is_told_and_borne() {
    let place = fixture!("t06_a_link_without_ipv6_is_told_and_borne");
    let _server = place.server("198.51.100.50", &[]);
    let _proxy = place.proxy(&[]);
    let container = newcomer(&place);
    let (block, said) = setup(&place, &container, &network("bridge", "br0", true));
    assert_eq!(nets(&block), ["198.51.100.50/24"]);
    assert!(
        said.contains("eth0 has no IPv6 lease: get DHCP lease: no router and no DHCPv6 server answered on br0 within 4 s"),
        "{said}"
    );
}

#[test]
fn t06_without_ipv4_everything_is_given_back() {
    let place = fixture!("t06_without_ipv4_everything_is_given_back");
    place.world_with_ipv6(&["fd00:5::1/64"]);
    // No address is free for this container.
    let _server = place.server(
        "198.51.100.50",
        &[RA, RANGE, "--dhcp-host=id:*,02:00:00:00:00:99,198.51.100.50", "--dhcp-ignore=tag:!known"],
    );
    let _proxy = place.proxy(&["-t", "2"]);
    let container = newcomer(&place);
    let output = place.netavark("setup", &container, &network("bridge", "br0", true));
    assert_eq!(output.code(), 1, "{output}");
    assert!(
        output.out().contains(
            "unable to obtain lease: get DHCP lease: no DHCP server granted an address on br0 within 2 s"
        ),
        "{output}"
    );
    assert_eq!(place.cache(), json!({}));
    assert!(!container.sh("ip link show eth0").unwrap().success(), "nothing remains");
}

/// The default routes of a container, without what the kernel adds.
fn defaults(container: &Namespace) -> Vec<String> {
    let shown = out(container, "ip -4 route show default");
    shown.lines().map(|line| line.trim().replace(" proto static", "")).collect()
}

#[test]
fn t06_the_network_says_what_becomes_of_the_default_route() {
    let place = fixture!("t06_the_network_says_what_becomes_of_the_default_route");
    let _server = place.server("198.51.100.50", &[]);
    let _proxy = place.proxy(&[]);
    let container = newcomer(&place);
    let route = |metric: &str| vec![format!("default via 198.51.100.1 dev eth0 metric {metric}")];
    for (options, internal, wanted) in [
        (json!({"mode": "unmanaged"}), false, route("100")),
        (json!({"mode": "unmanaged", "metric": "50"}), false, route("50")),
        (json!({"mode": "unmanaged", "no_default_route": "true"}), false, vec![]),
        (json!({"mode": "unmanaged", "no_default_route": "true", "metric": "50"}), false, vec![]),
        (json!({"mode": "unmanaged", "metric": "50"}), true, vec![]),
    ] {
        let mut lan = network("bridge", "br0", false);
        lan["options"] = options;
        lan["internal"] = json!(internal);
        let (block, said) = setup(&place, &container, &lan);
        assert_eq!((nets(&block), said.as_str()), (vec!["198.51.100.50/24"], ""));
        assert_eq!(defaults(&container), wanted, "{lan}");
        assert!(place.netavark("teardown", &container, &lan).success());
    }
}
