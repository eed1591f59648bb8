//! Reading numbers and addresses out of untrusted bytes: each answers `None` where the bytes end too early.
//!
//! Network byte order throughout (RFC 791 appendix B). Nothing here panics, whatever the offset.

use core::net::{Ipv4Addr, Ipv6Addr};

/// The `N` bytes at `at`.
pub(crate) fn array<const N: usize>(data: &[u8], at: usize) -> Option<[u8; N]> {
    data.get(at..)?.first_chunk().copied()
}

/// The byte at `at`.
pub(crate) fn byte(data: &[u8], at: usize) -> Option<u8> {
    data.get(at).copied()
}

/// The 16-bit number at `at`.
pub(crate) fn be16(data: &[u8], at: usize) -> Option<u16> {
    array(data, at).map(u16::from_be_bytes)
}

/// The IPv4 address at `at`.
pub(crate) fn ipv4(data: &[u8], at: usize) -> Option<Ipv4Addr> {
    array::<4>(data, at).map(Ipv4Addr::from)
}

/// The IPv6 address at `at`.
pub(crate) fn ipv6(data: &[u8], at: usize) -> Option<Ipv6Addr> {
    array::<16>(data, at).map(Ipv6Addr::from)
}

/// Overwrites the bytes at `at` with `value`; does nothing where they do not exist.
///
/// For headers that the caller has just written itself.
pub(crate) fn put<const N: usize>(data: &mut [u8], at: usize, value: [u8; N]) {
    if let Some(place) = data.get_mut(at..).and_then(|rest| rest.first_chunk_mut()) {
        *place = value;
    }
}

/// `len` as the 16-bit number of a length field, the largest one if it does not fit.
pub(crate) fn len16(len: usize) -> u16 {
    u16::try_from(len).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_read_or_written_behind_the_end() {
        let mut data = [1, 2, 3];
        assert_eq!(be16(&data, 1), Some(0x0203));
        for at in [2, 3, 4, usize::MAX] {
            assert_eq!(be16(&data, at), None, "{at}");
            put(&mut data, at, [9, 9]);
        }
        assert_eq!(data, [1, 2, 3]);
        put(&mut data, 1, [9, 9]);
        assert_eq!(data, [1, 9, 9]);
        assert_eq!((ipv4(&data, 0), ipv6(&data, 0), byte(&data, 3)), (None, None, None));
    }

    #[test]
    fn lengths_saturate() {
        assert_eq!((len16(65_535), len16(65_536)), (65_535, 65_535));
    }
}
