//! Sockets of the host that lead into the network: the one kind of exposed port that this process serves itself. Each
//! client is one dial of the packets process's, and its bytes go to and fro here, or a stream of an SSH connection
//! ([`super::ssh`]).

use super::errands::Errands;
use super::socket_file::SocketFile;
use super::ssh::road::{self, Ways};
use super::stream::{Listener, relay};
use super::url::{self, Target};
use crate::orders::forwards::{NOT_FOUND, already};
use crate::orders::message::Forward;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use tokio::task::{AbortHandle, spawn_local};

/// What the protocol is called.
pub(crate) const UNIX: &str = "unix";

/// Those that are there.
#[derive(Debug)]
pub(crate) struct Exposed {
    ways: Ways,
    by_path: RefCell<BTreeMap<String, Entry>>,
}

#[derive(Debug)]
struct Entry {
    remote: String,
    /// Whoever waits for clients; those that have come live on.
    waiting: AbortHandle,
    _file: SocketFile,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.waiting.abort();
    }
}

impl Exposed {
    /// None yet. These are the ways that they lead.
    #[must_use]
    pub(crate) fn new(ways: Ways) -> Self {
        Self { ways, by_path: RefCell::default() }
    }

    /// Has the socket `local` lead to `remote`. A socket that is there already is replaced.
    ///
    /// # Errors
    /// In gvproxy's words.
    pub(crate) fn expose(&self, local: &str, remote: &str) -> Result<(), String> {
        let mut by_path = self.by_path.borrow_mut();
        if by_path.contains_key(local) {
            return Err(already(UNIX, local));
        }
        let target = url::parse(remote)?;
        let (listener, file) = SocketFile::listen(Path::new(local)).map_err(|error| error.to_string())?;
        let listener = Listener::new(listener).map_err(|error| error.to_string())?;
        let waiting = match target {
            Target::Tcp(guest) => spawn_local(lead(listener, guest, Rc::clone(&self.ways.errands))),
            Target::Ssh(tunnel) => spawn_local(road::lead(listener, tunnel, self.ways.clone(), false)),
        };
        let waiting = waiting.abort_handle();
        by_path.insert(local.to_owned(), Entry { remote: remote.to_owned(), waiting, _file: file });
        Ok(())
    }

    /// Has it lead there no more, and removes it.
    ///
    /// # Errors
    /// In gvproxy's words.
    pub(crate) fn unexpose(&self, local: &str) -> Result<(), String> {
        self.by_path.borrow_mut().remove(local).map(drop).ok_or_else(|| NOT_FOUND.to_owned())
    }

    /// Removes them all.
    pub(crate) fn close(&self) {
        self.by_path.borrow_mut().clear();
    }

    /// All of them.
    #[must_use]
    pub(crate) fn list(&self) -> Vec<Forward> {
        let row = |(local, entry): (&String, &Entry)| Forward {
            local: local.clone(),
            remote: entry.remote.clone(),
            protocol: UNIX.to_owned(),
        };
        self.by_path.borrow().iter().map(row).collect()
    }
}

/// Leads every client to `guest`.
async fn lead(listener: Listener, guest: SocketAddr, errands: Rc<Errands>) {
    loop {
        let client = listener.accept().await;
        let errands = Rc::clone(&errands);
        spawn_local(async move {
            if let Some(peer) = errands.dial(guest).await {
                relay(client, peer).await;
            }
        });
    }
}
