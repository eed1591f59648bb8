//! `teardown`: a container leaves a network, as far as it is still on it. The last one takes the bridge along.
//!
//! Nothing that is gone already is an error: not the namespace, not the interface, not the bridge, not the uplink. Who
//! is still on the network is told by the ports of the bridge. The uplink counts, too, but it may have been started
//! anew since. Names and published ports go first, so that nobody is told an address that is about to vanish.

use super::record::Record;
use super::request::{Call, bridge_name};
use super::setup::{Found, is_port_of, look};
use super::surroundings::Surroundings;
use super::uplink::Uplink;
use crate::driver::is_pair;
use crate::error::{Context, Errors, Result};
use crate::input;
use crate::namespaces::{Place, Places, unless_gone};
use crate::signals::uninterrupted;
use crate::spec::Network;
use nix::errno::Errno;
use slipway_host::netlink::Interface;
use std::path::Path;

pub(super) fn run(netns_path: &Path) -> Result<()> {
    // Already while the request comes in: whoever sends it may be told to end meanwhile.
    let _blocked = uninterrupted();
    let call: Call = input::load(None, "plugin request")?;
    let mut errors = Errors::new();
    let mut places = Places { host: Place::here()?, container: unless_gone(netns_path, &mut errors) };
    errors.note(disconnect(&call, &Surroundings::here()?, &mut places));
    errors.finish()
}

/// Disconnects the container.
pub(super) fn disconnect(call: &Call, surroundings: &Surroundings, places: &mut Places) -> Result<()> {
    let bridge = bridge_name(&call.network)?;
    let mut record = Record::lock(&surroundings.records, &call.network.id)?;
    let mut errors = Errors::new();
    if has_gateway(&call.network) {
        errors.note(leave(call, surroundings));
    }
    let (own, others): (Vec<_>, Vec<_>) =
        record.members.drain(..).partition(|member| member.container.id == call.container_id);
    record.members = others;
    let inside = errors.note(find_inside(call, places)).flatten();
    if let Some(found) = errors.note(look(bridge, places)).flatten() {
        let is_own = |port: &Interface| {
            inside.as_ref().is_some_and(|inside| is_pair(inside, port))
                || own.iter().any(|member| is_port_of(port, member))
        };
        delete(&found, is_own, places);
        record.members.retain(|member| found.ports.iter().any(|port| is_port_of(port, member)));
    } else if let (Some(inside), Some(container)) = (inside, &mut places.container) {
        // Its bridge is gone: the pair has no other end that we could find.
        container.delete_later(&inside);
        record.members.clear();
    } else {
        record.members.clear();
    }
    errors.note(places.delete_leaving());
    errors.note(record.save());
    errors.finish()
}

/// Has the container's port deleted, and the bridge with its TAP if nobody else is on it.
fn delete(found: &Found, is_own: impl Fn(&Interface) -> bool, places: &mut Places) {
    let (own, others): (Vec<&Interface>, Vec<_>) = found.ports.iter().partition(|port| is_own(port));
    let host = &mut places.host;
    own.iter().for_each(|port| host.delete_later(port));
    if others.is_empty() {
        found.taps.iter().for_each(|tap| host.delete_later(tap));
        host.delete_later(&found.bridge);
    }
}

/// Takes the container back from the uplink. One that does not run has forgotten it already.
fn leave(call: &Call, surroundings: &Surroundings) -> Result<()> {
    let uplink = match Uplink::connect(&surroundings.socket) {
        Ok(uplink) => uplink,
        Err(error) => {
            log::info!("{error}");
            return Ok(());
        }
    };
    uplink.leave(&call.network.id, &call.container_id).map(|_| ())
}

fn has_gateway(network: &Network) -> bool {
    network.subnets().iter().any(|subnet| subnet.gateway.is_some())
}

/// The container's interface, if there is one.
fn find_inside(call: &Call, places: &mut Places) -> Result<Option<Interface>> {
    let Some(container) = &mut places.container else { return Ok(None) };
    match container.netlink.interface(&call.network_options.interface_name) {
        Err(error) if error.errno() == Some(Errno::ENODEV) => Ok(None),
        found => Ok(Some(found.context("get container interface")?)),
    }
}
