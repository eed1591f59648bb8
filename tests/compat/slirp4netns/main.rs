//! The slirp4netns contract, seen from outside: real namespaces, real programs, the binary under its drop-in name.
//!
//! Numbered by area as in the contract: arguments, addressing, life cycle, API socket, isolation. The same tests run
//! against the original (`SLIPWAY_E2E_BINARY=/usr/bin/slirp4netns`), which proves the tests; what the original does
//! not do, or does wrong, is tested with ours only and says so.

mod t01_arguments;
mod t02_addressing;
mod t03_life_cycle;
mod t04_api_socket;
mod t05_isolation;

use std::time::Duration;

/// Long enough for a loaded two-core machine, short enough to notice a hang.
const LIMIT: Duration = Duration::from_secs(20);

/// Gets a lab or leaves the test as skipped; the second form is for what only ours does.
macro_rules! lab {
    ($name:literal, [$($program:literal),*]) => {
        match slipway_lab::fixture($name, &[$($program),*]) {
            Some((lab, subject)) => (lab, subject),
            None => return,
        }
    };
    (ours $name:literal, [$($program:literal),*]) => {{
        let (lab, subject) = $crate::lab!($name, [$($program),*]);
        if !subject.is_slipway() {
            println!("SKIP {}: the original does otherwise", $name);
            return;
        }
        (lab, subject)
    }};
}
pub(crate) use lab;
