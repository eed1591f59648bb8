//! What IPv6 a container has on a network, as the message that the proxy's clients get.
//!
//! The message was made for IPv4. It is filled in so that a program that reads it as one of IPv4 finds what it looks
//! for, in IPv6's way: `yiaddr` is one address (a server's before one that the interface made itself), `subnet_mask`
//! its prefix as a mask, `gateways` the router's link-local address, `domain_name` the domains to search with blanks
//! between them, `srv_id` the server's DUID in hexadecimal digits. Further addresses are on the interface, for whoever
//! wants to look.

use super::advert::{self, Advert};
use super::client::{Grant, Known};
use crate::proto;
use ipnet::Ipv6Net;
use std::fmt::Write as _;
use std::net::Ipv6Addr;
use std::time::Duration;

/// A lifetime that does not end.
const FOREVER: u32 = u32::MAX;

/// What there is on a link for one interface.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(in crate::dhcp) struct Found {
    /// What its routers say.
    pub(super) advert: Option<Advert>,
    /// The addresses that a server granted.
    pub(super) grant: Option<Grant>,
    /// What servers say besides.
    pub(super) known: Option<Known>,
    /// The addresses that the interface made itself.
    pub(super) own: Vec<Ipv6Net>,
}

impl Found {
    /// As a message, for the container's interface that calls itself `mac`; `None` when there is no address. Without
    /// domains of the network the domain is the one that the caller asked with.
    #[must_use]
    pub(in crate::dhcp) fn to_message(&self, mac: &str, domain: &str) -> Option<proto::Lease> {
        let advert = self.advert.clone().unwrap_or_default();
        let leased = self.grant.as_ref().and_then(|grant| grant.addresses.first());
        let address =
            leased.map(|leased| advert.with_prefix(leased.address)).or_else(|| self.own.first().copied())?;
        let [t1, t2, lease_time] = self.grant.as_ref().map_or([FOREVER; 3], |grant| grant.times);
        let Known { dns_servers: mut servers, search: mut domains } = self.known.clone().unwrap_or_default();
        advert::union(&mut servers, advert.dns_servers);
        advert::union(&mut domains, advert.search);
        // A link-local one is of no use to who does not know the link, as in a container's resolv.conf.
        servers.retain(|server| !server.is_unicast_link_local());
        let texts = |list: &[Ipv6Addr]| list.iter().map(Ipv6Addr::to_string).collect();
        Some(proto::Lease {
            t1,
            t2,
            lease_time,
            mtu: advert.mtu.unwrap_or_default(),
            domain_name: if domains.is_empty() { domain.to_owned() } else { domains.join(" ") },
            mac_address: mac.to_owned(),
            is_v6: true,
            yiaddr: address.addr().to_string(),
            srv_id: self.grant.as_ref().map(|grant| hexadecimal(&grant.server)).unwrap_or_default(),
            subnet_mask: address.netmask().to_string(),
            dns_servers: texts(&servers),
            gateways: texts(advert.router.as_slice()),
            ..proto::Lease::default()
        })
    }

    /// Why there is no address.
    #[must_use]
    pub(in crate::dhcp) fn why_nothing(&self, interface: &str, patience: Duration) -> String {
        let seconds = patience.as_secs();
        match &self.advert {
            None => format!("no router and no DHCPv6 server answered on {interface} within {seconds} s"),
            Some(advert) if advert.managed => {
                format!(
                    "a router on {interface} refers to DHCPv6, but no server granted an address within {seconds} s"
                )
            }
            Some(_) => {
                format!("the routers on {interface} announce no prefix from which an address was made")
            }
        }
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests;
