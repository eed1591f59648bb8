//! Man pages and shell completions, made from the same tables that the parsers use.
//!
//! ```text
//!   tables of options ──▶ model::Page ──▶ roff ──────▶ DIR/man/man1/slipway.1
//!   (getopt's, clap's)                └─▶ complete ──▶ DIR/bash-completion/completions/slipway, ..
//! ```
//! A command is first described as a [`model::Page`], whatever parses its options. Each program writes what it knows
//! itself, when it is called by the name [`PROGRAM`]: a name, because the programs stand in for others, whose command
//! lines have no room for a word of ours; and the programs, because whoever lays out files (`cargo xtask install`, a
//! package) then need not be linked with them. Nothing here runs in an ordinary start.

#![forbid(unsafe_code)]

pub mod complete;
pub mod model;
pub mod roff;

use complete::{Completion, Shell};
use model::Page;
use std::ffi::OsString;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The name under which a program of ours writes its pages: `exec -a slipway-pages slipway DIR`.
pub const PROGRAM: &str = "slipway-pages";

/// What one program has to say.
#[derive(Debug, Clone)]
pub struct Manual {
    /// The man pages.
    pub pages: Vec<Page>,
    /// The commands that a shell can complete.
    pub completions: Vec<Completion>,
}

impl Manual {
    /// All files: the place below a directory such as `/usr/share`, and the text.
    #[must_use]
    pub fn files(&self) -> Vec<(PathBuf, String)> {
        let pages = self.pages.iter().map(|page| {
            let name = format!("{}.{}", page.name, page.section);
            (Path::new("man").join(format!("man{}", page.section)).join(name), roff::write(page))
        });
        let scripts = Shell::ALL.into_iter().flat_map(|shell| {
            self.completions.iter().map(move |completion| {
                let (name, text) = complete::write(shell, completion);
                (Path::new(shell.directory()).join(name), text)
            })
        });
        pages.chain(scripts).collect()
    }

    /// Plays [`PROGRAM`] with the words behind its name: one, the directory. Says which files it wrote.
    #[must_use]
    pub fn main(&self, words: &[OsString]) -> ExitCode {
        let [dir] = words else {
            let _ = writeln!(
                std::io::stderr(),
                "usage: {PROGRAM} DIR (the place of man/ and the like: /usr/share)"
            );
            return ExitCode::from(2);
        };
        match self.write(Path::new(dir)) {
            Ok(()) => ExitCode::SUCCESS,
            Err((path, error)) => {
                let _ = writeln!(std::io::stderr(), "{PROGRAM}: {}: {error}", path.display());
                ExitCode::FAILURE
            }
        }
    }

    fn write(&self, dir: &Path) -> Result<(), (PathBuf, std::io::Error)> {
        for (place, text) in self.files() {
            let path = dir.join(place);
            let parent = path.parent().unwrap_or(dir);
            std::fs::create_dir_all(parent)
                .and_then(|()| std::fs::write(&path, text))
                .and_then(|()| writeln!(std::io::stdout(), "{}", path.display()))
                .map_err(|error| (path, error))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
