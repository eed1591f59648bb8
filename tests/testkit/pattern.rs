//! Bytes that tell where in a stream they belong: lost, doubled or swapped ones are noticed at once.
//!
//! The byte at a position is computed from the position and a seed, so neither side keeps a copy of what it sent.

/// Stride and first byte of the 256 bytes to which `position` belongs.
const fn block(seed: u64, position: u64) -> (u8, u8) {
    // Changes in every position and has no short period: blocks of 256 are stepped through by an odd stride that
    // depends on the block.
    let block = (position >> 8).wrapping_add(seed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let [stride, start, ..] = block.to_be_bytes();
    (stride | 1, start)
}

/// The byte at `position` of stream `seed`.
#[must_use]
pub const fn byte(seed: u64, position: u64) -> u8 {
    let (stride, start) = block(seed, position);
    let [.., low] = position.to_be_bytes();
    stride.wrapping_mul(low).wrapping_add(start)
}

/// Fills `into` with the bytes from `position` on.
pub fn fill(seed: u64, position: u64, into: &mut [u8]) {
    let (mut at, mut rest) = (position, into);
    while !rest.is_empty() {
        let [.., low] = at.to_be_bytes();
        let (here, behind) = rest.split_at_mut((256 - usize::from(low)).min(rest.len()));
        let (stride, _) = block(seed, at);
        let mut value = byte(seed, at);
        for out in &mut *here {
            *out = value;
            value = value.wrapping_add(stride);
        }
        at += u64::try_from(here.len()).expect("a length");
        rest = behind;
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
    let (mut at, mut room) = (position, [0; 2048]);
    for piece in data.chunks(room.len()) {
        // Compared as a whole: byte by byte it would be what a fuzzer spends its time on.
        let expected = &mut room[..piece.len()];
        fill(seed, at, expected);
        if piece != expected {
            let same = piece.iter().zip(expected).take_while(|(got, expected)| got == expected).count();
            return Some(at + u64::try_from(same).expect("a length"));
        }
        at += u64::try_from(piece.len()).expect("a length");
    }
    None
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

    #[test]
    fn all_at_once_is_byte_by_byte() {
        for (from, len) in [(0, 0), (0, 1), (255, 2), (1000, 4096), (70_001, 5000)] {
            let one_by_one: Vec<u8> = (from..from + len).map(|at| byte(3, at)).collect();
            let mut data = bytes(3, from, one_by_one.len());
            assert_eq!(data, one_by_one);
            for wrong in [0, 255, 2047, 2048, 4999] {
                let Some(place) = data.get_mut(wrong) else { continue };
                *place ^= 1;
                let at = from + u64::try_from(wrong).unwrap();
                assert_eq!(mismatch(3, from, &data), Some(at));
                data[wrong] ^= 1;
            }
        }
    }
}
