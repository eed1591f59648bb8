//! `slipway net`: handed to the program that does the same for container engines, `netavark`, under another name.
//!
//! It is a program of its own because setting up bridges and serving packets have little in common but the word
//! network; what is not linked in costs no memory in a process that runs for each container.

use nix::errno::Errno;
use std::ffi::{OsStr, OsString};
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

/// What it is called when it is `slipway net`.
const NAME: &str = "slipway-net";
/// The program: beside us, as `cargo xtask install` puts it.
const PROGRAM: &str = "netavark";

/// Becomes that program.
pub(super) fn main(args: &[OsString]) -> ExitCode {
    let program = beside(std::env::current_exe().ok());
    let error = Command::new(&program).arg0(OsStr::new(NAME)).args(args).exec();
    let hint = match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOENT) => ": it is installed together with slipway (cargo xtask install)",
        _ => "",
    };
    let _ = writeln!(
        std::io::stderr(),
        "slipway net: {}: {}{hint}",
        program.display(),
        slipway_host::strerror::words(&error)
    );
    ExitCode::FAILURE
}

fn beside(own: Option<PathBuf>) -> PathBuf {
    own.map_or_else(|| PROGRAM.into(), |own| own.with_file_name(PROGRAM))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_looked_for_beside_us() {
        assert_eq!(beside(Some("/opt/bin/slipway".into())), PathBuf::from("/opt/bin/netavark"));
        assert_eq!(beside(None), PathBuf::from("netavark"));
    }
}
