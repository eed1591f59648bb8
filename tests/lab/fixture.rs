//! How a test gets its lab, or is skipped by name.
//!
//! `SLIPWAY_E2E_BINARY` names the program under test: a file called `slirp4netns` is taken as the reference, anything
//! else as ours. Without it the `slipway` that cargo built beside the test is used. With `SLIPWAY_E2E_REQUIRE=1` a
//! missing binary or a lab that cannot be made is a failure; otherwise the test prints `SKIP name: reason`.

use std::path::{Path, PathBuf};

use crate::missing;
use crate::namespaces::Lab;
use crate::subject::Subject;

/// The program under test, if it is there.
pub fn subject() -> Result<Subject, String> {
    if let Some(path) = std::env::var_os("SLIPWAY_E2E_BINARY").map(PathBuf::from) {
        let path = path.canonicalize().map_err(|error| format!("{}: {error}", path.display()))?;
        let peer = path.file_name().is_some_and(|name| name == "slirp4netns");
        return Ok(if peer { Subject::Peer(path) } else { Subject::Slipway(path) });
    }
    // target/PROFILE/deps/test-binary -> target/PROFILE/slipway
    let here = std::env::current_exe().map_err(|error| error.to_string())?;
    let path = here.ancestors().nth(2).unwrap_or_else(|| Path::new("/")).join("slipway");
    if path.is_file() {
        Ok(Subject::Slipway(path))
    } else {
        Err(format!("{} is not built (cargo build -p slirp-compat)", path.display()))
    }
}

/// The lab's own client and server, if cargo built them beside this program.
#[must_use]
pub fn peer() -> Option<PathBuf> {
    let here = std::env::current_exe().ok()?;
    here.ancestors().skip(1).take(2).map(|dir| dir.join("slipway-lab-peer")).find(|path| path.is_file())
}

/// A lab for a test that needs these programs; `None` after saying why the test is skipped.
///
/// # Panics
///
/// When `SLIPWAY_E2E_REQUIRE=1` and there is no lab to be had.
#[must_use]
pub fn fixture(test: &str, programs: &[&str]) -> Option<(Lab, Subject)> {
    let made = subject().and_then(|subject| {
        if let Some(program) = missing(programs) {
            return Err(format!("{program} is not installed (cargo xtask deps)"));
        }
        let mut options = subject.lab_options();
        if let Some(peer) = peer() {
            options.programs.push(("slipway-lab-peer".to_owned(), peer));
        }
        let lab = Lab::new(&options).map_err(|error| error.to_string())?;
        Ok((lab, subject))
    });
    match made {
        Ok(pair) => Some(pair),
        Err(reason) => {
            let required = std::env::var("SLIPWAY_E2E_REQUIRE").is_ok_and(|value| value == "1");
            assert!(!required, "{test}: {reason}");
            println!("SKIP {test}: {reason}");
            None
        }
    }
}
