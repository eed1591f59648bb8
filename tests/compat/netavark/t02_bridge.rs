//! Bridges, their ports, and what the container finds inside.

use serde_json::{Value, json};
use slipway_lab::LIMIT;

use crate::host;
use crate::place::{addresses, error, ip, line};
use crate::request::{Join, request, request6};

const V4: &str = "10.88.0.1/16";
const V6: &str = "fd10:88::1/64";

#[test]
fn a_container_is_connected_and_disconnected() {
    let host = host!("a_container_is_connected_and_disconnected");
    let container = host.container();
    let request = request("one", &[Join::bridge("podman", "podman0", &[V4])]);
    let answer = host.setup(&container, &request);
    let inside = ip(&container, "link show eth0");
    let expected = json!({"podman": {
        "dns_search_domains": [], "dns_server_ips": [],
        "interfaces": {"eth0": {
            "mac_address": inside[0]["address"],
            "subnets": [{"gateway": "10.88.0.1", "ipnet": "10.88.0.2/16"}]
        }}
    }});
    assert_eq!(answer, expected);
    assert_eq!(addresses(&container, "eth0"), ["10.88.0.2/16"]);
    assert_eq!(ip(&container, "address show eth0")[0]["addr_info"][0]["broadcast"], "10.88.255.255");
    let route = &ip(&container, "route show default")[0];
    assert_eq!(
        (&route["gateway"], &route["metric"], &route["protocol"]),
        (&json!("10.88.0.1"), &json!(100), &json!("static"))
    );
    // The loopback interface comes up as well.
    assert!(container.sh("ping -c1 -W5 10.88.0.1 && ping -c1 -W5 127.0.0.1").unwrap().success());
    let bridge = &host.ip("address show podman0")[0];
    assert_eq!(bridge["linkinfo"]["info_kind"], "bridge");
    assert_eq!(bridge["addr_info"][0]["local"], "10.88.0.1");
    let port = &host.ip("link show veth0")[0];
    assert_eq!(port["master"], "podman0");
    assert_ne!(port["address"], bridge["address"], "the bridge has an address of its own");
    host.teardown(&container, &request);
    assert!(!container.sh("ip link show eth0").unwrap().success());
    host.is_clean();
}

#[test]
fn the_kernel_is_told_what_containers_need() {
    let host = host!("the_kernel_is_told_what_containers_need");
    let container = host.container();
    host.setup(&container, &request("one", &[Join::bridge("podman", "podman0", &[V4, V6])]));
    let read = |place: &dyn Fn(&str) -> String, keys: &[(&str, &str)]| {
        for (key, value) in keys {
            assert_eq!(place(&format!("cat /proc/sys/net/{key}")).trim(), *value, "{key}");
        }
    };
    read(
        &|script| host.machine.sh(script).unwrap().out(),
        &[
            ("ipv4/ip_forward", "1"),
            ("ipv6/conf/all/forwarding", "1"),
            ("ipv4/conf/podman0/route_localnet", "1"),
            ("ipv4/conf/podman0/rp_filter", "2"),
            ("ipv6/conf/podman0/accept_dad", "0"),
            ("ipv6/conf/podman0/accept_ra", "0"),
            ("ipv6/conf/veth0/accept_dad", "0"),
        ],
    );
    read(
        &|script| container.sh(script).unwrap().out(),
        &[
            ("ipv6/conf/eth0/autoconf", "0"),
            ("ipv6/conf/eth0/accept_dad", "0"),
            ("ipv4/conf/eth0/arp_notify", "1"),
            ("ipv4/conf/eth0/rp_filter", "2"),
        ],
    );
}

#[test]
fn both_families_at_once() {
    let host = host!("both_families_at_once");
    let (one, two) = (host.container(), host.container());
    let join = || Join::bridge("podman", "podman0", &[V4, V6]);
    let first = request("one", &[join()]);
    let second = request("two", &[join().addresses(&["10.88.0.3", "fd10:88::3"])]);
    let answer = host.setup(&one, &first);
    let subnets = &answer["podman"]["interfaces"]["eth0"]["subnets"];
    assert_eq!(subnets[1], json!({"gateway": "fd10:88::1", "ipnet": "fd10:88::2/64"}));
    host.setup(&two, &second);
    let reach = "ping -c1 -W5 10.88.0.3 && ping -6 -c1 -W5 fd10:88::3 && ping -6 -c1 -W5 fd10:88::1";
    let reached = one.sh(reach).unwrap();
    assert!(reached.success(), "{reached}");
    assert_eq!(ip(&one, "-6 route show default")[0]["gateway"], "fd10:88::1");
    host.teardown(&one, &first);
    assert!(two.sh("ping -c1 -W5 10.88.0.1").unwrap().success(), "the bridge stays for the second one");
    host.teardown(&two, &second);
    host.is_clean();
}

#[test]
fn options_of_a_bridge_take_effect() {
    let host = host!("options_of_a_bridge_take_effect");
    let container = host.container();
    let join = Join::bridge("podman", "podman0", &[V4]).option("mtu", "1400").option("metric", "200");
    let join =
        join.own("static_mac", "02:00:00:00:00:77").own("options", json!({"host_interface_name": "mine0"}));
    let request = request("one", &[join]);
    let answer = host.setup(&container, &request);
    assert_eq!(answer["podman"]["interfaces"]["eth0"]["mac_address"], "02:00:00:00:00:77");
    assert_eq!(ip(&container, "route show default")[0]["metric"], 200);
    for (shown, what) in [
        (ip(&container, "link show eth0"), "inside"),
        (host.ip("link show mine0"), "port"),
        (host.ip("link show podman0"), "bridge"),
    ] {
        assert_eq!(shown[0]["mtu"], 1400, "{what}");
    }
    // The name is taken now.
    let other = host.container();
    let said = host.refused(&other, &request);
    let text = "create veth pair: interface eth0 already exists on container namespace or mine0 exists on host \
                namespace: Netlink error: File exists (os error 17)";
    assert_eq!(said, text);
    host.teardown(&container, &request);
    host.is_clean();
}

#[test]
fn the_mtu_is_that_of_the_way_out() {
    let host = host!("the_mtu_is_that_of_the_way_out");
    let script =
        "ip link add out0 type veth peer name out1 && ip link set out0 mtu 1342 up && ip link set out1 up
                  ip address add 198.51.100.2/24 dev out0 && ip route add default via 198.51.100.1";
    assert!(host.machine.sh(script).unwrap().success());
    let container = host.container();
    host.setup(&container, &request("one", &[Join::bridge("podman", "podman0", &[V4])]));
    assert_eq!(ip(&container, "link show eth0")[0]["mtu"], 1342);
}

/// Two ways into the world, and the loopback interface up.
const TWO_WAYS: &str = "ip link set lo up
    ip link add out0 type veth peer name out1 && ip link set out0 mtu 1342 up && ip link set out1 mtu 1400 up
    ip address add 198.51.100.2/24 dev out0 && ip address add 203.0.113.2/24 dev out1
    ip address add fd07::2/64 dev out1 nodad";

/// Routes of the host, whether the network has IPv6, and the MTU that a container has of them.
const WAYS_OUT: [(&str, bool, u32); 10] = [
    ("default dev lo scope host metric 1; default via 198.51.100.1 metric 9", false, 1342),
    ("default dev lo metric 1; default via 203.0.113.1 metric 9", false, 1400),
    ("default via 203.0.113.1 mtu 1300", false, 1300),
    ("default via 203.0.113.1 mtu 9000", false, 1400),
    ("default nexthop via 203.0.113.1 nexthop via 198.51.100.1", false, 1342),
    ("default via 203.0.113.1 metric 1; default via 198.51.100.1 metric 2", false, 1400),
    ("0.0.0.0/1 via 203.0.113.1; 128.0.0.0/1 via 198.51.100.1", false, 1342),
    ("default via 203.0.113.1; ::/1 via fd07::1 mtu 1290", true, 1290),
    ("default via 203.0.113.1; ::/1 via fd07::1 mtu 1290", false, 1400),
    ("default dev lo scope host", false, 1500),
];

#[test]
fn every_way_out_has_room_for_what_containers_send() {
    for (routes, ipv6, mtu) in WAYS_OUT {
        let host = host!(ours "every_way_out_has_room_for_what_containers_send");
        let add =
            |route: &str| format!("ip {} route add {route}", if route.contains("::") { "-6" } else { "" });
        let script: Vec<_> = [TWO_WAYS.to_owned()].into_iter().chain(routes.split("; ").map(add)).collect();
        let made = host.machine.sh(&format!("set -e; {}", script.join("\n"))).unwrap();
        assert!(made.success(), "{made}");
        let container = host.container();
        let gateways: &[&str] = if ipv6 { &[V4, V6] } else { &[V4] };
        host.setup(&container, &request("one", &[Join::bridge("podman", "podman0", gateways)]));
        assert_eq!(ip(&container, "link show eth0")[0]["mtu"], mtu, "{routes}");
    }
}

#[test]
fn an_mtu_that_no_pair_can_have_is_none() {
    let host = host!(ours "an_mtu_that_no_pair_can_have_is_none");
    // Of the kinds that every kernel has only a bridge without ports takes less than IPv6 needs.
    let script = "ip link add out0 type bridge && ip link set out0 mtu 1000 up
        ip address add 198.51.100.2/24 dev out0 && ip route add default via 198.51.100.1";
    assert!(host.machine.sh(script).unwrap().success());
    let container = host.container();
    let request = request("one", &[Join::bridge("podman", "podman0", &[V4, V6])]);
    let setup = host.cmd(&["setup", &container.path()]).env("RUST_LOG", "warn").input(line(&request));
    let output = setup.run(LIMIT).unwrap();
    assert!(output.success(), "{output}");
    assert_eq!(ip(&container, "link show eth0")[0]["mtu"], 1280);
    assert_eq!(addresses(&container, "eth0"), ["10.88.0.2/16", "fd10:88::2/64"]);
    assert!(output.err().contains("the way out takes packets of 1000 bytes only"), "{output}");
}

#[test]
fn routes_as_wished() {
    let host = host!("routes_as_wished");
    let container = host.container();
    let routes = json!([
        {"destination": "198.51.100.0/24", "gateway": "10.88.0.7"},
        {"destination": "203.0.113.0/24", "gateway": "10.88.0.8", "metric": 7}
    ]);
    // The metric is that of default routes; other routes bring their own.
    let join = Join::bridge("podman", "podman0", &[V4]).with("routes", routes).option("metric", "200");
    let request = request("one", &[join.clone().option("no_default_route", "true")]);
    host.setup(&container, &request);
    assert_eq!(ip(&container, "route show default"), json!([]));
    let first = &ip(&container, "route show 198.51.100.0/24")[0];
    assert_eq!((&first["gateway"], &first["metric"]), (&json!("10.88.0.7"), &json!(100)));
    let second = &ip(&container, "route show 203.0.113.0/24")[0];
    assert_eq!((&second["gateway"], &second["metric"]), (&json!("10.88.0.8"), &json!(7)));
    host.teardown(&container, &request);
    host.is_clean();
}

#[test]
fn routes_that_lead_nowhere() {
    let host = host!(ours "routes_that_lead_nowhere");
    let container = host.container();
    let routes = json!([
        {"destination": "198.51.100.0/24", "route_type": "blackhole"},
        {"destination": "203.0.113.0/24", "route_type": "unreachable"},
        {"destination": "192.0.2.0/24", "route_type": "prohibit", "metric": 9}
    ]);
    let request = request6("one", &[Join::bridge("podman", "podman0", &[V4]).with("routes", routes)]);
    host.setup(&container, &request);
    let shown = container.sh("ip route").unwrap().out();
    for expected in ["blackhole 198.51.100.0/24", "unreachable 203.0.113.0/24", "prohibit 192.0.2.0/24"] {
        assert!(shown.contains(expected), "{shown}");
    }
    host.teardown(&container, &request);
    host.is_clean();
}

#[test]
fn an_internal_network_has_no_way_out() {
    let host = host!("an_internal_network_has_no_way_out");
    let container = host.container();
    let request = request("one", &[Join::bridge("podman", "podman0", &[V4, V6]).with("internal", true)]);
    host.setup(&container, &request);
    assert_eq!(ip(&container, "route show default"), json!([]));
    let read = |key: &str| host.machine.sh(&format!("cat /proc/sys/net/{key}")).unwrap().out();
    assert_eq!(read("ipv4/conf/podman0/forwarding").trim(), "0");
    assert_eq!(read("ipv6/conf/podman0/forwarding").trim(), "0");
    assert!(!host.rules().contains("masquerade") && !host.rules().contains("10.88.0.0/16"));
    host.teardown(&container, &request);
    host.is_clean();
}

#[test]
fn networks_are_joined_in_the_order_of_the_request() {
    let host = host!("networks_are_joined_in_the_order_of_the_request");
    let join = |name: &str, link: &str, gateway: &str, inside: &str| {
        Join::bridge(name, link, &[gateway]).own("interface_name", inside)
    };
    let joins =
        || [join("zz", "podman2", "10.89.2.1/24", "eth0"), join("aa", "podman1", "10.89.1.1/24", "eth1")];
    for request in [request("one", &joins()), request6("one", &joins())] {
        let container = host.container();
        let answer = host.setup(&container, &request);
        assert_eq!(answer.as_object().unwrap().len(), 2, "{answer}");
        if request["networks"].is_array() {
            assert_eq!(ip(&container, "link show eth0")[0]["ifindex"], 2);
            assert_eq!(ip(&container, "link show eth1")[0]["ifindex"], 3);
        }
        host.teardown(&container, &request);
        host.is_clean();
        if !host.is_ours() {
            break;
        }
    }
}

#[test]
fn several_addresses_of_one_subnet() {
    let host = host!(ours "several_addresses_of_one_subnet");
    let container = host.container();
    let join = Join::bridge("podman", "podman0", &[V4]).addresses(&["10.88.0.5", "10.88.0.6"]);
    let request = request6("one", &[join]);
    let answer = host.setup(&container, &request);
    assert_eq!(answer["podman"]["interfaces"]["eth0"]["subnets"].as_array().unwrap().len(), 2);
    assert_eq!(addresses(&container, "eth0"), ["10.88.0.5/16", "10.88.0.6/16"]);
    host.teardown(&container, &request);
    let stray = Join::bridge("podman", "podman0", &[V4]).addresses(&["10.88.0.5", "192.0.2.6"]);
    let said = host.refused(&container, &request6("one", &[stray]));
    assert!(said.contains("not all static IPs matched a subnet: expected 2, got 1"), "{said}");
    host.is_clean();
}

#[test]
fn no_addresses_when_nobody_manages_them() {
    let host = host!("no_addresses_when_nobody_manages_them");
    let container = host.container();
    let join = Join::bridge("podman", "podman0", &[V4]).with("ipam_options", json!({"driver": "none"}));
    let request = request("one", &[join]);
    let answer = host.setup(&container, &request);
    let subnets = &answer["podman"]["interfaces"]["eth0"]["subnets"];
    assert!(subnets.as_array().is_none_or(Vec::is_empty), "{answer}");
    assert_eq!(addresses(&container, "eth0"), [""; 0]);
    assert_eq!(ip(&container, "route"), json!([]));
    host.teardown(&container, &request);
    host.is_clean();
}

#[test]
fn an_existing_interface_is_in_the_way() {
    let host = host!("an_existing_interface_is_in_the_way");
    let container = host.container();
    let request = request("one", &[Join::bridge("podman", "podman0", &[V4])]);
    host.setup(&container, &request);
    let text = "create veth pair: interface eth0 already exists on container namespace: Netlink error: File exists \
                (os error 17)";
    assert_eq!(host.refused(&container, &request), text);
    assert!(container.sh("ping -c1 -W5 10.88.0.1").unwrap().success(), "the first one is left alone");
    host.teardown(&container, &request);
    host.is_clean();
}

#[test]
fn something_else_has_the_bridges_name() {
    let host = host!("something_else_has_the_bridges_name");
    assert!(host.machine.sh("ip link add podman0 type veth peer name other").unwrap().success());
    let container = host.container();
    let said = host.refused(&container, &request("one", &[Join::bridge("podman", "podman0", &[V4])]));
    assert!(said.contains("podman0 already exists but is a"), "{said}");
    assert!(host.machine.sh("ip link show podman0").unwrap().success());
}

#[test]
fn a_bridge_that_somebody_else_manages() {
    let host = host!("a_bridge_that_somebody_else_manages");
    let container = host.container();
    let request = request("one", &[Join::bridge("podman", "br7", &[V4]).option("mode", "unmanaged")]);
    let text = "in unmanaged mode, the bridge must already exist on the host: Netlink error: No such device (os error 19)";
    assert!(host.refused(&container, &request).contains(text));
    assert!(host.machine.sh("ip link add br7 type bridge && ip link set br7 up").unwrap().success());
    host.setup(&container, &request);
    assert_eq!(addresses(&container, "eth0"), ["10.88.0.2/16"]);
    assert_eq!(
        host.ip("address show br7")[0]["addr_info"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|entry| entry["family"] == "inet")
            .count(),
        0
    );
    assert_eq!(host.rules(), "");
    host.teardown(&container, &request);
    assert!(host.machine.sh("ip link show br7").unwrap().success(), "it is not ours to delete");
}

#[test]
fn a_read_only_proc_is_told_unless_nothing_need_be_written() {
    let host = host!("a_read_only_proc_is_told_unless_nothing_need_be_written");
    assert!(
        host.machine
            .sh("echo 0 > /proc/sys/net/ipv4/ip_forward; mount -o bind,ro /proc /proc")
            .unwrap()
            .success()
    );
    let container = host.container();
    let request = request("one", &[Join::bridge("podman", "podman0", &[V4])]);
    let said = host.refused(&container, &request);
    assert!(
        said.contains("set sysctl net/ipv4/ip_forward: IO error: Read-only file system (os error 30)"),
        "{said}"
    );
}

/// What of the network is in the kernel's rules: subnets.
fn subnets(host: &crate::place::Host, some: &[&str]) -> Vec<bool> {
    let rules = host.rules();
    some.iter().map(|subnet| rules.contains(subnet)).collect()
}

#[test]
fn a_bridge_in_use_follows_its_definition() {
    let host = host!(ours "a_bridge_in_use_follows_its_definition");
    let (one, two, three) = (host.container(), host.container(), host.container());
    let first = request("one", &[Join::bridge("podman", "podman0", &[V4])]);
    host.setup(&one, &first);
    assert_eq!(host.machine.sh("cat /proc/sys/net/ipv6/conf/all/forwarding").unwrap().out().trim(), "0");
    // It gets IPv6, then another IPv4 subnet.
    let both = |gateways: &[&str], addresses: &[&str]| {
        Join::bridge("podman", "podman0", gateways).addresses(addresses)
    };
    let second = request("two", &[both(&[V4, V6], &["10.88.0.3", "fd10:88::3"])]);
    host.setup(&two, &second);
    assert_eq!(host.machine.sh("cat /proc/sys/net/ipv6/conf/all/forwarding").unwrap().out().trim(), "1");
    let reached = two.sh("ping -6 -c1 -W5 fd10:88::1 && ping -c1 -W5 10.88.0.2").unwrap();
    assert!(reached.success(), "{reached}");
    let third = request("three", &[both(&["10.89.7.1/24", V6], &["10.89.7.3", "fd10:88::4"])]);
    host.setup(&three, &third);
    let reached = three.sh("ping -c1 -W5 10.89.7.1 && ping -6 -c1 -W5 fd10:88::3").unwrap();
    assert!(reached.success(), "{reached}");
    let all = ["10.88.0.0/16", "fd10:88::/64", "10.89.7.0/24"];
    assert_eq!(subnets(&host, &all), [true; 3]);
    // The rules of all of them are restored, and go with the last container, which knows of one subnet alone.
    assert!(host.machine.sh("nft flush ruleset").unwrap().success());
    host.cmd(&["firewall-reload"]).ok(LIMIT).unwrap();
    assert_eq!(subnets(&host, &all), [true; 3]);
    host.teardown(&one, &only("one", &[V6]));
    host.teardown(&two, &only("two", &[V6]));
    host.teardown(&three, &only("three", &[V6]));
    assert_eq!(subnets(&host, &all), [false; 3]);
    host.is_clean();
}

/// A teardown by a definition of these subnets alone.
fn only(container: &str, gateways: &[&str]) -> Value {
    request(container, &[Join::bridge("podman", "podman0", gateways)])
}

#[test]
fn a_bridge_that_was_taken_down_comes_up_whole() {
    let host = host!(ours "a_bridge_that_was_taken_down_comes_up_whole");
    let (one, two) = (host.container(), host.container());
    let join = || Join::bridge("podman", "podman0", &[V4, V6]);
    host.setup(&one, &request("one", &[join()]));
    // The kernel takes IPv6 addresses away with that.
    let script = "ip link set podman0 down && ip address del 10.88.0.1/16 dev podman0";
    assert!(host.machine.sh(script).unwrap().success());
    let second = request("two", &[join().addresses(&["10.88.0.3", "fd10:88::3"])]);
    host.setup(&two, &second);
    let reached = two.sh("ping -c1 -W5 10.88.0.1 && ping -6 -c1 -W5 fd10:88::1").unwrap();
    assert!(reached.success(), "{reached}");
}

#[test]
fn a_setup_that_fails_leaves_the_bridge_as_it_was() {
    let host = host!(ours "a_setup_that_fails_leaves_the_bridge_as_it_was");
    let (one, two) = (host.container(), host.container());
    host.setup(&one, &request("one", &[Join::bridge("podman", "podman0", &[V4])]));
    let bad = Join::bridge("podman", "podman0", &[V4, V6]).own("static_mac", "00:00:00:00:00:00");
    host.refused(&two, &request("two", &[bad]));
    let shown = host.machine.sh("ip -o address show podman0").unwrap().out();
    assert!(shown.contains("10.88.0.1/16") && !shown.contains("fd10:88::1"), "{shown}");
}

/// What a container around us is started with, and a `/proc/sys` that cannot be written.
const NESTED: &str = "echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding
    mount -o bind,ro /proc/sys /proc/sys";

#[test]
fn what_is_a_convenience_is_done_without_on_a_read_only_proc() {
    let host = host!(ours "what_is_a_convenience_is_done_without_on_a_read_only_proc");
    assert!(host.machine.sh(NESTED).unwrap().success());
    let container = host.container();
    let request = request("one", &[Join::bridge("podman", "podman0", &[V4, V6])]);
    let setup = host.cmd(&["setup", &container.path()]).env("RUST_LOG", "warn").input(line(&request));
    let output = setup.run(LIMIT).unwrap();
    assert!(output.success(), "{output}");
    for key in [
        "net/ipv4/conf/eth0/arp_notify",
        "net/ipv4/conf/eth0/rp_filter",
        "net/ipv6/conf/eth0/accept_dad",
        "net/ipv4/conf/podman0/route_localnet",
        "net/ipv4/conf/podman0/rp_filter",
        "net/ipv6/conf/podman0/accept_ra",
    ] {
        assert!(output.err().contains(&format!("cannot set {key} to ")), "{key}: {output}");
    }
    // The kernel looks for duplicates first, a second long.
    let reached = container.sh("ping -c1 -W5 10.88.0.1 && ping -6 -c3 -i0.5 -w5 fd10:88::1").unwrap();
    assert!(reached.success(), "{reached}");
    host.teardown(&container, &request);
    host.is_clean();
}

#[test]
fn a_read_only_proc_gives_no_internal_network_a_way_out() {
    let host = host!(ours "a_read_only_proc_gives_no_internal_network_a_way_out");
    assert!(host.machine.sh(NESTED).unwrap().success());
    let container = host.container();
    let request = request("one", &[Join::bridge("podman", "podman0", &[V4]).with("internal", true)]);
    let said = host.refused(&container, &request);
    let text = "set sysctl net/ipv4/conf/podman0/forwarding: IO error: Read-only file system (os error 30)";
    assert!(said.contains(text), "{said}");
    host.is_clean();
    let script = "mount -o remount,bind,rw /proc/sys; echo 0 > /proc/sys/net/ipv4/ip_forward
        mount -o remount,bind,ro /proc/sys";
    assert!(host.machine.sh(script).unwrap().success());
    host.setup(&container, &request);
    host.teardown(&container, &request);
    host.is_clean();
}

#[test]
fn ipv6_that_is_switched_off_is_explained() {
    let host = host!("ipv6_that_is_switched_off_is_explained");
    assert!(host.machine.sh("echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6").unwrap().success());
    let container = host.container();
    let said = host.refused(&container, &request("one", &[Join::bridge("podman", "podman0", &[V6])]));
    let text = "add ip addr to bridge: failed to add ipv6 address, is ipv6 enabled in the kernel?: Netlink error: \
                Permission denied (os error 13)";
    assert_eq!(said, text);
}

#[test]
fn a_failed_setup_leaves_nothing() {
    let host = host!(ours "a_failed_setup_leaves_nothing");
    let container = host.container();
    // The last of three fails, in its own middle: the veth pair is made when the address is refused.
    let bad = Join::bridge("cc", "podman3", &["10.89.3.1/24"]).own("interface_name", "eth2");
    let bad = bad.own("static_mac", "00:00:00:00:00:00");
    let joins = [
        Join::bridge("aa", "podman1", &["10.89.1.1/24"]),
        Join::bridge("bb", "podman2", &["10.89.2.1/24"]).own("interface_name", "eth1"),
        bad,
    ];
    assert!(host.refused(&container, &request("one", &joins)).contains("Cannot assign requested address"));
    host.is_clean();
    assert_eq!(ip(&container, "link show").as_array().unwrap().len(), 1);
    // Gateways that cannot be set, after the bridge was made.
    let bad = Join::bridge("dd", "podman4", &[V4])
        .with("subnets", json!([{"subnet": "10.88.0.0/16", "gateway": "0.0.0.0"}]));
    let _ = host.refused(
        &container,
        &request("one", &[bad.option("metric", "5").own("static_mac", "00:00:00:00:00:00")]),
    );
    host.is_clean();
}

#[test]
fn teardown_tolerates_what_is_gone() {
    let host = host!(ours "teardown_tolerates_what_is_gone");
    let request = request("one", &[Join::bridge("podman", "podman0", &[V4])]);
    // The container's end is gone: told, and everything else done.
    let container = host.container();
    host.setup(&container, &request);
    assert!(container.sh("ip link delete eth0").unwrap().success());
    let output = host.cmd(&["teardown", &container.path()]).input(line(&request)).run(LIMIT).unwrap();
    let text = "failed to delete container veth eth0: Netlink error: No such device (os error 19)";
    assert!(error(&output).contains(text), "{output}");
    host.is_clean();
    // The bridge is gone.
    let container = host.container();
    host.setup(&container, &request);
    assert!(host.machine.sh("ip link delete podman0").unwrap().success());
    let _ = host.cmd(&["teardown", &container.path()]).input(line(&request)).run(LIMIT).unwrap();
    assert!(!container.sh("ip link show eth0").unwrap().success());
}

#[test]
fn teardown_without_the_namespace() {
    let host = host!(ours "teardown_without_the_namespace");
    let request: Value = request("one", &[Join::bridge("podman", "podman0", &[V4])]);
    let container = host.container();
    host.setup(&container, &request);
    drop(container);
    // The kernel takes a namespace down in its own time, and the veth pair with it.
    let wait =
        "for i in $(seq 500); do ip link show veth0 >/dev/null 2>&1 || exit 0; sleep 0.01; done; exit 1";
    assert!(host.machine.sh(wait).unwrap().success());
    let run = host.cmd(&["teardown", "/no/such/netns"]).env("RUST_LOG", "netavark=warn");
    let output = run.input(line(&request)).run(LIMIT).unwrap();
    assert!(output.success() && output.out().is_empty(), "{output}");
    assert!(output.err().contains("container netns not found"), "{output}");
    host.is_clean();
}
