//! The `slirp4netns` personality: what Podman, Buildah, RootlessKit and nerdctl start under that name.
//!
//! The outside is a contract: options, streams, exit codes, descriptors, messages, addresses. Its pieces, in the
//! order in which a start goes through them:
//!
//! - [`args`]: the words of the command line into [`args::LowArgs`], as typed; no look at the outside world;
//! - [`config`]: those into a [`config::Config`] of valid types, with every check and its exact message;
//! - [`usage`]: the texts of `--help` and `--version`, which clients search;
//! - [`run`]: the start sequence, the ready byte, the loop, the end.

pub mod args;
pub mod chatter;
pub mod config;
pub mod run;
pub mod usage;
