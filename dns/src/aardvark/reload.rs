//! From the configuration's directory to a snapshot.
//!
//! Each file is a network, but the pid file. They are read in the order of their names, so that one directory always
//! gives one snapshot. The files are written by others without a lock that we could take: one may be half written when
//! it is read. A file that cannot be understood is told in the log; the network goes on as it was last understood, or,
//! if it never was, is left out. When the file is gone, so is the network.

use crate::config::aardvark::{self, NetworkFile, PID_FILE};
use crate::zone::{Settings, Snapshot};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// The directory, and what was last understood of it.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    settings: Settings,
    /// By file name: the text, which is far smaller than what is made of it.
    understood: BTreeMap<String, Vec<u8>>,
}

impl Directory {
    pub(super) fn new(path: &Path, settings: Settings) -> Self {
        Self { path: path.to_owned(), settings, understood: BTreeMap::new() }
    }

    /// Reads all of it.
    ///
    /// # Errors
    /// The directory itself cannot be read.
    pub(super) fn read(&mut self) -> io::Result<Snapshot> {
        let mut understood = BTreeMap::new();
        let mut builder = Snapshot::builder(self.settings.clone());
        for name in self.names()? {
            let Some((text, network)) = self.network(&name) else { continue };
            builder.add(network);
            understood.insert(name, text);
        }
        self.understood = understood;
        Ok(builder.build())
    }

    /// The names of the networks' files, sorted.
    fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.path)? {
            let name = entry?.file_name();
            if name.as_bytes() == PID_FILE.as_bytes() {
                continue;
            }
            match name.into_string() {
                Ok(name) => names.push(name),
                Err(name) => log::error!("network file {} is left out: not UTF-8", name.display()),
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// A network, and the text that says so.
    fn network(&mut self, name: &str) -> Option<(Vec<u8>, NetworkFile)> {
        let before = self.understood.remove(name);
        let reason = match read(&self.path.join(name)) {
            Ok(text) => match aardvark::parse(name, &text) {
                Ok(network) => return Some((text, network)),
                Err(error) => error.to_string(),
            },
            // Removed between the listing and now: the network is gone.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => error.to_string(),
        };
        let Some(text) = before else {
            log::error!("network {name} is left out: {reason}");
            return None;
        };
        log::error!("network {name} stays as it was: {reason}");
        let network = aardvark::parse(name, &text).ok()?;
        Some((text, network))
    }
}

/// The whole file. A FIFO or a device in its place neither blocks nor floods us.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let file =
        File::options().read(true).custom_flags(nix::libc::O_NONBLOCK | nix::libc::O_NOCTTY).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut text = Vec::new();
    let bound = u64::try_from(aardvark::MAX_BYTES).unwrap_or(u64::MAX);
    // One more, so that a longer file is known to be one.
    file.take(bound.saturating_add(1)).read_to_end(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::stat::Mode;

    struct Fixture {
        dir: tempfile::TempDir,
        directory: Directory,
    }

    impl Fixture {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let directory = Directory::new(dir.path(), Settings::default());
            Self { dir, directory }
        }

        fn write(&self, name: &str, text: &str) {
            std::fs::write(self.dir.path().join(name), text).unwrap();
        }

        /// The networks, each with its number of names.
        fn read(&mut self) -> Vec<(String, usize)> {
            let snapshot = self.directory.read().unwrap();
            snapshot.networks().map(|(_, network)| (network.name().to_owned(), network.names())).collect()
        }
    }

    fn list(networks: &[(&str, usize)]) -> Vec<(String, usize)> {
        networks.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
    }

    #[test]
    fn files_are_networks_in_the_order_of_their_names() {
        let mut fixture = Fixture::new();
        assert_eq!(fixture.read(), []);
        fixture.write("b", "127.0.0.2\nx 10.0.0.1  one,two\n");
        fixture.write("a%int", "127.0.0.1\n");
        fixture.write(PID_FILE, "1");
        assert_eq!(fixture.read(), list(&[("a", 0), ("b", 2)]));
    }

    #[test]
    fn what_was_understood_lasts_until_the_file_is_gone() {
        let mut fixture = Fixture::new();
        fixture.write("a", "127.0.0.1\nx 10.0.0.1  one\n");
        fixture.write("never", "127.0.0.1\nx 10.0.0.\n");
        assert_eq!(fixture.read(), list(&[("a", 1)]));
        for half in ["", "127.0.0.1\nx 10.0.", "127.0.0.1\nx 10.0.0.1"] {
            fixture.write("a", half);
            assert_eq!(fixture.read(), list(&[("a", 1)]), "{half:?}");
        }
        fixture.write("a", "127.0.0.1\nx 10.0.0.1  one,two\n");
        assert_eq!(fixture.read(), list(&[("a", 2)]));
        std::fs::remove_file(fixture.dir.path().join("a")).unwrap();
        assert_eq!(fixture.read(), []);
        fixture.write("a", "");
        assert_eq!(fixture.read(), [], "it was forgotten");
    }

    #[test]
    fn strange_things_in_the_directory_neither_block_nor_harm() {
        let mut fixture = Fixture::new();
        let at = |name: &str| fixture.dir.path().join(name);
        nix::unistd::mkfifo(&at("fifo"), Mode::S_IRWXU).unwrap();
        std::fs::create_dir(at("directory")).unwrap();
        std::os::unix::fs::symlink("/dev/zero", at("device")).unwrap();
        std::os::unix::fs::symlink("nowhere", at("dangling")).unwrap();
        std::fs::write(at("bytes"), [0xff; 100]).unwrap();
        let name = <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"\xff");
        std::fs::write(fixture.dir.path().join(name), "127.0.0.1\n").unwrap();
        fixture.write("good", "127.0.0.1\n");
        assert_eq!(fixture.read(), list(&[("good", 0)]));
    }

    #[test]
    fn a_directory_that_is_gone_is_an_error() {
        let mut fixture = Fixture::new();
        std::fs::remove_dir(fixture.dir.path()).unwrap();
        assert!(fixture.directory.read().is_err());
    }
}
