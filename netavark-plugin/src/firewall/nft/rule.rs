//! The model: what a rule of the table `inet netavark` can say.
//!
//! A rule is a list of clauses, conditions first, then what is done. Only those are here that the contract's rules are
//! made of; a rule that says anything else was written by somebody else, is not decoded, and is left alone. Printing a
//! rule gives the text that `nft list` gives.
//!
//! Limit: the set behind `meta l4proto { tcp, udp }` is not read back; any anonymous set in that place is taken for it.

use super::wire::BRIDGES;
use ipnet::IpNet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

/// A rule.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Rule(pub(super) Vec<Clause>);

/// Source or destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum End {
    /// `saddr`
    Source,
    /// `daddr`
    Destination,
}

/// Came in or goes out by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Direction {
    /// `iifname`
    In,
    /// `oifname`
    Out,
}

/// Part of a rule.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Clause {
    /// `ip saddr 10.88.0.0/16`; the address has no host bits.
    Address { end: End, net: IpNet, equal: bool },
    /// `tcp`, by its number; a [`Clause::Port`] follows.
    Protocol(u8),
    /// `meta l4proto { tcp, udp }`; a [`Clause::Port`] follows.
    TcpOrUdp,
    /// `dport 80-90`
    Port { first: u16, last: u16 },
    /// `ct state established,related`: any of these bits.
    State(u32),
    /// `ct mark & 0x00001000 == 0x00001000`: all of these bits.
    ConnectionMark(u32),
    /// `meta mark & 0x00002000 == 0x00002000`
    PacketMark(u32),
    /// `iifname "podman0"`
    Interface { direction: Direction, name: String, equal: bool },
    /// `iifname @bridges`: by one of the bridges in the table's set.
    OurBridge(Direction),
    /// `fib daddr type local`
    LocalDestination,
    /// `fib daddr . iif type != local`: not an address of the very interface it came in by.
    ElsewhereDestination,
    /// `ct status dnat`: the connection's destination was rewritten.
    Rewritten,
    /// `meta mark set meta mark | 0x00002000`
    SetPacketMark(u32),
    /// `ct mark set meta mark | 0x00001000`
    SetConnectionMark(u32),
    /// `accept`
    Accept,
    /// `drop`
    Drop,
    /// `jump CHAIN`
    Jump(String),
    /// `masquerade`
    Masquerade,
    /// `snat ip to 198.51.100.1`
    Snat(IpAddr),
    /// `dnat ip to 10.88.0.2:80`
    Dnat(SocketAddr),
    /// `dnat ip to tcp dport map { ... }`
    DnatByPort(PortMap),
}

/// Many ports in a row, each sent to the one as far on in another row. As text it is the rule's comment, by which it is
/// recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct PortMap {
    /// The first port that is matched.
    pub(super) first: u16,
    /// How many more there are.
    pub(super) more: u16,
    /// Where the first one goes.
    pub(super) to: SocketAddr,
}

/// `ct state` bits (NF_CT_STATE_BIT): invalid, established, related.
pub(super) const INVALID: u32 = 1;
pub(super) const ESTABLISHED: u32 = 2;
pub(super) const RELATED: u32 = 4;

/// Protocols with ports: IANA's number and nft's name.
pub(super) const PROTOCOLS: [(u8, &str); 5] =
    [(6, "tcp"), (17, "udp"), (132, "sctp"), (33, "dccp"), (136, "udplite")];

impl Rule {
    /// The clauses.
    pub(super) fn clauses(&self) -> &[Clause] {
        &self.0
    }

    /// Whether it jumps to that chain.
    pub(super) fn jumps_to(&self, chain: &str) -> bool {
        self.0.iter().any(|clause| matches!(clause, Clause::Jump(target) if target == chain))
    }

    /// Whether it names that interface.
    pub(super) fn names(&self, interface: &str) -> bool {
        self.0.iter().any(|clause| matches!(clause, Clause::Interface { name, .. } if name == interface))
    }

    /// The first interface that it names.
    pub(super) fn interface(&self) -> Option<&str> {
        self.0.iter().find_map(|clause| match clause {
            Clause::Interface { name, .. } => Some(name.as_str()),
            _ => None,
        })
    }

    /// Whether it asks for an address in exactly that subnet.
    pub(super) fn matches_net(&self, subnet: &IpNet) -> bool {
        self.0.iter().any(|clause| matches!(clause, Clause::Address { net, .. } if *net == subnet.trunc()))
    }

    /// The same without the connection's mark, which not all versions set.
    pub(super) fn without_mark(mut self) -> Self {
        self.0.retain(|clause| !matches!(clause, Clause::SetConnectionMark(_)));
        self
    }
}

impl PortMap {
    /// Matched port and destination of each.
    pub(super) fn entries(self) -> impl Iterator<Item = (u16, SocketAddr)> {
        let Self { first, more, to } = self;
        (0..=more)
            .map(move |i| (first.saturating_add(i), SocketAddr::new(to.ip(), to.port().saturating_add(i))))
    }

    fn last(&self) -> (u16, u16) {
        (self.first.saturating_add(self.more), self.to.port().saturating_add(self.more))
    }
}

impl fmt::Display for PortMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (last, to_last) = self.last();
        write!(f, "{}-{last} to {}-{to_last}", self.first, self.to)
    }
}

impl FromStr for PortMap {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (ports, to) = text.split_once(" to ").ok_or(())?;
        let (first, last) = ports.split_once('-').ok_or(())?;
        let (to, _) = to.rsplit_once('-').ok_or(())?;
        let first: u16 = first.parse().map_err(|_| ())?;
        let last: u16 = last.parse().map_err(|_| ())?;
        let map = Self { first, more: last.checked_sub(first).ok_or(())?, to: to.parse().map_err(|_| ())? };
        if map.to_string() == text { Ok(map) } else { Err(()) }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, clause) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(" ")?;
            }
            fmt::Display::fmt(clause, f)?;
        }
        Ok(())
    }
}

impl fmt::Display for Clause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = |ipv6: bool| if ipv6 { "ip6" } else { "ip" };
        match self {
            Self::Address { end, net, equal } => {
                let end = if *end == End::Source { "saddr" } else { "daddr" };
                write!(f, "{} {end} {}", family(net.addr().is_ipv6()), not(*equal))?;
                if net.prefix_len() == net.max_prefix_len() {
                    write!(f, "{}", net.addr())
                } else {
                    write!(f, "{net}")
                }
            }
            Self::Protocol(number) => match PROTOCOLS.iter().find(|(known, _)| known == number) {
                Some((_, name)) => f.write_str(name),
                None => write!(f, "meta l4proto {number} th"),
            },
            Self::TcpOrUdp => f.write_str("meta l4proto { tcp, udp } th"),
            Self::Port { first, last } if first == last => write!(f, "dport {first}"),
            Self::Port { first, last } => write!(f, "dport {first}-{last}"),
            Self::State(bits) => {
                f.write_str("ct state ")?;
                let names = [(INVALID, "invalid"), (ESTABLISHED, "established"), (RELATED, "related")];
                let names: Vec<_> =
                    names.iter().filter(|(bit, _)| bits & bit != 0).map(|(_, name)| *name).collect();
                f.write_str(&names.join(","))
            }
            Self::ConnectionMark(bits) => write!(f, "ct mark & {bits:#010x} == {bits:#010x}"),
            Self::PacketMark(bits) => write!(f, "meta mark & {bits:#010x} == {bits:#010x}"),
            Self::Interface { direction, name, equal } => {
                let key = if *direction == Direction::In { "iifname" } else { "oifname" };
                write!(f, "{key} {}\"{name}\"", not(*equal))
            }
            Self::OurBridge(Direction::In) => write!(f, "iifname @{BRIDGES}"),
            Self::OurBridge(Direction::Out) => write!(f, "oifname @{BRIDGES}"),
            Self::LocalDestination => f.write_str("fib daddr type local"),
            Self::ElsewhereDestination => f.write_str("fib daddr . iif type != local"),
            Self::Rewritten => f.write_str("ct status dnat"),
            Self::SetPacketMark(bits) => write!(f, "meta mark set meta mark | {bits:#010x}"),
            Self::SetConnectionMark(bits) => write!(f, "ct mark set meta mark | {bits:#010x}"),
            Self::Accept => f.write_str("accept"),
            Self::Drop => f.write_str("drop"),
            Self::Jump(chain) => write!(f, "jump {chain}"),
            Self::Masquerade => f.write_str("masquerade"),
            Self::Snat(to) => write!(f, "snat {} to {to}", family(to.is_ipv6())),
            Self::Dnat(to) => write!(f, "dnat {} to {to}", family(to.is_ipv6())),
            Self::DnatByPort(map) => {
                let (family, separator) = (family(map.to.is_ipv6()), if map.more > 1 { ", ..." } else { "" });
                let (first, to) = (map.first, map.to);
                write!(
                    f,
                    "dnat {family} to th dport map {{ {first} : {} . {}{separator} }} comment \"{map}\"",
                    to.ip(),
                    to.port()
                )
            }
        }
    }
}

fn not(equal: bool) -> &'static str {
    if equal { "" } else { "!= " }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_map_is_its_comment() {
        for (text, more) in [
            ("8080-9079 to 10.88.0.2:80-1079", 999),
            ("1-65535 to [fd10::2]:1-65535", 65534),
            ("7-7 to 10.0.0.1:9-9", 0),
        ] {
            let map: PortMap = text.parse().unwrap();
            assert_eq!((map.more, map.to_string().as_str()), (more, text));
            assert_eq!(map.entries().count(), usize::from(more) + 1);
        }
        for bad in
            ["", "8080", "9-8 to 10.0.0.1:9-8", "8-9 to 10.0.0.1:9-11", "8-9 to x:1-2", "8-9 to 10.0.0.1"]
        {
            assert_eq!(bad.parse::<PortMap>(), Err(()), "{bad}");
        }
    }
}
