//! What a DHCP server granted, in types.

use super::message::{Reply, is_usable, option};
use crate::addr::MacAddr;
use core::net::Ipv4Addr;
use core::time::Duration;
use ipnet::Ipv4Net;

/// A duration of all ones means that the lease never ends (RFC 2131 §3.3).
const FOREVER: u32 = u32::MAX;

/// A lease is taken to last at least so long, and is not renewed sooner unless the server names the time itself.
const SHORTEST: u32 = 5;

/// What a server granted, or offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The address, with the prefix of the network.
    pub address: Ipv4Net,
    /// What the server calls itself: renewals go there.
    pub server: Ipv4Addr,
    /// Where the answer came from on the link: the server, or the relay or router on the way to it.
    pub server_mac: MacAddr,
    /// The server of the next step of a network boot; most servers name themselves.
    pub next_server: Ipv4Addr,
    /// When to do what.
    pub times: Times,
    /// Routers, the preferred one first.
    pub gateways: Vec<Ipv4Addr>,
    /// Routes, and through which router; those of a server that names some stand in place of its routers (RFC 3442).
    pub routes: Vec<(Ipv4Net, Option<Ipv4Addr>)>,
    /// DNS servers.
    pub dns_servers: Vec<Ipv4Addr>,
    /// Domains in which short names are looked for.
    pub search: Vec<String>,
    /// The domain that the client is in; empty if the server does not say.
    pub domain: String,
    /// Time servers.
    pub ntp_servers: Vec<Ipv4Addr>,
    /// The network's broadcast address, if the server named it.
    pub broadcast: Option<Ipv4Addr>,
    /// The link's MTU, if the server named it.
    pub mtu: Option<u16>,
    /// What the server calls the client; empty if it does not.
    pub host_name: String,
}

/// When a lease is to be renewed and when it ends, in seconds from when it was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// When the server is asked to renew it (T1).
    pub renew: u32,
    /// When all servers are asked (T2).
    pub rebind: u32,
    /// When it ends.
    pub end: u32,
}

impl Times {
    /// RFC 2131 §4.4.5: half and seven eighths of the lease unless the server says otherwise. What it says is not taken
    /// when it is out of order.
    fn new(end: u32, renew: Option<u32>, rebind: Option<u32>) -> Option<Self> {
        if end == 0 {
            return None;
        }
        let end = end.max(SHORTEST);
        let half = (end / 2).max(SHORTEST.min(end));
        let most = (end / 8 * 7 + end % 8).max(half).min(end);
        let renew = renew.filter(|renew| (1..end).contains(renew));
        let rebind = rebind
            .filter(|rebind| *rebind <= end && renew.is_none_or(|renew| renew <= *rebind) && *rebind > 0);
        let rebind = rebind.unwrap_or(most);
        let renew = renew.unwrap_or(half).min(rebind);
        Some(Self { renew, rebind, end })
    }

    /// How long after it was asked for the lease is renewed, rebound, and ends; `None`: never.
    #[must_use]
    pub fn delays(self) -> Option<[Duration; 3]> {
        (self.end != FOREVER).then(|| {
            [self.renew.max(1), self.rebind, self.end].map(|seconds| Duration::from_secs(seconds.into()))
        })
    }
}

impl Lease {
    /// What a server's answer grants; `None` when an address, a mask or a duration is missing or of no use.
    #[must_use]
    pub(super) fn new(reply: &Reply, server_mac: MacAddr) -> Option<Self> {
        let options = &reply.options;
        let ip = reply.your_address;
        if !is_usable(ip) {
            return None;
        }
        let mask = options.address(option::SUBNET_MASK).unwrap_or_else(|| classful(ip));
        let times = Times::new(
            options.seconds(option::LEASE_TIME)?,
            options.seconds(option::RENEWAL_TIME),
            options.seconds(option::REBINDING_TIME),
        )?;
        Some(Self {
            address: Ipv4Net::with_netmask(ip, mask).ok().filter(|net| net.prefix_len() > 0)?,
            server: options.address(option::SERVER_ID)?,
            server_mac,
            next_server: reply.next_server,
            times,
            gateways: options.addresses(option::ROUTERS),
            routes: options.routes(),
            dns_servers: options.addresses(option::DNS_SERVERS),
            search: options.search(),
            domain: options.text(option::DOMAIN_NAME),
            ntp_servers: options.addresses(option::NTP_SERVERS),
            broadcast: options.address(option::BROADCAST),
            mtu: options.number(option::MTU),
            host_name: options.text(option::HOST_NAME),
        })
    }
}

/// The mask that an address had before masks were announced.
fn classful(ip: Ipv4Addr) -> Ipv4Addr {
    match ip.octets() {
        [0..128, ..] => Ipv4Addr::new(255, 0, 0, 0),
        [128..192, ..] => Ipv4Addr::new(255, 255, 0, 0),
        _ => Ipv4Addr::new(255, 255, 255, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn times_default_to_half_and_seven_eighths() {
        let times = |end, renew, rebind| {
            Times::new(end, renew, rebind).map(|times| (times.renew, times.rebind, times.end))
        };
        assert_eq!(times(120, None, None), Some((60, 105, 120)));
        assert_eq!(times(120, Some(2), Some(4)), Some((2, 4, 120)));
        assert_eq!(times(120, Some(0), Some(0)), Some((60, 105, 120)));
        assert_eq!(times(120, Some(200), Some(300)), Some((60, 105, 120)));
        assert_eq!(times(120, Some(100), Some(50)), Some((100, 105, 120)));
        assert_eq!(times(0, None, None), None);
        assert_eq!(times(1, None, None), Some((5, 5, 5)), "no more often than every five seconds");
        assert_eq!(Times::new(FOREVER, Some(1), None).unwrap().delays(), None);
    }

    proptest! {
        #[test]
        fn times_are_in_order(end: u32, renew: Option<u32>, rebind: Option<u32>) {
            if let Some(times) = Times::new(end, renew, rebind) {
                prop_assert!(times.renew >= 1 && times.renew <= times.rebind && times.rebind <= times.end);
                if let Some([renew, rebind, end]) = times.delays() {
                    prop_assert!(renew <= rebind && rebind <= end);
                }
            }
        }
    }
}
