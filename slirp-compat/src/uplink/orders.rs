//! What the supervisor tells a worker, and how: one JSON object in each packet of a socket pair, one packet in reply.
//!
//! The supervisor alone speaks first, and waits for the reply: a worker answers between two rounds of its event loop, well
//! below a millisecond later. One that has not answered after [`PATIENCE`] is taken for broken.

use super::protocol::{Container, Network, Refusal, granted, read_reply};
use nix::errno::Errno;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use slipway_host::sys::{fdpass, sockopt};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// How long a worker may take.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// The error number of a worker that does not answer.
pub const BROKEN: i32 = Errno::EPIPE as i32;
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

/// The supervisor's end.
#[derive(Debug)]
pub struct Line(OwnedFd);

impl Line {
    /// Takes over a socket.
    ///
    /// # Errors
    /// The kernel's.
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        sockopt::set_patience(socket.as_fd(), PATIENCE)?;
        Ok(Self(socket))
    }

    /// Gives an order and waits for the reply.
    ///
    /// # Errors
    /// The worker's refusal, or that it does not answer (`errno` is [`BROKEN`] then).
    pub fn call(&self, order: &Order, fd: Option<BorrowedFd<'_>>) -> Result<Value, Refusal> {
        let broken = |error: &dyn std::fmt::Display| Refusal {
            text: format!("the network's process does not answer: {error}"),
            errno: Some(BROKEN),
        };
        let text = serde_json::to_vec(order).map_err(|error| broken(&error))?;
        fdpass::send(self.0.as_fd(), &text, fd).map_err(|error| broken(&error))?;
        let mut buffer = vec![0; MAX_ORDER];
        match fdpass::receive(self.0.as_fd(), &mut buffer).map_err(|error| broken(&error))? {
            (0, _) => Err(broken(&"it has ended")),
            (len, _) => read_reply(buffer.get(..len).unwrap_or_default()),
        }
    }
}

impl AsFd for Line {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
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
        assert_eq!(refusal.errno, Some(BROKEN));
    }
}
