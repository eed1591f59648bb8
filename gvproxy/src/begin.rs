//! From the words of the command line to a configuration, and what is said when there is none.
//!
//! | what is wrong | said | exit code |
//! |---|---|---|
//! | the words themselves | on stderr, with the usage text | 2 |
//! | file, log, values | at level fatal, in the log once that is open | 1 |
//! | anything from there on | at level error, mostly behind `gvproxy exiting:` | 0 |
//!
//! The last row is the original's, and launchers have come to live with it: they look whether the process and its
//! sockets are there, not how it ended.

use crate::args::{Args, FLAGS};
use crate::config::Config;
use crate::flags::{self, Flag, Stop};
use crate::logrus::{self, Grade};
use crate::validate::{self, Failure, Journal, World};
use crate::{listen, run, yaml};
use log::Level;
use slipway_host::resolv_conf::{self, ResolvConf};
use slipway_host::sys::proc::close_inherited;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::process::ExitCode;

/// The release whose command line, texts and interfaces these are, and our own version.
pub const VERSION: &str = concat!("v0.8.9 (slipway ", env!("CARGO_PKG_VERSION"), ")");

/// Runs `gvproxy` with these words; `program` is how it was called.
#[must_use]
pub fn main(program: &str, words: &[OsString]) -> ExitCode {
    let args = match Args::parse(words) {
        Ok(args) => args,
        Err(stop) => return explain(FLAGS, program, &stop),
    };
    if args.version {
        let _ = writeln!(io::stdout(), "gvproxy version {VERSION}");
        return ExitCode::SUCCESS;
    }
    if let Err(error) = close_inherited(None) {
        log::debug!("what was open stays open: {error}");
    }
    let ended = configure(&args).and_then(|config| run::serve(&config).map_err(Failure::Late));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Late(why)) => {
            logrus::say(Grade::Of(Level::Error), &why);
            ExitCode::SUCCESS
        }
        Err(Failure::Fatal(why)) => {
            logrus::say(Grade::Fatal, &why);
            ExitCode::FAILURE
        }
    }
}

/// Says why the words behind `program` are not followed, and what could be said instead.
pub(crate) fn explain<K>(flags: &'static [Flag<K>], program: &str, stop: &Stop) -> ExitCode {
    let usage = flags::usage(flags, program);
    // That nobody reads is no reason to fail.
    let _ = match stop {
        Stop::Help => write!(io::stderr(), "{usage}"),
        Stop::Wrong(why) => write!(io::stderr(), "{why}\n{usage}"),
    };
    if *stop == Stop::Help { ExitCode::SUCCESS } else { ExitCode::from(2) }
}

/// Reads the file, opens the log, checks everything.
fn configure(args: &Args) -> Result<Config, Failure> {
    let document = if args.config.is_empty() { None } else { Some(document(Path::new(&args.config))?) };
    let journal = Journal::new(args, document.as_ref());
    logrus::open(journal.level, journal.file.as_deref()).map_err(|_| {
        let path = journal.file.as_deref().unwrap_or_else(|| Path::new(""));
        Failure::Fatal(format!("unable to open log file {}", path.display()))
    })?;
    log::info!("gvproxy version {VERSION}");
    if let Some(unknown) = journal.unknown {
        log::warn!("bad log level {}, falling back to \"info\"", flags::quote(&unknown));
    }
    validate::config(args, document.as_ref(), &Machine)
}

fn document(path: &Path) -> Result<yaml::Document, Failure> {
    let text = read(path).map_err(|why| Failure::Fatal(format!("failed to read config file: {why}")))?;
    yaml::parse(&text).map_err(|why| Failure::Fatal(format!("failed to parse configuration: {why}")))
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let said = |call: &str| {
        let call = format!("{call} {}", path.display());
        move |error: io::Error| listen::words(&call, &error)
    };
    let file = File::open(path).map_err(said("open"))?;
    let mut text = Vec::new();
    file.take(yaml::MAX_BYTES + 1).read_to_end(&mut text).map_err(said("read"))?;
    if u64::try_from(text.len()).is_ok_and(|len| len <= yaml::MAX_BYTES) {
        Ok(text)
    } else {
        Err(format!("{}: more than {} bytes", path.display(), yaml::MAX_BYTES))
    }
}

/// The machine that this runs on.
struct Machine;

impl World for Machine {
    fn is_there(&self, path: &Path) -> bool {
        path.symlink_metadata().is_ok()
    }

    fn stat(&self, path: &Path) -> io::Result<()> {
        path.metadata().map(drop)
    }

    fn search_domains(&self) -> Vec<String> {
        let text = resolv_conf::read_bounded(Path::new(resolv_conf::PATH)).unwrap_or_default();
        ResolvConf::parse(&text).search
    }
}
