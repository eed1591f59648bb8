//! What the fuzzer broke: made as short as it can be, and put among the seeds, where `cargo test` replays it.
//!
//! What does not break again (a file that a full disk cut short, a time limit on a busy machine) becomes no seed and
//! stays where it is, to be looked at.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use super::bounds::bounded;
use super::said;
use crate::tool::Done;

/// How long an input is made shorter.
const PATIENCE: Duration = Duration::from_secs(60);

/// Makes a seed of each file in `broken`, also of what an earlier run had no time for. Returns their paths.
pub(super) fn keep(program: &Path, target: &str, broken: &Path, seeds: &Path) -> Done<Vec<String>> {
    let entries = std::fs::read_dir(broken).map_err(|error| said(broken, &error))?;
    let mut found = Vec::new();
    for path in entries.filter_map(|entry| entry.ok().map(|entry| entry.path())) {
        let input = std::fs::read(&path).map_err(|error| said(&path, &error))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let trial = broken.with_file_name(format!("{target}.trial"));
        if !breaks(program, target, &path) {
            println!("{target}: {} breaks nothing by itself; it is left there", path.display());
            continue;
        }
        println!("{target}: {name} of {} bytes is made shorter", input.len());
        let end = now() + PATIENCE;
        let short = shorter(input, |input| {
            now() < end && std::fs::write(&trial, input).is_ok() && breaks(program, target, &trial)
        });
        let _ = std::fs::remove_file(&trial);
        let seed = seeds.join(seed_name(&name));
        if let Err(error) = std::fs::write(&seed, &short) {
            // Half of a seed would be replayed for ever.
            let _ = std::fs::remove_file(&seed);
            return Err(said(&seed, &error));
        }
        std::fs::remove_file(&path).map_err(|error| said(&path, &error))?;
        found.push(shown(&seed));
    }
    Ok(found)
}

/// From `crash-0123456789abcdef…`, libFuzzer's name with a digest.
fn seed_name(artifact: &str) -> String {
    let (kind, digest) = artifact.split_once('-').unwrap_or(("crash", artifact));
    format!("regress-{kind}-{}", digest.get(..8).unwrap_or(digest))
}

fn shown(seed: &Path) -> String {
    seed.strip_prefix(crate::tool::root())
        .map_or_else(|_| PathBuf::from(seed), PathBuf::from)
        .display()
        .to_string()
}

/// Whether the target, with its bounds, ends badly on this input.
fn breaks(program: &Path, target: &str, input: &Path) -> bool {
    let mut trial = bounded(program, target);
    // What breaks again is not to be saved again.
    trial.arg("-artifact_prefix=/dev/null/").arg(input).stdout(Stdio::null()).stderr(Stdio::null());
    trial.status().is_ok_and(|status| !status.success())
}

/// Takes pieces away, halves first and single bytes at last, as long as what is left still breaks.
fn shorter(mut input: Vec<u8>, mut breaks: impl FnMut(&[u8]) -> bool) -> Vec<u8> {
    let mut piece = input.len().div_ceil(2);
    while piece > 0 {
        let mut at = 0;
        while at < input.len() {
            let mut less = input.clone();
            less.drain(at..(at + piece).min(input.len()));
            if breaks(&less) {
                input = less;
            } else {
                at += piece;
            }
        }
        piece = if piece == 1 { 0 } else { piece.div_ceil(2) };
    }
    input
}

#[expect(clippy::disallowed_methods, reason = "a person waits no longer for a shorter input")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_matters_is_left() {
        let noise: Vec<u8> = (0..=255).cycle().take(3000).collect();
        let mut input = noise.clone();
        input.splice(1700..1700, *b"cork");
        input.splice(400..400, *b"pin");
        let has = |input: &[u8], word: &[u8]| input.windows(word.len()).any(|found| found == word);
        let short = shorter(input, |input| has(input, b"cork") && has(input, b"pin"));
        assert_eq!(short, b"pincork");
        assert_eq!(shorter(noise.clone(), |_| false), noise, "what breaks no more is left as it is");
        assert_eq!(shorter(noise, |_| true), b"");
    }

    #[test]
    fn what_breaks_nothing_by_itself_is_no_seed() {
        use std::os::unix::fs::PermissionsExt as _;
        if slipway_lab::which("setpriv").is_none() || slipway_lab::which("prlimit").is_none() {
            println!("SKIP what_breaks_nothing_by_itself_is_no_seed: setpriv or prlimit is not installed");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let [broken, seeds] = ["broken", "seeds"].map(|name| dir.path().join(name));
        [&broken, &seeds].into_iter().for_each(|place| std::fs::create_dir(place).unwrap());
        // A target that breaks on whatever has a pin in it.
        let program = dir.path().join("fuzzer");
        std::fs::write(&program, "#!/bin/sh\nfor last; do :; done\n! grep -q pin \"$last\"\n").unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::write(broken.join("crash-0123456789"), "a pin in the hay").unwrap();
        std::fs::write(broken.join("crash-abcdefabcd"), "").unwrap();
        let found = keep(&program, "frame", &broken, &seeds).unwrap();
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(std::fs::read(seeds.join("regress-crash-01234567")).unwrap(), b"pin");
        assert!(broken.join("crash-abcdefabcd").is_file() && !broken.join("crash-0123456789").exists());
    }

    #[test]
    fn seeds_are_named_after_the_digest() {
        assert_eq!(seed_name("crash-0123456789abcdef0123456789abcdef01234567"), "regress-crash-01234567");
        assert_eq!(seed_name("oom-00ff"), "regress-oom-00ff");
    }
}
