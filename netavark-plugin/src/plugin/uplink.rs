//! Our end of the conversation with `slipway uplink`: one request in JSON per message, one answer; descriptors travel with the
//! request (SOCK_SEQPACKET, SCM_RIGHTS; unix(7)).
//!
//! The uplink checks by SO_PEERCRED that we are of the same user. It is waited for, but not for ever: an engine holds all its
//! networks while it waits for us.

use crate::error::{Error, Result};
use crate::spec::PortMapping;
use ipnet::IpNet;
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};
use slipway_host::sys::{fdpass, sockopt};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long the uplink may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The longest message in either direction.
const MESSAGE_MAX: usize = 64 * 1024;

/// A network, as the uplink is told of it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub struct Network {
    /// Its ID.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The MTU of its links.
    pub mtu: u32,
    /// Whether names are served on it.
    pub dns_enabled: bool,
    /// Whether it has no way out.
    pub internal: bool,
    /// Its subnets.
    pub subnets: Vec<Subnet>,
    /// Where names of the world are asked; empty: where the host asks.
    pub dns_servers: Vec<IpAddr>,
}

/// A subnet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
pub struct Subnet {
    /// Its addresses.
    pub subnet: IpNet,
    /// The one that is the stack's.
    pub gateway: Option<IpAddr>,
}

/// A container, as the uplink is told of it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub struct Container {
    /// Its ID.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its other names.
    pub names: Vec<String>,
    /// Its addresses, both families.
    pub addresses: Vec<IpAddr>,
}

/// A request.
#[derive(Debug, Serialize)]
#[serde(tag = "execute", content = "arguments", rename_all = "lowercase")]
enum Request<'a> {
    Join { network: &'a Network, container: &'a Container },
    Attach { network_id: &'a str },
    Leave { network_id: &'a str, container_id: &'a str },
    Publish { container_id: &'a str, ports: &'a [PortMapping] },
}

impl Request<'_> {
    /// What it is about, for an error.
    fn doing(&self) -> &'static str {
        match self {
            Self::Join { .. } => "take the container in",
            Self::Attach { .. } => "attach the network",
            Self::Leave { .. } => "let the container go",
            Self::Publish { .. } => "publish ports",
        }
    }
}

/// An answer: what was asked for, or why not. The number is errno's, where there is one.
#[derive(Debug, Deserialize)]
struct Answer<T> {
    #[serde(rename = "return")]
    returned: Option<T>,
    error: Option<String>,
    errno: Option<i32>,
}

#[derive(Debug, Deserialize)]
struct Joined {
    attached: bool,
}

#[derive(Debug, Deserialize)]
struct Left {
    containers: u64,
}

/// The connection.
#[derive(Debug)]
pub struct Uplink {
    socket: OwnedFd,
    path: PathBuf,
}

impl Uplink {
    /// Connects to the uplink that listens at `path`.
    ///
    /// # Errors
    /// When there is none: one line that says how to start it.
    pub fn connect(path: &Path) -> Result<Self> {
        let open = || -> nix::Result<OwnedFd> {
            let flags = SockFlag::SOCK_CLOEXEC;
            let socket = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?;
            sockopt::set_patience(socket.as_fd(), PATIENCE)?;
            connect(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
            Ok(socket)
        };
        match open() {
            Ok(socket) => Ok(Self { socket, path: path.to_owned() }),
            Err(errno) => Err(absent(path, errno)),
        }
    }

    /// Announces a container, whose names are served from now on. Whether the network has its stack already; if not, it
    /// wants one ([`Self::attach`]).
    ///
    /// # Errors
    /// The uplink's, or what is wrong with its answer.
    pub fn join(&self, network: &Network, container: &Container) -> Result<bool> {
        self.ask::<Joined>(&Request::Join { network, container }, None).map(|joined| joined.attached)
    }

    /// Hands over the TAP of a network.
    ///
    /// # Errors
    /// The uplink's, or what is wrong with its answer.
    pub fn attach(&self, network_id: &str, tap: BorrowedFd<'_>) -> Result<()> {
        self.ask::<IgnoredAny>(&Request::Attach { network_id }, Some(tap)).map(|_| ())
    }

    /// Takes back a container, its names and its ports. How many are left on the network.
    ///
    /// # Errors
    /// The uplink's, or what is wrong with its answer.
    pub fn leave(&self, network_id: &str, container_id: &str) -> Result<u64> {
        self.ask::<Left>(&Request::Leave { network_id, container_id }, None).map(|left| left.containers)
    }

    /// Publishes ports of a container, all or none.
    ///
    /// # Errors
    /// The uplink's, or what is wrong with its answer.
    pub fn publish(&self, container_id: &str, ports: &[PortMapping]) -> Result<()> {
        self.ask::<IgnoredAny>(&Request::Publish { container_id, ports }, None).map(|_| ())
    }

    fn ask<T: DeserializeOwned>(&self, request: &Request<'_>, fd: Option<BorrowedFd<'_>>) -> Result<T> {
        let text = serde_json::to_vec(request)?;
        if text.len() > MESSAGE_MAX {
            let len = text.len();
            return Err(Error::msg(format!("the uplink takes {MESSAGE_MAX} bytes at a time, not {len}")));
        }
        let mut answer = vec![0; MESSAGE_MAX];
        let exchange = |answer: &mut [u8]| {
            fdpass::send(self.socket.as_fd(), &text, fd)?;
            fdpass::receive(self.socket.as_fd(), answer)
        };
        let (len, _) = exchange(&mut answer).map_err(|error| self.lost(&error))?;
        if len == 0 {
            return Err(self.lost(&io::Error::from(Errno::ECONNRESET)));
        }
        understand(answer.get(..len).unwrap_or_default(), request)
    }

    fn lost(&self, error: &io::Error) -> Error {
        let path = self.path.display();
        Error::msg(match error.kind() {
            io::ErrorKind::WouldBlock => {
                format!("the uplink at {path} did not answer for {} seconds", PATIENCE.as_secs())
            }
            _ => format!("the connection to the uplink at {path} was lost: {error}"),
        })
    }
}

/// Reads an answer.
fn understand<T: DeserializeOwned>(text: &[u8], request: &Request<'_>) -> Result<T> {
    let doing = request.doing();
    let answer: Answer<T> = serde_json::from_slice(text)
        .map_err(|error| Error::msg(format!("the uplink's answer makes no sense: {error}")))?;
    match answer {
        Answer { error: Some(error), errno, .. } => {
            Err(Error::msg(format!("the uplink does not {doing}: {error}{}", hint(request, &error, errno))))
        }
        Answer { returned: Some(returned), .. } => Ok(returned),
        _ => Err(Error::msg("the uplink's answer makes no sense: neither return nor error")),
    }
}

/// A rootful engine holds the ports of its containers by sockets of its own, unless it is told not to.
fn hint(request: &Request<'_>, error: &str, errno: Option<i32>) -> &'static str {
    let in_use = errno == Some(Errno::EADDRINUSE as i32) || error.contains("in use");
    if in_use && matches!(request, Request::Publish { .. }) {
        "; if it is Podman itself that holds the port, set enable_port_reservation=false in the section [engine] of \
         containers.conf"
    } else {
        ""
    }
}

/// What to do when nobody listens.
fn absent(path: &Path, errno: Errno) -> Error {
    let path = path.display();
    let problem = io::Error::from(errno);
    Error::msg(match errno {
        Errno::ENOENT | Errno::ECONNREFUSED => {
            let user = if slipway_host::user::is_root_of_the_machine() { "" } else { " --user" };
            format!(
                "slipway uplink does not run ({path}: {}): start it by `systemctl{user} enable --now slipway-uplink.socket`, or \
                 by `slipway uplink &`",
                errno.desc()
            )
        }
        Errno::EAGAIN => format!("the uplink at {path} is too busy to take a connection"),
        _ => format!("connect to the uplink at {path}: {problem}"),
    })
}

/// For the fuzzer: any bytes as an answer.
pub fn fuzz(data: &[u8]) {
    let request = Request::Publish { container_id: "c", ports: &[] };
    for error in [
        understand::<Joined>(data, &request).err(),
        understand::<Left>(data, &request).err(),
        understand::<IgnoredAny>(data, &request).err(),
    ] {
        let line = error.map(|error| error.to_json()).unwrap_or_default();
        assert!(!line.contains('\n'), "one line");
    }
}

#[cfg(test)]
mod tests;
