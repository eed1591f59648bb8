//! What our rules have beyond the original's, by name: everything else is the same, line by line.
//!
//! Each difference has its row in docs/differences.md, and each of its parts is seen in a listing, so that none is left
//! in the list when it is no more.

use std::path::PathBuf;

use serde_json::Value;
use slipway_lab::{LIMIT, Namespace};

use crate::host;
use crate::place::{Host, line};
use crate::request::{Join, publish, request};
use crate::t06_dns::ended;
use crate::t16_firewalld::Guarded;

const V4: &str = "10.88.0.1/16";
const V6: &str = "fd10:88::1/64";

/// A difference: how its row in docs/differences.md begins, and what of a listing it is.
struct Difference {
    row: &'static str,
    parts: &'static [Part],
}

/// A part of a listing that the other does not have.
enum Part {
    /// A chain or a set of the table, or a policy of firewalld: from this line to the end of the block.
    Block(&'static str),
    /// A condition, and the rest of the rule, which the other has alone.
    Condition(&'static str, &'static str),
    /// Rules that lead questions to the server itself.
    OwnQuestions,
}

use Part::{Block, Condition, OwnQuestions};

const LOOPBACK: Difference =
    Difference { row: "the host's loopback", parts: &[Block("set bridges {"), Block("chain LOOPBACK {")] };
const ROUTED: Difference = Difference {
    row: "packets of others that the host routes",
    parts: &[
        Block("chain INVALID {"),
        Condition("iifname @bridges ", "ct state invalid"),
        Condition("ct status dnat ", "meta mark"),
    ],
};
const PORT_53: Difference =
    Difference { row: "a published port that covers 53, alone or in a range", parts: &[OwnQuestions] };
const NAMES: Difference =
    Difference { row: "names with the driver firewalld", parts: &[Block("netavark_names (active)")] };
const HAIRPIN: Difference = Difference {
    row: "a published port by IPv6 with the driver firewalld, from its own network",
    parts: &[Block("chain HAIRPIN {")],
};

const ALL: [&Difference; 5] = [&LOOPBACK, &ROUTED, &PORT_53, &NAMES, &HAIRPIN];

impl Part {
    /// The listing without it.
    fn taken_out_of(&self, listing: &str) -> String {
        match self {
            Block(first) => {
                let start = |line: &str| line.trim_start() == *first;
                let mut lines = Vec::new();
                let mut within = false;
                for line in listing.lines() {
                    let ends = within && (line.is_empty() || line == "\t}");
                    within = (within && !ends) || start(line);
                    if !within && !ends {
                        lines.push(line);
                    }
                }
                lines.join("\n")
            }
            Condition(ours, rest) => listing.replace(&format!("{ours}{rest}"), rest),
            OwnQuestions => {
                let own = |line: &str| {
                    let words: Vec<&str> = line.split_whitespace().collect();
                    let to = words.iter().position(|word| *word == "daddr").and_then(|at| words.get(at + 1));
                    let led = words.last().and_then(|last| last.strip_suffix(":53"));
                    to.zip(led).is_some_and(|(to, led)| led.trim_matches(['[', ']']) == *to)
                };
                listing.lines().filter(|line| !own(line)).collect::<Vec<_>>().join("\n")
            }
        }
    }
}

/// A listing of ours without whatever it has beyond the other's. Empty lines between blocks say nothing.
fn as_the_other_lists(listing: &str) -> String {
    let parts = ALL.iter().flat_map(|difference| difference.parts);
    packed(&parts.fold(listing.to_owned(), |listing, part| part.taken_out_of(&listing)))
}

fn packed(listing: &str) -> String {
    listing.lines().filter(|line| !line.trim().is_empty()).collect::<Vec<_>>().join("\n")
}

/// All parts of these differences are in that listing.
#[track_caller]
fn has(listing: &str, differences: &[&Difference]) {
    for difference in differences {
        for part in difference.parts {
            let without = packed(&part.taken_out_of(listing));
            assert_ne!(without, packed(listing), "a part of: {}\n{listing}", difference.row);
        }
    }
}

#[test]
fn every_difference_has_its_row() {
    let page = include_str!("../../../docs/differences.md");
    for Difference { row, .. } in ALL {
        assert!(page.lines().any(|line| line.starts_with(&format!("| {row} | "))), "{row}");
    }
}

/// Another netavark.
struct Other(PathBuf);

impl Other {
    /// The first that speaks nftables, or `None` after saying that there is none.
    fn find(host: &Host, test: &str) -> Option<Self> {
        let found = host.peers().into_iter().find_map(|path| {
            let words = [path.to_string_lossy().into_owned(), "version".to_owned()];
            let said = host.machine.cmd(words).run(LIMIT).map(|output| output.out()).unwrap_or_default();
            said.contains("nftables").then_some(Self(path))
        });
        if found.is_none() {
            println!("SKIP {test}: no other netavark that speaks nftables (cargo xtask deps)");
        }
        found
    }

    fn tell(&self, host: &Host, command: &str, (container, request): &(Namespace, Value)) {
        let cmd = host.cmd_of(&self.0, &[command, &container.path()]);
        let output = cmd.input(line(request)).run(LIMIT).unwrap();
        assert!(output.success(), "{output}");
    }
}

#[test]
fn each_takes_down_what_the_other_set_up() {
    const NAME: &str = "each_takes_down_what_the_other_set_up";
    let Some(host) = host!(ours "each_takes_down_what_the_other_set_up").with_dns(NAME) else { return };
    let Some(other) = Other::find(&host, NAME) else { return };
    let plain = vec![("", 8080, 80, "tcp", 1), ("127.0.0.1", 9000, 90, "udp", 3)];
    let names = vec![("", 53, 53, "udp", 1), ("", 50, 50, "tcp", 10)];
    for (ports, names) in [(plain, false), (names, true)] {
        let join = Join::bridge("podman", "podman0", &[V4, V6]).option("isolate", "true");
        let request = publish(request("one", &[join.with("dns_enabled", names)]), &ports);
        let join = || (host.container(), request.clone());
        let flush = || assert!(host.machine.sh("nft flush ruleset").unwrap().success());
        flush();
        let one = join();
        other.tell(&host, "setup", &one);
        let by_them = host.rules();
        // The first that marked connections to published ports was 2.1.
        let age = if by_them.contains("ct mark") { "2" } else { "1" };
        host.teardown(&one.0, &one.1);
        ended(&host);
        host.is_clean();
        // The newer rules, and those of its own age.
        let one = join();
        host.setup(&one.0, &one.1);
        other.tell(&host, "teardown", &one);
        ended(&host);
        host.is_clean_by(&as_the_other_lists(&host.rules()));
        flush();
        let one = join();
        let like_them = host.cmd(&["setup", &one.0.path()]).env("NETAVARK_COMPAT", age);
        like_them.input(line(&one.1)).ok(LIMIT).unwrap();
        let by_us = host.rules();
        other.tell(&host, "teardown", &one);
        ended(&host);
        host.is_clean_by(&as_the_other_lists(&host.rules()));
        // The listings are the same but for that and what 1.x got wrong: the multicast prefix of IPv6.
        let by_them = by_them.replace("ip6 daddr != ::/8", "ip6 daddr != ff00::/8");
        assert_eq!(as_the_other_lists(&by_us), packed(&by_them));
        has(&by_us, if names { &[&LOOPBACK, &ROUTED, &PORT_53] } else { &[&LOOPBACK, &ROUTED] });
    }
}

/// firewalld and our table beside it, without published ports, which the original cannot have before firewalld 2.2.
#[test]
fn behind_firewalld_the_rest_is_the_same() {
    const NAME: &str = "behind_firewalld_the_rest_is_the_same";
    let Some(mut guarded) = Guarded::fixture(NAME) else { return };
    let Some(other) = Other::find(&guarded.host, NAME) else { return };
    let join = Join::bridge("podman", "podman0", &[V4, V6]).with("dns_enabled", true);
    let request = request("one", &[join]);
    let listed = |guarded: &Guarded| {
        let said = |words| guarded.tell(words);
        let zone = said("--zone netavark_zone --list-all");
        // The policy of published ports has a name of our own with such a firewalld; nothing is in it.
        let policies = said("--list-all-policies");
        let ports = [Block("netavark_portfwd (active)"), Block("netavark_port_any (active)")];
        let policies = ports.iter().fold(policies, |policies, part| part.taken_out_of(&policies));
        let table = guarded.host.machine.sh("nft list table inet netavark").unwrap().out();
        format!("{zone}\n\n{policies}\n\n{table}")
    };
    let one = (guarded.host.container(), request.clone());
    other.tell(&guarded.host, "setup", &one);
    let by_them = listed(&guarded);
    other.tell(&guarded.host, "teardown", &one);
    ended(&guarded.host);
    let one = (guarded.host.container(), request);
    guarded.host.setup(&one.0, &one.1);
    let by_us = listed(&guarded);
    // Of the table there is nothing but what is in the list.
    let nothing = "table inet netavark {\n}";
    assert_eq!(as_the_other_lists(&by_us).replace(nothing, "").trim(), packed(&by_them));
    has(&by_us, &[&LOOPBACK, &NAMES, &HAIRPIN]);
    guarded.host.teardown(&one.0, &one.1);
    ended(&guarded.host);
    guarded.is_clean();
}
