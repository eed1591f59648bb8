//! What can be wrong with a guest's packet, in one vocabulary for both families, and the ICMP types and codes that say
//! it.
//!
//! Whoever finds a packet wanting names a [`Problem`]; only `icmp_error` makes a message of it. Sources: RFC 792, RFC
//! 1122 §3.2.2, RFC 1812 §5.2.7 for IPv4, RFC 4443 §3 for IPv6.

use crate::surely::Surely;
use crate::upstream::{DatagramError, Errno};

/// What is wrong with a packet, or became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Problem {
    /// No way to that network.
    NetUnreachable,
    /// No way to that host.
    HostUnreachable,
    /// The host does not speak that transport protocol.
    ProtocolUnreachable,
    /// Nobody listens on that port.
    PortUnreachable,
    /// Policy forbids it.
    Prohibited,
    /// Larger than the link behind takes (and, in IPv4, not to be fragmented).
    TooBig {
        /// What it takes; 0 if unknown.
        mtu: u16,
    },
    /// The time to live or hop limit has run out.
    TimeExceeded,
    /// Fragments of it are missing.
    ReassemblyTimeExceeded,
    /// A header field is wrong.
    Parameter {
        /// Which kind of wrong.
        code: u8,
        /// Where in the packet.
        pointer: u32,
    },
    /// What a router or host out there said, in the family of the packet.
    Relayed {
        /// ICMP or ICMPv6 type, an error type.
        kind: u8,
        /// Its code.
        code: u8,
        /// The second word of the message: an MTU, a pointer, or zero.
        rest: u32,
    },
}

impl Problem {
    /// What a failed socket call means for the guest; `None` when it concerns this host alone.
    #[must_use]
    pub const fn from_errno(error: Errno) -> Option<Self> {
        match error {
            Errno::Refused => Some(Self::PortUnreachable),
            Errno::HostUnreachable | Errno::TimedOut => Some(Self::HostUnreachable),
            Errno::NetUnreachable => Some(Self::NetUnreachable),
            Errno::Prohibited => Some(Self::Prohibited),
            Errno::TooBig { mtu } => Some(Self::TooBig { mtu }),
            Errno::NoPort | Errno::Reset | Errno::Exhausted | Errno::BadSocket | Errno::Other => None,
        }
    }

    /// What a report from a socket's error queue means for the guest: the very message that came in, if one did.
    #[must_use]
    pub fn from_report(report: &DatagramError) -> Option<Self> {
        let (kind, code) = match (report.icmp, report.to.is_ipv6()) {
            // Unreachable, time exceeded, parameter problem. (Source quench and redirect are not for the guest.)
            (Some((kind @ (3 | 11 | 12), code)), false) => (kind, code),
            (Some((kind @ 1..=4, code)), true) => (kind, code),
            _ => return Self::from_errno(report.error),
        };
        match (report.error, report.to.is_ipv6(), kind, code) {
            (Errno::TooBig { mtu }, ..) => return Some(Self::TooBig { mtu }),
            (_, false, 3, 4) | (_, true, 2, _) => return Some(Self::TooBig { mtu: 0 }),
            _ => {}
        }
        Some(Self::Relayed { kind, code, rest: 0 })
    }

    /// Type, code and second word for IPv4.
    pub(super) fn v4(self) -> (u8, u8, u32) {
        match self {
            Self::NetUnreachable => (3, 0, 0),
            Self::HostUnreachable => (3, 1, 0),
            Self::ProtocolUnreachable => (3, 2, 0),
            Self::PortUnreachable => (3, 3, 0),
            // RFC 1191 §4: the MTU of the next hop, zero from those who do not know.
            Self::TooBig { mtu } => (3, 4, u32::from(mtu)),
            Self::Prohibited => (3, 13, 0),
            Self::TimeExceeded => (11, 0, 0),
            Self::ReassemblyTimeExceeded => (11, 1, 0),
            Self::Parameter { code, pointer } => (12, code, pointer.min(255) << 24),
            Self::Relayed { kind, code, rest } => (kind, code, rest),
        }
    }

    /// Type, code and second word for IPv6. `pointer` is where the packet names its transport protocol.
    pub(super) fn v6(self, pointer: usize) -> (u8, u8, u32) {
        match self {
            Self::NetUnreachable => (1, 0, 0),
            Self::Prohibited => (1, 1, 0),
            Self::HostUnreachable => (1, 3, 0),
            Self::PortUnreachable => (1, 4, 0),
            // RFC 8201 §4 lets a guest ignore anything below the minimum MTU, zero included.
            Self::TooBig { mtu } => (2, 0, u32::from(mtu).max(1280)),
            Self::TimeExceeded => (3, 0, 0),
            Self::ReassemblyTimeExceeded => (3, 1, 0),
            Self::ProtocolUnreachable => (4, 1, u32::try_from(pointer).surely()),
            Self::Parameter { code, pointer } => (4, code, pointer),
            Self::Relayed { kind, code, rest } => (kind, code, rest),
        }
    }
}
