//! The virtio-net header's meaning: checksum and segmentation that one side leaves to the other.
//!
//! Source: Virtual I/O Device (VIRTIO) 1.2 §5.1.6; Linux `include/uapi/linux/virtio_net.h`. On the wire the
//! header is 10 bytes (12 with `num_buffers`), in the byte order of the host for a TAP. Here it is decoded
//! once at the border, so that the engine never sees a flag it does not understand.

/// Bytes of the legacy header, as a TAP with `IFF_VNET_HDR` uses it by default.
pub const HEADER_LEN: usize = 10;
/// Bytes of the header of a virtio network card (virtio 1.2 §5.1.6): little-endian, and behind it how many buffers the
/// frame takes.
pub const LE_HEADER_LEN: usize = 12;

const F_NEEDS_CSUM: u8 = 1;
const F_DATA_VALID: u8 = 2;
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
const GSO_ECN: u8 = 0x80;

/// What the sender of a frame left undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Offload {
    /// The transport checksum.
    pub checksum: Checksum,
    /// Whether the frame is a train of segments, and their size.
    pub gso: Option<Gso>,
}

/// State of a frame's transport checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Checksum {
    /// Complete in the frame, to be verified by the receiver.
    #[default]
    Complete,
    /// The field holds the pseudo-header sum only; the receiver is to sum from `start` and store at
    /// `start + offset`, both in bytes from the beginning of the frame.
    Partial {
        /// First byte that the sum covers.
        start: u16,
        /// Where the result goes, counted from `start`.
        offset: u16,
    },
    /// Somebody trustworthy has already verified it.
    Verified,
}

impl Checksum {
    /// Whether the checksum does not fit, as `verify` finds. It is not asked about a partial one, which comes from the
    /// guest's own kernel over memory: there is nothing to verify yet.
    pub(crate) fn is_wrong(self, verify: impl FnOnce() -> bool) -> bool {
        self == Self::Complete && !verify()
    }
}

/// A train of segments in one frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gso {
    /// Of what.
    pub kind: GsoKind,
    /// Payload bytes in each segment but the last. Never 0.
    pub size: u16,
    /// Bytes of all headers, from the beginning of the frame to the payload.
    pub header_len: u16,
}

/// What a train consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GsoKind {
    /// TCP over IPv4.
    Tcp4,
    /// TCP over IPv6.
    Tcp6,
    /// UDP datagrams, either family.
    Udp,
}

impl Offload {
    /// Nothing left undone: checksum complete, a single segment.
    pub const NONE: Self = Self { checksum: Checksum::Complete, gso: None };

    /// Decodes a header from a TAP (native byte order).
    ///
    /// `None` when a field has a value that we never offered to understand; the frame is then malformed.
    #[must_use]
    pub fn parse(header: &[u8; HEADER_LEN]) -> Option<Self> {
        Self::decode(header, u16::from_ne_bytes)
    }

    /// Decodes a header of a virtio card. How many buffers it has is of no matter in this direction.
    ///
    /// `None` as for [`Offload::parse`].
    #[must_use]
    pub fn parse_le(header: &[u8; LE_HEADER_LEN]) -> Option<Self> {
        Self::decode(header.first_chunk()?, u16::from_le_bytes)
    }

    /// Decodes a header between two programs: little-endian, without the number of buffers, of which a stream has none.
    ///
    /// `None` as for [`Offload::parse`].
    #[must_use]
    pub fn parse_short_le(header: &[u8; HEADER_LEN]) -> Option<Self> {
        Self::decode(header, u16::from_le_bytes)
    }

    /// Whether what it says lies within a frame of `len` bytes, and whoever leaves the cutting leaves the checksum, too
    /// (virtio 1.2 §5.1.6.2.1). How long a train's headers are is a hint that kernels fill in as it suits them: it is
    /// not looked at but for the frame's end.
    #[must_use]
    pub fn fits(self, len: usize) -> bool {
        let checksum = match self.checksum {
            Checksum::Partial { start, offset } => usize::from(start) + usize::from(offset) + 2 <= len,
            Checksum::Complete | Checksum::Verified => self.gso.is_none(),
        };
        checksum && self.gso.is_none_or(|gso| usize::from(gso.header_len) <= len)
    }

    /// Encodes it for a TAP (native byte order).
    #[must_use]
    pub fn emit(self) -> [u8; HEADER_LEN] {
        self.encode(u16::to_ne_bytes)
    }

    /// Encodes it for [`Offload::parse_short_le`].
    #[must_use]
    pub fn emit_short_le(self) -> [u8; HEADER_LEN] {
        self.encode(u16::to_le_bytes)
    }

    /// Encodes it for a virtio card, for a frame that takes so many buffers.
    #[must_use]
    pub fn emit_le(self, buffers: u16) -> [u8; LE_HEADER_LEN] {
        let [a, b, c, d, e, f, g, h, i, j] = self.encode(u16::to_le_bytes);
        let [k, l] = buffers.to_le_bytes();
        [a, b, c, d, e, f, g, h, i, j, k, l]
    }

    fn decode(header: &[u8; HEADER_LEN], number: impl Fn([u8; 2]) -> u16) -> Option<Self> {
        let [flags, gso_type, h0, h1, s0, s1, c0, c1, o0, o1] = *header;
        let size = number([s0, s1]);
        let checksum = if flags & F_NEEDS_CSUM != 0 {
            Checksum::Partial { start: number([c0, c1]), offset: number([o0, o1]) }
        } else if flags & F_DATA_VALID != 0 {
            Checksum::Verified
        } else {
            Checksum::Complete
        };
        let kind = match gso_type & !GSO_ECN {
            GSO_NONE => None,
            GSO_TCPV4 => Some(GsoKind::Tcp4),
            GSO_TCPV6 => Some(GsoKind::Tcp6),
            GSO_UDP_L4 => Some(GsoKind::Udp),
            _ => return None,
        };
        let gso = match kind {
            Some(_) if size == 0 => return None,
            Some(kind) => Some(Gso { kind, size, header_len: number([h0, h1]) }),
            None => None,
        };
        Some(Self { checksum, gso })
    }

    fn encode(self, bytes: impl Fn(u16) -> [u8; 2]) -> [u8; HEADER_LEN] {
        let (flags, start, offset) = match self.checksum {
            Checksum::Complete => (0, 0, 0),
            Checksum::Verified => (F_DATA_VALID, 0, 0),
            Checksum::Partial { start, offset } => (F_NEEDS_CSUM, start, offset),
        };
        let (kind, size, header_len) = match self.gso {
            None => (GSO_NONE, 0, 0),
            Some(gso) => {
                let kind = match gso.kind {
                    GsoKind::Tcp4 => GSO_TCPV4,
                    GsoKind::Tcp6 => GSO_TCPV6,
                    GsoKind::Udp => GSO_UDP_L4,
                };
                (kind, gso.size, gso.header_len)
            }
        };
        let ([h0, h1], [s0, s1]) = (bytes(header_len), bytes(size));
        let ([c0, c1], [o0, o1]) = (bytes(start), bytes(offset));
        [flags, kind, h0, h1, s0, s1, c0, c1, o0, o1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_emitted_parses_back() {
        for gso in [None, Some(GsoKind::Tcp4), Some(GsoKind::Tcp6), Some(GsoKind::Udp)] {
            for checksum in
                [Checksum::Complete, Checksum::Verified, Checksum::Partial { start: 34, offset: 16 }]
            {
                let offload =
                    Offload { checksum, gso: gso.map(|kind| Gso { kind, size: 1448, header_len: 66 }) };
                assert_eq!(Offload::parse(&offload.emit()), Some(offload));
                assert_eq!(Offload::parse_le(&offload.emit_le(7)), Some(offload));
                assert_eq!(Offload::parse_short_le(&offload.emit_short_le()), Some(offload));
            }
        }
    }

    #[test]
    fn a_cards_header_is_little_endian_and_counts_buffers() {
        let gso = Gso { kind: GsoKind::Tcp6, size: 0x0102, header_len: 0x0304 };
        let offload =
            Offload { checksum: Checksum::Partial { start: 0x0506, offset: 0x0708 }, gso: Some(gso) };
        assert_eq!(offload.emit_le(0x090a), [1, 4, 4, 3, 2, 1, 6, 5, 8, 7, 10, 9]);
        assert_eq!(offload.emit_short_le(), [1, 4, 4, 3, 2, 1, 6, 5, 8, 7]);
    }

    #[test]
    fn what_lies_beyond_the_frame_does_not_fit_it() {
        let partial = |start, offset| Checksum::Partial { start, offset };
        let gso = |header_len| Some(Gso { kind: GsoKind::Tcp4, size: 1448, header_len });
        for (checksum, gso, fits) in [
            (Checksum::Complete, None, true),
            (Checksum::Verified, None, true),
            (partial(34, 16), None, true),
            (partial(82, 16), None, true),
            (partial(83, 16), None, false),
            (partial(u16::MAX, u16::MAX), None, false),
            (partial(34, 16), gso(0), true),
            (partial(34, 16), gso(100), true),
            (partial(34, 16), gso(101), false),
            (Checksum::Complete, gso(54), false),
            (Checksum::Verified, gso(54), false),
        ] {
            assert_eq!(Offload { checksum, gso }.fits(100), fits, "{checksum:?} {gso:?}");
        }
    }

    #[test]
    fn unknown_or_empty_trains_are_malformed() {
        let mut header = Offload::NONE.emit();
        header[1] = 3; // VIRTIO_NET_HDR_GSO_UDP, the fragmenting kind, is never offered.
        assert_eq!(Offload::parse(&header), None);
        header[1] = GSO_TCPV4;
        assert_eq!(Offload::parse(&header), None, "a train of segments of size zero");
    }
}
