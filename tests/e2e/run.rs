//! `slipway run`.
