//! What becomes of flows whose guest has left: one station of a network, those behind one of several links, or
//! everybody with the link itself.
//!
//! A datagram flow ends. A connection that the guest has closed, with all its bytes in the host's socket, is closed:
//! the kernel sees to the rest. Any other is incomplete, and its peer must not take a part for the whole: it is reset.
//! One kind is in between: the guest has closed, all that it sent is here and acknowledged, and only the socket had no
//! room for it yet. Such a flow is an *orphan*. It has no guest any more (its key is free for the next one), sends
//! nothing to the link, and lives until its socket has taken the last byte, [`PATIENCE`] at most; then it is closed, or
//! reset.
//!
//! Whoever ends the whole program calls [`Engine::forget_guests`] and goes on until [`Engine::flow_count`] is zero, or
//! drops what is left with a reset.

use crate::addr::MacAddr;
use crate::clock::Instant;
use crate::engine::{Body, Engine, Entry};
use crate::ethernet::destination;
use crate::flow::FlowId;
use crate::ip::fragment::Reassembler;
use crate::ip::guests::Guests;
use crate::ip::plan::Route;
use crate::transport::tcp::{Ctx, Parted};
use crate::upstream::Upstream;
use crate::within::Within;
use crate::within::dns::Queries;
use core::net::IpAddr;

pub use crate::transport::tcp::PATIENCE;

impl Engine {
    /// The station that had `guest` has left the link: its flows end, its MAC address is forgotten. The address may
    /// come back with another one.
    pub fn forget_guest<U: Upstream>(&mut self, now: Instant, guest: IpAddr, up: &mut U) {
        let theirs = self.flows.iter().filter(|(_, key, _)| key.guest.ip() == guest).map(|(id, ..)| id);
        for id in theirs.collect::<Vec<_>>() {
            self.part(now, id, up);
        }
        self.forget_neighbour(guest);
    }

    /// One of several links of the device is gone, and these stations with it: their flows end, and nothing is kept for
    /// them.
    pub fn forget_stations<U: Upstream>(&mut self, now: Instant, gone: impl Fn(MacAddr) -> bool, up: &mut U) {
        self.flush_udp_batch(now, up);
        let is_theirs = |entry: &Entry| entry.body.station().is_some_and(&gone);
        let theirs = self.flows.iter().filter(|(.., entry)| is_theirs(entry)).map(|(id, ..)| id);
        for id in theirs.collect::<Vec<_>>() {
            self.part(now, id, up);
        }
        for ip in self.neighbours.addresses_of(&gone) {
            self.forget_neighbour(ip);
        }
        self.outbox.retain(|(_, frame)| !destination(frame).is_some_and(&gone));
    }

    /// Nobody is left on the link, or it leads to another guest from now on: all flows end, and nothing is known of
    /// anybody any more. What remains in the table are orphans.
    pub fn forget_guests<U: Upstream>(&mut self, now: Instant, up: &mut U) {
        self.flush_udp_batch(now, up);
        let all: Vec<_> = self.flows.iter().map(|(id, ..)| id).collect();
        for id in all {
            self.part(now, id, up);
        }
        self.neighbours.clear(self.config.on_link);
        self.within = Within::new(&self.config);
        self.queries = Queries::default();
        self.reassembler = Reassembler::default();
        self.outbox.clear();
        self.guests = Guests::default();
        self.seek_station();
    }

    /// The host's end of a flow is of no use any more: a connection is reset on both sides, any other flow ends.
    pub fn break_off<U: Upstream>(&mut self, now: Instant, flow: FlowId, up: &mut U) {
        match self.flows.get_mut(flow).map(|(_, entry)| &entry.body) {
            Some(Body::Tcp(_)) => self.reset(now, flow, up),
            Some(_) => self.finish(flow, up),
            None => {}
        }
    }

    /// Whether any flow has this address at the guest's end.
    #[must_use]
    pub fn has_flow_of(&self, guest: IpAddr) -> bool {
        self.flows.iter().any(|(_, key, _)| key.guest.ip() == guest)
    }

    /// Whether there is a connection whose guest has not closed.
    #[must_use]
    pub fn has_open_connections(&self) -> bool {
        self.flows.iter().any(|(.., entry)| matches!(&entry.body, Body::Tcp(tcp) if tcp.awaits_guest()))
    }

    /// The guest of a flow is gone.
    fn part<U: Upstream>(&mut self, now: Instant, id: FlowId, up: &mut U) {
        let Some((key, Entry { body: Body::Tcp(tcp), .. })) = self.flows.get_mut(id) else {
            return self.finish(id, up);
        };
        // Whoever serves a guest that is gone does it for nobody.
        let served = matches!(self.config.plan.outbound(key.peer), Route::Dns | Route::Service(_));
        let guest = key.guest.ip();
        let mut ctx = Ctx { now, id, guest, up, shared: &mut self.tcp, counters: &mut self.counters };
        match tcp.part(!served, &mut ctx) {
            Parted::Over => self.forget(id),
            Parted::Orphan(until) => {
                self.flows.unlist(id);
                self.timers.set(id, Some(until));
            }
        }
    }
}
