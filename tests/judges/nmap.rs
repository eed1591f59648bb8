//! nmap from inside: every kind of port scan, protocols, versions, and what its probes for operating systems get.
//!
//! A translator answers for the whole world, so its answers must be those that the far end would give: open ports open,
//! closed ones closed, and told at once.

use std::time::Duration;

use slipway_lab::{NAMESERVER4, NAMESERVER6, Running, WORLD4, WORLD6};

use crate::court::{Guest, bounded};
use crate::{Court, Must, Row, judge};

/// For one scan.
const SCAN: Duration = Duration::from_secs(25);
/// How often a scan is made when the answer is not what it must be: on a busy machine one may come too late.
const TRIES: usize = 3;
/// Where a program in world says its name to everybody.
const BANNER: u16 = 2222;

const OPEN_TOO: &str = "an open port answers like a closed one, for whether somebody listens is known only by connecting \
                        (docs/rfc-exceptions.md, 9293 3.10.7.2)";

/// Options, target, what must be said of the ports.
#[rustfmt::skip]
const SCANS: &[(&str, &str, Must)] = &[
    ("-sS -p52,53,80,81", WORLD4, Must::Say("52 closed, 53 open, 80 open, 81 closed")),
    ("-sT -p52,53,80,81", WORLD4, Must::Say("52 closed, 53 open, 80 open, 81 closed")),
    ("-sU -p9,53", WORLD4, Must::Say("9 closed, 53 open")),
    ("-sA -p80,81", WORLD4, Must::Say("80 unfiltered, 81 unfiltered")),
    ("-sW -p80,81", WORLD4, Must::Say("80 closed, 81 closed")),
    ("-sF -p80,81", WORLD4, Must::SayFor("80 closed, 81 closed", OPEN_TOO)),
    ("-sN -p80,81", WORLD4, Must::SayFor("80 closed, 81 closed", OPEN_TOO)),
    ("-sX -p80,81", WORLD4, Must::SayFor("80 closed, 81 closed", OPEN_TOO)),
    (
        "-sO -p6,17,47,132", WORLD4,
        Must::SayFor("6 open, 17 open, 47 filtered, 132 filtered", "the router says what it does not carry"),
    ),
    ("-sS -p53,54", NAMESERVER4, Must::Say("53 open, 54 closed")),
    ("-sU -p53,54", NAMESERVER4, Must::Say("53 open, 54 closed")),
    ("-6 -sS -p52,53,80,81", WORLD6, Must::Say("52 closed, 53 open, 80 open, 81 closed")),
    ("-6 -sU -p9,53", WORLD6, Must::Say("9 closed, 53 open")),
    ("-6 -sS -p53,54", NAMESERVER6, Must::Say("53 open, 54 closed")),
    ("-6 -sU -p53,54", NAMESERVER6, Must::Say("53 open, 54 closed")),
];

fn nmap(guest: &Guest, options: &str, target: &str) -> String {
    let command = guest.container.cmd(["nmap", "--privileged", "-n", "-Pn", "-T4", "--disable-arp-ping"]);
    bounded(command.args(options.split_whitespace()).arg(target), SCAN).out()
}

/// The table of ports: number and state of each.
fn ports(said: &str) -> String {
    let port = |line: &str| {
        let mut words = line.split_whitespace();
        let number = words.next()?.split('/').next()?.parse::<u16>().ok()?;
        // "open|filtered" would be two columns of the table.
        Some(format!("{number} {}", words.next()?.replace('|', " or ")))
    };
    let found: Vec<_> = said
        .lines()
        .skip_while(|line| !line.starts_with("PORT") && !line.starts_with("PROTOCOL"))
        .take_while(|line| !line.is_empty())
        .filter_map(port)
        .collect();
    if found.is_empty() {
        said.trim().lines().last().unwrap_or("nothing").to_owned()
    } else {
        found.join(", ")
    }
}

/// The fingerprint in one line: each probe has a line of its own, or all of it is cut into lines anywhere, with a mark.
fn fingerprint(said: &str) -> String {
    let lines = said.lines().skip_while(|line| *line != "TCP/IP fingerprint:").skip(1);
    lines.take_while(|line| !line.is_empty()).map(|line| line.strip_prefix("OS:").unwrap_or(line)).collect()
}

/// What the probes for an operating system got: rows of question, answer and what it must be.
fn probes(said: &str) -> Vec<(&'static str, String, Must)> {
    let print = fingerprint(said);
    let probe = |name: &str| {
        let (_, rest) = print.split_once(&format!("){name}("))?;
        rest.split(')').next()
    };
    let names = ["ECN", "T1", "T2", "T3", "T4", "T5", "T6", "T7", "U1", "IE"];
    let unanswered: Vec<_> = names
        .into_iter()
        .filter(|name| !probe(name).is_some_and(|fields| fields.starts_with("R=Y")))
        .collect();
    let answered =
        if unanswered.is_empty() { "all".to_owned() } else { format!("not {}", unanswered.join(", ")) };
    let has = |text: &str, yes: &str| if said.contains(text) { yes } else { "otherwise" }.to_owned();
    let fields = probe("U1").unwrap_or_default();
    let quote =
        if fields.contains("RIPL=G") && fields.contains("RUCK=G") { "as it was" } else { "made anew" };
    // RFC 9293 §3.10.7.1: what acknowledges is answered with that number, anything else by an acknowledgement of all of
    // it.
    let resets =
        [("T4", "S=A%A=Z%F=R"), ("T5", "S=Z%A=S+%F=AR"), ("T6", "S=A%A=Z%F=R"), ("T7", "S=Z%A=S+%F=AR")];
    let odd: Vec<_> = resets
        .into_iter()
        .filter(|(name, want)| !probe(name).is_some_and(|fields| fields.contains(want)))
        .collect();
    let resets = if odd.is_empty() { "as RFC 9293 says".to_owned() } else { format!("{odd:?}") };
    vec![
        ("-O: probes that are answered", answered, Must::Say("all")),
        ("-O: numbers of resets", resets, Must::Say("as RFC 9293 says")),
        ("-O: guessing sequence numbers", has("(Good luck!)", "hopeless"), Must::Say("hopeless")),
        (
            "-O: identification of whole packets",
            has("IP ID Sequence Generation: All zeros", "zero"),
            Must::SayFor("zero", "it means nothing where nothing may be cut (RFC 6864 4.1)"),
        ),
        (
            "-O: the datagram in a port unreachable",
            quote.to_owned(),
            Must::SayFor(
                "made anew",
                "it is reported when the datagram is gone (docs/rfc-exceptions.md, 1122 3.2.2)",
            ),
        ),
    ]
}

/// Asks until all answers are what they must be, or often enough.
fn asked(court: &Court, ask: impl Fn() -> Vec<Row>) -> Vec<Row> {
    let mut rows = ask();
    for _ in 1..TRIES {
        if !court.subject.is_slipway() || rows.iter().all(|row| row.must.is(&row.said)) {
            break;
        }
        rows = ask();
    }
    rows
}

fn hear(court: &Court) -> Vec<Row> {
    let banner =
        court.lab.world(["ncat", "-l", "-k", &BANNER.to_string(), "-c", "echo SSH-2.0-OpenSSH_9.2p1"]);
    let _banner = Running::server(banner, "tcp", BANNER).unwrap();
    let mut guest = court.guest();
    let mut rows = Vec::new();
    for (options, target, must) in SCANS {
        rows.extend(asked(court, || {
            let said = ports(&nmap(&guest, options, target));
            vec![Row { question: format!("{options} {target}"), must: *must, said }]
        }));
    }
    rows.extend(asked(court, || {
        let said = nmap(&guest, &format!("-sV --version-light -p{BANNER}"), WORLD4);
        let said = if said.contains("OpenSSH 9.2p1") { "OpenSSH 9.2p1".to_owned() } else { ports(&said) };
        vec![Row { question: format!("-sV -p{BANNER} {WORLD4}"), must: Must::Say("OpenSSH 9.2p1"), said }]
    }));
    rows.extend(asked(court, || {
        let said = nmap(&guest, "-O -d --max-os-tries 1 -p80,81", WORLD4);
        let row =
            |(question, said, must): (&str, String, Must)| Row { question: question.to_owned(), must, said };
        probes(&said).into_iter().map(row).collect()
    }));
    court.look_after(&mut guest, "nmap");
    rows
}

#[test]
fn nmap_sees_the_far_end_as_it_is() {
    judge("nmap_sees_the_far_end_as_it_is", &["nmap", "ncat"], hear);
}

#[test]
fn tables_and_fingerprints_are_read() {
    let table = "x\nPORT   STATE  SERVICE\n53/tcp open   domain\n80/tcp closed http\n\nMAC Address: 1/2 3\n";
    assert_eq!(ports(table), "53 open, 80 closed");
    assert_eq!(ports("PROTOCOL STATE\n132 open|filtered sctp\n"), "132 open or filtered");
    let marked = "OS:SCAN(V=7)ECN(R=Y%DF=Y)T1(R=Y)T2(R=Y)T3(R=Y)T4(R=Y%S=A%A=Z%F=R)T5(R=N)T\nOS:6(R=Y)T7(R=Y)U1(R=Y%RIPL=G%RUCK=G)IE(R=Y)";
    let plain = marked.replace("T\nOS:", "T").replace("OS:", "").replace(")T", ")\nT");
    for print in [marked, &plain] {
        let rows = probes(&format!("x\nTCP/IP fingerprint:\n{print}\n\nT5(R=Y)\n"));
        assert_eq!((rows[0].1.as_str(), rows[4].1.as_str()), ("not T5", "as it was"));
        assert!(rows[1].1.contains("T5") && !rows[1].1.contains("T4"), "{rows:?}");
    }
}
