//! Echo: the guest's pings through the host's ping sockets, and our own answers to those that are for us.
//!
//! A flow is one guest address and identifier with one destination. The kernel chooses the identifier on the host's
//! side, so only the sequence number travels both ways. Requests to our own addresses never get here.

use crate::addr::MacAddr;
use crate::clock::Instant;
use crate::device::{Device, Offload};
use crate::drop_reason::DropReason;
use crate::engine::{Body, Engine, Entry};
use crate::flow::FlowId;
use crate::frame::{Envelope, MAX_PAYLOAD, Tally, Transport};
use crate::ip::Packet;
use crate::ip::problem::Problem;
use crate::transport::datagrams::meta;
use crate::transport::route::Lead;
use crate::transport::silence::List;
use crate::transport::table::{Key, Kind};
use crate::upstream::{Errno, Received, Upstream};
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

/// A flow ends after this much silence (conntrack's nf_conntrack_icmp_timeout is 30 s).
pub(crate) const TIMEOUT: Duration = Duration::from_secs(30);

/// ICMP type numbers of echo: (request, reply).
pub(crate) const fn types(addr: IpAddr) -> (u8, u8) {
    match addr {
        IpAddr::V4(_) => (8, 0),
        IpAddr::V6(_) => (128, 129),
    }
}

/// One echo flow.
#[derive(Debug)]
pub(crate) struct Echo {
    pub(crate) mac: MacAddr,
    pub(crate) last: Instant,
    pub(crate) readable: bool,
    pub(crate) has_error: bool,
    /// That of the latest request, for errors that do not say which one they are about.
    pub(crate) sequence: u16,
}

/// An echo message's fixed header with the checksum field zero.
pub(crate) const fn header(kind: u8, identifier: u16, sequence: u16) -> [u8; 8] {
    let ([i0, i1], [s0, s1]) = (identifier.to_be_bytes(), sequence.to_be_bytes());
    [kind, 0, 0, 0, i0, i1, s0, s1]
}

/// Identifier, sequence number and data of an echo message.
pub(crate) fn parse(message: &[u8]) -> Option<(u16, u16, &[u8])> {
    let (&[_, _, _, _, i0, i1, s0, s1], data) = message.split_first_chunk::<8>()?;
    Some((u16::from_be_bytes([i0, i1]), u16::from_be_bytes([s0, s1]), data))
}

impl Engine {
    /// An echo request of the guest.
    pub(crate) fn on_echo<U: Upstream>(
        &mut self,
        now: Instant,
        mac: MacAddr,
        packet: &Packet<'_>,
        up: &mut U,
    ) -> Result<(), DropReason> {
        let (ident, sequence, data) = parse(packet.payload).ok_or(DropReason::Malformed)?;
        if packet.src.is_unspecified() {
            return Err(DropReason::Martian);
        }
        if !self.config.plan.carries.icmp {
            return Err(DropReason::Forbidden);
        }
        // RFC 4443 §4.2: a group that we are in is answered for by an address of ours. (RFC 1122 §3.2.2.6 leaves it
        // open for IPv4.)
        if self.config.plan.is_ours(packet.dst) || self.config.plan.is_our_group(packet.dst) {
            self.answer_echo(mac, packet, (ident, sequence), data);
            return Ok(());
        }
        let Lead::Upstream(to) = self.lead(now, mac, packet, SocketAddr::new(packet.dst, 0))? else {
            return Err(DropReason::NoSuchHost);
        };
        let to = to.ip();
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
            self.timers.set(id, Some(now + TIMEOUT));
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
        let Some(from) = self.config.plan.speaker(packet.src, packet.dst) else { return };
        let env = Envelope {
            to_mac: mac,
            src: SocketAddr::new(from, 0),
            dst: SocketAddr::new(packet.src, 0),
            hops: 64,
            traffic_class: packet.traffic_class,
            ident: None,
        };
        let (_, reply) = types(packet.dst);
        for frame in self.echo_frames(&env, &header(reply, ident, sequence), data) {
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
        if let Err(errno) = up.ping_open(id, to, self.config.outbound.of(key.guest)) {
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

    pub(super) fn flush_echo<U: Upstream, D: Device>(
        &mut self,
        now: Instant,
        id: FlowId,
        budget: usize,
        up: &mut U,
        dev: &mut D,
    ) -> bool {
        self.take_datagrams(id, budget, |engine| {
            let (sequence, received) = up.ping_receive(id, engine.buffer.payload_mut(MAX_PAYLOAD))?;
            engine.deliver_echo(now, id, sequence, &received, dev);
            Ok(())
        })
    }

    /// The data of a reply for the flow `id` lies in the frame buffer.
    fn deliver_echo<D: Device>(
        &mut self,
        now: Instant,
        id: FlowId,
        sequence: u16,
        received: &Received,
        dev: &mut D,
    ) {
        let Some((key, Entry { body: Body::Echo(echo), .. })) = self.flows.get_mut(id) else { return };
        echo.last = now;
        self.silence.heard(id, List::Echo);
        self.timers.set(id, Some(now + TIMEOUT));
        let env = Envelope {
            to_mac: echo.mac,
            src: SocketAddr::new(key.peer.ip(), 0),
            dst: SocketAddr::new(key.guest.ip(), 0),
            hops: received.meta.hops.max(1),
            traffic_class: received.meta.traffic_class,
            ident: None,
        };
        let (_, reply) = types(key.peer.ip());
        let header = header(reply, key.guest.port(), sequence);
        let data = self.buffer.payload_mut(received.len).to_vec();
        for frame in self.echo_frames(&env, &header, &data) {
            if dev.transmit(Offload::NONE, &frame).is_ok() {
                self.counters.add(Tally::one(frame.len()));
            } else {
                self.link_full = true;
                self.counters.drop(DropReason::Device);
            }
        }
    }

    fn echo_frames(&mut self, env: &Envelope, header: &[u8; 8], data: &[u8]) -> Vec<Vec<u8>> {
        self.frames(env, &Transport::icmp(env.dst.is_ipv6(), header), data)
    }
}
