//! One target: the fuzzer as a child with bounds, and what it printed.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::{Places, bounds, find, said};
use crate::tool::Done;

/// What a target did.
#[derive(Debug, Default, Clone)]
pub(super) struct Outcome {
    pub(super) target: String,
    /// How long it ran.
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
    /// Executions in a second.
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
    let begin = now();
    let status = fuzzer.stdout(Stdio::null()).stderr(file).status();
    let status = status.map_err(|error| format!("{}: {error}", program.display()))?;
    let text = std::fs::read(&log).map_err(|error| said(&log, &error))?;
    let mut outcome = read(&String::from_utf8_lossy(&text));
    outcome.time = begin.elapsed();
    outcome.found = find::keep(&program, target, &broken, &places.seeds.join(target))?;
    if !status.success() && outcome.found.is_empty() {
        return Err(format!("{status}; {} tells more", log.display()));
    }
    Ok(outcome)
}

/// The fuzzer with what each input may cost. It ends with this process.
pub(super) fn bounded(program: &Path, target: &str) -> Command {
    let bounds = bounds::of(target);
    let mut command = Command::new("prlimit");
    let address = program.components().any(|part| part.as_os_str() == "build-address");
    // AddressSanitizer reserves terabytes, and has a bound of its own on what is asked for at once.
    let space = if address { u64::MAX } else { u64::from(bounds.address_space) << 20 };
    if space < u64::MAX {
        command.arg(format!("--as={space}"));
    }
    command.args(["--core=0", "setpriv", "--pdeathsig", "KILL", "--"]).arg(program);
    command.arg(format!("-max_len={}", bounds.longest));
    command.arg(format!("-timeout={}", bounds.seconds));
    command.arg(format!("-rss_limit_mb={}", bounds.resident * if address { 4 } else { 1 }));
    command.arg(format!("-malloc_limit_mb={}", bounds.address_space));
    command.stdin(Stdio::null());
    command
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

#[expect(clippy::disallowed_methods, reason = "how long a fuzzer really ran")]
pub(super) fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

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
