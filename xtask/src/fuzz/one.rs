//! One target: the fuzzer as a child with bounds, and what it printed.

use std::fs::File;
use std::io;
use std::process::{Child, ExitStatus, Stdio};
use std::time::Duration;

use super::bounds::bounded;
use super::{Places, find, said};
use crate::tool::Done;

/// What a target did.
#[derive(Debug, Default, Clone)]
pub(super) struct Outcome {
    pub(super) target: String,
    /// How long it ran, in processor time: on a machine that does other things an hour by the clock may be a minute of
    /// work.
    pub(super) time: Duration,
    pub(super) executions: u64,
    /// As libFuzzer counts: edges of the program that were taken; edges with how often, and values that were compared.
    pub(super) cov: u64,
    pub(super) ft: u64,
    /// Inputs that it keeps for that.
    pub(super) corpus: u64,
    /// Seeds that were made of what it found.
    pub(super) found: Vec<String>,
    /// Why it could not be run, or not looked at.
    pub(super) failed: Option<String>,
}

impl Outcome {
    /// Executions in a second of processor time.
    pub(super) fn rate(&self) -> u64 {
        let whole = u128::from(self.executions) * 1000 / self.time.as_millis().max(1);
        u64::try_from(whole).unwrap_or(u64::MAX)
    }

    /// For the person who waits.
    pub(super) fn line(&self) -> String {
        let Self { target, executions, cov, ft, .. } = self;
        let end = match (&self.failed, self.found.as_slice()) {
            (Some(failure), _) => format!("; {failure}"),
            (None, []) => String::new(),
            (None, found) => format!("; FOUND {}", found.join(", ")),
        };
        format!("{target}: {executions} executions, {} a second, cov {cov}, ft {ft}{end}", self.rate())
    }
}

/// Runs a target for so long, and makes seeds of what it finds.
pub(super) fn run(places: &Places, target: &str, time: Duration) -> Outcome {
    let outcome = Outcome { target: target.to_owned(), ..Outcome::default() };
    match fuzz(places, target, time) {
        Ok(done) => Outcome { target: outcome.target, ..done },
        Err(failure) => Outcome { failed: Some(format!("{target}: {failure}")), ..outcome },
    }
}

fn fuzz(places: &Places, target: &str, time: Duration) -> Done<Outcome> {
    let program = places.program(target)?;
    let [grown, broken] = [places.grown.join(target), places.broken.join(target)];
    for directory in [&grown, &broken, &places.log] {
        std::fs::create_dir_all(directory).map_err(|error| said(directory, &error))?;
    }
    let log = places.log.join(target);
    let file = File::create(&log).map_err(|error| said(&log, &error))?;
    println!("{target}: begins, {} s", time.as_secs());
    let mut fuzzer = bounded(&program, target);
    fuzzer.arg(format!("-max_total_time={}", time.as_secs().max(1)));
    // Entropic schedules cost more than the engine: every input touches thousands of edges.
    fuzzer.args(["-print_final_stats=1", "-entropic=0"]);
    fuzzer.arg(format!("-artifact_prefix={}/", broken.display()));
    fuzzer.arg(&grown).arg(places.seeds.join(target));
    let started = fuzzer.stdout(Stdio::null()).stderr(file).spawn();
    let (status, time) = started.and_then(wait).map_err(|error| format!("{}: {error}", program.display()))?;
    let text = std::fs::read(&log).map_err(|error| said(&log, &error))?;
    let mut outcome = read(&String::from_utf8_lossy(&text));
    outcome.time = time;
    outcome.found = find::keep(&program, target, &broken, &places.seeds.join(target))?;
    if !status.success() && outcome.found.is_empty() {
        return Err(format!("{status}; {} tells more", log.display()));
    }
    Ok(outcome)
}

/// Waits for the end of a child. How it ended, and its processor time up to a moment before.
fn wait(mut child: Child) -> io::Result<(ExitStatus, Duration)> {
    const MOMENT: Duration = Duration::from_millis(100);
    let mut time = Duration::ZERO;
    loop {
        time = processor_time(child.id()).unwrap_or(time).max(time);
        if let Some(status) = child.try_wait()? {
            return Ok((status, time));
        }
        std::thread::sleep(MOMENT);
    }
}

/// From proc_pid_stat(5): the fields utime and stime, in hundredths of a second, behind a name that may have anything
/// in it.
fn processor_time(pid: u32) -> Option<Duration> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = text.rsplit_once(')')?;
    let ticks = fields.split_whitespace().skip(11).take(2).map(|field| field.parse::<u64>().ok());
    Some(Duration::from_millis(ticks.sum::<Option<u64>>()? * 10))
}

/// What libFuzzer printed: the last line with counts, and its statistics.
fn read(log: &str) -> Outcome {
    let mut outcome = Outcome::default();
    let last = log.lines().rfind(|line| line.contains(" cov: ")).unwrap_or_default();
    let mut words = last.split_whitespace();
    while let Some(word) = words.next() {
        let mut number = || {
            let digits = words.next()?.split(|letter: char| !letter.is_ascii_digit()).next()?;
            digits.parse().ok()
        };
        match word {
            "cov:" => outcome.cov = number().unwrap_or(0),
            "ft:" => outcome.ft = number().unwrap_or(0),
            "corp:" => outcome.corpus = number().unwrap_or(0),
            _ => {}
        }
    }
    let counted = log.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:"));
    outcome.executions = counted.and_then(|number| number.trim().parse().ok()).unwrap_or(0);
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;
    use std::process::Command;

    const ORPHAN: &str = "SLIPWAY_FUZZ_ORPHAN";
    const NAME: &str = "a_fuzzer_ends_with_whoever_started_it";

    /// Whether that process is a sleep, not the remains of one.
    fn sleeps(pid: u32) -> bool {
        std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|words| words.starts_with(b"sleep"))
    }

    /// For at most ten seconds.
    fn until(done: impl Fn() -> bool) -> bool {
        (0..200).any(|_| {
            done() || {
                std::thread::sleep(Duration::from_millis(50));
                false
            }
        })
    }

    #[test]
    fn a_fuzzer_ends_with_whoever_started_it() {
        // In a process of its own, which starts one and dies of a signal.
        if let Some(program) = std::env::var_os(ORPHAN) {
            let fuzzer = bounded(Path::new(&program), "frame").stdout(Stdio::null()).spawn().unwrap();
            assert!(until(|| sleeps(fuzzer.id())));
            println!("started {}.", fuzzer.id());
            std::process::abort();
        }
        if Command::new("setpriv").arg("--version").output().is_err() {
            println!("SKIP {NAME}: setpriv is not installed");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("fuzzer");
        std::fs::write(&program, "#!/bin/sh\nexec sleep 60\n").unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let mut parent = Command::new(std::env::current_exe().unwrap());
        parent.args(["--nocapture", NAME]).env(ORPHAN, &program);
        let output = parent.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let number = said.split_once("started ").and_then(|(_, rest)| rest.split('.').next()?.parse().ok());
        let number: u32 = number.unwrap_or_else(|| panic!("{output:?}"));
        assert!(until(|| !sleeps(number)), "{number} lives on");
    }

    #[test]
    fn processor_time_is_not_that_of_the_clock() {
        let idle = wait(Command::new("sleep").arg("0.3").spawn().unwrap()).unwrap();
        let busy = "i=0; while [ $i -lt 400000 ]; do i=$((i+1)); done";
        let busy = wait(Command::new("sh").args(["-c", busy]).spawn().unwrap()).unwrap();
        assert!(idle.0.success() && busy.0.success());
        assert!(idle.1 < Duration::from_millis(300) && busy.1 > idle.1, "{idle:?} {busy:?}");
    }

    #[test]
    fn what_libfuzzer_prints_is_read() {
        let log = "#2\tINITED cov: 5 ft: 6 corp: 1/1b exec/s: 0 rss: 60Mb\nINFO: cov words\n\
                   #5744\tDONE   cov: 4901 ft: 20013 corp: 280/97Kb lim: 704 exec/s: 287 rss: 455Mb\nDone 5744 runs in 20 second(s)\n\
                   stat::number_of_executed_units: 5744\nstat::average_exec_per_sec:     273\n";
        let mut outcome = read(log);
        assert_eq!((outcome.cov, outcome.ft, outcome.corpus, outcome.executions), (4901, 20_013, 280, 5744));
        outcome.time = Duration::from_secs(20);
        assert_eq!(outcome.rate(), 287);
        assert_eq!(read("").executions, 0);
    }
}
