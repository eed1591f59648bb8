//! Values as SSH writes them. Pure.
//!
//! Source: RFC 4251 §5. Whoever reads says what he expects; anything else, and whatever is left over, is [`Malformed`].

/// What was read is not what it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a message makes no sense")]
pub(crate) struct Malformed;

/// Reads values one after the other.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// From the first of these bytes.
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// What has not been read.
    #[cfg(test)]
    pub(crate) const fn rest(&self) -> &'a [u8] {
        self.0
    }

    /// So many bytes as they are.
    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    /// A byte.
    pub(crate) fn byte(&mut self) -> Result<u8, Malformed> {
        let (first, rest) = self.0.split_first().ok_or(Malformed)?;
        self.0 = rest;
        Ok(*first)
    }

    /// A truth value: anything but zero is true.
    pub(crate) fn truth(&mut self) -> Result<bool, Malformed> {
        self.byte().map(|byte| byte != 0)
    }

    /// A number.
    pub(crate) fn number(&mut self) -> Result<u32, Malformed> {
        let (first, rest) = self.0.split_first_chunk().ok_or(Malformed)?;
        self.0 = rest;
        Ok(u32::from_be_bytes(*first))
    }

    /// A string, of bytes.
    pub(crate) fn string(&mut self) -> Result<&'a [u8], Malformed> {
        let len = usize::try_from(self.number()?).map_err(|_| Malformed)?;
        self.take(len)
    }

    /// A string that somebody may look at: control characters, by which a log could be forged, and what is no text
    /// have other characters in their places.
    pub(crate) fn text(&mut self) -> Result<String, Malformed> {
        let text = String::from_utf8_lossy(self.string()?);
        Ok(text.trim_end().chars().map(|letter| if letter.is_control() { '?' } else { letter }).collect())
    }

    /// A list of names.
    pub(crate) fn names(&mut self) -> Result<&'a str, Malformed> {
        str::from_utf8(self.string()?).map_err(|_| Malformed)
    }

    /// A whole number that is not negative, without zeros in front.
    pub(crate) fn natural(&mut self) -> Result<&'a [u8], Malformed> {
        let bytes = self.string()?;
        if bytes.first().is_some_and(|first| *first >= 0x80) {
            return Err(Malformed);
        }
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        Ok(bytes.get(zeros..).unwrap_or_default())
    }

    /// That there is nothing more.
    pub(crate) const fn end(self) -> Result<(), Malformed> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed) }
    }
}

/// Writes values one after the other.
pub(crate) trait Put {
    /// A number.
    fn number(&mut self, number: u32);
    /// A string. None is longer than a number can say: those of a message are bounded by it.
    fn string(&mut self, bytes: &[u8]);
    /// A whole number that is not negative, its highest byte first.
    fn natural(&mut self, bytes: &[u8]);
}

impl Put for Vec<u8> {
    fn number(&mut self, number: u32) {
        self.extend_from_slice(&number.to_be_bytes());
    }

    fn string(&mut self, bytes: &[u8]) {
        self.number(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        self.extend_from_slice(bytes);
    }

    fn natural(&mut self, bytes: &[u8]) {
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        let bytes = bytes.get(zeros..).unwrap_or_default();
        // RFC 4251 §5: the highest bit is the sign.
        let sign = bytes.first().is_some_and(|first| *first >= 0x80);
        let len = bytes.len() + usize::from(sign);
        self.number(u32::try_from(len).unwrap_or(u32::MAX));
        self.extend_from_slice(if sign { &[0] } else { &[] });
        self.extend_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_as_in_the_rfc_and_read_back() {
        let mut bytes = Vec::new();
        bytes.number(699_921_578);
        bytes.string(b"testing");
        // The numbers of RFC 4251 §5.
        bytes.natural(&[]);
        bytes.natural(&[0, 0x80]);
        bytes.natural(&[0x09, 0xa3, 0x78, 0xf9, 0xb2, 0xe3, 0x32, 0xa7]);
        assert_eq!(bytes.get(..4), Some(&[0x29, 0xb7, 0xf4, 0xaa][..]));
        assert_eq!(bytes.get(15..25), Some(&[0, 0, 0, 0, 0, 0, 0, 2, 0, 0x80][..]));
        let mut reader = Reader::new(&bytes);
        assert_eq!(reader.number(), Ok(699_921_578));
        assert_eq!(reader.string(), Ok(&b"testing"[..]));
        assert_eq!(reader.natural(), Ok(&[][..]));
        assert_eq!(reader.natural(), Ok(&[0x80][..]));
        assert_eq!(reader.end(), Err(Malformed));
        assert_eq!(reader.natural().map(<[u8]>::len), Ok(8));
        assert_eq!(reader.end(), Ok(()));
    }

    #[test]
    fn what_ends_early_or_says_too_much_is_refused() {
        for bytes in [&[][..], &[0, 0, 0], &[0, 0, 0, 2, 1], &[0xff, 0xff, 0xff, 0xff, 1]] {
            assert_eq!(Reader::new(bytes).string(), Err(Malformed), "{bytes:?}");
        }
        assert_eq!(Reader::new(&[]).byte(), Err(Malformed));
        assert_eq!(Reader::new(&[0, 0, 0, 1, 0x80]).natural(), Err(Malformed), "it is negative");
        assert_eq!(Reader::new(&[0, 0, 0, 4, b'a', b'\n', 0xff, b' ']).text(), Ok("a?\u{fffd}".to_owned()));
    }
}
