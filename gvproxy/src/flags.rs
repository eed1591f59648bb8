//! Go's rules for a command line, whose callers rely on more than the names: one dash or two, `-x v` beside `-x=v`,
//! truth values that need the equals sign, numbers in any base, the first word that is no flag as the end, and the
//! wording of complaints.
//!
//! A personality describes its flags once, as a table of [`Flag`]; from it come the parser, the usage text and the man
//! page. [`parse`] reports what was typed, in order, so the last one counts where one is given twice. No input panics.
//! Contract: gvproxy §1; source: the documentation of Go's packages `flag` and `strconv`.

use std::ffi::OsString;
use std::fmt::Write as _;

/// What a flag takes, and what holds without it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Nothing, or `=true` and `=false`.
    Truth,
    /// A number.
    Number(i64),
    /// A text.
    Text(&'static str),
    /// Texts, one each time that it is given.
    Texts,
}

/// One flag.
#[derive(Debug, Clone, Copy)]
pub struct Flag<K: 'static> {
    /// What the parser reports.
    pub key: K,
    /// Without dashes.
    pub name: &'static str,
    /// What it takes.
    pub kind: Kind,
    /// One line for the usage text, without full stop.
    pub help: &'static str,
    /// Further sentences for the man page.
    pub more: &'static str,
}

impl<K> Flag<K> {
    /// A flag that the man page says no more of.
    #[must_use]
    pub const fn new(key: K, name: &'static str, kind: Kind, help: &'static str) -> Self {
        Self { key, name, kind, help, more: "" }
    }

    /// With further sentences.
    #[must_use]
    pub const fn more(mut self, more: &'static str) -> Self {
        self.more = more;
        self
    }
}

/// What was typed for a flag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// For [`Kind::Truth`].
    Truth(bool),
    /// For [`Kind::Number`].
    Number(i64),
    /// For the other two.
    Text(String),
}

/// Why nothing more is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// The usage text is wanted.
    Help,
    /// It cannot be understood; the usage text follows this line.
    Wrong(String),
}

/// Reads `args`, the program's name not among them, and gives each flag to `set`. What follows the first word that is
/// no flag is left alone.
///
/// # Errors
/// See [`Stop`].
pub fn parse<K: Copy>(
    flags: &'static [Flag<K>],
    args: &[OsString],
    mut set: impl FnMut(K, Value),
) -> Result<(), Stop> {
    let mut words = args.iter();
    while let Some(word) = words.next() {
        let word = text(word)?;
        let Some(typed) = word.strip_prefix('-').filter(|rest| !rest.is_empty()) else { return Ok(()) };
        let typed = typed.strip_prefix('-').unwrap_or(typed);
        if typed.is_empty() {
            return Ok(());
        }
        // The first character is none of the sign's business.
        let sign = typed.char_indices().skip(1).find(|&(_, c)| c == '=').map(|(at, _)| at);
        let (name, attached) = match sign.and_then(|at| typed.split_at_checked(at)) {
            Some((name, value)) => (name, value.strip_prefix('=')),
            None => (typed, None),
        };
        if name.starts_with(['-', '=']) {
            return Err(Stop::Wrong(format!("bad flag syntax: {word}")));
        }
        let Some(flag) = flags.iter().find(|flag| flag.name == name) else {
            let wrong = || Stop::Wrong(format!("flag provided but not defined: -{name}"));
            return Err(if matches!(name, "h" | "help") { Stop::Help } else { wrong() });
        };
        let value = match (flag.kind, attached) {
            (Kind::Truth, None) => Value::Truth(true),
            (kind, Some(value)) => read(name, kind, value)?,
            (kind, None) => {
                let needs = || Stop::Wrong(format!("flag needs an argument: -{name}"));
                read(name, kind, text(words.next().ok_or_else(needs)?)?)?
            }
        };
        set(flag.key, value);
    }
    Ok(())
}

fn text(word: &OsString) -> Result<&str, Stop> {
    word.to_str().ok_or_else(|| Stop::Wrong(format!("not UTF-8: {}", word.to_string_lossy())))
}

fn read(name: &str, kind: Kind, typed: &str) -> Result<Value, Stop> {
    match kind {
        Kind::Text(_) | Kind::Texts => Ok(Value::Text(typed.to_owned())),
        Kind::Truth => truth(typed).map(Value::Truth).ok_or_else(|| {
            Stop::Wrong(format!("invalid boolean value {} for -{name}: parse error", quote(typed)))
        }),
        Kind::Number(_) => number(typed)
            .map(Value::Number)
            .map_err(|why| Stop::Wrong(format!("invalid value {} for flag -{name}: {why}", quote(typed)))),
    }
}

/// A truth value as Go's `strconv.ParseBool` has it.
#[must_use]
pub fn truth(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// A number as Go's `strconv.ParseInt` has it with base 0: `0x`, `0o`, `0b` and a leading zero name the base, and
/// an underscore may stand behind that or a digit, before a digit.
fn number(text: &str) -> Result<i64, &'static str> {
    const SYNTAX: &str = "parse error";
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let lower = digits.to_ascii_lowercase();
    let (base, rest) = match lower.as_bytes() {
        [b'0', b'x', ..] => (16, lower.get(2..)),
        [b'0', b'o', ..] => (8, lower.get(2..)),
        [b'0', b'b', ..] => (2, lower.get(2..)),
        [b'0', _, ..] => (8, lower.get(1..)),
        _ => (10, Some(lower.as_str())),
    };
    let rest = rest.unwrap_or_default();
    let spaced = !rest.ends_with('_') && !rest.contains("__") && (base != 10 || !rest.starts_with('_'));
    let plain: String = rest.chars().filter(|&c| c != '_').collect();
    let all = !plain.is_empty() && plain.chars().all(|c| c.is_digit(base));
    if !all || (plain.len() != rest.len() && !spaced) {
        return Err(SYNTAX);
    }
    let signed = if negative { format!("-{plain}") } else { plain };
    i64::from_str_radix(&signed, base).map_err(|_| "value out of range")
}

/// The usage text, without the line of who is used: every flag, by name.
#[must_use]
pub fn usage<K>(flags: &'static [Flag<K>], program: &str) -> String {
    let mut out = format!("Usage of {program}:\n");
    let mut sorted: Vec<_> = flags.iter().collect();
    sorted.sort_by_key(|flag| flag.name);
    for flag in sorted {
        let (kind, default) = match flag.kind {
            Kind::Truth => ("", String::new()),
            Kind::Number(0) => (" int", String::new()),
            Kind::Number(number) => (" int", format!(" (default {number})")),
            Kind::Text("") => (" string", String::new()),
            Kind::Text(text) => (" string", format!(" (default {})", quote(text))),
            Kind::Texts => (" value", String::new()),
        };
        let _ = writeln!(out, "  -{}{kind}\n    \t{}{default}", flag.name, flag.help);
    }
    out
}

/// A text between double quotes as Go's `%q` writes it.
#[must_use]
pub fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{b}' => out.push_str("\\v"),
            '\u{c}' => out.push_str("\\f"),
            c if c.is_ascii_control() => {
                let _ = write!(out, "\\x{:02x}", u32::from(c));
            }
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Key {
        Debug,
        Listen,
        Mtu,
        Name,
    }

    const FLAGS: &[Flag<Key>] = &[
        Flag::new(Key::Listen, "listen", Kind::Texts, "where"),
        Flag::new(Key::Debug, "debug", Kind::Truth, "whether"),
        Flag::new(Key::Mtu, "mtu", Kind::Number(1500), "how much"),
        Flag::new(Key::Name, "name", Kind::Text("a\"b"), "who"),
    ];

    fn parsed(words: &[&str]) -> Result<Vec<(Key, Value)>, Stop> {
        let words: Vec<OsString> = words.iter().map(OsString::from).collect();
        let mut found = Vec::new();
        parse(FLAGS, &words, |key, value| found.push((key, value))).map(|()| found)
    }

    fn text(text: &str) -> Value {
        Value::Text(text.to_owned())
    }

    #[test]
    fn one_dash_or_two_a_space_or_a_sign() {
        for words in [&["-mtu", "9"][..], &["-mtu=9"], &["--mtu", "9"], &["--mtu=9"]] {
            assert_eq!(parsed(words).unwrap(), [(Key::Mtu, Value::Number(9))], "{words:?}");
        }
        let all = parsed(&["-listen", "-debug", "-listen=", "-name", "", "-debug=F"]).unwrap();
        let expected = [
            (Key::Listen, text("-debug")),
            (Key::Listen, text("")),
            (Key::Name, text("")),
            (Key::Debug, Value::Truth(false)),
        ];
        assert_eq!(all, expected, "the next word is the value, whatever it is");
        assert_eq!(parsed(&["-name=a=b"]).unwrap(), [(Key::Name, text("a=b"))]);
    }

    #[test]
    fn the_first_word_that_is_no_flag_ends_them() {
        for end in ["--", "-", "", "word"] {
            assert_eq!(parsed(&["-debug", end, "-nosuch"]).unwrap(), [(Key::Debug, Value::Truth(true))]);
        }
        // A truth value takes no word of its own.
        assert_eq!(parsed(&["-debug", "false", "-nosuch"]).unwrap(), [(Key::Debug, Value::Truth(true))]);
    }

    #[test]
    fn complaints_have_the_words_of_go() {
        let cases = [
            (&["-nosuch"][..], "flag provided but not defined: -nosuch"),
            (&["--nosuch=1"], "flag provided but not defined: -nosuch"),
            (&["---debug"], "bad flag syntax: ---debug"),
            (&["-=x"], "bad flag syntax: -=x"),
            (&["-mtu"], "flag needs an argument: -mtu"),
            (&["-mtu="], "invalid value \"\" for flag -mtu: parse error"),
            (&["-mtu", "1e3"], "invalid value \"1e3\" for flag -mtu: parse error"),
            (
                &["-mtu=99999999999999999999"],
                "invalid value \"99999999999999999999\" for flag -mtu: value out of range",
            ),
            (&["-debug=yes"], "invalid boolean value \"yes\" for -debug: parse error"),
        ];
        for (words, complaint) in cases {
            assert_eq!(parsed(words), Err(Stop::Wrong(complaint.to_owned())), "{words:?}");
        }
        for help in ["-h", "--help", "-help=x"] {
            assert_eq!(parsed(&["-debug", help, "-nosuch"]), Err(Stop::Help));
        }
    }

    #[test]
    fn numbers_of_all_bases() {
        let good = [("0x1F", 31), ("0b11", 3), ("0o17", 15), ("017", 15), ("-1", -1), ("+5", 5), ("0", 0)];
        for (text, value) in good.into_iter().chain([("0x_f_f", 255), ("0_7", 7), ("1_000", 1000)]) {
            assert_eq!(number(text), Ok(value), "{text}");
        }
        for bad in ["", "-", "0x", "08", "_1", "1__0", "0x1__0", "0x1_", " 1", "--1", "0x-1"] {
            assert_eq!(number(bad), Err("parse error"), "{bad}");
        }
    }

    #[test]
    fn the_usage_text_has_every_flag_by_name() {
        let expected = "Usage of me:\n  -debug\n    \twhether\n  -listen value\n    \twhere\n  \
                        -mtu int\n    \thow much (default 1500)\n  -name string\n    \twho (default \"a\\\"b\")\n";
        assert_eq!(usage(FLAGS, "me"), expected);
    }

    #[test]
    fn quotes_are_those_of_go() {
        assert_eq!(quote("a\\b\"\t\n\u{1}\u{7f}\u{80}é"), "\"a\\\\b\\\"\\t\\n\\x01\\x7f\\u0080é\"");
    }

    proptest! {
        #[test]
        fn whatever_is_typed_is_taken_or_refused(words in proptest::collection::vec("[-=a-z0-9_]{0,9}", 0..6)) {
            let words: Vec<_> = words.iter().map(String::as_str).collect();
            let _ = parsed(&words);
        }
    }
}
