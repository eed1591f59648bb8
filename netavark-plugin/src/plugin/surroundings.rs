//! Where things are: the uplink's socket, our records, and whether we are root.
//!
//! `$SLIPWAY_UPLINK` names the socket. Without it root's is in `/run/slipway`, a user's in `$XDG_RUNTIME_DIR/slipway`. Records are in
//! the directory of the default socket in any case: the variable may lead to where others can write.

use crate::error::{Error, Result};
use crate::namespaces::is_root_of_the_machine;
use slipway_host::environment;
use std::path::PathBuf;

/// The variable that names the socket.
const SOCKET_VARIABLE: &str = "SLIPWAY_UPLINK";
/// Root's directory.
const DIRECTORY: &str = "/run/slipway";

/// What a call takes for given.
#[derive(Debug, Clone)]
pub(super) struct Surroundings {
    /// The uplink's socket.
    pub(super) socket: PathBuf,
    /// The directory of records and locks.
    pub(super) records: PathBuf,
    /// Whether this is root outside of any user namespace, whose engine leaves published ports to its network drivers. A rootless
    /// engine publishes them itself.
    pub(super) root: bool,
}

impl Surroundings {
    /// Those of this process.
    pub(super) fn here() -> Result<Self> {
        let variable =
            |name: &str| environment::variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let root = is_root_of_the_machine();
        let directory = if root {
            PathBuf::from(DIRECTORY)
        } else {
            let runtime = variable("XDG_RUNTIME_DIR");
            runtime
                .ok_or_else(|| {
                    Error::msg("XDG_RUNTIME_DIR is not set: it names the directory of slipway's socket")
                })?
                .join("slipway")
        };
        Ok(Self {
            socket: variable(SOCKET_VARIABLE).unwrap_or_else(|| directory.join("uplink.sock")),
            records: directory.join("networks"),
            root,
        })
    }
}
