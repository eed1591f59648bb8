//! A client and an upstream server, in a few lines each, on plain sockets.

use crate::stage::PORT;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread::JoinHandle;
use std::time::Duration;

pub(crate) const A: u16 = 1;
pub(crate) const PTR: u16 = 12;
pub(crate) const TXT: u16 = 16;
pub(crate) const AAAA: u16 = 28;
pub(crate) const NXDOMAIN: u8 = 3;
pub(crate) const SERVFAIL: u8 = 2;

/// Longer than anything here takes, even on a busy machine; shorter than a forwarder's five seconds would be no answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// A query with RD.
pub(crate) fn query(id: u16, name: &str, kind: u16) -> Vec<u8> {
    let mut bytes = id.to_be_bytes().to_vec();
    bytes.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.').filter(|label| !label.is_empty()) {
        bytes.push(u8::try_from(label.len()).unwrap());
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes.extend(kind.to_be_bytes());
    bytes.extend([0, 1]);
    bytes
}

/// An answer.
#[derive(Debug, Clone)]
pub(crate) struct Answer(pub(crate) Vec<u8>);

impl Answer {
    pub(crate) fn id(&self) -> u16 {
        u16::from_be_bytes([self.0[0], self.0[1]])
    }

    pub(crate) fn rcode(&self) -> u8 {
        self.0[3] & 0x0f
    }

    pub(crate) fn count(&self) -> u16 {
        u16::from_be_bytes([self.0[6], self.0[7]])
    }

    /// The data of each record, all of them of the first question's name. Each has TTL 0 or 60.
    pub(crate) fn data(&self) -> Vec<Vec<u8>> {
        let mut at = 12;
        while self.0[at] != 0 {
            at += usize::from(self.0[at]) + 1;
        }
        at += 5;
        let mut all = Vec::new();
        for _ in 0..self.count() {
            assert_eq!(self.0[at..at + 2], [0xc0, 12]);
            let len = usize::from(u16::from_be_bytes([self.0[at + 10], self.0[at + 11]]));
            all.push(self.0[at + 12..at + 12 + len].to_vec());
            at += 12 + len;
        }
        all
    }

    /// IPv4 addresses as text.
    pub(crate) fn addresses(&self) -> Vec<String> {
        let text = |data: Vec<u8>| match data[..] {
            [a, b, c, d] => format!("{a}.{b}.{c}.{d}"),
            _ => format!("{data:?}"),
        };
        self.data().into_iter().map(text).collect()
    }
}

/// One who asks from an address.
pub(crate) struct Client {
    socket: UdpSocket,
    source: IpAddr,
    server: SocketAddr,
}

impl Client {
    pub(crate) fn new(source: &str, server: &str) -> Self {
        let source: IpAddr = source.parse().unwrap();
        let socket = UdpSocket::bind((source, 0)).unwrap();
        let server = SocketAddr::new(server.parse().unwrap(), PORT);
        socket.connect(server).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { socket, source, server }
    }

    pub(crate) fn send(&self, bytes: &[u8]) {
        self.socket.send(bytes).unwrap();
    }

    /// The next datagram, within `limit`.
    pub(crate) fn receive(&self, limit: Duration) -> Option<Answer> {
        self.socket.set_read_timeout(Some(limit)).unwrap();
        let mut buffer = [0; 65_535];
        let len = self.socket.recv(&mut buffer).ok()?;
        Some(Answer(buffer[..len].to_vec()))
    }

    pub(crate) fn ask(&self, name: &str, kind: u16) -> Answer {
        self.send(&query(7, name, kind));
        let answer = self.receive(PATIENCE).unwrap_or_else(|| panic!("no answer about {name}"));
        assert_eq!(answer.id(), 7);
        answer
    }

    pub(crate) fn tcp(&self) -> Tcp {
        use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, socket};
        use std::os::fd::AsRawFd as _;
        let family = if self.source.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let fd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
        bind(fd.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(self.source, 0))).unwrap();
        connect(fd.as_raw_fd(), &SockaddrStorage::from(self.server)).unwrap();
        let stream = TcpStream::from(fd);
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Tcp(stream)
    }
}

/// A connection.
pub(crate) struct Tcp(pub(crate) TcpStream);

impl Tcp {
    pub(crate) fn send(&mut self, message: &[u8]) {
        self.0.write_all(&framed(message)).unwrap();
    }

    /// The next answer; `None` at the end of the connection.
    pub(crate) fn receive(&mut self) -> Option<Answer> {
        let mut len = [0; 2];
        self.0.read_exact(&mut len).ok()?;
        let mut message = vec![0; usize::from(u16::from_be_bytes(len))];
        self.0.read_exact(&mut message).ok()?;
        Some(Answer(message))
    }

    pub(crate) fn ask(&mut self, name: &str, kind: u16) -> Answer {
        self.send(&query(9, name, kind));
        self.receive().unwrap_or_else(|| panic!("no answer about {name}"))
    }
}

pub(crate) fn framed(message: &[u8]) -> Vec<u8> {
    let mut bytes = u16::try_from(message.len()).unwrap().to_be_bytes().to_vec();
    bytes.extend(message);
    bytes
}

/// An answer to `query` with one address and a TTL of 60.
pub(crate) fn reply(query: &[u8], address: [u8; 4]) -> Vec<u8> {
    let mut bytes = query.to_vec();
    bytes[2] |= 0x80;
    bytes[3] |= 0x80;
    bytes[7] = 1;
    bytes.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
    bytes.extend(address);
    bytes
}

/// An upstream server on port 53 that answers every query with one address, over UDP and TCP, until the test ends.
pub(crate) fn upstream(address: &str, says: [u8; 4]) -> (JoinHandle<()>, JoinHandle<()>) {
    let udp = UdpSocket::bind((address, 53)).unwrap();
    let tcp = TcpListener::bind((address, 53)).unwrap();
    let datagrams = std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok((len, from)) = udp.recv_from(&mut buffer) {
            let _ = udp.send_to(&reply(&buffer[..len], says), from);
        }
    });
    let connections = std::thread::spawn(move || {
        while let Ok((stream, _)) = tcp.accept() {
            let mut connection = Tcp(stream);
            while let Some(Answer(query)) = connection.receive() {
                connection.send(&reply(&query, says));
            }
        }
    });
    (datagrams, connections)
}
