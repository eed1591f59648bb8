//! What a packet socket of a DHCP client lets through: the answers to that client, so that nothing else wakes it.

use crate::sys::packet::Instruction;
use nix::libc;
use slipway_netstack::addr::MacAddr;

/// The client's port.
const CLIENT: u16 = 68;
/// EtherType of IPv4.
const IPV4: u16 = 0x0800;
const UDP: u8 = 17;

/// Whole UDP datagrams over IPv4 to port 68 whose message is for the hardware address `mac`.
#[must_use]
pub fn answers_to(mac: MacAddr) -> [Instruction; 15] {
    const DROP: u8 = 14;
    const BYTE: u32 = libc::BPF_LD | libc::BPF_B | libc::BPF_ABS;
    const HALF: u32 = libc::BPF_LD | libc::BPF_H | libc::BPF_ABS;
    const HEADER_LEN: u32 = libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH;
    // Behind the IP header, whose length the one before loads.
    const HALF_BEHIND: u32 = libc::BPF_LD | libc::BPF_H | libc::BPF_IND;
    const WORD_BEHIND: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_IND;
    let step = |code: u32, operand: u32| {
        let code = u16::try_from(code).unwrap_or_default();
        Instruction { code, if_true: 0, if_false: 0, operand }
    };
    // Jumps count from the instruction after the test, which stands at the place `at`.
    let equal = |at: u8, operand: u32| Instruction {
        if_false: DROP - at - 1,
        ..step(libc::BPF_JMP | libc::BPF_JEQ, operand)
    };
    let no_bit = |at: u8, bits: u32| Instruction {
        if_true: DROP - at - 1,
        ..step(libc::BPF_JMP | libc::BPF_JSET, bits)
    };
    let [a, b, c, d, e, f] = mac.0;
    [
        step(HALF, 12),
        equal(1, IPV4.into()),
        step(BYTE, 23),
        equal(3, UDP.into()),
        step(HALF, 20),
        no_bit(5, 0x3fff), // a fragment
        step(HEADER_LEN, 14),
        step(HALF_BEHIND, 14 + 2),
        equal(8, CLIENT.into()),
        step(WORD_BEHIND, 14 + 8 + 28), // the hardware address, 28 bytes into the message
        equal(10, u32::from_be_bytes([a, b, c, d])),
        step(HALF_BEHIND, 14 + 8 + 32),
        equal(12, u16::from_be_bytes([e, f]).into()),
        step(libc::BPF_RET, u16::MAX.into()),
        step(libc::BPF_RET, 0),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a filter as the kernel would; what it loads beyond the frame drops it.
    fn passes(filter: &[Instruction], frame: &[u8]) -> bool {
        let load = |at: usize, len: usize| {
            frame
                .get(at..at + len)
                .map(|bytes| bytes.iter().fold(0, |value, byte| value << 8 | u32::from(*byte)))
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

    const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
    const OTHER: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);

    /// The frame of a server's answer, as far as the filter looks at it.
    fn answer() -> Vec<u8> {
        let mut frame =
            [&[0xff; 6][..], &OTHER.0, &IPV4.to_be_bytes(), &[0x45, 0, 0, 0, 0, 0, 0, 0, 64, UDP]].concat();
        frame.resize(34, 0);
        frame.extend([0, 67, 0, 68, 0, 0, 0, 0]);
        frame.extend([2, 1, 6, 0]);
        frame.resize(42 + 28, 0);
        frame.extend(MAC.0);
        frame.resize(42 + 300, 0);
        frame
    }

    #[test]
    fn the_filter_takes_this_clients_answers_alone() {
        let filter = answers_to(MAC);
        let good = answer();
        assert!(passes(&filter, &good));
        assert!(!passes(&answers_to(OTHER), &good), "another client's");
        let mut with_options = good.clone();
        with_options[14] = 0x46;
        with_options.splice(34..34, [1; 4]);
        assert!(passes(&filter, &with_options), "a longer IP header");
        for (at, what) in
            [(12, "EtherType"), (23, "protocol"), (20, "fragment"), (37, "port"), (75, "address")]
        {
            let mut bad = good.clone();
            bad[at] ^= 0x21;
            assert!(!passes(&filter, &bad), "{what}");
        }
        assert!(!passes(&filter, &good[..60]));
    }
}
