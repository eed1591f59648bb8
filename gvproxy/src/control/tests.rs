//! The process itself, beside a packets process without packets.

mod fronts;

use super::*;
use crate::orders::fake::Fake;
use crate::orders::{Desk, Standing};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use slipway_host::clock;
use slipway_host::sandbox::trial;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// How long a test waits for what must come.
const SOON: Duration = Duration::from_secs(20);

/// A control process, and a thread that is its packets process.
struct Office {
    state: Arc<Mutex<(Desk, Fake)>>,
    over: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
    dir: tempfile::TempDir,
}

impl Office {
    fn open(settings: Settings) -> Self {
        let desk = Desk::new(Some(fork(settings).unwrap()));
        let state = Arc::new(Mutex::new((desk, Fake::default())));
        let over = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let (state, over) = (Arc::clone(&state), Arc::clone(&over));
            move || {
                while !over.load(Ordering::Relaxed) {
                    let (desk, network) = &mut *state.lock().unwrap();
                    if !matches!(desk.on_ready(network), Standing::Up) {
                        return;
                    }
                    let Some(fd) = desk.fd() else { return };
                    let mut fds = [PollFd::new(fd, PollFlags::POLLIN)];
                    poll(&mut fds, PollTimeout::from(1_u8)).unwrap();
                }
            }
        });
        Self { state, over, thread: Some(thread), dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn with<T>(&self, work: impl FnOnce(&mut Desk, &mut Fake) -> T) -> T {
        let (desk, network) = &mut *self.state.lock().unwrap();
        work(desk, network)
    }

    /// An API socket.
    fn listen(&self, name: &str, door: Door) -> PathBuf {
        let path = self.path(name);
        let listener = UnixListener::bind(&path).unwrap();
        listener.set_nonblocking(true).unwrap();
        self.with(|desk, _| desk.listen(door, listener.into(), Some(path.clone())));
        path
    }

    /// A guest's connection to gateway:80.
    fn guest(&self, address: &str) -> UnixStream {
        let (ours, theirs) = UnixStream::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        self.with(|desk, _| desk.client(address.parse().unwrap(), theirs.into()));
        ours
    }

    /// Ends the packets process.
    fn close(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
        self.with(|desk, _| *desk = Desk::new(None));
    }
}

impl Drop for Office {
    fn drop(&mut self) {
        self.close();
    }
}

/// Sends a request and reads the answer to the end of the connection.
fn answer(mut stream: UnixStream, request: &str) -> String {
    stream.set_read_timeout(Some(SOON)).unwrap();
    // One that is refused early is not read to its end.
    let _ = stream.write_all(request.as_bytes());
    let mut text = Vec::new();
    let _ = stream.read_to_end(&mut text);
    String::from_utf8(text).unwrap()
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
}

fn post(path: &str, body: &str) -> String {
    let length = body.len();
    format!("POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}")
}

/// Status and body.
fn asked(at: &Path, request: &str) -> (u16, String) {
    parts(&answer(UnixStream::connect(at).unwrap(), request))
}

fn parts(text: &str) -> (u16, String) {
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{text:?}"));
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let begun = clock::now();
    while !done() {
        assert!(clock::now() - begun < SOON, "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn each_door_has_its_paths() {
    let zones = slipway_dns::config::gvproxy::default_zones(
        "192.168.127.1".parse().unwrap(),
        "192.168.127.254".parse().unwrap(),
    );
    let office = Office::open(Settings { zones, ..Settings::default() });
    let (whole, services) = (office.listen("api", Door::Whole), office.listen("services", Door::Services));
    let guest = |request: &str| parts(&answer(office.guest("192.168.127.2:40000"), request));
    let leases = "{\"192.168.127.1\":\"01:01:01:01:01:01\",\"192.168.127.2\":\"02:02:02:02:02:02\"}\n";
    for at in [&whole, &services] {
        for path in ["/leases", "/services/dhcp/leases"] {
            assert_eq!(asked(at, &get(path)), (200, leases.to_owned()));
        }
        let cam = "{\"02:00:00:00:00:01\":0,\"09:09:09:09:09:09\":1}\n";
        assert_eq!(asked(at, &get("/cam")).1, cam);
        let stats = asked(at, &get("/stats")).1;
        assert!(stats.starts_with("{\"BytesSent\":7,") && stats.contains("\"ForwardMaxInFlightDrop\":0"));
        let zones = asked(at, &get("/services/dns/all")).1;
        assert!(zones.starts_with("[{\"Name\":\"containers.internal.\",\"Records\":[{\"Name\":\"gateway\""));
        assert_eq!(asked(at, &get("/tunnel?port=1")), (500, "ip is mandatory\n".into()));
        let port = "strconv.Atoi: parsing \"\": invalid syntax\n";
        assert_eq!(asked(at, &get("/tunnel?ip=1.2.3.4")), (500, port.into()));
    }
    assert_eq!(asked(&services, &post("/connect", "")).0, 404);
    for path in ["/leases", "/cam", "/stats", "/services/dns/all", "/tunnel?ip=1.2.3.4&port=1", "/connect"] {
        assert_eq!(guest(&get(path)), (404, "404 page not found\n".into()), "{path}");
    }
    assert_eq!(guest(&get("/services/forwarder/all")), (200, "[]\n".into()));
    assert_eq!(asked(&whole, &get("/services")).0, 301);
    assert_eq!(asked(&whole, &get("//leases")).0, 301);
    assert_eq!(asked(&whole, &get("/ping")).0, 404);
    for path in ["/services/forwarder/expose", "/services/forwarder/unexpose", "/services/dns/add"] {
        assert_eq!(asked(&whole, &get(path)), (400, "post only\n".into()));
        assert_eq!(asked(&whole, &post(path, "")), (400, "EOF\n".into()));
    }
}

#[test]
fn ports_are_exposed_over_one_connection_and_mean_the_caller() {
    let office = Office::open(Settings::default());
    let mut podman = office.guest("192.168.127.2:40000");
    podman.set_read_timeout(Some(SOON)).unwrap();
    let ports = 20;
    for port in 1..=ports {
        let body = format!("{{\"local\":\":{port}\",\"remote\":\":{port}\",\"protocol\":\"tcp\"}}");
        let length = body.len();
        let head = format!(
            "POST /services/forwarder/expose HTTP/1.1\r\nHost: g\r\nContent-Length: {length}\r\n\r\n"
        );
        podman.write_all(format!("{head}{body}").as_bytes()).unwrap();
    }
    let mut seen = String::new();
    while seen.matches("HTTP/1.1 200 OK").count() < ports || !seen.ends_with("\r\n\r\n") {
        let mut buffer = [0; 4096];
        let len = podman.read(&mut buffer).unwrap();
        assert!(len > 0, "{seen}");
        seen.push_str(std::str::from_utf8(&buffer[..len]).unwrap());
    }
    let listed = answer(podman, &get("/services/forwarder/all"));
    assert!(
        listed.contains("{\"local\":\":1\",\"remote\":\"192.168.127.2:1\",\"protocol\":\"tcp\"}"),
        "{listed}"
    );
    assert_eq!(office.with(|_, network| network.rules.len()), ports);

    let api = office.listen("api", Door::Whole);
    let expose = |body: &str| asked(&api, &post("/services/forwarder/expose", body));
    let told = |status, words: &str| (status, format!("{words}\n"));
    assert_eq!(
        expose("{\"local\":\":1\",\"remote\":\"1.2.3.4:1\"}"),
        told(500, "proxy already running for tcp on :1")
    );
    assert_eq!(
        expose("{\"local\":\":99\",\"remote\":\":1\"}"),
        told(400, "address @: missing port in address")
    );
    assert_eq!(
        expose("{\"local\":\":99\",\"remote\":\"8080\"}"),
        told(400, "address 8080: missing port in address")
    );
    assert_eq!(expose("{\"local\":\":99\",\"remote\":\"guest:80\"}"), told(500, "invalid remote addr"));
    assert_eq!(
        expose("{\"local\":\":99\",\"remote\":\"1.2.3.4:1\",\"protocol\":\"sctp\"}"),
        told(500, "unknown protocol sctp")
    );
    assert_eq!(
        expose("{\"local\":\"x\",\"remote\":\"x\",\"protocol\":\"npipe\"}"),
        told(500, "named pipes are not supported by this platform")
    );
    assert_eq!(expose("{\"local\":\"[::1]:99\",\"remote\":\"[fd00::2]:80\"}"), (200, String::new()));
    let unexpose = |body: &str| asked(&api, &post("/services/forwarder/unexpose", body));
    assert_eq!(unexpose("{\"LOCAL\":\":1\"}"), (200, String::new()));
    assert_eq!(unexpose("{\"local\":\":1\"}"), told(500, "proxy not found"));
    office.with(|_, network| network.busy = true);
    assert_eq!(
        expose("{\"local\":\"127.0.0.1:80\",\"remote\":\"1.2.3.4:80\"}"),
        told(500, "listen tcp 127.0.0.1:80: bind: address already in use")
    );
}

#[test]
fn names_are_added_in_front() {
    let office = Office::open(Settings::default());
    let api = office.listen("api", Door::Whole);
    let add = |body: &str| asked(&api, &post("/services/dns/add", body));
    let records: Vec<_> = (0..200).map(|at| format!("{{\"Name\":\"n{at}\",\"IP\":\"10.0.0.1\"}}")).collect();
    assert_eq!(add(&format!("{{\"Name\":\"x.\",\"Records\":[{}]}}", records.join(","))).0, 200);
    assert_eq!(add("{\"name\":\"x.\",\"records\":[{\"name\":\"first\"}],\"defaultip\":\"10.0.0.9\"}").0, 200);
    let (status, why) = add("{\"name\":\"x.\",\"records\":[{\"regexp\":\"(\"}]}");
    assert!(status == 400 && why.contains("zone \"x.\""), "{why}");
    let listed = asked(&api, &get("/services/dns/all")).1;
    assert!(
        listed
            .starts_with("[{\"Name\":\"x.\",\"Records\":[{\"Name\":\"first\",\"IP\":\"\"},{\"Name\":\"n0\"")
    );
    assert!(listed.ends_with("\"DefaultIP\":\"10.0.0.9\"}]\n"));
    // The packets process has the same, in the same order, from pieces that each went in front.
    let names: Vec<String> = office.with(|_, network| {
        network
            .zones
            .iter()
            .rev()
            .flat_map(|zone| zone.records.iter().map(|record| record.name.clone()))
            .collect()
    });
    let want: Vec<String> =
        std::iter::once("first".to_owned()).chain((0..200).map(|at| format!("n{at}"))).collect();
    assert_eq!(names, want);
    assert!(office.with(|_, network| network.zones.iter().all(|zone| zone.records.len() <= 64)));
}

#[test]
fn a_connection_that_is_taken_over_keeps_what_came_behind_the_head() {
    let office = Office::open(Settings::default());
    let api = office.listen("api", Door::Whole);
    let mut forwarder = UnixStream::connect(&api).unwrap();
    forwarder
        .write_all(
            b"POST /connect HTTP/1.1\r\nHost: \r\nContent-Length: 0\r\nSlipway-Fast-Link: 1\r\n\r\n\x02\0ab",
        )
        .unwrap();
    until("no guest has joined", || office.with(|_, network| !network.joined.is_empty()));
    let (stream, first, fast) = office.with(|_, network| network.joined.pop()).unwrap();
    assert!(first == b"\x02\0ab" && fast);
    File::from(stream).write_all(b"frame").unwrap();
    forwarder.set_read_timeout(Some(SOON)).unwrap();
    let mut frame = [0; 5];
    forwarder.read_exact(&mut frame).unwrap();
    assert_eq!(&frame, b"frame", "and nothing before it");

    let mut client = UnixStream::connect(&api).unwrap();
    client.set_read_timeout(Some(SOON)).unwrap();
    client
        .write_all(b"POST /tunnel?ip=192.168.127.2&port=22 HTTP/1.1\r\nHost: x\r\n\r\nSSH-2.0-early")
        .unwrap();
    let mut word = [0; 2];
    client.read_exact(&mut word).unwrap();
    assert_eq!(&word, b"OK");
    until("nobody was dialled", || office.with(|_, network| !network.peers.is_empty()));
    let (guest, mut peer) = office.with(|_, network| network.peers.pop()).unwrap();
    assert_eq!(guest.to_string(), "192.168.127.2:22");
    peer.set_read_timeout(Some(SOON)).unwrap();
    let mut early = [0; 13];
    peer.read_exact(&mut early).unwrap();
    assert_eq!(&early, b"SSH-2.0-early");
    peer.write_all(b"late").unwrap();
    peer.shutdown(std::net::Shutdown::Write).unwrap();
    let mut rest = String::new();
    client.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "late");
    client.write_all(b"still").unwrap();
    drop(client);
    let mut rest = String::new();
    peer.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "still", "half of it was closed, and the other half went on");
    let nowhere = answer(UnixStream::connect(&api).unwrap(), &get("/tunnel?ip=guest&port=22"));
    assert_eq!(nowhere, "OK");
}

#[test]
fn sockets_lead_into_the_network_and_replace_no_file() {
    let office = Office::open(Settings::default());
    let api = office.listen("api", Door::Whole);
    let at = office.path("exposed");
    let body = |local: &Path| {
        let local = local.display();
        format!("{{\"local\":\"{local}\",\"remote\":\"tcp://192.168.127.2:2375\",\"protocol\":\"unix\"}}")
    };
    let expose = |local: &Path| asked(&api, &post("/services/forwarder/expose", &body(local)));
    drop(UnixListener::bind(&at).unwrap());
    assert_eq!(expose(&at), (200, String::new()), "a socket is replaced");
    assert_eq!(fs::metadata(&at).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(expose(&at).1, format!("proxy already running for unix on {}\n", at.display()));
    let mut client = UnixStream::connect(&at).unwrap();
    client.write_all(b"hello").unwrap();
    until("nobody was dialled", || office.with(|_, network| !network.peers.is_empty()));
    let (guest, mut peer) = office.with(|_, network| network.peers.pop()).unwrap();
    assert_eq!(guest.to_string(), "192.168.127.2:2375");
    let mut hello = [0; 5];
    peer.read_exact(&mut hello).unwrap();
    assert_eq!(&hello, b"hello");
    let listed = asked(&api, &get("/services/forwarder/all")).1;
    assert!(listed.contains("\"protocol\":\"unix\""), "{listed}");

    let file = office.path("file");
    fs::write(&file, "precious").unwrap();
    let (status, why) = expose(&file);
    assert!(status == 500 && why.contains("is no socket"), "{why}");
    assert_eq!(fs::read(&file).unwrap(), b"precious");

    let inside = parts(&answer(
        office.guest("192.168.127.2:1"),
        &post("/services/forwarder/expose", &body(&office.path("inside"))),
    ));
    assert!(inside.0 == 403 && !office.path("inside").exists(), "{inside:?}");
    let taken = post("/services/forwarder/unexpose", &body(&at));
    assert_eq!(parts(&answer(office.guest("192.168.127.2:1"), &taken)).0, 403);
    assert_eq!(asked(&api, &taken), (200, String::new()));
    until("the socket stays", || !at.exists());
    peer.write_all(b"still there").unwrap();
    let mut still = [0; 11];
    client.read_exact(&mut still).unwrap();
}

#[test]
fn with_the_packets_process_it_ends_and_its_sockets_go() {
    let notified = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(notified.path().join("n")).unwrap();
    let mut office =
        Office::open(Settings { notification: Some(notified.path().join("n")), ..Settings::default() });
    let api = office.listen("api", Door::Whole);
    office.with(|desk, _| desk.news(News::Joined("5a:94:ef:e4:0c:ee".into())));
    let mut told = String::new();
    listener.accept().unwrap().0.read_to_string(&mut told).unwrap();
    assert_eq!(
        told,
        "{\"notification_type\":\"connection_established\",\"mac_address\":\"5a:94:ef:e4:0c:ee\"}\n"
    );
    let exposed = office.path("exposed");
    let body = format!(
        "{{\"local\":\"{}\",\"remote\":\"tcp://1.2.3.4:1\",\"protocol\":\"unix\"}}",
        exposed.display()
    );
    assert_eq!(asked(&api, &post("/services/forwarder/expose", &body)).0, 200);
    assert!(fs::symlink_metadata(&exposed).unwrap().file_type().is_socket());
    let mut open = UnixStream::connect(&api).unwrap();
    open.set_read_timeout(Some(SOON)).unwrap();
    office.close();
    until("sockets stay behind", || !api.exists() && !exposed.exists());
    assert_eq!(open.read(&mut [0]).unwrap(), 0, "its clients are let go");
}

#[test]
fn whoever_is_slow_huge_or_many_harms_nobody() {
    let office = Office::open(Settings::default());
    let api = office.listen("api", Door::Whole);
    let expose = "/services/forwarder/expose";
    // Heads that never end, bodies that never come, and nothing at all.
    let idle: Vec<UnixStream> = (0..300)
        .map(|at| {
            let mut client = UnixStream::connect(&api).unwrap();
            let words = [
                "",
                "GET /leases HT",
                "POST /services/forwarder/expose HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{",
            ];
            client.write_all(words[at % 3].as_bytes()).unwrap();
            client
        })
        .collect();
    assert_eq!(asked(&api, &get("/leases")).0, 200);
    let head = format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "x".repeat(1 << 20));
    assert!(answer(UnixStream::connect(&api).unwrap(), &head).starts_with("HTTP/1.1 431 "));
    assert_eq!(asked(&api, &post(expose, &"x".repeat(2 << 20))).0, 413);
    let deep = format!("{{\"x\":{}", "[".repeat(900_000));
    assert_eq!(asked(&api, &post(expose, &deep)).0, 400);
    let chunked = format!(
        "POST {expose} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n\
         5\r\n{{\"loc\r\n25\r\nal\":\":7\",\"remote\":\"192.168.127.2:80\"}}\r\n0\r\n\r\n"
    );
    assert_eq!(asked(&api, &chunked), (200, String::new()));
    let garbage = answer(UnixStream::connect(&api).unwrap(), "\u{1}\u{2}\n\n");
    assert!(garbage.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{garbage}");
    // One guest's connections are counted, and another's are not among them.
    let greedy: Vec<UnixStream> = (0..300).map(|_| office.guest("192.168.127.3:1")).collect();
    let other = answer(office.guest("192.168.127.2:1"), &get("/services/forwarder/all"));
    assert!(other.starts_with("HTTP/1.1 200 OK"), "{other}");
    let closed = || {
        let gone = |stream: &&UnixStream| {
            stream.set_nonblocking(true).unwrap();
            matches!((&mut &**stream).read(&mut [0]), Ok(0))
        };
        greedy.iter().filter(gone).count()
    };
    until("one guest has all of them", || closed() >= 300 - OF_ONE_GUEST as usize);
    drop(idle);
}

/// A key of its own for each test; `None` after saying why the test is skipped.
fn key(test: &str, path: &Path) -> Option<()> {
    let mut made = std::process::Command::new("ssh-keygen");
    made.args(["-q", "-N", "", "-t", "ed25519", "-f"]).arg(path).stdin(std::process::Stdio::null());
    made.status().map(drop).map_err(|error| println!("SKIP {test}: ssh-keygen: {error}")).ok()
}

/// Plays a guest's SSH server to the end of the connection.
fn serve_ssh(mut peer: UnixStream) {
    let mut server = ssh::fake::Server::new(ssh::fake::Manner::default());
    let mut said = server.turn(b"");
    let mut buffer = vec![0; 65_536];
    loop {
        if peer.write_all(&said).is_err() {
            return;
        }
        match peer.read(&mut buffer) {
            Ok(len @ 1..) => said = server.turn(&buffer[..len]),
            _ => return,
        }
    }
}

#[test]
fn a_server_that_hangs_up_is_tried_again_at_most_once_a_second() {
    let dir = tempfile::tempdir().unwrap();
    let identity = dir.path().join("key");
    let test = "a_server_that_hangs_up_is_tried_again_at_most_once_a_second";
    if key(test, &identity).is_none() {
        return;
    }
    let server = "192.168.127.2:22".parse().unwrap();
    let tunnel = Tunnel { server, user: "core".into(), key: identity, path: "/run/podman.sock".into() };
    let mut office = Office::open(Settings { tunnels: vec![tunnel], ..Settings::default() });
    let path = office.path("forward");
    let listener = UnixListener::bind(&path).unwrap();
    listener.set_nonblocking(true).unwrap();
    let begun = clock::now();
    office.with(|desk, _| desk.forward(0, listener.into(), path.clone()));
    let mut client = UnixStream::connect(&path).unwrap();
    client.set_read_timeout(Some(SOON)).unwrap();
    client.write_all(b"hello").unwrap();
    let dialled = || {
        let mut peer = None;
        until("nobody is dialled", || {
            peer = office.with(|_, network| network.peers.pop());
            peer.is_some()
        });
        peer.unwrap()
    };
    for _ in 0..3 {
        let (guest, _peer) = dialled();
        assert_eq!(guest, server);
    }
    let (_, peer) = dialled();
    assert!(clock::now() - begun >= Duration::from_secs(3), "{:?}", clock::now() - begun);
    std::thread::spawn(move || serve_ssh(peer));
    let mut back = [0; 5];
    client.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"hello");
    client.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(client.read(&mut back).unwrap(), 0, "an end is passed on both ways");
    office.close();
    until("the socket stays", || !path.exists());
}

/// What it is refused that has no business with anything: each attempt in a process of its own.
#[test]
fn nothing_is_left_to_it_but_its_sockets() {
    let name = "nothing_is_left_to_it_but_its_sockets";
    let memory = Box::new(*b"the engine's keys");
    let (engine, at) = (nix::unistd::Pid::this(), memory.as_ptr() as usize);
    let attempt = |work: &dyn Fn() -> bool| {
        let child = fork_child(|| {
            settle();
            u8::from(work())
        });
        wait_for(child.unwrap()).unwrap()
    };
    let is_refused = |what: &str, work: &dyn Fn() -> bool| {
        let status = attempt(work);
        let refused = matches!(status, WaitStatus::Exited(_, 0) | WaitStatus::Signaled(_, Signal::SIGSYS, _));
        assert!(refused, "{what}: {status:?}");
    };
    let files =
        [Path::new("/etc/shadow"), Path::new("/etc/passwd"), Path::new("/proc/self/mem"), Path::new("/")];
    match trial::opened(settle, &files).unwrap() {
        Some(opened) => assert!(opened.is_empty(), "{opened:?}"),
        None => println!("SKIP {name}: no Landlock here"),
    }
    is_refused("executes", &|| nix::unistd::execv(c"/bin/true", &[c"true"]).is_ok());
    is_refused("reads another's memory", &|| {
        let mut read = vec![0; 17];
        let mut local = [io::IoSliceMut::new(&mut read)];
        let remote = [nix::sys::uio::RemoteIoVec { base: at, len: 17 }];
        nix::sys::uio::process_vm_readv(engine, &mut local, &remote).is_ok()
    });
    is_refused("traces", &|| nix::sys::ptrace::attach(engine).is_ok());
    is_refused("signals", &|| nix::sys::signal::kill(engine, None).is_ok());
    is_refused("makes a file", &|| fs::write("/tmp/slipway-was-here", "x").is_ok());
    is_refused("connects elsewhere", &|| std::net::UdpSocket::bind("127.0.0.1:0").is_ok());
    is_refused("makes a namespace", &|| nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUSER).is_ok());
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let status = attempt(&|| SocketFile::listen(&path).map(drop).is_ok());
    assert!(matches!(status, WaitStatus::Exited(_, 1)), "it makes and removes sockets: {status:?}");
    assert!(!path.exists() && memory[0] == b't');
}
