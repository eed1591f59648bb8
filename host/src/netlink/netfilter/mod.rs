//! Netfilter by nfnetlink: requests, lists and transactions, for nf_tables and the connection tracker.
//!
//! What the messages mean is the business of whoever sends them; here are the socket ([`Netfilter`]), all-or-nothing
//! transactions ([`Batch`]), the attribute lists of both ([`Attributes`], [`attributes`]), and the entries of the
//! connection tracker ([`Connection`]), which are small enough to be read here.

mod attribute;
mod batch;
mod conntrack;
mod fuzz;
mod socket;

pub use attribute::{AttributeIter, Attributes, attributes};
pub use batch::{Batch, Refused};
pub use conntrack::Connection;
pub(crate) use fuzz::fuzz;
pub use socket::{ListEvent, Netfilter, Request};
