//! UDP and echo through the engine: which flow, which socket, what went wrong; `to_guest` has what comes back.

use crate::addr::{MacAddr, any_endpoint};
use crate::clock::Instant;
use crate::device::Offload;
use crate::device::vnet::GsoKind;
use crate::drop_reason::DropReason;
use crate::engine::{Body, Engine, Entry};
use crate::frame::{ETHERNET_LEN, Envelope, PROTO_ICMP, PROTO_ICMPV6, PROTO_UDP, Transport, assemble};
use crate::ip::Packet;
use crate::ip::problem::Problem;
use crate::transport::echo::{self, Echo};
use crate::transport::flow::FlowId;
use crate::transport::route::{Route, guest_view, is_our_group, is_ours, route, speaker};
use crate::transport::silence::List;
use crate::transport::table::{Key, Kind};
use crate::transport::udp::{self, Datagram, Failure, Role, Udp};
use crate::upstream::{DatagramError, Errno, Meta, Upstream};
use crate::within::dns::{self, Asker};
use core::net::{IpAddr, SocketAddr};

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
        let meta = meta(packet);

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
        // RFC 4443 §4.2: a group that we are in is answered for by an address of ours. (RFC 1122 §3.2.2.6 leaves it open
        // for IPv4.)
        if is_ours(&self.config, packet.dst) || is_our_group(&self.config, packet.dst) {
            self.answer_echo(mac, packet, (ident, sequence), data);
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
        let meta = meta(packet);
        if let Err(errno) = up.ping_send(id, to, sequence, data, meta) {
            if let Some(problem) = Problem::from_errno(errno) {
                self.icmp_error(now, mac, packet.whole, problem);
            }
            return Err(DropReason::Upstream);
        }
        Ok(())
    }

    /// The reply to a request that is for us.
    fn answer_echo(&mut self, mac: MacAddr, packet: &Packet<'_>, (ident, sequence): (u16, u16), data: &[u8]) {
        let Some(from) = speaker(&self.config, packet.src, packet.dst) else { return };
        let env = Envelope {
            to_mac: mac,
            src: SocketAddr::new(from, 0),
            dst: SocketAddr::new(packet.src, 0),
            hops: 64,
            traffic_class: packet.traffic_class,
            ident: None,
        };
        let (_, reply) = echo::types(packet.dst);
        for frame in self.echo_frames(&env, &echo::header(reply, ident, sequence), data) {
            self.post(frame);
        }
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

    // ── errors ─────────────────────────────────────────────────────────────────────────────────────────

    /// Tells the guest what lies in a socket's error queue. True when more may be left.
    pub(super) fn take_errors<U: Upstream>(&mut self, now: Instant, id: FlowId, up: &mut U) -> bool {
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
                let sequence = report.sequence.unwrap_or(echo.sequence);
                (echo.mac, protocol, key.peer, echo::header(request, guest.port(), sequence))
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

/// What of a packet's header goes with its datagram.
const fn meta(packet: &Packet<'_>) -> Meta {
    Meta { hops: packet.hops, traffic_class: packet.traffic_class, dont_fragment: packet.dont_fragment }
}

/// The headers of a packet that the guest sent.
const fn quoted_envelope(guest: SocketAddr, peer: SocketAddr) -> Envelope {
    Envelope { to_mac: MacAddr([0; 6]), src: guest, dst: peer, hops: 64, traffic_class: 0, ident: None }
}
