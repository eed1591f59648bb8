//! The socket between the two processes.
//!
//! ```text
//!  31  30                 0
//! ┌───┬────────────────────┬──────────
//! │fd │ length, big-endian │ JSON …
//! └───┴────────────────────┴──────────
//! ```
//! The highest bit says that a descriptor came along with the first byte (SCM_RIGHTS). The kernel delivers descriptors
//! in the order of the bytes, so the next one that arrived belongs to the next message that announces one. One that
//! this process had no room for is announced all the same, and its message then comes without.
//!
//! Nothing here waits: what the socket does not take stays in [`Line::flush`]'s queue, which is bounded by whoever
//! fills it.

use serde::Serialize;
use serde::de::DeserializeOwned;
use slipway_host::sys::fdpass::{Part, receive_part, send_part};
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

/// The longest message: a zone with 65 536 records is sent in pieces, and ten thousand forwards have room.
pub const LONGEST: usize = 4 << 20;
/// More than fits into a message's head.
const WITH_DESCRIPTOR: u32 = 1 << 31;
const HEAD: usize = 4;

/// One end of it.
#[derive(Debug)]
pub struct Line {
    socket: OwnedFd,
    inbox: Vec<u8>,
    /// Descriptors that have arrived; `None` where one was lost on the way.
    arrived: VecDeque<Option<OwnedFd>>,
    outbox: VecDeque<Outgoing>,
    /// Bytes in the outbox.
    queued: usize,
}

#[derive(Debug)]
struct Outgoing {
    bytes: Vec<u8>,
    sent: usize,
    /// Until it is sent.
    descriptor: Option<OwnedFd>,
}

/// A message that has arrived.
#[derive(Debug)]
pub struct Arrived<T> {
    /// What it says.
    pub message: T,
    /// What came along.
    pub descriptor: Option<OwnedFd>,
}

fn invalid(why: &'static str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, why)
}

impl Line {
    /// Both ends.
    ///
    /// # Errors
    /// The kernel's: out of descriptors.
    pub fn pair() -> io::Result<(Self, Self)> {
        let (a, b) = UnixStream::pair()?;
        a.set_nonblocking(true)?;
        b.set_nonblocking(true)?;
        Ok((Self::new(a.into()), Self::new(b.into())))
    }

    /// The end that is `socket`, which does not block.
    fn new(socket: OwnedFd) -> Self {
        Self { socket, inbox: Vec::new(), arrived: VecDeque::new(), outbox: VecDeque::new(), queued: 0 }
    }

    /// Bytes that wait to be sent.
    #[must_use]
    pub const fn queued(&self) -> usize {
        self.queued
    }

    /// Whether a send has still something to do.
    #[must_use]
    pub fn is_sending(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// Queues a message, and a descriptor with it.
    ///
    /// # Errors
    /// It is longer than [`LONGEST`]; it is not queued then.
    pub fn push(&mut self, message: &impl Serialize, descriptor: Option<OwnedFd>) -> io::Result<()> {
        let mut bytes = vec![0; HEAD];
        serde_json::to_writer(&mut bytes, message)?;
        let len = bytes.len() - HEAD;
        let mut head =
            u32::try_from(len).ok().filter(|_| len <= LONGEST).ok_or_else(|| invalid("too long"))?;
        if descriptor.is_some() {
            head |= WITH_DESCRIPTOR;
        }
        if let Some(place) = bytes.first_chunk_mut() {
            *place = head.to_be_bytes();
        }
        self.queued += bytes.len();
        self.outbox.push_back(Outgoing { bytes, sent: 0, descriptor });
        Ok(())
    }

    /// Sends what the socket takes.
    ///
    /// # Errors
    /// Those of sendmsg(2) but EAGAIN: the other end is gone.
    pub fn flush(&mut self) -> io::Result<()> {
        while let Some(next) = self.outbox.front_mut() {
            let rest = next.bytes.get(next.sent..).unwrap_or_default();
            let descriptor = next.descriptor.as_ref().map(AsFd::as_fd);
            match send_part(self.socket.as_fd(), rest, descriptor.as_slice()) {
                Ok(len) => {
                    next.descriptor = None;
                    next.sent += len;
                    self.queued = self.queued.saturating_sub(len);
                    if next.sent >= next.bytes.len() {
                        self.outbox.pop_front();
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Receives at most `room` bytes. `false`: there was nothing.
    ///
    /// # Errors
    /// Those of recvmsg(2) but EAGAIN; `UnexpectedEof` at the end.
    pub fn fill(&mut self, room: usize) -> io::Result<bool> {
        let before = self.inbox.len();
        self.inbox.resize(before + room, 0);
        let part = receive_part(self.socket.as_fd(), self.inbox.get_mut(before..).unwrap_or_default());
        self.inbox.truncate(before + part.as_ref().map_or(0, |part| part.len));
        match part {
            Ok(Part { len: 0, .. }) => Err(ErrorKind::UnexpectedEof.into()),
            Ok(Part { fds, lost, .. }) => {
                self.arrived.extend(fds.into_iter().map(Some));
                self.arrived.extend(lost.then_some(None));
                Ok(true)
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The next message that has arrived whole.
    ///
    /// # Errors
    /// It is too long, or not such a message: nothing more is to be had from here.
    pub fn receive<T: DeserializeOwned>(&mut self) -> io::Result<Option<Arrived<T>>> {
        let Some((head, rest)) = self.inbox.split_first_chunk() else { return Ok(None) };
        let head = u32::from_be_bytes(*head);
        let len = usize::try_from(head & !WITH_DESCRIPTOR).map_err(|_| invalid("too long"))?;
        if len > LONGEST {
            return Err(invalid("too long"));
        }
        let Some(body) = rest.get(..len) else { return Ok(None) };
        let message = serde_json::from_slice(body).map_err(|_| invalid("no message"))?;
        self.inbox.drain(..HEAD + len);
        if self.inbox.is_empty() && self.inbox.capacity() > 1 << 16 {
            self.inbox = Vec::new();
        }
        let announced = head & WITH_DESCRIPTOR != 0;
        // A descriptor comes with the first byte of its message, so it is here, or lost.
        let descriptor = if announced { self.arrived.pop_front().flatten() } else { None };
        // More than are announced are nobody's.
        if self.inbox.is_empty() {
            self.arrived.clear();
        }
        Ok(Some(Arrived { message, descriptor }))
    }
}

impl AsFd for Line {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};

    fn next(line: &mut Line) -> Option<(String, Option<OwnedFd>)> {
        line.receive::<String>().unwrap().map(|arrived| (arrived.message, arrived.descriptor))
    }

    #[test]
    fn messages_arrive_in_order_with_what_belongs_to_each() {
        let (mut a, mut b) = Line::pair().unwrap();
        let pipes: Vec<_> = (0..3).map(|_| io::pipe().unwrap()).collect();
        let mut ends = Vec::new();
        for (at, (read, write)) in pipes.into_iter().enumerate() {
            a.push(&format!("alone {at}"), None).unwrap();
            a.push(&format!("with {at}"), Some(write.into())).unwrap();
            ends.push(read);
        }
        a.flush().unwrap();
        assert!(!a.is_sending() && a.queued() == 0);
        // Byte by byte, descriptors come long before their messages are whole.
        let mut got = Vec::new();
        while b.fill(1).unwrap() {
            got.extend(next(&mut b));
        }
        assert_eq!(got.len(), 6);
        for (at, mut end) in ends.into_iter().enumerate() {
            let (words, descriptor) = got.remove(0);
            assert!(words == format!("alone {at}") && descriptor.is_none());
            let (words, descriptor) = got.remove(0);
            assert_eq!(words, format!("with {at}"));
            std::fs::File::from(descriptor.unwrap()).write_all(b"through").unwrap();
            let mut text = String::new();
            end.read_to_string(&mut text).unwrap();
            assert_eq!(text, "through");
        }
        drop(a);
        assert_eq!(b.fill(1).unwrap_err().kind(), ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_full_socket_keeps_the_rest_for_later() {
        let (mut a, mut b) = Line::pair().unwrap();
        let long = "x".repeat(LONGEST - 2);
        a.push(&long, None).unwrap();
        assert!(a.push(&format!("{long}x"), None).is_err());
        a.flush().unwrap();
        assert!(a.is_sending() && a.queued() > 0);
        let mut got = None;
        for _ in 0..10_000 {
            b.fill(1 << 16).unwrap();
            a.flush().unwrap();
            got = next(&mut b);
            if got.is_some() {
                break;
            }
        }
        assert_eq!(got.map(|(words, _)| words.len()), Some(long.len()));
        assert!(!a.is_sending() && b.inbox.capacity() < 1 << 16, "memory goes back");
    }

    #[test]
    fn what_is_no_message_ends_the_line() {
        for bytes in
            [&[0x7f, 0xff, 0xff, 0xff][..], &[0, 0, 0, 0], &[0, 0, 0, 2, b'{', b'}'], b"\0\0\0\x01\xff"]
        {
            let (a, mut b) = Line::pair().unwrap();
            send_part(a.as_fd(), bytes, &[]).unwrap();
            b.fill(64).unwrap();
            assert_eq!(b.receive::<String>().unwrap_err().kind(), ErrorKind::InvalidData, "{bytes:?}");
        }
    }

    #[test]
    fn a_descriptor_that_nobody_announced_is_closed() {
        let (a, mut b) = Line::pair().unwrap();
        let (mut read, write) = io::pipe().unwrap();
        send_part(a.as_fd(), b"\0\0\0\x03\"x\"", &[write.as_fd()]).unwrap();
        drop(write);
        b.fill(64).unwrap();
        assert!(matches!(next(&mut b), Some((_, None))));
        assert_eq!(read.read(&mut [0]).unwrap(), 0);
        send_part(a.as_fd(), b"\x80\0\0\x03\"y\"", &[]).unwrap();
        b.fill(64).unwrap();
        assert!(matches!(next(&mut b), Some((_, None))), "announced, and not there");
    }
}
