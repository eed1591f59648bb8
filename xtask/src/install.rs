//! A release build, laid out the way `/usr/local` is: programs, their other names (one of them a network driver, in a
//! directory of its own), man pages, completions, units.
//!
//! Pages and completions are written by the programs themselves, so that nothing here is linked with them: a chore
//! stands in seconds on a fresh clone.

use std::ffi::OsStr;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::release::{self, PROGRAMS, Program};
use crate::tool::{self, Done, cargo};

/// What a program is called to write its man pages and completions below a directory.
const PAGES: &str = "slipway-pages";

/// The text of a unit of ours.
macro_rules! unit {
    ($name:literal) => {
        ($name, include_str!(concat!("../../contrib/systemd/", $name)))
    };
}

/// Where engines look for network drivers, if they are told to, and which of ours is one by what name.
const DRIVERS: &str = "libexec/netavark";
const DRIVER: (&str, &str) = ("slipway", "../../bin/netavark");

/// The directory of Podman's port helper, which has nothing else: it is put before the directories of other helpers.
const HELPERS: &str = "libexec/slipway";
const HELPER: (&str, &str) = ("rootlessport", "../../bin/slipway");

const UNITS: [(&str, &str); 4] = [
    unit!("netavark-dhcp-proxy.socket"),
    unit!("netavark-dhcp-proxy.service"),
    unit!("netavark-nftables-reload.service"),
    unit!("netavark-firewalld-reload.service"),
];

/// Those that root's manager and the users' have alike.
const USER_UNITS: [(&str, &str); 2] =
    [unit!("user/slipway-uplink.socket"), unit!("user/slipway-uplink.service")];

/// Builds and installs below `prefix`.
pub(crate) fn run(prefix: &Path) -> Done {
    let bin = prefix.join("bin");
    directory(&bin)?;
    for (program, built) in PROGRAMS.iter().zip(release::build_all()?) {
        put(program, &built, &bin)?;
        pages(&bin.join(program.name), &prefix.join("share"))?;
    }
    for (dir, (name, to)) in [(DRIVERS, DRIVER), (HELPERS, HELPER)] {
        let dir = prefix.join(dir);
        directory(&dir)?;
        link(&dir, name, to)?;
    }
    units(prefix, &bin)?;
    if let Some(hint) = search_path(&bin, &std::env::var_os("PATH").unwrap_or_default()) {
        println!("{hint}");
    }
    Ok(())
}

/// What to do so that the shell finds what is in `bin`, if it does not.
fn search_path(bin: &Path, path: &OsStr) -> Option<String> {
    let bin = std::path::absolute(bin).ok()?;
    let found = std::env::split_paths(path).any(|dir| dir == bin);
    (!found).then(|| format!("not on the search path yet: export PATH={}:$PATH", bin.display()))
}

/// Writes the units of systemd, which name the program by its place.
fn units(prefix: &Path, bin: &Path) -> Done {
    let bin = std::path::absolute(bin).map_err(|error| said(bin, &error))?;
    let filled = |units: &[(&str, &str)]| {
        let unit = |(name, text): &(&str, &str)| {
            let name = name.rsplit('/').next().unwrap_or(name);
            (name.to_owned(), text.replace("@BIN@", &bin.to_string_lossy()))
        };
        units.iter().map(unit).collect::<Vec<_>>()
    };
    files(&prefix.join("lib/systemd/system"), filled(&UNITS))?;
    files(&prefix.join("lib/systemd/system"), filled(&USER_UNITS))?;
    files(&prefix.join("lib/systemd/user"), filled(&USER_UNITS))
}

/// Puts a program that was built and its links into `bin`.
fn put(program: &Program, built: &Path, bin: &Path) -> Done {
    let installed = bin.join(program.name);
    // By rename, so that a running program is replaced, not written over.
    let fresh = bin.join(format!(".{}.new", program.name));
    std::fs::copy(built, &fresh).map_err(|error| said(&fresh, &error))?;
    std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o755))
        .map_err(|error| said(&fresh, &error))?;
    std::fs::rename(&fresh, &installed).map_err(|error| said(&installed, &error))?;
    println!("{}", installed.display());
    for name in program.links {
        link(bin, name, program.name)?;
    }
    Ok(())
}

/// Makes a link called `name` in a directory, in place of whatever has that name.
fn link(dir: &Path, name: &str, to: &str) -> Done {
    let link = dir.join(name);
    if link.symlink_metadata().is_ok() {
        std::fs::remove_file(&link).map_err(|error| said(&link, &error))?;
    }
    symlink(to, &link).map_err(|error| said(&link, &error))?;
    println!("{} -> {to}", link.display());
    Ok(())
}

/// Builds, not for release, and has man pages and completions written below a directory.
pub(crate) fn manual(dir: &Path) -> Done {
    let packages = PROGRAMS.iter().flat_map(|program| ["--package", program.package]);
    tool::run(cargo(&["build"]).args(packages))?;
    PROGRAMS.iter().try_for_each(|program| pages(&tool::target().join("debug").join(program.name), dir))
}

/// Has a program write its man pages and completions.
fn pages(program: &Path, dir: &Path) -> Done {
    let mut command = Command::new(program);
    command.arg0(PAGES).arg(dir).stdin(Stdio::null());
    let status = command.status().map_err(|error| said(program, &error))?;
    if status.success() { Ok(()) } else { Err(format!("{} as {PAGES}: {status}", program.display())) }
}

fn files(dir: &Path, files: Vec<(String, String)>) -> Done {
    directory(dir)?;
    for (name, text) in files {
        let path = dir.join(name);
        std::fs::write(&path, text).map_err(|error| said(&path, &error))?;
        println!("{}", path.display());
    }
    Ok(())
}

fn directory(dir: &Path) -> Done {
    std::fs::create_dir_all(dir).map_err(|error| said(dir, &error))
}

fn said(path: &Path, error: &std::io::Error) -> String {
    format!("{}: {error}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// What a system has and ours refer to, so that a reference to what there is not is found out.
    const OTHERS: [&str; 2] = ["nftables.service", "firewalld.service"];

    #[test]
    fn systemd_finds_nothing_wrong_with_the_units() {
        let dir = tempfile::tempdir().unwrap();
        let bin = dir.path().join("bin");
        directory(&bin).unwrap();
        for program in PROGRAMS {
            symlink("/bin/true", bin.join(program.name)).unwrap();
        }
        units(dir.path(), &bin).unwrap();
        for name in OTHERS {
            let text = "[Service]\nType=oneshot\nExecStart=/bin/true\n";
            std::fs::write(dir.path().join("lib/systemd/system").join(name), text).unwrap();
        }
        for (manager, units) in [("system", &UNITS[..]), ("user", &USER_UNITS)] {
            let place = dir.path().join("lib/systemd").join(manager);
            let mut verify = Command::new("systemd-analyze");
            verify.args([&format!("--{manager}"), "verify", "--man=no", "--recursive-errors=one"]);
            verify.env("SYSTEMD_UNIT_PATH", format!("{}:", place.display()));
            // A user's units may speak of the user's own directory.
            verify.env("XDG_RUNTIME_DIR", dir.path());
            verify.args(units.iter().map(|(name, _)| place.join(name.rsplit('/').next().unwrap())));
            let Ok(output) = verify.output() else {
                println!("SKIP systemd_finds_nothing_wrong_with_the_units: systemd-analyze is not installed");
                return;
            };
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success() && said.is_empty(), "{manager}: {said}");
        }
    }

    #[test]
    fn a_place_off_the_search_path_is_told() {
        let hint = |path: &str| search_path(Path::new("/home/me/.local/bin"), OsStr::new(path));
        assert_eq!(hint("/usr/bin:/home/me/.local/bin"), None);
        let told = hint("/usr/bin:/home/me/.local").unwrap_or_default();
        assert!(told.ends_with("export PATH=/home/me/.local/bin:$PATH"), "{told}");
    }
}
