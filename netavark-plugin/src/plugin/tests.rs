//! Containers come and go on a machine of their own, with the test double of the uplink.

use super::fake::Fake;
use super::record::Record;
use super::request::Call;
use super::setup::connect;
use super::surroundings::Surroundings;
use super::teardown::disconnect;
use crate::namespaces::{Place, Places};
use crate::plan::{switch::TAP, text};
use crate::spec::StatusBlock;
use crate::testing::{another_namespace, on_a_machine, on_a_machine_with_tun, state};
use insta::assert_snapshot;
use serde_json::{Value, json};
use slipway_host::netlink::{Kind, NewLink, Request};
use std::fs;
use std::path::Path;

const SOCKET: &str = "/run/uplink.sock";
const RECORDS: &str = "/run/slipway/networks";

fn surroundings(root: bool) -> Surroundings {
    Surroundings { socket: SOCKET.into(), records: RECORDS.into(), root }
}

/// The request for container `number` on the network, with changes to it.
fn request(number: u8, changes: &[(&str, Value)]) -> Call {
    let mut request = json!({
        "container_id": format!("c{number}"), "container_name": format!("name{number}"),
        "port_mappings": [{"container_port": 80, "host_port": 8000 + u16::from(number), "host_ip": "", "protocol": "tcp", "range": 1}],
        "network": {"name": "net", "id": "n1", "driver": "slipway", "network_interface": "br7",
            "subnets": [{"subnet": "10.89.0.7/24", "gateway": "10.89.0.1"}, {"subnet": "fd89::/64", "gateway": "fd89::1"}],
            "ipv6_enabled": true, "internal": false, "dns_enabled": true, "routes": null, "network_dns_servers": null},
        "network_options": {"interface_name": "eth0", "static_ips": [format!("10.89.0.{}", number + 1), format!("fd89::{}", number + 1)],
            "static_mac": null, "aliases": ["alias"], "options": null}
    });
    for (path, value) in changes {
        *request.pointer_mut(path).unwrap_or_else(|| panic!("{path}")) = value.clone();
    }
    serde_json::from_value(request).unwrap()
}

/// Another container in the place of the present one.
fn next_container(places: &mut Places) -> Option<Place> {
    places.container.replace(Place::at(another_namespace().unwrap()).unwrap())
}

fn join(number: u8, places: &mut Places) -> StatusBlock {
    connect(&request(number, &[]), &surroundings(true), places).unwrap()
}

fn ports(places: &mut Places) -> Vec<String> {
    let bridge = places.host.netlink.interface("br7").unwrap();
    let mut ports: Vec<_> =
        places.host.netlink.ports(bridge.index).unwrap().into_iter().map(|port| port.name).collect();
    ports.sort();
    ports
}

fn records() -> Vec<String> {
    let entries = fs::read_dir(RECORDS).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn setting(path: &str) -> String {
    fs::read_to_string(format!("/proc/sys/net/{path}")).unwrap().trim().to_owned()
}

#[test]
fn the_plan_of_a_first_and_of_another_container() {
    let call = request(1, &[]);
    let wanted = call.parse().unwrap();
    assert_snapshot!(text(&wanted.plan.setup(None, true)));
    let bridge = slipway_host::netlink::Interface { name: "br7".into(), ..Default::default() };
    assert_snapshot!(text(&wanted.plan.setup(Some(&bridge), false)));
}

#[test]
fn two_containers_come_and_go() {
    on_a_machine_with_tun("two_containers_come_and_go", |places| {
        let (fake, before) = (Fake::start(Path::new(SOCKET)), state(places));
        let status = join(1, places);
        let inside = places.container.as_mut().unwrap().netlink.interface("eth0").unwrap();
        assert_eq!(
            serde_json::to_value(&status).unwrap(),
            json!({"dns_search_domains": ["dns.podman"], "dns_server_ips": ["10.89.0.1", "fd89::1"], "interfaces": {"eth0": {
                "mac_address": inside.mac.unwrap().to_string(), "subnets": [{"gateway": "10.89.0.1", "ipnet": "10.89.0.2/24"},
                {"gateway": "fd89::1", "ipnet": "fd89::2/64"}]}}})
        );
        let bridge = places.host.netlink.interface("br7").unwrap();
        assert!(bridge.up && bridge.mtu == 65520 && inside.mtu == 65520, "{bridge:?}");
        let addresses = places.host.netlink.addresses().unwrap();
        assert!(
            !addresses.iter().any(|address| address.interface == bridge.index),
            "not even the link's own"
        );
        for (key, value) in [
            ("ipv4/conf/br7/rp_filter", "1"),
            ("ipv4/conf/br7/arp_ignore", "8"),
            ("ipv6/conf/br7/disable_ipv6", "1"),
            ("ipv6/conf/slipup0/disable_ipv6", "1"),
        ] {
            assert_eq!(setting(key), value, "{key}");
        }
        assert_eq!(ports(places), ["slipup0", "veth0"]);
        let tap = places.host.netlink.interface("slipup0").unwrap();
        assert!(tap.up && tap.mtu == 65520);
        assert_eq!(fake.asked(), ["join", "attach", "publish"]);
        assert_eq!(fake.books().networks["n1"].told["subnets"][0]["subnet"], "10.89.0.0/24", "no host bits");
        assert!(fake.hears("n1"), "the first frames of the container arrive");

        let first = next_container(places);
        join(2, places);
        assert_eq!(fake.asked(), ["join", "publish"]);
        assert_eq!(ports(places), ["slipup0", "veth0", "veth1"]);
        assert_eq!(fake.names("n1"), ["name1", "name2"]);
        assert_eq!(Record::lock(Path::new(RECORDS), "n1").unwrap().members.len(), 2);

        disconnect(&request(2, &[]), &surroundings(true), places).unwrap();
        assert_eq!(ports(places), ["slipup0", "veth0"]);
        assert_eq!(fake.names("n1"), ["name1"]);
        places.container = first;
        disconnect(&request(1, &[]), &surroundings(true), places).unwrap();
        assert!(fake.books().networks.is_empty() && fake.books().rules.is_empty());
        assert_eq!(state(places), before);
        assert_eq!(records(), [""; 0]);
        disconnect(&request(1, &[]), &surroundings(true), places).unwrap();
        assert_eq!(records(), [""; 0], "gone already is no error");
    });
}

#[test]
fn an_uplink_that_was_started_anew_learns_of_everybody() {
    on_a_machine_with_tun("an_uplink_that_was_started_anew_learns_of_everybody", |places| {
        let fake = Fake::start(Path::new(SOCKET));
        join(1, places);
        let first = next_container(places);
        join(2, places);
        let _second = next_container(places);
        // One of them vanishes without a word.
        drop(first);
        let vanished = |places: &mut Places| ports(places).len() == 2;
        for _ in 0..200 {
            if vanished(places) {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        fake.forget();
        assert_eq!(ports(places), ["veth1"], "the TAP went with who held it");
        fake.asked();
        join(3, places);
        assert_eq!(fake.names("n1"), ["name2", "name3"]);
        assert_eq!(fake.asked(), ["join", "leave", "attach", "join", "publish", "publish"]);
        let published: Vec<_> = fake.books().rules.iter().map(|(id, _)| id.clone()).collect();
        assert_eq!(published, ["c2", "c3"]);
        assert!(ports(places).iter().any(|port| port.starts_with(TAP)));
        disconnect(&request(3, &[]), &surroundings(true), places).unwrap();
        let record = Record::lock(Path::new(RECORDS), "n1").unwrap();
        assert_eq!(record.members.len(), 1, "who vanished is forgotten");
    });
}

/// Drops the container's namespace, and waits until its port has gone.
fn kill(container: Option<Place>, left: usize, places: &mut Places) {
    drop(container);
    for _ in 0..500 {
        if ports(places).len() == left {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("{:?}", ports(places));
}

#[test]
fn what_the_dead_had_is_the_next_ones() {
    on_a_machine_with_tun("what_the_dead_had_is_the_next_ones", |places| {
        let fake = Fake::start(Path::new(SOCKET));
        join(1, places);
        let first = next_container(places);
        kill(first, 1, places);
        fake.asked();
        join(2, places);
        assert_eq!(fake.asked(), ["join", "leave", "publish"], "the stack stays");
        assert_eq!(fake.names("n1"), ["name2"]);
        let published: Vec<_> = fake.books().rules.iter().map(|(id, _)| id.clone()).collect();
        assert_eq!(published, ["c2"]);
        let second = places.container.take();
        disconnect(&request(1, &[]), &surroundings(true), places).unwrap();
        assert_eq!(fake.names("n1"), ["name2"], "the late teardown changes nothing");
        places.container = Some(Place::at(another_namespace().unwrap()).unwrap());
        kill(second, 1, places);
        // On another network, where the port is refused: the dead one holds it.
        let refusal =
            json!({"error": "cannot listen on tcp 0.0.0.0:8080: Address already in use", "errno": 98});
        fake.instead("publish", refusal);
        fake.asked();
        let elsewhere =
            request(3, &[("/network/id", json!("n2")), ("/network/network_interface", json!("br8"))]);
        connect(&elsewhere, &surroundings(true), places).unwrap_err();
        assert_eq!(fake.asked(), ["join", "attach", "publish", "leave", "publish", "leave"]);
        assert_eq!(fake.names("n1"), [""; 0]);
    });
}

#[test]
fn a_tap_that_nobody_serves_is_replaced_and_a_strangers_stays() {
    on_a_machine_with_tun("a_tap_that_nobody_serves_is_replaced_and_a_strangers_stays", |places| {
        let fake = Fake::start(Path::new(SOCKET));
        join(1, places);
        let stranger = slipway_host::device::tap::Tap::open("vm0").unwrap();
        let (bridge, tap) =
            (places.host.netlink.interface("br7").unwrap(), places.host.netlink.interface("vm0").unwrap());
        places.host.netlink.run_one(&Request::set_master(tap.index, bridge.index)).unwrap();
        // It is held, but not by this uplink.
        let held = fake.books().networks.get_mut("n1").unwrap().tap.take();
        let old = places.host.netlink.interface("slipup0").unwrap().index;
        let first = next_container(places);
        join(2, places);
        assert_eq!(ports(places), ["slipup0", "veth0", "veth1", "vm0"]);
        assert_ne!(places.host.netlink.interface("slipup0").unwrap().index, old);
        drop(held);
        disconnect(&request(2, &[]), &surroundings(true), places).unwrap();
        places.container = first;
        disconnect(&request(1, &[]), &surroundings(true), places).unwrap();
        assert_eq!(ports(places), ["vm0"], "somebody else is still on it");
        drop(stranger);
    });
}

#[test]
fn a_setup_that_fails_leaves_nothing() {
    on_a_machine_with_tun("a_setup_that_fails_leaves_nothing", |places| {
        let before = state(places);
        let text = |number: u8, places: &mut Places| {
            connect(&request(number, &[]), &surroundings(true), places).unwrap_err().to_string()
        };
        assert!(text(1, places).starts_with("slipway uplink does not run (/run/uplink.sock: "));
        assert_eq!((state(places), records().len()), (before.clone(), 0));
        let fake = Fake::start(Path::new(SOCKET));
        for step in ["join", "attach", "publish"] {
            fake.instead(step, json!({"error": "no luck"}));
            assert!(text(1, places).ends_with(": no luck"), "{step}");
            assert_eq!((state(places), records().len()), (before.clone(), 0), "{step}");
            fake.books().instead.clear();
            assert!(fake.books().networks.is_empty() && fake.books().rules.is_empty(), "{step}");
        }
        // A failure in the midst of it: the name is taken inside.
        let dummy =
            |name| NewLink { name, mtu: None, mac: None, master: None, netns: None, kind: Kind::Dummy };
        let pair = NewLink { kind: Kind::Veth { peer: Box::new(dummy("eth9")) }, ..dummy("eth0") };
        places.container.as_mut().unwrap().netlink.run_one(&Request::create(&pair)).unwrap();
        let with_pair = state(places);
        assert!(text(1, places).starts_with("create veth pair: interface eth0 already exists"));
        assert_eq!((state(places), records().len()), (with_pair, 0));
        assert!(fake.books().networks.is_empty());
    });
}

#[test]
fn what_the_others_gain_from_a_setup_that_fails_stays() {
    on_a_machine_with_tun("what_the_others_gain_from_a_setup_that_fails_stays", |places| {
        let fake = Fake::start(Path::new(SOCKET));
        connect(&request(1, &[("/port_mappings", json!([]))]), &surroundings(true), places).unwrap();
        let _first = next_container(places);
        fake.forget();
        fake.instead("publish", json!({"error": "no luck"}));
        connect(&request(2, &[]), &surroundings(true), places).unwrap_err();
        assert_eq!(ports(places), ["slipup0", "veth0"]);
        assert_eq!(fake.names("n1"), ["name1"]);
        assert!(fake.books().networks["n1"].tap.is_some());
        assert_eq!(Record::lock(Path::new(RECORDS), "n1").unwrap().members.len(), 1);
    });
}

#[test]
fn a_container_that_is_set_up_twice_lives_on() {
    on_a_machine_with_tun("a_container_that_is_set_up_twice_lives_on", |places| {
        let fake = Fake::start(Path::new(SOCKET));
        join(1, places);
        let before = (state(places), fs::read(format!("{RECORDS}/n1.json")).unwrap());
        let renamed = [("/container_name", json!("other"))];
        let error = connect(&request(1, &renamed), &surroundings(true), places).unwrap_err().to_string();
        assert!(error.starts_with("create veth pair: interface eth0 already exists"), "{error}");
        assert_eq!((state(places), fs::read(format!("{RECORDS}/n1.json")).unwrap()), before);
        assert_eq!((fake.names("n1"), fake.books().rules.len()), (vec!["name1".to_owned()], 1));
        assert!(fake.books().networks["n1"].tap.is_some());
    });
}

#[test]
fn a_rootless_engine_publishes_itself() {
    on_a_machine_with_tun("a_rootless_engine_publishes_itself", |places| {
        let fake = Fake::start(Path::new(SOCKET));
        connect(&request(1, &[]), &surroundings(false), places).unwrap();
        assert_eq!(fake.asked(), ["join", "attach"]);
        // An uplink that was started anew is told of the ports all the same: nobody else will.
        fake.forget();
        let _first = next_container(places);
        connect(&request(2, &[]), &surroundings(false), places).unwrap();
        assert_eq!(fake.asked(), ["join", "attach", "join", "publish"]);
        assert_eq!(fake.books().rules[0].0, "c1");
    });
}

#[test]
fn a_container_is_on_two_networks() {
    on_a_machine_with_tun("a_container_is_on_two_networks", |places| {
        let fake = Fake::start(Path::new(SOCKET));
        join(1, places);
        let second = [
            ("/network/id", json!("n2")),
            ("/network/network_interface", json!("br8")),
            ("/network/subnets", json!([{"subnet": "10.90.0.0/24", "gateway": "10.90.0.1"}])),
            ("/network_options/interface_name", json!("eth1")),
            ("/network_options/static_ips", json!(["10.90.0.2"])),
        ];
        let before = state(places);
        connect(&request(1, &second), &surroundings(true), places).unwrap();
        assert_eq!(fake.asked(), ["join", "attach", "publish", "join", "attach", "publish"]);
        assert_eq!(fake.books().rules.len(), 1);
        disconnect(&request(1, &second), &surroundings(true), places).unwrap();
        assert_eq!(state(places), before, "the other is as it was");
        assert_eq!(records(), ["n1.json", "n1.lock"]);
    });
}

#[test]
fn a_network_without_a_gateway_needs_no_uplink() {
    on_a_machine("a_network_without_a_gateway_needs_no_uplink", |places| {
        let before = state(places);
        for changes in [
            vec![
                ("/network/subnets", json!([{"subnet": "10.89.0.0/24"}])),
                ("/network/internal", json!(true)),
                ("/network/dns_enabled", json!(false)),
                ("/network_options/static_ips", json!(["10.89.0.2"])),
            ],
            vec![("/network/subnets", json!([])), ("/network_options/static_ips", json!([]))],
        ] {
            let call = request(1, &changes);
            let status = connect(&call, &surroundings(true), places).unwrap();
            assert_eq!(status.dns_server_ips, Some(vec![]));
            assert_eq!(ports(places), ["veth0"]);
            disconnect(&call, &surroundings(true), places).unwrap();
            assert_eq!((state(places), records().len()), (before.clone(), 0));
        }
    });
}

#[test]
fn teardown_needs_neither_namespace_nor_uplink() {
    on_a_machine_with_tun("teardown_needs_neither_namespace_nor_uplink", |places| {
        let before = state(places);
        let fake = Fake::start(Path::new(SOCKET));
        join(1, places);
        drop(fake);
        // The namespace is there, but cannot be named any more: the pair is found by the record.
        let kept = places.container.take();
        disconnect(&request(1, &[]), &surroundings(true), places).unwrap();
        places.container = kept;
        assert_eq!((state(places), records().len()), (before, 0));
    });
}

#[test]
fn a_bridge_of_somebody_else_is_left_alone() {
    on_a_machine("a_bridge_of_somebody_else_is_left_alone", |places| {
        let fake = Fake::start(Path::new(SOCKET));
        let link = |name, kind| NewLink { name, mtu: None, mac: None, master: None, netns: None, kind };
        let bridge = link("br7", Kind::Bridge { vlan_filtering: false });
        places.host.netlink.run_one(&Request::create(&bridge)).unwrap();
        let index = places.host.netlink.interface("br7").unwrap().index;
        places
            .host
            .netlink
            .run_one(&Request::add_address(index, "198.51.100.1/24".parse().unwrap()))
            .unwrap();
        let wanted = "bridge interface br7 has addresses: it is not a network of slipway's; name another one";
        let call = request(1, &[]);
        let error = connect(&call, &surroundings(true), places).unwrap_err();
        assert_eq!(error.to_string(), wanted);
        assert_eq!(fake.asked(), [""; 0]);
        let error = disconnect(&call, &surroundings(true), places).unwrap_err();
        assert_eq!(error.to_string(), wanted);
        assert!(places.host.netlink.interface("br7").is_ok());
        let pair = link("br9", Kind::Veth { peer: Box::new(link("peer", Kind::Dummy)) });
        places.host.netlink.run_one(&Request::create(&pair)).unwrap();
        let error = connect(
            &request(1, &[("/network/network_interface", json!("br9"))]),
            &surroundings(true),
            places,
        );
        let wanted = "bridge interface br9 already exists but is a veth interface";
        assert_eq!(error.unwrap_err().to_string(), wanted);
    });
}

#[test]
fn requests_are_checked_before_anything_is_touched() {
    for (changes, text) in [
        (vec![("/network/network_interface", json!(null))], "no bridge interface name given"),
        (vec![("/network/network_interface", json!("a/b"))], "invalid bridge interface name \"a/b\""),
        (vec![("/network_options/interface_name", json!(""))], "no container interface name given"),
        (vec![("/network_options/static_ips", json!(null))], "no static ips provided"),
        (
            vec![("/network_options/static_ips", json!(["10.1.1.1"]))],
            "not all static IPs matched a subnet: expected 1, got 0",
        ),
        (vec![("/network_options/static_mac", json!("aa:bb"))], "invalid mac length for address: aa:bb"),
    ] {
        assert_eq!(request(1, &changes).parse().unwrap_err().to_string(), text);
    }
    let with = |key: &str, value: &str| {
        let mut call = request(1, &[]);
        call.network.options = Some([(key.to_owned(), value.to_owned())].into_iter().collect());
        let parsed =
            call.parse().map(|wanted| (wanted.plan.mtu, wanted.plan.default_route, wanted.plan.metric));
        parsed.map_err(|error| error.to_string())
    };
    assert_eq!(with("mtu", "0"), Ok((65520, true, 100)));
    assert_eq!(with("mtu", "1280"), Ok((1280, true, 100)));
    assert_eq!(with("no_default_route", "true"), Ok((65520, false, 100)));
    assert_eq!(with("metric", "7"), Ok((65520, true, 7)));
    for (value, text) in [
        ("1279", "mtu must be between 1280 and 65520, not 1279"),
        ("65521", "mtu must be between 1280 and 65520, not 65521"),
        ("x", "unable to parse \"mtu\": invalid digit found in string"),
    ] {
        assert_eq!(with("mtu", value), Err(text.to_owned()));
    }
}

#[test]
fn requests_with_a_few_bytes_changed_break_no_promise() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/plugin_request");
    let files = fs::read_dir(corpus).unwrap().map(|file| fs::read(file.unwrap().path()).unwrap());
    // Those that a few bytes can be taken from.
    let seeds: Vec<_> = files.filter(|seed| seed.len() > 4).collect();
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut draw = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % below
    };
    for _ in 0..4000 {
        let mut data = seeds[draw(seeds.len())].clone();
        for _ in 0..=draw(3) {
            let (at, from) = (draw(data.len()), draw(data.len()));
            match draw(3) {
                0 => data[at] = b"0123456789\"{}[],:-./ef"[draw(22)],
                1 => data[at] = data[from],
                _ => drop(data.remove(at)),
            }
        }
        crate::fuzz::plugin_request(&data);
    }
}
