//! From one template to the next.

use super::dump::{Dump, RouteText, deeds};
use crate::template::{Following, Gather, Wish, Wishes};
use slipway_netstack::clock::Instant;
use std::time::Duration;

const HOUR: Duration = Duration::from_secs(3600);

fn at(seconds: u64) -> Instant {
    Instant::ZERO + Duration::from_secs(seconds)
}

/// A host with an address of IPv4 and a gateway.
fn host(address: &str, gateway: &str) -> Dump {
    Dump::links(&["eth0", "eth1"]).address("eth0", address).via("default", Some(gateway), "eth0")
}

fn following(dump: &Dump) -> Following {
    Following::new(dump.template(&Wishes::default()))
}

fn turn(following: &mut Following, seconds: u64, dump: &Dump) -> Vec<String> {
    deeds(&following.turn_to(at(seconds), dump.template(&Wishes::default())))
}

#[test]
fn nothing_that_matters_is_no_step() {
    let before = host("10.0.0.2/24", "10.0.0.1");
    let mut following = following(&before);
    assert_eq!(turn(&mut following, 1, &before), Vec::<String>::new());
    // The lease was renewed, somebody else's route came, a link went down.
    let lease = Dump::links(&["eth0", "eth7"])
        .address_with("eth0", "10.0.0.2/24", 0, 0x10)
        .via("default", Some("10.0.0.1"), "eth0")
        .via("10.7.0.0/16", None, "eth7");
    assert_eq!(turn(&mut following, 2, &lease), Vec::<String>::new());
    assert_eq!(following.next(), None);
}

#[test]
fn what_is_new_is_added_and_what_went_is_taken_away() {
    let mut following =
        following(&host("10.0.0.2/24", "10.0.0.1").via("10.5.0.0/16", Some("10.0.0.5"), "eth0"));
    let after = host("10.0.0.2/24", "10.0.0.1").address("eth0", "10.3.0.2/24").via(
        "10.6.0.0/16",
        Some("10.0.0.5"),
        "eth0",
    );
    assert_eq!(
        turn(&mut following, 1, &after),
        [
            "add the address 10.3.0.2/24 dev7 scope 0 flags 0",
            "add the route to 10.6.0.0/16 via 10.0.0.5 dev7",
            "remove the route to 10.5.0.0/16 via 10.0.0.5 dev7",
        ]
    );
    let template = following.template();
    assert_eq!(template.v4.as_ref().unwrap().addresses.len(), 2);
}

/// A renewal with another address of the same network: routes then say which of the two packets come from.
#[test]
fn an_old_address_stays_and_nothing_new_begins_from_it() {
    let with_link = |address: &str| {
        let link = RouteText::new(2, "10.0.0.0/24").interface("eth0").scope(253);
        host(address, "10.0.0.1").route(link)
    };
    let mut following = following(&with_link("10.0.0.2/24"));
    assert_eq!(
        turn(&mut following, 1, &with_link("10.0.0.9/24")),
        [
            "add the address 10.0.0.9/24 dev7 scope 0 flags 0",
            "add the default route via 10.0.0.1 dev7 src 10.0.0.9",
            "add the route to 10.0.0.0/24 scope 253 dev7 src 10.0.0.9",
            "deprecate the address 10.0.0.2/24 dev7 scope 0 flags 0 6",
            "remove the default route via 10.0.0.1 dev7",
            "remove the route to 10.0.0.0/24 scope 253 dev7",
        ]
    );
    let old: Vec<String> = following.old().map(|net| net.addr().to_string()).collect();
    assert_eq!(old, ["10.0.0.2"]);
    // It comes back: renewed, and no longer old.
    let back = turn(&mut following, 2, &with_link("10.0.0.2/24"));
    assert_eq!(back[0], "add the address 10.0.0.2/24 dev7 scope 0 flags 0");
    assert_eq!(following.old().map(|net| net.addr().to_string()).collect::<Vec<_>>(), ["10.0.0.9"]);
}

#[test]
fn ipv6_knows_by_itself_which_addresses_are_old() {
    let v6 = |address: &str| {
        Dump::links(&["eth0"]).address("eth0", address).via("default", Some("fe80::9"), "eth0")
    };
    let mut following = following(&v6("2001:db8:1::2/64"));
    assert_eq!(
        turn(&mut following, 1, &v6("2001:db8:2::2/64")),
        [
            "add the address 2001:db8:2::2/64 dev7 scope 0 flags 2",
            "deprecate the address 2001:db8:1::2/64 dev7 scope 0 flags 2 6",
        ]
    );
}

#[test]
fn a_network_that_is_lost_changes_nothing_and_local_mode_gives_way() {
    let before = host("10.0.0.2/24", "10.0.0.1");
    let mut guest = following(&before);
    assert_eq!(turn(&mut guest, 1, &Dump::links(&["eth0"])), Vec::<String>::new());
    assert_eq!(turn(&mut guest, 2, &before), Vec::<String>::new(), "it is back");
    let mut local = following(&Dump::links(&[]));
    assert_eq!(
        turn(&mut local, 1, &before),
        [
            "add the address 10.0.0.2/24 dev7 scope 0 flags 0",
            "add the default route via 10.0.0.1 dev7 src 10.0.0.2",
            "deprecate the address 169.254.2.1/16 dev7 scope 0 flags 0 6",
            "remove the default route via 169.254.2.2 dev7",
        ]
    );
    assert_eq!(local.template().v4.as_ref().unwrap().gateway, Some("10.0.0.1".parse().unwrap()));
    assert_eq!(local.template().ifname(), "tap0", "its name stays");
}

#[test]
fn the_default_route_moves_to_another_interface() {
    let dump = |name: &str, gateway: &str| {
        Dump::links(&["eth0", "eth1"]).address("eth0", "10.0.0.2/24").address("eth1", "10.1.0.2/24").via(
            "default",
            Some(gateway),
            name,
        )
    };
    let mut following = following(&dump("eth0", "10.0.0.1"));
    let steps = turn(&mut following, 1, &dump("eth1", "10.1.0.1"));
    assert_eq!(steps[0], "add the address 10.1.0.2/24 dev7 scope 0 flags 0");
    assert_eq!(steps[1], "add the default route via 10.1.0.1 dev7 src 10.1.0.2");
    assert_eq!(steps.len(), 4);
}

#[test]
fn what_the_command_line_fixed_stays() {
    let wishes = Wishes {
        v4: Some(Wish {
            address: Some("10.0.2.100".parse().unwrap()),
            prefix: Some(24),
            gateway: Some("10.0.2.2".parse().unwrap()),
            ..Wish::default()
        }),
        ..Wishes::default()
    };
    let template = |dump: &Dump| dump.template(&wishes);
    let mut following = Following::new(template(&host("10.0.0.2/24", "10.0.0.1")));
    let fresh = template(&host("10.9.0.2/24", "10.9.0.1"));
    assert_eq!(following.turn_to(at(1), fresh), []);
}

#[test]
fn an_old_address_goes_when_its_hour_is_over_and_nobody_speaks_from_it() {
    let mut following = following(&host("10.0.0.2/24", "10.0.0.1"));
    turn(&mut following, 10, &host("10.0.0.3/24", "10.0.0.1"));
    let due = following.next().unwrap();
    assert_eq!(due, at(10) + HOUR);
    assert_eq!(following.retire(at(3609), |_| false), []);
    assert_eq!(following.retire(due, |address| address.to_string() == "10.0.0.2"), [], "somebody speaks");
    assert_eq!(following.next(), Some(due + Duration::from_secs(60)));
    let steps = deeds(&following.retire(due + Duration::from_secs(60), |_| false));
    assert_eq!(steps, ["promote", "remove the address 10.0.0.2/24 dev7 scope 0 flags 0"]);
    assert_eq!((following.next(), following.old().count()), (None, 0));
    // Sources stay: to write routes anew without them would take the kernel's own for the same.
    assert_eq!(turn(&mut following, 9000, &host("10.0.0.3/24", "10.0.0.1")), Vec::<String>::new());
}

#[test]
fn a_host_that_never_rests_fills_no_memory() {
    let mut following = following(&host("10.0.0.1/16", "10.0.0.1"));
    for number in 2..200_u16 {
        turn(&mut following, u64::from(number), &host(&format!("10.0.{number}.2/16"), "10.0.0.1"));
        assert!(following.old().count() <= 64);
    }
    assert_eq!(following.old().next().unwrap().addr().to_string(), "10.0.135.2", "the oldest went");
}

#[test]
fn swarms_are_gathered() {
    let mut gather = Gather::default();
    let ms = |ms| Instant::ZERO + Duration::from_millis(ms);
    assert!(!gather.take(ms(0)) && gather.due().is_none());
    gather.note(ms(100));
    gather.note(ms(290));
    assert_eq!(gather.due(), Some(ms(300)));
    assert!(!gather.take(ms(299)) && gather.take(ms(300)) && !gather.take(ms(301)));
    // A look of 5 ms is nothing, one of 100 ms is.
    gather.looked(ms(300), ms(305));
    gather.note(ms(310));
    assert_eq!(gather.due(), Some(ms(510)));
    assert!(gather.take(ms(510)));
    gather.looked(ms(510), ms(610));
    gather.note(ms(620));
    assert_eq!(gather.due(), Some(ms(2610)));
    assert!(gather.take(ms(2610)));
    gather.note(ms(2611));
    assert_eq!(gather.due(), Some(ms(2811)));
}
