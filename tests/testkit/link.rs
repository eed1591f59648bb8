//! The wire between guest and engine, one object per direction: delay, bandwidth, loss, duplication, reordering.
//!
//! Everything is drawn from the link's own random stream, so a run is decided by its seed. A frame that is to be
//! reordered is held back for [`LinkConfig::hold`], so that later ones overtake it; all others stay in order.

use crate::rng::Rng;
use core::cmp::Reverse;
use core::time::Duration;
use slipway_netstack::Instant;
use slipway_netstack::device::Offload;
use std::collections::BinaryHeap;

/// How a link behaves. The default is a perfect wire.
#[derive(Debug, Clone, Copy, Default)]
pub struct LinkConfig {
    /// One way.
    pub delay: Duration,
    /// Bytes per second; `None`: without end.
    pub bandwidth: Option<u64>,
    /// Frames that wait for the wire at most; more are refused. Counts only with a bandwidth.
    pub queue: Option<usize>,
    /// Chance that a frame is lost, in 1/1000.
    pub loss: u32,
    /// Chance that a frame arrives twice, in 1/1000.
    pub duplicate: u32,
    /// Chance that a frame is held back, in 1/1000.
    pub reorder: u32,
    /// How long such a frame is held back.
    pub hold: Duration,
}

/// What a link has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LinkStats {
    /// Frames that were given to it.
    pub sent: u64,
    /// Frames that it refused or lost.
    pub lost: u64,
    /// Frames that came out.
    pub delivered: u64,
    /// Bytes that came out.
    pub bytes: u64,
}

/// One direction of the wire.
#[derive(Debug)]
pub struct Link {
    config: LinkConfig,
    rng: Rng,
    flying: BinaryHeap<Reverse<(Instant, u64, Flying)>>,
    order: u64,
    /// In nanoseconds: a frame on a fast wire takes less than a microsecond.
    free_at: u64,
    drop_next: Vec<u64>,
    stats: LinkStats,
}

#[derive(Debug, PartialEq, Eq)]
struct Flying(Offload, Vec<u8>);

// Only time and order decide; they never tie.
impl Ord for Flying {
    fn cmp(&self, _: &Self) -> core::cmp::Ordering {
        core::cmp::Ordering::Equal
    }
}
impl PartialOrd for Flying {
    fn partial_cmp(&self, other: &Self) -> Option<core::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Link {
    /// A wire with nothing on it.
    #[must_use]
    pub const fn new(config: LinkConfig, seed: u64) -> Self {
        Self {
            config,
            rng: Rng::new(seed),
            flying: BinaryHeap::new(),
            order: 0,
            free_at: 0,
            drop_next: Vec::new(),
            stats: LinkStats { sent: 0, lost: 0, delivered: 0, bytes: 0 },
        }
    }

    /// Changes how it behaves from now on.
    pub const fn configure(&mut self, config: LinkConfig) {
        self.config = config;
    }

    /// Loses the frame that is the `nth` from now (0: the next).
    pub fn lose(&mut self, nth: u64) {
        self.drop_next.push(self.stats.sent + nth);
    }

    /// Whether it would refuse a frame now.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.config.queue.is_some_and(|most| self.flying.len() >= most)
    }

    /// Puts a frame on the wire.
    pub fn push(&mut self, now: Instant, offload: Offload, frame: Vec<u8>) {
        let nth = self.stats.sent;
        self.stats.sent += 1;
        if let Some(at) = self.drop_next.iter().position(|n| *n == nth) {
            self.drop_next.swap_remove(at);
            self.stats.lost += 1;
            return;
        }
        // A lost frame has occupied the wire all the same.
        self.free_at = self.free_at.max(now.as_micros() * 1000) + self.serialisation(frame.len());
        if self.rng.chance(self.config.loss) {
            self.stats.lost += 1;
            return;
        }
        let mut at = Instant::from_micros(self.free_at / 1000) + self.config.delay;
        if self.rng.chance(self.config.reorder) {
            at = at + self.config.hold;
        }
        if self.rng.chance(self.config.duplicate) {
            self.fly(at, Flying(offload, frame.clone()));
        }
        self.fly(at, Flying(offload, frame));
    }

    fn serialisation(&self, len: usize) -> u64 {
        let len = u64::try_from(len).expect("a frame's length");
        self.config.bandwidth.map_or(0, |rate| len * 1_000_000_000 / rate)
    }

    fn fly(&mut self, at: Instant, frame: Flying) {
        self.order += 1;
        self.flying.push(Reverse((at, self.order, frame)));
    }

    /// The next frame that has arrived at `now`.
    pub fn pop(&mut self, now: Instant) -> Option<(Offload, Vec<u8>)> {
        if self.next_arrival()? > now {
            return None;
        }
        let Reverse((_, _, Flying(offload, frame))) = self.flying.pop()?;
        self.stats.delivered += 1;
        self.stats.bytes += u64::try_from(frame.len()).expect("a frame's length");
        Some((offload, frame))
    }

    /// When the next frame arrives.
    #[must_use]
    pub fn next_arrival(&self) -> Option<Instant> {
        self.flying.peek().map(|Reverse((at, ..))| *at)
    }

    /// What it has done.
    #[must_use]
    pub const fn stats(&self) -> LinkStats {
        self.stats
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrivals(link: &mut Link) -> Vec<(u64, u8)> {
        let mut out = Vec::new();
        while let Some(at) = link.next_arrival() {
            let (_, frame) = link.pop(at).unwrap();
            out.push((at.as_micros(), frame[0]));
        }
        out
    }

    #[test]
    fn a_narrow_wire_spaces_frames_out() {
        let config = LinkConfig {
            delay: Duration::from_micros(10),
            bandwidth: Some(1_000_000),
            ..LinkConfig::default()
        };
        let mut link = Link::new(config, 1);
        for n in 0..3 {
            link.push(Instant::ZERO, Offload::NONE, vec![n; 100]);
        }
        assert_eq!(arrivals(&mut link), [(110, 0), (210, 1), (310, 2)]);
    }

    #[test]
    fn held_frames_are_overtaken_and_chosen_ones_lost() {
        let mut link = Link::new(
            LinkConfig { reorder: 1000, hold: Duration::from_micros(5), ..LinkConfig::default() },
            1,
        );
        link.push(Instant::ZERO, Offload::NONE, vec![0]);
        link.configure(LinkConfig::default());
        link.lose(1);
        for n in 1..4 {
            link.push(Instant::ZERO, Offload::NONE, vec![n]);
        }
        assert_eq!(arrivals(&mut link), [(0, 1), (0, 3), (5, 0)]);
        assert_eq!(link.stats().lost, 1);
    }
}
