//! Style and structure: format, clippy, the laws of the tree, licences.

use crate::tool::{self, Done};
use crate::{fuzz, laws, tool::cargo};

/// The version of cargo-deny that `deny.toml` is written for.
const CARGO_DENY: &str = "0.20.2";

/// Every check; all of them run even when one fails.
pub(crate) fn run() -> Done {
    let mut failures = Vec::new();
    for check in [format, clippy, laws::check, fuzz::check, deny] {
        if let Err(error) = check() {
            eprintln!("xtask: {error}");
            failures.push(error);
        }
    }
    if failures.is_empty() { Ok(()) } else { Err(format!("lint: {}", failures.join("; "))) }
}

fn format() -> Done {
    tool::run(&mut cargo(&["fmt", "--all", "--check"]))
}

fn clippy() -> Done {
    tool::run(&mut cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))
}

/// Licences, bans and sources. The advisory database is a download of its own and is left to people.
fn deny() -> Done {
    let there = cargo(&["deny", "--version"]).output().is_ok_and(|output| output.status.success());
    if !there {
        // Unoptimised: it builds in under a minute and runs for a second.
        let mut install =
            cargo(&["install", "cargo-deny", "--locked", "--debug", "--quiet", "--version", CARGO_DENY]);
        install.env("CARGO_PROFILE_DEV_DEBUG", "0").env_remove("CARGO_TARGET_DIR");
        if let Err(error) = tool::run(&mut install) {
            println!("SKIP cargo-deny: {error}");
            return Ok(());
        }
    }
    // The fuzz targets are a workspace of their own, with a lock file of their own.
    for manifest in ["Cargo.toml", "fuzz/Cargo.toml"] {
        let mut deny = cargo(&["deny", "--log-level", "error", "--config", "deny.toml"]);
        deny.args(["--manifest-path", manifest, "check", "bans", "licenses", "sources"]);
        tool::run(&mut deny)?;
    }
    Ok(())
}
