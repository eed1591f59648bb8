//! The guest's keepalive, passed on to the peer that it is meant for.
//!
//! A guest that probes an idle connection wants two things: to learn whether its peer still lives, and to keep the
//! address translators on the way from forgetting the connection. We answer the probe, for we are the guest's peer, so
//! it would get neither; therefore the host's socket takes over the rhythm and probes the real one. A peer that does
//! not answer ends the connection by ETIMEDOUT, which resets the flow as any failure of the socket does. Connections
//! that came through a published port are no different: there the guest is the server.
//!
//! What shows of the rhythm is the idle time before a probe. How long the guest would wait between probes that are not
//! answered, and how many it would send, never shows, for ours are answered: the interval is taken to be as long as the
//! idle time, at most what Linux does by default, and the number is the host's own. So no connection is given up sooner
//! than by a guest that left these alone.

use super::segment::Segment;
use super::{Ctx, Stage, Tcp};
use crate::upstream::Upstream;
use core::time::Duration;

/// A repeated byte looks like a probe of the old kind; none comes so late, and no idle time is so short (tcp(7):
/// seconds).
const LEAST: Duration = Duration::from_millis(900);
/// net.ipv4.tcp_keepalive_time, which every socket has anyway.
const LONGEST_IDLE: u64 = 7200;
/// net.ipv4.tcp_keepalive_intvl.
const LONGEST_INTERVAL: u16 = 75;

/// The idle time in whole seconds, if a probe after this much silence tells one.
fn idle_time(silence: Duration) -> Option<u16> {
    if silence < LEAST {
        return None;
    }
    let seconds = (silence + Duration::from_millis(500)).as_secs();
    u16::try_from(seconds.min(LONGEST_IDLE)).ok()
}

impl Tcp {
    /// A segment outside the window came: it may be a keepalive probe (RFC 9293 §3.8.4).
    pub(super) fn hear_probe<U: Upstream>(&mut self, seg: &Segment<'_>, ctx: &mut Ctx<'_, U>) {
        if self.stage != Stage::Open || self.tx.is_broken() || !self.rx.is_keepalive(seg) {
            return;
        }
        // The guest counts from the last it heard of us, which is the moment of the last we heard of it but for a round
        // trip.
        let Some(idle) = idle_time(ctx.now.since(self.heard)).filter(|idle| *idle != self.guest_idle) else {
            return;
        };
        self.guest_idle = idle;
        let seconds = |count: u16| Duration::from_secs(count.into());
        ctx.up.tcp_keepalive(ctx.id, seconds(idle), seconds(idle.min(LONGEST_INTERVAL)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_rounded_to_seconds_within_bounds() {
        let told = |ms| idle_time(Duration::from_millis(ms));
        assert_eq!((told(200), told(899)), (None, None));
        assert_eq!(
            (told(990), told(1040), told(15_020), told(14_990)),
            (Some(1), Some(1), Some(15), Some(15))
        );
        assert_eq!(told(u64::MAX), Some(7200));
    }
}
