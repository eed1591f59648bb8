//! A frame of the guest, from the MAC header to the protocol that wants it.

use crate::addr::MacAddr;
use crate::clock::Instant;
use crate::device::Offload;
use crate::drop_reason::DropReason;
use crate::engine::Engine;
use crate::ethernet::arp;
use crate::headers::ETHERNET_LEN;
use crate::upstream::Upstream;
use core::net::Ipv4Addr;

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
        if to != self.config.mac && !to.is_multicast() && !self.neighbours.takes_all() {
            return Err(DropReason::NotForUs);
        }
        if !from.is_unicast() {
            return Err(DropReason::Martian);
        }
        self.speaks(now, from);
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
                for ip in heard.learnt.map(|station| station.ip).into_iter().chain(heard.claimed) {
                    self.guests.claims(&self.config.plan, ip.into());
                }
                if let Some((_, answer)) =
                    heard.answer.filter(|(ip, _)| !self.guests.has_claimed((*ip).into()))
                {
                    self.post(answer);
                }
                Ok(())
            }
            IPV4 | IPV6 => Err(DropReason::FamilyOff),
            _ => Err(DropReason::UnknownProtocol),
        }
    }
}
