//! Addresses from a DHCP server, by way of the proxy that holds leases: asked for when the interface is up, given back
//! before it goes. The proxy configures the interface itself.
//!
//! A network with `ipv6_enabled` gets IPv6 too, as far as the link has any. The container may then have several
//! addresses, of which a lease tells one: they are looked up on the interface.

use super::Request;
use super::options::{Common, status};
use crate::dhcp::proxy::client::{self, Both, Granted};
use crate::dhcp::target::METRIC;
use crate::dhcp::v4::default_route;
use crate::error::{Context, Error, Result};
use crate::namespaces::{Places, gone};
use crate::spec::{NetAddress, StatusBlock, validate};
use ipnet::IpNet;
use slipway_host::netlink::{Address, Interface, Request as Route};
use std::net::IpAddr;

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
    let question = question(request, host_interface, inside)?;
    let granted = client::setup(&question)?;
    if let Err(error) = lead_out(&question, &granted.v4, inside, places) {
        // Otherwise the lease would stay behind.
        if let Err(error) = client::teardown(&question) {
            log::warn!("{error}");
        }
        return Err(error);
    }
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

/// Sees to it that the default route is what the network wants. The proxy has made it so if it is ours; another one
/// knows nothing of the network, and makes one of its own metric in any case.
fn lead_out(
    question: &client::Request<'_>,
    granted: &Granted,
    inside: &Interface,
    places: &mut Places,
) -> Result<()> {
    let (Some(IpAddr::V4(gateway)), Some(container)) = (granted.gateway, &mut places.container) else {
        return Ok(());
    };
    let wanted = question.default_route.then(|| question.metric.unwrap_or(METRIC));
    let mut found: Vec<u32> = Vec::new();
    for route in container.netlink.routes().context("list the container's routes")? {
        let is_ours = route.interface == Some(inside.index) && route.gateway == Some(gateway.into());
        if is_ours && route.destination.prefix_len() == 0 {
            found.push(route.priority);
        }
    }
    let add = wanted.filter(|wanted| !found.contains(wanted)).map(|metric| default_route(gateway, metric));
    let delete =
        found.iter().filter(|&&metric| Some(metric) != wanted).map(|&metric| default_route(gateway, metric));
    let requests = add.iter().map(Route::add_route).chain(delete.map(|route| Route::delete_route(&route)));
    let results = container.netlink.run(&requests.collect::<Vec<_>>());
    results.into_iter().try_for_each(|result| gone(result).context("set the default route of the lease"))
}

fn question<'a>(
    request: &Request<'a>,
    host_interface: &'a str,
    inside: &'a Interface,
) -> Result<client::Request<'a>> {
    // A definition that makes no sense was refused by the set-up; what there is of a lease is given back nevertheless.
    let default_route = Common::of(request, METRIC).is_ok_and(|common| common.default_route);
    Ok(client::Request {
        host_interface,
        container_interface: &inside.name,
        mac: inside.mac.ok_or_else(|| Error::msg(format!("{} has no MAC address", inside.name)))?,
        host_name: request.container_hostname.unwrap_or_default(),
        container_id: request.container_id,
        netns_path: request.netns_path,
        ipv6: request.network.ipv6_enabled,
        default_route: default_route && !request.network.internal,
        metric: validate::option(request.network.options.as_ref(), "metric").ok().flatten(),
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
    use crate::testing::{on_a_machine, options, request};
    use slipway_host::netlink::{Kind, NewLink};
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

    /// A proxy of another make knows nothing of a network's options.
    #[test]
    fn what_another_proxy_has_made_is_put_right() {
        on_a_machine("what_another_proxy_has_made_is_put_right", |places| {
            let link = |name, kind| NewLink { name, mtu: None, mac: None, master: None, netns: None, kind };
            let netlink = &mut places.container.as_mut().unwrap().netlink;
            let pair = link("eth0", Kind::Veth { peer: Box::new(link("far", Kind::Dummy)) });
            netlink.run_one(&Route::create(&pair)).unwrap();
            let mut inside = netlink.interface("eth0").unwrap();
            let far = netlink.interface("far").unwrap();
            let address: IpNet = "10.1.2.3/24".parse().unwrap();
            let up = [Route::set_up(inside.index, true), Route::set_up(far.index, true)];
            netlink.run(&up).into_iter().for_each(|result| result.unwrap());
            netlink.run_one(&Route::add_address(inside.index, address)).unwrap();
            inside.mac = Some(MacAddr([2, 0, 0, 0, 0, 1]));
            let gateway = "10.1.2.1".parse().unwrap();
            let granted = Granted {
                address,
                gateway: Some(IpAddr::V4(gateway)),
                dns_servers: Vec::new(),
                domains: Vec::new(),
            };
            for (network_options, internal, wanted) in [
                (r#"{}"#, false, &[100][..]),
                (r#"{"metric":"50"}"#, false, &[50]),
                (r#"{"metric":"50","no_default_route":"true"}"#, false, &[]),
                (r#"{}"#, true, &[]),
            ] {
                let rest = format!(r#","options":{network_options},"ipam_options":{{"driver":"dhcp"}}"#);
                let mut options = options("macvlan", "", &rest, "");
                options.network_info.get_mut("net1").unwrap().internal = internal;
                let netlink = &mut places.container.as_mut().unwrap().netlink;
                netlink.run_one(&Route::add_route(&default_route(gateway, METRIC))).unwrap();
                let request = request(&options);
                let question = question(&request, "up0", &inside).unwrap();
                lead_out(&question, &granted, &inside, places).unwrap();
                let netlink = &mut places.container.as_mut().unwrap().netlink;
                let routes = netlink.routes().unwrap();
                let found: Vec<_> =
                    routes.iter().filter(|r| r.gateway.is_some()).map(|r| r.priority).collect();
                assert_eq!(found, wanted, "{network_options}");
                for metric in found {
                    netlink.run_one(&Route::delete_route(&default_route(gateway, metric))).unwrap();
                }
            }
        });
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
