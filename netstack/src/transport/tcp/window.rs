//! How much of an upload may be under way: what is promised to the guest stands in front of everything else that it
//! sends.
//!
//! The link to a guest on this machine is a queue without a limit of its own: the kernel forgets who sent what lies in
//! a TAP, so whatever windows we advertise may lie there at once, and a question that the guest asks then waits until
//! all of it has been read. A window has to cover the way between guest and us, and no more; the way behind us is
//! covered by the kernel's send buffer. So for a guest that is *near*, less than a millisecond away as seen by one
//! round trip at least, all uploads together are promised [`TOGETHER`], each [`MOST`] at the most, and never less than
//! [`LEAST`], two super-frames: one that is read while the next is sent. Less would leave the guest's queue empty
//! whenever its sender is not on a core (docs/performance.md has what half of it costs).
//!
//! How many uploads there are is counted anew every [`EPOCH`]. A window that is too large for the number shrinks as TCP
//! windows must: its edge stands still until what was promised has been used (RFC 9293 §3.8.6.2.2).
//!
//! A guest farther away (a virtual machine behind a tunnel) gets a window that doubles with its use, up to
//! [`crate::config::TcpConfig::max_window`]; what lies on that way is on the wire, not before us.

use crate::clock::Instant;
use core::time::Duration;

/// What all uploads of near guests are promised together.
const TOGETHER: u32 = 1 << 20;
/// The most that one of them is.
const MOST: u32 = 256 << 10;
/// What each is at least.
const LEAST: u32 = 128 << 10;
/// How long uploads are counted.
const EPOCH: Duration = Duration::from_millis(10);
/// What a flow must have sent in an epoch to be an upload: some 13 Mbit/s.
const UPLOAD: u32 = 16 << 10;
/// A round trip that makes a guest a near one.
pub(super) const NEAR: Duration = Duration::from_millis(1);

/// The uploads of all flows.
#[derive(Debug, Default)]
pub(super) struct Uploads {
    since: Instant,
    epoch: u32,
    /// Uploads counted in this epoch, and in the one before.
    now: u32,
    before: u32,
}

/// What one flow has sent in the current epoch.
#[derive(Debug, Default)]
pub(super) struct Sending {
    epoch: u32,
    bytes: u32,
}

impl Uploads {
    /// A flow has sent `bytes`.
    pub(super) fn note(&mut self, now: Instant, bytes: u32, flow: &mut Sending) {
        let gone = now.since(self.since);
        if gone >= EPOCH {
            self.before = if gone < EPOCH * 2 { self.now } else { 0 };
            self.now = 0;
            self.since = now;
            self.epoch = self.epoch.wrapping_add(1);
        }
        if flow.epoch != self.epoch {
            *flow = Sending { epoch: self.epoch, bytes: 0 };
        }
        let less = flow.bytes < UPLOAD;
        flow.bytes = flow.bytes.saturating_add(bytes);
        self.now += u32::from(less && flow.bytes >= UPLOAD);
    }

    /// What each may be promised.
    pub(super) fn share(&self) -> u32 {
        (TOGETHER / self.now.max(self.before).max(1)).clamp(LEAST, MOST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_follows_the_number_of_uploads() {
        let mut uploads = Uploads::default();
        let mut flows: Vec<Sending> = (0..20).map(|_| Sending::default()).collect();
        let mut now = Instant::from_micros(5_000_000);
        for (count, share) in [(1, MOST), (4, MOST), (5, TOGETHER / 5), (8, LEAST), (20, LEAST), (1, MOST)] {
            for _ in 0..40 {
                now = now + Duration::from_millis(1);
                for flow in &mut flows[..count] {
                    uploads.note(now, 60_000, flow);
                }
                // Questions and answers are no uploads.
                uploads.note(now, 100, &mut Sending { epoch: uploads.epoch, bytes: 0 });
            }
            assert_eq!(uploads.share(), share, "{count}");
        }
        uploads.note(now + Duration::from_secs(1), 1, &mut flows[0]);
        assert_eq!(uploads.share(), MOST);
    }
}
