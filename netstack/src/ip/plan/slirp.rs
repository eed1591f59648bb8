//! The plan of slirp4netns, and of everything of ours that does as it does: `run`, `attach`, the uplink.
//!
//! The guest's network holds special addresses. The gateway stands for the host: with host loopback allowed it leads to
//! 127.0.0.1 or ::1 (and so does 255.255.255.255, a habit of libslirp), and loopback clients of forwarded ports appear
//! as it. Port 53 of the DNS address leads to the host's nameservers; the two may be one. Everything else inside the
//! network is nobody (its stations reach each other without us), everything outside is the world, unless the network is
//! internal: then the world is forbidden like the gateway. Contract: slirp4netns §8. Promise: no row lets a guest reach
//! the host's loopback but the gateway's.

use super::{
    Address, Carries, Case, DNS_PORT, DhcpManner, DhcpPool, Family, Leads, Learn, Plan, Prefix, View,
};
use crate::addr::MacAddr;
use core::net::{Ipv4Addr, Ipv6Addr};
use core::time::Duration;
use ipnet::{Ipv4Net, Ipv6Net};

/// What a plan of this kind is made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Slirp {
    /// IPv4 on the guest's link; `None` switches it off.
    pub v4: Option<Ipv4Config>,
    /// IPv6 on the guest's link; `None` switches it off.
    pub v6: Option<Ipv6Config>,
    /// Whether the gateway address leads to the host's loopback (127.0.0.1, ::1).
    pub host_loopback: bool,
    /// Whether the network has no way out: nothing is reached but what we play ourselves. What is forwarded into it
    /// still arrives, and seems to come from the gateway, for its stations have no route to anybody else.
    pub internal: bool,
}

/// IPv4 on the guest's link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ipv4Config {
    /// The link's prefix.
    pub network: Ipv4Net,
    /// Our address: the guest's default router, and its name for the host.
    pub gateway: Ipv4Addr,
    /// The address whose port 53 leads to the host's nameservers. It may be the gateway's.
    pub dns: Option<Ipv4Addr>,
    /// Where forwarded connections go when a rule names no guest address; unspecified: they all name one.
    pub guest: Ipv4Addr,
    /// Addresses handed out by DHCP; `None` switches the server off.
    pub dhcp: Option<DhcpPool>,
    /// An address that answers ARP and then nothing: connections to it time out. slirp4netns's DNS address is one under
    /// `--disable-dns`.
    pub silent: Option<Ipv4Addr>,
}

impl Ipv4Config {
    /// The addresses that everybody computes from a network of slirp4netns, and writes into resolv.conf and hosts
    /// files: number 2 is the gateway, 3 the name server, 15 to 30 are leased, for a day, and 100 is the guest. The
    /// prefix has 25 bits at most, or these lie elsewhere.
    #[must_use]
    pub fn slirp(network: Ipv4Net) -> Self {
        let at = |number: u32| Ipv4Addr::from_bits(network.network().to_bits() | number);
        Self {
            network,
            gateway: at(2),
            dns: Some(at(3)),
            guest: at(100),
            dhcp: Some(DhcpPool { first: at(15), count: 16, lease: Duration::from_secs(24 * 60 * 60) }),
            silent: None,
        }
    }
}

/// IPv6 on the guest's link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ipv6Config {
    /// The link's prefix, 64 bits for stateless autoconfiguration.
    pub network: Ipv6Net,
    /// Our global address.
    pub gateway: Ipv6Addr,
    /// The address whose port 53 leads to the host's nameservers. It may be the gateway's.
    pub dns: Option<Ipv6Addr>,
    /// The guest's address, if it is known beforehand; otherwise the last global one it was seen to use.
    pub guest: Option<Ipv6Addr>,
    /// Whether to answer router solicitations (and so make the guest configure itself).
    pub advertise: bool,
    /// Whether to answer DHCPv6 (stateless information, and the address `guest` if it is set).
    pub dhcp: bool,
}

impl Ipv6Config {
    /// The same for IPv6: the gateway's number is 2, the name server's 3. The guest chooses its own, from the prefix
    /// that we advertise.
    #[must_use]
    pub fn slirp(network: Ipv6Net) -> Self {
        let at = |number: u128| Ipv6Addr::from_bits(network.network().to_bits() | number);
        Self { network, gateway: at(2), dns: Some(at(3)), guest: None, advertise: true, dhcp: true }
    }
}

impl Plan {
    /// The plan of a network `of` slirp4netns, in which we are at `mac`.
    #[must_use]
    pub fn slirp(mac: MacAddr, of: &Slirp) -> Self {
        Self {
            v4: of.v4.map(|v4| ipv4(of, &v4)),
            v6: of.v6.map(|v6| ipv6(of, &v6, mac.link_local())),
            dhcp: of.v4.and_then(|v4| v4.dhcp),
            advertise: of.v6.is_some_and(|v6| v6.advertise),
            dhcp6: of.v6.is_some_and(|v6| v6.dhcp),
            dhcp6_pool: None,
            carries: Carries::default(),
            dhcp_manner: DhcpManner::default(),
        }
    }
}

fn ipv4(of: &Slirp, v4: &Ipv4Config) -> Family<Ipv4Addr> {
    let &Ipv4Config { network, gateway, dns, guest, silent, .. } = v4;
    let host = of.leads(of.host_loopback, Leads::To(Ipv4Addr::LOCALHOST));
    let mut cases = nameserver(dns, gateway);
    cases.extend([
        Case::all(Prefix::host(gateway), host),
        Case::all(Prefix::host(Ipv4Addr::BROADCAST), host),
        Case::all(Prefix::new(Ipv4Addr::new(224, 0, 0, 0), 4), Leads::Group),
        Case::all(Prefix::host(network.broadcast()), Leads::Group),
        Case::all(network.into(), Leads::Nobody),
        Case::all(Prefix::host(Ipv4Addr::UNSPECIFIED), Leads::Nobody),
        Case::all(Prefix::new(Ipv4Addr::LOCALHOST, 8), Leads::Nobody),
        Case::all(Prefix::new(Ipv4Addr::UNSPECIFIED, 0), of.leads(true, Leads::There)),
    ]);
    let near = [
        Prefix::new(Ipv4Addr::LOCALHOST, 8),
        Prefix::host(Ipv4Addr::UNSPECIFIED),
        // The client has an address that lies in the guest's own network: answers would never leave it.
        network.into(),
    ];
    Family {
        network,
        guests: if guest.is_unspecified() { Vec::new() } else { vec![guest] },
        learn: Learn::Pinned,
        alone: false,
        beyond: true,
        gateway: Some(gateway),
        dns: dns.into_iter().collect(),
        ours: own(gateway, dns, None),
        link: own(gateway, dns, silent).into_iter().map(Prefix::host).collect(),
        cases,
        inbound: of.views(gateway, &near, Prefix::new(Ipv4Addr::UNSPECIFIED, 0)),
        answers: None,
    }
}

fn ipv6(of: &Slirp, v6: &Ipv6Config, link_local: Ipv6Addr) -> Family<Ipv6Addr> {
    const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0);
    let &Ipv6Config { network, gateway, dns, guest, .. } = v6;
    let host = of.leads(of.host_loopback, Leads::To(Ipv6Addr::LOCALHOST));
    let mut cases = nameserver(dns, gateway);
    cases.extend([
        Case::all(Prefix::host(gateway), host),
        Case::all(Prefix::new(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8), Leads::Group),
        Case::all(network.into(), Leads::Nobody),
        Case::all(Prefix::host(Ipv6Addr::UNSPECIFIED), Leads::Nobody),
        Case::all(Prefix::host(Ipv6Addr::LOCALHOST), Leads::Nobody),
        Case::all(Prefix::new(LINK_LOCAL, 10), Leads::Nobody),
        // An IPv4-mapped destination would make an IPv6 socket speak IPv4, past the rows of that family.
        Case::all(Prefix::new(Ipv4Addr::UNSPECIFIED.to_ipv6_mapped(), 96), Leads::Nobody),
        Case::all(Prefix::new(Ipv6Addr::UNSPECIFIED, 0), of.leads(true, Leads::There)),
    ]);
    let near = [
        Prefix::host(Ipv6Addr::LOCALHOST),
        Prefix::host(Ipv6Addr::UNSPECIFIED),
        // Link-local addresses of the host's links mean nothing on the guest's.
        Prefix::new(LINK_LOCAL, 10),
        network.into(),
    ];
    let ours = own(gateway, dns, Some(link_local));
    Family {
        network,
        guests: guest.into_iter().collect(),
        learn: Learn::Traffic,
        alone: false,
        beyond: true,
        gateway: Some(gateway),
        dns: dns.into_iter().collect(),
        link: ours.iter().copied().map(Prefix::host).collect(),
        ours,
        cases,
        inbound: of.views(gateway, &near, Prefix::new(Ipv6Addr::UNSPECIFIED, 0)),
        answers: None,
    }
}

impl Slirp {
    /// `there`, if it is `allowed` and there is a way out.
    const fn leads<A: Address>(&self, allowed: bool, there: Leads<A>) -> Leads<A> {
        if allowed && !self.internal { there } else { Leads::Forbidden }
    }

    /// Whoever is `near` seems to be the gateway, and `all` do from the inside of an internal network.
    fn views<A: Address>(&self, gateway: A, near: &[Prefix<A>], all: Prefix<A>) -> Vec<View<A>> {
        let near = if self.internal { &[all] } else { near };
        near.iter().map(|&from| View { from, toward: Prefix::new(gateway, 0), seen: Some(gateway) }).collect()
    }
}

/// The name server's rows. If it is the gateway, its other ports are the gateway's.
fn nameserver<A: Address>(dns: Option<A>, gateway: A) -> Vec<Case<A>> {
    let Some(dns) = dns else { return Vec::new() };
    let mut cases = vec![Case::port(dns, DNS_PORT, Leads::Dns)];
    if dns != gateway {
        cases.push(Case::all(Prefix::host(dns), Leads::Closed));
    }
    cases
}

/// What there is of these, each once.
fn own<A: Address>(gateway: A, dns: Option<A>, third: Option<A>) -> Vec<A> {
    let mut all = vec![gateway];
    all.extend(dns.into_iter().chain(third).filter(|&own| own != gateway));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_of_slirp4netns_has_its_addresses() {
        let v4 = Ipv4Config::slirp("10.0.135.128/25".parse().unwrap());
        let pool = v4.dhcp.unwrap();
        let found = [v4.gateway, v4.dns.unwrap(), pool.first, v4.guest].map(|ip| ip.to_string());
        assert_eq!(found, ["10.0.135.130", "10.0.135.131", "10.0.135.143", "10.0.135.228"]);
        let v6 = Ipv6Config::slirp("fd00:5::/64".parse().unwrap());
        assert_eq!([v6.gateway, v6.dns.unwrap()].map(|ip| ip.to_string()), ["fd00:5::2", "fd00:5::3"]);
    }
}
