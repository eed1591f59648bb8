//! Echo: the guest's pings through the host's ping sockets.
//!
//! A flow is one guest address and identifier with one destination. The kernel chooses the identifier on the host's side, so
//! only the sequence number travels both ways. Requests to our own addresses never get here.

use crate::addr::MacAddr;
use crate::clock::Instant;
use core::net::IpAddr;
use core::time::Duration;

/// A flow ends after this much silence (conntrack's nf_conntrack_icmp_timeout is 30 s).
pub(crate) const TIMEOUT: Duration = Duration::from_secs(30);

/// ICMP type numbers of echo: (request, reply).
pub(crate) const fn types(addr: IpAddr) -> (u8, u8) {
    match addr {
        IpAddr::V4(_) => (8, 0),
        IpAddr::V6(_) => (128, 129),
    }
}

/// One echo flow.
#[derive(Debug)]
pub(crate) struct Echo {
    pub(crate) mac: MacAddr,
    pub(crate) last: Instant,
    pub(crate) readable: bool,
    pub(crate) has_error: bool,
    /// That of the latest request, for errors that do not say which one they are about.
    pub(crate) sequence: u16,
}

/// An echo message's fixed header with the checksum field zero.
pub(crate) const fn header(kind: u8, identifier: u16, sequence: u16) -> [u8; 8] {
    let ([i0, i1], [s0, s1]) = (identifier.to_be_bytes(), sequence.to_be_bytes());
    [kind, 0, 0, 0, i0, i1, s0, s1]
}

/// Identifier, sequence number and data of an echo message.
pub(crate) fn parse(message: &[u8]) -> Option<(u16, u16, &[u8])> {
    let (&[_, _, _, _, i0, i1, s0, s1], data) = message.split_first_chunk::<8>()?;
    Some((u16::from_be_bytes([i0, i1]), u16::from_be_bytes([s0, s1]), data))
}
