//! UDP and echo through the engine: which flow, which socket, what comes back, what went wrong.

use super::echo::{self, Echo};
use super::flow::FlowId;
use super::silence::List;
use super::table::{Key, Kind};
use super::udp::{self, Datagram, Failure, Role, Train, Udp};
use crate::addr::{MacAddr, any_endpoint};
use crate::clock::Instant;
use crate::device::vnet::GsoKind;
use crate::device::{Device, Offload};
use crate::drop_reason::DropReason;
use crate::engine::{Body, Engine, Entry, Inbound};
use crate::ethernet::neighbour::{Lookup, Waiting};
use crate::frame::{
    ETHERNET_LEN, Envelope, PROTO_ICMP, PROTO_ICMPV6, PROTO_UDP, Tally, Transport, Tx, assemble, wrap,
};
use crate::ip::Packet;
use crate::ip::fragment::{fragment, permit};
use crate::ip::icmp_error::Problem;
use crate::ip::rewrite::{Route, guest_view, is_ours, route};
use crate::upstream::{Client, DatagramError, Errno, Forwarded, Meta, Upstream};
use crate::within::dns::{self, Asker};
use core::net::{IpAddr, SocketAddr};

/// Trains that one flow may deliver before others have their turn.
const TRAINS: usize = 16;
/// Linux's UDP_MAX_SEGMENTS: a train of more is not one of a kernel's.
const MAX_SEGMENTS: usize = 128;
/// Reports that one flow may take from its error queue in a turn.
const REPORTS: usize = 16;

impl Engine {
    // ── UDP, guest to host ─────────────────────────────────────────────────────────────────────────────

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
        let meta = Meta { hops: packet.hops, traffic_class: packet.traffic_class };

        if let Some(id) = self.flows.find(&Key { kind: Kind::UdpPair, guest, peer }) {
            return self.udp_of_pair(now, id, mac, &datagram, segment, meta, up);
        }
        let to = match route(&self.config, peer) {
            Route::Upstream(ip) => SocketAddr::new(ip, datagram.dst_port),
            Route::Dns if datagram.dst_port == dns::PORT => {
                return self.ask_dns(Asker { guest, at: peer, mac }, &datagram, segment);
            }
            Route::Dns => {
                self.icmp_error(now, mac, packet.whole, Problem::PortUnreachable);
                return Err(DropReason::NoSuchHost);
            }
            Route::Forbidden => {
                self.icmp_error(now, mac, packet.whole, Problem::NetUnreachable);
                return Err(DropReason::Forbidden);
            }
            Route::Group => return Err(DropReason::Multicast),
            Route::Nobody => return Err(DropReason::NoSuchHost),
        };
        let id = self.udp_flow(now, guest, mac, up)?;
        if let Some((_, entry)) = self.flows.get_mut(id)
            && let Body::Udp(udp) = &mut entry.body
        {
            (udp.last, udp.mac) = (now, mac);
            self.silence.heard(id, udp.list());
        }
        self.counters.udp_out += 1;
        let failure = self.udp_batch.add((id, to, meta), datagram.payload, segment, up);
        self.udp_failed(now, failure);
        Ok(())
    }

    /// The flow of a guest endpoint with anybody, made if there is none.
    fn udp_flow<U: Upstream>(
        &mut self,
        now: Instant,
        guest: SocketAddr,
        mac: MacAddr,
        up: &mut U,
    ) -> Result<FlowId, DropReason> {
        let key = Key { kind: Kind::UdpAny, guest, peer: any_endpoint(guest.ip()) };
        if let Some(id) = self.flows.find(&key) {
            return Ok(id);
        }
        if self.silence.of_udp() >= self.config.ports.udp() {
            self.end_longest(now, &[List::Unanswered, List::Answered], up);
        }
        let id = self.insert(key, Body::Udp(Box::new(Udp::new(Role::Any, mac, now))))?;
        if up.udp_open(id, guest.ip(), self.config.outbound.toward(guest.ip())).is_err() {
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
            Role::Any => {}
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
        self.datagram_error(now, flow, &DatagramError { to, error: errno, reporter: None, icmp: None });
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
        };
        for frame in self.udp_frames(&env, message) {
            self.post(frame);
        }
        self.counters.udp_in += 1;
    }

    // ── UDP and echo, host to guest ────────────────────────────────────────────────────────────────────

    /// See [`Engine::accept_udp`].
    pub(crate) fn inbound_udp(
        &mut self,
        now: Instant,
        datagrams: &Forwarded<'_>,
    ) -> Result<Inbound, DropReason> {
        let &Forwarded { client, guest, payload, segment, meta } = datagrams;
        let from = client.address;
        let peer = SocketAddr::new(guest_view(&self.config, from.ip()), from.port());
        if peer.is_ipv4() != guest.is_ipv4() {
            return Err(DropReason::FamilyOff);
        }
        let (peer, known) = self.client_flow(client, guest, peer)?;
        // Before a flow is made: one without a socket attached could never answer.
        let found = self.neighbours.lookup(now, guest.ip());
        let to_mac = match found {
            Lookup::Known(mac) | Lookup::Stale(mac) => Some(mac),
            Lookup::Resolve { .. } => self.config.guest_mac,
            Lookup::Unreachable => Some(self.config.guest_mac.ok_or(DropReason::Unresolved)?),
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
        };
        for datagram in payload.chunks(segment.max(1)) {
            let frame = self.udp_frames(&env, datagram);
            for frame in frame {
                if to_mac.is_some() {
                    self.post(frame);
                } else {
                    let waiting = Waiting { offload: Offload::NONE, frame };
                    if let Err(reason) = self.neighbours.wait(guest.ip(), waiting) {
                        self.counters.drop(reason);
                    }
                }
            }
        }
        if payload.is_empty() {
            for frame in self.udp_frames(&env, &[]) {
                self.post(frame);
            }
        }
        if matches!(found, Lookup::Resolve { ask: true } | Lookup::Stale(_)) {
            self.ask_for(guest.ip());
        }
        self.counters.udp_in += 1;
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

    /// One datagram as frames of their own: one, or fragments.
    fn udp_frames(&mut self, env: &Envelope, datagram: &[u8]) -> Vec<Vec<u8>> {
        let header = udp::header(env, datagram.len());
        let transport = Transport { protocol: PROTO_UDP, header: &header, checksum_at: 6 };
        let frame = assemble(self.config.mac, env, &transport, datagram);
        self.fit(env.to_mac, frame)
    }

    /// A frame as it is, or as fragments when its packet exceeds the MTU.
    pub(crate) fn fit(&mut self, to_mac: MacAddr, mut frame: Vec<u8>) -> Vec<Vec<u8>> {
        let mtu = self.config.mtu;
        if frame.len() - ETHERNET_LEN <= usize::from(mtu.bytes()) {
            return vec![frame];
        }
        self.next_ident = self.next_ident.wrapping_add(1);
        let mut frames = Vec::new();
        let packet = frame.get_mut(ETHERNET_LEN..).unwrap_or_default();
        permit(packet);
        let cut = fragment(packet, usize::from(mtu.bytes()), self.next_ident, |part| {
            frames.push(wrap(self.config.mac, to_mac, part));
        });
        if let Err(uncut) = cut {
            self.counters.drop(uncut.into());
        }
        self.counters.fragments_out += frames.len() as u64;
        frames
    }

    /// Delivers what a UDP or ping socket has for the guest.
    pub(crate) fn flush_datagrams<U: Upstream, D: Device>(
        &mut self,
        now: Instant,
        id: FlowId,
        up: &mut U,
        dev: &mut D,
    ) {
        if self.take_errors(now, id, up) {
            self.enqueue(id);
        }
        let more = match self.flows.get_mut(id).map(|(_, entry)| &entry.body) {
            Some(Body::Udp(udp)) if udp.readable => self.flush_udp(now, id, up, dev),
            Some(Body::Echo(echo)) if echo.readable => self.flush_echo(now, id, up, dev),
            _ => return,
        };
        if more {
            self.enqueue(id);
        }
    }

    fn flush_udp<U: Upstream, D: Device>(
        &mut self,
        now: Instant,
        id: FlowId,
        up: &mut U,
        dev: &mut D,
    ) -> bool {
        for _ in 0..TRAINS {
            let into = self.buffer.payload_mut(crate::frame::MAX_PAYLOAD);
            let Ok(received) = up.udp_receive(id, into) else {
                if let Some((_, entry)) = self.flows.get_mut(id)
                    && let Body::Udp(udp) = &mut entry.body
                {
                    udp.readable = false;
                }
                return false;
            };
            let Some((key, entry)) = self.flows.get_mut(id) else { return false };
            let Body::Udp(udp) = &mut entry.body else { return false };
            let (guest, mut src) = (key.guest, received.from);
            src.set_ip(guest_view(&self.config, src.ip()));
            udp.last = now;
            udp.both_ways = true;
            self.silence.heard(id, udp.list());
            let env = Envelope {
                to_mac: udp.mac,
                src,
                dst: guest,
                hops: received.meta.hops.max(1),
                traffic_class: received.meta.traffic_class,
            };
            let at = udp.expiry(&self.config.udp);
            self.timers.set(id, Some(at));
            if src.is_ipv4() != guest.is_ipv4() {
                self.counters.drop(DropReason::FamilyOff);
                continue;
            }
            self.send_train(&Train { len: received.len, segment: received.segment, env }, dev);
        }
        true
    }

    fn send_train<D: Device>(&mut self, train: &Train, dev: &mut D) {
        self.counters.udp_in += train.len.div_ceil(train.segment.max(1)).max(1) as u64;
        let mut oversized = Vec::new();
        let mut tx = Tx {
            dev,
            buffer: &mut self.buffer,
            tally: Tally::default(),
            mac: self.config.mac,
            caps: self.config.device,
        };
        udp::send_to_guest(train, self.config.mtu.bytes().into(), &mut tx, |tx, at, len| {
            let bytes = tx.buffer.payload_mut(at + len);
            oversized.push(bytes.get(at..).unwrap_or_default().to_vec());
        });
        let tally = tx.tally;
        self.counters.add(tally);
        for datagram in oversized {
            for frame in self.udp_frames(&train.env, &datagram) {
                self.post(frame);
            }
        }
    }

    // ── echo ───────────────────────────────────────────────────────────────────────────────────────────

    /// An echo request of the guest.
    pub(crate) fn on_echo<U: Upstream>(
        &mut self,
        now: Instant,
        mac: MacAddr,
        packet: &Packet<'_>,
        up: &mut U,
    ) -> Result<(), DropReason> {
        let (ident, sequence, data) = echo::parse(packet.payload).ok_or(DropReason::Malformed)?;
        if packet.src.is_unspecified() {
            return Err(DropReason::Martian);
        }
        let (_, reply) = echo::types(packet.dst);
        if is_ours(&self.config, packet.dst) {
            let env = Envelope {
                to_mac: mac,
                src: SocketAddr::new(packet.dst, 0),
                dst: SocketAddr::new(packet.src, 0),
                hops: 64,
                traffic_class: packet.traffic_class,
            };
            let frames = self.echo_frames(&env, &echo::header(reply, ident, sequence), data);
            for frame in frames {
                self.post(frame);
            }
            return Ok(());
        }
        let to = match route(&self.config, SocketAddr::new(packet.dst, 0)) {
            Route::Upstream(to) => to,
            Route::Group => return Err(DropReason::Multicast),
            Route::Forbidden => {
                self.icmp_error(now, mac, packet.whole, Problem::NetUnreachable);
                return Err(DropReason::Forbidden);
            }
            _ => return Err(DropReason::NoSuchHost),
        };
        let key = Key {
            kind: Kind::Echo,
            guest: SocketAddr::new(packet.src, ident),
            peer: SocketAddr::new(packet.dst, 0),
        };
        let id = match self.flows.find(&key) {
            Some(id) => id,
            None => self.open_echo(now, key, mac, to, up)?,
        };
        if let Some((_, entry)) = self.flows.get_mut(id)
            && let Body::Echo(echo) = &mut entry.body
        {
            echo.last = now;
            echo.mac = mac;
            echo.sequence = sequence;
            self.silence.heard(id, List::Echo);
            self.timers.set(id, Some(now + echo::TIMEOUT));
        }
        let meta = Meta { hops: packet.hops, traffic_class: packet.traffic_class };
        if let Err(errno) = up.ping_send(id, to, sequence, data, meta) {
            if let Some(problem) = Problem::from_errno(errno) {
                self.icmp_error(now, mac, packet.whole, problem);
            }
            return Err(DropReason::Upstream);
        }
        Ok(())
    }

    fn open_echo<U: Upstream>(
        &mut self,
        now: Instant,
        key: Key,
        mac: MacAddr,
        to: IpAddr,
        up: &mut U,
    ) -> Result<FlowId, DropReason> {
        if self.silence.count(List::Echo) >= usize::from(self.config.ports.echo) {
            self.end_longest(now, &[List::Echo], up);
        }
        let echo = Echo { mac, last: now, readable: false, has_error: false, sequence: 0 };
        let id = self.insert(key, Body::Echo(echo))?;
        if let Err(errno) = up.ping_open(id, to, self.config.outbound.toward(to)) {
            self.forget(id);
            return Err(if errno == Errno::Prohibited {
                DropReason::Forbidden
            } else {
                DropReason::Upstream
            });
        }
        self.counters.echo_flows += 1;
        Ok(id)
    }

    fn flush_echo<U: Upstream, D: Device>(
        &mut self,
        now: Instant,
        id: FlowId,
        up: &mut U,
        dev: &mut D,
    ) -> bool {
        for _ in 0..TRAINS {
            let into = self.buffer.payload_mut(crate::frame::MAX_PAYLOAD);
            let Ok((sequence, received)) = up.ping_receive(id, into) else {
                if let Some((_, entry)) = self.flows.get_mut(id)
                    && let Body::Echo(echo) = &mut entry.body
                {
                    echo.readable = false;
                }
                return false;
            };
            let Some((key, entry)) = self.flows.get_mut(id) else { return false };
            let Body::Echo(echo) = &mut entry.body else { return false };
            echo.last = now;
            self.silence.heard(id, List::Echo);
            self.timers.set(id, Some(now + echo::TIMEOUT));
            let env = Envelope {
                to_mac: echo.mac,
                src: SocketAddr::new(key.peer.ip(), 0),
                dst: SocketAddr::new(key.guest.ip(), 0),
                hops: received.meta.hops.max(1),
                traffic_class: received.meta.traffic_class,
            };
            let (_, reply) = echo::types(key.peer.ip());
            let header = echo::header(reply, key.guest.port(), sequence);
            let data = self.buffer.payload_mut(received.len).to_vec();
            for frame in self.echo_frames(&env, &header, &data) {
                self.counters.add(Tally::one(frame.len()));
                if dev.transmit(Offload::NONE, &frame).is_err() {
                    self.counters.drop(DropReason::Device);
                }
            }
        }
        true
    }

    fn echo_frames(&mut self, env: &Envelope, header: &[u8; 8], data: &[u8]) -> Vec<Vec<u8>> {
        let protocol = if env.dst.is_ipv4() { PROTO_ICMP } else { PROTO_ICMPV6 };
        let transport = Transport { protocol, header, checksum_at: 2 };
        let frame = assemble(self.config.mac, env, &transport, data);
        self.fit(env.to_mac, frame)
    }

    // ── errors ─────────────────────────────────────────────────────────────────────────────────────────

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
    fn datagram_error(&mut self, now: Instant, id: FlowId, report: &DatagramError) {
        let Some((key, entry)) = self.flows.get_mut(id) else { return };
        let guest = key.guest;
        let (mac, protocol, peer, header) = match &mut entry.body {
            Body::Udp(udp) => {
                let peer = match &udp.role {
                    Role::Inbound { .. } => key.peer,
                    Role::Any => SocketAddr::new(guest_view(&self.config, report.to.ip()), report.to.port()),
                };
                let env = quoted_envelope(guest, peer);
                (udp.mac, PROTO_UDP, peer, udp::header(&env, 0))
            }
            Body::Echo(echo) => {
                let protocol = if guest.is_ipv4() { PROTO_ICMP } else { PROTO_ICMPV6 };
                let (request, _) = echo::types(guest.ip());
                (echo.mac, protocol, key.peer, echo::header(request, guest.port(), echo.sequence))
            }
            Body::Tcp(_) => return,
        };
        let env = quoted_envelope(guest, peer);
        let checksum_at = if protocol == PROTO_UDP { 6 } else { 2 };
        let transport = Transport { protocol, header: &header, checksum_at };
        let frame = assemble(self.config.mac, &env, &transport, &[]);
        let quoted = frame.get(ETHERNET_LEN..).unwrap_or_default();
        self.icmp_report(now, mac, quoted, report);
    }
}

/// The headers of a packet that the guest sent.
const fn quoted_envelope(guest: SocketAddr, peer: SocketAddr) -> Envelope {
    Envelope { to_mac: MacAddr([0; 6]), src: guest, dst: peer, hops: 64, traffic_class: 0 }
}

#[cfg(test)]
mod tests;
