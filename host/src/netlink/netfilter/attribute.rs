//! Attributes: the type-length-value lists that netlink messages are made of, written and read by hand.
//!
//! Netfilter's messages have no codec crate here, and need none: an attribute is two 16-bit numbers of the host's byte
//! order (length with its header, kind), the value, and padding to four bytes. The values of netfilter are big-endian.
//! Reading never trusts a length: a list ends at the first attribute that does not fit what is left.
//!
//! Source: Linux `Documentation/userspace-api/netlink/intro.rst`, `include/uapi/linux/netlink.h`.

/// Length and kind.
const HEADER: usize = 4;

/// The value is a list of attributes itself.
const NLA_F_NESTED: u16 = 0x8000;

/// The kind without its two flags (NLA_F_NESTED, NLA_F_NET_BYTEORDER).
const KIND: u16 = 0x3fff;

/// A list being written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attributes {
    bytes: Vec<u8>,
    /// An attribute was too long for its length field; what was written makes no sense.
    overflown: bool,
}

impl Attributes {
    /// The fixed part of a message, before its attributes: a multiple of four bytes.
    pub(crate) fn head(&mut self, head: &[u8]) {
        self.extend(head);
    }

    /// A value as it is.
    pub fn bytes(&mut self, kind: u16, value: &[u8]) {
        self.attribute(kind, |list| list.extend(value));
    }

    /// A 32-bit number in network byte order.
    pub fn number(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_be_bytes());
    }

    /// A 64-bit number in network byte order.
    pub fn long(&mut self, kind: u16, value: u64) {
        self.bytes(kind, &value.to_be_bytes());
    }

    /// A string with the zero byte at its end.
    pub fn text(&mut self, kind: u16, value: &str) {
        self.attribute(kind, |list| {
            list.extend(value.as_bytes());
            list.extend(&[0]);
        });
    }

    /// A list within the list.
    pub fn nested(&mut self, kind: u16, write: impl FnOnce(&mut Self)) {
        self.attribute(kind | NLA_F_NESTED, write);
    }

    /// What was written.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn extend(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    pub(crate) fn overflown(&self) -> bool {
        self.overflown
    }

    /// Writes a 32-bit length of the host's byte order, counted from `start` to the end, at `start`.
    pub(super) fn close_message(&mut self, start: usize) {
        let length = u32::try_from(self.bytes.len() - start);
        self.patch(start, length.ok().map(u32::to_ne_bytes));
    }

    fn attribute(&mut self, kind: u16, write: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.extend(&[0, 0]);
        self.extend(&kind.to_ne_bytes());
        write(self);
        let length = u16::try_from(self.bytes.len() - start);
        self.patch(start, length.ok().map(u16::to_ne_bytes));
        // Every message begins at a multiple of four, so the end of the buffer tells how much padding there is.
        self.bytes.resize(self.bytes.len().next_multiple_of(HEADER), 0);
    }

    fn patch<const N: usize>(&mut self, at: usize, value: Option<[u8; N]>) {
        match (value, self.bytes.get_mut(at..at + N)) {
            (Some(value), Some(place)) => place.copy_from_slice(&value),
            _ => self.overflown = true,
        }
    }
}

/// The attributes in `bytes`: kind (without flags) and value.
#[must_use]
pub fn attributes(bytes: &[u8]) -> AttributeIter<'_> {
    AttributeIter { rest: bytes }
}

/// See [`attributes`].
#[derive(Debug, Clone)]
pub struct AttributeIter<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for AttributeIter<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (length, rest) = self.rest.split_first_chunk::<2>()?;
        let kind = rest.first_chunk::<2>()?;
        let length = usize::from(u16::from_ne_bytes(*length));
        let value = self.rest.get(HEADER..length)?;
        self.rest = self.rest.get(length.next_multiple_of(HEADER)..).unwrap_or_default();
        Some((u16::from_ne_bytes(*kind) & KIND, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back() {
        let mut list = Attributes::default();
        list.number(1, 0x0102_0304);
        list.text(2, "lo");
        list.nested(3, |list| {
            list.bytes(4, &[9]);
            list.long(5, 6);
        });
        assert_eq!(list.as_bytes().len(), 8 + 8 + 4 + 8 + 12);
        assert!(!list.overflown());
        let read: Vec<_> = attributes(list.as_bytes()).collect();
        assert_eq!(read[0], (1, &[1, 2, 3, 4][..]));
        assert_eq!(read[1], (2, &b"lo\0"[..]));
        let inner: Vec<_> = attributes(read[2].1).collect();
        assert_eq!(inner, [(4, &[9][..]), (5, &[0, 0, 0, 0, 0, 0, 0, 6][..])]);
        assert_eq!(read.len(), 3);
    }

    #[test]
    fn hostile_lists_end() {
        for bytes in [&[][..], &[1], &[0, 0, 1, 0], &[3, 0, 1, 0], &[5, 0, 1, 0], &[255, 255, 1, 0, 0, 0]] {
            assert_eq!(attributes(bytes).next(), None, "{bytes:?}");
        }
        // No padding after the last one.
        assert_eq!(attributes(&[5, 0, 1, 0, 7]).collect::<Vec<_>>(), [(1, &[7][..])]);
    }

    #[test]
    fn an_attribute_that_is_too_long_is_noticed() {
        let mut list = Attributes::default();
        list.bytes(1, &vec![0; 70_000]);
        assert!(list.overflown());
    }
}
