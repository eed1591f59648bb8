//! The socket: request and acknowledgement, request and dump.
//!
//! Answers are matched by sequence number and accepted from the kernel alone (port 0). Strict checking makes the
//! kernel refuse attributes that it does not know instead of ignoring them. A dump that was interrupted by a change
//! (NLM_F_DUMP_INTR) is asked for again. Source: Linux `Documentation/userspace-api/netlink/intro.rst`.

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use nix::errno::Errno;
use std::io;

/// How often an interrupted dump is repeated.
const DUMP_ATTEMPTS: usize = 8;

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

fn words(error: &io::Error) -> String {
    error.raw_os_error().map_or_else(|| error.to_string(), |code| Errno::from_raw(code).desc().to_owned())
}

/// A route netlink socket in one network namespace.
#[derive(Debug)]
pub struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl Netlink {
    /// Opens one in the calling thread's network namespace.
    ///
    /// # Errors
    /// Those of socket(2).
    pub fn open() -> Result<Self, Error> {
        let opened = |error| Error::new("open a netlink socket", error);
        let mut socket = Socket::new(NETLINK_ROUTE).map_err(opened)?;
        socket.bind_auto().map_err(opened)?;
        socket.connect(&SocketAddr::new(0, 0)).map_err(opened)?;
        // Since Linux 4.20; without it dumps are filtered less strictly, which callers do not rely on.
        let strict = socket.set_netlink_get_strict_chk(true);
        if let Err(error) = strict {
            log::debug!("netlink without strict checking: {error}");
        }
        Ok(Self { socket, sequence: 0 })
    }

    /// Sends a request that changes something, and waits for the acknowledgement.
    pub(super) fn change(
        &mut self,
        doing: &str,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<(), Error> {
        self.send(message, NLM_F_ACK | flags).map_err(|error| Error::new(doing, error))?;
        loop {
            for answer in self.receive().map_err(|error| Error::new(doing, error))? {
                if let NetlinkPayload::Error(error) = answer.payload {
                    return error.code.map_or(Ok(()), |_| Err(Error::new(doing, error.to_io())));
                }
            }
        }
    }

    /// Sends a request for a list, and collects the answers.
    pub(super) fn dump(
        &mut self,
        doing: &str,
        message: &RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>, Error> {
        for _ in 0..DUMP_ATTEMPTS {
            self.send(message.clone(), NLM_F_DUMP).map_err(|error| Error::new(doing, error))?;
            if let Some(list) = self.collect(doing)? {
                return Ok(list);
            }
        }
        Err(Error::new(doing, Errno::EINTR))
    }

    /// The rest of a dump; `None` when it was interrupted by a change.
    fn collect(&mut self, doing: &str) -> Result<Option<Vec<RouteNetlinkMessage>>, Error> {
        let mut list = Vec::new();
        let mut interrupted = false;
        loop {
            for answer in self.receive().map_err(|error| Error::new(doing, error))? {
                interrupted |= answer.header.flags & NLM_F_DUMP_INTR != 0;
                match answer.payload {
                    NetlinkPayload::InnerMessage(message) => list.push(message),
                    NetlinkPayload::Error(error) if error.code.is_some() => {
                        return Err(Error::new(doing, error.to_io()));
                    }
                    NetlinkPayload::Done(_) => return Ok((!interrupted).then_some(list)),
                    _ => {}
                }
            }
        }
    }

    fn send(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut packet = NetlinkMessage::new(header, NetlinkPayload::from(message));
        packet.finalize();
        let mut bytes = vec![0; packet.buffer_len()];
        packet.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        Ok(())
    }

    /// The next datagram's messages that answer the last request.
    fn receive(&mut self) -> io::Result<Vec<NetlinkMessage<RouteNetlinkMessage>>> {
        loop {
            let (datagram, from) = match self.socket.recv_from_full() {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if from.port_number() != 0 {
                continue;
            }
            let mut messages = parse(&datagram)?;
            messages.retain(|message| message.header.sequence_number == self.sequence);
            if !messages.is_empty() {
                return Ok(messages);
            }
        }
    }
}

/// Splits a datagram into its messages. One that cannot be understood is skipped (a newer kernel's attribute must not
/// stop us), one whose length makes no sense ends the datagram.
pub(super) fn parse(datagram: &[u8]) -> io::Result<Vec<NetlinkMessage<RouteNetlinkMessage>>> {
    const HEADER: usize = 16;
    let mut messages = Vec::new();
    let mut rest = datagram;
    while let Some(length) = rest.first_chunk::<4>() {
        let length = usize::try_from(u32::from_ne_bytes(*length)).map_err(io::Error::other)?;
        if length < HEADER {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let Some(bytes) = rest.get(..length) else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        match NetlinkMessage::deserialize(bytes) {
            Ok(message) => messages.push(message),
            Err(error) => log::debug!("a netlink message that cannot be understood: {error}"),
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(messages)
}
