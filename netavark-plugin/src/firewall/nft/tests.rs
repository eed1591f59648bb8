//! Plans as text without privileges, and the same against the real kernel, in network namespaces of their own.

mod beside;
mod fixtures;
mod internal;
mod kernel;
mod plans;
