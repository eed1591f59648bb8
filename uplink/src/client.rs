//! A conversation with the uplink, from the side that asks.
//!
//! A Unix socket of type SOCK_SEQPACKET: one request is one packet, with descriptors if need be, and so is one reply.

use crate::envelope::{Failure, MAX_REPLY, MAX_REQUEST, read};
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use serde::Serialize;
use serde::de::DeserializeOwned;
use slipway_host::sys::{fdpass, sockopt};
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

/// A socket of the kind that the uplink has.
///
/// # Errors
/// The kernel's: out of descriptors or memory.
pub fn packets() -> nix::Result<OwnedFd> {
    socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)
}

/// A conversation with the uplink.
#[derive(Debug)]
pub struct Client(OwnedFd);

impl Client {
    /// Connects, and waits as long as it takes.
    ///
    /// # Errors
    /// The kernel's: nobody listens there, for instance.
    pub fn connect(path: &Path) -> io::Result<Self> {
        Self::open(path, None)
    }

    /// The same for somebody who must not wait for ever: connecting, sending and receiving fail with `WouldBlock` when
    /// one of them takes longer than `patience`.
    ///
    /// # Errors
    /// The kernel's.
    pub fn connect_within(path: &Path, patience: Duration) -> io::Result<Self> {
        Self::open(path, Some(patience))
    }

    fn open(path: &Path, patience: Option<Duration>) -> io::Result<Self> {
        let fd = packets()?;
        if let Some(patience) = patience {
            sockopt::set_patience(fd.as_fd(), patience)?;
        }
        connect(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
        Ok(Self(fd))
    }

    /// Asks, and waits for what is returned. A request is a [`crate::wire::Request`] as a rule.
    ///
    /// # Errors
    /// The uplink's refusal, or that there is no answer.
    pub fn ask<T: DeserializeOwned>(
        &self,
        request: &impl Serialize,
        fds: &[BorrowedFd<'_>],
    ) -> Result<T, Failure> {
        let text = serde_json::to_vec(request).map_err(|error| Failure::Lost(error.into()))?;
        if text.len() > MAX_REQUEST {
            return Err(Failure::TooLong(text.len()));
        }
        match fdpass::send_all(self.0.as_fd(), &text, fds) {
            // Shown the door before we have said anything: why is there to be read.
            Err(error) if error.raw_os_error() == Some(Errno::EPIPE as i32) => {}
            sent => sent.map_err(Failure::Lost)?,
        }
        let mut buffer = vec![0; MAX_REPLY];
        let mut receive = || fdpass::receive(self.0.as_fd(), &mut buffer);
        let received = match receive() {
            // The same, and our words were not read: the kernel tells this once, then gives what there is.
            Err(error) if error.raw_os_error() == Some(Errno::ECONNRESET as i32) => receive(),
            received => received,
        };
        let (len, _) = received.map_err(Failure::Lost)?;
        match buffer.get(..len) {
            None | Some([]) => Err(Failure::Lost(Errno::EPIPE.into())),
            Some(reply) => read(reply),
        }
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
