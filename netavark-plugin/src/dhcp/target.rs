//! One interface in a container, as the proxy finds it whenever it has something to do there.
//!
//! The namespace is entered for the moment in which a netlink socket is opened in it; the proxy has one thread and
//! awaits nothing meanwhile. Nothing keeps the namespace open between calls: the proxy must not be what keeps it alive.
//! It cannot open one either: that is for the [`opener`]. What each version of IP does there is with that version.

use super::opener;
use crate::error::{Context as _, Result};
use crate::namespaces::Place;
use crate::proto::NetworkConfig;
use nix::errno::Errno;
use slipway_host::netlink::Interface;
use std::path::PathBuf;

/// The metric of the default route by contract, when the caller says nothing.
pub(crate) const METRIC: u32 = 100;

/// One interface in a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    /// The path of the network namespace.
    pub(super) netns: PathBuf,
    /// The interface in it.
    pub(super) interface: String,
    /// The metric of its default route; `None`: it has none, whatever the server says.
    pub(super) metric: Option<u32>,
}

impl Target {
    /// Where a call's lease goes.
    pub(super) fn of(config: &NetworkConfig) -> Self {
        Self {
            netns: (&config.ns_path).into(),
            interface: config.container_iface.clone(),
            metric: (!config.no_default_route).then(|| config.metric.unwrap_or(METRIC)),
        }
    }

    /// Whether the namespace is still there.
    pub(super) fn exists(&self) -> bool {
        opener::open(&self.netns).is_ok()
    }

    /// Looks whether the interface is there.
    pub(super) fn check(&self) -> Result<()> {
        self.open().map(drop)
    }

    /// Its namespace, and the interface as it is now.
    pub(super) fn open(&self) -> Result<(Place, Interface)> {
        let mut place = Place::at(opener::open(&self.netns).context("open the container's netns")?)?;
        let interface = match self.interface.as_str() {
            // The kernel finds a name of no letters merely invalid.
            "" => return Err(crate::Error::Netlink(Errno::ENODEV)).context("get container interface"),
            name => place.netlink.interface(name).context("get container interface")?,
        };
        Ok((place, interface))
    }
}
