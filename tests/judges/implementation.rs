//! thc-ipv6's `implementation6`: each of its cases 1 to 57 (0 and 58 are plain pings, before and after) is one kind of
//! packet, and the verdict whether an echo reply, an error or nothing came back. It calls whatever is no reply a
//! failure; what RFC 8200 asks for is often the error or the silence.
//!
//! The cases are shared out over containers, for the judge takes any echo reply on the link for the answer to its own,
//! and waits three seconds for silence.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use slipway_lab::{GATEWAY6, WORLD6};

use crate::court::{Guest, bounded};
use crate::{Court, Must, Row, judge};

/// Containers that share the cases.
const GUESTS: usize = 5;
/// For one case: it waits three seconds for an answer, on a machine that does other things.
const CASE: Duration = Duration::from_secs(12);
/// How often a case is heard when the answer is not what it must be: on a busy machine one may come too late.
const TRIES: usize = 3;

const REPLY: Must = Must::Say("we got a reply");
const SILENCE: &str = "no reply";
const TOO_LONG: &str = "eight extension headers are enough (RFC 8504 5.3)";
const REFUSED: &str = "segments left in a routing header that nobody here processes (RFC 8200 4.4, 5095)";
const LATE: &str = "hop-by-hop options come first or are unknown (RFC 8200 4)";
const OVERLAP: &str = "overlapping fragments are no packet (RFC 8200 4.5)";
const LENGTH: &str = "what is not as long as it says is no packet";

/// What a router's own addresses must do, from case 1 on.
#[rustfmt::skip]
const CASES: [Must; 57] = [
    REPLY, // 1: an option to be ignored
    Must::SayFor(SILENCE, "the judge does not look for the [4:1]: too long to go whole, the options are inside a fragment"),
    Must::SayFor("error reply [4:1]", LATE),
    Must::SayFor("error reply [4:1]", LATE),
    REPLY, // 5: destination options
    Must::SayFor(SILENCE, "the first fragment lacks the upper header (RFC 8200 4.5, 7112)"),
    REPLY,
    Must::SayFor(SILENCE, TOO_LONG),
    Must::SayFor(SILENCE, TOO_LONG),
    Must::SayFor(SILENCE, TOO_LONG), // 10
    REPLY,
    REPLY,
    Must::SayFor(SILENCE, "longer than a packet can be"),
    Must::SayFor("error reply [4:1]", "hop-by-hop options inside a fragment are refused at once"),
    Must::SayFor("error reply [4:1]", "hop-by-hop options inside a fragment are refused at once"), // 15
    Must::SayFor(SILENCE, OVERLAP),
    Must::SayFor(SILENCE, OVERLAP),
    REPLY, // 18: source routing, no segments left
    Must::SayFor("error reply [4:0]", REFUSED),
    Must::SayFor("error reply [4:0]", REFUSED), // 20
    Must::SayFor("error reply [4:0]", REFUSED),
    REPLY,
    Must::SayFor("error reply [4:0]", REFUSED),
    REPLY,
    REPLY, // 25
    Must::SayFor("error reply [4:1]", LATE),
    REPLY,
    Must::SayFor(SILENCE, "node information (RFC 4620) is an experiment and tells the host's secrets"),
    Must::SayFor(SILENCE, "inverse discovery (RFC 3122) is for links without addresses"),
    Must::SayFor("error reply [4:2]", "a home address is an option that must not be skipped"), // 30
    Must::SayFor(SILENCE, "no certificates here (RFC 3971)"),
    Must::SayFor("error reply [4:1]", "no security association: AH is an unknown header (RFC 4302 3.4.2)"),
    Must::SayFor(SILENCE, "told by [4:1] like the one before, which the judge does not look for here"),
    Must::SayFor(SILENCE, LENGTH),
    Must::SayFor("error reply [4:1]", "no security association: ESP is an unknown header"), // 35
    Must::SayFor(SILENCE, "a group is no source (RFC 4291 2.7)"),
    Must::SayFor("error reply [4:0]", REFUSED),
    Must::SayFor("error reply [4:0]", REFUSED),
    REPLY,
    Must::SayFor(SILENCE, "a group is no source (RFC 4291 2.7)"), // 40
    REPLY,
    Must::SayFor(SILENCE, "discovery comes with hop limit 255 or from elsewhere (RFC 4861 7.1.1)"),
    REPLY,
    REPLY,
    REPLY, // 45
    REPLY,
    Must::SayFor("error reply [4:2]", "jumbograms are unknown on links this narrow (RFC 2675 3)"),
    Must::SayFor(SILENCE, LENGTH),
    Must::SayFor("error reply [4:2]", "an unknown option that asks for the error (RFC 8200 4.2)"),
    Must::SayFor("error reply [4:2]", "an unknown option that asks for the error (RFC 8200 4.2)"), // 50
    Must::SayFor(SILENCE, LENGTH),
    Must::SayFor(SILENCE, LENGTH),
    Must::SayFor(SILENCE, LENGTH),
    Must::SayFor(SILENCE, "the checksum is wrong"),
    Must::SayFor(SILENCE, "the checksum is wrong"), // 55
    REPLY,
    Must::SayFor(SILENCE, "a fragment is missing"),
];

/// Cases that are worth asking elsewhere, too: through the translator to world, and of the router's link-local address.
const ELSEWHERE: [usize; 5] = [1, 5, 11, 18, 32];

/// One case: what it is called and what came of it.
fn case(guest: &Guest, target: &str, number: usize) -> (String, String) {
    let number = number.to_string();
    let command = guest.container.cmd(["atk6-implementation6", "-p", "tap0", target, &number]);
    let said = bounded(command, CASE).out();
    let line = said.lines().find(|line| line.starts_with("Test ")).unwrap_or_default();
    let (name, verdict) = line.rsplit_once('\t').unwrap_or((line, "no verdict"));
    let verdict = verdict.split_once(" - ").map_or(verdict, |(_, words)| words);
    (name.trim().to_owned(), verdict.trim().to_owned())
}

fn row(court: &Court, guest: &Guest, (place, target): (&str, &str), number: usize) -> Row {
    let must = CASES[number - 1];
    let (mut name, mut said) = case(guest, target, number);
    for _ in 1..TRIES {
        if !court.subject.is_slipway() || must.is(&said) {
            break;
        }
        (name, said) = case(guest, target, number);
    }
    Row { question: format!("{place}: {name}"), must, said }
}

fn hear(court: &Court) -> Vec<Row> {
    let numbers = (1..=CASES.len()).map(|number| (0, number));
    let elsewhere = ELSEWHERE.iter().flat_map(|&number| [(1, number), (2, number)]);
    // From the end, as they are taken.
    let left = Mutex::new(elsewhere.chain(numbers.rev()).collect::<Vec<_>>());
    let heard = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..GUESTS {
            scope.spawn(|| {
                let mut guest = court.guest();
                let router = guest.router();
                let places = [("gateway", GATEWAY6), ("router", router.as_str()), ("world", WORLD6)];
                while let Some((place, number)) = { left.lock().unwrap().pop() } {
                    let row = row(court, &guest, places[place], number);
                    heard.lock().unwrap().insert((place, number), row);
                }
                court.look_after(&mut guest, "implementation6");
            });
        }
    });
    heard.into_inner().unwrap().into_values().collect()
}

#[test]
fn implementation6_gets_the_answers_that_rfc_8200_asks_for() {
    judge("implementation6_gets_the_answers_that_rfc_8200_asks_for", &["atk6-implementation6"], hear);
}
