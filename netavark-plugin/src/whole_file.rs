//! Files that are written whole or not at all: records, leases, rules and names that other processes read, and that the
//! next call has to understand after this one was killed or the disk was full.
//!
//! The text goes into a file beside, which then takes the place of the old one (rename(2)). Whoever calls holds whatever
//! lock there is: two writers of one `fresh` would mix.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// What everybody may read, as far as the process's mask lets them.
pub(crate) const PUBLIC: u32 = 0o666;
/// What nobody else may read.
pub(crate) const PRIVATE: u32 = 0o600;

/// Puts `text` in the place of what `path` has, by way of `fresh`, which is on the same file system.
///
/// # Errors
/// The kernel's. The old file is then as it was, and nothing else is left.
pub(crate) fn replace(path: &Path, fresh: &Path, text: &[u8], mode: u32) -> io::Result<()> {
    let written = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(fresh)
        .and_then(|mut file| file.write_all(text))
        .and_then(|()| fs::rename(fresh, path));
    if written.is_err() {
        // What was written before the disk was full; if it cannot be removed, the next call writes over it.
        let _ = fs::remove_file(fresh);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn the_new_takes_the_place_of_the_old_and_a_failure_leaves_it() {
        let dir = tempfile::tempdir().unwrap();
        let (path, fresh) = (dir.path().join("a"), dir.path().join("a.new"));
        fs::write(&path, "old").unwrap();
        replace(&path, &fresh, b"new", PRIVATE).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, PRIVATE);
        fs::create_dir(dir.path().join("taken")).unwrap();
        assert!(replace(&dir.path().join("taken"), &fresh, b"x", PUBLIC).is_err());
        assert!(!fresh.exists(), "nothing is left");
        fs::remove_dir(dir.path().join("taken")).unwrap();
        let full = Path::new("/dev/full");
        assert!(replace(&path, &full.join("x"), b"x", PUBLIC).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
