//! The network options of `run` and `attach`, as meant: addresses of both families, nameservers, sources.
//!
//! The plan is the same in both families: the network's second address is the gateway, the third the nameserver, and
//! number 100 (written so, `::100` too) the guest. The guest is configured by netlink, so nothing is advertised; DHCP
//! still answers, for those who run a client inside.

use crate::cli::NetworkArgs;
use ipnet::{Ipv4Net, Ipv6Net};
use slipway_host::scope::ZonedAddr;
use slipway_netstack::addr::MacAddr;
use slipway_netstack::config::{Config, Mtu, Outbound};
use slipway_netstack::ip::plan::Plan;
use slipway_netstack::ip::plan::slirp::{Ipv4Config, Ipv6Config, Slirp};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// RFC 8200 §5: a link of a smaller MTU cannot carry IPv6.
const MTU_IPV6: u16 = 1280;

/// What the options mean.
#[derive(Debug, Clone)]
pub struct Network {
    /// The MTU of the interface.
    pub mtu: Mtu,
    /// IPv4, unless switched off.
    pub v4: Option<Ipv4Config>,
    /// IPv6, unless switched off.
    pub v6: Option<Ipv6Config>,
    /// Our own MAC address.
    pub mac: MacAddr,
    /// Whether the gateway address leads to the host's loopback.
    pub host_loopback: bool,
    /// Sources of outgoing connections.
    pub outbound: Outbound,
    /// Nameservers to ask; empty: the host's, followed while they change.
    pub nameservers: Vec<ZonedAddr>,
    /// Search domains; `None`: the host's.
    pub search: Option<Vec<String>>,
}

/// Options that contradict each other, or the system.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// IPv6 and a tiny MTU.
    #[error("--mtu {0} is too small for IPv6, which needs {MTU_IPV6}: raise it, or add --no-ipv6")]
    MtuBelowIpv6(u16),
    /// Not an address that reaches beyond a link, and no interface that has one.
    #[error(
        "--outbound {0}: neither an address nor an interface with an address that reaches beyond its link"
    )]
    Outbound(String),
    /// Two sources of one family.
    #[error("--outbound {0}: there is one for this family already; give one for IPv4 and one for IPv6")]
    OutboundTwice(String),
    /// A text that would break resolv.conf(5).
    #[error("--dns-search {0:?}: a domain has letters, digits, dots and hyphens")]
    Search(String),
}

impl Network {
    /// Checks `args`. `interface_address` gives the first address of an interface, of IPv6 or IPv4.
    ///
    /// # Errors
    /// [`Error`].
    pub fn new(
        args: &NetworkArgs,
        interface_address: &dyn Fn(&str, bool) -> Option<IpAddr>,
    ) -> Result<Self, Error> {
        if !args.no_ipv6 && args.mtu < MTU_IPV6 {
            return Err(Error::MtuBelowIpv6(args.mtu));
        }
        if let Some(bad) = args.dns_search.iter().find(|domain| !is_domain(domain)) {
            return Err(Error::Search(bad.clone()));
        }
        let v4 = (!args.no_ipv4).then(|| ipv4(args.network, !args.no_dns));
        let v6 = (!args.no_ipv6).then(|| ipv6(args.ipv6_network, !args.no_dns));
        let gateway = v4.map(|v4| v4.gateway.into()).or_else(|| v6.map(|v6| v6.gateway.into()));
        Ok(Self {
            mtu: Mtu::new(args.mtu).unwrap_or(Mtu::MIN),
            v4,
            v6,
            mac: MacAddr::of_gateway(gateway.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED))),
            host_loopback: args.host_loopback,
            outbound: outbound(&args.outbound, interface_address)?,
            nameservers: args.dns.clone(),
            search: (!args.dns_search.is_empty()).then(|| args.dns_search.clone()),
        })
    }

    /// What the engine is told beside what the `machine` decides.
    #[must_use]
    pub fn engine(&self, machine: &Config) -> Config {
        let addresses =
            Slirp { v4: self.v4, v6: self.v6, host_loopback: self.host_loopback, internal: false };
        Config {
            mtu: self.mtu,
            plan: Plan::slirp(self.mac, &addresses),
            outbound: self.outbound,
            dns_search: self.search.clone().unwrap_or_default(),
            names: machine.names.clone(),
            ..*machine
        }
    }

    /// The nameserver addresses that the guest asks, IPv4 first.
    #[must_use]
    pub fn dns(&self) -> Vec<IpAddr> {
        let v4 = self.v4.and_then(|v4| v4.dns).map(IpAddr::V4);
        let v6 = self.v6.and_then(|v6| v6.dns).map(IpAddr::V6);
        v4.into_iter().chain(v6).collect()
    }
}

fn ipv4(network: Ipv4Net, dns: bool) -> Ipv4Config {
    let v4 = Ipv4Config::slirp(network);
    Ipv4Config { dns: v4.dns.filter(|_| dns), ..v4 }
}

fn ipv6(network: Ipv6Net, dns: bool) -> Ipv6Config {
    let v6 = Ipv6Config::slirp(network);
    let guest = Ipv6Addr::from_bits(network.network().to_bits() | 0x100);
    Ipv6Config { dns: v6.dns.filter(|_| dns), guest: Some(guest), advertise: false, ..v6 }
}

/// One source per family, from addresses and names of interfaces.
fn outbound(
    texts: &[String],
    interface_address: &dyn Fn(&str, bool) -> Option<IpAddr>,
) -> Result<Outbound, Error> {
    let mut out = Outbound::default();
    for text in texts {
        let found: Vec<IpAddr> = match text.parse() {
            Ok(IpAddr::V6(address)) if address.is_unicast_link_local() => Vec::new(),
            Ok(address) => vec![address],
            Err(_) => [false, true].into_iter().filter_map(|ipv6| interface_address(text, ipv6)).collect(),
        };
        if found.is_empty() {
            return Err(Error::Outbound(text.clone()));
        }
        for address in found {
            let twice = match address {
                IpAddr::V4(v4) => out.v4.replace(v4).is_some(),
                IpAddr::V6(v6) => out.v6.replace(v6).is_some(),
            };
            if twice {
                return Err(Error::OutboundTwice(text.clone()));
            }
        }
    }
    Ok(out)
}

/// Letters, digits, hyphens, underscores and dots, as they may stand in resolv.conf(5).
fn is_domain(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    !text.is_empty() && text.len() <= 253 && text.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use clap::Parser as _;

    fn interface(name: &str, ipv6: bool) -> Option<IpAddr> {
        match (name, ipv6) {
            ("eth0", false) => Some("192.0.2.7".parse().unwrap()),
            ("eth0", true) => Some("2001:db8::7".parse().unwrap()),
            ("v4only", false) => Some("192.0.2.8".parse().unwrap()),
            _ => None,
        }
    }

    fn network(options: &[&str]) -> Result<Network, Error> {
        let words = ["slipway", "run"].iter().chain(options);
        match Cli::try_parse_from(words).unwrap().command {
            Command::Run(args) => Network::new(&args.network, &interface),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn defaults_are_dual_stack_and_closed_towards_loopback() {
        let network = network(&[]).unwrap();
        let (v4, v6) = (network.v4.unwrap(), network.v6.unwrap());
        assert_eq!(v4.guest.to_string(), "10.0.2.100");
        assert_eq!((v4.gateway.to_string(), v6.gateway.to_string()), ("10.0.2.2".into(), "fd00::2".into()));
        assert_eq!(v6.guest.unwrap().to_string(), "fd00::100");
        assert_eq!(network.dns(), ["10.0.2.3", "fd00::3"].map(|text| text.parse::<IpAddr>().unwrap()));
        assert!(!network.host_loopback && network.nameservers.is_empty());
        assert_eq!(network.mtu.bytes(), 65520);
        assert_eq!(network.mac.to_string(), "52:55:0a:00:02:02");
    }

    #[test]
    fn families_are_switched_off_one_by_one() {
        let only6 = network(&["-6"]).unwrap();
        assert!(only6.v4.is_none() && only6.v6.is_some());
        assert!(only6.mac.is_unicast());
        assert_eq!(only6.dns().len(), 1);
        let only4 = network(&["-4", "--no-dns", "--mtu=576"]).unwrap();
        assert!(only4.v6.is_none() && only4.dns().is_empty());
        assert_eq!(network(&["--mtu=1279"]).unwrap_err(), Error::MtuBelowIpv6(1279));
    }

    #[test]
    fn networks_move_every_address() {
        let moved = network(&["--network=192.168.7.0/25", "--ipv6-network=fd12:3456:789a:1::/64"]).unwrap();
        assert_eq!(moved.v4.unwrap().guest.to_string(), "192.168.7.100");
        assert_eq!(moved.v6.unwrap().guest.unwrap().to_string(), "fd12:3456:789a:1::100");
        assert_eq!(moved.v6.unwrap().dns.unwrap().to_string(), "fd12:3456:789a:1::3");
    }

    #[test]
    fn sources_are_one_per_family() {
        let both = network(&["--outbound=eth0"]).unwrap().outbound;
        let texts = |out: Outbound| (out.v4.unwrap().to_string(), out.v6.unwrap().to_string());
        assert_eq!(texts(both), ("192.0.2.7".into(), "2001:db8::7".into()));
        let mixed = network(&["--outbound=192.0.2.1", "--outbound=::1"]).unwrap().outbound;
        assert_eq!(texts(mixed), ("192.0.2.1".into(), "::1".into()));
        assert!(network(&["--outbound=v4only"]).unwrap().outbound.v6.is_none());
        for bad in ["nope", "fe80::1"] {
            assert_eq!(network(&["--outbound", bad]).unwrap_err(), Error::Outbound(bad.into()));
        }
        assert_eq!(
            network(&["--outbound=192.0.2.1", "--outbound=192.0.2.2"]).unwrap_err(),
            Error::OutboundTwice("192.0.2.2".into())
        );
    }

    #[test]
    fn search_domains_cannot_break_a_line() {
        assert_eq!(network(&["--dns-search=a.example", "--dns-search=b"]).unwrap().search.unwrap().len(), 2);
        for bad in ["", "a b", "a\nnameserver 192.0.2.1", "\u{e9}"] {
            assert_eq!(network(&["--dns-search", bad]).unwrap_err(), Error::Search(bad.into()));
        }
    }
}
