//! The testkit: simulator, fake guests and hosts, network namespaces.

pub mod rng;
