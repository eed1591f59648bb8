//! What is more than a question and an answer: zone transfers, updates, hundreds of lookups at once, networks that
//! change.
//!
//! dig and nsupdate ask inside; a relay in front of dnsmasq answers in messages that the test wrote, or late.

use std::net::UdpSocket;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use slipway_lab::{Container, Dnsmasq, LIMIT, Lab, Place, Relay, Reply, Slirp, lab, now};

const SERVER: &str = "198.51.100.1";
const SAYS: &str = "host-record=a.test,203.0.113.1\naddress=/lookup.test/203.0.113.2";

fn place(lab: &Lab) -> Place {
    lab.world(["ip", "address", "add", "198.51.100.1/24", "dev", "lo"]).ok(LIMIT).unwrap();
    lab.set_resolv_conf(&format!("nameserver {SERVER}\n")).unwrap();
    lab.world_place()
}

fn guest(lab: &Lab) -> (Container, Slirp) {
    let container = lab.container().unwrap();
    let slirp = lab.slirp(&container, &["-c"]).unwrap();
    (container, slirp)
}

/// A message of a transfer: header and question of the query, and these records.
fn part(query: &[u8], records: &[Vec<u8>]) -> Vec<u8> {
    let end = 12 + query[12..].iter().position(|byte| *byte == 0).unwrap() + 5;
    let mut bytes = query[..end].to_vec();
    (bytes[2], bytes[3]) = (0x84, 0);
    bytes[6..8].copy_from_slice(&u16::try_from(records.len()).unwrap().to_be_bytes());
    bytes[8..12].fill(0);
    records.iter().for_each(|record| bytes.extend_from_slice(record));
    bytes
}

fn soa(serial: u8) -> Vec<u8> {
    let mut record = b"\xc0\x0c\0\x06\0\x01\0\0\x0e\x10\0\x16\0\0\0\0\0".to_vec();
    record.push(serial);
    record.extend_from_slice(&[0; 16]);
    record
}

fn txt(len: u8) -> Vec<u8> {
    let mut record = b"\xc0\x0c\0\x10\0\x01\0\0\x0e\x10\0".to_vec();
    record.extend_from_slice(&[len + 1, len]);
    record.extend(std::iter::repeat_n(b'x', usize::from(len)));
    record
}

fn kind(query: &[u8]) -> u8 {
    let end = 12 + query[12..].iter().position(|byte| *byte == 0).unwrap();
    query[end + 2]
}

/// Whole zones, in a few messages and in thousands, and a client that does not read for a while.
#[test]
fn zone_transfers_pass_to_their_end() {
    let (lab, _) = lab!("zone_transfers_pass_to_their_end", ["dig", "dnsmasq"]);
    let place = place(&lab);
    let _behind = Dnsmasq::behind(&place, SERVER, SAYS).unwrap();
    let _relay = Relay::start(&place, SERVER, |query, truth| {
        let count = match (kind(query), query.windows(3).any(|w| w == b"big")) {
            (252, false) => 3,
            (252, true) => 4000,
            _ => return vec![Reply::now(truth.to_vec())],
        };
        let mut messages = vec![part(query, &[soa(7), txt(100)])];
        messages.extend((0..count).map(|_| part(query, &[txt(250), txt(250), txt(250), txt(250)])));
        messages.push(part(query, &[txt(9), soa(7)]));
        messages.into_iter().map(Reply::now).collect()
    })
    .unwrap();
    let (container, _slirp) = guest(&lab);
    let dig = ["dig", "@10.0.2.3", "+tries=1", "+time=20", "+noall", "+answer", "+stats", "AXFR"];
    for (zone, messages, records) in [("zone.test", 5, 16), ("big.test", 4002, 16_004)] {
        let output = container.cmd(dig).arg(zone).run(LIMIT).unwrap();
        assert!(
            output.out().contains(&format!("{records} records (messages {messages},")),
            "{zone}: {output}"
        );
    }
    // Others are served meanwhile, and the same connection takes other questions.
    let words = ["dig", "@10.0.2.3", "+tcp", "+keepopen", "+short", "+tries=1", "a.test"];
    assert_eq!(container.cmd(words).run(LIMIT).unwrap().out().trim(), "203.0.113.1");
}

/// A server may answer an update without sections (RFC 2136 §3.8).
#[test]
fn an_update_is_answered() {
    let (lab, _) = lab!("an_update_is_answered", ["dig", "nsupdate", "dnsmasq"]);
    let place = place(&lab);
    let _behind = Dnsmasq::behind(&place, SERVER, SAYS).unwrap();
    let _relay = Relay::start(&place, SERVER, |query, truth| {
        let update = (query[2] >> 3) & 15 == 5;
        let bare = [query[0], query[1], 0xa8, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        vec![Reply::now(if update { bare.to_vec() } else { truth.to_vec() })]
    })
    .unwrap();
    let (container, _slirp) = guest(&lab);
    for words in ["", "-v"] {
        let script = format!(
            "printf 'server 10.0.2.3\\nzone zone.test\\nupdate add new.zone.test 60 A 203.0.113.9\\nsend\\n' | \
             nsupdate {words} -t 20 -u 20 -r 0"
        );
        let start = now();
        let output = container.cmd(["sh", "-c", &script]).run(LIMIT).unwrap();
        assert!(output.success(), "{words}: {output}");
        assert!(start.elapsed() < Duration::from_secs(4), "{words}: {:?}", start.elapsed());
    }
}

/// As many lookups at once as a program with many tasks makes, at a server that takes its time.
#[test]
fn four_hundred_lookups_at_once_are_answered() {
    let (lab, _) = lab!(ours "four_hundred_lookups_at_once_are_answered", ["dnsmasq"]);
    if !lab.by_root() {
        println!(
            "SKIP four_hundred_lookups_at_once_are_answered: needs root to enter the container by thread"
        );
        return;
    }
    let place = place(&lab);
    let _behind = Dnsmasq::behind(&place, SERVER, SAYS).unwrap();
    let _relay = Relay::start(&place, SERVER, |_, truth| {
        vec![Reply { after: Duration::from_millis(600), ..Reply::now(truth.to_vec()) }]
    })
    .unwrap();
    let (container, _slirp) = guest(&lab);
    let ask = || {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.connect("10.0.2.3:53")?;
        socket.set_read_timeout(Some(Duration::from_secs(9)))?;
        // Answers come all at once, too.
        setsockopt(&socket, sockopt::RcvBuf, &(1 << 20))?;
        for number in 0..400_u16 {
            let mut query = number.to_be_bytes().to_vec();
            query.extend_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
            let label = format!("n{number}");
            query.push(u8::try_from(label.len()).unwrap_or_default());
            query.extend_from_slice(label.as_bytes());
            query.extend_from_slice(b"\x06lookup\x04test\0\0\x01\0\x01");
            socket.send(&query)?;
        }
        let mut answered = std::collections::BTreeMap::new();
        let mut buffer = [0; 512];
        while answered.len() < 400 {
            let Ok(len) = socket.recv(&mut buffer) else { break };
            let rcode = buffer[3] & 15;
            answered.insert([buffer[0], buffer[1]], (rcode, len));
        }
        Ok(answered)
    };
    let answered = container.within(ask).unwrap();
    let errors = answered.values().filter(|(rcode, _)| *rcode != 0).count();
    assert_eq!((answered.len(), errors), (400, 0));
}

/// A VPN comes up: the file stays, the servers' addresses stay, and the answers are others.
#[test]
fn a_network_that_changes_makes_everything_new() {
    for sandbox in [false, true] {
        let (lab, _) = lab!(ours "a_network_that_changes_makes_everything_new", ["dig", "dnsmasq"]);
        let place = place(&lab);
        let before = Dnsmasq::start(&place, SERVER, "host-record=vpn.test,203.0.113.1,3000").unwrap();
        let container = lab.container().unwrap();
        let more: &[&str] = if sandbox { &["-c", "--enable-sandbox", "--enable-seccomp"] } else { &["-c"] };
        let _slirp = lab.slirp(&container, more).unwrap();
        let find = |name| {
            let words = ["dig", "@10.0.2.3", "+nocookie", "+short", "+tries=1", "+time=9", name];
            container.cmd(words).run(LIMIT).unwrap().out().trim().to_owned()
        };
        assert_eq!(find("vpn.test"), "203.0.113.1");
        assert_eq!(find("vpn.test"), "203.0.113.1");
        assert_eq!(before.asked("vpn.test"), 1, "it was kept");
        drop(before);
        let _after = Dnsmasq::start(&place, SERVER, "host-record=vpn.test,203.0.113.2,3000").unwrap();
        assert_eq!(find("vpn.test"), "203.0.113.1", "nobody has said anything of a change");
        lab.host_root(["ip", "route", "add", "203.0.113.128/25", "dev", "lo"]).ok(LIMIT).unwrap();
        assert_eq!(find("vpn.test"), "203.0.113.2", "sandbox: {sandbox}");
    }
}

/// A stub on the host's loopback is a cache itself.
#[test]
fn nothing_is_kept_of_a_stub_on_the_loopback() {
    let (lab, _) = lab!(ours "nothing_is_kept_of_a_stub_on_the_loopback", ["dig", "dnsmasq"]);
    lab.set_resolv_conf("nameserver 127.0.0.53\n").unwrap();
    let place = lab.host_place();
    let start = |lines: &str| Dnsmasq::start(&place, "127.0.0.53", lines).unwrap();
    let first = start("host-record=a.test,203.0.113.1,3000");
    let (container, _slirp) = guest(&lab);
    let find = |name| {
        let words =
            ["dig", "@10.0.2.3", "+nocookie", "+noall", "+answer", "+comments", "+tries=1", "+time=9", name];
        container.cmd(words).run(LIMIT).unwrap().out()
    };
    assert!(find("a.test").contains("203.0.113.1"));
    assert!(find("b.test").contains("NXDOMAIN"));
    drop(first);
    let _second = start("host-record=a.test,203.0.113.2,3000\nhost-record=b.test,203.0.113.3,3000");
    assert!(find("a.test").contains("203.0.113.2"));
    assert!(find("b.test").contains("203.0.113.3"));
}

/// Whoever publishes port 53 gets the questions of the outside, and none that are meant for the DNS address.
#[test]
fn a_published_port_53_takes_no_questions_of_the_inside() {
    let (lab, _) = lab!("a_published_port_53_takes_no_questions_of_the_inside", ["dig", "dnsmasq"]);
    if !lab.by_root() {
        println!("SKIP a_published_port_53_takes_no_questions_of_the_inside: needs root for a low port");
        return;
    }
    let low = "echo 0 > /proc/sys/net/ipv4/ip_unprivileged_port_start";
    lab.host_root(["sh", "-c", low]).ok(LIMIT).unwrap();
    let place = place(&lab);
    let _truth = Dnsmasq::start(&place, SERVER, SAYS).unwrap();
    let container = lab.container().unwrap();
    let slirp = lab.slirp(&container, &["-c", "--api-socket=api.sock"]).unwrap();
    let words =
        ["dnsmasq", "--no-daemon", "--pid-file=", "--no-resolv", "--no-hosts", "--address=/test/6.6.6.6"];
    let mut other = container.cmd(words).start().unwrap();
    other.until_listens("udp", 53).unwrap();
    for proto in ["udp", "tcp"] {
        slirp.publish(proto, 53, 53).unwrap();
    }
    for tcp in ["+notcp", "+tcp"] {
        let words = |server| ["dig", server, tcp, "+nocookie", "+short", "+tries=1", "+time=9", "a.test"];
        let inside = container.cmd(words("@10.0.2.3")).run(LIMIT).unwrap();
        assert_eq!(inside.out().trim(), "203.0.113.1", "{tcp}: {inside}");
        let outside = lab.host(words("@127.0.0.1")).run(LIMIT).unwrap();
        assert_eq!(outside.out().trim(), "6.6.6.6", "{tcp}: {outside}");
    }
}
