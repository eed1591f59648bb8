//! What a network card and the kernel's GSO/GRO code do: finish checksums, cut trains into segments, and glue segments
//! back into trains.
//!
//! The direction towards the guest checks the engine: a partial checksum must be the pseudo-header's sum over the
//! whole length, the header length must be right, and nothing may be left undone that the device did not offer.

use crate::packet::{ETHERNET_LEN, ETHERTYPE_IPV4, be16, be32, flag, protocol, sum};
use slipway_netstack::device::vnet::{Checksum, GsoKind};
use slipway_netstack::device::{Capabilities, Gso, Offload};

/// Where the parts of a frame lie.
#[derive(Debug, Clone, Copy)]
struct Parts {
    v4: bool,
    protocol: u8,
    /// First byte of the transport header.
    transport: usize,
    /// One behind the last byte of the packet.
    end: usize,
}

impl Parts {
    /// `None` for what is neither plain TCP nor plain UDP.
    fn of(frame: &[u8]) -> Option<Self> {
        if frame.len() < ETHERNET_LEN + 20 {
            return None;
        }
        let kind = be16(frame, 12);
        let ip = &frame[ETHERNET_LEN..];
        let (v4, number, header_len, total) = if kind == ETHERTYPE_IPV4 {
            (true, ip[9], usize::from(ip[0] & 15) * 4, usize::from(be16(ip, 2)))
        } else if kind == crate::packet::ETHERTYPE_IPV6 && ip.len() >= 40 {
            (false, ip[6], 40, 40 + usize::from(be16(ip, 4)))
        } else {
            return None;
        };
        let transport = ETHERNET_LEN + header_len;
        let end = ETHERNET_LEN + total;
        let known = number == protocol::TCP || number == protocol::UDP;
        let fragment = v4 && be16(ip, 6) & 0x3fff != 0;
        (known && !fragment && end <= frame.len() && transport + 8 <= end).then_some(Self {
            v4,
            protocol: number,
            transport,
            end,
        })
    }

    fn pseudo_sum(self, frame: &[u8], len: usize) -> u16 {
        let addresses = if self.v4 { &frame[26..34] } else { &frame[22..54] };
        let len = u32::try_from(len).expect("a packet's length");
        sum(sum(u16::from(self.protocol), &len.to_be_bytes()), addresses)
    }

    const fn checksum_at(self) -> usize {
        self.transport + if self.protocol == protocol::TCP { 16 } else { 6 }
    }

    fn header_len(self, frame: &[u8]) -> usize {
        let own =
            if self.protocol == protocol::TCP { usize::from(frame[self.transport + 12] >> 4) * 4 } else { 8 };
        self.transport + own
    }

    /// Writes the right checksum.
    fn complete(self, frame: &mut [u8]) {
        let at = self.checksum_at();
        frame[at..at + 2].fill(0);
        let start = self.pseudo_sum(frame, self.end - self.transport);
        let mut check = !sum(start, &frame[self.transport..self.end]);
        if check == 0 && self.protocol == protocol::UDP {
            check = 0xffff;
        }
        frame[at..at + 2].copy_from_slice(&check.to_be_bytes());
    }
}

/// Turns a frame from the engine into the complete frames that travel on a wire.
///
/// # Panics
/// When the engine left undone what `caps` does not offer, or described it wrongly.
#[must_use]
pub fn finish(caps: Capabilities, offload: Offload, frame: &[u8]) -> Vec<Vec<u8>> {
    let mut frame = frame.to_vec();
    match (offload.checksum, offload.gso) {
        (Checksum::Complete | Checksum::Verified, None) => vec![frame],
        (Checksum::Partial { start, offset }, gso) => {
            assert!(caps.checksum, "partial checksum to a device that completes none");
            let parts = Parts::of(&frame).expect("offload asked for something else than TCP or UDP");
            assert_eq!(usize::from(start), parts.transport, "csum_start");
            assert_eq!(usize::from(start + offset), parts.checksum_at(), "csum_offset");
            assert_eq!(
                be16(&frame, parts.checksum_at()),
                parts.pseudo_sum(&frame, parts.end - parts.transport),
                "a partial checksum holds the sum of the pseudo-header"
            );
            let Some(gso) = gso else {
                parts.complete(&mut frame);
                return vec![frame];
            };
            match gso.kind {
                GsoKind::Tcp4 => assert!(caps.tso4 && parts.v4, "TSO over IPv4 not offered"),
                GsoKind::Tcp6 => assert!(caps.tso6 && !parts.v4, "TSO over IPv6 not offered"),
                GsoKind::Udp => assert!(caps.uso, "USO not offered"),
            }
            assert_eq!(gso.kind == GsoKind::Udp, parts.protocol == protocol::UDP, "kind of train");
            assert_eq!(usize::from(gso.header_len), parts.header_len(&frame), "hdr_len");
            segment(gso, parts, &frame)
        }
        (_, Some(_)) => panic!("a train with a complete checksum: the kernel refuses it"),
    }
}

fn segment(gso: Gso, parts: Parts, frame: &[u8]) -> Vec<Vec<u8>> {
    let (header, payload) = frame[..parts.end].split_at(usize::from(gso.header_len));
    assert!(payload.len() <= 65_535, "a train above 64 KiB");
    let count = payload.len().div_ceil(usize::from(gso.size)).max(1);
    let mut out = Vec::with_capacity(count);
    for n in 0..count {
        let from = n * usize::from(gso.size);
        let piece = &payload[from..payload.len().min(from + usize::from(gso.size))];
        let mut one = [header, piece].concat();
        fix_lengths(parts, &mut one, n);
        if parts.protocol == protocol::TCP {
            let at = parts.transport;
            let seq = be32(&one, at + 4).wrapping_add(u32::try_from(from).expect("within a train"));
            one[at + 4..at + 8].copy_from_slice(&seq.to_be_bytes());
            if n + 1 < count {
                one[at + 13] &= !(flag::FIN | flag::PSH);
            }
            if n > 0 {
                one[at + 13] &= !flag::CWR;
            }
        }
        Parts { end: one.len(), ..parts }.complete(&mut one);
        out.push(one);
    }
    out
}

/// Makes the length fields, the IPv4 identifier and header checksum fit the frame.
fn fix_lengths(parts: Parts, frame: &mut [u8], nth: usize) {
    let total = crate::packet::len16(frame.len() - ETHERNET_LEN);
    if parts.protocol == protocol::UDP {
        let len = crate::packet::len16(frame.len() - parts.transport);
        frame[parts.transport + 4..parts.transport + 6].copy_from_slice(&len.to_be_bytes());
    }
    if parts.v4 {
        let id = be16(frame, 18).wrapping_add(crate::packet::len16(nth));
        frame[16..18].copy_from_slice(&total.to_be_bytes());
        frame[18..20].copy_from_slice(&id.to_be_bytes());
        frame[24..26].fill(0);
        let check = !sum(0, &frame[ETHERNET_LEN..parts.transport]);
        frame[24..26].copy_from_slice(&check.to_be_bytes());
    } else {
        frame[18..20].copy_from_slice(&(total - 40).to_be_bytes());
    }
}

/// What the guest's kernel would have sent through a TAP with the virtio-net header instead of `frames`: runs of
/// consecutive TCP segments become trains of at most 64 KiB, and no TCP or UDP checksum is complete.
#[must_use]
pub fn coalesce(frames: Vec<Vec<u8>>) -> Vec<(Offload, Vec<u8>)> {
    let mut out: Vec<(Offload, Vec<u8>)> = Vec::new();
    let mut open: Option<(Gso, Parts, Vec<u8>)> = None;
    for mut frame in frames {
        let Some(parts) = Parts::of(&frame) else {
            out.extend(open.take().map(close));
            out.push((Offload::NONE, frame));
            continue;
        };
        frame.truncate(parts.end);
        let header_len = parts.header_len(&frame);
        if let Some((gso, train_parts, train)) = &mut open {
            if continues(*gso, *train_parts, train, parts, &frame) {
                train.extend_from_slice(&frame[header_len..]);
                train_parts.end = train.len();
                let last_flags = frame[parts.transport + 13];
                train[train_parts.transport + 13] |= last_flags & (flag::PSH | flag::FIN);
                let short = frame.len() - header_len < usize::from(gso.size);
                if short || last_flags & (flag::PSH | flag::FIN) != 0 {
                    out.extend(open.take().map(close));
                }
                continue;
            }
            out.extend(open.take().map(close));
        }
        let size = frame.len() - header_len;
        let kind = if parts.v4 { GsoKind::Tcp4 } else { GsoKind::Tcp6 };
        let header_len = crate::packet::len16(header_len);
        let tcp = parts.protocol == protocol::TCP;
        let growing = tcp && size > 0 && frame[parts.transport + 13] & !flag::ACK == 0;
        open = Some((Gso { kind, size: crate::packet::len16(size), header_len }, parts, frame));
        if !growing {
            out.extend(open.take().map(close));
        }
    }
    out.extend(open.take().map(close));
    out
}

/// Whether `frame` is the next segment of the train.
fn continues(gso: Gso, train_parts: Parts, train: &[u8], parts: Parts, frame: &[u8]) -> bool {
    let (t, f) = (train_parts.transport, parts.transport);
    let header_len = parts.header_len(frame);
    let carried = train.len() - usize::from(gso.header_len);
    let payload = frame.len() - header_len;
    let flags = frame[f + 13];
    parts.protocol == protocol::TCP
        && t == f
        && header_len == usize::from(gso.header_len)
        && (1..=usize::from(gso.size)).contains(&payload)
        && train.len() + payload <= ETHERNET_LEN + 65_535
        && flags & !(flag::ACK | flag::PSH | flag::FIN) == 0
        // Same addresses and ports, same acknowledgement, window and options.
        && train[26..34] == frame[26..34]
        && (parts.v4 || train[22..54] == frame[22..54])
        && train[t..t + 4] == frame[f..f + 4]
        && train[t + 8..t + 12] == frame[f + 8..f + 12]
        && train[t + 14..t + 16] == frame[f + 14..f + 16]
        && train[t + 20..usize::from(gso.header_len)] == frame[f + 20..header_len]
        && be32(train, t + 4).wrapping_add(u32::try_from(carried).expect("within a train"))
            == be32(frame, f + 4)
}

fn close((gso, parts, mut train): (Gso, Parts, Vec<u8>)) -> (Offload, Vec<u8>) {
    fix_lengths(parts, &mut train, 0);
    let at = parts.checksum_at();
    let partial = parts.pseudo_sum(&train, parts.end - parts.transport);
    train[at..at + 2].copy_from_slice(&partial.to_be_bytes());
    let checksum = Checksum::Partial {
        start: crate::packet::len16(parts.transport),
        offset: crate::packet::len16(at - parts.transport),
    };
    let payload = train.len() - usize::from(gso.header_len);
    let gso = (payload > usize::from(gso.size) && parts.protocol == protocol::TCP).then_some(gso);
    (Offload { checksum, gso }, train)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{Frame, Tcp, Udp, ethernet};
    use slipway_netstack::addr::MacAddr;

    const ALL: Capabilities = Capabilities { checksum: true, tso4: true, tso6: true, uso: true };

    fn frames(from: &str, to: &str) -> Vec<Vec<u8>> {
        let (from, to) = (from.parse().unwrap(), to.parse().unwrap());
        let (a, b) = (MacAddr([2, 0, 0, 0, 0, 1]), MacAddr([2, 0, 0, 0, 0, 2]));
        let segment = Tcp { seq: 0xffff_ff00, ..Tcp::default() }.acking(7).window(100).timestamps(1, 2);
        (0..4u32)
            .map(|n| {
                let len = if n == 3 { 500 } else { 1000 };
                let last = if n == 3 { flag::PSH } else { 0 };
                let one =
                    segment.clone().seq_plus(n * 1000).with(last).data(vec![u8::try_from(n).unwrap(); len]);
                ethernet(a, b, &one.packet(from, to).emit())
            })
            .collect()
    }

    #[test]
    fn trains_come_apart_as_they_were_glued() {
        for (from, to) in [("10.0.2.100:1", "1.2.3.4:80"), ("[fd00::1]:1", "[2001:db8::1]:80")] {
            let before = frames(from, to);
            let glued = coalesce(before.clone());
            assert_eq!(glued.len(), 1);
            let after = finish(ALL, glued[0].0, &glued[0].1);
            let parsed = |frames: &[Vec<u8>]| frames.iter().map(|f| Frame::parse(f).body).collect::<Vec<_>>();
            assert_eq!(parsed(&after), parsed(&before));
        }
    }

    #[test]
    fn other_frames_stay_alone() {
        let (a, b) = (MacAddr([2, 0, 0, 0, 0, 1]), MacAddr([2, 0, 0, 0, 0, 2]));
        let one = ethernet(
            a,
            b,
            &Udp::packet("10.0.2.100:1".parse().unwrap(), "1.2.3.4:5".parse().unwrap(), b"x").emit(),
        );
        let glued = coalesce(vec![one.clone(), one.clone()]);
        assert_eq!(glued.len(), 2);
        assert_eq!(finish(ALL, glued[0].0, &glued[0].1), [one]);
    }
}
