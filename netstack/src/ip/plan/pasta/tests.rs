//! Contract §E.4 row by row, for five guests.

use super::*;
use crate::ip::plan::Route;
use core::net::{IpAddr, SocketAddr};
use proptest::prelude::*;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn v4(text: &str) -> Option<Ipv4Addr> {
    Some(text.parse().unwrap())
}

fn v6(text: &str) -> Option<Ipv6Addr> {
    Some(text.parse().unwrap())
}

/// The usual one: the host has two IPv4 addresses and one of IPv6, and a router on its network.
fn usual() -> Pasta {
    let gateway4 = Half {
        addresses: vec!["192.0.2.7/24".parse().unwrap(), "198.51.100.7/31".parse().unwrap()],
        pinned: true,
        gateway: v4("192.0.2.1"),
        ..Half::default()
    };
    let gateway6 = Half {
        addresses: vec!["2001:db8::7/64".parse().unwrap()],
        pinned: true,
        gateway: v6("fe80::aa"),
        ..Half::default()
    };
    Pasta { v4: Some(gateway4), v6: Some(gateway6), ..Pasta::default() }
}

/// As Podman has it, with DNS: `--no-map-gw --dns-forward 169.254.1.1 --map-guest-addr 169.254.1.2`, and the addresses
/// of Podman 6 for IPv6.
fn podman() -> Pasta {
    let mut podman = usual();
    let half = podman.v4.as_mut().unwrap();
    half.map_host_loopback = Loopback::Nowhere;
    (half.dns_forward, half.dns_host, half.map_guest_addr) =
        (v4("169.254.1.1"), v4("9.9.9.9"), v4("169.254.1.2"));
    podman.v6 = Some(Half {
        addresses: vec!["fc00::3/64".parse().unwrap()],
        pinned: true,
        gateway: v6("fc00::1"),
        map_host_loopback: Loopback::Nowhere,
        map_guest_addr: v6("fc00::2"),
        ..Half::default()
    });
    podman
}

/// An address of its own leads to the host's loopback, and the name server's are the gateway's.
fn mapped() -> Pasta {
    let mut mapped = usual();
    let (half4, half6) = (mapped.v4.as_mut().unwrap(), mapped.v6.as_mut().unwrap());
    half4.map_host_loopback = Loopback::At("192.0.2.99".parse().unwrap());
    half4.dns_forward = half4.gateway;
    half6.map_host_loopback = Loopback::At("2001:db8::99".parse().unwrap());
    (half6.dns_forward, half6.dns_host) = (half6.gateway, v6("::1"));
    mapped
}

/// The host's way out is a tunnel: nobody is its router. It has no IPv6 address but the link-local one.
fn tunnel() -> Pasta {
    let half4 = Half { addresses: vec!["10.8.0.6/32".parse().unwrap()], ..Half::default() };
    Pasta { v4: Some(half4), v6: Some(Half::default()), ..Pasta::default() }
}

/// `--ipv6-only` with a router of global address, and the map-guest-addr missing.
fn only6() -> Pasta {
    let mut only6 = podman();
    only6.v4 = None;
    let half = only6.v6.as_mut().unwrap();
    (half.map_host_loopback, half.map_guest_addr) = (Loopback::Gateway, None);
    only6
}

fn plans() -> [Plan; 5] {
    [usual(), podman(), mapped(), tunnel(), only6()].map(|of| Plan::pasta(&of))
}

/// What a plan says of a destination, in short.
fn lead(plan: &Plan, dst: &str, port: u16) -> String {
    match plan.outbound(SocketAddr::new(ip(dst), port)) {
        Route::Upstream(to) if to == ip(dst) => "there".into(),
        Route::Members(to) if to == ip(dst) => "all".into(),
        Route::Upstream(to) => to.to_string(),
        other => format!("{other:?}").to_lowercase(),
    }
}

#[test]
fn destinations_lead_where_the_contract_says() {
    let none = "nobody";
    let rows: &[(&str, u16, [&str; 5])] = &[
        // dns-forward: port 53 to the host's nameservers, 853 to one of them, other ports where they would go.
        ("169.254.1.1", 53, ["there", "dns", "there", "there", none]),
        ("169.254.1.1", 853, ["there", "9.9.9.9", "there", "there", none]),
        ("169.254.1.1", 80, ["there", "there", "there", "there", none]),
        ("192.0.2.1", 53, ["127.0.0.1", "there", "dns", "there", none]),
        ("192.0.2.1", 853, ["127.0.0.1", "there", "closed", "there", none]),
        ("fe80::aa", 853, ["::1", "there", "::1", "there", "there"]),
        // map-host-loopback: the gateway unless changed or switched off.
        ("192.0.2.1", 80, ["127.0.0.1", "there", "there", "there", none]),
        ("192.0.2.99", 80, ["there", "there", "127.0.0.1", "there", none]),
        ("fe80::aa", 80, ["::1", "there", "there", "there", "there"]),
        ("2001:db8::99", 80, ["there", "there", "::1", "there", "there"]),
        ("fc00::1", 80, ["there", "there", "there", "there", "::1"]),
        // map-guest-addr: the host, at the address that it shares with the guest.
        ("169.254.1.2", 80, ["there", "192.0.2.7", "there", "there", none]),
        ("fc00::2", 80, ["there", "fc00::3", "there", "there", "there"]),
        // Everything else is what it is: the host's own addresses, its network, the world, link-local peers.
        ("192.0.2.7", 80, ["there", "there", "there", "there", none]),
        ("198.51.100.7", 80, ["there", "there", "there", "there", none]),
        ("192.0.2.50", 80, ["there", "there", "there", "there", none]),
        ("203.0.113.5", 53, ["there", "there", "there", "there", none]),
        ("169.254.7.7", 80, ["there", "there", "there", "there", none]),
        ("2001:db8::7", 80, ["there"; 5]),
        ("2001:db8::50", 80, ["there"; 5]),
        ("fe80::50", 80, ["there"; 5]),
        // Our own link-local address, where the gateway has none.
        ("fe80::1", 80, ["there", "closed", "there", "closed", "closed"]),
        // Broadcasts and groups, for datagrams.
        ("255.255.255.255", 67, ["all", "all", "all", "all", none]),
        ("192.0.2.255", 7, ["all", "all", "all", "there", none]),
        ("198.51.100.7", 7, ["there", "there", "there", "there", none]),
        ("224.0.0.251", 5353, ["all", "all", "all", "all", none]),
        ("239.255.255.250", 1900, ["all", "all", "all", "all", none]),
        ("ff02::fb", 5353, ["all"; 5]),
        ("ff05::2", 5353, ["all"; 5]),
        ("ff01::1", 80, ["group"; 5]),
        ("ff10::1", 80, ["group"; 5]),
        ("ff31::1", 80, ["group"; 5]),
        // Loopback and nobody.
        ("127.0.0.1", 80, [none; 5]),
        ("127.9.9.9", 53, [none; 5]),
        ("0.0.0.0", 80, [none; 5]),
        ("::1", 80, [none; 5]),
        ("::", 80, [none; 5]),
        ("::ffff:127.0.0.1", 80, [none; 5]),
        ("::ffff:192.0.2.1", 80, [none; 5]),
    ];
    let plans = plans();
    for (dst, port, expected) in rows {
        let found = plans.each_ref().map(|plan| lead(plan, dst, *port));
        assert_eq!(&found, expected, "{dst} port {port}");
    }
}

#[test]
fn peers_look_as_the_contract_says() {
    // A row: the peer, the guest's end, how it looks for each plan.
    let rows: &[(&str, &str, [&str; 5])] = &[
        // The host's loopback, where an address leads there.
        ("127.0.0.1", "192.0.2.7", ["192.0.2.1", "192.0.2.1", "192.0.2.99", "refused", "127.0.0.1"]),
        ("::1", "2001:db8::7", ["fe80::aa", "fc00::1", "2001:db8::99", "fe80::1", "fc00::1"]),
        ("::1", "fe80::7", ["fe80::aa", "fe80::1", "2001:db8::99", "fe80::1", "fc00::1"]),
        // The guest's own addresses.
        ("192.0.2.7", "192.0.2.7", ["192.0.2.1", "169.254.1.2", "192.0.2.1", "192.0.2.7", "192.0.2.7"]),
        ("198.51.100.7", "192.0.2.7", ["192.0.2.1", "169.254.1.2", "192.0.2.1", "same", "same"]),
        ("10.8.0.6", "10.8.0.6", ["same", "same", "same", "refused", "same"]),
        ("2001:db8::7", "2001:db8::7", ["fe80::aa", "same", "fe80::aa", "same", "same"]),
        ("fc00::3", "fc00::3", ["same", "fc00::2", "same", "same", "fc00::1"]),
        // Ordinary ones keep theirs.
        ("203.0.113.5", "192.0.2.7", ["same"; 5]),
        ("192.0.2.50", "192.0.2.7", ["same"; 5]),
        ("192.0.2.1", "192.0.2.7", ["same"; 5]),
        ("2001:db8:1::5", "2001:db8::7", ["same"; 5]),
        ("fe80::50", "fe80::7", ["same"; 5]),
        // What could not be answered: the gateway if its scope is right, else our link-local address.
        ("127.9.9.9", "192.0.2.7", ["192.0.2.1", "192.0.2.1", "192.0.2.1", "refused", "127.9.9.9"]),
        ("0.0.0.0", "192.0.2.7", ["192.0.2.1", "192.0.2.1", "192.0.2.1", "refused", "same"]),
        ("::", "2001:db8::7", ["fe80::aa", "fc00::1", "fe80::aa", "fe80::1", "fc00::1"]),
        ("::", "fe80::7", ["fe80::aa", "fe80::1", "fe80::aa", "fe80::1", "fe80::1"]),
    ];
    let plans = plans();
    for (from, guest, expected) in rows {
        let found = plans.each_ref().map(|plan| plan.inbound(ip(from), ip(guest)));
        let expected = expected.map(|text| match text {
            "refused" => None,
            "same" => Some(ip(from)),
            text => Some(ip(text)),
        });
        assert_eq!(found, expected, "{from} to {guest}");
    }
}

#[test]
fn the_link_is_ours_but_for_the_guests_addresses() {
    let [usual, podman, ..] = plans();
    let says = |plan: &Plan, addr: &str| match ip(addr) {
        IpAddr::V4(addr) => {
            let v4 = plan.v4.as_ref().unwrap();
            (plan.is_ours(addr.into()), v4.answers_for(addr), v4.defends(addr))
        }
        IpAddr::V6(addr) => {
            let v6 = plan.v6.as_ref().unwrap();
            (plan.is_ours(addr.into()), v6.answers_for(addr), v6.defends(addr))
        }
    };
    // Whether pings are answered, ARP or neighbour solicitations are, and those that look for a duplicate are.
    for (addr, expected) in [
        ("192.0.2.1", [(true, true, true), (false, true, true)]),
        ("192.0.2.7", [(false, false, false); 2]),
        ("198.51.100.7", [(false, false, false); 2]),
        ("192.0.2.50", [(false, true, false); 2]),
        ("203.0.113.5", [(false, true, false); 2]),
        ("169.254.1.1", [(false, true, false), (false, true, true)]),
        ("169.254.1.2", [(false, true, false), (false, true, true)]),
        ("fe80::aa", [(true, true, true), (false, true, false)]),
        ("fe80::1", [(false, true, false), (true, true, true)]),
        ("fc00::3", [(false, true, false), (false, false, false)]),
        ("2001:db8::50", [(false, true, false); 2]),
    ] {
        assert_eq!([&usual, &podman].map(|plan| says(plan, addr)), expected, "{addr}");
    }
    assert_eq!(usual.link_local(), v6("fe80::aa"));
    assert_eq!(podman.link_local(), Some(LINK_LOCAL));
}

#[test]
fn whoever_speaks_for_us_has_an_address() {
    let [usual, podman, _, tunnel, _] = plans();
    for (plan, src, expected) in [
        (&usual, "192.0.2.7", "192.0.2.1"),
        (&podman, "192.0.2.7", "192.0.2.1"),
        (&tunnel, "10.8.0.6", "192.0.0.8"),
        (&usual, "2001:db8::7", "fe80::aa"),
        (&podman, "fc00::3", "fc00::1"),
        (&podman, "fe80::7", "fe80::1"),
        (&tunnel, "fe80::7", "fe80::1"),
    ] {
        let far = if ip(src).is_ipv4() { "203.0.113.5" } else { "2001:db8:1::5" };
        assert_eq!(plan.speaker(ip(src), ip(far)), Some(ip(expected)), "{src}");
    }
}

#[test]
fn what_is_handed_out_never_ends() {
    let of = Pasta { dhcp: true, dhcp6: true, advertise: true, ..usual() };
    let plan = Plan::pasta(&of);
    let pool = plan.dhcp.unwrap();
    assert_eq!(
        (pool.first.to_string().as_str(), pool.count, pool.lease.as_secs()),
        ("192.0.2.7", 1, 0xffff_ffff)
    );
    assert!(plan.dhcp6 && plan.advertise);
    assert_eq!(Plan::pasta(&Pasta { dhcp: true, v4: None, ..usual() }).dhcp, None);
    let silent = Pasta { carries: Carries { icmp: false, ..Carries::default() }, ..usual() };
    assert!(!Plan::pasta(&silent).carries.ndp, "what is ICMP goes with ICMP");
}

proptest! {
    /// The promises.
    #[test]
    fn loopback_is_where_it_was_asked_for_and_nowhere_else(
        address: u32, len in 0_u8..=32, gateway: Option<u32>, at: Option<u32>, map: u8, guest_addr: Option<u32>,
        dns: Option<u32>, host: Option<u32>, dst: u32, pick: u8, port: u16, from: u32,
    ) {
        let addr = |bits: Option<u32>| bits.map(Ipv4Addr::from).filter(|addr| !addr.is_loopback());
        let address = Ipv4Addr::from(address);
        prop_assume!(!address.is_loopback());
        let half = Half {
            addresses: vec![Ipv4Net::new(address, len).unwrap()],
            gateway: addr(gateway),
            map_host_loopback: match (map % 3, addr(at)) {
                (0, Some(at)) => Loopback::At(at),
                (1, _) => Loopback::Nowhere,
                _ => Loopback::Gateway,
            },
            map_guest_addr: addr(guest_addr),
            dns_forward: addr(dns),
            dns_host: host.map(Ipv4Addr::from),
            ..Half::default()
        };
        let plan = Plan::pasta(&Pasta { v4: Some(half.clone()), ..Pasta::default() });
        let all = [Some(dst.into()), half.gateway, half.map_guest_addr, half.dns_forward, half.host_loopback()];
        let dst = all[usize::from(pick) % all.len()].unwrap_or_else(|| dst.into());
        let port = if pick > 200 { 853 } else { port };
        if let Route::Upstream(IpAddr::V4(to)) = plan.outbound(SocketAddr::new(dst.into(), port)) {
            let passed = half.dns_forward == Some(dst) && port == 853 && half.dns_host == Some(to);
            prop_assert!(!to.is_loopback() || half.host_loopback() == Some(dst) || passed, "{dst} is {to}");
            prop_assert!(!dst.is_loopback() && !to.is_unspecified() || passed);
        }
        let from = [from.into(), Ipv4Addr::LOCALHOST, address][usize::from(pick) % 3];
        if let Some(IpAddr::V4(seen)) = plan.inbound(from.into(), address.into()) {
            let special = [half.gateway, half.host_loopback(), half.map_guest_addr].contains(&Some(seen));
            prop_assert!(!seen.is_loopback());
            prop_assert!(special || seen == from && seen != address && !seen.is_unspecified());
        }
    }
}
