//! What is measured of a gvproxy, and what it is held against.

use crate::tool::Done;

use super::super::duel::Goal;
use super::super::rows::Group;
use super::stage::Stage;
use super::work;

/// Who does it, and with what in the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ends {
    /// Both, with the plain forwarder.
    Plain,
    /// Both, each with the forwarder of its own house.
    Own,
    /// Ours alone.
    Ours,
}

/// One figure.
#[derive(Debug)]
pub(super) struct Figure {
    pub(super) name: &'static str,
    pub(super) unit: &'static str,
    pub(super) goal: Goal,
}

/// A piece of work, which gives a figure for each row.
#[derive(Debug)]
pub(super) struct Test {
    pub(super) group: Group,
    pub(super) ends: Ends,
    pub(super) rows: &'static [Figure],
    pub(super) work: fn(&Stage<'_>) -> Done<Vec<f64>>,
}

const fn row(name: &'static str, unit: &'static str, goal: Goal) -> Figure {
    Figure { name, unit, goal }
}

const fn test(
    group: Group,
    ends: Ends,
    rows: &'static [Figure],
    work: fn(&Stage<'_>) -> Done<Vec<f64>>,
) -> Test {
    Test { group, ends, rows, work }
}

use Ends::{Ours, Own, Plain};
use Group::{GvproxyFootprint as Footprint, GvproxyStorms as Storms, GvproxyTraffic as Traffic};

/// All of it, in the order of the tables.
pub(super) const TESTS: &[Test] = &[
    test(Traffic, Plain, &[row("TCP machine to world", "Gbit/s", Goal::AtLeast(1.3))], work::up),
    test(Traffic, Plain, &[row("TCP world to machine", "Gbit/s", Goal::AtLeast(1.3))], work::down),
    test(Traffic, Plain, &[row("TCP machine to machine", "Gbit/s", Goal::AtLeast(2.0))], work::across),
    test(Traffic, Plain, &[row("TCP request/response", "1/s", Goal::AtLeast(1.8))], |stage| {
        work::requests(stage, "rr")
    }),
    test(Traffic, Plain, &[row("TCP connect+request+close", "1/s", Goal::AtLeast(2.0))], |stage| {
        work::requests(stage, "crr")
    }),
    test(
        Traffic,
        Own,
        &[
            row("both ends of one house, TCP machine to world", "Gbit/s", Goal::AtLeast(5.0)),
            row("both ends of one house, TCP world to machine", "Gbit/s", Goal::AtLeast(5.0)),
        ],
        work::both_ends,
    ),
    test(Footprint, Plain, &[row("start to listening sockets", "ms", Goal::NoMore(20.0))], work::start),
    test(
        Footprint,
        Plain,
        &[
            row("resident memory with one guest, all processes", "MB", Goal::AtMost(0.3)),
            row("what ten more guests add", "MB", Goal::NoMore(2.0)),
        ],
        work::memory,
    ),
    test(
        Footprint,
        Plain,
        &[
            row("100 ports exposed over one connection", "ms", Goal::NoMore(50.0)),
            row("one port exposed", "ms", Goal::NoMore(1.0)),
        ],
        work::expose,
    ),
    test(
        Footprint,
        Plain,
        &[row("wake-ups in 10 s with an idle guest", "times", Goal::NoMore(0.0))],
        work::idle,
    ),
    test(
        Footprint,
        Ours,
        &[row("wake-ups in 10 s with an idle guest of vfkit", "times", Goal::NoMore(5.0))],
        work::idle_vfkit,
    ),
    test(
        Storms,
        Plain,
        &[row("processor, datagrams to a port where nobody listens", "% of a core", Goal::NoMore(2.0))],
        work::refused,
    ),
    test(
        Storms,
        Plain,
        &[row("processor, datagrams to where no route leads", "% of a core", Goal::NoMore(2.0))],
        work::unreachable,
    ),
    test(
        Storms,
        Ours,
        &[row("processor, a guest of vfkit that takes nothing", "% of a core", Goal::NoMore(2.0))],
        work::deaf,
    ),
    test(
        Storms,
        Plain,
        &[
            row(
                "requests beside a guest that sends 20 000 frames a second",
                "% of without",
                Goal::NoLess(80.0),
            ),
            row("requests beside a guest that sends all it can", "% of without", Goal::NoLess(30.0)),
        ],
        work::flooded,
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_apart_and_groups_stand_together() {
        let mut names: Vec<&str> = TESTS.iter().flat_map(|test| test.rows).map(|row| row.name).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
        let mut groups: Vec<&str> = TESTS.iter().map(|test| test.group.mark()).collect();
        groups.dedup();
        assert_eq!(groups, ["gvproxy-traffic", "gvproxy-footprint", "gvproxy-storms"]);
    }
}
