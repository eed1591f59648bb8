//! What goes in and what comes out, as types: the JSON of `setup`, `teardown`, `create` and of plugins.
//!
//! ```text
//! options.rs    the whole request: networks to join, ports to publish
//! network.rs    one network's definition, as its configuration file has it
//! status.rs     the answer of setup
//! validate.rs   texts in it made into values: option strings, MAC addresses, isolation
//! ipam.rs       addresses given to a container, matched with the network's subnets
//! ```
//! Unknown keys are ignored everywhere. Maps keep the order of the document, because the order of networks is the order
//! of interfaces.

pub mod ipam;
pub mod network;
pub mod options;
pub mod status;
pub mod validate;

pub use ipam::{Ipam, IpamKind};
pub use network::{LeaseRange, Network, Route, RouteKind, Subnet};
pub use options::{Compat, NetworkOptions, Networks, PerNetworkOptions, PortMapping};
pub use status::{NetAddress, NetInterface, Status, StatusBlock};

/// A map that remembers the order of its entries.
pub type Map<V> = indexmap::IndexMap<String, V>;
