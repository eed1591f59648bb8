//! TCP segments as they arrive and as they leave.

use super::options::{MAX_SACK_BLOCKS, Options, Timestamps, Written};
use super::seq::{Range, SeqNum};
use crate::addr::MacAddr;
use crate::clock::Instant;
use crate::device::vnet::{Checksum, GsoKind};
use crate::device::{Device, Full};
use crate::drop_reason::DropReason;
use crate::frame::{Cut, Envelope, Transport, Tx, assemble};
use crate::headers::ETHERNET_LEN;
use crate::surely::Surely;
use crate::transport::table::Key;
use core::net::IpAddr;
use smoltcp::wire::TcpPacket;

/// The control bits (RFC 9293 §3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Flags(pub(crate) u8);

impl Flags {
    pub(crate) const FIN: Self = Self(0x01);
    pub(crate) const SYN: Self = Self(0x02);
    pub(crate) const RST: Self = Self(0x04);
    pub(crate) const PSH: Self = Self(0x08);
    pub(crate) const ACK: Self = Self(0x10);
    pub(crate) const URG: Self = Self(0x20);

    pub(crate) const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(crate) const fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    pub(crate) const fn fin(self) -> bool {
        self.has(Self::FIN)
    }

    pub(crate) const fn syn(self) -> bool {
        self.has(Self::SYN)
    }

    pub(crate) const fn rst(self) -> bool {
        self.has(Self::RST)
    }

    pub(crate) const fn ack(self) -> bool {
        self.has(Self::ACK)
    }
}

/// A segment from the guest.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Segment<'a> {
    pub(crate) src_port: u16,
    pub(crate) dst_port: u16,
    pub(crate) seq: SeqNum,
    pub(crate) ack: SeqNum,
    pub(crate) flags: Flags,
    /// As in the header: not yet scaled.
    pub(crate) window: u16,
    /// Where urgent data ends, in bytes from `seq`; 0: there is none.
    pub(crate) urgent: u16,
    pub(crate) options: Options,
    /// The largest segment that its sender surely takes, if an MSS option does not say otherwise.
    pub(crate) default_mss: u16,
    pub(crate) payload: &'a [u8],
}

impl<'a> Segment<'a> {
    /// Reads and verifies a segment.
    pub(crate) fn parse(
        bytes: &'a [u8],
        src: IpAddr,
        dst: IpAddr,
        checksum: Checksum,
    ) -> Result<Self, DropReason> {
        let packet = TcpPacket::new_checked(bytes).map_err(|_| DropReason::Malformed)?;
        if checksum.is_wrong(|| packet.verify_checksum(&src.into(), &dst.into())) {
            return Err(DropReason::Checksum);
        }
        if packet.src_port() == 0 || packet.dst_port() == 0 {
            return Err(DropReason::Malformed);
        }
        let header_len = usize::from(packet.header_len());
        let flags = bytes.get(13).copied().surely();
        Ok(Self {
            src_port: packet.src_port(),
            dst_port: packet.dst_port(),
            seq: SeqNum(packet.seq_number().0.cast_unsigned()),
            ack: SeqNum(packet.ack_number().0.cast_unsigned()),
            flags: Flags(flags),
            window: packet.window_len(),
            urgent: if Flags(flags).has(Flags::URG) { packet.urgent_at() } else { 0 },
            options: Options::parse(bytes.get(20..header_len).surely()),
            // RFC 9293 §3.7.1: what fits the smallest packet that every host of the family takes.
            default_mss: if src.is_ipv4() { 536 } else { 1220 },
            payload: bytes.get(header_len..).surely(),
        })
    }

    /// Sequence space that it occupies: payload, SYN and FIN.
    pub(crate) fn space(&self) -> u32 {
        len32(self.payload) + u32::from(self.flags.syn()) + u32::from(self.flags.fin())
    }
}

/// A payload's length; a packet holds at most 65,535 bytes.
pub(crate) fn len32(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).surely_or(u32::MAX)
}

/// The varying part of a segment to the guest.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Out {
    pub(crate) seq: SeqNum,
    pub(crate) ack: SeqNum,
    pub(crate) flags: Flags,
    /// Already scaled.
    pub(crate) window: u16,
}

/// What the options of all segments of one flush say.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Head {
    pub(crate) ts_recent: Option<u32>,
    /// Added to our timestamp clock, so that it tells nothing about uptime (RFC 7323 §7.1).
    pub(crate) ts_offset: u32,
    pub(crate) blocks: [Option<Range>; MAX_SACK_BLOCKS],
}

impl Head {
    /// Option bytes of a data segment.
    pub(crate) fn options(&self, now: Instant) -> Written {
        let mut options = Written::new();
        if let Some(echo) = self.ts_recent {
            options.timestamps(Timestamps { value: timestamp(now, self.ts_offset), echo });
        }
        options.sack(self.blocks.iter().copied().flatten());
        options
    }
}

/// Our timestamp clock: milliseconds (RFC 7323 §5.4 allows 1 ms to 1 s a tick).
pub(crate) const fn timestamp(now: Instant, offset: u32) -> u32 {
    now.as_millis_wrapping().wrapping_add(offset)
}

/// The link was full before a segment had left whole: so many bytes of its payload have left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Short(pub(crate) usize);

impl From<Full> for Short {
    fn from(_: Full) -> Self {
        Self(0)
    }
}

/// The way out for the segments of one flow.
pub(crate) struct Wire<'a, 'b, D> {
    pub(crate) key: &'a Key,
    pub(crate) mac: MacAddr,
    pub(crate) out: &'a mut Tx<'b, D>,
    pub(crate) now: Instant,
    /// The last byte of urgent data, if the guest has not acknowledged it.
    pub(crate) urgent: Option<SeqNum>,
}

impl<D: Device> Wire<'_, '_, D> {
    /// Sends a segment whose payload are the first `len` bytes of the frame buffer. With `mss` the payload may
    /// be longer than that and leaves as a train, or as several frames when the device builds none.
    ///
    /// # Errors
    /// [`Short`] when the link became full.
    pub(crate) fn send(
        &mut self,
        segment: &Out,
        head: &Head,
        len: usize,
        mss: Option<u16>,
    ) -> Result<(), Short> {
        let options = head.options(self.now);
        self.send_with(segment, options.bytes(), len, mss)
    }

    pub(crate) fn send_with(
        &mut self,
        segment: &Out,
        options: &[u8],
        len: usize,
        mss: Option<u16>,
    ) -> Result<(), Short> {
        let (capable, kind) = match self.key.guest.ip() {
            IpAddr::V4(_) => (self.out.caps.tso4, GsoKind::Tcp4),
            IpAddr::V6(_) => (self.out.caps.tso6, GsoKind::Tcp6),
        };
        match mss {
            // Whoever cuts a train gives each segment the same urgent pointer, which then leads astray.
            Some(mss) if len > usize::from(mss) && (!capable || self.urgent.is_some()) => {
                let mut at = 0;
                while at < len {
                    let part = usize::from(mss).min(len - at);
                    let mut piece = *segment;
                    piece.seq = segment.seq.plus(u32::try_from(at).surely());
                    if at + part < len {
                        piece.flags = Flags(piece.flags.0 & !(Flags::PSH.0 | Flags::FIN.0));
                    }
                    self.frame(&piece, options, at, part, Cut::Whole).map_err(|Full| Short(at))?;
                    at += part;
                }
                Ok(())
            }
            Some(mss) => self.frame(segment, options, 0, len, Cut::Train(kind, mss)).map_err(Short::from),
            None => self.frame(segment, options, 0, len, Cut::Whole).map_err(Short::from),
        }
    }

    fn frame(
        &mut self,
        segment: &Out,
        options: &[u8],
        skip: usize,
        len: usize,
        cut: Cut,
    ) -> Result<(), Full> {
        let mut header = [0; 60];
        let header_len = write_header(&mut header, self.key, segment, options);
        if let Some(last) = self.urgent {
            mark_urgent(&mut header, segment.seq, last);
        }
        let transport = Transport::tcp(header.get(..header_len).surely());
        self.out.send(&envelope(self.key, self.mac), &transport, skip, len, cut)
    }
}

const fn envelope(key: &Key, mac: MacAddr) -> Envelope {
    Envelope { to_mac: mac, src: key.peer, dst: key.guest, hops: 64, traffic_class: 0, ident: None }
}

/// Writes the header; returns its length.
fn write_header(into: &mut [u8; 60], key: &Key, segment: &Out, options: &[u8]) -> usize {
    let len = 20 + options.len();
    let ([s0, s1], [d0, d1]) = (key.peer.port().to_be_bytes(), key.guest.port().to_be_bytes());
    let ([q0, q1, q2, q3], [a0, a1, a2, a3]) = (segment.seq.0.to_be_bytes(), segment.ack.0.to_be_bytes());
    let [w0, w1] = segment.window.to_be_bytes();
    let offset = u8::try_from(len / 4).surely_or(5) << 4;
    let fixed = [s0, s1, d0, d1, q0, q1, q2, q3, a0, a1, a2, a3, offset, segment.flags.0, w0, w1, 0, 0, 0, 0];
    if let Some((head, tail)) = into.split_first_chunk_mut::<20>() {
        *head = fixed;
        if let Some(place) = tail.get_mut(..options.len()) {
            place.copy_from_slice(options);
        }
    }
    len
}

/// RFC 9293 §3.8.5, RFC 6093 §2.1: a segment before or at the last urgent byte says how far behind it that data ends,
/// if it is near enough for 16 bits. A later segment, or a repeat, will say it then.
fn mark_urgent(header: &mut [u8; 60], seq: SeqNum, last: SeqNum) {
    if !seq.before_or_at(last) {
        return;
    }
    let Ok(pointer) = u16::try_from(last.plus(1).since(seq)) else { return };
    let [high, low] = pointer.to_be_bytes();
    header[13] |= Flags::URG.0;
    (header[18], header[19]) = (high, low);
}

/// The guest's SYN as it must have looked, for the ICMP error that quotes it: the addresses, ports and sequence number
/// are what the guest's kernel looks at (RFC 792, RFC 4443 §2.4).
pub(crate) fn syn_packet(key: &Key, seq: SeqNum) -> Vec<u8> {
    let swapped = Key { kind: key.kind, guest: key.peer, peer: key.guest };
    let segment = Out { seq, ack: SeqNum(0), flags: Flags::SYN, window: u16::MAX };
    let mut header = [0; 60];
    let len = write_header(&mut header, &swapped, &segment, &[]);
    let transport = Transport::tcp(header.get(..len).surely());
    let nobody = MacAddr([0; 6]);
    let frame = assemble(nobody, &envelope(&swapped, nobody), &transport, &[]);
    frame.get(ETHERNET_LEN..).surely().to_vec()
}

/// A RST as a frame of its own: for segments of no flow, and for flows that have just ended.
pub(crate) fn reset_frame(
    our_mac: MacAddr,
    mac: MacAddr,
    key: &Key,
    seq: SeqNum,
    ack: Option<SeqNum>,
) -> Vec<u8> {
    let flags = if ack.is_some() { Flags::RST.and(Flags::ACK) } else { Flags::RST };
    let segment = Out { seq, ack: ack.unwrap_or_default(), flags, window: 0 };
    let mut header = [0; 60];
    let len = write_header(&mut header, key, &segment, &[]);
    let transport = Transport::tcp(header.get(..len).surely());
    assemble(our_mac, &envelope(key, mac), &transport, &[])
}
