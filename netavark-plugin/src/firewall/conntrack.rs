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
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::net::IpAddr;

/// IPPROTO_UDP.
const UDP: u8 = 17;
/// So many connections are looked through in the kernel's text: it takes a microsecond for each.
const FEW: u32 = 3000;

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

/// Whether there may be a connection to one of these ports. The kernel's list by netlink costs six milliseconds even
/// when it is empty, for all 262144 slots of the table are walked with a lock for each; its number of connections costs
/// nothing, and its list as a text no locks, but more for each of them. Not every kernel has that
/// (CONFIG_NF_CONNTRACK_PROCFS): then there may be.
pub(super) fn may_be_tracked(udp: &[&PortMapping]) -> bool {
    let count = std::fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_count");
    match count.ok().and_then(|count| count.trim_end().parse::<u32>().ok()) {
        Some(0) => return false,
        Some(count) if count > FEW => return true,
        _ => {}
    }
    // The thread's own namespace, which /proc/net is not.
    let Ok(file) = File::open("/proc/thread-self/net/nf_conntrack") else { return true };
    let mut lines = BufReader::new(file).lines();
    lines.any(|line| {
        // A list that breaks off says nothing.
        line.map_or(true, |line| {
            asked_port(&line).is_some_and(|port| udp.iter().any(|mapping| covers(mapping, port)))
        })
    })
}

/// The port that a line of nf_conntrack says was asked for, if it is one of UDP: `ipv4 2 udp 17 29 src=… dst=… sport=…
/// dport=…`, and then the same of the answers.
pub(super) fn asked_port(line: &str) -> Option<u16> {
    let mut words = line.split_ascii_whitespace();
    if words.nth(2) != Some("udp") {
        return None;
    }
    words.find_map(|word| word.strip_prefix("dport="))?.parse().ok()
}

fn covers(mapping: &PortMapping, port: u16) -> bool {
    port.checked_sub(mapping.host_port).is_some_and(|offset| offset < mapping.count())
}

fn forget(
    socket: &mut Netfilter,
    ports: &PortRules,
    mut stale: impl FnMut(&Connection, &PortMapping, IpAddr) -> bool,
) {
    let udp: Vec<_> = ports.ports().iter().filter(|mapping| mapping.protocol == "udp").collect();
    if udp.is_empty() || !may_be_tracked(&udp) {
        return;
    }
    let port = match udp.as_slice() {
        [one] if one.count() == 1 => Some(one.host_port),
        _ => None,
    };
    let mut forget_all = || -> Result<(), Errno> {
        for (container, _) in ports.addresses() {
            for connection in socket.connections(container.is_ipv6(), UDP, port)? {
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
    let host = mapping.host_ip.parse::<IpAddr>().ok().filter(|host| !host.is_unspecified());
    covers(mapping, asked.port()) && host.is_none_or(|host| host == asked.ip())
}

fn own_addresses() -> Vec<IpAddr> {
    let addresses = Netlink::open().and_then(|mut netlink| netlink.addresses());
    addresses.unwrap_or_default().into_iter().map(|address| address.net.addr()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_that_was_asked_for_is_read_from_the_kernels_text() {
        let line = "ipv4     2 udp      17 29 src=127.0.0.1 dst=127.0.0.1 sport=4 dport=5000 [UNREPLIED] \
                    src=10.88.0.2 dst=127.0.0.1 sport=53 dport=4 mark=0 zone=0 use=2";
        assert_eq!(asked_port(line), Some(5000));
        assert_eq!(asked_port(&line.replace("udp      17", "tcp      6")), None);
        for bad in ["", "ipv4 2 udp", "ipv4 2 udp 17 29 dport=", "ipv4 2 udp 17 29 dport=70000"] {
            assert_eq!(asked_port(bad), None, "{bad}");
        }
    }
}
