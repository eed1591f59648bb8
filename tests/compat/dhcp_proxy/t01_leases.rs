//! A lease is obtained, set in the container, written down, and given back.

use serde_json::{Value, json};

use crate::fixture;
use crate::place::{ID, MAC, Place};

#[test]
fn t01_a_container_on_a_bridge() {
    let place = fixture!("t01_a_container_on_a_bridge");
    let _server = place.server("198.51.100.50", &[]);
    let _proxy = place.proxy(&[]);
    assert_eq!(place.cache(), json!({}));

    let lease = place.lease("setup", &place.request());
    let router = json!(["198.51.100.1"]);
    for (field, value) in [
        ("yiaddr", json!("198.51.100.50")),
        ("subnet_mask", json!("255.255.255.0")),
        ("siaddr", json!("198.51.100.1")),
        ("srv_id", json!("198.51.100.1")),
        ("broadcast_addr", json!("198.51.100.255")),
        ("mac_address", json!(MAC)),
        ("domain_name", json!("example.com")),
        ("host_name", json!("box")),
        ("is_v6", json!(false)),
        ("lease_time", json!(120)),
        ("gateways", router.clone()),
        ("dns_servers", router),
        ("ntp_servers", json!([])),
    ] {
        assert_eq!(lease[field], value, "{field} in {lease}");
    }
    let addresses = place.in_container("ip -4 address show dev eth0");
    assert!(addresses.contains("198.51.100.50/24"), "{addresses}");
    let routes = place.in_container("ip route show default");
    assert!(
        routes.contains("default via 198.51.100.1 dev eth0") && routes.contains("metric 100"),
        "{routes}"
    );
    assert_eq!(place.cache(), json!({ MAC: [lease.clone()] }));
    let noted = std::fs::read_to_string(place.server_leases()).unwrap();
    let id: String = ID.bytes().map(|byte| format!(":{byte:02x}")).collect();
    assert!(noted.contains(&format!("198.51.100.50 box 00{id}")), "{noted}");

    assert_eq!(place.lease("teardown", &place.request()), lease, "the lease that was held");
    assert_eq!(place.cache(), json!({}));
    Place::until("the server hears of it", || std::fs::read(place.server_leases()).unwrap().is_empty());
    let again = place.lease("teardown", &place.request());
    assert_eq!((&again["yiaddr"], &again["gateways"]), (&json!(""), &json!([])), "nothing is held any more");
}

/// Whoever spoke with the one that had the address before does not wait for a cache to end.
#[test]
fn t01_neighbours_are_told_of_a_lease() {
    let place = fixture!("t01_neighbours_are_told_of_a_lease");
    let _server = place.server("198.51.100.50", &[]);
    let _proxy = place.proxy(&[]);
    place.sh("ip neigh replace 198.51.100.50 lladdr 02:00:00:00:00:99 dev br0 nud stale");
    place.lease("setup", &place.request());
    let known = || place.machine.sh("ip neigh show 198.51.100.50").unwrap().out();
    Place::until("the host knows the new one", || known().contains(MAC));
}

#[test]
fn t01_a_container_on_a_macvlan() {
    let place = fixture!("t01_a_container_on_a_macvlan");
    place
        .sh("ip link add lan0 type veth peer name lan1; ip link set lan1 master br0 up; ip link set lan0 up");
    let mac = "02:00:00:00:00:08";
    let made = place.machine.sh(&format!(
        "ip link add mv0 link lan0 address {mac} type macvlan mode bridge && ip link set mv0 netns {}",
        place.container.pid()
    ));
    if !made.as_ref().is_ok_and(|made| made.success()) {
        println!("SKIP t01_a_container_on_a_macvlan: this kernel has no macvlan");
        return;
    }
    place.in_container("ip link set eth0 down; ip link set mv0 up");
    let _server = place.server("198.51.100.60", &[]);
    let _proxy = place.proxy(&[]);
    let mut request = place.request();
    request["host_iface"] = json!("lan0");
    request["container_iface"] = json!("mv0");
    request["container_mac_addr"] = json!(mac);
    assert_eq!(place.lease("setup", &request)["yiaddr"], "198.51.100.60");
    let ping = place.container.sh("ping -c 1 -W 5 198.51.100.1").unwrap();
    assert!(ping.success(), "{ping}");
    place.lease("teardown", &request);
}

#[test]
fn t01_a_container_without_a_name_or_a_router() {
    let place = fixture!("t01_a_container_without_a_name_or_a_router");
    let server = place.server("198.51.100.50", &["--dhcp-option=3", "--dhcp-option=6"]);
    let _proxy = place.proxy(&[]);
    let mut request = place.request();
    request.as_object_mut().unwrap().remove("host_name");
    let lease = place.lease("setup", &request);
    assert_eq!((&lease["gateways"], &lease["dns_servers"]), (&json!([]), &json!([])));
    assert_eq!(place.in_container("ip route show default"), "");
    assert!(!server.stderr().contains("client provides name"), "{}", server.stderr());
}

#[test]
fn t01_an_address_stays_with_the_container_not_with_its_mac() {
    let place = fixture!("t01_an_address_stays_with_the_container_not_with_its_mac");
    let _server = place.server("198.51.100.50", &[]);
    let proxy = place.proxy(&[]);
    place.lease("setup", &place.request());
    // Killed, not torn down: the server still thinks the address is in use.
    drop(proxy);
    let _proxy = place.proxy(&[]);
    let mac = "02:00:00:00:00:09";
    place.in_container(&format!("ip link set eth0 down; ip link set eth0 address {mac} up"));
    let mut request = place.request();
    request["container_mac_addr"] = json!(mac);
    assert_eq!(place.lease("setup", &request)["yiaddr"], "198.51.100.50");
}

#[test]
fn t01_setting_up_twice_is_setting_up_once() {
    let place = fixture!("t01_setting_up_twice_is_setting_up_once");
    let _server = place.server("198.51.100.50", &[]);
    let _proxy = place.proxy(&[]);
    let first = place.lease("setup", &place.request());
    let second = place.lease("setup", &place.request());
    assert_eq!(first["yiaddr"], second["yiaddr"]);
    assert_eq!(place.cache().as_object().unwrap().len(), 1);
    place.lease("teardown", &place.request());
    assert_eq!(place.cache(), Value::Object(serde_json::Map::new()));
}
