//! Router advertisements (RFC 4861 §6.2): how the guest learns its IPv6 prefix, router, MTU and nameserver.
//!
//! **What is said.** The prefix, on-link, and for stateless autoconfiguration if it has 64 bits, valid for ever; the
//! link's MTU; our MAC address; the nameserver and search domains (RFC 8106); the flag M when DHCPv6 has an address to
//! give, O when it has anything to say.
//!
//! **When.** In answer to a solicitation, at once: a container is waiting for its address, and the random delay of RFC
//! 4861 §6.2.6 only serves links with many routers (deviation). Besides, one at the start, for a guest that
//! was there before us, and then one every [`INTERVAL`]. The router lifetime is the longest that RFC 8319 §4 allows,
//! and Linux drops its default route when that runs out without ever soliciting again, so some repetition is needed; a
//! third of the lifetime lets two in a row get lost. That is one wake-up in six hours; the random spread of §6.2.4 is
//! left out, as there is no other router to keep out of step with (deviation).
//!
//! **A prefix that is no longer the link's** is deprecated: for [`RETIRED`] it is advertised with a preferred lifetime
//! of zero, so that nothing new begins from its addresses, and what is left of that time as the valid one, for a host
//! does not believe in a shorter one (RFC 4862 §5.5.3 (e)). Nothing of that time is added by repeating it.
//!
//! **A nameserver or search domain that is no longer told** is withdrawn by a lifetime of zero (RFC 8106 §5.1, §5.2)
//! for as long, in case the first word of it got lost: a guest that believed in it would go on asking it for 18 hours.
//! Of domains that is as many as there is room for beside those that are told, the latest first.
//!
//! Advertisements to all nodes are limited to [`BURST`] at once and one per 3 s (§6.2.6, MIN_DELAY_BETWEEN_RAS);
//! what exceeds that is sent when the time has come, once for all who asked.

use crate::addr::MacAddr;
use crate::clock::Instant;
use crate::config::Config;
use crate::ip::ndp::{ALL_NODES, ROUTER_ADVERT, icmpv6_frame};
use crate::ip::plan::Plan;
use crate::token_bucket::TokenBucket;
use crate::within::names;
use core::net::{IpAddr, Ipv6Addr};
use core::time::Duration;
use ipnet::Ipv6Net;
use std::collections::VecDeque;

/// Seconds for which we are the guest's default router, and its nameserver is known.
pub const LIFETIME: u16 = 65_535;
/// Between advertisements that nobody asked for.
pub const INTERVAL: Duration = Duration::from_secs(21_845);
/// Advertisements to all nodes at once (MAX_INITIAL_RTR_ADVERTISEMENTS).
pub const BURST: u32 = 3;
/// Between advertisements to all nodes after that.
pub const MIN_DELAY: Duration = Duration::from_secs(3);

/// How long a prefix is valid that is no longer the link's: two hours, below which no host lets an advertisement take
/// it (RFC 4862 §5.5.3 (e)).
pub const RETIRED: Duration = Duration::from_secs(7200);
/// How many such prefixes are told of, the latest.
const MAX_RETIRED: usize = 4;

/// Lifetimes that never end (RFC 4861 §4.6.2).
const FOREVER: u32 = u32::MAX;
/// Nameservers, for the same reason.
const MAX_SERVERS: usize = 16;
/// How many nameservers, and how many search domains, are withdrawn at a time, the latest.
const MAX_WITHDRAWN: usize = 6;
/// Bytes of search domains that are told, as many as DHCPv6 tells.
const MAX_SEARCH: usize = 512;
/// Bytes of them together with those that are withdrawn, which are an option more, so that the whole fits the minimum
/// MTU.
const MAX_BOTH: usize = 632;

/// Decides when to advertise.
#[derive(Debug)]
pub struct Advertiser {
    next: Option<Instant>,
    to_all: TokenBucket,
    /// Prefixes that were the link's, and until when their addresses are valid.
    retired: VecDeque<(Ipv6Net, Instant)>,
    servers: Withdrawn<Ipv6Addr>,
    domains: Withdrawn<Vec<u8>>,
}

/// What was told and is so no longer, and until when that is said.
#[derive(Debug)]
struct Withdrawn<T>(VecDeque<(T, Instant)>);

/// What an advertisement says of former times.
#[derive(Debug, Default)]
struct Former {
    /// Prefixes that are no longer the link's, and for how long their addresses are still valid.
    prefixes: Vec<(Ipv6Net, Duration)>,
    /// Nameservers that are none.
    servers: Vec<Ipv6Addr>,
    /// Search domains that are none, as DNS writes them.
    domains: Vec<Vec<u8>>,
}

impl<T: PartialEq + Clone> Withdrawn<T> {
    const fn new() -> Self {
        Self(VecDeque::new())
    }

    /// What was told `before` and is not told `today` is withdrawn from `now` on; what is told again is so no longer.
    fn change(&mut self, now: Instant, before: &[T], today: &[T]) {
        self.0.retain(|(known, until)| !today.contains(known) && *until > now);
        for gone in before.iter().filter(|gone| !today.contains(gone)) {
            self.0.retain(|(known, _)| known != gone);
            if self.0.len() >= MAX_WITHDRAWN {
                self.0.pop_front();
            }
            self.0.push_back((gone.clone(), now + RETIRED));
        }
    }

    fn at(&self, now: Instant) -> Vec<T> {
        self.0.iter().filter(|(_, until)| *until > now).map(|(gone, _)| gone.clone()).collect()
    }
}

impl Advertiser {
    /// Due at once if `config` wants advertisements, silent for ever if not.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let next = is_enabled(&config.plan).then_some(Instant::ZERO);
        Self {
            next,
            to_all: TokenBucket::new(BURST, MIN_DELAY),
            retired: VecDeque::new(),
            servers: Withdrawn::new(),
            domains: Withdrawn::new(),
        }
    }

    /// Something else than under the plan `old` is to be said from `now` on: to all, at once, or as soon as the limit
    /// allows.
    pub fn readdress(&mut self, now: Instant, config: &Config, old: &Plan) {
        self.next = is_enabled(&config.plan).then_some(Instant::ZERO);
        let network = |plan: &Plan| plan.v6.as_ref().map(|v6| v6.network);
        let (before, today) = (network(old).filter(|_| is_enabled(old)), network(&config.plan));
        self.retired.retain(|(known, until)| Some(*known) != today && *until > now);
        if let Some(before) = before
            && Some(before) != today
            && !is_link_local(before)
        {
            if self.retired.len() >= MAX_RETIRED {
                self.retired.pop_front();
            }
            self.retired.push_back((before, now + RETIRED));
        }
        self.servers.change(now, told(old), told(&config.plan));
    }

    /// From `now` on other search domains than `before` are to be told: to all, at once, or as soon as the limit
    /// allows.
    pub fn retell(&mut self, now: Instant, config: &Config, before: &[String]) {
        self.next = is_enabled(&config.plan).then_some(Instant::ZERO);
        self.domains.change(now, &searched(before), &searched(&config.dns_search));
    }

    /// Somebody with the address `from` (perhaps unspecified), whose frames come from `mac`, looks for a router: the
    /// frame to answer with, unless it has to wait until [`Advertiser::next_timeout`].
    pub fn on_solicit(
        &mut self,
        now: Instant,
        config: &Config,
        from: Ipv6Addr,
        mac: MacAddr,
    ) -> Option<Vec<u8>> {
        let next = self.next?;
        if !from.is_unspecified() && mac.is_unicast() {
            return self.advertisement(now, config, from, mac);
        }
        let ready = self.to_all.ready_at(now);
        self.next = Some(next.min(ready));
        self.on_timeout(now, config)
    }

    /// When the next one is due.
    #[must_use]
    pub const fn next_timeout(&self) -> Option<Instant> {
        self.next
    }

    /// The frame that is due at `now`, if one is.
    pub fn on_timeout(&mut self, now: Instant, config: &Config) -> Option<Vec<u8>> {
        self.next.filter(|&at| at <= now)?;
        if !self.to_all.take(now) {
            self.next = Some(self.to_all.ready_at(now));
            return None;
        }
        self.next = Some(now + INTERVAL);
        self.advertisement(now, config, ALL_NODES, MacAddr::for_multicast(IpAddr::V6(ALL_NODES)))
    }

    fn advertisement(&self, now: Instant, config: &Config, to: Ipv6Addr, mac: MacAddr) -> Option<Vec<u8>> {
        let left = self.retired.iter().filter(|(_, until)| *until > now);
        let prefixes = left.map(|(network, until)| (*network, *until - now)).collect();
        let (servers, domains) = (self.servers.at(now), self.domains.at(now));
        frame(config, to, mac, &Former { prefixes, servers, domains })
    }
}

/// The frame that advertises us to `to`, which is at `to_mac`; `None` when IPv6 is off or not to be advertised.
#[must_use]
pub fn advertisement(config: &Config, to: Ipv6Addr, to_mac: MacAddr) -> Option<Vec<u8>> {
    frame(config, to, to_mac, &Former::default())
}

/// The same with what was so before.
fn frame(config: &Config, to: Ipv6Addr, to_mac: MacAddr, former: &Former) -> Option<Vec<u8>> {
    let v6 = config.plan.v6.as_ref().filter(|_| config.plan.advertise)?;
    let search = searched(&config.dns_search).concat();
    let informs = !v6.dns.is_empty() || !search.is_empty();
    let managed = config.plan.dhcp6 && (config.plan.dhcp6_pool.is_some() || !v6.guests.is_empty());
    let flags = u8::from(managed) << 7 | u8::from(config.plan.dhcp6 && (informs || managed)) << 6;
    let [l0, l1] = LIFETIME.to_be_bytes();
    // Current hop limit 64; reachable time and retransmission timer unspecified.
    let mut message = vec![ROUTER_ADVERT, 0, 0, 0, 64, flags, l0, l1, 0, 0, 0, 0, 0, 0, 0, 0];
    message.extend_from_slice(&[1, 1]);
    message.extend_from_slice(&config.mac.0);
    if config.tell_mtu && config.mtu.bytes() >= 1280 {
        message.extend_from_slice(&[5, 1, 0, 0, 0, 0]);
        message.extend_from_slice(&config.mtu.bytes().to_be_bytes());
    }
    if !is_link_local(v6.network) {
        prefix_option(&mut message, v6.network, FOREVER, FOREVER);
    }
    for (network, left) in &former.prefixes {
        prefix_option(&mut message, *network, u32::try_from(left.as_secs()).unwrap_or(FOREVER), 0);
    }
    servers_option(&mut message, bounded(&v6.dns), LIFETIME.into());
    servers_option(&mut message, &former.servers, 0);
    search_option(&mut message, &search, LIFETIME.into());
    let room = MAX_BOTH.saturating_sub(search.len().next_multiple_of(8));
    search_option(&mut message, &latest(&former.domains, room), 0);
    let from = config.plan.link_local().unwrap_or_else(|| config.mac.link_local());
    Some(icmpv6_frame(config.mac, to_mac, from, to, &message))
}

/// The nameservers that a plan tells.
fn told(plan: &Plan) -> &[Ipv6Addr] {
    plan.v6.as_ref().filter(|_| plan.advertise).map_or(&[], |v6| bounded(&v6.dns))
}

/// The search domains that are told of these, as DNS writes them.
fn searched(domains: &[String]) -> Vec<Vec<u8>> {
    names::fitting(domains, MAX_SEARCH)
}

/// Of `domains`, of which the latest is the last, as many as `room` takes.
fn latest(domains: &[Vec<u8>], room: usize) -> Vec<u8> {
    let mut list = Vec::new();
    for name in domains.iter().rev() {
        if list.len() + name.len() <= room {
            list.extend_from_slice(name);
        }
    }
    list
}

fn bounded(servers: &[Ipv6Addr]) -> &[Ipv6Addr] {
    servers.get(..MAX_SERVERS).unwrap_or(servers)
}

/// RFC 8106 §5.1; the lifetime is seconds.
fn servers_option(message: &mut Vec<u8>, servers: &[Ipv6Addr], lifetime: u32) {
    if let Ok(count @ 1..) = u8::try_from(servers.len()) {
        message.extend_from_slice(&[25, 1 + 2 * count, 0, 0]);
        message.extend_from_slice(&lifetime.to_be_bytes());
        servers.iter().for_each(|dns| message.extend_from_slice(&dns.octets()));
    }
}

fn is_enabled(plan: &Plan) -> bool {
    plan.v6.is_some() && plan.advertise
}

fn is_link_local(network: Ipv6Net) -> bool {
    network.addr().is_unicast_link_local()
}

/// RFC 4861 §4.6.2; the lifetimes are seconds.
fn prefix_option(message: &mut Vec<u8>, network: Ipv6Net, valid: u32, preferred: u32) {
    const ON_LINK: u8 = 0x80;
    const AUTONOMOUS: u8 = 0x40;
    let len = network.prefix_len();
    // RFC 4862 §5.5.3 (d): interface identifiers have 64 bits, other prefixes would be ignored with a warning.
    let flags = if len == 64 { ON_LINK | AUTONOMOUS } else { ON_LINK };
    message.extend_from_slice(&[3, 4, len, flags]);
    message.extend_from_slice(&valid.to_be_bytes());
    message.extend_from_slice(&preferred.to_be_bytes());
    message.extend_from_slice(&[0; 4]);
    message.extend_from_slice(&network.network().octets());
}

/// RFC 8106 §5.2; padded with zeroes to a multiple of eight bytes, the lifetime is seconds.
fn search_option(message: &mut Vec<u8>, search: &[u8], lifetime: u32) {
    if search.is_empty() {
        return;
    }
    let units = search.len().div_ceil(8);
    message.extend_from_slice(&[31, u8::try_from(1 + units).unwrap_or(u8::MAX), 0, 0]);
    message.extend_from_slice(&lifetime.to_be_bytes());
    let end = message.len() + units * 8;
    message.extend_from_slice(search);
    message.resize(end, 0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Mtu;
    use crate::ip::plan::slirp::Ipv6Config;
    use crate::testing::{self, GUEST, OURS};
    use proptest::prelude::*;
    use smoltcp::wire::{Icmpv6Packet, Ipv6Packet, NdiscPrefixInfoFlags, NdiscRepr, NdiscRouterFlags};

    fn config() -> Config {
        let mut config = testing::config();
        config.mtu = Mtu::new(65_520).unwrap();
        config.plan.dhcp6 = false;
        config
    }

    fn at(seconds: u64) -> Instant {
        Instant::from_micros(seconds * 1_000_000)
    }

    fn with(change: impl FnOnce(&mut Ipv6Config)) -> Config {
        let plan = testing::plan(|slirp| {
            let v6 = slirp.v6.as_mut().unwrap();
            v6.dhcp = false;
            change(v6);
        });
        Config { plan, ..config() }
    }

    /// Each option of an advertisement: type and bytes.
    fn options(frame: &[u8]) -> Vec<(u8, Vec<u8>)> {
        let mut rest = &frame[54 + 16..];
        let mut found = Vec::new();
        while let [kind, units, ..] = *rest {
            let (option, behind) = rest.split_at(usize::from(units) * 8);
            found.push((kind, option.to_vec()));
            rest = behind;
        }
        found
    }

    fn option(config: &Config, kind: u8) -> Option<Vec<u8>> {
        let frame = advertisement(config, ALL_NODES, GUEST).unwrap();
        options(&frame).into_iter().find(|(found, _)| *found == kind).map(|(_, bytes)| bytes)
    }

    #[test]
    fn smoltcp_reads_what_is_meant() {
        let frame = advertisement(&config(), GUEST.link_local(), GUEST).unwrap();
        assert_eq!(frame[..14], [&GUEST.0[..], &OURS.0, &[0x86, 0xdd]].concat());
        let packet = Ipv6Packet::new_checked(&frame[14..]).unwrap();
        assert_eq!((packet.src_addr(), packet.dst_addr()), (OURS.link_local(), GUEST.link_local()));
        assert_eq!(packet.hop_limit(), 255);
        let icmp = Icmpv6Packet::new_checked(packet.payload()).unwrap();
        assert!(icmp.verify_checksum(&packet.src_addr(), &packet.dst_addr()));
        let NdiscRepr::RouterAdvert { flags, router_lifetime, lladdr, mtu, prefix_info, .. } =
            NdiscRepr::parse(&icmp).unwrap()
        else {
            panic!("not an advertisement")
        };
        assert_eq!(flags, NdiscRouterFlags::empty());
        assert_eq!(router_lifetime.secs(), 65_535);
        assert_eq!(lladdr.unwrap().as_bytes(), OURS.0);
        assert_eq!(mtu, Some(65_520));
        let prefix = prefix_info.unwrap();
        assert_eq!((prefix.prefix, prefix.prefix_len), ("fd00::".parse().unwrap(), 64));
        assert_eq!(prefix.flags, NdiscPrefixInfoFlags::ON_LINK | NdiscPrefixInfoFlags::ADDRCONF);
        assert_eq!(prefix.valid_lifetime.secs(), u64::from(u32::MAX));
    }

    #[test]
    fn nameserver_and_search_domains_are_told() {
        let mut config = config();
        config.dns_search = vec!["example.org".into()];
        let dns = option(&config, 25).unwrap();
        assert_eq!(dns[..8], [25, 3, 0, 0, 0, 0, 0xff, 0xff]);
        assert_eq!(dns[8..], "fd00::3".parse::<Ipv6Addr>().unwrap().octets());
        let search = option(&config, 31).unwrap();
        assert_eq!(search[..8], [31, 3, 0, 0, 0, 0, 0xff, 0xff]);
        assert_eq!(search[8..], *b"\x07example\x03org\0\0\0\0");
        assert_eq!(option(&with(|v6| v6.dns = None), 25), None);
    }

    #[test]
    fn the_flags_say_what_dhcp_has() {
        let flags = |config: &Config| advertisement(config, ALL_NODES, GUEST).unwrap()[54 + 5];
        assert_eq!(flags(&config()), 0);
        assert_eq!(flags(&with(|v6| v6.dhcp = true)), 0x40);
        assert_eq!(flags(&with(|v6| (v6.dhcp, v6.dns) = (true, None))), 0);
        let guest = "fd00::64".parse().ok();
        assert_eq!(flags(&with(|v6| (v6.dhcp, v6.guest) = (true, guest))), 0xc0);
        assert_eq!(flags(&with(|v6| v6.guest = guest)), 0);
    }

    #[test]
    fn only_64_bit_prefixes_are_autonomous_and_a_tiny_mtu_is_not_told() {
        let prefix = option(&with(|v6| v6.network = "fd00::/56".parse().unwrap()), 3).unwrap();
        assert_eq!(prefix[2..4], [56, 0x80]);
        let mut small = config();
        small.mtu = Mtu::new(1279).unwrap();
        assert_eq!(option(&small, 5), None);
    }

    #[test]
    fn the_first_is_due_at_once_and_then_one_in_six_hours() {
        let config = config();
        let mut ra = Advertiser::new(&config);
        assert_eq!(ra.next_timeout(), Some(Instant::ZERO));
        let frame = ra.on_timeout(at(5), &config).unwrap();
        assert_eq!(frame[..6], [0x33, 0x33, 0, 0, 0, 1]);
        assert_eq!(ra.on_timeout(at(5), &config), None);
        assert_eq!(ra.next_timeout(), Some(at(5) + INTERVAL));
        assert!(INTERVAL * 3 <= Duration::from_secs(LIFETIME.into()), "two may get lost");
    }

    #[test]
    fn a_guest_with_an_address_is_answered_alone_and_always() {
        let config = config();
        let mut ra = Advertiser::new(&config);
        ra.on_timeout(at(0), &config);
        for _ in 0..100 {
            let frame = ra.on_solicit(at(1), &config, GUEST.link_local(), GUEST).unwrap();
            assert_eq!(frame[..6], GUEST.0);
        }
        assert_eq!(ra.next_timeout(), Some(at(0) + INTERVAL), "the schedule does not notice");
    }

    #[test]
    fn a_flood_of_anonymous_solicitations_is_answered_every_three_seconds() {
        let config = config();
        let mut ra = Advertiser::new(&config);
        let mut sent = 0;
        for tenth in 0..600 {
            let now = Instant::from_micros(tenth * 100_000);
            sent += usize::from(ra.on_timeout(now, &config).is_some());
            sent += usize::from(ra.on_solicit(now, &config, Ipv6Addr::UNSPECIFIED, GUEST).is_some());
        }
        assert!((20..=23).contains(&sent), "{sent}");
        assert!(ra.next_timeout().unwrap() <= at(63), "the last one is not forgotten");
    }

    /// What a host makes of it is in RFC 4862 §5.5.3: preferred no more at once, valid for two hours.
    #[test]
    fn a_prefix_that_is_no_longer_the_links_is_deprecated() {
        let [first, second] =
            ["fd00::/64", "fd01::/64"].map(|net| with(|v6| v6.network = net.parse().unwrap()));
        let mut ra = Advertiser::new(&first);
        ra.on_timeout(at(0), &first);
        ra.readdress(at(100), &second, &first.plan);
        let prefixes = |frame: &[u8]| {
            let all = options(frame).into_iter().filter(|(kind, _)| *kind == 3);
            let lifetime =
                |option: &[u8], at: usize| u32::from_be_bytes(option[at..at + 4].try_into().unwrap());
            all.map(|(_, option)| (option[17], lifetime(&option, 4), lifetime(&option, 8), option[3]))
                .collect::<Vec<_>>()
        };
        let (new, both) = ((1, FOREVER, FOREVER, 0xc0), 0xc0);
        let frame = ra.on_timeout(at(100), &second).unwrap();
        assert_eq!(prefixes(&frame), [new, (0, 7200, 0, both)], "at once, to all");
        let later = ra.on_solicit(at(3700), &second, GUEST.link_local(), GUEST).unwrap();
        assert_eq!(prefixes(&later), [new, (0, 3600, 0, both)], "repeated, it lives no longer");
        let over = ra.on_solicit(at(7300), &second, GUEST.link_local(), GUEST).unwrap();
        assert_eq!(prefixes(&over), [new]);
        // It comes back, and others follow it.
        ra.readdress(at(7400), &first, &second.plan);
        let back = ra.on_solicit(at(7400), &first, GUEST.link_local(), GUEST).unwrap();
        assert_eq!(prefixes(&back), [(0, FOREVER, FOREVER, both), (1, 7200, 0, both)]);
        let mut before = first;
        for n in 2..20_u8 {
            let next = with(|v6| v6.network = format!("fd{n:02x}::/64").parse().unwrap());
            ra.readdress(at(7500), &next, &before.plan);
            before = next;
        }
        let last = ra.on_solicit(at(7500), &before, GUEST.link_local(), GUEST).unwrap();
        let told: Vec<_> = prefixes(&last).into_iter().map(|prefix| prefix.0).collect();
        assert_eq!(told, [0x13, 0x0f, 0x10, 0x11, 0x12], "the latest");
    }

    /// RFC 8106 §5.1: a lifetime of zero means that the address must no longer be used.
    #[test]
    fn a_nameserver_that_went_away_is_withdrawn() {
        let servers = |list: &[u16]| {
            let mut config = config();
            let all = list.iter().map(|n| [0xfd00, 0, 0, 0, 0, 0, 0, *n].into());
            config.plan.v6.as_mut().unwrap().dns = all.collect();
            config
        };
        let seen = |frame: &[u8]| {
            let all = options(frame).into_iter().filter(|(kind, _)| *kind == 25);
            all.map(|(_, option)| {
                let lifetime = u32::from_be_bytes(option[4..8].try_into().unwrap());
                (lifetime, option[8..].chunks(16).map(|server| server[15]).collect::<Vec<_>>())
            })
            .collect::<Vec<_>>()
        };
        let mut before = servers(&[1, 2]);
        let mut ra = Advertiser::new(&before);
        let mut change = |at_second: u64, list: &[u16]| {
            let after = servers(list);
            ra.readdress(at(at_second), &after, &before.plan);
            before = after;
            let frame = ra.on_timeout(at(at_second), &before).expect("at once, to all");
            (
                seen(&frame),
                seen(&ra.on_solicit(at(at_second + 7300), &before, GUEST.link_local(), GUEST).unwrap()),
            )
        };
        let life = u32::from(LIFETIME);
        assert_eq!(change(100, &[2, 3]), (vec![(life, vec![2, 3]), (0, vec![1])], vec![(life, vec![2, 3])]));
        // One that comes back is not denied, and with the last one gone there is nothing but denials.
        assert_eq!(change(200, &[1]).0, [(life, vec![1]), (0, vec![2, 3])]);
        assert_eq!(change(300, &[]).0, [(0, vec![2, 3, 1])]);
        assert_eq!(
            change(400, &[4, 5, 6, 7, 8, 9, 10]).0,
            [(life, vec![4, 5, 6, 7, 8, 9, 10]), (0, vec![2, 3, 1])]
        );
        assert_eq!(change(500, &[]).0, [(0, vec![5, 6, 7, 8, 9, 10])], "the latest");
    }

    /// RFC 8106 §5.2, as with nameservers.
    #[test]
    fn a_search_domain_that_went_away_is_withdrawn() {
        let domains = |list: &[&str]| -> Vec<String> { list.iter().map(ToString::to_string).collect() };
        let mut config = Config { dns_search: domains(&["a", "b"]), ..config() };
        let mut ra = Advertiser::new(&config);
        let seen = |frame: &[u8]| {
            let all = options(frame).into_iter().filter(|(kind, _)| *kind == 31);
            all.map(|(_, option)| {
                let lifetime = u32::from_be_bytes(option[4..8].try_into().unwrap());
                // Each is a letter: a length, the letter, the end.
                let names = option[8..].chunks_exact(3).filter(|name| name[0] == 1);
                (lifetime, names.map(|name| char::from(name[1])).collect::<String>())
            })
            .collect::<Vec<_>>()
        };
        let mut change = |second: u64, list: &[&str]| {
            let before = core::mem::replace(&mut config.dns_search, domains(list));
            ra.retell(at(second), &config, &before);
            let frame = ra.on_timeout(at(second), &config).expect("at once, to all");
            let later = ra.on_solicit(at(second + 7300), &config, GUEST.link_local(), GUEST).unwrap();
            [seen(&frame), seen(&later)]
        };
        let of = |lifetime: u32, names: &str| (lifetime, names.to_owned());
        let life = u32::from(LIFETIME);
        assert_eq!(change(100, &["b", "c"]), [vec![of(life, "bc"), of(0, "a")], vec![of(life, "bc")]]);
        assert_eq!(change(200, &["a"])[0], [of(life, "a"), of(0, "cb")], "one that comes back is not denied");
        assert_eq!(change(300, &[])[0], [of(0, "acb")]);
        // What is told leaves room for the latest of those that are not.
        let long: Vec<String> = (0..8).map(|n| format!("{}{n}", "x".repeat(62))).collect();
        let long: Vec<&str> = long.iter().map(String::as_str).collect();
        let [told, _] = change(400, &long);
        assert_eq!(told.last(), Some(&of(0, "acb")));
    }

    #[test]
    fn all_nameservers_are_told_and_no_mtu_that_is_not_to_be() {
        let mut config = config();
        config.plan.v6.as_mut().unwrap().dns =
            (1..=20_u16).map(|n| [0xfd00, 0, 0, 0, 0, 0, 0, n].into()).collect();
        let dns = option(&config, 25).unwrap();
        assert_eq!((dns.len(), dns[1]), (8 + 16 * MAX_SERVERS, 33));
        config.tell_mtu = false;
        assert_eq!(option(&config, 5), None);
    }

    #[test]
    fn nothing_is_said_when_switched_off() {
        let off = Config { plan: testing::plan(|slirp| slirp.v6 = None), ..config() };
        for config in [with(|v6| v6.advertise = false), off] {
            let mut ra = Advertiser::new(&config);
            assert_eq!(ra.next_timeout(), None);
            assert_eq!(ra.on_timeout(at(1), &config), None);
            assert_eq!(ra.on_solicit(at(1), &config, GUEST.link_local(), GUEST), None);
        }
    }

    proptest! {
        #[test]
        fn it_fits_the_minimum_mtu_and_parses(
            search in prop::collection::vec("[a-z.]{0,80}", 0..40),
            gone in prop::collection::vec("[a-z.]{0,200}", 0..MAX_WITHDRAWN),
        ) {
            let mut config = Config { dns_search: search, ..config() };
            config.plan.v6.as_mut().unwrap().dns = vec![Ipv6Addr::LOCALHOST; MAX_SERVERS];
            let former = Former {
                prefixes: vec![("fd77::/64".parse().unwrap(), RETIRED); MAX_RETIRED],
                servers: vec![Ipv6Addr::LOCALHOST; MAX_WITHDRAWN],
                domains: gone.iter().filter_map(|name| names::encode_one(name)).collect(),
            };
            let frame = frame(&config, ALL_NODES, GUEST, &former).unwrap();
            prop_assert!(frame.len() <= 14 + 1280);
            let icmp = Icmpv6Packet::new_checked(&frame[54..]).unwrap();
            prop_assert!(NdiscRepr::parse(&icmp).is_ok());
        }
    }
}
