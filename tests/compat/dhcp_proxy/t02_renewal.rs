//! A lease is kept as long as the container lives, and the container follows what the server says.

use serde_json::json;

use crate::fixture;
use crate::place::{MAC, Place};

/// The server has the lease renewed every three seconds, the least that it takes.
const SOON: &str = "--dhcp-option-force=option:T1,3";

#[test]
fn t02_a_lease_is_renewed_with_its_server() {
    let place = fixture!("t02_a_lease_is_renewed_with_its_server");
    let server = place.server("198.51.100.50", &[SOON]);
    let _proxy = place.proxy(&[]);
    place.lease("setup", &place.request());
    let acks = || server.stderr().matches("DHCPACK(eth0) 198.51.100.50").count();
    Place::until("two renewals", || acks() >= 3);
    assert_eq!(server.stderr().matches("DHCPDISCOVER").count(), 1, "{}", server.stderr());
    assert!(place.in_container("ip -4 address show dev eth0").contains("198.51.100.50/24"));
}

#[test]
fn t02_a_new_address_and_router_replace_the_old_ones() {
    let place = fixture!("t02_a_new_address_and_router_replace_the_old_ones");
    // The old server is not there to refuse: only when all are asked does the new one hear of it.
    let rebind = "--dhcp-option-force=option:T2,5";
    let server = place.server("198.51.100.50", &[SOON, rebind]);
    let proxy = place.proxy(&[]);
    place.lease("setup", &place.request());
    drop(server);
    std::fs::remove_file(place.server_leases()).unwrap();
    place.in_world("ip address flush dev eth0; ip address add 203.0.113.1/24 dev eth0");
    let _server = place.server("203.0.113.50", &[SOON, rebind]);
    Place::until("the new route", || {
        place.in_container("ip route show default").contains("default via 203.0.113.1 dev eth0")
    });
    let addresses = place.in_container("ip -4 address show dev eth0");
    assert!(addresses.contains("203.0.113.50/24") && !addresses.contains("198.51.100"), "{addresses}");
    assert_eq!(place.in_container("ip route show default").lines().count(), 1);
    let line = format!("ip or gateway for mac {MAC} changed, update address");
    assert!(proxy.stderr().contains(&line), "{}", proxy.stderr());
    // Released is what is held now.
    place.lease("teardown", &place.request());
    Place::until("the server hears of it", || std::fs::read(place.server_leases()).unwrap().is_empty());
}

/// The kernel deletes an address of the same network with the one that was there first.
#[test]
fn t02_a_new_address_of_the_same_network_replaces_the_old_one() {
    let place = fixture!("t02_a_new_address_of_the_same_network_replaces_the_old_one");
    place.in_container("echo 0 > /proc/sys/net/ipv4/conf/eth0/promote_secondaries");
    let server = place.server("198.51.100.50", &[SOON]);
    let proxy = place.proxy(&[]);
    place.lease("setup", &place.request());
    drop(server);
    std::fs::remove_file(place.server_leases()).unwrap();
    // It refuses the old address, which is not its to give.
    let _server = place.server("198.51.100.60", &[SOON]);
    let addresses = || place.in_container("ip -4 address show dev eth0");
    Place::until("the new address", || !addresses().contains("198.51.100.50"));
    assert!(addresses().contains("198.51.100.60/24"), "{}", addresses());
    let route = place.in_container("ip route show default");
    assert!(route.contains("default via 198.51.100.1 dev eth0") && route.lines().count() == 1, "{route}");
    assert!(!proxy.stderr().contains("ERROR"), "{}", proxy.stderr());
}

#[test]
fn t02_a_new_router_alone_replaces_the_old_one() {
    let place = fixture!("t02_a_new_router_alone_replaces_the_old_one");
    let server = place.server("198.51.100.50", &[SOON]);
    let _proxy = place.proxy(&[]);
    place.lease("setup", &place.request());
    drop(server);
    let _server = place.server("198.51.100.50", &[SOON, "--dhcp-option=3,198.51.100.2"]);
    Place::until("the new route", || {
        place.in_container("ip route show default").contains("default via 198.51.100.2 dev eth0")
    });
    assert_eq!(place.in_container("ip route show default").lines().count(), 1);
    assert!(place.in_container("ip -4 address show dev eth0").contains("198.51.100.50/24"));
}

#[test]
fn t02_a_changed_lease_heeds_what_the_network_wants() {
    for (extra, routes) in [
        (
            json!({"metric": 7}),
            &["198.51.100.1 dev eth0 proto static metric 7", "198.51.100.2 dev eth0 proto static metric 7"][..],
        ),
        (json!({"no_default_route": true}), &[]),
    ] {
        let place = fixture!("t02_a_changed_lease_heeds_what_the_network_wants");
        let server = place.server("198.51.100.50", &[SOON]);
        let proxy = place.proxy(&[]);
        let mut request = place.request();
        request.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        place.lease("setup", &request);
        let shown = || place.in_container("ip route show default").trim().to_owned();
        let wanted =
            |number: usize| routes.get(number).map_or(String::new(), |route| format!("default via {route}"));
        assert_eq!(shown(), wanted(0));
        drop(server);
        let _server = place.server("198.51.100.50", &[SOON, "--dhcp-option=3,198.51.100.2"]);
        let line = format!("ip or gateway for mac {MAC} changed, update address");
        Place::until("the change", || proxy.stderr().contains(&line));
        Place::until("the new route", || shown() == wanted(1));
        assert!(!proxy.stderr().contains("ERROR"), "{}", proxy.stderr());
    }
}

#[test]
fn t02_a_container_that_vanished_keeps_no_lease() {
    let mut place = fixture!("t02_a_container_that_vanished_keeps_no_lease");
    let _server = place.server("198.51.100.50", &[SOON]);
    let _proxy = place.proxy(&[]);
    place.lease("setup", &place.request());
    place.container = place.machine.namespace().unwrap();
    Place::until("the lease file is empty", || place.cache() == json!({}));
    Place::until("the server hears of it", || std::fs::read(place.server_leases()).unwrap().is_empty());
}
