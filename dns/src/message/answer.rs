//! Answers of our own, written into a buffer that the caller keeps.
//!
//! An answer is the query's header with the answer bits, its question section as it was, our records and the client's
//! OPT as it was: its size, its DO bit and its cookies go back unchanged. Each record names the first question by a
//! compression pointer, so a hundred addresses cost 16 bytes each.
//!
//! Bits: AA never (we are nobody's authority), RA exactly when RD was set, TC only when records did not fit, AD never:
//! nothing here was validated (RFC 6840 §5.8). CD and the opcode go back.

use super::{HEADER_LEN, Query, Rcode, RecordType};

/// RFC 1035 §4.1.4: a pointer to the name behind the header.
const FIRST_NAME: [u8; 2] = [0xc0, 12];
/// Header bits, as the two bytes of flags hold them.
const QR: u8 = 0x80;
const OPCODE: u8 = 0x78;
const TC: u8 = 0x02;
const RD: u8 = 0x01;
const RA: u8 = 0x80;
const CD: u8 = 0x10;

/// An answer under construction.
#[derive(Debug)]
pub struct AnswerBuilder<'q, 'o> {
    query: &'o Query<'q>,
    out: &'o mut Vec<u8>,
    records: u16,
    /// Records may be written up to here; behind it goes the OPT.
    limit: usize,
    truncated: bool,
    edns: bool,
}

impl<'q, 'o> AnswerBuilder<'q, 'o> {
    /// Begins an answer of at most `limit` bytes. What `out` held is lost.
    ///
    /// The question and the OPT are always in it, whatever the limit: they were in the query, which came the same way.
    pub fn new(query: &'o Query<'q>, rcode: Rcode, limit: usize, out: &'o mut Vec<u8>) -> Self {
        out.clear();
        let limit = limit.min(super::MAX_MESSAGE).saturating_sub(query.opt().map_or(0, <[u8]>::len));
        let [id0, id1, asked0, asked1] = query.bytes().first_chunk::<4>().copied().unwrap_or_default();
        let recursion = if asked0 & RD != 0 { RA } else { 0 };
        out.extend_from_slice(&[id0, id1, QR | asked0 & (OPCODE | RD), recursion | asked1 & CD | rcode.0]);
        out.extend_from_slice(&query.questions().to_be_bytes());
        out.extend_from_slice(&[0; HEADER_LEN - 6]);
        out.extend_from_slice(query.question_section());
        Self { query, out, records: 0, limit, truncated: false, edns: true }
    }

    /// Leaves the client's OPT out, as servers do that do not know EDNS.
    #[must_use]
    pub fn without_edns(mut self) -> Self {
        self.edns = false;
        self
    }

    /// Sets RA even if recursion was not desired.
    #[must_use]
    pub fn recursion_available(self) -> Self {
        if let Some(flags) = self.out.get_mut(3) {
            *flags |= RA;
        }
        self
    }

    /// Adds a record for the name of the first question. One that does not fit makes the answer a truncated one.
    pub fn record(&mut self, record_type: RecordType, ttl: u32, data: &[u8]) {
        let fits = self.out.len() + FIRST_NAME.len() + 10 + data.len() <= self.limit;
        let (true, Ok(len), true) = (fits, u16::try_from(data.len()), self.records < u16::MAX) else {
            self.truncated = true;
            return;
        };
        if self.query.questions() == 0 {
            self.out.push(0); // there is no name to point to: the root
        } else {
            self.out.extend_from_slice(&FIRST_NAME);
        }
        self.out.extend_from_slice(&record_type.0.to_be_bytes());
        self.out.extend_from_slice(&super::CLASS_IN.to_be_bytes());
        self.out.extend_from_slice(&ttl.to_be_bytes());
        self.out.extend_from_slice(&len.to_be_bytes());
        self.out.extend_from_slice(data);
        self.records += 1;
    }

    /// Completes the answer.
    pub fn finish(self) {
        let opt = self.query.opt().filter(|_| self.edns);
        self.out.extend_from_slice(opt.unwrap_or_default());
        let [answers0, answers1] = self.records.to_be_bytes();
        if let Some(header) = self.out.first_chunk_mut::<HEADER_LEN>() {
            header[2] |= if self.truncated { TC } else { 0 };
            (header[6], header[7]) = (answers0, answers1);
            header[11] = u8::from(opt.is_some());
        }
    }
}

/// An answer without records.
pub fn empty(query: &Query<'_>, rcode: Rcode, out: &mut Vec<u8>) {
    AnswerBuilder::new(query, rcode, super::MAX_MESSAGE, out).finish();
}

/// SERVFAIL in answer to `query`; `false` when it is not a query at all.
pub fn servfail(query: &[u8], out: &mut Vec<u8>) -> bool {
    Query::parse(query).is_ok_and(|query| {
        empty(&query, Rcode::SERVFAIL, out);
        true
    })
}
