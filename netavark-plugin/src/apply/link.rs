//! Interfaces, addresses and routes, by netlink.

use super::{Links, Undo, container};
use crate::error::{Context, Error, Result};
use crate::namespaces::{Places, gone};
use crate::plan::{Change, ChildKind, On, Op};
use nix::errno::Errno;
use slipway_host::device::tap::Tap;
use slipway_host::netlink::{self, Interface, Kind, NewLink, Request, RouteKind};
use slipway_netstack::addr::MacAddr;
use std::os::fd::AsFd as _;

/// How often a child gets another name for the moment of its making.
const ATTEMPTS: usize = 3;

/// Makes an interface, and learns what the kernel made of it.
pub(super) fn make(op: &Op, places: &mut Places, links: &mut Links, undo: &mut Undo) -> Result<()> {
    match op {
        Op::MakeBridge { name, mtu, vlan_filtering, vrf } => {
            let kind = Kind::Bridge { vlan_filtering: *vlan_filtering };
            let link = NewLink { mtu: *mtu, master: *vrf, ..new(name, kind) };
            places.host.netlink.run_one(&Request::create(&link)).context("create bridge")?;
            let bridge = places.host.netlink.interface(name).context("get bridge interface")?;
            undo.link_on_host(bridge.index);
            links.put(On::Bridge, bridge);
            Ok(())
        }
        Op::MakePair { port, inside, mtu, mac } => make_pair(port, inside, *mtu, *mac, places, links, undo),
        Op::MakeTap { name, mtu } => make_tap(name, *mtu, places, links, undo),
        Op::MakeChild { inside, parent, mtu, mac, kind } => {
            let made = Child { parent: *parent, mtu: *mtu, mac: *mac, kind: *kind };
            let child = made.make(inside, places)?;
            undo.link_inside(child.index);
            links.put(On::Inside, child);
            Ok(())
        }
        _ => Ok(()),
    }
}

fn new<'a>(name: &'a str, kind: Kind<'a>) -> NewLink<'a> {
    NewLink { name, mtu: None, mac: None, master: None, netns: None, kind }
}

fn make_pair(
    port: &str,
    inside: &str,
    mtu: Option<u32>,
    mac: Option<MacAddr>,
    places: &mut Places,
    links: &mut Links,
    undo: &mut Undo,
) -> Result<()> {
    let master = links.get(On::Bridge)?.index;
    let Places { host, container: Some(container) } = places else {
        return Err(Error::msg("the network namespace of the container is gone"));
    };
    // The kind of an end says nothing: it is the other end's.
    let peer = NewLink { mtu, mac, netns: Some(container.as_fd()), ..new(inside, Kind::Dummy) };
    let pair = NewLink { mtu, master: Some(master), ..new(port, Kind::Veth { peer: Box::new(peer) }) };
    host.netlink.run_one(&Request::create(&pair)).map_err(|error| pair_error(error, port, inside))?;
    let inside = container.netlink.interface(inside).context("get container veth")?;
    let index = inside.linked.ok_or_else(|| Error::msg("the container's veth has no other end"))?;
    undo.link_on_host(index);
    let port = host.netlink.interface_at(index).context("get host veth")?;
    links.put(On::Port, port);
    links.put(On::Inside, inside);
    Ok(())
}

/// The kernel makes a TAP where the thread is, which is the host's side.
fn make_tap(name: &str, mtu: u32, places: &mut Places, links: &mut Links, undo: &mut Undo) -> Result<()> {
    let master = links.get(On::Bridge)?.index;
    let wire = Tap::open(name).map_err(|error| Error::msg(error.to_string()))?;
    let netlink = &mut places.host.netlink;
    let tap = netlink.interface(wire.name()).context("get tap interface")?;
    undo.link_on_host(tap.index);
    let changes = [Request::set_mtu(tap.index, mtu), Request::set_master(tap.index, master)];
    for (result, what) in netlink.run(&changes).into_iter().zip(["set mtu of tap", "connect tap to bridge"]) {
        result.context(what)?;
    }
    links.put(On::Tap, tap);
    links.wire = Some(wire);
    Ok(())
}

/// Whose name was taken, as far as can be told.
fn pair_error(error: netlink::Error, port: &str, inside: &str) -> Error {
    let exists = error.errno() == Some(Errno::EEXIST);
    let result = Err(error);
    let result = match (exists, port) {
        (false, _) => result.map_err(Error::from),
        (true, "") => result.context(format!("interface {inside} already exists on container namespace")),
        (true, port) => result.context(format!(
            "interface {inside} already exists on container namespace or {port} exists on host namespace"
        )),
    };
    let result: Result<()> = result.context("create veth pair");
    result.err().unwrap_or_else(|| Error::msg("create veth pair"))
}

/// A child to be made.
struct Child {
    parent: u32,
    mtu: Option<u32>,
    mac: Option<MacAddr>,
    kind: ChildKind,
}

impl Child {
    fn word(&self) -> &'static str {
        match self.kind {
            ChildKind::Macvlan { .. } => "macvlan",
            ChildKind::Ipvlan(_) => "ipvlan",
        }
    }

    /// The kernel makes it on the host and moves it from there, so the host may have an interface of that name: then it
    /// gets another one on the way.
    fn make(&self, name: &str, places: &mut Places) -> Result<Interface> {
        let word = self.word();
        match self.request(name, places) {
            Err(error) if error.errno() == Some(Errno::EEXIST) => {}
            result => {
                result.with_context(|| format!("create {word} interface"))?;
                return container(places)?.netlink.interface(name).context(format!("get {word} interface"));
            }
        }
        let (temporary, mut child) = self.make_temporary(places)?;
        let netlink = &mut container(places)?.netlink;
        if let Err(error) = netlink.run_one(&Request::rename(child.index, name)) {
            if let Err(error) = netlink.run_one(&Request::delete(child.index)) {
                log::error!("failed to delete tmp {word} link {temporary}: {error}");
            }
            return Err(error).context(format!("rename tmp {word} interface"));
        }
        name.clone_into(&mut child.name);
        Ok(child)
    }

    fn make_temporary(&self, places: &mut Places) -> Result<(String, Interface)> {
        let word = self.word();
        let mut left = ATTEMPTS;
        loop {
            let name = temporary_name()?;
            left = left.saturating_sub(1);
            match self.request(&name, places) {
                Err(error) if error.errno() == Some(Errno::EEXIST) && left > 0 => {}
                result => {
                    result.with_context(|| format!("create {word} interface"))?;
                    let found = container(places)?.netlink.interface(&name);
                    return Ok((name, found.context(format!("get {word} interface"))?));
                }
            }
        }
    }

    fn request(&self, name: &str, places: &mut Places) -> Result<(), Error> {
        let parent = self.parent;
        let kind = match self.kind {
            ChildKind::Macvlan { mode, broadcast_cutoff } => Kind::Macvlan { parent, mode, broadcast_cutoff },
            ChildKind::Ipvlan(mode) => Kind::Ipvlan { parent, mode },
        };
        let Places { host, container: Some(container) } = places else {
            return Err(Error::msg("the network namespace of the container is gone"));
        };
        let netns = Some(container.as_fd());
        let link = NewLink { mtu: self.mtu, mac: self.mac, netns, ..new(name, kind) };
        Ok(host.netlink.run_one(&Request::create(&link))?)
    }
}

/// A name that nobody has: `mv-` and ten characters.
fn temporary_name() -> Result<String> {
    const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyz012345";
    let bytes: [u8; 10] = slipway_host::random::bytes()?;
    let letters = bytes.iter().filter_map(|byte| LETTERS.get(usize::from(byte % 32)));
    Ok(format!("mv-{}", letters.map(|&letter| char::from(letter)).collect::<String>()))
}

/// Sends requests that all go over the same socket. One that fails does not keep those behind it from being carried
/// out; all that were are recorded.
pub(super) fn requests(ops: &[Op], places: &mut Places, links: &Links, undo: &mut Undo) -> Result<()> {
    let mut list = Vec::with_capacity(ops.len());
    let mut inside = false;
    for op in ops {
        inside = matches!(super::way(op), super::Way::Request { inside: true });
        list.push(request(op, links)?);
    }
    let netlink = if inside { &mut container(places)?.netlink } else { &mut places.host.netlink };
    let mut first = Ok(());
    for (op, result) in ops.iter().zip(netlink.run(&list)) {
        match judge(op, result, links) {
            Ok(()) => record(op, links, undo),
            Err(error) if first.is_ok() => first = Err(error),
            Err(error) => log::debug!("{error}"),
        }
    }
    first
}

fn request(op: &Op, links: &Links) -> Result<Request> {
    Ok(match op {
        Op::Change { on, change } => {
            let link = links.get(*on)?;
            match change {
                Change::Up => Request::set_up(link.index, true),
                Change::Vlan(vlan) => Request::set_port_vlan(link.index, *vlan),
                Change::VlanFiltering => Request::set_vlan_filtering(link.index, true),
                Change::Hairpin => Request::set_hairpin(link.index, true),
                Change::PinMac => {
                    let mac = link.mac.ok_or_else(|| Error::msg("the bridge has no MAC address"))?;
                    Request::set_mac(link.index, mac)
                }
            }
        }
        // Where the DNS server is about to be started.
        Op::Address { on: On::Bridge, net } => {
            Request::add_address_at_once(links.get(On::Bridge)?.index, *net)
        }
        Op::Address { on, net } => Request::add_address(links.get(*on)?.index, *net),
        Op::Route(route) => Request::add_route(route),
        Op::DeleteRoute(route) => Request::delete_route(route),
        other => return Err(Error::msg(format!("internal: no request: {other}"))),
    })
}

/// The result of a request, in the contracted words.
fn judge(op: &Op, result: Result<(), netlink::Error>, links: &Links) -> Result<()> {
    match op {
        Op::DeleteRoute(_) => gone(result).with_context(|| format!("delete route: {op}")),
        Op::Address { on, net } => {
            let name = if *on == On::Bridge { "bridge" } else { links.get(*on)?.name.as_str() };
            let switched_off = matches!(&result, Err(error) if error.errno() == Some(Errno::EACCES));
            let result = if net.addr().is_ipv6() && switched_off {
                result.context("failed to add ipv6 address, is ipv6 enabled in the kernel?")
            } else {
                Ok(result?)
            };
            result.with_context(|| format!("add ip addr to {name}"))
        }
        Op::Route(route) if route.destination.prefix_len() == 0 => {
            result.with_context(|| format!("add default route via {}", via(route)))
        }
        Op::Route(route) => {
            result.with_context(|| format!("add route to {} via {}", route.destination, via(route)))
        }
        Op::Change { on, change } => result.with_context(|| {
            let what = match on {
                On::Bridge => "bridge",
                On::Port => "host veth",
                On::Inside => "container interface",
                On::Tap => "tap",
            };
            match change {
                Change::Up => format!("set {what} up"),
                Change::Vlan(vlan) => format!("set vlan {vlan} on {what}"),
                Change::VlanFiltering => format!("enable vlan filtering on {what}"),
                Change::Hairpin => format!("set hairpin mode of {what}"),
                Change::PinMac => format!("set static mac on {what}"),
            }
        }),
        _ => Ok(result?),
    }
}

fn via(route: &netlink::NewRoute) -> String {
    route.gateway.map_or_else(|| "nothing".to_owned(), |gateway| gateway.to_string())
}

fn record(op: &Op, links: &Links, undo: &mut Undo) {
    match op {
        Op::Change { on: On::Bridge, change: Change::VlanFiltering } => {
            if let Some(bridge) = &links.bridge {
                undo.vlan_filtering(bridge.index);
            }
        }
        Op::Address { on: On::Bridge, net } => {
            if let Some(bridge) = &links.bridge {
                undo.address_on_host(bridge.index, *net);
            }
        }
        Op::Route(route) if route.kind != RouteKind::Unicast => undo.route(*route),
        _ => {}
    }
}

/// Has interfaces deleted at the end of the teardown, all together.
pub(super) fn delete(list: &[On], places: &mut Places, links: &Links) -> Result<()> {
    for on in list {
        let link = links.get(*on)?;
        let place = if *on == On::Inside { container(places)? } else { &mut places.host };
        place.delete_later(link);
    }
    Ok(())
}
