//! macvlan and ipvlan: a container's interface that rides on one of the host's.

use serde_json::json;
use slipway_lab::Machine;

use crate::host;
use crate::place::{addresses, ip};
use crate::request::{Join, request, request6};

const PARENT: &str = "ip link add up0 type veth peer name up1 && ip link set up0 up && ip link set up1 up";

fn child(driver: &str) -> Join {
    Join::new(driver, "lan", "up0", &["10.88.0.1/16"])
}

/// Whether the kernel has the kind of link at all.
fn lacks(machine: &Machine, kind: &str) -> bool {
    let script = format!("{PARENT}; ip link add probe0 link up0 type {kind} && ip link delete probe0");
    !machine.sh(&script).unwrap().success()
}

/// What both kinds have in common.
fn joins(driver: &str, modes: &[&str], default: &str, test: &str) {
    let Some(host) = crate::place::Host::fixture(test, &[]) else { return };
    if lacks(&host.machine, driver) {
        println!("SKIP {test}: the kernel has no {driver}");
        return;
    }
    let container = host.container();
    let plain = request("one", &[child(driver)]);
    let answer = host.setup(&container, &plain);
    let block = &answer["lan"]["interfaces"]["eth0"];
    assert_eq!(block["subnets"], json!([{"gateway": "10.88.0.1", "ipnet": "10.88.0.2/16"}]));
    assert_eq!(addresses(&container, "eth0"), ["10.88.0.2/16"]);
    let shown = &ip(&container, "link show eth0")[0];
    assert_eq!((&shown["linkinfo"]["info_kind"], &shown["operstate"]), (&json!(driver), &json!("UP")));
    assert_eq!(shown["linkinfo"]["info_data"]["mode"], default);
    assert_eq!(ip(&container, "route show default")[0]["gateway"], "10.88.0.1");
    host.teardown(&container, &plain);
    assert!(!container.sh("ip link show eth0").unwrap().success());
    assert!(host.rules().is_empty(), "no rules for these");
    for mode in modes {
        let request = request("one", &[child(driver).option("mode", mode).option("mtu", "1400")]);
        host.setup(&container, &request);
        let shown = &ip(&container, "link show eth0")[0];
        assert_eq!((&shown["linkinfo"]["info_data"]["mode"], &shown["mtu"]), (&json!(mode), &json!(1400)));
        host.teardown(&container, &request);
    }
    let internal = request("one", &[child(driver).with("internal", true)]);
    host.setup(&container, &internal);
    assert_eq!(ip(&container, "route show default"), json!([]));
    host.teardown(&container, &internal);
    let said = host.refused(&container, &request("one", &[child(driver).option("mode", "odd")]));
    assert!(said.contains(&format!("invalid {driver} mode \"odd\"")), "{said}");
    // The name is taken on the host, where the kernel makes the link first.
    assert!(host.machine.sh("ip link add eth0 type bridge").unwrap().success());
    host.setup(&container, &plain);
    assert_eq!(addresses(&container, "eth0"), ["10.88.0.2/16"]);
    host.teardown(&container, &plain);
    let left = host.machine.sh("ip -o link").unwrap().out();
    assert!(!left.contains("mv-"), "{left}");
}

#[test]
fn macvlan_in_all_its_modes() {
    joins("macvlan", &["bridge", "private", "vepa", "passthru"], "bridge", "macvlan_in_all_its_modes");
}

#[test]
fn ipvlan_in_all_its_modes() {
    joins("ipvlan", &["l2", "l3", "l3s"], "l2", "ipvlan_in_all_its_modes");
}

#[test]
fn a_macvlan_has_the_address_it_was_given() {
    let host = host!("a_macvlan_has_the_address_it_was_given");
    assert!(host.machine.sh(PARENT).unwrap().success());
    let container = host.container();
    let request = request("one", &[child("macvlan").own("static_mac", "02:00:00:00:00:42")]);
    let answer = host.setup(&container, &request);
    assert_eq!(answer["lan"]["interfaces"]["eth0"]["mac_address"], "02:00:00:00:00:42");
    assert_eq!(ip(&container, "link show eth0")[0]["address"], "02:00:00:00:00:42");
}

#[test]
fn the_parent_is_the_way_out_when_none_is_named() {
    let host = host!("the_parent_is_the_way_out_when_none_is_named");
    let script = format!(
        "{PARENT} && ip address add 198.51.100.2/24 dev up0 && ip route add default via 198.51.100.1"
    );
    assert!(host.machine.sh(&script).unwrap().success());
    let container = host.container();
    let request = request("one", &[child("macvlan").with("network_interface", "")]);
    host.setup(&container, &request);
    let parent = &host.ip("link show up0")[0]["ifindex"];
    assert_eq!(&ip(&container, "link show eth0")[0]["link_index"], parent);
    host.teardown(&container, &request);
}

#[test]
fn nothing_that_ends_in_the_machine_is_a_parent() {
    for way in [
        "default dev lo scope host metric 1; default via 198.51.100.1 metric 9",
        "default dev lo metric 1; default nexthop via 198.51.100.1 nexthop via 198.51.100.3",
        "default dev lo scope host; 0.0.0.0/1 via 198.51.100.1; 128.0.0.0/1 via 198.51.100.1",
        "default dev lo metric 1; -6 ::/1 dev up0",
    ] {
        let host = host!(ours "nothing_that_ends_in_the_machine_is_a_parent");
        let add = |route: &str| match route.strip_prefix("-6 ") {
            Some(route) => format!("ip -6 route add {route}"),
            None => format!("ip route add {route}"),
        };
        let routes: Vec<_> = way.split("; ").map(add).collect();
        let script = format!(
            "set -e; ip link set lo up; {PARENT}; ip address add 198.51.100.2/24 dev up0; {}",
            routes.join("; ")
        );
        let made = host.machine.sh(&script).unwrap();
        assert!(made.success(), "{made}");
        let container = host.container();
        host.setup(&container, &request("one", &[child("macvlan").with("network_interface", "")]));
        let parent = &host.ip("link show up0")[0]["ifindex"];
        assert_eq!(&ip(&container, "link show eth0")[0]["link_index"], parent, "{way}");
    }
}

#[test]
fn the_metric_depends_on_the_caller() {
    let host = host!(ours "the_metric_depends_on_the_caller");
    assert!(host.machine.sh(PARENT).unwrap().success());
    for (request, metric) in
        [(request("one", &[child("macvlan")]), 100), (request6("one", &[child("macvlan")]), 99)]
    {
        let container = host.container();
        host.setup(&container, &request);
        assert_eq!(ip(&container, "route show default")[0]["metric"], metric);
        host.teardown(&container, &request);
    }
}

#[test]
fn a_missing_parent_is_named() {
    let host = host!("a_missing_parent_is_named");
    let container = host.container();
    let said = host.refused(&container, &request("one", &[child("macvlan")]));
    assert!(said.contains("No such device (os error 19)"), "{said}");
    host.is_clean();
}
