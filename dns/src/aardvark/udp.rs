//! Queries over UDP, many in one system call, and their answers likewise.
//!
//! The kernel's way from a socket to its client costs several times what finding an answer does, and is gone once for
//! each message. So the answers of a batch that go to one client (a resolver that serves many) and have one length
//! leave as one message (UDP_SEGMENT), which the client's socket gets as the datagrams that they are.
//!
//! How many are asked for follows what came last: a lone query costs three system calls (wait, receive, send), and a
//! full queue is emptied in batches of 64. A turn ends after a few batches, so that one busy network does not silence
//! another.
//!
//! A query's first bytes lie close together; only one longer than [`HEAD`], which hardly exists, touches the large
//! places behind. So what is resident is 32 KiB and the answers.

use nix::errno::Errno;
use slipway_host::sys::message::Name;
use slipway_host::sys::mmsg::{BATCH, Batch, send_each, send_trains};
use std::cmp::Reverse;
use std::os::fd::BorrowedFd;

/// The part of a query that lies close to those of others.
const HEAD: usize = 512;
/// The longest query that is looked at.
const LONGEST: usize = 4096;
/// The fewest that are asked for.
const FEWEST: usize = 4;
/// Batches in one turn.
const ROUNDS: usize = 4;
/// Room that an answer may keep for the next one.
const KEPT: usize = 4096;

/// Buffers for one batch.
#[derive(Debug)]
pub(super) struct Udp {
    batch: Batch,
    head: Vec<u8>,
    /// Pages never written take no memory.
    tail: Vec<u8>,
    replies: Vec<Vec<u8>>,
    count: usize,
}

impl Default for Udp {
    fn default() -> Self {
        Self {
            batch: Batch::default(),
            head: vec![0; BATCH * HEAD],
            tail: vec![0; BATCH * LONGEST],
            replies: vec![Vec::new(); BATCH],
            count: FEWEST,
        }
    }
}

impl Udp {
    /// Receives what waits on `fd`, has `decide` look at each message (sender, bytes, room for an answer), and sends
    /// the answers of those for which it says that there is one.
    pub(super) fn serve(
        &mut self,
        fd: BorrowedFd<'_>,
        mut decide: impl FnMut(&Name, &[u8], &mut Vec<u8>) -> bool,
    ) {
        for _ in 0..ROUNDS {
            let count = self.count;
            let got = self.batch.receive(fd, count, (&mut self.head, HEAD), (&mut self.tail, LONGEST));
            let got = match got {
                Ok(got) => got,
                Err(Errno::EAGAIN | Errno::EINTR) => return,
                Err(error) => {
                    // About an earlier answer; it is told once.
                    log::debug!("receiving: {error}");
                    continue;
                }
            };
            self.answer(fd, got, &mut decide);
            self.count = if got == count { (count * 2).min(BATCH) } else { (got + 1).max(FEWEST) };
            if got < count {
                return;
            }
        }
    }

    fn answer(
        &mut self,
        fd: BorrowedFd<'_>,
        got: usize,
        decide: &mut impl FnMut(&Name, &[u8], &mut Vec<u8>) -> bool,
    ) {
        let mut to = [&Name::EMPTY; BATCH];
        let mut used = 0;
        let (batch, heads) = (&self.batch, self.head.chunks_exact(HEAD));
        for ((at, head), tail) in (0..got).zip(heads).zip(self.tail.chunks_exact_mut(LONGEST)) {
            let (Some(message), Some(reply)) = (batch.get(at), self.replies.get_mut(used)) else { break };
            if message.truncated {
                continue;
            }
            let bytes = match head.get(..message.len) {
                Some(bytes) => bytes,
                None => {
                    // The rest lies behind the room that was left for this.
                    tail.iter_mut().zip(head).for_each(|(to, from)| *to = *from);
                    tail.get(..message.len).unwrap_or_default()
                }
            };
            if decide(message.name, bytes, reply)
                && let Some(to) = to.get_mut(used)
            {
                *to = message.name;
                used += 1;
            }
        }
        let mut datagrams = [(&Name::EMPTY, &[][..]); BATCH];
        for ((datagram, to), reply) in datagrams.iter_mut().zip(to).zip(&self.replies) {
            *datagram = (to, reply.as_slice());
        }
        let datagrams = datagrams.get_mut(..used).unwrap_or_default();
        // A client's answers of one length next to each other, as trains are made of. UDP promises no order.
        datagrams.sort_unstable_by_key(|(to, reply)| (to.as_bytes(), Reverse(reply.len())));
        send(fd, datagrams);
        for reply in &mut self.replies {
            if reply.capacity() > KEPT {
                *reply = Vec::new();
            }
        }
    }
}

/// Sends all of them, as trains while the kernel takes such. What it has no room for is lost, as on any network; what
/// it refuses is left out.
pub(super) fn send(fd: BorrowedFd<'_>, mut datagrams: &[(&Name, &[u8])]) {
    let mut trains = true;
    while !datagrams.is_empty() {
        let sent = if trains { send_trains(fd, datagrams) } else { send_each(fd, datagrams) };
        let done = match sent {
            Ok(sent) => sent.max(1),
            Err(Errno::EINTR) => 0,
            Err(Errno::EAGAIN | Errno::ENOBUFS) => return,
            // An older kernel, a device on the way that cannot, or a path too narrow for one of the datagrams.
            Err(Errno::EINVAL | Errno::EMSGSIZE | Errno::EIO | Errno::EOPNOTSUPP) if trains => {
                trains = false;
                0
            }
            Err(error) => {
                log::debug!("answering: {error}");
                1
            }
        };
        datagrams = datagrams.get(done..).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;
    use std::os::fd::AsFd as _;

    fn pair() -> (UdpSocket, UdpSocket) {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.connect(server.local_addr().unwrap()).unwrap();
        client.set_nonblocking(true).unwrap();
        (server, client)
    }

    fn echo(_: &Name, bytes: &[u8], out: &mut Vec<u8>) -> bool {
        out.clear();
        out.extend_from_slice(bytes);
        !bytes.is_empty()
    }

    #[test]
    fn every_message_is_answered_whatever_its_size() {
        let (server, client) = pair();
        let mut udp = Udp::default();
        for len in [1, HEAD - 1, HEAD, HEAD + 1, 2000, LONGEST] {
            let bytes: Vec<u8> = (0..len).map(|at| u8::try_from(at % 251).unwrap()).collect();
            client.send(&bytes).unwrap();
            client.send(&[]).unwrap();
            udp.serve(server.as_fd(), echo);
            let mut buffer = [0; LONGEST + 1];
            assert_eq!(client.recv(&mut buffer).unwrap(), len);
            assert_eq!(buffer[..len], bytes);
            assert!(client.recv(&mut buffer).is_err(), "one answer");
        }
        client.send(&[1; LONGEST + 1]).unwrap();
        udp.serve(server.as_fd(), |_, _, _| panic!("too long"));
    }

    #[test]
    fn a_full_queue_takes_few_turns() {
        let (server, client) = pair();
        let mut udp = Udp::default();
        for number in 0..150u8 {
            client.send(&[number]).unwrap();
        }
        let mut answered = Vec::new();
        let mut buffer = [0; 9];
        for _ in 0..3 {
            udp.serve(server.as_fd(), echo);
        }
        while client.recv(&mut buffer).is_ok() {
            answered.push(buffer[0]);
        }
        assert_eq!(answered, (0..150).collect::<Vec<u8>>());
        assert!(udp.count > FEWEST);
        udp.serve(server.as_fd(), echo);
    }
}
