//! One network's definition. The same type is read from a caller, written by `create`, and passed to plugins and back.
//!
//! Absent keys stay absent when it is written: a caller compares.

use super::Map;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::IpAddr;

/// The definition.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub struct Network {
    /// Its name.
    pub name: String,
    /// Its ID, 64 hexadecimal digits.
    pub id: String,
    /// Who sets it up: `bridge`, `macvlan`, `ipvlan`, or a plugin's name.
    pub driver: String,
    /// The bridge, or the parent interface.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_interface: Option<String>,
    /// When it was made, by RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// Its subnets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subnets: Option<Vec<Subnet>>,
    /// More routes for its containers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub routes: Option<Vec<Route>>,
    /// Whether it has IPv6. Not to be trusted at setup: a subnet of that family is what counts.
    pub ipv6_enabled: bool,
    /// Whether it has no way out.
    pub internal: bool,
    /// Whether names are served on it.
    pub dns_enabled: bool,
    /// The servers that names of the outside are asked from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_dns_servers: Option<Vec<IpAddr>>,
    /// Labels; nothing to us.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<Map<String>>,
    /// Options of the driver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub options: Option<Map<String>>,
    /// Who gives out addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipam_options: Option<Map<String>>,
}

impl Network {
    /// The driver option `key`.
    #[must_use]
    pub fn option(&self, key: &str) -> Option<&str> {
        self.options.as_ref()?.get(key).map(String::as_str)
    }

    /// The subnets; none and an empty list are the same.
    #[must_use]
    pub fn subnets(&self) -> &[Subnet] {
        self.subnets.as_deref().unwrap_or_default()
    }

    /// The name in `ipam_options`, if there is one.
    #[must_use]
    pub fn ipam_driver(&self) -> Option<&str> {
        self.ipam_options.as_ref()?.get("driver").map(String::as_str)
    }

    /// Whether any subnet is an IPv6 one.
    #[must_use]
    pub fn has_ipv6(&self) -> bool {
        self.subnets().iter().any(|subnet| subnet.subnet.addr().is_ipv6())
    }
}

/// A subnet.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub struct Subnet {
    /// Address and length; the address may have host bits.
    pub subnet: IpNet,
    /// The network's own address in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    /// The part of it that is given out; the caller's business.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_range: Option<LeaseRange>,
}

/// From where to where addresses are given out.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, Serialize)]
pub struct LeaseRange {
    /// The first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_ip: Option<String>,
    /// The last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_ip: Option<String>,
}

/// A route.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub struct Route {
    /// Where to.
    pub destination: IpNet,
    /// Through whom; only for unicast routes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    /// Its priority.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric: Option<u32>,
    /// What it does.
    #[serde(default, rename = "route_type", skip_serializing_if = "RouteKind::is_unicast")]
    pub kind: RouteKind,
}

/// What a route does with a packet.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(from = "String", into = "String")]
pub enum RouteKind {
    /// Hands it to the gateway.
    #[default]
    Unicast,
    /// Drops it in silence.
    Blackhole,
    /// Refuses it: unreachable.
    Unreachable,
    /// Refuses it: prohibited.
    Prohibit,
    /// A word that is not known. A setup refuses it; a teardown has to read it, or nothing could be cleaned up.
    Unknown(String),
}

impl RouteKind {
    /// Whether it is the ordinary kind.
    #[must_use]
    pub fn is_unicast(&self) -> bool {
        *self == Self::Unicast
    }
}

impl From<String> for RouteKind {
    fn from(text: String) -> Self {
        match text.as_str() {
            "" | "unicast" => Self::Unicast,
            "blackhole" => Self::Blackhole,
            "unreachable" => Self::Unreachable,
            "prohibit" => Self::Prohibit,
            _ => Self::Unknown(text),
        }
    }
}

impl From<RouteKind> for String {
    fn from(kind: RouteKind) -> Self {
        kind.to_string()
    }
}

impl fmt::Display for RouteKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unicast => "unicast",
            Self::Blackhole => "blackhole",
            Self::Unreachable => "unreachable",
            Self::Prohibit => "prohibit",
            Self::Unknown(text) => text,
        })
    }
}
