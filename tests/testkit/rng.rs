//! Randomness for tests: small, seeded, the same on every machine.
//!
//! SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014): one multiplication
//! chain per number, any seed is good.

use core::time::Duration;

/// A stream of pseudo-random numbers.
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    /// The stream that `seed` names.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is not 0. The bias of the remainder does not matter for tests.
    pub const fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// True with a chance of `permille` in 1000.
    pub const fn chance(&mut self, permille: u32) -> bool {
        permille > 0 && self.below(1000) < permille as u64
    }

    /// A duration up to and including `most`, in whole microseconds.
    pub fn duration(&mut self, most: Duration) -> Duration {
        let micros = u64::try_from(most.as_micros()).unwrap_or(u64::MAX - 1);
        Duration::from_micros(self.below(micros + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_names_a_stream() {
        let (mut a, mut b, mut c) = (Rng::new(1), Rng::new(1), Rng::new(2));
        assert_eq!([a.next(), a.next()], [b.next(), b.next()]);
        assert_ne!(a.next(), c.next());
    }

    #[test]
    fn chances_come_out_about_right() {
        let mut rng = Rng::new(7);
        let hits = (0..100_000).filter(|_| rng.chance(20)).count();
        assert!((1_800..2_200).contains(&hits), "{hits}");
        assert!(!rng.chance(0));
    }
}
