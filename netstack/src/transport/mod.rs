//! Stage 4 of the data path: flows.

pub mod flow;
