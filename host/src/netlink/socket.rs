//! The socket: requests and their acknowledgements, a question and its answer, a question and a list.
//!
//! Several [`Request`]s can go in one system call ([`Netlink::run`]). The kernel carries them out in order and
//! acknowledges each by its sequence number; one that fails does not stop those behind it. It does so before sendmsg(2)
//! returns, so that nothing here ever waits.
//!
//! Answers are matched by sequence number. Strict checking makes the
//! kernel refuse attributes that it does not know instead of ignoring them. A dump that was interrupted by a change
//! (NLM_F_DUMP_INTR) is asked for again. Source: Linux `Documentation/userspace-api/netlink/intro.rst`.

use super::raw::RawSocket;
use crate::strerror::words;
use crate::sys::sockopt::{self, Opt};
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer,
    NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, SockProtocol};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

/// How often an interrupted dump is repeated.
const DUMP_ATTEMPTS: usize = 8;

/// Room for one datagram: the kernel cuts its lists into pieces of 32 KiB at most, single answers are smaller.
const DATAGRAM_MAX: usize = 64 * 1024;

/// Bytes of netlink's header.
const HEADER: usize = 16;

/// How many requests go in one system call: their acknowledgements, two or three memory pages each at the worst, must
/// fit into the socket's receive buffer.
const RUN_MAX: usize = 32;

/// What was being done, and why it failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing}: {}", words(.source))]
pub struct Error {
    doing: String,
    source: io::Error,
}

impl Error {
    pub(super) fn new(doing: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self { doing: doing.into(), source: source.into() }
    }

    /// The kernel's answer.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        self.source.raw_os_error().map(Errno::from_raw)
    }
}

/// Something that the kernel is to change: made by the functions that are named after it, carried out by
/// [`Netlink::run`].
#[derive(Debug, Clone)]
pub struct Request {
    doing: String,
    message: Message,
    flags: u16,
}

/// What is sent behind netlink's header.
#[derive(Debug, Clone)]
pub(super) enum Message {
    /// Made by a codec.
    Typed(RouteNetlinkMessage),
    /// Made by hand: the message's number (RTM_*), its fixed part and its attributes.
    Raw { kind: u16, body: Vec<u8> },
}

impl From<RouteNetlinkMessage> for Message {
    fn from(message: RouteNetlinkMessage) -> Self {
        Self::Typed(message)
    }
}

impl Request {
    pub(super) fn new(doing: impl Into<String>, message: impl Into<Message>, flags: u16) -> Self {
        Self { doing: doing.into(), message: message.into(), flags }
    }

    /// As it is sent, with the number 0.
    #[cfg(test)]
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        append(&mut bytes, &self.message, self.flags, 0);
        bytes
    }
}

/// A route netlink socket in one network namespace.
#[derive(Debug)]
pub struct Netlink {
    socket: RawSocket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Netlink {
    /// Opens one in the calling thread's network namespace.
    ///
    /// # Errors
    /// Those of socket(2).
    pub fn open() -> Result<Self, Error> {
        let socket = RawSocket::connected(SockProtocol::NetlinkRoute)
            .map_err(|errno| Error::new("open a netlink socket", errno))?;
        // Since Linux 4.20; without it dumps are filtered less strictly, which callers do not rely on.
        if let Err(errno) = sockopt::set(socket.as_fd(), Opt::STRICT_CHECKING, 1) {
            log::debug!("netlink without strict checking: {errno}");
        }
        // Acknowledgements of failures then come without a copy of the request.
        if let Err(errno) = sockopt::set(socket.as_fd(), Opt::SHORT_ACKNOWLEDGEMENTS, 1) {
            log::debug!("netlink with requests in its acknowledgements: {errno}");
        }
        Ok(Self { socket, sequence: 0, buffer: Vec::new() })
    }

    /// Carries out several requests, in order, in one system call. Each has its own result: a failure does not stop the
    /// next one.
    pub fn run(&mut self, requests: &[Request]) -> Vec<Result<(), Error>> {
        requests.chunks(RUN_MAX).flat_map(|some| self.run_some(some)).collect()
    }

    /// Carries out one request.
    ///
    /// # Errors
    /// The kernel's.
    pub fn run_one(&mut self, request: &Request) -> Result<(), Error> {
        self.run_some(std::slice::from_ref(request)).into_iter().collect()
    }

    fn run_some(&mut self, requests: &[Request]) -> Vec<Result<(), Error>> {
        let first = self.sequence.wrapping_add(1);
        let mut bytes = Vec::new();
        for request in requests {
            self.append(&mut bytes, &request.message, NLM_F_ACK | request.flags);
        }
        let mut results: Vec<Option<io::Result<()>>> = requests.iter().map(|_| None).collect();
        if let Err(error) = self.acknowledged(&bytes, first, &mut results) {
            // Those that were not heard of failed in the same way.
            let missing = results.iter_mut().filter(|result| result.is_none());
            missing.for_each(|result| *result = Some(Err(again(&error))));
        }
        requests
            .iter()
            .zip(results)
            .map(|(request, result)| {
                result.unwrap_or(Ok(())).map_err(|error| Error::new(request.doing.clone(), error))
            })
            .collect()
    }

    /// Sends, and files each acknowledgement under the number of its request.
    fn acknowledged(
        &mut self,
        bytes: &[u8],
        first: u32,
        results: &mut [Option<io::Result<()>>],
    ) -> io::Result<()> {
        self.socket.send(bytes)?;
        while results.iter().any(Option::is_none) {
            for answer in self.receive()? {
                let number = answer.header.sequence_number.wrapping_sub(first);
                let slot = usize::try_from(number).ok().and_then(|number| results.get_mut(number));
                if let (Some(slot), NetlinkPayload::Error(error)) = (slot, answer.payload) {
                    *slot = Some(error.code.map_or(Ok(()), |_| Err(error.to_io())));
                }
            }
        }
        Ok(())
    }

    /// Asks a question that has one answer.
    pub(super) fn ask(
        &mut self,
        doing: &str,
        message: RouteNetlinkMessage,
    ) -> Result<RouteNetlinkMessage, Error> {
        self.send(&message.into(), 0).map_err(|error| Error::new(doing, error))?;
        loop {
            for answer in self.current().map_err(|error| Error::new(doing, error))? {
                match answer.payload {
                    NetlinkPayload::InnerMessage(message) => return Ok(message),
                    NetlinkPayload::Error(error) => return Err(Error::new(doing, error.to_io())),
                    _ => {}
                }
            }
        }
    }

    /// Sends a request that changes something, and waits for the acknowledgement.
    pub(super) fn change(
        &mut self,
        doing: &str,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<(), Error> {
        self.run_one(&Request::new(doing, message, flags))
    }

    /// Sends a request for a list, and collects the answers.
    pub(super) fn dump(
        &mut self,
        doing: &str,
        message: &RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>, Error> {
        self.dump_with(doing, &Message::Typed(message.clone()), |entry| match understood(entry)?.payload {
            NetlinkPayload::InnerMessage(message) => Some(message),
            _ => None,
        })
    }

    /// The same, of which `take` takes what is wanted out of each answer, a whole message with its header.
    pub(super) fn dump_with<T>(
        &mut self,
        doing: &str,
        message: &Message,
        take: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<Vec<T>, Error> {
        let (list, whole) =
            self.dump_into(doing, message, |list: &mut Vec<T>, entry| list.extend(take(entry)))?;
        if whole { Ok(list) } else { Err(Error::new(doing, Errno::EINTR)) }
    }

    /// The same for whoever does not want a list of everything: each answer is added to what the others made. It begins
    /// anew when the list was interrupted by a change; `false`: also the last attempt was.
    pub(super) fn dump_into<T: Default>(
        &mut self,
        doing: &str,
        message: &Message,
        mut add: impl FnMut(&mut T, &[u8]),
    ) -> Result<(T, bool), Error> {
        let mut attempts = 0;
        loop {
            attempts += 1;
            let mut made = T::default();
            let sent = self.send(message, NLM_F_DUMP);
            let whole = sent.and_then(|()| self.collect(|entry| add(&mut made, entry)));
            let whole = whole.map_err(|error| Error::new(doing, error))?;
            if whole || attempts == DUMP_ATTEMPTS {
                return Ok((made, whole));
            }
        }
    }

    /// The rest of a dump; `false` when it was interrupted by a change.
    fn collect(&mut self, mut each: impl FnMut(&[u8])) -> io::Result<bool> {
        let mut interrupted = false;
        loop {
            self.fill()?;
            for message in messages(&self.buffer) {
                let message = message?;
                let header = NetlinkBuffer::new_checked(message).map_err(io::Error::other)?;
                if header.sequence_number() != self.sequence {
                    continue;
                }
                interrupted |= header.flags() & NLM_F_DUMP_INTR != 0;
                match header.message_type() {
                    NLMSG_DONE => return Ok(!interrupted),
                    NLMSG_ERROR => {
                        if let Some(NetlinkPayload::Error(error)) = understood(message).map(|it| it.payload)
                            && error.code.is_some()
                        {
                            return Err(error.to_io());
                        }
                    }
                    _ => each(message),
                }
            }
        }
    }

    fn send(&mut self, message: &Message, flags: u16) -> io::Result<()> {
        let mut bytes = Vec::new();
        self.append(&mut bytes, message, flags);
        Ok(self.socket.send(&bytes)?)
    }

    fn append(&mut self, bytes: &mut Vec<u8>, message: &Message, flags: u16) {
        self.sequence = self.sequence.wrapping_add(1);
        append(bytes, message, flags, self.sequence);
    }

    /// The next messages that answer the last request.
    fn current(&mut self) -> io::Result<Vec<NetlinkMessage<RouteNetlinkMessage>>> {
        loop {
            let mut messages = self.receive()?;
            messages.retain(|message| message.header.sequence_number == self.sequence);
            if !messages.is_empty() {
                return Ok(messages);
            }
        }
    }

    /// What the next datagram of the kernel's says.
    fn receive(&mut self) -> io::Result<Vec<NetlinkMessage<RouteNetlinkMessage>>> {
        self.fill()?;
        parse(&self.buffer)
    }

    /// Puts the next datagram of the kernel's into the buffer.
    fn fill(&mut self) -> io::Result<()> {
        self.buffer.resize(DATAGRAM_MAX, 0);
        let length = self.socket.receive(&mut self.buffer, MsgFlags::empty())?;
        self.buffer.truncate(length);
        Ok(())
    }
}

impl AsFd for Netlink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Puts a message behind others, at the next multiple of four bytes.
fn append(bytes: &mut Vec<u8>, message: &Message, flags: u16, sequence: u32) {
    let flags = NLM_F_REQUEST | flags;
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    match message {
        Message::Typed(message) => append_typed(bytes, message.clone(), flags, sequence),
        Message::Raw { kind, body } => {
            // netlink(7): struct nlmsghdr.
            let length = u32::try_from(HEADER + body.len()).unwrap_or(u32::MAX);
            bytes.extend(length.to_ne_bytes());
            bytes.extend([kind.to_ne_bytes(), flags.to_ne_bytes()].as_flattened());
            bytes.extend([sequence.to_ne_bytes(), [0; 4]].as_flattened());
            bytes.extend(body);
        }
    }
}

fn append_typed(bytes: &mut Vec<u8>, message: RouteNetlinkMessage, flags: u16, sequence: u32) {
    let mut header = NetlinkHeader::default();
    header.flags = flags;
    header.sequence_number = sequence;
    let mut packet = NetlinkMessage::new(header, NetlinkPayload::from(message));
    packet.finalize();
    let start = bytes.len();
    bytes.resize(start + packet.buffer_len(), 0);
    if let Some(room) = bytes.get_mut(start..) {
        packet.serialize(room);
    }
}

/// The same error once more.
fn again(error: &io::Error) -> io::Error {
    error.raw_os_error().map_or_else(|| error.kind().into(), io::Error::from_raw_os_error)
}

/// The messages of a datagram. One that cannot be understood is skipped.
pub(super) fn parse(datagram: &[u8]) -> io::Result<Vec<NetlinkMessage<RouteNetlinkMessage>>> {
    messages(datagram).filter_map(|message| message.map(understood).transpose()).collect()
}

/// A newer kernel's attribute must not stop us.
pub(super) fn understood(message: &[u8]) -> Option<NetlinkMessage<RouteNetlinkMessage>> {
    let read = NetlinkMessage::deserialize(message);
    read.inspect_err(|error| log::debug!("a netlink message that cannot be understood: {error}")).ok()
}

/// Splits a datagram into its messages, headers included. One whose length makes no sense ends it with an error.
pub(crate) fn messages(datagram: &[u8]) -> impl Iterator<Item = io::Result<&[u8]>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let length = usize::try_from(u32::from_ne_bytes(*rest.first_chunk::<4>()?)).unwrap_or(usize::MAX);
        let message = rest.get(..length).filter(|message| message.len() >= HEADER);
        rest = message.and_then(|_| rest.get(length.next_multiple_of(4)..)).unwrap_or_default();
        Some(message.ok_or_else(|| io::ErrorKind::InvalidData.into()))
    })
}
