//! The program as a driver of networks itself, under the name `slipway`: called directly, by our netavark, and by the
//! original. A test double stands in for the uplink.

use std::os::unix::fs::symlink;
use std::path::PathBuf;

use serde_json::{Value, json};
use slipway_lab::{Cmd, LIMIT, Namespace, Output};

use crate::fake::Fake;
use crate::place::{Host, addresses, error, ip, line};
use crate::request::{Join, id, publish, request, request6};

const GATEWAYS: [&str; 2] = ["10.89.0.1/24", "fd89::1/64"];

/// A host with the driver in a directory, and the double.
struct Place {
    host: Host,
    fake: Fake,
    directory: PathBuf,
}

impl Place {
    fn fixture(test: &str, programs: &[&str]) -> Option<Self> {
        let host = Host::fixture(test, programs)?;
        if !host.is_ours() {
            println!("SKIP {test}: the original is no driver");
            return None;
        }
        let directory = host.machine.dir().join("plugins");
        std::fs::create_dir(&directory).unwrap();
        symlink(&host.binary, directory.join("slipway")).unwrap();
        let fake = Fake::start(&host.machine.dir().join("uplink.sock"));
        Some(Self { host, fake, directory })
    }

    fn join(name: &str, bridge: &str) -> Join {
        Join::new("slipway", name, bridge, &GATEWAYS).with("dns_enabled", true)
    }

    fn with_uplink(&self, cmd: Cmd) -> Cmd {
        cmd.env("SLIPWAY_UPLINK", self.fake.path())
    }

    /// The driver, as netavark calls it.
    fn plugin(&self, words: &[&str]) -> Cmd {
        let program = self.directory.join("slipway").to_string_lossy().into_owned();
        self.with_uplink(self.host.machine.cmd([program]).args(words))
    }

    /// A netavark that finds the driver in the directory.
    fn netavark(
        &self,
        binary: &std::path::Path,
        command: &str,
        container: &Namespace,
        request: &Value,
    ) -> Output {
        let directory = self.directory.to_string_lossy().into_owned();
        let words = ["--plugin-directory", &directory, command, &container.path()];
        self.with_uplink(self.host.cmd_of(binary, &words)).input(line(request)).run(LIMIT).unwrap()
    }

    fn records(&self) -> String {
        self.host.machine.sh("ls -A /run/slipway/networks 2>/dev/null").unwrap().out()
    }

    fn is_clean(&self) {
        self.host.is_clean();
        assert_eq!(self.records(), "");
        let books = self.fake.books();
        assert!(books.networks.is_empty() && books.rules.is_empty(), "{books:?}");
    }
}

macro_rules! place {
    ($name:literal $(, $program:literal)*) => {
        match Place::fixture($name, &[$($program),*]) {
            Some(place) => place,
            None => return,
        }
    };
}

/// What a driver is told of a request for one network.
fn call(request: &Value) -> Value {
    let (name, options) = request["networks"].as_object().unwrap().iter().next().unwrap();
    json!({
        "container_id": request["container_id"], "container_name": request["container_name"],
        "port_mappings": request["port_mappings"],
        "network": request["network_info"][name], "network_options": options
    })
}

fn parsed(output: &Output) -> Value {
    assert!(output.success(), "{output}");
    assert_eq!((output.err(), output.out().lines().count()), (String::new(), 1), "{output}");
    serde_json::from_str(&output.out()).unwrap()
}

#[test]
fn it_says_what_it_is_and_completes_definitions() {
    let place = place!("it_says_what_it_is_and_completes_definitions");
    let run = |words: &[&str], input: &str| place.plugin(words).input(input).run(LIMIT).unwrap();
    for words in [&[][..], &["info"]] {
        assert_eq!(parsed(&run(words, ""))["api_version"], "1.0.0");
    }
    let network = json!({"name": "net", "id": id("net"), "driver": "slipway", "internal": false,
        "dns_enabled": true, "ipv6_enabled": true, "options": {"mtu": "9000"}});
    let made = parsed(&run(&["create"], &line(&network)));
    for key in ["name", "id", "driver", "dns_enabled", "options"] {
        assert_eq!(made[key], network[key], "{key}");
    }
    assert_eq!(made["network_interface"], format!("slip{}", &id("net")[..8]));
    assert_eq!(made["subnets"].as_array().unwrap().len(), 2);
    // The machine's own addresses are heeded.
    let subnet = made["subnets"][0]["subnet"].as_str().unwrap().to_owned();
    assert!(place.host.machine.sh(&format!("ip address add {subnet} dev lo")).unwrap().success());
    let other = parsed(&run(&["create"], &line(&network)));
    assert_ne!(other["subnets"][0]["subnet"], subnet);
    // netavark has it do the same; no directory is needed for one's own.
    let request = json!({"network": network, "used": {}, "options": {}});
    let output = place.host.cmd(&["create"]).input(line(&request)).run(LIMIT).unwrap();
    let by_netavark = parsed(&output);
    assert_eq!(by_netavark["subnets"][0], other["subnets"][0]);
}

#[test]
fn errors_are_objects_on_standard_output() {
    let place = place!("errors_are_objects_on_standard_output");
    let container = place.host.container();
    let run = |words: &[&str], input: &str| error(&place.plugin(words).input(input).run(LIMIT).unwrap());
    assert!(run(&["odd"], "").contains("create, setup NETNS, teardown NETNS, or info"));
    assert!(run(&["setup"], "").contains("create, setup NETNS, teardown NETNS, or info"));
    assert!(run(&["create"], "{").starts_with("failed to load network definition: IO error: EOF"));
    let text = run(&["setup", "/nonexistent"], "");
    assert_eq!(text, "invalid namespace path: IO error: No such file or directory (os error 2)");
    assert!(run(&["setup", &container.path()], "{}").contains("missing field `container_id`"));
    let call = line(&call(&request("one", &[Place::join("net", "slip1")])));
    let missing = place.plugin(&["setup", &container.path()]).env("SLIPWAY_UPLINK", "/nonexistent/sock");
    let text = error(&missing.input(call.clone()).run(LIMIT).unwrap());
    assert_eq!(
        text,
        "slipway uplink does not run (/nonexistent/sock: No such file or directory): start it by \
         `systemctl enable --now slipway-uplink.socket`, or by `slipway uplink &`"
    );
    // One that says nothing is not waited for without end.
    place.fake.instead("join", Value::Null);
    let text = run(&["setup", &container.path()], &call);
    assert!(text.ends_with("uplink.sock did not answer for 10 seconds"), "{text}");
    place.fake.books().instead.clear();
    place.fake.forget();
    place.is_clean();
}

#[test]
fn containers_reach_each_other() {
    let place = place!("containers_reach_each_other");
    let joined = |name: &str, last: u8| {
        let container = place.host.container();
        let (v4, v6) = (format!("10.89.0.{last}"), format!("fd89::{last}"));
        let request = request(name, &[Place::join("net", "slip1").addresses(&[&v4, &v6])]);
        let call = call(&request);
        let output = place.plugin(&["setup", &container.path()]).input(line(&call)).run(LIMIT).unwrap();
        (container, call, parsed(&output))
    };
    let (one, first, status) = joined("one", 2);
    assert_eq!(status["dns_server_ips"], json!(["10.89.0.1", "fd89::1"]));
    assert_eq!(status["dns_search_domains"], json!(["dns.podman"]));
    assert_eq!(addresses(&one, "eth0"), ["10.89.0.2/24", "fd89::2/64"]);
    assert_eq!(ip(&one, "link show eth0")[0]["address"], status["interfaces"]["eth0"]["mac_address"]);
    let (two, second, _) = joined("two", 3);
    assert!(one.sh("ping -c1 -W5 10.89.0.3 && ping -6 -c1 -W5 fd89::3").unwrap().success());
    assert!(place.fake.hears(&id("net")));
    for (container, call) in [(&two, second), (&one, first)] {
        let output = place.plugin(&["teardown", &container.path()]).input(line(&call)).run(LIMIT).unwrap();
        assert!(output.success() && output.all().is_empty(), "{output}");
    }
    place.is_clean();
}

/// Its neighbours on the bridge do not wait for their caches to end.
#[test]
fn neighbours_find_a_container_that_comes_back() {
    let place = place!("neighbours_find_a_container_that_comes_back");
    let run = |command: &str, container: &Namespace, call: &Value| {
        let output = place.plugin(&[command, &container.path()]).input(line(call)).run(LIMIT).unwrap();
        assert!(output.success(), "{output}");
    };
    let join = |last: u8| {
        Place::join("net", "slip1").addresses(&[&format!("10.89.0.{last}"), &format!("fd89::{last}")])
    };
    let two = place.host.container();
    run("setup", &two, &call(&request("two", &[join(3)])));
    let call = call(&request("one", &[join(2)]));
    for round in 0..3 {
        let one = place.host.container();
        run("setup", &one, &call);
        let pinged = two.sh("ping -c1 -W1 10.89.0.2 && ping -6 -c1 -W1 fd89::2").unwrap();
        assert!(pinged.success(), "{round}: {pinged}");
        run("teardown", &one, &call);
    }
}

/// Whoever addresses the bridge itself is not heard, whatever the packet says, and nobody answers for the host.
#[test]
fn the_host_is_out_of_reach() {
    let place = place!("the_host_is_out_of_reach", "ncat");
    let (host, one) = (&place.host.machine, place.host.container());
    let call = call(&request("one", &[Place::join("net", "slip1")]));
    parsed(&place.plugin(&["setup", &one.path()]).input(line(&call)).run(LIMIT).unwrap());
    assert!(host.sh("ip address add 198.51.100.9/32 dev lo").unwrap().success());
    let socket = host.within(|| std::net::UdpSocket::bind("198.51.100.9:7777")).unwrap();
    socket.set_read_timeout(Some(std::time::Duration::from_millis(500))).unwrap();
    let heard = || {
        assert!(one.sh("echo x | ncat -u --send-only 198.51.100.9 7777").unwrap().success());
        socket.recv(&mut [0; 8]).is_ok()
    };
    assert!(one.sh("ip route add 198.51.100.9 dev eth0").unwrap().success());
    assert!(!one.sh("ping -c1 -W1 198.51.100.9").unwrap().success());
    let known = one.sh("ip neigh show 198.51.100.9").unwrap().out();
    assert!(!known.contains("lladdr"), "nobody answers: {known}");
    let mac = place.host.ip("link show slip1")[0]["address"].as_str().unwrap().to_owned();
    let replace = format!("ip neigh replace 198.51.100.9 lladdr {mac} dev eth0 nud permanent");
    assert!(one.sh(&replace).unwrap().success());
    assert!(!heard());
    // The test would hear it.
    let open =
        "echo 0 > /proc/sys/net/ipv4/conf/all/rp_filter; echo 0 > /proc/sys/net/ipv4/conf/slip1/rp_filter";
    assert!(host.sh(open).unwrap().success());
    assert!(heard());
    let links = host.sh("ip -6 address show dev slip1; ip -6 address show dev slipup0").unwrap().out();
    assert_eq!(links, "");
}

/// A life of two containers, by any netavark.
fn driven_by(place: &Place, binary: &std::path::Path, shape: fn(&str, &[Join]) -> Value) {
    let ports = [("", 8080, 80, "tcp", 1)];
    let (one, two) = (place.host.container(), place.host.container());
    let first =
        publish(shape("one", &[Place::join("net", "slip1").own("aliases", json!(["a", "b"]))]), &ports);
    let second = shape("two", &[Place::join("net", "slip1").addresses(&["10.89.0.3", "fd89::3"])]);
    let status = parsed(&place.netavark(binary, "setup", &one, &first));
    assert_eq!(status["net"]["dns_server_ips"], json!(["10.89.0.1", "fd89::1"]));
    parsed(&place.netavark(binary, "setup", &two, &second));
    {
        assert_eq!(place.fake.names(&id("net")), ["one", "two"]);
        let books = place.fake.books();
        let told = &books.networks[&id("net")];
        assert_eq!(told.containers[&id("one")]["names"], json!(["a", "b"]));
        assert_eq!(told.containers[&id("two")]["addresses"], json!(["10.89.0.3", "fd89::3"]));
        assert_eq!(books.rules, [(id("one"), first["port_mappings"].clone())]);
    }
    assert_eq!(place.host.rules(), "", "no firewall rules");
    for (container, request) in [(&one, &first), (&two, &second)] {
        let output = place.netavark(binary, "teardown", container, request);
        assert!(output.success() && output.all().is_empty(), "{output}");
    }
    place.is_clean();
}

#[test]
fn our_netavark_drives_it() {
    let place = place!("our_netavark_drives_it");
    let binary = place.host.binary.clone();
    driven_by(&place, &binary, request);
    driven_by(&place, &binary, request6);
    // Even when it is not in any directory.
    std::fs::remove_file(place.directory.join("slipway")).unwrap();
    driven_by(&place, &binary, request);
}

#[test]
fn the_original_drives_it() {
    let place = place!("the_original_drives_it");
    let has_plugins = |peer: &PathBuf| {
        let help = Cmd::new([peer]).arg("--help").run(LIMIT);
        help.is_ok_and(|help| help.out().contains("--plugin-directory"))
    };
    let Some(peer) = place.host.peers().into_iter().find(has_plugins) else {
        println!("SKIP the_original_drives_it: no other netavark that has plugins (cargo xtask deps)");
        return;
    };
    driven_by(&place, &peer, request);
}

#[test]
fn what_it_made_is_undone_when_a_later_network_fails() {
    let place = place!("what_it_made_is_undone_when_a_later_network_fails");
    let container = place.host.container();
    let bad = Join::bridge("second", "podman0", &["10.88.0.1/16"])
        .own("static_mac", "00:00:00:00:00:00")
        .own("interface_name", "eth1");
    let request = request("one", &[Place::join("net", "slip1"), bad]);
    let output = place.netavark(&place.host.binary, "setup", &container, &request);
    assert!(error(&output).contains("Cannot assign requested address"), "{output}");
    place.is_clean();
}

#[test]
fn calls_for_one_network_wait_for_each_other() {
    let place = place!("calls_for_one_network_wait_for_each_other");
    let joined: Vec<_> = (2..8)
        .map(|last| {
            let (v4, v6) = (format!("10.89.0.{last}"), format!("fd89::{last}"));
            let join = Place::join("net", "slip1").addresses(&[&v4, &v6]);
            (place.host.container(), line(&call(&request(&format!("c{last}"), &[join]))))
        })
        .collect();
    for command in ["setup", "teardown"] {
        let start = |(container, call): &(Namespace, String)| {
            place.plugin(&[command, &container.path()]).input(call.clone()).start().unwrap()
        };
        let running: Vec<_> = joined.iter().map(start).collect();
        for mut running in running {
            let output = running.finish(LIMIT).unwrap().expect("it ends");
            assert!(output.success(), "{command}: {output}");
        }
        let attached = place.fake.asked().iter().filter(|request| *request == "attach").count();
        assert_eq!(attached, usize::from(command == "setup"), "one TAP for all");
    }
    place.is_clean();
}

/// Whatever changes something. strace counts each by itself, so each is gone through by itself.
const CALLS: [&str; 12] = [
    "sendmsg", "sendto", "write", "unlink", "rename", "setns", "connect", "ioctl", "flock", "mkdir",
    "recvmsg", "close",
];
const MOST: usize = 100;

/// Killed at the n-th call of each kind, for all n; a teardown from the same request leaves the host as before.
fn killed_everywhere(test: &str, command: &str) {
    let Some(place) = Place::fixture(test, &["strace"]) else { return };
    let request = publish(request("one", &[Place::join("net", "slip1")]), &[("", 8080, 80, "tcp", 1)]);
    let call = line(&call(&request));
    let mut killed = 0;
    for name in CALLS {
        for step in 1.. {
            assert!(step < MOST, "{name}: it comes through in the end");
            let container = place.host.container();
            if command == "teardown" {
                parsed(&place.plugin(&["setup", &container.path()]).input(call.clone()).run(LIMIT).unwrap());
            }
            let inject = format!("inject={name}:signal=SIGKILL:when={step}");
            let trace = ["strace", "-qq", "-o", "/dev/null", "-e", &format!("trace={name}"), "-e", &inject];
            let program = place.directory.join("slipway");
            let words = [command, &container.path()];
            let traced = place.with_uplink(place.host.machine.cmd(trace).arg(program).args(words));
            let traced = traced.input(call.clone()).run(LIMIT).unwrap();
            let ended =
                place.plugin(&["teardown", &container.path()]).input(call.clone()).run(LIMIT).unwrap();
            assert!(ended.success() && ended.all().is_empty(), "{name} {step}: {ended}");
            let inside = container.sh("ip -o link").unwrap().out();
            assert_eq!(inside.lines().count(), 1, "{name} {step}: {inside}");
            println!("{name} {step}");
            place.is_clean();
            if traced.success() {
                break;
            }
            killed += 1;
        }
    }
    assert!(killed >= 20, "{killed} places");
}

#[test]
fn a_killed_setup_of_the_driver_is_cleaned_up() {
    killed_everywhere("a_killed_setup_of_the_driver_is_cleaned_up", "setup");
}

#[test]
fn a_killed_teardown_of_the_driver_is_finished() {
    killed_everywhere("a_killed_teardown_of_the_driver_is_finished", "teardown");
}
