//! `slipway attach`.
