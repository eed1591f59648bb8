//! The stack's own resolver in front of dnsmasq servers that are slow, dead, truncating, or have a liar before them.
//!
//! What someone in the container sees with dig, over UDP and TCP: the right answer, in bounded time, and no lie. Time
//! is what dig says (a program's start on a loaded machine takes longer than many a query).

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use slipway_lab::{
    Cmd, Container, Dnsmasq, LIMIT, Lab, Output, Place, Relay, Reply, Slirp, Via, forged, lab, now,
};

use crate::memory::{self, KEPT, falls_to};

const FIRST: &str = "198.51.100.1";
const SECOND: &str = "198.51.100.2";
const STRANGER: &str = "198.51.100.3";
const BY_FIRST: &str = "203.0.113.1";
const BY_SECOND: &str = "203.0.113.2";
const LIE: [u8; 4] = [203, 0, 113, 66];
const FIRST_SAYS: &str = "host-record=a.test,b.test,c.test,d.test,203.0.113.1";
const SECOND_SAYS: &str = "host-record=a.test,b.test,c.test,d.test,203.0.113.2";
/// After this many milliseconds the next server is asked as well, after that many a silent one is dead, and after those
/// the guest is told.
const PATIENCE: u64 = 1500;
const DEAD: u64 = 5000;
const ALL: u64 = 10_000;

/// The servers' addresses in world, and the host's resolv.conf.
fn servers(lab: &Lab) -> Place {
    lab.world(["ip", "address", "add", "198.51.100.1/24", "dev", "lo"]).ok(LIMIT).unwrap();
    lab.set_resolv_conf(&format!("nameserver {FIRST}\nnameserver {SECOND}\n")).unwrap();
    lab.world_place()
}

/// Someone who asks.
struct Guest {
    container: Container,
    slirp: Slirp,
}

/// What dig said: the last word of each answer, the whole, and how long it says that it took.
struct Answer {
    words: Vec<String>,
    output: Output,
    millis: u64,
}

impl Guest {
    fn new(lab: &Lab) -> Self {
        let container = lab.container().unwrap();
        let slirp = lab.slirp(&container, &["-c"]).unwrap();
        Self { container, slirp }
    }

    fn dig(&self, words: &[&str]) -> Answer {
        let common = ["dig", "@10.0.2.3", "+tries=1", "+time=14", "+noall", "+answer", "+comments", "+stats"];
        read(self.container.cmd(common).args(words.iter().copied()))
    }

    /// An address is the answer, after about so many milliseconds, over that transport.
    #[track_caller]
    fn finds(&self, tcp: bool, name: &str, address: &str, millis: u64) {
        let answer = self.dig(&[if tcp { "+tcp" } else { "+notcp" }, name]);
        assert_eq!(answer.words, [address], "{name}, tcp: {tcp}: {}", answer.output);
        answer.took(millis);
    }
}

impl Answer {
    #[track_caller]
    fn took(&self, millis: u64) {
        // Only what is at once is told from anything else by how soon it comes; the rest by who has answered.
        let more = if millis == 0 { 1400 } else { 4000 };
        let so_long = millis.saturating_sub(50)..millis + more;
        assert!(so_long.contains(&self.millis), "instead of {millis} ms: {}", self.output);
    }
}

fn read(dig: Cmd) -> Answer {
    let output = dig.run(LIMIT).unwrap();
    let out = output.out();
    let answers = out.lines().filter(|line| !line.starts_with(';') && !line.trim().is_empty());
    let words = answers.filter_map(|line| line.split_whitespace().last()).map(str::to_owned).collect();
    let time = out.split_once("Query time: ").and_then(|(_, rest)| rest.split_once(' '));
    let millis = time.and_then(|(millis, _)| millis.parse().ok()).unwrap_or(u64::MAX);
    Answer { words, output, millis }
}

/// A relay in front of a dnsmasq, both with the first server's address.
fn relay(
    place: &Place,
    manner: impl Fn(&[u8], &[u8]) -> Vec<Reply> + Send + Sync + 'static,
) -> (Dnsmasq, Relay) {
    let dnsmasq = Dnsmasq::behind(place, FIRST, FIRST_SAYS).unwrap();
    (dnsmasq, Relay::start(place, FIRST, manner).unwrap())
}

fn slow(millis: u64) -> impl Fn(&[u8], &[u8]) -> Vec<Reply> {
    move |_, truth| vec![Reply { after: Duration::from_millis(millis), ..Reply::now(truth.to_vec()) }]
}

#[test]
fn a_slow_server_costs_one_query_its_patience() {
    let (lab, _) = lab!(ours "a_slow_server_costs_one_query_its_patience", ["dig", "dnsmasq"]);
    let place = servers(&lab);
    let (_first, _relay) = relay(&place, slow(2500));
    let second = Dnsmasq::start(&place, SECOND, SECOND_SAYS).unwrap();
    let guest = Guest::new(&lab);
    guest.finds(false, "a.test", BY_SECOND, PATIENCE);
    guest.finds(false, "b.test", BY_SECOND, 0);
    // Nothing is known of it over TCP.
    guest.finds(true, "c.test", BY_SECOND, PATIENCE);
    guest.finds(true, "c.test", BY_SECOND, 0);
    // With the other one stopped, a late answer is better than none.
    second.stop();
    guest.finds(false, "d.test", BY_FIRST, 2500);
}

/// The first server (a VPN's) takes two seconds for one name, the second (the world's) says at once that there is no
/// such name.
#[test]
fn the_wrong_servers_no_does_not_win() {
    for (tcp, nothing) in [(false, ""), (true, ""), (false, "host-record=a.test,b.test,fd00::9")] {
        let (lab, _) = lab!(ours "the_wrong_servers_no_does_not_win", ["dig", "dnsmasq"]);
        let place = servers(&lab);
        let (_first, _relay) = relay(&place, |query, truth| {
            let cold = query.windows(2).any(|window| window == b"\x01a");
            let after = Duration::from_millis(if cold { 2000 } else { 0 });
            vec![Reply { after, ..Reply::now(truth.to_vec()) }]
        });
        let _second = Dnsmasq::start(&place, SECOND, nothing).unwrap();
        let guest = Guest::new(&lab);
        guest.finds(tcp, "a.test", BY_FIRST, 2000);
        // Neither kept, nor is the first one dead.
        guest.finds(tcp, "a.test", BY_FIRST, 2000);
        for name in ["b.test", "c.test", "d.test"] {
            guest.finds(tcp, name, BY_FIRST, 0);
        }
    }
}

#[test]
fn an_only_server_may_take_seven_seconds() {
    for tcp in [false, true] {
        let (lab, _) = lab!(ours "an_only_server_may_take_seven_seconds", ["dig", "dnsmasq"]);
        let place = servers(&lab);
        lab.set_resolv_conf(&format!("nameserver {FIRST}\n")).unwrap();
        let (_first, _relay) = relay(&place, slow(7000));
        let guest = Guest::new(&lab);
        guest.finds(tcp, "a.test", BY_FIRST, 7000);
    }
}

/// Who is known to be dead is not waited for when there is an error to tell.
#[test]
fn an_error_in_hand_is_told_at_once() {
    let (lab, _) = lab!(ours "an_error_in_hand_is_told_at_once", ["dig", "dnsmasq"]);
    let place = servers(&lab);
    // Without a server of its own dnsmasq refuses what is not in test.
    let _first = Dnsmasq::start(&place, FIRST, FIRST_SAYS).unwrap();
    let second = Dnsmasq::start(&place, SECOND, SECOND_SAYS).unwrap();
    // Stopped before it has its socket it would refuse.
    let script = format!(
        "for i in $(seq 100); do dig +short @{SECOND} a.test | grep -q 203 && exit; sleep 0.05; done; exit 1"
    );
    lab.world(["sh", "-c", &script]).ok(LIMIT).unwrap();
    second.stop();
    let guest = Guest::new(&lab);
    for millis in [DEAD, 0, 0] {
        let answer = guest.dig(&["+notcp", "elsewhere.example"]);
        assert!(answer.output.out().contains("status: REFUSED"), "{}", answer.output);
        answer.took(millis);
    }
}

#[test]
fn a_stopped_server_is_passed_over() {
    for tcp in [false, true] {
        let (lab, _) = lab!(ours "a_stopped_server_is_passed_over", ["dig", "dnsmasq"]);
        let place = servers(&lab);
        let first = Dnsmasq::start(&place, FIRST, FIRST_SAYS).unwrap();
        let second = Dnsmasq::start(&place, SECOND, SECOND_SAYS).unwrap();
        let guest = Guest::new(&lab);
        guest.finds(tcp, "a.test", BY_FIRST, 0);
        // Its port still takes connections: the kernel makes them.
        first.stop();
        guest.finds(tcp, "b.test", BY_SECOND, PATIENCE);
        guest.finds(tcp, "c.test", BY_SECOND, 0);
        second.stop();
        let answer = guest.dig(&[if tcp { "+tcp" } else { "+notcp" }, "d.test"]);
        assert!(answer.output.out().contains("status: SERVFAIL"), "{}", answer.output);
        answer.took(ALL);
        first.go_on();
        let answer = guest.dig(&[if tcp { "+tcp" } else { "+notcp" }, "d.test"]);
        assert_eq!(
            answer.words,
            [BY_FIRST],
            "both are thought dead, and asked all the same: {}",
            answer.output
        );
        answer.took(0);
    }
}

#[test]
fn a_server_without_a_way_to_it_costs_nothing() {
    let (lab, _) = lab!(ours "a_server_without_a_way_to_it_costs_nothing", ["dig", "dnsmasq"]);
    let place = servers(&lab);
    let _second = Dnsmasq::start(&place, SECOND, SECOND_SAYS).unwrap();
    let guest = Guest::new(&lab);
    // Nobody listens on the first.
    guest.finds(true, "a.test", BY_SECOND, 0);
    guest.finds(false, "b.test", BY_SECOND, 0);
    for kind in ["blackhole", "unreachable", "prohibit"] {
        lab.host_root(["ip", "route", "replace", kind, "198.51.100.1"]).ok(LIMIT).unwrap();
        let guest = Guest::new(&lab);
        guest.finds(true, "c.test", BY_SECOND, 0);
        guest.finds(false, "d.test", BY_SECOND, 0);
    }
}

#[test]
fn a_server_behind_a_black_hole_costs_each_transport_its_patience() {
    for tcp in [false, true] {
        let (lab, _) =
            lab!(ours "a_server_behind_a_black_hole_costs_each_transport_its_patience", ["dig", "dnsmasq"]);
        let place = servers(&lab);
        let _first = Dnsmasq::start(&place, FIRST, FIRST_SAYS).unwrap();
        let _second = Dnsmasq::start(&place, SECOND, SECOND_SAYS).unwrap();
        lab.world(["ip", "route", "add", "blackhole", "192.0.2.1"]).ok(LIMIT).unwrap();
        let guest = Guest::new(&lab);
        // What world answers is lost, whoever answers: then the way back is mended for the second alone.
        let answer = guest.dig(&[if tcp { "+tcp" } else { "+notcp" }, "a.test"]);
        assert!(answer.output.out().contains("status: SERVFAIL"), "{}", answer.output);
        answer.took(ALL);
        let rule = ["ip", "rule", "add", "from", SECOND, "lookup", "99"];
        lab.world(rule).ok(LIMIT).unwrap();
        lab.world(["ip", "route", "add", "192.0.2.0/24", "dev", "veth0", "table", "99"]).ok(LIMIT).unwrap();
        let guest = Guest::new(&lab);
        guest.finds(tcp, "b.test", BY_SECOND, PATIENCE);
        guest.finds(tcp, "c.test", BY_SECOND, 0);
    }
}

#[test]
fn what_is_truncated_is_fetched_over_tcp() {
    let (lab, _) = lab!(ours "what_is_truncated_is_fetched_over_tcp", ["dig", "dnsmasq"]);
    let place = servers(&lab);
    let text = "x".repeat(200);
    let lines: String = (0..12).map(|number| format!("txt-record=big.test,{number:02}{text}\n")).collect();
    let first = Dnsmasq::start(&place, FIRST, &format!("{lines}edns-packet-max=1232")).unwrap();
    let guest = Guest::new(&lab);
    let answer = guest.dig(&["+bufsize=4096", "+ignore", "big.test", "TXT"]);
    assert_eq!(answer.words.len(), 12, "whole, in one datagram: {}", answer.output);
    assert_eq!(first.asked("big.test"), 2, "over UDP, over TCP");
    for words in [&["+noedns"][..], &["+bufsize=512"]] {
        let answer = guest.dig(&[words, &["+ignore", "big.test", "TXT"]].concat());
        assert!(answer.output.out().contains(" tc"), "{}", answer.output);
        let answer = guest.dig(&[words, &["big.test", "TXT"]].concat());
        assert_eq!(answer.words.len(), 12, "{words:?}: {}", answer.output);
    }
}

#[test]
fn no_lie_is_believed() {
    let (lab, _) = lab!(ours "no_lie_is_believed", ["dig", "dnsmasq"]);
    let place = servers(&lab);
    let (_first, liar) = relay(&place, |query, truth| {
        let later = Reply { after: Duration::from_millis(50), ..Reply::now(truth.to_vec()) };
        lies(query, truth).into_iter().chain([later]).collect()
    });
    let _second = Dnsmasq::start(&place, SECOND, SECOND_SAYS).unwrap();
    let guest = Guest::new(&lab);
    for name in ["a.test", "b.test", "a.test"] {
        guest.finds(false, name, BY_FIRST, 0);
    }
    // Over TCP the first lie ends the connection.
    guest.finds(true, "c.test", BY_SECOND, 0);
    drop(liar);
    let _liar = Relay::start(&place, FIRST, lies).unwrap();
    let guest = Guest::new(&lab);
    guest.finds(false, "a.test", BY_SECOND, PATIENCE);
}

/// A false address under a wrong id, about another name, from another port and from another address.
fn lies(_: &[u8], truth: &[u8]) -> Vec<Reply> {
    let lie = forged(truth, [203, 0, 113, 1], LIE);
    let (mut other_id, mut other_name) = (lie.clone(), lie.clone());
    other_id[0] ^= 0x55;
    other_name[13] ^= 1;
    let stranger = Via::OtherAddress(STRANGER.parse().unwrap());
    vec![
        Reply::now(other_id),
        Reply::now(other_name),
        Reply { via: Via::OtherPort, ..Reply::now(lie.clone()) },
        Reply { via: stranger, ..Reply::now(lie) },
    ]
}

#[test]
fn answers_are_kept_for_their_time_and_no_longer() {
    let (lab, _) = lab!(ours "answers_are_kept_for_their_time_and_no_longer", ["dig", "dnsmasq"]);
    let place = servers(&lab);
    let lines = "host-record=brief.test,203.0.113.1,2\nhost-record=now.test,203.0.113.1,0";
    let first = Dnsmasq::start(&place, FIRST, lines).unwrap();
    let guest = Guest::new(&lab);
    let find = |name, tcp| guest.finds(tcp, name, BY_FIRST, 0);
    find("brief.test", false);
    find("brief.test", true);
    let kept = first.asked("brief.test");
    std::thread::sleep(Duration::from_millis(2100));
    find("brief.test", true);
    // A cookie is between client and server: such a query is not answered from what is kept.
    assert_eq!(first.asked("brief.test"), kept + 1);
    for tcp in [false, true] {
        find("now.test", tcp);
    }
    assert_eq!(first.asked("now.test"), 2);
    let plain = ["+nocookie", "+bufsize=1232", "brief.test"];
    std::thread::sleep(Duration::from_millis(2100));
    for _ in 0..3 {
        assert_eq!(guest.dig(&plain).words, [BY_FIRST]);
    }
    assert_eq!(first.asked("brief.test"), kept + 2);
}

#[test]
fn slipway_run_has_the_same_patience() {
    let (lab, _) = lab!(ours "slipway_run_has_the_same_patience", ["dig", "dnsmasq"]);
    let place = servers(&lab);
    let first = Dnsmasq::start(&place, FIRST, FIRST_SAYS).unwrap();
    let _second = Dnsmasq::start(&place, SECOND, SECOND_SAYS).unwrap();
    first.stop();
    let script = "dig +tries=1 +time=14 +tcp +short a.test; dig +tries=1 +time=14 +short b.test; \
                  dig +tries=1 +time=14 +tcp +short +keepopen a.test b.test c.test; getent ahostsv4 d.test";
    let options: [&[&str]; 2] = [&[], &["--dns", FIRST, "--dns", SECOND]];
    for options in options {
        let run = lab.host([&lab.program("slipway"), "run"]).args(options.iter().copied());
        let output = run.args(["--", "sh", "-c", script]).run(LIMIT).unwrap();
        assert_eq!(output.out().matches(BY_SECOND).count(), 8, "{options:?}: {output}");
    }
}

/// A query for the address of `a.test`, with its length in front.
fn framed(id: u8) -> Vec<u8> {
    let mut bytes = vec![0, 24, 0, id, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    bytes.extend_from_slice(b"\x01a\x04test\0\0\x01\0\x01");
    bytes
}

/// Reads an answer; its id.
fn answer(stream: &mut TcpStream) -> std::io::Result<u8> {
    let mut len = [0; 2];
    stream.read_exact(&mut len)?;
    let mut message = vec![0; usize::from(u16::from_be_bytes(len))];
    stream.read_exact(&mut message)?;
    assert!(message.windows(4).any(|window| window == [203, 0, 113, 1]), "{message:?}");
    Ok(message[1])
}

#[test]
fn odd_connections_harm_nobody() {
    let (lab, _) = lab!(ours "odd_connections_harm_nobody", ["dig", "dnsmasq"]);
    if !lab.by_root() {
        println!("SKIP odd_connections_harm_nobody: needs root to enter the container by thread");
        return;
    }
    let place = servers(&lab);
    let _first = Dnsmasq::start(&place, FIRST, FIRST_SAYS).unwrap();
    let guest = Guest::new(&lab);
    let connect = || {
        let stream = TcpStream::connect("10.0.2.3:53")?;
        stream.set_read_timeout(Some(Duration::from_secs(8)))?;
        Ok::<_, std::io::Error>(stream)
    };
    let check = || {
        // A hundred at once, byte by byte at first, then the end: all are answered, then it ends.
        let mut many = connect()?;
        let bytes: Vec<u8> = (0..100).flat_map(framed).collect();
        for byte in &bytes[..30] {
            many.write_all(&[*byte])?;
        }
        many.write_all(&bytes[30..])?;
        many.shutdown(Shutdown::Write)?;
        let mut ids: Vec<u8> = (0..100).map(|_| answer(&mut many)).collect::<Result<_, _>>()?;
        ids.sort_unstable();
        assert_eq!(ids, (0..100).collect::<Vec<u8>>());
        assert_eq!(many.read(&mut [0; 9])?, 0);
        // The longest message: a query and what nobody looks at.
        let mut long = connect()?;
        let mut message = framed(7);
        message[..2].copy_from_slice(&[0xff, 0xff]);
        message.resize(2 + 0xffff, 0);
        long.write_all(&message)?;
        assert_eq!(answer(&mut long)?, 7);
        // Nonsense ends a connection at once, silence in three seconds; before the eight of this side's patience.
        let at_once = Duration::from_millis(2900);
        let in_time = Duration::from_secs(7);
        for (bytes, most) in
            [(&b"\0\x05nonse"[..], at_once), (b"\0\0", at_once), (b"\0", in_time), (&framed(1)[..9], in_time)]
        {
            let mut odd = connect()?;
            odd.write_all(bytes)?;
            let start = now();
            assert_eq!(odd.read(&mut [0; 9]).unwrap_or(0), 0);
            assert!(start.elapsed() < most, "{bytes:?}: {:?}", start.elapsed());
        }
        // Whoever holds many connections loses the oldest of them, and others are still served.
        let mut held = (0..200).map(|_| connect()).collect::<Result<Vec<_>, _>>()?;
        let mut last = connect()?;
        last.write_all(&framed(9))?;
        assert_eq!(answer(&mut last)?, 9);
        assert_eq!(held[0].read(&mut [0; 9]).unwrap_or(0), 0, "the first had to go");
        held[199].write_all(&framed(3))?;
        answer(&mut held[199])
    };
    assert_eq!(guest.container.within(check).unwrap(), 3);
    guest.finds(true, "b.test", BY_FIRST, 0);
}

/// Memory of a process that is not in files, in KiB.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// A connection to the DNS address from `from`, with little room for what comes.
fn narrow(from: [u8; 4]) -> std::io::Result<TcpStream> {
    use nix::sys::socket::{
        AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, setsockopt, socket, sockopt::RcvBuf,
    };
    let fd = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&fd, RcvBuf, &4096)?;
    let [a, b, c, d] = from;
    bind(fd.as_raw_fd(), &SockaddrIn::new(a, b, c, d, 0))?;
    connect(fd.as_raw_fd(), &SockaddrIn::new(10, 0, 2, 3, 53))?;
    Ok(TcpStream::from(fd))
}

#[test]
fn conversations_in_which_nobody_reads_cost_little_and_harm_nobody() {
    let (lab, _) =
        lab!(ours "conversations_in_which_nobody_reads_cost_little_and_harm_nobody", ["dig", "dnsmasq"]);
    if !lab.by_root() {
        println!(
            "SKIP conversations_in_which_nobody_reads_cost_little_and_harm_nobody: needs root to enter the container by thread"
        );
        return;
    }
    let place = servers(&lab);
    // An answer that is just short enough to be kept.
    let text = "x".repeat(240);
    let lines: String = (0..15).map(|number| format!("txt-record=big.test,{number:03}{text}\n")).collect();
    let _first = Dnsmasq::start(&place, FIRST, &format!("{lines}local-ttl=600\n{FIRST_SAYS}")).unwrap();
    let guest = Guest::new(&lab);
    guest.container.sh("ip address add 10.0.2.101/24 dev tap0").unwrap();
    assert_eq!(guest.dig(&["+tcp", "+nocookie", "big.test", "TXT"]).words.len(), 15);
    let pid = guest.slirp.process.pid();
    let (before, whole) = (resident(pid), memory::resident(pid));
    let attack = || {
        let mut query = vec![0, 26, 0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        query.extend_from_slice(b"\x03big\x04test\0\0\x10\0\x01");
        let queries = query.repeat(40);
        // From now on it is answered from what is kept, and waits for no server.
        let mut first = TcpStream::connect("10.0.2.3:53")?;
        first.set_read_timeout(Some(Duration::from_secs(8)))?;
        first.write_all(&query)?;
        let mut len = [0; 2];
        first.read_exact(&mut len)?;
        first.read_exact(&mut vec![0; usize::from(u16::from_be_bytes(len))])?;
        let mut all = Vec::new();
        for _ in 0..1000 {
            let mut one = narrow([10, 0, 2, 100])?;
            // It may have been reset already.
            let _ = one.write_all(&queries);
            all.push(one);
        }
        let mut neighbour = narrow([10, 0, 2, 101])?;
        neighbour.set_read_timeout(Some(Duration::from_secs(8)))?;
        neighbour.write_all(&framed(5))?;
        assert_eq!(answer(&mut neighbour)?, 5, "a neighbour is answered");
        let alive = all.iter().filter(|one| one.take_error().is_ok_and(|error| error.is_none())).count();
        Ok((alive, resident(pid), all))
    };
    let (alive, during, all) = guest.container.within(attack).unwrap();
    assert!(alive <= 64, "{alive} connections live");
    // What pipes, conversations and the forwarder may hold, and as much again for the allocator.
    assert!(during < before + (32 << 10), "{before} KiB, then {during}");
    guest.finds(false, "a.test", BY_FIRST, 0);
    guest.finds(true, "b.test", BY_FIRST, 0);
    drop(all);
    let after = falls_to(pid, whole + KEPT);
    assert!(after <= whole + KEPT, "{whole} bytes resident, {after} afterwards");
}
