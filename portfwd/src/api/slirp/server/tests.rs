use super::*;
use crate::fake::FakeHost;
use crate::rule::Rule;
use std::io::Write;
use std::sync::Mutex;

const FIRST: u32 = 50;

/// A server at a path of its own, a table and a host.
struct World {
    _dir: tempfile::TempDir,
    path: PathBuf,
    server: Server,
    table: Table,
    host: FakeHost,
    now: Instant,
}

fn silent(_: Notice<'_>) {}

impl World {
    fn new() -> Self {
        Self::observed(silent)
    }

    fn observed(observer: fn(Notice<'_>)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("api.sock");
        let server = Server::bind(&path, FIRST, observer).unwrap();
        let mut host = FakeHost::v4_only();
        server.start(&mut host).unwrap();
        Self { _dir: dir, path, server, table: Table::new(1000..2000), host, now: Instant::ZERO }
    }

    fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(&self.path).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        stream
    }

    /// One round of whatever is ready within `millis`.
    fn round(&mut self, millis: u16) {
        for token in self.host.ready(millis) {
            assert!(self.server.owns(token));
            self.server.on_ready(token, self.now, &mut self.table, &mut self.host);
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        self.server.on_deadline(self.now, &mut self.table, &mut self.host);
    }

    fn busy(&self) -> usize {
        self.server.reception.clients().count()
    }

    /// Sends `request` in one piece without half-closing, and returns the reply.
    fn ask(&mut self, request: &str) -> String {
        let mut client = self.connect();
        client.write_all(request.as_bytes()).unwrap();
        self.round(1000);
        reply(&mut client)
    }
}

fn reply(client: &mut UnixStream) -> String {
    let mut text = String::new();
    client.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn add_list_remove() {
    let mut world = World::new();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let add = format!(
        "{{\"execute\":\"add_hostfwd\",\"arguments\":{{\"proto\":\"tcp\",\"host_addr\":\"127.0.0.1\",\
         \"host_port\":{free},\"guest_addr\":\"\",\"guest_port\":80}}}}\n"
    );
    assert_eq!(world.ask(&add), r#"{"return":{"id":1}}"#);
    let entry = format!(
        "{{\"id\":1,\"proto\":\"tcp\",\"host_addr\":\"127.0.0.1\",\"host_port\":{free},\
         \"guest_addr\":\"10.0.2.100\",\"guest_port\":80}}"
    );
    let list = format!("{{\"return\":{{\"entries\":[{entry}]}},\"entries\":[{entry}]}}");
    assert_eq!(world.ask(r#"{"execute":"list_hostfwd"}"#), list);
    let failed = r#"{"error":{"desc":"bad request: add_hostfwd: slirp_add_hostfwd failed"}}"#;
    assert_eq!(world.ask(&add), failed);
    let remove = r#"{"execute":"remove_hostfwd","arguments":{"id":1}}"#;
    assert_eq!(world.ask(remove), r#"{"return":{}}"#);
    let unknown = r#"{"error":{"desc":"bad request: remove_hostfwd: bad arguments.id"}}"#;
    assert_eq!(world.ask(remove), unknown);
    assert_eq!(world.ask(&add), r#"{"return":{"id":2}}"#);
}

#[test]
fn requests_are_answered_at_once_or_at_their_end() {
    let mut world = World::new();
    assert_eq!(world.ask("badjson\n"), r#"{"error":{"desc":"bad request: cannot parse JSON"}}"#);
    // In pieces.
    let mut client = world.connect();
    for piece in ["{\"execute\":", "\"list_", "hostfwd\"}"] {
        assert_eq!(world.table.list().count(), 0);
        client.write_all(piece.as_bytes()).unwrap();
        world.round(1000);
    }
    assert!(reply(&mut client).starts_with(r#"{"return":{"entries":[]}"#));
    // Ended before it is complete.
    let mut client = world.connect();
    client.write_all(b"{").unwrap();
    world.round(1000);
    assert_eq!(world.busy(), 1);
    client.shutdown(Shutdown::Write).unwrap();
    world.round(1000);
    assert_eq!(reply(&mut client), r#"{"error":{"desc":"bad request: cannot parse JSON"}}"#);
    assert_eq!((world.busy(), world.host.watched), (0, 1));
}

#[test]
fn an_endless_client_is_told_so() {
    let mut world = World::new();
    let mut client = world.connect();
    client.write_all(&[0; 20_000]).unwrap();
    world.round(1000);
    let mut buffer = [0; 200];
    let count = client.read(&mut buffer).unwrap();
    let text = std::str::from_utf8(&buffer[..count]).unwrap();
    assert_eq!(text, r#"{"error":{"desc":"bad request: too large message"}}"#);
}

#[test]
fn a_silent_client_blocks_nobody() {
    let mut world = World::new();
    let mut silent = world.connect();
    world.round(1000);
    assert_eq!(world.server.next_deadline(), Some(Instant::ZERO + PATIENCE));
    assert!(world.ask(r#"{"execute":"list_hostfwd"}"#).contains("entries"));
    world.pass(PATIENCE - Duration::from_micros(1));
    assert_eq!(world.busy(), 1);
    world.pass(Duration::from_micros(1));
    assert_eq!((world.busy(), world.server.next_deadline()), (0, None));
    assert_eq!(reply(&mut silent), r#"{"error":{"desc":"bad request: cannot parse JSON"}}"#);
}

#[test]
fn many_silent_clients_give_way_the_oldest_first() {
    let mut world = World::new();
    let mut crowd = Vec::new();
    for _ in 0..SLOTS + 3 {
        crowd.push(world.connect());
        world.now = world.now + Duration::from_millis(1);
        world.round(1000);
    }
    assert_eq!(world.busy(), usize::try_from(SLOTS).unwrap());
    assert_eq!(world.host.watched, world.busy() + 1);
    for dropped in &mut crowd[..3] {
        assert_eq!(reply(dropped), "");
    }
    assert!(world.ask(r#"{"execute":"list_hostfwd"}"#).contains("entries"));
    crowd[3].write_all(br#"{"execute":"list_hostfwd"}"#).unwrap();
    world.round(1000);
    assert!(reply(&mut crowd[3]).contains("entries"));
}

#[test]
fn a_client_that_leaves_is_forgotten() {
    let mut world = World::new();
    let waiting = world.connect();
    world.round(1000);
    assert_eq!(world.busy(), 1);
    drop(waiting);
    world.round(1000);
    assert_eq!((world.busy(), world.host.watched), (0, 1));
    let mut hasty = world.connect();
    hasty.write_all(br#"{"execute":"list_hostfwd"}"#).unwrap();
    drop(hasty);
    world.round(1000);
    assert_eq!((world.busy(), world.host.watched), (0, 1));
}

#[test]
fn every_port_of_a_range_is_listed() {
    let mut world = World::new();
    let rule: Rule = "127.0.0.1::1-300/udp".parse().unwrap();
    world.table.add(rule, &mut world.host).unwrap();
    let list: serde_json::Value = serde_json::from_str(&world.ask(r#"{"execute":"list_hostfwd"}"#)).unwrap();
    assert_eq!(list["entries"].as_array().unwrap().len(), 300);
    assert_eq!(list["return"]["entries"], list["entries"]);
}

#[test]
fn a_reply_longer_than_the_socket_buffer_arrives_whole() {
    let mut world = World::new();
    let (stream, mut client) = UnixStream::pair().unwrap();
    stream.set_nonblocking(true).unwrap();
    let long: Vec<u8> = (0..=250).cycle().take(2_000_000).collect();
    let mut writing =
        Client { stream, received: Vec::new(), reply: long.clone(), deadline: Instant::ZERO + PATIENCE };
    assert!(matches!(writing.write(), Next::Wait(Interest::WRITE)), "it did not fill the buffer");
    let place = world.server.reception.admit(writing, Interest::WRITE, |_| (), &mut world.host);
    assert_eq!(place, Some(0));
    client.set_nonblocking(true).unwrap();
    let (mut text, mut buffer) = (Vec::new(), [0; 65536]);
    for _ in 0..1000 {
        match client.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => text.extend_from_slice(&buffer[..count]),
            Err(_) => world.round(10),
        }
    }
    assert!(text == long);
    assert_eq!(world.busy(), 0);
}

#[test]
fn a_path_that_is_too_long_has_the_words_of_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    let fill = |len: usize| dir.path().join("x".repeat(len - dir.path().as_os_str().len() - 1));
    let error = Server::bind(&fill(108), FIRST, silent).unwrap_err();
    assert_eq!(error.to_string(), "the specified API socket path is too long (>= 108)");
    Server::bind(&fill(107), FIRST, silent).unwrap();
}

#[test]
fn what_was_left_at_the_path_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("api.sock");
    drop(Server::bind(&path, FIRST, silent).unwrap());
    assert!(path.exists());
    Server::bind(&path, FIRST, silent).unwrap();
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "an ordinary file").unwrap();
    let _server = Server::bind(&path, FIRST, silent).unwrap();
    UnixStream::connect(&path).unwrap();
    let error = Server::bind(dir.path(), FIRST, silent).unwrap_err();
    assert!(matches!(error, BindError::Unlink { .. }), "{error}");
    let error = Server::bind(&dir.path().join("none/api.sock"), FIRST, silent).unwrap_err();
    assert!(matches!(error, BindError::Bind { .. }), "{error}");
}

static SEEN: Mutex<Vec<String>> = Mutex::new(Vec::new());

#[test]
fn the_observer_hears_more_than_the_client() {
    fn note(notice: Notice<'_>) {
        let text = match notice {
            Notice::Connected => "connected".to_owned(),
            Notice::Request(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Notice::Refused(reason) => reason.to_owned(),
        };
        SEEN.lock().unwrap().push(text);
    }
    let mut world = World::observed(note);
    let occupied = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = occupied.local_addr().unwrap().port();
    let request = format!(
        r#"{{"execute":"add_hostfwd","arguments":{{"proto":"tcp","host_addr":"127.0.0.1","host_port":{port},"guest_port":80}}}}"#
    );
    world.ask(&request);
    let seen = SEEN.lock().unwrap();
    assert_eq!(seen[0], "connected");
    assert_eq!(seen[1], request);
    assert!(seen[2].contains("Address already in use"), "{}", seen[2]);
    assert_eq!(seen[3], "bad request: add_hostfwd: slirp_add_hostfwd failed");
}
