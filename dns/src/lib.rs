//! Names for containers and guests: the pure half, behind the feature `io` its sockets, behind `aardvark` the daemon.
//!
//! ```text
//!  config/*  ->  Snapshot  --+
//!                            v
//!  message -> Query  ->  answer()  ->  Answered        the answer is in the buffer
//!                                  ->  Forward(..)     -> Forwarder: attempts, deadlines, cache, dead servers
//!                                  ->  Drop
//! ```
//!
//! Nothing in the pure half opens a socket, reads a file or knows the time: messages come in and go out as bytes, time
//! is a [`core::time::Duration`] since any origin that the caller likes, randomness is an argument.
//!
//! | module | what |
//! |---|---|
//! | [`config`] | files of others, read into valid types |
//! | [`zone`] | who is called what, and who may ask: an immutable snapshot |
//! | [`answer`] | one query, one outcome |
//! | [`forward`] | questions for other servers: which one, how long, what if not |
//! | [`cache`] | answers of other servers, for as long as they hold |
//! | [`message`] | the seam over the codec |
//! | `io` | a question at a server, a client on a stream: for every loop that answers names |
//! | `aardvark` | listeners, files, signals and the loop of `aardvark-dns` |

#![forbid(unsafe_code)]
#![warn(missing_docs)]
#![cfg_attr(not(test), warn(clippy::indexing_slicing))]

#[cfg(feature = "aardvark")]
pub mod aardvark;
pub mod answer;
pub mod cache;
pub mod config;
pub mod forward;
#[cfg(feature = "io")]
pub mod io;
pub mod message;
pub mod zone;
