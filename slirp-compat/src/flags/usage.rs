//! The usage text of a personality, from its table.
//!
//! The layout is interface: line 1 is `Usage: PROGRAM SYNOPSIS`, then one sentence, an empty line, and one line per
//! option. Container engines search the whole text for option names to learn what they may ask for.

use super::table::{Flag, Table};
use std::fmt::Write as _;

/// The column where descriptions begin, if the option's name leaves room.
const COLUMN: usize = 30;

/// The text that `--help` prints, last newline included. `program` is `argv[0]`.
#[must_use]
pub fn text<K>(table: &Table<K>, program: &str) -> String {
    let mut out = String::with_capacity(2048);
    // One line only: what follows it is the sentence.
    let synopsis = table.synopsis.first().copied().unwrap_or_default();
    let _ = writeln!(out, "Usage: {program} {synopsis}");
    let _ = writeln!(out, "{}\n", table.summary);
    table.flags.iter().filter(|flag| !flag.hidden).for_each(|flag| out.push_str(&line(flag)));
    out
}

/// The line of one option, newline included.
#[must_use]
pub fn line<K>(flag: &Flag<K>) -> String {
    format!("{:<width$}{}{}\n", name(flag) + " ", flag.help, default(flag), width = COLUMN)
}

/// `-m, --mtu=MTU`.
#[must_use]
pub fn name<K>(flag: &Flag<K>) -> String {
    let mut out = String::new();
    if let Some(short) = flag.short {
        let _ = write!(out, "-{}, ", char::from(short));
    }
    let _ = write!(out, "--{}", flag.long);
    if let Some(value) = flag.value {
        let _ = write!(out, "={value}");
    }
    out
}

fn default<K>(flag: &Flag<K>) -> String {
    flag.default.map(|text| format!(" ({text})")).unwrap_or_default()
}
