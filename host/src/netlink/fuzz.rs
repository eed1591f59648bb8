//! The promise of the readers: any bytes are understood or passed over, and the two that read descriptions of
//! interfaces agree.

use super::link::{glance, interface};
use super::netfilter::attributes;
use super::socket::{messages, parse, understood};
use super::{MAIN_TABLE, addr, monitor, neigh, next_hop, route, way};
use netlink_packet_core::NetlinkPayload;
use nix::libc;

/// Reads any bytes as a datagram of the kernel's.
pub(crate) fn fuzz(datagram: &[u8]) {
    let read = parse(datagram).map_or(0, |read| read.len());
    assert!(read <= datagram.len() / 16, "no message is invented");
    monitor::note(datagram, &mut monitor::Changes::default());
    for message in messages(datagram) {
        let Ok(message) = message else { break };
        if let Some(object) = next_hop::next_hop(message) {
            let objects = [object];
            assert!(next_hop::interfaces(&objects, 1).len() <= message.len() / 4, "none is invented");
        }
        let Some(NetlinkPayload::InnerMessage(told)) = understood(message).map(|it| it.payload) else {
            continue;
        };
        if let Some(found) = interface(told.clone())
            && is_whole(message)
        {
            let (index, little) = glance(message).unwrap_or_default();
            assert_eq!(index, found.index, "whose description it is");
            assert_eq!(little.master, found.master, "whose port it is");
            assert_eq!(little.leads_to_a_container(), found.leads_to_a_container());
        }
        let _ = (addr::address(told.clone()), neigh::neighbour(told.clone()));
        let _ = (route::route(told.clone()), way::hops(told, MAIN_TABLE));
    }
}

/// Whether each attribute is there once and none is cut: of others, which no kernel sends, two readers may make
/// different things.
fn is_whole(message: &[u8]) -> bool {
    let body = message.get(32..).unwrap_or_default();
    let mut infos = attributes(body).filter(|(kind, _)| *kind == libc::IFLA_LINKINFO);
    once(body) && infos.all(|(_, info)| once(info))
}

fn once(list: &[u8]) -> bool {
    let mut seen: Vec<u16> = Vec::new();
    let mut length = 0;
    for (kind, value) in attributes(list) {
        if seen.contains(&kind) {
            return false;
        }
        seen.push(kind);
        length += 4 + value.len().next_multiple_of(4);
    }
    length >= list.len()
}
