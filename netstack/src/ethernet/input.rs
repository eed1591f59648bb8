//! A frame of the guest, from the MAC header to the protocol that wants it.

use crate::addr::MacAddr;
use crate::clock::Instant;
use crate::device::Offload;
use crate::drop_reason::DropReason;
use crate::engine::Engine;
use crate::ethernet::arp;
use crate::ethernet::neighbour::{Due, Lookup, Seen};
use crate::frame::ETHERNET_LEN;
use crate::ip::ndp;
use crate::upstream::Upstream;
use core::net::{IpAddr, Ipv4Addr};

const IPV4: u16 = 0x0800;
const ARP: u16 = 0x0806;
const IPV6: u16 = 0x86dd;

impl Engine {
    /// Takes a frame to its protocol; `Err` says why it went no further.
    pub(crate) fn on_ethernet<U: Upstream>(
        &mut self,
        now: Instant,
        offload: Offload,
        frame: &[u8],
        up: &mut U,
    ) -> Result<(), DropReason> {
        let (&[d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, t0, t1], payload) =
            frame.split_first_chunk::<ETHERNET_LEN>().ok_or(DropReason::Malformed)?;
        let (to, from) = (MacAddr([d0, d1, d2, d3, d4, d5]), MacAddr([s0, s1, s2, s3, s4, s5]));
        if to != self.config.mac && !to.is_multicast() {
            return Err(DropReason::NotForUs);
        }
        if !from.is_unicast() {
            return Err(DropReason::Martian);
        }
        match u16::from_be_bytes([t0, t1]) {
            IPV4 if self.config.plan.v4.is_some() => self.on_ip(now, from, offload, payload, up),
            IPV6 if self.config.plan.v6.is_some() => self.on_ip(now, from, offload, payload, up),
            ARP => {
                let v4 = self.config.plan.v4.as_ref().ok_or(DropReason::FamilyOff)?;
                let wanted = |ip: Ipv4Addr| self.neighbours.is_wanted(ip.into());
                let heard = arp::on_message(self.config.mac, v4, payload, wanted)?;
                if let Some(station) = heard.learnt {
                    self.learn(now, station.ip.into(), station.mac);
                }
                if let Some(answer) = heard.answer {
                    self.post(answer);
                }
                Ok(())
            }
            IPV4 | IPV6 => Err(DropReason::FamilyOff),
            _ => Err(DropReason::UnknownProtocol),
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
                self.config.guest_mac
            }
            Lookup::Unreachable => self.config.guest_mac,
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
                ndp::neighbour_solicit(mac, v6.gateway.unwrap_or(mac.link_local()), ip)
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
}
