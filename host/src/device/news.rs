//! What happens to guests' links, for whoever serves several: who has come, who was seen there, who has left.
//!
//! One guest can have any number of stations, so news of those are bounded, in a queue that the caller empties after
//! each round; beyond, they are left out. That a link has come or gone is always told.

use slipway_netstack::addr::MacAddr;
use std::collections::VecDeque;
use std::io;

/// Stations of which nobody has heard yet.
const SEEN: usize = 1024;

/// A link, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u32);

/// Something about a guest's link.
#[derive(Debug)]
pub enum GuestNews {
    /// A guest has come.
    Joined(LinkId),
    /// The first frame of a station.
    Seen {
        /// By which it came.
        link: LinkId,
        /// Its address.
        mac: MacAddr,
    },
    /// A guest has gone, and with it who was behind its link.
    Left {
        /// The link that is no more.
        link: LinkId,
        /// In order.
        macs: Vec<MacAddr>,
    },
    /// A guest could not be let in, or never finished what it has to say before frames.
    Failed(io::Error),
}

/// News that nobody has asked for yet.
#[derive(Debug, Default)]
pub(crate) struct News {
    queue: VecDeque<GuestNews>,
    seen: usize,
}

impl News {
    pub(crate) fn tell(&mut self, news: GuestNews) {
        if matches!(news, GuestNews::Seen { .. }) {
            if self.seen >= SEEN {
                return;
            }
            self.seen += 1;
        }
        self.queue.push_back(news);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(crate) fn take(&mut self) -> Vec<GuestNews> {
        self.seen = 0;
        std::mem::take(&mut self.queue).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_that_invents_stations_fills_no_memory_and_hides_nothing() {
        let mut news = News::default();
        for n in 0..10_000_u16 {
            let [high, low] = n.to_be_bytes();
            news.tell(GuestNews::Seen { link: LinkId(1), mac: MacAddr([2, 0, 0, 0, high, low]) });
        }
        news.tell(GuestNews::Left { link: LinkId(1), macs: vec![] });
        let told = news.take();
        assert_eq!(told.len(), SEEN + 1);
        assert!(matches!(told.last(), Some(GuestNews::Left { link: LinkId(1), .. })));
        assert!(news.is_empty());
        news.tell(GuestNews::Seen { link: LinkId(1), mac: MacAddr([2; 6]) });
        assert_eq!(news.take().len(), 1);
    }
}
