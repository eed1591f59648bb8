use super::*;
use crate::fake::{FakeHost, own_address, own_port};
use crate::forwarder::Connection;
use crate::rule::passt::Capabilities;
use crate::table::Policy;
use nix::sys::socket::{AddressFamily, SockFlag, UnixAddr, connect, socket};
use serde_json::Value;
use slipway_host::inside::Side;
use slipway_host::splice::{self, Conversation};
use slipway_netstack::FlowId;
use slipway_netstack::listing::FlowInfo;
use std::net::{TcpListener, TcpStream};

const API: u32 = 7;
const RULES: Range<u32> = 100..1000;
const ALL: Context = Context { can: Capabilities::ALL, ephemeral: (32_768, 60_999) };

struct World {
    host: FakeHost,
    table: Table,
    server: Server,
    dir: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let server = Server::bind(&dir.path().join("c"), API, ALL).unwrap();
        let mut host = FakeHost { inside: true, ..FakeHost::new() };
        server.start(&mut host).unwrap();
        let mut table = Table::new(RULES);
        table.set_policy(Policy::passt(1000));
        Self { host, table, server, dir }
    }

    fn connect(&self) -> OwnedFd {
        let fd = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).unwrap();
        connect(fd.as_raw_fd(), &UnixAddr::new(&self.dir.path().join("c")).unwrap()).unwrap();
        fd
    }

    fn round(&mut self, millis: u16) {
        for token in self.host.ready(millis) {
            if self.server.owns(token) {
                self.server.on_ready(token, Instant::ZERO, &mut self.table, &mut self.host);
            } else {
                self.table.on_ready(token, Instant::ZERO, &mut self.host);
            }
        }
    }

    fn send(&mut self, client: &OwnedFd, request: &Value) {
        let text = request.to_string();
        send(client.as_raw_fd(), text.as_bytes(), MsgFlags::empty()).unwrap();
    }

    fn reply(&mut self, client: &OwnedFd) -> Value {
        let mut packet = vec![0; 1 << 18];
        for _ in 0..100 {
            match recv(client.as_raw_fd(), &mut packet, MsgFlags::MSG_DONTWAIT) {
                Err(Errno::EAGAIN) => self.round(50),
                len => return serde_json::from_slice(&packet[..len.unwrap()]).unwrap(),
            }
        }
        panic!("no reply");
    }

    fn ask(&mut self, client: &OwnedFd, request: &Value) -> Value {
        self.send(client, request);
        self.reply(client)
    }
}

fn add(rules: &[Value]) -> Value {
    json!({ "execute": "add", "arguments": { "rules": rules } })
}

/// So many ports in a row of this test's own address that are free now.
fn free(address: &str, from: u16, count: u16) -> u16 {
    let free = |port: u16| TcpListener::bind((address, port)).is_ok();
    (from..from + 900).step_by(3).find(|first| (*first..first + count).all(free)).unwrap()
}

#[test]
fn rules_are_added_listed_and_removed_by_many_clients() {
    let mut world = World::new();
    let own = own_address(41);
    let at = own.as_str();
    let first = free(at, own_port(0), 3);
    let (one, two) = (world.connect(), world.connect());
    let range = json!({ "option": "t", "spec": format!("{at}/{first},{}:80", first + 2) });
    let reply = world.ask(&one, &add(&[range, json!({ "listen": at, "ports": first + 1 })]));
    assert_eq!(reply, json!({ "return": { "ids": [[1, 2], [3]] } }));
    let _client = TcpStream::connect((at, first + 2)).unwrap();
    world.round(1000);
    let listed = world.ask(&two, &json!({ "execute": "list", "arguments": { "after": 1 } }));
    let expected = json!({ "side": "host", "proto": "tcp", "listen": at, "interface": null, "ports": [first + 2, first + 2],
        "to": 80, "target": null, "best_effort": false, "auto": false, "id": 2, "listening": 1, "missing": 0,
        "accepted": 1, "refused": 0 });
    assert_eq!(listed["return"]["rules"][0], expected);
    assert_eq!(listed["return"]["rules"].as_array().unwrap().len(), 2);
    assert_eq!(listed["return"]["more"], false);
    let remove = |ids: &[u64]| json!({ "execute": "remove", "arguments": { "ids": ids } });
    let refused = world.ask(&two, &remove(&[1, 9]));
    assert_eq!(refused, json!({ "error": "there is no rule of this id", "errno": 2, "entry": 1 }));
    assert_eq!(world.ask(&two, &remove(&[1, 3, 3])), json!({ "return": {} }));
    assert_eq!(world.table.list().map(|info| info.id.get()).collect::<Vec<_>>(), [2]);
}

#[test]
fn a_batch_is_whole_or_nothing() {
    let mut world = World::new();
    let own = own_address(42);
    let at = own.as_str();
    let first = free(at, own_port(1), 3);
    let client = world.connect();
    let port = |port: u16| json!({ "listen": at, "ports": port });
    world.ask(&client, &add(&[port(first)]));
    let occupied = TcpListener::bind((at, first + 2)).unwrap();
    let refused = world.ask(&client, &add(&[port(first + 1), port(first + 2)]));
    let text = format!("Listen failed for HOST TCP port {at}/{}: Address already in use", first + 2);
    assert_eq!(refused, json!({ "error": text, "errno": 98, "entry": 1 }));
    let conflict = world.ask(&client, &add(&[port(first + 1), port(first)]));
    assert_eq!((&conflict["errno"], &conflict["entry"]), (&json!(98), &json!(1)));
    let replace =
        json!({ "execute": "replace", "arguments": { "rules": [port(first + 1), port(first + 2)] } });
    assert_eq!(world.ask(&client, &replace), json!({ "error": text, "errno": 98, "entry": 1 }));
    assert!(TcpStream::connect((at, first)).is_ok() && TcpStream::connect((at, first + 1)).is_err());
    drop(occupied);
    assert_eq!(world.ask(&client, &replace)["return"]["ids"].as_array().unwrap().len(), 2);
    assert!(TcpStream::connect((at, first)).is_err() && TcpStream::connect((at, first + 1)).is_ok());
}

#[test]
fn a_hundred_rules_come_and_go_one_by_one_and_no_other_notices() {
    let mut world = World::new();
    let own = own_address(43);
    let at = own.as_str();
    let first = free(at, own_port(2), 101);
    let client = world.connect();
    let rule = |port: u16| add(&[json!({ "listen": at, "ports": port })]);
    world.ask(&client, &rule(first));
    let mut clients = Vec::new();
    let mut ids = Vec::new();
    for n in 1..=100 {
        ids.push(world.ask(&client, &rule(first + n))["return"]["ids"][0][0].clone());
        clients.push(TcpStream::connect((at, first)).unwrap());
    }
    for id in ids {
        world.ask(&client, &json!({ "execute": "remove", "arguments": { "ids": [id] } }));
        clients.push(TcpStream::connect((at, first)).unwrap());
    }
    for _ in 0..20 {
        world.round(10);
    }
    assert_eq!((world.host.connections.len(), world.table.list().count()), (200, 1));
}

#[test]
fn a_long_list_comes_in_portions() {
    let mut world = World::new();
    let client = world.connect();
    let spec: Vec<_> = (1..=230).map(|n| (2 * n).to_string()).collect();
    let rules = json!({ "option": "T", "spec": format!("{},auto", spec.join(",")) });
    assert_eq!(world.ask(&client, &add(&[rules]))["return"]["ids"][0].as_array().unwrap().len(), 230);
    let (mut after, mut seen) = (json!(0), 0);
    for more in [true, true, false] {
        let reply = world.ask(&client, &json!({ "execute": "list", "arguments": { "after": after } }));
        let rules = reply["return"]["rules"].as_array().unwrap().clone();
        seen += rules.len();
        assert_eq!(reply["return"]["more"], more);
        after = rules.last().unwrap()["id"].clone();
    }
    assert_eq!(seen, 230);
}

#[test]
fn connections_by_the_link_and_by_the_shortcut_are_in_one_list() {
    let mut world = World::new();
    let flow = |place| FlowInfo {
        id: FlowId::new(place, 9),
        protocol: "tcp",
        guest: "10.0.2.100:4000".parse().unwrap(),
        peer: "192.0.2.1:443".parse().unwrap(),
        state: "established",
        memory: 0,
        window: 0,
    };
    let spliced = Conversation {
        id: 5,
        proto: splice::Proto::Udp,
        side: Side::Namespace,
        client: "127.0.0.1:5000".parse().unwrap(),
        server: "127.0.0.1:53".parse().unwrap(),
        up: 7,
        down: 8,
    };
    let flows = (0..300).map(|place| Connection::Link(flow(place)));
    world.host.under_way = flows.chain([Connection::Shortcut(spliced)]).collect();
    let client = world.connect();
    let mut seen = Vec::new();
    for more in [true, false] {
        let after = seen.last().map_or_else(|| json!(0), |last: &Value| last["id"].clone());
        let reply = world.ask(&client, &json!({ "execute": "connections", "arguments": { "after": after } }));
        assert_eq!(reply["return"]["more"], more);
        seen.extend(reply["return"]["connections"].as_array().unwrap().clone());
    }
    assert_eq!(seen.len(), 301);
    let first = json!({ "id": 1, "by": "link", "proto": "tcp", "guest": "10.0.2.100:4000", "peer": "192.0.2.1:443",
        "state": "established" });
    let last = json!({ "id": (1u64 << 40) + 5, "by": "shortcut", "proto": "udp", "side": "namespace",
        "client": "127.0.0.1:5000", "server": "127.0.0.1:53", "up": 7, "down": 8 });
    assert_eq!((&seen[0], &seen[300]), (&first, &last));
    let refused = world.ask(&client, &json!({ "execute": "connections", "arguments": { "after": -1 } }));
    assert_eq!(refused["error"], "after is an id");
}

#[test]
fn who_reads_nothing_holds_nobody_up() {
    let mut world = World::new();
    let (deaf, other) = (world.connect(), world.connect());
    let list = json!({ "execute": "list" }).to_string();
    for _ in 0..10_000 {
        match send(deaf.as_raw_fd(), list.as_bytes(), MsgFlags::MSG_DONTWAIT) {
            Ok(_) => {}
            Err(Errno::EAGAIN) => world.round(0),
            Err(errno) => panic!("{errno}"),
        }
    }
    let reply = world.ask(&other, &json!({ "execute": "list" }));
    assert_eq!(reply["return"]["more"], false);
    assert!(world.server.reception.clients().any(|client| client.reply.is_some()));
    for _ in 0..50 {
        world.reply(&deaf);
    }
}

#[test]
fn strangers_get_an_answer_and_the_quietest_gives_way() {
    let mut world = World::new();
    let first = world.connect();
    world.round(1000);
    for bytes in [&b"nonsense"[..], b"{", &[255; 9], &vec![b' '; MAX_REQUEST + 1]] {
        send(first.as_raw_fd(), bytes, MsgFlags::empty()).unwrap();
        assert_eq!(world.reply(&first)["errno"], 22);
    }
    let others: Vec<_> = (0..SLOTS).map(|_| world.connect()).collect();
    for _ in 0..8 {
        world.round(50);
    }
    assert_eq!(recv(first.as_raw_fd(), &mut [0], MsgFlags::MSG_DONTWAIT), Ok(0), "it was silent longest");
    let reply = world.ask(&others[31], &json!({ "execute": "list" }));
    assert_eq!(reply["return"]["rules"], json!([]));
    let path = world.dir.path().join("c");
    let error = Server::bind(&path, API, ALL).unwrap_err();
    assert_eq!(error.to_string(), format!("Socket path {} already in use", path.display()));
}
