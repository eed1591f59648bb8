//! firewalld: as the driver that keeps the rules, and as a neighbour of the nftables driver.
//!
//! ```text
//!   Firewalld (driver)      zone netavark_zone of all subnets, policies for the way out and for published ports
//!   Neighbour               subnets in the zone `trusted`, so that firewalld lets containers pass
//!        └──▶ client.rs ──▶ bus.rs ──▶ system bus
//! ```
//! The policies are made once, permanently; subnets and ports are only in the running configuration, and come back after
//! a reload through [`follow`]. firewalld knows no isolation between bridges, and internal networks need nothing of it.

mod bus;
mod client;
mod forwards;

use super::{DNS_PORT, NetworkRules, PortRules, Saved, TARGET};
use crate::error::{Context, Error, Result};
pub(super) use bus::fuzz as fuzz_bus;
use client::{Client, Policy};
use forwards::Forwards;
use std::cell::RefCell;

const ZONE: &str = "netavark_zone";
const PORTS: &str = "netavark_portfwd";
const LOCAL_PORTS: &str = "netavark_host_fwd";
const TRUSTED: &str = "trusted";

/// All policies of the driver.
const POLICIES: [Policy; 4] = [
    policy("netavark_policy", ZONE, "ANY", "ACCEPT", true),
    policy(PORTS, "ANY", "HOST", "CONTINUE", false),
    policy(LOCAL_PORTS, "HOST", "ANY", "CONTINUE", false),
    policy("netavark_zone_acc", "ANY", ZONE, "CONTINUE", true),
];

const fn policy(
    name: &'static str,
    ingress: &'static str,
    egress: &'static str,
    target: &'static str,
    masquerade: bool,
) -> Policy {
    Policy { name, ingress, egress, target, masquerade }
}

/// The driver.
#[derive(Debug)]
pub struct Firewalld {
    client: RefCell<Client>,
}

impl Firewalld {
    /// Connects to the system bus.
    ///
    /// # Errors
    /// When there is none.
    pub(super) fn connect() -> Result<Self> {
        let doing = "Error retrieving dbus connection for requested firewall backend";
        let client = Client::connect()
            .and_then(|client| client.ok_or_else(|| Error::Dbus("there is no system bus here".to_owned())));
        Ok(Self { client: RefCell::new(client.context(doing)?) })
    }

    pub(super) fn setup(&self, network: &NetworkRules, ports: &PortRules) -> Result<()> {
        let forwards = Forwards::of(ports)?;
        self.add_network(network)?;
        self.add_ports(ports, forwards)
    }

    pub(super) fn teardown(&self, network: &NetworkRules, ports: &PortRules, complete: bool) -> Result<()> {
        if network.internal {
            return Ok(());
        }
        let client = &mut *self.client.borrow_mut();
        for name in [PORTS, LOCAL_PORTS] {
            let there = client.policy(name)?;
            client.set_policy(name, forwards::removed(there, ports, complete))?;
        }
        if complete {
            for subnet in network.subnets() {
                client.remove_source(ZONE, subnet)?;
            }
        }
        Ok(())
    }

    pub(super) fn restore(&self, saved: &Saved) -> Result<()> {
        saved.networks.iter().try_for_each(|network| self.add_network(network))?;
        saved.ports.iter().try_for_each(|ports| self.add_ports(ports, Forwards::of(ports)?))
    }

    fn add_network(&self, network: &NetworkRules) -> Result<()> {
        if network.internal {
            return Ok(());
        }
        let client = &mut *self.client.borrow_mut();
        let new_zone = client.ensure_zone(ZONE).context(format!("Error creating zone {ZONE}"))?;
        let new_policies = client.ensure_policies(&POLICIES).context("Error creating policies")?;
        if new_zone || new_policies {
            client.reload()?;
        }
        for subnet in network.subnets() {
            let doing = || format!("Error adding source subnets to zone {ZONE}");
            client.add_source(ZONE, subnet).with_context(doing)?;
        }
        Ok(())
    }

    fn add_ports(&self, ports: &PortRules, forwards: Forwards) -> Result<()> {
        if ports.internal {
            return Ok(());
        }
        let client = &mut *self.client.borrow_mut();
        let Forwards { ports, rules, local_rules } = forwards;
        for (name, ports, rules) in [(PORTS, ports, rules), (LOCAL_PORTS, Vec::new(), local_rules)] {
            if ports.is_empty() && rules.is_empty() {
                continue;
            }
            let there = client.policy(name)?;
            client
                .set_policy(name, forwards::added(there, ports, rules))
                .with_context(|| format!("Failed to update firewalld policy {name} port forwarding rules"))?;
        }
        Ok(())
    }
}

/// A firewalld that runs beside the nftables driver.
#[derive(Debug)]
pub(super) struct Neighbour(Client);

impl Neighbour {
    /// The one that is running, if any. A bus that does not answer is as good as none.
    pub(super) fn find() -> Option<Self> {
        let found = Client::connect().and_then(|client| match client {
            Some(mut client) => Ok(client.is_running()?.then_some(Self(client))),
            None => Ok(None),
        });
        found.unwrap_or_else(|error| {
            log::debug!(target: TARGET, "no firewalld: {error}");
            None
        })
    }

    /// Whether it lets ports be published at all.
    ///
    /// # Errors
    /// When it does not, and some are to be.
    pub(super) fn check(&mut self, ports: &PortRules) -> Result<()> {
        let any = ports.port_mappings.as_ref().is_some_and(|list| !list.is_empty());
        if !any && ports.dns_port == DNS_PORT {
            return Ok(());
        }
        match self.0.strict_forward_ports().map(|text| text.to_lowercase()).as_deref() {
            None | Some("no") => Ok(()),
            Some("yes") => {
                Err(Error::msg("Port forwarding not possible as firewalld StrictForwardPorts enabled"))
            }
            Some(other) => {
                log::warn!(target: TARGET, "unexpected value from StrictForwardPorts property: {other}");
                Ok(())
            }
        }
    }

    /// Lets what comes from the network's subnets pass. Failures are only told.
    pub(super) fn trust(&mut self, network: &NetworkRules) {
        for subnet in network.subnets() {
            if let Err(error) = self.0.add_source(TRUSTED, subnet) {
                log::warn!(target: TARGET, "cannot put {subnet} in firewalld's zone {TRUSTED}: {error}");
            }
        }
    }

    /// The opposite.
    pub(super) fn distrust(&mut self, network: &NetworkRules) {
        for subnet in network.subnets() {
            if let Err(error) = self.0.remove_source(TRUSTED, subnet) {
                log::warn!(target: TARGET, "cannot take {subnet} out of firewalld's zone {TRUSTED}: {error}");
            }
        }
    }
}

/// Calls `restore` now and whenever firewalld was reloaded, for ever.
///
/// # Errors
/// When there is no bus, or when it goes away.
pub(super) fn follow(mut restore: impl FnMut()) -> Result<()> {
    let client = Client::connect()?;
    let mut client = client.ok_or_else(|| Error::Dbus("there is no system bus here".to_owned()))?;
    client.watch_reloads()?;
    // This is started after firewalld, which has flushed the rules when it started.
    restore();
    loop {
        client.wait_for_reload()?;
        restore();
    }
}

/// Ports of whatever a state file says are forwarded in so many words, or refused.
pub(super) fn fuzz_ports(ports: &PortRules) {
    let Ok(forwards) = Forwards::of(ports) else { return };
    let most = ports.ports().len() * 2;
    assert!(forwards.ports.len() <= most && forwards.local_rules.len() <= most, "nothing is invented");
    assert!(forwards.rules.len() <= most + ports.dns_server_ips.len(), "nothing is invented");
}
