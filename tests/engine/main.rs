//! Scenarios of the engine in virtual time, by area. See `testkit::world` for the machinery.

mod throughput;
