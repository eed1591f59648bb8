//! `gvproxy`: ours and the original as the network of the same machines.
//!
//! World and host are namespaces joined by a veth, as for the stack. gvproxy runs on *host*; a machine is a container
//! whose only interface is a TAP of 1500 bytes, and the same plain forwarder (`tests/lab/forwarder.rs`) carries its
//! frames to `/connect`, whoever's gvproxy that is. In the rows of *both ends* each gvproxy has the `gvforwarder` of
//! its own house instead. Both sides take turns, piece of work by piece of work, and each piece has a fresh process and
//! fresh machines.
//!
//! `rows` says what is measured, `work` does it, `stage` sets a side up. What the original has not or cannot do is
//! measured of ours alone, against a bound.

mod rows;
mod stage;
mod work;

use crate::tool::{self, Done};

use super::duel::{Duel, Row, Side};
use super::peers::Peer;
use super::prepared::Prepared;
use super::{Allowed, Wish};
use rows::{Ends, TESTS, Test};
use stage::{Ground, Stage};

/// Measures what is wished for; a table for each group, with its mark.
pub(super) fn run(wish: &Wish, prepared: &Prepared) -> Done<Vec<(&'static str, Duel)>> {
    let rival = Peer::find("gvproxy", prepared.gvproxy_tree.as_deref());
    if rival.is_none() {
        tool::skip("bench of gvproxy", "neither fetched nor installed");
    }
    let _allowed = Allowed::new();
    let ground = Ground::new(prepared, rival.as_ref())?;
    let name = rival.map_or_else(|| "no gvproxy here".to_owned(), |peer| peer.version());
    let name = name.replace("gvproxy version v", "gvproxy ");
    let wanted = |test: &&Test| {
        let named = |text: &String| test.rows.iter().any(|row| row.name.contains(text.as_str()));
        (wish.groups.is_empty() || wish.groups.contains(&test.group))
            && (wish.only.is_empty() || wish.only.iter().any(named))
    };
    let tests: Vec<&Test> = TESTS.iter().filter(wanted).filter(|test| can(&ground, test)).collect();
    let mut tables = Vec::new();
    for of_group in tests.chunk_by(|one, next| one.group == next.group) {
        let mut duel = Duel { rival: name.clone(), rows: Vec::new(), failures: Vec::new() };
        for test in of_group {
            let sides: Vec<Side> =
                ground.sides().filter(|side| *side == Side::Ours || test.ends != Ends::Ours).collect();
            let rows = test.rows.iter().map(|row| Row::new(row.name, row.unit, row.goal));
            duel.fill(rows, (&sides, wish.rounds), |side| (test.work)(&Stage { ground: &ground, side }))?;
        }
        tables.extend(of_group.first().map(|test| (test.group.mark(), duel)));
    }
    Ok(tables)
}

/// Whether a test can be done; what cannot is skipped by name.
fn can(ground: &Ground, test: &Test) -> bool {
    let lacks = test.ends == Ends::Own && !ground.has_both_forwarders();
    if lacks {
        for row in test.rows {
            tool::skip(
                &format!("bench gvproxy, {}", row.name),
                "SLIPWAY_BENCH_GVFORWARDER names no gvforwarder of the original's house",
            );
        }
    }
    !lacks
}
