//! The grammar of published ports: `[HOSTIP:]HOSTPORT:PORT[/PROTOCOL]`, IPv6 addresses in brackets, both ports numbers
//! or ranges of the same length.

use crate::spec::PortMapping;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

const GRAMMAR: &str = "expected [HOSTIP:]HOSTPORT:PORT[/tcp|/udp|/sctp]";

/// A published port, or several in a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publish(pub PortMapping);

impl FromStr for Publish {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (rest, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        if !["tcp", "udp", "sctp"].contains(&protocol) {
            return Err(format!("protocol {protocol:?}: {GRAMMAR}"));
        }
        let (rest, inside) = rest.rsplit_once(':').ok_or(GRAMMAR)?;
        let (host_ip, outside) = match rest.rsplit_once(':') {
            None => (None, rest),
            Some((address, port)) => (Some(host(address)?), port),
        };
        let (host_port, host_count) = ports(outside)?;
        let (container_port, count) = ports(inside)?;
        if count != host_count {
            return Err(format!("{outside} and {inside} are not equally many ports"));
        }
        let host_ip = host_ip.map(|ip| ip.to_string()).unwrap_or_default();
        Ok(Self(PortMapping {
            container_port,
            host_port,
            host_ip,
            protocol: protocol.to_owned(),
            range: count,
        }))
    }
}

fn host(text: &str) -> Result<IpAddr, String> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    let address = match bare {
        Some(v6) => v6.parse::<Ipv6Addr>().map(IpAddr::from),
        None => text.parse::<Ipv4Addr>().map(IpAddr::from),
    };
    address.map_err(|_| format!("{text:?} is no address (IPv6 goes into brackets): {GRAMMAR}"))
}

/// The first port, and how many.
fn ports(text: &str) -> Result<(u16, u16), String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0 && !text.starts_with('+'));
    match (port(first), port(last)) {
        (Some(first), Some(last)) if first <= last => Ok((first, (last - first).saturating_add(1))),
        _ => Err(format!("{text:?} is no port or range of ports: {GRAMMAR}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<(String, u16, u16, String, u16), String> {
        let Publish(it) = text.parse()?;
        Ok((it.host_ip, it.host_port, it.container_port, it.protocol, it.range))
    }

    #[test]
    fn what_people_write() {
        let of = |ip: &str, host, inside, protocol: &str, range| {
            Ok((ip.to_owned(), host, inside, protocol.to_owned(), range))
        };
        assert_eq!(parse("8080:80"), of("", 8080, 80, "tcp", 1));
        assert_eq!(parse("198.51.100.7:53:5353/udp"), of("198.51.100.7", 53, 5353, "udp", 1));
        assert_eq!(parse("[2001:db8::1]:8000-8009:9000-9009"), of("2001:db8::1", 8000, 9000, "tcp", 10));
        assert_eq!(parse("1-65535:1-65535/sctp"), of("", 1, 1, "sctp", 65535));
    }

    #[test]
    fn what_makes_no_sense() {
        for bad in [
            "",
            ":",
            "80",
            ":80",
            "80:",
            "0:80",
            "80:0",
            "65536:1",
            "+1:1",
            "2-1:2-1",
            "1-2:1",
            "x:80:80",
            "::1:80:80",
            "80:80/icmp",
            "80:80/",
            "[198.51.100.7]:1:1",
            "1:2:3:4",
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
