//! The modules of a guest's kernel: where they lie in its tree, and what each needs before it.
//!
//! A tree is unpacked and not configured, so there is no `modules.dep`: what a module needs stands in the module itself
//! (`depends=` in its section `.modinfo`). What has no file is part of the kernel.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::command::Cmd;

const LIMIT: Duration = Duration::from_secs(20);

/// The modules of one kernel, by name.
#[derive(Debug)]
pub(super) struct Modules {
    files: BTreeMap<String, PathBuf>,
    /// What unpacks them: a busybox that needs nothing.
    busybox: PathBuf,
}

impl Modules {
    /// Those below a directory.
    pub(super) fn below(dir: &Path, busybox: PathBuf) -> io::Result<Self> {
        let mut files = BTreeMap::new();
        let mut todo = vec![dir.to_owned()];
        while let Some(dir) = todo.pop() {
            for entry in std::fs::read_dir(dir)?.flatten() {
                let path = entry.path();
                let name = entry.file_name().to_string_lossy().replace('-', "_");
                if entry.file_type()?.is_dir() {
                    todo.push(path);
                } else if let Some((name, _)) = name.split_once(".ko") {
                    files.insert(name.to_owned(), path);
                }
            }
        }
        Ok(Self { files, busybox })
    }

    /// A module and all that it needs, in the order in which they are loaded; none where it is part of the kernel.
    pub(super) fn with_needs(&self, name: &str) -> io::Result<Vec<(String, Vec<u8>)>> {
        let mut loaded: Vec<(String, Vec<u8>)> = Vec::new();
        self.add(&name.replace('-', "_"), &mut loaded)?;
        Ok(loaded)
    }

    fn add(&self, name: &str, loaded: &mut Vec<(String, Vec<u8>)>) -> io::Result<()> {
        let Some(file) = self.files.get(name) else { return Ok(()) };
        if loaded.iter().any(|(there, _)| there == name) {
            return Ok(());
        }
        let bytes = self.unpacked(file)?;
        // The kernel forbids circles.
        for needed in needs(&bytes) {
            self.add(&needed, loaded)?;
        }
        loaded.push((name.to_owned(), bytes));
        Ok(())
    }

    fn unpacked(&self, file: &Path) -> io::Result<Vec<u8>> {
        match file.extension().and_then(|end| end.to_str()) {
            Some("ko") => std::fs::read(file),
            Some("xz") => {
                let unpack = Cmd::new([self.busybox.as_path(), "xz".as_ref(), "-dc".as_ref(), file]);
                Ok(unpack.ok(LIMIT)?.stdout)
            }
            _ => Err(io::Error::other(format!("{}: packed in an unknown way", file.display()))),
        }
    }
}

/// The names after `depends=`.
fn needs(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let at = module.windows(KEY.len()).position(|window| window == KEY);
    let text = at.and_then(|at| module.get(at + KEY.len()..)).unwrap_or_default();
    let end = text.iter().position(|byte| *byte == 0).unwrap_or(0);
    let names = String::from_utf8_lossy(text.get(..end).unwrap_or_default()).into_owned();
    names.split(',').filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_comes_after_what_it_needs() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("net")).unwrap();
        for (name, needs) in [("net/card.ko", "fail-over,part_of_kernel"), ("fail-over.ko", "")] {
            std::fs::write(dir.path().join(name), format!("ELF\0name=x\0depends={needs}\0end")).unwrap();
        }
        let modules = Modules::below(dir.path(), "/nothing".into()).unwrap();
        let names = |name: &str| -> Vec<String> {
            modules.with_needs(name).unwrap().into_iter().map(|(name, _)| name).collect()
        };
        assert_eq!(names("card"), ["fail_over", "card"]);
        assert!(names("part_of_kernel").is_empty());
        std::fs::write(dir.path().join("odd.ko.lz"), "x").unwrap();
        let modules = Modules::below(dir.path(), "/nothing".into()).unwrap();
        assert!(modules.with_needs("odd").is_err());
    }
}
