//! Why a frame, packet, segment or datagram went no further: one name, one counter each.

/// Every reason for which something from the guest or from upstream is discarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum DropReason {
    /// Shorter or longer than its own headers say, or a header with an impossible field.
    Malformed,
    /// A checksum that does not match.
    Checksum,
    /// A frame for somebody else's MAC address.
    NotForUs,
    /// An EtherType or IP protocol that is not carried.
    UnknownProtocol,
    /// A source address that no guest may use (loopback, multicast, broadcast, unspecified).
    Martian,
    /// A multicast or broadcast destination that is not forwarded.
    Multicast,
    /// A destination inside the guest's own network where nobody lives.
    NoSuchHost,
    /// A destination that the configuration forbids.
    Forbidden,
    /// An address family that is switched off.
    FamilyOff,
    /// A fragment that overlaps, exceeds the bounds, or whose datagram was never completed.
    Fragment,
    /// A TCP segment outside the window, or of no flow.
    OutOfWindow,
    /// The flow table, a buffer or a queue is full.
    NoRoom,
    /// The neighbour's MAC address could not be found out.
    Unresolved,
    /// The host refused to open or use a socket.
    Upstream,
    /// The device did not take the frame.
    Device,
    /// Larger than the link permits and not to be fragmented.
    TooBig,
    /// An ICMP error held back by the rate limit.
    RateLimited,
    /// A DHCP, DHCPv6, NDP or ARP message that asks nothing of us.
    Unsolicited,
}

impl DropReason {
    /// All of them, in order of their number.
    pub const ALL: [Self; 18] = [
        Self::Malformed,
        Self::Checksum,
        Self::NotForUs,
        Self::UnknownProtocol,
        Self::Martian,
        Self::Multicast,
        Self::NoSuchHost,
        Self::Forbidden,
        Self::FamilyOff,
        Self::Fragment,
        Self::OutOfWindow,
        Self::NoRoom,
        Self::Unresolved,
        Self::Upstream,
        Self::Device,
        Self::TooBig,
        Self::RateLimited,
        Self::Unsolicited,
    ];

    /// The name that statistics print.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Checksum => "checksum",
            Self::NotForUs => "not-for-us",
            Self::UnknownProtocol => "unknown-protocol",
            Self::Martian => "martian",
            Self::Multicast => "multicast",
            Self::NoSuchHost => "no-such-host",
            Self::Forbidden => "forbidden",
            Self::FamilyOff => "family-off",
            Self::Fragment => "fragment",
            Self::OutOfWindow => "out-of-window",
            Self::NoRoom => "no-room",
            Self::Unresolved => "unresolved",
            Self::Upstream => "upstream",
            Self::Device => "device",
            Self::TooBig => "too-big",
            Self::RateLimited => "rate-limited",
            Self::Unsolicited => "unsolicited",
        }
    }
}
