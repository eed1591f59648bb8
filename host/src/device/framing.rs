//! How frames follow each other on a stream: each behind its length.
//!
//! | framing | length | who |
//! |---|---|---|
//! | [`Framing::Be32`] | 32 bits, network order | QEMU (`-netdev stream`, `socket`) |
//! | [`Framing::Le16`] | 16 bits, little endian | HyperKit and VPNKit, gvforwarder, stdio |
//! | [`Framing::Fast`] | 32 bits, network order, of a virtio-net header and the frame | our gvforwarder ([`super::fast`]) |
//!
//! What lengths may be is the personality's to say ([`Lengths`]).

use super::MAX_FRAME;
use slipway_netstack::device::vnet::HEADER_LEN;
use std::io;

/// The length in front of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// 32 bits in network order.
    Be32,
    /// 16 bits, the low ones first.
    Le16,
    /// 32 bits in network order; a virtio-net header comes before the frame, and is counted.
    Fast,
}

impl Framing {
    /// Bytes of the length.
    #[must_use]
    pub const fn header_len(self) -> usize {
        match self {
            Self::Be32 | Self::Fast => 4,
            Self::Le16 => 2,
        }
    }

    /// The length that `bytes` begin with, if that is whole.
    #[must_use]
    pub fn length(self, bytes: &[u8]) -> Option<usize> {
        match self {
            Self::Be32 | Self::Fast => {
                let length = bytes.first_chunk().copied().map(u32::from_be_bytes)?;
                Some(usize::try_from(length).unwrap_or(usize::MAX))
            }
            Self::Le16 => bytes.first_chunk().copied().map(u16::from_le_bytes).map(usize::from),
        }
    }

    /// Writes the length of a frame; `false`: it has no room for that.
    #[must_use]
    pub fn put(self, len: usize, out: &mut Vec<u8>) -> bool {
        match self {
            Self::Be32 | Self::Fast => u32::try_from(len).map(|len| out.extend(len.to_be_bytes())).is_ok(),
            Self::Le16 => u16::try_from(len).map(|len| out.extend(len.to_le_bytes())).is_ok(),
        }
    }
}

/// What lengths may be. Behind one that is refused nobody knows where the next frame begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lengths {
    /// Those of frames; all others are refused (contract: pasta F.6).
    OfFrames,
    /// Up to 128 KiB (contract: gvproxy 5). What is no frame is read, and told as an empty one, which nobody takes.
    Any,
    /// Those of frames with a virtio-net header before them.
    OfFast,
}

/// An Ethernet header; what is shorter is no frame.
const SHORTEST: usize = 14;
/// The longest that is read.
pub const LONGEST: usize = 128 << 10;

impl Lengths {
    /// Whether a frame can be so long.
    #[must_use]
    pub fn allow(self, len: usize) -> bool {
        match self {
            Self::OfFrames => (SHORTEST..=MAX_FRAME).contains(&len),
            Self::Any => len <= LONGEST,
            Self::OfFast => (HEADER_LEN..=HEADER_LEN + MAX_FRAME).contains(&len),
        }
    }

    /// Why not.
    #[must_use]
    pub fn refusal(self, len: usize) -> io::Error {
        let reason = match self {
            Self::OfFrames => format!("Bad frame size from guest, resetting connection: {len}"),
            Self::Any => format!("invalid packet size: {len} is negative or exceeds maximum {LONGEST}"),
            Self::OfFast => format!("invalid packet size on the fast link: {len}"),
        };
        io::Error::new(io::ErrorKind::InvalidData, reason)
    }
}
