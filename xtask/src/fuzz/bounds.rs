//! What an input may cost: bytes, time, memory. Whatever costs more is a finding.

use std::path::Path;
use std::process::{Command, Stdio};

/// Bounds of one target.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Bytes of an input. The fuzzer begins with short ones and lets them grow.
    pub(super) longest: usize,
    /// Seconds for an input. The slowest seeds take a hundredth of it; the rest is for a machine that does other
    /// things.
    pub(super) seconds: u32,
    /// Memory that the process may have in use, in MiB, with everything that the fuzzer remembers.
    pub(super) resident: u32,
    /// Memory that it may ask for, in MiB: a single allocation beyond ends it, whether or not it is used.
    pub(super) address_space: u32,
}

const USUAL: Bounds = Bounds { longest: 4096, seconds: 5, resident: 512, address_space: 1024 };

/// Those that differ.
const OTHERS: &[(&str, Bounds)] = &[
    // Whole messages of Podman's with a thousand ports are no longer than this.
    ("firewall_state", Bounds { longest: 2048, ..USUAL }),
];

/// The bounds of a target.
pub(super) fn of(target: &str) -> Bounds {
    OTHERS.iter().find(|(name, _)| *name == target).map_or(USUAL, |(_, bounds)| *bounds)
}

/// The fuzzer with what each input may cost. It ends with this process.
pub(super) fn bounded(program: &Path, target: &str) -> Command {
    let bounds = of(target);
    let mut command = Command::new("prlimit");
    let address = program.components().any(|part| part.as_os_str() == "build-address");
    // AddressSanitizer reserves terabytes, and has a bound of its own on what is asked for at once.
    let space = if address { u64::MAX } else { u64::from(bounds.address_space) << 20 };
    if space < u64::MAX {
        command.arg(format!("--as={space}"));
    }
    command.args(["--core=0", "setpriv", "--pdeathsig", "KILL", "--"]).arg(program);
    command.arg(format!("-max_len={}", bounds.longest));
    command.arg(format!("-timeout={}", bounds.seconds));
    command.arg(format!("-rss_limit_mb={}", bounds.resident * if address { 4 } else { 1 }));
    command.arg(format!("-malloc_limit_mb={}", bounds.address_space));
    command.stdin(Stdio::null());
    command
}

/// Whose bounds differ.
#[cfg(test)]
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    OTHERS.iter().map(|(name, _)| *name)
}
