//! The hand-over to the DNS server: its files, its start, its end.

use slipway_lab::{LIMIT, now};

use crate::host;
use crate::place::{Host, error, line};
use crate::request::{Join, id, publish, request, request6};

fn bridge() -> Join {
    Join::bridge("podman", "podman0", &["10.88.0.1/16", "fd10:88::1/64"]).with("dns_enabled", true)
}

fn file(host: &Host, name: &str) -> Option<String> {
    std::fs::read_to_string(host.config.join("aardvark-dns").join(name)).ok()
}

/// Waits until a process is gone altogether: an orphan stays a zombie until somebody looks after it.
fn gone(pid: &str) {
    let path = format!("/proc/{pid}");
    let end = now() + LIMIT;
    while std::path::Path::new(&path).exists() {
        assert!(now() < end, "{path}");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

pub(crate) fn ended(host: &Host) {
    let end = now() + LIMIT;
    while host.config.join("aardvark-dns/aardvark.pid").exists() {
        assert!(now() < end, "the DNS server ends with its last network");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

#[test]
fn names_are_written_served_and_taken_back() {
    let Some(host) = host!("names_are_written_served_and_taken_back").with_dns("dns") else { return };
    let (one, two) = (host.container(), host.container());
    let join =
        bridge().own("aliases", vec!["web", "web.lan"]).with("network_dns_servers", vec!["198.51.100.53"]);
    let mut first = request("one", std::slice::from_ref(&join));
    first["dns_servers"] = serde_json::json!(["198.51.100.54", "fd10:53::1"]);
    let answer = host.setup(&one, &first);
    assert_eq!(answer["podman"]["dns_server_ips"], serde_json::json!(["10.88.0.1", "fd10:88::1"]));
    assert_eq!(answer["podman"]["dns_search_domains"], serde_json::json!(["dns.podman"]));
    let second = request("two", &[join.addresses(&["10.88.0.3", "fd10:88::3"]).own("aliases", vec!["web"])]);
    host.setup(&two, &second);
    let expected = format!(
        "10.88.0.1,fd10:88::1 198.51.100.53\n{} 10.88.0.2 fd10:88::2 one,web,web.lan 198.51.100.54,fd10:53::1\n\
         {} 10.88.0.3 fd10:88::3 two,web\n",
        id("one"),
        id("two")
    );
    assert_eq!(file(&host, "podman").unwrap(), expected);
    let pid = file(&host, "aardvark.pid").unwrap();
    let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap();
    let words: Vec<_> = String::from_utf8_lossy(&words).split('\0').skip(1).map(str::to_owned).collect();
    let config = host.config.join("aardvark-dns").to_string_lossy().into_owned();
    assert_eq!(words[..5], ["--config", &config, "-p", "53", "run"]);
    host.teardown(&one, &first);
    assert!(!file(&host, "podman").unwrap().contains(&id("one")));
    host.teardown(&two, &second);
    ended(&host);
    host.is_clean();
}

#[test]
fn names_are_served_at_an_address_that_the_network_got_later() {
    let name = "names_are_served_at_an_address_that_the_network_got_later";
    let Some(host) =
        host!(ours "names_are_served_at_an_address_that_the_network_got_later", ["dig"]).with_dns(name)
    else {
        return;
    };
    let (one, two) = (host.container(), host.container());
    let join = |gateways: &[&str]| Join::bridge("podman", "podman0", gateways).with("dns_enabled", true);
    host.setup(&one, &request("one", &[join(&["10.88.0.1/16"])]));
    let later = join(&["10.88.0.1/16", "fd10:88::1/64"]).addresses(&["10.88.0.3", "fd10:88::3"]);
    let answer = host.setup(&two, &request("two", &[later]));
    assert_eq!(answer["podman"]["dns_server_ips"], serde_json::json!(["10.88.0.1", "fd10:88::1"]));
    assert_eq!(file(&host, "podman").unwrap().lines().next(), Some("10.88.0.1,fd10:88::1"));
    for (container, server) in [(&one, "10.88.0.1"), (&two, "fd10:88::1")] {
        let answer =
            container.sh(&format!("dig +short +tries=3 +time=2 @{server} one.dns.podman A")).unwrap();
        assert_eq!(answer.out().trim(), "10.88.0.2", "{answer}");
    }
}

#[test]
fn an_internal_network_has_a_file_of_its_own() {
    let Some(host) = host!("an_internal_network_has_a_file_of_its_own").with_dns("dns") else { return };
    let container = host.container();
    let request = request("one", &[bridge().with("internal", true)]);
    host.setup(&container, &request);
    assert!(file(&host, "podman%int").is_some() && file(&host, "podman").is_none());
    host.teardown(&container, &request);
    ended(&host);
    host.is_clean();
}

#[test]
fn names_that_cannot_be_written_are_left_out() {
    let Some(host) = host!("names_that_cannot_be_written_are_left_out").with_dns("dns") else { return };
    let container = host.container();
    let request = request("one", &[bridge().own("aliases", vec!["good", "two words", "a,b", ""])]);
    let run = host.cmd(&["setup", &container.path()]).env("RUST_LOG", "netavark=warn");
    let output = run.input(line(&request)).ok(LIMIT).unwrap();
    let text = "invalid network alias \"two words\": name contains invalid chars, ignoring this name";
    assert!(output.err().contains(text), "{output}");
    assert!(file(&host, "podman").unwrap().ends_with("one,good\n"));
    host.teardown(&container, &request);
    ended(&host);
}

#[test]
fn another_port_gets_rules_of_its_own() {
    let Some(host) = host!("another_port_gets_rules_of_its_own").with_dns("dns") else { return };
    let container = host.container();
    let input = line(&request("one", &[bridge()]));
    let run = |command: &str| {
        let run =
            host.cmd(&[command, &container.path()]).input(input.clone()).env("NETAVARK_DNS_PORT", "1153");
        run.ok(LIMIT).unwrap()
    };
    run("setup");
    let expected = [
        "ip6 daddr fd10:88::1 meta l4proto { tcp, udp } th dport 53 dnat ip6 to [fd10:88::1]:1153",
        "ip daddr 10.88.0.1 meta l4proto { tcp, udp } th dport 53 dnat ip to 10.88.0.1:1153",
    ];
    assert_eq!(host.chain("NETAVARK-HOSTPORT-DNAT"), expected);
    run("teardown");
    ended(&host);
    host.is_clean();
}

#[test]
fn a_server_that_cannot_start_undoes_everything() {
    let Some(host) = host!("a_server_that_cannot_start_undoes_everything").with_dns("dns") else { return };
    let container = host.container();
    let taken = host.machine.within(|| std::net::UdpSocket::bind("0.0.0.0:53")).unwrap();
    let request = publish(request("one", &[bridge()]), &[("", 8080, 80, "tcp", 1)]);
    let said = host.refused(&container, &request);
    assert!(said.starts_with("error while applying dns entries: "), "{said}");
    assert!(said.contains("aardvark-dns failed to start: "), "{said}");
    assert!(said.contains("failed to bind udp listener on 10.88.0.1:53"), "{said}");
    drop(taken);
    // Nobody may signal a number that still is a zombie's.
    if let Some(pid) = file(&host, "aardvark.pid") {
        gone(&pid);
    }
    assert!(file(&host, "podman").is_none());
    assert_eq!(host.ip("link show").as_array().unwrap().len(), 1);
    // And the next one works.
    host.setup(&container, &request);
    host.teardown(&container, &request);
    ended(&host);
    host.is_clean();
}

#[test]
fn without_a_server_there_are_no_files() {
    let host = host!(ours "without_a_server_there_are_no_files");
    let container = host.container();
    let request = request("one", &[bridge()]);
    let answer = host.setup(&container, &request);
    assert_eq!(answer["podman"]["dns_server_ips"][0], "10.88.0.1");
    assert!(file(&host, "podman").is_none());
    host.teardown(&container, &request);
    host.is_clean();
}

#[test]
fn a_server_that_would_ask_itself_is_refused() {
    let Some(host) = host!(ours "a_server_that_would_ask_itself_is_refused").with_dns("dns") else { return };
    let container = host.container();
    let mut request = request6("one", &[bridge()]);
    request["dns_servers"] = serde_json::json!(["10.88.0.1"]);
    let said = host.refused(&container, &request);
    let text = "DNS server 10.88.0.1 is the gateway of network \"podman\"; using it would cause aardvark-dns to \
                forward queries to itself.";
    assert!(said.contains(text), "{said}");
    assert_eq!(host.ip("link show").as_array().unwrap().len(), 1);
}

#[test]
fn a_dead_server_is_started_again() {
    let Some(host) = host!("a_dead_server_is_started_again").with_dns("dns") else { return };
    let (one, two) = (host.container(), host.container());
    let first = request("one", &[bridge()]);
    let second = request("two", &[bridge().addresses(&["10.88.0.3", "fd10:88::3"])]);
    host.setup(&one, &first);
    let pid = file(&host, "aardvark.pid").unwrap();
    assert!(host.machine.sh(&format!("kill -9 {pid}")).unwrap().success());
    gone(&pid);
    host.setup(&two, &second);
    let fresh = file(&host, "aardvark.pid").unwrap();
    assert_ne!(fresh, pid);
    host.teardown(&two, &second);
    host.teardown(&one, &first);
    ended(&host);
    let missing = host.cmd(&["teardown", &one.path()]).input(line(&first)).run(LIMIT).unwrap();
    assert!(missing.success() || !error(&missing).is_empty());
}

/// What a server says to a question for that name, over UDP or TCP: an address, or nothing.
pub(crate) fn asked(place: &slipway_lab::Namespace, server: &str, name: &str, tcp: bool) -> String {
    let over = if tcp { "+tcp" } else { "+notcp" };
    let line = format!("dig +short +tries=1 +time=2 {over} @{server} {name} A 2>&1 | grep -v '^;' || true");
    place.sh(&line).unwrap().out().trim().to_owned()
}

#[test]
fn a_published_port_53_takes_no_questions_of_networks_with_names() {
    const NAME: &str = "a_published_port_53_takes_no_questions_of_networks_with_names";
    let host = match Host::fixture(NAME, &["dig"]).and_then(|host| host.with_dns(NAME)) {
        Some(host) if host.is_ours() => host,
        _ => return,
    };
    let with_names =
        request("web", &[Join::bridge("podman", "podman0", &["10.88.0.1/16"]).with("dns_enabled", true)]);
    let other = |ports: &[(&str, u16, u16, &str, u16)]| {
        let join = Join::bridge("other", "podman1", &["10.89.0.1/24"]);
        publish(request("hole", &[join]), ports)
    };
    let both = [("0.0.0.0", 53, 53, "udp", 1), ("0.0.0.0", 53, 53, "tcp", 1)];
    let ranges = [("", 40, 40, "udp", 30), ("", 50, 50, "tcp", 10)];
    for (ports, names_first) in [(both, true), (both, false), (ranges, true), (ranges, false)] {
        let (web, hole) = (host.container(), host.container());
        let publisher = other(&ports);
        if names_first {
            host.setup(&web, &with_names);
            host.setup(&hole, &publisher);
        } else {
            host.setup(&hole, &publisher);
            host.setup(&web, &with_names);
        }
        for tcp in [false, true] {
            assert_eq!(asked(&web, "10.88.0.1", "web", tcp), "10.88.0.2", "{}", host.rules());
        }
        let before = host.rules();
        assert!(host.machine.sh("nft flush ruleset").unwrap().success());
        host.cmd(&["firewall-reload"]).ok(LIMIT).unwrap();
        assert_eq!(asked(&web, "10.88.0.1", "web", false), "10.88.0.2", "{before}");
        host.teardown(&hole, &publisher);
        assert!(host.chain("NETAVARK-HOSTPORT-DNAT").is_empty(), "{}", host.rules());
        host.teardown(&web, &with_names);
        ended(&host);
        host.is_clean();
    }
}
