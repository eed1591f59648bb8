//! `passt`: ours and the original as the network of the same machines, over a stream and over shared memory.
//!
//! ```text
//!   world ── veth ── host: passt ── stream or rings ── pump ── TAP of a container      as fast as it goes
//!                                                 └─── QEMU ── card of a guest         emulated
//! ```
//! World and host are namespaces joined by a veth, as for the stack. A machine is a container whose only interface is a
//! TAP, and a pump of our own (`tests/testkit/pump.rs`) carries its frames, whoever's `passt` that is: without an
//! emulator in between, it is the network that is measured. In the rows of *QEMU* there is one, with a kernel of its
//! own; it is the bottleneck of every transfer, so what a gigabyte costs the process of `passt` is what tells there.
//!
//! Both sides take turns, piece of work by piece of work, and each piece has a fresh process and a fresh machine.

mod stage;

use crate::tool::{self, Done};

use super::duel::{Duel, Goal, Row, Side};
use super::peers::Peer;
use super::prepared::Prepared;
use super::rows::Group;
use super::{Allowed, Wish};
use stage::{Card, Ground};

/// One figure for each row of a test.
type Work = fn(&Ground, Side, Card) -> Done<Vec<f64>>;

/// A piece of work, and what it gives: rows with their units and goals.
struct Test {
    group: Group,
    card: Card,
    work: Work,
    rows: &'static [(&'static str, &'static str, Goal)],
}

/// Over a stream, and what it is held against.
const STREAM: Goal = Goal::AtLeast(1.1);
/// Over shared memory.
const RINGS: Goal = Goal::AtLeast(1.5);
/// Under emulation: of the rate, and of the time that a gigabyte costs.
const EMULATED: Goal = Goal::AtLeast(0.95);
const COSTS: Goal = Goal::AtMost(0.6);

const fn stream(work: Work, rows: &'static [(&'static str, &'static str, Goal)]) -> Test {
    Test { group: Group::PasstStream, card: Card::Stream, work, rows }
}

const fn rings(work: Work, rows: &'static [(&'static str, &'static str, Goal)]) -> Test {
    Test { group: Group::PasstVhostUser, card: Card::Rings, work, rows }
}

const fn emulated(card: Card, rows: &'static [(&'static str, &'static str, Goal)]) -> Test {
    Test { group: Group::PasstEmulated, card, work: stage::emulated, rows }
}

/// All tests, those of a group together.
const TESTS: &[Test] = &[
    stream(stage::upload, &[("stream: TCP from the machine", "Gbit/s", STREAM)]),
    stream(stage::download, &[("stream: TCP to the machine", "Gbit/s", STREAM)]),
    stream(stage::published, &[("stream: a published port", "Gbit/s", STREAM)]),
    stream(stage::datagrams_up, &[("stream: UDP 1400 B from the machine, received", "Gbit/s", STREAM)]),
    stream(stage::datagrams_down, &[("stream: UDP 1400 B to the machine, received", "Gbit/s", STREAM)]),
    stream(stage::requests, &[("stream: TCP request/response", "1/s", STREAM)]),
    rings(stage::upload, &[("vhost-user: TCP from the machine", "Gbit/s", RINGS)]),
    rings(stage::download, &[("vhost-user: TCP to the machine", "Gbit/s", RINGS)]),
    rings(stage::published, &[("vhost-user: a published port", "Gbit/s", RINGS)]),
    rings(stage::datagrams_up, &[("vhost-user: UDP 1400 B from the machine, received", "Gbit/s", RINGS)]),
    rings(stage::datagrams_down, &[("vhost-user: UDP 1400 B to the machine, received", "Gbit/s", RINGS)]),
    rings(stage::requests, &[("vhost-user: TCP request/response", "1/s", RINGS)]),
    emulated(
        Card::Stream,
        &[
            ("QEMU, stream: TCP from the guest", "Gbit/s", EMULATED),
            ("QEMU, stream: what that costs passt", "s/GB", COSTS),
            ("QEMU, stream: TCP to the guest", "Gbit/s", EMULATED),
            ("QEMU, stream: what that costs passt, to the guest", "s/GB", COSTS),
        ],
    ),
    emulated(
        Card::Rings,
        &[
            ("QEMU, vhost-user: TCP from the guest", "Gbit/s", EMULATED),
            ("QEMU, vhost-user: what that costs passt", "s/GB", COSTS),
            ("QEMU, vhost-user: TCP to the guest", "Gbit/s", EMULATED),
            ("QEMU, vhost-user: what that costs passt, to the guest", "s/GB", COSTS),
        ],
    ),
];

/// Measures what is wished for; a table for each group, with its mark.
pub(super) fn run(wish: &Wish, prepared: &Prepared) -> Done<Vec<(&'static str, Duel)>> {
    let rival = Peer::find("passt", prepared.peers.as_deref());
    if rival.is_none() {
        tool::skip("bench of passt", "neither fetched nor installed");
    }
    let _allowed = Allowed::new();
    let ground = Ground::new(prepared, rival.as_ref())?;
    let name = rival.map_or_else(|| "no passt here".to_owned(), |peer| peer.version());
    let tests: Vec<&Test> = TESTS.iter().filter(|test| wanted(test, wish) && can(&ground, test)).collect();
    let sides: Vec<Side> = ground.sides().collect();
    let mut tables = Vec::new();
    for of_group in tests.chunk_by(|one, next| one.group == next.group) {
        let mut duel = Duel { rival: name.clone(), rows: Vec::new(), failures: Vec::new() };
        for test in of_group {
            let rows = test.rows.iter().map(|(name, unit, goal)| Row::new(name, unit, *goal));
            duel.fill(rows, (&sides, wish.rounds), |side| (test.work)(&ground, side, test.card))?;
        }
        tables.extend(of_group.first().map(|test| (test.group.mark(), duel)));
    }
    Ok(tables)
}

fn wanted(test: &Test, wish: &Wish) -> bool {
    let named = |text: &String| test.rows.iter().any(|(name, ..)| name.contains(text.as_str()));
    (wish.groups.is_empty() || wish.groups.contains(&test.group))
        && (wish.only.is_empty() || wish.only.iter().any(named))
}

/// Whether a test can be done; what cannot is skipped by name.
fn can(ground: &Ground, test: &Test) -> bool {
    let can = test.group != Group::PasstEmulated || ground.has_qemu();
    if !can {
        for (name, ..) in test.rows {
            tool::skip(&format!("bench passt, {name}"), "there is no tree qemu");
        }
    }
    can
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_have_names_of_their_own_and_stand_with_their_group() {
        let mut names: Vec<&str> = TESTS.iter().flat_map(|test| test.rows).map(|(name, ..)| *name).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
        let mut groups: Vec<&str> = TESTS.iter().map(|test| test.group.mark()).collect();
        groups.dedup();
        assert_eq!(groups, ["passt-stream", "passt-vhost-user", "passt-emulated"]);
    }

    #[test]
    fn what_less_is_better_of_has_a_bound_above_and_the_rest_one_below() {
        for (name, unit, goal) in TESTS.iter().flat_map(|test| test.rows) {
            match unit.ends_with("/s") {
                true => assert!(matches!(goal, Goal::AtLeast(_)), "{name}"),
                false => assert!(matches!(goal, Goal::AtMost(_)), "{name}"),
            }
        }
    }
}
