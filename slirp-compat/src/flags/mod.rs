//! Options of the drop-in names: one table each, and what is made from it.
//!
//! A personality describes its options once, as a [`table::Table`]. From it come the parser ([`getopt`]), the usage
//! text ([`usage`]), and, in the crate `slipway`, the man page and the shell completions; so none of them can
//! forget an option that another knows. The project's own commands use clap instead: nobody
//! depends on the exact wording there.

pub mod getopt;
pub mod table;
pub mod usage;
