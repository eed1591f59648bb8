//! What every personality runs on: the loop around driver, forwarded ports, names and signals, from the start to the
//! end.
//!
//! ```text
//!   start    fds taken over ─▶ logging ─▶ Session::open ─▶ ports, API, signals ─▶ Session::shut_in ─▶ ready
//!   serve    Session::run, until something says that it is over
//!   end      Session::end: doors and PID file, the guest's last frames, the link, the sockets' last bytes; report
//! ```
//! A personality says what is wanted: the engine's configuration, the link, rules, where to listen. In which order
//! things begin and end is said here, once, so that it is the same under each name that the program answers to.
//!
//! ```text
//! start.rs      how a session begins
//! serve.rs      a link being served; serve/ending.rs: its end
//! names/        the resolver behind the DNS address
//! network.rs    the host's network, which the guest looks like
//! background.rs the process that was started ends, and another one stays
//! fds.rs        descriptors that a caller passes by number
//! logging.rs    lines on stderr, a bounded number of them; logging/journal.rs: of a program in the background
//! pid_file.rs   the file with our process id
//! report.rs     what people are told: published ports, API requests, counters
//! tuning.rs     what the environment sets
//! ```

#![forbid(unsafe_code)]

pub mod background;
pub mod fds;
pub mod logging;
pub mod names;
pub mod network;
pub mod pid_file;
pub mod report;
mod scan;
pub mod serve;
pub mod start;
pub mod tuning;

/// The commit that was built, as far as the build knew it: set `SLIPWAY_COMMIT` when compiling.
pub const COMMIT: &str = match option_env!("SLIPWAY_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};
