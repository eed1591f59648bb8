//! The promise: whatever a host is said to have, there is a template of it, within bounds, and each step of its plan is
//! a message that the kernel can take apart.

use super::copy::is_kept;
use super::plan::{Device, Op, plan};
use super::{Following, Snapshot, Template, Wish, Wishes, choose};
use crate::netlink::messages;
use crate::netlink::netfilter::attributes;
use slipway_netstack::clock::Instant;
use slipway_netstack::config::Mtu;
use std::net::Ipv4Addr;

/// Reads any bytes as what a host has. The first says what is wished.
pub(crate) fn fuzz(bytes: &[u8]) {
    let Some((wishes, datagram)) = bytes.split_first() else { return };
    let snapshot = Snapshot::from_messages(datagram);
    let Ok(template) = Template::choose(&snapshot, &wishes_of(*wishes)) else { return };
    assert!(!template.ifname().is_empty(), "it has a name");
    follow(datagram, *wishes, &template);
    let steps = plan(&template, Device { mtu: Some(Mtu::ETHERNET), mac: None });
    assert!(steps.len() <= datagram.len() / 16 + 10, "no step is invented");
    let mut size = 0;
    for step in &steps {
        let (Op::Address(change) | Op::Route(change)) = step else { continue };
        size += change.size();
        let (zero, one) = (change.body(0), change.body(u32::MAX));
        assert_eq!(zero.len(), one.len(), "only numbers are filled in");
        assert_ne!(zero, one, "the interface is named");
        let mut length = 0;
        for (kind, value) in attributes(change.list()) {
            length += 4 + value.len().next_multiple_of(4);
            assert!(matches!(step, Op::Address(_)) || is_kept(kind), "{kind} was stripped");
        }
        assert_eq!(length, change.list().len(), "a whole list of attributes");
        assert!(!change.to_string().is_empty());
    }
    assert!(size <= choose::MEMORY + (1 << 20) + datagram.len() * 8, "memory is bounded");
}

/// To what is left when half of it has gone, and back.
fn follow(datagram: &[u8], wishes: u8, template: &Template) {
    let half: Vec<u8> = messages(datagram).map_while(Result::ok).step_by(2).flat_map(padded).collect();
    let Ok(other) = Template::choose(&Snapshot::from_messages(&half), &wishes_of(wishes)) else { return };
    let now = Instant::ZERO;
    let mut following = Following::new(template.clone());
    assert_eq!(following.turn_to(now, template.clone()), [], "nothing has changed");
    let bound = 4 * (datagram.len() / 16 + 10);
    for next in [&other, template] {
        assert!(following.turn_to(now, next.clone()).len() <= bound, "no step is invented");
        assert_eq!(following.turn_to(now, next.clone()), [], "it is there");
    }
    while let Some(due) = following.next() {
        assert!(!following.retire(due, |_| false).is_empty(), "time has an end");
    }
}

fn padded(message: &[u8]) -> Vec<u8> {
    let mut message = message.to_vec();
    message.resize(message.len().next_multiple_of(4), 0);
    message
}

fn wishes_of(bits: u8) -> Wishes {
    let has = |bit: u8| bits & (1 << bit) != 0;
    let v4 = Wish {
        address: has(0).then_some(Ipv4Addr::new(10, 0, 2, 100)),
        prefix: has(1).then_some(24),
        gateway: has(2).then_some(Ipv4Addr::new(10, 0, 2, 2)),
        outbound: has(3).then(|| "eth0".to_owned()),
        copy_addresses: !has(6),
        copy_routes: !has(7),
    };
    Wishes {
        interface: has(4).then(|| "eth0".to_owned()),
        ifname: None,
        v4: Some(v4),
        v6: has(5).then(Wish::default),
    }
}
