//! `/etc/resolv.conf`, as a lease has it.
//!
//! Written whole or not at all, at the end of the links that lead there: whoever made them wants the file to be in that
//! place. What is mounted there cannot be replaced, and is written over.

use slipway_host::files::{self, PUBLIC};
use slipway_host::resolv_conf::PATH;
use slipway_netstack::dhcp_client::Lease;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Writes what the lease says of names, if it says anything.
pub(super) fn write(lease: &Lease) {
    let Some(text) = text(lease) else { return };
    if let Err(error) = put(Path::new(PATH), &text) {
        log::error!("dhcp error: write {PATH}: {error}");
    }
}

/// The directories that it is written in.
pub(crate) fn directories() -> Vec<PathBuf> {
    let path = Path::new(PATH);
    let target = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    [path, &target].into_iter().filter_map(Path::parent).map(Path::to_owned).collect()
}

/// `None`: there are no name servers.
fn text(lease: &Lease) -> Option<String> {
    if lease.dns_servers.is_empty() {
        return None;
    }
    let mut text = String::new();
    let domains = if lease.search.is_empty() {
        Some(&lease.domain).filter(|domain| is_domain(domain)).cloned()
    } else {
        Some(lease.search.join(" "))
    };
    if let Some(domains) = domains {
        let _ = writeln!(text, "search {domains}");
    }
    for server in &lease.dns_servers {
        let _ = writeln!(text, "nameserver {server}");
    }
    Some(text)
}

fn is_domain(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

fn put(path: &Path, text: &str) -> io::Result<()> {
    let target = match path.canonicalize() {
        Ok(target) => target,
        // A link to what is not there yet.
        Err(error) if error.kind() == io::ErrorKind::NotFound && path.is_symlink() => {
            return fs::write(path, text);
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => path.to_owned(),
        Err(error) => return Err(error),
    };
    if fs::read(&target).is_ok_and(|old| old == text.as_bytes()) {
        return Ok(());
    }
    let fresh = target.with_extension("conf.gvforwarder");
    files::replace(&target, &fresh, text.as_bytes(), PUBLIC).or_else(|_| fs::write(&target, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_followed_and_a_file_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("run")).unwrap();
        std::os::unix::fs::symlink(at("run/resolv.conf"), at("resolv.conf")).unwrap();
        for text in ["nameserver 192.0.2.1\n", "nameserver 192.0.2.2\n"] {
            // At first it leads to nothing.
            put(&at("resolv.conf"), text).unwrap();
            assert_eq!(fs::read_to_string(at("run/resolv.conf")).unwrap(), text);
            assert!(at("resolv.conf").is_symlink());
        }
        put(&at("new"), "nameserver 192.0.2.3\n").unwrap();
        assert_eq!(fs::read_to_string(at("new")).unwrap(), "nameserver 192.0.2.3\n");
        assert!(put(&at("no/where"), "x").is_err());
        assert!(
            fs::read_dir(dir.path())
                .unwrap()
                .all(|entry| { !entry.unwrap().file_name().to_string_lossy().contains("gvforwarder") })
        );
    }

    #[test]
    fn a_domain_is_one() {
        assert!(is_domain("containers.internal") && !is_domain("") && !is_domain("a\nnameserver 1.2.3.4"));
    }
}
