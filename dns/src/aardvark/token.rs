//! What a descriptor in the epoll set is for, in the number that the set carries for its owner.
//!
//! A place may have another occupant by the time an event is looked at; every handler takes an event as a hint and
//! finds out by a call that does not block.

use slipway_host::token::Token;

/// What a descriptor is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// Signals.
    Signals,
    /// The file that lists the host's servers.
    ResolvConf,
    /// Datagrams of a listener.
    Udp(u32),
    /// Connections to a listener.
    Tcp(u32),
    /// A client's connection.
    Client(u32),
    /// A socket towards an upstream server.
    Upstream(u32),
}

const SHIFT: u32 = 28;
const INDEX: u32 = (1 << SHIFT) - 1;

impl Source {
    /// For the set.
    pub(super) const fn token(self) -> Token {
        let (kind, index) = match self {
            Self::Signals => (0, 0),
            Self::ResolvConf => (1, 0),
            Self::Udp(index) => (2, index),
            Self::Tcp(index) => (3, index),
            Self::Client(index) => (4, index),
            Self::Upstream(index) => (5, index),
        };
        // No slab here has as many places.
        Token::Foreign(kind << SHIFT | index & INDEX)
    }

    /// The reverse.
    pub(super) const fn of(token: Token) -> Option<Self> {
        let Token::Foreign(number) = token else { return None };
        let index = number & INDEX;
        Some(match number >> SHIFT {
            0 => Self::Signals,
            1 => Self::ResolvConf,
            2 => Self::Udp(index),
            3 => Self::Tcp(index),
            4 => Self::Client(index),
            5 => Self::Upstream(index),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_go_both_ways() {
        use Source::{Client, ResolvConf, Signals, Tcp, Udp, Upstream};
        for source in [Signals, ResolvConf, Udp(0), Tcp(INDEX), Client(7), Upstream(1 << 20)] {
            assert_eq!(Source::of(source.token()), Some(source));
        }
        assert_eq!(Source::of(Token::Link(0)), None);
        assert_eq!(Source::of(Token::Foreign(u32::MAX)), None);
    }
}
