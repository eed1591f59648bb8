//! Bytes from the guest that the host's socket could not take yet.
//!
//! A chain of chunks that has none at first, grows by one at a time, and gives each back as soon as it is read, so that
//! nothing is ever moved and an idle flow costs nothing. A busy flow fills and empties its chain many times a second,
//! so the chunks go round through a reserve for all flows ([`Spare`]): memory fresh from the system costs a page fault
//! for each 4 KiB, more than the copy itself. What comes ahead of a gap is not here but in [`super::early`].

use crate::upstream::MAX_PIECES;

use crate::surely::Surely;
use std::collections::VecDeque;

/// Bytes of a chunk.
const CHUNK: usize = 16 << 10;

type Chunk = Box<[u8]>;

/// Chunks that were given back.
#[derive(Debug, Default)]
pub(crate) struct Spare(Vec<Chunk>);

impl Spare {
    /// More are not worth keeping: what one flow at its largest window may hold.
    const MOST: usize = (4 << 20) / CHUNK;
    /// No more are kept while nobody needs any.
    const AT_REST: usize = (1 << 20) / CHUNK;

    fn keep(&mut self, chunk: Chunk) {
        if self.0.len() < Self::MOST {
            self.0.push(chunk);
        }
    }

    fn take(&mut self) -> Chunk {
        self.0.pop().unwrap_or_else(|| vec![0; CHUNK].into_boxed_slice())
    }

    /// No buffer holds anything just now.
    pub(super) fn shrink(&mut self) {
        if self.0.len() > Self::AT_REST {
            self.0.truncate(Self::AT_REST);
        }
    }
}

/// A growing queue of bytes.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    chunks: VecDeque<Chunk>,
    /// Where in the first chunk the first byte lies.
    head: usize,
    /// Bytes from there.
    len: usize,
}

impl Buffer {
    /// Bytes held.
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// Memory held, in bytes.
    pub(crate) fn capacity(&self) -> usize {
        self.chunks.len() * CHUNK
    }

    /// Bytes that fit without more memory.
    pub(crate) fn slack(&self) -> usize {
        self.capacity().saturating_sub(self.head + self.len)
    }

    /// Memory that `count` more bytes take beyond what is held.
    pub(crate) fn growth(&self, count: usize) -> usize {
        count.saturating_sub(self.slack()).next_multiple_of(CHUNK)
    }

    /// Adds `bytes` behind the last one.
    pub(crate) fn append(&mut self, mut bytes: &[u8], spare: &mut Spare) {
        while !bytes.is_empty() {
            if self.slack() == 0 {
                self.chunks.push_back(spare.take());
            }
            let room = self.slack();
            let (now, later) = bytes.split_at(bytes.len().min(room));
            let to = self.chunks.back_mut().and_then(|chunk| chunk.get_mut(CHUNK - room..));
            if let Some(to) = to.and_then(|to| to.get_mut(..now.len())) {
                to.copy_from_slice(now);
            }
            self.len += now.len();
            bytes = later;
        }
    }

    /// The byte at the front.
    pub(crate) fn first(&self) -> Option<u8> {
        if self.len == 0 { None } else { self.chunks.front()?.get(self.head).copied() }
    }

    /// The bytes from the front on, at most `most` or as many as `room` has pieces for, and how many they are.
    pub(crate) fn pieces<'a, 'b>(
        &'a self,
        room: &'b mut [&'a [u8]; MAX_PIECES],
        most: usize,
    ) -> (&'b [&'a [u8]], usize) {
        let most = most.min(self.len);
        let (mut skip, mut offered, mut count) = (self.head, 0, 0);
        for (piece, chunk) in room.iter_mut().zip(&self.chunks) {
            let bytes = chunk.get(skip..).surely();
            *piece = bytes.get(..most - offered).unwrap_or(bytes);
            (skip, offered, count) = (0, offered + piece.len(), count + 1);
            if offered == most {
                break;
            }
        }
        (room.get(..count).surely(), offered)
    }

    /// Removes `count` bytes from the front.
    pub(crate) fn consume(&mut self, count: usize, spare: &mut Spare) {
        let count = count.min(self.len);
        self.len -= count;
        self.head += count;
        if self.len == 0 {
            core::mem::take(self).chunks.into_iter().for_each(|chunk| spare.keep(chunk));
        }
        while self.head >= CHUNK {
            self.head -= CHUNK;
            if let Some(chunk) = self.chunks.pop_front() {
                spare.keep(chunk);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_out_as_they_went_in_across_growth_and_wrap() {
        let (mut buffer, mut spare) = (Buffer::default(), Spare::default());
        let (mut written, mut read) = (0, 0);
        let told = |place: usize| u8::try_from(place % 251).unwrap();
        let mut seed = 1u32;
        for _ in 0..2000 {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let n = (seed >> 18) as usize % 3000;
            let bytes: Vec<u8> = (0..n).map(|i| told(written + i)).collect();
            let before = buffer.capacity();
            let growth = buffer.growth(n);
            buffer.append(&bytes, &mut spare);
            assert_eq!(buffer.capacity(), before + growth);
            written += n;
            let take = (seed >> 8) as usize % (buffer.len() + 1);
            let mut room = [[].as_slice(); MAX_PIECES];
            let (pieces, _) = buffer.pieces(&mut room, usize::MAX);
            for byte in pieces.iter().copied().flatten().take(take) {
                assert_eq!(*byte, told(read));
                read += 1;
            }
            buffer.consume(take, &mut spare);
        }
        let rest = buffer.len();
        assert!(buffer.capacity() < rest + 2 * CHUNK, "what is read is given back");
        buffer.consume(rest, &mut spare);
        assert_eq!(buffer.capacity(), 0, "an empty buffer holds no memory");
    }

    #[test]
    fn more_than_fits_one_offer_is_offered_in_turn() {
        let (mut buffer, mut spare) = (Buffer::default(), Spare::default());
        let all = MAX_PIECES * CHUNK + 100;
        buffer.append(&vec![7; all + 10], &mut spare);
        buffer.consume(10, &mut spare);
        let mut room = [[].as_slice(); MAX_PIECES];
        let (pieces, offered) = buffer.pieces(&mut room, usize::MAX);
        assert_eq!((pieces.len(), offered), (MAX_PIECES, MAX_PIECES * CHUNK - 10));
        buffer.consume(offered, &mut spare);
        let mut room = [[].as_slice(); MAX_PIECES];
        assert_eq!(buffer.pieces(&mut room, usize::MAX).1, 110);
    }

    #[test]
    fn the_reserve_has_bounds() {
        let (mut buffer, mut spare) = (Buffer::default(), Spare::default());
        let much = (Spare::MOST + 5) * CHUNK;
        buffer.append(&vec![1; much], &mut spare);
        buffer.consume(much, &mut spare);
        assert_eq!(spare.0.len(), Spare::MOST);
        spare.shrink();
        assert_eq!(spare.0.len(), Spare::AT_REST);
        spare.shrink();
        assert_eq!(spare.0.len(), Spare::AT_REST);
    }
}
