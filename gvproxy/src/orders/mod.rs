//! What the control process asks of the one that carries packets, and how that carries it out.
//!
//! ```text
//!   control process                                       packets process
//!   control/errands.rs ── Request { number, Order } ───▶ desk.rs ──▶ forwards.rs, and a Network
//!                      ◀── Word::Reply { number, … } ───
//!                      ◀── Word::{Listen, Client, News} ──
//! ```
//! One stream socket lies between the two ([`mod@line`]); a message is a length and JSON, and a descriptor may come
//! with it. Whoever takes orders is the more exposed of the two, so the packets process believes nothing that it says:
//! what cannot be read ends the line, what is out of bounds is refused, and one round costs a bounded amount of work.
//! The other way round nothing is promised either: a control process that does not read costs a bounded amount of
//! memory, and then news and clients of guests are lost, which is all that it could do to a guest.
//!
//! | module | what |
//! |---|---|
//! | [`message`] | the words |
//! | [`mod@line`] | the socket between the two |
//! | [`endpoint`] | addresses and ports as people write them for Go's programs |
//! | [`forwards`] | ports of the host that lead into the network |
//! | [`desk`] | the half in the packets process |
//! | [`stats`] | counters under the names that gVisor has for them |

pub mod desk;
pub mod endpoint;
#[cfg(test)]
pub(crate) mod fake;
pub mod forwards;
pub mod line;
pub mod message;
pub mod stats;

pub use desk::{Desk, Network, Standing};
pub use forwards::Forwards;
