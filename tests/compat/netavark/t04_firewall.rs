//! Tables, chains and rules as nft lists them, and what is left of them afterwards.

use slipway_lab::{LIMIT, Output};

use crate::host;
use crate::place::line;
use crate::request::{Join, id, publish, request, request6};

const V4: &str = "10.88.0.1/16";
const V6: &str = "fd10:88::1/64";

fn bridge() -> Join {
    Join::bridge("podman", "podman0", &[V4])
}

/// The chain of a subnet: `nv_` and the first eight of the network's id.
fn chain(subnet: &str) -> String {
    let prefix: String = id("podman").chars().take(8).collect();
    format!("nv_{prefix}_{subnet}")
}

#[test]
fn the_rules_of_a_simple_network() {
    let host = host!("the_rules_of_a_simple_network");
    let container = host.container();
    let request = request("one", &[bridge()]);
    host.setup(&container, &request);
    // Ours concerns connections to published ports alone.
    let mark = if host.is_ours() { "ct status dnat meta mark" } else { "meta mark" };
    let mark = format!("{mark} & 0x00002000 == 0x00002000 masquerade");
    let own = chain("10_88_0_0_nm16");
    assert_eq!(host.chain("POSTROUTING"), [mark.clone(), format!("ip saddr 10.88.0.0/16 jump {own}")]);
    assert_eq!(host.chain(&own), ["ip daddr 10.88.0.0/16 accept", "ip daddr != 224.0.0.0/4 masquerade"]);
    let forward = host.chain("FORWARD");
    let whose = if host.is_ours() { "iifname @bridges " } else { "" };
    assert_eq!(forward[0], format!("{whose}ct state invalid drop"));
    let tail = [
        "jump NETAVARK-ISOLATION-1",
        "ip daddr 10.88.0.0/16 ct state established,related accept",
        "ip saddr 10.88.0.0/16 accept",
    ];
    assert_eq!(forward[forward.len() - 3..], tail);
    assert_eq!(host.chain("INPUT"), ["ip saddr 10.88.0.0/16 meta l4proto { tcp, udp } th dport 53 accept"]);
    for base in ["PREROUTING", "OUTPUT"] {
        assert_eq!(host.chain(base), ["fib daddr type local jump NETAVARK-HOSTPORT-DNAT"]);
    }
    assert_eq!(host.chain("NETAVARK-HOSTPORT-SETMARK"), ["meta mark set meta mark | 0x00002000"]);
    host.teardown(&container, &request);
    assert_eq!(host.chain("POSTROUTING"), [mark]);
    assert_eq!(host.chain("INPUT"), [""; 0]);
    assert!(host.chain("FORWARD").len() <= 3);
    assert_eq!(host.chain("NETAVARK-HOSTPORT-DNAT"), [""; 0]);
    host.is_clean();
}

#[test]
fn the_hooks_of_the_base_chains() {
    let host = host!("the_hooks_of_the_base_chains");
    let container = host.container();
    host.setup(&container, &request("one", &[bridge()]));
    let rules = host.rules();
    for hook in [
        "type filter hook input priority filter; policy accept;",
        "type filter hook forward priority filter; policy accept;",
        "type nat hook postrouting priority srcnat; policy accept;",
        "type nat hook prerouting priority dstnat; policy accept;",
        "type nat hook output priority -100; policy accept;",
    ] {
        assert!(rules.contains(hook), "{hook}: {rules}");
    }
}

#[test]
fn the_rules_of_ipv6() {
    let host = host!("the_rules_of_ipv6");
    let container = host.container();
    let request = request("one", &[Join::bridge("podman", "podman0", &[V4, V6])]);
    host.setup(&container, &request);
    let own = chain("fd10-88--_nm64");
    let rules = host.chain(&own);
    assert_eq!(rules[0], "ip6 daddr fd10:88::/64 accept");
    assert!(rules[1].ends_with(" masquerade"), "{rules:?}");
    if host.is_ours() {
        assert_eq!(rules[1], "ip6 daddr != ff00::/8 masquerade");
    }
    assert!(host.chain("POSTROUTING").contains(&format!("ip6 saddr fd10:88::/64 jump {own}")));
    host.teardown(&container, &request);
    host.is_clean();
}

#[test]
fn isolation_as_wished() {
    let host = host!("isolation_as_wished");
    let container = host.container();
    let jump = |to: &str| format!("iifname \"podman0\" oifname != \"podman0\" jump NETAVARK-ISOLATION-{to}");
    let drop_rule = "oifname \"podman0\" drop";
    let third = "jump NETAVARK-ISOLATION-2";
    for (wish, one, two, three) in [
        ("strict", vec![jump("3")], vec![drop_rule], vec![third]),
        ("true", vec![jump("2")], vec![drop_rule], vec![third]),
        ("false", vec![], vec![], vec![drop_rule, third]),
    ] {
        let request = request("one", &[bridge().option("isolate", wish)]);
        host.setup(&container, &request);
        assert_eq!(host.chain("NETAVARK-ISOLATION-1"), one, "{wish}");
        assert_eq!(host.chain("NETAVARK-ISOLATION-2"), two, "{wish}");
        assert_eq!(host.chain("NETAVARK-ISOLATION-3"), three, "{wish}");
        host.teardown(&container, &request);
        assert_eq!(host.chain("NETAVARK-ISOLATION-3"), [third], "{wish}");
        host.is_clean();
    }
}

#[test]
fn isolation_keeps_networks_apart() {
    let host = host!("isolation_keeps_networks_apart");
    let other = |wish: &str| {
        let join = Join::bridge("other", "podman1", &["10.89.1.1/24"]).option("isolate", wish);
        request("two", &[join])
    };
    for (wish, reaches) in [("true", false), ("false", true)] {
        let (one, two) = (host.container(), host.container());
        let first = request("one", &[bridge().option("isolate", wish)]);
        host.setup(&one, &first);
        host.setup(&two, &other(wish));
        let reached = one.sh("ping -c1 -W1 10.89.1.2").unwrap().success();
        assert_eq!(reached, reaches, "isolate={wish}\n{}", host.rules());
        host.teardown(&one, &first);
        host.teardown(&two, &other(wish));
        host.is_clean();
    }
}

#[test]
fn the_default_of_isolation_depends_on_the_caller() {
    let host = host!(ours "the_default_of_isolation_depends_on_the_caller");
    for (request, count) in [(request("one", &[bridge()]), 0), (request6("one", &[bridge()]), 1)] {
        let container = host.container();
        host.setup(&container, &request);
        assert_eq!(host.chain("NETAVARK-ISOLATION-1").len(), count);
        host.teardown(&container, &request);
    }
    // Told which to be.
    let container = host.container();
    let run = |command: &str| -> Output {
        let input = line(&request("one", &[bridge()]));
        host.cmd(&[command, &container.path()]).input(input).env("NETAVARK_COMPAT", "2").ok(LIMIT).unwrap()
    };
    run("setup");
    assert_eq!(host.chain("NETAVARK-ISOLATION-1").len(), 1);
    run("teardown");
    host.is_clean();
}

#[test]
fn state_files_let_rules_be_replayed() {
    let host = host!("state_files_let_rules_be_replayed");
    let container = host.container();
    let request = publish(request("one", &[bridge()]), &[("", 8080, 80, "tcp", 1)]);
    host.setup(&container, &request);
    let state = host.config.join("firewall");
    let read = |name: &str| std::fs::read_to_string(state.join(name)).unwrap();
    assert_eq!(read("firewall-driver"), "nftables");
    let network: serde_json::Value =
        serde_json::from_str(&read(&format!("networks/{}", id("podman")))).unwrap();
    assert_eq!(network["bridge_name"], "podman0");
    let ports = read(&format!("ports/{}_{}", id("podman"), id("one")));
    let ports: serde_json::Value = serde_json::from_str(&ports).unwrap();
    assert_eq!((&ports["container_ip_v4"], &ports["dns_port"]), (&"10.88.0.2".into(), &53.into()));
    let before = host.rules();
    assert!(host.machine.sh("nft flush ruleset").unwrap().success());
    let output = host.cmd(&["firewall-reload"]).run(LIMIT).unwrap();
    assert!(output.success() && output.all().is_empty(), "{output}");
    assert_eq!(host.rules(), before);
    host.teardown(&container, &request);
    host.is_clean();
}

#[test]
fn nothing_to_replay_is_no_failure() {
    let host = host!("nothing_to_replay_is_no_failure");
    host.cmd(&["firewall-reload"]).ok(LIMIT).unwrap();
    assert_eq!(host.rules(), "");
}

#[test]
fn a_table_that_was_deleted_underneath() {
    let host = host!("a_table_that_was_deleted_underneath");
    let container = host.container();
    let request = publish(request("one", &[bridge()]), &[("", 8080, 80, "tcp", 1)]);
    host.setup(&container, &request);
    assert!(host.machine.sh("nft delete table inet netavark").unwrap().success());
    host.teardown(&container, &request);
    host.setup(&container, &request);
    assert!(!host.chain("NETAVARK-HOSTPORT-DNAT").is_empty());
    host.teardown(&container, &request);
    host.is_clean();
}

#[test]
fn foreign_rules_are_left_alone() {
    let host = host!("foreign_rules_are_left_alone");
    let foreign = "nft add table inet mine && nft add chain inet mine c && nft add rule inet mine c tcp dport 22 accept";
    assert!(host.machine.sh(foreign).unwrap().success());
    let container = host.container();
    let request = publish(request("one", &[bridge()]), &[("", 8080, 80, "tcp", 1)]);
    host.setup(&container, &request);
    host.teardown(&container, &request);
    assert!(host.machine.sh("nft list chain inet mine c").unwrap().out().contains("tcp dport 22 accept"));
}
