//! The two exponents of RSA that OpenSSH's files leave out. Pure.

/// `number` modulo `prime - 1`, all written from the highest byte on: RFC 8017 §3.2. Zero has one byte.
///
/// Bit by bit, as on paper; a key is read a few times in the life of a program, in a process of its own that nobody can
/// take the time of.
pub(super) fn modulo_predecessor(number: &[u8], prime: &[u8]) -> Vec<u8> {
    // An odd number less one.
    let mut divisor = prime.to_vec();
    if let Some(last) = divisor.last_mut() {
        *last &= 0xfe;
    }
    // One byte more, for the bit that is shifted out.
    divisor.insert(0, 0);
    let mut rest = vec![0; divisor.len()];
    for byte in number {
        for bit in (0..8).rev() {
            let mut carry = byte >> bit & 1;
            for place in rest.iter_mut().rev() {
                let next = *place >> 7;
                *place = *place << 1 | carry;
                carry = next;
            }
            if rest >= divisor {
                subtract(&mut rest, &divisor);
            }
        }
    }
    let zeros = rest.iter().take_while(|byte| **byte == 0).count().min(rest.len().saturating_sub(1));
    rest.split_off(zeros)
}

fn subtract(from: &mut [u8], other: &[u8]) {
    let mut borrow = false;
    for (place, byte) in from.iter_mut().zip(other).rev() {
        let (less, first) = place.overflowing_sub(*byte);
        let (less, second) = less.overflowing_sub(u8::from(borrow));
        (*place, borrow) = (less, first || second);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remainders_are_those_of_the_processor() {
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        for _ in 0..200 {
            seed = seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            let (number, prime) = (seed, seed >> 40 | 1);
            if prime == 1 {
                continue;
            }
            let rest = modulo_predecessor(&number.to_be_bytes(), &prime.to_be_bytes()[4..]);
            let mut bytes = [0; 8];
            bytes[8 - rest.len()..].copy_from_slice(&rest);
            assert_eq!(u64::from_be_bytes(bytes), number % (prime - 1), "{number} {prime}");
        }
        assert_eq!(modulo_predecessor(&[], &[7]), [0]);
    }
}
