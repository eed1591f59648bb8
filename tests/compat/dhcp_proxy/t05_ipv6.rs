//! IPv6 as the network has it: addresses of a server, of the routers' prefixes, of both, or none.
//!
//! The container's interface listens to routers, as the set-up makes it.

use serde_json::json;
use std::time::Duration;

use crate::fixture;
use crate::place::{MAC, Place};
use crate::server6::{DECLINE, Grant, REBIND, RELEASE, RENEW, SOLICIT, Server};
use slipway_lab::now;

/// What the interface makes of a prefix: the MAC address turned into an identifier of 64 bits (RFC 4291 appendix A).
const IDENTIFIER: &str = "::ff:fe00:7";

/// A container whose interface listens to routers, and whose addresses can be used at once.
fn listening(place: &Place) {
    place.in_container(
        "cd /proc/sys/net/ipv6/conf/eth0; ip link set eth0 down; echo 2 > accept_ra; echo 1 > autoconf
         echo 1 > optimistic_dad; ip link set eth0 up",
    );
}

fn addresses(place: &Place) -> String {
    place.in_container("ip -6 address show dev eth0 scope global")
}

fn leased(place: &Place) -> String {
    std::fs::read_to_string(place.server_leases()).unwrap_or_default()
}

const RA: &str = "--enable-ra";
const DNS: &str = "--dhcp-option=option6:dns-server,[fd00:5::53]";
const SEARCH: &str = "--dhcp-option=option6:domain-search,example.org,lan";

#[test]
fn t05_a_server_gives_out_addresses() {
    let place = fixture!("t05_a_server_gives_out_addresses");
    place.world_with_ipv6(&["fd00:5::1/64"]);
    let server =
        place.server("198.51.100.50", &[RA, DNS, SEARCH, "--dhcp-range=fd00:5::50,fd00:5::50,64,2m"]);
    listening(&place);
    let proxy = place.proxy(&[]);
    let start = now();
    let lease = place.lease("setup", &place.request_v6());
    assert!(now() - start < Duration::from_secs(3), "{:?}", now() - start);
    for (field, value) in [
        ("yiaddr", json!("fd00:5::50")),
        ("subnet_mask", json!("ffff:ffff:ffff:ffff::")),
        ("is_v6", json!(true)),
        ("mac_address", json!(MAC)),
        ("lease_time", json!(120)),
        ("dns_servers", json!(["fd00:5::53"])),
        ("domain_name", json!("example.org lan")),
        ("siaddr", json!("")),
    ] {
        assert_eq!(lease[field], value, "{field} in {lease}");
    }
    assert!(lease["gateways"][0].as_str().unwrap().starts_with("fe80:"), "{lease}");
    assert_eq!(place.cache(), json!({ MAC: [lease.clone()] }));
    let shown = addresses(&place);
    assert!(shown.contains("fd00:5::50/64") && shown.contains("valid_lft 1"), "{shown}");
    let routes = place.in_container("ip -6 route show");
    assert!(routes.contains("default via fe80:") && routes.contains("fd00:5::/64"), "{routes}");
    let ping = place.container.sh("ping -6 -c 1 -W 5 fd00:5::1").unwrap();
    assert!(ping.success(), "{ping}");
    assert!(leased(&place).contains(" fd00:5::50 box "), "by its name: {}", leased(&place));

    assert_eq!(place.lease("teardown", &place.request_v6()), lease);
    Place::until("the server hears of it", || !leased(&place).contains("fd00:5::50"));
    assert_eq!(place.cache(), json!({}));
    assert!(!proxy.stderr().contains("WARN"), "{}\n{}", proxy.stderr(), server.stderr());
}

#[test]
fn t05_a_server_and_the_prefix_together() {
    let place = fixture!("t05_a_server_and_the_prefix_together");
    place.world_with_ipv6(&["fd00:5::1/64"]);
    let _server = place.server("198.51.100.50", &[RA, "--dhcp-range=fd00:5::50,fd00:5::50,slaac,64,2m"]);
    listening(&place);
    let _proxy = place.proxy(&[]);
    assert_eq!(place.lease("setup", &place.request_v6())["yiaddr"], "fd00:5::50");
    let shown = addresses(&place);
    assert!(shown.contains("fd00:5::50/64") && shown.contains(&format!("fd00:5{IDENTIFIER}/64")), "{shown}");
}

#[test]
fn t05_prefixes_alone_and_servers_for_names() {
    for (mode, more) in [("ra-stateless", true), ("ra-only", false)] {
        let place = fixture!("t05_prefixes_alone_and_servers_for_names");
        place.world_with_ipv6(&["fd00:5::1/64", "2001:db8:5::1/64"]);
        let [first, second] =
            ["fd00:5::", "2001:db8:5::"].map(|prefix| format!("--dhcp-range={prefix},{mode},64,2m"));
        let server = place.server("198.51.100.50", &[RA, DNS, &first, &second]);
        listening(&place);
        let _proxy = place.proxy(&[]);
        let lease = place.lease("setup", &place.request_v6());
        let address = lease["yiaddr"].as_str().unwrap();
        assert!(address.ends_with(IDENTIFIER), "{lease}");
        assert_eq!((&lease["srv_id"], &lease["dns_servers"]), (&json!(""), &json!(["fd00:5::53"])), "{mode}");
        assert_eq!(addresses(&place).matches(&format!("{IDENTIFIER}/64")).count(), 2, "both are there");
        assert_eq!(server.stderr().contains("DHCPINFORMATION-REQUEST"), more, "{mode}: {}", server.stderr());
        assert_eq!(place.cache(), json!({ MAC: [lease.clone()] }));
        assert_eq!(place.lease("teardown", &place.request_v6()), lease);
        assert_eq!(place.cache(), json!({}));
    }
}

#[test]
fn t05_both_versions_at_once_and_one_teardown() {
    let place = fixture!("t05_both_versions_at_once_and_one_teardown");
    place.world_with_ipv6(&["fd00:5::1/64"]);
    let _server = place.server("198.51.100.50", &[RA, "--dhcp-range=fd00:5::50,fd00:5::50,64,2m"]);
    listening(&place);
    let _proxy = place.proxy(&[]);
    let mut v6 = place.client("setup", &place.request_v6()).start().unwrap();
    let v4 = place.lease("setup", &place.request());
    assert!(v6.finish(crate::LIMIT).unwrap().unwrap().success());
    let held = place.cache();
    assert_eq!((&held[MAC][0], &held[MAC][1]["yiaddr"]), (&v4, &json!("fd00:5::50")), "{held}");
    // Who knows only the contract speaks of version 4 alone.
    assert_eq!(place.lease("teardown", &place.request()), v4);
    Place::until("the server hears of both", || !leased(&place).contains(" box "));
    assert_eq!(place.cache(), json!({}));
}

#[test]
fn t05_a_link_without_ipv6_costs_a_bounded_wait() {
    let place = fixture!("t05_a_link_without_ipv6_costs_a_bounded_wait");
    let _server = place.server("198.51.100.50", &[]);
    listening(&place);
    let proxy = place.proxy(&[]);
    let start = now();
    let said = place.refusal(&place.request_v6());
    assert!(said.contains("no router and no DHCPv6 server answered on br0 within 4 s"), "{said}");
    let waited = now() - start;
    assert!(waited >= Duration::from_secs(4) && waited < Duration::from_secs(6), "{waited:?}");
    assert!(proxy.stderr().contains("no lease for"), "{}", proxy.stderr());
    assert_eq!(place.cache(), json!({}));
    // IPv6 switched off is known at once.
    place.in_container("echo 1 > /proc/sys/net/ipv6/conf/eth0/disable_ipv6");
    let said = place.refusal(&place.request_v6());
    assert!(said.contains("IPv6 is switched off for eth0 in the container"), "{said}");
}

#[test]
fn t05_a_server_without_a_router_is_found() {
    let place = fixture!("t05_a_server_without_a_router_is_found");
    place.world_with_ipv6(&["fd00:5::1/64"]);
    let _server = place.server("198.51.100.50", &["--dhcp-range=fd00:5::50,fd00:5::50,64,2m"]);
    listening(&place);
    let _proxy = place.proxy(&[]);
    let lease = place.lease("setup", &place.request_v6());
    assert_eq!((&lease["yiaddr"], &lease["gateways"]), (&json!("fd00:5::50"), &json!([])));
    assert!(addresses(&place).contains("fd00:5::50/128"), "nothing is known to be on the link");
}

#[test]
fn t05_a_router_that_refers_to_a_silent_server_is_told() {
    let place = fixture!("t05_a_router_that_refers_to_a_silent_server_is_told");
    place.world_with_ipv6(&["fd00:5::1/64"]);
    // The only address is somebody else's.
    let _server = place.server(
        "198.51.100.50",
        &[RA, "--dhcp-range=fd00:5::50,fd00:5::50,64,2m", "--dhcp-host=id:00:01,[fd00:5::50]"],
    );
    listening(&place);
    let _proxy = place.proxy(&[]);
    let said = place.refusal(&place.request_v6());
    assert!(said.contains("a router on br0 refers to DHCPv6, but no server granted an address"), "{said}");
}

/// For how many seconds the interface may still use its address.
fn left(place: &Place) -> Option<u32> {
    let shown = addresses(place);
    let (_, rest) = shown.split_once("valid_lft ")?;
    rest.split_once("sec")?.0.parse().ok()
}

#[test]
fn t05_a_lease_is_renewed_rebound_and_lost() {
    let place = fixture!("t05_a_lease_is_renewed_rebound_and_lost");
    place.world_with_ipv6(&["fd00:5::1/64"]);
    let grant = Grant { address: "fd00:5::50".parse().unwrap(), times: [5, 7, 12] };
    let server = Server::start(&place, grant);
    listening(&place);
    let proxy = place.proxy(&[]);
    let lease = place.lease("setup", &place.request_v6());
    assert_eq!((&lease["t1"], &lease["t2"], &lease["lease_time"]), (&json!(5), &json!(7), &json!(12)));
    assert_eq!(lease["srv_id"], json!("000300010200000000fe"));
    assert!(left(&place).is_some_and(|left| left <= 12));
    Place::until("it is renewed", || server.heard(RENEW) == 1);
    Place::until("its lifetime grows with that", || left(&place).is_some_and(|left| left > 9));
    // Its own server does not answer, but all are asked.
    server.ignore(&[RENEW]);
    Place::until("it is rebound", || server.heard(REBIND) == 1);
    Place::until("its lifetime grows with that too", || left(&place).is_some_and(|left| left > 9));
    assert_eq!(server.heard(SOLICIT), 1);
    // Nobody answers: the kernel takes the address away, and servers are looked for anew.
    server.ignore(&[RENEW, REBIND, SOLICIT]);
    Place::until("it ends", || server.heard(SOLICIT) > 1);
    Place::until("the address is gone", || left(&place).is_none());
    assert!(proxy.stderr().contains("has ended: Expired"), "{}", proxy.stderr());
    server.ignore(&[]);
    Place::until("there is one again", || left(&place).is_some());
    place.lease("teardown", &place.request_v6());
    Place::until("the server hears of it", || server.heard(RELEASE) == 1);
}

#[test]
fn t05_a_container_that_vanished_keeps_no_lease() {
    let mut place = fixture!("t05_a_container_that_vanished_keeps_no_lease");
    place.world_with_ipv6(&["fd00:5::1/64"]);
    let _server = place.server("198.51.100.50", &[RA, "--dhcp-range=fd00:5::50,fd00:5::50,64,2m"]);
    listening(&place);
    let _proxy = place.proxy(&[]);
    place.lease("setup", &place.request_v6());
    // It is looked three seconds after an address was given whether somebody else has it.
    place.container = place.machine.namespace().unwrap();
    Place::until("the lease file is empty", || place.cache() == json!({}));
    Place::until("the server hears of it", || !leased(&place).contains("fd00:5::50"));
}

#[test]
fn t05_an_address_that_somebody_else_has_is_declined() {
    let place = fixture!("t05_an_address_that_somebody_else_has_is_declined");
    place.world_with_ipv6(&["fd00:5::1/64"]);
    let other = place.machine.namespace().unwrap();
    place.sh(&format!(
        "ip link add o0 type veth peer name eth0 netns {}; ip link set o0 master br0 up",
        other.pid()
    ));
    let made = other.sh("ip link set eth0 up; ip address add fd00:5::50/64 dev eth0 nodad").unwrap();
    assert!(made.success(), "{made}");
    let server =
        Server::start(&place, Grant { address: "fd00:5::50".parse().unwrap(), times: [60, 80, 120] });
    listening(&place);
    let proxy = place.proxy(&[]);
    assert_eq!(place.lease("setup", &place.request_v6())["yiaddr"], "fd00:5::50");
    Place::until("another address", || addresses(&place).contains("fd00:5::51"));
    assert!(!addresses(&place).contains("fd00:5::50"), "{}", addresses(&place));
    assert_eq!(server.heard(DECLINE), 1);
    assert!(proxy.stderr().contains("somebody else has an address"), "{}", proxy.stderr());
}
