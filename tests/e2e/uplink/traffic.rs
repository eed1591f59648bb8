//! Out into the world, and in through published ports.

use super::{SHOW_PEER, network, port, stage};
use serde_json::json;
use slipway_lab::{HOST4, HOST6, LIMIT, Running, WORLD4, WORLD6};

#[test]
fn containers_reach_the_world_over_both_families() {
    let stage = stage!("containers_reach_the_world_over_both_families");
    if slipway_lab::peer().is_none() {
        println!("SKIP containers_reach_the_world_over_both_families: slipway-lab-peer is not built");
        return;
    }
    let one = stage.with_one();
    let two = stage.station(3);
    assert!(stage.join(&network(), &two));
    let words = ["ncat", "-l", "-k", "8000", "-c", SHOW_PEER];
    let _server = Running::server(stage.lab.world(words), "tcp", 8000).unwrap();
    let peer = stage.lab.program("slipway-lab-peer");
    let echo = |at: &str| stage.lab.world([&peer, "serve", &format!("{at}:9000")]).start().unwrap();
    let _echoes = [echo(WORLD4), echo(&format!("[{WORLD6}]"))];
    for station in [&one, &two] {
        for (world, host, version) in [(WORLD4, HOST4, "-4"), (WORLD6, HOST6, "-6")] {
            let ping = stage.inside(station, ["ping", version, "-c1", "-W5", world]).run(LIMIT).unwrap();
            assert!(ping.success(), "{ping}{}", stage.uplink.stderr());
            let tcp =
                stage.inside(station, ["ncat", "--recv-only", "-w", "8", world, "8000"]).run(LIMIT).unwrap();
            assert_eq!(tcp.out(), format!("peer={host}\n"), "{tcp}");
            let at = if version == "-6" { format!("[{world}]:9000") } else { format!("{world}:9000") };
            let udp = stage.inside(station, [&peer, "udp-rr", &at, "0.2"]).run(LIMIT).unwrap();
            assert!(udp.success() && udp.out().trim().parse::<f64>().unwrap() > 10.0, "{udp}");
        }
        // The gateway is somebody.
        for gateway in ["10.89.0.1", "fd00:89::1"] {
            assert!(stage.inside(station, ["ping", "-c1", "-W5", gateway]).run(LIMIT).unwrap().success());
        }
    }
    // Neighbours reach each other without us.
    let _server = stage.serve(&two);
    let near = stage.inside(&one, ["ncat", "--recv-only", "-w", "8", "10.89.0.3", "80"]).run(LIMIT).unwrap();
    assert_eq!(near.out(), "peer=10.89.0.2\n", "{near}");
}

#[test]
fn the_hosts_loopback_is_reached_only_when_asked_for() {
    for (options, expected) in [(&[][..], ""), (&["--host-loopback"], "from loopback\n")] {
        let stage = stage!("the_hosts_loopback_is_reached_only_when_asked_for", options);
        let one = stage.with_one();
        let server = stage.lab.host(["ncat", "-l", "-k", "127.0.0.1", "8000", "-c", "echo from loopback"]);
        let _server = Running::server(server, "tcp", 8000).unwrap();
        let answer =
            stage.inside(&one, ["ncat", "--recv-only", "-w", "5", "10.89.0.1", "8000"]).run(LIMIT).unwrap();
        assert_eq!(answer.out(), expected, "{options:?}: {answer}");
    }
}

#[test]
fn published_ports_show_the_clients_address() {
    let stage = stage!("published_ports_show_the_clients_address");
    let one = stage.with_one();
    let published = stage.publish(&one, &json!([port("tcp", 8080, 80), port("udp", 8053, 53)]));
    assert_eq!(published.out(), "{\"ids\":[1,2]}\n", "{published}");
    let _server = stage.serve(&one);
    for (host, world) in [(HOST4, WORLD4), (HOST6, WORLD6)] {
        assert_eq!(stage.peer_seen(host, 8080), format!("peer={world}"), "{}", stage.uplink.stderr());
    }
    let local = stage.lab.host(["ncat", "--recv-only", "-w", "8", "127.0.0.1", "8080"]).run(LIMIT).unwrap();
    assert_eq!(local.out(), "peer=10.89.0.1\n", "{local}");
    let words = ["ncat", "-u", "-l", "53", "-c", "read x; echo $x from $NCAT_REMOTE_ADDR"];
    let _udp = Running::server(stage.inside(&one, words), "udp", 53).unwrap();
    let ask = format!("(echo ask; sleep 1) | ncat -u -w 3 {HOST4} 8053");
    let answer = stage.lab.world(["sh", "-c", &ask]).run(LIMIT).unwrap();
    assert_eq!(answer.out(), format!("ask from {WORLD4}\n"), "{answer}");
    // Once more is no error and changes nothing; the status tells.
    assert_eq!(
        stage.publish(&one, &json!([port("tcp", 8080, 80), port("udp", 8053, 53)])).out(),
        "{\"ids\":[1,2]}\n"
    );
    let rules = stage.status()["rules"].as_array().unwrap().clone();
    assert_eq!(rules.len(), 4, "two ports, two families: {rules:?}");
    assert!(rules.iter().any(|rule| rule["accepted"].as_u64() > Some(0)));
    let listing =
        stage.lab.host([&stage.lab.program("slipway"), "uplink", "--show"]).ok(LIMIT).unwrap().out();
    assert!(listing.contains("network net") && listing.contains("port 8080:10.89.0.2:80/tcp"), "{listing}");
}

#[test]
fn containers_reach_published_ports_by_the_hosts_address() {
    let stage = stage!("containers_reach_published_ports_by_the_hosts_address");
    let one = stage.with_one();
    let two = stage.station(3);
    assert!(stage.join(&network(), &two));
    assert!(stage.publish(&one, &json!([port("tcp", 8080, 80)])).success());
    let _server = stage.serve(&one);
    for station in [&one, &two] {
        for host in [HOST4, HOST6] {
            let words = ["ncat", "--recv-only", "-w", "8", host, "8080"];
            let answer = stage.inside(station, words).run(LIMIT).unwrap();
            assert_eq!(answer.out(), format!("peer={host}\n"), "{answer}{}", stage.uplink.stderr());
        }
    }
}

#[test]
fn a_network_may_have_one_family_only() {
    let stage = stage!("a_network_may_have_one_family_only");
    let one = stage.station(2);
    stage.sh(&one, "ip -4 address flush dev eth0");
    let network = json!({
        "id": "n6", "name": "six", "dns_enabled": true,
        "subnets": [{ "subnet": "fd00:89::/64", "gateway": "fd00:89::1" }],
    });
    stage.join(&network, &one);
    stage.attach(&network, "tap0");
    assert!(stage.inside(&one, ["ping", "-6", "-c1", "-W5", WORLD6]).run(LIMIT).unwrap().success());
    let name = stage.inside(&one, ["dig", "+short", "@fd00:89::1", "name2", "AAAA"]).run(LIMIT).unwrap();
    assert_eq!(name.out(), "fd00:89::2\n", "{name}");
    assert!(stage.publish(&one, &json!([port("tcp", 8080, 80)])).success());
    let _server = stage.serve(&one);
    assert_eq!(stage.peer_seen(HOST6, 8080), format!("peer={WORLD6}"));
    assert_eq!(stage.peer_seen(HOST4, 8080), "", "there is no translation");
    let v4 = json!([{ "host_ip": "127.0.0.1", "host_port": 8081, "container_port": 80 }]);
    assert!(stage.publish(&one, &v4).err().contains("the container has no IPv4 address"));
}

#[test]
fn many_mappings_are_one_request() {
    let stage = stage!("many_mappings_are_one_request");
    let one = stage.with_one();
    let ports: Vec<_> = (0..500).map(|n| port("tcp", 20_000 + 2 * n, 80)).collect();
    let published = stage.publish(&one, &json!(ports));
    assert!(
        published.success() && published.out().contains("[1,2,3,"),
        "{published}{}",
        stage.uplink.stderr()
    );
    let _server = stage.serve(&one);
    for port in [20_000, 20_500, 20_998] {
        assert_eq!(stage.peer_seen(HOST4, port), format!("peer={WORLD4}"), "{port}");
    }
    // More than a reply can hold: what is left out is counted.
    let status = stage.status();
    let rules = status["rules"].as_array().unwrap().len() as u64;
    assert_eq!(rules + status["left_out"]["rules"].as_u64().unwrap(), 1000);
    // All or none, over any number of them.
    let two = stage.station(3);
    assert!(stage.join(&network(), &two));
    let ports: Vec<_> = (0..500).map(|n| port("tcp", 20_001 + 2 * (499 - n) - 1, 80)).collect();
    assert!(
        stage
            .publish(&two, &json!([port("tcp", 19_000, 80), ports[0], ports[1]]))
            .err()
            .contains("Address already in use")
    );
    assert_eq!(stage.peer_seen(HOST4, 19_000), "");
    stage.leave(&network(), &one);
    assert_eq!(stage.peer_seen(HOST4, 20_500), "");
    assert!(stage.publish(&two, &json!(ports)).success());
}

#[test]
fn ranges_lead_port_by_port_and_refusals_change_nothing() {
    let stage = stage!("ranges_lead_port_by_port_and_refusals_change_nothing");
    let one = stage.with_one();
    let range =
        json!({ "host_ip": HOST4, "host_port": 8000, "container_port": 79, "protocol": "tcp", "range": 3 });
    assert!(stage.publish(&one, &json!([range])).success());
    let _server = stage.serve(&one);
    assert_eq!(stage.peer_seen(HOST4, 8001), format!("peer={WORLD4}"));
    assert_eq!(stage.peer_seen(HOST4, 8003), "");
    let _other = Running::server(stage.lab.host(["ncat", "-l", "-k", "9001"]), "tcp", 9001).unwrap();
    let two = stage.station(3);
    assert!(stage.join(&network(), &two));
    for (ports, errno, text) in [
        (
            json!([port("tcp", 9000, 80), port("tcp", 9001, 80)]),
            "98",
            "cannot listen on tcp 0.0.0.0:9001: Address already in use",
        ),
        (json!([port("tcp", 80, 80)]), "13", "Permission denied"),
        (
            json!([{ "host_ip": "203.0.113.9", "host_port": 9000, "container_port": 80 }]),
            "99",
            "Cannot assign requested address",
        ),
        (json!([port("sctp", 9000, 80)]), "0", "expected tcp or udp"),
    ] {
        let refused = stage.publish(&two, &ports);
        let said = refused.err();
        assert!(
            !refused.success() && said.starts_with(&format!("{errno} ")) && said.contains(text),
            "{ports}: {refused}"
        );
        assert_eq!(stage.peer_seen(HOST4, 9000), "", "{ports}");
    }
    // Who does not exist is told apart.
    let nobody = stage.station(9);
    assert!(stage.publish(&nobody, &json!([port("tcp", 9000, 80)])).err().starts_with("2 "));
    assert_eq!(stage.peer_seen(HOST4, 8001), format!("peer={WORLD4}"), "others go on");
}
