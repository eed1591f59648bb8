//! `aardvark-dns`: listeners, files, signals and one loop around the pure half and the sockets of [`crate::io`].
//!
//! ```text
//!             args ── launch ──▶ run (one thread, one epoll set)
//!                                 │
//!   UDP, TCP queries ─▶ udp, tcp ─┤─▶ answer() of the snapshot ─▶ udp, tcp
//!                                 └─▶ Forwarder ◀──▶ upstream (a socket for each attempt)
//!   SIGHUP ─▶ reload: directory ─▶ snapshot;  listener: bind, close       inotify ─▶ the host's servers
//! ```
//! Everything happens in one thread: a query that has its answer here is answered in the turn in which it is read, and
//! nothing else ever waits, but for the few milliseconds in which a reload reads files. What strangers can make us keep
//! is bounded: places for connections (`tcp`), queries under way (`upstream`), the cache.
//!
//! The contract is that of aardvark-dns 2.0; what differs is in the man page.

pub mod args;
mod counters;
pub mod docs;
mod launch;
mod listener;
mod logging;
mod reload;
mod rotation;
mod run;
mod slab;
mod tcp;
mod tentative;
pub mod texts;
mod token;
mod udp;
mod upstream;
mod world;

use args::Invocation;
use slipway_host::environment;
use slipway_host::sys::proc;
use std::ffi::OsString;
use std::time::Duration;

/// Plays the part of `aardvark-dns`. `words` are those behind the program's name. Returns the exit status.
#[must_use]
pub fn main(words: &[OsString]) -> u8 {
    // Engines leak descriptors into us, and we live long. On a system where this cannot be done they stay.
    let _ = proc::close_inherited(None);
    let (level, complaint) = logging::level(environment::text("RUST_LOG").as_deref());
    if let Some(complaint) = complaint {
        say(std::io::stderr(), &format!("{complaint}\n"));
    }
    logging::init(level, texts::NAME);
    match args::parse(words, environment::variable) {
        Ok(Invocation::Run(options)) => launch::start(&options),
        Ok(Invocation::Version) => say(std::io::stdout(), &texts::version()),
        Ok(Invocation::ShortVersion) => say(std::io::stdout(), &texts::short_version()),
        Ok(Invocation::Help) => say(std::io::stdout(), &texts::usage()),
        Err(error) => {
            let text =
                format!("error: {error}\n\n{}\n\nFor more information, try '--help'.\n", texts::SYNOPSIS);
            say(std::io::stderr(), &text);
            2
        }
    }
}

fn say(mut stream: impl std::io::Write, text: &str) -> u8 {
    u8::from(stream.write_all(text.as_bytes()).is_err())
}

/// The time, as the pure half wants it: since some origin.
fn now() -> Duration {
    Duration::from_micros(slipway_host::clock::now().as_micros())
}
