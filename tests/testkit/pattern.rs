//! Bytes that tell where in a stream they belong: lost, doubled or swapped ones are noticed at once.
//!
//! The byte at a position is computed from the position and a seed, so neither side keeps a copy of what it sent.

/// The byte at `position` of stream `seed`.
#[must_use]
pub const fn byte(seed: u64, position: u64) -> u8 {
    // Changes in every position and has no short period: blocks of 256 are stepped through by an odd stride that
    // depends on the block.
    let block = (position >> 8).wrapping_add(seed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let [stride, start, ..] = block.to_be_bytes();
    let [.., low] = position.to_be_bytes();
    (stride | 1).wrapping_mul(low).wrapping_add(start)
}

/// Fills `into` with the bytes from `position` on.
pub fn fill(seed: u64, position: u64, into: &mut [u8]) {
    for (at, out) in (position..).zip(into) {
        *out = byte(seed, at);
    }
}

/// `len` bytes from `position` on.
#[must_use]
pub fn bytes(seed: u64, position: u64, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    fill(seed, position, &mut out);
    out
}

/// Where `data`, expected at `position`, first differs.
#[must_use]
pub fn mismatch(seed: u64, position: u64, data: &[u8]) -> Option<u64> {
    (position..).zip(data).find(|(at, got)| byte(seed, *at) != **got).map(|(at, _)| at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shifted_data_is_noticed() {
        let data = bytes(1, 1000, 4096);
        assert_eq!(mismatch(1, 1000, &data), None);
        for wrong in [999, 1001, 1256, 1000 + 1460, 0] {
            assert!(mismatch(1, wrong, &data).is_some_and(|at| at < wrong + 300), "{wrong}");
        }
        assert!(mismatch(2, 1000, &data).is_some());
    }
}
