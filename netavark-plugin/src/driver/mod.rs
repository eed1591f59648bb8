//! Drivers: who connects a container to one network. `bridge`, `macvlan` and `ipvlan` are ours; any other name is a
//! plugin's, even if that is we ourselves (`slipway`).
//!
//! All are given the same [`Request`] and hand back the same [`Outcome`]. The commands decide the order: every request
//! is validated before anything is touched, set up in the order of the document, and undone (the failing one included)
//! when one fails. Teardown works from the same request alone and collects what fails.
//!
//! What a driver does, in the order in which it is asked: [`Driver::find`] (touches nothing), [`Driver::validate`]
//! (checks the request), [`Driver::setup`] (undoes itself when it fails), [`Driver::rollback`] (undoes a setup that
//! succeeded, because another network failed) or [`Driver::announce`], one day [`Driver::teardown`]; and the same in
//! words, for whoever wants to look first.

mod bridge;
mod child;
pub mod external;
mod ipvlan;
mod lease;
mod macvlan;
mod options;
mod rules;
#[cfg(test)]
mod tests;

use crate::dns_handover::DnsEntry;
use crate::error::{Error, Result};
use crate::firewall::Firewall;
use crate::namespaces::Places;
use crate::plan::Op;
use crate::spec::{Compat, Network, PerNetworkOptions, PortMapping, StatusBlock};
pub use bridge::Bridge;
pub(crate) use bridge::{METRIC, SEARCH_DOMAIN, is_pair};
pub use child::Child;
use external::Plugin;
pub(crate) use options::{Common, status};
use std::ffi::OsString;
use std::net::IpAddr;
use std::path::Path;

/// Who connects a container to one network, and what it was told.
#[derive(Debug)]
pub enum Driver<'a> {
    /// A bridge of the host.
    Bridge(Box<Bridge<'a>>),
    /// A child of an interface of the host.
    Child(Box<Child<'a>>),
    /// A program of somebody else.
    Plugin(Plugin, Request<'a>),
}

impl<'a> Driver<'a> {
    /// Finds the driver that the network names.
    ///
    /// # Errors
    /// `unknown network driver "<name>"`.
    pub fn find(request: Request<'a>, plugin_directories: &[OsString]) -> Result<Self> {
        let name = &request.network.driver;
        match name.as_str() {
            "bridge" => return Ok(Self::Bridge(Box::new(Bridge::new(request)))),
            "macvlan" => return Ok(Self::Child(Box::new(macvlan::driver(request)))),
            "ipvlan" => return Ok(Self::Child(Box::new(ipvlan::driver(request)))),
            _ => {}
        }
        Plugin::find(name, plugin_directories)
            .or_else(|| Plugin::own(name))
            .map(|plugin| Self::Plugin(plugin, request))
            .ok_or_else(|| Error::msg(format!("unknown network driver \"{name}\"")))
    }

    /// Checks the request. Nothing is touched.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn validate(&mut self) -> Result<()> {
        match self {
            Self::Bridge(bridge) => bridge.validate(),
            Self::Child(child) => child.validate(),
            // Plugins have no call for it.
            Self::Plugin(..) => Ok(()),
        }
    }

    /// What [`Self::setup`] would do now; a plugin does not say. Only looked at, nothing is touched.
    ///
    /// # Errors
    /// What is wrong with the request, or could not be looked at.
    pub fn plan(&mut self, places: &mut Places, firewall: &Firewall) -> Result<Vec<Op>> {
        match self {
            Self::Bridge(bridge) => bridge.plan(places, firewall),
            Self::Child(child) => child.plan(places),
            Self::Plugin(..) => Ok(Vec::new()),
        }
    }

    /// Connects the container. After an error nothing of it remains.
    ///
    /// # Errors
    /// What could not be done.
    pub fn setup(&mut self, places: &mut Places, firewall: &Firewall) -> Result<Outcome> {
        match self {
            Self::Bridge(bridge) => bridge.setup(places, firewall),
            Self::Child(child) => child.setup(places),
            Self::Plugin(plugin, request) => plugin.setup(request),
        }
    }

    /// Tells the neighbours of a container that [`Self::setup`] has connected where its addresses are now; the later,
    /// the less it has to wait for the link. A plugin does so itself.
    pub fn announce(&self, places: &mut Places) {
        match self {
            Self::Bridge(bridge) => bridge.announce(places),
            Self::Child(child) => child.announce(places),
            Self::Plugin(..) => {}
        }
    }

    /// What [`Self::setup`] would do, one line each, firewall included; a plugin does not say. Nothing is touched.
    ///
    /// # Errors
    /// As [`Self::plan`].
    pub fn describe_setup(&mut self, places: &mut Places, firewall: &Firewall) -> Result<Vec<String>> {
        let mut lines: Vec<String> = self.plan(places, firewall)?.iter().map(ToString::to_string).collect();
        if let Self::Bridge(bridge) = self {
            lines.extend(bridge.describe_rules(places, firewall)?);
        }
        Ok(lines)
    }

    /// What [`Self::setup`] of a bridge would have the DNS server told; the others have nothing to tell. Nothing is
    /// touched.
    ///
    /// # Errors
    /// As [`Self::plan`].
    pub fn describe_names(&mut self, places: &mut Places) -> Result<Option<DnsEntry>> {
        match self {
            Self::Bridge(bridge) => bridge.describe_names(places),
            Self::Child(_) | Self::Plugin(..) => Ok(None),
        }
    }

    /// What [`Self::teardown`] of a bridge would do, one line each; the others do not say. Nothing is touched.
    ///
    /// # Errors
    /// As [`Self::plan`].
    pub fn describe_teardown(&mut self, places: &mut Places, firewall: &Firewall) -> Result<Vec<String>> {
        match self {
            Self::Bridge(bridge) => bridge.describe_teardown(places, firewall),
            Self::Child(_) | Self::Plugin(..) => Ok(Vec::new()),
        }
    }

    /// Undoes a setup that succeeded.
    ///
    /// # Errors
    /// All that could not be undone.
    pub fn rollback(&mut self, places: &mut Places, firewall: &Firewall) -> Result<()> {
        match self {
            Self::Bridge(bridge) => bridge.rollback(places, firewall),
            Self::Child(child) => child.rollback(places),
            Self::Plugin(plugin, request) => plugin.teardown(request),
        }
    }

    /// Disconnects the container. What is already gone is no error, except the interface itself. Interfaces go when all
    /// drivers are done, by [`Places::delete_leaving`].
    ///
    /// # Errors
    /// All that could not be done.
    pub fn teardown(&mut self, places: &mut Places, firewall: &Firewall) -> Result<()> {
        match self {
            Self::Bridge(bridge) => bridge.teardown(places, firewall),
            Self::Child(child) => child.teardown(places),
            Self::Plugin(plugin, request) => plugin.teardown(request),
        }
    }
}

/// What a driver is told: one container on one network.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The container's ID.
    pub container_id: &'a str,
    /// Its name.
    pub container_name: &'a str,
    /// Its host name, for DHCP.
    pub container_hostname: Option<&'a str>,
    /// The DNS servers of this container alone; `None` when none were given.
    pub container_dns_servers: Option<&'a [IpAddr]>,
    /// The path of its network namespace.
    pub netns_path: &'a Path,
    /// The network.
    pub network: &'a Network,
    /// How the container joins it.
    pub options: &'a PerNetworkOptions,
    /// The ports to publish; `None` when the key was absent, which plugins are told.
    pub port_mappings: Option<&'a [PortMapping]>,
    /// Whose defaults are meant.
    pub compat: Compat,
    /// Whose firewall rules are meant. The newer ones serve older callers better, so it is the newer generation unless
    /// the environment says otherwise.
    pub rules: Compat,
    /// The run directory (`--config`).
    pub config_dir: &'a Path,
    /// Whether this runs inside a rootless network namespace.
    pub rootless: bool,
    /// The port of the DNS server; 53 unless it was moved.
    pub dns_port: u16,
}

impl Request<'_> {
    /// The ports to publish; none and an empty list are the same.
    #[must_use]
    pub fn ports(&self) -> &[PortMapping] {
        self.port_mappings.unwrap_or_default()
    }
}

/// What a driver hands back.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outcome {
    /// For the caller.
    pub status: StatusBlock,
    /// For the DNS server, if names are served on the network.
    pub dns: Option<DnsEntry>,
}
