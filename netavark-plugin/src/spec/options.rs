//! The request of `setup` and `teardown`: which container, which networks, which ports.
//!
//! Two generations of callers send it. The older one (1.x contract) has an object of networks, the newer one (2.x) an
//! array whose entries carry their name. The shape therefore says whose defaults are expected, see [`Compat`].

use super::{Map, Network};
use crate::error::{Error, Result};
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use std::ffi::OsStr;
use std::fmt;
use std::net::IpAddr;

/// The environment variable that overrides what the shape of the request says.
pub const COMPAT_VARIABLE: &str = "NETAVARK_COMPAT";

/// Whose defaults are meant where the generations differ: isolation, the metric of macvlan, the matching of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Compat {
    /// The 1.x contract (1.17), for Podman 5.
    One,
    /// The 2.x contract, for Podman 6.
    Two,
}

impl Compat {
    /// What the override says, if there is one.
    ///
    /// # Errors
    /// When it is neither 1 nor 2.
    pub fn from_override(value: Option<&OsStr>) -> Result<Option<Self>> {
        match value.map(|value| value.to_string_lossy()).as_deref() {
            None | Some("") => Ok(None),
            Some("1") => Ok(Some(Self::One)),
            Some("2") => Ok(Some(Self::Two)),
            Some(other) => Err(Error::msg(format!("{COMPAT_VARIABLE} must be 1 or 2, not \"{other}\""))),
        }
    }
}

/// The request.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct NetworkOptions {
    /// The container's ID.
    pub container_id: String,
    /// Its name.
    pub container_name: String,
    /// Its host name, for DHCP.
    #[serde(default)]
    pub container_hostname: Option<String>,
    /// The networks it joins, in order.
    pub networks: Networks,
    /// Their definitions, by name.
    pub network_info: Map<Network>,
    /// The ports to publish.
    #[serde(default)]
    pub port_mappings: Option<Vec<PortMapping>>,
    /// The DNS servers of this container alone.
    #[serde(default)]
    pub dns_servers: Option<Vec<IpAddr>>,
}

impl NetworkOptions {
    /// The ports to publish; none and an empty list are the same.
    #[must_use]
    pub fn ports(&self) -> &[PortMapping] {
        self.port_mappings.as_deref().unwrap_or_default()
    }

    /// The definition of the network called `name`.
    ///
    /// # Errors
    /// When it was not sent.
    pub fn network(&self, name: &str) -> Result<&Network> {
        self.network_info
            .get(name)
            .ok_or_else(|| Error::msg(format!("network info for network {name} not found")))
    }
}

/// The networks a container joins, in the order of the document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Networks {
    /// The generation that the shape belongs to.
    pub shape: Compat,
    /// Name and options.
    pub list: Vec<(String, PerNetworkOptions)>,
}

/// An entry of the array shape.
#[derive(Deserialize)]
struct Named {
    name: String,
    #[serde(flatten)]
    options: PerNetworkOptions,
}

impl<'de> Deserialize<'de> for Networks {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NetworksVisitor)
    }
}

struct NetworksVisitor;

impl<'de> Visitor<'de> for NetworksVisitor {
    type Value = Networks;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object or an array of networks")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Networks, A::Error> {
        let mut map = Map::new();
        while let Some((name, options)) = access.next_entry()? {
            map.insert(name, options);
        }
        Ok(Networks { shape: Compat::One, list: map.into_iter().collect() })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Networks, A::Error> {
        let mut list = Vec::new();
        while let Some(Named { name, options }) = access.next_element()? {
            list.push((name, options));
        }
        Ok(Networks { shape: Compat::Two, list })
    }
}

/// How the container joins one network.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, Serialize)]
pub struct PerNetworkOptions {
    /// More names for it on this network.
    #[serde(default)]
    pub aliases: Option<Vec<String>>,
    /// The interface's name inside the container.
    pub interface_name: String,
    /// The addresses that were chosen for it.
    #[serde(default)]
    pub static_ips: Option<Vec<IpAddr>>,
    /// The MAC address that was chosen for it.
    #[serde(default)]
    pub static_mac: Option<String>,
    /// Options of the driver, for this container alone.
    #[serde(default)]
    pub options: Option<Map<String>>,
}

impl PerNetworkOptions {
    /// The driver option `key`.
    #[must_use]
    pub fn option(&self, key: &str) -> Option<&str> {
        self.options.as_ref()?.get(key).map(String::as_str)
    }

    /// The addresses; none and an empty list are the same.
    #[must_use]
    pub fn ips(&self) -> &[IpAddr] {
        self.static_ips.as_deref().unwrap_or_default()
    }
}

/// A port, or several in a row, to publish.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize, Serialize)]
pub struct PortMapping {
    /// The first port inside the container.
    pub container_port: u16,
    /// The first port on the host.
    pub host_port: u16,
    /// The address on the host; empty for all.
    pub host_ip: String,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
    /// How many ports; 0 and 1 are the same.
    pub range: u16,
}

impl PortMapping {
    /// How many ports.
    #[must_use]
    pub fn count(&self) -> u16 {
        self.range.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OBJECT: &str = r#"{"container_id":"c1","container_name":"n","networks":{
        "z":{"interface_name":"eth0","unknown":1},"a":{"interface_name":"eth1","static_ips":["10.0.0.2"],
        "options":{"host_interface_name":"x"}}},"network_info":{},"more":[]}"#;
    const ARRAY: &str = r#"{"container_id":"c1","container_name":"n","container_hostname":null,"port_mappings":null,
        "networks":[{"name":"z","interface_name":"eth0"},{"interface_name":"eth1","name":"a","static_ips":null}],
        "network_info":{}}"#;

    #[test]
    fn both_shapes_keep_the_order_and_tell_the_generation() {
        for (text, shape) in [(OBJECT, Compat::One), (ARRAY, Compat::Two)] {
            let options: NetworkOptions = serde_json::from_str(text).unwrap();
            let names: Vec<_> = options.networks.list.iter().map(|(name, _)| name.as_str()).collect();
            assert_eq!(names, ["z", "a"]);
            assert_eq!(options.networks.shape, shape);
            assert!(options.ports().is_empty());
        }
        let options: NetworkOptions = serde_json::from_str(OBJECT).unwrap();
        let (_, second) = &options.networks.list[1];
        assert_eq!(second.option("host_interface_name"), Some("x"));
        assert_eq!(second.ips(), ["10.0.0.2".parse::<IpAddr>().unwrap()]);
        assert_eq!(options.network("z").unwrap_err().to_string(), "network info for network z not found");
    }

    #[test]
    fn required_keys_are_required() {
        for missing in ["container_id", "container_name", "networks", "network_info", "interface_name"] {
            let text = OBJECT.replace(missing, "x_y_z");
            let error = serde_json::from_str::<NetworkOptions>(&text).unwrap_err().to_string();
            assert!(error.starts_with(&format!("missing field `{missing}`")), "{error}");
        }
        for bad in ["{}", "[]", "null", "3", "\"x\""] {
            let text =
                format!(r#"{{"container_id":"","container_name":"","networks":{bad},"network_info":{{}}}}"#);
            let parsed = serde_json::from_str::<NetworkOptions>(&text);
            assert_eq!(parsed.is_ok(), bad == "{}" || bad == "[]", "{bad}");
        }
    }

    #[test]
    fn the_override_is_one_or_two() {
        let of = |text: &str| Compat::from_override(Some(OsStr::new(text)));
        assert_eq!(Compat::from_override(None).unwrap(), None);
        assert_eq!(of("").unwrap(), None);
        assert_eq!(of("1").unwrap(), Some(Compat::One));
        assert_eq!(of("2").unwrap(), Some(Compat::Two));
        assert!(of("3").is_err());
        assert!(Compat::One < Compat::Two);
    }
}
