//! Answers of upstream servers: what a forwarder and a cache have to know of them. They are relayed as they came.

use super::reader::{Reader, is_answer};
use super::{HEADER_LEN, Malformed, Rcode, RecordType};

/// The header bit of a truncated answer, in its third byte.
const TC: u8 = 0x02;

/// What matters of an answer. Borrowed from the message.
#[derive(Clone, Debug)]
pub struct Reply<'m> {
    bytes: &'m [u8],
    questions: u16,
    /// Where the first question ends.
    first_end: usize,
    /// Where the records begin.
    records_at: usize,
    answers: u16,
    authorities: u16,
    additionals: u16,
}

impl<'m> Reply<'m> {
    /// Reads header and questions; the records are left to those who need them.
    ///
    /// # Errors
    /// It is not an answer.
    pub fn parse(bytes: &'m [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes)?;
        let header = reader.header()?;
        if !is_answer(&header) {
            return Err(Malformed::NotAQuery);
        }
        let mut first_end = HEADER_LEN;
        for number in 0..header.counts.queries {
            reader.skip_name()?;
            reader.skip(4)?;
            if number == 0 {
                first_end = reader.index();
            }
        }
        Ok(Self {
            bytes,
            questions: header.counts.queries,
            first_end,
            records_at: reader.index(),
            answers: header.counts.answers,
            authorities: header.counts.authorities,
            additionals: header.counts.additionals,
        })
    }

    /// Whether it is cut off.
    #[must_use]
    pub fn truncated(&self) -> bool {
        self.bytes.get(2).is_some_and(|flags| flags & TC != 0)
    }

    /// Its response code, as far as the header holds it.
    #[must_use]
    pub fn rcode(&self) -> Rcode {
        Rcode(self.bytes.get(3).map_or(0, |flags| flags & 0x0f))
    }

    /// Whether it says that there is nothing: no such name, or nothing of the type that was asked for, be it behind an
    /// alias (RFC 2308 §2).
    #[must_use]
    pub fn is_negative(&self) -> bool {
        if self.rcode() != Rcode::NOERROR {
            return self.rcode() == Rcode::NXDOMAIN;
        }
        let asked = match self.first_question() {
            [.., high, low, _, _] => RecordType(u16::from_be_bytes([*high, *low])),
            _ => RecordType::ANY,
        };
        let mut found = false;
        let read = self.records(|section, record_type, _, _, _| {
            found |= section == 0 && (record_type == asked || asked.is_meta());
        });
        read.is_ok() && !found
    }

    /// The operation that it answers.
    #[must_use]
    pub fn opcode(&self) -> u8 {
        self.bytes.get(2).map_or(0, |flags| (flags >> 3) & 0x0f)
    }

    /// The first question that it repeats, as it is; nothing when there is none.
    #[must_use]
    pub fn first_question(&self) -> &'m [u8] {
        self.bytes.get(HEADER_LEN..self.first_end).unwrap_or_default()
    }

    /// How many questions it repeats.
    #[must_use]
    pub fn questions(&self) -> u16 {
        self.questions
    }

    /// How many records answer the question.
    #[must_use]
    pub fn answers(&self) -> u16 {
        self.answers
    }

    /// Whether all its records are there, or it says itself that some are not.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.truncated() || self.records(|_, _, _, _, _| {}).is_ok()
    }

    /// Visits the records: section (0 answer, 1 authority, 2 additional), type, where the TTL stands, its value, the
    /// data.
    ///
    /// # Errors
    /// The counts promise more than there is.
    pub fn records(
        &self,
        mut each: impl FnMut(u8, RecordType, usize, u32, &'m [u8]),
    ) -> Result<(), Malformed> {
        let mut reader = Reader::new(self.bytes)?;
        reader.skip(self.records_at)?;
        for (section, count) in (0..).zip([self.answers, self.authorities, self.additionals]) {
            for _ in 0..count {
                let record = reader.record()?;
                let data = self.bytes.get(record.rdata).unwrap_or_default();
                each(section, record.record_type, record.ttl_at, record.ttl, data);
            }
        }
        Ok(())
    }
}

/// Whether two questions are the same; names compare without case.
#[must_use]
pub fn same_question(one: &[u8], other: &[u8]) -> bool {
    // Type and class are numbers, of which some would pass for letters.
    let numbers = |question: &[u8]| question.last_chunk::<4>().copied();
    one.eq_ignore_ascii_case(other) && numbers(one) == numbers(other)
}
