//! Calls that come across each other, or twice, and callers that do not wait: nothing is held that nobody knows of.

use serde_json::json;

use crate::fixture;
use crate::place::{MAC, Place};
use crate::server6::{Grant, RENEW, SOLICIT, Server};

#[test]
fn t08_a_second_set_up_that_fails_ends_nothing() {
    let place = fixture!("t08_a_second_set_up_that_fails_ends_nothing");
    place.world_with_ipv6(&["fd00:5::1/64"]);
    let grant = Grant { address: "fd00:5::50".parse().unwrap(), times: [5, 7, 12] };
    let server = Server::start(&place, grant);
    let _proxy = place.proxy(&[]);
    let lease = place.lease("setup", &place.request_v6());
    server.ignore(&[SOLICIT]);
    place.refusal(&place.request_v6());
    let renewed = server.heard(RENEW);
    Place::until("the first one's lease is renewed", || server.heard(RENEW) > renewed);
    assert_eq!(place.cache(), json!({ MAC: [lease.clone()] }));
    assert!(place.in_container("ip -6 address show dev eth0").contains("fd00:5::50/"));
    server.ignore(&[]);
    assert_eq!(place.lease("setup", &place.request_v6()), lease);
    assert_eq!(place.lease("teardown", &place.request_v6()), lease);
    assert_eq!(place.cache(), json!({}));
}

#[test]
fn t08_a_teardown_ends_a_set_up_that_is_under_way() {
    let place = fixture!("t08_a_teardown_ends_a_set_up_that_is_under_way");
    let proxy = place.proxy(&[]);
    let deaf = place.server("198.51.100.50", &[&format!("--dhcp-host={MAC},ignore")]);
    let mut calls =
        [place.request_v6(), place.request()].map(|request| place.client("setup", &request).start().unwrap());
    Place::until("a server is looked for", || deaf.stderr().contains("DHCPDISCOVER"));
    place.lease("teardown", &place.request());
    drop(deaf);
    let _server = place.server("198.51.100.50", &[]);
    for call in &mut calls {
        let output = call.finish(crate::LIMIT).unwrap().unwrap();
        assert!(!output.success() && output.err().contains("taken down"), "{output}");
    }
    assert_eq!(place.cache(), json!({}));
    assert!(!proxy.stderr().contains("panicked"), "{}", proxy.stderr());
    assert_eq!(
        place.lease("setup", &place.request())["yiaddr"],
        "198.51.100.50",
        "the next one is none of it"
    );
}

#[test]
fn t08_a_caller_that_goes_leaves_no_address_behind() {
    let place = fixture!("t08_a_caller_that_goes_leaves_no_address_behind");
    place.world_with_ipv6(&["fd00:5::1/64", "2001:db8:5::1/64"]);
    let _server = place.server(
        "198.51.100.50",
        &["--enable-ra", "--dhcp-range=fd00:5::50,fd00:5::50,64,2m", "--dhcp-range=2001:db8:5::,slaac,64,2m"],
    );
    // The kernel makes no address of the second prefix: it is waited for, while the server's address is there.
    place.in_container("echo 0 > /proc/sys/net/ipv6/conf/eth0/accept_ra");
    let _proxy = place.proxy(&[]);
    let call = place.client("setup", &place.request_v6()).start().unwrap();
    let has = || place.in_container("ip -6 address show dev eth0").contains("fd00:5::50/");
    Place::until("the address", has);
    drop(call);
    Place::until("the address is gone", || !has());
    let leased = || std::fs::read_to_string(place.server_leases()).unwrap_or_default();
    Place::until("the server hears of it", || !leased().contains("fd00:5::50"));
    assert_eq!(place.cache(), json!({}));
}
