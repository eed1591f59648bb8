//! Medians, ratios, verdicts, and the page they go to.

use std::fmt::Write as _;

use crate::tool::{self, Done};

use super::chart::{Chart, Measured, number};
use super::rows::{Goal, Row};
use super::stage::Subject;

/// What the subjects did in one row.
#[derive(Debug)]
pub(crate) struct Result {
    row: &'static Row,
    values: Vec<(Subject, Vec<f64>)>,
    failures: Vec<Subject>,
    /// Tries that came to nothing before one did not.
    spoiled: Vec<Subject>,
}

impl Result {
    /// An empty one.
    pub(crate) fn new(row: &'static Row) -> Self {
        Self { row, values: Vec::new(), failures: Vec::new(), spoiled: Vec::new() }
    }

    /// One measurement.
    pub(crate) fn add(&mut self, subject: Subject, value: f64) {
        match self.values.iter_mut().find(|(of, _)| *of == subject) {
            Some((_, values)) => values.push(value),
            None => self.values.push((subject, vec![value])),
        }
    }

    /// A try that came to nothing, and will be repeated.
    pub(crate) fn spoil(&mut self, subject: Subject) {
        self.spoiled.push(subject);
    }

    /// One measurement that came to nothing.
    pub(crate) fn fail(&mut self, subject: Subject) {
        self.failures.push(subject);
    }

    fn values(&self, subject: Subject) -> &[f64] {
        self.values.iter().find(|(of, _)| *of == subject).map_or(&[], |(_, values)| values)
    }

    /// The middle of a subject's rounds, if he did all of them.
    fn median(&self, subject: Subject) -> Option<f64> {
        if self.failures.contains(&subject) { None } else { median(self.values(subject)) }
    }

    /// The worst of a subject's rounds.
    fn worst(&self, subject: Subject) -> Option<f64> {
        let values = self.values(subject).iter().copied();
        if self.row.less_is_better() { values.reduce(f64::max) } else { values.reduce(f64::min) }
    }

    /// Whether this is no row: somebody failed whom it cannot do without. A peer that cannot do a thing is told.
    fn is_refused(&self) -> bool {
        self.failures.iter().any(|subject| !subject.is_peer())
    }

    /// None where one of them failed: it may be the best.
    fn best_peer(&self) -> Option<f64> {
        if self.failures.iter().any(|subject| subject.is_peer()) {
            return None;
        }
        let peers = self.values.iter().map(|(subject, _)| *subject).filter(|subject| subject.is_peer());
        let medians = peers.filter_map(|subject| self.median(subject));
        if self.row.less_is_better() { medians.reduce(f64::min) } else { medians.reduce(f64::max) }
    }

    fn cell(&self, subject: Subject) -> String {
        if self.failures.contains(&subject) {
            return "failed".to_owned();
        }
        let Some(middle) = self.median(subject) else { return String::new() };
        let figure = match self.worst(subject).filter(|_| self.values(subject).len() > 1) {
            Some(worst) => format!("{} ({})", number(middle), number(worst)),
            None => number(middle),
        };
        match self.spoiled.iter().filter(|of| **of == subject).count() {
            0 => figure,
            spoiled => format!("{figure}, {spoiled} failed"),
        }
    }
}

/// A column that says how many times somebody else's figure ours is.
struct Ratio {
    name: &'static str,
    /// It is there when one of these is.
    of: &'static [Subject],
    figure: fn(&Result) -> Option<f64>,
}

const RATIOS: [Ratio; 3] = [
    Ratio { name: "x before", of: &[Subject::Before], figure: |result| result.median(Subject::Before) },
    Ratio { name: "x best peer", of: &[Subject::Slirp4netns, Subject::Pasta], figure: Result::best_peer },
    Ratio { name: "x host", of: &[Subject::Host], figure: |result| result.median(Subject::Host) },
];

/// All rows so far.
#[derive(Debug)]
pub(crate) struct Table {
    subjects: Vec<Subject>,
    results: Vec<Result>,
}

impl Table {
    /// An empty one with these columns.
    pub(crate) fn new(subjects: &[Subject]) -> Self {
        Self { subjects: subjects.to_vec(), results: Vec::new() }
    }

    /// Adds a row.
    pub(crate) fn add(&mut self, result: Result) {
        self.results.push(result);
    }

    /// The rows in which ours or the host failed.
    pub(crate) fn refused(&self) -> Vec<&'static str> {
        self.results.iter().filter(|result| result.is_refused()).map(|result| result.row.name).collect()
    }

    /// The rows with goals as a picture.
    pub(crate) fn chart(&self, title: &str) -> Chart {
        let shown = self.results.iter().filter(|result| !matches!(result.row.goal, Goal::Shown));
        let measured = shown.map(|result| Measured {
            name: result.row.name.to_owned(),
            unit: result.row.unit,
            less_is_better: result.row.less_is_better(),
            figures: self.subjects.iter().map(|subject| result.median(*subject)).collect(),
        });
        let names: Vec<String> = self.subjects.iter().map(|subject| subject.name().to_owned()).collect();
        Chart::of(title, &names, &measured.collect::<Vec<_>>())
    }

    /// What ours is divided by.
    fn ratios(&self) -> impl Iterator<Item = &'static Ratio> {
        RATIOS.iter().filter(|ratio| ratio.of.iter().any(|subject| self.subjects.contains(subject)))
    }

    /// One row, as Markdown.
    pub(crate) fn line(&self, result: &Result) -> String {
        let mut line = format!("| {}, {} |", result.row.name, result.row.unit);
        for subject in &self.subjects {
            let _ = write!(line, " {} |", result.cell(*subject));
        }
        let ours = result.median(Subject::Slipway);
        for ratio in self.ratios() {
            let _ = match ours.zip((ratio.figure)(result)) {
                Some((ours, other)) => write!(line, " {:.2} |", ours / other),
                None => write!(line, " |"),
            };
        }
        let _ = write!(line, " {} |", self.verdict(result));
        line
    }

    /// The whole table.
    pub(crate) fn markdown(&self) -> String {
        let mut text = String::from("| work |");
        let mut rule = String::from("|---|");
        for subject in &self.subjects {
            let _ = write!(text, " {} |", subject.name());
            rule.push_str("---|");
        }
        for ratio in self.ratios() {
            let _ = write!(text, " {} |", ratio.name);
            rule.push_str("---|");
        }
        let _ = writeln!(text, " goal |\n{rule}---|");
        for result in &self.results {
            let _ = writeln!(text, "{}", self.line(result));
        }
        text
    }

    fn verdict(&self, result: &Result) -> String {
        let ours = result.median(Subject::Slipway);
        let (text, bound) = match result.row.goal {
            Goal::OfHost(share) => {
                (format!(">= {share} x host"), result.median(Subject::Host).map(|host| host * share))
            }
            Goal::OfHostFrom(share, least) => {
                let host = result.median(Subject::Host).filter(|host| *host >= least);
                (format!(">= {share} x host"), host.map(|host| host * share))
            }
            Goal::OverBest(times) => {
                (format!(">= {times} x best peer"), result.best_peer().map(|best| best * times))
            }
            Goal::UnderBest(share) => {
                (format!("<= {share} x best peer"), result.best_peer().map(|best| best * share))
            }
            Goal::LikeSlirp => ("<= slirp4netns".to_owned(), result.median(Subject::Slirp4netns)),
            Goal::LikeBest => ("<= best peer".to_owned(), result.best_peer()),
            Goal::OfOurs(share, name) => {
                let other = self.results.iter().find(|other| other.row.name == name);
                let bound = other.and_then(|other| other.median(Subject::Slipway)).map(|value| value * share);
                (format!(">= {share} x ours at MTU 65520"), bound)
            }
            Goal::AtMost(most) => (format!("<= {most}"), Some(most)),
            Goal::Shown => (String::new(), None),
        };
        let lacks = bound.is_none() || result.is_refused();
        if let Some(who) = result.failures.first().filter(|_| lacks) {
            let word = if result.is_refused() { "refused" } else { "not compared" };
            return format!("{text}: {word}, {} failed", who.name()).trim_start_matches(": ").to_owned();
        }
        let met = ours
            .zip(bound)
            .map(|(ours, bound)| if result.row.less_is_better() { ours <= bound } else { ours >= bound });
        match met {
            Some(true) => format!("{text}: met"),
            Some(false) => format!("{text}: **not met**"),
            None => text,
        }
    }
}

pub(super) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = sorted.get(sorted.len() / 2).copied()?;
    if sorted.len() % 2 == 1 {
        return Some(upper);
    }
    sorted.get(sorted.len() / 2 - 1).map(|lower| f64::midpoint(*lower, upper))
}

/// Puts a table and its chart between its two marks in docs/performance.md.
pub(super) fn put(name: &str, machine: &str, chart: &Chart, table: &str) -> Done {
    let path = tool::root().join("docs/performance.md");
    let page = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let (begin, end) = (format!("<!-- {name}: begin -->"), format!("<!-- {name}: end -->"));
    let (head, rest) = page.split_once(&begin).ok_or_else(|| format!("{}: no {begin}", path.display()))?;
    let (_, tail) = rest.split_once(&end).ok_or_else(|| format!("{}: no {end}", path.display()))?;
    let picture = chart.put(name)?;
    let text = format!("{head}{begin}\n{machine}\n\n{table}\n{picture}\n{end}{tail}");
    std::fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
    println!("{}", path.display());
    Ok(())
}

/// The machine and the programs, as a paragraph.
pub(super) fn machine(peers: &str, rounds: usize, load: &str) -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let info = read("/proc/cpuinfo");
    let model = info.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown");
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let memory = read("/proc/meminfo");
    let kib = memory.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0);
    let day = std::process::Command::new("date")
        .arg("+%F")
        .output()
        .map(|output| output.stdout)
        .unwrap_or_default();
    format!(
        "Taken on {} with {cores} cores of {}, {} GiB, Linux {}; peers: {peers}. Medians of {rounds} rounds, the worst \
         round in brackets. Load average before the start: {load} (above 0.5 somebody else was busy, too).",
        String::from_utf8_lossy(&day).trim(),
        model.trim_start_matches([' ', '\t', ':']),
        kib.div_ceil(1 << 20),
        kernel(&read("/proc/sys/kernel/osrelease")),
    )
}

/// The version of a kernel without what its builder put behind it.
fn kernel(release: &str) -> String {
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit());
    let first = numbers.next().unwrap_or_default();
    numbers.next().map_or_else(|| first.to_owned(), |second| format!("{first}.{second}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::rows::{Row, TESTS};

    fn row() -> &'static Row {
        TESTS.first().unwrap().rows.first().unwrap()
    }

    #[test]
    fn medians_and_verdicts() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[1.0, 2.0]), Some(1.5));
        assert_eq!(median(&[]), None);
        let table = Table::new(&[Subject::Slipway, Subject::Slirp4netns, Subject::Host]);
        let mut result = Result::new(row());
        for (subject, value) in
            [(Subject::Slipway, 30.0), (Subject::Slirp4netns, 10.0), (Subject::Host, 60.0)]
        {
            result.add(subject, value);
        }
        let line = table.line(&result);
        assert!(line.contains("| 3.00 | 0.50 | >= 0.45 x host: met |"), "{line}");
    }

    #[test]
    fn where_the_host_does_little_there_is_no_goal() {
        static ROW: Row = Row::new("far", "Mbit/s", Goal::OfHostFrom(0.95, 5.0));
        let table = Table::new(&[Subject::Slipway, Subject::Host]);
        for (host, verdict) in [(10.0, ">= 0.95 x host: **not met** |"), (4.0, ">= 0.95 x host |")] {
            let mut result = Result::new(&ROW);
            result.add(Subject::Slipway, 0.9 * host);
            result.add(Subject::Host, host);
            assert!(table.line(&result).ends_with(verdict), "{}", table.line(&result));
        }
    }

    fn in_which_failed(row: &'static Row, who: Subject) -> (String, Vec<&'static str>) {
        let mut table = Table::new(&[Subject::Slipway, Subject::Pasta, Subject::Host]);
        let mut result = Result::new(row);
        for subject in [Subject::Slipway, Subject::Pasta, Subject::Host] {
            result.add(subject, 2.0);
        }
        // Once is enough: the rounds that went well are those that a figure must not be made of.
        result.fail(who);
        let line = table.line(&result);
        table.add(result);
        (line, table.refused())
    }

    #[test]
    fn a_row_in_which_ours_or_the_host_failed_is_refused() {
        for who in [Subject::Slipway, Subject::Host] {
            let (line, refused) = in_which_failed(row(), who);
            assert!(line.contains("| failed |"), "{line}");
            assert!(line.ends_with(&format!(": refused, {} failed |", who.name())), "{line}");
            assert_eq!(refused, [row().name]);
        }
    }

    #[test]
    fn with_a_peer_that_failed_nothing_is_compared() {
        static BEST: Row = Row::new("near", "Gbit/s", Goal::OverBest(1.1));
        let (line, refused) = in_which_failed(&BEST, Subject::Pasta);
        assert!(line.contains("| 2.00 | failed | 2.00 | | 1.00 |"), "{line}");
        assert!(line.ends_with(">= 1.1 x best peer: not compared, pasta failed |"), "{line}");
        assert!(refused.is_empty(), "the others' figures stand");
        let (line, refused) = in_which_failed(row(), Subject::Pasta);
        assert!(line.ends_with(">= 0.45 x host: met |") && refused.is_empty(), "{line}");
    }

    #[test]
    fn tries_that_failed_are_told() {
        let table = Table::new(&[Subject::Slipway, Subject::Pasta]);
        let mut result = Result::new(row());
        for subject in [Subject::Slipway, Subject::Pasta] {
            result.add(subject, 2.0);
        }
        result.spoil(Subject::Pasta);
        result.spoil(Subject::Pasta);
        assert!(table.line(&result).contains("| 2.00 | 2.00, 2 failed | 1.00 |"), "{}", table.line(&result));
    }

    #[test]
    fn another_build_has_a_column_and_a_ratio() {
        let mut table = Table::new(&[Subject::Slipway, Subject::Before]);
        let mut result = Result::new(row());
        result.add(Subject::Slipway, 3.0);
        result.add(Subject::Before, 2.0);
        table.add(result);
        let text = table.markdown();
        assert!(
            text.starts_with("| work | slipway | before | x before | goal |\n|---|---|---|---|---|\n"),
            "{text}"
        );
        assert!(text.contains("| 3.00 | 2.00 | 1.50 |"), "{text}");
    }

    #[test]
    fn figures_have_as_many_digits_as_they_are_worth() {
        let shown = [0.0, 0.034, 0.5, 12.34, 123.4, 12_345.0].map(number);
        assert_eq!(shown, ["0.00", "0.034", "0.50", "12.3", "123", "12.3 k"]);
    }

    #[test]
    fn of_the_kernel_two_numbers_are_told() {
        assert_eq!(kernel("6.18.44-builder-1\n"), "6.18");
        assert_eq!(kernel("7.0"), "7.0");
        assert_eq!(kernel("7"), "7");
    }
}
