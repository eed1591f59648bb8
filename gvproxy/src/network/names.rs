//! Names of the network: zones that are answered here, before the host's nameservers hear of it.
//!
//! A name in a zone belongs to the network for every type: there is no data of another type, instead of a question to
//! strangers. Zones change while queries come, so whoever answers and whoever gives orders hold the same ones. A name
//! in no zone is for the forwarder that all personalities share, and so is a zone's own name.

use slipway_dns::config::gvproxy::Zone;
use slipway_dns::message::{Query, Transport};
use slipway_dns::zone::suffix::{Error, Manner, Outcome, Zones};
use slipway_runtime::names::{Found, Known};
use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;

/// The zones; a copy is the same ones.
#[derive(Debug, Clone)]
pub struct Names(Rc<RefCell<Zones>>);

impl Names {
    /// These, in this order ([`super::zones`]): the first that covers a name counts.
    ///
    /// # Errors
    /// A regular expression cannot be used, or there are too many records.
    pub fn new(zones: &[Zone]) -> Result<Self, Error> {
        let mut all = Zones::new(Manner::Strict);
        zones.iter().cloned().try_for_each(|zone| all.add(zone))?;
        Ok(Self(Rc::new(RefCell::new(all))))
    }

    /// Adds a zone behind the others, or its records in front of those it has already.
    ///
    /// # Errors
    /// As [`Names::new`]; nothing was added then.
    pub fn add(&self, zone: Zone) -> Result<(), Error> {
        self.0.borrow_mut().add(zone)
    }

    /// The zones as they were given, in order.
    #[must_use]
    pub fn list(&self) -> Vec<Zone> {
        self.0.borrow().list().cloned().collect()
    }
}

impl Known for Names {
    fn find<'a>(&'a self, _: IpAddr, transport: Transport, message: &[u8], out: &mut Vec<u8>) -> Found<'a> {
        let Ok(query) = Query::parse(message) else { return Found::Nothing };
        match self.0.borrow().answer(&query, transport, out) {
            Outcome::Answered(_) => Found::Answer,
            Outcome::NotOurs => Found::Host,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use slipway_dns::config::gvproxy::{Record, default_zones};
    use std::net::Ipv4Addr;

    /// A query as a resolver writes it, with EDNS.
    fn query(name: &str, kind: u16) -> Vec<u8> {
        let mut message = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1];
        for label in name.split('.') {
            message.push(u8::try_from(label.len()).unwrap());
            message.extend_from_slice(label.as_bytes());
        }
        message.push(0);
        message.extend_from_slice(&kind.to_be_bytes());
        message.extend_from_slice(&[0, 1]);
        message.extend_from_slice(&[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]);
        message
    }

    /// Response code and the address that is told; or who is asked instead.
    fn asked(names: &Names, name: &str, kind: u16) -> String {
        let (source, mut out) = (IpAddr::from([192, 168, 127, 2]), Vec::new());
        match names.find(source, Transport::Udp, &query(name, kind), &mut out) {
            Found::Answer if out[7] == 0 => format!("rcode {}", out[3] & 15),
            Found::Answer => {
                // Behind the answer stands the OPT record: 11 bytes.
                let address: [u8; 4] = *out[..out.len() - 11].last_chunk().unwrap();
                Ipv4Addr::from(address).to_string()
            }
            other => format!("{other:?}"),
        }
    }

    fn zone(name: &str, records: &[(&str, &str)], default_ip: Option<&str>) -> Zone {
        let record = |&(name, ip): &(&str, &str)| {
            let regexp = name.strip_prefix('~').map(ToOwned::to_owned);
            let name = if regexp.is_some() { String::new() } else { name.to_owned() };
            Record { name, ip: ip.parse().ok(), regexp }
        };
        Zone {
            name: name.into(),
            records: records.iter().map(record).collect(),
            default_ip: default_ip.map(|ip| ip.parse().unwrap()),
        }
    }

    #[test]
    fn names_of_the_network_stay_here_and_all_others_are_for_the_host() {
        let [gateway, host] = ["192.168.127.1", "192.168.127.254"].map(|ip| ip.parse().unwrap());
        let names = Names::new(&default_zones(gateway, host)).unwrap();
        for (name, kind, expected) in [
            ("gateway.containers.internal", 1, "192.168.127.1"),
            ("host.containers.internal", 1, "192.168.127.254"),
            ("HOST.Containers.Internal", 1, "192.168.127.254"),
            ("host.docker.internal", 1, "192.168.127.254"),
            // There is no such data, and nobody else is asked for it.
            ("host.containers.internal", 28, "rcode 0"),
            ("host.containers.internal", 65, "rcode 0"),
            ("nobody.containers.internal", 1, "rcode 3"),
            ("nobody.containers.internal", 28, "rcode 3"),
            ("containers.internal", 1, "Host"),
            ("example.org", 1, "Host"),
            ("example.org", 16, "Host"),
            ("1.127.168.192.in-addr.arpa", 12, "Host"),
        ] {
            assert_eq!(asked(&names, name, kind), expected, "{name} {kind}");
        }
        let nothing = names.find(host, Transport::Tcp, b"no query", &mut Vec::new());
        assert_eq!(nothing, Found::Nothing);
    }

    #[test]
    fn zones_change_at_run_time_for_whoever_holds_them() {
        let names = Names::new(&[zone("crc.testing.", &[("api", "192.168.127.2")], None)]).unwrap();
        let orders = names.clone();
        assert_eq!(asked(&names, "console.crc.testing", 1), "rcode 3");
        orders.add(zone("crc.testing.", &[("api", "192.168.127.9")], Some("192.168.127.3"))).unwrap();
        assert_eq!(asked(&names, "api.crc.testing", 1), "192.168.127.9", "new records stand in front");
        assert_eq!(asked(&names, "console.crc.testing", 1), "192.168.127.3");
        orders.add(zone("testing.", &[("~^app-\\d+$", "192.168.127.4")], None)).unwrap();
        assert_eq!(asked(&names, "app-17.testing", 1), "192.168.127.4");
        assert_eq!(asked(&names, "api.crc.testing", 1), "192.168.127.9", "the first zone counts");
        let listed: Vec<_> = names.list().into_iter().map(|zone| (zone.name, zone.records.len())).collect();
        assert_eq!(listed, [("crc.testing.".into(), 2), ("testing.".into(), 1)]);
        assert!(orders.add(zone("bad.", &[("~(", "192.168.127.4")], None)).is_err());
        assert_eq!(names.list().len(), 2);
    }
}
