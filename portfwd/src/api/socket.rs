//! Unix sockets where programs ask for changes: how they come into being, whoever has been there before.
//!
//! At the path may be a socket on which somebody listens: then that one has it. Or what a process that was killed has
//! left behind, which makes way. Who is there is found out by connecting, without waiting: a queue that is full belongs
//! to somebody, too.
//!
//! What the servers behind such sockets have in common is [`Reception`]: who comes in, the places that clients have,
//! and what becomes of one that has to be seen again. What is said there is each server's own.

use crate::forwarder::Forwarder;
use core::ops::Range;
use core::time::Duration;
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, listen, socket};
use nix::sys::stat::{Mode, umask};
use slipway_host::driver::Interest;
use slipway_host::strerror::words;
use slipway_netstack::clock::Instant;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// Clients that may wait to be accepted.
const QUEUE: i32 = 64;
/// Clients accepted in one round, and tries to accept one.
pub(super) const ACCEPTS_PER_ROUND: usize = 16;
/// How long nobody is accepted when the host is out of descriptors or memory.
const BACKOFF: Duration = Duration::from_millis(100);

/// Why a socket could not be had.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody answers there. The text is part of pasta's contract.
    #[error("Socket path {} already in use", .0.display())]
    InUse(PathBuf),
    /// The kernel does not let us listen there, or find out who does.
    #[error("cannot listen on the socket path {}: {}{}", path.display(), words(.error), advice(.error))]
    Bind {
        /// The path.
        path: PathBuf,
        /// The kernel's word.
        error: io::Error,
    },
}

fn advice(error: &io::Error) -> &'static str {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENAMETOOLONG | Errno::EINVAL) => " (a socket's path has at most 107 bytes)",
        _ => "",
    }
}

/// Who may connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Whoever the umask lets.
    Umask,
    /// This user.
    Owner,
}

/// Listens at `path` with a socket of type `kind`, without waiting for clients.
///
/// # Errors
/// See [`BindError`].
pub fn listen_at(path: &Path, kind: SockType, access: Access) -> Result<UnixListener, BindError> {
    let failed = |error: io::Error| BindError::Bind { path: path.to_owned(), error };
    let address = UnixAddr::new(path).map_err(|errno| failed(errno.into()))?;
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let probe = socket(AddressFamily::Unix, kind, flags, None).map_err(|errno| failed(errno.into()))?;
    match connect(probe.as_raw_fd(), &address) {
        Err(Errno::ENOENT) => {}
        Err(Errno::ECONNREFUSED) => std::fs::remove_file(path).map_err(failed)?,
        // Its queue is full, or it is a socket of another type.
        Ok(()) | Err(Errno::EAGAIN | Errno::EPROTOTYPE) => return Err(BindError::InUse(path.to_owned())),
        Err(errno) => return Err(failed(errno.into())),
    }
    drop(probe);
    let open = || {
        let fd = socket(AddressFamily::Unix, kind, flags, None)?;
        // Not for others, from the first moment on.
        let before = (access == Access::Owner).then(|| umask(Mode::from_bits_truncate(0o177)));
        let bound = bind(fd.as_raw_fd(), &address);
        before.map(umask);
        bound?;
        listen(&fd, Backlog::new(QUEUE)?)?;
        Ok(UnixListener::from(fd))
    };
    open().map_err(|errno: Errno| failed(errno.into()))
}

/// Whether a client has to be seen again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// When its socket is ready for this.
    Wait(Interest),
    /// It does not.
    Done,
}

/// Whom an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Caller {
    /// Whoever is at the door.
    Newcomer,
    /// The client at this place.
    Client(usize),
}

/// A listening socket, and the clients that have come in by it, each at a place.
///
/// The first token is the socket's; those behind it are the places', in order.
#[derive(Debug)]
pub(super) struct Reception<C> {
    listener: UnixListener,
    /// What it is, in front of "clients" and "socket".
    name: &'static str,
    first_token: u32,
    clients: Vec<Option<C>>,
    resume_at: Option<Instant>,
    /// A pause was logged, and nobody has been accepted since.
    complained: bool,
}

impl<C: AsFd> Reception<C> {
    /// As many clients as there are `places`. The listener does not wait for clients.
    pub(super) fn new(listener: UnixListener, name: &'static str, first_token: u32, places: u32) -> Self {
        let clients = (0..places).map(|_| None).collect();
        Self { listener, name, first_token, clients, resume_at: None, complained: false }
    }

    /// Has the socket watched. Until then clients wait in the kernel's queue.
    pub(super) fn start(&self, host: &mut impl Forwarder) -> io::Result<()> {
        host.watch(self.listener.as_fd(), Interest::READ, self.first_token)
    }

    /// The tokens in use.
    pub(super) fn tokens(&self) -> Range<u32> {
        self.first_token..self.token(self.clients.len())
    }

    /// Whom an event with this token is about, if it is one of ours.
    pub(super) fn caller(&self, token: u32) -> Option<Caller> {
        let place = match token.checked_sub(self.first_token)?.checked_sub(1) {
            None => return Some(Caller::Newcomer),
            Some(place) => usize::try_from(place).ok()?,
        };
        (place < self.clients.len()).then_some(Caller::Client(place))
    }

    fn token(&self, place: usize) -> u32 {
        self.first_token.saturating_add(1).saturating_add(u32::try_from(place).unwrap_or(u32::MAX))
    }

    /// Has newcomers told, or not.
    pub(super) fn heed_newcomers(&self, heed: bool, host: &mut impl Forwarder) {
        let interest = if heed { Interest::READ } else { Interest::NONE };
        if let Err(error) = host.modify(self.listener.as_fd(), interest, self.first_token) {
            log::warn!("the {} socket is not watched any more: {error}", self.name);
        }
    }

    /// The next client in the kernel's queue, whose socket does not wait either. `None`: there is none, or the host has
    /// nothing left for it, and it is tried again later ([`Reception::resumes_at`]).
    pub(super) fn accept(&mut self, now: Instant, host: &mut impl Forwarder) -> Option<UnixStream> {
        for _ in 0..ACCEPTS_PER_ROUND {
            match self.listener.accept() {
                Ok((client, _)) => {
                    self.complained = false;
                    match client.set_nonblocking(true) {
                        Ok(()) => return Some(client),
                        Err(error) => log::warn!("one of the {} clients is turned away: {error}", self.name),
                    }
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => return None,
                    io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted => {}
                    _ => {
                        self.pause(&error, now, host);
                        return None;
                    }
                },
            }
        }
        None
    }

    /// Nobody can be accepted just now; the listener would be ready all the time.
    fn pause(&mut self, error: &io::Error, now: Instant, host: &mut impl Forwarder) {
        if !core::mem::replace(&mut self.complained, true) {
            log::warn!("{} clients have to wait: {error}", self.name);
        }
        if host.modify(self.listener.as_fd(), Interest::NONE, self.first_token).is_ok() {
            self.resume_at = Some(now + BACKOFF);
        }
    }

    /// When [`Reception::resume`] wants to be called.
    pub(super) const fn resumes_at(&self) -> Option<Instant> {
        self.resume_at
    }

    /// Heeds newcomers again, if it is time.
    pub(super) fn resume(&mut self, now: Instant, host: &mut impl Forwarder) {
        if self.resume_at.is_some_and(|at| at <= now) {
            self.resume_at = None;
            self.heed_newcomers(true, host);
        }
    }

    /// The clients.
    pub(super) fn clients(&self) -> impl Iterator<Item = &C> {
        self.clients.iter().flatten()
    }

    /// The client at `place`.
    pub(super) fn client(&self, place: usize) -> Option<&C> {
        self.clients.get(place)?.as_ref()
    }

    /// Finds a place for `client`. If there is none, the one with the lowest `rank` makes room, and is gone.
    pub(super) fn admit<K: Ord>(
        &mut self,
        client: C,
        interest: Interest,
        rank: impl Fn(&C) -> K,
        host: &mut impl Forwarder,
    ) -> Option<usize> {
        let vacant = self.clients.iter().position(Option::is_none);
        let lowest = || {
            let ranks = self.clients.iter().enumerate();
            ranks.min_by_key(|(_, client)| client.as_ref().map(&rank)).map(|(place, _)| place)
        };
        let place = vacant.or_else(lowest)?;
        if let Some(old) = self.take(place) {
            host.unwatch(old.as_fd());
        }
        match host.watch(client.as_fd(), interest, self.token(place)) {
            Ok(()) => {
                *self.clients.get_mut(place)? = Some(client);
                Some(place)
            }
            Err(error) => {
                log::warn!("one of the {} clients is turned away: {error}", self.name);
                None
            }
        }
    }

    /// Takes the client from its place, to do something with it.
    pub(super) fn take(&mut self, place: usize) -> Option<C> {
        self.clients.get_mut(place)?.take()
    }

    /// Puts it back if it has to be seen again; otherwise it is gone, and that is returned.
    pub(super) fn put_back(
        &mut self,
        place: usize,
        client: C,
        next: Next,
        host: &mut impl Forwarder,
    ) -> Option<C> {
        if let Next::Wait(interest) = next
            && host.modify(client.as_fd(), interest, self.token(place)).is_ok()
            && let Some(seat) = self.clients.get_mut(place)
        {
            *seat = Some(client);
            return None;
        }
        host.unwatch(client.as_fd());
        Some(client)
    }

    /// The place of a client that is to be seen.
    pub(super) fn find(&self, is_it: impl Fn(&C) -> bool) -> Option<usize> {
        self.clients.iter().position(|client| client.as_ref().is_some_and(&is_it))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;
    use std::os::unix::net::UnixDatagram;

    #[test]
    fn where_somebody_answers_nobody_else_listens() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        for kind in [SockType::Stream, SockType::SeqPacket] {
            let first = listen_at(&path, kind, Access::Umask).unwrap();
            for other in [SockType::Stream, SockType::SeqPacket] {
                let error = listen_at(&path, other, Access::Umask).unwrap_err();
                assert_eq!(error.to_string(), format!("Socket path {} already in use", path.display()));
            }
            // As after SIGKILL: the file stays.
            drop(first);
        }
        let other = UnixDatagram::bind(dir.path().join("datagrams")).unwrap();
        let error = listen_at(&dir.path().join("datagrams"), SockType::Stream, Access::Umask).unwrap_err();
        assert!(matches!(error, BindError::InUse(_)), "{error}");
        drop(other);
    }

    #[test]
    fn a_full_queue_is_somebodys() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let _busy = listen_at(&path, SockType::Stream, Access::Umask).unwrap();
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let address = UnixAddr::new(&path).unwrap();
        let mut waiting = Vec::new();
        for _ in 0..=QUEUE {
            let fd = socket(AddressFamily::Unix, SockType::Stream, flags, None).unwrap();
            connect(fd.as_raw_fd(), &address).unwrap();
            waiting.push(fd);
        }
        let error = listen_at(&path, SockType::Stream, Access::Umask).unwrap_err();
        assert!(matches!(error, BindError::InUse(_)), "{error}");
    }

    #[test]
    fn what_is_left_behind_makes_way_and_the_owners_socket_is_the_owners() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        std::fs::write(&path, "").unwrap();
        let _listener = listen_at(&path, SockType::SeqPacket, Access::Owner).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        for impossible in
            [dir.path().join("x".repeat(120)), dir.path().join("no/where"), dir.path().to_owned()]
        {
            let error = listen_at(&impossible, SockType::Stream, Access::Umask).unwrap_err();
            assert!(error.to_string().starts_with("cannot listen on the socket path /"), "{error}");
        }
    }
}
