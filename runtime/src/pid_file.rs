//! A file with our process id, which goes with us, unless it is somebody else's by then.

use slipway_host::strerror::words;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// The file. Removed when this is dropped, if it still says what we wrote.
#[derive(Debug)]
pub struct PidFile {
    path: PathBuf,
    text: String,
}

impl PidFile {
    /// Writes it.
    ///
    /// # Errors
    /// One line that says why not.
    pub fn write(path: &Path) -> Result<Self, String> {
        let text = format!("{}\n", std::process::id());
        std::fs::write(path, &text)
            .map_err(|error| format!("cannot write {}: {}", path.display(), words(&error)))?;
        Ok(Self { path: path.to_owned(), text })
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // A pipe is not read here, which would wait, and a device is not removed.
        let file = std::fs::metadata(&self.path).is_ok_and(|metadata| metadata.is_file());
        if file && std::fs::read(&self.path).is_ok_and(|text| text == self.text.as_bytes()) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// A file that will say our process id once everything works, and stays when we go. It is opened early, for it may lie
/// where nothing is opened any more by then.
#[derive(Debug)]
pub struct Promise(File);

impl Promise {
    /// Opens it, empty, for its owner alone; one that is there already keeps its mode.
    ///
    /// # Errors
    /// Those of open(2).
    pub fn open(path: &Path) -> io::Result<Self> {
        File::options().write(true).create(true).truncate(true).mode(0o600).open(path).map(Self)
    }

    /// Writes the id of this process.
    ///
    /// # Errors
    /// Those of write(2).
    pub fn keep(mut self) -> io::Result<()> {
        self.0.write_all(format!("{}\n", std::process::id()).as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_successors_file_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pid");
        let ours = PidFile::write(&path).unwrap();
        // In place, as we do it, and by another file of that name.
        std::fs::write(&path, "1\n").unwrap();
        drop(ours);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "1\n");
        let ours = PidFile::write(&path).unwrap();
        std::fs::write(dir.path().join("new"), "1\n").unwrap();
        std::fs::rename(dir.path().join("new"), &path).unwrap();
        drop(ours);
        assert!(path.exists());
        drop(PidFile::write(&path).unwrap());
        assert!(!path.exists());
    }

    #[test]
    fn a_promise_is_kept_by_whoever_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pid");
        std::fs::write(&path, "of somebody before us").unwrap();
        let promise = Promise::open(&path).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "");
        promise.keep().unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
        assert!(Promise::open(dir.path()).is_err());
    }
}
