//! Where guests come to a Unix socket, one at a time: what the socket's type says about its frames
//! ([`super::seqpacket`], [`super::stream`]), and what becomes of a second guest.
//!
//! Invariant: whoever was accepted is a link that does not block.

use super::pcap::Recorder;
use super::{Link, Seqpacket, Stream, VhostUser};
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;

/// What comes through a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A packet is a frame. A second guest waits in the kernel's queue until the first has gone.
    Packets,
    /// Frames follow their lengths. A second guest is turned away.
    Stream,
    /// Frames pass by shared memory. A second guest is turned away.
    Memory,
}

/// A socket that waits for guests.
#[derive(Debug)]
pub struct Listener {
    /// `std` calls it a stream listener; accept(2) does not care.
    inner: UnixListener,
    kind: Kind,
    /// Where the frames of all guests are written down.
    recorder: Option<Recorder>,
}

impl Listener {
    /// Listens at `path` for guests that send a frame in each packet; whatever is there is removed first.
    ///
    /// # Errors
    /// ENAMETOOLONG from 108 bytes on; otherwise those of unlink(2) and bind(2).
    pub fn packets(path: &Path) -> io::Result<Self> {
        let address = UnixAddr::new(path)?;
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let fd = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
        bind(fd.as_raw_fd(), &address)?;
        listen(&fd, Backlog::new(1)?)?;
        Ok(Self { inner: UnixListener::from(fd), kind: Kind::Packets, recorder: None })
    }

    /// Waits at a socket that listens already, for guests that send a stream of frames.
    #[must_use]
    pub const fn stream(inner: UnixListener) -> Self {
        Self { inner, kind: Kind::Stream, recorder: None }
    }

    /// The same for guests that share their memory.
    #[must_use]
    pub const fn vhost_user(inner: UnixListener) -> Self {
        Self { inner, kind: Kind::Memory, recorder: None }
    }

    /// Has everything that passes, from whichever guest, written to `file` in pcap format.
    ///
    /// # Errors
    /// When the file's header cannot be written.
    pub fn captured(self, file: File) -> io::Result<Self> {
        Ok(Self { recorder: Some(Recorder::new(file)?), ..self })
    }

    /// From now on [`Listener::accept`] does not wait, for an event loop that watches the listener.
    ///
    /// # Errors
    /// Those of fcntl(2).
    pub fn set_nonblocking(&self) -> io::Result<()> {
        self.inner.set_nonblocking(true)
    }

    /// Whether a guest that comes while another is there is accepted and sent away.
    #[must_use]
    pub fn turns_away(&self) -> bool {
        matches!(self.kind, Kind::Stream | Kind::Memory)
    }

    /// Waits for a guest. One at a time is the caller's business: another one may be accepted when that has hung up.
    ///
    /// # Errors
    /// Those of accept(2).
    pub fn accept(&self) -> io::Result<Link> {
        let (socket, _) = self.inner.accept()?;
        socket.set_nonblocking(true)?;
        let link = match self.kind {
            Kind::Packets => Link::from(Seqpacket::from_owned_fd(socket.into())),
            Kind::Stream => Stream::from_owned_fd(socket.into()).into(),
            Kind::Memory => VhostUser::from_owned_fd(socket.into())?.into(),
        };
        Ok(match &self.recorder {
            Some(recorder) => link.recorded(recorder.clone()),
            None => link,
        })
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.as_fd()
    }
}
