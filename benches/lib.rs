//! Bench bodies.
