//! How long the guest takes to answer, and so how long to wait before repeating.
//!
//! RFC 6298 with one deliberate difference: the lower bound of the timeout is 200 ms, as Linux has it, instead of 1 s.
//! The link is a device on this machine; a second of silence after a lost frame is what users would call a hang.

use core::time::Duration;

/// Linux's TCP_RTO_MIN.
const MIN_RTO: Duration = Duration::from_millis(200);
/// RFC 6298 §2.5 asks for 60 s at least.
const MAX_RTO: Duration = Duration::from_secs(60);
/// RFC 6298 §2.1: before the first measurement.
const INITIAL_RTO: Duration = Duration::from_secs(1);

/// Smoothed round-trip time and its variance.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Rtt {
    /// `None` before the first measurement. (Smoothed, variance), in microseconds.
    estimate: Option<(u32, u32)>,
    /// The least measurement, in microseconds.
    least: u32,
}

impl Rtt {
    /// Takes a measurement of a segment that was sent once (Karn's rule is the caller's part).
    pub(crate) fn measure(&mut self, rtt: Duration) {
        let r = u32::try_from(rtt.as_micros()).unwrap_or(u32::MAX / 16);
        let r = r.min(u32::MAX / 16);
        self.least = if self.estimate.is_some() { self.least.min(r) } else { r };
        self.estimate = Some(match self.estimate {
            // RFC 6298 §2.2.
            None => (r, r / 2),
            // RFC 6298 §2.3: alpha = 1/8, beta = 1/4.
            Some((srtt, var)) => (srtt - srtt / 8 + r / 8, var - var / 4 + srtt.abs_diff(r) / 4),
        });
    }

    /// The smoothed round-trip time, if there was a measurement.
    pub(crate) fn smoothed(&self) -> Option<Duration> {
        self.estimate.map(|(srtt, _)| Duration::from_micros(srtt.into()))
    }

    /// The shortest round trip that was measured.
    pub(crate) fn least(&self) -> Option<Duration> {
        self.estimate.map(|_| Duration::from_micros(self.least.into()))
    }

    /// The retransmission timeout after `backoff` doublings (RFC 6298 §5.5).
    pub(crate) fn timeout(&self, backoff: u8) -> Duration {
        let base = match self.estimate {
            None => INITIAL_RTO,
            Some((srtt, var)) => Duration::from_micros(u64::from(srtt) + 4 * u64::from(var)).max(MIN_RTO),
        };
        base.saturating_mul(1u32 << backoff.min(16)).min(MAX_RTO)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_timeout_follows_the_measurements() {
        let mut rtt = Rtt::default();
        assert_eq!(rtt.timeout(0), INITIAL_RTO);
        rtt.measure(Duration::from_millis(100));
        assert_eq!(rtt.timeout(0), Duration::from_millis(300), "R + 4 * R/2");
        for _ in 0..100 {
            rtt.measure(Duration::from_millis(100));
        }
        assert_eq!(rtt.timeout(0), MIN_RTO.max(rtt.smoothed().unwrap()));
        assert_eq!(rtt.timeout(2), MIN_RTO * 4);
        assert_eq!(rtt.timeout(255), MAX_RTO);
        rtt.measure(Duration::from_secs(100_000));
        assert!(rtt.timeout(0) <= MAX_RTO);
    }
}
