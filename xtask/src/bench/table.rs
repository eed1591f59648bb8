//! Medians, ratios, verdicts, and the page they go to.

use std::fmt::Write as _;

use crate::tool::{self, Done};

use super::rows::{Goal, Row};
use super::stage::Subject;

/// What the subjects did in one row.
#[derive(Debug)]
pub(crate) struct Result {
    row: &'static Row,
    values: Vec<(Subject, Vec<f64>)>,
    failures: Vec<Subject>,
}

impl Result {
    /// An empty one.
    pub(crate) fn new(row: &'static Row) -> Self {
        Self { row, values: Vec::new(), failures: Vec::new() }
    }

    /// One measurement.
    pub(crate) fn add(&mut self, subject: Subject, value: f64) {
        match self.values.iter_mut().find(|(of, _)| *of == subject) {
            Some((_, values)) => values.push(value),
            None => self.values.push((subject, vec![value])),
        }
    }

    /// One measurement that came to nothing.
    pub(crate) fn fail(&mut self, subject: Subject) {
        self.failures.push(subject);
    }

    fn values(&self, subject: Subject) -> &[f64] {
        self.values.iter().find(|(of, _)| *of == subject).map_or(&[], |(_, values)| values)
    }

    fn median(&self, subject: Subject) -> Option<f64> {
        median(self.values(subject))
    }

    /// The worst of a subject's rounds.
    fn worst(&self, subject: Subject) -> Option<f64> {
        let values = self.values(subject).iter().copied();
        if self.row.less_is_better() { values.reduce(f64::max) } else { values.reduce(f64::min) }
    }

    fn best_peer(&self) -> Option<f64> {
        let peers = self.values.iter().filter(|(subject, _)| subject.is_peer());
        let medians = peers.filter_map(|(_, values)| median(values));
        if self.row.less_is_better() { medians.reduce(f64::min) } else { medians.reduce(f64::max) }
    }

    fn cell(&self, subject: Subject) -> String {
        let failed = self.failures.iter().filter(|of| **of == subject).count();
        let Some(middle) = self.median(subject) else {
            return if failed > 0 { "fails".to_owned() } else { String::new() };
        };
        let mut cell = number(middle);
        if let Some(worst) = self.worst(subject).filter(|_| self.values(subject).len() > 1) {
            let _ = write!(cell, " ({})", number(worst));
        }
        if failed > 0 {
            let _ = write!(cell, ", fails {failed}x");
        }
        cell
    }
}

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

    /// One row, as Markdown.
    pub(crate) fn line(&self, result: &Result) -> String {
        let mut line = format!("| {}, {} |", result.row.name, result.row.unit);
        for subject in &self.subjects {
            let _ = write!(line, " {} |", result.cell(*subject));
        }
        let ours = result.median(Subject::Slipway);
        for other in [result.best_peer(), result.median(Subject::Host)] {
            let _ = match ours.zip(other) {
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
        let _ = writeln!(text, " x best peer | x host | goal |\n{rule}---|---|---|");
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
            Goal::OverBest(times) => {
                (format!(">= {times} x best peer"), result.best_peer().map(|best| best * times))
            }
            Goal::LikeSlirp => ("<= slirp4netns".to_owned(), result.median(Subject::Slirp4netns)),
            Goal::LikeBest => ("<= best peer".to_owned(), result.best_peer()),
            Goal::OfOurs(share, name) => {
                let other = self.results.iter().find(|other| other.row.name == name);
                let bound = other.and_then(|other| other.median(Subject::Slipway)).map(|value| value * share);
                (format!(">= {share} x ours at MTU 65520"), bound)
            }
            Goal::AtMost(most) => (format!("<= {most}"), Some(most)),
        };
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

pub(super) fn number(value: f64) -> String {
    match value.abs() {
        large if large >= 1000.0 => format!("{:.1} k", value / 1000.0),
        middle if middle >= 100.0 => format!("{value:.0}"),
        middle if middle >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// Puts the table, with the machine it was taken on, into docs/performance.md.
pub(crate) fn write(table: &Table, rounds: usize, load: &str) -> Done {
    let peers = ["slirp4netns", "pasta"].map(|program| first_line(program.as_ref())).join("; ");
    put("table", &machine(&peers, rounds, load), &table.markdown())
}

/// Puts a table between its two marks in docs/performance.md.
pub(super) fn put(name: &str, machine: &str, table: &str) -> Done {
    let path = tool::root().join("docs/performance.md");
    let page = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let (begin, end) = (format!("<!-- {name}: begin -->"), format!("<!-- {name}: end -->"));
    let (head, rest) = page.split_once(&begin).ok_or_else(|| format!("{}: no {begin}", path.display()))?;
    let (_, tail) = rest.split_once(&end).ok_or_else(|| format!("{}: no {end}", path.display()))?;
    let text = format!("{head}{begin}\n{machine}\n\n{table}{end}{tail}");
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
        read("/proc/sys/kernel/osrelease").trim(),
    )
}

/// What a program says of its version.
pub(super) fn first_line(program: &std::path::Path) -> String {
    let mut command = std::process::Command::new(program);
    let text = command.arg("--version").output().map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&text).lines().next().unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::rows::ROWS;

    #[test]
    fn medians_and_verdicts() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[1.0, 2.0]), Some(1.5));
        assert_eq!(median(&[]), None);
        let table = Table::new(&[Subject::Slipway, Subject::Slirp4netns, Subject::Host]);
        let mut result = Result::new(ROWS.first().unwrap());
        for (subject, value) in
            [(Subject::Slipway, 30.0), (Subject::Slirp4netns, 10.0), (Subject::Host, 60.0)]
        {
            result.add(subject, value);
        }
        let line = table.line(&result);
        assert!(line.contains("| 3.00 | 0.50 | >= 0.45 x host: met |"), "{line}");
    }

    #[test]
    fn a_failure_is_shown() {
        let mut result = Result::new(ROWS.first().unwrap());
        result.fail(Subject::Pasta);
        assert_eq!(result.cell(Subject::Pasta), "fails");
        result.add(Subject::Pasta, 2.0);
        assert_eq!(result.cell(Subject::Pasta), "2.00, fails 1x");
    }
}
