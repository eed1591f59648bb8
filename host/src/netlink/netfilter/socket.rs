//! The socket: one request and its answer, one request and a list, and what a transaction needs.
//!
//! Answers are matched by sequence number. A list that was interrupted by a change (NLM_F_DUMP_INTR) is asked for
//! again. The buffer is as large as the kernel's largest piece of a list (32 KiB).

use super::super::raw::RawSocket;
use super::super::socket::Error;
use super::Attributes;
use crate::sys::sockopt::{self, Opt};
use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, SockProtocol};
use slipway_netstack::surely::Surely;
use std::os::fd::{AsFd, BorrowedFd};

/// Netlink's header and netfilter's (family, version, resource).
pub(super) const HEADER: usize = 16 + 4;

const ERROR: u16 = 2;
const DONE: u16 = 3;

/// How often an interrupted list is asked for again.
const DUMP_ATTEMPTS: usize = 16;

/// Room for one piece of a list.
const BUFFER: usize = 64 << 10;

/// What a socket sends without being asked to take more: the kernel's default for wmem.
const USUAL_BATCH: usize = 128 << 10;

/// A message's two headers; its length is still to be written.
pub(super) fn header(kind: u16, flags: u16, sequence: usize, family: u8, resource: u16) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    let sequence = u32::try_from(sequence).unwrap_or(u32::MAX);
    header[4..6].copy_from_slice(&kind.to_ne_bytes());
    header[6..8].copy_from_slice(&flags.to_ne_bytes());
    header[8..12].copy_from_slice(&sequence.to_ne_bytes());
    header[16] = family;
    header[18..20].copy_from_slice(&resource.to_be_bytes());
    header
}

/// A netfilter socket in one network namespace.
#[derive(Debug)]
pub struct Netfilter {
    socket: RawSocket,
    sequence: u32,
    buffer: Vec<u8>,
}

/// One request: which subsystem, which of its messages, for which family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// NFNL_SUBSYS_*.
    pub subsystem: u8,
    /// The subsystem's own number of the message.
    pub kind: u8,
    /// NFPROTO_*.
    pub family: u8,
}

/// A message of an answer.
pub(super) struct Message<'a> {
    kind: u16,
    flags: u16,
    sequence: u32,
    /// What follows netlink's header.
    body: &'a [u8],
}

impl Netfilter {
    /// Opens one in the calling thread's network namespace.
    ///
    /// # Errors
    /// Those of socket(2): EPROTONOSUPPORT when the kernel has no nfnetlink.
    pub fn open() -> Result<Self, Error> {
        let socket = RawSocket::connected(SockProtocol::NetlinkNetFilter)
            .map_err(|errno| Error::new("open a netfilter socket", errno))?;
        Ok(Self { socket, sequence: 0, buffer: vec![0; BUFFER] })
    }

    /// Asks for one thing, and gives its attributes to `read`. `None` when there is no such thing (ENOENT).
    ///
    /// # Errors
    /// The kernel's.
    pub fn get<T>(
        &mut self,
        request: Request,
        attributes: &Attributes,
        read: impl FnOnce(&[u8]) -> T,
    ) -> Result<Option<T>, Errno> {
        self.send(request, 0, attributes)?;
        let mut read = Some(read);
        loop {
            let sequence = self.sequence;
            let length = self.receive(MsgFlags::empty())?;
            for message in messages(self.buffer.get(..length).surely()) {
                if message.sequence != sequence {
                    continue;
                }
                match (message.kind, message.refusal()) {
                    (ERROR, Some(Errno::ENOENT) | None) => return Ok(None),
                    (ERROR, Some(errno)) => return Err(errno),
                    _ => return Ok(read.take().map(|read| read(message.attributes()))),
                }
            }
        }
    }

    /// Asks for a list, and gives the attributes of each entry to `each`. When the list changed meanwhile, `restart` is
    /// called and the list begins anew.
    ///
    /// # Errors
    /// The kernel's; EINTR when the list has changed again and again.
    pub fn list(
        &mut self,
        request: Request,
        attributes: &Attributes,
        mut each: impl FnMut(ListEvent<'_>),
    ) -> Result<(), Errno> {
        for _ in 0..DUMP_ATTEMPTS {
            each(ListEvent::Restart);
            self.send(request, NLM_F_DUMP, attributes)?;
            if self.collect(&mut each)? {
                return Ok(());
            }
        }
        Err(Errno::EINTR)
    }

    /// Sends a request that changes something, and waits for the acknowledgement.
    ///
    /// # Errors
    /// The kernel's.
    pub fn change(&mut self, request: Request, attributes: &Attributes) -> Result<(), Errno> {
        self.send(request, NLM_F_ACK, attributes)?;
        loop {
            let sequence = self.sequence;
            let length = self.receive(MsgFlags::empty())?;
            for message in messages(self.buffer.get(..length).surely()) {
                if message.sequence == sequence && message.kind == ERROR {
                    return message.refusal().map_or(Ok(()), Err);
                }
            }
        }
    }

    /// The rest of a list; `false` when it was interrupted by a change.
    fn collect(&mut self, each: &mut impl FnMut(ListEvent<'_>)) -> Result<bool, Errno> {
        let sequence = self.sequence;
        let mut interrupted = false;
        loop {
            let length = self.receive(MsgFlags::empty())?;
            for message in messages(self.buffer.get(..length).surely()) {
                if message.sequence != sequence {
                    continue;
                }
                interrupted |= message.flags & NLM_F_DUMP_INTR != 0;
                match (message.kind, message.refusal()) {
                    (ERROR | DONE, Some(errno)) => return Err(errno),
                    (ERROR | DONE, None) => return Ok(!interrupted),
                    _ => each(ListEvent::Entry(message.attributes())),
                }
            }
        }
    }

    fn send(&mut self, request: Request, flags: u16, attributes: &Attributes) -> Result<(), Errno> {
        self.sequence = self.sequence.wrapping_add(1);
        let kind = u16::from_be_bytes([request.subsystem, request.kind]);
        let mut message = Attributes::default();
        message.extend(&header(kind, NLM_F_REQUEST | flags, 0, request.family, 0));
        message.extend(attributes.as_bytes());
        message.close_message(0);
        let mut bytes = message.as_bytes().to_vec();
        if let Some(place) = bytes.get_mut(8..12) {
            place.copy_from_slice(&self.sequence.to_ne_bytes());
        }
        self.socket.send(&bytes)
    }

    pub(super) fn send_batch(&mut self, bytes: &[u8]) -> Result<(), Errno> {
        if bytes.len() > USUAL_BATCH {
            // Force needs CAP_NET_ADMIN in the namespace's own user namespace; else as much as net.core.wmem_max
            // allows.
            let room = i32::try_from(bytes.len() * 2).map_err(|_| Errno::EMSGSIZE)?;
            let fd = self.socket.as_fd();
            if sockopt::set(fd, Opt::SEND_BUFFER_FORCED, room).is_err() {
                sockopt::set(fd, Opt::SEND_BUFFER, room)?;
            }
        }
        self.socket.send(bytes)
    }

    /// The answers of the next datagram; `None` when none is left.
    pub(super) fn answers_now(&mut self) -> Result<Option<Vec<Answer>>, Errno> {
        match self.receive(MsgFlags::MSG_DONTWAIT) {
            Ok(length) => Ok(Some(
                messages(self.buffer.get(..length).surely())
                    .filter(|message| message.kind == ERROR)
                    .map(|message| Answer { sequence: message.sequence, refusal: message.refusal() })
                    .collect(),
            )),
            Err(Errno::EAGAIN) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// The next datagram from the kernel, into the buffer.
    fn receive(&mut self, flags: MsgFlags) -> Result<usize, Errno> {
        self.socket.receive(&mut self.buffer, flags)
    }
}

impl AsFd for Netfilter {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// To which message of a transaction, and why it was refused, if it was.
pub(super) struct Answer {
    pub(super) sequence: u32,
    pub(super) refusal: Option<Errno>,
}

/// What [`Netfilter::list`] tells.
#[derive(Debug)]
pub enum ListEvent<'a> {
    /// The list begins: forget what was told before.
    Restart,
    /// An entry's attributes.
    Entry(&'a [u8]),
}

impl<'a> Message<'a> {
    pub(super) fn attributes(&self) -> &'a [u8] {
        self.body.get(4..).unwrap_or_default()
    }

    /// The errno of an ERROR or DONE message; `None` when it says that all is well.
    pub(super) fn refusal(&self) -> Option<Errno> {
        let code = self.body.first_chunk::<4>().map_or(0, |code| i32::from_ne_bytes(*code));
        (matches!(self.kind, ERROR | DONE) && code < 0).then(|| Errno::from_raw(code.saturating_neg()))
    }
}

/// The messages of a datagram; it ends at the first whose length makes no sense.
pub(super) fn messages(datagram: &[u8]) -> impl Iterator<Item = Message<'_>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let header = rest.first_chunk::<16>()?;
        let [a, b, c, d, kind_low, kind_high, flags_low, flags_high, e, f, g, h, ..] = *header;
        let length = usize::try_from(u32::from_ne_bytes([a, b, c, d])).ok()?;
        let body = rest.get(16..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Message {
            kind: u16::from_ne_bytes([kind_low, kind_high]),
            flags: u16::from_ne_bytes([flags_low, flags_high]),
            sequence: u32::from_ne_bytes([e, f, g, h]),
            body,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_datagrams_end() {
        for bytes in [&[][..], &[0; 15], &[0; 16], &[255; 40]] {
            assert_eq!(messages(bytes).count(), 0);
        }
        let mut bytes = header(ERROR, 0, 3, 0, 0).to_vec();
        bytes[..4].copy_from_slice(&20_u32.to_ne_bytes());
        bytes[16..20].copy_from_slice(&(-2_i32).to_ne_bytes());
        let read: Vec<_> = messages(&bytes).map(|m| (m.sequence, m.refusal())).collect();
        assert_eq!(read, [(3, Some(Errno::ENOENT))]);
        bytes[16..20].copy_from_slice(&i32::MIN.to_ne_bytes());
        assert!(messages(&bytes).next().unwrap().refusal().is_some());
    }
}
