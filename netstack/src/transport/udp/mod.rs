//! UDP through the engine: `flow` is one conversation and what is gathered for it, `filter` says whom it is open to,
//! `input` carries the guest's
//! datagrams to sockets, `output` what sockets, forwarded ports and the resolver have for the guest.

mod filter;
mod flow;
mod input;
mod output;

pub(crate) use flow::*;

#[cfg(test)]
mod tests;
