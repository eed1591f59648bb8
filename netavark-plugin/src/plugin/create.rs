//! `create`: completes and checks the definition of a new network.
//!
//! The caller tells nothing of its other networks, and compares with them when we are done. So choices must be such as
//! hardly anybody else makes: names and subnets are derived from the network's ID, which is random; and what can be
//! found out is heeded ([`used`]). Everything else is as for a bridge network, whose code it is.

use super::request::{check_mtu, dhcp};
use super::{PROGRAM, used};
use crate::definition::{self, Pool, Used};
use crate::error::{Error, Result};
use crate::input;
use crate::spec::{Map, Network, validate};
use ipnet::{IpNet, Ipv4Net};
use std::net::Ipv4Addr;

/// What may be asked for, ours and as another engine calls it.
const OPTIONS: [&str; 5] =
    ["mtu", "metric", "no_default_route", "com.docker.network.driver.mtu", "com.docker.network.bridge.name"];

/// Where subnets come from, as container engines have it, in sizes of /24.
const POOLS: [Ipv4Net; 3] = [
    Ipv4Net::new_assert(Ipv4Addr::new(10, 89, 0, 0), 16),
    Ipv4Net::new_assert(Ipv4Addr::new(10, 90, 0, 0), 15),
    Ipv4Net::new_assert(Ipv4Addr::new(10, 92, 0, 0), 14),
];
const POOL_SIZE: u32 = 24;

/// The beginning of a bridge's name.
const BRIDGE: &str = "slip";
/// How many digits of the ID follow.
const BRIDGE_DIGITS: usize = 8;

pub(super) fn run() -> Result<Network> {
    let network: Network = input::load(None, "network definition")?;
    let used = used::find()?;
    complete(network, |network| {
        let pools = pools(&network);
        definition::define(network, used, pools, BRIDGE)
    })
}

/// Completes the definition by `define`, which knows of bridges.
fn complete(mut network: Network, define: impl FnOnce(Network) -> Result<Network>) -> Result<Network> {
    let given = network.options.as_ref();
    if let Some(key) = given.into_iter().flat_map(Map::keys).find(|key| !OPTIONS.contains(&key.as_str())) {
        return Err(Error::msg(format!("unsupported {PROGRAM} network option: {key}")));
    }
    if network.ipam_driver() == Some("dhcp") {
        return Err(dhcp());
    }
    let named = given.is_some_and(|options| options.contains_key("com.docker.network.bridge.name"));
    if network.network_interface.as_deref().is_none_or(str::is_empty) && !named {
        let digits: String = network.id.chars().take(BRIDGE_DIGITS).collect();
        network.network_interface = Some(format!("{BRIDGE}{digits}"));
    }
    let (driver, created) = (network.driver.clone(), network.created.take());
    network.driver = "bridge".to_owned();
    let mut network = define(network)?;
    (network.driver, network.created) = (driver, created);
    let mtu = validate::option::<u32>(network.options.as_ref(), "mtu")?;
    check_mtu(mtu.filter(|mtu| *mtu != 0), &network)?;
    Ok(network)
}

/// Subnets to choose from: first some that follow from the ID, then all in their order.
fn pools(network: &Network) -> Vec<Pool> {
    let all: u32 = POOLS.iter().map(count).sum();
    let digits = network.id.as_bytes().chunks(8).filter_map(|digits| std::str::from_utf8(digits).ok());
    let drawn = digits
        .filter_map(|digits| u32::from_str_radix(digits, 16).ok())
        .filter_map(|number| number.checked_rem(all))
        .filter_map(nth);
    let whole = POOLS.iter().map(|pool| IpNet::V4(*pool));
    drawn.map(IpNet::V4).chain(whole).map(|base| Pool { base, size: POOL_SIZE }).collect()
}

/// How many subnets a pool has.
fn count(pool: &Ipv4Net) -> u32 {
    1 << POOL_SIZE.saturating_sub(u32::from(pool.prefix_len()))
}

/// The subnet with this number, of all pools.
fn nth(mut number: u32) -> Option<Ipv4Net> {
    for pool in &POOLS {
        match number.checked_sub(count(pool)) {
            Some(beyond) => number = beyond,
            None => {
                let offset = number.checked_shl(32 - POOL_SIZE)?;
                let address = u32::from(pool.network()).checked_add(offset)?;
                return Ipv4Net::new(address.into(), u8::try_from(POOL_SIZE).ok()?).ok();
            }
        }
    }
    None
}

/// For the fuzzer: completing what was completed changes nothing, and name, ID and driver are as they were.
pub fn fuzz(data: &[u8]) {
    let Ok(network) = serde_json::from_slice::<Network>(data) else { return };
    let define = |network: Network| {
        let pools = pools(&network);
        let request = definition::request(network, Used::default(), pools, BRIDGE);
        definition::complete(request, &definition::nowhere())
    };
    let Ok(completed) = complete(network.clone(), define) else { return };
    let same = |network: &Network| {
        (network.name.clone(), network.id.clone(), network.driver.clone(), network.created.clone())
    };
    assert_eq!(same(&completed), same(&network), "these are the caller's");
    assert_eq!(complete(completed.clone(), define).ok(), Some(completed), "complete stays complete");
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const ID: &str = "2f259bab93aaaaa2542ba43ef33eb990d0999ee1b9924b557b7be53c0b7a1bb9";

    fn create(changes: &Value, used: Used) -> Result<Value, String> {
        let mut network = json!({"name": "net1", "id": ID, "driver": "slipway", "created": "2024-05-06T07:08:09Z",
            "dns_enabled": true, "internal": false, "ipv6_enabled": false});
        for (key, value) in changes.as_object().unwrap() {
            network[key] = value.clone();
        }
        let network = serde_json::from_value(network).map_err(|error| error.to_string())?;
        let completed = complete(network, |network| {
            let pools = pools(&network);
            definition::complete(definition::request(network, used, pools, BRIDGE), &definition::nowhere())
        });
        completed.map(|network| serde_json::to_value(network).unwrap()).map_err(|error| error.to_string())
    }

    fn made(changes: &Value) -> Value {
        create(changes, Used::default()).unwrap()
    }

    #[test]
    fn what_was_left_open_follows_from_the_id() {
        let network = made(&json!({"ipv6_enabled": true, "options": {"mtu": "1400"}}));
        assert_eq!(
            network,
            json!({"name": "net1", "id": ID, "driver": "slipway", "created": "2024-05-06T07:08:09Z",
                "network_interface": "slip2f259bab", "dns_enabled": true, "internal": false, "ipv6_enabled": true,
                "subnets": [{"subnet": "10.94.171.0/24", "gateway": "10.94.171.1"},
                    {"subnet": "fd07:707:707:707::/64", "gateway": "fd07:707:707:707::1"}],
                "options": {"mtu": "1400"}, "ipam_options": {"driver": "host-local"}})
        );
        // Taken by somebody who was found: the next draw from the ID.
        let used = Used { subnets: vec!["10.94.171.128/25".parse().unwrap()], ..Used::default() };
        assert_eq!(create(&json!({}), used).unwrap()["subnets"][0]["subnet"], "10.92.162.0/24");
        let used = Used { interfaces: vec!["slip2f259bab".into()], ..Used::default() };
        assert_eq!(create(&json!({}), used).unwrap_err(), "bridge name slip2f259bab already in use");
    }

    #[test]
    fn what_was_given_stays() {
        let given = json!({"network_interface": "br7", "subnets": [{"subnet": "198.51.100.0/24", "gateway": "198.51.100.9"}],
            "options": {"no_default_route": "true", "metric": "5"}, "network_dns_servers": ["192.0.2.53"]});
        let network = made(&given);
        for (key, value) in given.as_object().unwrap() {
            assert_eq!(&network[key], value);
        }
        let docker = json!({"options": {"com.docker.network.driver.mtu": "1400", "com.docker.network.bridge.name": "br9"}});
        let network = made(&docker);
        assert_eq!(
            (&network["network_interface"], &network["options"]),
            (&json!("br9"), &json!({"mtu": "1400"}))
        );
        let network = made(&json!({"internal": true, "dns_enabled": false}));
        assert_eq!(network["subnets"][0].get("gateway"), None);
        let network = made(&json!({"ipam_options": {"driver": "none"}}));
        assert_eq!((&network["dns_enabled"], network.get("subnets")), (&json!(false), None));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (changes, text) in [
            (json!({"options": {"vlan": "7"}}), "unsupported slipway network option: vlan"),
            (json!({"options": {"mtu": "70000"}}), "mtu must be between 68 and 65520, not 70000"),
            (
                json!({"ipv6_enabled": true, "options": {"mtu": "1000"}}),
                "mtu must be between 1280 and 65520, not 1000",
            ),
            (
                json!({"ipam_options": {"driver": "dhcp"}}),
                "the driver slipway gives out no addresses by dhcp: use the ipam driver host-local",
            ),
            (json!({"id": "7"}), "Network id must be 64 hexadecimal digits, not \"7\""),
            (
                json!({"network_interface": "sixteen-bytes-xx"}),
                "Interface name \"sixteen-bytes-xx\" is too long: the kernel takes 15 characters",
            ),
            (
                json!({"subnets": [{"subnet": "198.51.100.0/24", "gateway": "192.0.2.1"}]}),
                "gateway 192.0.2.1 not in subnet 198.51.100.0/24",
            ),
        ] {
            assert_eq!(create(&changes, Used::default()).unwrap_err(), text);
        }
    }

    #[test]
    fn every_number_is_a_subnet_of_the_pools() {
        assert_eq!(nth(0).unwrap().to_string(), "10.89.0.0/24");
        assert_eq!(nth(255).unwrap().to_string(), "10.89.255.0/24");
        assert_eq!(nth(256).unwrap().to_string(), "10.90.0.0/24");
        assert_eq!(nth(1791).unwrap().to_string(), "10.95.255.0/24");
        assert_eq!(nth(1792), None);
    }
}
