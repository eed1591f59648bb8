//! The socket of a front end, read without ever waiting for it: a request that has come in part waits here.
//!
//! Bounds: one request at a time, of [`message::LONGEST`] bytes, with at most [`fdpass::MAX_FDS`] descriptors.

use super::message::{self, HEADER_LEN, Header};
use crate::sys::fdpass;
use nix::sys::socket::{MsgFlags, send};
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

/// A request that has come whole.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) header: Header,
    pub(super) payload: Vec<u8>,
    pub(super) fds: Vec<OwnedFd>,
}

/// A connected stream socket that does not block.
#[derive(Debug)]
pub(super) struct Inbox {
    socket: OwnedFd,
    /// What has come of the next request.
    bytes: Vec<u8>,
    fds: Vec<OwnedFd>,
}

impl Inbox {
    pub(super) const fn new(socket: OwnedFd) -> Self {
        Self { socket, bytes: Vec::new(), fds: Vec::new() }
    }

    /// The next request; `None` when it has not all come.
    ///
    /// # Errors
    /// `UnexpectedEof` when the front end has gone; `InvalidData` for what is no request; otherwise those of
    /// recvmsg(2).
    pub(super) fn receive(&mut self) -> io::Result<Option<Message>> {
        loop {
            let header = self.bytes.first_chunk::<HEADER_LEN>().map(Header::parse).transpose();
            let header = header.map_err(invalid)?;
            let missing = HEADER_LEN + header.map_or(0, |header| header.size) - self.bytes.len();
            if let Some(header) = header.filter(|_| missing == 0) {
                let payload = self.bytes.split_off(HEADER_LEN);
                self.bytes.clear();
                return Ok(Some(Message { header, payload, fds: std::mem::take(&mut self.fds) }));
            }
            if !self.read(missing)? {
                return Ok(None);
            }
        }
    }

    /// Reads at most `missing` bytes; `false`: there are none now.
    fn read(&mut self, missing: usize) -> io::Result<bool> {
        let mut buffer = [0; message::LONGEST];
        let room = buffer.get_mut(..missing).unwrap_or_default();
        let (len, fds) = match fdpass::receive_all(self.socket.as_fd(), room) {
            Ok((0, _)) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(received) => received,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                return Ok(false);
            }
            Err(error) => return Err(error),
        };
        self.bytes.extend(buffer.get(..len).unwrap_or_default());
        self.fds.extend(fds);
        if self.fds.len() > fdpass::MAX_FDS {
            return Err(invalid("more descriptors than any request has"));
        }
        Ok(true)
    }

    /// Sends an answer. There is always room for the few bytes, unless somebody asks and asks and reads no answer.
    ///
    /// # Errors
    /// Those of send(2).
    pub(super) fn answer(&self, answer: &[u8]) -> io::Result<()> {
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        let sent = send(self.socket.as_raw_fd(), answer, flags)?;
        if sent == answer.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }
}

impl AsFd for Inbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The end of the connection, for what the front end sent.
pub(super) fn invalid(reason: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}
