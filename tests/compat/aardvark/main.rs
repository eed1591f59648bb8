//! The aardvark-dns contract, seen from outside: the binary under its drop-in name on a machine of its own.
//!
//! Numbered by area as in the contract: start, names, forwarding, TCP and bad input, reload, dnsmasq upstream, sandbox.
//! Queries are sent by the tests themselves, so that ids, flags and lengths can be wrong on purpose. The same tests run
//! against the original (`SLIPWAY_AARDVARK_BINARY=/usr/lib/podman/aardvark-dns`), which proves the tests; what the
//! original does not do, or does wrong, is tested with ours only and says so.

mod message;
mod place;
mod t01_start;
mod t02_names;
mod t03_forwarding;
mod t04_tcp;
mod t05_bad_input;
mod t06_reload;
mod t07_dnsmasq;
mod t08_sandbox;
mod upstream;

use std::time::Duration;

/// Long enough for a loaded two-core machine, short enough to notice a hang.
const LIMIT: Duration = Duration::from_secs(20);

/// Gets a daemon that is not started yet, or leaves the test as skipped; the second form is for what only ours does.
macro_rules! daemon {
    ($name:literal) => {
        match $crate::place::Daemon::fixture($name) {
            Some(daemon) => daemon,
            None => return,
        }
    };
    (ours $name:literal) => {{
        let daemon = $crate::daemon!($name);
        if !daemon.is_ours() {
            println!("SKIP {}: the original does otherwise", $name);
            return;
        }
        daemon
    }};
}
pub(crate) use daemon;
