//! One query at one server, over a socket of its own.
//!
//! The socket is connected, over UDP too, so that the kernel drops what comes from elsewhere and tells when nobody
//! listens there; its port is the kernel's choice. What an answer is worth is for the [`crate::forward::Forwarder`] to
//! say.

use crate::forward::{AttemptId, Fault};
use crate::message::Transport;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, connect, socket,
};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

/// The longest message, with its length in front of it.
pub const LONGEST: usize = 2 + 65_535;

/// A query under way.
#[derive(Debug)]
pub struct Exchange {
    /// Which attempt this is.
    pub attempt: AttemptId,
    /// Whom it asks.
    pub server: SocketAddr,
    /// Who takes its messages has no room: it is not read from.
    pub paused: bool,
    socket: Socket,
}

#[derive(Debug)]
enum Socket {
    Udp(UdpSocket),
    Tcp {
        stream: TcpStream,
        /// What is still to be sent.
        output: Vec<u8>,
        /// What has come, of which the first `taken` bytes were given out.
        input: Vec<u8>,
        taken: usize,
    },
}

impl Exchange {
    /// Sends `message`, or begins to. `from`: the local address, if not the kernel's choice.
    ///
    /// # Errors
    /// The kernel's: no way there, nobody there, out of descriptors.
    pub fn open(
        (attempt, server): (AttemptId, SocketAddr),
        transport: Transport,
        from: Option<IpAddr>,
        message: &[u8],
    ) -> io::Result<Self> {
        let socket = match transport {
            Transport::Udp => {
                let socket = UdpSocket::from(connected(server, from, SockType::Datagram, SockProtocol::Udp)?);
                socket.send(message)?;
                Socket::Udp(socket)
            }
            Transport::Tcp => {
                let len = u16::try_from(message.len()).map_err(|_| ErrorKind::InvalidInput)?;
                let stream = connected(server, from, SockType::Stream, SockProtocol::Tcp)?;
                let output = [&len.to_be_bytes(), message].concat();
                Socket::Tcp { stream: stream.into(), output, input: Vec::new(), taken: 0 }
            }
        };
        Ok(Self { attempt, server, paused: false, socket })
    }

    /// Sends `message` once more, if it goes as a datagram. No room for it now is as if it were lost again.
    ///
    /// # Errors
    /// The kernel's, which may be about what was sent before.
    pub fn repeat(&self, message: &[u8]) -> io::Result<()> {
        match &self.socket {
            Socket::Udp(socket) => retry(|| socket.send(message)).map(drop),
            Socket::Tcp { .. } => Ok(()),
        }
    }

    /// Whether there is something left to send: wait for room to write as well.
    #[must_use]
    pub fn wants_write(&self) -> bool {
        matches!(&self.socket, Socket::Tcp { output, .. } if !output.is_empty())
    }

    /// Whether another message may follow one that is no answer.
    #[must_use]
    pub fn may_have_more(&self) -> bool {
        matches!(self.socket, Socket::Udp(_))
    }

    /// Whether another message has come whole that [`Exchange::receive`] has yet to give out.
    #[must_use]
    pub fn has_more(&self) -> bool {
        match &self.socket {
            Socket::Udp(_) => false,
            Socket::Tcp { input, taken, .. } => whole(input, *taken).is_some(),
        }
    }

    /// Goes on; returns a message if one has come. `buffer` should have [`LONGEST`] bytes.
    ///
    /// # Errors
    /// It has failed: the kernel's reason, or the end of the connection before that of the message.
    pub fn receive<'b>(&'b mut self, buffer: &'b mut [u8]) -> io::Result<Option<&'b [u8]>> {
        match &mut self.socket {
            Socket::Udp(socket) => {
                Ok(retry(|| socket.recv(buffer))?.map(|len| buffer.get(..len).unwrap_or_default()))
            }
            Socket::Tcp { stream, output, input, taken } => {
                write(stream, output)?;
                read(stream, buffer, input, taken)
            }
        }
    }
}

/// What an error of an exchange says about its server.
#[must_use]
pub fn fault(error: &io::Error) -> Fault {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(
            Errno::EMFILE
            | Errno::ENFILE
            | Errno::ENOMEM
            | Errno::ENOBUFS
            | Errno::ENOSPC
            | Errno::EAGAIN
            | Errno::EADDRINUSE,
        ) => Fault::Ours,
        Some(Errno::ECONNRESET | Errno::EPIPE) => Fault::Broken,
        Some(_) => Fault::Refused,
        // Our own: what came makes no sense, or is not all; or the interface that the server is on is not there.
        None if error.kind() == ErrorKind::NotFound => Fault::Refused,
        None if error.kind() == ErrorKind::OutOfMemory => Fault::Ours,
        None => Fault::Broken,
    }
}

impl AsFd for Exchange {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.socket {
            Socket::Udp(socket) => socket.as_fd(),
            Socket::Tcp { stream, .. } => stream.as_fd(),
        }
    }
}

fn connected(
    server: SocketAddr,
    from: Option<IpAddr>,
    kind: SockType,
    protocol: SockProtocol,
) -> io::Result<OwnedFd> {
    let family = if server.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let fd = socket(family, kind, SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC, protocol)?;
    if let Some(from) = from {
        bind(fd.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(from, 0)))?;
    }
    match connect(fd.as_raw_fd(), &SockaddrStorage::from(server)) {
        Ok(()) | Err(Errno::EINPROGRESS) => Ok(fd),
        Err(errno) => Err(errno.into()),
    }
}

/// Calls again after a signal; `None`: it would block.
fn retry<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<Option<T>> {
    loop {
        match call() {
            Ok(value) => return Ok(Some(value)),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error),
        }
    }
}

/// Sends what is left, as far as there is room.
fn write(stream: &mut TcpStream, output: &mut Vec<u8>) -> io::Result<()> {
    while !output.is_empty() {
        match retry(|| stream.write(output))? {
            Some(0) => return Err(ErrorKind::WriteZero.into()),
            Some(len) => drop(output.drain(..len)),
            None => return Ok(()), // also while the connection is being made
        }
    }
    Ok(())
}

/// Reads what has come; the next message when it is whole.
fn read<'i>(
    stream: &mut TcpStream,
    buffer: &mut [u8],
    input: &'i mut Vec<u8>,
    taken: &mut usize,
) -> io::Result<Option<&'i [u8]>> {
    while whole(input, *taken).is_none() {
        input.drain(..(*taken).min(input.len()));
        *taken = 0;
        match retry(|| stream.read(buffer))? {
            Some(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Some(len) => input.extend_from_slice(buffer.get(..len).unwrap_or_default()),
            None => return Ok(None),
        }
    }
    let message = whole(input, *taken);
    *taken += message.map_or(0, |message| 2 + message.len());
    Ok(message)
}

/// The message behind its length (RFC 1035 §4.2.2) that begins at `at`.
fn whole(input: &[u8], at: usize) -> Option<&[u8]> {
    let (len, rest) = input.get(at..)?.split_first_chunk::<2>()?;
    rest.get(..usize::from(u16::from_be_bytes(*len)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, TcpListener};
    use std::time::Duration;

    fn name() -> AttemptId {
        AttemptId::from_bits(0).unwrap()
    }

    /// Waits for a message, at most a few seconds.
    fn wait(exchange: &mut Exchange) -> io::Result<Vec<u8>> {
        let mut buffer = vec![0; LONGEST];
        for _ in 0..5000 {
            if let Some(message) = exchange.receive(&mut buffer)? {
                return Ok(message.to_vec());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        panic!("nothing came");
    }

    #[test]
    fn a_datagram_goes_and_comes_and_a_closed_port_is_told() {
        let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let at = server.local_addr().unwrap();
        let from = IpAddr::from([127, 0, 0, 9]);
        let mut exchange = Exchange::open((name(), at), Transport::Udp, Some(from), b"question").unwrap();
        assert!(!exchange.wants_write() && exchange.may_have_more());
        let mut buffer = [0; 64];
        let (len, client) = server.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..len], client.ip()), (&b"question"[..], from));
        // A stranger is not heard.
        UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().send_to(b"forged", client).unwrap();
        server.send_to(b"answer", client).unwrap();
        assert_eq!(wait(&mut exchange).unwrap(), b"answer");
        drop(server);
        let refused =
            Exchange::open((name(), at), Transport::Udp, None, b"question").and_then(|mut e| wait(&mut e));
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::ConnectionRefused);
    }

    #[test]
    fn a_message_in_pieces_is_whole_in_the_end_and_half_a_message_fails() {
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let at = server.local_addr().unwrap();
        for pieces in [&[&b"\0"[..], b"\x06ans", b"wer\0\x04more\0\x09not all"][..], &[b"\0\x06ans"]] {
            let mut exchange = Exchange::open((name(), at), Transport::Tcp, None, b"question").unwrap();
            assert!(exchange.wants_write() && !exchange.may_have_more());
            let (mut stream, _) = server.accept().unwrap();
            // Connected by now, so this sends.
            let _ = exchange.receive(&mut [0; 64]).unwrap();
            let mut asked = [0; 10];
            stream.read_exact(&mut asked).unwrap();
            assert_eq!(&asked, b"\0\x08question");
            for piece in pieces {
                stream.write_all(piece).unwrap();
            }
            drop(stream);
            match wait(&mut exchange) {
                Ok(message) => {
                    assert_eq!(message, b"answer");
                    // Of a transfer there are more.
                    assert_eq!(wait(&mut exchange).unwrap(), b"more");
                    assert!(!exchange.has_more());
                    assert_eq!(wait(&mut exchange).unwrap_err().kind(), ErrorKind::UnexpectedEof);
                }
                Err(error) => assert_eq!((error.kind(), pieces.len()), (ErrorKind::UnexpectedEof, 1)),
            }
        }
    }
}
