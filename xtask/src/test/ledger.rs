//! What a run amounted to: the stages with their time, the groups of tests in them, and the lines that close it.
//!
//! Tests of a stage run at once, so a group has no time by the clock; what it says instead is how long its tests took
//! when they are added up: that tells where time goes. The counts come from nextest's record, or from what `cargo test`
//! prints.

use std::fmt::Write as _;
use std::time::Duration;

use slipway_lab::now;

use crate::tool::{self, Done};

/// What a run of a test runner amounted to.
#[derive(Debug, Default, Clone, PartialEq)]
pub(super) struct Count {
    pub(super) passed: usize,
    pub(super) failed: usize,
    pub(super) skipped: Vec<String>,
    /// Of all tests, added up.
    pub(super) seconds: f64,
}

/// Tests of one kind.
type Group = (&'static str, Count);

#[derive(Debug)]
struct Stage {
    name: &'static str,
    took: Duration,
    groups: Vec<Group>,
    /// It ended badly, and no test in it did.
    failed: bool,
}

/// The stages so far.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    stages: Vec<Stage>,
    failures: Vec<String>,
}

/// Kinds of tests, in the order in which they are shown, by how the names of their binaries begin.
const KINDS: [(&str, &str); 6] = [
    ("slipway-tests::judges", "outside judges"),
    ("slipway-tests::e2e", "end to end"),
    ("slipway-tests::compat_", "contract"),
    ("slipway-tests::engine", "simulation"),
    ("slipway-tests::fuzz_corpus", "corpora"),
    ("", "unit and property"),
];

impl Ledger {
    /// Runs a stage that has no tests. What fails is remembered, and the rest goes on.
    pub(super) fn stage<T>(&mut self, name: &'static str, work: impl FnOnce() -> Done<T>) -> Option<T> {
        self.suites(name, || match work() {
            Ok(value) => (Vec::new(), Ok(()), Some(value)),
            Err(error) => (Vec::new(), Err(error), None),
        })
    }

    /// Runs a stage of tests.
    pub(super) fn suites<T>(
        &mut self,
        name: &'static str,
        work: impl FnOnce() -> (Vec<Group>, Done, T),
    ) -> T {
        println!("\nxtask: {name}");
        let begun = now();
        let (groups, outcome, value) = work();
        let failed = outcome.is_err() && groups.iter().all(|(_, count)| count.failed == 0);
        self.stages.push(Stage { name, took: begun.elapsed(), groups, failed });
        if let Err(error) = outcome {
            eprintln!("xtask: {error}");
            self.failures.push(error);
        }
        value
    }

    /// Says it all; the last line is the count.
    pub(super) fn close(self) -> Done {
        let counts = || self.stages.iter().flat_map(|stage| &stage.groups).map(|(_, count)| count);
        let mut skipped = tool::skipped();
        for line in counts().flat_map(|count| &count.skipped) {
            if !skipped.contains(line) {
                skipped.push(line.clone());
            }
        }
        skipped.iter().for_each(|line| println!("{line}"));
        print!("\n{}", self.table());
        let sum = |of: fn(&Count) -> usize| counts().map(of).sum::<usize>();
        // A stage that ended badly without a test that did is a failure of its own, so that the last line never looks
        // well by mistake.
        let stages = self.stages.iter().filter(|stage| stage.failed).count();
        let (passed, failed) = (sum(|count| count.passed), stages + sum(|count| count.failed));
        println!("\n{passed} passed, {failed} failed, {} skipped", skipped.len());
        if self.failures.is_empty() { Ok(()) } else { Err(self.failures.join("; ")) }
    }

    fn table(&self) -> String {
        let mut out = format!(
            "{:<24}{:>9}{:>9}{:>9}{:>9}{:>13}\n",
            "", "minutes", "passed", "failed", "skipped", "test minutes"
        );
        let minutes = |duration: Duration| duration.as_secs_f64() / 60.0;
        for stage in &self.stages {
            let end = if stage.failed { "   FAILED" } else { "" };
            let _ = writeln!(out, "{:<24}{:>9.1}{end}", stage.name, minutes(stage.took));
            for (kind, count) in &stage.groups {
                let (passed, failed, skipped) = (count.passed, count.failed, count.skipped.len());
                let spent = count.seconds / 60.0;
                let _ = writeln!(out, "  {kind:<22}{:>9}{passed:>9}{failed:>9}{skipped:>9}{spent:>13.1}", "");
            }
        }
        let all = self.stages.iter().map(|stage| stage.took).sum();
        let _ = writeln!(out, "{:<24}{:>9.1}", "all", minutes(all));
        out
    }
}

/// The counts in nextest's record, by kind, with the tests that skipped themselves taken out of the passed ones.
pub(super) fn from_junit(record: &str) -> Vec<Group> {
    let mut groups: Vec<Group> = KINDS.iter().rev().map(|(_, kind)| (*kind, Count::default())).collect();
    let mut at = 0;
    // A test that says more than once what it goes without is one test.
    let mut told = false;
    for line in record.lines() {
        let tag = line.trim_start();
        if tag.starts_with("<testsuite ") {
            let binary = attribute(tag, "name").unwrap_or_default();
            let kind = KINDS.iter().rposition(|(begin, _)| !begin.is_empty() && binary.starts_with(begin));
            at = KINDS.len() - 1 - kind.unwrap_or(KINDS.len() - 1);
        }
        let Some((_, count)) = groups.get_mut(at) else { continue };
        if tag.starts_with("<testcase ") {
            count.passed += 1;
            told = false;
            count.seconds += attribute(tag, "time").and_then(|time| time.parse::<f64>().ok()).unwrap_or(0.0);
        } else if tag.starts_with("<failure ") || tag.starts_with("<error ") {
            count.failed += 1;
        }
        if !told {
            told = take_skip(line, &mut count.skipped);
        }
    }
    for (_, count) in &mut groups {
        count.passed = count.passed.saturating_sub(count.failed + count.skipped.len());
    }
    groups.retain(|(_, count)| *count != Count::default());
    groups
}

fn attribute<'a>(tag: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = tag.split_once(&format!(" {name}=\""))?;
    rest.split('"').next()
}

/// The counts in the output of `cargo test`.
pub(super) fn from_libtest(text: &str) -> Count {
    let mut count = Count::default();
    for line in text.lines() {
        take_skip(line, &mut count.skipped);
        if !line.starts_with("test result:") {
            continue;
        }
        let number = |word: &str| {
            let before = line.split(&format!(" {word}")).next()?;
            before.rsplit(' ').next()?.parse::<usize>().ok()
        };
        count.passed += number("passed").unwrap_or(0);
        count.failed += number("failed").unwrap_or(0);
        let time = line
            .rsplit_once("finished in ")
            .and_then(|(_, time)| time.trim_end_matches('s').parse::<f64>().ok());
        count.seconds += time.unwrap_or(0.0);
    }
    count.passed = count.passed.saturating_sub(count.skipped.len());
    count
}

/// Takes `SKIP name: reason` if the line begins with it; each once. Whether it has.
fn take_skip(line: &str, skipped: &mut Vec<String>) -> bool {
    // In the record the first line of a test's output follows its tag.
    let line = line.rsplit('>').next().filter(|rest| rest.starts_with("SKIP ")).unwrap_or(line);
    let line = line.split("</").next().unwrap_or(line).trim();
    let new = line.starts_with("SKIP ") && !skipped.iter().any(|seen| seen == line);
    if new {
        skipped.push(line.to_owned());
    }
    new
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORD: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<testsuites name="nextest-run" tests="6" failures="1" errors="1" uuid="x" time="3.500">
    <testsuite name="slipway-tests::e2e" tests="4" disabled="0" errors="1" failures="1">
        <testcase name="run::a" classname="slipway-tests::e2e" timestamp="t" time="1.250">
            <system-out>SKIP run::a: no root
more</system-out>
        </testcase>
        <testcase name="run::b" classname="slipway-tests::e2e" timestamp="t" time="0.250">
            <failure message="&lt;testcase name" type="test failure">said</failure>
        </testcase>
        <testcase name="run::c" classname="slipway-tests::e2e" timestamp="t" time="0.5">
            <error message="time" type="timeout"/>
        </testcase>
        <testcase name="run::d" classname="slipway-tests::e2e" timestamp="t" time="0.5">
            <flakyFailure message="m" type="test failure">x
SKIP run::a: no root</flakyFailure>
        </testcase>
    </testsuite>
    <testsuite name="slipway-netstack" tests="1" disabled="0" errors="0" failures="0">
        <testcase name="x" classname="slipway-netstack" timestamp="t" time="0.125">
        </testcase>
    </testsuite>
    <testsuite name="slipway-tests::compat_netavark" tests="1" disabled="0" errors="0" failures="0">
        <testcase name="t01" classname="slipway-tests::compat_netavark" timestamp="t" time="2.000">
            <system-out>x
SKIP t01: no tun
SKIP t01: and no IPv6</system-out>
        </testcase>
        <testcase name="t02" classname="slipway-tests::compat_netavark" timestamp="t" time="1.000">
        </testcase>
    </testsuite>
</testsuites>"#;

    fn count(passed: usize, failed: usize, skipped: &[&str], seconds: f64) -> Count {
        Count { passed, failed, skipped: skipped.iter().map(|line| (*line).to_owned()).collect(), seconds }
    }

    #[test]
    fn the_record_is_counted_by_kind_and_skipped_tests_have_not_passed() {
        assert_eq!(
            from_junit(RECORD),
            [
                ("unit and property", count(1, 0, &[], 0.125)),
                ("contract", count(1, 0, &["SKIP t01: no tun"], 3.0)),
                ("end to end", count(1, 2, &["SKIP run::a: no root"], 2.5)),
            ]
        );
        assert_eq!(from_junit(""), []);
    }

    #[test]
    fn libtest_counts_add_up() {
        let text = "test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; finished in 1.50s\nSKIP z: why\n\
                    test result: FAILED. 2 passed; 1 failed; 0 ignored; finished in 0.25s\n";
        assert_eq!(from_libtest(text), count(4, 1, &["SKIP z: why"], 1.75));
    }

    #[test]
    fn a_stage_that_fails_does_not_end_the_run_but_is_its_outcome() {
        let mut ledger = Ledger::default();
        assert_eq!(ledger.stage("one", || Err::<(), _>("no room".to_owned())), None);
        assert_eq!(ledger.stage("two", || Ok(7)), Some(7));
        // The closing lines are printed, and whoever runs this suite takes skips from what is printed.
        ledger.suites("three", || (from_junit(&RECORD.replace("SKIP", "Skip")), Ok(()), ()));
        let table = ledger.table();
        for line in ["one ", "two ", "three ", "  end to end ", "all "] {
            assert_eq!(table.lines().filter(|shown| shown.starts_with(line)).count(), 1, "{line}: {table}");
        }
        assert!(table.contains("   FAILED\n") && ledger.stages[0].failed && !ledger.stages[1].failed);
        assert_eq!(ledger.close(), Err("no room".to_owned()));
    }
}
