//! The contract of pasta and passt, seen from outside: the binary under its drop-in names, beside the original of
//! `target/trees` where that is there (`cargo xtask deps`), which proves the tests.

mod t01_words;
mod t02_log;
mod t03_told;
mod t04_network;
mod t05_follow;

use slipway_lab::{built, tree};
use std::path::{Path, PathBuf};

/// The program; `None` after saying why the test is skipped.
fn ours(test: &str) -> Option<PathBuf> {
    built("SLIPWAY_E2E_BINARY", "slipway").map_err(|reason| println!("SKIP {test}: {reason}")).ok()
}

/// The original, by the loader of its tree.
struct Original {
    root: PathBuf,
    loader: PathBuf,
}

impl Original {
    /// `None` after saying that ours is on its own.
    fn find(test: &str) -> Option<Self> {
        let found = tree("peers").or_else(|_| tree("podman-6")).and_then(|root| {
            let lies = || format!("{} has no passt that could be started", root.display());
            Self::of(&root).ok_or_else(lies)
        });
        found.map_err(|reason| println!("SKIP {test}: the original: {reason}")).ok()
    }

    fn of(root: &Path) -> Option<Self> {
        let dirs = std::fs::read_dir(root.join("usr/lib")).ok()?;
        let mut files =
            dirs.flatten().filter_map(|dir| std::fs::read_dir(dir.path()).ok()).flatten().flatten();
        let loader = files.find(|file| file.file_name().to_string_lossy().starts_with("ld-linux"))?.path();
        let found = root.join("usr/bin/passt").is_file();
        found.then(|| Self { root: root.to_owned(), loader })
    }

    /// The words that start it under a name.
    fn words(&self, name: &str) -> Vec<String> {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let libraries = self.loader.parent().map(text).unwrap_or_default();
        let program = text(&self.root.join("usr/bin/passt"));
        [text(&self.loader), "--library-path".into(), libraries, "--argv0".into(), name.into(), program]
            .into()
    }
}
