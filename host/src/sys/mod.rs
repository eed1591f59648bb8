//! The only unsafe code of the project: thin wrappers of system calls for which neither `std` nor `nix` has a
//! safe form. Each block says why it is sound; each wrapper has a test that really calls it.

pub(crate) mod accept;
pub(crate) mod auxv;
mod bus_error;
pub mod code;
pub mod disposition;
pub(crate) mod epoll;
pub mod fdpass;
pub mod heap;
pub(crate) mod landlock;
pub(crate) mod local_time;
pub mod message;
pub mod mmsg;
pub mod mount_attr;
pub mod packet;
pub mod proc;
pub(crate) mod random;
pub mod shared_memory;
pub mod signal;
pub mod sockopt;
pub mod tcp;
pub mod tcp_info;
#[cfg(test)]
pub(crate) mod testing;
pub mod tun;
