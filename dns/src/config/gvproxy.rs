//! A zone as gvproxy's configuration and its HTTP interface describe it.
//!
//! Plain data: what was given is what is listed. [`crate::zone::suffix`] makes it answer.

use core::net::IpAddr;

/// Names below one domain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Zone {
    /// The domain, with its final dot: `containers.internal.`
    pub name: String,
    /// Its names. The first that fits counts.
    pub records: Vec<Record>,
    /// The address of every other name.
    pub default_ip: Option<IpAddr>,
}

/// A name of a zone, or many.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// The name without the domain.
    pub name: String,
    /// Its address.
    pub ip: Option<IpAddr>,
    /// Or a regular expression that finds the names, anywhere in them.
    pub regexp: Option<String>,
}

/// The zones of a gvproxy that was told none: the gateway and the host, under two domains.
#[must_use]
pub fn default_zones(gateway: IpAddr, host: IpAddr) -> Vec<Zone> {
    let record = |name: &str, ip| Record { name: name.to_owned(), ip: Some(ip), regexp: None };
    let zone = |name: &str| Zone {
        name: name.to_owned(),
        records: vec![record("gateway", gateway), record("host", host)],
        default_ip: None,
    };
    vec![zone("containers.internal."), zone("docker.internal.")]
}
