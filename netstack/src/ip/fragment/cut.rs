//! Cutting a packet into fragments that fit the guest's link.
//!
//! For packets of our own making: datagrams that came out of a host socket in one piece and are larger than the MTU.
//! What the kernel of a router does with a packet in transit is included for IPv4 (a fragment may be cut again, options
//! are copied or not as they say); an IPv6 packet is only cut by its source, so one that is already a fragment is
//! refused.

use crate::bytes;
use crate::checksum;
use crate::drop_reason::DropReason;
use crate::ip::extension::{self, FIXED_LEN, FRAGMENT};
use crate::surely::Surely;
use core::fmt;

/// Why a packet was not cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Uncut {
    /// It must not be: "don't fragment" is set, or it is an IPv6 fragment already.
    TooBig,
    /// The headers leave no room for eight bytes of data.
    NoRoom,
    /// Its headers are not whole.
    Malformed,
}

impl fmt::Display for Uncut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooBig => "the packet is larger than the MTU and must not be fragmented",
            Self::NoRoom => "the MTU is too small for the packet's headers",
            Self::Malformed => "the packet's headers are not whole",
        })
    }
}

impl core::error::Error for Uncut {}

impl From<Uncut> for DropReason {
    fn from(uncut: Uncut) -> Self {
        match uncut {
            Uncut::TooBig | Uncut::NoRoom => Self::TooBig,
            Uncut::Malformed => Self::Malformed,
        }
    }
}

/// Hands `packet` to `emit` in pieces of at most `mtu` bytes, in order, or as it is if it fits. Returns how many there
/// were.
///
/// `ident` is the identification of an IPv6 packet, and of an IPv4 packet that has none (zero) the low half of it;
/// it must not repeat for the same pair of addresses within the time that fragments live.
///
/// # Errors
/// See [`Uncut`]; then nothing was emitted.
pub fn fragment(packet: &[u8], mtu: usize, ident: u32, emit: impl FnMut(&[u8])) -> Result<usize, Uncut> {
    match packet.first().map(|first| first >> 4) {
        Some(4) => cut_v4(packet, mtu, ident, emit),
        Some(6) => cut_v6(packet, mtu, ident, emit),
        _ => Err(Uncut::Malformed),
    }
}

/// The first of `count` identifications in a row; `last` is the one that was given out before.
pub(crate) fn take_ident(last: &mut u32, count: usize) -> u32 {
    let first = last.wrapping_add(1);
    *last = last.wrapping_add(u32::try_from(count).unwrap_or(1));
    first
}

fn cut_v4(packet: &[u8], mtu: usize, ident: u32, mut emit: impl FnMut(&[u8])) -> Result<usize, Uncut> {
    let header_len = packet.first().map_or(0, |first| usize::from(first & 15) * 4);
    let total = bytes::be16(packet, 2).map_or(0, usize::from);
    let (header, data) = packet
        .get(..total)
        .and_then(|packet| packet.split_at_checked(header_len))
        .filter(|(header, _)| header.len() >= 20)
        .ok_or(Uncut::Malformed)?;
    if total <= mtu {
        emit(packet.get(..total).ok_or(Uncut::Malformed)?);
        return Ok(1);
    }
    let word = bytes::be16(header, 6).ok_or(Uncut::Malformed)?;
    if word & 0x4000 != 0 {
        return Err(Uncut::TooBig);
    }
    // The reassembled packet, not only this one, has to fit the length field; the offset then fits 13 bits.
    let begin = usize::from(word & 0x1fff) * 8;
    if begin + data.len() > 65_535 {
        return Err(Uncut::Malformed);
    }
    let room = mtu.saturating_sub(header_len) & !7;
    if room == 0 {
        return Err(Uncut::NoRoom);
    }
    let later_header = copied_options(header);
    let mut piece = Vec::with_capacity(mtu);
    let (mut at, mut count) = (0, 0);
    while at < data.len() {
        let end = data.len().min(at + room);
        piece.clear();
        piece.extend_from_slice(if at == 0 { header } else { &later_header });
        let here_len = piece.len();
        piece.extend_from_slice(data.get(at..end).surely());
        let more = end < data.len() || word & 0x2000 != 0;
        let place = bytes::len16((begin + at) / 8) | (word & 0x8000) | u16::from(more) << 13;
        let [.., i0, i1] = ident.to_be_bytes();
        if bytes::be16(header, 4) == Some(0) && begin == 0 {
            bytes::put(&mut piece, 4, [i0, i1]);
        }
        let len = bytes::len16(piece.len());
        bytes::put(&mut piece, 2, len.to_be_bytes());
        bytes::put(&mut piece, 6, place.to_be_bytes());
        bytes::put(&mut piece, 10, [0, 0]);
        let sum = piece.get(..here_len).map_or(0, checksum::sum);
        bytes::put(&mut piece, 10, checksum::finish(sum).to_be_bytes());
        emit(&piece);
        (at, count) = (end, count + 1);
    }
    Ok(count)
}

/// The header that fragments after the first one have: options without the "copied" flag are left out
/// (RFC 791 §3.1), the rest padded with end-of-list to whole words.
fn copied_options(header: &[u8]) -> Vec<u8> {
    let (fixed, mut options) = header.split_at_checked(20).unwrap_or((header, &[]));
    let mut copy = fixed.to_vec();
    while let Some(&kind) = options.first() {
        let len = match kind {
            0 => break,
            1 => 1,
            _ => options.get(1).map_or(0, |&len| usize::from(len)),
        };
        let Some((option, rest)) = options.split_at_checked(len).filter(|_| len != 0) else { break };
        if kind & 0x80 != 0 {
            copy.extend_from_slice(option);
        }
        options = rest;
    }
    copy.resize(copy.len().next_multiple_of(4), 0);
    let words = u8::try_from(copy.len() / 4).unwrap_or(5);
    bytes::put(&mut copy, 0, [0x40 | words]);
    copy
}

fn cut_v6(packet: &[u8], mtu: usize, ident: u32, mut emit: impl FnMut(&[u8])) -> Result<usize, Uncut> {
    let total = FIXED_LEN + bytes::be16(packet, 4).map_or(0, usize::from);
    let packet = packet.get(..total).filter(|packet| packet.len() >= FIXED_LEN).ok_or(Uncut::Malformed)?;
    if total <= mtu {
        emit(packet);
        return Ok(1);
    }
    let upper = extension::upper(packet).ok_or(Uncut::Malformed)?;
    if upper.fragment.is_some() {
        return Err(Uncut::TooBig);
    }
    let (pointer, split) = unfragmentable(packet).ok_or(Uncut::Malformed)?;
    let (headers, data) = packet.split_at_checked(split).ok_or(Uncut::Malformed)?;
    let next = bytes::byte(packet, pointer).ok_or(Uncut::Malformed)?;
    // RFC 8200 §4.5: the first fragment holds all headers, the upper one included (eight bytes of it at the least).
    let room = mtu.saturating_sub(split + 8) & !7;
    if room == 0 || split + room < upper.offset + 8 {
        return Err(Uncut::NoRoom);
    }
    let mut piece = Vec::with_capacity(mtu);
    let (mut at, mut count) = (0, 0);
    while at < data.len() {
        let end = data.len().min(at + room);
        piece.clear();
        piece.extend_from_slice(headers);
        bytes::put(&mut piece, pointer, [FRAGMENT]);
        let len = bytes::len16(split - FIXED_LEN + 8 + end - at);
        bytes::put(&mut piece, 4, len.to_be_bytes());
        // The offset counts eights of bytes and lies in the upper 13 bits: that is the offset in bytes.
        let place = bytes::len16(at) | u16::from(end < data.len());
        piece.extend_from_slice(&[next, 0]);
        piece.extend_from_slice(&place.to_be_bytes());
        piece.extend_from_slice(&ident.to_be_bytes());
        piece.extend_from_slice(data.get(at..end).surely());
        emit(&piece);
        (at, count) = (end, count + 1);
    }
    Ok(count)
}

/// The part that each fragment repeats: up to the routing header if there is one, else the hop-by-hop options, else
/// the fixed header. Tells where its last next-header byte is, and where it ends.
fn unfragmentable(packet: &[u8]) -> Option<(usize, usize)> {
    let (mut pointer, mut at) = (6, FIXED_LEN);
    let mut found = (pointer, at);
    for _ in 0..extension::MAX_HEADERS {
        let kind = bytes::byte(packet, pointer)?;
        if !matches!(kind, 0 | 43 | 60) || kind == 0 && pointer != 6 {
            break;
        }
        (pointer, at) = (at, at + 8 * (1 + usize::from(bytes::byte(packet, at + 1)?)));
        if kind != 60 {
            found = (pointer, at);
        }
    }
    Some(found)
}
