//! IPv6 extension headers: where the transport header begins, and whether the headers before it are acceptable.
//!
//! The stack stands in for every remote host, so it behaves as the destination does (RFC 8200 §4): it walks the whole
//! chain, skips what it knows, and refuses options and routing headers that it must not ignore, and authentication that
//! it cannot verify. A chain of more than [`MAX_HEADERS`] is malformed here; nobody sends one in earnest (RFC 8504 §5.3
//! permits the limit).

use crate::bytes;
use crate::drop_reason::DropReason;
use crate::ip::problem::Problem;
use crate::surely::Surely;
use core::net::Ipv6Addr;

/// Extension headers in one packet.
pub const MAX_HEADERS: usize = 8;

/// Bytes of the fixed header.
pub const FIXED_LEN: usize = 40;

/// Protocol number of hop-by-hop options.
pub const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
/// Protocol number of the fragment header.
pub const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION: u8 = 60;

/// Where the chain of headers ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Upper {
    /// What follows the chain. Unknown numbers, "no next header" (59) and ESP end it, too.
    pub protocol: u8,
    /// Where that begins, from the beginning of the packet; the packet may end there.
    pub offset: usize,
    /// Where the byte that names `protocol` is.
    pub pointer: usize,
    /// The fragment header, if there is one. In any fragment but the first the chain ends behind it.
    pub fragment: Option<Fragment>,
}

/// A fragment header (RFC 8200 §4.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fragment {
    /// Where it begins, from the beginning of the packet.
    pub at: usize,
    /// Where the next-header byte is that names it.
    pub pointer: usize,
    /// What follows it (in the first fragment).
    pub next: u8,
    /// Where the fragment's bytes belong, in bytes.
    pub offset: u16,
    /// Whether more fragments follow.
    pub more: bool,
    /// Which datagram it belongs to.
    pub ident: u32,
}

/// A packet whose header chain is not acceptable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// For the counter.
    pub reason: DropReason,
    /// What to tell the sender, if anything.
    pub problem: Option<Problem>,
}

impl From<DropReason> for Refused {
    fn from(reason: DropReason) -> Self {
        Self { reason, problem: None }
    }
}

/// Walks the chain of `packet` without judging what is inside the headers; `None` when it is cut off or too long.
#[must_use]
pub fn upper(packet: &[u8]) -> Option<Upper> {
    walk(packet, |_, _, _| Ok(())).ok()
}

/// Walks the chain of `packet` and checks each header as its destination must.
///
/// # Errors
/// [`DropReason::Malformed`] when the chain is cut off, too long, or has a header that must not be ignored; the latter
/// may come with a message for the sender.
pub fn check(packet: &[u8]) -> Result<Upper, Refused> {
    let to = bytes::ipv6(packet, 24).ok_or(DropReason::Malformed)?;
    walk(packet, |kind, at, pointer| match kind {
        HOP_BY_HOP | DESTINATION => check_options(packet, at, to),
        ROUTING => check_routing(packet, at),
        // RFC 4302 §3.4.2: what no security association covers is discarded. We have none, so to us the header is an
        // unknown one (RFC 8200 §4); to skip it would be to take the packet for verified.
        AUTHENTICATION => Err(Refused {
            reason: DropReason::UnknownProtocol,
            problem: Some(Problem::Parameter { code: 1, pointer: u32::try_from(pointer).surely() }),
        }),
        _ => Ok(()),
    })
}

/// The walk itself; `visit` sees the number and the place of each complete extension header, and where it is named.
fn walk(
    packet: &[u8],
    mut visit: impl FnMut(u8, usize, usize) -> Result<(), Refused>,
) -> Result<Upper, Refused> {
    let cut = Refused::from(DropReason::Malformed);
    let mut upper =
        Upper { protocol: bytes::byte(packet, 6).ok_or(cut)?, offset: FIXED_LEN, pointer: 6, fragment: None };
    for _ in 0..=MAX_HEADERS {
        let at = upper.offset;
        let len = match upper.protocol {
            // RFC 8200 §4.1: hop-by-hop options come first or not at all. Elsewhere the number is as good as unknown.
            HOP_BY_HOP if upper.pointer != 6 => return Ok(upper),
            HOP_BY_HOP | ROUTING | DESTINATION => {
                8 * (1 + usize::from(bytes::byte(packet, at + 1).ok_or(cut)?))
            }
            AUTHENTICATION => 4 * (2 + usize::from(bytes::byte(packet, at + 1).ok_or(cut)?)),
            FRAGMENT => 8,
            _ => return Ok(upper),
        };
        let next = bytes::byte(packet, at).ok_or(cut)?;
        if packet.len() < at + len {
            return Err(cut);
        }
        let kind = upper.protocol;
        if kind == FRAGMENT {
            let [_, _, high, low, ident @ ..]: [u8; 8] = bytes::array(packet, at).ok_or(cut)?;
            let word = u16::from_be_bytes([high, low]);
            upper.fragment = Some(Fragment {
                at,
                pointer: upper.pointer,
                next,
                offset: word & !7,
                more: word & 1 == 1,
                ident: u32::from_be_bytes(ident),
            });
        }
        visit(kind, at, upper.pointer)?;
        upper = Upper { protocol: next, offset: at + len, pointer: at, fragment: upper.fragment };
        if kind == FRAGMENT && upper.fragment.is_some_and(|fragment| fragment.offset != 0) {
            return Ok(upper);
        }
    }
    Err(cut)
}

/// The options of the header at `at`, which lies inside `packet` (RFC 8200 §4.2).
fn check_options(packet: &[u8], at: usize, to: Ipv6Addr) -> Result<(), Refused> {
    let malformed = Refused::from(DropReason::Malformed);
    let end = at + 8 * (1 + usize::from(bytes::byte(packet, at + 1).ok_or(malformed)?));
    let mut place = at + 2;
    while place < end {
        let kind = bytes::byte(packet, place).ok_or(malformed)?;
        if kind == 0 {
            place += 1; // Pad1 is the one option without a length.
            continue;
        }
        let len = usize::from(bytes::byte(packet, place + 1).ok_or(malformed)?);
        if place + 2 + len > end {
            return Err(malformed);
        }
        // Known: PadN, and router alert, which concerns nobody here. The others say by their two highest bits
        // what is to be done by who does not know them.
        let problem = Some(Problem::Parameter { code: 2, pointer: u32::try_from(place).surely() });
        match kind {
            1 | 5 => {}
            _ if kind >> 6 == 0 => {}
            _ if kind >> 6 == 2 || kind >> 6 == 3 && !to.is_multicast() => {
                return Err(Refused { problem, ..malformed });
            }
            _ => return Err(malformed),
        }
        place += 2 + len;
    }
    Ok(())
}

/// The routing header at `at` (RFC 8200 §4.4; RFC 5095 makes type 0 an unknown one).
fn check_routing(packet: &[u8], at: usize) -> Result<(), Refused> {
    match bytes::byte(packet, at + 3) {
        Some(0) => Ok(()),
        _ => Err(Refused {
            reason: DropReason::Malformed,
            problem: Some(Problem::Parameter { code: 0, pointer: u32::try_from(at + 2).surely() }),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A packet whose first next-header byte is `first`, followed by `rest`.
    fn packet(first: u8, rest: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x60, 0, 0, 0, 0, 0, first, 64];
        packet[4..6].copy_from_slice(&u16::try_from(rest.len()).unwrap().to_be_bytes());
        packet.extend_from_slice(&[0xfd; 32]);
        packet.extend_from_slice(rest);
        packet
    }

    #[test]
    fn plain_udp() {
        let upper = check(&packet(17, &[0; 8])).unwrap();
        assert_eq!(upper, Upper { protocol: 17, offset: 40, pointer: 6, fragment: None });
    }

    #[test]
    fn a_full_chain_is_walked() {
        let mut rest = Vec::new();
        rest.extend_from_slice(&[60, 0, 1, 4, 0, 0, 0, 0]); // hop-by-hop: PadN
        rest.extend_from_slice(&[43, 1, 5, 2, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]); // destination: router alert, pads
        rest.extend_from_slice(&[44, 0, 4, 0, 0, 0, 0, 0]); // routing, nothing left
        rest.extend_from_slice(&[51, 0, 0, 1, 1, 2, 3, 4]); // first fragment
        rest.extend_from_slice(&[6, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]); // authentication
        rest.extend_from_slice(&[0; 20]);
        let upper = upper(&packet(0, &rest)).unwrap();
        assert_eq!((upper.protocol, upper.offset, upper.pointer), (6, 40 + 52, 40 + 40));
        let fragment = upper.fragment.unwrap();
        assert_eq!((fragment.at, fragment.pointer, fragment.next), (40 + 32, 40 + 24, 51));
        assert_eq!((fragment.offset, fragment.more, fragment.ident), (0, true, 0x0102_0304));
        for cut in 40..40 + 52 {
            assert_eq!(super::upper(&packet(0, &rest)[..cut]), None, "{cut}");
        }
    }

    #[test]
    fn behind_a_later_fragment_nothing_is_read() {
        let upper = check(&packet(44, &[60, 0, 0, 8, 0, 0, 0, 7])).unwrap();
        assert_eq!((upper.protocol, upper.offset), (60, 48));
        assert_eq!(upper.fragment.unwrap().offset, 8);
    }

    #[test]
    fn unknown_options_do_what_their_bits_say() {
        let option = |kind| check(&packet(60, &[17, 0, kind, 4, 0, 0, 0, 0]));
        let problem = Some(Problem::Parameter { code: 2, pointer: 42 });
        assert!(option(0x1e).is_ok());
        assert_eq!(option(0x5e).unwrap_err().problem, None);
        assert_eq!(option(0x9e).unwrap_err().problem, problem);
        assert_eq!(option(0xde).unwrap_err().problem, problem);
        let mut group = packet(60, &[17, 0, 0xde, 4, 0, 0, 0, 0]);
        group[24] = 0xff;
        assert_eq!(check(&group).unwrap_err().problem, None, "not towards a multicast group");
        let over_the_end = check(&packet(60, &[17, 0, 1, 5, 0, 0, 0, 0]));
        assert_eq!(over_the_end, Err(DropReason::Malformed.into()));
    }

    #[test]
    fn a_routing_header_with_segments_left_is_refused() {
        let refused = check(&packet(43, &[17, 0, 0, 1, 0, 0, 0, 0])).unwrap_err();
        assert_eq!(refused.problem, Some(Problem::Parameter { code: 0, pointer: 42 }));
    }

    #[test]
    fn authentication_that_nobody_verifies_is_refused() {
        let header = [6, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let refused = |first, before: &[u8]| check(&packet(first, &[before, &header].concat())).unwrap_err();
        let problem = |pointer| Some(Problem::Parameter { code: 1, pointer });
        assert_eq!(
            refused(51, &[]),
            Refused { reason: DropReason::UnknownProtocol, problem: problem(6) },
            "named by the fixed header"
        );
        assert_eq!(refused(60, &[51, 0, 1, 4, 0, 0, 0, 0]).problem, problem(40), "and by another one");
    }

    #[test]
    fn late_hop_by_hop_options_and_endless_chains_end_the_walk() {
        let upper = check(&packet(60, &[0, 0, 1, 4, 0, 0, 0, 0, 17, 0, 1, 4, 0, 0, 0, 0])).unwrap();
        assert_eq!((upper.protocol, upper.pointer), (0, 40));
        let endless: Vec<u8> = [60, 0, 1, 4, 0, 0, 0, 0].repeat(20);
        assert_eq!(check(&packet(60, &endless)), Err(DropReason::Malformed.into()));
        let mut longest = [60, 0, 1, 4, 0, 0, 0, 0].repeat(MAX_HEADERS);
        longest[8 * (MAX_HEADERS - 1)] = 17;
        assert_eq!(check(&packet(60, &longest)).unwrap().offset, 40 + 8 * MAX_HEADERS);
    }

    proptest! {
        #[test]
        fn random_chains_end_inside_the_packet(first in prop::sample::select(vec![0, 43, 44, 51, 60, 17]), mut rest in prop::collection::vec(any::<u8>(), 0..200)) {
            for chunk in rest.chunks_mut(8) {
                chunk[0] = [0, 43, 44, 51, 60, 17, 59, 6][usize::from(chunk[0] % 8)];
                if let Some(len) = chunk.get_mut(1) { *len %= 3; }
            }
            let packet = packet(first, &rest);
            if let Some(upper) = upper(&packet) {
                prop_assert!(upper.offset <= packet.len());
            }
            let _ = check(&packet);
        }

        #[test]
        fn random_bytes_never_panic(packet: Vec<u8>) {
            let _ = (upper(&packet), check(&packet));
        }
    }
}
