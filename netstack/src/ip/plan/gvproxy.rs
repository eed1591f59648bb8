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
//! Contract: gvproxy §6. Promises: no row leads to the host's loopback but those for addresses that stand for it; no
//! address that we answer for is leased.

use super::{
    Carries, Case, DNS_PORT, DhcpManner, DhcpPool, Family, Leads, Learn, Plan, Prefix, ServiceId, View,
};
use crate::addr::MacAddr;
use core::net::Ipv4Addr;
use core::time::Duration;
use ipnet::Ipv4Net;

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
}

impl Plan {
    /// The plan of a network of gvproxy.
    #[must_use]
    pub fn gvproxy(of: &Gvproxy) -> Self {
        Self {
            v4: Some(of.family()),
            v6: None,
            dhcp: Some(of.pool()),
            dhcp_manner: of.manner(),
            advertise: false,
            dhcp6: false,
            carries: Carries::default(),
        }
    }
}

impl Gvproxy {
    fn family(&self) -> Family<Ipv4Addr> {
        let all = Prefix::new(Ipv4Addr::UNSPECIFIED, 0);
        let gateway = Some(self.gateway);
        let near = [
            Prefix::new(Ipv4Addr::LOCALHOST, 8),
            Prefix::host(Ipv4Addr::UNSPECIFIED),
            // Answers to an address of the machine's own network would never leave it.
            self.subnet.into(),
        ];
        let near = near.map(|from| View { from, toward: all, seen: gateway });
        let stands_for = |&(seen, of): &(Ipv4Addr, Ipv4Addr)| View {
            from: Prefix::host(of),
            toward: all,
            seen: Some(seen),
        };
        let everybody = View { from: all, toward: all, seen: gateway };
        let inbound = if self.preserve_source { near.to_vec() } else { vec![everybody] };
        Family {
            network: self.subnet,
            guests: Vec::new(),
            learn: Learn::Pinned,
            alone: false,
            beyond: false,
            gateway,
            dns: vec![self.gateway],
            ours: self.ours(),
            link: [self.gateway].iter().chain(&self.aliases).copied().map(Prefix::host).collect(),
            cases: self.cases(),
            inbound,
            answers: Some(self.nat.iter().map(stands_for).chain(near).collect()),
        }
    }

    /// Where destinations lead.
    fn cases(&self) -> Vec<Case<Ipv4Addr>> {
        let loopback = Prefix::new(Ipv4Addr::LOCALHOST, 8);
        let link_local = Prefix::new(Ipv4Addr::new(169, 254, 0, 0), 16);
        let mut cases = vec![
            Case::port(self.gateway, DNS_PORT, Leads::Dns),
            Case::port(self.gateway, HTTP_PORT, Leads::Service(HTTP)),
            Case::all(Prefix::host(self.gateway), Leads::Closed),
            Case::all(loopback, Leads::Nobody),
            Case::all(Prefix::host(Ipv4Addr::UNSPECIFIED), Leads::Nobody),
        ];
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

#[cfg(test)]
mod tests;
