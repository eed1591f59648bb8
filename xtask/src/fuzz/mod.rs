//! Fuzzing: every target in turn, as many at a time as there are cores, each for so many minutes and within bounds.
//!
//! ```text
//! fuzz/corpus/TARGET            seeds, in git; `cargo test` replays them
//! target/fuzz/build             what cargo-fuzz builds
//! target/fuzz/corpus/TARGET     what the fuzzer has grown
//! target/fuzz/log/TARGET        what it printed
//! target/fuzz/artifacts/TARGET  what it broke, until that is minimised and stands among the seeds as `regress-…`
//! ```
//! The fuzzer is libFuzzer, without a sanitizer: nothing here is unsafe outside `host/src/sys`, which no target
//! reaches, and AddressSanitizer costs nine tenths of the speed. `--address` builds with it all the same, for what is
//! unsafe in the crates of others. Overflow checks and assertions are on.
//!
//! However this program ends, a fuzzer that it started ends with it (`setpriv --pdeathsig`); what was grown stays.

mod bounds;
mod find;
mod one;
mod table;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::tool::{self, Done, cargo};
use one::Outcome;

/// What is to be done.
#[derive(Debug)]
pub(crate) struct Wish {
    /// Which targets; all of them without any.
    pub(crate) targets: Vec<String>,
    /// For each of them.
    pub(crate) minutes: f64,
    /// Whether the table goes into docs/fuzzing.md.
    pub(crate) write: bool,
    /// Whether memory is watched by AddressSanitizer.
    pub(crate) address: bool,
}

/// Directories of one way to build.
#[derive(Debug)]
struct Places {
    build: PathBuf,
    grown: PathBuf,
    log: PathBuf,
    broken: PathBuf,
    seeds: PathBuf,
}

impl Places {
    fn new(address: bool) -> Self {
        let base = tool::target().join("fuzz");
        Self {
            build: base.join(if address { "build-address" } else { "build" }),
            grown: base.join("corpus"),
            log: base.join("log"),
            broken: base.join("artifacts"),
            seeds: tool::root().join("fuzz/corpus"),
        }
    }

    fn program(&self, target: &str) -> Done<PathBuf> {
        let path = self.build.join(tool::host_target()?).join("release").join(target);
        if path.is_file() { Ok(path) } else { Err(format!("{} was not built", path.display())) }
    }
}

/// Builds, runs the targets, tells what they did.
pub(crate) fn run(wish: &Wish) -> Done {
    let all = targets()?;
    let chosen = choose(&all, &wish.targets)?;
    if let Err(missing) = needs() {
        chosen.iter().for_each(|target| tool::skip(&format!("fuzz {target}"), &missing.replace('\n', "; ")));
        return Err(missing);
    }
    let places = Places::new(wish.address);
    build(&places, wish)?;
    let time = Duration::from_secs_f64(wish.minutes * 60.0);
    let mut outcomes = in_turn(&places, chosen, time);
    outcomes.sort_by(|one, other| one.target.cmp(&other.target));
    println!("\n{}", table::of(&outcomes, &[]));
    if wish.write {
        table::put(&outcomes, &all)?;
    }
    let found: Vec<String> = outcomes.iter().flat_map(|outcome| outcome.found.clone()).collect();
    let failed: Vec<String> = outcomes.into_iter().filter_map(|outcome| outcome.failed).collect();
    match (found.as_slice(), failed.as_slice()) {
        ([], []) => Ok(()),
        ([], _) => Err(failed.join("; ")),
        _ => Err(format!(
            "broken by {}; `cargo test -p slipway-tests --test fuzz_corpus` replays it{}",
            found.join(", "),
            failed.iter().fold(String::new(), |text, failure| text + "; " + failure)
        )),
    }
}

/// That the fuzz targets compile and that their lock file is up to date, which needs no nightly.
pub(crate) fn check() -> Done {
    let mut check = cargo(&["check", "--quiet", "--locked", "--manifest-path", "fuzz/Cargo.toml", "--bins"]);
    // Nothing is linked, so libFuzzer itself need not be compiled; the variable names one that is there already.
    check.env("CUSTOM_LIBFUZZER_PATH", "/nonexistent/libfuzzer.a").env("CARGO_TARGET_DIR", tool::target());
    tool::run(&mut check)
}

/// The targets that there are, by name.
fn targets() -> Done<Vec<String>> {
    let path = tool::root().join("fuzz/fuzz_targets");
    let entries = std::fs::read_dir(&path).map_err(|error| said(&path, &error))?;
    let files = entries.filter_map(|entry| entry.ok().map(|entry| entry.path()));
    let stems = files.filter_map(|file| Some(file.file_stem()?.to_str()?.to_owned()));
    let mut names: Vec<String> = stems.collect();
    names.sort();
    Ok(names)
}

fn choose(all: &[String], wanted: &[String]) -> Done<Vec<String>> {
    if let Some(unknown) = wanted.iter().find(|name| !all.contains(name)) {
        return Err(format!("there is no target {unknown}; there are {}", all.join(", ")));
    }
    Ok(if wanted.is_empty() { all.to_vec() } else { wanted.to_vec() })
}

/// What is missing, and the command that installs it, a line each.
fn needs() -> Done {
    let works = |program: &str, words: &[&str]| {
        let mut command = Command::new(program);
        command.args(words).env_remove("CARGO").stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    let nightly = |words: &[&str]| works("rustup", &[&["run", "nightly"], words].concat());
    let mut missing = Vec::new();
    if !works("rustup", &["--version"]) {
        missing.push("rustup is missing, which chooses the nightly compiler: see https://rustup.rs");
    }
    if !nightly(&["rustc", "--version"]) {
        missing.push("the nightly compiler is missing: rustup toolchain install nightly --profile minimal");
    }
    if !works("cargo-fuzz", &["--version"]) {
        missing.push("cargo-fuzz is missing: cargo install cargo-fuzz --locked");
    }
    if !works("c++", &["--version"]) {
        missing.push("a C++ compiler is missing: apt-get install g++");
    }
    if !works("prlimit", &["--version"]) || !works("setpriv", &["--version"]) {
        missing.push("prlimit or setpriv is missing, which bound a fuzzer: apt-get install util-linux");
    }
    if missing.is_empty() { Ok(()) } else { Err(missing.join("\n")) }
}

fn build(places: &Places, wish: &Wish) -> Done {
    let mut build = Command::new("rustup");
    build.args(["run", "nightly", "cargo", "fuzz", "build"]);
    // One target is built by its name; of several, all.
    if let [target] = wish.targets.as_slice() {
        build.arg(target);
    }
    build
        .args(["--sanitizer", if wish.address { "address" } else { "none" }, "--target-dir"])
        .arg(&places.build);
    // What the outer cargo told this program is not for the inner one, which is another.
    for name in ["CARGO", "CARGO_TARGET_DIR", "RUSTUP_TOOLCHAIN", "RUSTC"] {
        build.env_remove(name);
    }
    tool::run(build.current_dir(tool::root()).stdin(Stdio::null()))
}

/// Each target once, as many at a time as there are cores.
fn in_turn(places: &Places, chosen: Vec<String>, time: Duration) -> Vec<Outcome> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let queue = Mutex::new(VecDeque::from(chosen));
    let outcomes = Mutex::new(Vec::new());
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                while let Some(target) = next() {
                    let outcome = one::run(places, &target, time);
                    println!("{}", outcome.line());
                    outcomes.lock().unwrap_or_else(PoisonError::into_inner).push(outcome);
                }
            });
        }
    });
    outcomes.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn said(path: &Path, error: &std::io::Error) -> String {
    format!("{}: {error}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_chosen_by_name() {
        let all = targets().unwrap();
        assert!(all.len() > 20 && all.contains(&"tcp_actions".to_owned()));
        assert_eq!(choose(&all, &[]).unwrap(), all);
        assert_eq!(choose(&all, &["frame".to_owned()]).unwrap(), ["frame"]);
        let error = choose(&all, &["frames".to_owned()]).unwrap_err();
        assert!(error.starts_with("there is no target frames; there are aardvark_config, "), "{error}");
    }

    #[test]
    fn bounds_are_of_targets_that_there_are() {
        let all = targets().unwrap();
        assert!(bounds::names().all(|name| all.iter().any(|target| target == name)));
    }
}
