//! Every suite, with a count at the end.
//!
//! Runs with nextest where it is installed (a process and a time limit for each test), with `cargo test` where it is
//! not, and beside a foreign network namespace (`neighbour`). A test that the machine cannot run prints `SKIP name:
//! reason` and passes; those lines are counted apart and listed. By root on a machine where the packages could be
//! installed nothing of the end-to-end suites may be skipped for want of a program or a binary. A stage that fails is
//! no end of the others (`ledger`).

mod ledger;
mod neighbour;

use std::num::NonZero;
use std::path::PathBuf;
use std::process::Stdio;

use crate::tool::{self, Done, cargo};
use crate::{deps, instructions, lint, release, trees};
use ledger::{Count, Ledger};
use neighbour::Neighbour;

/// The suites that drive programs from outside.
const OUTSIDE: [&str; 7] = [
    "e2e",
    "compat_slirp4netns",
    "compat_pasta",
    "compat_gvproxy",
    "compat_aardvark",
    "compat_netavark",
    "compat_dhcp_proxy",
];

/// What is run again with the programs as shipped, by the beginnings of tests' names: a row for each command, and the
/// sandboxes, for another C library makes other system calls.
const SHIPPED: [(&str, &[&str]); 10] = [
    ("slipway run", &["run::"]),
    ("slipway attach", &["attach::"]),
    ("slipway uplink, rootlessport", &["uplink::port_helper::", "uplink::traffic::"]),
    ("slipway net", &["t10_"]),
    ("slirp4netns", &["traffic::", "names::", "t03_life_cycle::"]),
    ("aardvark-dns", &["t02_names::", "t03_forwarding::"]),
    ("netavark", &["podman::matrix::root_6_features", "podman::matrix::rootless_4"]),
    ("gvproxy", &["gvproxy::", "t02_life::"]),
    ("netavark dhcp-proxy, the network driver", &["t01_leases::", "plugin::"]),
    ("all", &["pages::", "filter::", "sandbox::", "t08_sandbox::", "t09_sandbox::"]),
];

/// MiB that everything built for the suites takes.
const ROOM: u64 = 10_000;

/// Lint, then the suites: all of them with the debug build, a part of those from outside again with the programs as
/// shipped, or with `all` the whole of them.
pub(crate) fn run(with_lint: bool, all: bool) -> Done {
    let mut ledger = Ledger::default();
    let installed = ledger.stage("packages and trees", prepare).unwrap_or(false);
    let runner = Runner { nextest: nextest(), required: tool::is_root() && installed };
    if with_lint {
        ledger.stage("lint", lint::run);
    }
    ledger.stage("build", || {
        let programs = ["slipway", "slipway-dns", "slipway-netavark", "slipway-gvproxy", "slipway-lab"];
        tool::run(cargo(&["build"]).args(programs.iter().flat_map(|name| ["--package", name])))?;
        tool::run(&mut runner.command(&["--workspace", "--no-run"]))
    });
    if let Ok(free @ ..ROOM) = trees::room(&tool::target()) {
        println!(
            "xtask: {} has room for {free} MiB; all that is built takes some {ROOM}",
            tool::target().display()
        );
    }
    let neighbour = Neighbour::new();
    if let Err(reason) = &neighbour {
        tool::skip("a foreign network namespace beside the suites", reason);
    }
    ledger.suites("suites", || runner.suites(&["--workspace"], &[], &[]));
    ledger.suites("documentation", documents);
    let shipped = ledger.stage("release build", || {
        let variables = [
            "SLIPWAY_E2E_BINARY",
            "SLIPWAY_AARDVARK_BINARY",
            "SLIPWAY_NETAVARK_BINARY",
            "SLIPWAY_GVPROXY_BINARY",
        ];
        Ok(variables.into_iter().zip(release::build_all()?).collect::<Vec<_>>())
    });
    if let Some(shipped) = shipped {
        // Overflow checks are on above; here are the other optimisation, the other C library and its system calls.
        let outside = OUTSIDE.iter().flat_map(|name| ["--test", name]);
        let which: Vec<&str> = ["--package", "slipway-tests"].into_iter().chain(outside).collect();
        let rows: Vec<&str> =
            SHIPPED.iter().flat_map(|(_, rows)| rows.iter().copied()).filter(|_| !all).collect();
        ledger.suites("as shipped", || runner.suites(&which, &rows, &shipped));
    } else {
        tool::skip("the suites as shipped", "there are no release builds");
    }
    drop(neighbour);
    ledger.stage("instructions", instructions::gate);
    ledger.close()
}

/// Gets what the suites run; says whether all packages are there.
fn prepare() -> Done<bool> {
    let installed = deps::ensure(deps::ALL);
    if let Err(error) = &installed {
        tool::skip("packages", error);
    }
    trees::ensure();
    Ok(installed.is_ok())
}

fn nextest() -> bool {
    let there = cargo(&["nextest", "--version"]).output().is_ok_and(|output| output.status.success());
    if !there {
        println!("xtask: cargo-nextest is not installed; using cargo test");
    }
    there
}

/// How suites are run on this machine.
struct Runner {
    nextest: bool,
    /// Whether an end-to-end test without its programs is a failure.
    required: bool,
}

impl Runner {
    fn command(&self, which: &[&str]) -> std::process::Command {
        let mut command = if self.nextest {
            let mut command = cargo(&["nextest", "run", "--profile", "ci"]);
            // Most of a test's time is patience: what servers, timers and kernels take, not what it computes.
            let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
            command.args(["--test-threads", &(2 * cores).to_string()]);
            command
        } else {
            cargo(&["test", "--no-fail-fast"])
        };
        command.args(which);
        command
    }

    /// Runs the tests of these binaries whose names have one of `rows` in them, or all.
    fn suites(
        &self,
        which: &[&str],
        rows: &[&str],
        binaries: &[(&str, PathBuf)],
    ) -> (Vec<(&'static str, Count)>, Done, ()) {
        let mut command = self.command(which);
        command.env("SLIPWAY_E2E_REQUIRE", if self.required { "1" } else { "0" });
        command.envs(binaries.iter().map(|(name, path)| (name, path)));
        if self.nextest {
            let record = tool::target().join("nextest/ci/junit.xml");
            let _ = std::fs::remove_file(&record);
            let outcome = tool::run(command.arg("--").args(rows));
            let record = std::fs::read_to_string(&record).unwrap_or_default();
            return (ledger::from_junit(&record), outcome, ());
        }
        if binaries.is_empty() {
            command.args(["--lib", "--bins", "--tests"]);
        }
        command.args(["--", "--show-output"]).args(rows).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let output = match command.output() {
            Ok(output) => output,
            Err(error) => return (Vec::new(), Err(format!("cargo test: {error}")), ()),
        };
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        print!("{text}");
        let outcome =
            if output.status.success() { Ok(()) } else { Err(format!("cargo test: {}", output.status)) };
        (vec![("cargo test", ledger::from_libtest(&text))], outcome, ())
    }
}

/// Documentation tests, which nextest leaves to cargo; shown only when one fails.
fn documents() -> (Vec<(&'static str, Count)>, Done, ()) {
    let mut command = cargo(&["test", "--workspace", "--doc"]);
    println!("$ cargo test --workspace --doc");
    let output = match command.output() {
        Ok(output) => output,
        Err(error) => return (Vec::new(), Err(format!("cargo test --doc: {error}")), ()),
    };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let groups = vec![("documentation", ledger::from_libtest(&text))];
    if output.status.success() {
        return (groups, Ok(()), ());
    }
    println!("{text}{}", String::from_utf8_lossy(&output.stderr));
    (groups, Err(format!("cargo test --doc: {}", output.status)), ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_as_shipped_is_one_that_there_is() {
        let files = tool::files(".rs").unwrap();
        let sources: Vec<_> = files.iter().filter(|path| path.starts_with("tests/")).collect();
        for row in SHIPPED.iter().flat_map(|(_, rows)| rows.iter()) {
            let last = row.trim_end_matches("::").rsplit("::").next().unwrap_or_default();
            let found = sources.iter().any(|path| {
                let named = path.rsplit('/').any(|part| part.starts_with(last));
                named
                    || std::fs::read_to_string(tool::root().join(path))
                        .unwrap()
                        .contains(&format!("    {last}: "))
            });
            assert!(found, "{row}");
        }
    }
}
