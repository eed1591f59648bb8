//! How programs are built for release, and the proof that the same tree gives the same bytes wherever it lies.
//!
//! What differs between two builds of one commit is taken out: the place of the tree, of cargo's registry and of the
//! standard library's source, which panics name, and the moment, which is that of the commit. Flags go to cargo one by
//! one, so that a place may have spaces in its name.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::tool::{self, Done};

/// A program of the tree, and the names that it answers to besides its own.
pub(crate) struct Program {
    pub(crate) package: &'static str,
    pub(crate) name: &'static str,
    pub(crate) links: &'static [&'static str],
}

/// All of them.
pub(crate) const PROGRAMS: &[Program] = &[
    Program { package: "slipway", name: "slipway", links: &["slirp4netns", "pasta", "passt", "pesto"] },
    Program { package: "slipway-dns", name: "aardvark-dns", links: &[] },
    Program { package: "slipway-netavark", name: "netavark", links: &[] },
    Program { package: "slipway-gvproxy", name: "slipway-gvproxy", links: &["gvproxy", "gvforwarder"] },
];

/// Builds a package for release and gives the program's path.
///
/// The C library is linked in: a third less memory at rest and half a millisecond less at start, paid for every
/// container. It needs an explicit `--target`, for the flag must not reach the build's own plug-ins.
pub(crate) fn build(package: &str, program: &str) -> Done<PathBuf> {
    build_in(&tool::root(), &tool::target(), &[(package, program)], &stamp())
        .map(|mut built| built.swap_remove(0))
}

/// Builds all [`PROGRAMS`] in one go, which shares more and keeps more cores busy, and gives their paths in the same
/// order.
pub(crate) fn build_all() -> Done<Vec<PathBuf>> {
    build_in(&tool::root(), &tool::target(), &all(), &stamp())
}

fn all() -> Vec<(&'static str, &'static str)> {
    PROGRAMS.iter().map(|program| (program.package, program.name)).collect()
}

/// Builds programs, each named behind its package, of the tree at `root` into `target`.
fn build_in(
    root: &Path,
    target: &Path,
    programs: &[(&str, &str)],
    stamp: &[(&str, String)],
) -> Done<Vec<PathBuf>> {
    let triple = tool::host_target()?;
    let mut build = tool::cargo(&["build", "--release", "--target", &triple]);
    build.args(programs.iter().flat_map(|(package, program)| ["--package", package, "--bin", program]));
    build.current_dir(root).env("CARGO_TARGET_DIR", target).env_remove("RUSTFLAGS");
    build.env("CARGO_ENCODED_RUSTFLAGS", flags(root, target)?.join("\u{1f}"));
    build.envs(stamp.iter().map(|(name, value)| (name, value)));
    tool::run(&mut build)?;
    let built = programs.iter().map(|(_, program)| {
        let path = target.join(&triple).join("release").join(program);
        if path.is_file() { Ok(path) } else { Err(format!("{} was not built", path.display())) }
    });
    built.collect()
}

/// The builder's own flags, and ours.
fn flags(root: &Path, target: &Path) -> Done<Vec<String>> {
    let mut flags: Vec<String> = match std::env::var("CARGO_ENCODED_RUSTFLAGS") {
        Ok(encoded) => encoded.split('\u{1f}').map(str::to_owned).collect(),
        Err(_) => {
            std::env::var("RUSTFLAGS").unwrap_or_default().split_whitespace().map(str::to_owned).collect()
        }
    };
    flags.retain(|flag| !flag.is_empty());
    flags.extend(["-C".to_owned(), "target-feature=+crt-static".to_owned()]);
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let sysroot = tool::output(Command::new(rustc).args(["--print", "sysroot"]))?;
    let cargo = std::env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| {
        let home = std::env::var_os("HOME").map(PathBuf::from)?;
        Some(home.join(".cargo"))
    });
    // Of two that fit, the last one counts.
    let library = Path::new(sysroot.trim()).join("lib/rustlib/src/rust");
    let places = [
        (cargo, "/cargo"),
        (Some(library), "/rustc"),
        (Some(root.into()), "/slipway"),
        (Some(target.into()), "/target"),
    ];
    for (place, name) in places {
        let Some(place) = place else { continue };
        flags.push(format!("--remap-path-prefix={}={name}", place.display()));
    }
    Ok(flags)
}

/// What a build is told of itself, as variables.
type Stamp = Vec<(&'static str, String)>;

fn stamp() -> Stamp {
    let commit = tool::commit().map(|commit| ("SLIPWAY_COMMIT", commit));
    let moment = moment().map(|moment| ("SOURCE_DATE_EPOCH", moment));
    commit.into_iter().chain(moment).collect()
}

/// The moment that a build is dated by: what the builder says, else that of the commit, in seconds since 1970.
fn moment() -> Option<String> {
    if let Ok(named) = std::env::var("SOURCE_DATE_EPOCH") {
        return Some(named);
    }
    let mut git = Command::new("git");
    git.args(["log", "-1", "--format=%ct"]).current_dir(tool::root()).stderr(Stdio::null());
    let output = git.output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}

/// Builds here, and once more from a copy of the tree in another place, and holds the programs against each other.
pub(crate) fn reproducible() -> Done {
    let work = tool::target().join("reproducible");
    let copy = work.join("another place");
    remove(&work)?;
    for file in tool::files("")? {
        let to = copy.join(&file);
        let made = to.parent().map_or(Ok(()), std::fs::create_dir_all);
        made.and_then(|()| std::fs::copy(tool::root().join(&file), &to).map(drop))
            .map_err(|error| format!("{}: {error}", to.display()))?;
    }
    // Taken once: the tree may move on while minutes are spent here.
    let (stamp, all) = (stamp(), all());
    let here = build_in(&tool::root(), &tool::target(), &all, &stamp)?;
    let there = build_in(&copy, &work.join("its target"), &all, &stamp)?;
    let mut different = Vec::new();
    for (program, (here, there)) in PROGRAMS.iter().zip(here.iter().zip(&there)) {
        match difference(here, there)? {
            None => println!("{}: the same bytes from two places", program.name),
            Some(found) => different.push(format!("{}: {found}", program.name)),
        }
    }
    if different.is_empty() {
        remove(&work)
    } else {
        Err(format!("not reproducible ({} is kept): {}", work.display(), different.join("; ")))
    }
}

/// What tells two files from each other.
fn difference(one: &Path, other: &Path) -> Done<Option<String>> {
    let read = |path: &Path| std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()));
    let (one, other) = (read(one)?, read(other)?);
    if one == other {
        return Ok(None);
    }
    let first = one
        .iter()
        .zip(&other)
        .position(|(one, other)| one != other)
        .unwrap_or_else(|| one.len().min(other.len()));
    Ok(Some(format!("{} and {} bytes, different from byte {first} on", one.len(), other.len())))
}

fn remove(dir: &Path) -> Done {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(format!("{}: {error}", dir.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_places_of_a_build_get_names_and_may_have_spaces() {
        let flags = flags(Path::new("/home/me/my tree"), Path::new("/home/me/my tree/target")).unwrap();
        let places: Vec<_> = flags.iter().filter(|flag| flag.starts_with("--remap-path-prefix=")).collect();
        assert_eq!(places.len(), 4, "{flags:?}");
        // The target lies in the tree, and its name has to win.
        assert_eq!(places[2], "--remap-path-prefix=/home/me/my tree=/slipway");
        assert_eq!(places[3], "--remap-path-prefix=/home/me/my tree/target=/target");
    }

    #[test]
    fn a_byte_that_differs_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, bytes: &[u8]| {
            let path = dir.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            path
        };
        let one = file("one", b"abc");
        assert_eq!(difference(&one, &file("same", b"abc")), Ok(None));
        let found = difference(&one, &file("changed", b"axc")).unwrap().unwrap();
        assert!(found.ends_with("from byte 1 on"), "{found}");
        let found = difference(&one, &file("longer", b"abcd")).unwrap().unwrap();
        assert_eq!(found, "3 and 4 bytes, different from byte 3 on");
    }
}
