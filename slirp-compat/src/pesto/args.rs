//! The command line of `pesto`: steps, in the order in which they were typed, and the socket's path.

use crate::flags::getopt::{Getopt, Item, Order};
use crate::flags::table::{Complete, Flag, Table};
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

/// The options.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is described by its row of the table")]
pub enum Key {
    Add,
    Delete,
    Clear,
    TcpPorts,
    UdpPorts,
    TcpNs,
    UdpNs,
    Show,
    Debug,
    Help,
    Version,
}

const GRAMMAR: &str = "The grammar is that of the same option of pasta(1): none; or [ADDRESS[%INTERFACE]/] and ports, ranges, \
     ~exceptions, all and auto with commas between them, each port or range with :TARGET. Before the first --add or \
     --delete it says all rules of its table; behind one of these it is added or deleted.";

/// The whole command line.
pub const TABLE: Table<Key> = Table {
    synopsis: &["[OPTION]... PATH"],
    summary: "Shows and changes the forwarding rules of a running pasta, at its configuration socket PATH.",
    flags: &[
        Flag::new(
            Key::Add,
            "add",
            "add what follows",
            "The rules in force stay. One that is there already is refused.",
        )
        .short(b'A'),
        Flag::new(
            Key::Delete,
            "delete",
            "delete what follows",
            "A rule is deleted by the same SPEC that made it; part of a range cannot be.",
        )
        .short(b'D'),
        Flag::new(
            Key::Clear,
            "clear",
            "delete all rules of a table",
            "HOST has the rules of -t and -u, SPLICE those of -T and -U.",
        )
        .short(b'C')
        .value("TABLE", Complete::Words(&["HOST", "SPLICE"])),
        Flag::new(Key::TcpPorts, "tcp-ports", "TCP ports of the host that lead to the guest", GRAMMAR)
            .short(b't')
            .value("SPEC", Complete::Nothing),
        Flag::new(
            Key::UdpPorts,
            "udp-ports",
            "UDP ports of the host that lead to the guest",
            "As --tcp-ports.",
        )
        .short(b'u')
        .value("SPEC", Complete::Nothing),
        Flag::new(
            Key::TcpNs,
            "tcp-ns",
            "TCP ports of the guest's loopback that lead to the host's",
            "As --tcp-ports, without ADDRESS and INTERFACE.",
        )
        .short(b'T')
        .value("SPEC", Complete::Nothing),
        Flag::new(
            Key::UdpNs,
            "udp-ns",
            "UDP ports of the guest's loopback that lead to the host's",
            "As --tcp-ns.",
        )
        .short(b'U')
        .value("SPEC", Complete::Nothing),
        Flag::new(
            Key::Show,
            "show",
            "show the rules before and after",
            "Without a change they are shown anyway.",
        )
        .short(b's'),
        Flag::new(Key::Debug, "debug", "say what is read and sent", "On standard error.").short(b'd'),
        Flag::new(Key::Help, "help", "show this text", "").short(b'h'),
        Flag::new(Key::Version, "version", "show the version", ""),
    ],
};

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// What follows is added.
    Add,
    /// What follows is deleted.
    Delete,
    /// A table is emptied.
    Clear(String),
    /// An option `t`, `u`, `T` or `U`, and its SPEC.
    Spec(char, String),
}

/// The command line.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Args {
    /// What to do, in this order.
    pub steps: Vec<Step>,
    /// Show the tables before and after.
    pub show: bool,
    /// Say more.
    pub debug: bool,
    /// The server's socket.
    pub path: PathBuf,
}

/// Why there is nothing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// `--help`.
    Help,
    /// `--version`.
    Version,
    /// The command line is wrong; the words of glibc, if it has some for that.
    Usage(Option<String>),
}

/// Reads the command line.
///
/// # Errors
/// See [`Stop`].
pub fn parse(args: &[OsString]) -> Result<Args, Stop> {
    let mut parsed = Args::default();
    let mut path = None;
    for item in Getopt::new(TABLE.flags, Order::Permute, args) {
        let (flag, value) = match item.map_err(|error| Stop::Usage(Some(error.to_string())))? {
            Item::Flag(flag, value) => (flag, value),
            Item::Positional(word) if path.is_none() => {
                path = Some(PathBuf::from(word));
                continue;
            }
            Item::Positional(_) => return Err(Stop::Usage(None)),
        };
        let value = || value.map(OsStr::to_string_lossy).unwrap_or_default().into_owned();
        match flag.key {
            Key::Help => return Err(Stop::Help),
            Key::Version => return Err(Stop::Version),
            Key::Show => parsed.show = true,
            Key::Debug => parsed.debug = true,
            Key::Add => parsed.steps.push(Step::Add),
            Key::Delete => parsed.steps.push(Step::Delete),
            Key::Clear => parsed.steps.push(Step::Clear(value())),
            Key::TcpPorts => parsed.steps.push(Step::Spec('t', value())),
            Key::UdpPorts => parsed.steps.push(Step::Spec('u', value())),
            Key::TcpNs => parsed.steps.push(Step::Spec('T', value())),
            Key::UdpNs => parsed.steps.push(Step::Spec('U', value())),
        }
    }
    parsed.path = path.ok_or(Stop::Usage(None))?;
    Ok(parsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &str) -> Result<Args, Stop> {
        parse(&words.split(' ').map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn steps_keep_their_order_wherever_the_path_stands() {
        let args = read("--show sock -t 80 --add --udp-ports=53 -D -T9 -C HOST -d").unwrap();
        let spec = |option, text: &str| Step::Spec(option, text.to_owned());
        let steps = vec![
            spec('t', "80"),
            Step::Add,
            spec('u', "53"),
            Step::Delete,
            spec('T', "9"),
            Step::Clear("HOST".to_owned()),
        ];
        assert_eq!(args, Args { steps, show: true, debug: true, path: "sock".into() });
        assert_eq!(read("-sA -t 99 sock").unwrap().steps, [Step::Add, spec('t', "99")]);
        assert_eq!(read("-U none sock").unwrap().steps, [spec('U', "none")]);
    }

    #[test]
    fn what_is_no_command_line_shows_the_usage() {
        assert_eq!(read("-s -A").unwrap_err(), Stop::Usage(None));
        assert_eq!(read("one two").unwrap_err(), Stop::Usage(None));
        assert_eq!(read("--help --bogus").unwrap_err(), Stop::Help);
        assert_eq!(read("-t 80 --version").unwrap_err(), Stop::Version);
        let words = |line: &str| match read(line) {
            Err(Stop::Usage(Some(words))) => words,
            other => panic!("{other:?}"),
        };
        assert_eq!(words("--bogus sock"), "unrecognized option '--bogus'");
        assert_eq!(words("-z sock"), "invalid option -- 'z'");
        assert_eq!(words("sock -t"), "option requires an argument -- 't'");
    }
}
