//! The engine: five verbs around everything else in this crate.
//!
//! | verb | when |
//! |---|---|
//! | [`Engine::on_frame`] | the device delivered a frame |
//! | [`Engine::on_upstream`] | a host socket has news |
//! | [`Engine::on_timeout`] | the moment of [`Engine::next_timeout`] has come |
//! | [`Engine::next_timeout`] | how long the caller may sleep |
//! | [`Engine::drain`] | after a batch of the others: send what is to be sent |
//!
//! Beside them stand the doors for connections that come from the host's side ([`Engine::accept_tcp`],
//! [`Engine::accept_udp`]) and the few settings that change while running.
//!
//! The first three change state and talk to sockets; only `drain` sends frames (and a forwarded UDP port, whose
//! datagrams are at hand). So a batch of frames costs one acknowledgement a flow, and a flow with much to send takes
//! turns with the others. Frames that are not part of a flow (ARP, DHCP, ICMP, RST) wait in a bounded outbox for the
//! same moment.

use crate::addr::MacAddr;
use crate::clock::Instant;
use crate::config::{Config, Keys};
use crate::counters::Counters;
use crate::device::{Device, Offload};
use crate::drop_reason::DropReason;
use crate::ethernet::neighbour::Neighbours;
use crate::ethernet::resolution::NEIGHBOUR_PATIENCE;
use crate::ethernet::unresolved::Unresolved;
use crate::flow::FlowId;
use crate::frame::{Tally, Tx, TxBuffer};
use crate::ip::fragment::Reassembler;
use crate::ip::guests::Guests;
use crate::ip::icmp_error::IcmpErrors;
use crate::ip::path_mtu::PathMtus;
use crate::schedule::{DRAIN, LOOK_COST, List, Schedule, Share};
use crate::transport::destinations::Destinations;
use crate::transport::dials::Dials;
use crate::transport::echo::Echo;
use crate::transport::silence::Silence;
use crate::transport::table::{Key, Kind, Table};
use crate::transport::tcp::{self, Opening, Tcp};
use crate::transport::timer::Timers;
use crate::transport::turns::Turns;
use crate::transport::udp::{self, Role, Udp};
use crate::upstream::{Errno, Event, Forwarded, ServiceId, Upstream};
use crate::within::Within;
use crate::within::dns::Queries;
use core::hash::Hasher;
use core::net::{IpAddr, SocketAddr};
use siphasher::sip::SipHasher13;
use std::collections::{BTreeMap, VecDeque};

/// Frames that may wait in the outbox. Beyond, they are dropped as on a full link.
const OUTBOX: usize = 1024;
/// The stack of one guest link.
#[derive(Debug)]
pub struct Engine {
    pub(crate) config: Config,
    pub(crate) counters: Counters,
    pub(crate) flows: Table<Entry>,
    pub(crate) timers: Timers,
    /// Flows that have something to flush.
    pub(crate) schedule: Schedule,
    /// The device refused a frame in this drain, or the last one.
    pub(crate) link_full: bool,
    pub(crate) tcp: tcp::Shared,
    pub(crate) udp_batch: udp::Batch,
    pub(crate) queries: Queries,
    pub(crate) neighbours: Neighbours,
    pub(crate) reassembler: Reassembler,
    pub(crate) icmp_errors: IcmpErrors,
    pub(crate) within: Within,
    pub(crate) paths: PathMtus,
    pub(crate) outbox: VecDeque<(Offload, Vec<u8>)>,
    pub(crate) buffer: TxBuffer,
    /// The addresses that the guest was seen to use.
    pub(crate) guests: Guests,
    /// UDP and echo flows, by how long they have been silent.
    pub(crate) silence: Silence,
    /// Connections from the guest, by where they lead.
    pub(crate) destinations: Destinations,
    /// Of these, those that wait for their turn to be made.
    pub(crate) turns: Turns,
    /// And those that are being made.
    pub(crate) dials: Dials,
    /// Flows that lead to a service of this process, and some that did; `None` is the DNS address.
    pub(crate) conversations: BTreeMap<Option<ServiceId>, Vec<FlowId>>,
    /// Flows from the host's side that wait for the guest's MAC address.
    pub(crate) unresolved: Unresolved,
    /// Identification of the datagrams that we fragment.
    pub(crate) next_ident: u32,
    /// The table was found full: the next drain looks for flows that it can do without.
    pub(crate) crowded: bool,
    /// Where in the table that search goes on.
    pub(crate) thinned: usize,
}

/// A flow in the table.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) share: Share,
    pub(crate) body: Body,
}

/// A flow by its protocol. TCP and UDP are boxed: the table is an array, and echo flows are small.
#[derive(Debug)]
pub(crate) enum Body {
    Tcp(Box<Tcp>),
    Udp(Box<Udp>),
    Echo(Echo),
}

impl Body {
    /// Whom the flow's frames go to, if that is known.
    pub(crate) const fn station(&self) -> Option<MacAddr> {
        match self {
            Self::Tcp(tcp) => tcp.mac,
            Self::Udp(udp) => Some(udp.mac),
            Self::Echo(echo) => Some(echo.mac),
        }
    }
}

/// Where a datagram from the host's side went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inbound {
    /// Its flow.
    pub flow: FlowId,
    /// Whether the flow was made for it: the caller then attaches the listener's socket to the id.
    pub new: bool,
}

impl Engine {
    /// An engine with no flows.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let mut engine = Self {
            counters: Counters::default(),
            flows: Table::new(config.keys.flow_hash, config.max_flows),
            timers: Timers::default(),
            schedule: Schedule::default(),
            link_full: false,
            tcp: tcp::Shared::new(config.tcp),
            udp_batch: udp::Batch::default(),
            queries: Queries::default(),
            neighbours: Neighbours::new(config.keys.others, config.on_link),
            reassembler: Reassembler::default(),
            icmp_errors: IcmpErrors::new(&config.plan),
            within: Within::new(&config),
            paths: PathMtus::default(),
            outbox: VecDeque::new(),
            buffer: TxBuffer::default(),
            silence: Silence::default(),
            destinations: Destinations::default(),
            turns: Turns::new(config.tcp.max_in_flight),
            dials: Dials::new(config.tcp.max_in_flight),
            conversations: BTreeMap::new(),
            unresolved: Unresolved::default(),
            next_ident: first_ident(&config.keys),
            crowded: false,
            thinned: 0,
            guests: Guests::default(),
            config,
        };
        engine.seek_station();
        engine
    }

    // ── the five verbs ─────────────────────────────────────────────────────────────────────────────────

    /// The device delivered `frame`, of which `offload` was left to us.
    pub fn on_frame<U: Upstream>(&mut self, now: Instant, offload: Offload, frame: &[u8], up: &mut U) {
        self.counters.frames_in += 1;
        self.counters.bytes_in += frame.len() as u64;
        if let Err(reason) = self.on_ethernet(now, offload, frame, up) {
            self.counters.drop(reason);
        }
    }

    /// The socket of `flow` has news.
    pub fn on_upstream<U: Upstream>(&mut self, now: Instant, flow: FlowId, event: Event, up: &mut U) {
        let Some((_, entry)) = self.flows.get_mut(flow) else { return };
        match &mut entry.body {
            Body::Tcp(tcp) if tcp.is_connecting() => self.on_connect(now, flow, event, up),
            Body::Tcp(_) => self.tcp_step(now, flow, up, |tcp, ctx| tcp.on_upstream(event, ctx)),
            Body::Udp(udp) => {
                match event {
                    Event::Error | Event::Failed(_) => udp.has_error = true,
                    _ => udp.readable = true,
                }
                self.enqueue(flow);
            }
            Body::Echo(echo) => {
                match event {
                    Event::Error | Event::Failed(_) => echo.has_error = true,
                    _ => echo.readable = true,
                }
                self.enqueue(flow);
            }
        }
    }

    /// Does what was due at or before `now`.
    pub fn on_timeout<U: Upstream>(&mut self, now: Instant, up: &mut U) {
        self.neighbour_timeout(now);
        self.within_timeout(now);
        self.fragment_timeout(now);
        self.paths.on_timeout(now);
        while let Some(id) = self.timers.pop(now) {
            let Some((_, entry)) = self.flows.get_mut(id) else { continue };
            match &mut entry.body {
                Body::Tcp(tcp) if tcp.needs_neighbour() && tcp.waited(now) >= NEIGHBOUR_PATIENCE => {
                    self.counters.tcp_refused += 1;
                    up.tcp_reset(id);
                    self.forget(id);
                }
                Body::Tcp(tcp) if tcp.needs_neighbour() => {
                    self.await_neighbour(now, id);
                }
                Body::Tcp(tcp) if tcp.dial_ends(&self.config.tcp).is_some_and(|at| at <= now) => {
                    up.close(id);
                    self.refuse(now, id, Errno::TimedOut);
                }
                Body::Tcp(_) => self.tcp_step(now, id, up, Tcp::on_timeout),
                Body::Udp(udp) if udp.expiry(&self.config.udp) <= now => self.finish(id, up),
                Body::Udp(udp) => {
                    let expiry = udp.expiry(&self.config.udp);
                    self.timers.set(id, Some(expiry));
                }
                Body::Echo(_) => self.finish(id, up),
            }
        }
    }

    /// When [`Engine::on_timeout`] wants to be called next; `None`: not before something else happens.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        [
            self.timers.next(),
            self.reassembler.next_timeout(),
            self.neighbours.next_timeout(),
            self.within.next_timeout(),
            self.paths.next_timeout(),
            self.dial_timeout(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Sends what the earlier verbs left to send: acknowledgements, replies, data waiting in host sockets.
    ///
    /// Returns whether more is left than one fair turn allows; the caller then looks for new frames and events without
    /// sleeping and calls again. When the device has no room, that is not the reason: see [`Engine::awaits_link`].
    pub fn drain<U: Upstream, D: Device>(&mut self, now: Instant, up: &mut U, dev: &mut D) -> bool {
        self.flush_udp_batch(now, up);
        let is_connecting = self.connect_waiting(now, up);
        if core::mem::take(&mut self.crowded) {
            self.thin_out(now, up);
        }
        self.link_full = false;
        if self.schedule.is_holding() {
            for id in self.schedule.release(|station| dev.may_have_room(station)) {
                if let Some((_, entry)) = self.flows.get_mut(id) {
                    self.schedule.resume(id, &mut entry.share);
                }
            }
        }
        let mut budget = DRAIN;
        while budget > 0
            && !self.link_full
            && let Some((id, list)) = self.schedule.next()
        {
            let turn = (id, list, list.quantum().min(budget));
            budget = budget.saturating_sub(self.flush_flow(now, turn, up, dev));
            self.link_full &= dev.is_full();
        }
        while !self.link_full
            && let Some((offload, frame)) = self.outbox.pop_front()
        {
            if dev.transmit(offload, &frame).is_ok() {
                self.counters.add(Tally::one(frame.len()));
            } else if dev.is_full() {
                self.link_full = true;
                self.outbox.push_front((offload, frame));
            } else {
                // No room for that one station, and nobody is to wait for it.
                self.counters.drop(DropReason::Device);
            }
        }
        dev.flush();
        self.is_sending() || is_connecting
    }

    /// Whether flows have more to send than they had a turn for, and the link has room.
    #[must_use]
    pub fn is_sending(&self) -> bool {
        !self.schedule.is_empty() && !self.link_full
    }

    /// The device had no room for what was to be sent, or not for all stations: the caller drains again when it has
    /// some.
    #[must_use]
    pub const fn awaits_link(&self) -> bool {
        self.link_full || self.schedule.is_holding()
    }

    // ── doors for the host's side ──────────────────────────────────────────────────────────────────────

    /// A client at `from` connected to a forwarded port that leads to `guest`; the connection is established on the
    /// host. On success the caller attaches the accepted socket to the id; the engine connects to the guest and resets
    /// the socket if the guest refuses. `from` is the real address: the engine shows a loopback client to the guest
    /// as the gateway.
    ///
    /// # Errors
    /// When the flow cannot be made; the caller closes the socket.
    pub fn accept_tcp(
        &mut self,
        now: Instant,
        from: SocketAddr,
        guest: SocketAddr,
    ) -> Result<FlowId, DropReason> {
        let plan = &self.config.plan;
        if from.is_ipv4() != guest.is_ipv4() {
            return Err(DropReason::FamilyOff);
        }
        let seen = plan.inbound(from.ip(), guest.ip()).filter(|_| plan.carries.tcp);
        let peer = SocketAddr::new(seen.ok_or(DropReason::Forbidden)?, from.port());
        let mut key = Key { kind: Kind::Tcp, guest, peer };
        // Two clients can look the same to the guest (127.0.0.1 and 127.0.0.2 from the same port): the second gets
        // another port.
        for _ in 0..64 {
            if self.flows.find(&key).is_none() {
                break;
            }
            key.peer.set_port(key.peer.port().wrapping_add(1).max(1024));
        }
        if self.flows.find(&key).is_some() {
            return Err(DropReason::NoRoom);
        }
        let opening = self.opening(now, &key, None);
        let id = self.insert(key, Body::Tcp(Box::new(Tcp::from_host(&opening))))?;
        self.counters.tcp_accepted += 1;
        if !self.await_neighbour(now, id) {
            let Self { unresolved, flows, .. } = self;
            unresolved.add(guest.ip(), id, |id| flows.get_mut(id).is_some());
        }
        Ok(id)
    }

    /// A forwarded UDP port received datagrams. They leave at once, unless the guest's MAC address is still to be asked
    /// for. Answers of the guest leave through the socket that the caller attaches to a new flow.
    ///
    /// # Errors
    /// When the flow cannot be made; the datagrams are dropped and counted.
    pub fn accept_udp<D: Device>(
        &mut self,
        now: Instant,
        datagrams: &Forwarded<'_>,
        dev: &mut D,
    ) -> Result<Inbound, DropReason> {
        let result = self.inbound_udp(now, datagrams, dev);
        if let Err(reason) = result {
            self.counters.drop(reason);
        }
        result
    }

    /// Ends a flow of [`Engine::accept_udp`], whose forwarded port is closed.
    pub fn end_udp<U: Upstream>(&mut self, flow: FlowId, up: &mut U) {
        if let Some((_, entry)) = self.flows.get_mut(flow)
            && matches!(&entry.body, Body::Udp(udp) if matches!(udp.role, Role::Inbound { .. }))
        {
            self.finish(flow, up);
        }
    }

    /// Ends a TCP flow by RST on both sides, whatever it still has to carry.
    pub fn reset<U: Upstream>(&mut self, now: Instant, flow: FlowId, up: &mut U) {
        self.tcp_step(now, flow, up, |tcp, ctx| tcp.abort(ctx));
    }

    /// Another station may have `guest` now: whoever wants to reach it asks the link.
    pub fn forget_neighbour(&mut self, guest: IpAddr) {
        self.neighbours.forget(guest);
    }

    /// The guest's end of a flow.
    #[must_use]
    pub fn guest_of(&mut self, flow: FlowId) -> Option<SocketAddr> {
        self.flows.get_mut(flow).map(|(key, _)| key.guest)
    }

    /// Where a rule without guest address leads: the configured address, or the one that the guest was seen to use,
    /// as the plan has it.
    #[must_use]
    pub fn guest_address(&self, ipv6: bool) -> Option<IpAddr> {
        self.guests.address(&self.config.plan, ipv6)
    }

    /// The same for a client at `from`: one that the guest sees at a link-local address gets to the guest's own.
    #[must_use]
    pub fn guest_address_toward(&self, from: IpAddr) -> Option<IpAddr> {
        self.guests.address_toward(&self.config.plan, from)
    }

    /// What the engine was told at its birth.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// What has happened so far.
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    // ── what the stages share ──────────────────────────────────────────────────────────────────────────

    /// A frame that belongs to no flow, to be sent with the next drain.
    pub(crate) fn post(&mut self, frame: Vec<u8>) {
        if self.outbox.len() < OUTBOX {
            self.outbox.push_back((Offload::NONE, frame));
        } else {
            self.counters.drop(DropReason::NoRoom);
        }
    }

    /// The flow has something to flush.
    pub(crate) fn enqueue(&mut self, id: FlowId) {
        if let Some((_, entry)) = self.flows.get_mut(id) {
            self.schedule.enqueue(id, &mut entry.share);
        }
    }

    pub(crate) fn insert(&mut self, key: Key, body: Body) -> Result<FlowId, DropReason> {
        self.flows.insert(key, Entry { share: Share::default(), body }).map_err(|_| {
            self.crowded = true;
            DropReason::NoRoom
        })
    }

    /// Removes a flow whose socket is closed already.
    pub(crate) fn forget(&mut self, id: FlowId) {
        // A stale id must not touch the timer of the place's next tenant.
        let Some((key, entry)) = self.flows.remove(id) else { return };
        self.timers.set(id, None);
        match entry.body {
            Body::Tcp(tcp) => {
                tcp.release(key.guest.ip(), id, &mut self.tcp);
                if tcp.is_dialling() {
                    self.dials.end(id);
                }
                if let Some(to) = tcp.to {
                    self.destinations.remove(to, key.guest.ip());
                }
            }
            Body::Udp(_) | Body::Echo(_) => self.silence.remove(id),
        }
    }

    /// Ends a flow whose guest is not told: TCP by a reset, for whoever is at the other end need not wait for what will
    /// not come.
    pub(crate) fn abandon<U: Upstream>(&mut self, id: FlowId, up: &mut U) {
        match self.flows.get_mut(id) {
            Some((_, Entry { body: Body::Tcp(tcp), .. })) => {
                if tcp.has_socket() {
                    up.tcp_reset(id);
                }
                self.forget(id);
            }
            _ => self.finish(id, up),
        }
    }

    /// Ends a flow and closes its socket.
    pub(crate) fn finish<U: Upstream>(&mut self, id: FlowId, up: &mut U) {
        up.close(id);
        self.forget(id);
    }

    /// What a new TCP flow starts from.
    pub(crate) fn opening(&self, now: Instant, key: &Key, mac: Option<MacAddr>) -> Opening {
        let (guest, link) = (key.guest.ip(), self.config.mtu.bytes());
        let (mss, path) = (mss(guest, link), self.paths.toward(guest, link));
        Opening {
            now,
            isn: self.isn(now, key),
            mss,
            path_mss: self::mss(guest, path),
            window: self.tcp.first_window(guest, mss),
            mac,
            to: None,
            class: 0,
        }
    }

    /// RFC 6528 §3: a keyed hash of the connection, plus a clock that ticks every 4 microseconds.
    #[expect(clippy::cast_possible_truncation, reason = "a sequence number is the low 32 bits")]
    fn isn(&self, now: Instant, key: &Key) -> u32 {
        let mut hasher = SipHasher13::new_with_key(&self.config.keys.isn);
        for end in [key.guest, key.peer] {
            match end.ip() {
                IpAddr::V4(a) => hasher.write(&a.octets()),
                IpAddr::V6(a) => hasher.write(&a.octets()),
            }
            hasher.write(&end.port().to_be_bytes());
        }
        (hasher.finish() as u32).wrapping_add((now.as_micros() / 4) as u32)
    }

    /// Frames and bytes sent so far.
    pub(crate) const fn sent(&self) -> (u64, u64) {
        (self.counters.frames_out, self.counters.bytes_out)
    }

    /// What has been sent since then, in the schedule's bytes.
    pub(crate) const fn cost_since(&self, (frames, bytes): (u64, u64)) -> usize {
        Tally::of(self.counters.frames_out - frames, self.counters.bytes_out - bytes).cost()
    }

    /// A flow has its turn, of so many of the schedule's bytes; returns what it has cost.
    fn flush_flow<U: Upstream, D: Device>(
        &mut self,
        now: Instant,
        (id, list, quantum): (FlowId, List, usize),
        up: &mut U,
        dev: &mut D,
    ) -> usize {
        let Some((key, entry)) = self.flows.get_mut(id) else { return LOOK_COST };
        self.schedule.begin(&mut entry.share, list);
        let (cost, more) = match &mut entry.body {
            Body::Tcp(tcp) => {
                let mut out = Tx::new(dev, &mut self.buffer, &self.config);
                let guest = key.guest.ip();
                let mut ctx =
                    tcp::Ctx { now, id, guest, up, shared: &mut self.tcp, counters: &mut self.counters };
                let result = tcp.flush(key, &mut ctx, &mut out, quantum);
                let (tally, full) = (out.tally, out.full);
                self.counters.add(tally);
                self.link_full |= full;
                match result {
                    Ok(more) => {
                        let at = tcp.deadline(&self.config.tcp);
                        self.timers.set(id, at);
                        (LOOK_COST + tally.cost(), more)
                    }
                    Err(step) => {
                        self.conclude(id, step);
                        return LOOK_COST + tally.cost();
                    }
                }
            }
            Body::Udp(_) | Body::Echo(_) => {
                let before = self.sent();
                let more = self.flush_datagrams(now, id, quantum, up, dev);
                (LOOK_COST + self.cost_since(before), more)
            }
        };
        if let Some((_, entry)) = self.flows.get_mut(id) {
            match entry.body.station().filter(|_| !dev.is_full()) {
                _ if !(self.link_full && more) => self.schedule.served(id, &mut entry.share, cost, more),
                Some(station) => self.schedule.hold(id, &mut entry.share, station),
                None => self.schedule.put_back(id, &mut entry.share, list),
            }
        }
        cost
    }
}

/// Where the identification of our fragments begins. It goes out in clear, so it is a hash and no part of a key.
#[expect(clippy::cast_possible_truncation, reason = "an identification is the low 32 bits")]
fn first_ident(keys: &Keys) -> u32 {
    SipHasher13::new_with_key(&keys.others).hash(b"identification of fragments") as u32
}

/// The largest TCP payload in packets of `mtu` bytes (RFC 6691: options do not count).
pub(crate) fn mss(guest: IpAddr, mtu: u16) -> u16 {
    let headers = crate::headers::ip_header_len(guest) + 20;
    mtu.saturating_sub(u16::try_from(headers).unwrap_or(60))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_identification_is_part_of_no_key() {
        let keys = Keys { flow_hash: [1; 16], isn: [2; 16], others: [3; 16] };
        let first = first_ident(&keys).to_ne_bytes();
        let part_of = |key: &[u8; 16]| key.windows(4).any(|part| part == first);
        assert!(![keys.flow_hash, keys.isn, keys.others].iter().any(part_of));
        assert_ne!(first_ident(&Keys { others: [4; 16], ..keys }).to_ne_bytes(), first);
    }
}
