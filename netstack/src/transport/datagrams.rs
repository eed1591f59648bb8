//! What UDP and echo have in common: sockets without a connection, read until they are empty, and reports of what
//! became of datagrams sent long ago.

use crate::addr::MacAddr;
use crate::clock::Instant;
use crate::device::Device;
use crate::engine::{Body, Engine};
use crate::flow::FlowId;
use crate::frame::{Envelope, Transport, assemble};
use crate::headers::ETHERNET_LEN;
use crate::ip::Packet;
use crate::schedule::LOOK_COST;
use crate::surely::Surely;
use crate::transport::echo;
use crate::transport::udp::{self, Role};
use crate::upstream::{DatagramError, Empty, Meta, Upstream};
use core::net::SocketAddr;

/// Reports that one flow may take from its error queue in a turn.
const REPORTS: usize = 16;

impl Engine {
    /// Delivers what a UDP or ping socket has for the guest, about `budget` of the schedule's bytes at the most. True
    /// when more is waiting.
    pub(crate) fn flush_datagrams<U: Upstream, D: Device>(
        &mut self,
        now: Instant,
        id: FlowId,
        budget: usize,
        up: &mut U,
        dev: &mut D,
    ) -> bool {
        let reports = self.take_errors(now, id, up);
        let more = match self.flows.get_mut(id).map(|(_, entry)| &entry.body) {
            Some(Body::Udp(udp)) if udp.readable => self.flush_udp(now, id, budget, up, dev),
            Some(Body::Echo(echo)) if echo.readable => self.flush_echo(now, id, budget, up, dev),
            _ => false,
        };
        reports || more
    }

    /// Takes one datagram, or train, after the other from a socket, until `next` finds none, the turn is over or the
    /// link is full. True when more may be waiting.
    pub(super) fn take_datagrams(
        &mut self,
        id: FlowId,
        budget: usize,
        mut next: impl FnMut(&mut Self) -> Result<(), Empty>,
    ) -> bool {
        let before = self.sent();
        // A datagram that goes nowhere costs a look as well.
        for looks in 0.. {
            if self.cost_since(before) + looks * LOOK_COST >= budget || self.link_full {
                break;
            }
            if next(self).is_ok() {
                continue;
            }
            match self.flows.get_mut(id).map(|(_, entry)| &mut entry.body) {
                Some(Body::Udp(udp)) => udp.readable = false,
                Some(Body::Echo(echo)) => echo.readable = false,
                _ => {}
            }
            return false;
        }
        true
    }

    /// Tells the guest what lies in a socket's error queue. True when more may be left.
    fn take_errors<U: Upstream>(&mut self, now: Instant, id: FlowId, up: &mut U) -> bool {
        let has_error = match self.flows.get_mut(id).map(|(_, entry)| &mut entry.body) {
            Some(Body::Udp(udp)) => core::mem::take(&mut udp.has_error),
            Some(Body::Echo(echo)) => core::mem::take(&mut echo.has_error),
            _ => false,
        };
        if !has_error {
            return false;
        }
        for _ in 0..REPORTS {
            let Ok(report) = up.take_error(id) else { return false };
            self.datagram_error(now, id, &report);
        }
        // No event tells of what is left.
        match self.flows.get_mut(id).map(|(_, entry)| &mut entry.body) {
            Some(Body::Udp(udp)) => udp.has_error = true,
            Some(Body::Echo(echo)) => echo.has_error = true,
            _ => return false,
        }
        true
    }

    /// A datagram sent earlier did not arrive: the guest gets the ICMP error, quoting what it must have sent.
    pub(super) fn datagram_error(&mut self, now: Instant, id: FlowId, report: &DatagramError) {
        let Some((key, entry)) = self.flows.get_mut(id) else { return };
        let (guest, is_udp) = (key.guest, matches!(entry.body, Body::Udp(_)));
        let (mac, peer, header) = match &mut entry.body {
            Body::Udp(udp) => {
                let peer = match &udp.role {
                    Role::Inbound { .. } => key.peer,
                    Role::Any { .. } => {
                        let to = report.to;
                        let plan = &self.config.plan;
                        let seen = udp.sees(to).or_else(|| plan.answering(to.ip(), guest.ip()));
                        let Some(seen) = seen else { return };
                        SocketAddr::new(seen, to.port())
                    }
                };
                let env = quoted_envelope(guest, peer);
                (udp.mac, peer, udp::header(&env, 0))
            }
            Body::Echo(echo) => {
                let (request, _) = echo::types(guest.ip());
                let sequence = report.sequence.unwrap_or(echo.sequence);
                (echo.mac, key.peer, echo::header(request, guest.port(), sequence))
            }
            Body::Tcp(_) => return,
        };
        let env = quoted_envelope(guest, peer);
        let transport =
            if is_udp { Transport::udp(&header) } else { Transport::icmp(guest.is_ipv6(), &header) };
        let frame = assemble(self.config.mac, &env, &transport, &[]);
        let quoted = frame.get(ETHERNET_LEN..).surely();
        self.icmp_report(now, mac, quoted, report);
    }
}

/// What of a packet's header goes with its datagram.
pub(super) const fn meta(packet: &Packet<'_>) -> Meta {
    Meta { hops: packet.hops, traffic_class: packet.traffic_class, dont_fragment: packet.dont_fragment }
}

/// The headers of a packet that the guest sent.
const fn quoted_envelope(guest: SocketAddr, peer: SocketAddr) -> Envelope {
    Envelope { to_mac: MacAddr([0; 6]), src: guest, dst: peer, hops: 64, traffic_class: 0, ident: None }
}
