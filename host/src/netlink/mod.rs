//! Interfaces, addresses, routes and neighbours by route netlink (rtnetlink(7)): synchronous, one request at a time.
//!
//! A [`Netlink`] belongs to the network namespace in which it was opened, and stays there. The types of the netlink
//! crates do not leave this folder: their names change with every minor version. [`netfilter`] has the same kind of
//! socket of another family, for firewall rules.

mod addr;
mod change;
mod diag;
mod dump;
mod fuzz;
mod link;
mod monitor;
mod neigh;
pub mod netfilter;
mod new_link;
mod next_hop;
mod raw;
mod route;
mod socket;
mod way;

pub use addr::{Address, Lifetimes};
pub(crate) use diag::fuzz as fuzz_diag;
pub use diag::{Diag, Listening};
pub(crate) use dump::{List, Replay};
pub(crate) use fuzz::fuzz;
pub use link::{Interface, Passage};
pub use monitor::{Changes, Monitor};
pub use neigh::Neighbour;
pub use new_link::{IpvlanMode, Kind, MacvlanMode, NewLink};
pub use route::{MAIN_TABLE, NewRoute, Route, RouteKind};
pub(crate) use socket::messages;
pub use socket::{Error, Netlink, Request};
pub use way::Way;

#[cfg(test)]
mod tests;
