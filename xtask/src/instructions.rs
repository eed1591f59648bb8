//! The engine's work counted in instructions (`benches/instructions`): the same on a busy machine as on an idle one.
//!
//! gungraun runs each bench once under valgrind and needs a runner of its own version, which is installed below
//! `target/tools` the first time. A count that has grown since the run before fails the chore.

use std::path::PathBuf;

use crate::deps;
use crate::tool::{self, Done, cargo};

/// Counts, and compares with the limits.
pub(crate) fn run() -> Done {
    deps::ensure(deps::INSTRUCTIONS)?;
    let runner = runner()?;
    let bench = ["bench", "--package", "slipway-benches", "--bench", "instructions"];
    tool::run(cargo(&bench).env("GUNGRAUN_RUNNER", runner))
}

/// The runner of the version that the lock file names.
fn runner() -> Done<PathBuf> {
    let lock = std::fs::read_to_string(tool::root().join("Cargo.lock")).map_err(|error| error.to_string())?;
    let version = locked(&lock, "gungraun").ok_or("Cargo.lock names no gungraun")?;
    let place = tool::target().join("tools").join(format!("gungraun-{version}"));
    let program = place.join("bin/gungraun-runner");
    if !program.is_file() {
        let mut install = cargo(&["install", "--quiet", "--locked", "gungraun-runner", "--version", version]);
        tool::run(install.arg("--root").arg(&place))?;
    }
    Ok(program)
}

/// The version of a package in a lock file.
fn locked<'a>(lock: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = lock.split_once(&format!("name = \"{name}\"\nversion = \""))?;
    rest.split('"').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_file_names_the_version() {
        let lock = "[[package]]\nname = \"a-b\"\nversion = \"1.0.0\"\n\n[[package]]\nname = \"b\"\nversion = \"2.3.4\"\n";
        assert_eq!(locked(lock, "b"), Some("2.3.4"));
        assert_eq!(locked(lock, "c"), None);
    }
}
