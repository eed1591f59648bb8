//! Counts of what happened, by layer, and of what was dropped, by reason. Plain numbers of a single thread.

use crate::drop_reason::DropReason;

/// Everything the engine counts. Numbers only grow (and wrap after 2^64 events).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "each name says what it counts; the group comments say the rest")]
pub struct Counters {
    // Frames through the device. A GSO frame counts once.
    pub frames_in: u64,
    pub frames_out: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    // TCP.
    pub tcp_opened: u64,
    pub tcp_accepted: u64,
    pub tcp_refused: u64,
    pub tcp_reset: u64,
    pub tcp_closed: u64,
    pub tcp_retransmits: u64,
    pub tcp_fast_retransmits: u64,
    pub tcp_timeouts: u64,
    // UDP and echo.
    pub udp_flows: u64,
    pub udp_in: u64,
    pub udp_out: u64,
    pub echo_flows: u64,
    // Errors told to the guest.
    pub icmp_errors_out: u64,
    pub fragments_in: u64,
    pub fragments_out: u64,
    dropped: [u64; DropReason::ALL.len()],
}

impl Counters {
    /// Counts one drop.
    pub fn drop(&mut self, reason: DropReason) {
        self.drop_many(reason, 1);
    }

    /// Counts `count` drops.
    #[expect(clippy::indexing_slicing, reason = "the array has one place per variant")]
    pub fn drop_many(&mut self, reason: DropReason, count: u64) {
        self.dropped[reason as usize] += count;
    }

    /// How many were dropped for `reason`.
    #[must_use]
    #[expect(clippy::indexing_slicing, reason = "the array has one place per variant")]
    pub const fn dropped(&self, reason: DropReason) -> u64 {
        self.dropped[reason as usize]
    }

    /// How many were dropped in all.
    #[must_use]
    pub fn dropped_total(&self) -> u64 {
        self.dropped.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_its_own_place() {
        let mut counters = Counters::default();
        for (n, reason) in DropReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, n);
            for _ in 0..=n {
                counters.drop(reason);
            }
        }
        for (n, reason) in DropReason::ALL.into_iter().enumerate() {
            assert_eq!(counters.dropped(reason), n as u64 + 1, "{}", reason.name());
        }
    }
}
