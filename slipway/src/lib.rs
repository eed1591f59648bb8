//! The program `slipway`: its own commands, and the choice among the drop-in names that it answers to.
//!
//! One binary answers to all names. Which personality it is follows from the last part of `argv[0]`; under any other
//! name than those it replaces, it is `slipway`, which takes the drop-in names as sub-commands too. `pasta` and `passt`
//! need only be part of the name, as for the originals, of which some systems have builds like `pasta.avx2`.
//!
//! ```text
//! main.rs     nothing but main
//! lib.rs      this page; personality choice
//! cli.rs      the command line of slipway itself
//! commands/   run, attach, uplink; net, which is handed on to another program
//! uplink/     the process behind networks of containers in another namespace
//! docs/       man pages and completions, from the same tables, written when it is called slipway-pages
//! ```

#![forbid(unsafe_code)]

pub mod cli;
pub mod commands;
pub mod docs;
pub mod uplink;

use slirp_compat::{pasta, pesto, rootlessport, slirp4netns};
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::ExitCode;

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Slirp4netns,
    /// `pasta`, `passt`; which of the two, they see themselves.
    Pasta,
    Pesto,
    RootlessPort,
    Worker,
    Pages,
    Slipway,
}

impl Role {
    /// The role of a program of this name: exact names before parts of one.
    fn of(name: &str) -> Self {
        match name {
            "slirp4netns" => Self::Slirp4netns,
            "pesto" => Self::Pesto,
            rootlessport::NAME => Self::RootlessPort,
            uplink::worker::NAME => Self::Worker,
            slipway_manual::PROGRAM => Self::Pages,
            // The helper of migrations is a program of its own.
            _ if name.contains("pasta") => Self::Pasta,
            _ if name.contains("passt") && !name.contains("passt-repair") => Self::Pasta,
            _ if name.contains("pesto") => Self::Pesto,
            _ => Self::Slipway,
        }
    }

    /// The role of a sub-command of this name, if that gets its words unread.
    fn below(word: &str) -> Option<Self> {
        match word {
            "slirp4netns" => Some(Self::Slirp4netns),
            "pasta" | "passt" => Some(Self::Pasta),
            "pesto" => Some(Self::Pesto),
            _ => None,
        }
    }

    /// Plays it, unless it is that of `slipway` itself.
    fn play(self, program: &str, args: &[OsString]) -> Option<ExitCode> {
        match self {
            Self::Slirp4netns => Some(slirp4netns::run::main(program, args)),
            Self::Pasta => Some(pasta::run::main(program, args)),
            Self::Pesto => Some(pesto::main(program, args)),
            Self::RootlessPort => Some(rootlessport::main()),
            Self::Worker => Some(uplink::worker::main(args)),
            Self::Pages => Some(docs::manual().main(args)),
            Self::Slipway => None,
        }
    }
}

/// Plays the part that `argv[0]` asks for, and returns the exit code.
#[must_use]
pub fn main(argv: &[OsString]) -> ExitCode {
    let program = argv.first().map_or_else(|| OsStr::new("slipway"), OsString::as_os_str);
    let args = argv.get(1..).unwrap_or_default();
    let name = Path::new(program).file_name().and_then(OsStr::to_str).unwrap_or_default();
    let program = program.to_string_lossy();
    if let Some(code) = Role::of(name).play(&program, args) {
        return code;
    }
    // Not left to clap, which would have an opinion about its words.
    if let Some((first, rest)) = args.split_first()
        && let Some(word) = first.to_str()
        && let Some(code) = Role::below(word).and_then(|role| role.play(&format!("{program} {word}"), rest))
    {
        return code;
    }
    commands::main(argv)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_the_role() {
        let roles = [
            ("slirp4netns", Role::Slirp4netns),
            ("pasta", Role::Pasta),
            ("pasta.avx2", Role::Pasta),
            ("my-passt", Role::Pasta),
            ("passt", Role::Pasta),
            ("passt-repair", Role::Slipway),
            ("pesto", Role::Pesto),
            ("pesto.new", Role::Pesto),
            ("pasta-pesto", Role::Pasta),
            ("rootlessport", Role::RootlessPort),
            (uplink::worker::NAME, Role::Worker),
            (slipway_manual::PROGRAM, Role::Pages),
            ("slipway", Role::Slipway),
            ("", Role::Slipway),
        ];
        for (name, role) in roles {
            assert_eq!(Role::of(name), role, "{name}");
        }
    }

    #[test]
    fn sub_commands_are_the_names_that_engines_start() {
        let clap: Vec<_> = cli::command().get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
        for word in ["slirp4netns", "pasta", "passt", "pesto"] {
            assert_eq!(Role::below(word), Some(Role::of(word)));
            assert!(clap.iter().any(|name| name == word), "{word} is in the help text");
        }
        assert_eq!(Role::below("run"), None);
    }
}
