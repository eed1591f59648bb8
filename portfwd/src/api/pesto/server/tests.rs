use super::*;
use crate::api::pesto::Client;
use crate::api::pesto::client::ClientError;
use crate::fake::{FakeHost, own_address, own_port};
use crate::rule::passt::{Context, Forwards, RuleSet};
use crate::table::Policy;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

const API: u32 = 7;
const RULES: Range<u32> = 100..1000;
const ALL: Context = Context { can: Capabilities::ALL, ephemeral: (32_768, 60_999) };
const PATIENCE: Duration = Duration::from_secs(20);

struct World {
    host: FakeHost,
    table: Table,
    server: Server,
    now: Instant,
    dir: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let tables = [(Side::Host, Capabilities::ALL), (Side::Namespace, Capabilities::ALL)];
        let server = Server::bind(&dir.path().join("s"), API, tables).unwrap();
        let mut host = FakeHost { inside: true, ..FakeHost::new() };
        server.start(&mut host).unwrap();
        let mut table = Table::new(RULES);
        table.set_policy(Policy::passt(200));
        Self { host, table, server, now: Instant::ZERO, dir }
    }

    fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(self.dir.path().join("s")).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        stream
    }

    /// What becomes ready within so many milliseconds.
    fn round(&mut self, millis: u16) {
        for token in self.host.ready(millis) {
            if self.server.owns(token) {
                self.server.on_ready(token, self.now, &mut self.table, &mut self.host);
            } else {
                self.table.on_ready(token, self.now, &mut self.host);
            }
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        if self.server.next_deadline().is_some_and(|at| at <= self.now) {
            self.server.on_deadline(self.now, &mut self.host);
        }
    }

    /// Serves while others ask.
    fn while_others<T: Send>(&mut self, ask: impl FnOnce(&Path) -> T + Send) -> T {
        let path = self.dir.path().join("s");
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let asking = scope.spawn(|| {
                let answer = ask(&path);
                done.store(true, Ordering::Relaxed);
                answer
            });
            for _ in 0..2000 {
                if done.load(Ordering::Relaxed) {
                    break;
                }
                self.round(10);
            }
            asking.join().unwrap()
        })
    }

    fn add(&mut self, spec: &str) {
        for rule in rules(&[('t', spec)]).all() {
            self.table.add(rule, &mut self.host).unwrap();
        }
    }

    fn shown(&self) -> Vec<String> {
        self.table.list().map(|info| Draft::from(info.rule).to_string().trim_end().to_owned()).collect()
    }
}

fn rules(given: &[(char, &str)]) -> Forwards {
    let mut forwards = Forwards::default();
    for (option, spec) in given {
        forwards.apply(Verb::Add, *option, spec, &ALL).unwrap();
    }
    forwards
}

fn drafts(set: &RuleSet) -> Vec<Draft> {
    set.rules().iter().map(Draft::from).collect()
}

/// A port of the address of these tests that is free now; each caller asks for another.
fn free_port(test: u32) -> u16 {
    let from = own_port(test);
    (from..from + 500).find(|port| TcpListener::bind((own_address(9), *port)).is_ok()).unwrap()
}

/// Sends these tables to the server at `path`.
fn replace(path: &Path, tables: &[(u8, Vec<Draft>)]) -> Option<Status> {
    Client::connect(path, PATIENCE).unwrap().replace(tables).unwrap()
}

#[test]
fn a_client_reads_the_tables_and_replaces_them() {
    let own = own_address(9);
    let at = own.as_str();
    let mut world = World::new();
    let (one, two) = (free_port(1), free_port(2));
    world.add(&format!("{at}/{one}"));
    let new = drafts(&rules(&[('t', &format!("{at}/{two}:80")), ('u', &format!("{at}/{two}"))]).host);
    let across = drafts(&rules(&[('T', "1-65535,auto")]).namespace);
    let status = world.while_others(|path| {
        let client = Client::connect(path, PATIENCE).unwrap();
        let seen: Vec<_> =
            client.tables().iter().map(|table| (table.head.name.clone(), table.rules.len())).collect();
        assert_eq!(seen, [("HOST".to_owned(), 1), ("SPLICE".to_owned(), 0)]);
        client.replace(&[(1, new), (3, across)]).unwrap()
    });
    assert_eq!(status, Some(Status { done: true, text: String::new() }));
    assert_eq!(
        world.shown(),
        [
            format!("TCP [{at}]:{two}  =>  80"),
            format!("UDP [{at}]:{two}  =>  {two}"),
            "TCP [*]%lo:1-65535  =>  1-65535  (auto-scan)".to_owned()
        ]
    );
    assert!(TcpStream::connect((at, one)).is_err() && TcpStream::connect((at, two)).is_ok());
    // A table that is not named is empty afterwards.
    let status = world.while_others(|path| replace(path, &[]));
    assert_eq!((status.unwrap().done, world.shown().len()), (true, 0));
    assert_eq!(world.host.watched, 1, "the socket of the server");
}

#[test]
fn who_only_reads_changes_nothing() {
    let own = own_address(9);
    let at = own.as_str();
    let mut world = World::new();
    let port = free_port(3);
    world.add(&format!("{at}/{port}"));
    world.while_others(|path| drop(Client::connect(path, PATIENCE).unwrap()));
    world.round(1000);
    assert_eq!(world.shown().len(), 1);
    assert!(world.server.turn.is_none());
}

#[test]
fn two_that_change_something_at_once_lose_neither_change() {
    let own = own_address(9);
    let at = own.as_str();
    let mut world = World::new();
    let ports = [free_port(4), free_port(5), free_port(6)];
    let add = |path: &Path, port: u16| {
        let client = Client::connect(path, PATIENCE).unwrap();
        let mut all = client.tables()[0].rules.clone();
        // Time for others to read the same.
        thread::sleep(Duration::from_millis(100));
        all.extend(drafts(&rules(&[('t', &format!("{at}/{port}"))]).host));
        assert!(client.replace(&[(1, all)]).unwrap().unwrap().done);
    };
    world.while_others(|path| {
        thread::scope(|scope| ports.iter().for_each(|port| drop(scope.spawn(move || add(path, *port)))));
    });
    assert_eq!(world.shown().len(), 3);
}

#[test]
fn a_change_that_cannot_be_had_changes_nothing_and_says_why() {
    let own = own_address(9);
    let at = own.as_str();
    let mut world = World::new();
    let (ours, theirs) = (free_port(7), free_port(8));
    let _occupied = TcpListener::bind((at, theirs)).unwrap();
    world.add(&format!("{at}/{ours}"));
    let wish = |spec: String| vec![(1, drafts(&rules(&[('t', &spec)]).host))];
    let text = world.while_others(|path| replace(path, &wish(format!("{at}/{theirs}")))).unwrap();
    let port = format!("{at}/{theirs}");
    let expected = format!(
        "Listen failed for HOST TCP port {port}: Address already in use\nCouldn't listen on requested ports"
    );
    assert_eq!(text, Status { done: false, text: expected });
    // Twice the same: no command line says that, but bytes do.
    let mut twice = wish(format!("{at}/{ours}"));
    let again = twice[0].1[0];
    twice[0].1.push(again);
    let text = world.while_others(|path| replace(path, &twice)).unwrap().text;
    assert!(text.starts_with(&format!("Forwarding configuration conflict: TCP [{at}]:")), "{text}");
    let mut zero = wish("5".to_owned());
    zero[0].1[0].first = 0;
    let text = world.while_others(|path| replace(path, &zero)).unwrap().text;
    assert!(
        text.starts_with("Forwarding rule attempts to map from port 0\nUnable to add rule TCP [*]:0-5"),
        "{text}"
    );
    zero[0].1[0] = Draft { first: 9, last: 8, ..zero[0].1[0] };
    let text = world.while_others(|path| replace(path, &zero)).unwrap().text;
    assert!(text.starts_with("Forwarding rule has an impossible range of ports"), "{text}");
    assert_eq!(world.shown(), [format!("TCP [{at}]:{ours}  =>  {ours}")]);
    assert!(TcpStream::connect((at, ours)).is_ok());
}

#[test]
fn bytes_that_make_no_sense_end_the_turn_and_change_nothing() {
    let own = own_address(9);
    let at = own.as_str();
    let mut world = World::new();
    let port = free_port(9);
    world.add(&format!("{at}/{port}"));
    for bytes in [&[1, 255, 255, 255, 255][..], &[2], &[1, 0, 0, 0, 0, 1], &[9], &[1, 0, 0, 0, 1, 7]] {
        let mut client = world.connect();
        world.round(1000);
        client.write_all(bytes).unwrap();
        // The last one is merely cut off.
        client.shutdown(std::net::Shutdown::Write).unwrap();
        for _ in 0..3 {
            world.round(100);
        }
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).unwrap();
        assert!(world.server.turn.is_none(), "{bytes:?}");
        assert_eq!(world.shown().len(), 1, "{bytes:?}");
    }
    let mut client = world.connect();
    world.round(1000);
    client.write_all(&[7]).unwrap();
    world.round(1000);
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).unwrap();
    let text = String::from_utf8_lossy(&answer);
    assert!(text.ends_with("\u{1}there are no rules for place 7"), "{text}");
}

#[test]
fn who_is_silent_or_dawdles_loses_the_turn() {
    let mut world = World::new();
    let mut silent = world.connect();
    world.round(1000);
    assert_eq!(world.server.next_deadline(), Some(Instant::ZERO + GRACE));
    world.pass(GRACE);
    assert_eq!(world.server.next_deadline(), Some(Instant::ZERO + SILENCE));
    world.pass(SILENCE - GRACE - Duration::from_millis(1));
    assert!(world.server.turn.is_some());
    world.pass(Duration::from_millis(1));
    assert!(world.server.turn.is_none());
    let mut rest = Vec::new();
    silent.read_to_end(&mut rest).unwrap();
    // The next one has its turn, and says a byte now and then.
    let mut next = world.connect();
    world.round(1000);
    assert!(world.server.turn.is_some());
    let mut table = Vec::new();
    wire::new_table(1, &drafts(&rules(&[('t', "5")]).host), &mut table);
    for byte in table.iter().take(7) {
        world.pass(Duration::from_millis(1500));
        let _ = next.write_all(&[*byte]);
        world.round(50);
    }
    assert!(world.server.turn.is_none(), "seven bytes take longer than a turn");
    assert_eq!(world.shown().len(), 0);
}

#[test]
fn whoever_is_behind_a_queue_of_silent_clients_waits_for_about_a_second() {
    let own = own_address(9);
    let at = own.as_str();
    let mut world = World::new();
    let port = free_port(11);
    // As many as the kernel's queue takes beside one.
    let silent: Vec<_> = (0..60).map(|_| world.connect()).collect();
    let mut honest = world.connect();
    let mut wish = Vec::new();
    wire::new_table(1, &drafts(&rules(&[('t', &format!("{at}/{port}"))]).host), &mut wish);
    wish.push(0);
    // It may send before it has read; the others never do.
    honest.write_all(&wish).unwrap();
    let mut steps = 0;
    while world.shown().is_empty() {
        world.round(0);
        world.pass(Duration::from_millis(1));
        steps += 1;
        assert!(steps < 1100, "{steps} ms");
    }
    assert!(steps > 200, "nobody had a turn of a decent length");
    // Each of them loses its place 2 s after it was greeted, not after the others.
    world.pass(SILENCE);
    assert_eq!((world.server.reception.clients().count(), world.host.watched), (0, 2));
    drop(silent);
}

#[test]
fn a_change_that_comes_late_undoes_nothing() {
    let own = own_address(9);
    let at = own.as_str();
    let mut world = World::new();
    let [gone, late, other] = [free_port(12), free_port(13), free_port(14)];
    world.add(&format!("{at}/{gone}"));
    let mut slow = world.connect();
    world.round(1000);
    world.pass(GRACE);
    let add = |path: &Path| {
        let client = Client::connect(path, PATIENCE).unwrap();
        let mut all = client.tables()[0].rules.clone();
        all.extend(drafts(&rules(&[('t', &format!("{at}/{other}"))]).host));
        client.replace(&[(1, all)]).unwrap().unwrap()
    };
    assert!(world.while_others(add).done);
    // It has read one rule, which it does without, and wants another.
    let mut wish = Vec::new();
    wire::new_table(1, &drafts(&rules(&[('t', &format!("{at}/{late}"))]).host), &mut wish);
    wish.push(0);
    slow.write_all(&wish).unwrap();
    world.round(1000);
    let shown = [other, late].map(|port| format!("TCP [{at}]:{port}  =>  {port}"));
    assert_eq!(world.shown(), shown);
    // The same again, told of by two: once is enough.
    let all = rules(&[('t', "5"), ('t', "6")]).all().collect::<Vec<_>>();
    assert_eq!(rebased(&[], all.clone(), &all[..1]), all);
    assert_eq!(rebased(&all[..1], all[1..].to_vec(), &all), all[1..]);
    assert_eq!(rebased(&all, all.clone(), &all[1..]), all[1..]);
}

#[test]
fn a_client_that_does_not_read_is_not_waited_for() {
    let own = own_address(9);
    let at = own.as_str();
    let mut world = World::new();
    let port = free_port(10);
    world.add(&format!("{at}/{port}"));
    let client = world.connect();
    world.round(1000);
    drop(client);
    world.round(1000);
    assert!(world.server.turn.is_none());
    let port = TcpStream::connect((at, port)).unwrap();
    world.round(1000);
    assert_eq!(world.host.connections[0].1, port.local_addr().unwrap());
}

#[test]
fn a_table_of_255_rules_is_told_and_taken() {
    let own = own_address(9);
    let at = own.as_str();
    let mut world = World::new();
    let spec: Vec<_> = (0..255).map(|n| (26_000 + 2 * n).to_string()).collect();
    let all = rules(&[('t', &format!("{at}/{},auto", spec.join(",")))]);
    let sent = drafts(&all.host);
    let status = world.while_others(|path| replace(path, &[(1, sent)]));
    assert!(status.unwrap().done);
    let count = world.while_others(|path| Client::connect(path, PATIENCE).unwrap().tables()[0].rules.len());
    assert_eq!(count, 255);
}

#[test]
fn a_weak_rule_takes_half_of_the_descriptors_and_says_how_many_are_missing() {
    let own = own_address(9);
    let at = own.as_str();
    let mut world = World::new();
    let wish = |spec: &str| vec![(1, drafts(&rules(&[('t', spec)]).host))];
    let status = world.while_others(|path| replace(path, &wish(&format!("{at}/~1-65000")))).unwrap();
    assert!(status.done);
    let line =
        format!("435 ports could not be listened on: TCP [{at}]:65001-65535  =>  65001-65535  (best effort)");
    assert_eq!(status.text, line);
    let status = world.while_others(|path| replace(path, &wish(&format!("{at}/20001-20101")))).unwrap();
    let line = format!("Listen failed for HOST TCP port {at}/20101: Too many open files\n");
    assert!(!status.done && status.text.starts_with(&line), "{}", status.text);
}

#[test]
fn a_socket_path_where_a_server_answers_is_refused() {
    let world = World::new();
    let path = world.dir.path().join("s");
    let error = Server::bind(&path, API, []).unwrap_err();
    assert_eq!(error.to_string(), format!("Socket path {} already in use", path.display()));
    drop(world.server);
    Server::bind(&path, API, []).unwrap();
    let nobody = Client::connect(&world.dir.path().join("nobody"), PATIENCE).unwrap_err();
    assert!(matches!(nobody, ClientError::Connect(..)), "{nobody}");
}
