//! `rootlessport`: what Podman starts to publish the ports of a rootless container.
//!
//! For a container that the uplink knows, the ports, the exit descriptor and the socket for new addresses are handed to
//! the uplink, which listens itself: the client's address is kept, and no process is left behind for the container. For
//! any other container this becomes the real program, with everything as it was found.
//!
//! The contract: a JSON object on standard input (`Mappings`, `ExitFD`, `ReadyFD`, `TmpDir`, `ContainerID`,
//! `RootlessCNI` and others); when the ports are open, "1" is written to `ReadyFD`; they are open until `ExitFD` ends.
//! For containers on bridge networks (`RootlessCNI`) a socket `TmpDir/rp/ContainerID` takes a new address as a JSON
//! string, and answers `OK`. What goes wrong is said on standard output, where Podman looks for what to show, and on
//! standard error, which goes to its log.

mod place;

pub use place::listen_beside;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use serde::Deserialize;
use serde::de::IgnoredAny;
use slipway_host::environment;
use slipway_host::strerror::words;
use slipway_host::sys::fdpass::take_inherited;
use slipway_runtime::fds::ReadyFd;
use slipway_uplink::address;
use slipway_uplink::client::Client;
use slipway_uplink::protocol;
use slipway_uplink::wire::{Mapping, Request, or_default};
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::fd::{AsFd as _, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

/// What the program is called then.
pub const NAME: &str = "rootlessport";
/// The environment variable with the path of the real program.
const REAL: &str = "SLIPWAY_ROOTLESSPORT";
/// Where container engines look for their helpers.
const DIRECTORIES: [&str; 4] =
    ["/usr/local/libexec/podman", "/usr/local/lib/podman", "/usr/libexec/podman", "/usr/lib/podman"];
/// How the uplink says that it does not know the container.
const UNKNOWN: i32 = Errno::ENOENT as i32;
/// More than any configuration needs.
const MAX_INPUT: u64 = 4 << 20;

/// What Podman says.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Config {
    #[serde(default, deserialize_with = "or_default")]
    mappings: Vec<Mapping>,
    #[serde(rename = "ExitFD")]
    exit_fd: RawFd,
    #[serde(rename = "ReadyFD")]
    ready_fd: RawFd,
    #[serde(default)]
    tmp_dir: PathBuf,
    #[serde(rename = "ContainerID", default)]
    container_id: String,
    #[serde(rename = "RootlessCNI", default)]
    bridge: bool,
}

impl Config {
    /// What is asked of the uplink.
    fn request(&self) -> Request<'_> {
        Request::Publish { container_id: &self.container_id, ports: &self.mappings }
    }
}

/// How it went.
enum Outcome {
    /// The uplink has taken over.
    Done,
    /// The uplink does not know the container, or there is none.
    NotOurs,
}

/// Runs `rootlessport`.
#[must_use]
pub fn main() -> ExitCode {
    let mut input = Vec::new();
    let done = io::stdin()
        .lock()
        .take(MAX_INPUT)
        .read_to_end(&mut input)
        .map_err(|error| format!("cannot read the configuration: {}", words(&error)))
        .and_then(|_| run(&input));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(line) => {
            let _ = writeln!(io::stdout(), "{line}");
            let _ = writeln!(io::stderr(), "{NAME}: {line}");
            ExitCode::FAILURE
        }
    }
}

fn run(input: &[u8]) -> Result<(), String> {
    let config: Config = serde_json::from_slice(input)
        .map_err(|error| format!("the configuration on standard input makes no sense: {error}"))?;
    let fd =
        |name, number| take_inherited(number).map_err(|error| format!("{name} {number}: {}", words(&error)));
    let exit = fd("ExitFD", config.exit_fd)?;
    let ready = fd("ReadyFD", config.ready_fd)?;
    match hand_over(&config, &exit)? {
        Outcome::Done => ReadyFd::from(ready).tell().map_err(|error| format!("ReadyFD: {}", words(&error))),
        Outcome::NotOurs => Err(become_real(input, &[exit, ready])),
    }
}

/// Gives everything to the uplink, if that knows the container.
fn hand_over(config: &Config, exit: &OwnedFd) -> Result<Outcome, String> {
    let Some(client) = address::path().and_then(|path| Client::connect(&path).ok()) else {
        return Ok(Outcome::NotOurs);
    };
    // Should the container not be ours, the real program takes the place over.
    let door = if config.bridge && is_file_name(&config.container_id) {
        let place = config.tmp_dir.join("rp");
        let door = listen_beside(&place, &config.container_id);
        Some(door.map_err(|error| format!("cannot listen in {}: {}", place.display(), words(&error)))?)
    } else {
        None
    };
    let fds: Vec<_> = std::iter::once(exit.as_fd()).chain(door.as_ref().map(OwnedFd::as_fd)).collect();
    match client.ask::<IgnoredAny>(&config.request(), &fds) {
        Ok(_) => Ok(Outcome::Done),
        Err(failure) if failure.errno() == Some(UNKNOWN) => Ok(Outcome::NotOurs),
        Err(failure) => Err(failure.to_string()),
    }
}

fn is_file_name(text: &str) -> bool {
    !text.is_empty() && !text.contains('/') && text != "." && text != ".."
}

/// Executes the real program; returns why that failed.
fn become_real(input: &[u8], inherited: &[OwnedFd; 2]) -> String {
    let Some(program) = real() else {
        return format!(
            "the uplink does not know this container, and no other {NAME} is in {} (or named by {REAL})",
            DIRECTORIES.join(", ")
        );
    };
    let failed = |error: io::Error| format!("{}: {}", program.display(), words(&error));
    let stdin = match again(input) {
        Ok(stdin) => stdin,
        Err(error) => return failed(error),
    };
    for fd in inherited {
        // It was so when we were executed.
        if let Err(errno) = fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty())) {
            return failed(errno.into());
        }
    }
    failed(Command::new(&program).arg0(NAME).stdin(Stdio::from(stdin)).exec())
}

/// What was read, to be read once more.
fn again(input: &[u8]) -> io::Result<File> {
    let mut file = File::from(memfd_create(c"rootlessport", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(input)?;
    file.seek(SeekFrom::Start(0))?;
    Ok(file)
}

/// The first program of this name that is not this one.
fn real() -> Option<PathBuf> {
    let same = |path: &Path| match (path.metadata(), Path::new("/proc/self/exe").metadata()) {
        (Ok(its), Ok(ours)) => (its.dev(), its.ino()) == (ours.dev(), ours.ino()),
        _ => true,
    };
    if let Some(path) = environment::variable(REAL).filter(|path| !path.is_empty()) {
        return Some(path.into());
    }
    DIRECTORIES.iter().map(|dir| Path::new(dir).join(NAME)).find(|path| path.is_file() && !same(path))
}

/// For the fuzzer: any bytes as a configuration. What is understood reaches the uplink as it was told, or is refused
/// there.
pub fn fuzz(input: &[u8]) {
    let Ok(config) = serde_json::from_slice::<Config>(input) else { return };
    let request = serde_json::to_vec(&config.request()).unwrap_or_default();
    match protocol::Request::parse(&request) {
        Ok(protocol::Request::Publish { container, mappings }) => {
            assert_eq!((container, mappings), (config.container_id, config.mappings));
        }
        asked => assert!(asked.is_err(), "{asked:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_is_read_as_podman_writes_it() {
        let text =
            br#"{"Mappings":[{"host_ip":"","container_port":80,"host_port":8080,"range":1,"protocol":"tcp"}],
            "NetNSPath":"/run/user/1000/netns/x","ExitFD":3,"ReadyFD":4,"TmpDir":"/run/user/1000/libpod/tmp",
            "ChildIP":"10.89.0.2","ContainerID":"c0ffee","RootlessCNI":true}"#;
        let config: Config = serde_json::from_slice(text).unwrap();
        assert_eq!((config.exit_fd, config.ready_fd, config.mappings.len()), (3, 4, 1));
        assert!(config.bridge && config.container_id == "c0ffee");
        assert_eq!(config.mappings[0].host_port, 8080);
    }

    #[test]
    fn nonsense_is_refused_before_anything_is_touched() {
        for text in [&b""[..], b"{}", b"[]", br#"{"ExitFD":-1,"ReadyFD":4}"#, br#"{"ExitFD":"3"}"#, b"\xff"] {
            assert!(run(text).is_err(), "{}", String::from_utf8_lossy(text));
        }
        for name in ["", ".", "..", "a/b", "../x"] {
            assert!(!is_file_name(name));
        }
        assert!(is_file_name("c0ffee"));
    }

    #[test]
    fn the_configuration_can_be_read_twice() {
        let mut text = String::new();
        again(b"{\"a\":1}").unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "{\"a\":1}");
    }
}
