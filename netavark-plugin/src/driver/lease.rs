//! Addresses from a DHCP server, by way of the proxy that holds leases: asked for when the interface is up, given back
//! before it goes. The proxy configures the interface itself.
//!
//! A network with `ipv6_enabled` gets IPv6 too, as far as the link has any. The container may then have several addresses, of
//! which a lease tells one: they are looked up on the interface.

use super::Request;
use super::options::status;
use crate::dhcp::client::{self, Both, Granted};
use crate::error::{Context, Error, Result};
use crate::namespaces::Places;
use crate::spec::{NetAddress, StatusBlock};
use ipnet::IpNet;
use slipway_host::netlink::{Address, Interface};

/// Asks for a lease on the network of `host_interface`, and tells of it.
///
/// # Errors
/// `unable to obtain lease: ...`
pub(super) fn obtain(
    request: &Request<'_>,
    host_interface: &str,
    inside: &Interface,
    places: &mut Places,
) -> Result<StatusBlock> {
    let granted = client::setup(&question(request, host_interface, inside)?)?;
    let mut addresses = vec![NetAddress { gateway: granted.v4.gateway, ipnet: granted.v4.address }];
    if let Some(v6) = &granted.v6 {
        addresses.extend(ipv6(request, v6, seen(inside, places)));
    }
    Ok(told(request, inside, &granted, &addresses))
}

/// Gives the lease back. Without the interface there is none.
///
/// # Errors
/// `unable to release lease: ...`
pub(super) fn release(request: &Request<'_>, host_interface: &str, places: &mut Places) -> Result<()> {
    let Some(container) = &mut places.container else { return Ok(()) };
    let inside = container.netlink.interface(&request.options.interface_name);
    let inside =
        inside.with_context(|| format!("get {} to release its lease", request.options.interface_name))?;
    client::teardown(&question(request, host_interface, &inside)?)
}

fn question<'a>(
    request: &Request<'a>,
    host_interface: &'a str,
    inside: &'a Interface,
) -> Result<client::Request<'a>> {
    Ok(client::Request {
        host_interface,
        container_interface: &inside.name,
        mac: inside.mac.ok_or_else(|| Error::msg(format!("{} has no MAC address", inside.name)))?,
        host_name: request.container_hostname.unwrap_or_default(),
        container_id: request.container_id,
        netns_path: request.netns_path,
        ipv6: request.network.ipv6_enabled,
    })
}

/// The addresses that the container's interface has for the world; none when that cannot be told.
fn seen(inside: &Interface, places: &mut Places) -> Vec<IpNet> {
    let Some(container) = &mut places.container else { return Vec::new() };
    let all = container.netlink.addresses().unwrap_or_else(|error| {
        log::warn!("{error}");
        Vec::new()
    });
    let ours = |address: &Address| {
        address.interface == inside.index && !(address.local || address.temporary || address.duplicate)
    };
    all.into_iter().filter(ours).map(|address| address.net).collect()
}

/// The address of the lease, then those that were seen besides. A network that is not to lead anywhere has no gateway.
fn ipv6(request: &Request<'_>, granted: &Granted, seen: Vec<IpNet>) -> Vec<NetAddress> {
    let leads_out = !request.network.internal && request.network.option("no_default_route") != Some("true");
    let gateway = granted.gateway.filter(|_| leads_out);
    let others = seen.into_iter().filter(|net| net.addr().is_ipv6() && net.addr() != granted.address.addr());
    [granted.address].into_iter().chain(others).map(|ipnet| NetAddress { gateway, ipnet }).collect()
}

fn told(request: &Request<'_>, inside: &Interface, granted: &Both, addresses: &[NetAddress]) -> StatusBlock {
    let mut block = status(inside, addresses);
    let both = || [&granted.v4].into_iter().chain(&granted.v6);
    let some = |list: Vec<_>| Some(list).filter(|list| !list.is_empty());
    let servers = both().flat_map(|granted| granted.dns_servers.clone());
    block.dns_server_ips =
        request.container_dns_servers.map_or_else(|| some(servers.collect()), |own| Some(own.to_vec()));
    // Unlike the servers, none is an empty list.
    block.dns_search_domains = Some(both().flat_map(|granted| granted.domains.clone()).collect());
    block
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{options, request};
    use slipway_netstack::addr::MacAddr;

    #[test]
    fn what_was_granted_is_told() {
        let mut options = options("macvlan", "", r#","ipam_options":{"driver":"dhcp"}"#, "");
        let inside = Interface {
            name: "eth0".to_owned(),
            mac: Some(MacAddr([2, 0, 0, 0, 0, 1])),
            ..Interface::default()
        };
        let v4 = Granted {
            address: "10.1.2.3/24".parse().unwrap(),
            gateway: Some("10.1.2.1".parse().unwrap()),
            dns_servers: vec!["10.1.2.5".parse().unwrap()],
            domains: Vec::new(),
        };
        let mut granted = Both { v4, v6: None };
        let address = NetAddress { gateway: granted.v4.gateway, ipnet: granted.v4.address };
        let text = |options: &_, granted: &Both| {
            serde_json::to_string(&told(&request(options), &inside, granted, &[address])).unwrap()
        };
        let interface = r#""interfaces":{"eth0":{"mac_address":"02:00:00:00:00:01","subnets":[{"gateway":"10.1.2.1","ipnet":"10.1.2.3/24"}]}}}"#;
        let wanted = format!(r#"{{"dns_search_domains":[],"dns_server_ips":["10.1.2.5"],{interface}"#);
        assert_eq!(text(&options, &granted), wanted);
        granted.v4.dns_servers.clear();
        let wanted = format!(r#"{{"dns_search_domains":[],"dns_server_ips":null,{interface}"#);
        assert_eq!(text(&options, &granted), wanted);
        options.dns_servers = Some(vec!["1.1.1.1".parse().unwrap()]);
        let wanted = format!(r#"{{"dns_search_domains":[],"dns_server_ips":["1.1.1.1"],{interface}"#);
        assert_eq!(text(&options, &granted), wanted);
    }

    #[test]
    fn ipv6_comes_behind_with_all_its_addresses() {
        let options = options("macvlan", "", r#","ipam_options":{"driver":"dhcp"}"#, "");
        let v6 = Granted {
            address: "fd00::7/64".parse().unwrap(),
            gateway: Some("fe80::1".parse().unwrap()),
            dns_servers: vec!["fd00::53".parse().unwrap()],
            domains: vec!["lan".into()],
        };
        let seen = ["10.1.2.3/24", "2001:db8::9/64", "fd00::7/64"].map(|net| net.parse().unwrap()).to_vec();
        let list = ipv6(&request(&options), &v6, seen.clone());
        let nets: Vec<_> = list.iter().map(|address| address.ipnet.to_string()).collect();
        assert_eq!(nets, ["fd00::7/64", "2001:db8::9/64"]);
        assert!(list.iter().all(|address| address.gateway == v6.gateway));
        let v4 = Granted {
            address: "10.1.2.3/24".parse().unwrap(),
            gateway: None,
            dns_servers: vec!["10.1.2.5".parse().unwrap()],
            domains: Vec::new(),
        };
        let inside = Interface { name: "eth0".to_owned(), ..Interface::default() };
        let block = told(&request(&options), &inside, &Both { v4, v6: Some(v6.clone()) }, &list);
        assert_eq!(block.dns_server_ips.unwrap().len(), 2);
        assert_eq!(block.dns_search_domains.unwrap(), ["lan"]);
        let mut internal = options;
        internal.network_info.get_mut("net1").unwrap().internal = true;
        assert!(ipv6(&request(&internal), &v6, seen).iter().all(|address| address.gateway.is_none()));
    }
}
