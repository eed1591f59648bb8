//! Connections that do not know of new rules.
//!
//! Address rewriting is decided at the first packet of a connection and kept with it. For UDP a connection is whatever
//! comes from the same port within minutes: a peer that keeps sending (a DNS resolver, a phone, a game) goes on talking
//! to nobody after its port was published, and to the old address after its container was replaced. So the connection
//! tracker's entries for published UDP ports are deleted: at setup those to this host that do not lead to the
//! container, at teardown those that do. TCP needs none of it: its peers begin anew.
//!
//! Whatever fails here is only told; the rules are what was asked for.

use super::{PortRules, TARGET};
use crate::spec::PortMapping;
use nix::errno::Errno;
use slipway_host::netlink::Netlink;
use slipway_host::netlink::netfilter::{Connection, Netfilter};
use std::net::IpAddr;

/// IPPROTO_UDP.
const UDP: u8 = 17;

/// At setup: those that came to a published port of this host and lead elsewhere.
pub(super) fn forget_unpublished(socket: &mut Netfilter, ports: &PortRules) {
    let mut own: Option<Vec<IpAddr>> = None;
    forget(socket, ports, |connection, mapping, container| {
        let asked = connection.original.1.ip();
        // A port number says little: a query of ours to somebody else's port 53 must not be forgotten.
        connection.reply.0.ip() != container
            && (mapping.host_ip == asked.to_string()
                || asked.is_loopback()
                || own.get_or_insert_with(own_addresses).contains(&asked))
    });
}

/// At teardown: those that lead to the container.
pub(super) fn forget_published(socket: &mut Netfilter, ports: &PortRules) {
    forget(socket, ports, |connection, _, container| connection.reply.0.ip() == container);
}

/// Whether the namespace has no connection at all. Asking costs little; the kernel's list costs eight milliseconds even
/// when it is empty, for the table is walked, slot by slot, with a lock for each.
fn nothing_is_tracked() -> bool {
    std::fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_count")
        .is_ok_and(|count| count.trim_end() == "0")
}

fn forget(
    socket: &mut Netfilter,
    ports: &PortRules,
    mut stale: impl FnMut(&Connection, &PortMapping, IpAddr) -> bool,
) {
    let udp: Vec<_> = ports.ports().iter().filter(|mapping| mapping.protocol == "udp").collect();
    if udp.is_empty() || nothing_is_tracked() {
        return;
    }
    let mut forget_all = || -> Result<(), Errno> {
        for (container, _) in ports.addresses() {
            for connection in socket.connections(container.is_ipv6(), UDP)? {
                let concerned = |mapping: &PortMapping| {
                    is_for(&connection, mapping) && stale(&connection, mapping, container)
                };
                if udp.iter().copied().any(concerned) {
                    socket.forget(&connection)?;
                }
            }
        }
        Ok(())
    };
    if let Err(errno) = forget_all() {
        log::debug!(target: TARGET, "stale UDP connections may remain: {}", errno.desc());
    }
}

/// Whether the connection was made to the mapping's port, and to its address if it has one.
fn is_for(connection: &Connection, mapping: &PortMapping) -> bool {
    let asked = connection.original.1;
    let offset = asked.port().checked_sub(mapping.host_port);
    let host = mapping.host_ip.parse::<IpAddr>().ok().filter(|host| !host.is_unspecified());
    offset.is_some_and(|offset| offset < mapping.count()) && host.is_none_or(|host| host == asked.ip())
}

fn own_addresses() -> Vec<IpAddr> {
    let addresses = Netlink::open().and_then(|mut netlink| netlink.addresses());
    addresses.unwrap_or_default().into_iter().map(|address| address.net.addr()).collect()
}
