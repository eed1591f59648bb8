//! What a descriptor in the epoll set is for, packed into the 64 bits that epoll carries.
//!
//! ```text
//!  63      56 55                                  0
//! ┌──────────┬─────────────────────────────────────┐
//! │   kind   │ FlowId bits, or a number            │
//! └──────────┴─────────────────────────────────────┘
//!
//! of the shortcut:  55: the server's end   54‥24: generation   23‥0: place
//! ```
//! A flow's token names place and generation, so an event that was under way when the flow ended matches nothing.

use slipway_netstack::FlowId;

/// What a descriptor in the epoll set is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Token {
    /// A guest's link, by its number.
    Link(u32),
    /// Where guests come in, by its number.
    Door(u32),
    /// A descriptor that somebody else watches through the driver, by the number that they chose.
    Foreign(u32),
    /// The socket of a flow.
    Flow(FlowId),
    /// An end of a connection of the shortcut.
    Splice {
        /// Below 2^24.
        place: u32,
        /// Below 2^31.
        generation: u32,
        /// The end toward the server; otherwise the client's.
        server: bool,
    },
    /// The socket of a conversation over UDP of the shortcut.
    SpliceUdp {
        /// Below 2^24.
        place: u32,
        /// Below 2^31.
        generation: u32,
    },
    /// The bell of the thread inside.
    Inside,
}

const SHIFT: u32 = 56;
const LINK: u64 = 1;
const FOREIGN: u64 = 2;
const FLOW: u64 = 3;
const SPLICE: u64 = 4;
const SPLICE_UDP: u64 = 5;
const INSIDE: u64 = 6;
const DOOR: u64 = 7;

const PLACE_BITS: u32 = 24;
const SERVER: u64 = 1 << 55;

/// Place and generation in the low 55 bits.
const fn tenant(place: u32, generation: u32) -> u64 {
    (generation as u64 & (u32::MAX >> 1) as u64) << PLACE_BITS | (place as u64 & ((1 << PLACE_BITS) - 1))
}

/// The reverse.
#[expect(clippy::cast_possible_truncation, reason = "24 and 31 bits")]
const fn tenant_of(bits: u64) -> (u32, u32) {
    (bits as u32 & ((1 << PLACE_BITS) - 1), (bits >> PLACE_BITS) as u32 & (u32::MAX >> 1))
}

impl Token {
    /// For epoll.
    #[must_use]
    pub const fn to_bits(self) -> u64 {
        match self {
            Self::Link(number) => LINK << SHIFT | number as u64,
            Self::Door(number) => DOOR << SHIFT | number as u64,
            Self::Foreign(number) => FOREIGN << SHIFT | number as u64,
            Self::Flow(flow) => FLOW << SHIFT | flow.to_bits(),
            Self::Splice { place, generation, server } => {
                (SPLICE << SHIFT) | ((server as u64) * SERVER) | tenant(place, generation)
            }
            Self::SpliceUdp { place, generation } => SPLICE_UDP << SHIFT | tenant(place, generation),
            Self::Inside => INSIDE << SHIFT,
        }
    }

    /// The reverse; `None` for bits that [`Token::to_bits`] never gives.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "the number was put into the low 32 bits")]
    pub const fn from_bits(bits: u64) -> Option<Self> {
        match bits >> SHIFT {
            LINK => Some(Self::Link(bits as u32)),
            DOOR => Some(Self::Door(bits as u32)),
            FOREIGN => Some(Self::Foreign(bits as u32)),
            FLOW => Some(Self::Flow(FlowId::from_bits(bits))),
            SPLICE => {
                let (place, generation) = tenant_of(bits);
                Some(Self::Splice { place, generation, server: bits & SERVER != 0 })
            }
            SPLICE_UDP => {
                let (place, generation) = tenant_of(bits);
                Some(Self::SpliceUdp { place, generation })
            }
            INSIDE => Some(Self::Inside),
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
            Token::Door(0),
            Token::Door(u32::MAX),
            Token::Foreign(0),
            Token::Foreign(u32::MAX),
            Token::Flow(FlowId::new(0, 0)),
            Token::Flow(FlowId::new(u32::MAX, u32::MAX)),
            Token::Splice { place: 0, generation: 0, server: false },
            Token::Splice { place: (1 << 24) - 1, generation: (1 << 31) - 1, server: true },
            Token::Splice { place: 7, generation: 9, server: true },
            Token::SpliceUdp { place: (1 << 24) - 1, generation: (1 << 31) - 1 },
            Token::Inside,
        ] {
            assert_eq!(Token::from_bits(token.to_bits()), Some(token));
        }
        assert_eq!(Token::from_bits(0), None);
        assert_eq!(Token::from_bits(u64::MAX), None);
    }
}
