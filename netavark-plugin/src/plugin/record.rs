//! Who is on a network: one file for each, and a lock that is held for a whole call.
//!
//! The uplink forgets everything when it ends. Containers go on, their bridge too; only the way out is gone. The next
//! container that joins hands over a new TAP, and everybody who is still on the bridge is announced again from this
//! record. It decides nothing else: what is to be deleted is read from the bridge itself, so a record that is lost or
//! damaged costs the others their names until they are set up anew, and no more.
//!
//! The lock is a file beside the record. Whoever removes it (the last container) does so while holding it, so whoever
//! has waited for it looks whether it is still the one that others find.

use crate::definition;
use crate::error::{Context, Error, Result};
use crate::spec::PortMapping;
use serde::{Deserialize, Serialize};
use slipway_host::files::{self, Lock};
use slipway_uplink::wire::Container;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// How often the lock may vanish while it is waited for.
const ATTEMPTS: usize = 1000;

/// A container on the network.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub(super) struct Member {
    /// As the uplink is told of it.
    pub(super) container: Container,
    /// The host's end of its pair, by number and by name: numbers are used again.
    pub(super) port: u32,
    pub(super) port_name: String,
    /// What it publishes.
    pub(super) ports: Vec<PortMapping>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
struct Content {
    members: Vec<Member>,
}

/// The record of one network, locked.
#[derive(Debug)]
pub(super) struct Record {
    directory: PathBuf,
    id: String,
    pub(super) members: Vec<Member>,
    _lock: Lock,
}

impl Record {
    /// Waits until no other call is about this network, then reads.
    pub(super) fn lock(directory: &Path, id: &str) -> Result<Self> {
        if !definition::is_plain(id) {
            return Err(Error::msg(format!("{id:?} cannot be a network ID")));
        }
        let within = || format!("directory of records {}", directory.display());
        DirBuilder::new().recursive(true).mode(0o700).create(directory).with_context(within)?;
        let lock = exclusive(&path(directory, id, "lock"))?;
        let members = read(&path(directory, id, "json")).members;
        Ok(Self { directory: directory.to_owned(), id: id.to_owned(), members, _lock: lock })
    }

    /// Writes it; a record of nobody is removed.
    pub(super) fn save(&self) -> Result<()> {
        let path = path(&self.directory, &self.id, "json");
        // What a process that was killed has left half-written goes, too; the lock last.
        let fresh = path.with_extension("new");
        if self.members.is_empty() {
            let lock = path.with_extension("lock");
            return [&path, &fresh, &lock].into_iter().try_for_each(|path| match fs::remove_file(path) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    Err(error).with_context(|| format!("remove {}", path.display()))
                }
                _ => Ok(()),
            });
        }
        let text = serde_json::to_vec(&Content { members: self.members.clone() })?;
        files::replace(&path, &fresh, &text, files::PRIVATE)
            .with_context(|| format!("write record {}", path.display()))
    }
}

/// Who is on record for which network, without waiting for anybody: files are replaced as a whole.
pub(super) fn all(directory: &Path) -> Vec<(String, Vec<Member>)> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    let records = entries.filter(|path| path.extension().is_some_and(|suffix| suffix == "json"));
    let id = |path: &Path| Some(path.file_stem()?.to_str()?.to_owned());
    records.filter_map(|path| Some((id(&path)?, read(&path).members))).collect()
}

fn path(directory: &Path, id: &str, suffix: &str) -> PathBuf {
    directory.join(format!("{id}.{suffix}"))
}

/// What a file has. One that makes no sense is as good as none.
fn read(path: &Path) -> Content {
    let content = match fs::read(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Content::default(),
        Err(error) => Err(error.to_string()),
        Ok(text) => serde_json::from_slice(&text).map_err(|error| error.to_string()),
    };
    content
        .inspect_err(|error| log::warn!("record {} is passed over: {error}", path.display()))
        .unwrap_or_default()
}

fn exclusive(path: &Path) -> Result<Lock> {
    let within = || format!("lock {}", path.display());
    for _ in 0..ATTEMPTS {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .with_context(within)?;
        let lock = Lock::of(file).with_context(within)?;
        let held = lock.file().metadata().with_context(within)?;
        if fs::metadata(path).is_ok_and(|found| (found.dev(), found.ino()) == (held.dev(), held.ino())) {
            return Ok(lock);
        }
    }
    Err(Error::msg(format!("lock {}: it is removed again and again", path.display())))
}

/// For the fuzzer: any bytes as a record.
pub(super) fn fuzz(data: &[u8]) {
    let Ok(content) = serde_json::from_slice::<Content>(data) else { return };
    let text = serde_json::to_vec(&content).unwrap_or_default();
    let again: Content = serde_json::from_slice(&text).unwrap_or_default();
    assert_eq!(again.members, content.members, "what was read is written as it was read");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: &str, ports: &[u16]) -> Member {
        let container = Container { id: id.into(), name: "n".into(), ..Container::default() };
        let mapping = |port: &u16| PortMapping {
            container_port: *port,
            host_port: *port,
            host_ip: String::new(),
            protocol: "tcp".into(),
            range: 1,
        };
        Member { container, port: 7, port_name: "veth7".into(), ports: ports.iter().map(mapping).collect() }
    }

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_record_comes_back_and_goes() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path().join("a/b");
        let mut record = Record::lock(&directory, "n1").unwrap();
        assert_eq!(record.members, []);
        record.members = vec![member("c1", &[80]), member("c2", &[])];
        record.save().unwrap();
        drop(record);
        let mut record = Record::lock(&directory, "n1").unwrap();
        assert_eq!(record.members, [member("c1", &[80]), member("c2", &[])]);
        let other = Record::lock(&directory, "n2").unwrap();
        assert_eq!(other.members, []);
        record.members.clear();
        fs::write(directory.join("n1.new"), b"{\"mem").unwrap();
        record.save().unwrap();
        record.save().unwrap();
        other.save().unwrap();
        assert_eq!(names(&directory), [""; 0]);
    }

    #[test]
    fn a_lock_that_was_removed_is_not_held() {
        let directory = tempfile::tempdir().unwrap();
        let first = Record::lock(directory.path(), "n1").unwrap();
        std::thread::scope(|scope| {
            let second = scope.spawn(|| Record::lock(directory.path(), "n1").unwrap());
            std::thread::sleep(std::time::Duration::from_millis(20));
            first.save().unwrap();
            drop(first);
            let second = second.join().unwrap();
            assert_eq!(names(directory.path()), ["n1.lock"], "the second made its own");
            drop(second);
        });
    }

    #[test]
    fn ids_stay_in_the_directory_and_nonsense_is_passed_over() {
        let directory = tempfile::tempdir().unwrap();
        for bad in ["", "../x", "a/b", ".x", "a b"] {
            assert!(Record::lock(directory.path(), bad).is_err(), "{bad:?}");
        }
        fs::write(directory.path().join("n1.json"), b"{\"members\":[{}").unwrap();
        assert_eq!(Record::lock(directory.path(), "n1").unwrap().members, []);
    }
}
