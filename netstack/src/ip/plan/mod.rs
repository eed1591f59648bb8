//! The addresses of the guest's link, and what each of them stands for, as one value.
//!
//! Every personality has a notion of its own: for slirp4netns the gateway is the host, and who else has an address of
//! the network is nobody's business; others lend the guest the host's own address, or have no gateway at all. So there
//! are no branches here for any of them, only tables that are gone through from the top, where the first row that fits
//! decides: [`Case`] says where a destination leads, [`View`] how the guest sees a peer. A constructor for each
//! personality stands in a file of its own ([`slirp`], [`pasta`], [`gvproxy`]) and is tested row by row.
//!
//! The engine has one plan at a time and can be given another while it runs ([`crate::Engine::readdress`]). Tables are
//! short (ten rows), and asked for a packet that begins a flow, and for datagrams; a segment of a connection never gets
//! here.
//!
//! Invariant: what no row names leads to nobody. A plan that forgets something is closed, not open.

pub mod gvproxy;
pub mod pasta;
mod prefix;
pub mod slirp;

pub use crate::upstream::ServiceId;
pub use prefix::{Address, Prefix};

use crate::addr::MacAddr;
use crate::headers::{PROTO_ICMP, PROTO_ICMPV6, PROTO_TCP, PROTO_UDP};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use core::time::Duration;

/// Where DNS servers listen (RFC 1035 §4.2).
pub const DNS_PORT: u16 = 53;

/// The IPv4 dummy address (RFC 7600, and IANA's registry of special addresses), for errors of whoever has no other.
const DUMMY: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 8);

/// Where a destination address of the guest leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// To this address on the host's side.
    Upstream(IpAddr),
    /// To the host's nameservers.
    Dns,
    /// To a service of this process: connections alone can go there, and to anything else that port is closed.
    Service(ServiceId),
    /// To a port of ours that nobody serves.
    Closed,
    /// To where nobody gets: a connection is refused, and whatever else goes there is lost.
    Blocked,
    /// To where this guest must not go.
    Forbidden,
    /// To all members of this group, or all stations of the network whose broadcast address it is, out there:
    /// datagrams alone can go there.
    Members(IpAddr),
    /// To a multicast group, or to all stations, and nobody carries that.
    Group,
    /// To nobody.
    Nobody,
}

/// Where the addresses of a [`Case`] lead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leads<A> {
    /// To the very address, out there.
    There,
    /// To this address on the host's side.
    To(A),
    /// To the host's nameservers.
    Dns,
    /// To a service of this process.
    Service(ServiceId),
    /// Nowhere: nobody serves that port of ours.
    Closed,
    /// Nowhere, as if an unknown host out there refused it.
    Blocked,
    /// Nowhere: it is forbidden, and the guest is told.
    Forbidden,
    /// To everybody out there who has that address: datagrams alone can.
    Members,
    /// To a group, which nobody carries.
    Group,
    /// Nowhere, and nobody says so.
    Nobody,
}

/// A row of the table of destinations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Case<A: Address> {
    /// Which addresses.
    pub to: Prefix<A>,
    /// Which port of theirs; `None`: all, and echo, which has none.
    pub port: Option<u16>,
    /// Where they lead.
    pub leads: Leads<A>,
}

impl<A: Address> Case<A> {
    /// All ports of these addresses.
    #[must_use]
    pub const fn all(to: Prefix<A>, leads: Leads<A>) -> Self {
        Self { to, port: None, leads }
    }

    /// One port of one address.
    #[must_use]
    pub fn port(at: A, port: u16, leads: Leads<A>) -> Self {
        Self { to: Prefix::host(at), port: Some(port), leads }
    }
}

/// A row of the table of peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View<A: Address> {
    /// Peers that have such an address on the host's side
    pub from: Prefix<A>,
    /// look to guests that have such an address
    pub toward: Prefix<A>,
    /// as if they had this one. `None`: there is none for them, and nothing of theirs gets in.
    pub seen: Option<A>,
}

/// How it is found out where the guest is, for connections that say no more than that they are for the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Learn {
    /// The first of its addresses is known to be right: nothing that comes along changes that.
    #[default]
    Pinned,
    /// By what it says of itself in ARP, neighbour discovery and DHCP. What its packets come from counts only until it
    /// has said something: packets of others may pass it on their way. Until then it is at the first of its addresses.
    Claims,
    /// By the source of its last packet, if no address of it is known.
    Traffic,
}

/// What is carried between the link and the host at all. The default is everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "four independent switches")]
pub struct Carries {
    /// TCP.
    pub tcp: bool,
    /// UDP; the servers within are another matter.
    pub udp: bool,
    /// Echo.
    pub icmp: bool,
    /// Neighbour discovery.
    pub ndp: bool,
}

impl Carries {
    /// Whether flows of this IP protocol are carried.
    #[must_use]
    pub const fn protocol(&self, protocol: u8) -> bool {
        match protocol {
            PROTO_TCP => self.tcp,
            PROTO_UDP => self.udp,
            PROTO_ICMP | PROTO_ICMPV6 => self.icmp,
            _ => true,
        }
    }
}

impl Default for Carries {
    fn default() -> Self {
        Self { tcp: true, udp: true, icmp: true, ndp: true }
    }
}

/// One family on the guest's link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Family<A: Address> {
    /// The link's prefix.
    pub network: A::Net,
    /// The guest's addresses; forwarded connections go to the first when a rule names none. None: IPv4 rules always
    /// name one, and of IPv6 it is the last global one that the guest was seen to use.
    pub guests: Vec<A>,
    /// Whether the guest may turn out to be elsewhere.
    pub learn: Learn,
    /// Whether the guest is the only one on the link, and so may have any address but ours.
    pub alone: bool,
    /// Whether clients may be led to addresses beyond the link, which some router there knows.
    pub beyond: bool,
    /// Our address, the guest's default router. None: the guest sends everything onto the link.
    pub gateway: Option<A>,
    /// The name servers that the guest is told of.
    pub dns: Vec<A>,
    /// Addresses at which we answer pings and speak for ourselves.
    pub ours: Vec<A>,
    /// Addresses for which we answer ARP and neighbour solicitations, but for those of the guest.
    pub link: Vec<Prefix<A>>,
    /// Where destinations lead.
    pub cases: Vec<Case<A>>,
    /// How clients look that come from the host's side; others look as they are.
    pub inbound: Vec<View<A>>,
    /// How those look that answer a guest's datagrams, and routers on the way there. `None`: as clients do.
    pub answers: Option<Vec<View<A>>>,
}

impl<A: Address> Family<A> {
    /// Whether the guest finds us behind `addr` when it asks the link.
    #[must_use]
    pub fn answers_for(&self, addr: A) -> bool {
        self.link.iter().any(|prefix| prefix.contains(addr)) && !self.guests.contains(&addr)
    }

    /// Whether we answer also when somebody wants to have `addr` and asks whether it is taken: not because the whole
    /// link is ours, but because of the address.
    #[must_use]
    pub fn defends(&self, addr: A) -> bool {
        self.link.contains(&Prefix::host(addr)) && !self.guests.contains(&addr)
    }

    /// Whether a guest on the link may have `addr`.
    #[must_use]
    pub fn is_on_link(&self, addr: A) -> bool {
        self.alone || A::net_contains(&self.network, addr) || self.guests.contains(&addr)
    }

    fn outbound(&self, to: A, port: u16) -> Route {
        let fits = |case: &&Case<A>| case.to.contains(to) && case.port.is_none_or(|own| own == port);
        match self.cases.iter().find(fits).map(|case| case.leads) {
            Some(Leads::There) => Route::Upstream(to.into()),
            Some(Leads::To(addr)) => Route::Upstream(addr.into()),
            Some(Leads::Dns) => Route::Dns,
            Some(Leads::Service(id)) => Route::Service(id),
            Some(Leads::Closed) => Route::Closed,
            Some(Leads::Blocked) => Route::Blocked,
            Some(Leads::Forbidden) => Route::Forbidden,
            Some(Leads::Members) => Route::Members(to.into()),
            Some(Leads::Group) => Route::Group,
            Some(Leads::Nobody) | None => Route::Nobody,
        }
    }

    fn inbound(&self, from: A, guest: A) -> Option<A> {
        let is_led = self.beyond || self.is_on_link(guest) && !self.defends(guest);
        if is_led { look(&self.inbound, from, guest) } else { None }
    }

    fn answering(&self, from: A, guest: A) -> Option<A> {
        look(self.answers.as_ref().unwrap_or(&self.inbound), from, guest)
    }
}

/// How a guest sees `from`, as the first row says that fits.
fn look<A: Address>(views: &[View<A>], from: A, guest: A) -> Option<A> {
    let fits = |view: &&View<A>| view.from.contains(from) && view.toward.contains(guest);
    views.iter().find(fits).map_or(Some(from), |view| view.seen)
}

/// A run of addresses that the DHCP server leases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DhcpPool {
    /// The first address.
    pub first: Ipv4Addr,
    /// How many, the first included. At least 1.
    pub count: u16,
    /// How long a lease is valid.
    pub lease: Duration,
}

/// A run of addresses that the DHCPv6 server leases, each to one station.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dhcp6Pool {
    /// The first address.
    pub first: Ipv6Addr,
    /// How many, the first included.
    pub count: u16,
    /// How long a lease is valid.
    pub lease: Duration,
}

/// What the DHCP server does in a manner of its own. The default is the manner of the RFCs.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "independent habits")]
pub struct DhcpManner {
    /// Addresses that are kept for one station, by its hardware address: it gets that one and no other, and nobody else
    /// gets it. They need not lie in the pool, but on the link.
    pub reserved: Vec<(Ipv4Addr, MacAddr)>,
    /// A client is its hardware address, whatever else it calls itself (option 61).
    pub by_hardware: bool,
    /// Whether a new client is offered the address that it wishes for (option 50), if that is free.
    pub heeds_wishes: bool,
    /// Whether a client that would take it is spared the second round (RFC 4039).
    pub rapid: bool,
    /// Whether an address that was offered, but not taken up yet, goes to the next client in need when there is no
    /// other. If not, it waits for a minute.
    pub offers_yield: bool,
    /// Whether a client without an address is answered by broadcast, and at the port that it asked from, also if it
    /// does not say that it hears nothing else.
    pub to_all: bool,
    /// The options that are sent, in this order, whatever is asked for; search domains then also if there are none.
    /// `None`: all that there are, as they are asked for.
    pub options: Option<&'static [u8]>,
}

impl Default for DhcpManner {
    fn default() -> Self {
        Self {
            reserved: Vec::new(),
            by_hardware: false,
            heeds_wishes: true,
            rapid: true,
            offers_yield: false,
            to_all: false,
            options: None,
        }
    }
}

/// The addresses of a link, and what of them the servers within hand out. The default is a link without any.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// IPv4; `None` switches it off.
    pub v4: Option<Family<Ipv4Addr>>,
    /// IPv6; `None` switches it off.
    pub v6: Option<Family<Ipv6Addr>>,
    /// Addresses handed out by DHCP; `None`, or no gateway that could do it, switches the server off.
    pub dhcp: Option<DhcpPool>,
    /// How they are.
    pub dhcp_manner: DhcpManner,
    /// Whether to answer router solicitations (and so make the guest configure itself).
    pub advertise: bool,
    /// Whether to answer DHCPv6 (stateless information, and addresses of the pool; without one, the guest's first).
    pub dhcp6: bool,
    /// Addresses handed out by DHCPv6, where several stations may ask for one.
    pub dhcp6_pool: Option<Dhcp6Pool>,
    /// What goes through.
    pub carries: Carries,
}

impl Plan {
    /// Whether the link has this family.
    #[must_use]
    pub const fn has(&self, ipv6: bool) -> bool {
        if ipv6 { self.v6.is_some() } else { self.v4.is_some() }
    }

    /// Where `dst` leads. Echo has no port: 0.
    #[must_use]
    pub fn outbound(&self, dst: SocketAddr) -> Route {
        match dst {
            SocketAddr::V4(dst) => {
                self.v4.as_ref().map_or(Route::Nobody, |v4| v4.outbound(*dst.ip(), dst.port()))
            }
            SocketAddr::V6(dst) => {
                self.v6.as_ref().map_or(Route::Nobody, |v6| v6.outbound(*dst.ip(), dst.port()))
            }
        }
    }

    /// How a guest that has the address `guest` sees a client that has `from` on the host's side. `None`: not at all,
    /// nor across families.
    #[must_use]
    pub fn inbound(&self, from: IpAddr, guest: IpAddr) -> Option<IpAddr> {
        self.seen((from, guest), Family::inbound, Family::inbound)
    }

    /// The same for a peer that answers what the guest began, or for a router on the way there.
    #[must_use]
    pub fn answering(&self, from: IpAddr, guest: IpAddr) -> Option<IpAddr> {
        self.seen((from, guest), Family::answering, Family::answering)
    }

    fn seen(
        &self,
        ends: (IpAddr, IpAddr),
        v4: impl Fn(&Family<Ipv4Addr>, Ipv4Addr, Ipv4Addr) -> Option<Ipv4Addr>,
        v6: impl Fn(&Family<Ipv6Addr>, Ipv6Addr, Ipv6Addr) -> Option<Ipv6Addr>,
    ) -> Option<IpAddr> {
        match ends {
            (IpAddr::V4(from), IpAddr::V4(guest)) => {
                self.v4.as_ref().map_or(Some(from), |family| v4(family, from, guest)).map(IpAddr::V4)
            }
            (IpAddr::V6(from), IpAddr::V6(guest)) => {
                self.v6.as_ref().map_or(Some(from), |family| v6(family, from, guest)).map(IpAddr::V6)
            }
            _ => None,
        }
    }

    /// Whether `addr` is one of ours: echo requests to it are answered here.
    #[must_use]
    pub fn is_ours(&self, addr: IpAddr) -> bool {
        match addr {
            IpAddr::V4(a) => self.v4.as_ref().is_some_and(|v4| v4.ours.contains(&a)),
            IpAddr::V6(a) => self.v6.as_ref().is_some_and(|v6| v6.ours.contains(&a)),
        }
    }

    /// Whether a guest may have `addr` on this very link.
    #[must_use]
    pub fn is_on_link(&self, addr: IpAddr) -> bool {
        match addr {
            IpAddr::V4(a) => self.v4.as_ref().is_some_and(|v4| v4.is_on_link(a)),
            IpAddr::V6(a) => self.v6.as_ref().is_some_and(|v6| v6.is_on_link(a) || a.is_unicast_link_local()),
        }
    }

    /// The guest's first address of this family.
    #[must_use]
    pub fn guest(&self, ipv6: bool) -> Option<IpAddr> {
        if ipv6 {
            self.v6.as_ref()?.guests.first().map(|&a| a.into())
        } else {
            self.v4.as_ref()?.guests.first().map(|&a| a.into())
        }
    }

    /// The address of ours that speaks to `src` about what that sent to `dst`.
    ///
    /// RFC 4443 §2.2: the address that was asked, if it is ours; else one that a host would choose, which for a
    /// link-local receiver is the link-local one (RFC 6724 §5, rule 2), and otherwise the router's on this link. On an
    /// IPv4 link without a router it is the dummy address (RFC 7600), from which nothing but errors ever comes.
    #[must_use]
    pub fn speaker(&self, src: IpAddr, dst: IpAddr) -> Option<IpAddr> {
        if self.is_ours(dst) {
            return Some(dst);
        }
        match src {
            IpAddr::V4(_) => Some(self.v4.as_ref()?.gateway.unwrap_or(DUMMY).into()),
            IpAddr::V6(src) if src.is_unicast_link_local() => self.link_local().map(IpAddr::V6),
            IpAddr::V6(_) => self.v6.as_ref()?.gateway.or_else(|| self.link_local()).map(IpAddr::V6),
        }
    }

    /// The link-local address of ours, from which the servers within speak.
    #[must_use]
    pub fn link_local(&self) -> Option<Ipv6Addr> {
        self.v6.as_ref()?.ours.iter().copied().find(Ipv6Addr::is_unicast_link_local)
    }

    /// Whether `addr` is a group that a router is in on its link (RFC 4291 §2.8): all nodes, all routers, and those
    /// that its addresses are solicited by.
    #[must_use]
    pub fn is_our_group(&self, addr: IpAddr) -> bool {
        const LINK: [u16; 7] = [0xff02, 0, 0, 0, 0, 0, 0];
        let (IpAddr::V6(addr), Some(v6)) = (addr, &self.v6) else { return false };
        matches!(addr.segments(), [a, b, c, d, e, f, g, 1 | 2] if [a, b, c, d, e, f, g] == LINK)
            || v6.ours.iter().any(|&own| crate::addr::solicited_node(own) == addr)
    }
}

#[cfg(test)]
mod tests;
