//! A conversation with the uplink, from the side that asks.
//!
//! A Unix socket of type SOCK_SEQPACKET: one request is one packet, with descriptors if need be, and so is one reply.

use crate::protocol::{MAX_REQUEST, Refusal, read_reply};
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use serde_json::Value;
use slipway_host::sys::fdpass;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

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
    /// Connects.
    ///
    /// # Errors
    /// The kernel's: nobody listens there, for instance.
    pub fn connect(path: &Path) -> io::Result<Self> {
        let fd = packets()?;
        connect(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
        Ok(Self(fd))
    }

    /// Asks, and waits for the reply.
    ///
    /// # Errors
    /// The uplink's refusal, or that it does not answer.
    pub fn ask(&self, request: &Value, fds: &[BorrowedFd<'_>]) -> Result<Value, Refusal> {
        let lost = |error: &io::Error| Refusal::system("speak with the uplink", error);
        match fdpass::send_all(self.0.as_fd(), request.to_string().as_bytes(), fds) {
            // Shown the door before we have said anything: why is there to be read.
            Err(error) if error.raw_os_error() == Some(Errno::EPIPE as i32) => {}
            sent => sent.map_err(|error| lost(&error))?,
        }
        let mut buffer = vec![0; 16 * MAX_REQUEST];
        let mut receive = || fdpass::receive(self.0.as_fd(), &mut buffer);
        let received = match receive() {
            // The same, and our words were not read: the kernel tells this once, then gives what there is.
            Err(error) if error.raw_os_error() == Some(Errno::ECONNRESET as i32) => receive(),
            received => received,
        };
        let (len, _) = received.map_err(|error| lost(&error))?;
        match buffer.get(..len) {
            None | Some([]) => Err(lost(&Errno::EPIPE.into())),
            Some(reply) => read_reply(reply),
        }
    }
}
