//! Sockets of the host that lead to sockets of a guest, by its SSH server: `-forward-sock` and `ssh-tunnel` remotes.
//!
//! ```text
//!   client ─▶ road ─▶ link ─▶ client ─▶ packet ─▶ cipher ─▶ a stream that the packets process dials
//!             │        │       ├ kex, host_key
//!             │        │       └ channels
//!             │        └ keeper ─▶ identity, pem   (a process of its own)
//!             └ as many others, beside it
//! ```
//! | module | what |
//! |---|---|
//! | [`road`] | one socket: its clients, and the connection that is made again when it breaks |
//! | [`link`] | one connection at work |
//! | [`client`] | the protocol, from bytes to bytes; [`kex`] makes keys, [`packet`] and [`cipher`] use them |
//! | [`channels`] | streams within it, each with a window of its own |
//! | [`keeper`] | who holds private keys and signs; [`identity`] reads them |
//!
//! **Why a client of our own.** Those there are open a stream's window when bytes arrive, not when they are taken: one
//! client that does not read holds up all others of its connection, or grows without end. Here that is what the window
//! is for. As little of SSH as this takes is some 1500 lines, most of them free of I/O; all cryptography is ring's.
//!
//! **Whose host key it is** nobody here knows, and the original does not ask either. The connection does not leave this
//! machine: it goes from the process with the packets to the guest's link. Whoever could be in between is the guest, or
//! whoever runs it. A guest that is not the one meant gets no more than a socket's clients; the key it cannot use, for
//! a signature names the session. `docs/threat-model.md` has it among the limits.
//!
//! Contract: gvproxy §8, §7.2.

mod channels;
mod cipher;
pub(crate) mod client;
pub(crate) mod fuzz;
mod host_key;
pub(crate) mod identity;
pub(crate) mod keeper;
mod kex;
mod link;
pub(crate) mod packet;
mod pem;
#[cfg(feature = "ssh-rsa")]
mod remainder;
pub(crate) mod road;
mod wire;

#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
mod tests;
