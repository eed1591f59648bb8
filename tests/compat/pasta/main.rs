//! The contract of pasta and passt, seen from outside: the binary under its drop-in names, beside the original of
//! `target/trees` where that is there (`cargo xtask deps`), which proves the tests.

mod t01_words;
mod t02_log;

use slipway_lab::built;
use std::path::PathBuf;

/// The program; `None` after saying why the test is skipped.
fn ours(test: &str) -> Option<PathBuf> {
    built("SLIPWAY_E2E_BINARY", "slipway").map_err(|reason| println!("SKIP {test}: {reason}")).ok()
}
