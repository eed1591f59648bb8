//! The proxy itself: its service by gRPC, and the set-up's side of that.

pub mod client;
mod lease_file;
pub(crate) mod service;
