//! The command line of `aardvark-dns`, and the variables of the environment that stand in for options.
//!
//! netavark writes the command line itself (`--config DIR -p PORT run`, in this order), so nobody can add a word to it.
//! Each option beyond the contract therefore has a variable too; as with `AARDVARK_NO_PROXY`, being set is what counts.
//!
//! Options may stand before and behind the command, `--option VALUE`, `--option=VALUE`, `-oVALUE`. The last one of a
//! kind wins. Nothing here touches the outside world.

use std::ffi::{OsStr, OsString};
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

/// The options, by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// Where the configuration is.
    Config,
    /// The port to serve.
    Port,
    /// The domain of containers.
    Domain,
    /// Ours for every type.
    StrictNames,
    /// Another address first each time.
    Rotate,
    /// Keep answers from upstream.
    Cache,
    /// A line for each query.
    LogQueries,
    /// Where counters go.
    Stats,
    /// Usage.
    Help,
    /// The short version text.
    Version,
}

/// An option.
#[derive(Debug, Clone, Copy)]
pub struct Flag {
    /// What the parser reports.
    pub key: Key,
    /// The one-letter name.
    pub short: Option<u8>,
    /// The long name, without dashes.
    pub long: &'static str,
    /// The name of its argument, if it takes one.
    pub value: Option<&'static str>,
    /// The variable that stands in for it.
    pub variable: Option<&'static str>,
    /// One line, without full stop.
    pub help: &'static str,
    /// What holds without it.
    pub default: Option<&'static str>,
    /// Further sentences for the man page.
    pub more: &'static str,
}

const fn flag(key: Key, long: &'static str, help: &'static str, more: &'static str) -> Flag {
    Flag { key, short: None, long, value: None, variable: None, help, default: None, more }
}

/// All options, in the order of the usage text.
pub const FLAGS: &[Flag] = &[
    Flag {
        short: Some(b'c'),
        value: Some("DIR"),
        ..flag(Key::Config, "config", "Directory of the configuration", "One file for each network.")
    },
    Flag {
        short: Some(b'p'),
        value: Some("PORT"),
        default: Some("5533"),
        ..flag(Key::Port, "port", "Port to serve, UDP and TCP", "")
    },
    Flag {
        short: Some(b'f'),
        value: Some("DOMAIN"),
        default: Some(".dns.podman"),
        ..flag(
            Key::Domain,
            "filter-search-domain",
            "Domain that names of containers may carry",
            "Names in it are never asked upstream.",
        )
    },
    Flag {
        variable: Some("AARDVARK_STRICT_NAMES"),
        ..flag(
            Key::StrictNames,
            "strict-names",
            "Recognise the domain of containers in capital letters too",
            "Without it a name of nobody in it is asked upstream when its domain is not written as it is configured.",
        )
    },
    Flag {
        variable: Some("AARDVARK_ROTATE"),
        ..flag(
            Key::Rotate,
            "rotate",
            "Begin each answer with another address",
            "For names that several containers share. Without it the order is always that of the files.",
        )
    },
    Flag {
        variable: Some("AARDVARK_CACHE"),
        ..flag(
            Key::Cache,
            "cache",
            "Keep answers from upstream, and remember servers that do not answer",
            "Answers are kept as long as their TTL allows, until the network changes, unless a server on the loopback gave them; a \
             server that was silent is asked last for a while; when no server answers, the client is told SERVFAIL instead of \
             nothing. Without it each query is asked anew, server by server, and \
             a client that gets no answer runs into its own timeout.",
        )
    },
    Flag {
        variable: Some("AARDVARK_LOG_QUERIES"),
        ..flag(
            Key::LogQueries,
            "log-queries",
            "Write a line to the system's log for each query",
            "SIGUSR2 switches this on and off.",
        )
    },
    Flag {
        value: Some("FILE"),
        variable: Some("AARDVARK_STATS"),
        ..flag(
            Key::Stats,
            "stats",
            "File that SIGUSR1 writes the counters to",
            "Without it they go to the system's log. The file is replaced whole; keep it out of the configuration's directory.",
        )
    },
    Flag { short: Some(b'h'), ..flag(Key::Help, "help", "Print help", "") },
    Flag { short: Some(b'V'), ..flag(Key::Version, "version", "Print version", "") },
];

/// What `run` is told.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option that is there or not")]
pub struct Options {
    /// The directory of the networks' files.
    pub config: PathBuf,
    /// The port.
    pub port: u16,
    /// The domain of containers.
    pub domain: String,
    /// `AARDVARK_NO_PROXY`: nothing is asked upstream.
    pub no_proxy: bool,
    /// Ours for every type.
    pub strict_names: bool,
    /// Another address first each time.
    pub rotate: bool,
    /// Cache, memory of dead servers, SERVFAIL.
    pub cache: bool,
    /// A line for each query.
    pub log_queries: bool,
    /// Where counters go.
    pub stats: Option<PathBuf>,
    /// The file that lists the host's servers.
    pub resolv_conf: PathBuf,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            config: PathBuf::from("/dev/stdin"),
            port: 5533,
            domain: ".dns.podman".to_owned(),
            no_proxy: false,
            strict_names: false,
            rotate: false,
            cache: false,
            log_queries: false,
            stats: None,
            resolv_conf: PathBuf::from(slipway_host::resolv_conf::PATH),
        }
    }
}

impl Options {
    /// Where a network's listener is.
    #[must_use]
    pub fn listen(&self, address: std::net::IpAddr) -> SocketAddr {
        SocketAddr::new(address, self.port)
    }
}

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Invocation {
    /// Serve.
    Run(Options),
    /// The JSON about this build.
    Version,
    /// The line with name and version.
    ShortVersion,
    /// The usage text.
    Help,
}

/// Why the command line cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// An option or a word that has no meaning.
    #[error("unexpected argument '{0}' found")]
    Unexpected(String),
    /// An option stands last, but takes an argument.
    #[error("a value is required for '--{0} <{1}>' but none was supplied")]
    NeedsValue(&'static str, &'static str),
    /// `--option=VALUE`, but it takes none.
    #[error("unexpected value for '--{0}' found; no more were expected")]
    TakesNoValue(&'static str),
    /// A port that is none.
    #[error("invalid value '{0}' for '--port <PORT>': not a number from 0 to 65535")]
    Port(String),
    /// A domain that is no text.
    #[error("invalid value '{0}' for '--filter-search-domain <DOMAIN>': not text")]
    Domain(String),
    /// Neither `run` nor `version`.
    #[error("unrecognized subcommand '{0}'")]
    Command(String),
    /// No command at all.
    #[error("a command is required: run or version")]
    NoCommand,
}

/// Reads the words behind the program's name. `variable` tells the value of a variable of the environment.
///
/// # Errors
/// The first word that makes no sense.
pub fn parse(words: &[OsString], variable: impl Fn(&str) -> Option<OsString>) -> Result<Invocation, Error> {
    let mut options = Options { no_proxy: variable("AARDVARK_NO_PROXY").is_some(), ..Options::default() };
    for flag in FLAGS {
        if let Some(value) = flag.variable.and_then(&variable) {
            options.set(flag, &value)?;
        }
    }
    let mut rest = words.iter();
    let mut command = None;
    while let Some(word) = rest.next() {
        let Some((flag, attached)) = find(word)? else {
            match (command, word.to_str()) {
                (None, Some(word @ ("run" | "version" | "help"))) => command = Some(word),
                // `help run`: there is one text for all.
                (Some("help"), Some("run" | "version" | "help")) => {}
                (None, _) => return Err(Error::Command(lossy(word))),
                (Some(_), _) => return Err(Error::Unexpected(lossy(word))),
            }
            continue;
        };
        match (flag.key, flag.value, attached) {
            (_, None, Some(_)) => return Err(Error::TakesNoValue(flag.long)),
            // What follows them is not looked at.
            (Key::Help, ..) => return Ok(Invocation::Help),
            (Key::Version, ..) => return Ok(Invocation::ShortVersion),
            (_, None, None) => options.set(flag, OsStr::new(""))?,
            (_, Some(_), Some(value)) => options.set(flag, value)?,
            (_, Some(name), None) => {
                options.set(flag, rest.next().ok_or(Error::NeedsValue(flag.long, name))?)?;
            }
        }
    }
    match command {
        Some("run") => Ok(Invocation::Run(options)),
        Some("version") => Ok(Invocation::Version),
        Some(_) => Ok(Invocation::Help),
        None => Err(Error::NoCommand),
    }
}

/// The option that `word` names, and the value in the same word; `None` for a word that is no option.
fn find(word: &OsStr) -> Result<Option<(&'static Flag, Option<&OsStr>)>, Error> {
    let unexpected = || Error::Unexpected(lossy(word));
    match word.as_bytes() {
        [b'-', b'-', typed @ ..] => {
            let mut parts = typed.splitn(2, |&byte| byte == b'=');
            let name = parts.next().unwrap_or_default();
            let flag = FLAGS.iter().find(|flag| flag.long.as_bytes() == name).ok_or_else(unexpected)?;
            Ok(Some((flag, parts.next().map(OsStr::from_bytes))))
        }
        [b'-', letter, value @ ..] => {
            let flag = FLAGS.iter().find(|flag| flag.short == Some(*letter)).ok_or_else(unexpected)?;
            let value = value.strip_prefix(b"=").unwrap_or(value);
            Ok(Some((flag, (!value.is_empty()).then(|| OsStr::from_bytes(value)))))
        }
        _ => Ok(None),
    }
}

impl Options {
    fn set(&mut self, flag: &Flag, value: &OsStr) -> Result<(), Error> {
        match flag.key {
            Key::Config => self.config = PathBuf::from(value),
            Key::Port => {
                let port = value.to_str().and_then(|text| text.parse().ok());
                self.port = port.ok_or_else(|| Error::Port(lossy(value)))?;
            }
            Key::Domain => {
                let text = value.to_str().ok_or_else(|| Error::Domain(lossy(value)))?;
                text.clone_into(&mut self.domain);
            }
            Key::StrictNames => self.strict_names = true,
            Key::Rotate => self.rotate = true,
            Key::Cache => self.cache = true,
            Key::LogQueries => self.log_queries = true,
            Key::Stats => self.stats = Some(PathBuf::from(value)),
            Key::Help | Key::Version => {}
        }
        Ok(())
    }
}

fn lossy(word: &OsStr) -> String {
    word.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Invocation, Error> {
        let words: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        parse(&words, |_| None)
    }

    fn options(line: &str) -> Options {
        match parsed(line) {
            Ok(Invocation::Run(options)) => options,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn what_netavark_writes() {
        let options = options("--config /run/containers/networks/aardvark-dns -p 53 run");
        assert_eq!(options.config, PathBuf::from("/run/containers/networks/aardvark-dns"));
        assert_eq!((options.port, options.domain.as_str()), (53, ".dns.podman"));
        assert_eq!(options, Options { config: options.config.clone(), port: 53, ..Options::default() });
    }

    #[test]
    fn every_way_to_write_a_value() {
        for line in [
            "-c d -p 7 run",
            "-cd -p7 run",
            "-c=d -p=7 run",
            "--config=d --port=7 run",
            "run --config d --port 7",
        ] {
            let options = options(line);
            assert_eq!((options.config.to_str(), options.port), (Some("d"), 7), "{line}");
        }
        assert_eq!(options("-f x -f .y run").domain, ".y");
        assert_eq!(options("run").port, 5533);
        assert_eq!(options("run").config, PathBuf::from("/dev/stdin"));
    }

    #[test]
    fn other_commands() {
        assert_eq!(parsed("-c x version"), Ok(Invocation::Version));
        for line in ["-V", "--version", "run -V --rubbish", "-p 1 -V"] {
            assert_eq!(parsed(line), Ok(Invocation::ShortVersion), "{line}");
        }
        for line in ["-h", "--help", "help", "help run", "run --help"] {
            assert_eq!(parsed(line), Ok(Invocation::Help), "{line}");
        }
    }

    #[test]
    fn mistakes() {
        for (line, text) in [
            ("", "a command is required: run or version"),
            ("start", "unrecognized subcommand 'start'"),
            ("run run", "unexpected argument 'run' found"),
            ("--conf x run", "unexpected argument '--conf' found"),
            ("-x run", "unexpected argument '-x' found"),
            ("run -c", "a value is required for '--config <DIR>' but none was supplied"),
            ("-p 65536 run", "invalid value '65536' for '--port <PORT>': not a number from 0 to 65535"),
            ("--rotate=1 run", "unexpected value for '--rotate' found; no more were expected"),
        ] {
            assert_eq!(parsed(line).unwrap_err().to_string(), text, "{line}");
        }
    }

    #[test]
    fn variables_stand_in_for_options() {
        let set = ["AARDVARK_NO_PROXY", "AARDVARK_ROTATE", "AARDVARK_LOG_QUERIES"];
        let invocation = parse(&["run".into()], |name| set.contains(&name).then(OsString::new)).unwrap();
        let expected = Options { no_proxy: true, rotate: true, log_queries: true, ..Options::default() };
        assert_eq!(invocation, Invocation::Run(expected));
        let stats = parse(&["run".into()], |name| (name == "AARDVARK_STATS").then(|| "f".into())).unwrap();
        assert_eq!(stats, Invocation::Run(Options { stats: Some("f".into()), ..Options::default() }));
    }
}
