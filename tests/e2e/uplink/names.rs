//! The gateway as nameserver.

use super::{Stage, Station, network, port, stage};
use serde_json::{Value, json};
use slipway_lab::{HOST4, LIMIT, WORLD4, WORLD6};

/// What `dig` finds, sorted; or the status when it finds nothing.
fn dig(stage: &Stage, station: &Station, words: &[&str]) -> String {
    let dig = ["dig", "+noall", "+comments", "+answer", "+nocookie", "+tries=2", "+time=4"];
    let output =
        stage.inside(station, dig.into_iter().chain(words.iter().copied())).run(LIMIT).unwrap().out();
    let records = output.lines().filter(|line| !line.starts_with(';') && !line.is_empty());
    let mut found: Vec<_> = records.filter_map(|line| line.split_whitespace().last()).collect();
    found.sort_unstable();
    let status = output.split("status: ").nth(1).and_then(|rest| rest.split(',').next()).unwrap_or("nothing");
    if found.is_empty() { status.to_owned() } else { found.join(" ") }
}

const GATEWAY: &str = "@10.89.0.1";

#[test]
fn names_of_containers_and_of_the_world() {
    let stage = stage!("names_of_containers_and_of_the_world");
    let _dns = stage.lab.dns().unwrap();
    let one = stage.with_one();
    let two = stage.station(3);
    assert!(stage.join(&network(), &two));
    for (words, expected) in [
        (&[GATEWAY, "name3"][..], "10.89.0.3"),
        (&[GATEWAY, "ALIAS3.dns.podman"], "10.89.0.3"),
        (&[GATEWAY, "name3", "AAAA"], "fd00:89::3"),
        (&["@fd00:89::1", "name2"], "10.89.0.2"),
        (&[GATEWAY, "all"], "10.89.0.2 10.89.0.3"),
        (&[GATEWAY, "+tcp", "all"], "10.89.0.2 10.89.0.3"),
        (&[GATEWAY, "name3", "MX"], "NOERROR"),
        (&[GATEWAY, "name9.dns.podman"], "NXDOMAIN"),
        (&[GATEWAY, "-x", "10.89.0.3"], "alias3. all. name3."),
        (&[GATEWAY, "-x", "fd00:89::3"], "alias3. all. name3."),
        (&[GATEWAY, "name.test"], WORLD4),
        (&[GATEWAY, "name.test", "AAAA"], WORLD6),
        (&[GATEWAY, "+tcp", "name.test"], WORLD4),
    ] {
        assert_eq!(dig(&stage, &one, words), expected, "{words:?}");
    }
    assert_eq!(stage.leave(&network(), &two), 1);
    assert_eq!(dig(&stage, &one, &[GATEWAY, "all"]), "10.89.0.2");
    // Of all this the world has heard one name.
    let asked = _dns.stderr();
    assert!(!asked.contains("name3") && asked.contains("name.test"), "{asked}");
    // The host's nameservers are followed.
    stage.lab.set_resolv_conf("nameserver 192.0.2.254\n").unwrap();
    std::thread::sleep(std::time::Duration::from_millis(200));
    assert_eq!(dig(&stage, &one, &[GATEWAY, "+tries=1", "+time=14", "world.test"]), "SERVFAIL");
}

#[test]
fn a_networks_own_nameservers_come_first() {
    let stage = stage!("a_networks_own_nameservers_come_first");
    let _dns = stage.lab.dns().unwrap();
    stage.lab.set_resolv_conf("nameserver 192.0.2.254\n").unwrap();
    let one = stage.station(2);
    let mut own = network();
    own["dns_servers"] = json!([WORLD4]);
    stage.join(&own, &one);
    stage.attach(&own, "tap0");
    assert_eq!(dig(&stage, &one, &[GATEWAY, "name.test"]), WORLD4);
    // Another definition of the same network asks for its TAP again.
    assert!(!stage.join(&network(), &one));
    stage.attach(&network(), "tap1");
    assert_eq!(dig(&stage, &one, &[GATEWAY, "+tries=1", "+time=14", "name.test"]), "SERVFAIL");
}

fn without_dns() -> Value {
    let mut network = network();
    network["dns_enabled"] = json!(false);
    network
}

#[test]
fn an_internal_network_has_names_and_no_way_out() {
    let stage = stage!("an_internal_network_has_names_and_no_way_out");
    let dns = stage.lab.dns().unwrap();
    let one = stage.station(2);
    let mut internal = network();
    internal["internal"] = json!(true);
    stage.join(&internal, &one);
    stage.attach(&internal, "tap0");
    assert_eq!(dig(&stage, &one, &[GATEWAY, "name2"]), "10.89.0.2");
    assert_eq!(dig(&stage, &one, &[GATEWAY, "name.test"]), "NXDOMAIN");
    assert_eq!(dig(&stage, &one, &[GATEWAY, "+tcp", "name.test"]), "NXDOMAIN");
    assert!(!dns.stderr().contains("name.test"), "{}", dns.stderr());
    for version in [["-4", WORLD4], ["-6", WORLD6]] {
        let [version, world] = version;
        let ping = stage.inside(&one, ["ping", version, "-c1", "-W2", world]).run(LIMIT).unwrap();
        assert!(!ping.success() && ping.all().contains("nreachable"), "{ping}");
        let tcp = stage.inside(&one, ["ncat", "-w", "3", world, "53"]).run(LIMIT).unwrap();
        assert!(!tcp.success(), "{tcp}");
    }
    // In comes what is published, as if from the gateway: there is no route to anybody else.
    stage.sh(&one, "ip route delete default; ip -6 route delete default");
    assert!(stage.publish(&one, &json!([port("tcp", 8080, 80)])).success());
    let _server = stage.serve(&one);
    assert_eq!(stage.peer_seen(HOST4, 8080), "peer=10.89.0.1", "{}", stage.uplink.stderr());
}

#[test]
fn without_dns_the_gateway_answers_nothing() {
    let stage = stage!("without_dns_the_gateway_answers_nothing");
    let _dns = stage.lab.dns().unwrap();
    let one = stage.station(2);
    stage.join(&without_dns(), &one);
    stage.attach(&without_dns(), "tap0");
    assert_eq!(dig(&stage, &one, &[GATEWAY, "+tries=1", "+time=2", "name2"]), "nothing");
    assert_eq!(dig(&stage, &one, &[&format!("@{WORLD4}"), "name.test"]), WORLD4);
}
