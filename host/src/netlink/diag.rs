//! Which ports a network namespace listens on: by sock_diag, or by what /proc/net says.
//!
//! A [`Diag`] looks into the namespace of the thread that opened it, whoever uses it. Both ways are tried when it is
//! opened, before a sandbox takes them away: a socket of NETLINK_SOCK_DIAG, whose lists come in as many datagrams as
//! they need; or, where that is refused or the kernel was built without it, descriptors of four files of /proc/net,
//! which tell anew each time they are read from the start.
//!
//! Ports count, not addresses: a listener on one address of the namespace is one. Sources: sock_diag(7), Linux
//! `include/uapi/linux/inet_diag.h`, proc_net(5).

use super::raw::RawSocket;
use super::socket::messages;
use crate::port_set::PortSet;
use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, SockProtocol};
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};

/// The ports that somebody listens on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Listening {
    /// TCP sockets in the state LISTEN.
    pub tcp: PortSet,
    /// UDP sockets that are bound and not connected.
    pub udp: PortSet,
}

/// A look into one network namespace.
#[derive(Debug)]
pub struct Diag(Way);

#[derive(Debug)]
enum Way {
    Netlink { socket: RawSocket, sequence: u32, buffer: Vec<u8> },
    Files(Vec<(File, Kind)>),
}

/// What a list is about.
#[derive(Debug, Clone, Copy)]
struct Kind {
    family: u8,
    protocol: u8,
    /// The state of sockets that listen.
    state: u8,
    file: &'static str,
}

/// `enum` of `include/net/tcp_states.h`, whose numbers UDP uses, too: one that is not connected is "closed".
const TCP_CLOSE: u8 = 7;
const TCP_LISTEN: u8 = 10;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const TCP: u8 = 6;
const UDP: u8 = 17;

const KINDS: [Kind; 4] = [
    Kind { family: AF_INET, protocol: TCP, state: TCP_LISTEN, file: "tcp" },
    Kind { family: AF_INET6, protocol: TCP, state: TCP_LISTEN, file: "tcp6" },
    Kind { family: AF_INET, protocol: UDP, state: TCP_CLOSE, file: "udp" },
    Kind { family: AF_INET6, protocol: UDP, state: TCP_CLOSE, file: "udp6" },
];

impl Kind {
    fn of<'a>(&self, listening: &'a mut Listening) -> &'a mut PortSet {
        if self.protocol == TCP { &mut listening.tcp } else { &mut listening.udp }
    }
}

/// SOCK_DIAG_BY_FAMILY.
const BY_FAMILY: u16 = 20;
const HEADER: usize = 16;
/// `struct inet_diag_req_v2`.
const QUESTION: usize = 56;
/// The kernel cuts its lists into pieces of 32 KiB at most.
const DATAGRAM_MAX: usize = 64 << 10;
/// Pieces of one list: a million sockets.
const PIECES: usize = 4096;

impl Diag {
    /// Opens one for the calling thread's network namespace.
    ///
    /// # Errors
    /// When neither sock_diag nor /proc/net is to be had: why not the latter.
    pub fn open() -> io::Result<Self> {
        let by_netlink = Self::by_netlink().and_then(|mut diag| diag.look().map(|_| diag));
        by_netlink.or_else(|error| {
            log::debug!("listening ports are read from /proc/net, for sock_diag says: {error}");
            Self::by_files()
        })
    }

    fn by_netlink() -> io::Result<Self> {
        let socket = RawSocket::connected(SockProtocol::NetlinkSockDiag)?;
        Ok(Self(Way::Netlink { socket, sequence: 0, buffer: Vec::new() }))
    }

    fn by_files() -> io::Result<Self> {
        // /proc/net is that of the process's first thread.
        let open =
            |kind: Kind| File::open(format!("/proc/thread-self/net/{}", kind.file)).map(|it| (it, kind));
        // A kernel without IPv6 has no files for it.
        let files = KINDS.into_iter().filter(|kind| kind.family == AF_INET).map(open);
        let mut files = files.collect::<io::Result<Vec<_>>>()?;
        files.extend(KINDS.into_iter().filter(|kind| kind.family == AF_INET6).flat_map(open));
        Ok(Self(Way::Files(files)))
    }

    /// Which ports are listened on now.
    ///
    /// # Errors
    /// The kernel's. What was seen of the lists is then no answer.
    pub fn look(&mut self) -> io::Result<Listening> {
        let mut listening = Listening::default();
        match &mut self.0 {
            Way::Netlink { socket, sequence, buffer } => {
                for kind in KINDS {
                    *sequence = sequence.wrapping_add(1);
                    match list(socket, buffer, *sequence, kind, kind.of(&mut listening)) {
                        // A kernel without IPv6.
                        Err(Errno::ENOENT) if kind.family == AF_INET6 => {}
                        outcome => outcome?,
                    }
                }
            }
            Way::Files(files) => {
                for (file, kind) in files {
                    file.seek(SeekFrom::Start(0))?;
                    read_lines(file, |line| kind.of(&mut listening).extend(port_of(line, kind.state)))?;
                }
            }
        }
        Ok(listening)
    }
}

/// Asks for one list. The kernel puts each piece together when the one before it is taken: nothing here waits.
fn list(
    socket: &RawSocket,
    buffer: &mut Vec<u8>,
    sequence: u32,
    kind: Kind,
    into: &mut PortSet,
) -> Result<(), Errno> {
    buffer.resize(DATAGRAM_MAX, 0);
    // What is left of a list that was given up.
    for _ in 0..PIECES {
        if socket.receive(buffer, MsgFlags::MSG_DONTWAIT).is_err() {
            break;
        }
    }
    socket.send(&question(sequence, kind))?;
    for _ in 0..PIECES {
        let length = socket.receive(buffer, MsgFlags::MSG_DONTWAIT)?;
        if read_piece(buffer.get(..length).unwrap_or_default(), sequence, kind.state, into)? == Piece::Last {
            return Ok(());
        }
    }
    Err(Errno::EMSGSIZE)
}

/// `struct nlmsghdr` and `struct inet_diag_req_v2`, the latter with an empty socket id: all of them.
fn question(sequence: u32, kind: Kind) -> [u8; HEADER + QUESTION] {
    let mut bytes = [0; HEADER + QUESTION];
    let length = u32::try_from(bytes.len()).unwrap_or_default();
    let states = 1_u32 << kind.state;
    let head = length.to_ne_bytes().into_iter().chain(BY_FAMILY.to_ne_bytes());
    let head = head.chain((NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes()).chain(sequence.to_ne_bytes());
    let head = head.chain([0; 4]).chain([kind.family, kind.protocol, 0, 0]).chain(states.to_ne_bytes());
    for (to, from) in bytes.iter_mut().zip(head) {
        *to = from;
    }
    bytes
}

/// Whether more comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Piece {
    One,
    Last,
}

/// Takes the ports out of one datagram of the kernel's. Of sockets in another state, and of messages that answer
/// something else, it takes nothing.
fn read_piece(datagram: &[u8], sequence: u32, state: u8, into: &mut PortSet) -> Result<Piece, Errno> {
    for message in messages(datagram) {
        let message = message.map_err(|_| Errno::EBADMSG)?;
        let Some((header, body)) = message.split_first_chunk::<HEADER>() else { continue };
        let [_, _, _, _, t0, t1, _, _, s0, s1, s2, s3, ..] = *header;
        if u32::from_ne_bytes([s0, s1, s2, s3]) != sequence {
            continue;
        }
        let code = body.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code));
        match u16::from_ne_bytes([t0, t1]) {
            // A list may also end with an error.
            NLMSG_DONE | NLMSG_ERROR if code < 0 => return Err(Errno::from_raw(code.saturating_neg())),
            NLMSG_DONE => return Ok(Piece::Last),
            BY_FAMILY => into.extend(listener(body).filter(|found| found.0 == state).map(|(_, port)| port)),
            _ => {}
        }
    }
    Ok(Piece::One)
}

/// State and port of a socket, from `struct inet_diag_msg`: family, state, two more bytes, port.
fn listener(body: &[u8]) -> Option<(u8, u16)> {
    let [_, state, _, _, high, low] = *body.first_chunk()?;
    Some((state, u16::from_be_bytes([high, low])))
}

/// The port of a socket in `state`, from a line such as `0: 0100007F:0016 00000000:0000 0A …`.
fn port_of(line: &str, state: u8) -> Option<u16> {
    let mut words = line.split_ascii_whitespace();
    let (_, local, _, found) = (words.next()?, words.next()?, words.next()?, words.next()?);
    let (_, port) = local.rsplit_once(':')?;
    (u8::from_str_radix(found, 16) == Ok(state)).then_some(())?;
    u16::from_str_radix(port, 16).ok()
}

/// Reads a text to its end, line by line, in pieces.
fn read_lines(from: &mut File, mut each: impl FnMut(&str)) -> io::Result<()> {
    let mut piece = [0; 4096];
    let mut line = Vec::new();
    loop {
        let count = match from.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        for byte in piece.iter().take(count) {
            if *byte == b'\n' {
                each(str::from_utf8(&line).unwrap_or_default());
                line.clear();
            } else if line.len() < piece.len() {
                line.push(*byte);
            }
        }
    }
}

/// Reads any bytes as a piece of a list, and as a line of a file: no more ports than there are messages.
pub(crate) fn fuzz(datagram: &[u8]) {
    let mut found = PortSet::default();
    let _ = read_piece(datagram, 0, TCP_LISTEN, &mut found);
    assert!(found.iter().count() <= datagram.len() / HEADER);
    if let Ok(text) = str::from_utf8(datagram) {
        found.extend(text.lines().filter_map(|line| port_of(line, TCP_LISTEN)));
    }
}

#[cfg(test)]
mod tests;
