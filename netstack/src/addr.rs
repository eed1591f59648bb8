//! Addresses: the MAC address, and the few helpers on top of `core::net` that the data path needs.
//!
//! IP addresses are `core::net::IpAddr`, endpoints `SocketAddr`, prefixes `ipnet`: the field's own types.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use core::str::FromStr;

/// An EUI-48 hardware address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// All ones: every station on the link.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// The address of whoever plays the gateway `gateway`: `52:55` and the last four bytes of the IP address, as
    /// libslirp has it. It is locally administered and no group's, and people know it from their neighbour tables.
    #[must_use]
    pub const fn of_gateway(gateway: IpAddr) -> Self {
        let [a, b, c, d] = match gateway {
            IpAddr::V4(ip) => ip.octets(),
            IpAddr::V6(ip) => {
                let [.., a, b, c, d] = ip.octets();
                [a, b, c, d]
            }
        };
        Self([0x52, 0x55, a, b, c, d])
    }

    /// Whether this is a group address (broadcast included): the lowest bit of the first byte.
    #[must_use]
    pub const fn is_multicast(self) -> bool {
        self.0[0] & 1 == 1
    }

    /// Whether a station may use it as its own: neither a group address nor all zeroes.
    #[must_use]
    pub const fn is_unicast(self) -> bool {
        !self.is_multicast() && !matches!(self.0, [0, 0, 0, 0, 0, 0])
    }

    /// The group address that an IPv4 or IPv6 multicast address maps to (RFC 1112 §6.4, RFC 2464 §7).
    #[must_use]
    pub const fn for_multicast(addr: IpAddr) -> Self {
        match addr {
            IpAddr::V4(a) => {
                let o = a.octets();
                Self([0x01, 0x00, 0x5e, o[1] & 0x7f, o[2], o[3]])
            }
            IpAddr::V6(a) => {
                let o = a.octets();
                Self([0x33, 0x33, o[12], o[13], o[14], o[15]])
            }
        }
    }

    /// The link-local IPv6 address that this MAC gives by modified EUI-64 (RFC 4291 appendix A).
    #[must_use]
    pub const fn link_local(self) -> Ipv6Addr {
        let [a, b, c, d, e, f] = self.0;
        Ipv6Addr::from_octets([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not six groups of one or two hexadecimal digits with colons between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadMac;

impl fmt::Display for BadMac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a MAC address is six hexadecimal bytes with colons between them")
    }
}

impl core::error::Error for BadMac {}

impl FromStr for MacAddr {
    type Err = BadMac;

    fn from_str(text: &str) -> Result<Self, BadMac> {
        let mut bytes = [0; 6];
        let mut groups = text.split(':');
        for byte in &mut bytes {
            let group = groups.next().ok_or(BadMac)?;
            if group.is_empty() || group.len() > 2 || !group.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(BadMac);
            }
            *byte = u8::from_str_radix(group, 16).map_err(|_| BadMac)?;
        }
        if groups.next().is_some() { Err(BadMac) } else { Ok(Self(bytes)) }
    }
}

/// The unspecified address of the family of `like`.
#[must_use]
pub const fn unspecified(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    }
}

/// The wildcard endpoint (`0.0.0.0:0` or `[::]:0`) of the family of `like`.
#[must_use]
pub const fn any_endpoint(like: IpAddr) -> SocketAddr {
    SocketAddr::new(unspecified(like), 0)
}

/// An IPv4-mapped IPv6 address as the IPv4 address it stands for; everything else unchanged.
///
/// A dual-stack listener reports IPv4 clients in the mapped form.
#[must_use]
pub fn canonical(endpoint: SocketAddr) -> SocketAddr {
    SocketAddr::new(endpoint.ip().to_canonical(), endpoint.port())
}

/// The group in which the owner of `ip` is asked for (RFC 4291 §2.7.1).
#[must_use]
pub const fn solicited_node(ip: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = ip.octets();
    Ipv6Addr::from_octets([0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mac_text_goes_both_ways() {
        let mac: MacAddr = "52:55:0a:00:02:02".parse().unwrap();
        assert_eq!(mac, MacAddr([0x52, 0x55, 10, 0, 2, 2]));
        assert_eq!(mac.to_string(), "52:55:0a:00:02:02");
        assert_eq!("1:2:3:4:5:6".parse(), Ok(MacAddr([1, 2, 3, 4, 5, 6])));
    }

    #[test]
    fn a_gateways_mac_address_ends_as_its_ip_address() {
        for (gateway, mac) in [("10.0.2.2", "52:55:0a:00:02:02"), ("fd00::5:2", "52:55:00:05:00:02")] {
            let found = MacAddr::of_gateway(gateway.parse().unwrap());
            assert_eq!(found.to_string(), mac);
            assert!(found.is_unicast());
        }
    }

    #[test]
    fn bad_mac_text_is_refused() {
        for text in
            ["", "1:2:3:4:5", "1:2:3:4:5:6:7", "1:2:3:4:5:100", "1:2:3:4:5:g", "+1:2:3:4:5:6", "::::::"]
        {
            assert_eq!(text.parse::<MacAddr>(), Err(BadMac), "{text:?}");
        }
    }

    #[test]
    fn derived_addresses_follow_their_rfcs() {
        let mac = MacAddr([0x52, 0x55, 10, 0, 2, 2]);
        assert_eq!(mac.link_local(), "fe80::5055:aff:fe00:202".parse::<Ipv6Addr>().unwrap());
        assert_eq!(
            MacAddr::for_multicast("ff02::1:ff00:3".parse().unwrap()).to_string(),
            "33:33:ff:00:00:03"
        );
        assert_eq!(MacAddr::for_multicast("224.128.0.251".parse().unwrap()).to_string(), "01:00:5e:00:00:fb");
    }
}
