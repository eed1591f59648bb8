//! The fast link: what becomes of a guest's stream when either end of it is ours, gvproxy and gvforwarder. Segments of
//! up to 64 KiB cross whole and checksums are left open, as on a TAP, so that MTU 1500 costs a frame for 64 KiB and not
//! forty-five. `docs/fast-link.md` has the bytes.
//!
//! ```text
//!   gvforwarder ─── POST /connect, with the field ──────▶ gvproxy
//!               ─── frames behind two-byte lengths ─────▶
//!               ◀── marker behind a two-byte length ─────   before anything else
//!               ◀══ length, virtio-net header, frame ════
//!               ─── marker behind a two-byte length ────▶   behind what was under way
//!               ═══ length, virtio-net header, frame ═══▶
//! ```
//! Invariants.
//! - Each direction changes at one byte, the first behind its marker, and for good.
//! - Who was not asked sends no marker, and nobody sends another before it was sent one: a stranger sees a field of
//!   HTTP that it does not know, and nothing else.
//! - A marker is a frame for the next bridge (IEEE 802.1Q §8.6.3), so nothing between two guests carries one on, and
//!   one that comes to the wrong place goes no further.

use super::UNCHECKED;
use slipway_netstack::addr::MacAddr;
use slipway_netstack::device::Offload;
use slipway_netstack::device::vnet::{Checksum, HEADER_LEN};

/// The field of the request by which a forwarder asks for it. Its value is a list of versions, parted by commas.
pub const FIELD: &str = "Slipway-Fast-Link";
/// The version that is spoken here.
pub const VERSION: u8 = 1;

/// Nearest bridge.
const TO: MacAddr = MacAddr([0x01, 0x80, 0xc2, 0, 0, 0x0e]);
/// IEEE 802 §9.2.3: for experiments within one's own walls.
const ETHERTYPE: [u8; 2] = [0x88, 0xb5];
const NAME: &[u8; 17] = b"slipway-fast-link";
/// The shortest frame of Ethernet, less its check sequence.
const MARKER_LEN: usize = 60;

/// The field's value, whether it offers what is spoken here.
#[must_use]
pub fn is_offered(value: &[u8]) -> bool {
    let spoken = [b'0' + VERSION];
    value.split(|byte| *byte == b',').any(|version| version.trim_ascii() == spoken)
}

/// The last frame before a direction changes. `from` is who sends it.
#[must_use]
pub fn marker(from: MacAddr) -> Vec<u8> {
    let mut frame = [&TO.0[..], &from.0, &ETHERTYPE, NAME, &[VERSION]].concat();
    frame.resize(MARKER_LEN, 0);
    frame
}

/// The version that a frame announces, if it is a marker.
#[must_use]
pub fn announced(frame: &[u8]) -> Option<u8> {
    let rest = frame.strip_prefix(&TO.0)?.get(TO.0.len()..)?;
    let rest = rest.strip_prefix(&ETHERTYPE)?.strip_prefix(NAME)?;
    (frame.len() == MARKER_LEN).then(|| rest.first().copied()).flatten()
}

/// Parts header and frame, if the header makes sense for that frame. Nobody vouches for a checksum that is complete.
#[must_use]
pub fn open(bytes: &[u8]) -> Option<(Offload, &[u8])> {
    let (header, frame) = bytes.split_first_chunk::<HEADER_LEN>()?;
    let offload = Offload::parse_short_le(header).filter(|offload| offload.fits(frame.len()))?;
    let offload = if offload.checksum == Checksum::Complete { UNCHECKED } else { offload };
    Some((offload, frame))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GATEWAY: MacAddr = MacAddr([0x5a, 0x94, 0xef, 0xe4, 0x0c, 0xdd]);

    #[test]
    fn a_marker_has_the_bytes_of_the_page() {
        let marker = marker(GATEWAY);
        let head = [0x01, 0x80, 0xc2, 0, 0, 0x0e, 0x5a, 0x94, 0xef, 0xe4, 0x0c, 0xdd, 0x88, 0xb5];
        assert_eq!(marker[..14], head);
        assert_eq!(marker[14..32], *b"slipway-fast-link\x01");
        assert_eq!(marker[32..], [0; 28]);
        assert_eq!(announced(&marker), Some(1));
    }

    #[test]
    fn what_is_nearly_a_marker_is_none() {
        let whole = marker(GATEWAY);
        for at in (0..31).filter(|at| !(6..12).contains(at)) {
            let mut other = whole.clone();
            other[at] ^= 1;
            assert_eq!(announced(&other), None, "{at}");
        }
        assert_eq!(announced(&whole[..59]), None);
        assert_eq!(announced(&[&whole[..], &[0]].concat()), None);
        assert_eq!(announced(&marker(MacAddr([2; 6]))), Some(1), "whoever it is from");
    }

    #[test]
    fn versions_are_a_list() {
        for value in ["1", " 1 ", "1,2", "2, 1", "0,1,9"] {
            assert!(is_offered(value.as_bytes()), "{value}");
        }
        for value in ["", "2", "11", "1.0", "1;2", "01", "yes", ","] {
            assert!(!is_offered(value.as_bytes()), "{value}");
        }
    }
}
