//! The rows of `--weather`: one stream over a link of 500 Mbit/s that loses packets and is long.
//!
//! What the host itself carries there is what a stack that ends connections can give its guest: between guest and
//! stack nothing is lost and nothing is far, and between stack and world the kernel does the same as for the host. The
//! link is the lab's (`tests/lab/weather.rs`).

use slipway_lab::Weather;

use super::rows::{Goal, LARGE, Row, Test, Way, Work};
use super::stage::Variation;

/// Which of the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Sky {
    /// Those with goals: RTT 0 and 100 ms, loss 0 and 1 %, MTU 1500 and 65520, CUBIC.
    Goals,
    /// RTT 0 to 300 ms, loss 0 to 3 %, CUBIC and BBR: to be looked at.
    All,
}

const MBIT: u32 = 500;
const SEED: u64 = 2026;
/// In a million.
const PER_CENT: u32 = 10_000;

/// Below this many Mbit/s there is a packet now and then, and chance decides.
const LEAST: f64 = 5.0;

/// The tests of a sky; BBR's only where the kernel has it.
pub(crate) fn tests(sky: Sky, bbr: bool) -> Vec<Test> {
    let (rtts, losses, mtus): (&[u32], &[u32], &[u32]) = match sky {
        Sky::Goals => (&[0, 100], &[0, PER_CENT], &[1500, 65520]),
        Sky::All => (&[0, 20, 100, 300], &[0, PER_CENT / 10, PER_CENT, 3 * PER_CENT], &[65520]),
    };
    let goal = match sky {
        Sky::Goals => Goal::OfHostFrom(0.95, LEAST),
        Sky::All => Goal::Shown,
    };
    let controls: &[bool] = if sky == Sky::All && bbr { &[false, true] } else { &[false] };
    let mut tests = Vec::new();
    for (&bbr, &rtt) in controls.iter().flat_map(|bbr| rtts.iter().map(move |rtt| (bbr, rtt))) {
        for (&loss, &mtu) in losses.iter().flat_map(|loss| mtus.iter().map(move |mtu| (loss, mtu))) {
            for way in [Way::Up, Way::Down] {
                let weather = Some(Weather { mbit: MBIT, rtt, loss, seed: SEED });
                let variation = Variation { mtu, bbr, weather, ..LARGE };
                tests.push(test(way, variation, name(way, variation, sky), goal));
            }
        }
    }
    tests
}

/// Rows live as long as the program, as those of the tables do, and there are few.
fn test(way: Way, variation: Variation, name: String, goal: Goal) -> Test {
    let rows = Box::leak(Box::new([Row::new(name.leak(), "Mbit/s", goal)]));
    Test { work: Work::Weather(way), variation, rows }
}

fn name(way: Way, variation: Variation, sky: Sky) -> String {
    let Some(weather) = variation.weather else { return String::new() };
    let loss = f64::from(weather.loss) / f64::from(PER_CENT);
    let last = match (sky, variation.bbr) {
        (Sky::Goals, _) => format!("MTU {}", variation.mtu),
        (Sky::All, true) => "BBR".to_owned(),
        (Sky::All, false) => "CUBIC".to_owned(),
    };
    let way = if way == Way::Up { "up" } else { "down" };
    format!("RTT {} ms, loss {loss} %, {last}, {way}", weather.rtt)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::rows::Group;

    #[test]
    fn the_rows_with_goals_are_all_combinations_in_two_groups() {
        let tests = tests(Sky::Goals, true);
        let names: Vec<&str> = tests.iter().flat_map(|test| test.rows).map(|row| row.name).collect();
        assert_eq!(names.len(), 16);
        assert_eq!(names.first().copied(), Some("RTT 0 ms, loss 0 %, MTU 1500, up"));
        assert_eq!(names.last().copied(), Some("RTT 100 ms, loss 1 %, MTU 65520, down"));
        let mut groups: Vec<Group> = tests.iter().map(Test::group).collect();
        groups.dedup();
        assert_eq!(groups, [Group::WeatherNear, Group::WeatherFar]);
    }

    #[test]
    fn bbr_is_left_out_where_the_kernel_has_none() {
        assert_eq!((tests(Sky::All, true).len(), tests(Sky::All, false).len()), (64, 32));
        let names: Vec<&str> =
            tests(Sky::All, true).iter().flat_map(|test| test.rows).map(|row| row.name).collect();
        assert!(names.contains(&"RTT 20 ms, loss 0.1 %, BBR, down"), "{names:?}");
    }
}
