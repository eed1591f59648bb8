//! TCP options: the five that are understood, read in one pass and written with the padding everybody uses.
//!
//! RFC 9293 §3.1 (end, no-operation, maximum segment size), RFC 7323 (window scale, timestamps), RFC 2018 (SACK).
//! Unknown options are skipped by their length; a length that leads outside the header ends the reading, as
//! a receiver must survive it (RFC 9293 §3.1, MUST-7).

use super::seq::{Range, SeqNum};
use crate::surely::Surely;

const END: u8 = 0;
const NOP: u8 = 1;
const MSS: u8 = 2;
const WINDOW_SCALE: u8 = 3;
const SACK_PERMITTED: u8 = 4;
const SACK: u8 = 5;
const TIMESTAMPS: u8 = 8;

/// RFC 7323 §2.3: a larger shift is to be taken as 14.
const MAX_SHIFT: u8 = 14;

/// At most this many SACK blocks fit beside timestamps (RFC 2018 §3).
pub(crate) const MAX_SACK_BLOCKS: usize = 3;

/// The most that options can take: a header is 60 bytes at most.
pub(crate) const MAX_LEN: usize = 40;

/// A timestamps option.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Timestamps {
    pub(crate) value: u32,
    pub(crate) echo: u32,
}

/// What a segment's options say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) mss: Option<u16>,
    pub(crate) window_scale: Option<u8>,
    pub(crate) sack_permitted: bool,
    pub(crate) timestamps: Option<Timestamps>,
    /// SACK blocks; RFC 2018 allows four in a header without timestamps.
    pub(crate) sack: [Option<Range>; 4],
}

impl Options {
    /// Reads the option bytes of a header.
    pub(crate) fn parse(mut bytes: &[u8]) -> Self {
        let mut options = Self::default();
        while let Some((&kind, rest)) = bytes.split_first() {
            if kind == END {
                break;
            }
            if kind == NOP {
                bytes = rest;
                continue;
            }
            let Some(len) = rest.first().map(|l| usize::from(*l)).filter(|l| *l >= 2) else { break };
            let Some((option, after)) = bytes.split_at_checked(len) else { break };
            options.take(kind, option.get(2..).surely());
            bytes = after;
        }
        options
    }

    fn take(&mut self, kind: u8, body: &[u8]) {
        match (kind, body) {
            (MSS, &[a, b]) => self.mss = Some(u16::from_be_bytes([a, b])),
            (WINDOW_SCALE, &[shift]) => self.window_scale = Some(shift.min(MAX_SHIFT)),
            (SACK_PERMITTED, []) => self.sack_permitted = true,
            (TIMESTAMPS, &[a, b, c, d, e, f, g, h]) => {
                self.timestamps = Some(Timestamps {
                    value: u32::from_be_bytes([a, b, c, d]),
                    echo: u32::from_be_bytes([e, f, g, h]),
                });
            }
            (SACK, blocks) => {
                let (blocks, _) = blocks.as_chunks::<8>();
                for (slot, &[a, b, c, d, e, f, g, h]) in self.sack.iter_mut().zip(blocks) {
                    *slot = Some(Range {
                        start: SeqNum(u32::from_be_bytes([a, b, c, d])),
                        end: SeqNum(u32::from_be_bytes([e, f, g, h])),
                    });
                }
            }
            _ => {}
        }
    }
}

/// Option bytes being written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Written {
    bytes: [u8; MAX_LEN],
    len: usize,
}

impl Written {
    pub(crate) const fn new() -> Self {
        Self { bytes: [NOP; MAX_LEN], len: 0 }
    }

    /// Appends an option; one that does not fit is left out whole.
    fn push(&mut self, option: &[u8]) {
        if let Some(room) = self.bytes.get_mut(self.len..self.len + option.len()) {
            room.copy_from_slice(option);
            self.len += option.len();
        }
    }

    pub(crate) fn mss(&mut self, mss: u16) {
        let [a, b] = mss.to_be_bytes();
        self.push(&[MSS, 4, a, b]);
    }

    pub(crate) fn window_scale(&mut self, shift: u8) {
        self.push(&[NOP, WINDOW_SCALE, 3, shift]);
    }

    pub(crate) fn sack_permitted(&mut self) {
        self.push(&[NOP, NOP, SACK_PERMITTED, 2]);
    }

    pub(crate) fn timestamps(&mut self, ts: Timestamps) {
        let ([a, b, c, d], [e, f, g, h]) = (ts.value.to_be_bytes(), ts.echo.to_be_bytes());
        self.push(&[NOP, NOP, TIMESTAMPS, 10, a, b, c, d, e, f, g, h]);
    }

    /// Up to [`MAX_SACK_BLOCKS`] blocks.
    pub(crate) fn sack(&mut self, blocks: impl Iterator<Item = Range>) {
        let mut option = [NOP; 4 + 8 * MAX_SACK_BLOCKS];
        let mut used = 4;
        for block in blocks.take(MAX_SACK_BLOCKS) {
            let ([a, b, c, d], [e, f, g, h]) = (block.start.0.to_be_bytes(), block.end.0.to_be_bytes());
            if let Some(place) = option.get_mut(used..used + 8) {
                place.copy_from_slice(&[a, b, c, d, e, f, g, h]);
                used += 8;
            }
        }
        if used > 4 {
            option[2] = SACK;
            option[3] = u8::try_from(used - 2).surely_or(u8::MAX);
            self.push(option.get(..used).surely());
        }
    }

    /// The bytes, a multiple of four.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).surely()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back() {
        let mut w = Written::new();
        w.mss(65480);
        w.sack_permitted();
        w.timestamps(Timestamps { value: 7, echo: 9 });
        w.window_scale(7);
        assert_eq!(w.bytes().len() % 4, 0);
        let options = Options::parse(w.bytes());
        assert_eq!(options.mss, Some(65480));
        assert_eq!(options.window_scale, Some(7));
        assert!(options.sack_permitted);
        assert_eq!(options.timestamps, Some(Timestamps { value: 7, echo: 9 }));

        let blocks: Vec<Range> =
            (1..=5).map(|n| Range { start: SeqNum(n * 10), end: SeqNum(n * 10 + 5) }).collect();
        let mut w = Written::new();
        w.timestamps(Timestamps::default());
        w.sack(blocks.iter().copied());
        assert_eq!(w.bytes().len(), 40, "timestamps and three blocks fill the header");
        assert_eq!(Options::parse(w.bytes()).sack[..3], [Some(blocks[0]), Some(blocks[1]), Some(blocks[2])]);
    }

    #[test]
    fn hostile_options_end_the_reading_and_nothing_else() {
        assert_eq!(Options::parse(&[MSS, 0, 5, 5]), Options::default(), "length zero");
        assert_eq!(Options::parse(&[MSS, 1]), Options::default(), "length one");
        assert_eq!(Options::parse(&[MSS, 4, 1]), Options::default(), "leads outside");
        assert_eq!(Options::parse(&[WINDOW_SCALE, 3, 200]).window_scale, Some(MAX_SHIFT));
        assert_eq!(Options::parse(&[99, 4, 0, 0, MSS, 4, 2, 24]).mss, Some(536), "unknown ones are skipped");
        proptest::proptest!(|(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..60))| {
            let _ = Options::parse(&bytes);
        });
    }
}
