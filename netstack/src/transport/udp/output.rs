//! UDP, host to guest: what sockets, forwarded ports and the resolver have for the guest.
//!
//! A train stays together as long as it can: it lies in the frame buffer once, and leaves as one frame where the device
//! segments UDP. Datagrams leave at once, without a place in the outbox, so that no burst of them pushes other frames
//! out of it; only those whose neighbour is not known yet wait with it.

use crate::addr::MacAddr;
use crate::clock::Instant;
use crate::device::{Device, Offload};
use crate::drop_reason::DropReason;
use crate::engine::{Body, Engine, Entry, Inbound};
use crate::ethernet::neighbour::{Lookup, Waiting};
use crate::flow::FlowId;
use crate::frame::{Envelope, MAX_PAYLOAD, Transport, Tx};
use crate::transport::table::{Key, Kind};
use crate::transport::udp::{self, Role, Train, Udp};
use crate::upstream::{Client, Forwarded, Meta, Received, Upstream};
use crate::within::dns::{Asker, Query};
use core::net::SocketAddr;

impl Engine {
    /// The next query over UDP to the DNS address, to be resolved by the caller and answered by [`Engine::dns_answer`].
    /// Ask after every round: what waits is bounded, and beyond that whoever has most of it loses.
    pub fn dns_query(&mut self) -> Option<Query> {
        self.queries.pop()
    }

    /// The answer to a query of [`Engine::dns_query`]; leaves with the next drain.
    pub fn dns_answer(&mut self, asker: &Asker, message: &[u8]) {
        if message.len() > udp::MAX_PAYLOAD {
            return self.counters.drop(DropReason::Malformed);
        }
        let env = Envelope {
            to_mac: asker.mac,
            src: asker.at,
            dst: asker.guest,
            hops: Meta::default().hops,
            traffic_class: 0,
            ident: None,
        };
        for frame in self.udp_frames(&env, message) {
            self.post(frame);
        }
        self.counters.udp_in += 1;
    }

    /// See [`Engine::accept_udp`].
    pub(crate) fn inbound_udp<D: Device>(
        &mut self,
        now: Instant,
        datagrams: &Forwarded<'_>,
        dev: &mut D,
    ) -> Result<Inbound, DropReason> {
        let &Forwarded { client, guest, payload, segment, meta } = datagrams;
        let from = client.address;
        let plan = &self.config.plan;
        if from.is_ipv4() != guest.is_ipv4() {
            return Err(DropReason::FamilyOff);
        }
        let seen = plan.inbound(from.ip(), guest.ip()).filter(|_| plan.carries.udp);
        let peer = SocketAddr::new(seen.ok_or(DropReason::Forbidden)?, from.port());
        if payload.len() > MAX_PAYLOAD {
            return Err(DropReason::TooBig);
        }
        let (peer, known) = self.client_flow(client, guest, peer)?;
        // Before a flow is made: one without a socket attached could never answer.
        let found = self.neighbours.lookup(now, guest.ip());
        let to_mac = match found {
            Lookup::Known(mac) | Lookup::Stale(mac) => Some(mac),
            Lookup::Resolve { .. } => self.neighbours.otherwise(),
            Lookup::Unreachable => Some(self.neighbours.otherwise().ok_or(DropReason::Unresolved)?),
        };
        let (flow, new) = match known {
            Some(id) => (id, false),
            None => {
                let key = Key { kind: Kind::UdpPair, guest, peer };
                let role = Role::Inbound { client };
                let id = self.insert(key, Body::Udp(Box::new(Udp::new(role, MacAddr::BROADCAST, now))))?;
                self.counters.udp_flows += 1;
                self.timers.set(id, Some(now + self.config.udp.timeout));
                (id, true)
            }
        };
        if let Some((_, entry)) = self.flows.get_mut(flow)
            && let Body::Udp(udp) = &mut entry.body
        {
            udp.last = now;
        }
        let env = Envelope {
            to_mac: to_mac.unwrap_or(MacAddr::BROADCAST),
            src: peer,
            dst: guest,
            hops: meta.hops.max(1),
            traffic_class: meta.traffic_class,
            ident: None,
        };
        let train = Train { len: payload.len(), segment, env };
        if to_mac.is_some() {
            self.buffer.payload_mut(payload.len()).copy_from_slice(payload);
            self.send_train(&train, dev);
        } else {
            self.hold_train(&train, payload);
        }
        if matches!(found, Lookup::Resolve { ask: true } | Lookup::Stale(_)) {
            self.ask_for(guest.ip());
        }
        Ok(Inbound { flow, new })
    }

    /// How the guest sees a client of a forwarded port, and the client's flow if it has one. Two clients can look the
    /// same (127.0.0.1 and 127.0.0.2 from the same port), and one client at two ports that lead to the same place looks
    /// like one conversation: the second gets another port.
    fn client_flow(
        &mut self,
        client: Client,
        guest: SocketAddr,
        mut peer: SocketAddr,
    ) -> Result<(SocketAddr, Option<FlowId>), DropReason> {
        for _ in 0..64 {
            let Some(id) = self.flows.find(&Key { kind: Kind::UdpPair, guest, peer }) else {
                return Ok((peer, None));
            };
            if let Some((_, entry)) = self.flows.get_mut(id)
                && let Body::Udp(udp) = &entry.body
                && matches!(udp.role, Role::Inbound { client: known } if known == client)
            {
                return Ok((peer, Some(id)));
            }
            peer.set_port(peer.port().wrapping_add(1).max(1024));
        }
        Err(DropReason::NoRoom)
    }

    pub(in crate::transport) fn flush_udp<U: Upstream, D: Device>(
        &mut self,
        now: Instant,
        id: FlowId,
        budget: usize,
        up: &mut U,
        dev: &mut D,
    ) -> bool {
        self.take_datagrams(id, budget, |engine| {
            let received = up.udp_receive(id, engine.buffer.payload_mut(MAX_PAYLOAD))?;
            engine.deliver_udp(now, id, &received, dev);
            Ok(())
        })
    }

    /// A datagram or train for the flow `id` lies in the frame buffer.
    fn deliver_udp<D: Device>(&mut self, now: Instant, id: FlowId, received: &Received, dev: &mut D) {
        let Some((key, Entry { body: Body::Udp(udp), .. })) = self.flows.get_mut(id) else { return };
        let (guest, mut src) = (key.guest, received.from);
        if !udp.admits(src) {
            return self.counters.drop(DropReason::Unsolicited);
        }
        let Some(seen) = udp.sees(src).or_else(|| self.config.plan.answering(src.ip(), guest.ip())) else {
            return self.counters.drop(DropReason::FamilyOff);
        };
        src.set_ip(seen);
        udp.last = now;
        udp.both_ways = true;
        self.silence.heard(id, udp.list());
        let env = Envelope {
            to_mac: udp.mac,
            src,
            dst: guest,
            hops: received.meta.hops.max(1),
            traffic_class: received.meta.traffic_class,
            ident: None,
        };
        let at = udp.expiry(&self.config.udp);
        self.timers.set(id, Some(at));
        self.send_train(&Train { len: received.len, segment: received.segment, env }, dev);
    }

    /// Sends a train whose bytes lie in the frame buffer.
    fn send_train<D: Device>(&mut self, train: &Train, dev: &mut D) {
        self.counters.udp_in += train.count();
        let limits = self.limits(train.env.dst.ip());
        let mut tx = Tx::new(dev, &mut self.buffer, &self.config);
        udp::send_to_guest(train, limits, &mut self.next_ident, &mut tx);
        let (tally, full) = (tx.tally, tx.full);
        self.counters.add(tally);
        self.link_full |= full;
    }

    /// Keeps the datagrams of a train until the guest's MAC address is known.
    fn hold_train(&mut self, train: &Train, payload: &[u8]) {
        self.counters.udp_in += train.count();
        // An empty one is a datagram, too.
        let (first, rest) = payload.split_at_checked(train.segment).unwrap_or((payload, &[]));
        for datagram in core::iter::once(first).chain(rest.chunks(train.segment.max(1))) {
            for frame in self.udp_frames(&train.env, datagram) {
                let waiting = Waiting { offload: Offload::NONE, frame };
                if let Err(reason) = self.neighbours.wait(train.env.dst.ip(), waiting) {
                    self.counters.drop(reason);
                }
            }
        }
    }

    /// One datagram as frames of their own.
    fn udp_frames(&mut self, env: &Envelope, datagram: &[u8]) -> Vec<Vec<u8>> {
        let header = udp::header(env, datagram.len());
        self.frames(env, &Transport::udp(&header), datagram)
    }
}
