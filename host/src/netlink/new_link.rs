//! Making interfaces: bridges, pairs of virtual Ethernet cards, macvlan and ipvlan children, and the two that only
//! tests make (dummy, vrf).
//!
//! One request makes an interface whole: name, MTU, MAC address, master, and the namespace it is to appear in. A veth
//! pair comes with both ends configured, the far one in another namespace. (A macvlan child is made in the namespace of
//! its parent and moved by the kernel, so its name must be free in both.) Source: Linux `net/core/rtnetlink.c`
//! (`rtnl_newlink`), `drivers/net/veth.c`.

use super::socket::Request;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoBridge, InfoData, InfoIpVlan, InfoKind, InfoMacVlan, InfoVeth, InfoVrf, IpVlanMode, LinkAttribute,
    LinkInfo, LinkMessage, MacVlanMode,
};
use slipway_netstack::addr::MacAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

/// An interface to be made.
#[derive(Debug, Clone)]
pub struct NewLink<'a> {
    /// Its name; empty: the kernel counts `veth0`, `veth1`, and so on.
    pub name: &'a str,
    /// Its MTU; `None`: the kernel's default.
    pub mtu: Option<u32>,
    /// Its MAC address; `None`: the kernel draws one.
    pub mac: Option<MacAddr>,
    /// The bridge (or vrf) that it belongs to, by number.
    pub master: Option<u32>,
    /// The namespace it appears in; `None`: that of the socket.
    pub netns: Option<BorrowedFd<'a>>,
    /// What it is.
    pub kind: Kind<'a>,
}

/// Kinds of interfaces.
#[derive(Debug, Clone)]
pub enum Kind<'a> {
    /// A bridge; whether it keeps VLANs apart.
    Bridge {
        /// Whether it keeps VLANs apart.
        vlan_filtering: bool,
    },
    /// One end of a pair; the other is `peer`, whose own kind does not matter.
    Veth {
        /// The other end.
        peer: Box<NewLink<'a>>,
    },
    /// A child with a MAC address of its own.
    Macvlan {
        /// The parent, by number.
        parent: u32,
        /// Who may talk to whom.
        mode: MacvlanMode,
        /// From how many children on broadcasts are queued; negative: never.
        broadcast_cutoff: Option<i32>,
    },
    /// A child that shares the parent's MAC address.
    Ipvlan {
        /// The parent, by number.
        parent: u32,
        /// Where packets are taken from the parent.
        mode: IpvlanMode,
    },
    /// One that swallows everything.
    Dummy,
    /// A routing domain.
    Vrf {
        /// Its routing table.
        table: u32,
    },
}

/// Who may talk to whom on a macvlan parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MacvlanMode {
    /// The children with each other.
    Bridge,
    /// Nobody but the outside.
    Private,
    /// Each other, by way of the switch outside.
    Vepa,
    /// One child has the parent to itself.
    Passthru,
    /// Only listed sources.
    Source,
}

/// Where an ipvlan child takes its packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IpvlanMode {
    /// Behind the parent's Ethernet layer.
    L2,
    /// Behind its routing, without its firewall.
    L3,
    /// The same with the host's connection tracking.
    L3s,
}

impl Request {
    /// Makes an interface. EEXIST when its name is taken.
    #[must_use]
    pub fn create(link: &NewLink<'_>) -> Self {
        let mut message = common(link);
        let (kind, data) = describe(&link.kind);
        let mut info = vec![LinkInfo::Kind(kind)];
        info.extend(data.map(LinkInfo::Data));
        message.attributes.push(LinkAttribute::LinkInfo(info));
        if let Kind::Macvlan { parent, .. } | Kind::Ipvlan { parent, .. } = link.kind {
            message.attributes.push(LinkAttribute::Link(parent));
        }
        let name = if link.name.is_empty() { "a veth pair" } else { link.name };
        let doing = format!("make the interface {name}");
        Self::new(doing, RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL)
    }
}

/// What an end of a veth pair has in common with any other interface.
fn common(link: &NewLink<'_>) -> LinkMessage {
    let mut message = LinkMessage::default();
    let attributes = &mut message.attributes;
    if !link.name.is_empty() {
        attributes.push(LinkAttribute::IfName(link.name.to_owned()));
    }
    attributes.extend(link.mtu.map(LinkAttribute::Mtu));
    attributes.extend(link.mac.map(|mac| LinkAttribute::Address(mac.0.to_vec())));
    attributes.extend(link.master.map(LinkAttribute::Controller));
    attributes.extend(link.netns.map(|netns| LinkAttribute::NetNsFd(netns.as_raw_fd())));
    message
}

fn describe(kind: &Kind<'_>) -> (InfoKind, Option<InfoData>) {
    match kind {
        Kind::Bridge { vlan_filtering } => {
            let data = vlan_filtering.then(|| InfoData::Bridge(vec![InfoBridge::VlanFiltering(true)]));
            (InfoKind::Bridge, data)
        }
        Kind::Veth { peer } => (InfoKind::Veth, Some(InfoData::Veth(InfoVeth::Peer(common(peer))))),
        Kind::Macvlan { mode, broadcast_cutoff, .. } => {
            let mut data = vec![InfoMacVlan::Mode(mode.to_kernel())];
            data.extend(broadcast_cutoff.map(InfoMacVlan::BcCutoff));
            (InfoKind::MacVlan, Some(InfoData::MacVlan(data)))
        }
        Kind::Ipvlan { mode, .. } => {
            let mode = match mode {
                IpvlanMode::L2 => IpVlanMode::L2,
                IpvlanMode::L3 => IpVlanMode::L3,
                IpvlanMode::L3s => IpVlanMode::L3S,
            };
            (InfoKind::IpVlan, Some(InfoData::IpVlan(vec![InfoIpVlan::Mode(mode)])))
        }
        Kind::Dummy => (InfoKind::Dummy, None),
        Kind::Vrf { table } => (InfoKind::Vrf, Some(InfoData::Vrf(vec![InfoVrf::TableId(*table)]))),
    }
}

impl MacvlanMode {
    fn to_kernel(self) -> MacVlanMode {
        match self {
            Self::Bridge => MacVlanMode::Bridge,
            Self::Private => MacVlanMode::Private,
            Self::Vepa => MacVlanMode::Vepa,
            Self::Passthru => MacVlanMode::Passthrough,
            Self::Source => MacVlanMode::Source,
        }
    }
}
