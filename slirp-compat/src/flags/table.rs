//! The table of a personality's options.
//!
//! Plain constants: a table costs nothing at start-up. `K` is the personality's own enum of options; the parser
//! reports the key, so a `match` over it is checked for completeness by the compiler. Two names with one key are
//! aliases; `getopt_long` never calls a common prefix of aliases ambiguous.

/// What a shell may offer for an option's argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Complete {
    /// Nothing can be guessed.
    Nothing,
    /// A file's path.
    File,
    /// The name of a network interface.
    Interface,
    /// One of these words.
    Words(&'static [&'static str]),
}

/// One option.
#[derive(Debug, Clone, Copy)]
pub struct Flag<K: 'static> {
    /// What the parser reports.
    pub key: K,
    /// The one-letter name.
    pub short: Option<u8>,
    /// The long name, without dashes.
    pub long: &'static str,
    /// The name of its argument, if it takes one.
    pub value: Option<&'static str>,
    /// What a shell may offer for the argument.
    pub complete: Complete,
    /// One line for the usage text, without full stop.
    pub help: &'static str,
    /// What holds without the option, as the usage text says it between parentheses.
    pub default: Option<&'static str>,
    /// Further sentences for the man page.
    pub more: &'static str,
    /// Understood, but not advertised: a deprecated alias.
    pub hidden: bool,
}

impl<K: Copy> Flag<K> {
    /// An option without argument.
    #[must_use]
    pub const fn new(key: K, long: &'static str, help: &'static str, more: &'static str) -> Self {
        Self {
            key,
            short: None,
            long,
            value: None,
            complete: Complete::Nothing,
            help,
            default: None,
            more,
            hidden: false,
        }
    }

    /// With a one-letter name too.
    #[must_use]
    pub const fn short(mut self, letter: u8) -> Self {
        self.short = Some(letter);
        self
    }

    /// With an argument of this name.
    #[must_use]
    pub const fn value(mut self, name: &'static str, complete: Complete) -> Self {
        self.value = Some(name);
        self.complete = complete;
        self
    }

    /// With a text about what holds without it.
    #[must_use]
    pub const fn default(mut self, text: &'static str) -> Self {
        self.default = Some(text);
        self
    }

    /// Not advertised.
    #[must_use]
    pub const fn hidden(mut self) -> Self {
        self.hidden = true;
        self
    }
}

/// A personality's command line.
#[derive(Debug)]
pub struct Table<K: 'static> {
    /// What follows the program's name on each line of the synopsis.
    pub synopsis: &'static [&'static str],
    /// One sentence, for the usage text and the man page's heading.
    pub summary: &'static str,
    /// Its options, in the order of the usage text.
    pub flags: &'static [Flag<K>],
}
