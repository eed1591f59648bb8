//! SI6's ipv6toolkit: one forged packet at a time, and tools that find out what is guessable. Most of its tools send
//! and look no further, so the witness is tcpdump on the guest's own link.
//!
//! `rs6` of Debian 12 (2.0) ends by a segmentation fault of its own before it has sent anything; that solicitations are
//! answered is what gives every container here its address.

use std::time::Duration;

use slipway_lab::{LIMIT, Running, now};

use crate::court::{Guest, bounded};
use crate::{Court, Must, Row, judge};

/// For a tool that sends a packet: most end at once, some wait for an answer of their own liking.
const PACKET: Duration = Duration::from_millis(2500);
/// For a tool that finds something out.
const TOOL: Duration = Duration::from_secs(6);
/// How long silence lasts.
const SILENCE: Duration = Duration::from_millis(800);
/// How often a question is asked when the answer is not what it must be: on a busy machine one may come too late.
const TRIES: usize = 3;

/// What the guest's link has brought, neighbours' and routers' own talk left out where nobody asked for it.
const NEWS: &str = "ip6 and not (icmp6 and (ip6[40] == 134 or ip6[40] == 135 or ip6[40] == 136))";
const ADVERTISEMENTS: &str = "icmp6 and ip6[40] == 136";

const QUIET: Must = Must::Say("silence");

/// Command line (`GUEST`, `LOCAL` and `ROUTER` stand for addresses), what it is, what must come back.
#[rustfmt::skip]
const PACKETS: &[(&str, &str, Must)] = &[
    ("ns6 -i tap0 -t fd00::2 -d ff02::1:ff00:2 -s GUEST -e", "who has the gateway", Must::Say("advertised")),
    ("ns6 -i tap0 -t ROUTER -d ROUTER -s LOCAL -e", "are you still there, router", Must::Say("advertised")),
    ("ns6 -i tap0 -t fd00::3 -d ff02::1:ff00:3 -s ::", "I will take the DNS address", Must::Say("advertised")),
    ("ns6 -i tap0 -t fd00::77 -d ff02::1:ff00:77 -s GUEST -e", "who has an address of nobody's", QUIET),
    ("ns6 -i tap0 -t fd00::2 -d ff02::1 -s ::", "duplicate detection to all nodes (RFC 4861 7.1.1)", QUIET),
    ("na6 -i tap0 -d ROUTER -t fd00::2 -s LOCAL -o -E 02:00:00:00:00:09", "I have the gateway's address", QUIET),
    ("na6 -i tap0 -d ROUTER -t GUEST -s GUEST -c -o -E 02:00:00:00:00:09", "I have another MAC address", QUIET),
    ("ra6 -i tap0 -d ff02::1 -s fe80::99 -t 9000", "I am a router", QUIET),
    ("rd6 -i tap0 -d ROUTER -s LOCAL -t 2001:db8:1::9 -R 2001:db8:1::2", "redirects for a router", QUIET),
    ("icmp6 -i tap0 -d fd00::2 -t 128", "echo request", Must::Say("echo reply")),
    ("icmp6 -i tap0 -d fd00::2 -t 200", "unknown informational message (RFC 4443 2.4 b)", QUIET),
    ("icmp6 -i tap0 -d fd00::2 -t 5", "unknown error", QUIET),
    ("icmp6 -i tap0 -d fd00::2 -e 4 -p tcp -s GUEST", "an error about a packet of nobody's", QUIET),
    ("ni6 -i tap0 -d fd00::2", "node information (RFC 4620)", QUIET),
    ("jumbo6 -i tap0 -d fd00::2 -q 70000", "a jumbogram that is none", QUIET),
    ("frag6 -i tap0 -d fd00::2 --frag-type first --frag-size 64", "a first fragment alone", QUIET),
    ("tcp6 -i tap0 -d 2001:db8:1::2 -a 80 -X S -s GUEST", "SYN to an open port of world", Must::Say("SYN ACK")),
    ("tcp6 -i tap0 -d 2001:db8:1::2 -a 81 -X S -s GUEST", "SYN to a closed port of world", Must::Say("RST ACK")),
    ("tcp6 -i tap0 -d 2001:db8:1::2 -a 80 -X A -s GUEST", "ACK of no connection", Must::Say("RST")),
    ("tcp6 -i tap0 -d 2001:db8:1::2 -a 80 -X F -s GUEST", "FIN of no connection", Must::Say("RST ACK")),
    ("tcp6 -i tap0 -d 2001:db8:1::2 -a 80 -X R -s GUEST", "RST of no connection", QUIET),
    ("tcp6 -i tap0 -d fd00::3 -a 53 -X S -s GUEST", "SYN to the nameserver", Must::Say("SYN ACK")),
    ("tcp6 -i tap0 -d fd00::3 -a 54 -X S -s GUEST", "SYN to another port there", Must::Say("RST ACK")),
    ("tcp6 -i tap0 -d fd00::3 -a 53 -X S -s GUEST -y 16", "SYN in fragments of 16 bytes", Must::Say("SYN ACK")),
    (
        "tcp6 -i tap0 -d fd00::3 -a 53 -X S -s GUEST -u 2000 -y 1200",
        "SYN behind 2000 bytes of options, fragmented",
        Must::SayFor("silence", "the first fragment lacks the upper header (RFC 8200 4.5, 7112)"),
    ),
    ("udp6 -i tap0 -d 2001:db8:1::2 -a 9 -s GUEST", "datagram to a closed port of world", Must::Say("port unreachable from 2001:db8:1::2")),
    ("udp6 -i tap0 -d fd00::3 -a 9 -s GUEST", "datagram to another port of the nameserver", Must::Say("port unreachable from fd00::3")),
];

/// A tool that says something itself.
struct Finder {
    command: &'static str,
    question: &'static str,
    /// Words that are looked for, and what it means when they are there.
    words: &'static [(&'static str, &'static str)],
    must: Must,
}

const FINDERS: [Finder; 4] = [
    Finder {
        command: "scan6 -i tap0 -L -e -P local",
        question: "who answers pings to all nodes",
        words: &[("ROUTER @ 52:55:0a:00:02:02", "the router")],
        must: Must::Say("the router"),
    },
    Finder {
        command: "path6 -i tap0 -d 2001:db8:1::2",
        question: "the path to world",
        words: &[("1 (2001:db8:1::2)", "one hop")],
        must: Must::SayFor("one hop", "nothing is taken off the hop limit (docs/rfc-exceptions.md, 8200 3)"),
    },
    Finder {
        command: "frag6 -i tap0 -v -d fd00::2 --frag-id-policy",
        question: "identifications of fragments",
        words: &[("Global IDs with increments of 1", "a counter"), ("Fragment ID policy", "another policy")],
        must: Must::SayFor(
            "a counter",
            "nobody but the guest sees it or could use it (docs/rfc-exceptions.md, 7739)",
        ),
    },
    Finder {
        command: "flow6 -i tap0 -v -d fd00::2 --flow-label-policy",
        question: "flow labels",
        words: &[("constant labels, set to 00000", "none"), ("Flow Label policy", "another policy")],
        must: Must::SayFor("none", "there is one path (docs/rfc-exceptions.md, 6437)"),
    },
];

/// The addresses that stand for the words of a command line.
struct Names {
    guest: String,
    local: String,
    router: String,
}

impl Names {
    fn of(guest: &Guest) -> Self {
        Self { guest: guest.own("global"), local: guest.own("link"), router: guest.router() }
    }

    fn put(&self, text: &str) -> String {
        text.replace("GUEST", &self.guest).replace("LOCAL", &self.local).replace("ROUTER", &self.router)
    }
}

/// What a line of tcpdump's means.
fn meaning(line: &str) -> Option<String> {
    const MEANINGS: [(&str, &str); 7] = [
        ("echo reply", "echo reply"),
        ("neighbor advertisement", "advertised"),
        ("Flags [S.]", "SYN ACK"),
        ("Flags [R.]", "RST ACK"),
        ("Flags [R]", "RST"),
        ("parameter problem", "parameter problem"),
        ("packet too big", "packet too big"),
    ];
    // Fragments of an earlier question that were waited for in vain.
    let line = line.split_once("IP6 ").map(|(_, rest)| rest).filter(|rest| !rest.contains("reassembly"))?;
    if let Some((_, word)) = MEANINGS.iter().find(|(text, _)| line.contains(text)) {
        return Some((*word).to_owned());
    }
    let from = line.split_whitespace().next().unwrap_or_default();
    match line.contains("unreachable port") {
        true => Some(format!("port unreachable from {from}")),
        false => Some(line.split_once(": ").map_or(line, |(_, rest)| rest).to_owned()),
    }
}

/// Sends one packet, and says what came back.
fn witnessed(guest: &Guest, command: &str) -> String {
    let filter = if command.starts_with("ns6") { ADVERTISEMENTS } else { NEWS };
    let argv = ["tcpdump", "-l", "-n", "--immediate-mode", "-Q", "in", "-i", "tap0", filter];
    let mut witness = guest.as_root(argv).start().unwrap();
    witness.until(LIMIT, |witness| witness.stderr().contains("listening on")).unwrap();
    let sent = bounded(guest.as_root(command.split_whitespace()), PACKET);
    if !matches!(sent.code(), 0 | 124) {
        return format!("the tool failed: {}", sent.all().trim());
    }
    let heard = |witness: &Running| witness.stdout().lines().find_map(meaning);
    let end = now() + SILENCE;
    loop {
        if let Some(word) = heard(&witness) {
            return word;
        }
        if now() >= end {
            return "silence".to_owned();
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Asks until the answer is what it must be, or often enough.
fn asked(court: &Court, question: &str, must: Must, ask: impl Fn() -> String) -> Row {
    let mut said = ask();
    for _ in 1..TRIES {
        if !court.subject.is_slipway() || must.is(&said) {
            break;
        }
        said = ask();
    }
    Row { question: question.to_owned(), must, said }
}

/// The tool's name before the question.
fn titled(command: &str, question: &str) -> String {
    format!("{}: {question}", command.split_whitespace().next().unwrap_or_default())
}

fn hear(court: &Court) -> Vec<Row> {
    let mut guest = court.guest();
    let names = Names::of(&guest);
    let mut rows = Vec::new();
    for (command, question, must) in PACKETS {
        let command = names.put(command);
        rows.push(asked(court, &titled(&command, question), *must, || witnessed(&guest, &command)));
    }
    for finder in &FINDERS {
        let command = names.put(finder.command);
        let ask = || {
            let said = bounded(guest.as_root(command.split_whitespace()), TOOL).all();
            let found = finder.words.iter().find(|(text, _)| said.contains(&names.put(text)));
            found.map_or_else(|| "nothing".to_owned(), |(_, word)| (*word).to_owned())
        };
        rows.push(asked(court, &titled(&command, finder.question), finder.must, ask));
    }
    court.look_after(&mut guest, "the toolkit");
    rows
}

#[test]
fn forged_packets_get_the_answers_that_they_deserve() {
    judge(
        "forged_packets_get_the_answers_that_they_deserve",
        &[
            "tcpdump", "ns6", "na6", "ra6", "rd6", "icmp6", "ni6", "jumbo6", "frag6", "tcp6", "udp6",
            "scan6", "path6", "flow6",
        ],
        hear,
    );
}

#[test]
fn lines_of_tcpdump_are_read() {
    let read = |line: &str| meaning(&format!("12:40:38.006785 IP6 {line}"));
    assert_eq!(read("fd00::3.53 > fd00::64.7747: Flags [S.], seq 18, ack 1, win 65535").unwrap(), "SYN ACK");
    assert_eq!(
        read("fd00::3 > fd00::64: ICMP6, destination unreachable, unreachable port, fd00::3 udp port 9, length 56")
            .unwrap(),
        "port unreachable from fd00::3"
    );
    assert_eq!(read("fd00::2 > fd00::64: ICMP6, time exceeded in-transit (reassembly), length 1240"), None);
    assert_eq!(meaning("tcpdump: listening"), None);
}
