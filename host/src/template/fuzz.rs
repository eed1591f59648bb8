//! The promise: whatever a host is said to have, there is a template of it, within bounds, and each step of its plan is
//! a message that the kernel can take apart.

use super::copy::is_kept;
use super::plan::{Device, Op, plan};
use super::{Snapshot, Template, Wish, Wishes, choose};
use crate::netlink::netfilter::attributes;
use slipway_netstack::config::Mtu;
use std::net::Ipv4Addr;

/// Reads any bytes as what a host has. The first says what is wished.
pub(crate) fn fuzz(bytes: &[u8]) {
    let Some((wishes, datagram)) = bytes.split_first() else { return };
    let snapshot = Snapshot::from_messages(datagram);
    let Ok(template) = Template::choose(&snapshot, &wishes_of(*wishes)) else { return };
    assert!(!template.ifname().is_empty(), "it has a name");
    let steps = plan(&template, Device { mtu: Some(Mtu::ETHERNET), mac: None });
    let messages = datagram.len() / 16;
    assert!(steps.len() <= messages + 10, "no step is invented");
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
