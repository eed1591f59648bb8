//! Sequence numbers, and sets of sequence ranges.
//!
//! RFC 9293 §3.4: sequence space is a circle of 2^32; two numbers can only be compared while they are less than half of
//! it apart. [`SeqNum`] therefore has no `Ord`: every comparison is a method that says what it means.

/// A TCP sequence number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct SeqNum(pub(crate) u32);

impl SeqNum {
    /// `self` advanced by `n` bytes.
    pub(crate) const fn plus(self, n: u32) -> Self {
        Self(self.0.wrapping_add(n))
    }

    /// `self` set back by `n` bytes.
    pub(crate) const fn minus(self, n: u32) -> Self {
        Self(self.0.wrapping_sub(n))
    }

    /// Whether `self` lies before `other`.
    pub(crate) const fn before(self, other: Self) -> bool {
        self.0.wrapping_sub(other.0).cast_signed() < 0
    }

    /// Whether `self` lies before `other` or is the same.
    pub(crate) const fn before_or_at(self, other: Self) -> bool {
        self.0.wrapping_sub(other.0).cast_signed() <= 0
    }

    /// Bytes from `earlier` to `self`; 0 if `self` lies before it.
    pub(crate) const fn since(self, earlier: Self) -> u32 {
        if self.before(earlier) { 0 } else { self.0.wrapping_sub(earlier.0) }
    }

    /// The later of the two.
    pub(crate) const fn max(self, other: Self) -> Self {
        if self.before(other) { other } else { self }
    }

    /// The earlier of the two.
    pub(crate) const fn min(self, other: Self) -> Self {
        if self.before(other) { self } else { other }
    }
}

/// How many separate ranges are remembered. More holes than this at once means that the link loses most of what it
/// carries; the ranges farthest ahead are then forgotten, which is allowed (RFC 2018 §8) and only costs a repeat.
pub(super) const MAX_RANGES: usize = 64;

/// A half-open range of sequence space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) start: SeqNum,
    pub(crate) end: SeqNum,
}

impl Range {
    /// Whether all of `other` lies in it.
    pub(crate) fn holds(self, other: Self) -> bool {
        self.start.before_or_at(other.start) && other.end.before_or_at(self.end)
    }
}

/// Disjoint ranges in ascending order.
#[derive(Debug, Default)]
pub(crate) struct Ranges {
    list: Vec<Range>,
}

impl Ranges {
    /// Adds a range, joining it with those it touches. Returns whether it is in the set now.
    pub(crate) fn insert(&mut self, mut new: Range) -> bool {
        if !new.start.before(new.end) {
            return true;
        }
        let first = self.list.partition_point(|r| r.end.before(new.start));
        let mut last = first;
        while let Some(r) = self.list.get(last) {
            if new.end.before(r.start) {
                break;
            }
            new.start = new.start.min(r.start);
            new.end = new.end.max(r.end);
            last += 1;
        }
        self.list.splice(first..last, [new]);
        if self.list.len() > MAX_RANGES {
            return self.list.pop() != Some(new);
        }
        true
    }

    /// Forgets everything before `seq`.
    pub(crate) fn advance(&mut self, seq: SeqNum) {
        let gone = self.list.partition_point(|r| r.end.before_or_at(seq));
        self.list.drain(..gone);
        if let Some(first) = self.list.first_mut() {
            first.start = first.start.max(seq);
        }
    }

    /// The first part of `[from, to)` that is not in the set.
    pub(crate) fn first_gap(&self, from: SeqNum, to: SeqNum) -> Option<Range> {
        let mut start = from;
        for r in &self.list {
            if !start.before(to) {
                return None;
            }
            if start.before(r.start) {
                return Some(Range { start, end: r.start.min(to) });
            }
            start = start.max(r.end);
        }
        start.before(to).then_some(Range { start, end: to })
    }

    /// The end of the last range.
    pub(crate) fn highest(&self) -> Option<SeqNum> {
        self.list.last().map(|r| r.end)
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Forgets everything, and gives the memory back.
    pub(crate) fn clear(&mut self) {
        self.list = Vec::new();
    }

    /// Bytes in the set.
    pub(crate) fn total(&self) -> u32 {
        self.list.iter().map(|r| r.end.since(r.start)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: u32, end: u32) -> Range {
        Range { start: SeqNum(start), end: SeqNum(end) }
    }

    #[test]
    fn order_holds_across_the_wrap() {
        let (a, b) = (SeqNum(u32::MAX - 5), SeqNum(10));
        assert!(a.before(b) && !b.before(a));
        assert_eq!(b.since(a), 16);
        assert_eq!(a.since(b), 0);
        assert_eq!(a.max(b), b);
    }

    #[test]
    fn ranges_join_and_show_their_gaps() {
        let mut set = Ranges::default();
        for (s, e) in [(10, 20), (30, 40), (20, 25), (50, 60)] {
            assert!(set.insert(range(s, e)));
        }
        assert_eq!(set.list, [range(10, 25), range(30, 40), range(50, 60)]);
        assert_eq!(set.first_gap(SeqNum(0), SeqNum(100)), Some(range(0, 10)));
        assert_eq!(set.first_gap(SeqNum(12), SeqNum(100)), Some(range(25, 30)));
        assert_eq!(set.first_gap(SeqNum(30), SeqNum(40)), None);
        set.insert(range(5, 55));
        assert_eq!(set.list, [range(5, 60)]);
        set.advance(SeqNum(50));
        assert_eq!(set.total(), 10);
        set.advance(SeqNum(60));
        assert!(set.is_empty());
    }

    #[test]
    fn the_set_stays_small() {
        let mut set = Ranges::default();
        for n in 0..u32::try_from(MAX_RANGES).unwrap() {
            assert!(set.insert(range(n * 10, n * 10 + 5)));
        }
        assert!(!set.insert(range(100_000, 100_005)), "the farthest is not kept");
        assert!(set.insert(range(7, 9)), "a nearer one is, at the cost of the farthest");
        assert_eq!(set.list.len(), MAX_RANGES);
    }

    #[test]
    fn random_insertions_agree_with_a_bitmap() {
        proptest::proptest!(|(ops in proptest::collection::vec((0u32..200, 1u32..20), 0..40))| {
            let base = SeqNum(u32::MAX - 100); // crosses the wrap
            let mut set = Ranges::default();
            let mut map = [false; 256];
            for (start, len) in ops {
                set.insert(Range { start: base.plus(start), end: base.plus(start + len) });
                map[start as usize..(start + len) as usize].fill(true);
            }
            proptest::prop_assert_eq!(set.total() as usize, map.iter().filter(|b| **b).count());
            let gap = set.first_gap(base, base.plus(256));
            proptest::prop_assert_eq!(gap.map(|g| g.start.since(base) as usize), map.iter().position(|b| !b));
        });
    }
}
