//! A command as its documentation sees it, independent of what parses its options.

#[cfg(feature = "clap")]
use clap::ValueHint;

/// What a shell may offer for an argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Offer {
    /// Nothing can be guessed.
    Nothing,
    /// A file's path.
    File,
    /// A network interface.
    Interface,
    /// One of these words.
    Words(Vec<String>),
}

/// One option.
#[derive(Debug, Clone)]
pub struct Opt {
    /// Its one-letter name.
    pub short: Option<char>,
    /// Its long name, without dashes.
    pub long: Option<String>,
    /// The name of its argument.
    pub value: Option<String>,
    /// What may be offered for it.
    pub offer: Offer,
    /// One line.
    pub help: String,
    /// What holds without it, as a phrase.
    pub default: Option<String>,
    /// Further sentences.
    pub more: String,
}

/// A piece of running text.
#[derive(Debug, Clone, Copy)]
pub enum Block {
    /// A paragraph.
    Text(&'static str),
    /// Lines to be left as they are.
    Code(&'static str),
    /// A term and what there is to say about it.
    Term(&'static str, &'static str),
}

/// One man page.
#[derive(Debug, Clone)]
pub struct Page {
    /// Its name, `slipway-run` for instance.
    pub name: &'static str,
    /// The section of the manual: 1 for commands, 8 for what the system's keepers and other programs start.
    pub section: u8,
    /// How it is called, `slipway run`.
    pub command: &'static str,
    /// One line, small first letter, no full stop.
    pub about: &'static str,
    /// What follows the command on each line of the synopsis.
    pub synopsis: Vec<String>,
    /// Under DESCRIPTION.
    pub description: &'static [Block],
    /// Under OPTIONS.
    pub options: Vec<Opt>,
    /// Sub-commands without a page of their own, each with a section for its options.
    pub commands: Vec<SubCommand>,
    /// More sections: heading and text.
    pub sections: &'static [(&'static str, &'static [Block])],
    /// Pages to read too.
    pub see_also: &'static [&'static str],
}

/// A sub-command, as far as its options go.
#[derive(Debug, Clone)]
pub struct SubCommand {
    /// Its word.
    pub word: String,
    /// One line.
    pub about: String,
    /// Its options.
    pub options: Vec<Opt>,
}

impl Page {
    /// The last word of the command.
    #[must_use]
    pub fn word(&self) -> &'static str {
        self.command.rsplit(' ').next().unwrap_or(self.command)
    }
}

/// The sub-commands of a clap command that are to be seen.
#[cfg(feature = "clap")]
#[must_use]
pub fn commands_of_command(command: &clap::Command) -> Vec<SubCommand> {
    let shown = command.get_subcommands().filter(|sub| !sub.is_hide_set() && sub.get_name() != "help");
    let described = shown.map(|sub| SubCommand {
        word: sub.get_name().to_owned(),
        about: sub.get_about().map(ToString::to_string).unwrap_or_default(),
        options: options_of_command(sub),
    });
    described.collect()
}

/// The options of a clap command.
#[cfg(feature = "clap")]
#[must_use]
pub fn options_of_command(command: &clap::Command) -> Vec<Opt> {
    let arguments = command.get_arguments().filter(|arg| !arg.is_positional() && !arg.is_hide_set());
    arguments.map(option_of_argument).collect()
}

#[cfg(feature = "clap")]
fn option_of_argument(arg: &clap::Arg) -> Opt {
    let takes_value = arg.get_action().takes_values();
    let value = arg.get_value_names().and_then(|names| names.first()).map(ToString::to_string);
    let words: Vec<_> = arg.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    // clap has two texts for --help, each of which points at the other.
    let (help, long) = match arg.get_id().as_str() {
        "help" => ("Print help".to_owned(), String::new()),
        _ => (help, arg.get_long_help().map(ToString::to_string).unwrap_or_default()),
    };
    let default: Vec<_> = arg.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
    Opt {
        short: arg.get_short(),
        long: arg.get_long().map(str::to_owned),
        value: value.filter(|_| takes_value),
        offer: match arg.get_value_hint() {
            _ if !takes_value => Offer::Nothing,
            ValueHint::AnyPath | ValueHint::FilePath => Offer::File,
            ValueHint::Other if arg.get_id() == "ifname" => Offer::Interface,
            _ if words.is_empty() => Offer::Nothing,
            _ => Offer::Words(words),
        },
        // clap's long help repeats the short one as its first paragraph.
        more: long.strip_prefix(help.as_str()).unwrap_or(&long).trim().to_owned(),
        help,
        default: (takes_value && !default.is_empty()).then(|| format!("default: {}", default.join(", "))),
    }
}
