use super::*;
use crate::dhcp::frame::to_client;
use crate::dhcp::message::tests::{MAC, reply};
use std::net::Ipv4Addr;

const OTHER: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);

/// Runs a filter as the kernel would; what it loads beyond the frame drops it.
pub(in crate::dhcp) fn passes(filter: &[Instruction], frame: &[u8]) -> bool {
    let load = |at: usize, len: usize| {
        frame.get(at..at + len).map(|bytes| bytes.iter().fold(0, |value, byte| value << 8 | u32::from(*byte)))
    };
    let (mut at, mut a, mut x) = (0, 0, 0);
    loop {
        let step = filter[at];
        let place = step.operand as usize;
        at += 1;
        let loaded = match step.code {
            0x20 => load(place, 4),
            0x28 => load(place, 2),
            0x30 => load(place, 1),
            0x48 => load(x + place, 2),
            0x40 => load(x + place, 4),
            0xb1 => {
                x = load(place, 1).map_or(0, |byte| (byte & 0xf) as usize * 4);
                Some(a)
            }
            0x15 | 0x45 => {
                let holds = if step.code == 0x15 { a == step.operand } else { a & step.operand != 0 };
                at += usize::from(if holds { step.if_true } else { step.if_false });
                Some(a)
            }
            0x06 => return step.operand != 0,
            code => panic!("{code:#x}"),
        };
        let Some(value) = loaded else { return false };
        a = value;
    }
}

#[test]
fn the_filter_takes_this_clients_answers_alone() {
    let filter = filter(MAC);
    let message = reply(2, 9, Ipv4Addr::new(198, 51, 100, 7), &[]);
    let good = to_client(OTHER, &message);
    assert!(passes(&filter, &good));
    assert!(!passes(&super::filter(OTHER), &good), "another client's");
    let mut with_options = good.clone();
    with_options[14] = 0x46;
    with_options.splice(34..34, [1; 4]);
    assert!(passes(&filter, &with_options), "a longer IP header");
    for (at, what) in [(12, "EtherType"), (23, "protocol"), (20, "fragment"), (37, "port"), (75, "address")] {
        let mut bad = good.clone();
        bad[at] ^= 0x21;
        assert!(!passes(&filter, &bad), "{what}");
    }
    assert!(!passes(&filter, &good[..60]));
}
