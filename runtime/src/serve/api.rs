//! The sockets over which rules are changed while a link is served: one for each language that somebody speaks.
//!
//! The file of one that we made anew goes with it, unless another socket has taken its name since. Files that pasta's
//! callers know of stay behind, as with the original; the next start finds that nobody answers there.

use slipway_host::inside::Side;
use slipway_netstack::Instant;
use slipway_portfwd::api::{control, pesto, slirp};
use slipway_portfwd::rule::passt::{Capabilities, Context};
use slipway_portfwd::{Forwarder, Table};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Why a socket could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The path does not do.
    #[error(transparent)]
    Bind(#[from] slirp::BindError),
    /// It does not, or somebody answers there.
    #[error(transparent)]
    Taken(#[from] slipway_portfwd::api::socket::BindError),
    /// It cannot be watched.
    #[error("cannot watch the API socket: {0}")]
    Watch(#[from] io::Error),
}

/// One of them.
#[derive(Debug)]
pub(super) enum Api {
    /// slirp4netns's.
    Slirp { server: slirp::Server, _file: File },
    /// pasta's, for `pesto`.
    Pesto(pesto::Server),
    /// Our own.
    Control(control::Server),
}

/// The file of a socket.
#[derive(Debug)]
pub(super) struct File {
    path: PathBuf,
    identity: Option<(u64, u64)>,
}

/// Device and number of the file of this name.
fn identity(path: &Path) -> Option<(u64, u64)> {
    std::fs::symlink_metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

impl Drop for File {
    fn drop(&mut self) {
        // In a sandbox the path is out of reach, or not to be written to; the next start removes what is left. A
        // descriptor of the directory, kept for this, would lead out of the sandbox (docs/threat-model.md).
        if self.identity != identity(&self.path) {
            return;
        }
        if let Err(error) = std::fs::remove_file(&self.path) {
            log::debug!("the API socket {} stays behind: {error}", self.path.display());
        }
    }
}

impl Api {
    pub(super) fn slirp(path: &Path, token: u32, observer: fn(slirp::Notice<'_>)) -> Result<Self, ApiError> {
        let server = slirp::Server::bind(path, token, observer)?;
        let file = File { path: path.to_owned(), identity: identity(path) };
        Ok(Self::Slirp { server, _file: file })
    }

    pub(super) fn pesto(
        path: &Path,
        token: u32,
        tables: impl IntoIterator<Item = (Side, Capabilities)>,
    ) -> Result<Self, ApiError> {
        Ok(Self::Pesto(pesto::Server::bind(path, token, tables)?))
    }

    pub(super) fn control(path: &Path, token: u32, context: Context) -> Result<Self, ApiError> {
        Ok(Self::Control(control::Server::bind(path, token, context)?))
    }

    /// Clients can connect from now on.
    pub(super) fn start(&self, host: &mut impl Forwarder) -> io::Result<()> {
        match self {
            Self::Slirp { server, .. } => server.start(host),
            Self::Pesto(server) => server.start(host),
            Self::Control(server) => server.start(host),
        }
    }

    pub(super) fn owns(&self, token: u32) -> bool {
        match self {
            Self::Slirp { server, .. } => server.owns(token),
            Self::Pesto(server) => server.owns(token),
            Self::Control(server) => server.owns(token),
        }
    }

    pub(super) fn on_ready(
        &mut self,
        token: u32,
        now: Instant,
        table: &mut Table,
        host: &mut impl Forwarder,
    ) {
        match self {
            Self::Slirp { server, .. } => server.on_ready(token, now, table, host),
            Self::Pesto(server) => server.on_ready(token, now, table, host),
            Self::Control(server) => server.on_ready(token, now, table, host),
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        match self {
            Self::Slirp { server, .. } => server.next_deadline(),
            Self::Pesto(server) => server.next_deadline(),
            Self::Control(server) => server.next_deadline(),
        }
    }

    pub(super) fn on_deadline(&mut self, now: Instant, table: &mut Table, host: &mut impl Forwarder) {
        match self {
            Self::Slirp { server, .. } => server.on_deadline(now, table, host),
            Self::Pesto(server) => server.on_deadline(now, host),
            Self::Control(server) => server.on_deadline(now, host),
        }
    }
}
