//! The program under test in the slirp4netns role: ours, or the one from Debian as the reference.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::command::{Running, slurp};
use crate::namespaces::{Container, Lab, LabOptions};

/// The gateway's address as the container sees it, which is the host's loopback.
pub const GATEWAY4: &str = "10.0.2.2";
/// The DNS address inside.
pub const NAMESERVER4: &str = "10.0.2.3";
/// The address that `--configure` gives the container.
pub const GUEST4: &str = "10.0.2.100";
/// The gateway's IPv6 address.
pub const GATEWAY6: &str = "fd00::2";
/// The DNS server's IPv6 address.
pub const NAMESERVER6: &str = "fd00::3";

const START: Duration = Duration::from_secs(10);

/// Which program plays slirp4netns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// The `slipway` binary at this path, under its other name.
    Slipway(PathBuf),
    /// Somebody else's slirp4netns, to prove that a test is right.
    Peer(PathBuf),
}

impl Subject {
    /// The lab options that make the subject appear as `slirp4netns` (and ours also as `slipway`).
    #[must_use]
    pub fn lab_options(&self) -> LabOptions {
        let programs = match self {
            Self::Slipway(path) => {
                vec![("slirp4netns".to_owned(), path.clone()), ("slipway".to_owned(), path.clone())]
            }
            Self::Peer(path) => vec![("slirp4netns".to_owned(), path.clone())],
        };
        LabOptions { programs, ..LabOptions::default() }
    }

    /// Its file.
    #[must_use]
    pub fn path(&self) -> &Path {
        match self {
            Self::Slipway(path) | Self::Peer(path) => path,
        }
    }

    /// Whether this is ours.
    #[must_use]
    pub fn is_slipway(&self) -> bool {
        matches!(self, Self::Slipway(_))
    }
}

/// A subject that runs, started the way container engines do: exit-fd on a pipe, ready-fd watched.
#[derive(Debug)]
pub struct Slirp {
    /// The process; dropping its `stdin` closes the exit-fd.
    pub process: Running,
    api: Option<PathBuf>,
}

impl Lab {
    /// Starts `slirp4netns` on host as the ordinary user and waits for the ready byte.
    pub fn slirp(&self, container: &Container, options: &[&str]) -> io::Result<Slirp> {
        self.slirp_at(options, &[&container.pid().to_string(), "tap0"])
    }

    /// The same with the positional arguments chosen.
    pub fn slirp_at(&self, options: &[&str], target: &[&str]) -> io::Result<Slirp> {
        let api = options
            .iter()
            .find_map(|option| option.strip_prefix("--api-socket="))
            .map(|path| self.home().join(path));
        let ready = unique(&self.home());
        let script = r#"cd "$HOME"; file=$1; shift; exec "$@" 3>"$file""#;
        let mut process = self
            .host(["sh", "-c", script, "sh"])
            .arg(ready.clone().into_os_string())
            .arg(self.program("slirp4netns"))
            .args(["--exit-fd=0", "--ready-fd=3"])
            .args(options)
            .args(target)
            .start()?;
        process.until(START, |_| slurp(&ready) == b"1")?;
        Ok(Slirp { process, api })
    }
}

impl Slirp {
    /// One request on the API socket and its reply, the way Podman does it: request, half-close, read to the end.
    pub fn api(&self, request: &str) -> io::Result<String> {
        let path = self.api.as_deref().ok_or_else(|| io::Error::other("started without --api-socket"))?;
        api(path, request.as_bytes())
    }

    /// The API socket's path.
    #[must_use]
    pub fn api_path(&self) -> Option<&Path> {
        self.api.as_deref()
    }

    /// Publishes a port through the API.
    pub fn publish(&self, proto: &str, host_port: u16, guest_port: u16) -> io::Result<()> {
        let reply = self.api(&format!(
            r#"{{"execute":"add_hostfwd","arguments":{{"proto":"{proto}","host_addr":"0.0.0.0","host_port":{host_port},"guest_addr":"","guest_port":{guest_port}}}}}"#
        ))?;
        if reply.contains("\"id\"") { Ok(()) } else { Err(io::Error::other(format!("add_hostfwd: {reply}"))) }
    }

    /// Closes the exit-fd and waits for the end; gives the exit code.
    pub fn exit(mut self) -> io::Result<i32> {
        self.process.stdin.take();
        let output = self.process.finish(START)?;
        output
            .map(|output| output.code())
            .ok_or_else(|| io::Error::other("exit-fd was closed but it runs on"))
    }
}

/// Sends a request to an API socket and reads the reply.
pub fn api(path: &Path, request: &[u8]) -> io::Result<String> {
    let mut socket = UnixStream::connect(path)?;
    socket.set_read_timeout(Some(START))?;
    socket.set_write_timeout(Some(START))?;
    // A reply to an over-long request may come, and the socket close, before all of it is written.
    let _ = socket.write_all(request);
    let _ = socket.shutdown(std::net::Shutdown::Write);
    let mut reply = Vec::new();
    let mut chunk = [0_u8; 4096];
    while let Ok(count) = socket.read(&mut chunk) {
        if count == 0 {
            break;
        }
        reply.extend_from_slice(chunk.get(..count).unwrap_or_default());
    }
    Ok(String::from_utf8_lossy(&reply).into_owned())
}

fn unique(dir: &Path) -> PathBuf {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    dir.join(format!("ready-{}-{number}", std::process::id()))
}
