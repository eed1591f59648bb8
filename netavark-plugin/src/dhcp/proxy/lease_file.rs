//! The lease file: what the proxy holds, for people and tools to read. JSON, from MAC address to a list of leases: the
//! one of IPv4, and behind it what there is of IPv6 where that was asked for.
//!
//! It is empty at the start, for leases do not outlive the proxy that renews them, and nothing here ever reads it. By
//! contract it is written when a lease comes or goes, not when one is renewed. A reader never sees half of it.

use crate::proto::Lease;
use serde_json::{Map, Value, json};
use slipway_host::files;
use std::io;
use std::path::PathBuf;

/// The file's name in the run directory, by contract.
const NAME: &str = "nv-proxy.lease";

#[derive(Debug)]
pub(super) struct LeaseFile {
    path: PathBuf,
}

impl LeaseFile {
    /// The file in `dir`; call [`LeaseFile::write`] to empty it.
    pub(super) fn new(dir: &std::path::Path) -> Self {
        Self { path: dir.join(NAME) }
    }

    /// Replaces what the file holds.
    pub(super) fn write<'a>(&self, leases: impl Iterator<Item = (&'a str, &'a Lease)>) -> io::Result<()> {
        let mut map = Map::new();
        for (mac, lease) in leases {
            if let Value::Array(list) = map.entry(mac).or_insert_with(|| json!([])) {
                list.push(json!(lease));
            }
        }
        let fresh = self.path.with_extension("lease.new");
        files::replace(&self.path, &fresh, Value::Object(map).to_string().as_bytes(), files::PUBLIC)
    }

    pub(super) fn path(&self) -> std::path::Display<'_> {
        self.path.display()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_file_of_the_contracted_form() {
        let dir = tempfile::tempdir().unwrap();
        let file = LeaseFile::new(dir.path());
        file.write(std::iter::empty()).unwrap();
        let read = || fs::read_to_string(dir.path().join(NAME)).unwrap();
        assert_eq!(read(), "{}");
        let lease = Lease { yiaddr: "198.51.100.7".into(), is_v6: false, ..Lease::default() };
        file.write([("aa:bb:cc:00:01:02", &lease)].into_iter()).unwrap();
        let value: Value = serde_json::from_str(&read()).unwrap();
        let entry = &value["aa:bb:cc:00:01:02"];
        assert_eq!(entry.as_array().unwrap().len(), 1);
        assert_eq!((&entry[0]["yiaddr"], &entry[0]["is_v6"]), (&json!("198.51.100.7"), &json!(false)));
        assert_eq!(entry[0].as_object().unwrap().len(), 16);
        let second = Lease { yiaddr: "fd00::7".into(), is_v6: true, ..Lease::default() };
        file.write([("aa:bb:cc:00:01:02", &lease), ("aa:bb:cc:00:01:02", &second)].into_iter()).unwrap();
        let value: Value = serde_json::from_str(&read()).unwrap();
        assert_eq!(value["aa:bb:cc:00:01:02"][0]["yiaddr"], json!("198.51.100.7"));
        assert_eq!(value["aa:bb:cc:00:01:02"][1]["is_v6"], json!(true));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(LeaseFile::new(&dir.path().join("gone")).write(std::iter::empty()).is_err());
    }
}
