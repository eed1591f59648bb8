//! The plans of today as tables, and what the type must hold for those to come.

use super::slirp::{Ipv4Config, Ipv6Config, Slirp};
use super::*;
use crate::addr::MacAddr;
use crate::testing::{OURS, plan};
use proptest::prelude::*;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// What a plan says of a destination, in short.
fn lead(plan: &Plan, dst: &str, port: u16) -> String {
    match plan.outbound(SocketAddr::new(ip(dst), port)) {
        Route::Upstream(to) if to == ip(dst) => "there".into(),
        Route::Upstream(to) => to.to_string(),
        other => format!("{other:?}").to_lowercase(),
    }
}

/// How a container network's uplink has it: the gateway is the name server, guests are named by rules.
fn uplink(internal: bool) -> Plan {
    let v4 = Ipv4Config::slirp("10.0.2.0/24".parse().unwrap());
    let v6 = Ipv6Config::slirp("fd00::/64".parse().unwrap());
    let v4 = Ipv4Config { dns: Some(v4.gateway), guest: Ipv4Addr::UNSPECIFIED, dhcp: None, ..v4 };
    let v6 = Ipv6Config { dns: Some(v6.gateway), advertise: false, dhcp: false, ..v6 };
    Plan::slirp(OURS, &Slirp { v4: Some(v4), v6: Some(v6), host_loopback: false, internal })
}

/// `--disable-dns`: the address stays on the link.
fn silent() -> Plan {
    plan(|slirp| {
        let v4 = slirp.v4.as_mut().unwrap();
        v4.silent = v4.dns.take();
        slirp.v6.as_mut().unwrap().dns = None;
    })
}

#[test]
fn destinations_lead_where_the_contract_says() {
    let plans =
        [plan(|_| {}), plan(|slirp| slirp.host_loopback = false), silent(), uplink(false), uplink(true)];
    let rows: &[(&str, u16, [&str; 5])] = &[
        ("10.0.2.2", 80, ["127.0.0.1", "forbidden", "127.0.0.1", "forbidden", "forbidden"]),
        ("10.0.2.2", 53, ["127.0.0.1", "forbidden", "127.0.0.1", "dns", "dns"]),
        ("10.0.2.3", 53, ["dns", "dns", "nobody", "nobody", "nobody"]),
        ("10.0.2.3", 80, ["closed", "closed", "nobody", "nobody", "nobody"]),
        ("255.255.255.255", 80, ["127.0.0.1", "forbidden", "127.0.0.1", "forbidden", "forbidden"]),
        ("10.0.2.77", 80, ["nobody"; 5]),
        ("10.0.2.100", 80, ["nobody"; 5]),
        ("10.0.2.0", 80, ["nobody"; 5]),
        ("10.0.2.255", 80, ["group"; 5]),
        ("224.0.0.251", 5353, ["group"; 5]),
        ("127.0.0.1", 80, ["nobody"; 5]),
        ("127.9.9.9", 53, ["nobody"; 5]),
        ("0.0.0.0", 80, ["nobody"; 5]),
        ("192.0.2.1", 80, ["there", "there", "there", "there", "forbidden"]),
        ("10.0.3.1", 53, ["there", "there", "there", "there", "forbidden"]),
        ("fd00::2", 80, ["::1", "forbidden", "::1", "forbidden", "forbidden"]),
        ("fd00::2", 53, ["::1", "forbidden", "::1", "dns", "dns"]),
        ("fd00::3", 53, ["dns", "dns", "nobody", "nobody", "nobody"]),
        ("fd00::3", 80, ["closed", "closed", "nobody", "nobody", "nobody"]),
        ("fd00::77", 80, ["nobody"; 5]),
        ("ff02::fb", 5353, ["group"; 5]),
        ("::1", 80, ["nobody"; 5]),
        ("::", 80, ["nobody"; 5]),
        ("fe80::1", 80, ["nobody"; 5]),
        ("::ffff:127.0.0.1", 80, ["nobody"; 5]),
        ("::ffff:192.0.2.1", 80, ["nobody"; 5]),
        ("2001:db8::1", 80, ["there", "there", "there", "there", "forbidden"]),
    ];
    for (dst, port, expected) in rows {
        let found = plans.each_ref().map(|plan| lead(plan, dst, *port));
        assert_eq!(&found, expected, "{dst} port {port}");
    }
}

#[test]
fn peers_look_as_the_contract_says() {
    let (usual, internal) = (uplink(false), uplink(true));
    for (from, seen, inside) in [
        ("127.0.0.1", "10.0.2.2", "10.0.2.2"),
        ("127.1.2.3", "10.0.2.2", "10.0.2.2"),
        ("0.0.0.0", "10.0.2.2", "10.0.2.2"),
        ("10.0.2.100", "10.0.2.2", "10.0.2.2"),
        ("192.0.2.9", "192.0.2.9", "10.0.2.2"),
        ("::1", "fd00::2", "fd00::2"),
        ("::", "fd00::2", "fd00::2"),
        ("fe80::9", "fd00::2", "fd00::2"),
        ("fd00::9", "fd00::2", "fd00::2"),
        ("2001:db8::9", "2001:db8::9", "fd00::2"),
    ] {
        let guest = ip(if ip(from).is_ipv4() { "10.0.2.100" } else { "fd00::64" });
        let found = [&usual, &internal].map(|plan| plan.inbound(ip(from), guest));
        assert_eq!(found, [Some(ip(seen)), Some(ip(inside))], "{from}");
    }
}

#[test]
fn we_are_where_the_contract_says() {
    let plans = [plan(|_| {}), silent(), uplink(false)];
    let (own, stranger) = (OURS.link_local().to_string(), "fe80::5".to_owned());
    // Whether pings are answered, and whether the link is.
    for (addr, expected) in [
        ("10.0.2.2", [(true, true), (true, true), (true, true)]),
        ("10.0.2.3", [(true, true), (false, true), (false, false)]),
        ("10.0.2.100", [(false, false); 3]),
        ("10.0.2.9", [(false, false); 3]),
        ("192.0.2.1", [(false, false); 3]),
        ("fd00::2", [(true, true), (true, true), (true, true)]),
        ("fd00::3", [(true, true), (false, false), (false, false)]),
        (&own, [(true, true), (true, true), (true, true)]),
        (&stranger, [(false, false); 3]),
    ] {
        let found = plans.each_ref().map(|plan| {
            let on_link = match ip(addr) {
                IpAddr::V4(addr) => plan.v4.as_ref().unwrap().answers_for(addr),
                IpAddr::V6(addr) => plan.v6.as_ref().unwrap().answers_for(addr),
            };
            (plan.is_ours(ip(addr)), on_link)
        });
        assert_eq!(found, expected, "{addr}");
    }
    assert!(plans[0].is_our_group(ip("ff02::1")) && plans[0].is_our_group(ip("ff02::1:ff00:3")));
    assert!(!plans[0].is_our_group(ip("ff02::1:ff00:4")) && !plans[2].is_our_group(ip("ff02::1:ff00:3")));
    assert_eq!([false, true].map(|ipv6| plans[0].guest(ipv6)), [Some(ip("10.0.2.100")), None]);
    assert_eq!(plans[2].guest(false), None, "rules name their guest");
}

/// A guest that has the host's addresses, two of them, and no gateway: everything it sends goes onto the link.
#[test]
fn a_plan_holds_several_guest_addresses_and_no_gateway() {
    let guests: Vec<Ipv4Addr> = vec![[192, 0, 2, 7].into(), [198, 51, 100, 7].into()];
    let all = Prefix::new(Ipv4Addr::UNSPECIFIED, 0);
    let plan = Plan {
        v4: Some(Family {
            network: "192.0.2.0/24".parse().unwrap(),
            guests: guests.clone(),
            learn: Learn::Pinned,
            alone: false,
            beyond: true,
            gateway: None,
            dns: Vec::new(),
            ours: Vec::new(),
            link: vec![all],
            cases: vec![Case::all(all, Leads::There)],
            inbound: Vec::new(),
            answers: None,
        }),
        ..Plan::default()
    };
    let v4 = plan.v4.as_ref().unwrap();
    assert_eq!(lead(&plan, "192.0.2.9", 80), "there", "a neighbour of the host's");
    assert!(v4.answers_for([192, 0, 2, 9].into()) && v4.answers_for([8, 8, 8, 8].into()));
    assert!(guests.iter().all(|&guest| v4.is_on_link(guest) && !v4.answers_for(guest)));
    assert_eq!(plan.guest(false), Some(ip("192.0.2.7")));
    assert_eq!(plan.speaker(ip("192.0.2.7"), ip("8.8.8.8")), Some(ip("192.0.0.8")), "RFC 7600");
    assert_eq!(plan.inbound(ip("192.0.2.7"), ip("192.0.2.7")), Some(ip("192.0.2.7")));
}

#[test]
fn what_no_row_names_leads_to_nobody() {
    let mut plan = plan(|_| {});
    plan.v4.as_mut().unwrap().cases.pop();
    plan.v6 = None;
    assert_eq!(lead(&plan, "192.0.2.1", 80), "nobody");
    assert_eq!(lead(&plan, "2001:db8::1", 80), "nobody");
    assert_eq!(lead(&Plan::default(), "192.0.2.1", 80), "nobody");
}

proptest! {
    /// The promise: whatever the addresses are, the host's loopback is reached by the gateway's rows only, and only if
    /// allowed.
    #[test]
    fn only_the_gateway_leads_to_the_hosts_loopback(
        network: u32, len in 1_u8..=25, dns: bool, host_loopback: bool, internal: bool, dst: u32, near: bool, port: u16,
    ) {
        let v4 = Ipv4Config::slirp(ipnet::Ipv4Net::new(network.into(), len).unwrap());
        let v4 = Ipv4Config { dns: v4.dns.filter(|_| dns), ..v4 };
        let plan = Plan::slirp(MacAddr::of_gateway(v4.gateway.into()), &Slirp { v4: Some(v4), v6: None, host_loopback, internal });
        let dst = if near { v4.network.network().to_bits() | dst & 0xff } else { dst };
        let dst = Ipv4Addr::from(dst);
        let route = plan.outbound(SocketAddr::new(dst.into(), port));
        if let Route::Upstream(to) = route {
            prop_assert!(!internal);
            if to.is_loopback() {
                prop_assert!(host_loopback && (dst == v4.gateway || dst.is_broadcast()));
            } else {
                prop_assert_eq!(to, IpAddr::V4(dst));
                prop_assert!(!v4.network.contains(&dst) && !dst.is_multicast() && !dst.is_unspecified());
            }
        }
    }
}
