//! What of the host's addresses and routes becomes the guest's.

use super::dump::{Dump, RouteText};
use crate::template::{Wish, Wishes, choose, snapshot};
use nix::libc;

fn host() -> Dump {
    Dump::links(&["eth0", "eth1"]).address("eth0", "10.0.0.2/24").address("eth1", "10.1.0.2/24")
}

/// The routes of a plan for IPv4 alone.
fn routes(dump: &Dump) -> Vec<String> {
    let only4 = Wishes { v6: None, ..Wishes::default() };
    let mut planned = dump.planned(&only4);
    planned.retain(|line| !line.starts_with("the address"));
    planned
}

fn route(to: &str) -> RouteText {
    RouteText::new(2, to)
}

#[test]
fn routes_of_the_interface_are_copied_and_lead_through_the_guests() {
    let dump = host()
        .route(route("default").gateway("10.0.0.1").interface("eth0").number(libc::RTA_PRIORITY, 100))
        .route(route("10.0.0.0/24").interface("eth0").scope(253).bytes(libc::RTA_PREFSRC, &[10, 0, 0, 2]))
        .route(route("10.9.0.0/16").gateway("10.7.7.7").interface("eth0").flags(4 | 16 | 8))
        .route(route("10.5.0.0/16").gateway("10.0.0.5").interface("eth0").table(100))
        .route(route("10.6.0.0/16").gateway("10.1.0.5").interface("eth1"))
        .route(
            route("10.8.0.0/16")
                .gateway("10.0.0.5")
                .interface("eth0")
                .bytes(libc::RTA_METRICS, &[8, 0, 2, 0, 220, 5, 0, 0]),
        );
    assert_eq!(
        routes(&dump),
        [
            "the default route via 10.0.0.1 metric 100 dev7",
            "the route to 10.0.0.0/24 scope 253 dev7",
            "the route to 10.9.0.0/16 via 10.7.7.7 flags 4 dev7",
            "the route to 10.8.0.0/16 via 10.0.0.5 +8 dev7",
        ]
    );
}

#[test]
fn of_many_next_hops_those_on_the_interface_stay() {
    let hops = [("10.0.0.1", "eth0", 0), ("10.1.0.1", "eth1", 0), ("10.0.0.3", "eth0", 4 | 16 | 8)];
    let dump =
        host().route(route("default").multipath(&hops)).route(route("10.2.0.0/16").multipath(&hops[..2]));
    assert_eq!(
        routes(&dump),
        [
            "the default route [dev7 weight 3 via 10.0.0.1] [dev7 weight 3 flags 4 via 10.0.0.3]",
            "the route to 10.2.0.0/16 via 10.0.0.1 dev7",
        ]
    );
}

#[test]
fn next_hops_that_are_objects_are_written_out() {
    let dump = host()
        .route(route("default").number(30, 5))
        .route(route("10.2.0.0/16").number(30, 9))
        .route(route("10.3.0.0/16").number(30, 6))
        .route(route("10.4.0.0/16").number(30, 77))
        .route(route("10.5.0.0/16").number(30, 5).gateway("10.0.0.4").interface("eth0"))
        .route(route("10.6.0.0/16").number(30, 10))
        .nexthop(5, Some(("10.0.0.1", "eth0")), &[])
        .nexthop(6, Some(("10.1.0.1", "eth1")), &[])
        .nexthop(7, Some(("10.0.0.3", "eth0")), &[])
        .nexthop(8, Some(("fe80::9", "eth0")), &[])
        .nexthop(9, None, &[(5, 0), (6, 0), (7, 4), (9, 0), (99, 0)])
        .nexthop(10, None, &[(8, 0)]);
    assert_eq!(
        routes(&dump),
        [
            "the default route via 10.0.0.1 dev7",
            "the route to 10.2.0.0/16 [dev7 weight 1 via 10.0.0.1] [dev7 weight 5 via 10.0.0.3]",
            "the route to 10.5.0.0/16 via 10.0.0.4 dev7",
            "the route to 10.6.0.0/16 via fe80::9 dev7",
        ]
    );
    let template = dump.template(&Wishes::default());
    assert_eq!(template.v4.unwrap().gateway, Some("10.0.0.1".parse().unwrap()));
}

/// The table of what is stripped, said once more by number: everything else is kept, also what nobody has heard of.
#[test]
fn attributes_are_kept_but_for_a_list() {
    const STRIPPED: [u16; 12] = [3, 7, 10, 12, 16, 17, 21, 22, 23, 24, 25, 30];
    // Those that this test writes by itself.
    const WRITTEN: [u16; 7] = [1, 4, 5, 6, 9, 15, 18];
    let mut every = route("10.2.0.0/16").gateway("10.0.0.1").interface("eth0");
    let others: Vec<u16> = (1..60).filter(|kind| !WRITTEN.contains(kind)).collect();
    for kind in &others {
        every = every.bytes(*kind, &[1, 2, 3, 4]);
    }
    let kept: Vec<String> =
        others.iter().filter(|kind| !STRIPPED.contains(kind)).map(|kind| format!("+{kind}")).collect();
    let line = routes(&host().route(every)).remove(0);
    let shown: Vec<&str> = line.split(' ').filter(|word| word.starts_with('+')).collect();
    assert_eq!(shown, kept);
}

#[test]
fn addresses_come_without_label_and_lifetimes_and_are_not_looked_for() {
    let dump = host()
        .address_with("eth0", "10.0.0.3/25", 0, 0x200 | 0x01)
        .address_with("eth0", "2001:db8::1/64", 0, 0x100 | 0x200 | 0x800)
        .address_with("eth0", "fec0::1/64", 200, 0x80)
        .via("default", Some("10.0.0.1"), "eth0")
        .via("default", Some("fe80::9"), "eth0");
    let mut planned = dump.planned(&Wishes::default());
    planned.retain(|line| line.starts_with("the address"));
    assert_eq!(
        planned,
        [
            "the address 10.0.0.3/25 dev7 scope 0 flags 200",
            "the address 10.0.0.2/24 dev7 scope 0 flags 0",
            "the address 2001:db8::1/64 dev7 scope 0 flags 202",
            "the address fec0::1/64 dev7 scope 200 flags 2",
        ]
    );
}

#[test]
fn a_wished_gateway_has_the_only_route() {
    let dump = host().via("default", Some("10.0.0.1"), "eth0").via("10.5.0.0/16", Some("10.0.0.5"), "eth0");
    let wish = |address: &str, prefix, gateway: &str| Wishes {
        v4: Some(Wish {
            address: address.parse().ok(),
            prefix,
            gateway: gateway.parse().ok(),
            ..Wish::default()
        }),
        v6: None,
        ..Wishes::default()
    };
    let rows = [
        (wish("", None, "10.0.0.7"), "the default route via 10.0.0.7 dev7"),
        (wish("", None, "10.7.0.7"), "the default route via 10.7.0.7 flags 4 dev7"),
        (wish("10.9.0.2", Some(32), "10.9.0.1"), "the default route via 10.9.0.1 flags 4 dev7"),
        (
            Wishes {
                v4: Some(Wish { copy_routes: false, ..Wish::default() }),
                v6: None,
                ..Wishes::default()
            },
            "the default route via 10.0.0.1 dev7",
        ),
    ];
    for (wishes, expected) in rows {
        let planned = dump.planned(&wishes);
        assert_eq!(planned.last().map(String::as_str), Some(expected));
        assert_eq!(planned.iter().filter(|line| line.contains("route")).count(), 1);
    }
    let local = Dump::links(&[]).planned(&Wishes::default());
    assert_eq!(
        local,
        [
            "the address 169.254.2.1/16 dev7 scope 0 flags 0",
            "the default route via 169.254.2.2 dev7",
            "the default route via fe80::1 dev7",
        ]
    );
    let tunnel = Dump::links(&["tun0"]).address("tun0", "10.8.0.6/32").via("default", None, "tun0");
    let wishes =
        Wishes { v4: Some(Wish { copy_routes: false, ..Wish::default() }), v6: None, ..Wishes::default() };
    assert_eq!(tunnel.planned(&wishes).last().unwrap(), "the default route scope 253 dev7");
}

#[test]
fn ten_thousand_routes_are_copied_and_none_is_too_many() {
    let mut dump = host().via("default", Some("10.0.0.1"), "eth0");
    for number in 0..10_000_u32 {
        let [_, _, high, low] = number.to_be_bytes();
        dump = dump.via(&format!("172.{high}.{low}.0/24"), Some("10.0.0.1"), "eth0");
    }
    assert_eq!(routes(&dump).len(), 10_001);
    assert_eq!(dump.template(&Wishes::default()).left_out(), 0);
}

/// A thousand bytes in an object become as many in each route that names it.
#[test]
fn memory_is_bounded_and_the_rest_is_counted() {
    let group: Vec<(u32, u8)> = (0..4000).map(|_| (5, 0)).collect();
    let mut dump = host()
        .via("default", Some("10.0.0.1"), "eth0")
        .nexthop(5, Some(("10.0.0.1", "eth0")), &[])
        .nexthop(6, None, &group);
    for number in 0..2_000_u32 {
        let [_, _, high, low] = number.to_be_bytes();
        dump = dump.route(route(&format!("172.{high}.{low}.0/24")).number(30, 6));
    }
    let template = dump.template(&Wishes::default());
    let copied = template.v4.as_ref().unwrap().routes.len();
    assert_eq!(copied + template.left_out(), 2_001);
    assert!((300..2_000).contains(&copied) && copied * 4000 * 16 < choose::MEMORY, "{copied}");
    // Hops that do not fit an attribute are no route at all.
    let group: Vec<(u32, u8)> = (0..8000).map(|_| (5, 0)).collect();
    let huge = host().nexthop(5, Some(("10.0.0.1", "eth0")), &[]).nexthop(6, None, &group);
    assert_eq!(routes(&huge.route(route("10.2.0.0/16").number(30, 6))), Vec::<String>::new());
}

#[test]
fn a_host_that_routes_for_the_world_leaves_out_what_finds_no_room() {
    let one = Dump::default().via("10.2.0.0/16", Some("10.0.0.1"), "eth0").0;
    let count = snapshot::MEMORY / one.len() + 100;
    let mut dump = host();
    for _ in 0..count {
        dump.0.extend(&one);
    }
    let dump = dump.via("default", Some("10.0.0.1"), "eth0");
    let template = dump.template(&Wishes::default());
    assert!(template.left_out() >= 100);
    assert_eq!(template.v4.unwrap().gateway, Some("10.0.0.1".parse().unwrap()), "it came last, and counts");
}

#[test]
fn nonsense_is_passed_over() {
    for length in 0..200_usize {
        for fill in [0_u8, 1, 0xff] {
            for kind in [16_u16, 20, 24, 104] {
                let mut bytes = u32::try_from(length.max(16)).unwrap().to_ne_bytes().to_vec();
                bytes.extend(kind.to_ne_bytes());
                bytes.resize(length, fill);
                crate::template::fuzz(&bytes);
                let dump = Dump([host().via("default", None, "eth0").0, bytes].concat());
                let _ = dump.planned(&Wishes::default());
            }
        }
    }
}
