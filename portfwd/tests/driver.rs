//! The table and the API on a real event loop, with a guest that never answers.
#![expect(clippy::unwrap_used, reason = "helpers of a test may panic too")]

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use slipway_host::device::{Link, Seqpacket};
use slipway_host::driver::Driver;
use slipway_host::inside::Side;
use slipway_netstack::Engine;
use slipway_netstack::addr::MacAddr;
use slipway_netstack::clock::Instant;
use slipway_netstack::config::{Config, Keys};
use slipway_netstack::device::Capabilities;
use slipway_netstack::ip::plan::Plan;
use slipway_netstack::ip::plan::slirp::{Ipv4Config, Slirp};
use slipway_portfwd::api::pesto;
use slipway_portfwd::api::slirp::Server;
use slipway_portfwd::rule::passt::Capabilities as Can;
use slipway_portfwd::table::Policy;
use slipway_portfwd::{Rule, Table};
use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

const API: u32 = 1;
const RULES: u32 = 1000;

fn config() -> Config {
    let v4 = Ipv4Config::slirp("10.0.2.0/24".parse().unwrap());
    let mac = MacAddr::of_gateway(v4.gateway.into());
    let v4 = Some(Ipv4Config { dns: None, dhcp: None, ..v4 });
    Config {
        plan: Plan::slirp(mac, &Slirp { v4, v6: None, host_loopback: true, internal: false }),
        ..Config::new(
            mac,
            Keys { flow_hash: [1; 16], isn: [2; 16], others: [3; 16] },
            Capabilities::default(),
        )
    }
}

struct World {
    driver: Driver,
    table: Table,
    server: Server,
    now: Instant,
    _guest: OwnedFd,
    dir: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let (ours, guest) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags).unwrap();
        let link = Link::from(Seqpacket::from_owned_fd(ours));
        let mut driver = Driver::new(Engine::new(config()), link).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let server = Server::bind(&dir.path().join("api.sock"), API, |_| {}).unwrap();
        server.start(&mut driver).unwrap();
        Self { driver, table: Table::new(RULES..RULES + 100), server, now: Instant::ZERO, _guest: guest, dir }
    }

    fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(self.dir.path().join("api.sock")).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        stream
    }

    /// A few rounds; the driver sleeps at most 20 ms in each.
    fn rounds(&mut self) {
        for _ in 0..5 {
            let deadline = slipway_host::clock::now() + Duration::from_millis(20);
            let ready = self.driver.turn(Some(deadline)).unwrap().to_vec();
            for event in ready {
                if self.table.owns(event.token) {
                    self.table.on_ready(event.token, self.now, &mut self.driver);
                } else if self.server.owns(event.token) {
                    self.server.on_ready(event.token, self.now, &mut self.table, &mut self.driver);
                }
            }
        }
    }

    fn ask(&mut self, request: &str) -> String {
        let mut client = self.connect();
        client.write_all(request.as_bytes()).unwrap();
        self.rounds();
        let mut reply = String::new();
        client.read_to_string(&mut reply).unwrap();
        reply
    }
}

#[test]
fn silent_api_clients_hold_up_neither_others_nor_forwarded_clients() {
    let mut world = World::new();
    let _silent: Vec<_> = (0..10).map(|_| world.connect()).collect();
    world.rounds();
    let rule: Rule = "127.0.0.1::80".parse().unwrap();
    let tcp = world.table.add(rule, &mut world.driver).unwrap();
    let rule: Rule = "127.0.0.1::53/udp".parse().unwrap();
    let udp = world.table.add(rule, &mut world.driver).unwrap();
    let at = |world: &World, id| world.table.get(id).unwrap().endpoints().next().unwrap().0;
    let _client = TcpStream::connect(at(&world, tcp)).unwrap();
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.send_to(b"question", at(&world, udp)).unwrap();
    let list = world.ask(r#"{"execute":"list_hostfwd"}"#);
    assert!(list.contains(r#""guest_addr":"10.0.2.100","guest_port":53"#), "{list}");
    for id in [tcp, udp] {
        let counters = world.table.get(id).unwrap().counters;
        assert_eq!(counters.accepted + counters.refused, 1, "{counters:?}");
    }
    assert_eq!(world.ask(r#"{"execute":"remove_hostfwd","arguments":{"id":1}}"#), r#"{"return":{}}"#);
    assert_eq!(world.table.list().count(), 1);
}

/// A conversation holds on to the socket that its answers leave through: while it did so, nobody could have the port.
#[test]
fn the_port_of_a_removed_udp_rule_is_free_at_once() {
    let mut world = World::new();
    let rule: Rule = "127.0.0.1::53/udp".parse().unwrap();
    let stays = world.table.add(rule, &mut world.driver).unwrap();
    let gone = world.table.add(rule, &mut world.driver).unwrap();
    let at = |world: &World, id| world.table.get(id).unwrap().endpoints().next().unwrap().0;
    let (port, client) = (at(&world, gone), UdpSocket::bind("127.0.0.1:0").unwrap());
    for id in [stays, gone] {
        client.send_to(b"question", at(&world, id)).unwrap();
    }
    world.rounds();
    assert_eq!(world.driver.peek_engine().flow_count(), 2);
    world.table.remove(gone, &mut world.driver).unwrap();
    assert_eq!(world.driver.peek_engine().flow_count(), 1, "the conversations of other rules go on");
    UdpSocket::bind(port).unwrap();
}

/// The original's `pesto`: the words of `SLIPWAY_PESTO` (a loader and its options may stand before the program), or the
/// one that is installed.
fn stock_pesto() -> Option<Vec<String>> {
    let words = std::env::var("SLIPWAY_PESTO").ok().filter(|words| !words.is_empty());
    let words = words.unwrap_or_else(|| "pesto".to_owned());
    let words: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
    let said = Command::new(&words[0]).args(&words[1..]).arg("--version").output().ok()?;
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    (said.starts_with("pesto ") && !said.contains("slipway")).then_some(words)
}

fn start(words: &[String], args: &[&str]) -> Child {
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Serves until these programs have ended, and everything that they left behind is looked at.
fn serve(world: &mut World, server: &mut pesto::Server, children: Vec<Child>) -> Vec<Output> {
    let mut children: Vec<_> = children.into_iter().map(Some).collect();
    let mut outputs: Vec<Option<Output>> = children.iter().map(|_| None).collect();
    let mut quiet = 0;
    for _ in 0..1000 {
        let deadline = slipway_host::clock::now() + Duration::from_millis(20);
        let ready = world.driver.turn(Some(deadline)).unwrap().to_vec();
        quiet = if ready.is_empty() { quiet + 1 } else { 0 };
        for event in ready {
            if world.table.owns(event.token) {
                world.table.on_ready(event.token, world.now, &mut world.driver);
            } else if server.owns(event.token) {
                server.on_ready(event.token, world.now, &mut world.table, &mut world.driver);
            }
        }
        for (child, output) in children.iter_mut().zip(&mut outputs) {
            if child.as_mut().is_some_and(|child| child.try_wait().unwrap().is_some()) {
                *output = child.take().map(|child| child.wait_with_output().unwrap());
            }
        }
        if outputs.iter().all(Option::is_some) && quiet > 2 {
            break;
        }
    }
    assert!(outputs.iter().all(Option::is_some), "all have ended");
    outputs.into_iter().flatten().collect()
}

fn text(output: &Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    format!("{} {out}{err}", output.status.code().unwrap_or(-1))
}

#[test]
fn the_originals_pesto_shows_and_changes_our_rules() {
    let Some(words) = stock_pesto() else {
        println!("SKIP the_originals_pesto_shows_and_changes_our_rules: no pesto of passt 2026 here");
        return;
    };
    let mut world = World::new();
    world.table.set_policy(Policy::passt(200));
    let path = world.dir.path().join("pesto.sock");
    let socket = path.to_str().unwrap();
    let can = Can { ipv6: false, ..Can::ALL };
    let mut server = pesto::Server::bind(&path, 500, [(Side::Host, can), (Side::Namespace, can)]).unwrap();
    server.start(&mut world.driver).unwrap();
    let port =
        |at: u16| (at..at + 99).find(|p| std::net::TcpListener::bind(("127.0.0.7", *p)).is_ok()).unwrap();
    let (one, two) = (port(28_000), port(28_100));
    let spec = |port: u16| format!("127.0.0.7/{port}:80");
    let mut ask = |world: &mut World, args: &[&str]| {
        let child = start(&words, &[args, &[socket]].concat());
        serve(world, &mut server, vec![child]).first().map(text).unwrap_or_default()
    };
    assert_eq!(ask(&mut world, &[]), format!("0 passt/pasta configuration ({socket})\n  HOST\n  SPLICE\n"));
    assert_eq!(ask(&mut world, &["--add", "-t", &spec(one)]), "0 ");
    assert!(TcpStream::connect(("127.0.0.7", one)).is_ok());
    // What is in force and conflicts, it finds out for itself.
    let said = ask(&mut world, &["-A", "-t", &spec(one)]);
    assert!(said.starts_with("1 Forwarding configuration conflict: TCP [127.0.0.7]:"), "{said}");
    let shown = ask(&mut world, &["-s", "-A", "-u", "127.0.0.7/53053:10.0.2.100/53"]);
    assert!(shown.contains("    UDP [127.0.0.7]:53053  =>  10.0.2.100:53 \n"), "{shown}");
    let before = world.table.list().map(|info| info.id).next().unwrap();
    // Two that start together: neither change is lost.
    let args: [&[&str]; 2] = [&["-A", "-t", &spec(two)], &["-D", "-u", "127.0.0.7/53053:10.0.2.100/53"]];
    let both = args.map(|args| start(&words, &[args, &[socket]].concat()));
    for output in serve(&mut world, &mut server, both.into()) {
        assert_eq!(text(&output), "0 ");
    }
    let rules: Vec<_> = world.table.list().map(|info| (info.id, info.rule.to_string())).collect();
    assert_eq!(rules.len(), 2, "{rules:?}");
    assert_eq!(rules[0].0, before, "what was not changed is the same rule still");
    assert!(TcpStream::connect(("127.0.0.7", two)).is_ok());
}
