//! `getopt_long` as glibc has it: the command line of the drop-in names, without their C library.
//!
//! Callers of slirp4netns and pasta rely on more than the option names: short options in clusters (`-6c`, `-r3`),
//! `--opt=VAL` beside `--opt VAL`, options behind positionals, any unambiguous prefix of a long name, `--` as the
//! end of options, and the wording of the complaints, which ends up in log files that people search for.
//!
//! [`Getopt`] is an iterator over what was typed, in order, so that a caller can act at once on `--help` although
//! rubbish follows. Nothing here touches the outside world, no input panics, and every argument is looked at once.
//! Source: getopt(3), POSIX.1-2024 "Utility Syntax Guidelines".

use super::table::Flag;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt as _;

/// What to do with an argument that is no option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Options may follow it (the default of glibc).
    Permute,
    /// It ends the options (a leading `+` in the option string).
    StopAtPositional,
}

/// One thing that was typed.
#[derive(Debug)]
pub enum Item<'a, K: 'static> {
    /// An option, and its argument if it takes one.
    Flag(&'static Flag<K>, Option<&'a OsStr>),
    /// An argument that is no option.
    Positional(&'a OsStr),
}

/// Why the command line cannot be understood. [`fmt::Display`] gives the message of glibc, less the program's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// No long option begins like this.
    UnknownLong(OsString),
    /// There is no such short option. A byte, not a character: that is how glibc reads it.
    UnknownShort(u8),
    /// Several long options begin like this.
    Ambiguous(OsString, Vec<&'static str>),
    /// `--option` stands last, but takes an argument.
    LongNeedsArgument(&'static str),
    /// `-o` stands last, but takes an argument.
    ShortNeedsArgument(u8),
    /// `--option=value`, but it takes none.
    TakesNoArgument(&'static str),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownLong(typed) => write!(f, "unrecognized option '--{}'", typed.to_string_lossy()),
            Self::UnknownShort(byte) => write!(f, "invalid option -- '{}'", letter(*byte)),
            Self::Ambiguous(typed, names) => {
                write!(f, "option '--{}' is ambiguous; possibilities:", typed.to_string_lossy())?;
                names.iter().try_for_each(|name| write!(f, " '--{name}'"))
            }
            Self::LongNeedsArgument(name) => write!(f, "option '--{name}' requires an argument"),
            Self::ShortNeedsArgument(byte) => write!(f, "option requires an argument -- '{}'", letter(*byte)),
            Self::TakesNoArgument(name) => write!(f, "option '--{name}' doesn't allow an argument"),
        }
    }
}

impl std::error::Error for Error {}

/// A byte as it may stand in a message: itself if it is printable ASCII, the replacement character otherwise.
fn letter(byte: u8) -> char {
    if byte.is_ascii_graphic() || byte == b' ' { char::from(byte) } else { char::REPLACEMENT_CHARACTER }
}

/// The command line, taken apart from left to right.
#[derive(Debug)]
pub struct Getopt<'a, K: 'static> {
    flags: &'static [Flag<K>],
    order: Order,
    rest: std::slice::Iter<'a, OsString>,
    /// What is left of a cluster of short options.
    cluster: &'a [u8],
    /// Only positionals are left.
    options_ended: bool,
}

impl<'a, K: Copy + PartialEq> Getopt<'a, K> {
    /// Takes `args` apart; the program's name is not among them.
    #[must_use]
    pub fn new(flags: &'static [Flag<K>], order: Order, args: &'a [OsString]) -> Self {
        Self { flags, order, rest: args.iter(), cluster: &[], options_ended: false }
    }

    /// The next letter of a cluster.
    fn short(&mut self, byte: u8) -> Result<Item<'a, K>, Error> {
        let Some(flag) = self.flags.iter().find(|flag| flag.short == Some(byte)) else {
            return Err(Error::UnknownShort(byte));
        };
        if flag.value.is_none() {
            return Ok(Item::Flag(flag, None));
        }
        // The rest of the word is the argument, an equals sign included; if there is no rest, the next word is.
        let value = match std::mem::take(&mut self.cluster) {
            [] => self.rest.next().ok_or(Error::ShortNeedsArgument(byte))?.as_os_str(),
            attached => OsStr::from_bytes(attached),
        };
        Ok(Item::Flag(flag, Some(value)))
    }

    /// A word that began with two dashes; `typed` is what follows them.
    fn long(&mut self, typed: &'a [u8]) -> Result<Item<'a, K>, Error> {
        let (name, attached) = match typed.iter().position(|&byte| byte == b'=') {
            Some(at) => {
                let (name, value) = typed.split_at(at);
                (name, value.get(1..).map(OsStr::from_bytes))
            }
            None => (typed, None),
        };
        let flag = self.lookup(name).map_err(|names| {
            let typed = OsStr::from_bytes(typed).to_owned();
            if names.is_empty() { Error::UnknownLong(typed) } else { Error::Ambiguous(typed, names) }
        })?;
        let value = match (flag.value, attached) {
            (None, Some(_)) => return Err(Error::TakesNoArgument(flag.long)),
            (Some(_), None) => Some(self.rest.next().ok_or(Error::LongNeedsArgument(flag.long))?.as_os_str()),
            (_, attached) => attached,
        };
        Ok(Item::Flag(flag, value))
    }

    /// The option of exactly this name; else the one that alone begins so, where aliases of one option count as one.
    /// If there is none, the names of those that it might be.
    fn lookup(&self, name: &[u8]) -> Result<&'static Flag<K>, Vec<&'static str>> {
        if let Some(flag) = self.flags.iter().find(|flag| flag.long.as_bytes() == name) {
            return Ok(flag);
        }
        let mut candidates = self.flags.iter().filter(|flag| flag.long.as_bytes().starts_with(name));
        let Some(first) = candidates.next() else { return Err(Vec::new()) };
        let rivals: Vec<_> = candidates.filter(|flag| flag.key != first.key).map(|flag| flag.long).collect();
        if rivals.is_empty() { Ok(first) } else { Err([vec![first.long], rivals].concat()) }
    }
}

impl<'a, K: Copy + PartialEq> Iterator for Getopt<'a, K> {
    type Item = Result<Item<'a, K>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if let [byte, rest @ ..] = self.cluster {
            self.cluster = rest;
            return Some(self.short(*byte));
        }
        let word = self.rest.next()?;
        match word.as_bytes() {
            _ if self.options_ended => {}
            b"--" => {
                self.options_ended = true;
                return self.rest.next().map(|word| Ok(Item::Positional(word)));
            }
            [b'-', b'-', typed @ ..] => return Some(self.long(typed)),
            [b'-', first, rest @ ..] => {
                self.cluster = rest;
                return Some(self.short(*first));
            }
            // A lone dash, an empty word, anything else.
            _ => self.options_ended = self.order == Order::StopAtPositional,
        }
        Some(Ok(Item::Positional(word)))
    }
}

#[cfg(test)]
mod tests;
