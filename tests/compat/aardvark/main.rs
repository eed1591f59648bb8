//! The aardvark-dns contract, seen from outside: the binary under its drop-in name on a machine of its own.
//!
//! Numbered by area as in the contract: start, names, forwarding, TCP and bad input, reload. Queries are sent by the
//! tests themselves, so that ids, flags and lengths can be wrong on purpose. The same tests run against the original
//! (`SLIPWAY_AARDVARK_BINARY=/usr/lib/podman/aardvark-dns`), which proves the tests; what the original does not do,
//! or does wrong, is tested with ours only and says so.

mod message;
mod place;
mod t01_start;
mod t02_names;
mod t03_forwarding;
mod t04_tcp;
mod t05_bad_input;
mod t06_reload;
mod upstream;

use std::time::Duration;

/// Long enough for a loaded two-core machine, short enough to notice a hang.
const LIMIT: Duration = Duration::from_secs(20);

/// Gets a daemon that is not started yet, or leaves the test as skipped; the second form is for what only ours does.
macro_rules! daemon {
    ($name:literal) => {
        match slipway_lab::machine($name, "SLIPWAY_AARDVARK_BINARY", "aardvark-dns", &[]) {
            Some((machine, binary)) => $crate::place::Daemon::new(machine, binary),
            None => return,
        }
    };
    (ours $name:literal) => {{
        if std::env::var_os("SLIPWAY_AARDVARK_BINARY").is_some_and(|path| {
            let said = std::process::Command::new(path).arg("--help").output();
            said.is_ok_and(|output| !String::from_utf8_lossy(&output.stdout).contains("slipway"))
        }) {
            println!("SKIP {}: the original does otherwise", $name);
            return;
        }
        $crate::daemon!($name)
    }};
}
pub(crate) use daemon;
