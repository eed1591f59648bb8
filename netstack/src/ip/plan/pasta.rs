//! The plan of pasta and passt: the guest has the host's own addresses, and sees the world as the host does.
//!
//! Nothing stands between the two but a few special addresses. One leads to the host's loopback (the gateway's, unless
//! that was changed or switched off), one to the host's address of which the guest has a copy, port 53 of one to the
//! host's nameservers and its port 853 to one of them. Everything else is what it is: neighbours of the host, its other
//! addresses, its link-local peers, groups and broadcasts of datagrams. So the whole link is ours but for the guest's
//! own addresses: whatever else it asks for is answered for.
//!
//! Towards the guest peers keep their addresses, too. Those alone that would mean something else within are shown as
//! others: loopback addresses, and the ones that the guest has itself. They become the gateway, or for a guest's
//! link-local address, or where the gateway's is of the other kind, our link-local address; on an IPv4 link without a
//! gateway nobody is left who could stand for them, and the flow is refused.
//!
//! Contract: pasta §E.4. Promises: no row leads to the host's loopback but the one for it, and port 853 if that is
//! where the nameserver is; no peer is seen at a loopback address, nor at one of the guest's.

use super::{
    Address, Carries, Case, DNS_PORT, DhcpManner, DhcpPool, Family, Leads, Learn, Plan, Prefix, View,
};
use core::net::{Ipv4Addr, Ipv6Addr};
use core::time::Duration;
use ipnet::{Ipv4Net, Ipv6Net};

/// Where DNS over TLS is served (RFC 7858 §3.1).
const DNS_TLS_PORT: u16 = 853;

/// What a plan of this kind is made from. The default is a link without addresses.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pasta {
    /// IPv4 on the guest's link; `None` switches it off.
    pub v4: Option<Half<Ipv4Addr>>,
    /// IPv6 on the guest's link; `None` switches it off.
    pub v6: Option<Half<Ipv6Addr>>,
    /// Whether the first IPv4 address is leased to whoever asks, for ever. Without a gateway nobody could do it.
    pub dhcp: bool,
    /// Whether the first IPv6 address is.
    pub dhcp6: bool,
    /// Whether to answer router solicitations (and so make the guest configure itself).
    pub advertise: bool,
    /// What is carried at all.
    pub carries: Carries,
}

/// One family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Half<A: Address> {
    /// The guest's addresses, each with the prefix of its network, the first one first. Of IPv6 there may be none, as
    /// every guest has a link-local address.
    pub addresses: Vec<A::Net>,
    /// Whether the first address is the guest's for certain: it was configured by us, or asked for. If not, connections
    /// without another destination go where the guest says that it is.
    pub pinned: bool,
    /// The guest's default router. None: the guest sends everything onto the link.
    pub gateway: Option<A>,
    /// Which address leads to the host's loopback.
    pub map_host_loopback: Loopback<A>,
    /// The address that leads to the host at the first of the guest's own addresses.
    pub map_guest_addr: Option<A>,
    /// The address whose port 53 leads to the host's nameservers.
    pub dns_forward: Option<A>,
    /// The nameserver to which port 853 of that address leads.
    pub dns_host: Option<A>,
    /// The nameservers that the guest is told of.
    pub dns: Vec<A>,
}

/// Which address of the guest's link leads to the host's loopback.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Loopback<A> {
    /// The gateway's, if there is one.
    #[default]
    Gateway,
    /// This one.
    At(A),
    /// None.
    Nowhere,
}

impl<A: Address> Default for Half<A> {
    /// No addresses yet, and nothing special but that the gateway leads to the host's loopback.
    fn default() -> Self {
        Self {
            addresses: Vec::new(),
            pinned: false,
            gateway: None,
            map_host_loopback: Loopback::default(),
            map_guest_addr: None,
            dns_forward: None,
            dns_host: None,
            dns: Vec::new(),
        }
    }
}

/// Our link-local address where the gateway has none: not one made from our MAC address, for the guest's may be the
/// same.
pub const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

/// All link-local addresses.
const LINK_LOCALS: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0);

impl Plan {
    /// The plan of a guest that has the host's addresses.
    #[must_use]
    pub fn pasta(of: &Pasta) -> Self {
        let lease = |v4: &Half<Ipv4Addr>| {
            // Seconds that are all ones never end (RFC 2131 §3.3).
            let lease = Duration::from_secs(u32::MAX.into());
            v4.addresses.first().map(|net| DhcpPool { first: net.addr(), count: 1, lease })
        };
        Self {
            v4: of.v4.as_ref().and_then(ipv4),
            v6: of.v6.as_ref().map(ipv6),
            dhcp: of.v4.as_ref().filter(|_| of.dhcp).and_then(lease),
            advertise: of.advertise,
            dhcp6: of.dhcp6,
            dhcp6_pool: None,
            carries: Carries { ndp: of.carries.ndp && of.carries.icmp, ..of.carries },
            dhcp_manner: DhcpManner::default(),
        }
    }
}

/// `None`: a link without an address has no network.
fn ipv4(of: &Half<Ipv4Addr>) -> Option<Family<Ipv4Addr>> {
    let network = *of.addresses.first()?;
    let all = Prefix::new(Ipv4Addr::UNSPECIFIED, 0);
    let loopback = Prefix::new(Ipv4Addr::LOCALHOST, 8);
    let unspecified = Prefix::host(Ipv4Addr::UNSPECIFIED);
    let guests: Vec<_> = of.addresses.iter().map(Ipv4Net::addr).collect();
    let mut cases = of.special(Ipv4Addr::LOCALHOST, &guests);
    cases.extend([Case::all(unspecified, Leads::Nobody), Case::all(loopback, Leads::Nobody)]);
    // RFC 3021 §2.1: networks of two addresses have no broadcast.
    let broadcasts = of.addresses.iter().filter(|net| net.prefix_len() < 31).map(Ipv4Net::broadcast);
    cases.extend(
        broadcasts.chain([Ipv4Addr::BROADCAST]).map(|to| Case::all(Prefix::host(to), Leads::Members)),
    );
    cases.extend([
        Case::all(Prefix::new(Ipv4Addr::new(224, 0, 0, 0), 4), Leads::Members),
        Case::all(all, Leads::There),
    ]);
    let mut inbound = of.known(Ipv4Addr::LOCALHOST, &guests);
    let within = [loopback, unspecified].into_iter().chain(guests.iter().copied().map(Prefix::host));
    inbound.extend(within.map(|from| View { from, toward: all, seen: of.gateway }));
    let ours: Vec<_> = of.host_loopback().into_iter().collect();
    Some(Family {
        network,
        guests,
        learn: of.learn(),
        alone: true,
        beyond: true,
        gateway: of.gateway,
        dns: of.dns.clone(),
        link: of.link(&ours, all),
        ours,
        cases,
        inbound,
        answers: None,
    })
}

fn ipv6(of: &Half<Ipv6Addr>) -> Family<Ipv6Addr> {
    let all = Prefix::new(Ipv6Addr::UNSPECIFIED, 0);
    let link_locals = Prefix::new(LINK_LOCALS, 10);
    let own = [Ipv6Addr::UNSPECIFIED, Ipv6Addr::LOCALHOST].map(Prefix::host);
    let guests: Vec<_> = of.addresses.iter().map(Ipv6Net::addr).collect();
    let link_local = of.gateway.filter(Ipv6Addr::is_unicast_link_local).unwrap_or(LINK_LOCAL);
    let mut cases = of.special(Ipv6Addr::LOCALHOST, &guests);
    cases.extend(own.map(|to| Case::all(to, Leads::Nobody)));
    // An IPv4-mapped destination would make an IPv6 socket speak IPv4, past the rows of that family.
    let mapped = Prefix::new(Ipv4Addr::UNSPECIFIED.to_ipv6_mapped(), 96);
    // RFC 4291 §2.7: groups of scope 0 and 1 never leave their node, whatever their flags.
    let [group, scope] = [0xff00, 0xff0e].map(|first| Ipv6Addr::new(first, 0, 0, 0, 0, 0, 0, 0));
    let within = Prefix::masked(group, scope);
    cases.extend([Case::all(mapped, Leads::Nobody), Case::all(within, Leads::Group)]);
    if of.gateway != Some(link_local) {
        // There is nobody of that name but us.
        cases.push(Case::all(Prefix::host(link_local), Leads::Closed));
    }
    cases.extend([Case::all(Prefix::new(group, 8), Leads::Members), Case::all(all, Leads::There)]);
    let mut inbound = of.known(Ipv6Addr::LOCALHOST, &guests);
    for from in own.into_iter().chain(guests.iter().copied().map(Prefix::host)) {
        inbound.extend([
            View { from, toward: link_locals, seen: Some(link_local) },
            View { from, toward: all, seen: Some(of.gateway.unwrap_or(link_local)) },
        ]);
    }
    let mut ours = vec![link_local];
    ours.extend(of.host_loopback().filter(|&own| own != link_local));
    Family {
        network: of.addresses.first().copied().unwrap_or(Ipv6Net::new_assert(LINK_LOCALS, 64)),
        guests,
        learn: of.learn(),
        alone: true,
        beyond: true,
        gateway: of.gateway.or(Some(link_local)),
        dns: of.dns.clone(),
        link: of.link(&ours, all),
        ours,
        cases,
        inbound,
        answers: None,
    }
}

impl<A: Address> Half<A> {
    /// The address that leads to the host's loopback, if one does.
    fn host_loopback(&self) -> Option<A> {
        match self.map_host_loopback {
            Loopback::Gateway => self.gateway,
            Loopback::At(addr) => Some(addr),
            Loopback::Nowhere => None,
        }
    }

    const fn learn(&self) -> Learn {
        if self.pinned { Learn::Pinned } else { Learn::Claims }
    }

    /// The rows of the special destinations.
    fn special(&self, localhost: A, guests: &[A]) -> Vec<Case<A>> {
        let mut cases = Vec::new();
        if let Some(dns) = self.dns_forward {
            let tls = self.dns_host.map_or(Leads::Closed, Leads::To);
            cases.extend([Case::port(dns, DNS_PORT, Leads::Dns), Case::port(dns, DNS_TLS_PORT, tls)]);
        }
        let host = |at: Option<A>, leads| at.map(|at| Case::all(Prefix::host(at), leads));
        cases.extend(host(self.host_loopback(), Leads::To(localhost)));
        cases.extend(guests.first().and_then(|&guest| host(self.map_guest_addr, Leads::To(guest))));
        cases
    }

    /// The rows of the peers that have an address of their own within.
    fn known(&self, localhost: A, guests: &[A]) -> Vec<View<A>> {
        let everybody = Prefix::new(localhost, 0);
        let row = |from, seen| View { from: Prefix::host(from), toward: everybody, seen: Some(seen) };
        let guests = self.map_guest_addr.map(|seen| guests.iter().map(move |&guest| row(guest, seen)));
        self.host_loopback()
            .map(|seen| row(localhost, seen))
            .into_iter()
            .chain(guests.into_iter().flatten())
            .collect()
    }

    /// What is asked for on the link: all of it, and some of that also when the guest wants to have it for itself.
    fn link(&self, ours: &[A], all: Prefix<A>) -> Vec<Prefix<A>> {
        let special = [self.gateway, self.map_guest_addr, self.dns_forward].into_iter().flatten();
        let mut link: Vec<_> = ours.iter().copied().chain(special).map(Prefix::host).collect();
        link.push(all);
        link
    }
}

#[cfg(test)]
mod tests;
