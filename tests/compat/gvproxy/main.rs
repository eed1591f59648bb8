//! The contract of gvproxy, seen from outside: the binary under its drop-in name, beside the original of
//! `target/trees` where that is there (`cargo xtask deps`) and of an age that can be compared.

mod life;
mod t01_words;
mod t02_life;
mod t03_guests;
mod t04_api;
mod t05_fronts;
mod t06_forwarder;

use slipway_lab::{built, tree};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Who is asked.
enum Subject {
    /// Ours.
    Ours(PathBuf),
    /// Debian's, by the loader of its tree.
    Original { loader: PathBuf, program: PathBuf },
}

impl Subject {
    /// `None` after saying why the test is skipped.
    fn ours(test: &str) -> Option<Self> {
        let found = built("SLIPWAY_GVPROXY_BINARY", "slipway-gvproxy");
        found.map(Self::Ours).map_err(|reason| println!("SKIP {test}: {reason}")).ok()
    }

    /// `None` after saying that ours is on its own.
    fn original(test: &str) -> Option<Self> {
        let found = tree("gvproxy").and_then(|root| {
            Self::of(&root).ok_or_else(|| format!("{} has no gvproxy that could be started", root.display()))
        });
        found.map_err(|reason| println!("SKIP {test}: the original: {reason}")).ok()
    }

    fn of(root: &Path) -> Option<Self> {
        let dirs = std::fs::read_dir(root.join("usr/lib")).ok()?;
        let mut files =
            dirs.flatten().filter_map(|dir| std::fs::read_dir(dir.path()).ok()).flatten().flatten();
        let loader = files.find(|file| file.file_name().to_string_lossy().starts_with("ld-linux"))?.path();
        let program = root.join("usr/bin/gvproxy");
        program.is_file().then_some(Self::Original { loader, program })
    }

    /// Both, as far as they are there; `None`: not even ours.
    fn both(test: &str) -> Option<Vec<Self>> {
        let ours = Self::ours(test)?;
        Some([ours].into_iter().chain(Self::original(test)).collect())
    }

    fn is_ours(&self) -> bool {
        matches!(self, Self::Ours(_))
    }

    /// The command, under its usual name.
    fn cmd(&self) -> Command {
        let mut command = match self {
            Self::Ours(program) => Command::new(program),
            Self::Original { loader, program } => {
                let mut command = Command::new(loader);
                let libraries = loader.parent().unwrap_or_else(|| Path::new("/"));
                command.arg("--library-path").arg(libraries).args(["--argv0", "gvproxy"]).arg(program);
                command
            }
        };
        if self.is_ours() {
            command.arg0("gvproxy");
        }
        command.stdin(Stdio::null());
        command
    }
}

/// The lines of a log, less the time.
fn lines(log: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(log);
    text.lines().map(|line| line.split_once(" level=").map_or(line, |(_, rest)| rest).to_owned()).collect()
}
