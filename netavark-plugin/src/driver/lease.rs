//! Addresses from a DHCP server, by way of the proxy that holds leases: asked for when the interface is up, given back
//! before it goes. The proxy configures the interface itself.

use super::Request;
use super::options::status;
use crate::dhcp::client::{self, Granted};
use crate::error::{Context, Error, Result};
use crate::namespaces::Places;
use crate::spec::{NetAddress, StatusBlock};
use slipway_host::netlink::Interface;

/// Asks for a lease on the network of `host_interface`, and tells of it.
///
/// # Errors
/// `unable to obtain lease: ...`
pub(super) fn obtain(request: &Request<'_>, host_interface: &str, inside: &Interface) -> Result<StatusBlock> {
    let granted = client::setup(&question(request, host_interface, inside)?)?;
    Ok(told(request, inside, &granted))
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
    })
}

fn told(request: &Request<'_>, inside: &Interface, granted: &Granted) -> StatusBlock {
    let address = NetAddress { gateway: granted.gateway, ipnet: granted.address };
    let mut block = status(inside, &[address]);
    let servers = Some(granted.dns_servers.clone()).filter(|servers| !servers.is_empty());
    block.dns_server_ips = request.container_dns_servers.map_or(servers, |own| Some(own.to_vec()));
    block.dns_search_domains = granted.domain.clone().map(|domain| vec![domain]);
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
        let mut granted = Granted {
            address: "10.1.2.3/24".parse().unwrap(),
            gateway: Some("10.1.2.1".parse().unwrap()),
            dns_servers: vec!["10.1.2.5".parse().unwrap()],
            domain: None,
        };
        let text = |options: &_, granted: &Granted| {
            serde_json::to_string(&told(&request(options), &inside, granted)).unwrap()
        };
        let interface = r#""interfaces":{"eth0":{"mac_address":"02:00:00:00:00:01","subnets":[{"gateway":"10.1.2.1","ipnet":"10.1.2.3/24"}]}}}"#;
        let wanted = format!(r#"{{"dns_search_domains":null,"dns_server_ips":["10.1.2.5"],{interface}"#);
        assert_eq!(text(&options, &granted), wanted);
        granted.dns_servers.clear();
        let wanted = format!(r#"{{"dns_search_domains":null,"dns_server_ips":null,{interface}"#);
        assert_eq!(text(&options, &granted), wanted);
        options.dns_servers = Some(vec!["1.1.1.1".parse().unwrap()]);
        let wanted = format!(r#"{{"dns_search_domains":null,"dns_server_ips":["1.1.1.1"],{interface}"#);
        assert_eq!(text(&options, &granted), wanted);
    }
}
