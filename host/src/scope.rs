//! Addresses that mean something on one link only, and the link: `fe80::1%eth0` (RFC 4007 §11).
//!
//! A link-local address alone does not say where to listen or whom to ask; sockets want the interface with it, as a
//! number. People, routers and `resolv.conf` write its name. A [`ZonedAddr`] keeps the name, and the number is asked
//! for when a socket is made: interfaces come and go while we run, and one that came back has another number.
//!
//! How to ask, once the system call filter is on? The usual ways are shut: a netlink or UNIX socket, an ioctl, a file
//! of `/sys`. A table made at the start would not know the interface that comes up with the next network. But a socket
//! may be bound to a device by name (SO_BINDTODEVICE) and tells that device's number (SO_BINDTOIFINDEX), and setsockopt
//! and getsockopt pass the filter anyway. So nothing is let through for this. The kernel grants it to everybody since
//! 5.7, to CAP_NET_RAW before; a number written in place of the name works everywhere.
//!
//! As in getaddrinfo(3), digits are an interface's number unless one has them for a name.

use crate::sys::sockopt::{self, Opt};
use core::fmt;
use core::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use core::str::FromStr;
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use slipway_netstack::surely::Surely;
use std::os::fd::AsFd as _;

/// IFNAMSIZ, less the NUL at the end.
const LONGEST_NAME: usize = 15;

/// The interface of a link-local address, by name or number, as it was written.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Zone {
    len: u8,
    text: [u8; LONGEST_NAME],
}

impl Zone {
    /// `text` as a name or number of an interface; `None` if no interface can be called so. The kernel takes nearly any
    /// byte; here it has to be visible ASCII, and nothing that ends or quotes a word in the grammars around it.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let fits = |byte: u8| byte.is_ascii_graphic() && !b"/:%[]\"\\".contains(&byte);
        if matches!(text, "" | "." | ".." | "0") || !text.bytes().all(fits) {
            return None;
        }
        let mut zone = Self { len: u8::try_from(text.len()).ok()?, text: [0; LONGEST_NAME] };
        zone.text.get_mut(..text.len())?.copy_from_slice(text.as_bytes());
        Some(zone)
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.text.get(..usize::from(self.len)).and_then(|text| str::from_utf8(text).ok()).surely()
    }

    /// The number of the interface, now.
    ///
    /// # Errors
    /// ENODEV: there is none of that name. A number is not looked up: whoever uses it is told the same.
    pub fn index(&self) -> Result<u32, Errno> {
        index_of(self.as_str()).or_else(|errno| self.as_str().parse().map_err(|_| errno))
    }
}

impl fmt::Debug for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Zone({})", self.as_str())
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

fn index_of(name: &str) -> Result<u32, Errno> {
    let probe = socket(AddressFamily::Inet6, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    sockopt::bind_to_device(probe.as_fd(), name)?;
    u32::try_from(sockopt::get(probe.as_fd(), Opt::BOUND_INTERFACE)?).map_err(|_| Errno::ENODEV)
}

/// An address, and for a link-local one of IPv6 the link, if that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ZonedAddr {
    ip: IpAddr,
    zone: Option<Zone>,
}

/// Why a text is no address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Neither IPv4 nor IPv6.
    #[error("not an IP address")]
    Address,
    /// `fe80::1`.
    #[error("a link-local address needs its interface: write it as fe80::1%eth0")]
    ZoneMissing,
    /// `192.0.2.1%eth0`.
    #[error("only link-local addresses of IPv6 have an interface")]
    NoZones,
    /// `fe80::1%` and what could never be one.
    #[error("not the name of an interface")]
    Zone,
}

impl ZonedAddr {
    /// The link-local address `ip` on the link of `zone`; `None` if it is of another kind, which has no zones.
    #[must_use]
    pub fn link_local(ip: Ipv6Addr, zone: Zone) -> Option<Self> {
        ip.is_unicast_link_local().then_some(Self { ip: ip.into(), zone: Some(zone) })
    }

    /// The address.
    #[must_use]
    pub const fn ip(&self) -> IpAddr {
        self.ip
    }

    /// The link.
    #[must_use]
    pub const fn zone(&self) -> Option<Zone> {
        self.zone
    }

    /// Whether it says too little to be used: link-local, and no link.
    #[must_use]
    pub fn lacks_zone(&self) -> bool {
        self.zone.is_none() && matches!(self.ip, IpAddr::V6(ip) if ip.is_unicast_link_local())
    }

    /// For a socket, at this moment.
    ///
    /// # Errors
    /// See [`Zone::index`].
    pub fn socket_addr(&self, port: u16) -> Result<SocketAddr, Errno> {
        match (self.ip, self.zone) {
            (IpAddr::V6(ip), Some(zone)) => Ok(SocketAddrV6::new(ip, port, 0, zone.index()?).into()),
            (ip, _) => Ok(SocketAddr::new(ip, port)),
        }
    }
}

impl From<IpAddr> for ZonedAddr {
    /// IPv4 in disguise is unmasked.
    fn from(ip: IpAddr) -> Self {
        Self { ip: ip.to_canonical(), zone: None }
    }
}

impl FromStr for ZonedAddr {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let (ip, zone) = text.split_once('%').map_or((text, None), |(ip, zone)| (ip, Some(zone)));
        let plain = Self::from(ip.parse::<IpAddr>().map_err(|_| ParseError::Address)?);
        let Some(zone) = zone else {
            return if plain.lacks_zone() { Err(ParseError::ZoneMissing) } else { Ok(plain) };
        };
        let IpAddr::V6(ip) = plain.ip else { return Err(ParseError::NoZones) };
        if !ip.is_unicast_link_local() {
            return Err(ParseError::NoZones);
        }
        let zone = Zone::new(zone).ok_or(ParseError::Zone)?;
        Ok(Self { zone: Some(zone), ..plain })
    }
}

impl fmt::Display for ZonedAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.ip)?;
        self.zone.map_or(Ok(()), |zone| write!(f, "%{zone}"))
    }
}

/// An address and a port, as people write them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// The address.
    pub address: ZonedAddr,
    /// The port.
    pub port: u16,
}

impl From<SocketAddr> for Endpoint {
    /// The number of an interface stays behind: this is for addresses that have no zone, or are seen within one.
    fn from(addr: SocketAddr) -> Self {
        Self { address: addr.ip().into(), port: addr.port() }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address.ip {
            IpAddr::V4(_) => write!(f, "{}:{}", self.address, self.port),
            IpAddr::V6(_) => write!(f, "[{}]:{}", self.address, self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<String, ParseError> {
        text.parse::<ZonedAddr>().map(|address| address.to_string())
    }

    #[test]
    fn link_local_addresses_name_their_interface() {
        for same in
            ["fe80::1%eth0", "fe80::1%7", "febf::%br-lan.10@x", "192.0.2.1", "2001:db8::1", "169.254.1.1"]
        {
            assert_eq!(parse(same).as_deref(), Ok(same));
        }
        assert_eq!(parse("::ffff:192.0.2.1").as_deref(), Ok("192.0.2.1"));
        for (text, error) in [
            ("fe80::1", ParseError::ZoneMissing),
            ("fe80::1%", ParseError::Zone),
            ("fe80::1%0", ParseError::Zone),
            ("fe80::1%a b", ParseError::Zone),
            ("fe80::1%a/b", ParseError::Zone),
            ("fe80::1%eth0%eth1", ParseError::Zone),
            ("fe80::1%sixteen-letters-", ParseError::Zone),
            ("fe80::1%\u{e9}", ParseError::Zone),
            ("fe80::1%\"", ParseError::Zone),
            ("2001:db8::1%eth0", ParseError::NoZones),
            ("192.0.2.1%eth0", ParseError::NoZones),
            ("::ffff:192.0.2.1%eth0", ParseError::NoZones),
            ("%eth0", ParseError::Address),
            ("", ParseError::Address),
        ] {
            assert_eq!(parse(text), Err(error), "{text}");
        }
    }

    #[test]
    fn an_interface_is_found_by_name_and_number() {
        let index = nix::net::if_::if_nametoindex("lo").unwrap();
        let of = |text: &str| Zone::new(text).unwrap().index();
        if of("lo") == Err(Errno::EAFNOSUPPORT) {
            println!("SKIP an_interface_is_found_by_name_and_number: no IPv6 on this machine");
            return;
        }
        assert_eq!(of("lo"), Ok(index));
        assert_eq!(of("77"), Ok(77));
        assert_eq!(of("no-such-device"), Err(Errno::ENODEV));
        let address: ZonedAddr = "fe80::1%lo".parse().unwrap();
        assert_eq!(
            address.socket_addr(53),
            Ok(SocketAddrV6::new("fe80::1".parse().unwrap(), 53, 0, index).into())
        );
        let plain: ZonedAddr = "192.0.2.1".parse().unwrap();
        assert_eq!(plain.socket_addr(53), Ok("192.0.2.1:53".parse().unwrap()));
    }

    #[test]
    fn endpoints_show_the_name() {
        let at = |address: &str| Endpoint { address: address.parse().unwrap(), port: 80 }.to_string();
        assert_eq!(at("fe80::1%eth0"), "[fe80::1%eth0]:80");
        assert_eq!(at("192.0.2.1"), "192.0.2.1:80");
    }

    proptest! {
        #[test]
        fn what_parses_is_printed_so_that_it_parses_again(text in "(fe80::|2001:db8::|1.2.3.4)[0-9a-f]{0,2}(%[ -~]{0,17})?") {
            if let Ok(address) = text.parse::<ZonedAddr>() {
                prop_assert!(!address.lacks_zone());
                prop_assert_eq!(address.to_string().parse(), Ok(address));
            }
        }
    }
}
