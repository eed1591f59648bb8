//! Configures the guest's side of the link by netlink, from within its namespace: a link of our own making
//! ([`Configure`]), or one that looks like the host's ([`crate::template`]).
//!
//! Order: loopback up; then MAC (only while the interface is down), MTU, up, addresses, default routes. IPv6 may
//! be switched off in a kernel or namespace; then it is left out with a log line, for IPv4 alone is still of use.

use crate::netlink::{Error, Interface, Netlink};
use crate::template::{self, Op};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use nix::errno::Errno;
use slipway_netstack::addr::MacAddr;
use slipway_netstack::config::Mtu;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// How the guest's interface is set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Setup {
    /// By what it is given.
    Configure(Configure),
    /// By the steps of a plan; without any it stays as it is.
    Template(Vec<Op>),
}

impl Setup {
    /// Sets up the interface `name` in the calling thread's network namespace.
    pub(super) fn apply(&self, name: &str) -> Result<(), Error> {
        match self {
            Self::Configure(wanted) => configure(name, wanted),
            Self::Template(steps) => template::apply(&mut Netlink::open()?, name, steps),
        }
    }
}

/// What the guest's interface is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Configure {
    /// Its MTU.
    pub mtu: Mtu,
    /// Its MAC address; `None`: the kernel draws one.
    pub mac: Option<MacAddr>,
    /// IPv4; `None`: nothing.
    pub v4: Option<Side<Ipv4Net, Ipv4Addr>>,
    /// IPv6; `None`: nothing (router advertisements may still configure it).
    pub v6: Option<Side<Ipv6Net, Ipv6Addr>>,
}

/// One family's configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Side<N, A> {
    /// The address, host bits included, with the prefix of the link.
    pub address: N,
    /// The default route.
    pub gateway: A,
}

fn configure(name: &str, wanted: &Configure) -> Result<(), Error> {
    let mut netlink = Netlink::open()?;
    let lo = netlink.interface("lo")?;
    netlink.set_up(&lo)?;
    let tap = netlink.interface(name)?;
    if let Some(mac) = wanted.mac.filter(|mac| tap.mac != Some(*mac)) {
        netlink.set_mac(&tap, mac)?;
    }
    netlink.set_mtu(&tap, u32::from(wanted.mtu.bytes()))?;
    if wanted.v6.is_some() {
        // The link-local address too can be used at once: there is nobody else on the link.
        sysctl(&format!("net/ipv6/conf/{name}/accept_dad"), "0");
    } else {
        // What an advertisement taught is kept when somebody turns forwarding on later, as netavark does in a
        // rootless Podman's namespace; at 1, the kernel would then drop the default route.
        sysctl(&format!("net/ipv6/conf/{name}/accept_ra"), "2");
    }
    netlink.set_up(&tap)?;
    if let Some(v4) = wanted.v4 {
        netlink.add_address(&tap, IpNet::V4(v4.address))?;
        netlink.add_default_route(&tap, IpAddr::V4(v4.gateway))?;
    }
    match wanted.v6.map(|v6| add_v6(&mut netlink, &tap, v6)) {
        Some(Err(error)) if is_switched_off(&error) => log::warn!("no IPv6 for the guest: {error}"),
        Some(result) => result?,
        None => {}
    }
    Ok(())
}

fn add_v6(netlink: &mut Netlink, tap: &Interface, v6: Side<Ipv6Net, Ipv6Addr>) -> Result<(), Error> {
    netlink.add_address(tap, IpNet::V6(v6.address))?;
    netlink.add_default_route(tap, IpAddr::V6(v6.gateway))
}

fn is_switched_off(error: &Error) -> bool {
    matches!(error.errno(), Some(Errno::EACCES | Errno::EOPNOTSUPP | Errno::EAFNOSUPPORT))
}

/// Lets every group of this user namespace send ping requests without privileges.
pub(super) fn allow_ping() {
    let map = std::fs::read_to_string("/proc/self/gid_map").unwrap_or_default();
    if let Some((first, last)) = widest_range(&map) {
        sysctl("net/ipv4/ping_group_range", &format!("{first} {last}"));
    }
}

/// Lets everybody in it bind ports below 1024: there is no one else to protect them from.
pub(super) fn allow_low_ports() {
    sysctl("net/ipv4/ip_unprivileged_port_start", "0");
}

/// Writes a setting of the current network namespace. What cannot be written is left as it is: all of them are
/// comforts.
fn sysctl(name: &str, value: &str) {
    if let Err(error) = std::fs::write(format!("/proc/sys/{name}"), value) {
        log::debug!("cannot set {name} to {value}: {error}");
    }
}

/// The widest run of ids in a gid_map(5): the kernel takes no id that is not mapped.
fn widest_range(map: &str) -> Option<(u32, u32)> {
    map.lines()
        .filter_map(|line| {
            let mut fields = line.split_ascii_whitespace().map(str::parse::<u32>);
            let (Some(Ok(first)), Some(Ok(_)), Some(Ok(count))) =
                (fields.next(), fields.next(), fields.next())
            else {
                return None;
            };
            // The kernel's upper bound for this setting is one below the largest signed 32-bit number.
            const LIMIT: u32 = 0x7fff_ffff;
            let last = first.checked_add(count.checked_sub(1)?)?.min(LIMIT);
            (first <= last).then_some((first, last))
        })
        .max_by_key(|(first, last)| last - first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_widest_range_of_a_map() {
        assert_eq!(widest_range("         0       1000          1\n"), Some((0, 0)));
        assert_eq!(widest_range("0 1000 1\n1 100000 65536\n"), Some((1, 65536)));
        assert_eq!(widest_range("0 0 4294967295\n"), Some((0, 0x7fff_ffff)));
        for bad in ["", "1 2", "a b c", "4294967295 0 2", "0 0 0", "4000000000 0 5"] {
            assert_eq!(widest_range(bad), None, "{bad}");
        }
    }
}
