//! A rule as somebody wrote it, before anybody has looked whether it can be: a run of ports of a SPEC, or one entry of
//! a table that came over a socket. And how rules of this kind are shown.

use crate::rule::{InvalidRule, Manner, Ports, Proto, Rule};
use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::num::NonZeroU16;
use slipway_host::inside::Side;
use slipway_host::scope::{Zone, ZonedAddr};

/// Rules of one table.
pub const MAX_RULES: usize = 255;
/// Ports of all its rules together: five of each of 65536.
pub const MAX_SOCKETS: usize = 5 << 16;

/// What rules may ask for: what the guest has and the kernel permits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// IPv4.
    pub ipv4: bool,
    /// IPv6.
    pub ipv6: bool,
    /// TCP.
    pub tcp: bool,
    /// UDP.
    pub udp: bool,
    /// Ports that are open while somebody listens across.
    pub scan: bool,
    /// Sockets on one interface (SO_BINDTODEVICE).
    pub interface: bool,
}

impl Capabilities {
    /// Everything.
    pub const ALL: Self = Self { ipv4: true, ipv6: true, tcp: true, udp: true, scan: true, interface: true };

    fn family(self, ipv6: bool) -> bool {
        if ipv6 { self.ipv6 } else { self.ipv4 }
    }
}

/// A rule that may be impossible. Its `Display` is how the original shows a rule, with the blank that it leaves behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Draft {
    /// The protocol.
    pub proto: Proto,
    /// Where to listen; `None`: any address, of both families.
    pub listen: Option<IpAddr>,
    /// On which interface.
    pub interface: Option<Zone>,
    /// The first port to listen on.
    pub first: u16,
    /// The last.
    pub last: u16,
    /// Where the first leads.
    pub to: u16,
    /// To whom; `None`: the guest's main address, or the loopback across.
    pub target: Option<IpAddr>,
    /// See [`Manner::weak`].
    pub weak: bool,
    /// See [`Manner::scan`].
    pub scan: bool,
}

impl From<&Rule> for Draft {
    fn from(rule: &Rule) -> Self {
        let ports = rule.ports();
        let first = ports.first_listen().map_or(0, NonZeroU16::get);
        Self {
            proto: rule.proto(),
            listen: rule.listen().map(|listen| listen.ip()),
            interface: rule.interface(),
            first,
            last: first.saturating_add(ports.count().get() - 1),
            to: ports.first_target().get(),
            target: rule.target(),
            weak: rule.weak(),
            scan: rule.scan(),
        }
    }
}

impl fmt::Display for Draft {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let proto = upper(self.proto);
        match self.listen {
            None => write!(f, "{proto} [*]")?,
            Some(address) => write!(f, "{proto} [{address}]")?,
        }
        if let Some(interface) = self.interface {
            write!(f, "%{interface}")?;
        }
        write!(f, ":{}  =>  ", Ends(self.first.into(), self.last.into()))?;
        if let Some(target) = self.target {
            write!(f, "{target}:")?;
        }
        let (to, more) = (u32::from(self.to), u32::from(self.last.saturating_sub(self.first)));
        write!(f, "{} ", Ends(to, to + more))?;
        f.write_str(if self.weak { " (best effort)" } else { "" })?;
        f.write_str(if self.scan { " (auto-scan)" } else { "" })
    }
}

/// A port, or the first and the last of several.
struct Ends(u32, u32);

impl fmt::Display for Ends {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == self.1 { write!(f, "{}", self.0) } else { write!(f, "{}-{}", self.0, self.1) }
    }
}

/// Why a rule cannot be. The texts are those of the original where it has one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// The protocol is switched off.
    #[error("Can't add {proto} forwarding rule, {proto} not enabled", proto = upper(*.0))]
    Off(Proto),
    /// The family is.
    #[error("{family} forward, but {family} not enabled", family = family(*.0))]
    FamilyOff(bool),
    /// Port 0 to listen on.
    #[error("Forwarding rule attempts to map from port 0")]
    FromZero,
    /// Port 0 to lead to.
    #[error("Forwarding rule attempts to map to port 0")]
    ToZero,
    /// The last port comes before the first, or one of them would be beyond 65535.
    #[error("Forwarding rule has an impossible range of ports")]
    Range,
    /// Clients of the other family could not be led there.
    #[error(
        "Dual stack forward to {family} address {0} unsupported\nDid you mean {any}/... instead?",
        family = family(.0.is_ipv6()), any = if .0.is_ipv6() { "[::]" } else { "0.0.0.0" }
    )]
    Dual(IpAddr),
    /// No translation between the families.
    #[error(
        "Forward from {from} ({0}) to {to} ({1}) unsupported",
        from = family(.0.is_ipv6()), to = family(.1.is_ipv6())
    )]
    Families(IpAddr, IpAddr),
    /// Many at once, or all.
    #[error("Multicast target address {0} for forwarding rule")]
    Multicast(IpAddr),
    /// It contradicts itself in another way.
    #[error(transparent)]
    Invalid(InvalidRule),
    /// The table is full.
    #[error("Too many rules (maximum {most})", most = MAX_RULES)]
    TooManyRules,
    /// The table's ports are.
    #[error("Rules require too many listening sockets (maximum {most})", most = MAX_SOCKETS)]
    TooManySockets,
    /// Another rule listens there; both are shown.
    #[error("Forwarding configuration conflict: {} versus {}", .0[0], .0[1])]
    Conflict(Box<[Draft; 2]>),
    /// There is no such rule to delete.
    #[error("Couldn't find forwarding rule to delete: {0}")]
    Missing(Box<Draft>),
}

fn upper(proto: Proto) -> &'static str {
    match proto {
        Proto::Tcp => "TCP",
        Proto::Udp => "UDP",
    }
}

fn family(ipv6: bool) -> &'static str {
    if ipv6 { "IPv6" } else { "IPv4" }
}

/// What was to be done with a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// It was to be added.
    Add,
    /// It was to be deleted.
    Delete,
}

/// What cannot be done, and with which rule, in two or three lines.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}\nUnable to {} rule {draft}", if *.verb == Verb::Add { "add" } else { "delete" })]
pub struct Refusal {
    /// What was to be done.
    pub verb: Verb,
    /// Why not.
    pub reason: Reason,
    /// The rule.
    pub draft: Draft,
}

impl Draft {
    /// That it cannot be, for this reason.
    #[must_use]
    pub const fn refused(self, verb: Verb, reason: Reason) -> Refusal {
        Refusal { verb, reason, draft: self }
    }

    /// The rule, if there can be one. Any address of two families becomes that of one where there is only one.
    ///
    /// # Errors
    /// Why there cannot.
    pub fn check(&self, side: Side, can: Capabilities) -> Result<Rule, Reason> {
        if !(if self.proto == Proto::Tcp { can.tcp } else { can.udp }) {
            return Err(Reason::Off(self.proto));
        }
        let listen = match (self.listen, can.ipv4, can.ipv6) {
            (None, true, false) => Some(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
            (None, false, _) => Some(IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
            (listen, ..) => listen,
        };
        if let Some(listen) = listen
            && !can.family(listen.is_ipv6())
        {
            return Err(Reason::FamilyOff(listen.is_ipv6()));
        }
        match (listen, self.target) {
            (None, Some(target)) => return Err(Reason::Dual(target)),
            (Some(listen), Some(target)) if listen.is_ipv6() != target.is_ipv6() => {
                return Err(Reason::Families(listen, target));
            }
            _ => {}
        }
        if let Some(target) = self.target.filter(many) {
            return Err(Reason::Multicast(target));
        }
        let first = NonZeroU16::new(self.first).ok_or(Reason::FromZero)?;
        let to = NonZeroU16::new(self.to).ok_or(Reason::ToZero)?;
        let count = self.last.checked_sub(self.first).and_then(|more| more.checked_add(1));
        let count = count.and_then(NonZeroU16::new).ok_or(Reason::Range)?;
        let ports = Ports::run(Some(first), to, count).ok_or(Reason::Range)?;
        let listen = listen.map(|listen| zoned(listen, self.interface));
        let rule = Rule::new(self.proto, listen, ports, self.target).map_err(Reason::Invalid)?;
        let Self { interface, weak, scan, .. } = *self;
        Ok(rule.served(Manner { side, interface, weak, scan, crossing: false }))
    }
}

fn many(target: &IpAddr) -> bool {
    target.is_multicast() || *target == IpAddr::V4(Ipv4Addr::BROADCAST)
}

/// A link-local address is bound with its interface; any other is only bound, and the socket to the interface.
fn zoned(listen: IpAddr, interface: Option<Zone>) -> ZonedAddr {
    let zoned = match (listen, interface) {
        (IpAddr::V6(ip), Some(zone)) => ZonedAddr::link_local(ip, zone),
        _ => None,
    };
    zoned.unwrap_or_else(|| listen.into())
}
