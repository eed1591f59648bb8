//! DNS messages: the view of a query, and answers built into a buffer. This module alone knows hickory-proto.
//!
//! A local answer costs no allocation. Of a query the header and the first question are read, the other records are
//! only stepped over, to find the client's OPT; names in them are not followed, so that a message of nothing but
//! compression pointers costs one pass. The name is copied once, lower-cased, as text with dots, because that is the
//! form in which names are looked up; the question and the OPT go into the answer as the bytes they were.
//!
//! What is refused ([`Malformed`]): less than a header, a message that is itself an answer (two servers would entertain
//! each other for ever), a name longer than RFC 1035 allows or compressed in the first question (there is nothing
//! before it that it could point to), counts that promise more than there is. Trailing bytes are ignored.
//!
//! Sources: RFC 1035 §4.1 (format), RFC 6891 §6.1 (OPT), RFC 3597 (unknown types are opaque).

mod answer;
mod codes;
mod international;
mod reader;
mod reply;

pub use answer::{AnswerBuilder, empty, servfail};
pub use codes::{Rcode, RecordType};
pub(crate) use international::ascii_form;
pub use reply::{Reply, same_question};

use core::fmt;
use core::ops::Range;
use reader::Reader;

/// RFC 1035 §4.1.1: the length of the header.
pub const HEADER_LEN: usize = 12;
/// RFC 1035 §4.2.1: what every client takes over UDP.
pub const MIN_UDP_SIZE: u16 = 512;
/// RFC 1035 §2.3.4: the longest name, in wire form.
pub const MAX_NAME: usize = 255;
/// RFC 1035 §4.2.2: what the two bytes before a message on TCP can say.
pub const MAX_MESSAGE: usize = 65_535;
/// RFC 1035 §3.2.4: the Internet.
pub const CLASS_IN: u16 = 1;
/// RFC 1035 §3.2.5: any class.
pub const CLASS_ANY: u16 = 255;

/// How a message travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Transport {
    /// One datagram.
    Udp,
    /// A length and the message, on a connection.
    Tcp,
}

/// Why a message is not looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Malformed {
    /// It ends before its header or its counts say.
    #[error("the message ends early")]
    Truncated,
    /// It is an answer, and not asked for.
    #[error("the message is not a query")]
    NotAQuery,
    /// A name that RFC 1035 does not allow.
    #[error("the message has an impossible name")]
    Name,
    /// Longer than any message can be.
    #[error("the message is too long")]
    TooLong,
}

/// A name as it was asked for: lower-cased (ASCII), in text form, with the final dot.
#[derive(Clone)]
pub struct QueryName {
    text: [u8; MAX_NAME],
    len: usize,
    /// A label holds a dot: the text does not say where the labels end, so it names nothing of ours.
    ambiguous: bool,
}

impl QueryName {
    const ROOT: Self = {
        let mut text = [0; MAX_NAME];
        text[0] = b'.';
        Self { text, len: 1, ambiguous: false }
    };

    /// The text, with the final dot.
    #[must_use]
    pub fn text(&self) -> &[u8] {
        self.text.get(..self.len).unwrap_or_default()
    }

    /// The text, when no label of the name holds a dot.
    #[must_use]
    pub fn plain(&self) -> Option<&[u8]> {
        (!self.ambiguous).then(|| self.text())
    }

    fn clear(&mut self) {
        self.len = 0;
    }

    fn push(&mut self, label: &[u8]) -> Result<(), Malformed> {
        let end = self.len + label.len() + 1;
        // The wire form is longer by one: the length of the root.
        let room = self.text.get_mut(self.len..end).filter(|_| end < MAX_NAME).ok_or(Malformed::Name)?;
        for (to, from) in room.iter_mut().zip(label) {
            *to = from.to_ascii_lowercase();
            self.ambiguous |= *from == b'.';
        }
        if let Some(last) = room.last_mut() {
            *last = b'.';
        }
        self.len = end;
        Ok(())
    }
}

/// As a log shows it: printable ASCII, anything else as `\DDD`.
impl fmt::Display for QueryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for &byte in self.text() {
            if byte.is_ascii_graphic() && byte != b'\\' {
                write!(f, "{}", char::from(byte))?;
            } else {
                write!(f, "\\{byte:03}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for QueryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "QueryName({self})")
    }
}

/// What matters of a query. Borrowed from the message.
#[derive(Clone, Debug)]
pub struct Query<'m> {
    bytes: &'m [u8],
    questions: u16,
    name: QueryName,
    record_type: RecordType,
    class: u16,
    /// Where the first question ends.
    first_end: usize,
    /// Where the question section ends.
    questions_end: usize,
    opt: Option<Range<usize>>,
}

impl<'m> Query<'m> {
    /// Reads a message.
    ///
    /// # Errors
    /// What cannot be answered and should be dropped.
    pub fn parse(bytes: &'m [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes)?;
        let header = reader.header()?;
        if reader::is_answer(&header) {
            return Err(Malformed::NotAQuery);
        }
        let counts = header.counts;
        // Filled in place: the name is by far the largest part, and copying it is what a query would cost most.
        let mut query = Self {
            bytes,
            questions: counts.queries,
            name: QueryName::ROOT,
            record_type: RecordType::A,
            class: CLASS_IN,
            first_end: HEADER_LEN,
            questions_end: HEADER_LEN,
            opt: None,
        };
        for number in 0..counts.queries {
            if number == 0 {
                reader.name(&mut query.name)?;
                (query.record_type, query.class) = (RecordType(reader.u16()?), reader.u16()?);
                query.first_end = reader.index();
            } else {
                reader.skip_name()?;
                reader.skip(4)?;
            }
        }
        query.questions_end = reader.index();
        for _ in 0..u32::from(counts.answers) + u32::from(counts.authorities) {
            reader.record()?;
        }
        for _ in 0..counts.additionals {
            let record = reader.record()?;
            if record.record_type == RecordType::OPT && query.opt.is_none() {
                query.opt = Some(record.range);
            }
        }
        Ok(query)
    }

    /// The message.
    #[must_use]
    pub fn bytes(&self) -> &'m [u8] {
        self.bytes
    }

    /// The id that the client chose.
    #[must_use]
    pub fn id(&self) -> u16 {
        id(self.bytes).unwrap_or_default()
    }

    /// The name of the first question; the root when there is none.
    #[must_use]
    pub fn name(&self) -> &QueryName {
        &self.name
    }

    /// The name in the case in which it was asked, with the final dot.
    pub fn name_as_asked<'b>(&self, buffer: &'b mut [u8; MAX_NAME]) -> &'b [u8] {
        // The wire form has the length of a label where the text has the dot before it.
        let asked = self.bytes.get(HEADER_LEN + 1..).unwrap_or_default();
        let lower = self.name.text();
        for ((to, lower), exact) in buffer.iter_mut().zip(lower).zip(asked) {
            *to = if lower.eq_ignore_ascii_case(exact) { *exact } else { *lower };
        }
        buffer.get(..lower.len()).unwrap_or_default()
    }

    /// Whether the name, in the case in which it was asked and with the final dot, ends with that text.
    #[must_use]
    pub fn ends_with_exactly(&self, suffix: &[u8]) -> bool {
        let Some(start) = self.name.len.checked_sub(suffix.len()) else { return false };
        // The wire form has the length of a label where the text has the dot before it.
        let asked = self.bytes.get(HEADER_LEN + 1 + start..).unwrap_or_default();
        let text = self.name.text().get(start..).unwrap_or_default();
        suffix.iter().zip(text).zip(asked).all(|((want, lower), exact)| match want {
            b'.' => *lower == b'.',
            _ => want == exact,
        })
    }

    /// The type of the first question; A when there is none.
    #[must_use]
    pub fn record_type(&self) -> RecordType {
        self.record_type
    }

    /// The class of the first question.
    #[must_use]
    pub fn class(&self) -> u16 {
        self.class
    }

    /// The operation: 0 is an ordinary query.
    #[must_use]
    pub fn opcode(&self) -> u8 {
        self.bytes.get(2).map_or(0, |flags| (flags >> 3) & 0x0f)
    }

    /// How many questions there are.
    #[must_use]
    pub fn questions(&self) -> u16 {
        self.questions
    }

    /// The client's EDNS record, whole.
    #[must_use]
    pub fn opt(&self) -> Option<&'m [u8]> {
        self.bytes.get(self.opt.clone()?)
    }

    /// How much the client takes over UDP.
    #[must_use]
    pub fn udp_size(&self) -> u16 {
        // RFC 6891 §6.2.3: the class of the OPT; values below 512 count as 512. Root name 1, type 2, then the class.
        let size = self.opt().and_then(|opt| opt.get(3..5)).and_then(|s| s.first_chunk::<2>());
        size.map_or(MIN_UDP_SIZE, |s| u16::from_be_bytes(*s).max(MIN_UDP_SIZE))
    }

    /// The first question as it is; nothing when there is none.
    pub(crate) fn first_question(&self) -> &'m [u8] {
        self.bytes.get(HEADER_LEN..self.first_end).unwrap_or_default()
    }

    pub(crate) fn question_section(&self) -> &'m [u8] {
        self.bytes.get(HEADER_LEN..self.questions_end).unwrap_or_default()
    }
}

/// The id of any message.
#[must_use]
pub fn id(message: &[u8]) -> Option<u16> {
    message.first_chunk::<2>().map(|id| u16::from_be_bytes(*id))
}

/// Gives a message another id.
pub fn set_id(message: &mut [u8], id: u16) {
    if let Some(place) = message.first_chunk_mut::<2>() {
        *place = id.to_be_bytes();
    }
}

/// Sets RA where RD is set.
pub fn claim_recursion(answer: &mut [u8]) {
    if let Some([.., flags, more]) = answer.first_chunk_mut::<4>()
        && *flags & 0x01 != 0
    {
        *more |= 0x80;
    }
}

#[cfg(test)]
mod tests;
