//! An IP packet of the guest: reassembled if need be, then to its transport; and the ICMP errors that go back.

use crate::addr::MacAddr;
use crate::bytes;
use crate::checksum;
use crate::clock::Instant;
use crate::device::vnet::Checksum;
use crate::device::{Gso, Offload, segment};
use crate::drop_reason::DropReason;
use crate::engine::Engine;
use crate::frame::wrap;
use crate::headers::{ETHERNET_LEN, IPV6_LEN, PROTO_ICMP, PROTO_ICMPV6, PROTO_TCP, PROTO_UDP};
use crate::ip::Packet;
use crate::ip::fragment::{Expired, Reassembled};
use crate::ip::ndp::Answer;
use crate::ip::problem::Problem;
use crate::ip::{extension, group, ndp};
use crate::transport::echo;
use crate::upstream::{DatagramError, Upstream};
use core::net::{IpAddr, Ipv6Addr};

const PROTO_IGMP: u8 = 2;
const NO_NEXT_HEADER: u8 = 59;

impl Engine {
    /// What follows an Ethernet header with an IP EtherType.
    pub(crate) fn on_ip<U: Upstream>(
        &mut self,
        now: Instant,
        mac: MacAddr,
        offload: Offload,
        bytes: &[u8],
        up: &mut U,
    ) -> Result<(), DropReason> {
        let packet = Packet::parse(bytes)?;
        // The EtherType may have said otherwise.
        if !self.config.plan.has(packet.src.is_ipv6()) {
            return Err(DropReason::FamilyOff);
        }
        if let Checksum::Partial { start, offset } = offload.checksum
            && !packet.owns_checksum(start, offset)
        {
            return self.on_unfinished(now, mac, offload.gso, (start, offset), bytes, up);
        }
        let mac = self.notice(now, mac, &packet);
        if !packet.fragment {
            return self.on_packet(now, mac, &packet, offload, up);
        }
        if offload.gso.is_some() {
            return Err(DropReason::Malformed);
        }
        if has_late_options(&packet) {
            self.icmp_error(now, mac, packet.whole, Problem::ProtocolUnreachable);
            return Err(DropReason::UnknownProtocol);
        }
        self.counters.fragments_in += 1;
        let outcome = self.reassembler.insert(now, packet.whole);
        self.counters.drop_many(DropReason::Fragment, self.reassembler.take_evicted());
        match outcome {
            Reassembled::Complete(whole) => {
                // What came in fragments may leave in fragments.
                let packet = Packet { dont_fragment: false, ..Packet::parse(&whole)? };
                // A checksum left to us covers one frame: it was completed before.
                self.on_packet(now, mac, &packet, Offload::NONE, up)
            }
            Reassembled::Waiting => Ok(()),
            Reassembled::Dropped(reason) => Err(reason),
        }
    }

    /// A packet that carries another one (a tunnel's) with the checksum of *that* left to us: it is completed, or the
    /// far end of the tunnel would find it wrong.
    fn on_unfinished<U: Upstream>(
        &mut self,
        now: Instant,
        mac: MacAddr,
        gso: Option<Gso>,
        (start, offset): (u16, u16),
        bytes: &[u8],
        up: &mut U,
    ) -> Result<(), DropReason> {
        // virtio 1.2 §5.1.6.2.1: the checksum of a train is that of the header that is to be repeated. A train inside a
        // tunnel has a kind of its own, which we do not announce.
        if gso.is_some() {
            return Err(DropReason::Malformed);
        }
        let start = usize::from(start).checked_sub(ETHERNET_LEN).ok_or(DropReason::Malformed)?;
        let mut bytes = bytes.to_vec();
        segment::complete(&mut bytes, start, offset.into()).ok_or(DropReason::Malformed)?;
        self.on_ip(now, mac, Offload::NONE, &bytes, up)
    }

    /// Gives up datagrams whose missing fragments never came, and says so (RFC 1122 §3.3.2, RFC 8200 §4.5).
    pub(crate) fn fragment_timeout(&mut self, now: Instant) {
        while let Some(Expired { first }) = self.reassembler.expire(now) {
            self.counters.drop(DropReason::Fragment);
            let Some(first) = first else { continue };
            let mac = Packet::parse(&first).ok().and_then(|packet| self.neighbours.peek(packet.src));
            if let Some(mac) = mac {
                self.icmp_error(now, mac, &first, Problem::ReassemblyTimeExceeded);
            }
        }
    }

    /// Learns where the guest is from what it sends, and says where answers go.
    fn notice(&mut self, now: Instant, mac: MacAddr, packet: &Packet<'_>) -> MacAddr {
        let src = packet.src;
        // IPv6 teaches more than that, and by more than this.
        if src.is_ipv4() && self.neighbours.confirm(now, src, mac) {
            return mac;
        }
        self.guests.uses(&self.config.plan, src);
        if self.neighbours.takes_all() {
            return mac;
        }
        let on_link = self.config.plan.is_on_link(src);
        // Neighbour discovery teaches by rules of its own, and answers whoever asks.
        let discovery =
            packet.protocol == PROTO_ICMPV6 && packet.payload.first().is_some_and(|&kind| ndp::is_ndp(kind));
        if on_link && !discovery && !self.config.plan.is_ours(src) { self.seen(now, src, mac) } else { mac }
    }

    fn on_packet<U: Upstream>(
        &mut self,
        now: Instant,
        mac: MacAddr,
        packet: &Packet<'_>,
        offload: Offload,
        up: &mut U,
    ) -> Result<(), DropReason> {
        self.check_extensions(now, mac, packet)?;
        match (packet.protocol, packet.dst) {
            (PROTO_TCP, _) => self.on_tcp(now, mac, packet, offload.checksum, up),
            (PROTO_UDP, _) => self.on_udp(now, mac, packet, offload, up),
            (PROTO_ICMP, IpAddr::V4(_)) => self.on_icmp(now, mac, packet, offload.checksum, up),
            (PROTO_ICMPV6, IpAddr::V6(_)) => self.on_icmp(now, mac, packet, offload.checksum, up),
            // Nothing is relayed between groups here or there: that somebody listens changes nothing.
            (PROTO_IGMP, IpAddr::V4(_)) => group::igmp(packet.payload).map(|_| ()),
            // RFC 8200 §4.7: no next header, so there is nothing to complain about either.
            (NO_NEXT_HEADER, IpAddr::V6(_)) => Err(DropReason::UnknownProtocol),
            _ => {
                self.icmp_error(now, mac, packet.whole, Problem::ProtocolUnreachable);
                Err(DropReason::UnknownProtocol)
            }
        }
    }

    /// Refuses options and routing headers that their destination must not ignore (RFC 8200 §4.2, §4.4).
    fn check_extensions(
        &mut self,
        now: Instant,
        mac: MacAddr,
        packet: &Packet<'_>,
    ) -> Result<(), DropReason> {
        if packet.src.is_ipv4() || packet.whole.len() == packet.payload.len() + IPV6_LEN {
            return Ok(());
        }
        extension::check(packet.whole).map(|_| ()).map_err(|refused| {
            if let Some(problem) = refused.problem {
                self.icmp_error(now, mac, packet.whole, problem);
            }
            refused.reason
        })
    }

    fn on_icmp<U: Upstream>(
        &mut self,
        now: Instant,
        mac: MacAddr,
        packet: &Packet<'_>,
        checksum: Checksum,
        up: &mut U,
    ) -> Result<(), DropReason> {
        let kind = *packet.payload.first().ok_or(DropReason::Malformed)?;
        if checksum == Checksum::Complete && !checksum_fits(packet) {
            return Err(DropReason::Checksum);
        }
        let (request, _) = echo::types(packet.dst);
        if kind == request {
            return self.on_echo(now, mac, packet, up);
        }
        match (packet.src, packet.dst) {
            (IpAddr::V6(src), IpAddr::V6(dst)) if ndp::is_ndp(kind) => {
                let message =
                    ndp::Message { src, dst, hops: packet.hops, verified: true, bytes: packet.payload };
                self.on_ndp(now, mac, message)
            }
            (IpAddr::V6(_), IpAddr::V6(_)) if group::is_mld(kind) => {
                group::mld(packet.hops, packet.payload).map(|_| ())
            }
            _ => self.on_icmp_error(now, packet, up),
        }
    }

    fn on_ndp(&mut self, now: Instant, mac: MacAddr, message: ndp::Message<'_>) -> Result<(), DropReason> {
        let v6 = self.config.plan.v6.as_ref().ok_or(DropReason::FamilyOff)?;
        if !self.config.plan.carries.ndp {
            return Err(DropReason::Unsolicited);
        }
        let wanted = |ip: Ipv6Addr| self.neighbours.is_wanted(ip.into());
        let heard = ndp::on_message(self.config.mac, v6, mac, message, wanted)?;
        if let Some((ip, mac)) = heard.learnt {
            self.learn(now, ip.into(), mac);
        }
        for ip in heard.learnt.map(|(ip, _)| ip).into_iter().chain(heard.claimed) {
            self.guests.claims(&self.config.plan, ip.into());
        }
        match heard.answer {
            Answer::Nothing => {}
            Answer::Neighbour { target, .. } if self.guests.has_claimed(target.into()) => {}
            Answer::Neighbour { frame, .. } => self.post(frame),
            Answer::Router { from, mac } => self.advertise(now, from, mac),
        }
        Ok(())
    }

    /// Tells the guest by ICMP why `packet`, which it sent, went no further. The complaint comes from the address of
    /// ours that was asked, or from the gateway, the first router on the way.
    pub(crate) fn icmp_error(&mut self, now: Instant, mac: MacAddr, packet: &[u8], problem: Problem) {
        if let Some(from) = ends(packet).and_then(|(src, dst)| self.config.plan.speaker(src, dst)) {
            self.icmp_from(now, mac, from, packet, problem);
        }
    }

    /// Passes a report from the host's error queue on to the guest.
    pub(crate) fn icmp_report(&mut self, now: Instant, mac: MacAddr, packet: &[u8], report: &DatagramError) {
        let Some(problem) = Problem::from_report(report) else { return };
        let seen = |ip| ends(packet).and_then(|(guest, _)| self.config.plan.answering(ip, guest));
        match report.reporter.and_then(seen) {
            Some(from) => self.icmp_from(now, mac, from, packet, problem),
            None => self.icmp_error(now, mac, packet, problem),
        }
    }

    fn icmp_from(&mut self, now: Instant, mac: MacAddr, from: IpAddr, packet: &[u8], problem: Problem) {
        match self.icmp_errors.build(now, problem, from, packet) {
            Ok(reply) => {
                self.counters.icmp_errors_out += 1;
                let frame = wrap(self.config.mac, mac, &reply);
                self.post(frame);
            }
            Err(reason) => self.counters.drop(reason),
        }
    }
}

/// Source and destination of a packet.
fn ends(packet: &[u8]) -> Option<(IpAddr, IpAddr)> {
    match packet.first().map(|b| b >> 4) {
        Some(4) => bytes::ipv4(packet, 12).zip(bytes::ipv4(packet, 16)).map(|(a, b)| (a.into(), b.into())),
        _ => bytes::ipv6(packet, 8).zip(bytes::ipv6(packet, 24)).map(|(a, b)| (a.into(), b.into())),
    }
}

/// Whether hop-by-hop options follow the fragment header of a first fragment. RFC 8200 §4: named by any header but the
/// fixed one they are as good as unknown. Put together, the packet would look as if they stood where they belong.
fn has_late_options(packet: &Packet<'_>) -> bool {
    let first = || extension::upper(packet.whole)?.fragment.map(|fragment| fragment.offset == 0);
    packet.src.is_ipv6() && packet.protocol == extension::HOP_BY_HOP && first() == Some(true)
}

/// Whether an ICMP message's checksum is right; ICMPv6 has a pseudo-header (RFC 4443 §2.3).
fn checksum_fits(packet: &Packet<'_>) -> bool {
    match packet.src {
        IpAddr::V4(_) => checksum::fits(packet.payload),
        IpAddr::V6(_) => checksum::transport_fits(packet.src, packet.dst, PROTO_ICMPV6, packet.payload),
    }
}
