//! Who may reach whom: forwarding rules, the live table, listeners, and the APIs that change it.
//!
//! | module | what |
//! |---|---|
//! | [`rule`] | one rule, and the `--publish` grammar of container tools |

#![forbid(unsafe_code)]

pub mod rule;
