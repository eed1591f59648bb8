//! Changing and deleting interfaces that exist, by their numbers.
//!
//! All interfaces of a group can be deleted by one request. The kernel waits after each deletion until nobody looks at
//! the interface any more, some ten milliseconds; for a group it waits once. Source: Linux `net/core/rtnetlink.c`
//! (`rtnl_group_dellink`), `net/core/dev.c` (`netdev_run_todo`).

use super::socket::Request;
use netlink_packet_route::link::{
    AfSpecBridge, BridgeVlanInfo, BridgeVlanInfoFlags, InfoBridge, InfoBridgePort, InfoData, InfoKind,
    InfoPortData, InfoPortKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use slipway_netstack::addr::MacAddr;

impl Request {
    /// Brings an interface up or takes it down.
    #[must_use]
    pub fn set_up(index: u32, up: bool) -> Self {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.header.change_mask = LinkFlags::Up;
        message.header.flags = if up { LinkFlags::Up } else { LinkFlags::empty() };
        let way = if up { "up" } else { "down" };
        Self::set(format!("bring the interface {index} {way}"), message)
    }

    /// Sets the MAC address, also to the one it has: a bridge stops following its ports then.
    #[must_use]
    pub fn set_mac(index: u32, mac: MacAddr) -> Self {
        let address = LinkAttribute::Address(mac.0.to_vec());
        Self::attribute(format!("set the MAC address of the interface {index} to {mac}"), index, address)
    }

    /// Sets the MTU. EINVAL when the device cannot do that.
    #[must_use]
    pub fn set_mtu(index: u32, mtu: u32) -> Self {
        Self::attribute(
            format!("set the MTU of the interface {index} to {mtu}"),
            index,
            LinkAttribute::Mtu(mtu),
        )
    }

    /// Makes an interface a port of a bridge (or a member of a vrf).
    #[must_use]
    pub fn set_master(index: u32, master: u32) -> Self {
        let doing = format!("make the interface {index} a port of {master}");
        Self::attribute(doing, index, LinkAttribute::Controller(master))
    }

    /// Gives an interface that is down another name.
    #[must_use]
    pub fn rename(index: u32, name: &str) -> Self {
        let doing = format!("name the interface {index} {name}");
        Self::attribute(doing, index, LinkAttribute::IfName(name.to_owned()))
    }

    /// Puts an interface into a group; 0 is the one that all start in.
    #[must_use]
    pub fn set_group(index: u32, group: u32) -> Self {
        let doing = format!("put the interface {index} into the group {group}");
        Self::attribute(doing, index, LinkAttribute::Group(group))
    }

    /// Makes a bridge keep VLANs apart, or not.
    #[must_use]
    pub fn set_vlan_filtering(index: u32, on: bool) -> Self {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Bridge),
            LinkInfo::Data(InfoData::Bridge(vec![InfoBridge::VlanFiltering(on)])),
        ]));
        let doing = format!("set VLAN filtering of the bridge {index}");
        // RTM_SETLINK ignores the data of a kind in silence; RTM_NEWLINK without CREATE changes what is there.
        Self::new(doing, RouteNetlinkMessage::NewLink(message), 0)
    }

    /// Makes `vlan` the one that a bridge's port belongs to: frames without a tag enter it, and leave it without one.
    #[must_use]
    pub fn set_port_vlan(index: u32, vlan: u16) -> Self {
        let mut message = LinkMessage::default();
        message.header.interface_family = AddressFamily::Bridge;
        message.header.index = index;
        let info =
            BridgeVlanInfo { flags: BridgeVlanInfoFlags::Pvid | BridgeVlanInfoFlags::Untagged, vid: vlan };
        message.attributes.push(LinkAttribute::AfSpecBridge(vec![AfSpecBridge::VlanInfo(info)]));
        Self::set(format!("put the port {index} into VLAN {vlan}"), message)
    }

    /// Has a bridge send frames back through the port that they came from, if their address leads there, or not.
    #[must_use]
    pub fn set_hairpin(index: u32, on: bool) -> Self {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::PortKind(InfoPortKind::Bridge),
            LinkInfo::PortData(InfoPortData::BridgePort(vec![InfoBridgePort::HairpinMode(on)])),
        ]));
        // As above.
        Self::new(format!("set hairpin mode of the port {index}"), RouteNetlinkMessage::NewLink(message), 0)
    }

    /// Deletes an interface.
    #[must_use]
    pub fn delete(index: u32) -> Self {
        let mut message = LinkMessage::default();
        message.header.index = index;
        Self::new(format!("delete the interface {index}"), RouteNetlinkMessage::DelLink(message), 0)
    }

    /// Deletes all interfaces of a group. ENODEV when there are none.
    #[must_use]
    pub fn delete_group(group: u32) -> Self {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::Group(group));
        Self::new(format!("delete the interfaces of group {group}"), RouteNetlinkMessage::DelLink(message), 0)
    }

    fn attribute(doing: String, index: u32, attribute: LinkAttribute) -> Self {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.attributes.push(attribute);
        Self::set(doing, message)
    }

    fn set(doing: String, message: LinkMessage) -> Self {
        Self::new(doing, RouteNetlinkMessage::SetLink(message), 0)
    }
}
