//! One forwarding rule: where the host listens, and where in the guest that leads.
//!
//! Every grammar that names forwarded ports ends in this type: `--publish` of the container tools ([`publish`]), the
//! port options of pasta and passt ([`passt`]), the `add_hostfwd` request of slirp4netns ([`crate::api::slirp`]). A
//! [`Rule`] is valid once it exists: ports do not run past 65535, listening and target addresses are of one family, the
//! target is a unicast address, a link-local address to listen on comes with its interface (whether the host has one of
//! that name is seen when the rule is put in force).
//!
//! A rule stands on one side of the border: on the host's it leads to the guest, on the guest's to the host. What else
//! a rule may have of its own is its [`Manner`]; a rule of [`Rule::new`] has the plain one.

pub mod passt;
pub mod publish;

use core::fmt;
use core::net::{IpAddr, Ipv4Addr};
use core::num::NonZeroU16;
pub use publish::ParseError;
use slipway_host::inside::Side;
use slipway_host::scope::{Zone, ZonedAddr};

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

    /// The listening port that leads to `target`, and this as a port; `None` if none does, or the kernel chooses it.
    #[must_use]
    pub fn leading_to(self, target: u16) -> Option<(u16, NonZeroU16)> {
        let offset = target.checked_sub(self.target.get()).filter(|offset| *offset < self.count.get())?;
        Some((self.listen?.get().checked_add(offset)?, NonZeroU16::new(target)?))
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
    /// Somewhere on one of the host's links.
    #[error("{0} is a link-local address, which needs its interface: write it as {0}%eth0")]
    ZoneMissing(IpAddr),
    /// Not the address of one host.
    #[error("{0} is not the address of one guest: expected a unicast address")]
    Target(IpAddr),
}

/// How a rule is served, beyond what and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Manner {
    /// Where its sockets stand: [`Side::Host`] leads to the guest, [`Side::Namespace`] to the host.
    pub side: Side,
    /// Its sockets hear what arrives on this interface only (SO_BINDTODEVICE).
    pub interface: Option<Zone>,
    /// Ports that cannot be had are done without, as long as one can.
    pub weak: bool,
    /// Its ports are open while somebody listens on them across the border.
    pub scan: bool,
    /// Clients of the other family are led to its target as well, which sees them as the gateway: TCP alone can do
    /// that ([`Rule::crossing`]).
    pub crossing: bool,
}

impl Manner {
    /// On the host, on all interfaces, whole or not at all, all the time.
    pub const PLAIN: Self =
        Self { side: Side::Host, interface: None, weak: false, scan: false, crossing: false };
}

/// A forwarding rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rule {
    proto: Proto,
    listen: Option<ZonedAddr>,
    ports: Ports,
    target: Option<IpAddr>,
    manner: Manner,
}

impl Rule {
    /// A rule that listens on `listen` (`None`: every address, of the family of `target` if that is given, otherwise of
    /// both) and leads to `target` (`None`: the guest's main address of the client's family).
    ///
    /// # Errors
    /// See [`InvalidRule`].
    pub fn new(
        proto: Proto,
        listen: Option<impl Into<ZonedAddr>>,
        ports: Ports,
        target: Option<IpAddr>,
    ) -> Result<Self, InvalidRule> {
        let listen: Option<ZonedAddr> = listen.map(Into::into);
        if let Some(listen) = listen.filter(ZonedAddr::lacks_zone) {
            return Err(InvalidRule::ZoneMissing(listen.ip()));
        }
        let target = target.map(|address| one_host(address.to_canonical())).transpose()?;
        if let (Some(listen), Some(target)) = (listen.map(|listen| listen.ip()), target)
            && listen.is_ipv4() != target.is_ipv4()
        {
            return Err(InvalidRule::Families { listen, target });
        }
        Ok(Self { proto, listen, ports, target, manner: Manner::PLAIN })
    }

    /// A TCP rule that listens on `listen` (`None`: every address of both families) and leads clients of either family
    /// to `target`.
    ///
    /// # Errors
    /// See [`InvalidRule`].
    pub fn crossing(
        listen: Option<impl Into<ZonedAddr>>,
        ports: Ports,
        target: IpAddr,
    ) -> Result<Self, InvalidRule> {
        let rule = Self::new(Proto::Tcp, listen, ports, None)?;
        let manner = Manner { crossing: true, ..Manner::PLAIN };
        Ok(Self { target: Some(one_host(target.to_canonical())?), manner, ..rule })
    }

    /// The same rule, served in another manner.
    #[must_use]
    pub const fn served(self, manner: Manner) -> Self {
        Self { manner, ..self }
    }

    /// The protocol.
    #[must_use]
    pub const fn proto(&self) -> Proto {
        self.proto
    }

    /// Where it listens; `None`: every address.
    #[must_use]
    pub const fn listen(&self) -> Option<ZonedAddr> {
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

    /// How it is served.
    #[must_use]
    pub const fn manner(&self) -> Manner {
        self.manner
    }

    /// Where its sockets stand.
    #[must_use]
    pub const fn side(&self) -> Side {
        self.manner.side
    }

    /// The interface that its sockets are bound to.
    #[must_use]
    pub const fn interface(&self) -> Option<Zone> {
        self.manner.interface
    }

    /// Whether ports that cannot be had are done without.
    #[must_use]
    pub const fn weak(&self) -> bool {
        self.manner.weak
    }

    /// Whether its ports are open only while somebody listens across.
    #[must_use]
    pub const fn scan(&self) -> bool {
        self.manner.scan
    }

    /// Whether it listens on every address of both families.
    #[must_use]
    pub const fn dual(&self) -> bool {
        self.listen.is_none() && (self.target.is_none() || self.manner.crossing)
    }
}

/// `target`, which can be that of one guest.
fn one_host(target: IpAddr) -> Result<IpAddr, InvalidRule> {
    let nobodys = target.is_unspecified() || target.is_multicast();
    if nobodys || target == IpAddr::V4(Ipv4Addr::BROADCAST) {
        return Err(InvalidRule::Target(target));
    }
    Ok(target)
}

#[cfg(test)]
mod tests;
