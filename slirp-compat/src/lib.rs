//! The drop-in names: programs that container engines start in the place of others, each with its own command line.
//!
//! A personality turns its words into the engine's configuration and the session's wishes; the loop around both, and
//! the order of start and end, are those of [`slipway_runtime`]. Which personality it is, `slipway` decides by
//! `argv[0]`.
//!
//! ```text
//! flags/           getopt_long and the option tables of the drop-in names; usage texts
//! slirp4netns/     args -> config -> run
//! pasta/           table -> args -> config, of pasta and passt
//! pesto/           args -> change, and the conversation with a running pasta
//! fuzz.rs          what must hold for any command line
//! rootlessport.rs  the port helper of Podman, for containers that the uplink knows
//! ```

#![forbid(unsafe_code)]

pub mod flags;
pub mod fuzz;
pub mod pasta;
pub mod pesto;
pub mod rootlessport;
pub mod slirp4netns;
