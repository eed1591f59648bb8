//! Requests and replies of the uplink's socket, as valid types, without any I/O. The protocol is docs/uplink.md.
//!
//! What is read here comes from programs of the same user, but a container engine copies names and labels of strangers
//! into it, so everything is checked once and is valid afterwards: sizes first, then JSON with serde_json's bound on
//! depth, then one field after another. Unknown keys are passed over, so that either side may be newer. A request that
//! is wrong in one place is refused whole.
//!
//! Limits: one subnet of each family for a network, because the engine has one gateway of each; a port is forwarded to
//! an address of its own family, there is no translation.

mod network;

pub use network::{Container, Network};

use crate::envelope::{MAX_REQUEST, Refusal, shown};
use crate::wire::Mapping;
use serde::Deserialize;
use serde_json::Value;

/// Mappings of one request.
const MAX_MAPPINGS: usize = 1024;

/// What a client asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// A container is on a network from now on.
    Join(Box<(Network, Container)>),
    /// Serve this network; its TAP comes with the message.
    Attach {
        /// The network.
        network: String,
    },
    /// A container has left a network.
    Leave {
        /// The network.
        network: String,
        /// The container.
        container: String,
    },
    /// Forward ports to a container.
    Publish {
        /// The container.
        container: String,
        /// Its ports, as they were written: what they mean is for whoever forwards them to say.
        mappings: Vec<Mapping>,
    },
    /// Tell everything.
    Status,
}

/// A message's outer shape.
#[derive(Debug, Deserialize)]
struct Envelope {
    execute: String,
    #[serde(default)]
    arguments: Value,
}

#[derive(Debug, Deserialize)]
struct JoinArguments {
    network: Network,
    container: Container,
}

#[derive(Debug, Deserialize)]
struct AttachArguments {
    network_id: String,
}

#[derive(Debug, Deserialize)]
struct LeaveArguments {
    network_id: String,
    container_id: String,
}

#[derive(Debug, Deserialize)]
struct PublishArguments {
    container_id: String,
    ports: Vec<Mapping>,
}

impl Request {
    /// Reads a message.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(message: &[u8]) -> Result<Self, Refusal> {
        if message.len() > MAX_REQUEST {
            return Err(Refusal::new(format!("the request is longer than {MAX_REQUEST} bytes")));
        }
        let bad = |error: serde_json::Error| Refusal::new(format!("bad request: {error}"));
        let Envelope { execute, arguments } = serde_json::from_slice(message).map_err(bad)?;
        match execute.as_str() {
            "join" => {
                let JoinArguments { network, container } = serde_json::from_value(arguments).map_err(bad)?;
                container.fits(&network)?;
                Ok(Self::Join(Box::new((network, container))))
            }
            "attach" => {
                let AttachArguments { network_id } = serde_json::from_value(arguments).map_err(bad)?;
                Ok(Self::Attach { network: network_id })
            }
            "leave" => {
                let LeaveArguments { network_id, container_id } =
                    serde_json::from_value(arguments).map_err(bad)?;
                Ok(Self::Leave { network: network_id, container: container_id })
            }
            "publish" => {
                let PublishArguments { container_id, ports } =
                    serde_json::from_value(arguments).map_err(bad)?;
                if ports.len() > MAX_MAPPINGS {
                    return Err(Refusal::new(format!("more than {MAX_MAPPINGS} port mappings")));
                }
                Ok(Self::Publish { container: container_id, mappings: ports })
            }
            "status" => Ok(Self::Status),
            other => Err(Refusal::new(format!(
                "bad request: {:?} is none of join, attach, leave, publish, status",
                shown(other)
            ))),
        }
    }
}

#[cfg(test)]
mod tests;
