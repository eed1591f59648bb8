//! IGMP and MLD: recognising what the guest says about its multicast groups.
//!
//! No multicast is forwarded (the guest's group traffic ends here), so nobody has to be told and no query is ever
//! sent; membership reports are read, counted and done with. The reader stays strict, so that a proxy can be built on
//! it and so that broken messages show up as such.
//!
//! Sources: RFC 1112 appendix I, RFC 2236, RFC 3376 (IGMP); RFC 2710, RFC 3810 (MLD).

use crate::bytes;
use crate::checksum;
use crate::drop_reason::DropReason;

/// What a message is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Membership {
    /// A router asks who listens. On this link that is nobody's business but ours.
    Query,
    /// The guest listens to groups, or changes how.
    Report {
        /// How many groups the message names.
        groups: u16,
    },
    /// The guest has left a group.
    Leave,
}

/// Reads an IGMP message of any version.
///
/// # Errors
/// [`DropReason::Malformed`], [`DropReason::Checksum`], or [`DropReason::UnknownProtocol`] for another type.
pub fn igmp(message: &[u8]) -> Result<Membership, DropReason> {
    let [kind, _, _, _, group @ ..]: [u8; 8] = bytes::array(message, 0).ok_or(DropReason::Malformed)?;
    if !checksum::fits(message) {
        return Err(DropReason::Checksum);
    }
    let is_group = group.first().is_some_and(|first| first >> 4 == 0xe);
    match kind {
        0x11 => Ok(Membership::Query),
        0x12 | 0x16 if is_group => Ok(Membership::Report { groups: 1 }),
        0x17 if is_group => Ok(Membership::Leave),
        0x12 | 0x16 | 0x17 => Err(DropReason::Malformed),
        0x22 => records(message, 4),
        _ => Err(DropReason::UnknownProtocol),
    }
}

/// Whether an ICMPv6 type belongs to MLD.
#[must_use]
pub const fn is_mld(kind: u8) -> bool {
    matches!(kind, 130..=132 | 143)
}

/// Reads an ICMPv6 message of MLD, version 1 or 2. Its checksum has been verified; `hops` is the packet's hop limit.
///
/// # Errors
/// [`DropReason::Malformed`], or [`DropReason::UnknownProtocol`] when it is not MLD.
pub fn mld(hops: u8, message: &[u8]) -> Result<Membership, DropReason> {
    // RFC 3810 §5: a message with any other hop limit comes from beyond the link, or from nowhere.
    if hops != 1 || message.len() < 8 {
        return Err(DropReason::Malformed);
    }
    let group = bytes::byte(message, 8);
    match bytes::byte(message, 0) {
        Some(143) => records(message, 16),
        Some(130..=132) if message.len() < 24 => Err(DropReason::Malformed),
        Some(130) => Ok(Membership::Query),
        Some(131 | 132) if group != Some(0xff) => Err(DropReason::Malformed),
        Some(131) => Ok(Membership::Report { groups: 1 }),
        Some(132) => Ok(Membership::Leave),
        _ => Err(DropReason::UnknownProtocol),
    }
}

/// The group records of a version 3 (IGMP) or version 2 (MLD) report; the formats differ in the size of an address
/// (RFC 3376 §4.2, RFC 3810 §5.2).
fn records(message: &[u8], address_len: usize) -> Result<Membership, DropReason> {
    let groups = bytes::be16(message, 6).ok_or(DropReason::Malformed)?;
    let mut rest = message.get(8..).ok_or(DropReason::Malformed)?;
    for _ in 0..groups {
        let [_, auxiliary, high, low] = bytes::array(rest, 0).ok_or(DropReason::Malformed)?;
        let sources = usize::from(u16::from_be_bytes([high, low]));
        let len = 4 + address_len * (1 + sources) + 4 * usize::from(auxiliary);
        rest = rest.get(len..).ok_or(DropReason::Malformed)?;
    }
    Ok(Membership::Report { groups })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn summed(mut message: Vec<u8>) -> Vec<u8> {
        let sum = checksum::finish(checksum::sum(&message));
        bytes::put(&mut message, 2, sum.to_be_bytes());
        message
    }

    #[test]
    fn the_igmp_messages_of_all_versions() {
        let short = |kind| igmp(&summed(vec![kind, 0, 0, 0, 239, 1, 2, 3]));
        assert_eq!(short(0x11), Ok(Membership::Query));
        assert_eq!(short(0x12), Ok(Membership::Report { groups: 1 }));
        assert_eq!(short(0x16), Ok(Membership::Report { groups: 1 }));
        assert_eq!(short(0x17), Ok(Membership::Leave));
        assert_eq!(short(0x23), Err(DropReason::UnknownProtocol));
        assert_eq!(igmp(&summed(vec![0x16, 0, 0, 0, 10, 0, 2, 3])), Err(DropReason::Malformed));
        assert_eq!(igmp(&[0x16, 0, 0, 0, 239, 1, 2, 3]), Err(DropReason::Checksum));
        assert_eq!(igmp(&[0x16, 0, 0, 0, 239, 1, 2]), Err(DropReason::Malformed));
    }

    #[test]
    fn a_version_3_report_is_walked_to_its_end() {
        let mut report = vec![0x22, 0, 0, 0, 0, 0, 0, 2];
        report.extend_from_slice(&[4, 0, 0, 0, 239, 1, 2, 3]); // to exclude: no source
        report.extend_from_slice(&[1, 1, 0, 1, 239, 1, 2, 4, 192, 0, 2, 1, 9, 9, 9, 9]); // one source, auxiliary data
        assert_eq!(igmp(&summed(report.clone())), Ok(Membership::Report { groups: 2 }));
        report.pop();
        assert_eq!(igmp(&summed(report)), Err(DropReason::Malformed));
    }

    #[test]
    fn the_mld_messages_of_both_versions() {
        let short = |kind| {
            let mut message = vec![kind, 0, 0, 0, 0, 0, 0, 0, 0xff, 2];
            message.resize(24, 0);
            mld(1, &message)
        };
        assert_eq!(short(130), Ok(Membership::Query));
        assert_eq!(short(131), Ok(Membership::Report { groups: 1 }));
        assert_eq!(short(132), Ok(Membership::Leave));
        assert_eq!(short(135), Err(DropReason::UnknownProtocol));
        let mut report = vec![143, 0, 0, 0, 0, 0, 0, 1, 4, 0, 0, 0];
        report.resize(28, 0xff);
        assert_eq!(mld(1, &report), Ok(Membership::Report { groups: 1 }));
        assert_eq!(mld(2, &report), Err(DropReason::Malformed), "from beyond the link");
        assert_eq!(mld(1, &report[..27]), Err(DropReason::Malformed));
    }

    proptest! {
        #[test]
        fn random_messages_never_panic(message: Vec<u8>, kind: u8) {
            let mut message = message;
            if let Some(first) = message.first_mut() { *first = kind; }
            let _ = (igmp(&summed(message.clone())), mld(1, &message));
        }
    }
}
