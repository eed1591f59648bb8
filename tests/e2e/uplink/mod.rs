//! The uplink: networks of containers behind a bridge in a namespace of their own, whose way out is a TAP in other
//! hands.
//!
//! Everything runs as the lab's ordinary user, as with rootless containers: the uplink in the lab's host, the bridge in
//! a user and network namespace of the user (the role of Podman's rootless-netns), containers as further network
//! namespaces behind veths. `slipway-uplink-client` plays the network plugin; `rootlessport` is started with the JSON
//! of Podman.

mod life;
mod names;
mod port_helper;
mod sandbox;
mod traffic;

use serde_json::{Value, json};
use slipway_lab::{Cmd, Container, LIMIT, Lab, Output, Running};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

const START: Duration = Duration::from_secs(10);
/// A server's words to its clients.
const SHOW_PEER: &str = "echo peer=$NCAT_REMOTE_ADDR";
/// The programs that the tests of this module need.
macro_rules! stage {
    ($name:literal) => {
        stage!($name, &[])
    };
    ($name:literal, $options:expr) => {{
        let (lab, _) = slipway_lab::lab!(ours $name, ["ncat", "dig", "dnsmasq", "ping"]);
        if !lab.by_root() {
            println!("SKIP {}: needs root for a user of its own", $name);
            return;
        }
        $crate::uplink::Stage::new(lab, $options)
    }};
}
use stage;

/// The lab, the uplink under test, and the namespace with the bridge.
struct Stage {
    uplink: Running,
    netns: Container,
    lab: Lab,
    socket: PathBuf,
}

/// A container behind the bridge.
struct Station {
    holder: Running,
    n: u8,
}

/// The network of most tests.
fn network() -> Value {
    json!({
        "id": "n1", "name": "net", "mtu": 1500, "dns_enabled": true, "internal": false,
        "subnets": [
            { "subnet": "10.89.0.0/24", "gateway": "10.89.0.1" },
            { "subnet": "fd00:89::/64", "gateway": "fd00:89::1" },
        ],
    })
}

fn port(proto: &str, host: u16, container: u16) -> Value {
    json!({ "host_ip": "", "host_port": host, "container_port": container, "protocol": proto, "range": 1 })
}

impl Stage {
    fn new(lab: Lab, options: &[&str]) -> Self {
        Self::under(lab, Vec::new(), options)
    }

    /// The same with words in front of the uplink's command.
    fn under(lab: Lab, prefix: Vec<String>, options: &[&str]) -> Self {
        let socket = lab.dir().join("run/slipway/uplink.sock");
        // Where the lab's user finds them, whatever the rights of the directories above.
        for (name, program) in [
            ("uplink-client", PathBuf::from(env!("CARGO_BIN_EXE_slipway-uplink-client"))),
            ("rootlessport", slipway_lab::subject().unwrap().path().to_owned()),
        ] {
            let place = lab.dir().join("bin").join(name);
            std::fs::write(&place, "").unwrap();
            let mount = ["mount".into(), "--bind".into(), program.into_os_string(), place.into_os_string()];
            lab.host_root(mount).ok(LIMIT).unwrap();
        }
        let netns = lab.container().unwrap();
        netns.sh("ip link add br0 type bridge; ip link set br0 up").unwrap();
        let uplink = lab.host(prefix).args([lab.program("slipway"), "uplink".into(), "-v".into()]);
        let uplink = uplink.args(options.to_vec()).start().unwrap();
        let mut stage = Self { uplink, netns, lab, socket };
        stage.until_it_answers();
        stage
    }

    fn until_it_answers(&mut self) {
        let path = self.socket.clone();
        self.uplink.until(START, |_| path.exists()).unwrap();
        let status = self.client(&json!({ "execute": "status" }), &[]).run(LIMIT).unwrap();
        assert!(status.success(), "{status}");
    }

    /// The client in the place of the network plugin.
    fn client(&self, request: &Value, more: &[&str]) -> Cmd {
        let socket = self.socket.to_string_lossy().into_owned();
        self.netns.cmd([self.lab.program("uplink-client"), socket, request.to_string()]).args(more.to_vec())
    }

    fn ask(&self, request: &Value, more: &[&str]) -> Value {
        let output = self.client(request, more).run(LIMIT).unwrap();
        assert!(output.success(), "{request}: {output}{}", self.uplink.stderr());
        serde_json::from_str(&output.out()).unwrap()
    }

    fn join(&self, network: &Value, station: &Station) -> bool {
        let arguments = json!({ "network": network, "container": station.told(network) });
        self.ask(&json!({ "execute": "join", "arguments": arguments }), &[])["attached"].as_bool().unwrap()
    }

    fn attach(&self, network: &Value, tap: &str) {
        let arguments = json!({ "network_id": network["id"] });
        self.ask(&json!({ "execute": "attach", "arguments": arguments }), &[tap]);
    }

    fn leave(&self, network: &Value, station: &Station) -> u64 {
        let arguments = json!({ "network_id": network["id"], "container_id": station.id() });
        self.ask(&json!({ "execute": "leave", "arguments": arguments }), &[])["containers"].as_u64().unwrap()
    }

    /// Publishes; what the client printed.
    fn publish(&self, station: &Station, ports: &Value) -> Output {
        let arguments = json!({ "container_id": station.id(), "ports": ports });
        self.client(&json!({ "execute": "publish", "arguments": arguments }), &[]).run(LIMIT).unwrap()
    }

    fn status(&self) -> Value {
        self.ask(&json!({ "execute": "status" }), &[])
    }

    /// The process of the only network.
    fn worker(&self) -> u32 {
        self.status()["networks"][0]["pid"].as_u64().unwrap().try_into().unwrap()
    }

    /// A namespace with address number `n` of the networks behind the bridge.
    fn station(&self, n: u8) -> Station {
        let script = "set -e; ip link set lo up; echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad
            echo '0 0' > /proc/sys/net/ipv4/ping_group_range 2>/dev/null || :; echo ready; exec cat";
        let mut holder = self.netns.cmd(["unshare", "--net", "sh", "-c", script]).start().unwrap();
        holder.until(START, |running| running.stdout().contains("ready")).unwrap();
        let pid = holder.pid().to_string();
        let station = Station { holder, n };
        let veth = format!(
            "set -e; ip link add veth{n} type veth peer name eth0 netns {pid}; ip link set veth{n} master br0 up"
        );
        self.netns.cmd(["sh", "-c", &veth]).ok(LIMIT).unwrap();
        let up = format!(
            "set -e; ip address add 10.89.0.{n}/24 dev eth0; ip address add fd00:89::{n}/64 dev eth0 nodad
             ip link set eth0 up; ip route add default via 10.89.0.1; ip -6 route add default via fd00:89::1"
        );
        self.inside(&station, ["sh", "-c", &up]).ok(LIMIT).unwrap();
        station
    }

    /// A command in a container.
    fn inside<'w>(&self, station: &Station, words: impl IntoIterator<Item = &'w str>) -> Cmd {
        let pid = station.holder.pid().to_string();
        self.netns.cmd(["nsenter", "--target", &pid, "--net"]).args(words)
    }

    fn sh(&self, station: &Station, script: &str) -> Output {
        self.inside(station, ["sh", "-c", script]).run(LIMIT).unwrap()
    }

    /// A TCP server on port 80 of a container that tells its clients who they are.
    fn serve(&self, station: &Station) -> Running {
        Running::server(self.inside(station, ["ncat", "-l", "-k", "80", "-c", SHOW_PEER]), "tcp", 80).unwrap()
    }

    /// What a client in world is told by a server behind a port of the host.
    fn peer_seen(&self, host: &str, port: u16) -> String {
        let port = port.to_string();
        let output = self.lab.world(["ncat", "--recv-only", "-w", "8", host, &port]).run(LIMIT).unwrap();
        output.out().trim().to_owned()
    }

    /// One network with one container, served.
    fn with_one(&self) -> Station {
        let station = self.station(2);
        assert!(!self.join(&network(), &station));
        self.attach(&network(), "tap0");
        assert!(self.join(&network(), &station));
        station
    }
}

fn start(lab: &Lab, options: &[&str]) -> Running {
    lab.host([&lab.program("slipway"), "uplink", "-v"]).args(options.to_vec()).start().unwrap()
}

impl Station {
    fn id(&self) -> String {
        format!("c{}", self.n)
    }

    /// For `join`.
    fn told(&self, network: &Value) -> Value {
        let n = self.n;
        let subnets = network["subnets"].as_array().unwrap();
        let ends = subnets.iter().map(|subnet| {
            let gateway = subnet["gateway"].as_str().unwrap();
            format!("{}{n}", gateway.strip_suffix('1').unwrap())
        });
        json!({ "id": self.id(), "name": format!("name{n}"), "names": [format!("alias{n}"), "all"],
                "addresses": ends.collect::<Vec<_>>() })
    }
}

/// An executable script.
fn script(path: &std::path::Path, text: &str) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}
