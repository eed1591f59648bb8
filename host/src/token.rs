//! What a descriptor in the epoll set is for, packed into the 64 bits that epoll carries.
//!
//! ```text
//!  63      56 55                                  0
//! ┌──────────┬─────────────────────────────────────┐
//! │   kind   │ FlowId bits, or a number            │
//! └──────────┴─────────────────────────────────────┘
//! ```
//! A flow's token names place and generation, so an event that was under way when the flow ended matches nothing.

use slipway_netstack::FlowId;

/// What a descriptor in the epoll set is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Token {
    /// A guest's link, by its number.
    Link(u32),
    /// A descriptor that somebody else watches through the driver, by the number that they chose.
    Foreign(u32),
    /// The socket of a flow.
    Flow(FlowId),
}

const SHIFT: u32 = 56;
const LINK: u64 = 1;
const FOREIGN: u64 = 2;
const FLOW: u64 = 3;

impl Token {
    /// For epoll.
    #[must_use]
    pub const fn to_bits(self) -> u64 {
        match self {
            Self::Link(number) => LINK << SHIFT | number as u64,
            Self::Foreign(number) => FOREIGN << SHIFT | number as u64,
            Self::Flow(flow) => FLOW << SHIFT | flow.to_bits(),
        }
    }

    /// The reverse; `None` for bits that [`Token::to_bits`] never gives.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "the number was put into the low 32 bits")]
    pub const fn from_bits(bits: u64) -> Option<Self> {
        match bits >> SHIFT {
            LINK => Some(Self::Link(bits as u32)),
            FOREIGN => Some(Self::Foreign(bits as u32)),
            FLOW => Some(Self::Flow(FlowId::from_bits(bits))),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_go_both_ways() {
        for token in [
            Token::Link(0),
            Token::Link(u32::MAX),
            Token::Foreign(0),
            Token::Foreign(u32::MAX),
            Token::Flow(FlowId::new(0, 0)),
            Token::Flow(FlowId::new(u32::MAX, u32::MAX)),
        ] {
            assert_eq!(Token::from_bits(token.to_bits()), Some(token));
        }
        assert_eq!(Token::from_bits(0), None);
        assert_eq!(Token::from_bits(u64::MAX), None);
    }
}
