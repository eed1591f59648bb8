//! Whose process this is, and where that user has what lives no longer than a session.

use crate::environment;
use nix::unistd::geteuid;
use std::path::PathBuf;

/// How the kernel tells that all numbers of users are mapped onto themselves: this is no user namespace
/// (user_namespaces(7)).
const WHOLE: [&str; 3] = ["0", "0", "4294967295"];

/// Whether this is root, and not only of a user namespace. A process without `/proc` is taken for a user's.
#[must_use]
pub fn is_root_of_the_machine() -> bool {
    geteuid().is_root() && is_whole(&std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default())
}

fn is_whole(map: &str) -> bool {
    map.split_ascii_whitespace().eq(WHOLE)
}

/// The directory of a user's sockets and the like, `$XDG_RUNTIME_DIR` (XDG Base Directory Specification); `None` where
/// nobody has set it, or not to be believed.
#[must_use]
pub fn runtime_directory() -> Option<PathBuf> {
    environment::variable("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty()).map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_of_users_is_not_the_machine() {
        assert!(is_whole("         0          0 4294967295\n"));
        for map in ["", "0 1000 1\n", "0 1000 1\n1 100000 65536\n", "0 0 4294967295\n1 1 1\n", "0 0 1\n"] {
            assert!(!is_whole(map), "{map:?}");
        }
        let own = std::fs::read_to_string("/proc/self/uid_map").unwrap();
        assert_eq!(is_root_of_the_machine(), geteuid().is_root() && is_whole(&own));
    }
}
