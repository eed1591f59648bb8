//! Internal networks are closed: nothing is routed from their bridge to another interface, or the other way.
//!
//! Their containers have no default route, and their bridge does not forward IPv4. But with CAP_NET_ADMIN a container
//! makes itself a route; the kernel asks for all interfaces alone whether it may forward IPv6; and whoever switches
//! forwarding on later does so for every interface. The original's suites demand that its table stays as it is when
//! such a network comes, so this one is our own: `inet netavark_internal`, gone with the last internal network.

use super::chains::{INTERNAL_TABLE, out_by};
use super::kernel;
use super::plan::{Base, Plan, Step, Wanted};
use super::rule::{Clause, Direction, Rule};
use crate::error::Result;
use slipway_host::netlink::netfilter::Netfilter;

static FORWARD: Base = Base { name: "INTERNAL", kind: "filter", hook: 2, hook_name: "forward", priority: 0 };

/// Closes these bridges, which are internal networks'.
pub(in crate::firewall) fn close(socket: &mut Netfilter, bridges: &[String]) -> Result<()> {
    kernel::change_in(INTERNAL_TABLE, socket, &to_look_at(), |plan| {
        bridges.iter().for_each(|bridge| add(plan, bridge));
        Ok(())
    })
}

/// Opens a bridge that is an internal network's no longer.
pub(in crate::firewall) fn open(socket: &mut Netfilter, bridge: &str) -> Result<()> {
    kernel::change_in(INTERNAL_TABLE, socket, &to_look_at(), |plan| {
        remove(plan, bridge);
        Ok(())
    })
}

/// What [`close`] and [`open`] would do now, as lines.
pub(in crate::firewall) fn described(bridge: &str, internal: bool) -> Result<Vec<String>> {
    let change = |plan: &mut Plan| if internal { add(plan, bridge) } else { remove(plan, bridge) };
    let steps = kernel::preview_in(INTERNAL_TABLE, &to_look_at(), |plan| {
        change(plan);
        Ok(())
    })?;
    let line = |step: &Step| format!("host       nft [inet {INTERNAL_TABLE}] {step}");
    Ok(steps.iter().map(line).collect())
}

pub(super) fn to_look_at() -> Wanted {
    let mut wanted = Wanted::default();
    wanted.rules(FORWARD.name);
    wanted
}

pub(super) fn add(plan: &mut Plan, bridge: &str) {
    plan.make_table();
    plan.make_base_chain(&FORWARD);
    for rule in rules(bridge) {
        if !plan.has(FORWARD.name, |there| *there == rule) {
            plan.append(FORWARD.name, rule);
        }
    }
}

pub(super) fn remove(plan: &mut Plan, bridge: &str) {
    plan.delete(FORWARD.name, |rule| rule.names(bridge));
    // What others have put there is theirs.
    if plan.has_chain(FORWARD.name) && plan.is_empty(FORWARD.name) {
        plan.delete_table();
    }
}

/// What stays on the bridge passes here, too, where bridges hand their frames to the firewall.
fn rules(bridge: &str) -> [Rule; 2] {
    let in_by = |equal| Clause::Interface { direction: Direction::In, name: bridge.to_owned(), equal };
    [true, false].map(|comes| Rule(vec![in_by(comes), out_by(bridge, !comes), Clause::Drop]))
}
