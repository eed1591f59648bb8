//! A packet of ours that belongs to no connection, as frames: one, or fragments where the way to the guest is too
//! narrow for it.

use crate::device::Capabilities;
use crate::engine::Engine;
use crate::frame::{Envelope, Transport, assemble, wrap};
use crate::headers::{ETHERNET_LEN, ip_header_len};
use crate::ip::fragment::{fragment, take_ident};
use crate::surely::Surely;

impl Engine {
    /// From now on the device can do this: what is sent later is made for it.
    pub const fn set_device(&mut self, device: Capabilities) {
        self.config.device = device;
    }

    /// A packet of ours as frames of their own: one, or fragments when it does not fit the way to the guest.
    pub(crate) fn frames(
        &mut self,
        env: &Envelope,
        transport: &Transport<'_>,
        payload: &[u8],
    ) -> Vec<Vec<u8>> {
        let limits = self.limits(env.dst.ip());
        let len = ip_header_len(env.dst.ip()) + transport.header.len() + payload.len();
        if len <= limits.whole.min(limits.atomic) {
            return vec![assemble(self.config.mac, env, transport, payload)];
        }
        let ident = take_ident(&mut self.next_ident, 1);
        let env = Envelope { ident: Some(ident), ..*env };
        let frame = assemble(self.config.mac, &env, transport, payload);
        if len <= limits.whole {
            return vec![frame];
        }
        let packet = frame.get(ETHERNET_LEN..).surely();
        let mut frames = Vec::new();
        let cut = fragment(packet, limits.whole, ident, |part| {
            frames.push(wrap(self.config.mac, env.to_mac, part));
        });
        if let Err(uncut) = cut {
            self.counters.drop(uncut.into());
        }
        self.counters.fragments_out += frames.len() as u64;
        frames
    }
}
