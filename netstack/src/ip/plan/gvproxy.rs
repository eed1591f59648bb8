//! The plan of gvproxy: a network of its own for several machines, with a gateway that has services.
//!
//! The gateway is the name server and the DHCP server, and its port 80 leads to a service of this process; every other
//! port of it is closed. Beside it stand its aliases. An address may stand for another one, on the host's side: so the
//! host's alias leads to the host's loopback, and nothing else does. Link-local addresses, of which 169.254.169.254
//! tells a machine in a cloud what it is, lead nowhere unless that is wanted. Machines reach each other without us, and
//! everything outside is the world.
//!
//! A machine at which a connection of the host's arrives sees the gateway, or, if that is wished for, whoever it is
//! from: but for clients that are the host itself or seem to be on the machine's own network, for answers to them would
//! not come back. Clients are led to addresses of the network only, and never to our own. What answers a machine's
//! datagrams is another matter: it looks like the address that the machine sent to.
//!
//! IPv6 is the same where it is wanted, in a prefix that is made from the gateway's hardware address, so that a machine
//! has the same address tomorrow. Machines choose, or ask for an address by DHCPv6: those lie apart from what chooses
//! of themselves, and from ours.
//!
//! Contract: gvproxy §6. Promises: no row leads to the host's loopback but those for addresses that stand for it; no
//! address that we answer for is leased.

use super::{
    Address, Carries, Case, DNS_PORT, Dhcp6Pool, DhcpManner, DhcpPool, Family, Leads, Learn, Plan, Prefix,
    ServiceId, View,
};
use crate::addr::MacAddr;
use core::net::{Ipv4Addr, Ipv6Addr};
use core::time::Duration;
use ipnet::{Ipv4Net, Ipv6Net};

/// The service at the gateway's port for HTTP.
pub const HTTP: ServiceId = ServiceId(HTTP_PORT);
const HTTP_PORT: u16 = 80;

/// How long a lease is valid.
const LEASE: Duration = Duration::from_secs(3600);
/// Addresses that are leased, however large the network is: leases take memory, and whoever makes up hardware addresses
/// gets one for each.
const MOST_LEASES: u32 = 1024;
/// The options that the DHCP server sends, in order.
const OPTIONS: &[u8] = &[1, 3, 6, 26, 51, 53, 54, 61, 119, 82];

/// What a plan of this kind is made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gvproxy {
    /// The network.
    pub subnet: Ipv4Net,
    /// Our address in it: default router, name server, and where the services are.
    pub gateway: Ipv4Addr,
    /// Other addresses of the network at which we are found.
    pub aliases: Vec<Ipv4Addr>,
    /// Addresses that stand for others, which are meant on the host's side.
    pub nat: Vec<(Ipv4Addr, Ipv4Addr)>,
    /// Addresses that are leased to one station only.
    pub reserved: Vec<(Ipv4Addr, MacAddr)>,
    /// Whether link-local addresses are reached, among them those of a cloud's metadata.
    pub link_local: bool,
    /// Whether machines see clients as they are.
    pub preserve_source: bool,
    /// IPv6, if there is any.
    pub v6: Option<Ipv6>,
}

/// The network's IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ipv6 {
    /// The prefix.
    pub network: Ipv6Net,
    /// Our address in it: name server, and where the services are.
    pub gateway: Ipv6Addr,
    /// The one that stands for the host's loopback.
    pub host: Ipv6Addr,
    /// Our link-local address, the default router.
    pub link_local: Ipv6Addr,
}

impl Ipv6 {
    /// The unique local prefix (RFC 4193) of a network whose gateway has this hardware address.
    #[must_use]
    pub fn of(mac: MacAddr) -> Self {
        let [a, b, c, d, e, f] = mac.0.map(u16::from);
        let at = |number| Ipv6Addr::new(0xfd00 | a, b << 8 | c, d << 8 | e, f, 0, 0, 0, number);
        Self {
            network: Ipv6Net::new_assert(at(0), 64),
            gateway: at(1),
            host: at(0xfe),
            link_local: mac.link_local(),
        }
    }

    /// What DHCPv6 leases: `::1:0:0:0` and on. A hardware address in an interface identifier has ff:fe in its middle
    /// (RFC 4291, appendix A), and one made by chance is where these are once in 2^54 times.
    fn pool(&self) -> Dhcp6Pool {
        let first = self.network.network().to_bits() | 1 << 48;
        let count = u16::try_from(MOST_LEASES).unwrap_or(u16::MAX);
        Dhcp6Pool { first: Ipv6Addr::from_bits(first), count, lease: LEASE }
    }
}

impl Plan {
    /// The plan of a network of gvproxy.
    #[must_use]
    pub fn gvproxy(of: &Gvproxy) -> Self {
        Self {
            v4: Some(of.ipv4()),
            v6: of.v6.as_ref().map(|v6| of.ipv6(v6)),
            dhcp: Some(of.pool()),
            dhcp_manner: of.manner(),
            advertise: of.v6.is_some(),
            dhcp6: of.v6.is_some(),
            dhcp6_pool: of.v6.as_ref().map(Ipv6::pool),
            carries: Carries::default(),
        }
    }
}

impl Gvproxy {
    fn ipv4(&self) -> Family<Ipv4Addr> {
        let near = [
            Prefix::new(Ipv4Addr::LOCALHOST, 8),
            Prefix::host(Ipv4Addr::UNSPECIFIED),
            // Answers to an address of the machine's own network would never leave it.
            self.subnet.into(),
        ];
        let (inbound, answers) = self.views(self.gateway, &near, &self.nat);
        Family {
            network: self.subnet,
            guests: Vec::new(),
            learn: Learn::Pinned,
            alone: false,
            beyond: false,
            gateway: Some(self.gateway),
            dns: vec![self.gateway],
            ours: self.ours(),
            link: [self.gateway].iter().chain(&self.aliases).copied().map(Prefix::host).collect(),
            cases: self.cases(),
            inbound,
            answers,
        }
    }

    fn ipv6(&self, of: &Ipv6) -> Family<Ipv6Addr> {
        let link_locals = Prefix::new(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10);
        // An IPv4-mapped destination would make an IPv6 socket speak IPv4, past the rows of that family.
        let mapped = Prefix::new(Ipv4Addr::UNSPECIFIED.to_ipv6_mapped(), 96);
        let own = [Ipv6Addr::LOCALHOST, Ipv6Addr::UNSPECIFIED].map(Prefix::host);
        let near = [own[0], own[1], link_locals, of.network.into()];
        let (inbound, answers) = self.views(of.gateway, &near, &[(of.host, Ipv6Addr::LOCALHOST)]);
        let mut cases = gateway(of.gateway);
        cases.push(Case::all(Prefix::host(of.link_local), Leads::Closed));
        cases.extend([own[0], own[1], mapped, link_locals].map(|to| Case::all(to, Leads::Nobody)));
        if !self.link_local {
            // Where clouds have what 169.254.169.254 is for IPv4.
            let metadata = Prefix::new(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0), 32);
            cases.push(Case::all(metadata, Leads::Blocked));
        }
        cases.extend([
            Case::all(Prefix::host(of.host), Leads::To(Ipv6Addr::LOCALHOST)),
            Case::all(Prefix::new(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8), Leads::Group),
            Case::all(of.network.into(), Leads::Nobody),
            Case::all(Prefix::new(Ipv6Addr::UNSPECIFIED, 0), Leads::There),
        ]);
        let ours = vec![of.gateway, of.host, of.link_local];
        Family {
            network: of.network,
            guests: Vec::new(),
            learn: Learn::Pinned,
            alone: false,
            beyond: false,
            gateway: Some(of.gateway),
            dns: vec![of.gateway],
            link: ours.iter().copied().map(Prefix::host).collect(),
            ours,
            cases,
            inbound,
            answers,
        }
    }

    /// How clients look, of whom those that are `near` look like the gateway in any case, and how answers do from what
    /// other addresses stand for.
    fn views<A: Address>(
        &self,
        gateway: A,
        near: &[Prefix<A>],
        nat: &[(A, A)],
    ) -> (Vec<View<A>>, Option<Vec<View<A>>>) {
        let all = Prefix::new(gateway, 0);
        let view = |from, seen| View { from, toward: all, seen: Some(seen) };
        let near: Vec<_> = near.iter().map(|&from| view(from, gateway)).collect();
        let stands_for = nat.iter().map(|&(seen, of)| view(Prefix::host(of), seen));
        let answers = stands_for.chain(near.iter().copied()).collect();
        (if self.preserve_source { near } else { vec![view(all, gateway)] }, Some(answers))
    }

    /// Where destinations lead.
    fn cases(&self) -> Vec<Case<Ipv4Addr>> {
        let loopback = Prefix::new(Ipv4Addr::LOCALHOST, 8);
        let link_local = Prefix::new(Ipv4Addr::new(169, 254, 0, 0), 16);
        let mut cases = gateway(self.gateway);
        // Where the gateway itself stands for something, its services come before that.
        if let Some((at, to)) = self.nat.iter().find(|(at, _)| *at == self.gateway) {
            cases.pop();
            cases.push(Case::all(Prefix::host(*at), Leads::To(*to)));
        }
        cases.extend([
            Case::all(loopback, Leads::Nobody),
            Case::all(Prefix::host(Ipv4Addr::UNSPECIFIED), Leads::Nobody),
        ]);
        if !self.link_local {
            cases.push(Case::all(link_local, Leads::Blocked));
        }
        cases.extend(self.nat.iter().map(|&(at, to)| Case::all(Prefix::host(at), Leads::To(to))));
        cases.extend(self.aliases.iter().map(|&at| Case::all(Prefix::host(at), Leads::Closed)));
        // RFC 3021 §2.1: networks of two addresses have no broadcast.
        let broadcast = (self.subnet.prefix_len() < 31).then(|| self.subnet.broadcast());
        let groups = broadcast.into_iter().chain([Ipv4Addr::BROADCAST]).map(Prefix::host);
        let groups = groups.chain([Prefix::new(Ipv4Addr::new(224, 0, 0, 0), 4)]);
        cases.extend(groups.map(|to| Case::all(to, Leads::Group)));
        cases.extend([
            Case::all(self.subnet.into(), Leads::Nobody),
            Case::all(Prefix::new(Ipv4Addr::UNSPECIFIED, 0), Leads::There),
        ]);
        cases
    }

    /// Where pings are answered for: what stands for an address elsewhere is pinged there.
    fn ours(&self) -> Vec<Ipv4Addr> {
        let leads_out = |at: &Ipv4Addr| {
            self.nat.iter().find(|(key, _)| key == at).is_some_and(|(_, to)| !to.is_loopback())
        };
        let local = self.nat.iter().filter(|(_, to)| to.is_loopback()).map(|&(at, _)| at);
        let mut ours = vec![self.gateway];
        for at in self.aliases.iter().copied().filter(|at| !leads_out(at)).chain(local) {
            if !ours.contains(&at) {
                ours.push(at);
            }
        }
        ours
    }

    fn pool(&self) -> DhcpPool {
        let network = self.subnet.network().to_bits();
        let hosts = self.subnet.hostmask().to_bits().saturating_sub(1).clamp(1, MOST_LEASES);
        DhcpPool {
            first: Ipv4Addr::from_bits(network.saturating_add(1)),
            count: u16::try_from(hosts).unwrap_or(u16::MAX),
            lease: LEASE,
        }
    }

    fn manner(&self) -> DhcpManner {
        DhcpManner {
            reserved: self.reserved.clone(),
            by_hardware: true,
            heeds_wishes: false,
            rapid: false,
            offers_yield: true,
            to_all: true,
            options: Some(OPTIONS),
        }
    }
}

/// The rows of the gateway's own address.
fn gateway<A: Address>(at: A) -> Vec<Case<A>> {
    vec![
        Case::port(at, DNS_PORT, Leads::Dns),
        Case::port(at, HTTP_PORT, Leads::Service(HTTP)),
        Case::all(Prefix::host(at), Leads::Closed),
    ]
}

#[cfg(test)]
mod tests;
