//! Frames from one guest to another, when nothing beside the frame says what its sender left to its network card.
//!
//! Some hypervisors let their guest leave checksums and cutting to the card and then send what it gave them as it is
//! (libkrun: CSUM, TSO and UFO, over a socket without any header). To the engine that does no harm: it takes packets of
//! any length, and checksums of such guests are not looked at. Another guest would find the checksum wrong, and has no
//! buffer for a frame beyond its MTU. So what was left undone is told from the frame itself, and done here:
//!
//! | frame | what becomes of it |
//! |---|---|
//! | checksum field holds the pseudo-header's sum, as whoever leaves it writes there | completed |
//! | TCP beyond the MTU | cut into segments |
//! | UDP beyond the MTU, and it may be fragmented | cut into fragments: so a card does with UFO (virtio 1.2 §5.1.6.2.1) |
//! | all others, fragments among them | left as they are |
//!
//! A complete checksum may happen to be the pseudo-header's sum, once in 65 536: then the rest adds up to nothing, and
//! completing writes the same value again. Beyond the MTU a checksum that is neither must fit, for new ones are written
//! over it. A VLAN tag stands in front of each part of what it stood in front of.

use crate::bytes;
use crate::checksum;
use crate::device::vnet::{Checksum, GsoKind};
use crate::device::{Capabilities, Gso, Offload, segment};
use crate::drop_reason::DropReason;
use crate::headers::{ETHERNET_LEN, IPV4_LEN, IPV6_LEN, PROTO_TCP, PROTO_UDP, checksum_at};
use crate::ip::fragment::fragment;
use core::net::IpAddr;

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
/// IEEE 802.1Q §9.5: customer and service tags.
const TAGS: [u16; 2] = [0x8100, 0x88a8];
const TAG_LEN: usize = 4;
/// Both hardware addresses, behind which the tag stands.
const ADDRESSES_LEN: usize = 12;

/// Makes of a guest's frame what any guest with this MTU (of IP, in bytes) takes, on a link with `caps`. What comes of
/// it goes to `out`, in order.
///
/// # Errors
/// A frame that must be changed but makes no sense. Nothing was handed out.
pub fn finish(
    frame: &[u8],
    mtu: usize,
    caps: Capabilities,
    out: &mut dyn FnMut(Offload, &[u8]),
) -> Result<(), DropReason> {
    let Some(packet) = Transport::of(frame) else {
        out(Offload::NONE, frame);
        return Ok(());
    };
    let partial = packet.is_partial();
    if packet.whole.len() - packet.ip <= mtu {
        let checksum = if partial { packet.left_to_do() } else { Checksum::Complete };
        let frame = if partial { packet.whole } else { frame };
        return segment::finish(Offload { checksum, gso: None }, frame, caps, out);
    }
    if packet.ip != ETHERNET_LEN {
        return behind_tag(packet.whole, mtu, out);
    }
    match packet.protocol {
        PROTO_TCP => {
            if !partial && !packet.fits() {
                return Err(DropReason::Checksum);
            }
            let gso = packet.train(mtu).ok_or(DropReason::Malformed)?;
            let offload = Offload { checksum: packet.left_to_do(), gso: Some(gso) };
            segment::finish(offload, packet.whole, caps, out)
        }
        _ => packet.fragments(mtu, partial, out),
    }
}

/// The same for a frame that is too long, with the tag aside meanwhile.
fn behind_tag(frame: &[u8], mtu: usize, out: &mut dyn FnMut(Offload, &[u8])) -> Result<(), DropReason> {
    let (addresses, rest) = frame.split_at_checked(ADDRESSES_LEN).ok_or(DropReason::Malformed)?;
    let (tag, rest) = rest.split_at_checked(TAG_LEN).ok_or(DropReason::Malformed)?;
    let mut one = Vec::with_capacity(ETHERNET_LEN + TAG_LEN + mtu);
    finish(&[addresses, rest].concat(), mtu, Capabilities::default(), &mut |_, part| {
        let (addresses, rest) = part.split_at_checked(ADDRESSES_LEN).unwrap_or((part, &[]));
        one.clear();
        [addresses, tag, rest].iter().for_each(|piece| one.extend_from_slice(piece));
        out(Offload::NONE, &one);
    })
}

/// A frame with TCP or UDP in it.
struct Transport<'a> {
    /// Without what lies behind the packet.
    whole: &'a [u8],
    protocol: u8,
    ends: (IpAddr, IpAddr),
    /// First byte of the IP header.
    ip: usize,
    /// First byte of the transport header.
    start: usize,
}

impl<'a> Transport<'a> {
    /// `None`: another frame, or one with a part of a datagram.
    fn of(frame: &'a [u8]) -> Option<Self> {
        let (mut kind, mut ip) = (bytes::be16(frame, 12)?, ETHERNET_LEN);
        if TAGS.contains(&kind) {
            (kind, ip) = (bytes::be16(frame, 12 + TAG_LEN)?, ETHERNET_LEN + TAG_LEN);
        }
        let packet = frame.get(ip..)?;
        let (len, header_len, protocol, ends) = match kind {
            IPV4 => {
                // A fragment has no whole checksum.
                (bytes::be16(packet, 6)? & 0x3fff == 0).then_some(())?;
                let header_len = usize::from(bytes::byte(packet, 0)? & 15) * 4;
                let ends = (bytes::ipv4(packet, 12)?.into(), bytes::ipv4(packet, 16)?.into());
                (bytes::be16(packet, 2)?.into(), header_len, bytes::byte(packet, 9)?, ends)
            }
            IPV6 => {
                let ends = (bytes::ipv6(packet, 8)?.into(), bytes::ipv6(packet, 24)?.into());
                let len = usize::from(bytes::be16(packet, 4)?) + IPV6_LEN;
                (len, IPV6_LEN, bytes::byte(packet, 6)?, ends)
            }
            _ => return None,
        };
        let shortest = match protocol {
            PROTO_TCP => 20,
            PROTO_UDP => 8,
            _ => return None,
        };
        let version = bytes::byte(packet, 0)? >> 4 == if kind == IPV4 { 4 } else { 6 };
        let whole = frame.get(..ip + len)?;
        let fits = version && header_len >= IPV4_LEN && len >= header_len + shortest;
        fits.then_some(Self { whole, protocol, ends, ip, start: ip + header_len })
    }

    fn segment(&self) -> &'a [u8] {
        self.whole.get(self.start..).unwrap_or_default()
    }

    fn offset(&self) -> usize {
        if self.protocol == PROTO_TCP { 16 } else { 6 }
    }

    /// Whether the field holds the sum of the pseudo-header.
    fn is_partial(&self) -> bool {
        let len = u32::try_from(self.segment().len()).unwrap_or(u32::MAX);
        let expected = checksum::partial(self.ends.0, self.ends.1, self.protocol, len);
        bytes::be16(self.segment(), self.offset()) == Some(expected)
    }

    fn fits(&self) -> bool {
        checksum::transport_fits(self.ends.0, self.ends.1, self.protocol, self.segment())
    }

    fn left_to_do(&self) -> Checksum {
        let offset = checksum_at(self.protocol).unwrap_or_default();
        Checksum::Partial { start: bytes::len16(self.start), offset: bytes::len16(offset) }
    }

    /// How TCP is cut.
    fn train(&self, mtu: usize) -> Option<Gso> {
        let own = usize::from(bytes::byte(self.segment(), 12)? >> 4) * 4;
        let kind = if self.ends.0.is_ipv4() { GsoKind::Tcp4 } else { GsoKind::Tcp6 };
        let size = (mtu + self.ip).checked_sub(self.start + own)?;
        Some(Gso { kind, size: bytes::len16(size), header_len: bytes::len16(self.start + own) })
    }

    /// A datagram in fragments, or as it is if it must not be cut.
    fn fragments(
        &self,
        mtu: usize,
        partial: bool,
        out: &mut dyn FnMut(Offload, &[u8]),
    ) -> Result<(), DropReason> {
        let mut whole = self.whole.to_vec();
        if partial {
            segment::complete(&mut whole, self.start, self.offset()).ok_or(DropReason::Malformed)?;
        }
        let (ethernet, packet) = whole.split_at_checked(self.ip).ok_or(DropReason::Malformed)?;
        let mut one = Vec::with_capacity(self.ip + mtu);
        // IPv6 has no identification of its own: the checksum differs from one datagram to the next.
        let ident = bytes::be16(packet, self.start - self.ip + self.offset()).map_or(0, u32::from);
        let cut = fragment(packet, mtu, ident, |part| {
            one.clear();
            one.extend_from_slice(ethernet);
            one.extend_from_slice(part);
            out(Offload::NONE, &one);
        });
        if cut.is_err() {
            out(Offload::NONE, &whole);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::MacAddr;
    use crate::frame::{self, Envelope, assemble};
    use crate::testing::envelope;
    use proptest::prelude::*;

    const MTU: usize = 1500;

    /// A frame whose checksum is complete.
    fn packet(v6: bool, tcp: bool, payload: &[u8]) -> Vec<u8> {
        let env = Envelope { ident: Some(7), ..envelope(v6) };
        let mut header = vec![0, 53, 3, 231];
        if tcp {
            header.extend([0, 0, 0, 1, 0, 0, 0, 7, 0x50, 0x18, 1, 0, 0, 0, 0, 0]);
        } else {
            header.extend(bytes::len16(payload.len() + 8).to_be_bytes());
            header.extend([0, 0]);
        }
        let transport = if tcp { frame::Transport::tcp(&header) } else { frame::Transport::udp(&header) };
        assemble(MacAddr([2; 6]), &env, &transport, payload)
    }

    /// The same with the checksum left to the card.
    fn undone(v6: bool, tcp: bool, payload: &[u8]) -> Vec<u8> {
        let mut frame = packet(v6, tcp, payload);
        let found = Transport::of(&frame).unwrap();
        let len = u32::try_from(found.segment().len()).unwrap();
        let sum = checksum::partial(found.ends.0, found.ends.1, found.protocol, len);
        let at = found.start + found.offset();
        bytes::put(&mut frame, at, sum.to_be_bytes());
        frame
    }

    fn finished(frame: &[u8]) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        finish(frame, MTU, Capabilities::default(), &mut |offload, frame| {
            assert_eq!(offload, Offload::NONE);
            all.push(frame.to_vec());
        })
        .unwrap();
        all
    }

    const KINDS: [(bool, bool); 4] = [(false, true), (true, true), (false, false), (true, false)];

    #[test]
    fn a_checksum_that_was_left_is_completed_and_a_complete_one_left_alone() {
        for (v6, tcp) in KINDS {
            let whole = packet(v6, tcp, b"some payload!");
            let left = undone(v6, tcp, b"some payload!");
            assert_ne!(whole, left);
            assert_eq!((finished(&left), finished(&whole)), (vec![whole.clone()], vec![whole.clone()]));
            // What fills a short frame up is no part of the sum.
            assert_eq!(finished(&[&left[..], &[9; 5]].concat()), std::slice::from_ref(&whole));
            // One that is wrong is for the other guest to judge.
            let mut wrong = whole;
            let last = wrong.len() - 1;
            wrong[last] ^= 1;
            assert_eq!(finished(&wrong), [wrong.clone()]);
        }
    }

    #[test]
    fn what_is_beyond_the_mtu_is_cut_and_adds_up() {
        let payload: Vec<u8> = (0..60_000_u32).map(|n| n.to_be_bytes()[3]).collect();
        for (v6, tcp) in KINDS {
            let all = finished(&undone(v6, tcp, &payload));
            assert_eq!(all, finished(&packet(v6, tcp, &payload)), "with its checksum as without");
            assert!(all.iter().all(|frame| frame.len() <= MTU + ETHERNET_LEN));
            let headers = ETHERNET_LEN + if v6 { IPV6_LEN } else { IPV4_LEN };
            let skipped = match (v6, tcp) {
                (_, true) => headers + 20,
                (true, false) => headers + 8,
                (false, false) => headers,
            };
            let bytes: Vec<u8> = all.iter().flat_map(|frame| frame[skipped..].to_vec()).collect();
            if tcp {
                assert!(all.iter().all(|frame| Transport::of(frame).unwrap().fits()));
                assert_eq!(bytes, payload);
            } else {
                assert_eq!(bytes[8..], payload, "one UDP header, in the first fragment");
            }
        }
    }

    #[test]
    fn what_may_not_be_cut_or_is_not_understood_crosses_as_it_is() {
        let mut whole = packet(false, false, &[7; 4000]);
        whole[20] |= 0x40;
        assert_eq!(finished(&whole), [whole.clone()]);
        let tagged = |frame: &[u8]| [&frame[..12], &[0x81, 0, 0, 5], &frame[12..]].concat();
        let (left, good) = (undone(false, true, &[7; 100]), packet(false, true, &[7; 100]));
        assert_eq!(finished(&tagged(&left)), [tagged(&good)], "behind a tag");
        for (v6, tcp) in KINDS {
            let parts = finished(&undone(v6, tcp, &[7; 4000]));
            let expected: Vec<_> = parts.iter().map(|part| tagged(part)).collect();
            assert!(expected.len() > 2 && finished(&tagged(&undone(v6, tcp, &[7; 4000]))) == expected);
        }
        let twice = tagged(&tagged(&packet(false, true, &[7; 4000])));
        assert_eq!(finished(&twice), std::slice::from_ref(&twice), "only one tag is understood");
        for other in [vec![0; 14], vec![], vec![0xff; 9000]] {
            assert_eq!(finished(&other), std::slice::from_ref(&other));
        }
        let mut fragment = undone(false, false, &[7; 100]);
        fragment[20] = 0x20;
        assert_eq!(finished(&fragment), [fragment.clone()]);
    }

    #[test]
    fn a_train_with_a_wrong_checksum_gets_no_right_one() {
        let mut frame = packet(false, true, &[7; 4000]);
        frame[3000] ^= 1;
        let refused = finish(&frame, MTU, Capabilities::default(), &mut |_, _| panic!("it left"));
        assert_eq!(refused, Err(DropReason::Checksum));
    }

    proptest! {
        /// Whatever a guest writes, nothing comes out of it that is longer than what it wrote.
        #[test]
        fn any_bytes_are_borne(
            kind in 0..4_usize, at in 0..60_usize, value: u8, len in 0..3000_usize, cut in 0..80_usize,
        ) {
            let (v6, tcp) = KINDS[kind];
            let mut frame = undone(v6, tcp, &vec![3; len]);
            let place = at.min(frame.len() - 1);
            frame[place] = value;
            frame.truncate(frame.len().saturating_sub(cut));
            let mut total = 0;
            let _ = finish(&frame, MTU, Capabilities::default(), &mut |_, one| {
                total += one.len();
                assert!(one.len() <= frame.len() + 8);
            });
            prop_assert!(total <= frame.len() * 70);
        }
    }
}
