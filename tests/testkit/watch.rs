//! How long a flow that sends little waits for others, counted in their bytes: a measure of latency that no machine
//! blurs.
//!
//! The wait begins when an event tells the engine that there is something to send, and ends with the frame that carries
//! it.

use slipway_netstack::FlowId;

/// What is known of one watched flow.
#[derive(Debug, Clone, Copy, Default)]
pub struct Watch {
    flow: Option<FlowId>,
    port: u16,
    /// Bytes of all frames when the wait began.
    since: Option<u64>,
    bytes: u64,
    /// Waits that have ended.
    pub waits: u64,
    /// The most bytes of others that left during one of them.
    pub worst: u64,
}

impl Watch {
    /// Watches `flow`, whose guest's port is `port`.
    pub fn on(&mut self, flow: FlowId, port: u16) {
        *self = Self { flow: Some(flow), port, ..Self::default() };
    }

    /// The engine has been told that `flow` has something to read.
    pub(crate) fn told(&mut self, flow: FlowId) {
        if self.flow == Some(flow) && self.since.is_none() {
            self.since = Some(self.bytes);
        }
    }

    /// A frame leaves.
    pub(crate) fn frame(&mut self, frame: &[u8]) {
        if is_data_to(frame, self.port) {
            if let Some(since) = self.since.take() {
                self.worst = self.worst.max(self.bytes - since);
                self.waits += 1;
            }
        } else {
            self.bytes += u64::try_from(frame.len()).expect("a length");
        }
    }
}

/// Whether it is an IPv4 frame with a TCP segment that carries data to this port.
fn is_data_to(frame: &[u8], port: u16) -> bool {
    let tcp4 = frame.get(12..14) == Some(&[8, 0]) && frame.get(23) == Some(&6);
    let offset = 14 + 20 + usize::from(frame.get(46).copied().unwrap_or(0) >> 4) * 4;
    tcp4 && frame.get(36..38) == Some(&port.to_be_bytes()) && frame.len() > offset
}
