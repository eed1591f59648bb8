//! Requests and replies of the uplink's socket, as valid types, without any I/O. The protocol is docs/uplink.md.
//!
//! What is read here comes from programs of the same user, but a container engine copies names and labels of strangers
//! into it, so everything is checked once and is valid afterwards: sizes first, then JSON with serde_json's bound on depth,
//! then one field after another. Unknown keys are passed over, so that either side may be newer. A request that is wrong in
//! one place is refused whole.
//!
//! Limits: one subnet of each family for a network, because the engine has one gateway of each; a port is forwarded to an
//! address of its own family, there is no translation.

mod mapping;
mod network;

pub use mapping::Mapping;
pub use network::{Container, Network};

use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};
use slipway_host::strerror::words;

/// A request has at most this many bytes.
pub const MAX_REQUEST: usize = 64 << 10;
/// Mappings of one request.
const MAX_MAPPINGS: usize = 1024;

/// Why a client does not get what it wants.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Refusal {
    /// One line that says what to do.
    pub text: String,
    /// The kernel's number, where a system call failed.
    pub errno: Option<i32>,
}

impl Refusal {
    /// One that no system call is to blame for.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), errno: None }
    }

    /// For a system call that failed.
    #[must_use]
    pub fn system(doing: &str, error: &std::io::Error) -> Self {
        Self { text: format!("cannot {doing}: {}", words(error)), errno: error.raw_os_error() }
    }

    /// As a reply.
    #[must_use]
    pub fn to_json(&self) -> String {
        match self.errno {
            Some(errno) => json!({ "error": self.text, "errno": errno }).to_string(),
            None => json!({ "error": self.text }).to_string(),
        }
    }
}

/// The reply to a request that was carried out.
#[must_use]
pub fn granted(value: &Value) -> String {
    json!({ "return": value }).to_string()
}

/// What a reply says, for those who asked.
///
/// # Errors
/// The refusal, or that it is no reply at all.
pub fn read_reply(bytes: &[u8]) -> Result<Value, Refusal> {
    let mut reply: Value = serde_json::from_slice(bytes)
        .map_err(|error| Refusal::new(format!("the uplink's reply is not JSON: {error}")))?;
    if let Some(text) = reply.get("error").and_then(Value::as_str) {
        let errno = reply.get("errno").and_then(Value::as_i64).and_then(|number| i32::try_from(number).ok());
        return Err(Refusal { text: text.to_owned(), errno });
    }
    reply
        .get_mut("return")
        .map(Value::take)
        .ok_or_else(|| Refusal::new("the uplink's reply has neither \"return\" nor \"error\""))
}

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

/// `null` is as good as nothing: it is how Go writes an empty list.
///
/// # Errors
/// When it is neither.
pub fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// What is repeated of a wrong text.
#[must_use]
pub fn shown(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
mod tests;
