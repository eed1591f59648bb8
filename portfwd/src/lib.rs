//! Who may reach whom: forwarding rules, the live table, listeners, and the APIs that change it.
//!
//! | module | what |
//! |---|---|
//! | [`rule`] | one rule; the `--publish` grammar of container tools, the port options of pasta |
//! | [`table`] | the rules in force: add, remove, list, ids, counters |
//! | `listen` | the sockets behind them |
//! | [`forwarder`] | what all this asks of the event loop |
//! | [`api`] | programs change the table: [`api::slirp`], the JSON socket of slirp4netns |

#![forbid(unsafe_code)]

pub mod api;
pub mod auto;
#[cfg(test)]
mod fake;
pub mod forwarder;
mod listen;
pub mod rule;
pub mod table;

pub use forwarder::Forwarder;
pub use rule::Rule;
pub use table::{AddError, RuleId, Table};
