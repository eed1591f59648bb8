//! What the tests of both versions' filters need.

use super::*;

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
