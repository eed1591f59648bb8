//! The specification of the translator, segment by segment.
//!
//! Each test plays the guest and the host's socket by hand (see [`crate::transport::lab`]) and looks at every segment.

mod closing;
mod full_link;
mod memory;
mod opening;
mod parting;
mod to_guest;
mod to_upstream;
mod urgent;
mod weather;

use crate::drop_reason::DropReason;
use crate::flow::FlowId;
use crate::transport::lab::{ACK, FIN, Got, Lab, RST, SYN, bytes, ms};
use crate::upstream::{Errno, Event};
use core::net::SocketAddr;

/// An acknowledgement without data, of everything before the guest's byte `n`.
fn acknowledges(got: &Got, n: i64) -> bool {
    got.is(ACK) && got.payload.is_empty() && got.ack == Lab::ours(n)
}
