//! Names: relayed from the address inside to the host's name servers, over UDP and TCP.

use std::time::Duration;

use slipway_lab::{LIMIT, NAMESERVER4, NAMESERVER6, WORLD4, WORLD6, lab, now};

use crate::ipv6;

const DIG: [&str; 4] = ["dig", "+short", "+tries=2", "+time=4"];

#[test]
fn a_name_resolves_over_udp_and_tcp() {
    let (lab, _) = lab!("a_name_resolves_over_udp_and_tcp", ["dig", "dnsmasq"]);
    let _dns = lab.dns().unwrap();
    let container = lab.container().unwrap();
    let _slirp = lab.slirp(&container, &["-c"]).unwrap();
    let server = format!("@{NAMESERVER4}");
    for words in [&["name.test"][..], &["+tcp", "name.test"]] {
        let answer = container.cmd(DIG).arg(&server).args(words).run(LIMIT).unwrap();
        assert_eq!(answer.out().trim(), WORLD4, "{words:?}: {answer}");
    }
    let answer = container.cmd(DIG).args([&server, "name.test", "AAAA"]).run(LIMIT).unwrap();
    assert_eq!(answer.out().trim(), WORLD6, "{answer}");
    // Too long for a datagram: dig sees the truncation and asks again over TCP.
    let answer = container.cmd(DIG).args([&server, "+noedns", "big.test", "TXT"]).run(LIMIT).unwrap();
    assert_eq!(answer.out().lines().count(), 12, "{answer}");
    // The system's resolver finds the same.
    let answer = container.cmd(["getent", "ahostsv4", "name.test"]).run(LIMIT).unwrap();
    assert!(answer.out().contains(WORLD4), "{answer}");
}

#[test]
fn the_ipv6_name_server_address_answers() {
    let (lab, _) = lab!("the_ipv6_name_server_address_answers", ["dig", "dnsmasq"]);
    let _dns = lab.dns().unwrap();
    let container = lab.container().unwrap();
    let _slirp = lab.slirp(&container, &["-c", "--enable-ipv6"]).unwrap();
    ipv6(&container);
    let server = format!("@{NAMESERVER6}");
    for words in [&["name.test"][..], &["+tcp", "name.test"]] {
        let answer = container.cmd(DIG).arg(&server).args(words).run(LIMIT).unwrap();
        assert_eq!(answer.out().trim(), WORLD4, "{words:?}: {answer}");
    }
}

#[test]
fn a_dead_name_server_is_passed_over() {
    let (lab, _) = lab!(ours "a_dead_name_server_is_passed_over", ["dig", "dnsmasq"]);
    lab.set_resolv_conf(&format!("nameserver 192.0.2.254\nnameserver {WORLD4}\n")).unwrap();
    let _dns = lab.dns().unwrap();
    let container = lab.container().unwrap();
    let _slirp = lab.slirp(&container, &["-c"]).unwrap();
    let server = format!("@{NAMESERVER4}");
    let answer = container
        .cmd(["dig", "+short", "+tries=4", "+time=5"])
        .args([&server, "name.test"])
        .run(LIMIT)
        .unwrap();
    assert_eq!(answer.out().trim(), WORLD4, "{answer}");
}

/// Nobody asked over UDP before, so nothing is known of the server that is behind a black hole.
#[test]
fn a_dead_name_server_is_passed_over_by_tcp_queries_too() {
    let (lab, _) = lab!(ours "a_dead_name_server_is_passed_over_by_tcp_queries_too", ["dig", "dnsmasq"]);
    lab.set_resolv_conf(&format!("nameserver 192.0.2.254\nnameserver {WORLD4}\n")).unwrap();
    // Frames to it leave, and nothing comes back: not even an error.
    let neighbour = ["ip", "neigh", "add", "192.0.2.254", "lladdr", "02:00:00:00:00:fe", "dev", "veth0"];
    lab.host_root(neighbour).ok(LIMIT).unwrap();
    let _dns = lab.dns().unwrap();
    let container = lab.container().unwrap();
    let _slirp = lab.slirp(&container, &["-c"]).unwrap();
    let dig = ["dig", "+short", "+tcp", "+tries=1", "+time=4", "@10.0.2.3"];
    let answer = container.cmd(dig).arg("name.test").run(LIMIT).unwrap();
    assert_eq!(answer.out().trim(), WORLD4, "{answer}");
    // Now it is known to be dead. Once of three times a busy machine is quick enough to show that nobody waits.
    let asked = [("name.test", "AAAA", WORLD6), ("world.test", "AAAA", WORLD6), ("world.test", "A", WORLD4)];
    let quick = asked.map(|(name, kind, address)| {
        let start = now();
        let answer = container.cmd(dig).args([name, kind]).run(LIMIT).unwrap();
        assert_eq!(answer.out().trim(), address, "{answer}");
        start.elapsed() < Duration::from_secs(1)
    });
    assert!(quick.contains(&true), "each was asked again");
    // Several queries on one connection, of which some are answered from what is kept.
    let words = ["dig", "+short", "+tcp", "+keepopen", "+tries=1", "+time=4", "@10.0.2.3"];
    let names = ["name.test", "kept.test", "world.test", "name.test", "kept.test"];
    let answer = container.cmd(words).args(names).run(LIMIT).unwrap();
    assert_eq!(answer.out(), format!("{WORLD4}\n").repeat(5), "{answer}");
}

#[test]
fn an_answer_is_kept_for_its_time() {
    let (lab, _) = lab!(ours "an_answer_is_kept_for_its_time", ["dig", "dnsmasq"]);
    let dns = lab.dns().unwrap();
    let container = lab.container().unwrap();
    let _slirp = lab.slirp(&container, &["-c"]).unwrap();
    let dig = || {
        let words = ["dig", "+noall", "+answer", "+nocookie", "+tries=1", "+time=4"];
        let answer = container.cmd(words).arg(format!("@{NAMESERVER4}")).arg("kept.test").run(LIMIT).unwrap();
        let fields: Vec<String> = answer.out().split_whitespace().map(str::to_owned).collect();
        assert_eq!(fields.last().map(String::as_str), Some(WORLD4), "{answer}");
        fields[1].parse::<u32>().unwrap()
    };
    assert_eq!(dig(), 300);
    assert!((290..=300).contains(&dig()));
    let asked = dns.stderr().matches("query[A] kept.test").count();
    assert_eq!(asked, 1, "{}", dns.stderr());
}

#[test]
fn without_an_answer_the_guest_is_told() {
    let (lab, _) = lab!(ours "without_an_answer_the_guest_is_told", ["dig"]);
    lab.set_resolv_conf("nameserver 192.0.2.254\nnameserver 192.0.2.253\n").unwrap();
    let container = lab.container().unwrap();
    let _slirp = lab.slirp(&container, &["-c"]).unwrap();
    let answer = container
        .cmd(["dig", "+tries=1", "+time=14", "name.test"])
        .arg(format!("@{NAMESERVER4}"))
        .run(LIMIT)
        .unwrap();
    assert!(answer.out().contains("status: SERVFAIL"), "{answer}");
}

#[test]
fn the_list_of_name_servers_is_followed() {
    let (lab, _) = lab!("the_list_of_name_servers_is_followed", ["dig", "dnsmasq"]);
    lab.set_resolv_conf("nameserver 192.0.2.254\n").unwrap();
    let _dns = lab.dns().unwrap();
    let container = lab.container().unwrap();
    let _slirp = lab.slirp(&container, &["-c", "--enable-sandbox"]).unwrap();
    let server = format!("@{NAMESERVER4}");
    let none = container
        .cmd(["dig", "+short", "+tries=1", "+time=1"])
        .args([&server, "name.test"])
        .run(LIMIT)
        .unwrap();
    assert!(!none.out().contains(WORLD4), "{none}");
    lab.set_resolv_conf(&format!("nameserver {WORLD4}\n")).unwrap();
    // The original looks at the file again after some seconds; ours is told at once.
    let script =
        format!("for i in $(seq 10); do dig +short +tries=1 +time=1 @{NAMESERVER4} name.test && break; done");
    let answer = container.sh(&script).unwrap();
    assert!(answer.out().contains(WORLD4), "{answer}");
}

#[test]
fn router_advertisements_name_the_dns_server() {
    let (lab, _) = lab!("router_advertisements_name_the_dns_server", ["tcpdump"]);
    if !lab.by_root() {
        println!("SKIP router_advertisements_name_the_dns_server: needs root to capture");
        return;
    }
    let container = lab.container().unwrap();
    let _slirp = lab.slirp(&container, &["-c", "--enable-ipv6"]).unwrap();
    ipv6(&container);
    // A capture from outside the user namespace: inside it tcpdump cannot settle its groups.
    let mut capture = lab
        .host_root(["nsenter", &format!("--net=/proc/{}/ns/net", container.pid())])
        .args([
            "tcpdump",
            "-i",
            "tap0",
            "-Z",
            "root",
            "-n",
            "-v",
            "-c",
            "1",
            "-l",
            "icmp6 and ip6[40] == 134",
        ])
        .start()
        .unwrap();
    capture.until(LIMIT, |running| running.stderr().contains("listening on")).unwrap();
    // A link that comes up again solicits.
    container.sh("ip link set tap0 down; ip link set tap0 up").unwrap();
    let seen = capture.finish(LIMIT).unwrap().expect("an advertisement arrives");
    let text = seen.out();
    assert!(text.contains("fd00::/64"), "{seen}");
    assert!(text.contains("rdnss option") && text.contains(NAMESERVER6), "{seen}");
}
