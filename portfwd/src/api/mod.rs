//! Programs change the table: each API in its folder.

pub mod control;
pub mod pesto;
pub mod slirp;
pub mod socket;
