//! Stage 2 of the data path: the MAC layer. Demultiplexing by EtherType, ARP, and who is where on the link.

pub mod arp;
mod input;
pub mod neighbour;
pub(crate) mod unresolved;
