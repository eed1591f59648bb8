//! Style and structure: format, clippy, parts by themselves, documentation, the laws of the tree, what its papers say,
//! licences.

use crate::tool::{self, Done};
use crate::{fuzz, laws, papers, tool::cargo};

/// The version of cargo-deny that `deny.toml` is written for.
const CARGO_DENY: &str = "0.20.2";

/// Another architecture that the sources are written for.
const OTHER: &str = "aarch64-unknown-linux-gnu";
/// What compiles C for it.
const OTHER_CC: &str = "aarch64-linux-gnu-gcc";

/// Every check; all of them run even when one fails.
pub(crate) fn run() -> Done {
    let mut failures = Vec::new();
    let checks = [
        format,
        clippy,
        dns_alone,
        pages,
        laws::check,
        papers::check,
        oldest_compiler,
        other_architecture,
        fuzz_targets,
        deny,
    ];
    for check in checks {
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

/// The names without the daemon, and without sockets: nothing else in the workspace builds them so.
fn dns_alone() -> Done {
    for features in [&[][..], &["--features", "io"]] {
        let mut clippy = cargo(&["clippy", "--package", "slipway-dns", "--no-default-features"]);
        tool::run(clippy.args(features).args(["--all-targets", "--", "-D", "warnings"]))?;
    }
    Ok(())
}

/// What the comments link to is there. They are for those who work on the tree, so what is private counts as well.
fn pages() -> Done {
    tool::run(
        cargo(&["doc", "--workspace", "--no-deps", "--document-private-items", "--quiet"])
            .env("RUSTDOCFLAGS", "-D warnings -A rustdoc::private-intra-doc-links"),
    )
}

/// The oldest compiler that the manifest claims, where rustup has it; the lint `incompatible_msrv` looks everywhere.
fn oldest_compiler() -> Done {
    let manifest = std::fs::read_to_string(tool::root().join("Cargo.toml")).unwrap_or_default();
    let version = claimed(&manifest).ok_or("Cargo.toml claims no rust-version")?;
    let mut has = std::process::Command::new("rustup");
    let has = has.args(["run", version, "rustc", "--version"]).output();
    if !has.is_ok_and(|output| output.status.success()) {
        tool::skip(&format!("a check by Rust {version}"), "rustup does not have it");
        return Ok(());
    }
    let mut check = std::process::Command::new("rustup");
    check.args(["run", version, "cargo", "check", "--workspace"]).env_remove("CARGO").env_remove("RUSTC");
    tool::run(check.env_remove("RUSTUP_TOOLCHAIN").current_dir(tool::root()))
}

fn claimed(manifest: &str) -> Option<&str> {
    let line = manifest.lines().find_map(|line| line.strip_prefix("rust-version = "))?;
    Some(line.trim().trim_matches('"'))
}

/// Types of other widths and signs, other system calls: `c_char`, what the filter names, alignment of `libc`'s
/// structures. Only where its standard library is installed (`rustup target add`), for it comes from nowhere else.
fn other_architecture() -> Done {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let mut place = std::process::Command::new(rustc);
    let place = tool::output(place.args(["--print", "target-libdir", "--target", OTHER]))?;
    if !std::path::Path::new(place.trim()).is_dir() {
        tool::skip(&format!("a check for {OTHER}"), "the compiler has no standard library for it");
        return Ok(());
    }
    let mut products = vec!["slipway", "slipway-dns", "slipway-netavark"];
    if slipway_lab::which(OTHER_CC).is_some() {
        products.push("slipway-gvproxy");
    } else {
        tool::skip(&format!("a check of slipway-gvproxy for {OTHER}"), "ring wants a C compiler for it");
    }
    let mut check = cargo(&["check", "--target", OTHER]);
    tool::run(check.args(products.iter().flat_map(|name| ["--package", name])))
}

/// The fuzz targets are a workspace of their own, which may want packages that cannot be had here.
fn fuzz_targets() -> Done {
    match locked("fuzz/Cargo.toml")? {
        Ok(()) => fuzz::check(),
        Err(reason) => {
            tool::skip("fuzz targets", &reason);
            Ok(())
        }
    }
}

/// Licences, bans, sources and advisories, of the tree and of `fuzz`, which has a lock of its own.
fn deny() -> Done {
    if let Err(error) = cargo_deny() {
        tool::skip("licences, bans, sources and advisories", &format!("no cargo-deny: {error}"));
        return Ok(());
    }
    let mut checks = vec!["bans", "licenses", "sources"];
    match advisories() {
        Ok(()) => checks.push("advisories"),
        Err(reason) => tool::skip("advisories", &reason),
    }
    for manifest in ["Cargo.toml", "fuzz/Cargo.toml"] {
        if let Err(error) = locked(manifest)? {
            tool::skip(&format!("licences and the like of {manifest}"), &error);
            continue;
        }
        // What was to be fetched is here.
        let options =
            ["--log-level", "error", "--frozen", "--config", "deny.toml", "--manifest-path", manifest];
        tool::run(cargo(&["deny"]).args(options).arg("check").args(&checks))?;
    }
    Ok(())
}

/// Gets cargo-deny if it is not there.
fn cargo_deny() -> Done {
    if cargo(&["deny", "--version"]).output().is_ok_and(|output| output.status.success()) {
        return Ok(());
    }
    // Unoptimised: it builds in under a minute and runs for a second.
    let mut install = cargo(&["install", "cargo-deny", "--locked", "--debug", "--version", CARGO_DENY]);
    install.env("CARGO_PROFILE_DEV_DEBUG", "0").env_remove("CARGO_TARGET_DIR");
    tool::run(&mut install)
}

/// Fetches the database of advisories, which is a download of its own; a mirror that says nothing is not waited for.
fn advisories() -> Done {
    let mut fetch = std::process::Command::new("timeout");
    fetch.args(["--kill-after=5", "60", "cargo", "deny", "--log-level", "error", "fetch", "db"]);
    let output = fetch.current_dir(tool::root()).output().map_err(|error| format!("timeout: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let told = String::from_utf8_lossy(&output.stderr);
    let line = told.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("it takes too long");
    Err(format!("the database cannot be had: {line}"))
}

/// Whether the lock fits the manifest, which is demanded; or why that cannot be told here (packages that cannot be
/// had).
fn locked(manifest: &str) -> Done<Done> {
    let mut metadata = cargo(&["metadata", "--locked", "--format-version", "1", "--manifest-path", manifest]);
    let output = metadata.output().map_err(|error| format!("cargo metadata: {error}"))?;
    judged(manifest, output.status.success(), &String::from_utf8_lossy(&output.stderr))
}

fn judged(manifest: &str, good: bool, told: &str) -> Done<Done> {
    match told {
        _ if good => Ok(Ok(())),
        told if told.contains("--locked") => {
            let place = manifest.replace(".toml", ".lock");
            Err(format!(
                "{place} does not fit {manifest}: cargo metadata --manifest-path {manifest} mends it"
            ))
        }
        told => Ok(Err(told.trim().to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_claimed_version_is_read() {
        assert_eq!(claimed("[workspace.package]\nrust-version = \"1.91\"\n"), Some("1.91"));
        assert!(claimed(&std::fs::read_to_string(tool::root().join("Cargo.toml")).unwrap()).is_some());
    }

    #[test]
    fn a_lock_that_does_not_fit_is_an_error_and_a_missing_network_is_not() {
        let stale =
            "error: cannot update the lock file /x/Cargo.lock because --locked was passed to prevent this";
        assert!(
            judged("fuzz/Cargo.toml", false, stale).is_err_and(|error| error.starts_with("fuzz/Cargo.lock "))
        );
        let away = "error: failed to download from `https://index.crates.io/config.json`";
        assert_eq!(judged("fuzz/Cargo.toml", false, away), Ok(Err(away.to_owned())));
        assert_eq!(judged("fuzz/Cargo.toml", true, "warning: --locked"), Ok(Ok(())));
    }
}
