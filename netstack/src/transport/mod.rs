//! Stage 4 of the data path: segments, datagrams and echo requests become flows.
//!
//! Each protocol has a file with its flow; this one decides which flow a packet belongs to, makes new ones, and carries
//! out what a flow's step says. A flow is found by the two ends that the guest sees ([`table::Key`]).

mod datagrams;
pub(crate) mod destinations;
pub(crate) mod dials;
pub(crate) mod echo;
#[cfg(test)]
pub(crate) mod lab;
pub mod parting;
pub(crate) mod places;
pub mod readdress;
pub(crate) mod route;
pub(crate) mod silence;
pub(crate) mod table;
pub(crate) mod tcp;
pub(crate) mod timer;
pub(crate) mod turns;
pub(crate) mod udp;

use crate::addr::MacAddr;
use crate::clock::Instant;
use crate::device::vnet::Checksum;
use crate::drop_reason::DropReason;
use crate::engine::{Body, Engine, Entry};
use crate::flow::FlowId;
use crate::ip::Packet;
use crate::ip::problem::Problem;
use crate::upstream::{Errno, Event, ServiceId, Upstream};
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use places::Tenant;
use route::Lead;
use silence::List;
use table::{Key, Kind};
use tcp::{Ctx, Opening, Segment, Step, Tcp};

/// Places that a full table is searched at a time.
const THIN_OUT: usize = 256;
/// In a full table, silence after which something that never got an answer makes room, and something that did.
pub(crate) const SHORT: Duration = Duration::from_secs(2);
pub(crate) const LONG: Duration = Duration::from_secs(15);

/// RFC 2474 §3: the upper six bits of a traffic class. The lower two are ECN, which on TCP is a matter of the two
/// kernels that talk to each other, the guest's with us and the host's with the peer.
const DSCP: u8 = 0xfc;

impl Engine {
    /// A TCP segment of the guest.
    pub(crate) fn on_tcp<U: Upstream>(
        &mut self,
        now: Instant,
        mac: MacAddr,
        packet: &Packet<'_>,
        checksum: Checksum,
        up: &mut U,
    ) -> Result<(), DropReason> {
        let seg = Segment::parse(packet.payload, packet.src, packet.dst, checksum)?;
        let key = Key {
            kind: Kind::Tcp,
            guest: SocketAddr::new(packet.src, seg.src_port),
            peer: SocketAddr::new(packet.dst, seg.dst_port),
        };
        let class = packet.traffic_class & DSCP;
        if let Some(id) = self.flows.find(&key) {
            self.tcp_step(now, id, up, |tcp, ctx| {
                if tcp.class != class {
                    tcp.class = class;
                    ctx.up.tcp_class(id, class);
                }
                tcp.on_segment(&seg, mac, ctx)
            });
            return Ok(());
        }
        if seg.flags.rst() {
            return Err(DropReason::OutOfWindow);
        }
        if !seg.flags.syn() || seg.flags.ack() {
            // RFC 9293 §3.10.7.1: a segment of no connection is answered by RST.
            self.reject(mac, &key, &seg);
            return Err(DropReason::OutOfWindow);
        }
        self.open_tcp(now, mac, packet, key, &seg, up)
    }

    /// The guest wants a connection.
    fn open_tcp<U: Upstream>(
        &mut self,
        now: Instant,
        mac: MacAddr,
        packet: &Packet<'_>,
        key: Key,
        seg: &Segment<'_>,
        up: &mut U,
    ) -> Result<(), DropReason> {
        if packet.src.is_unspecified() {
            return Err(DropReason::Martian);
        }
        let (to, service) = match self.lead(now, mac, packet, key.peer)? {
            Lead::Upstream(to) | Lead::Members(to) => (Some(to), None),
            Lead::Dns => (None, None),
            Lead::Service(id) => (None, Some(id)),
            Lead::Closed => {
                self.reject(mac, &key, seg);
                return Err(DropReason::NoSuchHost);
            }
        };
        let guest = key.guest.ip();
        match to {
            Some(to) => self.find_port(now, to, guest)?,
            None => self.make_place(now, service, guest, up),
        }
        let class = packet.traffic_class & DSCP;
        let opening = Opening { class, to, ..self.opening(now, &key, Some(mac)) };
        let id = self.insert(key, Body::Tcp(Box::new(Tcp::from_guest(seg, &opening))))?;
        self.counters.tcp_opened += 1;
        match to {
            Some(to) => {
                self.destinations.add(to, guest);
                if self.turns.is_empty() && self.dials.admits(guest) && up.may_connect() {
                    self.connect(now, id, to, up);
                } else if let Some(forgotten) = self.turns.wait(guest, id) {
                    self.counters.drop(DropReason::NoRoom);
                    self.forget(forgotten);
                }
            }
            None => {
                self.conversations.entry(service).or_default().push(id);
                if let Some((_, Entry { body: Body::Tcp(tcp), .. })) = self.flows.get_mut(id) {
                    tcp.connecting(now);
                }
                let started = match service {
                    None => up.tcp_connect_dns(id),
                    Some(service) => up.tcp_connect_service(id, service),
                };
                self.started(now, id, started);
            }
        }
        Ok(())
    }

    /// Whether there may be one more connection of `guest` to `to`. If not, its SYN stays unanswered, as if it had been
    /// lost: it comes again, and by then there may be.
    fn find_port(&mut self, now: Instant, to: SocketAddr, guest: IpAddr) -> Result<(), DropReason> {
        if self.destinations.is_resting(now, to) {
            return Err(DropReason::Upstream);
        }
        if !self.destinations.admits(to, guest, self.config.ports.tcp_to_one()) {
            self.crowded = true;
            return Err(DropReason::NoRoom);
        }
        Ok(())
    }

    /// Connections that wait for their turn are made, as many as there may be and the host has time for. Returns
    /// whether that time alone is why others still wait.
    pub(crate) fn connect_waiting<U: Upstream>(&mut self, now: Instant, up: &mut U) -> bool {
        while !self.turns.is_empty() {
            if !up.may_connect() {
                return true;
            }
            let Self { turns, dials, .. } = self;
            let Some(id) = turns.next(|guest| dials.admits(guest)) else {
                match self.dials.victim() {
                    Some((from, victim)) if from <= now => {
                        self.counters.drop(DropReason::NoRoom);
                        self.abandon(victim, up);
                        continue;
                    }
                    _ => return false,
                }
            };
            // It may have ended meanwhile.
            let Some((_, Entry { body: Body::Tcp(tcp), .. })) = self.flows.get_mut(id) else { continue };
            if let Some(to) = tcp.to {
                self.connect(now, id, to, up);
            }
        }
        false
    }

    /// When somebody who waits for a place among the connections that are being made gets one.
    pub(crate) fn dial_timeout(&self) -> Option<Instant> {
        if self.turns.is_empty() { None } else { self.dials.victim().map(|(from, _)| from) }
    }

    fn connect<U: Upstream>(&mut self, now: Instant, id: FlowId, to: SocketAddr, up: &mut U) {
        let Some((key, Entry { body: Body::Tcp(tcp), .. })) = self.flows.get_mut(id) else { return };
        tcp.connecting(now);
        self.dials.begin(now, id, key.guest.ip());
        self.timers.set(id, tcp.dial_ends(&self.config.tcp));
        let class = tcp.class;
        let started = up.tcp_connect(id, to, self.config.outbound.toward(to.ip()), class);
        if started == Err(Errno::NoPort) {
            // Nobody out there has refused anything: the guest hears nothing, and tries again.
            self.counters.drop(DropReason::Upstream);
            self.destinations.rest(now, to);
            self.forget(id);
        } else {
            self.started(now, id, started);
        }
    }

    /// A failure on the spot is told as a late one would be.
    fn started(&mut self, now: Instant, id: FlowId, started: Result<(), Errno>) {
        if let Err(errno) = started {
            self.refuse(now, id, errno);
        }
    }

    /// A guest at `newcomer` is about to begin a conversation with a service, or the DNS address: another one with it
    /// is reset if it must make room.
    fn make_place<U: Upstream>(
        &mut self,
        now: Instant,
        service: Option<ServiceId>,
        newcomer: IpAddr,
        up: &mut U,
    ) {
        let mut tenants = Vec::with_capacity(places::PLACES);
        let Self { conversations, flows, .. } = self;
        conversations.entry(service).or_default().retain(|&flow| match flows.get_mut(flow) {
            Some((key, Entry { body: Body::Tcp(tcp), .. })) => {
                let (opened, since) = (tcp.is_open(), tcp.carried());
                tenants.push(Tenant { flow, guest: key.guest.ip(), opened, since });
                true
            }
            _ => false,
        });
        if let Some(flow) = places::victim(&tenants, newcomer) {
            self.counters.drop(DropReason::NoRoom);
            self.tcp_step(now, flow, up, |tcp, ctx| tcp.abort(ctx));
        }
    }

    /// News for a flow whose connect() is under way.
    pub(crate) fn on_connect<U: Upstream>(&mut self, now: Instant, id: FlowId, event: Event, up: &mut U) {
        let Some((_, Entry { body: Body::Tcp(tcp), .. })) = self.flows.get_mut(id) else { return };
        match event {
            Event::Connected => {
                if tcp.is_dialling() {
                    self.dials.end(id);
                }
                tcp.connected();
                self.enqueue(id);
            }
            Event::Failed(errno) => {
                up.close(id);
                self.refuse(now, id, errno);
            }
            Event::Readable | Event::Urgent | Event::Writable | Event::Error => {}
        }
    }

    /// The host could not connect, and the flow has no socket: the guest is told in the way that its own network would.
    pub(crate) fn refuse(&mut self, now: Instant, id: FlowId, errno: Errno) {
        self.counters.tcp_refused += 1;
        let Some((key, entry)) = self.flows.get_mut(id) else { return };
        let (key, Body::Tcp(tcp)) = (*key, &entry.body) else { return };
        let (mac, behind_syn) = (tcp.mac, tcp.behind_syn());
        self.forget(id);
        let Some(mac) = mac else { return };
        match tcp::refusal(errno) {
            tcp::Refusal::Reset => {
                let frame = tcp::segment::reset_frame(
                    self.config.mac,
                    mac,
                    &key,
                    tcp::seq::SeqNum(0),
                    Some(behind_syn),
                );
                self.post(frame);
            }
            tcp::Refusal::Unreachable(errno) => {
                let quoted = tcp::segment::syn_packet(&key, behind_syn.minus(1));
                if let Some(problem) = Problem::from_errno(errno) {
                    self.icmp_error(now, mac, &quoted, problem);
                }
            }
        }
    }

    /// RFC 9293 §3.10.7.1: the RST that answers a segment of no connection.
    fn reject(&mut self, mac: MacAddr, key: &Key, seg: &Segment<'_>) {
        let frame = if seg.flags.ack() {
            tcp::segment::reset_frame(self.config.mac, mac, key, seg.ack, None)
        } else {
            let ack = seg.seq.plus(seg.space());
            tcp::segment::reset_frame(self.config.mac, mac, key, tcp::seq::SeqNum(0), Some(ack))
        };
        self.post(frame);
    }

    /// The table is full: ends flows whose loss is least felt, as conntrack's early drop does. These are handshakes
    /// that do not get on, datagrams that nobody answers, and what has been silent for long; never an established
    /// connection. Looks at a part of the table only, so that a flood costs little.
    pub(crate) fn thin_out<U: Upstream>(&mut self, now: Instant, up: &mut U) {
        let dispensable: Vec<FlowId> = self
            .flows
            .some(self.thinned, THIN_OUT)
            .filter(|(_, entry)| {
                let (last, patience) = match &entry.body {
                    Body::Tcp(tcp) => match tcp.patience() {
                        Some(patience) => (tcp.heard(), patience),
                        None => return false,
                    },
                    Body::Udp(udp) => (udp.last, if udp.both_ways { LONG } else { SHORT }),
                    Body::Echo(echo) => (echo.last, SHORT),
                };
                now.since(last) >= patience
            })
            .map(|(id, _)| id)
            .collect();
        self.thinned = self.thinned.wrapping_add(THIN_OUT);
        for id in dispensable {
            self.counters.drop(DropReason::NoRoom);
            self.abandon(id, up);
        }
    }

    /// The flow that has been silent longest ends, of the first of `lists` that has any.
    pub(crate) fn end_longest<U: Upstream>(&mut self, now: Instant, lists: &[List], up: &mut U) {
        if let Some(flow) = lists.iter().find_map(|&list| self.silence.longest(list)) {
            // What was gathered may be its own.
            self.flush_udp_batch(now, up);
            self.counters.drop(DropReason::NoRoom);
            self.finish(flow, up);
        }
    }

    /// Runs one step of a TCP flow and does what it says.
    pub(crate) fn tcp_step<U: Upstream>(
        &mut self,
        now: Instant,
        id: FlowId,
        up: &mut U,
        step: impl FnOnce(&mut Tcp, &mut Ctx<'_, U>) -> Step,
    ) {
        let Some((key, entry)) = self.flows.get_mut(id) else { return };
        let Body::Tcp(tcp) = &mut entry.body else { return };
        let guest = key.guest.ip();
        let mut ctx = Ctx { now, id, guest, up, shared: &mut self.tcp, counters: &mut self.counters };
        match step(tcp, &mut ctx) {
            // The flush of the coming drain sets the timer.
            Step::Continue => self.schedule.enqueue(id, &mut entry.share),
            Step::Reject(seq) => {
                self.enqueue(id);
                self.post_reset(id, seq, false);
            }
            over => self.conclude(id, over),
        }
        if self.tcp.is_over() {
            self.make_room();
        }
    }

    /// Bytes in order need memory: flows forget what came ahead of a gap.
    fn make_room(&mut self) {
        for id in self.tcp.losers() {
            let Some((key, entry)) = self.flows.get_mut(id) else { continue };
            let Body::Tcp(tcp) = &mut entry.body else { continue };
            tcp.forget_early(key.guest.ip(), id, &mut self.tcp);
            self.counters.drop(DropReason::NoRoom);
        }
    }

    /// A TCP flow is over; its socket is closed.
    pub(crate) fn conclude(&mut self, id: FlowId, step: Step) {
        if let Step::Abort(seq) = step {
            self.post_reset(id, seq, true);
        }
        self.forget(id);
    }

    /// A RST for a flow's guest, with or without acknowledgement.
    fn post_reset(&mut self, id: FlowId, seq: tcp::seq::SeqNum, acknowledging: bool) {
        if let Some((key, entry)) = self.flows.get_mut(id)
            && let Body::Tcp(tcp) = &entry.body
            && let Some(mac) = tcp.mac
        {
            let ack = acknowledging.then(|| tcp.behind_syn());
            let frame = tcp::segment::reset_frame(self.config.mac, mac, key, seq, ack);
            self.post(frame);
        }
    }
}
