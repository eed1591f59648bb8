//! Link-local addresses and their interfaces, on real links: published ports and nameservers, with all privileges
//! given up and interfaces that come and go meanwhile.

use std::io;

use slipway_lab::{Container, HOST4, HOST6, LIMIT, Lab, NAMESERVER4, Output, Running, Slirp, WORLD4, lab};

use crate::ipv6;

const HOST: &str = "fe80::a";
const WORLD: &str = "fe80::b";
const LOCKED_UP: [&str; 5] =
    ["-c", "--enable-ipv6", "--enable-sandbox", "--enable-seccomp", "--api-socket=api.sock"];

/// Gives host and world a link of this name, with an address at either end.
fn link(lab: &Lab, name: &str) {
    let script = format!(
        "set -e; ip link show {name} >/dev/null 2>&1 || ip link add {name} type veth peer name {name} netns {}
         ip address add {HOST}/64 dev {name} nodad; ip link set {name} up",
        lab.world_pid()
    );
    lab.host_root(["sh", "-c", &script]).ok(LIMIT).unwrap();
    let script = format!("ip address add {WORLD}/64 dev {name} nodad; ip link set {name} up");
    lab.world(["sh", "-c", &script]).ok(LIMIT).unwrap();
}

fn unlink(lab: &Lab, name: &str) {
    lab.host_root(["ip", "link", "delete", name]).ok(LIMIT).unwrap();
}

/// A name server that answers on one link of world only.
fn name_server(lab: &Lab, name: &str) -> Running {
    let mut server = lab
        .world(["dnsmasq", "--no-daemon", "--no-resolv", "--no-hosts", "--pid-file=", "--bind-interfaces"])
        .args(["--conf-file=/dev/null", "--except-interface=lo"])
        .args([format!("--interface={name}"), format!("--host-record=name.test,{WORLD4},1")])
        .start()
        .unwrap();
    server.until_listens("udp", 53).unwrap();
    server
}

fn dig(container: &Container, words: &[&str]) -> Output {
    let server = format!("@{NAMESERVER4}");
    container.cmd(["dig", "+short", "+tries=1", "+time=4", &server]).args(words).run(LIMIT).unwrap()
}

fn publish(slirp: &Slirp, proto: &str, host: &str) -> io::Result<String> {
    slirp.api(&format!(
        r#"{{"execute":"add_hostfwd","arguments":{{"proto":"{proto}","host_addr":"{host}","host_port":8080,"guest_port":80}}}}"#
    ))
}

#[test]
fn a_nameserver_on_a_link_is_asked_there() {
    let (lab, _) = lab!(ours "a_nameserver_on_a_link_is_asked_there", ["dig", "dnsmasq"]);
    link(&lab, "veth0");
    lab.set_resolv_conf(&format!("nameserver {WORLD}%veth0\n")).unwrap();
    let container = lab.container().unwrap();
    let _slirp = lab.slirp(&container, &LOCKED_UP).unwrap();
    let _dns = name_server(&lab, "veth0");
    for words in [&["name.test"][..], &["+tcp", "name.test"]] {
        let answer = dig(&container, words);
        assert_eq!(answer.out().trim(), WORLD4, "{words:?}: {answer}");
    }
}

#[test]
fn a_nameservers_interface_comes_goes_and_comes_back() {
    let (lab, _) = lab!(ours "a_nameservers_interface_comes_goes_and_comes_back", ["dig", "dnsmasq"]);
    lab.set_resolv_conf(&format!("nameserver {WORLD}%late0\n")).unwrap();
    let container = lab.container().unwrap();
    let slirp = lab.slirp(&container, &LOCKED_UP).unwrap();
    let told = slirp.process.stderr();
    assert!(told.contains("nameserver fe80::b%late0 is not used for now: No such device"), "{told}");
    assert!(dig(&container, &["name.test"]).out().trim().is_empty());
    for _ in 0..2 {
        // Each time it has another number.
        link(&lab, "late0");
        let dns = name_server(&lab, "late0");
        let answer = dig(&container, &["name.test"]);
        assert_eq!(answer.out().trim(), WORLD4, "{answer}");
        let answer = dig(&container, &["+tcp", "name.test"]);
        assert_eq!(answer.out().trim(), WORLD4, "{answer}");
        drop(dns);
        unlink(&lab, "late0");
        // The answer was good for a second.
        std::thread::sleep(std::time::Duration::from_millis(1100));
        assert!(!dig(&container, &["name.test"]).out().contains(WORLD4));
    }
}

#[test]
fn a_port_is_published_on_one_link() {
    let (lab, _) = lab!(ours "a_port_is_published_on_one_link", ["ncat"]);
    let container = lab.container().unwrap();
    let slirp = lab.slirp(&container, &LOCKED_UP).unwrap();
    let guest = ipv6(&container);
    // The interface comes after the filter.
    link(&lab, "late0");
    let host = format!("{HOST}%late0");
    let reply = publish(&slirp, "tcp", &host).unwrap();
    assert!(reply.contains("\"id\""), "{reply}: {}", slirp.process.stderr());
    let list = slirp.api(r#"{"execute":"list_hostfwd"}"#).unwrap();
    assert!(list.contains(&format!(r#""host_addr":"{host}","host_port":8080"#)), "{list}");
    let show = ["ncat", "-6", "-l", "-k", &guest, "80", "-c", "echo from $NCAT_REMOTE_ADDR"];
    let _server = Running::server(container.cmd(show), "tcp", 80).unwrap();
    let fetch = |at: &str| lab.world(["ncat", "--recv-only", "-w", "10", at, "8080"]).run(LIMIT).unwrap();
    // Addresses of the host's links mean nothing on the guest's, so the client appears as the gateway.
    let answer = fetch(&host);
    assert_eq!(answer.out(), "from fd00::2\n", "{answer}");
    for elsewhere in [HOST4, HOST6] {
        assert!(fetch(elsewhere).err().contains("refused"), "{elsewhere}");
    }

    let reply = publish(&slirp, "udp", &host).unwrap();
    assert!(reply.contains("\"id\""), "{reply}: {}", slirp.process.stderr());
    let echo = container.cmd(["ncat", "-6", "-u", "-l", &guest, "80", "-c", "read x; echo $x back"]);
    let _server = Running::server(echo, "udp", 80).unwrap();
    let script = format!("(echo ask; sleep 1) | ncat -u -w 3 {host} 8080");
    let answer = lab.world(["sh", "-c", &script]).run(LIMIT).unwrap();
    assert_eq!(answer.out(), "ask back\n", "{answer}");
}

#[test]
fn an_interface_that_is_not_there_is_named() {
    let (lab, _) = lab!(ours "an_interface_that_is_not_there_is_named", []);
    link(&lab, "veth0");
    let run = |rule: &str| {
        let slipway = lab.program("slipway");
        lab.host([&slipway, "run", "-q", "-p", rule, "--", "true"]).run(LIMIT).unwrap()
    };
    let there = run(&format!("[{HOST}%veth0]:8080:80"));
    assert!(there.success(), "{there}");
    for (rule, line) in [
        (
            "[fe80::a%nope0]:8080:80",
            "slipway: cannot listen on tcp [fe80::a%nope0]:8080: No such device (this host has no interface nope0)\n",
        ),
        (
            "[fe80::a%999999]:8080:80/udp",
            "slipway: cannot listen on udp [fe80::a%999999]:8080: No such device (this host has no interface 999999)\n",
        ),
    ] {
        let output = run(rule);
        assert_eq!((output.code(), output.err().as_str()), (125, line), "{output}");
    }
    let output = run("[fe80::a]:8080:80");
    assert!(output.err().contains("needs its interface: write it as fe80::a%eth0"), "{output}");

    let container = lab.container().unwrap();
    let slirp = lab.slirp(&container, &LOCKED_UP).unwrap();
    let reply = publish(&slirp, "tcp", "fe80::a%nope0").unwrap();
    assert!(reply.contains("slirp_add_hostfwd failed"), "{reply}");
    assert!(
        slirp.process.stderr().contains("this host has no interface nope0"),
        "{}",
        slirp.process.stderr()
    );
}
