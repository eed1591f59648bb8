//! What a network card does with an [`Offload`]: for frames whose offloads somebody else must not meet, because a
//! packet goes further than the card that it was left to ([`complete`]), or because the link that is to carry a frame
//! can do less than the one that it was made for ([`finish`]).
//!
//! A partial checksum names a place, not a protocol (virtio 1.2 §5.1.6.2): sum from `start` to the end of the packet,
//! store at `start + offset`. Usually that is the packet's own TCP or UDP header, and then whoever opens the packet
//! trusts what has not been summed yet. It may as well be a header further in: from Linux 6.17 on a TAP is handed
//! VXLAN, Geneve, FOU and GUE frames whose *inner* checksum is left to it, with an outer one that is already right for
//! the finished bytes (local checksum offload, Linux `Documentation/networking/checksum-offloads.rst`).
//!
//! A train is cut as Linux cuts it (`net/ipv4/tcp_offload.c`, `udp_offload.c`, `af_inet.c`): each segment gets its own
//! lengths, sequence number and checksums, IPv4's identification counts on, FIN and PSH stay with the last, CWR with
//! the first. Its headers may come from another guest, so nothing in them is believed that the frame does not bear out.

use super::{Capabilities, Gso, Offload};
use crate::bytes;
use crate::checksum;
use crate::device::vnet::{Checksum, GsoKind};
use crate::drop_reason::DropReason;
use crate::headers::{ETHERNET_LEN, IPV4_LEN, IPV6_LEN, PROTO_TCP, PROTO_UDP, checksum_at};
use crate::surely::Surely;
use core::net::IpAddr;

/// Linux's TCP_MIN_GSO_SIZE: smaller segments would make ten thousand frames of one.
const SMALLEST: usize = 8;
/// Linux's UDP_MAX_SEGMENTS.
const MOST_DATAGRAMS: usize = 128;

/// Completes a partial checksum in a frame: sums from `start` to its end, the field's own bytes (the pseudo-header's
/// sum) included, and stores the result `offset` bytes behind `start`.
///
/// `None`, and an untouched frame, when the field is not in the frame.
#[must_use]
pub(crate) fn complete(frame: &mut [u8], start: usize, offset: usize) -> Option<()> {
    let covered = frame.get_mut(start..)?;
    covered.get(offset..offset.checked_add(2)?)?;
    // All ones, not zero, as Linux has it: the same number, and to UDP zero would say that there is no checksum.
    let value = checksum::finish_udp(checksum::sum(covered));
    bytes::put(covered, offset, value.to_be_bytes());
    Some(())
}

/// Makes of a frame what a link with `caps` carries: itself, if the link can do what is left undone in it, or else one
/// or several in which it is done. Each goes to `out`, in order.
///
/// # Errors
/// [`DropReason::Malformed`]: what is left undone does not fit the frame. Nothing was handed out.
pub fn finish(
    offload: Offload,
    frame: &[u8],
    caps: Capabilities,
    out: &mut dyn FnMut(Offload, &[u8]),
) -> Result<(), DropReason> {
    match (offload.checksum, offload.gso) {
        (Checksum::Complete | Checksum::Verified, None) => out(Offload::NONE, frame),
        (Checksum::Partial { .. }, None) if caps.checksum => out(offload, frame),
        (Checksum::Partial { start, offset }, None) => {
            let mut frame = frame.to_vec();
            complete(&mut frame, start.into(), offset.into()).ok_or(DropReason::Malformed)?;
            out(Offload::NONE, &frame);
        }
        (Checksum::Partial { .. }, Some(gso)) if caps.checksum && caps.cuts(gso.kind) => out(offload, frame),
        (Checksum::Partial { start, offset }, Some(gso)) => {
            let train = Train::of(frame, gso, start.into(), offset.into()).ok_or(DropReason::Malformed)?;
            train.cut(gso.size.into(), caps.checksum, out);
        }
        // virtio 1.2 §5.1.6.2.1: whoever leaves the cutting leaves the checksum.
        (_, Some(_)) => return Err(DropReason::Malformed),
    }
    Ok(())
}

impl Capabilities {
    const fn cuts(self, kind: GsoKind) -> bool {
        match kind {
            GsoKind::Tcp4 => self.tso4,
            GsoKind::Tcp6 => self.tso6,
            GsoKind::Udp => self.uso,
        }
    }
}

/// A frame that is to be cut.
#[derive(Debug, Clone, Copy)]
struct Train<'a> {
    headers: &'a [u8],
    payload: &'a [u8],
    protocol: u8,
    ends: (IpAddr, IpAddr),
    /// First byte of the transport header.
    transport: usize,
}

impl<'a> Train<'a> {
    /// `None` when it is none: another protocol than the kind says, the checksum of another header, or more segments
    /// than a kernel would make of it.
    fn of(frame: &'a [u8], gso: Gso, transport: usize, offset: usize) -> Option<Self> {
        let ip = frame.get(ETHERNET_LEN..)?;
        let (v4, ends, protocol, header_len) = match bytes::byte(ip, 0)? >> 4 {
            4 => {
                let ends = (bytes::ipv4(ip, 12)?.into(), bytes::ipv4(ip, 16)?.into());
                // A fragment is no train.
                (bytes::be16(ip, 6)? & 0x3fff == 0).then_some(())?;
                (true, ends, bytes::byte(ip, 9)?, usize::from(bytes::byte(ip, 0)? & 15) * 4)
            }
            // Extension headers in front of a train are not made by any sender that we know.
            6 => (
                false,
                (bytes::ipv6(ip, 8)?.into(), bytes::ipv6(ip, 24)?.into()),
                bytes::byte(ip, 6)?,
                IPV6_LEN,
            ),
            _ => return None,
        };
        let fits = match gso.kind {
            GsoKind::Tcp4 => v4 && protocol == PROTO_TCP,
            GsoKind::Tcp6 => !v4 && protocol == PROTO_TCP,
            GsoKind::Udp => protocol == PROTO_UDP,
        };
        let own_checksum = transport == ETHERNET_LEN + header_len && checksum_at(protocol) == Some(offset);
        if !fits || !own_checksum || header_len < IPV4_LEN {
            return None;
        }
        let own =
            if protocol == PROTO_TCP { usize::from(bytes::byte(frame, transport + 12)? >> 4) * 4 } else { 8 };
        let (headers, payload) = frame.split_at_checked(transport + own)?;
        let size = usize::from(gso.size);
        let bounded = match protocol {
            PROTO_TCP => own >= 20 && (size >= SMALLEST || payload.len() <= size),
            _ => payload.len() <= size * MOST_DATAGRAMS,
        };
        // The length fields of each segment have 16 bits; IPv6's does not count its header.
        let longest = transport + own - ETHERNET_LEN + payload.len().min(size);
        let room = usize::from(u16::MAX) + if v4 { 0 } else { IPV6_LEN };
        let bounded = bounded && size > 0 && longest <= room;
        bounded.then_some(Self { headers, payload, protocol, ends, transport })
    }

    /// Hands out the segments, of `size` bytes each.
    fn cut(&self, size: usize, partial: bool, out: &mut dyn FnMut(Offload, &[u8])) {
        let last = self.payload.len().div_ceil(size).max(1) - 1;
        let mut one = Vec::with_capacity(self.headers.len() + size.min(self.payload.len()));
        for n in 0..=last {
            let from = n * size;
            let to = self.payload.len().min(from + size);
            one.clear();
            one.extend_from_slice(self.headers);
            one.extend_from_slice(self.payload.get(from..to).surely());
            self.fix_ip(&mut one, n);
            self.fix_transport(&mut one, from, (n == 0, n == last));
            out(self.fix_checksum(&mut one, partial), &one);
        }
    }

    /// The length, and of IPv4 the identification and the header's checksum, of the `nth` segment.
    fn fix_ip(&self, one: &mut [u8], nth: usize) {
        let total = one.len() - ETHERNET_LEN;
        if self.ends.0.is_ipv6() {
            return bytes::put(one, ETHERNET_LEN + 4, bytes::len16(total - IPV6_LEN).to_be_bytes());
        }
        let ident = bytes::be16(one, ETHERNET_LEN + 4).surely();
        bytes::put(one, ETHERNET_LEN + 2, bytes::len16(total).to_be_bytes());
        bytes::put(one, ETHERNET_LEN + 4, ident.wrapping_add(bytes::len16(nth)).to_be_bytes());
        bytes::put(one, ETHERNET_LEN + 10, [0, 0]);
        let sum = one.get(ETHERNET_LEN..self.transport).map_or(0, checksum::sum);
        bytes::put(one, ETHERNET_LEN + 10, checksum::finish(sum).to_be_bytes());
    }

    /// What the transport header says of a segment whose payload begins `from` bytes into the train's.
    fn fix_transport(&self, one: &mut [u8], from: usize, (first, last): (bool, bool)) {
        const FIN_AND_PSH: u8 = 0x09;
        const CWR: u8 = 0x80;
        let at = self.transport;
        if self.protocol == PROTO_UDP {
            return bytes::put(one, at + 4, bytes::len16(one.len() - at).to_be_bytes());
        }
        let seq = bytes::array(one, at + 4).map(u32::from_be_bytes).surely();
        let seq = seq.wrapping_add(u32::try_from(from).surely());
        bytes::put(one, at + 4, seq.to_be_bytes());
        let mut flags = bytes::byte(one, at + 13).surely();
        if !last {
            flags &= !FIN_AND_PSH;
        }
        // RFC 3168 §6.1.2: the answer to one congestion mark is said once.
        if !first {
            flags &= !CWR;
        }
        bytes::put(one, at + 13, [flags]);
    }

    /// The segment's checksum: complete, or the sum of the pseudo-header.
    fn fix_checksum(&self, one: &mut [u8], partial: bool) -> Offload {
        let len = one.len() - self.transport;
        let offset = checksum_at(self.protocol).surely();
        let pseudo = checksum::partial(self.ends.0, self.ends.1, self.protocol, u32::try_from(len).surely());
        bytes::put(one, self.transport + offset, pseudo.to_be_bytes());
        if partial {
            let (start, offset) = (bytes::len16(self.transport), bytes::len16(offset));
            return Offload { checksum: Checksum::Partial { start, offset }, gso: None };
        }
        complete(one, self.transport, offset).surely();
        Offload::NONE
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_completed_fits(
            mut frame in prop::collection::vec(any::<u8>(), 0..200), start in 0..220_usize, words in 0..110_usize,
        ) {
            let (before, offset) = (frame.clone(), words * 2);
            let at = start + offset;
            if complete(&mut frame, start, offset).is_none() {
                prop_assert!(at + 2 > frame.len());
                prop_assert_eq!(frame, before);
                return Ok(());
            }
            prop_assert_eq!((&frame[..at], &frame[at + 2..]), (&before[..at], &before[at + 2..]));
            // What is left over is the sum of the pseudo-header, which the field held. (0 and 0xffff are one number.)
            let held = u16::from_be_bytes([before[at], before[at + 1]]);
            prop_assert_eq!(checksum::finish(checksum::sum(&frame[start..])) % 0xffff, held % 0xffff);
        }
    }

    use crate::addr::MacAddr;
    use crate::frame::{Envelope, Transport, assemble};
    use crate::testing::envelope;

    const ALL: Capabilities = Capabilities { checksum: true, tso4: true, tso6: true, uso: true };

    /// A train with `payload`, as the engine leaves it to a card: kind, frame, what is left to do.
    fn train(v6: bool, tcp: bool, payload: &[u8], size: u16) -> (Offload, Vec<u8>) {
        let env = Envelope { ident: Some(0xffff), ..envelope(v6) };
        let mut header = vec![0, 53, 3, 231];
        if tcp {
            // Sequence number close to its end, options of four bytes, CWR, ACK, PSH and FIN.
            header.extend([0xff, 0xff, 0xff, 0, 0, 0, 0, 7, 0x60, 0x99, 1, 0, 0, 0, 0, 0, 1, 1, 1, 0]);
        } else {
            header.extend(bytes::len16(payload.len() + 8).to_be_bytes());
            header.extend([0, 0]);
        }
        let transport = if tcp { Transport::tcp(&header) } else { Transport::udp(&header) };
        let mut frame = assemble(MacAddr([2; 6]), &env, &transport, payload);
        let start = ETHERNET_LEN + if v6 { IPV6_LEN } else { IPV4_LEN };
        let protocol = if tcp { PROTO_TCP } else { PROTO_UDP };
        let offset = checksum_at(protocol).unwrap();
        let len = u32::try_from(frame.len() - start).unwrap();
        let pseudo = checksum::partial(env.src.ip(), env.dst.ip(), protocol, len);
        bytes::put(&mut frame, start + offset, pseudo.to_be_bytes());
        let kind = match (tcp, v6) {
            (true, false) => GsoKind::Tcp4,
            (true, true) => GsoKind::Tcp6,
            (false, _) => GsoKind::Udp,
        };
        let checksum = Checksum::Partial { start: bytes::len16(start), offset: bytes::len16(offset) };
        let header_len = bytes::len16(frame.len() - payload.len());
        (Offload { checksum, gso: Some(Gso { kind, size, header_len }) }, frame)
    }

    fn finished(offload: Offload, frame: &[u8], caps: Capabilities) -> Vec<(Offload, Vec<u8>)> {
        let mut all = Vec::new();
        finish(offload, frame, caps, &mut |offload, frame| all.push((offload, frame.to_vec()))).unwrap();
        all
    }

    /// Reads a finished frame with another parser, whose checksums must agree: IPv4's identification, the sequence
    /// number, the flags byte, the payload.
    fn read(frame: &[u8]) -> (Option<u16>, u32, u8, Vec<u8>) {
        use etherparse::{NetSlice, SlicedPacket, TransportSlice};
        let packet = SlicedPacket::from_ethernet(frame).unwrap();
        let net = packet.net.unwrap();
        let ident = match &net {
            NetSlice::Ipv4(ip) => {
                let header = ip.header().to_header();
                assert_eq!(header.header_checksum, header.calc_header_checksum());
                assert_eq!(usize::from(header.total_len), frame.len() - 14);
                Some(header.identification)
            }
            NetSlice::Ipv6(ip) => {
                assert_eq!(usize::from(ip.header().payload_length()), frame.len() - 54);
                None
            }
            NetSlice::Arp(_) => panic!("ARP"),
        };
        match packet.transport.unwrap() {
            TransportSlice::Tcp(tcp) => {
                let (header, payload) = (tcp.to_header(), tcp.payload());
                let sum = match &net {
                    NetSlice::Ipv4(ip) => header.calc_checksum_ipv4(&ip.header().to_header(), payload),
                    NetSlice::Ipv6(ip) => header.calc_checksum_ipv6(&ip.header().to_header(), payload),
                    NetSlice::Arp(_) => panic!("ARP"),
                };
                assert_eq!(Ok(header.checksum), sum);
                (ident, header.sequence_number, tcp.slice()[13], payload.to_vec())
            }
            TransportSlice::Udp(udp) => {
                let (header, payload) = (udp.to_header(), udp.payload());
                let sum = match &net {
                    NetSlice::Ipv4(ip) => header.calc_checksum_ipv4(&ip.header().to_header(), payload),
                    NetSlice::Ipv6(ip) => header.calc_checksum_ipv6(&ip.header().to_header(), payload),
                    NetSlice::Arp(_) => panic!("ARP"),
                };
                assert_eq!(Ok(header.checksum), sum);
                (ident, 0, 0, payload.to_vec())
            }
            _ => panic!("another transport"),
        }
    }

    #[test]
    fn a_train_is_cut_into_frames_that_another_parser_finds_right() {
        let payload: Vec<u8> = (0..2500_u32).map(|n| n.to_be_bytes()[3]).collect();
        for (v6, tcp) in [(false, true), (true, true), (false, false), (true, false)] {
            let (offload, frame) = train(v6, tcp, &payload, 1000);
            let all = finished(offload, &frame, Capabilities::default());
            assert!(all.iter().all(|(offload, _)| *offload == Offload::NONE));
            let read: Vec<_> = all.iter().map(|(_, frame)| read(frame)).collect();
            let whole: Vec<u8> = read.iter().flat_map(|(.., payload)| payload.clone()).collect();
            assert_eq!((read.len(), whole == payload), (3, true), "v6 {v6} tcp {tcp}");
            let idents: Vec<_> = read.iter().map(|read| read.0).collect();
            let counted = [Some(0xffff), Some(0), Some(1)];
            assert_eq!(idents, if v6 { [None; 3] } else { counted });
            if tcp {
                let seqs: Vec<_> = read.iter().map(|read| read.1).collect();
                assert_eq!(seqs, [0xffff_ff00, 0x2e8, 0x6d0]);
                assert_eq!(read.iter().map(|read| read.2).collect::<Vec<_>>(), [0x90, 0x10, 0x19]);
            }
        }
    }

    #[test]
    fn what_a_link_can_do_is_left_to_it() {
        let (offload, frame) = train(false, true, &[7; 2500], 1000);
        assert_eq!(finished(offload, &frame, ALL), [(offload, frame.clone())]);
        let sums_only = Capabilities { checksum: true, ..Capabilities::default() };
        let cut = finished(offload, &frame, sums_only);
        assert!(cut.iter().all(|(left, _)| *left == Offload { gso: None, ..offload }));
        // The rest of the work makes the same frames.
        let done: Vec<_> =
            cut.iter().flat_map(|(left, one)| finished(*left, one, Capabilities::default())).collect();
        assert_eq!(done, finished(offload, &frame, Capabilities::default()));
        let verified = Offload { checksum: Checksum::Verified, gso: None };
        assert_eq!(finished(verified, &frame, ALL), [(Offload::NONE, frame)]);
    }

    #[test]
    fn what_does_not_fit_the_frame_is_malformed_and_nothing_of_it_leaves() {
        let (good, frame) = train(false, true, &[7; 2500], 1000);
        let refused = |offload: Offload, frame: &[u8]| {
            let result = finish(offload, frame, Capabilities::default(), &mut |_, _| panic!("it left"));
            assert_eq!(result, Err(DropReason::Malformed), "{offload:?}");
        };
        let gso = good.gso.unwrap();
        for kind in [GsoKind::Tcp6, GsoKind::Udp] {
            refused(Offload { gso: Some(Gso { kind, ..gso }), ..good }, &frame);
        }
        for size in [0, 1, 7] {
            refused(Offload { gso: Some(Gso { size, ..gso }), ..good }, &frame);
        }
        refused(Offload { checksum: Checksum::Complete, ..good }, &frame);
        for (start, offset) in [(34, 6), (33, 16), (u16::MAX, 16), (34, u16::MAX)] {
            refused(Offload { checksum: Checksum::Partial { start, offset }, ..good }, &frame);
        }
        refused(Offload { checksum: Checksum::Partial { start: 34, offset: u16::MAX }, gso: None }, &frame);
        for cut in 0..58 {
            refused(good, &frame[..cut]);
        }
        for (at, value) in [(14, 0x65), (14, 0x46), (14, 0x44), (20, 0x20), (21, 1), (23, 17), (46, 0x40)] {
            let mut broken = frame.clone();
            broken[at] = value;
            refused(good, &broken);
        }
        let (countless, frame) = train(true, false, &[7; 2500], 19);
        refused(countless, &frame);
    }
}
