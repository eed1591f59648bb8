//! `/etc/resolv.conf` as aardvark-dns reads it, which knows less than the C library.
//!
//! Only `nameserver` lines count; a comment starts at `#` or `;` anywhere; the first three servers are kept. An IPv6
//! address may name its interface, `fe80::1%eth0` or `fe80::1%3`; the caller knows interfaces, this file does not. A
//! line whose address cannot be read is passed over, as the C library does, and reported.
//!
//! (The stack's own resolvers follow `slipway_host::resolv_conf`, which reads the file as the C library does.)

use core::net::{IpAddr, SocketAddr, SocketAddrV6};

/// The port of DNS.
pub const PORT: u16 = 53;
/// As many as there is time to try.
const MAX_SERVERS: usize = 3;
/// Reports kept of lines that make no sense.
const MAX_SKIPPED: usize = 16;
/// What is repeated of a wrong text.
const SHOWN: usize = 100;

/// A server of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nameserver {
    /// Where.
    pub address: IpAddr,
    /// The interface of a link-local address: its name or its number.
    pub zone: Option<String>,
}

impl Nameserver {
    /// Where to send queries. `interface` tells the number of an interface by its name.
    pub fn resolve<E>(&self, interface: impl FnOnce(&str) -> Result<u32, E>) -> Result<SocketAddr, E> {
        let (IpAddr::V6(address), Some(zone)) = (self.address, &self.zone) else {
            return Ok(SocketAddr::new(self.address, PORT));
        };
        let number = match zone.parse() {
            Ok(number) => number,
            Err(_) => interface(zone)?,
        };
        Ok(SocketAddrV6::new(address, PORT, 0, number).into())
    }
}

/// What the file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResolvConf {
    /// The servers, most preferred first; three at most.
    pub servers: Vec<Nameserver>,
    /// What is wrong with lines that were passed over; a few of them.
    pub skipped: Vec<Error>,
}

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not an address.
    #[error("{0:?}: invalid IP address syntax")]
    Address(String),
    /// Only IPv6 has zones.
    #[error("scope id not supported for ipv4 address")]
    ZoneOfIpv4,
}

/// Reads the file. What cannot be understood is passed over.
#[must_use]
pub fn parse(text: &str) -> ResolvConf {
    let mut conf = ResolvConf::default();
    for line in text.split('\n') {
        let line = line.split_once(['#', ';']).map_or(line, |(before, _)| before);
        let mut words = line.split_whitespace();
        if let (Some("nameserver"), Some(server)) = (words.next(), words.next()) {
            match nameserver(server) {
                Ok(server) if conf.servers.len() < MAX_SERVERS => conf.servers.push(server),
                Err(error) if conf.skipped.len() < MAX_SKIPPED => conf.skipped.push(error),
                _ => {}
            }
        }
    }
    conf
}

fn nameserver(text: &str) -> Result<Nameserver, Error> {
    let wrong = |text: &str| Error::Address(text.chars().take(SHOWN).collect());
    let Some((address, zone)) = text.split_once('%') else {
        let address = text.parse().map_err(|_| wrong(text))?;
        return Ok(Nameserver { address, zone: None });
    };
    match address.parse() {
        Ok(IpAddr::V4(_)) => Err(Error::ZoneOfIpv4),
        Ok(address @ IpAddr::V6(_)) => Ok(Nameserver { address, zone: Some(zone.to_owned()) }),
        Err(_) => Err(wrong(address)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn addresses(text: &str) -> Vec<String> {
        let zone = |n: &Nameserver| n.zone.as_ref().map_or_else(String::new, |zone| format!("%{zone}"));
        parse(text).servers.iter().map(|n| format!("{}{}", n.address, zone(n))).collect()
    }

    #[test]
    fn the_first_three_nameservers() {
        let text = "# nameserver 192.0.2.9\nsearch a.b\n  nameserver\t192.0.2.1 # c\nnameserver 192.0.2.2;c\n\
                    options ndots:0\nnameserver\nnameserver fe80::1%eth0\nnameserver 192.0.2.4\nNameserver x\n";
        assert_eq!(addresses(text), ["192.0.2.1", "192.0.2.2", "fe80::1%eth0"]);
        assert!(addresses("").is_empty());
    }

    #[test]
    fn bad_lines_are_passed_over_and_reported() {
        let read = |text: &str| {
            let skipped: Vec<String> = parse(text).skipped.iter().map(ToString::to_string).collect();
            (addresses(text), skipped)
        };
        let bad =
            "nameserver dns.example.org\nnameserver 192.0.2.1\nnameserver 1.2.3\nnameserver 192.0.2.2%eth0\n";
        let (servers, skipped) = read(bad);
        assert_eq!(servers, ["192.0.2.1"]);
        assert_eq!(
            skipped,
            [
                "\"dns.example.org\": invalid IP address syntax",
                "\"1.2.3\": invalid IP address syntax",
                "scope id not supported for ipv4 address"
            ]
        );
        // Also when none is left; and bad ones are not counted among the three.
        assert_eq!(read("nameserver abc").0.len(), 0);
        assert_eq!(addresses(&("nameserver x\n".repeat(99) + "nameserver 192.0.2.1")), ["192.0.2.1"]);
        assert_eq!(parse(&"nameserver x\n".repeat(99)).skipped.len(), MAX_SKIPPED);
    }

    #[test]
    fn zones_are_names_or_numbers() {
        let one = |text: &str| parse(text).servers.remove(0);
        let by_name = |name: &str| if name == "lo" { Ok(1) } else { Err(()) };
        let scope = |text: &str| match one(text).resolve(by_name) {
            Ok(SocketAddr::V6(server)) => Ok((server.scope_id(), server.port())),
            other => Err(other),
        };
        assert_eq!(scope("nameserver fe80::1%lo"), Ok((1, 53)));
        assert_eq!(scope("nameserver fe80::1%7"), Ok((7, 53)));
        assert_eq!(scope("nameserver fe80::1"), Ok((0, 53)));
        assert_eq!(scope("nameserver fe80::1%eth9"), Err(Err(())));
        assert_eq!(one("nameserver 192.0.2.1").resolve(by_name), Ok(SocketAddr::from(([192, 0, 2, 1], 53))));
    }

    proptest! {
        #[test]
        fn any_text(text in "(nameserver|[a-f0-9.:%;# \n])*") {
            assert!(parse(&text).servers.len() <= MAX_SERVERS);
        }
    }
}
