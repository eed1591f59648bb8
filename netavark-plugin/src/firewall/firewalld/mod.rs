//! firewalld: as the driver that keeps the rules, and as a neighbour of the nftables driver.
//!
//! ```text
//!   Firewalld (driver)      zone netavark_zone of all subnets, policies for the way out, published ports and names
//!   Neighbour               subnets in the zone `trusted`, so that firewalld lets containers pass
//!        └──▶ client.rs ──▶ bus.rs ──▶ system bus
//! ```
//! Zone and policies are made once, permanently, which takes a reload; subnets, ports and names are only in the running
//! configuration, and come back after a reload through [`follow`]. firewalld knows no isolation between bridges.
//! Internal networks are in no zone of ours, and need nothing of it but that their questions come in to the DNS server.

mod bus;
mod client;
mod forwards;
mod names;

use super::{DNS_PORT, NetworkRules, PortRules, Saved, TARGET};
use crate::error::{Context, Error, Result};
pub(super) use bus::fuzz as fuzz_bus;
use client::{Client, ForwardPort, Policy, PolicySettings};
use forwards::{Forwards, Move};
use std::cell::RefCell;

const ZONE: &str = "netavark_zone";
const PORTS: &str = "netavark_portfwd";
const PORTS_ANY: &str = "netavark_port_any";
const LOCAL_PORTS: &str = "netavark_host_fwd";
const NAMES: &str = "netavark_names";
const TRUSTED: &str = "trusted";

/// The policies of the driver but for [`published`].
const POLICIES: [Policy; 4] = [
    policy("netavark_policy", ZONE, "ANY", "ACCEPT", true),
    policy(LOCAL_PORTS, "HOST", "ANY", "CONTINUE", false),
    policy("netavark_zone_acc", "ANY", ZONE, "CONTINUE", true),
    policy(NAMES, "ANY", "HOST", "CONTINUE", false),
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

/// The policy of published ports. Before 2.2, firewalld takes no forward to another address towards the host; away from
/// it the rule is the same.
fn published(version: &str) -> Policy {
    let mut numbers = version.split('.').map(|number| number.parse::<u32>().ok());
    match (numbers.next().flatten(), numbers.next().flatten()) {
        (Some(major), Some(minor)) if (major, minor) < (2, 2) => {
            policy(PORTS_ANY, "ANY", "ANY", "CONTINUE", false)
        }
        _ => policy(PORTS, "ANY", "HOST", "CONTINUE", false),
    }
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

    /// Whether firewalld has been reloaded for it: then whatever others had in the running configuration has to be put
    /// back.
    pub(super) fn setup(&self, network: &NetworkRules, ports: &PortRules) -> Result<bool> {
        let forwards = Forwards::of(ports)?;
        let names = names::rules(network, ports);
        if network.internal && names.is_empty() {
            return Ok(false);
        }
        let client = &mut *self.client.borrow_mut();
        let Ready { published, reloaded } = make_ready(client)?;
        add_network(client, network)?;
        add_ports(client, published, ports, forwards.clone(), names)?;
        if !ports.internal {
            let Forwards { ports, rules, local_rules } = forwards;
            come_first(client, published, &ports, &rules)?;
            come_first(client, LOCAL_PORTS, &[], &local_rules)?;
        }
        Ok(reloaded)
    }

    pub(super) fn teardown(&self, network: &NetworkRules, ports: &PortRules, complete: bool) -> Result<()> {
        if network.internal && (!complete || ports.dns_server_ips.is_empty()) {
            return Ok(());
        }
        let client = &mut *self.client.borrow_mut();
        let there = client.policies()?;
        for name in
            [PORTS, PORTS_ANY, LOCAL_PORTS].into_iter().filter(|name| there.iter().any(|it| it == name))
        {
            let settings = client.policy(name)?;
            client.set_policy(name, forwards::removed(settings, ports, complete))?;
        }
        if !complete {
            return Ok(());
        }
        if there.iter().any(|name| name == NAMES) {
            let PolicySettings { rich_rules, .. } = client.policy(NAMES)?;
            let rich_rules = forwards::without(rich_rules, |rule| names::is_of(rule, network));
            client.set_policy(NAMES, PolicySettings { rich_rules, ..PolicySettings::default() })?;
        }
        for subnet in network.subnets() {
            client.remove_source(ZONE, subnet)?;
        }
        Ok(())
    }

    pub(super) fn restore(&self, saved: &Saved) -> Result<()> {
        let client = &mut *self.client.borrow_mut();
        let Ready { published, .. } = make_ready(client)?;
        for network in &saved.networks {
            add_network(client, network)?;
        }
        // The newest first, which so have their ports.
        for ports in &saved.ports {
            let network = saved.networks.iter().find(|network| network.network_id == ports.network_id);
            let names = network.map(|network| names::rules(network, ports)).unwrap_or_default();
            add_ports(client, published, ports, Forwards::of(ports)?, names)?;
        }
        Ok(())
    }
}

/// What all networks need is there.
struct Ready {
    /// The policy of published ports.
    published: &'static str,
    /// firewalld had to be reloaded for it.
    reloaded: bool,
}

/// Makes zone and policies, where they are missing.
fn make_ready(client: &mut Client) -> Result<Ready> {
    let published = published(&client.version()?);
    let policies: Vec<_> = POLICIES.iter().chain([&published]).collect();
    let new_zone = client.ensure_zone(ZONE).context(format!("Error creating zone {ZONE}"))?;
    let new_policies = client.ensure_policies(&policies).context("Error creating policies")?;
    let reloaded = new_zone || new_policies;
    if reloaded {
        client.reload()?;
    }
    Ok(Ready { published: published.name, reloaded })
}

fn add_network(client: &mut Client, network: &NetworkRules) -> Result<()> {
    if network.internal {
        return Ok(());
    }
    for subnet in network.subnets() {
        let doing = || format!("Error adding source subnets to zone {ZONE}");
        client.add_source(ZONE, subnet).with_context(doing)?;
    }
    Ok(())
}

fn add_ports(
    client: &mut Client,
    published: &str,
    ports: &PortRules,
    forwards: Forwards,
    names: Vec<String>,
) -> Result<()> {
    if !ports.internal {
        let Forwards { ports, rules, local_rules } = forwards;
        add(client, published, ports, rules)?;
        add(client, LOCAL_PORTS, Vec::new(), local_rules)?;
    }
    add(client, NAMES, Vec::new(), names)
}

/// Adds what is missing to a policy.
fn add(client: &mut Client, name: &str, ports: Vec<ForwardPort>, rules: Vec<String>) -> Result<()> {
    if ports.is_empty() && rules.is_empty() {
        return Ok(());
    }
    let there = client.policy(name)?;
    client
        .set_policy(name, forwards::added(there, ports, rules))
        .with_context(|| format!("Failed to update firewalld policy {name} port forwarding rules"))
}

/// Puts what others have in a policy for a newcomer's ports behind its own. The first one that matches has the packet,
/// and firewalld knows no place but the last; the newcomer's are there meanwhile, so the port is never nobody's.
fn come_first(client: &mut Client, name: &str, ports: &[ForwardPort], rules: &[String]) -> Result<()> {
    if ports.is_empty() && rules.is_empty() {
        return Ok(());
    }
    let there = client.policy(name)?;
    let doing = || format!("Failed to update firewalld policy {name} port forwarding rules");
    for Move { out, behind } in forwards::put_behind(there, ports, rules) {
        client.set_policy(name, out).and_then(|()| client.set_policy(name, behind)).with_context(doing)?;
    }
    Ok(())
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
    let count: usize = ports.ports().iter().map(|mapping| usize::from(mapping.count())).sum();
    // More than that is a matter of memory, which whoever publishes so many ports has to have.
    let few = count <= 4096;
    let Some(forwards) = few.then(|| Forwards::of(ports).ok()).flatten() else { return };
    let most = count * 2;
    assert!(forwards.ports.len() <= most && forwards.local_rules.len() <= most, "nothing is invented");
    assert!(forwards.rules.len() <= most + ports.dns_server_ips.len(), "nothing is invented");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn older_versions_publish_away_from_the_host() {
        for (version, name) in [
            ("0.9.4", PORTS_ANY),
            ("1.3.3", PORTS_ANY),
            ("2.1.2", PORTS_ANY),
            ("2.2.0", PORTS),
            ("2.10", PORTS),
            ("2.4.0~rc1", PORTS),
            ("3.0.0", PORTS),
            ("", PORTS),
        ] {
            assert_eq!(published(version).name, name, "{version}");
        }
    }
}
