//! Our end of the conversation with `slipway uplink`: what is asked of it, and what is said when it does not do it. How
//! it is asked is [`slipway_uplink`]'s.
//!
//! The uplink checks by SO_PEERCRED that we are of the same user. It is waited for, but not for ever: an engine holds
//! all its networks while it waits for us.

use crate::error::{Error, Result};
use crate::spec::PortMapping;
use nix::errno::Errno;
use serde::de::{DeserializeOwned, IgnoredAny};
use slipway_host::user;
use slipway_uplink::client::Client;
use slipway_uplink::envelope::{Failure, Refusal, read};
use slipway_uplink::wire::{Container, Joined, Left, Mapping, Network, Request};
use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long the uplink may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The connection.
#[derive(Debug)]
pub struct Uplink {
    client: Client,
    path: PathBuf,
}

impl Uplink {
    /// Connects to the uplink that listens at `path`.
    ///
    /// # Errors
    /// When there is none: one line that says how to start it.
    pub fn connect(path: &Path) -> Result<Self> {
        match Client::connect_within(path, PATIENCE) {
            Ok(client) => Ok(Self { client, path: path.to_owned() }),
            Err(error) => Err(absent(path, &error)),
        }
    }

    /// Announces a container, whose names are served from now on. Whether the network has its stack already; if not, it
    /// wants one ([`Self::attach`]).
    ///
    /// # Errors
    /// The uplink's, or what is wrong with its answer.
    pub fn join(&self, network: &Network, container: &Container) -> Result<bool> {
        self.ask::<Joined>(Request::Join { network, container }, None).map(|joined| joined.attached)
    }

    /// Hands over the TAP of a network.
    ///
    /// # Errors
    /// The uplink's, or what is wrong with its answer.
    pub fn attach(&self, network_id: &str, tap: BorrowedFd<'_>) -> Result<()> {
        self.ask::<IgnoredAny>(Request::Attach { network_id }, Some(tap)).map(|_| ())
    }

    /// Takes back a container, its names and its ports. How many are left on the network.
    ///
    /// # Errors
    /// The uplink's, or what is wrong with its answer.
    pub fn leave(&self, network_id: &str, container_id: &str) -> Result<u64> {
        self.ask::<Left>(Request::Leave { network_id, container_id }, None).map(|left| left.containers)
    }

    /// Publishes ports of a container, all or none.
    ///
    /// # Errors
    /// The uplink's, or what is wrong with its answer.
    pub fn publish(&self, container_id: &str, ports: &[PortMapping]) -> Result<()> {
        let ports: Vec<_> = ports.iter().map(mapping).collect();
        self.ask::<IgnoredAny>(Request::Publish { container_id, ports: &ports }, None).map(|_| ())
    }

    fn ask<T: DeserializeOwned>(&self, request: Request<'_>, fd: Option<BorrowedFd<'_>>) -> Result<T> {
        self.client.ask(&request, fd.as_slice()).map_err(|failure| explain(&self.path, request, failure))
    }
}

/// A port in the uplink's words.
fn mapping(port: &PortMapping) -> Mapping {
    let PortMapping { container_port, host_port, host_ip, protocol, range } = port;
    Mapping {
        host_ip: Some(host_ip.clone()),
        host_port: *host_port,
        container_port: *container_port,
        protocol: protocol.clone(),
        range: *range,
    }
}

/// What a request is about, for an error.
const fn doing(request: Request<'_>) -> &'static str {
    match request {
        Request::Join { .. } => "take the container in",
        Request::Attach { .. } => "attach the network",
        Request::Leave { .. } => "let the container go",
        Request::Publish { .. } => "publish ports",
        Request::Status => "tell what it serves",
    }
}

/// What an engine is told when the uplink at `path` has not done what was asked.
fn explain(path: &Path, request: Request<'_>, failure: Failure) -> Error {
    let path = path.display();
    Error::msg(match failure {
        Failure::Refused(Refusal { text, errno }) => {
            format!("the uplink does not {}: {text}{}", doing(request), hint(request, &text, errno))
        }
        Failure::Lost(error) if error.kind() == io::ErrorKind::WouldBlock => {
            format!("the uplink at {path} did not answer for {} seconds", PATIENCE.as_secs())
        }
        Failure::Lost(error) => format!("the connection to the uplink at {path} was lost: {error}"),
        Failure::Senseless(why) => format!("the uplink's answer makes no sense: {why}"),
        Failure::TooLong(_) => failure.to_string(),
    })
}

/// A rootful engine holds the ports of its containers by sockets of its own, unless it is told not to.
fn hint(request: Request<'_>, error: &str, errno: Option<i32>) -> &'static str {
    let in_use = errno == Some(Errno::EADDRINUSE as i32) || error.contains("in use");
    if in_use && matches!(request, Request::Publish { .. }) {
        "; if it is Podman itself that holds the port, set enable_port_reservation=false in the section [engine] of \
         containers.conf"
    } else {
        ""
    }
}

/// What to do when nobody listens.
fn absent(path: &Path, error: &io::Error) -> Error {
    let path = path.display();
    Error::msg(match error.raw_os_error().map(Errno::from_raw) {
        Some(errno @ (Errno::ENOENT | Errno::ECONNREFUSED)) => {
            let user = if user::is_root_of_the_machine() { "" } else { " --user" };
            format!(
                "slipway uplink does not run ({path}: {}): start it by `systemctl{user} enable --now slipway-uplink.socket`, or \
                 by `slipway uplink &`",
                errno.desc()
            )
        }
        Some(Errno::EAGAIN) => format!("the uplink at {path} is too busy to take a connection"),
        _ => format!("connect to the uplink at {path}: {error}"),
    })
}

/// For the fuzzer: any bytes as an answer.
pub fn fuzz(data: &[u8]) {
    let request = Request::Publish { container_id: "c", ports: &[] };
    for failure in [read::<Joined>(data).err(), read::<Left>(data).err(), read::<IgnoredAny>(data).err()] {
        let error = failure.map(|failure| explain(Path::new("/x"), request, failure));
        let line = error.map(|error| error.to_json()).unwrap_or_default();
        assert!(!line.contains('\n'), "one line");
    }
}

#[cfg(test)]
mod tests;
