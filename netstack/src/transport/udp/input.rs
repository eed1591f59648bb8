//! UDP, guest to host: which flow a datagram belongs to, which socket, and the queries to the DNS address.

use crate::addr::{MacAddr, any_endpoint};
use crate::clock::Instant;
use crate::device::Offload;
use crate::device::vnet::GsoKind;
use crate::drop_reason::DropReason;
use crate::engine::{Body, Engine, Entry};
use crate::flow::FlowId;
use crate::ip::Packet;
use crate::ip::problem::Problem;
use crate::transport::datagrams::meta;
use crate::transport::route::Lead;
use crate::transport::silence::List;
use crate::transport::table::{Key, Kind};
use crate::transport::udp::filter::Filter;
use crate::transport::udp::{Datagram, Failure, Role, Udp};
use crate::upstream::{DatagramError, Meta, Upstream};
use crate::within::dns::Asker;
use core::net::SocketAddr;

/// Linux's UDP_MAX_SEGMENTS: a train of more is not one of a kernel's.
const MAX_SEGMENTS: usize = 128;

impl Engine {
    /// A UDP datagram of the guest, or a train of them.
    pub(crate) fn on_udp<U: Upstream>(
        &mut self,
        now: Instant,
        mac: MacAddr,
        packet: &Packet<'_>,
        offload: Offload,
        up: &mut U,
    ) -> Result<(), DropReason> {
        let datagram = Datagram::parse(packet.payload, packet.src, packet.dst, offload.checksum)?;
        if self.serve_within(now, mac, packet, &datagram)? {
            return Ok(());
        }
        if packet.src.is_unspecified() || datagram.src_port == 0 {
            return Err(DropReason::Martian);
        }
        let segment = match offload.gso {
            Some(gso) if gso.kind == GsoKind::Udp => usize::from(gso.size).min(datagram.payload.len()),
            Some(_) => return Err(DropReason::Malformed),
            None => datagram.payload.len(),
        };
        if datagram.payload.len() > segment * MAX_SEGMENTS {
            return Err(DropReason::Malformed);
        }
        let guest = SocketAddr::new(packet.src, datagram.src_port);
        let peer = SocketAddr::new(packet.dst, datagram.dst_port);
        let meta = meta(packet);

        if let Some(id) = self.flows.find(&Key { kind: Kind::UdpPair, guest, peer }) {
            return self.udp_of_pair(now, id, mac, &datagram, segment, meta, up);
        }
        let key = Key { kind: Kind::UdpAny, guest, peer: any_endpoint(guest.ip()) };
        let found = self.flows.find(&key);
        let (to, to_all) = match found.and_then(|id| self.known_lead(id, peer)) {
            Some(to) => (to, false),
            None => match self.lead(now, mac, packet, peer)? {
                Lead::Upstream(to) => (to, false),
                Lead::Members(to) => (to, true),
                Lead::Dns => return self.ask_dns(Asker { guest, at: peer, mac }, &datagram, segment),
                Lead::Closed | Lead::Service(_) => {
                    self.icmp_error(now, mac, packet.whole, Problem::PortUnreachable);
                    return Err(DropReason::NoSuchHost);
                }
            },
        };
        let id = match found {
            Some(id) => id,
            None => self.udp_flow(now, key, mac, up)?,
        };
        if let Some((_, entry)) = self.flows.get_mut(id)
            && let Body::Udp(udp) = &mut entry.body
        {
            (udp.last, udp.mac) = (now, mac);
            udp.leads(peer, to, to_all);
            self.silence.heard(id, udp.list());
        }
        self.counters.udp_out += 1;
        let failure = self.udp_batch.add((id, to, meta), datagram.payload, segment, up);
        self.udp_failed(now, failure);
        Ok(())
    }

    /// Where datagrams of the flow to `peer` lead, if its last one did not go elsewhere.
    fn known_lead(&mut self, id: FlowId, peer: SocketAddr) -> Option<SocketAddr> {
        match self.flows.get_mut(id).map(|(_, entry)| &entry.body) {
            Some(Body::Udp(udp)) => udp.lead_to(peer),
            _ => None,
        }
    }

    /// A new flow of a guest endpoint with anybody.
    fn udp_flow<U: Upstream>(
        &mut self,
        now: Instant,
        key: Key,
        mac: MacAddr,
        up: &mut U,
    ) -> Result<FlowId, DropReason> {
        if self.silence.of_udp() >= self.config.ports.udp() {
            self.end_longest(now, &[List::Unanswered, List::Answered], up);
        }
        let role = Role::Any { filter: Filter::new(self.config.udp.contacted_only), lead: None };
        let id = self.insert(key, Body::Udp(Box::new(Udp::new(role, mac, now))))?;
        let from = self.config.outbound.of(key.guest);
        if up.udp_open(id, key.guest.ip(), from).is_err() {
            self.forget(id);
            return Err(DropReason::Upstream);
        }
        self.counters.udp_flows += 1;
        self.timers.set(id, Some(now + self.config.udp.timeout));
        Ok(id)
    }

    /// A datagram for a peer that has a flow of its own: a client of a forwarded port.
    #[expect(clippy::too_many_arguments, reason = "the parts of one datagram")]
    fn udp_of_pair<U: Upstream>(
        &mut self,
        now: Instant,
        id: FlowId,
        mac: MacAddr,
        datagram: &Datagram<'_>,
        segment: usize,
        meta: Meta,
        up: &mut U,
    ) -> Result<(), DropReason> {
        let Some((_, Entry { body: Body::Udp(udp), .. })) = self.flows.get_mut(id) else {
            return Err(DropReason::NoRoom);
        };
        (udp.last, udp.mac) = (now, mac);
        self.counters.udp_out += 1;
        match &mut udp.role {
            Role::Inbound { client } => {
                udp.both_ways = true;
                let target = (id, client.address, meta);
                let failure = self.udp_batch.add(target, datagram.payload, segment, up);
                self.udp_failed(now, failure);
            }
            Role::Any { .. } => {}
        }
        Ok(())
    }

    /// Sends the datagrams gathered so far.
    pub(crate) fn flush_udp_batch<U: Upstream>(&mut self, now: Instant, up: &mut U) {
        let failure = self.udp_batch.flush(up);
        self.udp_failed(now, failure);
    }

    /// The host refused a datagram: the guest is told as by a router.
    fn udp_failed(&mut self, now: Instant, failure: Option<Failure>) {
        let Some(Failure { flow, to, errno }) = failure else { return };
        self.counters.drop(DropReason::Upstream);
        self.datagram_error(
            now,
            flow,
            &DatagramError { to, error: errno, reporter: None, icmp: None, sequence: None },
        );
    }

    /// Queries to the DNS address. A train of them does not happen; if it does, each is one.
    fn ask_dns(&mut self, asker: Asker, datagram: &Datagram<'_>, segment: usize) -> Result<(), DropReason> {
        for query in datagram.payload.chunks(segment.max(1)) {
            if !self.queries.push(asker, query) {
                return Err(DropReason::NoRoom);
            }
            self.counters.udp_out += 1;
        }
        Ok(())
    }
}
