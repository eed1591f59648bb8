//! Next hop objects: hops that have a number of their own, by which routes name them, alone or in groups.
//!
//! Routing daemons use them (ip-nexthop(8)). A route that names one (RTA_NH_ID) says where it leads in its own words as
//! well, unless `net.ipv4.nexthop_compat_mode` is 0: then the objects have to be asked for. The netlink crates have no
//! words for them, so the few bytes are read here. A group's members are no groups, and an object goes with its
//! interface. Source: Linux `include/uapi/linux/nexthop.h`, `net/ipv4/nexthop.c` (`nh_fill_node`), since 5.3.

use super::netfilter::attributes;
use super::socket::{Error, Message, Netlink};
use nix::errno::Errno;

const RTM_NEWNEXTHOP: u16 = 104;
const RTM_GETNEXTHOP: u16 = 106;
const NHA_ID: u16 = 1;
const NHA_GROUP: u16 = 2;
const NHA_OIF: u16 = 5;
const RTNH_F_DEAD: u32 = 1;

/// Bytes of a `struct nhmsg`: family, scope, protocol, one that is reserved, flags.
const MESSAGE: usize = 8;
/// Bytes of a `struct nexthop_grp`: a number, a weight in two halves, two that are reserved.
const MEMBER: usize = 8;

/// A next hop object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NextHop {
    id: u32,
    /// The interface that it leads through, if it is alive and no hole.
    interface: Option<u32>,
    /// The numbers of those that it stands for.
    group: Vec<u32>,
}

impl Netlink {
    /// All of them. A kernel that does not know of them has none.
    pub(super) fn next_hops(&mut self) -> Result<Vec<NextHop>, Error> {
        let question = Message::Raw { kind: RTM_GETNEXTHOP, body: vec![0; MESSAGE] };
        match self.dump_with("list the next hops", &question, next_hop) {
            Err(error) if error.errno() == Some(Errno::EOPNOTSUPP) => Ok(Vec::new()),
            list => list,
        }
    }
}

/// The interfaces that the object of this number leads through.
pub(super) fn interfaces(objects: &[NextHop], id: u32) -> Vec<u32> {
    let find = |id: u32| objects.iter().find(|object| object.id == id);
    let Some(object) = find(id) else { return Vec::new() };
    let members = object.group.iter().filter_map(|id| find(*id));
    members.chain([object]).filter_map(|object| object.interface).collect()
}

/// Reads a message of the kernel's, with its header.
pub(super) fn next_hop(message: &[u8]) -> Option<NextHop> {
    let (header, body) = message.split_first_chunk::<16>()?;
    let [_, _, _, _, low, high, ..] = *header;
    if u16::from_ne_bytes([low, high]) != RTM_NEWNEXTHOP {
        return None;
    }
    let (head, list) = body.split_first_chunk::<MESSAGE>()?;
    let [_, _, _, _, flags @ ..] = *head;
    let is_dead = u32::from_ne_bytes(flags) & RTNH_F_DEAD != 0;
    let mut found = NextHop { id: 0, interface: None, group: Vec::new() };
    for (kind, value) in attributes(list) {
        match kind {
            NHA_ID => found.id = number(value)?,
            NHA_OIF if !is_dead => found.interface = Some(number(value)?),
            NHA_GROUP => found.group = value.chunks_exact(MEMBER).filter_map(number).collect(),
            _ => {}
        }
    }
    Some(found)
}

fn number(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::Request;
    use super::*;
    use netlink_packet_core::NLM_F_CREATE;
    use nix::libc;

    /// Has the kernel make one: of a family, through an interface.
    pub(in super::super) fn make(netlink: &mut Netlink, id: u32, ipv6: bool, interface: u32) {
        let family = if ipv6 { libc::AF_INET6 } else { libc::AF_INET };
        tell(netlink, family, &[(NHA_ID, &id.to_ne_bytes()), (NHA_OIF, &interface.to_ne_bytes())]);
    }

    /// Has the kernel make a group.
    pub(in super::super) fn make_group(netlink: &mut Netlink, id: u32, members: &[u32]) {
        let entry = |id: &u32| [id.to_ne_bytes(), [0; 4]].concat();
        let group: Vec<u8> = members.iter().flat_map(entry).collect();
        tell(netlink, libc::AF_UNSPEC, &[(NHA_ID, &id.to_ne_bytes()), (NHA_GROUP, &group)]);
    }

    fn tell(netlink: &mut Netlink, family: i32, list: &[(u16, &[u8])]) {
        let mut body = vec![u8::try_from(family).unwrap(), 0, 0, 0, 0, 0, 0, 0];
        for (kind, value) in list {
            body.extend(u16::try_from(4 + value.len()).unwrap().to_ne_bytes());
            body.extend(kind.to_ne_bytes());
            body.extend(*value);
        }
        let message = Message::Raw { kind: RTM_NEWNEXTHOP, body };
        netlink.run_one(&Request::new("make a next hop", message, NLM_F_CREATE)).unwrap();
    }

    #[test]
    fn a_group_leads_where_its_members_do() {
        let hop = |id, interface, group: &[u32]| NextHop { id, interface, group: group.to_vec() };
        let objects =
            [hop(1, Some(7), &[]), hop(2, Some(8), &[]), hop(3, None, &[]), hop(9, None, &[2, 1, 3, 4])];
        assert_eq!(interfaces(&objects, 9), [8, 7]);
        assert_eq!(interfaces(&objects, 1), [7]);
        assert!(interfaces(&objects, 3).is_empty() && interfaces(&objects, 4).is_empty());
        // Not even one of itself, which no kernel has, is gone through twice.
        assert!(interfaces(&[hop(1, None, &[1])], 1).is_empty());
    }

    #[test]
    fn what_is_cut_or_dead_leads_nowhere() {
        let mut message = vec![0; 24];
        message[4..6].copy_from_slice(&RTM_NEWNEXTHOP.to_ne_bytes());
        for (kind, value) in [(NHA_ID, 7_u32), (NHA_OIF, 3)] {
            message.extend([8_u16.to_ne_bytes(), kind.to_ne_bytes()].concat());
            message.extend(value.to_ne_bytes());
        }
        let whole = NextHop { id: 7, interface: Some(3), group: vec![] };
        assert_eq!(next_hop(&message), Some(whole.clone()));
        message[20..24].copy_from_slice(&RTNH_F_DEAD.to_ne_bytes());
        assert_eq!(next_hop(&message), Some(NextHop { interface: None, ..whole }));
        assert!((0..24).all(|length| next_hop(&message[..length]).is_none()));
        (24..message.len()).for_each(|length| assert!(next_hop(&message[..length]).is_some()));
    }
}
