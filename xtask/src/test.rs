//! Every suite, with a count at the end.
//!
//! Runs with nextest where it is installed (a process and a time limit for each test), with `cargo test` where it is
//! not. A test that the machine cannot run prints `SKIP name: reason` and passes; those lines are counted apart and
//! listed. By root on a machine where the packages could be installed nothing of the end-to-end suites may be
//! skipped for want of a program or a binary.

use std::path::PathBuf;
use std::process::Stdio;

use crate::tool::{self, Done, cargo};
use crate::{deps, install, lint, trees};

/// What a run of a test runner amounted to.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Count {
    passed: usize,
    failed: usize,
    skipped: Vec<String>,
}

/// Lint, then the suites: all of them with the debug build, the ones from outside again with the program as shipped.
pub(crate) fn run(with_lint: bool) -> Done {
    let installed = deps::ensure(deps::ALL);
    if let Err(error) = &installed {
        println!("{error}\nxtask: tests that need those programs will be skipped by name");
    }
    trees::ensure();
    let mut outcomes = vec![if with_lint { lint::run() } else { Ok(()) }];
    let mut count = Count::default();
    let programs = ["slirp-compat", "slipway-dns", "slipway-netavark", "slipway-lab"];
    let words = programs.iter().flat_map(|name| ["--package", name]);
    tool::run(cargo(&["build"]).args(words))?;
    let runner = Runner { nextest: nextest(), required: tool::is_root() && installed.is_ok() };
    outcomes.push(runner.suites(&["--workspace"], &[], &mut count)?);
    outcomes.push(documents(&mut count)?);
    // Overflow checks are on above; here are the other optimisation, the other C library and its system calls.
    let shipped = [
        ("SLIPWAY_E2E_BINARY", install::release("slirp-compat", "slipway")?),
        ("SLIPWAY_AARDVARK_BINARY", install::release("slipway-dns", "aardvark-dns")?),
        ("SLIPWAY_NETAVARK_BINARY", install::release("slipway-netavark", "netavark")?),
    ];
    let suites = ["e2e", "compat_slirp4netns", "compat_aardvark", "compat_netavark"];
    let outside: Vec<&str> = ["--package", "slipway-tests"]
        .into_iter()
        .chain(suites.iter().flat_map(|name| ["--test", name]))
        .collect();
    outcomes.push(runner.suites(&outside, &shipped, &mut count)?);
    for skipped in &count.skipped {
        println!("{skipped}");
    }
    println!();
    println!("{} passed, {} failed, {} skipped", count.passed, count.failed, count.skipped.len());
    outcomes.into_iter().collect()
}

fn nextest() -> bool {
    cargo(&["nextest", "--version"]).output().is_ok_and(|output| output.status.success())
}

/// How suites are run on this machine.
struct Runner {
    nextest: bool,
    /// Whether an end-to-end test without its programs is a failure.
    required: bool,
}

impl Runner {
    fn suites(&self, which: &[&str], binaries: &[(&str, PathBuf)], count: &mut Count) -> Done<Done> {
        let mut command = if self.nextest {
            cargo(&["nextest", "run", "--profile", "ci"])
        } else {
            println!("xtask: cargo-nextest is not installed; using cargo test");
            cargo(&["test", "--no-fail-fast"])
        };
        command.args(which).env("SLIPWAY_E2E_REQUIRE", if self.required { "1" } else { "0" });
        command.envs(binaries.iter().map(|(name, path)| (name, path)));
        if self.nextest {
            let record = tool::target().join("nextest/ci/junit.xml");
            let _ = std::fs::remove_file(&record);
            let outcome = tool::run(&mut command);
            count.add(from_junit(&std::fs::read_to_string(&record).unwrap_or_default()));
            return Ok(outcome);
        }
        if binaries.is_empty() {
            command.args(["--lib", "--bins", "--tests"]);
        }
        command.args(["--", "--show-output"]).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let output = command.output().map_err(|error| format!("cargo test: {error}"))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        print!("{text}");
        count.add(from_libtest(&text));
        Ok(if output.status.success() { Ok(()) } else { Err(format!("cargo test: {}", output.status)) })
    }
}

impl Count {
    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        for skipped in other.skipped {
            if !self.skipped.contains(&skipped) {
                self.skipped.push(skipped);
            }
        }
    }
}

/// Documentation tests, which nextest leaves to cargo; shown only when one fails.
fn documents(count: &mut Count) -> Done<Done> {
    let mut command = cargo(&["test", "--workspace", "--doc"]);
    println!("$ cargo test --workspace --doc");
    let output = command.output().map_err(|error| format!("cargo test --doc: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let found = from_libtest(&text);
    count.add(found);
    if output.status.success() {
        return Ok(Ok(()));
    }
    println!("{text}{}", String::from_utf8_lossy(&output.stderr));
    Ok(Err(format!("cargo test --doc: {}", output.status)))
}

/// The counts in nextest's record, with the tests that skipped themselves taken out of the passed ones.
fn from_junit(record: &str) -> Count {
    let head = record.lines().find(|line| line.contains("<testsuites ")).unwrap_or_default();
    let number = |name: &str| {
        let (_, rest) = head.split_once(&format!("{name}=\""))?;
        rest.split('"').next()?.parse::<usize>().ok()
    };
    let failed = number("failures").unwrap_or(0) + number("errors").unwrap_or(0);
    let skipped = skips(record);
    let passed = number(" tests").unwrap_or(0).saturating_sub(failed + skipped.len());
    Count { passed, failed, skipped }
}

/// The counts in the output of `cargo test`.
fn from_libtest(text: &str) -> Count {
    let mut count = Count { skipped: skips(text), ..Count::default() };
    for line in text.lines().filter(|line| line.starts_with("test result:")) {
        let number = |word: &str| {
            let before = line.split(&format!(" {word}")).next()?;
            before.rsplit(' ').next()?.parse::<usize>().ok()
        };
        count.passed += number("passed").unwrap_or(0);
        count.failed += number("failed").unwrap_or(0);
    }
    count.passed = count.passed.saturating_sub(count.skipped.len());
    count
}

/// `SKIP name: reason`, wherever a line begins with it; each once.
fn skips(text: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for line in text.lines() {
        // In the record the first line of a test's output follows its tag.
        let line = line.rsplit('>').next().filter(|rest| rest.starts_with("SKIP ")).unwrap_or(line);
        let line = line.split("</").next().unwrap_or(line).trim();
        if line.starts_with("SKIP ") && !found.iter().any(|seen| seen == line) {
            found.push(line.to_owned());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn junit_counts_leave_skipped_tests_out() {
        let record = "<?xml?>\n<testsuites name=\"nextest-run\" tests=\"12\" failures=\"1\" errors=\"1\" uuid=\"x\">\n\
                      <system-out>SKIP a: no root\nmore</system-out>\n<system-out>x\nSKIP b: no tun</system-out>\nSKIP a: no root\n";
        let count = from_junit(record);
        assert_eq!((count.passed, count.failed), (8, 2));
        assert_eq!(count.skipped, ["SKIP a: no root", "SKIP b: no tun"]);
    }

    #[test]
    fn libtest_counts_add_up() {
        let text = "test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured\nSKIP z: why\n\
                    test result: FAILED. 2 passed; 1 failed; 0 ignored\n";
        let count = from_libtest(text);
        assert_eq!((count.passed, count.failed, count.skipped.len()), (4, 1, 1));
    }
}
