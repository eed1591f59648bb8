//! What every measurement needs: a server that is there before its clients, the patience with a client, and what an
//! error says.

use std::time::Duration;

use slipway_lab::{Cmd, Running};

use crate::tool::Done;

pub(super) const LIMIT: Duration = Duration::from_secs(30);

/// A TCP server, once it listens.
pub(super) fn server(command: Cmd, port: u16) -> Done<Running> {
    Running::server(command, "tcp", port).map_err(said)
}

pub(super) fn said(error: impl std::fmt::Display) -> String {
    error.to_string()
}
