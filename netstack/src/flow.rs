//! The name of a flow.
//!
//! A [`FlowId`] is a place in the table plus the generation of its tenant. It fits into 56 bits, so that the event
//! loop can carry it inside an epoll token, and a stale one (a late event for a flow that has ended, its place taken
//! by another) never matches.

use core::fmt;

/// A place in the flow table and the generation of its tenant.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlowId {
    index: u32,
    generation: u32,
}

impl FlowId {
    /// Generations wrap at 24 bits.
    pub const GENERATION_MASK: u32 = 0x00ff_ffff;

    /// The tenant number `generation` (taken modulo 2^24) of place `index`.
    #[must_use]
    pub const fn new(index: u32, generation: u32) -> Self {
        Self { index, generation: generation & Self::GENERATION_MASK }
    }

    /// The place.
    #[must_use]
    pub const fn index(self) -> usize {
        self.index as usize
    }

    /// The tenant's number, below 2^24.
    #[must_use]
    pub const fn generation(self) -> u32 {
        self.generation
    }

    /// Packed into the low 56 bits: generation, then index.
    #[must_use]
    pub const fn to_bits(self) -> u64 {
        ((self.generation as u64) << 32) | self.index as u64
    }

    /// The reverse of [`FlowId::to_bits`]; the high 8 bits are ignored.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "each half is cut to its own bits")]
    pub const fn from_bits(bits: u64) -> Self {
        Self::new(bits as u32, (bits >> 32) as u32)
    }
}

impl fmt::Debug for FlowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.index, self.generation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_go_both_ways_and_leave_a_byte_free() {
        let id = FlowId::new(u32::MAX, u32::MAX);
        assert_eq!(id.to_bits() >> 56, 0);
        assert_eq!(FlowId::from_bits(id.to_bits() | 0xab << 56), id);
    }
}
