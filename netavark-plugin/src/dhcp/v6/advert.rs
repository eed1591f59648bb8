//! What routers say of a link (RFC 4861 §4.2, options of RFC 8106), and how they are asked to say it.
//!
//! The kernel of the container hears the same and makes addresses and routes of it, with all that belongs to it:
//! duplicate address detection, lifetimes, redirects. Read here is only what it does not act on, and what the caller is
//! to be told: whether there is DHCPv6, who the router is, which addresses to expect, servers for names.
//!
//! An advertisement with an option that has no length or runs over the end is not taken at all (RFC 4861 §6.1.2).

use super::message::{addresses, names};
use ipnet::Ipv6Net;
use slipway_netstack::addr::MacAddr;
use std::net::Ipv6Addr;

const SOLICITATION: u8 = 133;
pub(super) const ADVERTISEMENT: u8 = 134;

/// Prefixes, servers and domains that are looked at.
const MOST: usize = 8;

mod option {
    pub(super) const SOURCE: u8 = 1;
    pub(super) const PREFIX: u8 = 3;
    pub(super) const MTU: u8 = 5;
    pub(super) const DNS_SERVERS: u8 = 25;
    pub(super) const DNS_SEARCH: u8 = 31;
}

/// What a router says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(in crate::dhcp) struct Advert {
    /// The router, unless it says that it leads nowhere.
    pub(in crate::dhcp) router: Option<Ipv6Addr>,
    /// Whether DHCPv6 gives out addresses.
    pub(super) managed: bool,
    /// Whether DHCPv6 knows more, such as servers for names.
    pub(super) other: bool,
    /// Prefixes, as far as they are of use.
    pub(super) prefixes: Vec<Prefix>,
    /// Servers for names.
    pub(super) dns_servers: Vec<Ipv6Addr>,
    /// Domains to search.
    pub(super) search: Vec<String>,
    /// The link's MTU, if it is told.
    pub(super) mtu: Option<u32>,
}

/// A prefix of the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Prefix {
    pub(super) net: Ipv6Net,
    /// Whether all of it is on this link.
    pub(super) on_link: bool,
    /// Whether an interface makes itself an address of it.
    pub(super) autonomous: bool,
    /// For how many seconds such an address may be used.
    pub(super) valid: u32,
}

/// The question, from an interface that has the address `own`, if any yet (RFC 4861 §4.1).
#[must_use]
pub(super) fn solicitation(mac: MacAddr, own: Option<Ipv6Addr>) -> Vec<u8> {
    let mut message = vec![SOLICITATION, 0, 0, 0, 0, 0, 0, 0];
    if own.is_some() {
        message.extend([option::SOURCE, 1]);
        message.extend(mac.0);
    }
    message
}

impl Advert {
    /// Reads a message of the router at `from`; `None` when it is not to be taken. Checksum and hop limit are the
    /// packet's.
    #[must_use]
    pub(super) fn parse(from: Ipv6Addr, message: &[u8]) -> Option<Self> {
        let (fixed, mut options) = message.split_first_chunk::<16>()?;
        let [ADVERTISEMENT, 0, _, _, _, flags, l0, l1, ..] = *fixed else { return None };
        if !from.is_unicast_link_local() {
            return None;
        }
        let mut advert = Self {
            router: Some(from).filter(|_| [l0, l1] != [0, 0]),
            managed: flags & 0x80 != 0,
            other: flags & 0x40 != 0,
            ..Self::default()
        };
        while let Some((&[kind, units], _)) = options.split_first_chunk::<2>() {
            let len = usize::from(units) * 8;
            let (option, rest) = options.split_at_checked(len).filter(|_| len > 0)?;
            options = rest;
            advert.note(kind, option);
        }
        options.is_empty().then_some(advert)
    }

    fn note(&mut self, kind: u8, option: &[u8]) {
        // RFC 8106 §5.1, §5.2: a lifetime, behind it what it is of; zero means that it is not to be used any more.
        let lasting = option.split_first_chunk::<8>().filter(|(head, _)| head[4..] != [0; 4]);
        match kind {
            option::PREFIX if self.prefixes.len() < MOST => self.prefixes.extend(Prefix::parse(option)),
            option::MTU => {
                let mtu = option.get(4..8).and_then(|mtu| mtu.try_into().ok()).map(u32::from_be_bytes);
                // RFC 8200 §5.
                self.mtu = mtu.filter(|mtu| *mtu >= 1280);
            }
            option::DNS_SERVERS => {
                self.dns_servers.extend(lasting.map(|(_, list)| addresses(list)).unwrap_or_default());
                self.dns_servers.truncate(MOST);
            }
            option::DNS_SEARCH => {
                self.search.extend(lasting.map(|(_, list)| names(list)).unwrap_or_default());
                self.search.truncate(MOST);
            }
            _ => {}
        }
    }

    /// Adds what another router of the link says (RFC 4861 §6.3.4: hosts take the union).
    pub(super) fn join(&mut self, other: Self) {
        self.router = self.router.or(other.router);
        self.managed |= other.managed;
        self.other |= other.other;
        self.mtu = self.mtu.or(other.mtu);
        union(&mut self.prefixes, other.prefixes);
        union(&mut self.dns_servers, other.dns_servers);
        union(&mut self.search, other.search);
    }

    /// The prefixes of which interfaces make themselves addresses (RFC 4862 §5.5.3): interface identifiers have 64
    /// bits.
    pub(in crate::dhcp) fn autonomous(&self) -> impl Iterator<Item = Ipv6Net> + '_ {
        let of_use =
            |prefix: &&Prefix| prefix.autonomous && prefix.valid > 0 && prefix.net.prefix_len() == 64;
        self.prefixes.iter().filter(of_use).map(|prefix| prefix.net)
    }

    /// How much of an address names the link: a prefix of it that is on the link, or nothing but itself.
    #[must_use]
    pub(in crate::dhcp) fn with_prefix(&self, address: Ipv6Addr) -> Ipv6Net {
        let on_link = |prefix: &&Prefix| prefix.on_link && prefix.net.contains(&address);
        let len = self.prefixes.iter().filter(on_link).map(|prefix| prefix.net.prefix_len()).max();
        Ipv6Net::new(address, len.unwrap_or(128)).unwrap_or_else(|_| address.into())
    }
}

/// Adds what is not there yet, as far as there is room.
pub(super) fn union<T: PartialEq>(list: &mut Vec<T>, more: Vec<T>) {
    for item in more {
        if list.len() < MOST && !list.contains(&item) {
            list.push(item);
        }
    }
}

impl Prefix {
    /// RFC 4861 §4.6.2; `None` for one that is of no use.
    fn parse(option: &[u8]) -> Option<Self> {
        const LEN: usize = 32;
        let [_, _, len, flags, v0, v1, v2, v3, p0, p1, p2, p3, ..] = *option else { return None };
        let prefix: [u8; 16] = option.get(16..LEN)?.try_into().ok()?;
        let net = Ipv6Net::new(prefix.into(), len).ok()?.trunc();
        let (valid, preferred) = (u32::from_be_bytes([v0, v1, v2, v3]), u32::from_be_bytes([p0, p1, p2, p3]));
        let of_use = !net.addr().is_multicast() && !net.addr().is_unicast_link_local() && len > 0;
        // RFC 4862 §5.5.3 (c).
        (of_use && preferred <= valid).then_some(Self {
            net,
            on_link: flags & 0x80 != 0 && valid > 0,
            autonomous: flags & 0x40 != 0,
            valid,
        })
    }
}

/// For the fuzzer: what is taken of an advertisement is of use, and little.
pub(super) fn fuzz(data: &[u8]) {
    let router = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
    let whole = [&[ADVERTISEMENT, 0, 0, 0, 64][..], data].concat();
    for message in [data, &whole] {
        let Some(mut advert) = Advert::parse(router, message) else { continue };
        let again = advert.clone();
        advert.join(again.clone());
        assert!(
            advert.prefixes.len() <= MOST && advert.dns_servers.len() <= MOST && advert.search.len() <= MOST
        );
        assert!(advert.router.is_none_or(|from| from == router) && advert.mtu.is_none_or(|mtu| mtu >= 1280));
        for prefix in &advert.prefixes {
            assert!(prefix.net.prefix_len() > 0 && prefix.net == prefix.net.trunc());
        }
        for net in advert.autonomous() {
            assert_eq!(advert.with_prefix(net.addr()).addr(), net.addr());
        }
        assert!(advert.search.iter().all(|name| name.is_ascii() && !name.contains(char::is_whitespace)));
    }
}

#[cfg(test)]
mod tests;
