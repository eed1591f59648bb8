//! Which namespace is meant, and whether it is still the same one.
//!
//! A path can come to mean another namespace: a process id is used again, a name is deleted and made again. The record
//! of a member therefore has the number of its namespace (stat(2), nsfs), and a path that leads elsewhere is treated
//! as gone: nothing is ever deleted in a namespace that did not join.

use crate::error::{Context, Error, Result};
use std::ffi::OsStr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Where ip-netns(8) keeps its names.
const NAMES: &str = "/run/netns";

/// A namespace that was named on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Namespace {
    /// Where it is found.
    pub(super) path: PathBuf,
    /// What it is called if nobody says.
    pub(super) name: String,
}

impl Namespace {
    /// A word of digits is a process, one with a slash a path, any other a name.
    pub(super) fn of(word: &OsStr) -> Result<Self> {
        let text = word.to_str();
        if let Some(text) =
            text.filter(|text| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()))
        {
            return Ok(Self { path: format!("/proc/{text}/ns/net").into(), name: format!("process-{text}") });
        }
        let path = Path::new(word);
        let (Some(last), false) = (path.file_name(), word.is_empty()) else {
            return Err(Error::msg("the namespace must be a name, a process id or a path"));
        };
        let name = last.to_string_lossy().into_owned();
        let named = path.components().count() == 1;
        Ok(Self { path: if named { Path::new(NAMES).join(path) } else { std::path::absolute(path)? }, name })
    }

    /// Its number.
    pub(super) fn number(&self) -> Result<Number> {
        Number::at(&self.path).with_context(|| format!("network namespace {}", self.path.display()))
    }
}

/// What tells namespaces apart while they exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
pub(super) struct Number {
    device: u64,
    inode: u64,
}

impl Number {
    fn at(path: &Path) -> std::io::Result<Self> {
        let found = std::fs::metadata(path)?;
        Ok(Self { device: found.dev(), inode: found.ino() })
    }

    /// Whether `path` still leads to it.
    pub(super) fn is_at(self, path: &Path) -> bool {
        Self::at(path).is_ok_and(|number| number == self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(word: &str) -> (String, String) {
        let found = Namespace::of(OsStr::new(word)).unwrap();
        (found.path.display().to_string(), found.name)
    }

    #[test]
    fn names_processes_and_paths() {
        let pair = |path: &str, name: &str| (path.to_owned(), name.to_owned());
        assert_eq!(of("blue"), pair("/run/netns/blue", "blue"));
        assert_eq!(of("4711"), pair("/proc/4711/ns/net", "process-4711"));
        assert_eq!(of("/var/run/netns/x"), pair("/var/run/netns/x", "x"));
        assert!(of("./x").0.starts_with('/'));
        for bad in ["", "/", ".."] {
            assert!(Namespace::of(OsStr::new(bad)).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_path_that_leads_elsewhere_is_noticed() {
        let own = Namespace { path: "/proc/self/ns/net".into(), name: String::new() };
        let number = own.number().unwrap();
        assert!(number.is_at(&own.path));
        assert!(!number.is_at(Path::new("/proc/self/ns/mnt")));
        assert!(!number.is_at(Path::new("/nonexistent")));
        let gone = Namespace { path: "/nonexistent".into(), name: String::new() };
        assert_eq!(
            gone.number().unwrap_err().to_string(),
            "network namespace /nonexistent: IO error: No such file or directory (os error 2)"
        );
    }
}
