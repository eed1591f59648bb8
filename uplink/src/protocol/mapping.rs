//! Published ports, as container engines write them.

use super::or_default;
use serde::{Deserialize, Serialize};

/// A port mapping as container engines write it: the JSON of `publish`, and of `rootlessport`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mapping {
    /// Where the host listens, a link-local address with its interface (`fe80::1%eth0`); empty: everywhere.
    #[serde(default)]
    pub host_ip: Option<String>,
    /// The first port of the host.
    pub host_port: u16,
    /// The first port of the container.
    pub container_port: u16,
    /// `tcp` or `udp`, or both with a comma between them; empty: `tcp`.
    #[serde(default, deserialize_with = "or_default")]
    pub protocol: String,
    /// How many ports.
    #[serde(default, deserialize_with = "or_default")]
    pub range: u16,
}
