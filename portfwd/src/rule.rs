//! One forwarding rule: where the host listens, and where in the guest that leads.
//!
//! Every grammar that names forwarded ports ends in this type: `--publish` of the container tools (parsed here, with
//! [`FromStr`]), the `add_hostfwd` request of slirp4netns ([`crate::api::slirp`]), and those to come. A [`Rule`] is
//! valid once it exists: ports do not run past 65535, listening and target addresses are of one family, the target
//! is a unicast address.
//!
//! The publish grammar, fields separated by colons, IPv6 addresses in brackets:
//!
//! ```text
//! [LISTEN:][HOSTPORT]:[GUEST:]PORT[/tcp|/udp]        or just        PORT[/tcp|/udp]
//! ```
//!
//! `HOSTPORT` and `PORT` are numbers or ranges of the same length (`8000-8010:9000-9010`). `HOSTPORT` omitted or `0`
//! lets the kernel choose. `LISTEN` omitted means every address of both families. `GUEST`, an address of the guest
//! other than its main one, is an addition in the manner of `ssh -L`. The protocol is `tcp` if not given.
//!
//! [`Rule`]'s `Display` prints this grammar again, always the same way, and what it prints parses to the same rule.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::num::NonZeroU16;
use core::str::FromStr;

/// A transport protocol that can be forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Proto {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Proto {
    /// As people write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

impl fmt::Display for Proto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A run of listening ports and the run of guest ports, of the same length, that they lead to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ports {
    listen: Option<NonZeroU16>,
    target: NonZeroU16,
    count: NonZeroU16,
}

impl Ports {
    /// One port; `None` as listening port lets the kernel choose.
    #[must_use]
    pub const fn single(listen: Option<NonZeroU16>, target: NonZeroU16) -> Self {
        Self { listen, target, count: NonZeroU16::MIN }
    }

    /// `count` ports from `listen` on, leading to those from `target` on; the kernel chooses all the listening ones
    /// if `listen` is `None`. `None` if either run goes past 65535.
    #[must_use]
    pub fn run(listen: Option<NonZeroU16>, target: NonZeroU16, count: NonZeroU16) -> Option<Self> {
        let more = count.get() - 1;
        target.checked_add(more)?;
        if let Some(listen) = listen {
            listen.checked_add(more)?;
        }
        Some(Self { listen, target, count })
    }

    /// The first listening port, unless the kernel chooses.
    #[must_use]
    pub const fn first_listen(self) -> Option<NonZeroU16> {
        self.listen
    }

    /// The first guest port.
    #[must_use]
    pub const fn first_target(self) -> NonZeroU16 {
        self.target
    }

    /// How many.
    #[must_use]
    pub const fn count(self) -> NonZeroU16 {
        self.count
    }

    /// Pairs of listening port (0: the kernel chooses) and guest port.
    pub fn pairs(self) -> impl Iterator<Item = (u16, NonZeroU16)> {
        (0..self.count.get()).map(move |offset| {
            let listen = self.listen.map_or(0, |first| first.get() + offset);
            (listen, self.target.saturating_add(offset))
        })
    }
}

/// What makes a rule impossible, whatever the grammar it was written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRule {
    /// No translation between the families.
    #[error(
        "{listen} and {target} are of different families: listen on an address of the guest address's family"
    )]
    Families {
        /// Where it would listen.
        listen: IpAddr,
        /// Where it would lead.
        target: IpAddr,
    },
    /// Not the address of one host.
    #[error("{0} is not the address of one guest: expected a unicast address")]
    Target(IpAddr),
}

/// A forwarding rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rule {
    proto: Proto,
    listen: Option<IpAddr>,
    ports: Ports,
    target: Option<IpAddr>,
}

impl Rule {
    /// A rule that listens on `listen` (`None`: every address, of the family of `target` if that is given, otherwise of
    /// both) and leads to `target` (`None`: the guest's main address of the client's family).
    ///
    /// # Errors
    /// See [`InvalidRule`].
    pub fn new(
        proto: Proto,
        listen: Option<IpAddr>,
        ports: Ports,
        target: Option<IpAddr>,
    ) -> Result<Self, InvalidRule> {
        let listen = listen.map(|address| address.to_canonical());
        let target = target.map(|address| address.to_canonical());
        if let Some(target) = target {
            let broadcast = target == IpAddr::V4(Ipv4Addr::BROADCAST);
            if target.is_unspecified() || target.is_multicast() || broadcast {
                return Err(InvalidRule::Target(target));
            }
            if let Some(listen) = listen
                && listen.is_ipv4() != target.is_ipv4()
            {
                return Err(InvalidRule::Families { listen, target });
            }
        }
        Ok(Self { proto, listen, ports, target })
    }

    /// The protocol.
    #[must_use]
    pub const fn proto(&self) -> Proto {
        self.proto
    }

    /// Where it listens; `None`: every address.
    #[must_use]
    pub const fn listen(&self) -> Option<IpAddr> {
        self.listen
    }

    /// The ports.
    #[must_use]
    pub const fn ports(&self) -> Ports {
        self.ports
    }

    /// Where it leads; `None`: the guest's main address of the client's family.
    #[must_use]
    pub const fn target(&self) -> Option<IpAddr> {
        self.target
    }
}

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
            write!(f, "{}:", InField(address))?;
        }
        write!(f, "{}/{}", Run { first: self.ports.target, more }, self.proto)
    }
}

/// An address as a field of the publish grammar.
struct InField(IpAddr);

impl fmt::Display for InField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V4(address) => write!(f, "{address}"),
            IpAddr::V6(address) => write!(f, "[{address}]"),
        }
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
            [host, Address(guest), port] => (None, host, Some(guest), port),
            [Address(listen), host, Address(guest), port] => (Some(listen), host, Some(guest), port),
            _ => return Err(form()),
        };
        Ok(Self::new(proto, listen, join_ports(host, port).ok_or_else(form)??, guest)?)
    }
}

/// One field between colons.
#[derive(Clone, Copy)]
enum Field {
    Empty,
    Address(IpAddr),
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
            return Ipv6Addr::from_str(inner)
                .map(|a| Self::Address(a.to_canonical()))
                .map_err(|_| no_address());
        }
        if text.contains('.') {
            return Ipv4Addr::from_str(text).map(|a| Self::Address(a.into())).map_err(|_| no_address());
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Rule {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    fn refusal(text: &str) -> String {
        text.parse::<Rule>().expect_err(text).to_string()
    }

    fn first_pair(rule: Rule) -> (u16, u16) {
        rule.ports().pairs().next().map(|(listen, target)| (listen, target.get())).unwrap()
    }

    #[test]
    fn the_common_forms() {
        let rule = parse("8080:80");
        assert_eq!((rule.proto(), rule.listen(), rule.target()), (Proto::Tcp, None, None));
        assert_eq!(first_pair(rule), (8080, 80));
        assert_eq!(first_pair(parse("80")), (0, 80));
        assert_eq!(first_pair(parse("0:80")), (0, 80));
        assert_eq!(first_pair(parse(":80")), (0, 80));
        assert_eq!(parse("127.0.0.1::80").listen(), Some(Ipv4Addr::LOCALHOST.into()));
        assert_eq!(parse("[::1]:8080:80/tcp").listen(), Some(Ipv6Addr::LOCALHOST.into()));
        assert_eq!(parse("53:53/UDP").proto(), Proto::Udp);
        assert_eq!(parse("[::ffff:127.0.0.1]:1:2").listen(), Some(Ipv4Addr::LOCALHOST.into()));
    }

    #[test]
    fn ranges_keep_their_offset() {
        let rule = parse("8000-8010:9000-9010/udp");
        let pairs: Vec<_> = rule.ports().pairs().map(|(a, b)| (a, b.get())).collect();
        assert_eq!(pairs.len(), 11);
        assert_eq!(pairs.first(), Some(&(8000, 9000)));
        assert_eq!(pairs.last(), Some(&(8010, 9010)));
        let chosen: Vec<_> = parse("9000-9001").ports().pairs().map(|(a, b)| (a, b.get())).collect();
        assert_eq!(chosen, [(0, 9000), (0, 9001)]);
        assert_eq!(parse("1-65535:1-65535").ports().pairs().count(), 65535);
    }

    #[test]
    fn another_guest_address_goes_before_the_guest_port() {
        let rule = parse("8080:10.0.2.7:80");
        assert_eq!((rule.listen(), rule.target()), (None, Some("10.0.2.7".parse().unwrap())));
        let rule = parse("[::1]::[fd00::7]:80");
        assert_eq!(rule.listen(), Some(Ipv6Addr::LOCALHOST.into()));
        assert_eq!(rule.target(), Some("fd00::7".parse().unwrap()));
    }

    #[test]
    fn refusals_say_what_was_expected() {
        for (text, expected) in [
            ("", "expected [IP:][HOSTPORT:]PORT"),
            ("8080:", "expected [IP:][HOSTPORT:]PORT"),
            ("1:2:3:4:5", "expected [IP:][HOSTPORT:]PORT"),
            ("::1:8080:80", "in brackets"),
            ("[::1]8080:80", "in brackets"),
            ("[::1:8080:80", "in brackets"),
            ("[::1%eth0]:8080:80", "not an IP address"),
            ("127.0.0.1:80", "write 127.0.0.1::80"),
            ("[::1]:80", "write [::1]::80"),
            ("300.0.0.1:1:2", "not an IP address"),
            ("localhost:1:2", "not a port"),
            ("8080:0", "from 1 to 65535"),
            ("8080:+80", "not a port"),
            ("8080:65536", "from 1 to 65535"),
            ("8080:80-", "not a port"),
            ("0-3:1-4", "not a port"),
            ("9-8:9-8", "ends before it begins"),
            ("8000-8001:80", "2 host ports cannot lead to 1"),
            ("80:80/sctp", "expected tcp or udp"),
            ("80:80/", "expected tcp or udp"),
            ("127.0.0.1:80:[fd00::1]:80", "different families"),
            ("80:224.0.0.1:80", "unicast"),
            ("80:[::]:80", "unicast"),
        ] {
            let got = refusal(text);
            assert!(got.contains(expected), "{text}: {got}");
        }
    }

    fn any_rule() -> impl Strategy<Value = Rule> {
        let address =
            prop_oneof![any::<Ipv4Addr>().prop_map(IpAddr::V4), any::<Ipv6Addr>().prop_map(IpAddr::V6)];
        let listen = proptest::option::of(address.clone());
        let target = proptest::option::of(address);
        let port = (1..=u16::MAX).prop_filter_map("not 0", NonZeroU16::new);
        let ports = (proptest::option::of(port.clone()), port.clone(), port);
        let proto = prop_oneof![Just(Proto::Tcp), Just(Proto::Udp)];
        (proto, listen, ports, target).prop_filter_map(
            "valid",
            |(proto, listen, (host, guest, count), target)| {
                let count = NonZeroU16::new(count.get() % 64 + 1)?;
                Rule::new(proto, listen, Ports::run(host, guest, count)?, target).ok()
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_printed_parses_to_the_same_rule(rule in any_rule()) {
            let text = rule.to_string();
            prop_assert_eq!(text.parse::<Rule>(), Ok(rule), "{}", text);
        }

        #[test]
        fn whatever_parses_prints_canonically(text in "[0-9a-f:\\[\\].\\-/tcpud*]{0,24}") {
            if let Ok(rule) = text.parse::<Rule>() {
                prop_assert_eq!(rule.to_string().parse::<Rule>(), Ok(rule));
            }
        }

        #[test]
        fn no_text_panics(text in any::<String>()) {
            let _ = text.parse::<Rule>().map_err(|error| error.to_string());
        }
    }
}
