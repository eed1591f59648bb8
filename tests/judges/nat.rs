//! coturn's `turnutils_natdiscovery` (RFC 5780) against coturn's own server on two addresses and two ports in world:
//! what kind of translator lies between. RFC 4787 and peer-to-peer programs want mapping and filtering that do not look
//! at the far end.

use std::time::Duration;

use slipway_lab::{GUEST4, LIMIT, Running, WORLD4, WORLD6};

use crate::court::{Guest, OTHER4, OTHER6, bounded};
use crate::{Court, Must, Row, judge};

/// A second address of the guest.
const SECOND4: &str = "10.0.2.101";
/// A question is a few datagrams, or a timeout of the judge's.
const QUESTION: Duration = Duration::from_secs(12);

/// The judge's options, what they ask, and what must be said.
const QUESTIONS: [(&[&str], &str, Must); 6] = [
    (&["-m"], "mapping", Must::Say("endpoint independent mapping")),
    (&["-f"], "filtering", Must::Say("endpoint independent filtering")),
    (&["-H"], "hairpinning", Must::Say("hairpinning")),
    (&["-m", "-P"], "mapping, 1500 bytes", Must::Say("endpoint independent mapping")),
    (
        &["-t", "-T", "2"],
        "lifetime, 2 s",
        Must::NotAsked(
            &["still mapped"],
            "30 s and 120 s are too long to wait for; the engine's tests have them",
        ),
    ),
    (&["-c", "-A", SECOND4], "two guests' sockets of one port", Must::Say("kept apart")),
];

/// The addresses that the server saw a request come from.
fn reflexive(said: &str) -> Vec<&str> {
    said.lines()
        .filter_map(|line| line.split_once("UDP reflexive addr: "))
        .map(|(_, addr)| addr.trim())
        .collect()
}

fn verdict(options: &[&str], said: &str) -> String {
    let first = match options {
        ["-m", ..] => {
            said.contains("NAT with Endpoint Independent Mapping!").then_some("endpoint independent mapping")
        }
        ["-f", ..] => said
            .contains("NAT with Endpoint Independent Filtering!")
            .then_some("endpoint independent filtering"),
        ["-H", ..] => said.contains("maybe a successful hairpinning").then_some("hairpinning"),
        // The second answer came to the first socket's mapping.
        ["-t", ..] => said.contains("RFC 5780 response 2").then_some("still mapped"),
        _ => match reflexive(said)[..] {
            [one, two] if one != two => Some("kept apart"),
            _ => None,
        },
    };
    first.map_or_else(|| said.lines().last().unwrap_or("nothing").to_owned(), str::to_owned)
}

fn ask(guest: &Guest, own: &str, server: &str, options: &[&str]) -> String {
    let command = guest.container.cmd(["turnutils_natdiscovery"]).args(options).args(["-L", own, server]);
    let output = bounded(command, QUESTION);
    verdict(options, &output.all())
}

fn hear(court: &Court) -> Vec<Row> {
    let dir = court.lab.dir().to_string_lossy().into_owned();
    let mut server =
        court.lab.world(["turnserver", "-n", "-z", "--stun-only", "--no-tls", "--no-dtls", "--no-cli"]);
    server = server.args([WORLD4, OTHER4, WORLD6, OTHER6].map(|addr| format!("--listening-ip={addr}")));
    server = server.args(["--listening-port=3478", "--alt-listening-port=3479", "--log-file=stdout"]);
    server = server.args([format!("--pidfile={dir}/turn.pid"), format!("--userdb={dir}/turn.db")]);
    let _server = Running::server(server, "udp", 3479).unwrap();
    let mut guest = court.guest();
    guest.container.cmd(["ip", "address", "add", &format!("{SECOND4}/24"), "dev", "tap0"]).ok(LIMIT).unwrap();
    let mut rows = Vec::new();
    let own6 = guest.own("global");
    for (family, own, server) in [("IPv4", GUEST4, WORLD4), ("IPv6", own6.as_str(), WORLD6)] {
        for (options, name, must) in QUESTIONS {
            if family == "IPv6" && options.contains(&SECOND4) {
                continue;
            }
            let said = ask(&guest, own, server, options);
            rows.push(Row { question: format!("{family}: {name}"), must, said });
        }
    }
    court.look_after(&mut guest, "natdiscovery");
    rows
}

#[test]
fn natdiscovery_finds_a_translator_as_rfc_4787_wants_it() {
    judge(
        "natdiscovery_finds_a_translator_as_rfc_4787_wants_it",
        &["turnserver", "turnutils_natdiscovery"],
        hear,
    );
}
