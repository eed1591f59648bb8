//! Where the uplink listens: what the environment says, and otherwise the user's place or root's.

use nix::unistd::geteuid;
use slipway_host::environment;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The environment variable with the socket's path.
pub const VARIABLE: &str = "SLIPWAY_UPLINK";
/// The socket of root, and that of a user below `$XDG_RUNTIME_DIR`.
const ROOTS: &str = "/run/slipway/uplink.sock";
const USERS: &str = "slipway/uplink.sock";

/// Where the uplink of this user listens; `None` for a user without a runtime directory.
#[must_use]
pub fn path() -> Option<PathBuf> {
    let whole_machine = || {
        // One line that maps all numbers onto themselves: no user namespace.
        let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
        map.split_ascii_whitespace().eq(["0", "0", "4294967295"])
    };
    let root = geteuid().is_root() && whole_machine();
    path_from(environment::variable(VARIABLE), environment::variable("XDG_RUNTIME_DIR"), root)
}

fn path_from(variable: Option<OsString>, runtime: Option<OsString>, root: bool) -> Option<PathBuf> {
    match variable.filter(|path| !path.is_empty()) {
        Some(path) => Some(path.into()),
        None if root => Some(ROOTS.into()),
        None => runtime.filter(|dir| !dir.is_empty()).map(|dir| Path::new(&dir).join(USERS)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_says_where() {
        let os = |text: &str| Some(OsString::from(text));
        assert_eq!(path_from(os("/x"), os("/run/user/7"), true), Some("/x".into()));
        assert_eq!(path_from(os(""), os("/run/user/7"), true), Some(ROOTS.into()));
        assert_eq!(path_from(None, os("/run/user/7"), false), Some("/run/user/7/slipway/uplink.sock".into()));
        assert_eq!(path_from(None, os(""), false), None);
    }
}
