//! Requests that are refused before anything is touched, and what the others come to.

use super::*;
use crate::testing::{driver, no_firewall, on_a_machine, options, teardown as disconnect};

const ONE: &str = r#","network_interface":"br7","subnets":[{"subnet":"10.88.0.0/16","gateway":"10.88.0.1"}]"#;

fn refusal(driver_name: &str, rest: &str, per_network: &str) -> String {
    let options = options(driver_name, r#""10.88.0.2""#, rest, per_network);
    let result = driver(&options).and_then(|mut driver| driver.validate());
    result.map_or_else(|error| error.to_string(), |()| "fine".to_owned())
}

fn with_option(driver_name: &str, key: &str, value: &str) -> String {
    refusal(driver_name, &format!(r#"{ONE},"options":{{"{key}":"{value}"}}"#), "")
}

#[test]
fn options_are_checked_before_anything_is_touched() {
    for (driver, key, value, text) in [
        ("bridge", "mode", "", "fine"),
        ("bridge", "mode", "managed", "fine"),
        ("bridge", "mode", "odd", "invalid bridge mode \"odd\""),
        ("bridge", "isolate", "odd", "invalid isolate option \"odd\""),
        ("bridge", "mtu", "big", "unable to parse \"mtu\": invalid digit found in string"),
        ("bridge", "metric", "-1", "unable to parse \"metric\": invalid digit found in string"),
        ("bridge", "vlan", "4095", "vlan must be between 0 and 4094"),
        ("bridge", "vlan", "x", "unable to parse \"vlan\": invalid digit found in string"),
        (
            "bridge",
            "no_default_route",
            "1",
            "unable to parse \"no_default_route\": provided string was not `true` or `false`",
        ),
        (
            "bridge",
            "outbound_addr4",
            "fd00::1",
            "unable to parse \"outbound_addr4\": invalid IPv4 address syntax",
        ),
        ("bridge", "outbound_addr6", "::1", "fine"),
        ("bridge", "unknown", "ignored", "fine"),
        ("macvlan", "mode", "odd", "invalid macvlan mode \"odd\""),
        ("macvlan", "mode", "source", "fine"),
        ("macvlan", "bclim", "x", "unable to parse \"bclim\": invalid digit found in string"),
        ("macvlan", "bclim", "-1", "fine"),
        ("ipvlan", "mode", "l4", "invalid ipvlan mode \"l4\""),
        ("ipvlan", "mode", "l3s", "fine"),
    ] {
        assert_eq!(with_option(driver, key, value), text, "{driver} {key}={value}");
    }
}

#[test]
fn names_and_addresses_are_checked_before_anything_is_touched() {
    let dhcp = format!(r#"{ONE},"ipam_options":{{"driver":"dhcp"}}"#);
    let elsewhere = r#","network_interface":"../br7""#;
    for (driver, rest, per_network, text) in [
        ("bridge", "", "", "no bridge interface name given"),
        ("bridge", r#","network_interface":"""#, "", "no bridge interface name given"),
        ("bridge", elsewhere, "", "invalid bridge interface name \"../br7\""),
        ("bridge", ONE, r#","static_mac":"aa:bb""#, "invalid mac length for address: aa:bb"),
        ("bridge", &dhcp, "", "cannot use dhcp ipam driver without using the option mode=unmanaged"),
        ("ipvlan", &dhcp, "", "ipam driver dhcp is not supported with ipvlan"),
        ("macvlan", &dhcp, "", "fine"),
        ("other", ONE, "", "unknown network driver \"other\""),
    ] {
        assert_eq!(refusal(driver, rest, per_network), text, "{driver}{rest}");
    }
}

#[test]
fn nothing_is_taken_for_a_bridge_that_is_none() {
    on_a_machine("nothing_is_taken_for_a_bridge_that_is_none", |places| {
        use slipway_host::netlink::{Kind, NewLink, Request};
        let firewall = no_firewall();
        let link = |name, kind| NewLink { name, mtu: None, mac: None, master: None, netns: None, kind };
        let pair = link("br7", Kind::Veth { peer: Box::new(link("peer", Kind::Dummy)) });
        places.host.netlink.run_one(&Request::create(&pair)).unwrap();
        let mut text = |rest: &str| {
            let options = options("bridge", r#""10.88.0.2""#, rest, "");
            let result = driver(&options).unwrap().setup(places, &firewall);
            result.map_or_else(|error| error.to_string(), |_| "fine".to_owned())
        };
        assert_eq!(text(ONE), "bridge interface br7 already exists but is a veth interface");
        let other = ONE.replace("br7", "br8");
        assert_eq!(
            text(&format!(r#"{other},"options":{{"mode":"unmanaged"}}"#)),
            "in unmanaged mode, the bridge must already exist on the host: Netlink error: No such device (os error 19)"
        );
        assert_eq!(
            text(&format!(r#"{other},"options":{{"vrf":"none7"}}"#)),
            "get vrf to set up bridge interface: Netlink error: No such device (os error 19)"
        );
        // Teardown must not delete what is no bridge of ours.
        let options = options("bridge", r#""10.88.0.2""#, ONE, "");
        assert!(disconnect(&options, places).is_err());
        assert!(places.host.netlink.interface("br7").is_ok());
    });
}

#[test]
fn names_are_served_at_the_gateways_or_at_an_unmanaged_bridge() {
    on_a_machine("names_are_served_at_the_gateways_or_at_an_unmanaged_bridge", |places| {
        use slipway_host::netlink::{Kind, NewLink, Request};
        let firewall = no_firewall();
        let mut options = options("bridge", r#""10.88.0.2""#, ONE, r#","aliases":["a","b"]"#);
        options.network_info[0].dns_enabled = true;
        let mut ours = driver(&options).unwrap();
        let outcome = ours.setup(places, &firewall).unwrap();
        let entry = outcome.dns.unwrap();
        assert_eq!(entry.names, ["someName", "a", "b"]);
        assert_eq!(entry.listen, ["10.88.0.1".parse::<IpAddr>().unwrap()]);
        assert_eq!(outcome.status.dns_server_ips.unwrap(), entry.listen);
        assert_eq!(outcome.status.dns_search_domains.unwrap(), ["dns.podman"]);
        disconnect(&options, places).unwrap();

        options.network_info[0].options =
            Some([("mode".to_owned(), "unmanaged".to_owned())].into_iter().collect());
        let bridge = NewLink {
            name: "br7",
            mtu: None,
            mac: None,
            master: None,
            netns: None,
            kind: Kind::Bridge { vlan_filtering: false },
        };
        let host = &mut places.host.netlink;
        host.run_one(&Request::create(&bridge)).unwrap();
        let index = host.interface("br7").unwrap().index;
        let error = driver(&options).unwrap().setup(places, &firewall).unwrap_err();
        let opening = "bridge 'br7' in unmanaged mode has no usable IP addresses. Aardvark-dns requires";
        assert!(error.to_string().starts_with(opening), "{error}");
        let add = Request::add_address(index, "10.88.0.100/16".parse().unwrap());
        places.host.netlink.run_one(&add).unwrap();
        let outcome = driver(&options).unwrap().setup(places, &firewall).unwrap();
        assert_eq!(outcome.dns.unwrap().listen, ["10.88.0.100".parse::<IpAddr>().unwrap()]);
        disconnect(&options, places).unwrap();
        assert!(places.host.netlink.interface("br7").is_ok(), "it is not ours");
    });
}
