//! thc-ipv6's `fuzz_ip6` and `denial6`: packets that are wrong in every field by turns, and as many as the link takes
//! of those that cost a victim most. The verdict is that nothing happens.

use std::time::Duration;

use slipway_lab::GATEWAY6;

use crate::court::bounded;
use crate::{Court, Must, Row, judge};

/// For one kind of packet: a few thousand, each a system call or two.
const FUZZ: Duration = Duration::from_secs(15);
/// How long each flood goes on; none ends by itself.
const FLOOD: Duration = Duration::from_millis(500);

/// What is fuzzed, in `fuzz_ip6`'s words.
const KINDS: [(&str, &[&str]); 14] = [
    ("echo request", &["-1"]),
    ("echo request in a fragment", &["-1", "-F"]),
    ("echo request behind destination options", &["-1", "-D"]),
    ("echo request behind hop-by-hop options", &["-1", "-H"]),
    ("echo request behind a routing header", &["-1", "-S"]),
    ("echo request and its fixed header", &["-1", "-I"]),
    ("neighbour solicitation", &["-2"]),
    ("neighbour advertisement", &["-3"]),
    ("router advertisement", &["-4"]),
    ("multicast query", &["-7"]),
    ("multicast report, version 2", &["-8"]),
    ("node query", &["-0"]),
    ("SYN to the DNS port", &["-s", "53"]),
    ("no transport header", &["-X"]),
];

const FLOODS: [&str; 7] = [
    "hop-by-hop options, router alert, unknown options",
    "destination options, unknown ones",
    "hop-by-hop options and 180 headers",
    "hop-by-hop options and 178 headers and a ping",
    "authentication header and a ping",
    "first fragments of a ping, router alert",
    "hop-by-hop options, unknown ones",
];

fn fuzzed(court: &Court) -> Vec<Row> {
    let mut guest = court.guest();
    let mut rows = Vec::new();
    for (name, options) in KINDS {
        let command = guest.container.cmd(["atk6-fuzz_ip6"]).args(options).args(["tap0", GATEWAY6]);
        let output = bounded(command, FUZZ);
        let said = match output.code() {
            0 if output.out().contains("is still alive") => "still alive".to_owned(),
            code => format!("{code}: {}", output.all().lines().last().unwrap_or_default()),
        };
        rows.push(Row { question: format!("fuzz_ip6: {name}"), must: Must::Say("still alive"), said });
    }
    court.look_after(&mut guest, "fuzz_ip6");
    rows
}

fn flooded(court: &Court) -> Vec<Row> {
    let mut guest = court.guest();
    let mut rows = Vec::new();
    for (at, name) in FLOODS.iter().enumerate() {
        let case = (at + 1).to_string();
        let command = guest.container.cmd(["atk6-denial6", "tap0", GATEWAY6, &case]);
        let output = bounded(command, FLOOD);
        // It knows no verdict. A judge that did not begin is none.
        assert!(output.out().contains(&format!("Test {case}: ")), "{output}");
        let alive = guest.container.sh(&format!("ping -6 -c3 -i0.2 -W5 {GATEWAY6}")).unwrap();
        let said = if alive.success() { "still alive" } else { "no answer" };
        rows.push(Row {
            question: format!("denial6: {name}"),
            must: Must::Say("still alive"),
            said: said.to_owned(),
        });
    }
    court.look_after(&mut guest, "denial6");
    rows
}

#[test]
fn fuzz_ip6_and_denial6_hurt_nobody() {
    judge("fuzz_ip6_and_denial6_hurt_nobody", &["atk6-fuzz_ip6", "atk6-denial6"], |court| {
        [fuzzed(court), flooded(court)].concat()
    });
}
