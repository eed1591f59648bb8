//! The socket half of the slirp4netns API: accepts clients, collects requests, changes the table, replies.
//!
//! Nothing here blocks. Each client has a slot with a small buffer and a deadline; a request is handled as soon as its
//! JSON value is complete, or at end-of-file, whichever comes first. The reply leaves in one write (clients read once
//! and take what they get), then the connection is shut down. A client that sends nothing costs its slot until the
//! deadline; when all slots are taken the oldest client gives way, so the silent cannot lock out the others.
//!
//! The socket's mode is the umask's business and access to its path the only authentication, as in the original.

use super::message::{Entry, MAX_REQUEST, Refusal, Reply, Request};
use crate::api::socket::{ACCEPTS_PER_ROUND, Caller, Next, Reception};
use crate::forwarder::Forwarder;
use crate::table::Table;
use core::ops::Range;
use core::time::Duration;
use nix::sys::socket::{MsgFlags, send};
use slipway_host::driver::Interest;
use slipway_host::scope::Endpoint;
use slipway_host::strerror::words;
use slipway_netstack::clock::Instant;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// Clients served at once.
const SLOTS: u32 = 32;
/// How long a client may take, from its connect to the end of its reply.
const PATIENCE: Duration = Duration::from_secs(10);
/// sizeof(sun_path), unix(7): the terminating NUL has to fit too.
const MAX_PATH: usize = 108;

/// Why the API socket could not be had.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The kernel's limit. The text is part of the contract.
    #[error("the specified API socket path is too long (>= 108)")]
    TooLong,
    /// Something is at the path and cannot be removed.
    #[error("cannot remove what is at the API socket path {}: {}", path.display(), words(.error))]
    Unlink {
        /// The path.
        path: PathBuf,
        /// The kernel's word.
        error: io::Error,
    },
    /// The kernel does not let us listen there.
    #[error("cannot listen on the API socket path {}: {}", path.display(), words(.error))]
    Bind {
        /// The path.
        path: PathBuf,
        /// The kernel's word.
        error: io::Error,
    },
}

/// What happens at the API, for those who log it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice<'a> {
    /// A client has connected.
    Connected,
    /// It has sent this, as received.
    Request(&'a [u8]),
    /// It is refused; the reason, which may say more than the reply does.
    Refused(&'a str),
}

/// The API socket and its clients.
#[derive(Debug)]
pub struct Server {
    reception: Reception<Client>,
    observer: fn(Notice<'_>),
}

#[derive(Debug)]
struct Client {
    stream: UnixStream,
    received: Vec<u8>,
    /// What is still to be written; empty as long as the request is incomplete.
    reply: Vec<u8>,
    deadline: Instant,
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl Server {
    /// How many tokens a server uses, from its first on.
    pub const TOKENS: u32 = SLOTS + 1;

    /// Listens at `path`, after removing what was left there. Events carry tokens from `first_token` on.
    ///
    /// # Errors
    /// See [`BindError`].
    pub fn bind(path: &Path, first_token: u32, observer: fn(Notice<'_>)) -> Result<Self, BindError> {
        if path.as_os_str().len() >= MAX_PATH {
            return Err(BindError::TooLong);
        }
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(BindError::Unlink { path: path.to_owned(), error });
            }
            _ => {}
        }
        let listen = || {
            let listener = UnixListener::bind(path)?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        };
        let listener = listen().map_err(|error| BindError::Bind { path: path.to_owned(), error })?;
        Ok(Self { reception: Reception::new(listener, "API", first_token, SLOTS), observer })
    }

    /// Has the socket watched. Until then clients wait in the kernel's queue.
    ///
    /// # Errors
    /// What epoll_ctl says.
    pub fn start(&self, host: &mut impl Forwarder) -> io::Result<()> {
        self.reception.start(host)
    }

    /// The tokens in use.
    #[must_use]
    pub fn tokens(&self) -> Range<u32> {
        self.reception.tokens()
    }

    /// Whether an event with this token is for [`Server::on_ready`].
    #[must_use]
    pub fn owns(&self, token: u32) -> bool {
        self.reception.caller(token).is_some()
    }

    /// The socket watched with `token` has something, or had it when the event was made.
    pub fn on_ready(&mut self, token: u32, now: Instant, table: &mut Table, host: &mut impl Forwarder) {
        match self.reception.caller(token) {
            None => {}
            Some(Caller::Newcomer) => self.accept_all(now, table, host),
            Some(Caller::Client(place)) => {
                let Some(mut client) = self.reception.take(place) else { return };
                let next = client.step(self.observer, table, host);
                self.reception.put_back(place, client, next, host);
            }
        }
    }

    /// When [`Server::on_deadline`] wants to be called.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        let deadlines = self.reception.clients().map(|client| client.deadline);
        deadlines.chain(self.reception.resumes_at()).min()
    }

    /// Answers or drops the clients whose time is up.
    pub fn on_deadline(&mut self, now: Instant, table: &mut Table, host: &mut impl Forwarder) {
        self.reception.resume(now, host);
        while let Some(place) = self.reception.find(|client| client.deadline <= now) {
            let Some(mut late) = self.reception.take(place) else { return };
            // An incomplete request is treated as if it ended here.
            late.answer(true, self.observer, table, host);
            late.write();
            self.reception.put_back(place, late, Next::Done, host);
        }
    }

    fn accept_all(&mut self, now: Instant, table: &mut Table, host: &mut impl Forwarder) {
        for _ in 0..ACCEPTS_PER_ROUND {
            let Some(stream) = self.reception.accept(now, host) else { return };
            (self.observer)(Notice::Connected);
            let deadline = now + PATIENCE;
            let mut client = Client { stream, received: Vec::new(), reply: Vec::new(), deadline };
            // Its request is there already, nearly always.
            if let Next::Wait(interest) = client.step(self.observer, table, host) {
                self.reception.admit(client, interest, |client| client.deadline, host);
            }
        }
    }
}

impl Client {
    /// Does what can be done without waiting.
    fn step(&mut self, observer: fn(Notice<'_>), table: &mut Table, host: &mut impl Forwarder) -> Next {
        if self.reply.is_empty() {
            let Ok(end) = self.read() else { return Next::Done };
            if !self.answer(end, observer, table, host) {
                return Next::Wait(Interest::READ);
            }
        }
        self.write()
    }

    /// Collects what has arrived, no more than a request may have; tells whether that was all.
    fn read(&mut self) -> io::Result<bool> {
        let mut buffer = [0; MAX_REQUEST];
        loop {
            let room = MAX_REQUEST.saturating_sub(self.received.len());
            let Some(into) = buffer.get_mut(..room).filter(|into| !into.is_empty()) else { return Ok(false) };
            match self.stream.read(into) {
                Ok(0) => return Ok(true),
                Ok(count) => self.received.extend(into.iter().take(count)),
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => return Ok(false),
                    io::ErrorKind::Interrupted => {}
                    _ => return Err(error),
                },
            }
        }
    }

    /// Handles the request if it is complete, and tells whether it was.
    fn answer(
        &mut self,
        end: bool,
        observer: fn(Notice<'_>),
        table: &mut Table,
        host: &mut impl Forwarder,
    ) -> bool {
        if !self.reply.is_empty() {
            return true;
        }
        let Some(request) = Request::parse(&self.received, end) else { return false };
        observer(Notice::Request(&self.received));
        let reply =
            request.and_then(|request| handle(request, observer, table, host)).unwrap_or_else(|refusal| {
                observer(Notice::Refused(&refusal.to_string()));
                Reply::Refused(refusal)
            });
        self.reply = reply.to_string().into_bytes();
        true
    }

    /// Writes what the kernel takes; everything at once, unless the list is longer than its buffer.
    fn write(&mut self) -> Next {
        // MSG_NOSIGNAL: a client that has gone away is no reason for SIGPIPE.
        match send(self.stream.as_raw_fd(), &self.reply, MsgFlags::MSG_NOSIGNAL) {
            Ok(count) if count < self.reply.len() => {
                self.reply.drain(..count);
                Next::Wait(Interest::WRITE)
            }
            Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EINTR) => Next::Wait(Interest::WRITE),
            Ok(_) | Err(_) => {
                // The client takes end-of-file for the end of the reply; if it has gone, there is nobody to tell.
                let _ = self.stream.shutdown(Shutdown::Both);
                Next::Done
            }
        }
    }
}

/// Does what is asked.
fn handle(
    request: Request,
    observer: fn(Notice<'_>),
    table: &mut Table,
    host: &mut impl Forwarder,
) -> Result<Reply, Refusal> {
    match request {
        Request::Add(rule) => table.add(rule, host).map(Reply::Added).map_err(|error| {
            observer(Notice::Refused(&error.to_string()));
            Refusal::AddFailed
        }),
        Request::Remove(id) => table.remove(id, host).map(|_| Reply::Removed).ok_or(Refusal::RemoveId),
        Request::List => Ok(Reply::Entries(entries(table, host))),
    }
}

/// One entry for each port of each rule.
fn entries(table: &Table, host: &impl Forwarder) -> Vec<Entry> {
    let mut entries = Vec::new();
    for info in table.list() {
        for (local, target_port) in info.endpoints() {
            let ipv6 = local.is_ipv6();
            let unknown =
                if ipv6 { IpAddr::V6(Ipv6Addr::UNSPECIFIED) } else { IpAddr::V4(Ipv4Addr::UNSPECIFIED) };
            let guest = info.rule.target().or_else(|| host.guest_address(ipv6)).unwrap_or(unknown);
            entries.push(Entry {
                id: info.id,
                proto: info.rule.proto(),
                host: Endpoint {
                    // As it was asked for; the kernel knows the interface by number.
                    address: info.rule.listen().unwrap_or_else(|| local.ip().into()),
                    port: local.port(),
                },
                guest: SocketAddr::new(guest, target_port.get()),
            });
        }
    }
    entries
}

#[cfg(test)]
mod tests;
