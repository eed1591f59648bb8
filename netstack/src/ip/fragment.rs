//! Fragments: putting the guest's together, and cutting packets that are too large for its link.
//!
//! Sources: RFC 791 §3.2 (IPv4), RFC 8200 §4.5 (IPv6), RFC 815 (the idea of holes), RFC 5722 and RFC 8900 §3.7
//! (overlaps), RFC 6946 (atomic fragments), RFC 3168 §5.3 (congestion marks).
//!
//! **Bounds.** [`DATAGRAMS`] in the making, [`MEMORY`] bytes for all, [`PIECES`] pieces and 65535 bytes for one, and
//! [`TIMEOUT`] from the first piece to arrive to the last. What exceeds the first two pushes out the oldest datagram: a
//! guest that floods us with first halves hurts nobody but itself. All datagrams have the same time to live, so they
//! sit in order of age and the oldest one holds the only deadline.
//!
//! **Overlaps.** Pieces that overlap are an attack or a collision of identifiers: the whole datagram is discarded, and
//! so is what still comes of it until its time is up (RFC 5722 §4; in IPv4 Linux does the same). A piece that came
//! twice with the same bytes is no overlap but an ordinary duplicate (RFC 8200 §4.5) and is ignored.
//!
//! RFC 8200 §4.5 asks for a parameter problem message about a fragment of impossible length or place; it is dropped and
//! counted instead (deviation): the only guest to be told is one that made it by hand.
//!
//! Each piece is kept in its own allocation, so memory follows what was really sent, not what offsets claim.

use crate::bytes;
use crate::checksum;
use crate::clock::Instant;
use crate::drop_reason::DropReason;
use crate::ip::extension::{self, FIXED_LEN, Upper};
use core::net::IpAddr;
use core::time::Duration;
use std::collections::VecDeque;

pub(crate) use cut::take_ident;
pub use cut::{Uncut, fragment};

mod cut;

/// Datagrams in the making.
pub const DATAGRAMS: usize = 64;
/// Bytes that all of them may hold.
pub const MEMORY: usize = 1 << 20;
/// Pieces of one datagram. At the least MTU of IPv6 54 are enough, at IPv4's customary 576 bytes 119.
pub const PIECES: usize = 256;
/// From the first piece of a datagram to its last.
pub const TIMEOUT: Duration = Duration::from_secs(15);

/// The largest total length of IPv4, and the largest payload length of IPv6.
const LARGEST: usize = 65_535;
/// What a piece costs besides its bytes.
const OVERHEAD: usize = 64;

/// What became of a fragment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reassembled {
    /// It was the last one missing: the whole packet, with its fixed header (and in IPv6 the headers before the
    /// fragment header), no longer a fragment.
    Complete(Vec<u8>),
    /// It is kept, or was known already.
    Waiting,
    /// It was discarded, perhaps with the rest of its datagram.
    Dropped(DropReason),
}

/// A datagram whose time was up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expired {
    /// Its first fragment, as a packet to be quoted in an ICMP error (RFC 792, RFC 4443 §3.3); without the first
    /// fragment no error is sent.
    pub first: Option<Vec<u8>>,
}

/// Which datagram a fragment belongs to (RFC 791 §3.2, RFC 8200 §4.5). In IPv6 the protocol is no part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Key {
    src: IpAddr,
    dst: IpAddr,
    ident: u32,
    protocol: u8,
}

/// One fragment, read.
#[derive(Debug, Clone, Copy)]
struct Piece<'a> {
    key: Key,
    offset: usize,
    more: bool,
    data: &'a [u8],
    /// What stands before the data in the first fragment, without fragment header.
    header: Header<'a>,
    /// The two congestion bits.
    ecn: u8,
}

/// The headers of a fragment.
#[derive(Debug, Clone, Copy)]
enum Header<'a> {
    V4(&'a [u8]),
    /// The headers before the fragment header, where the last of them names what follows, and what really follows.
    V6 {
        headers: &'a [u8],
        pointer: usize,
        next: u8,
    },
}

/// A datagram in the making.
#[derive(Debug)]
struct Datagram {
    key: Key,
    deadline: Instant,
    /// Sorted by offset, without overlap.
    pieces: Vec<(usize, Box<[u8]>)>,
    /// Where it ends, as soon as the last fragment has told.
    end: Option<usize>,
    /// From the first fragment, ready to stand before the data.
    header: Option<Box<[u8]>>,
    /// Some fragment was marked "congestion experienced".
    congested: bool,
    /// It was discarded; what still comes of it follows.
    dead: bool,
    cost: usize,
}

/// Datagrams in the making, of both families.
#[derive(Debug, Default)]
pub struct Reassembler {
    /// Oldest first.
    datagrams: VecDeque<Datagram>,
    cost: usize,
    evicted: u64,
}

/// Whether an IPv4 packet is a fragment; the caller has validated its header.
#[must_use]
pub fn is_fragment_v4(packet: &[u8]) -> bool {
    bytes::be16(packet, 6).is_some_and(|word| word & 0x3fff != 0)
}

impl Reassembler {
    /// No datagrams.
    #[must_use]
    pub const fn new() -> Self {
        Self { datagrams: VecDeque::new(), cost: 0, evicted: 0 }
    }

    /// Adds a fragment: a whole IP packet, Ethernet padding permitted. The IPv4 header checksum is the caller's to
    /// check.
    ///
    /// A packet that is no fragment, or one that is its datagram's only fragment, comes back at once.
    pub fn insert(&mut self, now: Instant, packet: &[u8]) -> Reassembled {
        let piece = match Piece::parse(packet) {
            Ok(piece) => piece,
            Err(reason) => return Reassembled::Dropped(reason),
        };
        if piece.offset == 0 && !piece.more {
            // RFC 6946 §4: such a one has nothing to do with others of the same identification.
            let whole = piece.header.finish(piece.data.len(), false);
            return whole.map_or(Reassembled::Dropped(DropReason::Fragment), |mut whole| {
                whole.extend_from_slice(piece.data);
                Reassembled::Complete(whole)
            });
        }
        let at = self.find_or_make(now, piece.key);
        let Some(datagram) = self.datagrams.get_mut(at) else {
            return Reassembled::Dropped(DropReason::NoRoom);
        };
        let before = datagram.cost;
        let outcome = datagram.add(&piece);
        self.cost = self.cost + datagram.cost - before;
        match outcome {
            Outcome::Complete => {
                let whole = datagram.assemble();
                self.remove(at);
                whole.map_or(Reassembled::Dropped(DropReason::Fragment), Reassembled::Complete)
            }
            Outcome::Kept => {
                self.make_room();
                Reassembled::Waiting
            }
            Outcome::Refused => Reassembled::Dropped(DropReason::Fragment),
        }
    }

    /// Discards one datagram whose time was up at `now`; call it until it says `None`.
    pub fn expire(&mut self, now: Instant) -> Option<Expired> {
        while self.datagrams.front().is_some_and(|oldest| oldest.deadline <= now) {
            let gone = self.remove(0)?;
            if !gone.dead {
                return Some(Expired { first: gone.first() });
            }
        }
        None
    }

    /// When [`Reassembler::expire`] has something to do.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        self.datagrams.front().map(|oldest| oldest.deadline)
    }

    /// Datagrams pushed out by newer ones since the last call.
    pub const fn take_evicted(&mut self) -> u64 {
        core::mem::replace(&mut self.evicted, 0)
    }

    /// The place of the datagram `key`, made if need be. One whose time is up makes way for a new one of its name.
    fn find_or_make(&mut self, now: Instant, key: Key) -> usize {
        if let Some(at) = self.datagrams.iter().position(|datagram| datagram.key == key) {
            if self.datagrams.get(at).is_some_and(|datagram| datagram.deadline > now) {
                return at;
            }
            self.remove(at);
        }
        if self.datagrams.len() >= DATAGRAMS {
            self.evict();
        }
        self.datagrams.push_back(Datagram::new(key, now + TIMEOUT));
        self.datagrams.len() - 1
    }

    /// Pushes out the oldest datagrams until the memory suffices. The newest always fits: it is far smaller than that.
    fn make_room(&mut self) {
        while self.cost > MEMORY && self.datagrams.len() > 1 {
            self.evict();
        }
    }

    fn evict(&mut self) {
        if self.remove(0).is_some_and(|gone| !gone.dead) {
            self.evicted += 1;
        }
    }

    fn remove(&mut self, at: usize) -> Option<Datagram> {
        let gone = self.datagrams.remove(at)?;
        self.cost -= gone.cost;
        Some(gone)
    }
}

enum Outcome {
    Complete,
    Kept,
    Refused,
}

impl Datagram {
    const fn new(key: Key, deadline: Instant) -> Self {
        Self {
            key,
            deadline,
            pieces: Vec::new(),
            end: None,
            header: None,
            congested: false,
            dead: false,
            cost: 0,
        }
    }

    /// Discards everything and takes nothing more.
    fn kill(&mut self) -> Outcome {
        *self = Self { dead: true, ..Self::new(self.key, self.deadline) };
        Outcome::Refused
    }

    fn add(&mut self, piece: &Piece<'_>) -> Outcome {
        let (from, to) = (piece.offset, piece.offset + piece.data.len());
        if self.dead {
            return Outcome::Refused;
        }
        let at = self.pieces.partition_point(|&(offset, _)| offset < from);
        if let Some((offset, data)) = self.pieces.get(at)
            && *offset == from
            && **data == *piece.data
        {
            return Outcome::Kept;
        }
        let runs_into_next = self.pieces.get(at).is_some_and(|&(offset, _)| offset < to);
        let runs_into_last = at
            .checked_sub(1)
            .and_then(|last| self.pieces.get(last))
            .is_some_and(|(offset, data)| offset + data.len() > from);
        // The end is told by the last fragment, once, and nothing lies behind it.
        let beyond = match (self.end, piece.more) {
            (Some(end), true) => to > end,
            (Some(_), false) => true,
            (None, false) => self.pieces.last().is_some_and(|(offset, data)| offset + data.len() > to),
            (None, true) => false,
        };
        if runs_into_next || runs_into_last || beyond || self.pieces.len() >= PIECES {
            return self.kill();
        }
        if !piece.more {
            self.end = Some(to);
        }
        self.congested |= piece.ecn == 3;
        if from == 0 {
            let header = piece.header.before_data();
            self.cost += header.len();
            self.header = Some(header.into());
        }
        self.cost += piece.data.len() + OVERHEAD;
        self.pieces.insert(at, (from, piece.data.into()));
        let held: usize = self.pieces.iter().map(|(_, data)| data.len()).sum();
        if self.end == Some(held) { Outcome::Complete } else { Outcome::Kept }
    }

    /// The packet, once all its pieces are there.
    fn assemble(&self) -> Option<Vec<u8>> {
        let len = self.end?;
        let header = self.header.as_deref()?;
        let mut packet = with_length(header, len, self.congested)?;
        for (_, data) in &self.pieces {
            packet.extend_from_slice(data);
        }
        Some(packet)
    }

    /// The first fragment as a packet of its own.
    fn first(&self) -> Option<Vec<u8>> {
        let (_, data) = self.pieces.first().filter(|(offset, _)| *offset == 0)?;
        let mut packet = with_length(self.header.as_deref()?, data.len(), false)?;
        packet.extend_from_slice(data);
        Some(packet)
    }
}

impl<'a> Piece<'a> {
    fn parse(packet: &'a [u8]) -> Result<Self, DropReason> {
        let piece = match packet.first().map(|first| first >> 4) {
            Some(4) => Self::parse_v4(packet),
            Some(6) => Self::parse_v6(packet),
            _ => None,
        }
        .ok_or(DropReason::Malformed)?;
        // All fragments but the last end at a multiple of eight bytes (RFC 791 §3.2, RFC 8200 §4.5), none is empty, and
        // the whole is no longer than its length field can tell.
        let Self { offset, more, data, header, .. } = piece;
        let ragged = more && data.len() % 8 != 0;
        let empty = data.is_empty() && (more || offset != 0);
        let beyond = header.counted_len() + offset + data.len() > LARGEST;
        if ragged || empty || beyond { Err(DropReason::Fragment) } else { Ok(piece) }
    }

    fn parse_v4(packet: &'a [u8]) -> Option<Self> {
        let header_len = usize::from(bytes::byte(packet, 0)? & 15) * 4;
        let total = usize::from(bytes::be16(packet, 2)?);
        let (header, data) = packet.get(..total)?.split_at_checked(header_len)?;
        let word = bytes::be16(header, 6)?;
        let key = Key {
            src: bytes::ipv4(header, 12)?.into(),
            dst: bytes::ipv4(header, 16)?.into(),
            ident: bytes::be16(header, 4)?.into(),
            protocol: bytes::byte(header, 9)?,
        };
        let (offset, more) = (usize::from(word & 0x1fff) * 8, word & 0x2000 != 0);
        Some(Self { key, offset, more, data, header: Header::V4(header), ecn: bytes::byte(header, 1)? & 3 })
    }

    fn parse_v6(packet: &'a [u8]) -> Option<Self> {
        let len = usize::from(bytes::be16(packet, 4)?);
        let packet = packet.get(..FIXED_LEN + len)?;
        let Upper { offset: behind, pointer, protocol, fragment } = extension::upper(packet)?;
        let Some(fragment) = fragment else {
            // No fragment at all: its own headers are all there is to say.
            let (headers, data) = packet.split_at_checked(behind)?;
            let key = Key {
                src: bytes::ipv6(packet, 8)?.into(),
                dst: bytes::ipv6(packet, 24)?.into(),
                ident: 0,
                protocol: 0,
            };
            let header = Header::V6 { headers, pointer, next: protocol };
            return Some(Self { key, offset: 0, more: false, data, header, ecn: 0 });
        };
        let key = Key {
            src: bytes::ipv6(packet, 8)?.into(),
            dst: bytes::ipv6(packet, 24)?.into(),
            ident: fragment.ident,
            protocol: 0,
        };
        Some(Self {
            key,
            offset: fragment.offset.into(),
            more: fragment.more,
            data: packet.get(fragment.at + 8..)?,
            header: Header::V6 {
                headers: packet.get(..fragment.at)?,
                pointer: fragment.pointer,
                next: fragment.next,
            },
            ecn: bytes::byte(packet, 1)? >> 4 & 3,
        })
    }
}

impl Header<'_> {
    /// Bytes of the header that the packet's length field counts.
    const fn counted_len(self) -> usize {
        match self {
            Self::V4(header) => header.len(),
            Self::V6 { headers, .. } => headers.len() - FIXED_LEN,
        }
    }

    /// The headers as they stand before the data of the whole packet, but for length and checksum.
    fn before_data(self) -> Vec<u8> {
        match self {
            Self::V4(header) => {
                let mut header = header.to_vec();
                bytes::put(&mut header, 6, [0, 0]);
                header
            }
            Self::V6 { headers, pointer, next } => {
                let mut headers = headers.to_vec();
                bytes::put(&mut headers, pointer, [next]);
                headers
            }
        }
    }

    fn finish(self, len: usize, congested: bool) -> Option<Vec<u8>> {
        with_length(&self.before_data(), len, congested)
    }
}

/// `header` made to fit `len` bytes of data, with room for them behind it.
fn with_length(header: &[u8], len: usize, congested: bool) -> Option<Vec<u8>> {
    let mut packet = Vec::with_capacity(header.len() + len);
    packet.extend_from_slice(header);
    // RFC 3168 §5.3: a mark on any fragment marks the whole, unless the sender does not take part.
    let tos = u16::from_be_bytes(bytes::array(header, 0)?);
    if header.first()? >> 4 == 4 {
        let total = u16::try_from(header.len() + len).ok()?;
        if congested && tos & 3 != 0 {
            bytes::put(&mut packet, 0, (tos | 3).to_be_bytes());
        }
        bytes::put(&mut packet, 2, total.to_be_bytes());
        bytes::put(&mut packet, 10, [0, 0]);
        let sum = checksum::finish(checksum::sum(&packet));
        bytes::put(&mut packet, 10, sum.to_be_bytes());
    } else {
        let payload = u16::try_from(header.len().checked_sub(FIXED_LEN)? + len).ok()?;
        if congested && tos & 0x30 != 0 {
            bytes::put(&mut packet, 0, (tos | 0x30).to_be_bytes());
        }
        bytes::put(&mut packet, 4, payload.to_be_bytes());
    }
    Some(packet)
}

#[cfg(test)]
mod tests;
