//! The guest looks like the host: which of the host's interfaces its own is made after, and what it is given.
//!
//! ```text
//!   kernel ──▶ Snapshot ──▶ Template ──▶ [Op] ──▶ kernel
//!    take       choose        plan       apply
//!    (host)     (pure)       (pure)     (guest's namespace)
//! ```
//! A caller takes a [`Snapshot`] in the host's namespace before it joins any other, chooses a [`Template`] from it by
//! the [`Wishes`] of the command line, and reads there what its own engine must know: the guest's addresses and
//! gateway, and the name of its interface ([`Template::ifname`]). With [`plan()`] it has the list of steps that
//! configure the guest's interface, which `netns::open_tap` carries out where it opens the TAP
//! ([`crate::netns::Setup::Template`]), or [`apply()`] in whatever namespace the calling thread and its socket are in.
//! An empty plan leaves the interface as it is.
//!
//! **Which interface**, for each family: the one that the command line names; else the first that a default route of
//! the main table leads through; else the first that any route leads through which goes beyond the link; loopback
//! never. It has to have an address that is of use, unless the command line says one. Without any there is *local
//! mode*: the guest has addresses of the link only, and a gateway that is us.
//!
//! **What is copied**: all addresses of use, each with its own prefix, peer and scope; the one with the longest prefix
//! comes first, where whatever is sent to "the guest" goes. All routes of the main table that lead through the
//! interface, less what [`copy`] strips. A default route alone where the command line has a gateway. A copy that the
//! guest's kernel refuses is left out, with one warning for all; what was asked for is an error.
//!
//! **When the host changes**, [`Following`] says which steps lead from what the guest has to what the host has now.
//!
//! **Bounds**: [`snapshot`] bounds what is kept of the host, [`choose`] what a template takes (routes may name
//! objects of hundreds of next hops, which each of them then has written out). Sources: rtnetlink(7), Linux
//! `net/ipv4/fib_semantics.c`, `net/ipv6/route.c`, `net/ipv6/addrconf.c`.

mod apply;
mod choose;
mod copy;
mod follow;
mod fuzz;
mod link_local;
mod plan;
mod record;
mod snapshot;

#[cfg(test)]
mod tests;

pub use apply::apply;
pub use copy::Change;
pub use follow::{Following, Gather};
pub(crate) use fuzz::fuzz;
pub use plan::{Device, Op, plan};
pub use record::{Family, Link};
pub use snapshot::Snapshot;

use choose::{Asked, Chooser};
use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The name of the guest's interface where there is none to be like.
const LOCAL_NAME: &str = "tap0";

/// What the command line says about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wishes {
    /// The interface to be like (`-i`).
    pub interface: Option<String>,
    /// The name of the guest's interface (`-I`).
    pub ifname: Option<String>,
    /// IPv4; `None`: not at all (`-6`).
    pub v4: Option<Wish<Ipv4Addr>>,
    /// IPv6; `None`: not at all (`-4`).
    pub v6: Option<Wish<Ipv6Addr>>,
}

impl Default for Wishes {
    fn default() -> Self {
        Self { interface: None, ifname: None, v4: Some(Wish::default()), v6: Some(Wish::default()) }
    }
}

/// The same for one family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish<A> {
    /// The guest's only address (`-a`).
    pub address: Option<A>,
    /// The length of its prefix, or of the template's address (`-n`, `-a ADDR/LEN`). IPv6 has 64 bits always.
    pub prefix: Option<u8>,
    /// The guest's gateway (`-g`); its only route then leads there.
    pub gateway: Option<A>,
    /// The interface that its sockets are bound to (`--outbound-if4`, `--outbound-if6`): the one to be like, unless
    /// another is named.
    pub outbound: Option<String>,
    /// Whether the host's other addresses are copied (not `--no-copy-addrs`).
    pub copy_addresses: bool,
    /// Whether the host's routes are copied (not `--no-copy-routes`).
    pub copy_routes: bool,
}

impl<A> Default for Wish<A> {
    fn default() -> Self {
        Self {
            address: None,
            prefix: None,
            gateway: None,
            outbound: None,
            copy_addresses: true,
            copy_routes: true,
        }
    }
}

/// Why there is no template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChooseError {
    /// The interface for sockets is not there, or has no address and route of the family.
    #[error("External interface not usable")]
    Outbound,
    /// There is no interface of that name.
    #[error("Invalid interface name {0}: No such device")]
    Unknown(String),
}

/// What the guest is made after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    /// IPv4; `None`: not wanted.
    pub v4: Option<Side>,
    /// IPv6; `None`: not wanted.
    pub v6: Option<Side>,
    ifname: String,
    left_out: usize,
}

/// One family of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Side {
    /// The interface to be like; `None`: local mode.
    pub interface: Option<Link>,
    /// The guest's addresses; the first is the one that forwards go to and DHCP gives. Empty for IPv6 in local mode.
    pub addresses: Vec<IpNet>,
    /// Its gateway; `None`: the template's default route has none (a tunnel's, for one), or there is no such route.
    pub gateway: Option<IpAddr>,
    /// IPv6: what we are called on the guest's link.
    pub link_local: Option<Ipv6Addr>,
    /// What gives the interface its addresses.
    given: Vec<Change>,
    /// Its routes.
    routes: Vec<Change>,
}

impl Template {
    /// Chooses from what the host has.
    ///
    /// # Errors
    /// [`ChooseError`] when the command line names an interface that cannot be used.
    pub fn choose(snapshot: &Snapshot, wishes: &Wishes) -> Result<Self, ChooseError> {
        let mut chooser = Chooser::new(snapshot, wishes)?;
        let v4 = wishes.v4.as_ref().map(|wish| chooser.side(&Asked::new(Family::V4, wish))).transpose()?;
        let v6 = wishes.v6.as_ref().map(|wish| chooser.side(&Asked::new(Family::V6, wish))).transpose()?;
        let like = [&v4, &v6].into_iter().flatten().find_map(|side| side.interface.as_ref());
        let ifname = wishes.ifname.clone().or_else(|| like.map(|link| link.name.clone()));
        let ifname = ifname.unwrap_or_else(|| LOCAL_NAME.to_owned());
        Ok(Self { v4, v6, ifname, left_out: chooser.left_out() })
    }

    /// What the guest's interface is called.
    #[must_use]
    pub fn ifname(&self) -> &str {
        &self.ifname
    }

    /// What users should be told of it, at the level info.
    pub fn infos(&self) -> impl Iterator<Item = &'static str> {
        let local = |side: &Option<Side>| side.as_ref().is_some_and(|side| side.interface.is_none());
        let v4 = local(&self.v4).then_some("IPv4: no external interface as template, use local mode");
        let v6 = local(&self.v6).then_some("IPv6: no external interface as template, use local mode");
        v4.into_iter().chain(v6)
    }

    /// How many of the host's addresses and routes were too many.
    #[must_use]
    pub fn left_out(&self) -> usize {
        self.left_out
    }

    fn sides(&self) -> impl Iterator<Item = &Side> {
        [&self.v4, &self.v6].into_iter().flatten()
    }
}

impl Side {
    /// How many routes the guest is given.
    #[must_use]
    pub fn route_count(&self) -> usize {
        self.routes.len()
    }

    fn given(&self) -> &[Change] {
        &self.given
    }

    fn routes(&self) -> &[Change] {
        &self.routes
    }
}
