//! Two programs that do the same work in turn: ours and the one it replaces.
//!
//! A duel is a list of rows; each holds the values of both sides and what ours is held against. Where the rival is
//! not installed its cells stay empty and the rows that need it have no verdict.

use std::fmt::Write as _;
use std::path::PathBuf;

use slipway_lab::interrupted;

use crate::tool::Done;

use super::chart::{Chart, Measured, number};
use super::table::median;

/// Who does the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// The program of this tree.
    Ours,
    /// The one it stands in for.
    Stock,
}

/// What ours is held against.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Goal {
    /// At least this much times the other's.
    AtLeast(f64),
    /// At most this much times the other's.
    AtMost(f64),
    /// At most this much times our own figure in another row.
    OfOurs(f64, &'static str),
    /// Nothing at all.
    Zero,
    /// At least this much, whatever the other does.
    NoLess(f64),
    /// At most this much, whatever the other does.
    NoMore(f64),
}

/// One row: what was measured, how often, by whom.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) goal: Goal,
    ours: Vec<f64>,
    stock: Vec<f64>,
}

impl Row {
    /// An empty one.
    pub(crate) fn new(name: &'static str, unit: &'static str, goal: Goal) -> Self {
        Self { name, unit, goal, ours: Vec::new(), stock: Vec::new() }
    }

    /// One measurement.
    pub(crate) fn add(&mut self, side: Side, value: f64) {
        match side {
            Side::Ours => self.ours.push(value),
            Side::Stock => self.stock.push(value),
        }
    }

    fn cell(values: &[f64]) -> String {
        let Some(middle) = median(values) else { return String::new() };
        let low = values.iter().copied().reduce(f64::min).unwrap_or(middle);
        let high = values.iter().copied().reduce(f64::max).unwrap_or(middle);
        if values.len() > 1 {
            format!("{} ({} to {})", number(middle), number(low), number(high))
        } else {
            number(middle)
        }
    }
}

/// All rows of one duel.
#[derive(Debug)]
pub(crate) struct Duel {
    /// The rival's name, as the column's head.
    pub(crate) rival: String,
    pub(crate) rows: Vec<Row>,
    /// What went wrong; with anything in it, the table is refused.
    pub(crate) failures: Vec<String>,
}

/// How often the rival may try a piece of work.
const TRIES: usize = 3;

impl Duel {
    /// All rounds of a piece of work that fills these rows, each side first in turn.
    ///
    /// # Errors
    /// The bench was interrupted. A side that fails is noted among the failures.
    pub(crate) fn fill(
        &mut self,
        rows: impl IntoIterator<Item = Row>,
        (sides, rounds): (&[Side], usize),
        work: impl Fn(Side) -> Done<Vec<f64>>,
    ) -> Done {
        let first = self.rows.len();
        self.rows.extend(rows);
        for round in 0..rounds.max(1) {
            for turn in 0..sides.len() {
                if let Some(side) = sides.get((round + turn) % sides.len()) {
                    self.once(first, *side, &work)?;
                }
            }
        }
        Ok(())
    }

    fn once(&mut self, first: usize, side: Side, work: impl Fn(Side) -> Done<Vec<f64>>) -> Done {
        let tries = if side == Side::Stock { TRIES } else { 1 };
        for left in (0..tries).rev() {
            let done = work(side);
            if interrupted() {
                return Err("interrupted".to_owned());
            }
            match done {
                Ok(figures) => {
                    for (row, figure) in self.rows.iter_mut().skip(first).zip(figures) {
                        println!("  {side:?}: {} {figure:.3} {}", row.name, row.unit);
                        row.add(side, figure);
                    }
                    return Ok(());
                }
                Err(error) if left > 0 => println!("  {side:?}, once more: {error}"),
                Err(error) => self.heed(side, &Err(error)),
            }
        }
        Ok(())
    }

    /// What a side says of its turn: an error is shown at once.
    pub(crate) fn heed(&mut self, side: Side, done: &Done) {
        if let Err(error) = done {
            let said = error.lines().take(4).collect::<Vec<_>>().join(" | ");
            println!("  {side:?}: {said}");
            self.failures.push(format!("{side:?}: {said}"));
        }
    }

    /// Whether there was no rival.
    pub(crate) fn alone(&self) -> bool {
        self.rows.iter().all(|row| row.stock.is_empty())
    }

    /// The rows as a picture.
    pub(crate) fn chart(&self, title: &str) -> Chart {
        let measured = self.rows.iter().map(|row| Measured {
            name: row.name.to_owned(),
            unit: row.unit,
            less_is_better: !matches!(row.goal, Goal::AtLeast(_) | Goal::NoLess(_)),
            figures: vec![median(&row.ours), median(&row.stock)],
        });
        let names = ["slipway".to_owned(), self.rival.clone()];
        Chart::of(title, &names, &measured.collect::<Vec<_>>())
    }

    /// One measurement; an unknown row is a slip of the bench and is said.
    pub(crate) fn add(&mut self, name: &str, side: Side, value: f64) {
        match self.rows.iter_mut().find(|row| row.name == name) {
            Some(row) => row.add(side, value),
            None => println!("  no row {name}"),
        }
    }

    /// The table.
    pub(crate) fn markdown(&self) -> String {
        let mut text = format!("| work | slipway | {} | ratio | goal |\n|---|---|---|---|---|\n", self.rival);
        for row in self.rows.iter().filter(|row| !row.ours.is_empty() || !row.stock.is_empty()) {
            let ratio = median(&row.ours).zip(median(&row.stock)).filter(|(_, stock)| *stock > 0.0);
            let ratio = ratio.map_or_else(String::new, |(ours, stock)| format!("{:.2}", ours / stock));
            let _ = writeln!(
                text,
                "| {}, {} | {} | {} | {ratio} | {} |",
                row.name,
                row.unit,
                Row::cell(&row.ours),
                Row::cell(&row.stock),
                self.verdict(row)
            );
        }
        text
    }

    fn verdict(&self, row: &Row) -> String {
        let (ours, stock) = (median(&row.ours), median(&row.stock));
        let (text, met) = match row.goal {
            Goal::AtLeast(times) => {
                (format!(">= {times} x"), ours.zip(stock).map(|(ours, stock)| ours >= stock * times))
            }
            Goal::AtMost(times) => {
                (format!("<= {times} x"), ours.zip(stock).map(|(ours, stock)| ours <= stock * times))
            }
            Goal::OfOurs(times, name) => {
                let other = self.rows.iter().find(|other| other.name == name);
                let other = other.and_then(|other| median(&other.ours));
                (
                    format!("<= {times} x ours of \"{name}\""),
                    ours.zip(other).map(|(ours, other)| ours <= other * times),
                )
            }
            Goal::Zero => ("none".to_owned(), ours.map(|ours| ours == 0.0)),
            Goal::NoLess(least) => (format!(">= {least}"), ours.map(|ours| ours >= least)),
            Goal::NoMore(most) => (format!("<= {most}"), ours.map(|ours| ours <= most)),
        };
        match met {
            Some(true) => format!("{text}: met"),
            Some(false) => format!("{text}: **not met**"),
            None => text,
        }
    }
}

/// The rival: what the environment variable names, or the first of the places where distributions put it.
pub(crate) fn rival(variable: &str, name: &str) -> Option<PathBuf> {
    if let Some(named) = std::env::var_os(variable).map(PathBuf::from) {
        if named.is_file() {
            return Some(named);
        }
        println!("xtask: {variable}={} is not a file", named.display());
        return None;
    }
    let places = ["/usr/lib/podman", "/usr/libexec/podman", "/usr/local/libexec/podman"];
    places.iter().map(|place| PathBuf::from(place).join(name)).find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_begin_in_turn_and_only_the_rival_may_try_again() {
        let mut duel = Duel { rival: "it".to_owned(), rows: Vec::new(), failures: Vec::new() };
        let calls = std::cell::RefCell::new(Vec::new());
        let work = |side| {
            calls.borrow_mut().push(side);
            let tries = calls.borrow().iter().filter(|one| **one == side).count();
            if tries == 1 { Err("not yet".to_owned()) } else { Ok(vec![1.0, 2.0]) }
        };
        let rows = ["one", "two"].map(|name| Row::new(name, "s", Goal::AtLeast(1.0)));
        duel.fill(rows, (&[Side::Ours, Side::Stock], 2), work).unwrap();
        let (ours, stock) = (Side::Ours, Side::Stock);
        assert_eq!(*calls.borrow(), [ours, stock, stock, stock, ours]);
        assert_eq!(duel.failures, ["Ours: not yet"]);
        assert_eq!((&duel.rows[1].ours, &duel.rows[1].stock), (&vec![2.0], &vec![2.0, 2.0]));
    }

    #[test]
    fn verdicts_compare_the_medians() {
        let mut duel = Duel {
            rival: "stock 1.0".to_owned(),
            rows: vec![
                Row::new("speed", "1/s", Goal::AtLeast(1.5)),
                Row::new("memory", "MB", Goal::AtMost(1.0)),
                Row::new("hundredth", "ms", Goal::OfOurs(1.3, "memory")),
                Row::new("lost", "queries", Goal::Zero),
                Row::new("left", "%", Goal::NoLess(80.0)),
                Row::new("started", "ms", Goal::NoMore(20.0)),
            ],
            failures: Vec::new(),
        };
        for (name, side, value) in [
            ("speed", Side::Ours, 160.0),
            ("speed", Side::Ours, 10.0),
            ("speed", Side::Ours, 170.0),
            ("speed", Side::Stock, 100.0),
            ("memory", Side::Ours, 3.0),
            ("memory", Side::Stock, 2.0),
            ("hundredth", Side::Ours, 3.5),
            ("lost", Side::Ours, 0.0),
            ("left", Side::Ours, 79.0),
            ("left", Side::Stock, 3.0),
            ("started", Side::Ours, 20.0),
        ] {
            duel.add(name, side, value);
        }
        let text = duel.markdown();
        for expected in [
            "| speed, 1/s | 160 (10.0 to 170) | 100 | 1.60 | >= 1.5 x: met |",
            "| memory, MB | 3.00 | 2.00 | 1.50 | <= 1 x: **not met** |",
            "<= 1.3 x ours of \"memory\": met",
            "| none: met |",
            ">= 80: **not met** |",
            "| <= 20: met |",
        ] {
            assert!(text.contains(expected), "{text}");
        }
    }

    #[test]
    fn a_turn_that_failed_is_kept() {
        let mut duel = Duel { rival: String::new(), rows: Vec::new(), failures: Vec::new() };
        duel.heed(Side::Ours, &Ok(()));
        assert!(duel.failures.is_empty());
        duel.heed(Side::Stock, &Err("no route\nto host".to_owned()));
        assert_eq!(duel.failures, ["Stock: no route | to host"]);
    }
}
