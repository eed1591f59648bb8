//! Where things are: the uplink's socket, our records, and whether we are root.
//!
//! `$SLIPWAY_UPLINK` names the socket. Without it root's is in `/run/slipway`, a user's in `$XDG_RUNTIME_DIR/slipway`.
//! Records are in the directory of the default socket in any case: the variable may lead to where others can write.

use crate::error::{Error, Result};
use slipway_host::user;
use slipway_uplink::address;
use std::path::PathBuf;

/// What a call takes for given.
#[derive(Debug, Clone)]
pub(super) struct Surroundings {
    /// The uplink's socket.
    pub(super) socket: PathBuf,
    /// The directory of records and locks.
    pub(super) records: PathBuf,
    /// Whether this is root outside of any user namespace, whose engine leaves published ports to its network drivers.
    /// A rootless engine publishes them itself.
    pub(super) root: bool,
}

impl Surroundings {
    /// Those of this process.
    pub(super) fn here() -> Result<Self> {
        let (Some(socket), Some(directory)) = (address::path(), address::directory()) else {
            let text = "XDG_RUNTIME_DIR is not set: it names the directory of slipway's socket";
            return Err(Error::msg(text));
        };
        Ok(Self { socket, records: directory.join("networks"), root: user::is_root_of_the_machine() })
    }
}
