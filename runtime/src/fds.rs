//! Descriptors that a caller passes by number: the one that gets the ready byte, and the one whose end is ours.
//!
//! They are taken over before anything else is opened, so that a number which is not open cannot come to mean
//! something of our own.

use slipway_host::strerror::words;
use slipway_host::sys::fdpass::take_inherited;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{OwnedFd, RawFd};

/// The descriptor that ends us when its other side is closed.
#[derive(Debug)]
pub enum ExitFd {
    /// To be watched. What can be read from it is left unread.
    Open(OwnedFd),
    /// The number was not open (any more): whoever would have held the other side is gone.
    Closed,
}

impl ExitFd {
    /// Takes over `number`.
    #[must_use]
    pub fn take(number: RawFd) -> Self {
        match take_inherited(number) {
            Ok(fd) => Self::Open(fd),
            Err(error) => {
                log::warn!("exit-fd {number}: {}", words(&error));
                Self::Closed
            }
        }
    }
}

/// The descriptor that is told once that the network works.
#[derive(Debug)]
pub struct ReadyFd(File);

impl From<OwnedFd> for ReadyFd {
    fn from(fd: OwnedFd) -> Self {
        Self(File::from(fd))
    }
}

impl ReadyFd {
    /// Takes over `number`.
    ///
    /// # Errors
    /// When it is not open.
    pub fn take(number: RawFd) -> io::Result<Self> {
        Ok(take_inherited(number)?.into())
    }

    /// Writes the one byte, and closes.
    ///
    /// # Errors
    /// Those of write(2), EPIPE for instance: whoever asked is gone.
    pub fn tell(mut self) -> io::Result<()> {
        self.0.write_all(b"1")
    }
}
