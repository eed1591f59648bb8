//! What other networks have taken, as far as it can be found out: the addresses of this host, and the definitions in
//! the directory where Podman keeps them if nobody says otherwise.

use crate::definition::Used;
use crate::error::{Context, Result};
use crate::spec::Network;
use slipway_host::netlink::Netlink;
use slipway_host::{environment, user};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

/// Root's networks.
const DIRECTORY: &str = "/etc/containers/networks";
/// A user's, below the directory for their data.
const DIRECTORY_OF_USER: &str = "containers/storage/networks";
/// A definition is not longer.
const FILE_MAX: u64 = 1 << 20;

/// Looks for them.
pub(super) fn find() -> Result<Used> {
    let addresses = Netlink::open().and_then(|mut netlink| netlink.addresses()).context("list addresses")?;
    let mut used = Used { subnets: addresses.iter().map(|address| address.net).collect(), ..Used::default() };
    let directory = if user::is_root_of_the_machine() {
        Some(PathBuf::from(DIRECTORY))
    } else {
        data_home(environment::variable).map(|data| data.join(DIRECTORY_OF_USER))
    };
    for network in directory.iter().flat_map(|directory| definitions(directory)) {
        used.subnets.extend(network.subnets().iter().map(|subnet| subnet.subnet));
        used.interfaces.extend(network.network_interface);
    }
    Ok(used)
}

/// XDG Base Directory Specification: `$XDG_DATA_HOME`, or `.local/share` in the home directory.
fn data_home(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let path = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    path("XDG_DATA_HOME").or_else(|| path("HOME").map(|home| home.join(".local/share")))
}

/// The definitions in a directory. What cannot be read, or makes no sense, is the engine's business.
fn definitions(directory: &Path) -> Vec<Network> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let files =
        entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|end| end == "json"));
    files
        .filter(|path| fs::metadata(path).is_ok_and(|found| found.is_file() && found.len() <= FILE_MAX))
        .filter_map(|path| serde_json::from_slice(&fs::read(path).ok()?).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definitions_are_read_and_the_rest_is_passed_over() {
        let directory = tempfile::tempdir().unwrap();
        let good = r#"{"name":"n","id":"i","driver":"bridge","network_interface":"podman1","created":"2023-01-01T00:00:00Z",
            "subnets":[{"subnet":"10.89.0.0/24","gateway":"10.89.0.1"}],"ipv6_enabled":false,"internal":false,"dns_enabled":true}"#;
        for (name, text) in [("n.json", good), ("half.json", "{"), ("n.txt", good)] {
            fs::write(directory.path().join(name), text).unwrap();
        }
        fs::create_dir(directory.path().join("dir.json")).unwrap();
        let found = definitions(directory.path());
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].network_interface.as_deref(), Some("podman1"));
        assert_eq!(definitions(Path::new("/nonexistent")), []);
    }

    #[test]
    fn a_users_networks_are_with_their_data() {
        let of = |pairs: &'static [(&str, &str)]| {
            data_home(|name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into()))
        };
        assert_eq!(of(&[("HOME", "/h")]), Some("/h/.local/share".into()));
        assert_eq!(of(&[("HOME", "/h"), ("XDG_DATA_HOME", "/d")]), Some("/d".into()));
        assert_eq!(of(&[("HOME", "/h"), ("XDG_DATA_HOME", "")]), Some("/h/.local/share".into()));
        assert_eq!(of(&[]), None);
    }
}
