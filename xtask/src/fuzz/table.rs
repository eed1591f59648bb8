//! The table of docs/fuzzing.md. What a target did in its last run stands there, and the hours of all runs.

use std::fmt::Write as _;

use super::one::Outcome;
use super::said;
use crate::tool::{self, Done};

const BEGIN: &str = "<!-- fuzz: begin -->";
const END: &str = "<!-- fuzz: end -->";
const HEAD: &str = "| target | minutes | executions | a second | cov | ft | inputs kept | found | hours in all |\n\
                    |---|---|---|---|---|---|---|---|---|\n";

/// A table of these outcomes, together with rows that there were.
pub(super) fn of(outcomes: &[Outcome], before: &[Row]) -> String {
    let mut rows: Vec<Row> = outcomes.iter().map(|outcome| Row::of(outcome, before)).collect();
    let others = before.iter().filter(|row| outcomes.iter().all(|outcome| outcome.target != row.target));
    rows.extend(others.cloned());
    rows.sort_by(|one, other| one.target.cmp(&other.target));
    let mut text = HEAD.to_owned();
    for row in rows {
        let _ = writeln!(text, "| {} | {} | {:.3} |", row.target, row.middle, row.hours);
    }
    text
}

/// Puts the table into docs/fuzzing.md: rows of targets that were not run stay, those of targets that are no more go.
pub(super) fn put(outcomes: &[Outcome], all: &[String]) -> Done {
    let path = tool::root().join("docs/fuzzing.md");
    let page = std::fs::read_to_string(&path).map_err(|error| said(&path, &error))?;
    let (head, rest) = page.split_once(BEGIN).ok_or_else(|| format!("{}: no {BEGIN}", path.display()))?;
    let (old, tail) = rest.split_once(END).ok_or_else(|| format!("{}: no {END}", path.display()))?;
    let before: Vec<Row> =
        old.lines().filter_map(Row::read).filter(|row| all.contains(&row.target)).collect();
    // What could not be run says nothing.
    let ran: Vec<Outcome> = outcomes.iter().filter(|outcome| outcome.failed.is_none()).cloned().collect();
    let text = format!("{head}{BEGIN}\n{}{END}{tail}", of(&ran, &before));
    std::fs::write(&path, text).map_err(|error| said(&path, &error))?;
    println!("{}", path.display());
    Ok(())
}

/// A row.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row {
    target: String,
    /// What is between name and hours, as it is printed.
    middle: String,
    hours: f64,
}

impl Row {
    fn of(outcome: &Outcome, before: &[Self]) -> Self {
        let Outcome { target, time, executions, cov, ft, corpus, found, .. } = outcome;
        let known = before.iter().find(|row| row.target == *target).map_or(0.0, |row| row.hours);
        let (minutes, rate) = (time.as_secs_f64() / 60.0, outcome.rate());
        let middle =
            format!("{minutes:.1} | {executions} | {rate} | {cov} | {ft} | {corpus} | {}", found.len());
        Self { target: target.clone(), middle, hours: known + time.as_secs_f64() / 3600.0 }
    }

    fn read(line: &str) -> Option<Self> {
        let (target, rest) = line.strip_prefix("| ")?.strip_suffix(" |")?.split_once(" | ")?;
        let (middle, hours) = rest.rsplit_once(" | ")?;
        Some(Self { target: target.to_owned(), middle: middle.to_owned(), hours: hours.parse().ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn hours_add_up_and_others_stay() {
        let outcome = |target: &str, minutes: u64| Outcome {
            target: target.to_owned(),
            time: Duration::from_secs(minutes * 60),
            executions: 600,
            cov: 7,
            ft: 8,
            corpus: 9,
            ..Outcome::default()
        };
        let first = of(&[outcome("b", 30), outcome("a", 5)], &[]);
        assert!(
            first.ends_with(
                "| a | 5.0 | 600 | 2 | 7 | 8 | 9 | 0 | 0.083 |\n| b | 30.0 | 600 | 0 | 7 | 8 | 9 | 0 | 0.500 |\n"
            ),
            "{first}"
        );
        let before: Vec<Row> = first.lines().filter_map(Row::read).collect();
        assert_eq!(before.len(), 2, "head and rule are no rows");
        let second = of(&[outcome("b", 60)], &before);
        assert!(second.contains("| a | 5.0 | 600 |"), "{second}");
        assert!(second.ends_with("| b | 60.0 | 600 | 0 | 7 | 8 | 9 | 0 | 1.500 |\n"), "{second}");
    }
}
