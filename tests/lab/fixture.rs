//! How a test gets its lab, or is skipped by name.
//!
//! `SLIPWAY_E2E_BINARY` names the program under test: a file called `slirp4netns` is taken as the reference, anything
//! else as ours. Without it the `slipway` that cargo built beside the test is used. With `SLIPWAY_E2E_REQUIRE=1` a
//! missing binary or a lab that cannot be made is a failure; otherwise the test prints `SKIP name: reason`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::machine::Machine;
use crate::missing;
use crate::namespaces::{Lab, LabOptions};
use crate::subject::Subject;
use crate::unavailable::{NO_IPV6, NO_TUN, NO_VSOCK};

/// The patience of a test with one step: long enough for a loaded two-core machine, short enough to notice a hang.
pub const LIMIT: Duration = Duration::from_secs(30);

/// The program under test, if it is there.
pub fn subject() -> Result<Subject, String> {
    let path = built("SLIPWAY_E2E_BINARY", "slipway")?;
    let peer = path.file_name().is_some_and(|name| name == "slirp4netns");
    Ok(if peer { Subject::Peer(path) } else { Subject::Slipway(path) })
}

/// The program that the environment variable names, or the one of this name that cargo built beside the test.
pub fn built(variable: &str, name: &str) -> Result<PathBuf, String> {
    if let Some(path) = std::env::var_os(variable).map(PathBuf::from) {
        return path.canonicalize().map_err(|error| format!("{}: {error}", path.display()));
    }
    // target/PROFILE/deps/test-binary -> target/PROFILE/name
    let here = std::env::current_exe().map_err(|error| error.to_string())?;
    let path = here.ancestors().nth(2).unwrap_or_else(|| Path::new("/")).join(name);
    if path.is_file() { Ok(path) } else { Err(format!("{} is not built (cargo build)", path.display())) }
}

/// A root file system that `cargo xtask deps` keeps below `target/trees`, or the directory that `SLIPWAY_TREES` names.
pub fn tree(name: &str) -> Result<PathBuf, String> {
    let trees = std::env::var_os("SLIPWAY_TREES").map(PathBuf::from).or_else(|| {
        // target/PROFILE/deps/test-binary -> target/trees
        Some(std::env::current_exe().ok()?.ancestors().nth(3)?.join("trees"))
    });
    let path = trees.map(|trees| trees.join(name)).filter(|path| path.is_dir());
    path.ok_or_else(|| format!("there is no tree {name} (cargo xtask deps)"))
}

/// A machine for a test that needs these programs; `None` after saying why the test is skipped.
///
/// # Panics
///
/// When `SLIPWAY_E2E_REQUIRE=1` and there is no machine to be had.
#[must_use]
pub fn machine(test: &str, programs: &[&str]) -> Option<Machine> {
    let made = match missing(programs) {
        Some(program) => Err(format!("{program} is not installed (cargo xtask deps)")),
        None => Machine::new().map_err(|error| error.to_string()),
    };
    made.map_or_else(|reason| skip(test, &reason), Some)
}

/// Leaves a test out by name.
///
/// # Panics
///
/// When `SLIPWAY_E2E_REQUIRE=1`: then nothing may be left out but what the machine's kernel has not.
pub fn skip<T>(test: &str, reason: &str) -> Option<T> {
    if [NO_IPV6, NO_TUN, NO_VSOCK].contains(&reason) {
        println!("SKIP {test}: {reason}");
        return None;
    }
    let required = std::env::var("SLIPWAY_E2E_REQUIRE").is_ok_and(|value| value == "1");
    assert!(!required, "{test}: {reason}");
    println!("SKIP {test}: {reason}");
    None
}

/// The lab's own client and server, if cargo built them beside this program.
#[must_use]
pub fn peer() -> Option<PathBuf> {
    beside("slipway-lab-peer")
}

/// The program that plays a link with weather, if cargo built it (it is one of slipway-tests) beside this one.
#[must_use]
pub fn link() -> Option<PathBuf> {
    beside("slipway-lab-link")
}

fn beside(name: &str) -> Option<PathBuf> {
    let here = std::env::current_exe().ok()?;
    here.ancestors().skip(1).take(2).map(|dir| dir.join(name)).find(|path| path.is_file())
}

/// A lab for a test that needs these programs; `None` after saying why the test is skipped.
///
/// # Panics
///
/// When `SLIPWAY_E2E_REQUIRE=1` and there is no lab to be had.
#[must_use]
pub fn fixture(test: &str, programs: &[&str]) -> Option<(Lab, Subject)> {
    fixture_with(test, programs, |_, _| {})
}

/// The same, with further wishes.
pub(crate) fn fixture_with(
    test: &str,
    programs: &[&str],
    wish: impl FnOnce(&mut LabOptions, &Subject),
) -> Option<(Lab, Subject)> {
    let made = subject().and_then(|subject| {
        if let Some(program) = missing(programs) {
            return Err(format!("{program} is not installed (cargo xtask deps)"));
        }
        let mut options = subject.lab_options();
        if let Some(peer) = peer() {
            options.programs.push(("slipway-lab-peer".to_owned(), peer));
        }
        wish(&mut options, &subject);
        let lab = Lab::new(&options).map_err(|error| error.to_string())?;
        Ok((lab, subject))
    });
    made.map_or_else(|reason| skip(test, &reason), Some)
}

/// Gets a lab or leaves the test as skipped; the second form is for what only ours does.
///
/// `let (lab, subject) = lab!("name_of_the_test", ["ncat"]);`
#[macro_export]
macro_rules! lab {
    ($name:literal, [$($program:literal),*]) => {
        match $crate::fixture($name, &[$($program),*]) {
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
