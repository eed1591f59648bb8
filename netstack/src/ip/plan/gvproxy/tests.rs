//! The table of the contract, row by row.

use super::*;
use crate::ip::plan::Route;
use core::net::{IpAddr, SocketAddr};
use proptest::prelude::*;

fn v4(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// What it is without any option.
fn usual() -> Gvproxy {
    let host = v4("192.168.127.254");
    Gvproxy {
        subnet: "192.168.127.0/24".parse().unwrap(),
        gateway: v4("192.168.127.1"),
        aliases: vec![host],
        nat: vec![(host, Ipv4Addr::LOCALHOST)],
        reserved: vec![(v4("192.168.127.2"), "5a:94:ef:e4:0c:ee".parse().unwrap())],
        link_local: false,
        preserve_source: false,
        v6: None,
    }
}

/// With everything that can be changed.
fn other() -> Gvproxy {
    let nat =
        [("192.168.127.254", "127.0.0.1"), ("192.168.127.253", "198.51.100.7"), ("203.0.113.1", "127.0.0.2")];
    Gvproxy {
        aliases: vec![v4("192.168.127.254"), v4("192.168.127.253"), v4("192.168.127.252")],
        nat: nat.map(|(at, to)| (v4(at), v4(to))).to_vec(),
        link_local: true,
        preserve_source: true,
        ..usual()
    }
}

fn lead(plan: &Plan, dst: &str, port: u16) -> String {
    match plan.outbound(SocketAddr::new(ip(dst), port)) {
        Route::Upstream(to) if to == ip(dst) => "there".into(),
        Route::Upstream(to) => to.to_string(),
        Route::Service(id) => format!("service {}", id.0),
        other => format!("{other:?}").to_lowercase(),
    }
}

#[test]
fn destinations_lead_where_the_contract_says() {
    let plans = [Plan::gvproxy(&usual()), Plan::gvproxy(&other())];
    let rows: &[(&str, u16, [&str; 2])] = &[
        ("192.168.127.1", 53, ["dns"; 2]),
        ("192.168.127.1", 80, ["service 80"; 2]),
        ("192.168.127.1", 67, ["closed"; 2]),
        ("192.168.127.1", 1234, ["closed"; 2]),
        ("192.168.127.254", 53, ["127.0.0.1"; 2]),
        ("192.168.127.254", 80, ["127.0.0.1"; 2]),
        ("192.168.127.254", 1234, ["127.0.0.1"; 2]),
        ("192.168.127.253", 80, ["nobody", "198.51.100.7"]),
        ("192.168.127.252", 80, ["nobody", "closed"]),
        ("203.0.113.1", 80, ["there", "127.0.0.2"]),
        ("192.168.127.2", 22, ["nobody"; 2]),
        ("192.168.127.99", 22, ["nobody"; 2]),
        ("192.168.127.0", 22, ["nobody"; 2]),
        ("192.168.127.255", 137, ["group"; 2]),
        ("255.255.255.255", 67, ["group"; 2]),
        ("224.0.0.251", 5353, ["group"; 2]),
        ("169.254.169.254", 80, ["blocked", "there"]),
        ("169.254.0.1", 53, ["blocked", "there"]),
        ("127.0.0.1", 80, ["nobody"; 2]),
        ("127.9.9.9", 53, ["nobody"; 2]),
        ("0.0.0.0", 80, ["nobody"; 2]),
        ("192.168.128.1", 53, ["there"; 2]),
        ("10.0.0.1", 80, ["there"; 2]),
        ("8.8.8.8", 53, ["there"; 2]),
        ("2001:db8::1", 53, ["nobody"; 2]),
    ];
    for (dst, port, expected) in rows {
        assert_eq!(&plans.each_ref().map(|plan| lead(plan, dst, *port)), expected, "{dst} port {port}");
    }
}

/// As lima has it: one address is the gateway, the name server and the host.
#[test]
fn the_gateway_may_stand_for_the_host_itself() {
    let gateway = v4("192.168.127.1");
    let plan = Plan::gvproxy(&Gvproxy {
        aliases: vec![gateway],
        nat: vec![(gateway, Ipv4Addr::LOCALHOST)],
        ..usual()
    });
    for (port, expected) in [(53, "dns"), (80, "service 80"), (22, "127.0.0.1"), (443, "127.0.0.1")] {
        assert_eq!(lead(&plan, "192.168.127.1", port), expected, "{port}");
    }
    assert_eq!(lead(&plan, "192.168.127.254", 22), "nobody");
}

#[test]
fn clients_are_the_gateway_or_who_they_are() {
    let plans = [Plan::gvproxy(&usual()), Plan::gvproxy(&other())];
    let gateway = ip("192.168.127.1");
    for (from, seen) in [
        ("127.0.0.1", "192.168.127.1"),
        ("127.1.2.3", "192.168.127.1"),
        ("0.0.0.0", "192.168.127.1"),
        ("192.168.127.77", "192.168.127.1"),
        ("198.51.100.7", "198.51.100.7"),
        ("10.0.0.9", "10.0.0.9"),
    ] {
        let found = plans.each_ref().map(|plan| plan.inbound(ip(from), ip("192.168.127.2")));
        assert_eq!(found, [Some(gateway), Some(ip(seen))], "{from}");
    }
    // Out of the network, or to ourselves, nobody is led.
    for to in ["10.0.0.1", "192.168.126.255", "192.168.127.1", "192.168.127.254"] {
        assert_eq!(plans.each_ref().map(|plan| plan.inbound(ip("10.0.0.9"), ip(to))), [None; 2], "{to}");
    }
}

#[test]
fn what_answers_looks_like_what_was_asked() {
    let plans = [Plan::gvproxy(&usual()), Plan::gvproxy(&other())];
    for (from, seen) in [
        ("127.0.0.1", ["192.168.127.254"; 2]),
        ("127.0.0.2", ["192.168.127.1", "203.0.113.1"]),
        ("198.51.100.7", ["198.51.100.7", "192.168.127.253"]),
        ("8.8.8.8", ["8.8.8.8"; 2]),
        ("192.168.127.9", ["192.168.127.1"; 2]),
    ] {
        let found = plans.each_ref().map(|plan| plan.answering(ip(from), ip("192.168.127.2")));
        assert_eq!(found, seen.map(|seen| Some(ip(seen))), "{from}");
    }
}

#[test]
fn we_are_at_the_gateway_and_its_aliases() {
    let plans = [Plan::gvproxy(&usual()), Plan::gvproxy(&other())];
    // Whether pings are answered here, and whether ARP is.
    for (addr, expected) in [
        ("192.168.127.1", [(true, true), (true, true)]),
        ("192.168.127.254", [(true, true), (true, true)]),
        ("192.168.127.253", [(false, false), (false, true)]),
        ("192.168.127.252", [(false, false), (true, true)]),
        ("203.0.113.1", [(false, false), (true, false)]),
        ("192.168.127.2", [(false, false); 2]),
        ("8.8.8.8", [(false, false); 2]),
    ] {
        let found = plans.each_ref().map(|plan| {
            let family = plan.v4.as_ref().unwrap();
            (plan.is_ours(ip(addr)), family.answers_for(v4(addr)))
        });
        assert_eq!(found, expected, "{addr}");
    }
    assert_eq!(plans[0].guest(false), None, "rules name their guest");
}

#[test]
fn the_pool_is_the_network() {
    for (subnet, first, count) in [
        ("192.168.127.0/24", "192.168.127.1", 254),
        ("10.0.0.0/29", "10.0.0.1", 6),
        ("10.0.0.0/30", "10.0.0.1", 2),
        ("10.0.0.0/31", "10.0.0.1", 1),
        ("10.0.0.0/8", "10.0.0.1", 1024),
        ("0.0.0.0/0", "0.0.0.1", 1024),
        ("255.255.255.255/32", "255.255.255.255", 1),
    ] {
        let pool = Gvproxy { subnet: subnet.parse().unwrap(), ..usual() }.pool();
        assert_eq!((pool.first, pool.count), (v4(first), count), "{subnet}");
        assert_eq!(pool.lease.as_secs(), 3600);
    }
}

#[test]
fn ipv6_is_the_same_in_a_prefix_of_its_own() {
    let v6 = Ipv6::of(MacAddr([0x5a, 0x94, 0xef, 0xe4, 0x0c, 0xdd]));
    assert_eq!(v6.network.to_string(), "fd5a:94ef:e40c:dd::/64");
    let [off, on] = [false, true]
        .map(|on| Plan::gvproxy(&Gvproxy { v6: Some(v6), link_local: on, preserve_source: on, ..usual() }));
    assert!(on.advertise && on.dhcp6 && !Plan::gvproxy(&usual()).advertise);
    let pool = on.dhcp6_pool.unwrap();
    assert_eq!(
        (pool.first, pool.count, pool.lease.as_secs()),
        ("fd5a:94ef:e40c:dd:1::".parse().unwrap(), 1024, 3600)
    );
    assert_eq!(Plan::gvproxy(&usual()).dhcp6_pool, None);
    for (dst, port, expected) in [
        ("fd5a:94ef:e40c:dd::1", 53, ["dns"; 2]),
        ("fd5a:94ef:e40c:dd::1", 80, ["service 80"; 2]),
        ("fd5a:94ef:e40c:dd::1", 81, ["closed"; 2]),
        ("fd5a:94ef:e40c:dd::fe", 8080, ["::1"; 2]),
        ("fd5a:94ef:e40c:dd::77", 80, ["nobody"; 2]),
        ("fe80::5894:efff:fee4:cdd", 53, ["closed"; 2]),
        ("fe80::1", 53, ["nobody"; 2]),
        ("::1", 53, ["nobody"; 2]),
        ("::", 53, ["nobody"; 2]),
        ("::ffff:127.0.0.1", 53, ["nobody"; 2]),
        ("ff02::fb", 5353, ["group"; 2]),
        ("fd00:ec2::254", 80, ["blocked", "there"]),
        ("2001:db8::1", 80, ["there"; 2]),
        ("fd00::1", 80, ["there"; 2]),
    ] {
        assert_eq!([&off, &on].map(|plan| lead(plan, dst, port)), expected, "{dst} port {port}");
    }
    let (gateway, machine) = (Some(ip("fd5a:94ef:e40c:dd::1")), ip("fd5a:94ef:e40c:dd::2"));
    for (from, seen) in [("::1", gateway), ("fe80::9", gateway), ("2001:db8::9", Some(ip("2001:db8::9")))] {
        assert_eq!([&off, &on].map(|plan| plan.inbound(ip(from), machine)), [gateway, seen], "{from}");
    }
    assert_eq!(off.inbound(ip("::1"), ip("2001:db8::1")), None, "nobody is led out of the network");
    assert_eq!(off.answering(ip("::1"), machine), Some(ip("fd5a:94ef:e40c:dd::fe")));
    assert_eq!(off.answering(ip("2001:db8::9"), machine), Some(ip("2001:db8::9")));
    assert_eq!(off.link_local(), Some(v6.link_local));
}

proptest! {
    /// The promise: the host's loopback is reached by what stands for it, and by nothing else.
    #[test]
    fn only_what_stands_for_it_leads_to_the_hosts_loopback(dst: u32, near: bool, port: u16, with: bool) {
        let of = if with { other() } else { usual() };
        let dst = Ipv4Addr::from(if near { of.subnet.network().to_bits() | dst & 0xff } else { dst });
        let route = Plan::gvproxy(&of).outbound(SocketAddr::new(dst.into(), port));
        let stands = of.nat.iter().find(|(at, _)| *at == dst).map(|&(_, to)| IpAddr::V4(to));
        if let Route::Upstream(to) = route {
            prop_assert_eq!(to, stands.unwrap_or(IpAddr::V4(dst)));
            prop_assert!(stands.is_some() || !dst.is_loopback() && !of.subnet.contains(&dst));
        }
    }
}
