//! Guests that share one datagram socket: each is whoever sends from an address of its own, and a datagram is a frame.
//! vfkit, krunkit and libkrun speak it (contract: gvproxy 5.2): they bind a socket, and connect it to ours.
//!
//! ```text
//!   guest's socket at /tmp/a ─┐
//!                             ├──▶ Post ──▶ a link for each address
//!   guest's socket at /tmp/b ─┘
//! ```
//! Invariants.
//! - Frames leave from the socket that all guests send to, for their sockets are connected to it and take nothing else.
//!   So they share its send buffer: one that does not read fills its own queue, and is given no more than a part of the
//!   buffer while it says nothing.
//! - Nothing tells of room in a guest's queue, nor of its end. Whoever found no room tries again a little later
//!   (`driver/guests.rs`); and the end is looked for with a second socket ([`Post::is_there`]), which sends nothing.
//! - A guest whose socket is gone when something is sent there has ended.
//!
//! Kernel behaviour that this stands on (`net/unix/af_unix.c`, Linux 6.12): connect(2) of a datagram socket looks the
//! address up and then answers EPERM if that socket is connected elsewhere, as a guest's is; ECONNREFUSED or ENOENT if
//! there is none.

use super::Lost;
use crate::sys::sockopt::{self, Opt};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, connect, recvfrom, sendto, socket,
};
use slipway_netstack::device::{Device, Full, Offload};
use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::rc::Rc;

/// Buffers of the socket, in bytes, as far as the kernel allows.
const SEND_BUFFER: i32 = 1 << 20;
const RECEIVE_BUFFER: i32 = 4 << 20;
/// Bytes for a guest that says nothing, before others that share the socket have a say.
const UNANSWERED: usize = 64 << 10;

/// The socket that guests send to.
#[derive(Debug)]
pub struct Post {
    fd: OwnedFd,
    /// For looking who is there.
    probe: OwnedFd,
    /// How many guests there are.
    guests: Cell<usize>,
}

impl Post {
    /// Takes over a datagram socket that is bound.
    ///
    /// # Errors
    /// The kernel's.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        let status = OFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFL)?);
        fcntl(&fd, FcntlArg::F_SETFL(status | OFlag::O_NONBLOCK))?;
        // Cut to what the system allows; smaller buffers are slower, and no failure.
        let _ = sockopt::set(fd.as_fd(), Opt::SEND_BUFFER, SEND_BUFFER);
        let _ = sockopt::set(fd.as_fd(), Opt::RECEIVE_BUFFER, RECEIVE_BUFFER);
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let probe = socket(AddressFamily::Unix, SockType::Datagram, flags, None)?;
        Ok(Self { fd, probe, guests: Cell::new(0) })
    }

    /// The next datagram, and whose it is; `None` as its length: there is none now.
    ///
    /// # Errors
    /// Those of recvfrom(2).
    pub fn receive(&self, into: &mut [u8]) -> io::Result<Option<(usize, Option<UnixAddr>)>> {
        match recvfrom::<UnixAddr>(self.fd.as_raw_fd(), into) {
            Ok((len, from)) => Ok(Some((len, from.filter(|from| !from.is_unnamed())))),
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether a socket is there still.
    #[must_use]
    pub fn is_there(&self, guest: &UnixAddr) -> bool {
        !matches!(
            connect(self.probe.as_raw_fd(), guest),
            Err(Errno::ECONNREFUSED | Errno::ENOENT | Errno::ENOTDIR | Errno::EPROTOTYPE)
        )
    }

    /// Whether little of what was sent waits in guests' queues: a quarter of the buffer at the most.
    fn is_calm(&self) -> bool {
        let mut fds = [PollFd::new(self.fd.as_fd(), PollFlags::POLLOUT)];
        poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
    }
}

impl AsFd for Post {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// One of the guests.
#[derive(Debug)]
pub struct Datagrams {
    post: Rc<Post>,
    guest: UnixAddr,
    /// Bytes sent since it was heard of.
    unanswered: usize,
    gone: bool,
    lost: Lost,
}

impl Datagrams {
    /// The guest at an address.
    #[must_use]
    pub fn new(post: Rc<Post>, guest: UnixAddr) -> Self {
        post.guests.set(post.guests.get() + 1);
        Self { post, guest, unanswered: 0, gone: false, lost: Lost::NONE }
    }

    /// It has sent something.
    pub const fn is_heard(&mut self) {
        self.unanswered = 0;
    }

    /// Looks whether it is still there.
    pub fn look(&mut self) {
        self.gone |= !self.post.is_there(&self.guest);
    }

    /// Whether it has gone, which reading tells ([`Datagrams::read_frame`]).
    #[must_use]
    pub const fn has_gone(&self) -> bool {
        self.gone
    }

    /// What it did not carry.
    #[must_use]
    pub const fn lost(&self) -> Lost {
        self.lost
    }

    /// See [`super::Link::read_frame`]. Frames come by [`Post::receive`]; here is only the end.
    ///
    /// # Errors
    /// `UnexpectedEof`: it has gone.
    pub fn read_frame(&self) -> io::Result<()> {
        if self.gone { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }
}

impl Device for Datagrams {
    fn transmit(&mut self, offload: Offload, frame: &[u8]) -> Result<(), Full> {
        if offload != Offload::NONE {
            self.lost.rejected = self.lost.rejected.saturating_add(1);
            return Ok(());
        }
        if self.unanswered >= UNANSWERED && self.post.guests.get() > 1 && !self.post.is_calm() {
            return Err(Full);
        }
        match sendto(self.post.fd.as_raw_fd(), frame, &self.guest, MsgFlags::MSG_DONTWAIT) {
            Ok(_) => self.unanswered = self.unanswered.saturating_add(frame.len()),
            // The guest's queue, our buffer, or the kernel's memory: all of them pass.
            Err(Errno::EAGAIN | Errno::ENOBUFS | Errno::ENOMEM | Errno::EINTR) => return Err(Full),
            Err(Errno::EMSGSIZE) => self.lost.rejected = self.lost.rejected.saturating_add(1),
            Err(error) => {
                self.gone |= matches!(error, Errno::ECONNREFUSED | Errno::ENOENT | Errno::ECONNRESET);
                self.lost.down = self.lost.down.saturating_add(1);
            }
        }
        Ok(())
    }
}

impl Drop for Datagrams {
    fn drop(&mut self) {
        self.post.guests.set(self.post.guests.get().saturating_sub(1));
    }
}
