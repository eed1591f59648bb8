//! Numbers that differ from client to client (SplitMix64, Steele, Lea and Flood 2014). No secrets: all of them are seen
//! on the link.

/// Such numbers.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// Numbers that follow from `seed`.
    #[must_use]
    pub fn new(seed: [u8; 8]) -> Self {
        Self(u64::from_ne_bytes(seed))
    }

    /// The next ones.
    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)).to_be_bytes().first_chunk().copied().unwrap_or([0; N])
    }

    /// The next one.
    pub fn number(&mut self) -> u32 {
        u32::from_be_bytes(self.bytes())
    }
}
