//! The engine's work counted in instructions (`benches/instructions`): the same on a busy machine as on an idle one.
//!
//! gungraun runs each bench once under valgrind and needs a runner of its own version, which is installed below
//! `target/tools` the first time. The counts are held against those in the tree (`benches/instructions/counts.txt`):
//! one that has grown by more than [`TOLERANCE`] per cent fails the chore, however often it is run. Another compiler
//! makes other instructions, so the file names the one it was made with, and with any other nothing is compared.
//! `--write` makes the file anew: that is how a change that is worth its price is let pass, in view of whoever reviews
//! it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;

use crate::deps;
use crate::tool::{self, Done, cargo};

/// How much a count may grow, in per cent: more than hash seeds and the layout of memory do, less than a change that
/// shows.
const TOLERANCE: u64 = 3;

/// Where the counts are.
const FILE: &str = "benches/instructions/counts.txt";

/// The line that names the compiler.
const COMPILER: &str = "# compiler: ";

/// Instructions, by the name of the bench.
type Counts = BTreeMap<String, u64>;

/// The same as a stage of all tests, where the machine has what it takes.
pub(crate) fn gate() -> Done {
    const NAME: &str = "instruction counts";
    if slipway_lab::which("valgrind").is_none() {
        tool::skip(NAME, "no valgrind");
        return Ok(());
    }
    if let Err(error) = runner() {
        tool::skip(NAME, &format!("no runner of gungraun: {error}"));
        return Ok(());
    }
    run(false)
}

/// Counts, and compares with the counts in the tree or puts these there.
pub(crate) fn run(write: bool) -> Done {
    deps::ensure(deps::INSTRUCTIONS)?;
    let runner = runner()?;
    let bench = ["bench", "--package", "slipway-benches", "--bench", "instructions"];
    let mut command = cargo(&bench);
    let printed = tool::output(command.env("GUNGRAUN_RUNNER", runner).env("CARGO_TERM_COLOR", "never"))?;
    let now = printed_counts(&printed);
    if now.is_empty() {
        return Err(format!("no counts in what the benches printed:\n{printed}"));
    }
    let (compiler, path) = (compiler()?, tool::root().join(FILE));
    if write {
        println!("{}", path.display());
        return std::fs::write(&path, file(&compiler, &now)).map_err(|error| format!("{FILE}: {error}"));
    }
    let text = std::fs::read_to_string(&path).map_err(|error| format!("{FILE}: {error}"))?;
    let (made_with, before) = read_file(&text);
    if made_with != compiler {
        print!("{}", file(&compiler, &now));
        println!("not compared: the counts in {FILE} were made with {made_with}");
        return Ok(());
    }
    let (lines, grown) = compare(&before, &now);
    print!("{lines}");
    if grown { Err(format!("counts have grown by more than {TOLERANCE} per cent")) } else { Ok(()) }
}

/// What gungraun prints: the name of a bench in the first column, its counts indented below.
fn printed_counts(text: &str) -> Counts {
    let mut counts = Counts::new();
    let mut name = None;
    for line in text.lines() {
        if let Some(bench) = line.strip_prefix("instructions::") {
            let bench = bench.rsplit_once("::").map_or(bench, |(_, bench)| bench);
            name = Some(bench.split(':').next().unwrap_or(bench).to_owned());
        } else if let Some(count) = line.trim_start().strip_prefix("Instructions:") {
            let count = count.trim_start().split('|').next().and_then(|count| count.trim().parse().ok());
            if let (Some(name), Some(count)) = (name.take(), count) {
                counts.insert(name, count);
            }
        }
    }
    counts
}

/// The file of these counts.
fn file(compiler: &str, counts: &Counts) -> String {
    let mut text = format!(
        "# Instructions of each bench, written by `cargo xtask bench --instructions --write`.\n{COMPILER}{compiler}\n"
    );
    for (name, count) in counts {
        let _ = writeln!(text, "{name:<36} {count:>12}");
    }
    text
}

/// The compiler that a file names, and its counts.
fn read_file(text: &str) -> (&str, Counts) {
    let compiler = text.lines().find_map(|line| line.strip_prefix(COMPILER)).unwrap_or("an unknown compiler");
    let count = |line: &str| {
        let (name, count) = line.rsplit_once(' ')?;
        Some((name.trim_end().to_owned(), count.parse().ok()?))
    };
    (compiler, text.lines().filter(|line| !line.starts_with('#')).filter_map(count).collect())
}

/// A line for each bench, and whether any has grown too much or is missing.
fn compare(before: &Counts, now: &Counts) -> (String, bool) {
    let mut lines = String::new();
    let mut grown = false;
    for (name, &now) in now {
        let verdict = match before.get(name) {
            None => "new: take it up with --write".to_owned(),
            Some(&before) => {
                let more = now.saturating_mul(100) > before.saturating_mul(100 + TOLERANCE);
                let less = now.saturating_mul(100 + TOLERANCE) < before.saturating_mul(100);
                grown |= more;
                let change = permille(before, now);
                let word = match (more, less) {
                    (true, _) => "  GROWN",
                    (_, true) => "  less: keep it so with --write",
                    _ => "",
                };
                format!("{change}{word}")
            }
        };
        let _ = writeln!(lines, "{name:<36} {now:>12}  {verdict}");
    }
    for name in before.keys().filter(|name| !now.contains_key(*name)) {
        grown = true;
        let _ = writeln!(lines, "{name:<36} {:>12}  GONE", "");
    }
    (lines, grown)
}

/// The change in per cent, with one digit.
fn permille(before: u64, now: u64) -> String {
    let change = now.abs_diff(before).saturating_mul(1000).checked_div(before).unwrap_or(0);
    let sign = if now < before { '-' } else { '+' };
    format!("{sign}{}.{} %", change / 10, change % 10)
}

/// The compiler's name and what it compiles for.
fn compiler() -> Done<String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = tool::output(Command::new(rustc).arg("--version"))?;
    Ok(format!("{} for {}", version.trim(), tool::host_target()?))
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

    const PRINTED: &str = "\
instructions::engine::segments_to_upstream of_1460:(upload(1460))
  Instructions:                                      89396|N/A                  (*********)
  L1 Hits:                                          124355|N/A                  (*********)
instructions::engine::sum of_65000:(bytes(65_000))
  Instructions:                                      42000|42000                (No change)

Gungraun result: Ok. 2 without regressions; 0 regressed; 0 filtered; 2 benchmarks finished in 75.0489s
";

    fn counts(list: &[(&str, u64)]) -> Counts {
        list.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
    }

    #[test]
    fn counts_are_read_from_what_is_printed() {
        let expected = counts(&[("segments_to_upstream of_1460", 89_396), ("sum of_65000", 42_000)]);
        assert_eq!(printed_counts(PRINTED), expected);
        assert!(printed_counts("error: no such bench\n").is_empty());
    }

    #[test]
    fn the_file_is_read_as_it_was_written() {
        let some = printed_counts(PRINTED);
        let text = file("rustc 1.2.3 for here", &some);
        assert_eq!(read_file(&text), ("rustc 1.2.3 for here", some));
        assert_eq!(read_file("").0, "an unknown compiler");
    }

    #[test]
    fn growth_beyond_the_tolerance_fails() {
        let before = counts(&[("a", 1000), ("b", 1000)]);
        for (a, verdict, fails) in [
            (1000, "+0.0 %\n", false),
            (1030, "+3.0 %\n", false),
            (1031, "+3.1 %  GROWN\n", true),
            (2000, "+100.0 %  GROWN\n", true),
            (990, "-1.0 %\n", false),
            (900, "-10.0 %  less: keep it so with --write\n", false),
        ] {
            let (lines, grown) = compare(&before, &counts(&[("a", a), ("b", 1000)]));
            assert_eq!(grown, fails, "{a}: {lines}");
            assert!(
                lines.lines().next().is_some_and(|line| format!("{line}\n").ends_with(verdict)),
                "{a}: {lines}"
            );
        }
    }

    #[test]
    fn a_bench_cannot_leave_unseen() {
        let (lines, grown) = compare(&counts(&[("a", 1), ("b", 1)]), &counts(&[("b", 1), ("c", 1)]));
        assert!(grown && lines.contains("GONE") && lines.contains("new: take it up"), "{lines}");
    }

    #[test]
    fn the_lock_file_names_the_version() {
        let lock = "[[package]]\nname = \"a-b\"\nversion = \"1.0.0\"\n\n[[package]]\nname = \"b\"\nversion = \"2.3.4\"\n";
        assert_eq!(locked(lock, "b"), Some("2.3.4"));
        assert_eq!(locked(lock, "c"), None);
    }
}
