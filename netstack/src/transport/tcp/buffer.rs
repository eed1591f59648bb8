//! Bytes from the guest that the host's socket could not take yet.
//!
//! A ring that starts with no memory, grows in powers of two as it fills, and gives everything back when it runs empty,
//! so that an idle flow costs nothing. A busy flow fills and empties it many times a second, so one ring is kept in
//! reserve for all flows ([`Spare`]). Beside the contiguous bytes at its front it can hold bytes further ahead, received
//! out of order: the caller knows where they lie and says so with [`Buffer::extend`] when the gap before them closes.

/// Memory of the buffer that ran empty last.
#[derive(Debug, Default)]
pub(crate) struct Spare(Box<[u8]>);

impl Spare {
    /// More than this is not worth keeping.
    const MOST: usize = 1 << 20;

    fn keep(&mut self, ring: Box<[u8]>) {
        if ring.len() > self.0.len() && ring.len() <= Self::MOST {
            self.0 = ring;
        }
    }

    /// Memory for `size` bytes or more.
    fn take(&mut self, size: usize) -> Box<[u8]> {
        if self.0.len() >= size { core::mem::take(&mut self.0) } else { vec![0; size].into_boxed_slice() }
    }
}

/// A growing ring of bytes.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    ring: Box<[u8]>,
    /// Where the first byte lies.
    head: usize,
    /// Contiguous bytes from there.
    len: usize,
}

impl Buffer {
    /// Contiguous bytes held.
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// Memory held, in bytes.
    pub(crate) fn capacity(&self) -> usize {
        self.ring.len()
    }

    /// Writes `bytes` at `offset` bytes from the front, which may lie ahead of the contiguous part.
    pub(crate) fn write_at(&mut self, offset: usize, bytes: &[u8], spare: &mut Spare) {
        if bytes.is_empty() {
            return;
        }
        self.reserve(offset + bytes.len(), spare);
        let start = (self.head + offset) % self.ring.len();
        let first = bytes.len().min(self.ring.len() - start);
        let (to_end, wrapped) = bytes.split_at(first);
        if let Some(place) = self.ring.get_mut(start..start + first) {
            place.copy_from_slice(to_end);
        }
        if let Some(place) = self.ring.get_mut(..wrapped.len()) {
            place.copy_from_slice(wrapped);
        }
    }

    /// Says that `count` more bytes behind the contiguous part are in place.
    pub(crate) fn extend(&mut self, count: usize) {
        self.len = (self.len + count).min(self.ring.len());
    }

    /// The contiguous bytes, in two pieces.
    pub(crate) fn pieces(&self) -> (&[u8], &[u8]) {
        let first = self.len.min(self.ring.len() - self.head);
        let front = self.ring.get(self.head..self.head + first).unwrap_or_default();
        let back = self.ring.get(..self.len - first).unwrap_or_default();
        (front, back)
    }

    /// Removes `count` bytes from the front. `ahead` says whether bytes beyond the contiguous part are held:
    /// the memory then stays.
    pub(crate) fn consume(&mut self, count: usize, ahead: bool, spare: &mut Spare) {
        let count = count.min(self.len);
        self.len -= count;
        if self.len == 0 && !ahead {
            spare.keep(core::mem::take(self).ring);
        } else if !self.ring.is_empty() {
            self.head = (self.head + count) % self.ring.len();
        }
    }

    fn reserve(&mut self, wanted: usize, spare: &mut Spare) {
        if wanted <= self.ring.len() {
            return;
        }
        const SMALLEST: usize = 16 << 10;
        const STEP: usize = 64 << 10;
        // Doubled each time; but what goes a little beyond a power of two, as a window's rounding does, costs a little.
        let doubled = wanted.next_power_of_two().max(SMALLEST);
        let size = if wanted <= doubled / 2 + STEP { doubled.min(doubled / 2 + STEP) } else { doubled };
        let mut bigger = spare.take(size);
        let first = self.ring.len() - self.head;
        if let (Some(to), Some(from)) = (bigger.get_mut(..first), self.ring.get(self.head..)) {
            to.copy_from_slice(from);
        }
        if let (Some(to), Some(from)) = (bigger.get_mut(first..first + self.head), self.ring.get(..self.head))
        {
            to.copy_from_slice(from);
        }
        self.ring = bigger;
        self.head = 0;
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
            // The second half first: out of order.
            let half = n / 2;
            buffer.write_at(buffer.len() + half, &bytes[half..], &mut spare);
            buffer.write_at(buffer.len(), &bytes[..half], &mut spare);
            buffer.extend(n);
            written += n;
            let take = (seed >> 8) as usize % (buffer.len() + 1);
            let (a, b) = buffer.pieces();
            for byte in a.iter().chain(b).take(take) {
                assert_eq!(*byte, told(read));
                read += 1;
            }
            buffer.consume(take, false, &mut spare);
        }
        let rest = buffer.len();
        buffer.consume(rest, false, &mut spare);
        assert_eq!(buffer.capacity(), 0, "an empty buffer holds no memory");
    }

    #[test]
    fn bytes_ahead_survive_the_emptying_of_the_front() {
        let (mut buffer, mut spare) = (Buffer::default(), Spare::default());
        buffer.write_at(0, b"ab", &mut spare);
        buffer.extend(2);
        buffer.write_at(4, b"ef", &mut spare);
        buffer.consume(2, true, &mut spare);
        buffer.write_at(0, b"cd", &mut spare);
        buffer.extend(4);
        assert_eq!(buffer.pieces().0, b"cdef");
    }
}
