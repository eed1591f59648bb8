//! The Internet checksum (RFC 1071): sums, pseudo-headers, and the half-done value that a device completes.
//!
//! A *sum* is the folded one's complement sum in network order, not yet inverted; sums of pieces that start at
//! even offsets add up with [`combine`]. [`finish`] inverts. The word loop is smoltcp's.

use crate::surely::Surely;
use core::net::IpAddr;
use smoltcp::wire::checksum;

/// More than this at once would overflow the 32-bit accumulator of the word loop. Even, so that words stay aligned.
const BLOCK: usize = 1 << 16;

/// The sum of `data`, as if a zero byte followed an odd last one.
#[must_use]
pub fn sum(data: &[u8]) -> u16 {
    if data.len() <= BLOCK {
        return checksum::data(data);
    }
    data.chunks(BLOCK).fold(0, |total, block| add(total, checksum::data(block)))
}

/// One's complement addition of two sums.
#[must_use]
pub const fn add(a: u16, b: u16) -> u16 {
    let (sum, carry) = a.overflowing_add(b);
    // Cannot overflow: with a carry the sum is at most 0xfffe.
    sum + carry as u16
}

/// The sum of several sums.
#[must_use]
pub fn combine(sums: &[u16]) -> u16 {
    sums.iter().fold(0, |total, &one| add(total, one))
}

/// The sum of the pseudo-header of a segment of `len` bytes (RFC 9293 §3.1, RFC 8200 §8.1).
///
/// Both addresses are of one family; the two pseudo-headers differ in layout but not in what they sum up.
#[must_use]
pub fn pseudo_header(src: IpAddr, dst: IpAddr, protocol: u8, len: u32) -> u16 {
    let address = |addr: IpAddr| match addr {
        IpAddr::V4(a) => sum(&a.octets()),
        IpAddr::V6(a) => sum(&a.octets()),
    };
    let [a, b, c, d] = len.to_be_bytes();
    combine(&[address(src), address(dst), sum(&[0, protocol, a, b, c, d])])
}

/// What the checksum field holds when the device is to complete it (VIRTIO_NET_HDR_F_NEEDS_CSUM): the sum of the
/// pseudo-header, not inverted. For a train of segments `len` is that of the whole train.
#[must_use]
pub fn partial(src: IpAddr, dst: IpAddr, protocol: u8, len: u32) -> u16 {
    pseudo_header(src, dst, protocol, len)
}

/// The checksum that stands for `sum` in a header.
#[must_use]
pub const fn finish(sum: u16) -> u16 {
    !sum
}

/// The same for UDP, where zero would mean "no checksum" (RFC 768).
#[must_use]
pub const fn finish_udp(sum: u16) -> u16 {
    match !sum {
        0 => 0xffff,
        other => other,
    }
}

/// The checksum of a TCP, UDP or ICMPv6 `segment` whose own checksum field is zero.
#[must_use]
pub fn transport(src: IpAddr, dst: IpAddr, protocol: u8, segment: &[u8]) -> u16 {
    let len = u32::try_from(segment.len()).surely_or(u32::MAX);
    finish(add(pseudo_header(src, dst, protocol, len), sum(segment)))
}

/// Whether the checksum inside a TCP, UDP or ICMPv6 `segment` fits it. (A UDP field of zero is the caller's case.)
#[must_use]
pub fn transport_fits(src: IpAddr, dst: IpAddr, protocol: u8, segment: &[u8]) -> bool {
    transport(src, dst, protocol, segment) == 0
}

/// Whether the checksum inside `data` (an IPv4 header, an ICMPv4 or IGMP message) fits it.
#[must_use]
pub fn fits(data: &[u8]) -> bool {
    finish(sum(data)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// RFC 1071 §4.1, word by word, with nothing clever.
    fn plain(data: &[u8]) -> u16 {
        let mut total: u64 = 0;
        for pair in data.chunks(2) {
            total += u64::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
        }
        while total > 0xffff {
            total = (total & 0xffff) + (total >> 16);
        }
        u16::try_from(total).unwrap()
    }

    #[test]
    fn the_example_of_rfc_1071() {
        assert_eq!(sum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), 0xddf2);
    }

    #[test]
    fn large_blocks_of_ones_do_not_overflow() {
        for len in [65_535, 65_536, 65_537, 200_001] {
            let data = vec![0xff; len];
            assert_eq!(sum(&data), plain(&data), "{len}");
        }
    }

    #[test]
    fn a_udp_checksum_is_never_zero() {
        assert_eq!(finish(0xffff), 0);
        assert_eq!(finish_udp(0xffff), 0xffff);
        assert_eq!(finish_udp(0x1234), !0x1234);
    }

    proptest! {
        #[test]
        fn sum_is_that_of_the_definition(data: Vec<u8>) {
            prop_assert_eq!(sum(&data), plain(&data));
        }

        #[test]
        fn pieces_add_up(data: Vec<u8>, at: prop::sample::Index) {
            let at = at.index(data.len() + 1) & !1;
            prop_assert_eq!(combine(&[sum(&data[..at]), sum(&data[at..])]), sum(&data));
        }

        #[test]
        fn etherparse_computes_the_same(
            src: [u8; 4], dst: [u8; 4], src6: [u8; 16], dst6: [u8; 16], payload in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let udp = etherparse::UdpHeader::without_ipv4_checksum(53, 1024, payload.len()).unwrap();
            let mut segment = udp.to_bytes().to_vec();
            segment.extend_from_slice(&payload);
            let len = u32::try_from(segment.len()).unwrap();
            let ours = |s: IpAddr, d: IpAddr| finish_udp(add(partial(s, d, 17, len), sum(&segment)));
            prop_assert_eq!(ours(src.into(), dst.into()), udp.calc_checksum_ipv4_raw(src, dst, &payload).unwrap());
            prop_assert_eq!(ours(src6.into(), dst6.into()), udp.calc_checksum_ipv6_raw(src6, dst6, &payload).unwrap());
        }

        #[test]
        fn a_stored_checksum_fits(src: [u8; 16], dst: [u8; 16], mut segment in prop::collection::vec(any::<u8>(), 4..100)) {
            segment[2..4].fill(0);
            let value = transport(src.into(), dst.into(), 58, &segment);
            segment[2..4].copy_from_slice(&value.to_be_bytes());
            prop_assert!(transport_fits(src.into(), dst.into(), 58, &segment));
            segment[0] ^= 1;
            prop_assert!(!transport_fits(src.into(), dst.into(), 58, &segment));
        }
    }
}
