//! A guest behind a stream socket: each Ethernet frame follows its length, 32 bits in network order. QEMU speaks it
//! (`-netdev stream`), and what starts virtual machines the way passt is started.
//!
//! Invariants.
//! - Many frames come with one call and go with one. What was read ahead is the next to be read: [`Stream::is_ahead`]
//!   says so, for the kernel does not.
//! - A frame that has begun is finished before anything else goes out, however long that takes: half a frame would be
//!   the end of all that follow. What has been taken and not sent is bounded; behind that the link is full.
//! - Frames come without a word about their checksums, which some hypervisors leave open (libkrun): they are not looked
//!   at. To the guest everything is finished, as the wire has no room to say otherwise.
//! - A length that no frame has is the end of the connection, not of the process: where the next frame would begin is
//!   not known any more.
//!
//! Contract: pasta F.6.

use super::{Lost, MAX_FRAME};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, send};
use slipway_netstack::device::vnet::Checksum;
use slipway_netstack::device::{Device, Full, Offload};
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

/// The length in front of a frame, in bytes.
const LENGTH: usize = 4;
/// An Ethernet header; what is shorter is no frame.
const SHORTEST: usize = 14;
/// Bytes read at once: several of the longest frames.
const INBOX: usize = 256 << 10;
/// Bytes that wait for room in the socket, before the link is full.
const OUTBOX: usize = 256 << 10;
/// From so many on they are sent before the end of a round.
const EAGER: usize = 64 << 10;

/// What frames of the guest leave to us: nothing, and nobody vouches for their checksums either.
const UNCHECKED: Offload = Offload { checksum: Checksum::Verified, gso: None };

/// The connection to the guest.
#[derive(Debug)]
pub struct Stream {
    fd: OwnedFd,
    /// What was read, from `next` to `end`. It takes no memory until there is something.
    inbox: Vec<u8>,
    next: usize,
    end: usize,
    /// The last call brought all that there was.
    dry: bool,
    /// What is to be sent, from `sent` on.
    outbox: Vec<u8>,
    sent: usize,
    /// The other side is gone: nothing is sent any more.
    broken: bool,
    lost: Lost,
}

impl Stream {
    /// Takes over a connected stream socket.
    #[must_use]
    pub fn from_owned_fd(fd: OwnedFd) -> Self {
        Self {
            fd,
            inbox: Vec::new(),
            next: 0,
            end: 0,
            dry: false,
            outbox: Vec::new(),
            sent: 0,
            broken: false,
            lost: Lost::default(),
        }
    }

    /// What it did not carry.
    #[must_use]
    pub const fn lost(&self) -> Lost {
        self.lost
    }

    /// Whether a whole frame was read that nobody has asked for yet, or the length of an impossible one: there is no
    /// event for it.
    #[must_use]
    pub fn is_ahead(&self) -> bool {
        self.length().is_some_and(|len| !is_possible(len) || self.unread().len() >= LENGTH + len)
    }

    /// See [`super::Link::read_frame`].
    ///
    /// # Errors
    /// `UnexpectedEof` when the guest has hung up; `InvalidData` for a length that no frame has; otherwise those of
    /// recv(2).
    pub fn read_frame(&mut self, into: &mut [u8]) -> io::Result<Option<(Offload, usize)>> {
        loop {
            if let Some(len) = self.take(into)? {
                return Ok(Some((UNCHECKED, len)));
            }
            if std::mem::take(&mut self.dry) || !self.receive()? {
                return Ok(None);
            }
        }
    }

    fn unread(&self) -> &[u8] {
        self.inbox.get(self.next..self.end).unwrap_or_default()
    }

    /// The length of the next frame, if that has come.
    fn length(&self) -> Option<usize> {
        let length = self.unread().first_chunk().copied().map(u32::from_be_bytes)?;
        Some(usize::try_from(length).unwrap_or(usize::MAX))
    }

    /// The next frame, if all of it was read.
    fn take(&mut self, into: &mut [u8]) -> io::Result<Option<usize>> {
        let Some(len) = self.length() else { return Ok(None) };
        if !is_possible(len) {
            let reason = format!("Bad frame size from guest, resetting connection: {len}");
            return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
        }
        let Some((frame, room)) = self.unread().get(LENGTH..LENGTH + len).zip(into.get_mut(..len)) else {
            return Ok(None);
        };
        room.copy_from_slice(frame);
        self.next += LENGTH + len;
        Ok(Some(len))
    }

    /// Reads more. `false`: there is nothing now.
    fn receive(&mut self) -> io::Result<bool> {
        if self.inbox.is_empty() {
            self.inbox = vec![0; INBOX];
        }
        self.inbox.copy_within(self.next..self.end, 0);
        (self.next, self.end) = (0, self.end - self.next);
        let room = self.inbox.get_mut(self.end..).unwrap_or_default();
        let asked = room.len();
        let read = recv(self.fd.as_raw_fd(), room, MsgFlags::MSG_DONTWAIT);
        self.end += read.unwrap_or(0);
        match read {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(len) => {
                self.dry = len < asked;
                Ok(true)
            }
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Sends what waits.
    ///
    /// # Errors
    /// [`Full`]: something still waits, for room.
    pub fn flush(&mut self) -> Result<(), Full> {
        while let Some(waiting) = self.outbox.get(self.sent..).filter(|waiting| !waiting.is_empty()) {
            match send(self.fd.as_raw_fd(), waiting, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL) {
                Ok(count) => self.sent += count,
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN | Errno::ENOBUFS | Errno::ENOMEM) => return Err(Full),
                // Reading tells why.
                Err(_) => {
                    self.broken = true;
                    break;
                }
            }
        }
        self.outbox.clear();
        self.sent = 0;
        Ok(())
    }

    fn waiting(&self) -> usize {
        self.outbox.len() - self.sent
    }
}

/// Whether a frame can be so long.
fn is_possible(len: usize) -> bool {
    (SHORTEST..=MAX_FRAME).contains(&len)
}

impl Device for Stream {
    fn transmit(&mut self, offload: Offload, frame: &[u8]) -> Result<(), Full> {
        let Some(length) = u32::try_from(frame.len()).ok().filter(|_| offload == Offload::NONE) else {
            self.lost.rejected = self.lost.rejected.saturating_add(1);
            return Ok(());
        };
        if self.broken {
            self.lost.down = self.lost.down.saturating_add(1);
            return Ok(());
        }
        if self.waiting() >= EAGER {
            // Room that there is is made use of; what waits behind that is told by `flush`.
            let _ = self.flush();
        }
        if self.waiting() + LENGTH + frame.len() > OUTBOX {
            return Err(Full);
        }
        self.outbox.drain(..self.sent);
        self.sent = 0;
        self.outbox.extend(length.to_be_bytes());
        self.outbox.extend(frame);
        Ok(())
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixStream;

    fn pair() -> (Stream, UnixStream) {
        let (ours, guest) =
            socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC).unwrap();
        (Stream::from_owned_fd(ours), UnixStream::from(guest))
    }

    fn frame(len: usize, seed: usize) -> Vec<u8> {
        (0..len).map(|at| u8::try_from((at * 7 + seed) % 251).unwrap()).collect()
    }

    fn wire(frames: &[Vec<u8>]) -> Vec<u8> {
        let each = |frame: &Vec<u8>| [&u32::try_from(frame.len()).unwrap().to_be_bytes()[..], frame].concat();
        frames.iter().flat_map(each).collect()
    }

    fn read_all(stream: &mut Stream) -> Vec<Vec<u8>> {
        let mut buffer = vec![0; MAX_FRAME];
        std::iter::from_fn(|| {
            let (offload, len) = stream.read_frame(&mut buffer).unwrap()?;
            assert_eq!(offload, UNCHECKED);
            Some(buffer[..len].to_vec())
        })
        .collect()
    }

    #[test]
    fn frames_are_whole_however_they_come() {
        let (mut stream, mut guest) = pair();
        let sent: Vec<_> =
            [14, 60, 1514, MAX_FRAME, 15].iter().zip(0..).map(|(len, n)| frame(*len, n)).collect();
        let bytes = wire(&sent);
        let (head, tail) = bytes.split_at(100);
        let mut got = Vec::new();
        for byte in head {
            guest.write_all(&[*byte]).unwrap();
            got.extend(read_all(&mut stream));
        }
        for part in tail.chunks(30_000) {
            guest.write_all(part).unwrap();
            got.extend(read_all(&mut stream));
        }
        assert_eq!(got, sent);
        assert!(!stream.is_ahead());
    }

    #[test]
    fn what_was_read_ahead_is_known() {
        let (mut stream, mut guest) = pair();
        let sent: Vec<_> = (0..100).map(|n| frame(60, n)).collect();
        guest.write_all(&wire(&sent)).unwrap();
        let mut buffer = vec![0; MAX_FRAME];
        for (n, frame) in sent.iter().enumerate() {
            let (_, len) = stream.read_frame(&mut buffer).unwrap().unwrap();
            assert_eq!(buffer[..len], *frame);
            assert_eq!(stream.is_ahead(), n < 99, "{n}");
        }
        assert!(stream.read_frame(&mut buffer).unwrap().is_none());
        drop(guest);
        let end = (0..2).find_map(|_| stream.read_frame(&mut buffer).err()).unwrap();
        assert_eq!(end.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_length_that_no_frame_has_is_the_end() {
        for length in [0, 13, u32::try_from(MAX_FRAME).unwrap() + 1, u32::MAX] {
            let (mut stream, mut guest) = pair();
            guest.write_all(&wire(&[frame(60, 1)])).unwrap();
            guest.write_all(&length.to_be_bytes()).unwrap();
            let mut buffer = vec![0; MAX_FRAME];
            assert!(stream.read_frame(&mut buffer).unwrap().is_some(), "{length}");
            assert!(stream.is_ahead());
            let error = stream.read_frame(&mut buffer).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{length}");
        }
    }

    #[test]
    fn a_frame_that_has_begun_is_finished_behind_a_reader_who_pauses() {
        let (mut stream, mut guest) = pair();
        let mut taken = Vec::new();
        for n in 0..1000 {
            let next = frame(9000 + n, n);
            match stream.transmit(Offload::NONE, &next) {
                Ok(()) => taken.push(next),
                Err(Full) => break,
            }
        }
        assert!(taken.len() > 20 && taken.len() < 1000, "{}", taken.len());
        assert_eq!(stream.flush(), Err(Full));
        assert!(stream.waiting() <= OUTBOX);
        let expected = wire(&taken);
        let reader = std::thread::spawn(move || {
            let mut got = vec![0; expected.len()];
            guest.read_exact(&mut got).unwrap();
            (got == expected, guest)
        });
        while stream.flush() == Err(Full) {
            std::thread::yield_now();
        }
        let (whole, guest) = reader.join().unwrap();
        assert!(whole, "in order, and nothing between");
        drop(guest);
        assert_eq!(stream.transmit(Offload::NONE, &[0; 60]).and_then(|()| stream.flush()), Ok(()));
        assert_eq!(stream.transmit(Offload::NONE, &[0; 60]), Ok(()), "nobody is there to wait for");
        assert_eq!(stream.lost(), Lost { down: 1, ..Lost::default() });
    }
}
