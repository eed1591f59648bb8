//! Stage 2 of the data path: the MAC layer. Demultiplexing by EtherType, ARP, and who is where on the link.

pub mod arp;
mod input;
pub mod neighbour;
pub(crate) mod resolution;
pub(crate) mod unresolved;

use crate::addr::MacAddr;

/// Whom a frame goes to; `None`: it is too short to say.
#[must_use]
pub fn destination(frame: &[u8]) -> Option<MacAddr> {
    frame.first_chunk().copied().map(MacAddr)
}

/// Whom a frame comes from; `None`: it is too short to say.
#[must_use]
pub fn source(frame: &[u8]) -> Option<MacAddr> {
    frame.get(6..)?.first_chunk().copied().map(MacAddr)
}
