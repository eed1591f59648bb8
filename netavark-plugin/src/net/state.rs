//! The records: one file for each network, with its definition and its members.
//!
//! Files are replaced by rename, so that whoever reads sees all of a record or none of it. Whoever changes them holds
//! the lock on the directory for the whole call, from looking to the last change of the system.

use super::member::Number;
use crate::definition;
use crate::error::{Context, Error, Result};
use crate::spec::{Network, PerNetworkOptions, PortMapping};
use serde::{Deserialize, Serialize};
use slipway_host::files::{self, Lock};
use std::collections::BTreeSet;
use std::fs::{DirBuilder, File};
use std::io::ErrorKind;
use std::net::IpAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

const SUFFIX: &str = "json";

/// A network and who is on it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub(super) struct Record {
    /// Its definition.
    pub(super) network: Network,
    /// Who is on it, in the order of joining.
    pub(super) members: Vec<Member>,
}

/// A namespace on a network.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub(super) struct Member {
    /// Where the namespace was found.
    pub(super) namespace: PathBuf,
    /// Which one it was.
    pub(super) number: Number,
    /// The ID under which the rules and names are kept, 64 hexadecimal digits.
    pub(super) id: String,
    /// Its name for others.
    pub(super) name: String,
    /// How it joined.
    pub(super) options: PerNetworkOptions,
    /// Its published ports.
    pub(super) ports: Vec<PortMapping>,
}

impl Record {
    /// All addresses of members.
    pub(super) fn addresses(&self) -> BTreeSet<IpAddr> {
        self.members.iter().flat_map(|member| member.options.ips()).copied().collect()
    }
}

/// The directory of the records.
#[derive(Debug)]
pub(super) struct Records {
    directory: PathBuf,
    /// Held until the end of the call; `None` for those who only look.
    _lock: Option<Lock>,
}

impl Records {
    /// To look only.
    pub(super) fn look(directory: &Path) -> Self {
        Self { directory: directory.to_owned(), _lock: None }
    }

    /// To change them; waits for a call that is under way.
    pub(super) fn lock(directory: &Path) -> Result<Self> {
        let within = || format!("directory of records {}", directory.display());
        DirBuilder::new().recursive(true).mode(0o700).create(directory).with_context(within)?;
        // A lock on the directory itself needs no file that stays behind.
        let opened = File::open(directory).with_context(within)?;
        let lock = Lock::of(opened).with_context(within)?;
        Ok(Self { directory: directory.to_owned(), _lock: Some(lock) })
    }

    /// The record of a network, if there is one.
    pub(super) fn get(&self, name: &str) -> Result<Option<Record>> {
        let path = self.path(name)?;
        match std::fs::read(&path) {
            Ok(text) => {
                let record = serde_json::from_slice(&text);
                Ok(Some(record.with_context(|| format!("record {}", path.display()))?))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("record {}", path.display())),
        }
    }

    /// All records, by name. One that cannot be read is told and left out.
    pub(super) fn all(&self) -> Result<Vec<Record>> {
        let entries = match std::fs::read_dir(&self.directory) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => {
                entries.with_context(|| format!("directory of records {}", self.directory.display()))?
            }
        };
        let paths = entries.filter_map(|entry| entry.ok().map(|entry| entry.path()));
        let mut names: Vec<_> = paths
            .filter(|path| path.extension().is_some_and(|suffix| suffix == SUFFIX))
            .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
            .collect();
        names.sort();
        let read = |name: String| {
            self.get(&name).inspect_err(|error| log::error!("left out: {error}")).ok().flatten()
        };
        Ok(names.into_iter().filter_map(read).collect())
    }

    /// Writes a record.
    pub(super) fn put(&self, record: &Record) -> Result<()> {
        let path = self.path(&record.network.name)?;
        let fresh = path.with_extension("new");
        let text = serde_json::to_vec_pretty(record)?;
        files::replace(&path, &fresh, &text, files::PRIVATE)
            .with_context(|| format!("write record {}", path.display()))
    }

    /// Removes a record. One that is gone is no error.
    pub(super) fn remove(&self, name: &str) -> Result<()> {
        let path = self.path(name)?;
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).with_context(|| format!("remove record {}", path.display()))
            }
            _ => Ok(()),
        }
    }

    fn path(&self, name: &str) -> Result<PathBuf> {
        if !definition::is_plain(name) {
            return Err(Error::msg(format!(
                "network name {name:?}: letters, digits, \"_\", \".\" and \"-\", the first of them a letter or digit"
            )));
        }
        Ok(self.directory.join(format!("{name}.{SUFFIX}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(name: &str) -> Record {
        let network = format!(
            r#"{{"name":"{name}","id":"i","driver":"bridge","ipv6_enabled":false,"internal":false,"dns_enabled":false}}"#
        );
        Record { network: serde_json::from_str(&network).unwrap(), members: Vec::new() }
    }

    #[test]
    fn a_record_comes_back_and_goes() {
        let directory = tempfile::tempdir().unwrap();
        let records = Records::lock(&directory.path().join("a/b")).unwrap();
        assert_eq!(records.all().unwrap(), []);
        for name in ["red", "blue"] {
            records.put(&record(name)).unwrap();
        }
        assert_eq!(records.get("red").unwrap(), Some(record("red")));
        assert_eq!(records.all().unwrap(), [record("blue"), record("red")]);
        records.remove("red").unwrap();
        records.remove("red").unwrap();
        assert_eq!(records.get("red").unwrap(), None);
    }

    #[test]
    fn names_stay_in_the_directory_and_nonsense_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let records = Records::look(directory.path());
        for bad in ["", "../x", "a/b", ".x", "-x", "a b", "ä"] {
            assert!(records.get(bad).is_err(), "{bad:?}");
        }
        std::fs::write(directory.path().join("half.json"), b"{\"network\":").unwrap();
        assert!(records.get("half").unwrap_err().to_string().starts_with("record "));
        assert_eq!(records.all().unwrap(), []);
    }
}
