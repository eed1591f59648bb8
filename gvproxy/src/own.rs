//! Files that are ours as long as the process lives: sockets of guests, the PID file.
//!
//! They go at the end whatever the end is, but for SIGKILL. Somebody else's of that name, made meanwhile, stays: a file
//! is known by its number.

use std::fs::{self, Metadata};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Files that go when this does.
#[derive(Debug, Default)]
pub struct Own(Vec<Ours>);

#[derive(Debug)]
struct Ours {
    path: PathBuf,
    /// Device and inode.
    number: (u64, u64),
}

fn number(of: &Metadata) -> (u64, u64) {
    (of.dev(), of.ino())
}

impl Own {
    /// What is at `path` is ours. A path that leads to nothing is nobody's.
    pub fn take(&mut self, path: &Path) {
        if let Ok(found) = path.symlink_metadata() {
            // The process's directory may be another one at the end.
            let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
            self.0.push(Ours { path, number: number(&found) });
        }
    }

    /// Writes the id of this process to a file: digits and nothing else, for there are readers that take a newline for
    /// one.
    ///
    /// # Errors
    /// Those of open(2) and write(2).
    pub fn write_pid(&mut self, path: &Path) -> io::Result<()> {
        let mut file = fs::File::create(path)?;
        file.write_all(std::process::id().to_string().as_bytes())?;
        // A device or a pipe is not ours to remove.
        if file.metadata()?.is_file() {
            self.take(path);
        }
        Ok(())
    }

    /// The directories that files are removed from at the end.
    #[must_use]
    pub fn directories(&self) -> Vec<&Path> {
        self.0.iter().filter_map(|ours| ours.path.parent()).collect()
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        for ours in &self.0 {
            if ours.path.symlink_metadata().is_ok_and(|found| number(&found) == ours.number) {
                let _ = fs::remove_file(&ours.path);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_ours_goes_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let mut own = Own::default();
        own.write_pid(&at("pid")).unwrap();
        assert_eq!(fs::read_to_string(at("pid")).unwrap(), std::process::id().to_string());
        fs::write(at("replaced"), "").unwrap();
        own.take(&at("replaced"));
        own.take(&at("nothing"));
        fs::write(at("new"), "").unwrap();
        fs::rename(at("new"), at("replaced")).unwrap();
        drop(own);
        assert!(!at("pid").exists() && at("replaced").exists());
    }

    #[test]
    fn a_device_is_written_to_and_stays() {
        let mut own = Own::default();
        own.write_pid(Path::new("/dev/null")).unwrap();
        assert!(own.directories().is_empty());
        assert!(own.write_pid(Path::new("/dev/null/x")).is_err());
    }
}
