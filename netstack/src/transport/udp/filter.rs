//! Whose datagrams get in through the socket of a guest endpoint (endpoint-dependent filtering, RFC 4787 §5).
//!
//! The socket is bound to a port of the host, perhaps to the guest's own, and the kernel gives it what anybody sends
//! there. Where that must not open a service of the guest to the host's network, only peers that the guest has sent
//! something to get in: the last [`GENERATION`] for certain, and about as many before them. A datagram to a group is a
//! question to nobody in particular, so the answers may come from anybody: it opens the filter for good.
//!
//! Peers are kept in two generations, each in order, so that the oldest go without a timer and a lookup costs no more
//! than a few comparisons however many the guest has sent to. What is pushed out is a peer of that very endpoint: its
//! next answer is lost, as any datagram may be, until the guest sends to it again.

use core::net::SocketAddr;

/// Peers in a generation.
pub(crate) const GENERATION: usize = 128;

/// Who gets in.
#[derive(Debug)]
pub(crate) enum Filter {
    /// Everybody.
    Open,
    /// Whom the guest has sent to.
    Contacted {
        /// Since the last generation was full.
        recent: Vec<SocketAddr>,
        /// Those of the generation before.
        older: Vec<SocketAddr>,
    },
}

impl Filter {
    /// Open, or nobody gets in yet.
    pub(crate) const fn new(contacted_only: bool) -> Self {
        if contacted_only { Self::Contacted { recent: Vec::new(), older: Vec::new() } } else { Self::Open }
    }

    /// The guest sends something to `peer`.
    pub(crate) fn contact(&mut self, peer: SocketAddr) {
        let Self::Contacted { recent, older } = self else { return };
        let Err(mut at) = recent.binary_search(&peer) else { return };
        if recent.len() >= GENERATION {
            *older = core::mem::take(recent);
            at = 0;
        }
        recent.insert(at, peer);
    }

    /// The guest asks a group: anybody may answer.
    pub(crate) fn open(&mut self) {
        *self = Self::Open;
    }

    /// Whether what `peer` sends gets in.
    pub(crate) fn admits(&self, peer: SocketAddr) -> bool {
        match self {
            Self::Open => true,
            Self::Contacted { recent, older } => {
                recent.binary_search(&peer).is_ok() || older.binary_search(&peer).is_ok()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    fn peer(n: u16) -> SocketAddr {
        SocketAddr::new([192, 0, 2, 1].into(), n)
    }

    #[test]
    fn an_open_filter_admits_everybody() {
        let mut filter = Filter::new(false);
        filter.contact(peer(1));
        assert!(filter.admits(peer(2)));
        let mut filter = Filter::new(true);
        assert!(!filter.admits(peer(1)));
        filter.open();
        assert!(filter.admits(peer(1)));
    }

    proptest! {
        /// An exact list of the most recently contacted stands beside it: the newest generation is always known, and
        /// nobody older than the last two is.
        #[test]
        fn the_most_recent_peers_get_in(sent in prop::collection::vec(0_u16..600, 0..2000)) {
            let (mut filter, mut exact) = (Filter::new(true), VecDeque::new());
            for n in sent {
                filter.contact(peer(n));
                exact.retain(|&known| known != n);
                exact.push_front(n);
                prop_assert!(filter.admits(peer(n)));
            }
            for (age, n) in exact.iter().enumerate() {
                prop_assert!(age >= GENERATION || filter.admits(peer(*n)), "{age}");
            }
            let admitted = (0..600).filter(|&n| filter.admits(peer(n))).count();
            prop_assert!(admitted <= 2 * GENERATION);
            prop_assert!((0..600).all(|n| exact.contains(&n) || !filter.admits(peer(n))));
        }
    }
}
