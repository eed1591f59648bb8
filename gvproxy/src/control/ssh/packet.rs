//! Packets: bytes of a stream to messages, and back. Pure.
//!
//! ```text
//! ┌────────┬─────────┬─────────┬─────────┬─────┐
//! │ length │ padding │ payload │ padding │ tag │
//! │ 4      │ 1       │         │ 4..19   │ 16  │
//! └────────┴─────────┴─────────┴─────────┴─────┘
//! ```
//! Source: RFC 4253 §6. Both halves have their own keys and count their own packets. While keys are made anew nothing
//! but that may be sent (§7.1), so what others have to say waits in line.

use super::cipher::{HEAD, Opener, Sealer};
use super::wire::Malformed;
use std::collections::VecDeque;

/// The longest packet that is taken: OpenSSH's own bound.
const LONGEST: u32 = 256 << 10;
/// Packets for which one set of keys is used. RFC 4344 §3.1: numbers must not repeat under a key, and they have 32
/// bits; the server makes new keys long before (after 1 GiB, OpenSSH).
const MOST: u32 = 1 << 31;
/// More than that is not kept for the next packets.
const KEPT: usize = 128 << 10;

/// Why nothing more comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Broken {
    /// Not what a packet is.
    #[error("the server sends what is no packet")]
    NoPacket,
    /// It was altered on its way, or the keys are not the same.
    #[error("a packet was altered on its way")]
    Altered,
    /// So many that a number would come again.
    #[error("the server makes no new keys")]
    Worn,
}

impl From<Malformed> for Broken {
    fn from(_: Malformed) -> Self {
        Self::NoPacket
    }
}

/// What comes in.
#[derive(Debug)]
pub(super) struct Incoming {
    buffer: Vec<u8>,
    /// Where the next packet begins.
    from: usize,
    /// Its length, once that is known.
    length: Option<usize>,
    opener: Opener,
    sequence: u32,
    /// Packets by these keys.
    opened: u32,
}

impl Incoming {
    pub(super) const fn new() -> Self {
        Self { buffer: Vec::new(), from: 0, length: None, opener: Opener::Plain, sequence: 0, opened: 0 }
    }

    /// Where bytes are to be put, behind those that are there.
    pub(super) fn buffer(&mut self) -> &mut Vec<u8> {
        self.buffer.drain(..self.from);
        self.from = 0;
        if self.buffer.is_empty() && self.buffer.capacity() > KEPT {
            self.buffer = Vec::new();
        }
        &mut self.buffer
    }

    /// What has come and is no packet yet.
    pub(super) fn rest(&self) -> &[u8] {
        self.buffer.get(self.from..).unwrap_or_default()
    }

    /// That so many bytes have been read otherwise.
    pub(super) fn pass(&mut self, len: usize) {
        self.from = self.from.saturating_add(len).min(self.buffer.len());
    }

    /// The number of the packet that came last.
    pub(super) const fn last(&self) -> u32 {
        self.sequence.wrapping_sub(1)
    }

    /// Packets from here on are by these keys.
    pub(super) fn change(&mut self, opener: Opener, from_zero: bool) {
        self.opener = opener;
        self.opened = 0;
        if from_zero {
            self.sequence = 0;
        }
    }

    /// The payload of the next packet, if it is whole.
    pub(super) fn next(&mut self) -> Result<Option<&[u8]>, Broken> {
        let rest = self.buffer.get(self.from..).unwrap_or_default();
        let Some(head) = rest.first_chunk() else { return Ok(None) };
        let length = match self.length {
            Some(length) => length,
            None => {
                let length = self.opener.length(self.sequence, *head);
                // Four bytes of padding at least, and how many. (RFC 4253 §6 has 16 in all; with chacha20-poly1305,
                // which counts the length apart, OpenSSH's shortest are 12.)
                let fits = (5..=LONGEST).contains(&length);
                let length = usize::try_from(length).ok().filter(|_| fits).ok_or(Broken::NoPacket)?;
                *self.length.insert(length)
            }
        };
        let whole = HEAD + length + self.opener.tag_len();
        if rest.len() < whole {
            return Ok(None);
        }
        let (from, sequence) = (self.from, self.sequence);
        self.length = None;
        self.from += whole;
        self.sequence = self.sequence.wrapping_add(1);
        self.opened += 1;
        if self.opened >= MOST {
            return Err(Broken::Worn);
        }
        let packet = self.buffer.get_mut(from..from + whole).ok_or(Broken::NoPacket)?;
        let opened = self.opener.open(sequence, packet).ok_or(Broken::Altered)?;
        let (padding, rest) = opened.split_first().ok_or(Broken::NoPacket)?;
        let payload = rest.len().checked_sub(usize::from(*padding)).ok_or(Broken::NoPacket)?;
        rest.get(..payload).map(Some).ok_or(Broken::NoPacket)
    }
}

/// What goes out.
#[derive(Debug)]
pub(super) struct Outgoing {
    buffer: Vec<u8>,
    /// Bytes of it that have gone.
    gone: usize,
    sealer: Sealer,
    sequence: u32,
    sealed: u32,
    /// While keys are made anew: what has to wait.
    waiting: Option<VecDeque<Vec<u8>>>,
    waiting_bytes: usize,
}

impl Outgoing {
    pub(super) const fn new() -> Self {
        Self {
            buffer: Vec::new(),
            gone: 0,
            sealer: Sealer::Plain,
            sequence: 0,
            sealed: 0,
            waiting: None,
            waiting_bytes: 0,
        }
    }

    /// What is to be sent.
    pub(super) fn bytes(&self) -> &[u8] {
        self.buffer.get(self.gone..).unwrap_or_default()
    }

    /// Bytes that have not gone yet.
    pub(super) const fn len(&self) -> usize {
        self.buffer.len().saturating_sub(self.gone) + self.waiting_bytes
    }

    /// That so many bytes have gone.
    pub(super) fn sent(&mut self, len: usize) {
        self.gone = self.gone.saturating_add(len);
        if self.gone >= self.buffer.len() {
            self.gone = 0;
            self.buffer.clear();
            if self.buffer.capacity() > KEPT {
                self.buffer = Vec::new();
            }
        }
    }

    /// Bytes that are no packet: the first line of all.
    pub(super) fn raw(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// A packet, or what will be one when keys have been made.
    pub(super) fn send(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        match &mut self.waiting {
            None => self.send_now(write),
            Some(waiting) => {
                let mut payload = Vec::new();
                write(&mut payload);
                self.waiting_bytes += payload.len();
                waiting.push_back(payload);
            }
        }
    }

    /// A packet, whatever waits.
    pub(super) fn send_now(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        const FRONT: usize = HEAD + 1;
        let from = self.buffer.len();
        self.buffer.extend_from_slice(&[0; FRONT]);
        write(&mut self.buffer);
        let payload = self.buffer.len().saturating_sub(from + FRONT);
        let padding = self.sealer.padding(payload);
        // RFC 4253 §6 (deviation): padding should be random. All ciphers that are left seal it with the rest.
        self.buffer.resize(self.buffer.len() + usize::from(padding), 0);
        let length = u32::try_from(1 + payload + usize::from(padding)).unwrap_or(u32::MAX);
        if let Some(front) = self.buffer.get_mut(from..).and_then(<[u8]>::first_chunk_mut::<FRONT>) {
            let [a, b, c, d] = length.to_be_bytes();
            *front = [a, b, c, d, padding];
        }
        if !self.sealer.seal(self.sequence, &mut self.buffer, from) {
            // Nothing goes out unsealed.
            self.buffer.truncate(from);
        }
        self.sequence = self.sequence.wrapping_add(1);
        self.sealed = self.sealed.saturating_add(1);
    }

    /// Whether so many packets have gone by these keys that there must be no more.
    pub(super) const fn is_worn(&self) -> bool {
        self.sealed >= MOST
    }

    /// From here on everything waits that is not about keys.
    pub(super) fn hold(&mut self) {
        self.waiting.get_or_insert_default();
    }

    /// Packets from here on are by these keys, and what has waited goes.
    pub(super) fn change(&mut self, sealer: Sealer, from_zero: bool) {
        self.sealer = sealer;
        self.sealed = 0;
        if from_zero {
            self.sequence = 0;
        }
        self.waiting_bytes = 0;
        for payload in self.waiting.take().unwrap_or_default() {
            self.send_now(|packet| packet.extend_from_slice(&payload));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::cipher::Cipher;
    use super::*;

    /// Both halves with the same keys.
    fn halves(cipher: Option<Cipher>) -> (Outgoing, Incoming) {
        let (mut out, mut into) = (Outgoing::new(), Incoming::new());
        if let Some(cipher) = cipher {
            let (key, nonce) = (vec![1; cipher.key_len()], vec![2; cipher.nonce_len()]);
            out.change(cipher.sealer(&key, &nonce).unwrap(), true);
            into.change(cipher.opener(&key, &nonce).unwrap(), true);
        }
        (out, into)
    }

    #[test]
    fn messages_arrive_in_whatever_pieces() {
        let ciphers = Cipher::ALL.map(|(_, cipher)| Some(cipher)).into_iter().chain([None]);
        for cipher in ciphers {
            let (mut out, mut into) = halves(cipher);
            let messages: Vec<Vec<u8>> = (0..40).map(|len| vec![7; len * 100 + 1]).collect();
            for message in &messages {
                out.send(|packet| packet.extend_from_slice(message));
            }
            let mut arrived = Vec::new();
            for piece in out.bytes().chunks(333) {
                into.buffer().extend_from_slice(piece);
                while let Some(payload) = into.next().unwrap() {
                    arrived.push(payload.to_vec());
                }
            }
            assert_eq!(arrived, messages, "{cipher:?}");
            let all = out.len();
            out.sent(all);
            assert!(out.bytes().is_empty() && into.rest().is_empty());
        }
    }

    #[test]
    fn what_has_to_wait_goes_by_the_new_keys() {
        let (mut out, mut into) = halves(None);
        out.hold();
        out.send(|packet| packet.extend_from_slice(b"later"));
        out.send_now(|packet| packet.extend_from_slice(b"now"));
        assert!(out.len() > out.bytes().len());
        into.buffer().extend_from_slice(out.bytes());
        out.sent(out.bytes().len());
        assert_eq!(into.next(), Ok(Some(&b"now"[..])));
        assert_eq!(into.next(), Ok(None));
        let cipher = Cipher::ChaCha;
        out.change(cipher.sealer(&[1; 64], &[]).unwrap(), true);
        into.change(cipher.opener(&[1; 64], &[]).unwrap(), true);
        into.buffer().extend_from_slice(out.bytes());
        assert_eq!(into.next(), Ok(Some(&b"later"[..])));
    }

    #[test]
    fn what_is_no_packet_is_told() {
        let plain = |bytes: &[u8]| {
            let mut into = Incoming::new();
            into.buffer().extend_from_slice(bytes);
            into.next().map(|payload| payload.map(<[u8]>::to_vec))
        };
        assert_eq!(plain(&[0, 0, 0]), Ok(None));
        assert_eq!(plain(&[0, 0, 0, 4]), Err(Broken::NoPacket), "too short");
        assert_eq!(plain(&[0, 4, 0, 1]), Err(Broken::NoPacket), "too long");
        assert_eq!(plain(&[0xff; 8]), Err(Broken::NoPacket));
        let mut padded = vec![0, 0, 0, 12, 12];
        padded.extend([0; 11]);
        assert_eq!(plain(&padded), Err(Broken::NoPacket), "nothing but padding, and more of that");
        let (mut out, mut into) = halves(Some(Cipher::Aes128));
        out.send(|packet| packet.push(1));
        into.buffer().extend_from_slice(out.bytes());
        let last = into.buffer().last_mut().unwrap();
        *last ^= 1;
        assert_eq!(into.next(), Err(Broken::Altered));
    }
}
