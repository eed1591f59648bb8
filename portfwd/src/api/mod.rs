//! The interfaces through which other programs change the table while slipway runs.

pub mod slirp;
