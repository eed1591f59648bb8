//! Finding the station that has an address: who is asked, and what becomes of frames and flows that wait for the
//! answer.
//!
//! [`super::neighbour`] is what is known; here are the requests, and the ways on when an answer comes.

use crate::addr::MacAddr;
use crate::clock::Instant;
use crate::drop_reason::DropReason;
use crate::engine::{Body, Engine, Entry};
use crate::ethernet::arp;
use crate::ethernet::neighbour::{Due, Lookup, OnLink, Seen};
use crate::flow::FlowId;
use crate::ip::ndp;
use core::net::{IpAddr, Ipv4Addr};
use core::time::Duration;

/// How long a flow towards the guest waits for the answer to an ARP request or neighbour solicitation before it asks
/// again.
const NEIGHBOUR_RETRY: Duration = Duration::from_secs(1);
/// After so long without an answer the client is reset: longer than the kernel's three requests take.
pub(crate) const NEIGHBOUR_PATIENCE: Duration = Duration::from_secs(5);

impl Engine {
    /// A frame came from `from`. If the one station of this link has made itself known by it, what waited for that goes
    /// on.
    pub(crate) fn speaks(&mut self, now: Instant, from: MacAddr) {
        if self.neighbours.hears(from) {
            self.neighbours.waited_for().into_iter().for_each(|ip| self.release(ip, from));
            self.unresolved.addresses().into_iter().for_each(|ip| self.resolved(now, ip));
        }
    }

    /// Where the one station of a link is, is asked for before anybody needs it: then it is known when somebody does.
    pub(crate) fn seek_station(&mut self) {
        if self.neighbours.on_link() == (OnLink::One { mac: None }) {
            let guests = [false, true].map(|ipv6| self.config.plan.guest(ipv6));
            guests.into_iter().flatten().for_each(|ip| self.ask_for(ip));
        }
    }

    /// `ip` was seen to be at `mac`: frames and flows that waited for it go on.
    pub(crate) fn learn(&mut self, now: Instant, ip: IpAddr, mac: MacAddr) {
        if self.neighbours.learn(now, ip, mac) {
            self.release(ip, mac);
        }
        self.resolved(now, ip);
    }

    /// A packet of `ip`, an address on the link, came from `mac`. Returns where its answers go: there, unless another
    /// station is known to have the address.
    pub(crate) fn seen(&mut self, now: Instant, ip: IpAddr, mac: MacAddr) -> MacAddr {
        match self.neighbours.seen(now, ip, mac) {
            Seen::There => mac,
            Seen::New => {
                self.release(ip, mac);
                self.resolved(now, ip);
                mac
            }
            Seen::Elsewhere { at, ask } => {
                if ask {
                    self.ask_for(ip);
                }
                at
            }
        }
    }

    /// `ip` was found at `mac`: frames that waited for that leave.
    fn release(&mut self, ip: IpAddr, mac: MacAddr) {
        for mut waiting in self.neighbours.take_waiting(ip) {
            if let Some(place) = waiting.frame.first_chunk_mut::<6>() {
                *place = mac.0;
            }
            self.post(waiting.frame);
        }
    }

    /// The MAC address of `ip` on the guest's link; asks for it if it is not known.
    pub(crate) fn resolve(&mut self, now: Instant, ip: IpAddr) -> Option<MacAddr> {
        match self.neighbours.lookup(now, ip) {
            Lookup::Known(mac) => Some(mac),
            Lookup::Stale(mac) => {
                self.ask_for(ip);
                Some(mac)
            }
            Lookup::Resolve { ask } => {
                if ask {
                    self.ask_for(ip);
                }
                self.neighbours.otherwise()
            }
            Lookup::Unreachable => self.neighbours.otherwise(),
        }
    }

    /// Asks the link who has `ip`.
    pub(crate) fn ask_for(&mut self, ip: IpAddr) {
        let mac = self.config.mac;
        let plan = &self.config.plan;
        let frame = match (ip, &plan.v4, &plan.v6) {
            // RFC 5227 §2.1.1: who has no address asks from the unspecified one.
            (IpAddr::V4(ip), Some(v4), _) => {
                arp::request(mac, v4.gateway.unwrap_or(Ipv4Addr::UNSPECIFIED), ip)
            }
            (IpAddr::V6(ip), _, Some(v6)) => {
                let own = v6.gateway.or_else(|| plan.link_local()).unwrap_or_else(|| mac.link_local());
                ndp::neighbour_solicit(mac, own, ip)
            }
            _ => return,
        };
        self.post(frame);
    }

    /// Requests that are due again, and frames whose neighbour never answered.
    pub(crate) fn neighbour_timeout(&mut self, now: Instant) {
        self.counters.drop_many(DropReason::NoRoom, self.neighbours.take_lost());
        while let Some(due) = self.neighbours.on_timeout(now) {
            match due {
                Due::Ask(ip) => self.ask_for(ip),
                Due::GaveUp(_, frames) => {
                    self.counters.drop_many(DropReason::Unresolved, frames.len() as u64);
                }
            }
        }
    }

    /// A flow from the host's side wants to reach the guest: finds its MAC address, or asks for it. Whether it goes on.
    pub(crate) fn await_neighbour(&mut self, now: Instant, id: FlowId) -> bool {
        let Some((key, _)) = self.flows.get_mut(id) else { return true };
        let guest = key.guest.ip();
        let mac = self.resolve(now, guest);
        let Some((_, Entry { body: Body::Tcp(tcp), .. })) = self.flows.get_mut(id) else { return true };
        match mac {
            Some(mac) => {
                tcp.mac = Some(mac);
                self.enqueue(id);
            }
            None => {
                // Whatever is heard meanwhile, the client's patience began with it.
                let at = (now + NEIGHBOUR_RETRY).min(tcp.heard() + NEIGHBOUR_PATIENCE);
                tcp.await_neighbour(at);
                self.timers.set(id, Some(at));
            }
        }
        mac.is_some()
    }

    /// The MAC address of `ip` became known: what waited for it goes on.
    pub(crate) fn resolved(&mut self, now: Instant, ip: IpAddr) {
        for id in self.unresolved.take(ip) {
            if let Some((_, Entry { body: Body::Tcp(tcp), .. })) = self.flows.get_mut(id)
                && tcp.needs_neighbour()
            {
                self.await_neighbour(now, id);
            }
        }
    }
}
