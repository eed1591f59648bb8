//! The texts of `slirp4netns --help` and `--version`.
//!
//! Podman, RootlessKit and the rootless set-up scripts of Docker and containerd search the first for option names;
//! a test lists them all. Of the second, Docker reads the line that contains `version` and the one that begins with
//! `commit:`; so no other line may contain that word in small letters, and all values look like version numbers.

use super::args::TABLE;
use crate::flags;
use std::fmt::Write as _;

/// The release of slirp4netns whose command line and API this personality has.
pub const COMPATIBLE: &str = "1.3.3";

/// The newest configuration format of libslirp that has nothing this personality cannot do.
pub const SLIRP_CONFIG_VERSION_MAX: u32 = 6;

/// What `--help` prints.
#[must_use]
pub fn help(program: &str) -> String {
    flags::usage::text(&TABLE, program)
}

/// What `--version` prints. There is no libslirp and no libseccomp inside; their lines stay because programs read
/// this block line by line, and say in the build part whose number it is.
#[must_use]
pub fn version() -> String {
    let own = env!("CARGO_PKG_VERSION");
    let mut out = String::new();
    let _ = writeln!(out, "slirp4netns version {COMPATIBLE}+slipway.{own}");
    let _ = writeln!(out, "commit: {}", slipway_runtime::COMMIT);
    let _ = writeln!(out, "libslirp: {own}+slipway");
    let _ = writeln!(out, "SLIRP_CONFIG_VERSION_MAX: {SLIRP_CONFIG_VERSION_MAX}");
    let _ = writeln!(out, "libseccomp: {own}+slipway");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_contains_all_that_clients_search_for() {
        let text = help("slirp4netns");
        let podman = [
            "--disable-host-loopback",
            "--mtu",
            "--enable-sandbox",
            "--enable-seccomp",
            "--cidr",
            "--outbound-addr",
            "--enable-ipv6",
        ];
        let rootlesskit = ["--netns-type", "--api-socket"];
        let defaults = [
            "(default=1500, max=65521)",
            "(default=10.0.2.0/24)",
            "([path|pid|tapfd], default=pid)",
            "([netns|bess], default=netns)",
        ];
        for literal in podman.iter().chain(&rootlesskit).chain(&defaults) {
            assert!(text.contains(literal), "{literal}");
        }
    }

    #[test]
    fn help_keeps_its_layout() {
        let text = help("/usr/bin/slirp4netns");
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some("Usage: /usr/bin/slirp4netns [OPTION]... PID|PATH|FD [TAPNAME]"));
        assert_eq!(lines.next(), Some(TABLE.summary));
        assert_eq!(lines.next(), Some(""));
        let blank = text.lines().position(str::is_empty).unwrap();
        assert!(text.lines().skip(blank + 1).all(|line| line.starts_with('-')), "{text}");
        assert!(!text.contains("--no-host-loopback"), "deprecated aliases are not shown");
    }

    #[test]
    fn version_block_is_what_parsers_expect() {
        let text = version();
        let lines: Vec<_> = text.lines().collect();
        let heads = [
            "slirp4netns version 1.3.3",
            "commit: ",
            "libslirp: ",
            "SLIRP_CONFIG_VERSION_MAX: 6",
            "libseccomp: ",
        ];
        assert_eq!(lines.len(), heads.len());
        for (line, head) in lines.iter().zip(heads) {
            assert!(line.starts_with(head), "{line}");
        }
        assert_eq!(lines.iter().filter(|line| line.contains("version")).count(), 1);
    }
}
