//! What the guest's network is, from the command line and from what the host has: the template for its interface, the
//! engine's plan, and who is asked for names.
//!
//! Pure, but for the files that name the host's nameservers, which the caller reads.

use super::args::{Pair, Told};
use super::config::{Config, Configure, Namespace, Splice};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use nix::net::if_::if_nametoindex;
use slipway_host::driver::Shortcut;
use slipway_host::scope::ZonedAddr;
use slipway_host::template::{Following, Template, Wish, Wishes};
use slipway_netstack::config::{Config as EngineConfig, GuestNames, Outbound, UdpConfig};
use slipway_netstack::ethernet::neighbour::OnLink;
use slipway_netstack::ip::plan::pasta::{Half, Loopback, Pasta};
use slipway_netstack::ip::plan::{Carries, Plan};
use slipway_netstack::upstream::DeviceId;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU32;

/// What is asked of the template.
pub(super) fn wishes(config: &Config, guest: Option<&Namespace>) -> Wishes {
    let [v4, v6] = config.families;
    let [copies4, copies6] = [0, 1].map(|family: usize| {
        let copy = |of: [bool; 2]| of.get(family).copied().unwrap_or(true);
        let both = |configure: Configure| (copy(configure.copy_addresses), copy(configure.copy_routes));
        guest.and_then(|guest| guest.configure).map_or((true, true), both)
    });
    let [outbound4, outbound6] = config.outbound_interface.clone();
    Wishes {
        interface: config.interface.clone(),
        ifname: guest.and_then(|guest| guest.tap.clone()),
        v4: v4.then_some(Wish {
            address: config.address.v4,
            prefix: config.prefix,
            gateway: config.gateway.v4,
            outbound: outbound4,
            copy_addresses: copies4.0,
            copy_routes: copies4.1,
        }),
        v6: v6.then_some(Wish {
            address: config.address.v6,
            prefix: None,
            gateway: config.gateway.v6,
            outbound: outbound6,
            copy_addresses: copies6.0,
            copy_routes: copies6.1,
        }),
    }
}

/// The engine's configuration, over what the `machine` decides. `search` are the host's domains.
pub(super) fn engine(
    config: &Config,
    template: &Template,
    addresses: &Pasta,
    search: &[String],
    machine: &EngineConfig,
) -> EngineConfig {
    EngineConfig {
        on_link: OnLink::One { mac: None },
        mtu: config.engine_mtu(),
        plan: Plan::pasta(addresses),
        dns_search: searched(&config.search, search),
        outbound: outbound(config, template),
        udp: UdpConfig { contacted_only: true, ..machine.udp },
        names: GuestNames { host: config.hostname.clone(), full: config.fqdn.clone() },
        tell_mtu: config.mtu.is_some(),
        ..*machine
    }
}

/// The values that the plan is made from: the guest has the addresses of the template, and others that it still speaks
/// from. `nameservers` are those of the host.
pub(super) fn addresses(config: &Config, following: &Following, nameservers: &[IpAddr]) -> Pasta {
    let template = following.template();
    let old: Vec<IpNet> = following.old().collect();
    let handlers = config.handlers;
    let v4 = template.v4.as_ref().map(|side| {
        let gateway = side.gateway.and_then(of_v4);
        let map_host_loopback = loopback(config, config.map_host_loopback.v4);
        let forward = config.dns_forward.v4;
        let ours = forward.or_else(|| at(map_host_loopback, gateway));
        let (dns, needed) = told(&config.dns, nameservers, of_v4, ours);
        Half {
            addresses: side.addresses.iter().chain(&old).filter_map(v4).collect::<Vec<Ipv4Net>>(),
            pinned: pinned(config, config.address.v4.is_some()),
            gateway,
            map_host_loopback,
            map_guest_addr: config.map_guest.v4,
            dns_forward: forward.or(needed),
            dns_host: config.dns_host.v4.or_else(|| nameservers.iter().copied().find_map(of_v4)),
            dns,
        }
    });
    let v6 = template.v6.as_ref().map(|side| {
        let gateway = side.gateway.and_then(of_v6);
        let map_host_loopback = loopback(config, config.map_host_loopback.v6);
        let forward = config.dns_forward.v6;
        let ours = forward.or_else(|| at(map_host_loopback, gateway));
        let (dns, needed) = told(&config.dns, nameservers, of_v6, ours);
        Half {
            addresses: side.addresses.iter().chain(&old).filter_map(v6).collect::<Vec<Ipv6Net>>(),
            pinned: pinned(config, config.address.v6.is_some()),
            gateway,
            map_host_loopback,
            map_guest_addr: config.map_guest.v6,
            dns_forward: forward.or(needed),
            dns_host: config.dns_host.v6.or_else(|| nameservers.iter().copied().find_map(of_v6)),
            dns,
        }
    });
    Pasta {
        dhcp: handlers.dhcp && v4.as_ref().is_some_and(|v4| v4.gateway.is_some()),
        dhcp6: handlers.dhcpv6,
        advertise: handlers.advertisements,
        carries: Carries {
            tcp: handlers.tcp && !config.splice.only,
            udp: handlers.udp && !config.splice.only,
            icmp: handlers.icmp,
            ndp: handlers.ndp,
        },
        v4,
        v6,
    }
}

/// Whether the guest is where we say that it is: we have configured it, or were told.
fn pinned(config: &Config, given: bool) -> bool {
    given || matches!(&config.guest, super::config::Guest::Namespace(guest) if guest.configure.is_some())
}

const fn loopback<A: Copy>(config: &Config, at: Option<A>) -> Loopback<A> {
    match at {
        Some(at) => Loopback::At(at),
        None if config.map_gateway => Loopback::Gateway,
        None => Loopback::Nowhere,
    }
}

/// The address that leads to the host's loopback.
const fn at<A: Copy>(loopback: Loopback<A>, gateway: Option<A>) -> Option<A> {
    match loopback {
        Loopback::At(at) => Some(at),
        Loopback::Gateway => gateway,
        Loopback::Nowhere => None,
    }
}

/// The nameservers that the guest is told of. What listens on the host's loopback, as stub resolvers do, it cannot
/// reach there: `ours` stands for that, and comes back if it is needed.
fn told<A: Copy + PartialEq>(
    list: &Told<IpAddr>,
    hosts: &[IpAddr],
    of: impl Fn(IpAddr) -> Option<A>,
    ours: Option<A>,
) -> (Vec<A>, Option<A>) {
    let hosts = match list {
        Told::Nothing => return (Vec::new(), None),
        Told::These(these) => return (these.iter().copied().filter_map(of).collect(), None),
        Told::Hosts => hosts.iter().filter_map(|server| Some((of(*server)?, server.is_loopback()))),
    };
    let (mut told, mut needed) = (Vec::new(), None);
    for (server, hidden) in hosts {
        let reached = if hidden { ours } else { Some(server) };
        told.extend(reached.filter(|one| !told.contains(one)));
        needed = needed.or_else(|| ours.filter(|_| hidden));
    }
    (told, needed)
}

/// The search domains that the guest is told of.
pub(super) fn searched(list: &Told<String>, hosts: &[String]) -> Vec<String> {
    match list {
        Told::Hosts => hosts.to_vec(),
        Told::Nothing => Vec::new(),
        Told::These(these) => these.clone(),
    }
}

fn outbound(config: &Config, template: &Template) -> Outbound {
    let device = |name: &Option<String>| name.as_deref().and_then(index);
    let [device4, device6] = config.outbound_interface.each_ref().map(device);
    let link = [&template.v6, &template.v4].into_iter().flatten().find_map(|side| side.interface.as_ref());
    Outbound {
        v4: config.outbound.v4,
        v6: config.outbound.v6,
        device4,
        device6,
        zone: device6.or_else(|| link.and_then(|link| index(&link.name))),
        same_ports: true,
        broadcast: true,
    }
}

/// The same when the host's network has changed: addresses that mean something on one link only are those of the link
/// that the guest is like now. Interfaces that were named stay.
pub(super) fn outbound_now(before: Outbound, template: &Template) -> Outbound {
    let link = [&template.v6, &template.v4].into_iter().flatten().find_map(|side| side.interface.as_ref());
    let zone = link.and_then(|link| NonZeroU32::new(link.index)).map(DeviceId);
    Outbound { zone: before.device6.or(zone).or(before.zone), ..before }
}

/// Whether the guest is told what the host's resolv.conf says, or has to be told of port 853 there.
pub(super) fn tells_hosts(config: &Config) -> bool {
    let tells = config.dns == Told::Hosts || config.search == Told::Hosts;
    let forwards = config.dns_forward != Pair::default() && config.dns_host == Pair::default();
    tells || forwards
}

/// The number of an interface; one that has gone since the command line was read has none.
fn index(name: &str) -> Option<DeviceId> {
    if_nametoindex(name).ok().and_then(NonZeroU32::new).map(DeviceId)
}

/// How loopback connections cross.
pub(super) fn shortcut(config: &Config, template: &Template) -> Shortcut {
    let Splice { inbound, to_loopback, .. } = config.splice;
    Shortcut {
        tcp: inbound && config.handlers.tcp,
        udp: inbound && config.handlers.udp,
        loopback_destination: to_loopback,
        guest: public(template),
    }
}

/// Who is asked for `--dns-forward`: those that were named, or none for the host's.
pub(super) fn named_servers(dns_host: Pair) -> Vec<ZonedAddr> {
    let v4 = dns_host.v4.map(IpAddr::V4);
    v4.into_iter().chain(dns_host.v6.map(IpAddr::V6)).map(ZonedAddr::from).collect()
}

/// Whether we are the guest's nameserver anywhere.
pub(super) fn answers_names(addresses: &Pasta) -> bool {
    let v4 = addresses.v4.as_ref().is_some_and(|v4| v4.dns_forward.is_some());
    v4 || addresses.v6.as_ref().is_some_and(|v6| v6.dns_forward.is_some())
}

/// The public addresses at which the shortcut reaches the namespace, of IPv4 and of IPv6.
fn public(template: &Template) -> [Option<IpAddr>; 2] {
    let first = |side: &Option<slipway_host::template::Side>| {
        side.as_ref().and_then(|side| side.addresses.first()).map(IpNet::addr)
    };
    [first(&template.v4), first(&template.v6)]
}

fn v4(net: &IpNet) -> Option<Ipv4Net> {
    match net {
        IpNet::V4(net) => Some(*net),
        IpNet::V6(_) => None,
    }
}

fn v6(net: &IpNet) -> Option<Ipv6Net> {
    match net {
        IpNet::V6(net) => Some(*net),
        IpNet::V4(_) => None,
    }
}

const fn of_v4(address: IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    }
}

const fn of_v6(address: IpAddr) -> Option<Ipv6Addr> {
    match address {
        IpAddr::V6(address) => Some(address),
        IpAddr::V4(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

    fn v4_told(list: &Told<IpAddr>, hosts: &[&str], ours: Option<Ipv4Addr>) -> (Vec<String>, bool) {
        let hosts: Vec<IpAddr> = hosts.iter().map(|text| text.parse().unwrap()).collect();
        let (told, needed) = told(list, &hosts, of_v4, ours);
        assert!(needed.is_none() || needed == ours);
        (told.iter().map(ToString::to_string).collect(), needed.is_some())
    }

    #[test]
    fn a_stub_of_the_host_is_told_as_ours() {
        let told = |hosts: &[&str], ours| v4_told(&Told::Hosts, hosts, ours);
        assert_eq!(told(&["127.0.0.53", "::1"], Some(OURS)), (vec![OURS.to_string()], true));
        assert_eq!(told(&["127.0.0.53", "127.0.0.54"], Some(OURS)), (vec![OURS.to_string()], true), "once");
        assert_eq!(told(&["127.0.0.53", "9.9.9.9"], None), (vec!["9.9.9.9".to_owned()], false));
        assert_eq!(told(&["9.9.9.9", "2001:db8::1"], Some(OURS)), (vec!["9.9.9.9".to_owned()], false));
        // What was typed was meant.
        let these = Told::These(vec![Ipv4Addr::LOCALHOST.into()]);
        assert_eq!(v4_told(&these, &["9.9.9.9"], Some(OURS)), (vec!["127.0.0.1".to_owned()], false));
        assert_eq!(v4_told(&Told::Nothing, &["9.9.9.9"], Some(OURS)), (Vec::new(), false));
    }

    #[test]
    fn search_domains_are_the_hosts_those_typed_or_none() {
        let hosts = ["a.example".to_owned()];
        assert_eq!(searched(&Told::Hosts, &hosts), hosts);
        assert_eq!(searched(&Told::These(vec!["b".to_owned()]), &hosts), ["b"]);
        assert!(searched(&Told::Nothing, &hosts).is_empty());
    }
}
