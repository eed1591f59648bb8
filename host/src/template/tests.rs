//! What follows from dumps that are written here, and the same against the kernel.

mod choice;
mod copies;
mod dump;
mod follow;
mod kernel;
