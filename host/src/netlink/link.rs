//! Interfaces: list, bring up, set MTU and MAC address.

use super::socket::{Error, Netlink};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use nix::errno::Errno;
use slipway_netstack::addr::MacAddr;

/// An interface as the kernel describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
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
}

impl Netlink {
    /// All interfaces.
    ///
    /// # Errors
    /// The kernel's.
    pub fn interfaces(&mut self) -> Result<Vec<Interface>, Error> {
        let list = self.dump("list the interfaces", &RouteNetlinkMessage::GetLink(LinkMessage::default()))?;
        Ok(list.into_iter().filter_map(interface).collect())
    }

    /// The interface called `name`.
    ///
    /// # Errors
    /// ENODEV when there is none.
    pub fn interface(&mut self, name: &str) -> Result<Interface, Error> {
        self.interfaces()?
            .into_iter()
            .find(|interface| interface.name == name)
            .ok_or_else(|| Error::new(format!("find the interface {name}"), Errno::ENODEV))
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

fn interface(message: RouteNetlinkMessage) -> Option<Interface> {
    let RouteNetlinkMessage::NewLink(message) = message else { return None };
    let flags = message.header.flags;
    let mut found = Interface {
        index: message.header.index,
        name: String::new(),
        up: flags.contains(LinkFlags::Up),
        loopback: flags.contains(LinkFlags::Loopback),
        mtu: 0,
        mac: None,
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => found.name = name,
            LinkAttribute::Mtu(mtu) => found.mtu = mtu,
            LinkAttribute::Address(bytes) => found.mac = bytes.try_into().ok().map(MacAddr),
            _ => {}
        }
    }
    Some(found)
}
