//! Where the uplink listens: what the environment says, and otherwise the user's place or root's.

use slipway_host::{environment, user};
use std::ffi::OsString;
use std::path::PathBuf;

/// The environment variable with the socket's path.
pub const VARIABLE: &str = "SLIPWAY_UPLINK";
/// Root's directory, and a user's below `$XDG_RUNTIME_DIR`.
const ROOTS: &str = "/run/slipway";
const USERS: &str = "slipway";
/// The socket there.
const SOCKET: &str = "uplink.sock";

/// Where the uplink of this user listens; `None` for a user without a runtime directory.
#[must_use]
pub fn path() -> Option<PathBuf> {
    path_from(environment::variable(VARIABLE), directory())
}

/// The directory that has the socket if the environment says nothing else, which may lead to where others can write;
/// `None` for a user without a runtime directory.
#[must_use]
pub fn directory() -> Option<PathBuf> {
    directory_from(user::is_root_of_the_machine(), user::runtime_directory())
}

fn path_from(variable: Option<OsString>, directory: Option<PathBuf>) -> Option<PathBuf> {
    match variable.filter(|path| !path.is_empty()) {
        Some(path) => Some(path.into()),
        None => directory.map(|directory| directory.join(SOCKET)),
    }
}

fn directory_from(root: bool, runtime: Option<PathBuf>) -> Option<PathBuf> {
    if root { Some(ROOTS.into()) } else { runtime.map(|dir| dir.join(USERS)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_says_where() {
        let os = |text: &str| Some(OsString::from(text));
        let of = |variable, runtime: Option<&str>, root| {
            path_from(variable, directory_from(root, runtime.map(PathBuf::from)))
        };
        assert_eq!(of(os("/x"), Some("/run/user/7"), true), Some("/x".into()));
        assert_eq!(of(os("/x"), None, false), Some("/x".into()));
        assert_eq!(of(os(""), Some("/run/user/7"), true), Some("/run/slipway/uplink.sock".into()));
        assert_eq!(of(None, Some("/run/user/7"), false), Some("/run/user/7/slipway/uplink.sock".into()));
        assert_eq!(of(None, None, false), None);
    }
}
