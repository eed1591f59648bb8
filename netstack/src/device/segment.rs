//! What a network card does with an [`Offload`](super::Offload): for frames whose offloads somebody else must not meet.
//!
//! A partial checksum names a place, not a protocol (virtio 1.2 §5.1.6.2): sum from `start` to the end of the packet, store
//! at `start + offset`. Usually that is the packet's own TCP or UDP header, and then whoever opens the packet trusts what has
//! not been summed yet. It may as well be a header further in: from Linux 6.17 on a TAP is handed VXLAN, Geneve, FOU and GUE
//! frames whose *inner* checksum is left to it, with an outer one that is already right for the finished bytes (local checksum
//! offload, Linux `Documentation/networking/checksum-offloads.rst`).

use crate::bytes;
use crate::checksum;

/// Completes a partial checksum in a frame: sums from `start` to its end, the field's own bytes (the pseudo-header's sum)
/// included, and stores the result `offset` bytes behind `start`.
///
/// `None`, and an untouched frame, when the field is not in the frame.
#[must_use]
pub(crate) fn complete(frame: &mut [u8], start: usize, offset: usize) -> Option<()> {
    let covered = frame.get_mut(start..)?;
    covered.get(offset..offset.checked_add(2)?)?;
    // All ones, not zero, as Linux has it: the same number, and to UDP zero would say that there is no checksum.
    let value = checksum::finish_udp(checksum::sum(covered));
    bytes::put(covered, offset, value.to_be_bytes());
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_completed_fits(
            mut frame in prop::collection::vec(any::<u8>(), 0..200), start in 0..220_usize, words in 0..110_usize,
        ) {
            let (before, offset) = (frame.clone(), words * 2);
            let at = start + offset;
            if complete(&mut frame, start, offset).is_none() {
                prop_assert!(at + 2 > frame.len());
                prop_assert_eq!(frame, before);
                return Ok(());
            }
            prop_assert_eq!((&frame[..at], &frame[at + 2..]), (&before[..at], &before[at + 2..]));
            // What is left over is the sum of the pseudo-header, which the field held. (0 and 0xffff are one number.)
            let held = u16::from_be_bytes([before[at], before[at + 1]]);
            prop_assert_eq!(checksum::finish(checksum::sum(&frame[start..])) % 0xffff, held % 0xffff);
        }
    }
}
