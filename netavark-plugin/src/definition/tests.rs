//! The definitions that callers send, and each complaint.

use super::*;
use proptest::prelude::*;
use serde_json::{Value, json};

const ID: &str = "2f259bab93aaaaa2542ba43ef33eb990d0999ee1b9924b557b7be53c0b7a1bb9";

/// A request for a network with `changes` made to a plain bridge.
fn request(changes: &Value) -> Value {
    let mut network = json!({"name": "net1", "id": ID, "driver": "bridge",
        "dns_enabled": false, "internal": false, "ipv6_enabled": false});
    for (key, value) in changes.as_object().unwrap() {
        network[key] = value.clone();
    }
    json!({
        "network": network,
        "used": {"interfaces": ["podman1", "taken0"], "names": {"other": ID}, "subnets": ["10.89.0.0/24", "10.2.0.0/16"]},
        "options": {"subnet_pools": [{"base": "10.89.0.0/16", "size": 24}, {"base": "10.90.0.0/15", "size": 24}],
            "default_interface_name": "podman", "check_used_subnets": true},
    })
}

fn run(request: Value) -> Result<Value, String> {
    let request: Request = serde_json::from_value(request).map_err(|error| error.to_string())?;
    let interfaces = ["lo", "eth0", "podman2"].map(str::to_owned);
    let surroundings = Surroundings {
        interfaces: Some(&interfaces),
        plugin_directories: &[],
        random: || [1, 2, 3, 4, 5, 6, 7],
        now: Duration::from_secs(1_800_000_000),
    };
    let network = complete(request, &surroundings).map_err(|error| error.to_string())?;
    Ok(serde_json::to_value(network).unwrap())
}

fn made(changes: &Value) -> Value {
    run(request(changes)).unwrap()
}

fn refused(changes: &Value) -> String {
    run(request(changes)).unwrap_err()
}

#[test]
fn a_plain_bridge_gets_all_that_was_left_open() {
    assert_eq!(
        made(&json!({})),
        json!({
            "name": "net1", "id": ID, "driver": "bridge", "network_interface": "podman3",
            "created": "2027-01-15T08:00:00Z", "subnets": [{"subnet": "10.89.1.0/24", "gateway": "10.89.1.1"}],
            "ipv6_enabled": false, "internal": false, "dns_enabled": false, "ipam_options": {"driver": "host-local"},
        })
    );
}

#[test]
fn the_missing_family_is_added() {
    let net = made(&json!({"ipv6_enabled": true}));
    assert_eq!(net["subnets"][0]["subnet"], "10.89.1.0/24");
    assert_eq!(
        net["subnets"][1],
        json!({"subnet": "fd01:203:405:607::/64", "gateway": "fd01:203:405:607::1"})
    );
    let net = made(&json!({"ipv6_enabled": true, "subnets": [{"subnet": "fd00::/64"}]}));
    assert_eq!(net["subnets"][0]["gateway"], "fd00::1");
    assert_eq!(net["subnets"][1]["subnet"], "10.89.1.0/24");
    let net = made(&json!({"subnets": [{"subnet": "fd00::/64"}]}));
    assert_eq!(net["ipv6_enabled"], true);
    assert_eq!(net["subnets"].as_array().unwrap().len(), 1);
}

#[test]
fn an_internal_network_has_a_gateway_only_for_names() {
    let gateway = |net: &Value| net["subnets"][0].get("gateway").cloned();
    assert_eq!(gateway(&made(&json!({"internal": true}))), None);
    assert_eq!(gateway(&made(&json!({"internal": true, "dns_enabled": true}))), Some(json!("10.89.1.1")));
}

#[test]
fn names_and_ids_are_checked() {
    for (changes, text) in [
        (json!({"name": ""}), "Network name must be supplied"),
        (
            json!({"name": "bad!"}),
            "Invalid characters in network name \"bad!\": must match [a-zA-Z0-9][a-zA-Z0-9_.-]*",
        ),
        (json!({"name": "other"}), "network already exists other"),
        (json!({"id": ""}), "Network id must be supplied"),
        (json!({"network_interface": "taken0"}), "bridge name taken0 already in use"),
    ] {
        assert_eq!(refused(&changes), text);
    }
    for changes in [
        json!({"name": ".a"}),
        json!({"id": "12"}),
        json!({"id": ID.replace('2', "g")}),
        json!({"network_interface": ""}),
        json!({"network_interface": ".."}),
        json!({"network_interface": "a b"}),
        json!({"network_interface": "a/b"}),
        json!({"network_interface": "-a"}),
        json!({"network_interface": "sixteen-letters-"}),
    ] {
        refused(&changes);
    }
    // A link that is shared may have a name and subnets that others have.
    for options in [json!({"vlan": "5"}), json!({"mode": "unmanaged"})] {
        let net = made(
            &json!({"network_interface": "taken0", "options": options, "subnets": [{"subnet": "10.2.0.0/24"}]}),
        );
        assert_eq!(net["network_interface"], "taken0");
    }
}

#[test]
fn a_chosen_name_is_as_good_as_a_given_one() {
    for prefix in [json!("p\u{7f}d"), json!(""), json!("a b"), json!("fifteen-letters"), json!(null)] {
        let mut request = request(&json!({}));
        request["options"]["default_interface_name"] = prefix.clone();
        assert!(run(request).is_err(), "{prefix}");
    }
}

#[test]
fn bridge_options_are_checked_and_translated() {
    let net = made(
        &json!({"options": {"com.docker.network.driver.mtu": "1400", "com.docker.network.bridge.name": "br7",
        "isolate": "strict", "metric": "7", "no_default_route": "true", "vrf": "red", "outbound_addr4": "192.0.2.1"}}),
    );
    assert_eq!(net["network_interface"], "br7");
    assert_eq!(net["options"]["mtu"], "1400");
    for (options, text) in [
        (json!({"odd": "1"}), "unsupported bridge network option: odd"),
        (json!({"mtu": "x"}), "unable to parse \"mtu\": invalid digit found in string"),
        (json!({"vlan": "4095"}), "vlan must be between 0 and 4094"),
        (json!({"isolate": "x"}), "invalid isolate option \"x\""),
        (json!({"mode": "x"}), "invalid bridge mode \"x\""),
        (
            json!({"outbound_addr6": "1.1.1.1"}),
            "unable to parse \"outbound_addr6\": invalid IPv6 address syntax",
        ),
    ] {
        assert_eq!(refused(&json!({"options": options})), text);
    }
}

#[test]
fn whoever_gives_out_addresses_decides_on_subnets() {
    let net = made(&json!({"ipam_options": {"driver": "none"}, "dns_enabled": true}));
    assert_eq!((&net["dns_enabled"], net.get("subnets")), (&json!(false), None));
    assert_eq!(made(&json!({"ipam_options": {"driver": "dhcp"}})).get("subnets"), None);
    let subnets = json!([{"subnet": "10.7.0.0/24"}]);
    for (changes, text) in [
        (
            json!({"ipam_options": {"driver": "none"}, "subnets": subnets}),
            "None ipam driver is set but subnets are given",
        ),
        (json!({"ipam_options": {"driver": ""}}), "Unsupported ipam driver: "),
        (json!({"driver": "ipvlan"}), "ipam driver dhcp is not supported with ipvlan"),
        (
            json!({"driver": "ipvlan", "ipam_options": {"driver": "dhcp"}}),
            "ipam driver dhcp is not supported with ipvlan",
        ),
        (
            json!({"driver": "macvlan", "ipam_options": {"driver": "dhcp"}, "subnets": subnets}),
            "ipam driver dhcp set but subnets are set",
        ),
    ] {
        assert_eq!(refused(&changes), text);
    }
    refused(&json!({"driver": "macvlan", "ipam_options": {"driver": "host-local"}}));
    let net = made(&json!({"driver": "macvlan", "dns_enabled": true, "network_interface": "eth0"}));
    assert_eq!((&net["ipam_options"]["driver"], &net["dns_enabled"]), (&json!("dhcp"), &json!(false)));
    let net = made(
        &json!({"driver": "ipvlan", "subnets": [{"subnet": "10.2.0.0/24"}], "options": {"mode": "l3s"}}),
    );
    assert_eq!(net["ipam_options"]["driver"], "host-local");
}

#[test]
fn parents_and_their_options_are_checked() {
    let subnets = json!([{"subnet": "10.7.0.0/24"}]);
    for (driver, interface, options, text) in [
        ("macvlan", "eth9", json!({}), "parent interface eth9 does not exist"),
        ("macvlan", "eth0", json!({"vlan": "3"}), "unsupported macvlan network option: vlan"),
        ("macvlan", "eth0", json!({"mode": "l2"}), "invalid macvlan mode \"l2\""),
        ("ipvlan", "eth0", json!({"mode": "vepa"}), "invalid ipvlan mode \"vepa\""),
        ("ipvlan", "eth0", json!({"bclim": "3"}), "unsupported ipvlan network option: bclim"),
        (
            "macvlan",
            "eth0",
            json!({"bclim": "x"}),
            "unable to parse \"bclim\": invalid digit found in string",
        ),
    ] {
        let changes =
            json!({"driver": driver, "network_interface": interface, "options": options, "subnets": subnets});
        assert_eq!(refused(&changes), text);
    }
}

#[test]
fn subnets_and_their_gateways_are_checked() {
    for (subnets, text) in [
        (
            json!([{"subnet": "10.2.3.0/24"}]),
            "subnet 10.2.3.0/24 is already used on the host or by another config",
        ),
        (
            json!([{"subnet": "10.7.0.0/24"}, {"subnet": "10.7.0.0/24"}]),
            "duplicate subnet defined: 10.7.0.0/24",
        ),
        (
            json!([{"subnet": "10.6.0.0/15"}, {"subnet": "10.7.0.0/24"}]),
            "overlapping subnets: 10.6.0.0/15 and 10.7.0.0/24",
        ),
        (
            json!([{"subnet": "10.7.0.0/24", "gateway": "10.8.0.1"}]),
            "gateway 10.8.0.1 not in subnet 10.7.0.0/24",
        ),
        (
            json!([{"subnet": "10.7.0.0/31"}]),
            "could not create gateway for subnet 10.7.0.0/31 because it has a 31 or greater subnet prefix",
        ),
        (
            json!([{"subnet": "fd00::/128"}]),
            "could not create gateway for subnet fd00::/128 because it has a 128 or greater subnet prefix",
        ),
        (
            json!([{"subnet": "10.7.0.0/24", "lease_range": {"start_ip": "10.8.0.1"}}]),
            "lease range start_ip 10.8.0.1 not in subnet 10.7.0.0/24",
        ),
        (
            json!([{"subnet": "10.7.0.0/24", "lease_range": {"end_ip": "10.8.0.1"}}]),
            "lease range end_ip 10.8.0.1 not in subnet 10.7.0.0/24",
        ),
    ] {
        assert_eq!(refused(&json!({"subnets": subnets})), text);
    }
    for range in [json!({"start_ip": "x"}), json!({"start_ip": "10.7.0.9", "end_ip": "10.7.0.3"})] {
        refused(&json!({"subnets": [{"subnet": "10.7.0.0/24", "lease_range": range}]}));
    }
    let range = json!({"start_ip": "10.7.0.3", "end_ip": "10.7.0.9"});
    let net = made(&json!({"subnets": [{"subnet": "10.7.0.5/24", "lease_range": range}]}));
    assert_eq!(
        net["subnets"][0],
        json!({"subnet": "10.7.0.5/24", "gateway": "10.7.0.1", "lease_range": range})
    );
}

#[test]
fn routes_are_checked() {
    for (route, text) in [
        (json!({"destination": "10.9.0.1/24", "gateway": "10.89.1.2"}), "route destination invalid"),
        (json!({"destination": "10.9.0.0/24"}), "route 10.9.0.0/24 requires a gateway for type unicast"),
        (
            json!({"destination": "10.9.0.0/24", "gateway": "10.89.1.2", "route_type": "blackhole"}),
            "route 10.9.0.0/24 must not have a gateway for type blackhole",
        ),
        (json!({"destination": "10.9.0.0/24", "route_type": "odd"}), "invalid route type \"odd\""),
    ] {
        assert_eq!(refused(&json!({"routes": [route]})), text);
    }
    let routes = json!([{"destination": "10.9.0.0/24", "gateway": "10.89.1.2", "metric": 5},
        {"destination": "10.10.0.0/24", "route_type": "prohibit"}]);
    assert_eq!(made(&json!({"routes": routes}))["routes"], routes);
}

#[test]
fn servers_need_names() {
    let servers = json!(["1.1.1.1"]);
    assert_eq!(
        refused(&json!({"network_dns_servers": servers})),
        "cannot set NetworkDNSServers if DNS is not enabled for the network"
    );
    let net = made(&json!({"network_dns_servers": servers, "dns_enabled": true}));
    assert_eq!(net["network_dns_servers"], servers);
}

#[test]
fn other_drivers_need_a_plugin() {
    assert_eq!(refused(&json!({"driver": "odd"})), "plugin directory not provided");
    let request: Request = serde_json::from_value(request(&json!({"driver": "odd"}))).unwrap();
    let directories = ["/nonexistent".into()];
    let surroundings = Surroundings {
        interfaces: None,
        plugin_directories: &directories,
        random: Default::default,
        now: Duration::ZERO,
    };
    assert_eq!(
        complete(request, &surroundings).unwrap_err().to_string(),
        "plugin for driver \"odd\" not found in plugin directories"
    );
}

#[test]
fn pools_are_searched_without_walking_every_subnet() {
    let with = |pools: Value, used: Value| {
        let mut request = request(&json!({}));
        request["options"]["subnet_pools"] = pools;
        request["used"]["subnets"] = used;
        run(request).map(|net| net["subnets"][0]["subnet"].as_str().unwrap().to_owned())
    };
    let none = "could not find free subnet from subnet pools";
    assert_eq!(with(json!(null), json!(null)).unwrap_err(), none);
    assert_eq!(with(json!([{"base": "fd00::/8", "size": 64}]), json!([])).unwrap_err(), none);
    assert_eq!(with(json!([{"base": "10.0.0.0/8", "size": 32}]), json!(["10.0.0.0/8"])).unwrap_err(), none);
    assert_eq!(
        with(json!([{"base": "0.0.0.0/0", "size": 30}]), json!(["0.0.0.0/1"])).unwrap(),
        "128.0.0.0/30"
    );
    assert_eq!(
        with(json!([{"base": "255.255.255.0/24", "size": 24}]), json!(["255.255.255.255/32"])).unwrap_err(),
        none
    );
    assert_eq!(
        with(json!([{"base": "10.89.0.7/16", "size": 20}]), json!(["10.89.0.9/32"])).unwrap(),
        "10.89.16.0/20"
    );
    for size in [8, 33, 300] {
        assert!(
            with(json!([{"base": "10.89.0.0/16", "size": size}]), json!([])).unwrap_err().contains("size")
        );
    }
}

proptest! {
    /// Whatever is taken: what is chosen lies in the pool and touches nothing of it.
    #[test]
    fn what_is_chosen_is_free(taken in prop::collection::vec((any::<u16>(), 16_u8..=32), 0..40), size in 16_u32..=32) {
        let taken: Vec<String> = taken.iter().map(|(low, len)| format!("10.89.{}.{}/{len}", low >> 8, low & 255)).collect();
        let mut request = request(&json!({}));
        request["options"]["subnet_pools"] = json!([{"base": "10.89.0.0/16", "size": size}]);
        request["used"]["subnets"] = json!(taken);
        request["network"]["internal"] = json!(true);
        match run(request) {
            Ok(net) => {
                let chosen: IpNet = net["subnets"][0]["subnet"].as_str().unwrap().parse().unwrap();
                prop_assert_eq!(u32::from(chosen.prefix_len()), size);
                prop_assert!("10.89.0.0/16".parse::<IpNet>().unwrap().contains(&chosen));
                for net in taken {
                    let net: IpNet = net.parse().unwrap();
                    prop_assert!(!chosen.contains(&net.trunc()) && !net.contains(&chosen));
                }
            }
            Err(error) => prop_assert_eq!(error, "could not find free subnet from subnet pools"),
        }
    }
}
