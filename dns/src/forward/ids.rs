//! Ids of messages: with the port, what a forger has to guess.

use siphasher::sip::SipHasher13;

/// Ids that cannot be foreseen without the key.
#[derive(Debug)]
pub(super) struct Ids {
    key: SipHasher13,
    drawn: u64,
}

impl Ids {
    pub(super) fn new(key: [u8; 16]) -> Self {
        Self { key: SipHasher13::new_with_key(&key), drawn: 0 }
    }

    pub(super) fn next(&mut self) -> u16 {
        self.drawn += 1;
        let [a, b, ..] = self.key.hash(&self.drawn.to_le_bytes()).to_le_bytes();
        u16::from_le_bytes([a, b])
    }
}
