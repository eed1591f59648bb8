//! Packets of the engine, written down as they come and go.
//!
//! Where several guests are on one link, a capture of that link would show what they tell each other; this one shows
//! what passes the gateway.

use super::Driver;
use crate::device::pcap::{Packets, Recorded};
use slipway_netstack::Instant;

impl Driver {
    /// Has every packet that the engine gets or sends written down, whatever link it is on.
    pub fn record(&mut self, packets: Packets) {
        self.packets = Some(packets);
    }

    /// Lets the engine send; whether there is more to be sent.
    pub(super) fn drain_engine(&mut self, now: Instant) -> bool {
        match &self.packets {
            None => self.engine.drain(now, &mut self.sockets, &mut self.links),
            Some(packets) => {
                let mut recorded = Recorded { inner: &mut self.links, packets };
                self.engine.drain(now, &mut self.sockets, &mut recorded)
            }
        }
    }

    /// The engine is about to get a frame, the first `len` bytes of those that were read.
    pub(super) fn note_frame(&self, len: usize) {
        if let Some((packets, frame)) = self.packets.as_ref().zip(self.frame.get(..len)) {
            packets.record(frame);
        }
    }
}
