//! Rules in the kernel's nf_tables, in the table `inet netavark`, by netlink.
//!
//! ```text
//!   NetworkRules, PortRules                                  kernel
//!        │ network.rs, ports.rs: which chains to look at       │
//!        │                     ┌── decode.rs ◀── kernel.rs ◀───┤ lists of rules
//!        ▼                     ▼                               │
//!   network.rs, ports.rs ─▶ Plan (plan.rs), steps ─▶ encode.rs ─▶ one transaction (kernel.rs)
//! ```
//! Before ports are added, [`rivals`] makes room for them among the rules of others. [`internal`] closes internal
//! networks, in a table of its own.
//!
//! No `nft` program is started. Everything between reading and the transaction is pure: [`rule`] is the model of a
//! rule, and what is added or removed is decided by comparing models. `nft list table inet netavark` prints what the
//! contract has, in its order, and rules that another version has left are recognised as ours.

mod beside;
mod chains;
mod decode;
mod encode;
mod fuzz;
mod internal;
mod kernel;
mod network;
mod plan;
mod ports;
mod rivals;
mod rule;
#[cfg(test)]
mod tests;
mod translation;
mod wire;

use super::{NetworkRules, PortRules, Saved};
use crate::error::Result;
use crate::living::Others;
pub(super) use beside::{Names, lead_names, stand_beside, tidy};
pub(super) use fuzz::{fuzz, fuzz_network, fuzz_ports, seeds};
pub(super) use internal::{close, described as describe_internal, open};
use plan::{Plan, Wanted};
use slipway_host::netlink::netfilter::Netfilter;
use std::cell::RefCell;
use std::collections::HashSet;
use std::net::IpAddr;

/// Adds the rules of a network that are missing, and those of a container's ports, which are the ones that count from
/// now on. Gives the addresses of the dead, whose rules have gone.
pub(super) fn setup(
    socket: &mut Netfilter,
    network: &NetworkRules,
    ports: &PortRules,
    others: &Others,
) -> Result<HashSet<IpAddr>> {
    let dead = RefCell::default();
    let wanted = to_add(network, ports, others);
    let rivals = |seen: &Plan| rivals::to_look_at(ports, seen);
    kernel::change_further(socket, &wanted, rivals, |plan| {
        *dead.borrow_mut() = add(plan, network, ports, others)?;
        Ok(())
    })?;
    Ok(dead.into_inner())
}

/// The steps of [`setup`] as lines, each a command of nft(8) for our table.
pub(super) fn describe_setup(
    network: &NetworkRules,
    ports: &PortRules,
    others: &Others,
) -> Result<Vec<String>> {
    let rivals = |seen: &Plan| rivals::to_look_at(ports, seen);
    described(&to_add(network, ports, others), rivals, |plan| add(plan, network, ports, others).map(drop))
}

fn to_add(network: &NetworkRules, ports: &PortRules, others: &Others) -> Wanted {
    let mut wanted = Wanted::default();
    network::look_to_add(network, &mut wanted);
    ports::look_to_add(ports, false, &mut wanted);
    if !ports.ports().is_empty() {
        wanted.rules(chains::DNAT);
    }
    // What the dead have left in the network's own chains. Where records say what each container has, those were gone
    // through; with a hundred containers the chains are long.
    if others.count == 0 || !others.recorded {
        ports::own_chains(ports).for_each(|chain| wanted.rules(chain));
    }
    wanted
}

fn add(
    plan: &mut Plan,
    network: &NetworkRules,
    ports: &PortRules,
    others: &Others,
) -> Result<HashSet<IpAddr>> {
    let cleared = rivals::clear(plan, ports, others.count == 0, |address| others.living.has(address));
    network::add(plan, network, others.only_network);
    ports::add(plan, ports, false)?;
    cleared.put_behind(plan);
    Ok(cleared.dead)
}

/// Keeps the questions to these DNS servers from published ports, where there are any that cover their port.
pub(super) fn keep_names(socket: &mut Netfilter, dns_port: u16, servers: &[IpAddr]) -> Result<()> {
    let mut wanted = Wanted::default();
    ports::look_to_keep_names(dns_port, servers, &mut wanted);
    if wanted.is_empty() {
        return Ok(());
    }
    kernel::change(socket, &wanted, |plan| {
        ports::keep_names(plan, dns_port, servers);
        Ok(())
    })
}

fn described(
    wanted: &Wanted,
    further: impl Fn(&Plan) -> Wanted,
    plan: impl Fn(&mut Plan) -> Result<()>,
) -> Result<Vec<String>> {
    let steps = kernel::preview(wanted, further, plan)?;
    Ok(steps.iter().map(|step| format!("host       nft [inet netavark] {step}")).collect())
}

/// Removes the rules of a container's ports and, with the last container (`complete`), those of the network.
pub(super) fn teardown(
    socket: &mut Netfilter,
    network: &NetworkRules,
    ports: &PortRules,
    complete: bool,
) -> Result<()> {
    let wanted = to_remove(network, ports, complete);
    if wanted.is_empty() {
        return Ok(());
    }
    kernel::change(socket, &wanted, |plan| remove(plan, network, ports, complete))
}

/// The steps of [`teardown`] as lines.
pub(super) fn describe_teardown(
    network: &NetworkRules,
    ports: &PortRules,
    complete: bool,
) -> Result<Vec<String>> {
    let wanted = to_remove(network, ports, complete);
    described(&wanted, |_| Wanted::default(), |plan| remove(plan, network, ports, complete))
}

fn to_remove(network: &NetworkRules, ports: &PortRules, complete: bool) -> Wanted {
    let mut wanted = Wanted::default();
    ports::look_to_remove(ports, complete, &mut wanted);
    if complete {
        network::look_to_remove(network, &mut wanted);
    }
    wanted
}

fn remove(plan: &mut Plan, network: &NetworkRules, ports: &PortRules, complete: bool) -> Result<()> {
    ports::remove(plan, ports, complete);
    if complete {
        network::remove(plan, network);
    }
    Ok(())
}

/// Adds whatever is missing of all that was saved.
pub(super) fn restore(socket: &mut Netfilter, saved: &Saved) -> Result<()> {
    let mut wanted = Wanted::default();
    for network in &saved.networks {
        network::look_to_add(network, &mut wanted);
    }
    for ports in &saved.ports {
        ports::look_to_add(ports, true, &mut wanted);
    }
    if wanted.is_empty() {
        return Ok(());
    }
    kernel::change(socket, &wanted, |plan| {
        saved.networks.iter().for_each(|network| network::add(plan, network, false));
        saved.ports.iter().try_for_each(|ports| ports::add(plan, ports, true))
    })
}
