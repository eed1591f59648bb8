//! Network namespaces: entering one to open the guest's TAP in it ([`open_tap`]), making one for a command
//! ([`spawn()`]), and noticing that one has ended ([`Watch`]).
//!
//! ```text
//!   this process                    child: one thread, short-lived
//!   ────────────                    ──────────────────────────────
//!   fork ─────────────────────────▶ setns (user, then network)  |  unshare (user, network, mount)
//!                                   open the TAP, configure it by netlink
//!   receive the TAP ◀── SCM_RIGHTS ─
//! ```
//! Only descriptors and one line of text cross the border; this process itself never changes its namespaces here.
//! Source: namespaces(7), user_namespaces(7), setns(2).

mod configure;
mod cover;
mod diagnose;
mod enter;
mod spawn;
mod supervise;
mod watch;

#[cfg(test)]
pub(crate) mod testing;

pub use configure::{Configure, Setup, Side};
pub use enter::{Namespaces, Opened, Target, open_file, open_tap, open_tap_of};
pub use spawn::{Command, Identity, Outcome, Running, StartError, spawn, spawn_in_namespaces};
pub use watch::Watch;

use std::io;

/// Why a namespace could not be entered or made.
#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    /// The child met an error: one line that says what to do, and its exit status.
    #[error("{message}")]
    Child {
        /// The line.
        message: String,
        /// The exit status, for `child failed(1)`.
        status: u8,
    },
    /// The child died of a signal.
    #[error("the helper process was killed by {0}")]
    Killed(String),
    /// A system call of this process failed.
    #[error("cannot {doing}: {source}")]
    System {
        /// What for.
        doing: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl NetnsError {
    fn system(doing: &'static str, source: impl Into<io::Error>) -> Self {
        Self::System { doing, source: source.into() }
    }
}
