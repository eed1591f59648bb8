//! The handshake of HyperKit and VPNKit, before frames begin (contract: gvproxy 5.5).
//!
//! ```text
//!   client ── 49 bytes: magic, version, commit ─▶ server
//!   client ◀── the same 49 bytes ───────────────── server
//!   client ── 41 bytes: command, UUID ──────────▶ server
//!   client ◀── 258 bytes: MTU, MAC address ─────── server
//! ```
//! Nothing in it can be wrong: the greeting is sent back as it came, any command is taken, and who has a UUID that
//! nobody has named gets an address by chance. It may come in any pieces, and frames may follow in the same one.

use slipway_netstack::addr::MacAddr;
use std::rc::Rc;

/// The client's greeting.
const GREETING: usize = 49;
/// Its request: a command and the UUID of the machine.
const REQUEST: usize = 41;
const UUID: std::ops::Range<usize> = 1..37;
/// What it is told.
const ANSWER: usize = 258;
/// An Ethernet header, which counts into the longest packet.
const HEADER: u16 = 14;

/// The addresses of machines by their UUIDs.
pub type Macs = Rc<[(String, MacAddr)]>;

/// One client's handshake.
#[derive(Debug)]
pub struct Handshake {
    macs: Macs,
    /// For a machine that is not among them.
    otherwise: MacAddr,
    mtu: u16,
    greeted: bool,
}

/// What a step has brought.
#[derive(Debug, PartialEq, Eq)]
pub struct Step {
    /// So many bytes were read.
    pub taken: usize,
    /// This is to be sent.
    pub reply: Vec<u8>,
    /// Frames follow.
    pub done: bool,
}

impl Handshake {
    /// With a client who gets `otherwise` as address if `macs` do not have its UUID. `random` becomes that address: a
    /// station's, locally administered.
    #[must_use]
    pub fn new(macs: Macs, random: [u8; 6], mtu: u16) -> Self {
        let [first, rest @ ..] = random;
        let [a, b, c, d, e] = rest;
        let otherwise = MacAddr([(first & !1) | 2, a, b, c, d, e]);
        Self { macs, otherwise, mtu, greeted: false }
    }

    /// The client has sent `bytes`, and maybe not all of a message yet.
    pub fn step(&mut self, bytes: &[u8]) -> Option<Step> {
        if !self.greeted {
            let reply = bytes.get(..GREETING)?.to_vec();
            self.greeted = true;
            return Some(Step { taken: GREETING, reply, done: false });
        }
        let uuid = bytes.get(..REQUEST)?.get(UUID)?;
        Some(Step { taken: REQUEST, reply: self.answer(uuid), done: true })
    }

    fn answer(&self, uuid: &[u8]) -> Vec<u8> {
        let known = self.macs.iter().find(|(name, _)| name.as_bytes().eq_ignore_ascii_case(uuid));
        let mac = known.map_or(self.otherwise, |(_, mac)| *mac);
        let mut answer = vec![1];
        answer.extend(self.mtu.to_le_bytes());
        answer.extend(self.mtu.saturating_add(HEADER).to_le_bytes());
        answer.extend(mac.0);
        answer.resize(ANSWER, 0);
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID_OF_ONE: &str = "c3d68012-0208-11ea-9fd7-f2189899ab08";

    fn handshake() -> Handshake {
        let macs: Macs = [(UUID_OF_ONE.to_owned(), MacAddr([0x5a, 0x94, 0xef, 0xe4, 0x0c, 0xee]))].into();
        Handshake::new(macs, [0xff; 6], 1500)
    }

    fn request(uuid: &str) -> Vec<u8> {
        [&[1], uuid.as_bytes(), &[0; 4]].concat()
    }

    #[test]
    fn a_machine_is_told_its_address() {
        let greeting: Vec<u8> = (0..49).collect();
        for (uuid, mac) in [
            (UUID_OF_ONE.to_owned(), [0x5a, 0x94, 0xef, 0xe4, 0x0c, 0xee]),
            (UUID_OF_ONE.to_uppercase(), [0x5a, 0x94, 0xef, 0xe4, 0x0c, 0xee]),
            ("x".repeat(36), [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff]),
        ] {
            let mut handshake = handshake();
            let sent = [&greeting[..], &request(&uuid), b"a frame"].concat();
            assert_eq!(handshake.step(&sent[..48]), None);
            let first = handshake.step(&sent).unwrap();
            assert_eq!((first.taken, first.done, first.reply), (49, false, greeting.clone()));
            assert_eq!(handshake.step(&sent[49..89]), None);
            let second = handshake.step(&sent[49..]).unwrap();
            assert_eq!((second.taken, second.done, second.reply.len()), (41, true, 258));
            assert_eq!(second.reply[..5], [1, 0xdc, 5, 0xea, 5]);
            assert_eq!(second.reply[5..11], mac, "{uuid}");
            assert!(second.reply[11..].iter().all(|byte| *byte == 0));
        }
    }

    #[test]
    fn the_longest_packet_is_no_shorter_than_its_payload() {
        let mut handshake = Handshake::new([].into(), [0; 6], u16::MAX);
        handshake.step(&[0; 49]);
        let answer = handshake.step(&request(UUID_OF_ONE)).unwrap().reply;
        assert_eq!(answer[1..5], [0xff; 4]);
        assert_eq!(answer[5..11], [2, 0, 0, 0, 0, 0], "a station's, and nobody's by right");
    }
}
