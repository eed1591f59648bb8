//! What the supervisor tells a worker, and how: one JSON object in each packet of a socket pair, one packet in reply.
//!
//! The supervisor alone speaks first, and waits for the reply: a worker answers between two rounds of its event loop,
//! well below a millisecond later. One that has not answered after [`PATIENCE`] is taken for broken.
//!
//! The end is told in both directions: the supervisor says no more, or the worker has its reasons. Either way the
//! worker's [`LastWord`] comes when its ports and the TAP are free; an end without it is a crash.

use nix::errno::Errno;
use nix::sys::socket::{Shutdown, shutdown};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use slipway_host::sys::{fdpass, sockopt};
use slipway_uplink::envelope::{Refusal, granted, read};
use slipway_uplink::protocol::{Container, Network};
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::sync::OnceLock;
use std::time::Duration;

/// How long a worker may take.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// The error number of a worker that is gone, and of one that is there but does not answer.
pub const GONE: i32 = Errno::EPIPE as i32;
/// See [`GONE`].
pub const BROKEN: i32 = Errno::ETIMEDOUT as i32;
/// Rules of one order, or in one reply, at most 40 KiB of text.
pub const MAX_RULES: usize = 512;
/// More than any order or reply needs: a request's worth of rules of both families.
const MAX_ORDER: usize = 160 << 10;

/// An order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "execute", content = "arguments")]
pub enum Order {
    /// Serve this network, whose TAP comes along. The first order, and only the first.
    Start {
        /// The network.
        network: Network,
        /// Whether its gateway leads to the host's loopback.
        host_loopback: bool,
    },
    /// A container is on a network, this or another.
    Put {
        /// The network.
        network: Network,
        /// The container.
        container: Container,
        /// Whether another such order follows: names are looked at with the last.
        more: bool,
    },
    /// A container has left a network.
    Remove {
        /// The network.
        network: String,
        /// The container.
        container: String,
    },
    /// Put these rules in force, all or none; the reply has their ids.
    Publish {
        /// In the publish grammar.
        rules: Vec<String>,
    },
    /// Take these rules out of force.
    Withdraw {
        /// Their ids.
        ids: Vec<u64>,
    },
    /// Tell counters.
    Status,
}

/// Why a worker ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LastWord {
    /// It was told to.
    Ends,
    /// The TAP is gone.
    LinkLost,
}

/// The supervisor's end.
#[derive(Debug)]
pub struct Line {
    socket: OwnedFd,
    /// Told in place of a reply.
    last_word: OnceLock<LastWord>,
}

impl Line {
    /// Takes over a socket.
    ///
    /// # Errors
    /// The kernel's.
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        sockopt::set_patience(socket.as_fd(), PATIENCE)?;
        Ok(Self { socket, last_word: OnceLock::new() })
    }

    /// Gives an order and waits for the reply.
    ///
    /// # Errors
    /// The worker's refusal, or that it does not answer (`errno` is [`GONE`] or [`BROKEN`] then).
    pub fn call(&self, order: &Order, fd: Option<BorrowedFd<'_>>) -> Result<Value, Refusal> {
        let broken = |error: io::Error| {
            // The socket's own patience is over.
            let silent = matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::InvalidData);
            Refusal {
                text: format!("the network's process does not answer: {error}"),
                errno: Some(if silent { BROKEN } else { GONE }),
            }
        };
        let text = serde_json::to_vec(order).map_err(|error| broken(error.into()))?;
        fdpass::send(self.socket.as_fd(), &text, fd).map_err(broken)?;
        let mut buffer = vec![0; MAX_ORDER];
        let (len, _) = fdpass::receive(self.socket.as_fd(), &mut buffer).map_err(broken)?;
        let reply = buffer.get(..len).unwrap_or_default();
        if let Some(word) = last_word(reply) {
            let _ = self.last_word.set(word);
        }
        if reply.is_empty() || self.last_word.get().is_some() {
            return Err(broken(io::Error::new(io::ErrorKind::BrokenPipe, "it has ended")));
        }
        read(reply).map_err(Refusal::from)
    }

    /// Says no more: the worker is to end.
    pub fn hang_up(&self) {
        let _ = shutdown(self.socket.as_raw_fd(), Shutdown::Write);
    }

    /// The same, and waits so long for the worker's last word; `None` if it has none.
    #[must_use]
    pub fn part(&self, patience: Duration) -> Option<LastWord> {
        // It may have hung up by itself; then its last word is there already.
        self.hang_up();
        if let Some(word) = self.last_word.get().copied() {
            return Some(word);
        }
        // A time of zero would be for ever.
        let _ = sockopt::set_patience(self.socket.as_fd(), patience.max(Duration::from_millis(1)));
        let mut buffer = [0; 64];
        let received = match fdpass::receive(self.socket.as_fd(), &mut buffer) {
            // It had an order before it, unread; that is told first, once.
            Err(error) if error.raw_os_error() == Some(Errno::ECONNRESET as i32) => {
                fdpass::receive(self.socket.as_fd(), &mut buffer)
            }
            received => received,
        };
        last_word(buffer.get(..received.ok()?.0)?)
    }
}

impl AsFd for Line {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Takes the next order; `None` when the supervisor is gone.
///
/// # Errors
/// The kernel's, or that it makes no sense.
pub fn next(socket: BorrowedFd<'_>) -> io::Result<Option<(Order, Option<OwnedFd>)>> {
    let mut buffer = vec![0; MAX_ORDER];
    let (len, fd) = match fdpass::receive(socket, &mut buffer) {
        Err(error) if error.raw_os_error() == Some(Errno::ECONNRESET as i32) => return Ok(None),
        received => received?,
    };
    match buffer.get(..len) {
        None | Some([]) => Ok(None),
        Some(text) => Ok(Some((serde_json::from_slice(text)?, fd))),
    }
}

/// Tells the supervisor that this is the end. That nobody hears it is no matter.
pub fn part(socket: BorrowedFd<'_>, why: LastWord) {
    if let Ok(text) = serde_json::to_vec(&why) {
        let _ = fdpass::send(socket, &text, None);
    }
    let _ = shutdown(socket.as_raw_fd(), Shutdown::Both);
}

fn last_word(packet: &[u8]) -> Option<LastWord> {
    serde_json::from_slice(packet).ok()
}

/// Tells the supervisor how it went.
///
/// # Errors
/// The kernel's.
pub fn reply(socket: BorrowedFd<'_>, result: &Result<Value, Refusal>) -> io::Result<()> {
    let text = match result {
        Ok(value) => granted(value),
        Err(refusal) => refusal.to_json(),
    };
    fdpass::send(socket, text.as_bytes(), None)
}

/// For the fuzzer: any bytes as a packet of either end. What is understood is told as it was understood.
pub fn fuzz(packet: &[u8]) {
    if let Ok(order) = serde_json::from_slice::<Order>(packet) {
        let again = serde_json::to_vec(&order).and_then(|text| serde_json::from_slice(&text));
        assert_eq!(again.ok(), Some(order));
    }
    if let Some(word) = last_word(packet) {
        let again = serde_json::to_vec(&word).unwrap_or_default();
        assert_eq!(last_word(&again), Some(word));
        assert!(read::<Value>(packet).is_err(), "the end is no reply");
    }
}

#[cfg(test)]
mod tests {
    use super::super::records::tests::{container, network};
    use super::*;
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
    use serde_json::json;

    #[test]
    fn orders_arrive_as_they_were_given() {
        let (ours, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap();
        let line = Line::new(ours).unwrap();
        let put = Order::Put {
            network: network("n", "fd00:1::/64", "fd00:1::1", true),
            container: container("c", &["fd00:1::2"]),
            more: false,
        };
        let orders = [put, Order::Withdraw { ids: vec![1, 2] }, Order::Status];
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for order in &orders {
                    assert_eq!(line.call(order, None).unwrap(), json!({ "n": 1 }));
                }
                let refusal = line.call(&Order::Status, None).unwrap_err();
                assert_eq!(refusal, Refusal { text: "no".into(), errno: Some(98) });
            });
            for order in &orders {
                assert_eq!(next(theirs.as_fd()).unwrap().unwrap().0, *order);
                reply(theirs.as_fd(), &Ok(json!({ "n": 1 }))).unwrap();
            }
            next(theirs.as_fd()).unwrap();
            reply(theirs.as_fd(), &Err(Refusal { text: "no".into(), errno: Some(98) })).unwrap();
        });
        drop(line);
        assert!(next(theirs.as_fd()).unwrap().is_none());
    }

    #[test]
    fn a_worker_that_is_gone_is_told() {
        let (ours, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap();
        drop(theirs);
        let refusal = Line::new(ours).unwrap().call(&Order::Status, None).unwrap_err();
        assert_eq!(refusal.errno, Some(GONE));
    }

    #[test]
    fn the_last_word_is_heard_whoever_ends_it() {
        let pair = || {
            let (ours, theirs) =
                socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap();
            (Line::new(ours).unwrap(), theirs)
        };
        let (line, theirs) = pair();
        part(theirs.as_fd(), LastWord::LinkLost);
        let refusal = line.call(&Order::Status, None).unwrap_err();
        assert_eq!(refusal.errno, Some(GONE), "the worker lives, so that it is not to be killed");
        assert_eq!(line.part(PATIENCE), Some(LastWord::LinkLost));

        let (line, theirs) = pair();
        std::thread::scope(|scope| {
            let word = scope.spawn(|| line.part(PATIENCE));
            assert!(next(theirs.as_fd()).unwrap().is_none());
            part(theirs.as_fd(), LastWord::Ends);
            assert_eq!(word.join().unwrap(), Some(LastWord::Ends));
        });

        let (line, theirs) = pair();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                assert_eq!(next(theirs.as_fd()).unwrap().unwrap().0, Order::Status);
                part(theirs.as_fd(), LastWord::LinkLost);
            });
            let refusal = line.call(&Order::Status, None).unwrap_err();
            assert_eq!(refusal.errno, Some(GONE), "an order has crossed the last word");
        });
        assert_eq!(line.part(PATIENCE), Some(LastWord::LinkLost));

        let (line, theirs) = pair();
        drop(theirs);
        assert_eq!(line.part(PATIENCE), None, "a crash has none");
    }
}
