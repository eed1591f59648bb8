//! The publish grammar: fields separated by colons, IPv6 addresses in brackets.
//!
//! ```text
//! [LISTEN:][HOSTPORT]:[GUEST:]PORT[/tcp|/udp]        or just        PORT[/tcp|/udp]
//! ```
//!
//! `HOSTPORT` and `PORT` are numbers or ranges of the same length (`8000-8010:9000-9010`). `HOSTPORT` omitted or `0`
//! lets the kernel choose. `LISTEN` omitted means every address of both families. `GUEST`, an address of the guest
//! other than its main one, is an addition in the manner of `ssh -L`. The protocol is `tcp` if not given. A link-local
//! address to listen on names its interface: `[fe80::1%eth0]:8080:80`.
//!
//! [`Rule`]'s `Display` prints this grammar again, always the same way, and what it prints parses to the same rule.

use super::{InvalidRule, Ports, Proto, Rule};
use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::num::NonZeroU16;
use core::str::FromStr;
use slipway_host::scope::{self, ZonedAddr};

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(address) = self.listen {
            write!(f, "{}:", InField(address))?;
        }
        let more = self.ports.count.get() - 1;
        if let Some(first) = self.ports.listen {
            write!(f, "{}", Run { first, more })?;
        }
        f.write_str(":")?;
        if let Some(address) = self.target {
            write!(f, "{}:", InField(address.into()))?;
        }
        write!(f, "{}/{}", Run { first: self.ports.target, more }, self.proto)
    }
}

/// An address as a field of the publish grammar.
struct InField(ZonedAddr);

impl fmt::Display for InField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = self.0;
        if address.ip().is_ipv6() { write!(f, "[{address}]") } else { write!(f, "{address}") }
    }
}

/// A port, or a range of them, as a field of the publish grammar.
struct Run {
    first: NonZeroU16,
    more: u16,
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.first)?;
        if self.more > 0 {
            write!(f, "-{}", self.first.saturating_add(self.more))?;
        }
        Ok(())
    }
}

/// Why a text is not a rule in the publish grammar, and what was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Too many fields, or fields of the wrong kind.
    #[error(
        "{0:?} is not a port to publish: expected [IP:][HOSTPORT:]PORT[/tcp|/udp], an IPv6 address in brackets"
    )]
    Form(String),
    /// An address and one port only.
    #[error(
        "{0:?} names an address but one port only: write {1}::{2} to let the kernel choose the host port"
    )]
    HostPortMissing(String, String, String),
    /// An address field that holds none.
    #[error("{0:?} is not an IP address: expected an IPv4 address, or an IPv6 address in brackets")]
    Address(String),
    /// An address with an interface that it cannot have, or with none that could be.
    #[error("{0:?}: {1}")]
    Zone(String, scope::ParseError),
    /// A guest address with an interface of the host.
    #[error("{0}: an address of the guest has no interface here")]
    GuestZone(ZonedAddr),
    /// A port field that holds no port.
    #[error("{0:?} is not a port: expected a number from 1 to 65535 or a range such as 8000-8010")]
    Port(String),
    /// A range that ends before it begins.
    #[error("the range {0} ends before it begins")]
    Backwards(String),
    /// Two ranges of different lengths.
    #[error("{listen} host ports cannot lead to {target} guest ports: expected ranges of the same length")]
    Lengths {
        /// How many host ports.
        listen: u16,
        /// How many guest ports.
        target: u16,
    },
    /// Something else than TCP or UDP.
    #[error("protocol {0:?} cannot be forwarded: expected tcp or udp")]
    Proto(String),
    /// The parts are well-formed but do not fit together.
    #[error(transparent)]
    Invalid(#[from] InvalidRule),
}

impl FromStr for Rule {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let (place, proto) = match text.rsplit_once('/') {
            None => (text, Proto::Tcp),
            Some((place, name)) => (place, parse_proto(name)?),
        };
        let form = || ParseError::Form(text.to_owned());
        let raw = split_fields(place).ok_or_else(form)?;
        let fields = raw.iter().map(|field| Field::parse(field)).collect::<Result<Vec<_>, _>>()?;
        use Field::{Address, Empty};
        let (listen, host, guest, port) = match *fields.as_slice() {
            [port] => (None, Empty, None, port),
            [Address(_), _] => return Err(host_port_missing(text, &raw)),
            [host, port] => (None, host, None, port),
            [Address(listen), host, port] => (Some(listen), host, None, port),
            [host, Address(guest), port] => (None, host, Some(guest_ip(guest)?), port),
            [Address(listen), host, Address(guest), port] => {
                (Some(listen), host, Some(guest_ip(guest)?), port)
            }
            _ => return Err(form()),
        };
        Ok(Self::new(proto, listen, join_ports(host, port).ok_or_else(form)??, guest)?)
    }
}

/// One field between colons.
#[derive(Clone, Copy)]
enum Field {
    Empty,
    Address(ZonedAddr),
    /// First and last; 0 only as the whole field `0`.
    Ports(u16, u16),
}

impl Field {
    fn parse(text: &str) -> Result<Self, ParseError> {
        if text.is_empty() {
            return Ok(Self::Empty);
        }
        let no_address = || ParseError::Address(text.to_owned());
        if let Some(inner) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            if inner.contains('%') {
                let zoned = inner.parse().map_err(|error| ParseError::Zone(text.to_owned(), error))?;
                return Ok(Self::Address(zoned));
            }
            return Ipv6Addr::from_str(inner)
                .map(|a| Self::Address(IpAddr::from(a).into()))
                .map_err(|_| no_address());
        }
        if text.contains('.') {
            return Ipv4Addr::from_str(text)
                .map(|a| Self::Address(IpAddr::from(a).into()))
                .map_err(|_| no_address());
        }
        let no_port = || ParseError::Port(text.to_owned());
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let ranged = first.len() != text.len();
        let first = number(first).ok_or_else(no_port)?;
        let last = number(last).ok_or_else(no_port)?;
        if ranged && (first == 0 || last == 0) {
            return Err(no_port());
        }
        if last < first {
            return Err(ParseError::Backwards(text.to_owned()));
        }
        Ok(Self::Ports(first, last))
    }
}

/// Where a rule leads has no zone: the guest has one link.
fn guest_ip(guest: ZonedAddr) -> Result<IpAddr, ParseError> {
    match guest.zone() {
        None => Ok(guest.ip()),
        Some(_) => Err(ParseError::GuestZone(guest)),
    }
}

/// Digits only: `u16::from_str` would take a sign.
fn number(text: &str) -> Option<u16> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

/// Splits at the colons outside brackets; `None` if a bracket is not a whole field, or beyond four fields.
fn split_fields(text: &str) -> Option<Vec<&str>> {
    let mut fields = Vec::with_capacity(4);
    let mut rest = Some(text);
    while let Some(text) = rest {
        if fields.len() == 4 {
            return None;
        }
        let end =
            if text.starts_with('[') { text.find(']')? + 1 } else { text.find(':').unwrap_or(text.len()) };
        let (field, behind) = text.split_at(end);
        fields.push(field);
        rest = match behind {
            "" => None,
            _ => Some(behind.strip_prefix(':')?),
        };
    }
    Some(fields)
}

/// `None` if the fields are of the wrong kind.
fn join_ports(host: Field, port: Field) -> Option<Result<Ports, ParseError>> {
    let Field::Ports(first, last) = port else { return None };
    let Some(target) = NonZeroU16::new(first) else { return Some(Err(ParseError::Port("0".to_owned()))) };
    let count = last - first + 1;
    let listen = match host {
        Field::Empty | Field::Ports(0, _) => None,
        Field::Ports(first, last) if last - first + 1 == count => NonZeroU16::new(first),
        Field::Ports(first, last) => {
            return Some(Err(ParseError::Lengths { listen: last - first + 1, target: count }));
        }
        Field::Address(_) => return None,
    };
    NonZeroU16::new(count).and_then(|count| Ports::run(listen, target, count)).map(Ok)
}

fn parse_proto(name: &str) -> Result<Proto, ParseError> {
    match name.to_ascii_lowercase().as_str() {
        "tcp" => Ok(Proto::Tcp),
        "udp" => Ok(Proto::Udp),
        _ => Err(ParseError::Proto(name.to_owned())),
    }
}

fn host_port_missing(text: &str, fields: &[&str]) -> ParseError {
    match *fields {
        [address, port] => ParseError::HostPortMissing(text.to_owned(), address.to_owned(), port.to_owned()),
        _ => ParseError::Form(text.to_owned()),
    }
}
