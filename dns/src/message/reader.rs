//! hickory's decoder, with our errors and our rule: names are stepped over, never followed.

use super::{MAX_MESSAGE, MAX_NAME, Malformed, QueryName, RecordType};
use core::ops::Range;
use hickory_proto::op::{Header, MessageType};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder, DecodeError};

/// The two bits that mark a compression pointer (RFC 1035 §4.1.4).
const POINTER: u8 = 0b1100_0000;

/// Whether the message is an answer.
pub(super) fn is_answer(header: &Header) -> bool {
    header.metadata.message_type == MessageType::Response
}

/// One record, stepped over.
pub(super) struct Record {
    pub(super) record_type: RecordType,
    /// All of it.
    pub(super) range: Range<usize>,
    /// Where its TTL stands.
    pub(super) ttl_at: usize,
    pub(super) ttl: u32,
    pub(super) rdata: Range<usize>,
}

/// hickory's decoder, with our errors.
pub(super) struct Reader<'m> {
    decoder: BinDecoder<'m>,
}

impl From<DecodeError> for Malformed {
    fn from(_: DecodeError) -> Self {
        Self::Truncated
    }
}

impl<'m> Reader<'m> {
    pub(super) fn new(bytes: &'m [u8]) -> Result<Self, Malformed> {
        if bytes.len() > MAX_MESSAGE {
            return Err(Malformed::TooLong);
        }
        Ok(Self { decoder: BinDecoder::new(bytes) })
    }

    pub(super) fn header(&mut self) -> Result<Header, Malformed> {
        Ok(Header::read(&mut self.decoder)?)
    }

    pub(super) fn index(&self) -> usize {
        self.decoder.index()
    }

    fn byte(&mut self) -> Result<u8, Malformed> {
        Ok(self.decoder.read_u8()?.unverified(/* any value is looked at below */))
    }

    pub(super) fn u16(&mut self) -> Result<u16, Malformed> {
        Ok(self.decoder.read_u16()?.unverified(/* types, classes and lengths may have any value */))
    }

    fn u32(&mut self) -> Result<u32, Malformed> {
        Ok(self.decoder.read_u32()?.unverified(/* a TTL may have any value */))
    }

    pub(super) fn skip(&mut self, len: usize) -> Result<&'m [u8], Malformed> {
        Ok(self.decoder.read_slice(len)?.unverified(/* opaque */))
    }

    /// Reads a name that is not compressed into `name`, which is the root so far.
    pub(super) fn name(&mut self, name: &mut QueryName) -> Result<(), Malformed> {
        let mut len = self.byte()?;
        if len > 0 {
            name.clear();
        }
        while len > 0 {
            if len & POINTER != 0 {
                return Err(Malformed::Name);
            }
            name.push(self.skip(usize::from(len))?)?;
            len = self.byte()?;
        }
        Ok(())
    }

    /// A name, compressed or not, of which only the end matters.
    pub(super) fn skip_name(&mut self) -> Result<(), Malformed> {
        let start = self.index();
        loop {
            match self.byte()? {
                0 => return Ok(()),
                len if len & POINTER == POINTER => {
                    self.byte()?;
                    return Ok(());
                }
                len if len & POINTER != 0 => return Err(Malformed::Name),
                len => self.skip(usize::from(len))?,
            };
            if self.index() - start >= MAX_NAME {
                return Err(Malformed::Name);
            }
        }
    }

    /// The next record.
    pub(super) fn record(&mut self) -> Result<Record, Malformed> {
        let start = self.index();
        self.skip_name()?;
        let record_type = RecordType(self.u16()?);
        let _class = self.u16()?;
        let ttl_at = self.index();
        let ttl = self.u32()?;
        let len = usize::from(self.u16()?);
        let data = self.index();
        self.skip(len)?;
        Ok(Record { record_type, range: start..self.index(), ttl_at, ttl, rdata: data..self.index() })
    }
}
