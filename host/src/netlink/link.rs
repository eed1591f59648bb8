//! Interfaces: find one, list them, bring up, set MTU and MAC address.

use super::netfilter::attributes;
use super::socket::{Error, Netlink};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    BridgePortState, InfoBridge, InfoBridgePort, InfoData, InfoPortData, InfoVrf, LinkAttribute,
    LinkExtentMask, LinkFlags, LinkInfo, LinkMessage,
};
use nix::errno::Errno;
use nix::libc;
use slipway_netstack::addr::MacAddr;

/// An interface as the kernel describes it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Interface {
    /// Its number.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Whether it was set up (IFF_UP).
    pub up: bool,
    /// Whether it is a loopback interface.
    pub loopback: bool,
    /// The largest packet it carries.
    pub mtu: u32,
    /// Its MAC address, if it has one of six bytes.
    pub mac: Option<MacAddr>,
    /// What it is (`bridge`, `veth`, `vrf`, and so on); `None` for a device of hardware, and for loopback.
    pub kind: Option<String>,
    /// The bridge or vrf that it belongs to, by number.
    pub master: Option<u32>,
    /// The other end of a veth pair, or the parent of a child, by number. The other end may be in another namespace.
    pub linked: Option<u32>,
    /// Its group.
    pub group: u32,
    /// For a bridge: whether it keeps VLANs apart.
    pub vlan_filtering: bool,
    /// For a vrf: its routing table.
    pub table: Option<u32>,
    /// The namespace of the other end of a veth pair, by the number that it has in this one; negative when it has
    /// ended. `None` when it is the same one.
    pub peer_namespace: Option<i32>,
    /// For a port of a bridge: whether frames pass it.
    pub passage: Option<Passage>,
}

impl Interface {
    /// Whether it is the host's end of a pair whose other end is in a namespace that has not ended. The kernel takes a
    /// pair away some time after that.
    #[must_use]
    pub fn leads_to_a_container(&self) -> bool {
        let glance = Glance {
            master: self.master,
            is_pair: self.kind.as_deref() == Some("veth"),
            peer_namespace: self.peer_namespace,
        };
        glance.leads_to_a_container()
    }
}

/// The little of an interface that [`Netlink::count_containers`] looks at.
#[derive(Debug, Default)]
pub(super) struct Glance {
    pub(super) master: Option<u32>,
    is_pair: bool,
    peer_namespace: Option<i32>,
}

impl Glance {
    pub(super) fn leads_to_a_container(&self) -> bool {
        self.is_pair && self.peer_namespace.is_none_or(|number| number >= 0)
    }
}

/// The number of the interface that a message describes, and a glance at it.
pub(super) fn glance(message: &[u8]) -> Option<(u32, Glance)> {
    // rtnetlink(7): behind the header comes struct ifinfomsg, with the number in its second word.
    let (_, body) = message.split_at_checked(16)?;
    let (info, list) = body.split_at_checked(16)?;
    let index = u32::from_ne_bytes(info.get(4..8)?.try_into().ok()?);
    let mut glance = Glance::default();
    for (kind, value) in attributes(list) {
        let word = || Some(i32::from_ne_bytes(value.try_into().ok()?));
        match kind {
            libc::IFLA_MASTER => glance.master = word().map(i32::cast_unsigned),
            libc::IFLA_LINK_NETNSID => glance.peer_namespace = word(),
            libc::IFLA_LINKINFO => {
                let mut infos = attributes(value);
                glance.is_pair = infos.any(|info| info == (libc::IFLA_INFO_KIND, &b"veth\0"[..]));
            }
            _ => {}
        }
    }
    Some((index, glance))
}

/// Whether frames pass a bridge's port (IEEE 802.1D, Linux `BR_STATE_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passage {
    /// They do.
    Open,
    /// Not for many seconds: the bridge looks for loops first (spanning tree, states listening and learning).
    Later,
    /// They do not. The kernel may not have noticed yet that the port's link is there, which it does in a moment.
    Closed,
}

/// The longest name (IFNAMSIZ less its zero byte).
const NAME_MAX: usize = 15;

/// Nobody here looks at the counters, and they are half of a description.
fn without_statistics() -> LinkAttribute {
    LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats])
}

impl Netlink {
    /// All interfaces.
    ///
    /// # Errors
    /// The kernel's.
    pub fn interfaces(&mut self) -> Result<Vec<Interface>, Error> {
        self.list(LinkMessage::default())
    }

    /// The ports of a bridge, or the members of a vrf.
    ///
    /// # Errors
    /// The kernel's.
    pub fn ports(&mut self, master: u32) -> Result<Vec<Interface>, Error> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::Controller(master));
        let mut list = self.list(message)?;
        // A kernel without strict checking sends them all.
        list.retain(|interface| interface.master == Some(master));
        Ok(list)
    }

    /// How many containers a bridge has: its ports that are [ends of pairs](Interface::leads_to_a_container), `but`
    /// aside. A description has fifteen hundred bytes and costs ten times as much to take apart as to ask for, so it is
    /// not.
    ///
    /// # Errors
    /// The kernel's.
    pub fn count_containers(&mut self, bridge: u32, but: Option<u32>) -> Result<usize, Error> {
        let mut message = LinkMessage::default();
        message.attributes.extend([LinkAttribute::Controller(bridge), without_statistics()]);
        let doing = "count the ports of a bridge";
        let found = self.dump_with(doing, &RouteNetlinkMessage::GetLink(message).into(), |entry| {
            let (index, link) = glance(entry)?;
            (link.master == Some(bridge) && Some(index) != but && link.leads_to_a_container()).then_some(())
        })?;
        Ok(found.len())
    }

    fn list(&mut self, mut message: LinkMessage) -> Result<Vec<Interface>, Error> {
        message.attributes.push(without_statistics());
        let list = self.dump("list the interfaces", &RouteNetlinkMessage::GetLink(message))?;
        Ok(list.into_iter().filter_map(interface).collect())
    }

    /// The interface called `name`.
    ///
    /// # Errors
    /// ENODEV when there is none.
    pub fn interface(&mut self, name: &str) -> Result<Interface, Error> {
        let doing = format!("find the interface {name}");
        if name.is_empty() || name.len() > NAME_MAX {
            return Err(Error::new(doing, Errno::ENODEV));
        }
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        self.find(&doing, message)
    }

    /// The interface with the number `index`.
    ///
    /// # Errors
    /// ENODEV when there is none.
    pub fn interface_at(&mut self, index: u32) -> Result<Interface, Error> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        self.find(&format!("find the interface {index}"), message)
    }

    fn find(&mut self, doing: &str, mut message: LinkMessage) -> Result<Interface, Error> {
        message.attributes.push(without_statistics());
        let answer = self.ask(doing, RouteNetlinkMessage::GetLink(message))?;
        interface(answer).ok_or_else(|| Error::new(doing, Errno::ENODEV))
    }

    /// Brings an interface up.
    ///
    /// # Errors
    /// The kernel's.
    pub fn set_up(&mut self, interface: &Interface) -> Result<(), Error> {
        let mut message = LinkMessage::default();
        message.header.index = interface.index;
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        let doing = format!("bring the interface {} up", interface.name);
        self.change(&doing, RouteNetlinkMessage::SetLink(message), 0)
    }

    /// Takes an interface down.
    ///
    /// # Errors
    /// The kernel's.
    pub fn set_down(&mut self, interface: &Interface) -> Result<(), Error> {
        let mut message = LinkMessage::default();
        message.header.index = interface.index;
        message.header.change_mask = LinkFlags::Up;
        let doing = format!("take the interface {} down", interface.name);
        self.change(&doing, RouteNetlinkMessage::SetLink(message), 0)
    }

    /// Sets an interface's MTU.
    ///
    /// # Errors
    /// EINVAL when the device cannot do that.
    pub fn set_mtu(&mut self, interface: &Interface, mtu: u32) -> Result<(), Error> {
        let doing = format!("set the MTU of {} to {mtu}", interface.name);
        self.set_attribute(&doing, interface, LinkAttribute::Mtu(mtu))
    }

    /// Sets an interface's MAC address.
    ///
    /// # Errors
    /// EADDRNOTAVAIL when it is a group address or all zeroes.
    pub fn set_mac(&mut self, interface: &Interface, mac: MacAddr) -> Result<(), Error> {
        let doing = format!("set the MAC address of {} to {mac}", interface.name);
        self.set_attribute(&doing, interface, LinkAttribute::Address(mac.0.to_vec()))
    }

    fn set_attribute(
        &mut self,
        doing: &str,
        interface: &Interface,
        attribute: LinkAttribute,
    ) -> Result<(), Error> {
        let mut message = LinkMessage::default();
        message.header.index = interface.index;
        message.attributes.push(attribute);
        self.change(doing, RouteNetlinkMessage::SetLink(message), 0)
    }
}

pub(super) fn interface(message: RouteNetlinkMessage) -> Option<Interface> {
    let RouteNetlinkMessage::NewLink(message) = message else { return None };
    let flags = message.header.flags;
    let mut found = Interface {
        index: message.header.index,
        up: flags.contains(LinkFlags::Up),
        loopback: flags.contains(LinkFlags::Loopback),
        ..Interface::default()
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => found.name = name,
            LinkAttribute::Mtu(mtu) => found.mtu = mtu,
            LinkAttribute::Address(bytes) => found.mac = bytes.try_into().ok().map(MacAddr),
            LinkAttribute::Controller(master) => found.master = Some(master),
            LinkAttribute::Link(linked) => found.linked = Some(linked),
            LinkAttribute::LinkNetNsId(number) => found.peer_namespace = Some(number),
            LinkAttribute::Group(group) => found.group = group,
            LinkAttribute::LinkInfo(list) => list.iter().for_each(|info| describe(&mut found, info)),
            _ => {}
        }
    }
    Some(found)
}

/// Takes over what depends on the kind.
fn describe(found: &mut Interface, info: &LinkInfo) {
    match info {
        LinkInfo::Kind(kind) => found.kind = Some(kind.to_string()),
        LinkInfo::Data(InfoData::Bridge(list)) => {
            found.vlan_filtering = list.iter().any(|item| matches!(item, InfoBridge::VlanFiltering(true)));
        }
        LinkInfo::Data(InfoData::Vrf(list)) => {
            found.table = list.iter().find_map(|item| match item {
                InfoVrf::TableId(table) => Some(*table),
                _ => None,
            });
        }
        LinkInfo::PortData(InfoPortData::BridgePort(list)) => {
            found.passage = list.iter().find_map(|item| match item {
                InfoBridgePort::State(BridgePortState::Forwarding) => Some(Passage::Open),
                InfoBridgePort::State(BridgePortState::Listening | BridgePortState::Learning) => {
                    Some(Passage::Later)
                }
                InfoBridgePort::State(_) => Some(Passage::Closed),
                _ => None,
            });
        }
        _ => {}
    }
}
