//! The real clock behind the engine's time: CLOCK_MONOTONIC, counted from this process's first use of it.
//!
//! The only place of the product that asks the operating system what time it is. One call costs some 25 ns (vDSO),
//! and the event loop makes one for each round, not one for each packet.

use slipway_netstack::Instant;
use std::sync::OnceLock;
use std::time::Duration;

/// The first moment is not zero: a TCP timestamp of zero reads as "none" to some peers.
const FIRST: Duration = Duration::from_secs(1);

static ORIGIN: OnceLock<std::time::Instant> = OnceLock::new();

/// Now. Never earlier than what an earlier call said.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is where time comes from")]
pub fn now() -> Instant {
    let origin = ORIGIN.get_or_init(std::time::Instant::now);
    Instant::ZERO + FIRST + origin.elapsed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_starts_above_zero_and_never_runs_back() {
        let first = now();
        assert!(first >= Instant::ZERO + FIRST);
        let mut last = first;
        for _ in 0..1000 {
            let next = now();
            assert!(next >= last);
            last = next;
        }
    }
}
