//! `setup`: a container joins a network.
//!
//! ```text
//!   check ──▶ lock ──▶ uplink: join ──▶ bridge, TAP, pair ──▶ uplink: attach, others, ports ──▶ record
//! ```
//! The uplink is asked first: without it nothing is touched. It says whether the network has its stack. If it has not,
//! this call makes the TAP and hands it over. That is so for the first container, and after the uplink was started
//! anew; then those who are still on the bridge are announced again, with their ports.
//!
//! When a step fails, everything of this call is undone. What the others gain from it stays: a TAP that was handed over
//! for them, too.

use super::record::{self, Member, Record};
use super::request::{Call, Wanted};
use super::surroundings::Surroundings;
use super::uplink::Uplink;
use crate::announce;
use crate::apply::{self, Links, Undo};
use crate::driver::{SEARCH_DOMAIN, status};
use crate::error::{Context, Error, Errors, Result};
use crate::input;
use crate::namespaces::{self, Place, Places, gone};
use crate::plan::switch::TAP;
use crate::spec::{PortMapping, StatusBlock};
use nix::errno::Errno;
use slipway_host::netlink::{Interface, Request};
use slipway_uplink::wire::Network;
use std::os::fd::AsFd as _;
use std::path::Path;

pub(super) fn run(netns_path: &Path) -> Result<StatusBlock> {
    let namespace = namespaces::open(netns_path).context("invalid namespace path")?;
    let call: Call = input::load(None, "plugin request")?;
    let mut places = Places { host: Place::here()?, container: Some(Place::at(namespace)?) };
    connect(&call, &Surroundings::here()?, &mut places)
}

/// Connects the container. After an error nothing of it remains but what was there before.
pub(super) fn connect(call: &Call, surroundings: &Surroundings, places: &mut Places) -> Result<StatusBlock> {
    let wanted = call.parse()?;
    let mut record = Record::lock(&surroundings.records, &call.network.id)?;
    let result = join(call, &wanted, surroundings, &mut record, places);
    // A setup that failed has put nobody on record; what may be left over is the lock.
    if result.is_err()
        && let Err(error) = record.save()
    {
        log::error!("failed to cleanup after setup failed: {error}");
    }
    result
}

fn join(
    call: &Call,
    wanted: &Wanted<'_>,
    surroundings: &Surroundings,
    record: &mut Record,
    places: &mut Places,
) -> Result<StatusBlock> {
    let bridge = look(wanted.plan.name, places)?;
    let way_out = match &wanted.network {
        None => None,
        Some(network) => Some(WayOut { uplink: Uplink::connect(&surroundings.socket)?, network }),
    };
    places.bring_loopback_up()?;
    let former = bridge.as_ref().and_then(|found| {
        let own = record.members.iter().find(|member| member.container.id == call.container_id);
        own.filter(|member| found.ports.iter().any(|port| is_port_of(port, member))).cloned()
    });
    let mut joining = Joining { call, wanted, way_out, bridge, former, undo: Undo::default() };
    match joining.all(surroundings, record, places) {
        Ok(status) => Ok(status),
        Err(error) => {
            if let Err(error) = joining.roll_back(places) {
                log::error!("failed to cleanup after setup failed: {error}");
            }
            Err(error)
        }
    }
}

/// The bridge of a network and its ports.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) bridge: Interface,
    /// The host's ends of pairs, and whatever else somebody put there.
    pub(super) ports: Vec<Interface>,
    /// TAPs that were made here.
    pub(super) taps: Vec<Interface>,
}

/// Looks for the bridge. One with addresses is somebody else's, whom it must not be taken from.
pub(super) fn look(name: &str, places: &mut Places) -> Result<Option<Found>> {
    let netlink = &mut places.host.netlink;
    let bridge = match netlink.interface(name) {
        Err(error) if error.errno() == Some(Errno::ENODEV) => return Ok(None),
        found => found.context("get bridge interface")?,
    };
    if bridge.kind.as_deref() != Some("bridge") {
        let kind = bridge.kind.as_deref().unwrap_or("physical");
        return Err(Error::msg(format!("bridge interface {name} already exists but is a {kind} interface")));
    }
    let addresses = netlink.addresses().context("get bridge addresses")?;
    if addresses.iter().any(|address| address.interface == bridge.index && !address.local) {
        return Err(Error::msg(format!(
            "bridge interface {name} has addresses: it is not a network of slipway's; name another one"
        )));
    }
    let all = netlink.ports(bridge.index).context("get bridge ports")?;
    let (taps, ports) = all.into_iter().partition(is_ours);
    Ok(Some(Found { bridge, ports, taps }))
}

/// Whether a port is a TAP that was made here. A machine somebody connects to the bridge has one of another name.
fn is_ours(port: &Interface) -> bool {
    port.kind.as_deref() == Some("tun") && port.name.starts_with(TAP)
}

/// The uplink, and what it is told of the network.
#[derive(Debug)]
struct WayOut<'a> {
    uplink: Uplink,
    network: &'a Network,
}

/// A setup under way.
#[derive(Debug)]
struct Joining<'a> {
    call: &'a Call,
    wanted: &'a Wanted<'a>,
    way_out: Option<WayOut<'a>>,
    bridge: Option<Found>,
    /// The container, when it is on the network already.
    former: Option<Member>,
    undo: Undo,
}

impl Joining<'_> {
    fn all(
        &mut self,
        surroundings: &Surroundings,
        record: &mut Record,
        places: &mut Places,
    ) -> Result<StatusBlock> {
        let plan = &self.wanted.plan;
        let attach = match &self.way_out {
            None => false,
            Some(WayOut { uplink, network }) => {
                let attached = uplink.join(network, &self.wanted.container)?;
                self.forget_the_dead(record, uplink, network);
                let taps = self.bridge.as_ref().map_or(0, |found| found.taps.len());
                !attached || taps != 1
            }
        };
        if attach {
            // Nobody serves them any more, or soon.
            for tap in self.bridge.iter().flat_map(|found| &found.taps) {
                gone(places.host.netlink.run_one(&Request::delete(tap.index))).context("delete stale tap")?;
            }
        }
        let bridge = self.bridge.as_ref().map(|found| &found.bridge);
        let mut links = Links { bridge: bridge.cloned(), ..Links::default() };
        self.undo = apply::setup(&plan.setup(bridge, attach), places, &mut links)?;
        if let (Some(WayOut { uplink, network }), Some(wire)) = (&self.way_out, &links.wire) {
            uplink.attach(&network.id, wire.as_fd())?;
            if let Some(found) = &self.bridge {
                // It is theirs as much as ours: it stays whatever becomes of us.
                links.tap.iter().for_each(|tap| self.undo.keep(tap.index));
                self.announce_others(found, record, uplink, network);
            }
        }
        let ports = self.publish(surroundings, places)?;
        let (inside, port) = links
            .inside
            .as_ref()
            .zip(links.port.as_ref())
            .ok_or_else(|| Error::msg("internal: no interface"))?;
        record.members.retain(|member| member.container.id != self.call.container_id);
        record.members.push(Member {
            container: self.wanted.container.clone(),
            port: port.index,
            port_name: port.name.clone(),
            ports,
        });
        record.save()?;
        announce::connected(places, &links, true);
        Ok(self.answer(inside))
    }

    /// Takes those on record whose port has gone back from the uplink: they were killed with their namespace, and their
    /// names and ports are in the way of others. The newcomer is there already, so the network keeps its stack.
    fn forget_the_dead(&self, record: &mut Record, uplink: &Uplink, network: &Network) {
        let lives = |member: &Member| {
            let mut ports = self.bridge.iter().flat_map(|found| &found.ports);
            ports.any(|port| port.leads_to_a_container() && is_port_of(port, member))
        };
        for dead in record.members.extract_if(.., |member| !lives(member)) {
            if dead.container.id != self.call.container_id {
                forget(uplink, &network.id, &dead);
            }
        }
    }

    /// The same for those on record for other networks. Whether there were any.
    fn forget_the_dead_elsewhere(
        &self,
        surroundings: &Surroundings,
        places: &mut Places,
        uplink: &Uplink,
    ) -> bool {
        let mut any = false;
        for (network, members) in record::all(&surroundings.records) {
            for member in members.iter().filter(|member| member.container.id != self.call.container_id) {
                let port = places.host.netlink.interface_at(member.port);
                let lives = match &port {
                    Ok(port) => port.leads_to_a_container() && is_port_of(port, member),
                    Err(error) => error.errno() != Some(Errno::ENODEV),
                };
                if !lives {
                    forget(uplink, &network, member);
                    any = true;
                }
            }
        }
        any
    }

    /// Those on the bridge that an uplink started anew does not know. What it refuses is told and left: this container
    /// has nothing to do with it.
    fn announce_others(&self, found: &Found, record: &Record, uplink: &Uplink, network: &Network) {
        let still_there = |member: &&Member| found.ports.iter().any(|port| is_port_of(port, member));
        let others = record.members.iter().filter(|member| member.container.id != self.call.container_id);
        for member in others.filter(still_there) {
            let told = uplink.join(network, &member.container).and_then(|_| match member.ports.as_slice() {
                [] => Ok(()),
                ports => uplink.publish(&member.container.id, ports),
            });
            if let Err(error) = told {
                log::warn!("container {} is not told to the uplink again: {error}", member.container.name);
            }
        }
    }

    /// Publishes what is ours to publish; for a container on several networks, the uplink does it once. Gives what is
    /// to be published for an uplink that was started anew, by whomever it was published first.
    fn publish(&self, surroundings: &Surroundings, places: &mut Places) -> Result<Vec<PortMapping>> {
        let ports = self.call.port_mappings.as_deref().unwrap_or_default();
        match &self.way_out {
            None => Ok(Vec::new()),
            Some(WayOut { uplink, .. }) if surroundings.root && !ports.is_empty() => {
                let publish = || uplink.publish(&self.call.container_id, ports);
                if let Err(error) = publish() {
                    // A port may be held for somebody who was killed on another network.
                    if !self.forget_the_dead_elsewhere(surroundings, places, uplink) {
                        return Err(error);
                    }
                    publish()?;
                }
                Ok(ports.to_vec())
            }
            Some(_) => Ok(ports.to_vec()),
        }
    }

    fn answer(&self, inside: &Interface) -> StatusBlock {
        let ipam = &self.wanted.plan.ipam;
        let mut status = status(inside, &ipam.addresses);
        if self.call.network.dns_enabled && !ipam.gateways.is_empty() {
            status.dns_server_ips = Some(ipam.gateways.iter().map(ipnet::IpNet::addr).collect());
            status.dns_search_domains = Some(vec![SEARCH_DOMAIN.to_owned()]);
        }
        status
    }

    fn roll_back(&mut self, places: &mut Places) -> Result<()> {
        let mut errors = Errors::new();
        if let Some(WayOut { uplink, network }) = &self.way_out {
            errors.note(match &self.former {
                None => uplink.leave(&network.id, &self.call.container_id).map(drop),
                // Set up twice: it lives on as it was.
                Some(member) => uplink.join(network, &member.container).map(drop),
            });
        }
        errors.note(self.undo.run(places));
        errors.finish()
    }
}

fn forget(uplink: &Uplink, network: &str, dead: &Member) {
    log::info!("container {} is taken back: it lives no longer", dead.container.name);
    if let Err(error) = uplink.leave(network, &dead.container.id) {
        log::warn!("{error}");
    }
}

/// Whether a port of the bridge is the one on record.
pub(super) fn is_port_of(port: &Interface, member: &Member) -> bool {
    port.kind.as_deref() == Some("veth") && (port.index, &port.name) == (member.port, &member.port_name)
}
