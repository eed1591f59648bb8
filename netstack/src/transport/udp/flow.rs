//! UDP: pseudo-connections between guest endpoints and host sockets.
//!
//! One socket serves one guest endpoint whatever it talks to (endpoint-independent mapping, RFC 4787 §4.1 REQ-1): few
//! descriptors, and hole punching works. Two kinds of flow have a peer of their own: one that began at a forwarded port
//! (its answers leave through that port's socket) and one with the DNS address.
//!
//! Both ways datagrams travel as trains where they can: datagrams of one size for one peer, read from the device one
//! after the other, leave in one system call (UDP_SEGMENT); what the socket delivers merged (UDP_GRO) goes to the guest
//! as one frame if the device segments UDP. Order is kept; a datagram is never split or joined with another.

use crate::addr::MacAddr;
use crate::clock::Instant;
use crate::config::UdpConfig;
use crate::device::Device;
use crate::device::vnet::{Checksum, GsoKind};
use crate::drop_reason::DropReason;
use crate::flow::FlowId;
use crate::frame::{Cut, Envelope, Transport, Tx};
use crate::headers::ip_header_len;
use crate::ip::fragment::take_ident;
use crate::ip::path_mtu::Limits;
use crate::transport::silence::List;
use crate::transport::udp::filter::Filter;
use crate::upstream::{Client, Errno, Meta, Upstream};
use core::net::{IpAddr, SocketAddr};
use smoltcp::wire::UdpPacket;

/// Bytes of a UDP header.
pub(crate) const HEADER_LEN: usize = 8;
/// Linux's UDP_MAX_SEGMENTS was 64 until 6.9: the most that both ends surely take.
const MAX_TRAIN: usize = 64;
/// The longest payload of an IPv4 datagram.
pub(crate) const MAX_PAYLOAD: usize = 65_507;

/// Whose flow it is.
#[derive(Debug)]
pub(crate) enum Role {
    /// Of a guest endpoint with anybody.
    Any {
        /// Of these, whose datagrams get in.
        filter: Filter,
        /// Where the guest's last datagram was going, as it said and as it is: most follow one another.
        lead: Option<(SocketAddr, SocketAddr)>,
    },
    /// Of a guest endpoint with a client of a forwarded port.
    Inbound {
        /// Who began it, and where.
        client: Client,
    },
}

/// One UDP flow.
#[derive(Debug)]
pub(crate) struct Udp {
    pub(crate) role: Role,
    pub(crate) mac: MacAddr,
    /// When something was last carried.
    pub(crate) last: Instant,
    /// Something was carried in each direction.
    pub(crate) both_ways: bool,
    pub(crate) readable: bool,
    pub(crate) has_error: bool,
}

impl Udp {
    pub(crate) const fn new(role: Role, mac: MacAddr, now: Instant) -> Self {
        Self { role, mac, last: now, both_ways: false, readable: false, has_error: false }
    }

    /// Among which it is, if it has a socket of its own, as those with anybody have.
    pub(crate) const fn list(&self) -> List {
        if self.both_ways { List::Answered } else { List::Unanswered }
    }

    /// The guest sends something to `peer`, which is `to` on the host's side; if it is a group, to all of them.
    pub(crate) fn leads(&mut self, peer: SocketAddr, to: SocketAddr, to_all: bool) {
        let Role::Any { filter, lead } = &mut self.role else { return };
        if *lead == Some((peer, to)) {
            return;
        }
        *lead = Some((peer, to));
        if to_all {
            filter.open();
        }
        filter.contact(to);
    }

    /// Where the way to `peer` leads, if it was gone last.
    pub(crate) fn lead_to(&self, peer: SocketAddr) -> Option<SocketAddr> {
        match &self.role {
            Role::Any { lead: Some((known, to)), .. } if *known == peer => Some(*to),
            _ => None,
        }
    }

    /// How the guest sees `from`, if that is where its last datagram went: two addresses may lead there.
    pub(crate) fn sees(&self, from: SocketAddr) -> Option<IpAddr> {
        match &self.role {
            Role::Any { lead: Some((peer, to)), .. } if *to == from => Some(peer.ip()),
            _ => None,
        }
    }

    /// Addresses mean something else from now on.
    pub(crate) const fn forget_lead(&mut self) {
        if let Role::Any { lead, .. } = &mut self.role {
            *lead = None;
        }
    }

    /// Whether what `peer`, an address on the host's side, sends is for the guest.
    pub(crate) fn admits(&self, peer: SocketAddr) -> bool {
        match &self.role {
            Role::Any { filter, .. } => filter.admits(peer),
            Role::Inbound { .. } => true,
        }
    }

    /// When the flow ends if nothing more is carried.
    pub(crate) fn expiry(&self, config: &UdpConfig) -> Instant {
        self.last + if self.both_ways { config.stream_timeout } else { config.timeout }
    }
}

/// A datagram, or a train of them, from the guest.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Datagram<'a> {
    pub(crate) src_port: u16,
    pub(crate) dst_port: u16,
    pub(crate) payload: &'a [u8],
}

impl<'a> Datagram<'a> {
    /// Reads and verifies a datagram.
    pub(crate) fn parse(
        bytes: &'a [u8],
        src: IpAddr,
        dst: IpAddr,
        checksum: Checksum,
    ) -> Result<Self, DropReason> {
        let packet = UdpPacket::new_checked(bytes).map_err(|_| DropReason::Malformed)?;
        // RFC 768: zero means none, for IPv4. smoltcp accepts that for IPv4 only.
        if checksum.is_wrong(|| packet.verify_checksum(&src.into(), &dst.into())) {
            return Err(DropReason::Checksum);
        }
        if packet.dst_port() == 0 {
            return Err(DropReason::Malformed);
        }
        let len = usize::from(packet.len());
        let payload = bytes.get(HEADER_LEN..len).ok_or(DropReason::Malformed)?;
        Ok(Self { src_port: packet.src_port(), dst_port: packet.dst_port(), payload })
    }
}

/// Datagrams of one size on their way to one socket and peer, gathered over a batch of frames.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    target: Option<(FlowId, SocketAddr, Meta)>,
    segment: usize,
    count: usize,
    bytes: Vec<u8>,
}

/// A send that the host refused.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Failure {
    pub(crate) flow: FlowId,
    pub(crate) to: SocketAddr,
    pub(crate) errno: Errno,
}

impl Batch {
    /// Adds datagrams of `segment` bytes each (the last may be shorter). What does not go with those waiting
    /// sends them first.
    pub(crate) fn add<U: Upstream>(
        &mut self,
        target: (FlowId, SocketAddr, Meta),
        payload: &[u8],
        segment: usize,
        up: &mut U,
    ) -> Option<Failure> {
        let datagrams = payload.len().div_ceil(segment.max(1)).max(1);
        let joins = self.target == Some(target)
            && segment == self.segment
            && !payload.is_empty()
            && self.bytes.len() + payload.len() <= MAX_PAYLOAD
            && self.count + datagrams <= MAX_TRAIN;
        // A shorter datagram ends a train: it may be the last of one.
        let ends = self.target == Some(target)
            && datagrams == 1
            && !payload.is_empty()
            && payload.len() < self.segment
            && self.bytes.len() + payload.len() <= MAX_PAYLOAD
            && self.count < MAX_TRAIN;
        let failure = if joins || ends { None } else { self.flush(up) };
        if self.target.is_none() {
            self.target = Some(target);
            self.segment = segment;
        }
        self.bytes.extend_from_slice(payload);
        self.count += datagrams;
        let closed = ends || payload.len() < datagrams * segment || payload.is_empty();
        if !closed {
            return failure;
        }
        // In any case: nothing may be joined to a train that has ended.
        let second = self.flush(up);
        failure.or(second)
    }

    /// Sends what waits.
    pub(crate) fn flush<U: Upstream>(&mut self, up: &mut U) -> Option<Failure> {
        let (flow, to, meta) = self.target.take()?;
        let result = up.udp_send(flow, to, &self.bytes, self.segment, meta);
        self.bytes.clear();
        self.count = 0;
        result.err().map(|errno| Failure { flow, to, errno })
    }
}

/// What one train to the guest needs beside its bytes, which lie in the frame buffer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Train {
    pub(crate) len: usize,
    pub(crate) segment: usize,
    pub(crate) env: Envelope,
}

impl Train {
    /// How many datagrams it is.
    pub(crate) fn count(&self) -> u64 {
        self.len.div_ceil(self.segment.max(1)).max(1) as u64
    }
}

/// Sends a train to the guest, datagrams that do not fit the way there in fragments. `idents` gives identifications.
pub(crate) fn send_to_guest<D: Device>(train: &Train, limits: Limits, idents: &mut u32, tx: &mut Tx<'_, D>) {
    let headers = ip_header_len(train.env.dst.ip()) + HEADER_LEN;
    let (room, atomic) = (limits.whole.saturating_sub(headers), limits.atomic.saturating_sub(headers));
    let segment = train.segment.max(1);
    // One frame holds so many datagrams.
    let per_frame =
        if tx.caps.uso && segment <= room { (MAX_PAYLOAD / segment).clamp(1, MAX_TRAIN) } else { 1 };
    let (mut at, mut env) = (0, train.env);
    loop {
        let len = (train.len - at).min(per_frame * segment);
        if tx.full {
            tx.tally.lose((train.len - at).div_ceil(segment).max(1) as u64);
            break;
        }
        let header = header(&env, len);
        let transport = Transport::udp(&header);
        if len > room && per_frame == 1 {
            tx.send_cut(&env, &transport, (at, len), (limits.whole, take_ident(idents, 1)));
        } else {
            let size = u16::try_from(segment).unwrap_or(u16::MAX);
            env.ident = (len.min(segment) > atomic).then(|| take_ident(idents, len.div_ceil(segment)));
            if tx.send(&env, &transport, at, len, Cut::Train(GsoKind::Udp, size)).is_err() {
                continue; // counted above
            }
        }
        at += len;
        if at >= train.len {
            break;
        }
    }
}

/// A UDP header with the checksum field zero.
pub(crate) fn header(env: &Envelope, payload_len: usize) -> [u8; HEADER_LEN] {
    let ([s0, s1], [d0, d1]) = (env.src.port().to_be_bytes(), env.dst.port().to_be_bytes());
    let [l0, l1] = u16::try_from(HEADER_LEN + payload_len).unwrap_or(u16::MAX).to_be_bytes();
    [s0, s1, d0, d1, l0, l1, 0, 0]
}
