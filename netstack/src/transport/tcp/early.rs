//! Bytes that came ahead of a gap.
//!
//! They are kept as they came, in pieces that do not overlap, in ascending order: so they cost what came and not what
//! is missing. One byte at the far edge of a window is one byte, and a guest that sends such a byte on each of
//! thousands of flows holds kilobytes for it, not the windows.
//!
//! Invariants. No piece is empty. Two that touch hold more than [`JOINED`] bytes together, so that a stream of tiny
//! segments makes few pieces. There are at most [`MAX_RANGES`] runs without a gap: more holes than that at once means
//! that the link loses most of what it carries. The farthest run is then forgotten, which is allowed (RFC 2018 §8) and
//! only costs a repeat.

use super::segment::len32;
use super::seq::{MAX_RANGES, Range, SeqNum};
use crate::surely::Surely;
use std::collections::VecDeque;

/// Pieces that touch become one up to this many bytes: large enough that the pieces of the largest window are few,
/// small enough that moving one costs less than the frame that caused it.
const JOINED: usize = 16 << 10;
/// What a piece costs beside its bytes: its place, and what the allocator adds.
const OVERHEAD: usize = size_of::<Piece>() + 16;

/// Bytes without a gap.
#[derive(Debug)]
pub(super) struct Piece {
    start: SeqNum,
    bytes: Vec<u8>,
}

impl Piece {
    fn end(&self) -> SeqNum {
        self.start.plus(len32(&self.bytes))
    }

    /// What lies at `seq` and behind it.
    pub(super) fn from(&self, seq: SeqNum) -> &[u8] {
        self.bytes.get(seq.since(self.start) as usize..).unwrap_or_default()
    }

    const fn cost(&self) -> usize {
        self.bytes.capacity() + OVERHEAD
    }
}

/// The pieces of one flow.
#[derive(Debug, Default)]
pub(super) struct Early {
    pieces: VecDeque<Piece>,
    held: usize,
}

impl Early {
    /// What a segment of `len` bytes adds to [`Early::held`] at most.
    pub(super) fn cost(len: usize) -> usize {
        // A piece that grows doubles.
        len + JOINED.min(len) + OVERHEAD
    }

    /// Memory held, in bytes.
    pub(super) const fn held(&self) -> usize {
        self.held
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Forgets everything, and gives the memory back.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Keeps `bytes`, whose first one is number `start`. Says whether they are held now.
    pub(super) fn insert(&mut self, mut start: SeqNum, mut bytes: &[u8]) -> bool {
        let end = start.plus(len32(bytes));
        let mut place = self.pieces.partition_point(|piece| piece.end().before_or_at(start));
        if let Some(piece) = self.pieces.get(place)
            && piece.start.before_or_at(start)
        {
            let known = piece.end().since(start);
            bytes = bytes.get(known as usize..).unwrap_or_default();
            start = start.plus(known);
            place += 1;
        }
        if bytes.is_empty() {
            return true;
        }
        // What lies within is replaced, what reaches beyond stays.
        while self.pieces.get(place).is_some_and(|piece| piece.end().before_or_at(end)) {
            self.remove(place);
        }
        if let Some(piece) = self.pieces.get(place).filter(|piece| piece.start.before(end)) {
            bytes = bytes.get(..piece.start.since(start) as usize).surely();
        }
        let piece = Piece { start, bytes: bytes.to_vec() };
        self.held += piece.cost();
        self.pieces.insert(place, piece);
        self.join(place);
        if let Some(before) = place.checked_sub(1) {
            self.join(before);
        }
        self.forget_the_farthest();
        self.pieces.back().is_some_and(|last| start.before(last.end()))
    }

    /// The first piece, if none of the bytes before it is missing when everything before `next` is there.
    pub(super) fn take(&mut self, next: SeqNum) -> Option<Piece> {
        self.pieces.front().filter(|piece| piece.start.before_or_at(next))?;
        self.remove(0)
    }

    /// The runs without a gap, in ascending order.
    pub(super) fn ranges(&self) -> impl Iterator<Item = Range> + '_ {
        let mut pieces = self.pieces.iter().peekable();
        core::iter::from_fn(move || {
            let first = pieces.next()?;
            let mut end = first.end();
            while let Some(piece) = pieces.next_if(|piece| piece.start == end) {
                end = piece.end();
            }
            Some(Range { start: first.start, end })
        })
    }

    fn remove(&mut self, place: usize) -> Option<Piece> {
        let piece = self.pieces.remove(place)?;
        self.held -= piece.cost();
        if self.pieces.is_empty() {
            self.clear();
        }
        Some(piece)
    }

    /// Makes one of the pieces at `place` and behind it, if they touch and are small.
    fn join(&mut self, place: usize) {
        let (Some(one), Some(other)) = (self.pieces.get(place), self.pieces.get(place + 1)) else { return };
        if one.end() != other.start || one.bytes.len() + other.bytes.len() > JOINED {
            return;
        }
        let Some(other) = self.remove(place + 1) else { return };
        if let Some(one) = self.pieces.get_mut(place) {
            self.held -= one.cost();
            one.bytes.extend_from_slice(&other.bytes);
            self.held += one.cost();
        }
    }

    fn forget_the_farthest(&mut self) {
        if self.pieces.len() <= MAX_RANGES || self.ranges().count() <= MAX_RANGES {
            return;
        }
        let mut gone = None;
        while let Some(last) = self.pieces.back()
            && gone.is_none_or(|start| last.end() == start)
        {
            gone = Some(last.start);
            self.remove(self.pieces.len() - 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(early: &Early) -> Vec<(u32, u32)> {
        early.ranges().map(|range| (range.start.0, range.end.0)).collect()
    }

    /// `len` bytes that tell their number, from `start` on.
    fn stream(start: u32, len: u32) -> Vec<u8> {
        (start..start + len).map(|n| u8::try_from(n % 251).unwrap()).collect()
    }

    /// What comes out, from `next` on.
    fn drain(early: &mut Early, mut next: u32) -> Vec<u8> {
        let mut out = Vec::new();
        while let Some(piece) = early.take(SeqNum(next)) {
            out.extend_from_slice(piece.from(SeqNum(next)));
            next = next.max(piece.end().0);
        }
        out
    }

    #[test]
    fn a_byte_far_ahead_costs_a_byte() {
        let mut early = Early::default();
        assert!(early.insert(SeqNum(64_500), b"x"));
        assert!(early.held() <= 1 + OVERHEAD, "{}", early.held());
        assert!(early.take(SeqNum(64_499)).is_none());
        assert_eq!(drain(&mut early, 64_500), b"x");
        assert!(early.is_empty() && early.held() == 0 && early.pieces.capacity() == 0);
    }

    #[test]
    fn whatever_comes_in_whatever_order_comes_out_once() {
        let mut seed = 7u32;
        let mut draw = |bound: u32| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 8) % bound
        };
        for _ in 0..200 {
            let mut early = Early::default();
            let mut there = vec![false; 60_000];
            for _ in 0..300 {
                let (start, len) = (draw(59_000), draw(1000) + 1);
                if early.insert(SeqNum(start), &stream(start, len)) && early.ranges().count() < MAX_RANGES {
                    there[start as usize..(start + len) as usize].fill(true);
                } else {
                    there.fill(false);
                    early.ranges().for_each(|r| there[r.start.0 as usize..r.end.0 as usize].fill(true));
                }
            }
            for range in early.ranges() {
                assert!(there[range.start.0 as usize..range.end.0 as usize].iter().all(|there| *there));
            }
            let bytes: u32 = early.ranges().map(|range| range.end.since(range.start)).sum();
            assert_eq!(bytes as usize, there.iter().filter(|there| **there).count());
            let costs: usize = early.pieces.iter().map(Piece::cost).sum();
            assert_eq!(early.held(), costs);
            let ranges: Vec<_> = early.ranges().collect();
            for range in ranges {
                let (start, len) = (range.start.0, range.end.since(range.start));
                assert_eq!(drain(&mut early, start), stream(start, len));
            }
            assert!(early.is_empty() && early.held() == 0);
        }
    }

    #[test]
    fn a_stream_of_tiny_segments_makes_few_pieces_either_way_round() {
        for backwards in [false, true] {
            let mut early = Early::default();
            for n in 0..100_000 {
                let at = if backwards { 100_000 - n } else { n + 1 };
                assert!(early.insert(SeqNum(at), &stream(at, 1)));
            }
            assert_eq!(told(&early), [(1, 100_001)]);
            assert!(early.pieces.len() <= 2 * 100_000 / JOINED + 1, "{}", early.pieces.len());
            assert!(early.held() <= 2 * 100_000 + 20 * OVERHEAD, "{}", early.held());
            assert_eq!(drain(&mut early, 1), stream(1, 100_000));
        }
    }

    #[test]
    fn the_farthest_of_too_many_runs_is_forgotten() {
        let mut early = Early::default();
        for n in 0..64 {
            assert!(early.insert(SeqNum(1000 + 10 * n), b"ab"));
        }
        assert!(!early.insert(SeqNum(5000), b"ab"), "the farthest is not even kept");
        assert!(early.insert(SeqNum(500), b"ab"));
        assert_eq!((told(&early).len(), told(&early)[0], told(&early)[63]), (64, (500, 502), (1620, 1622)));
        early.insert(SeqNum(1000), &stream(1000, 5000));
        assert_eq!(told(&early), [(500, 502), (1000, 6000)]);
        assert!(early.held() <= 7000, "{}", early.held());
    }

    #[test]
    fn order_holds_across_the_wrap() {
        let mut early = Early::default();
        assert!(early.insert(SeqNum(3), b"ef"));
        assert!(early.insert(SeqNum(u32::MAX - 1), b"abcd"));
        assert_eq!(told(&early), [(u32::MAX - 1, 2), (3, 5)]);
        assert!(early.insert(SeqNum(1), b"dX"));
        assert_eq!(
            early.take(SeqNum(0)).map(|piece| piece.from(SeqNum(0)).to_vec()),
            Some(b"cdXef".to_vec())
        );
    }
}
