//! What a DHCP server granted, as the message that the proxy's clients get.

use crate::proto;
use slipway_netstack::dhcp_client::Lease;
use std::net::Ipv4Addr;

/// The message for the container's interface that calls itself `mac`. The domain is the one that the caller asked with,
/// by contract, whatever the server says.
#[must_use]
pub(in crate::dhcp) fn to_message(lease: &Lease, mac: &str, domain: &str) -> proto::Lease {
    let texts = |list: &[Ipv4Addr]| list.iter().map(Ipv4Addr::to_string).collect();
    proto::Lease {
        t1: lease.times.renew,
        t2: lease.times.rebind,
        lease_time: lease.times.end,
        mtu: lease.mtu.unwrap_or_default().into(),
        domain_name: domain.to_owned(),
        mac_address: mac.to_owned(),
        is_v6: false,
        siaddr: lease.next_server.to_string(),
        yiaddr: lease.address.addr().to_string(),
        srv_id: lease.server.to_string(),
        subnet_mask: lease.address.netmask().to_string(),
        broadcast_addr: lease.broadcast.map(|address| address.to_string()).unwrap_or_default(),
        dns_servers: texts(&lease.dns_servers),
        gateways: texts(&lease.gateways),
        ntp_servers: texts(&lease.ntp_servers),
        host_name: lease.host_name.clone(),
    }
}
