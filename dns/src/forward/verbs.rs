//! What goes into a forwarder and what comes out of it.

use super::AttemptId;
use crate::message::Transport;
use core::net::{IpAddr, SocketAddr};

/// A question.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a, C> {
    /// Whom to give the answer; comes back with it.
    pub client: C,
    /// The client's address: where there is not room for all, each has its share.
    pub source: IpAddr,
    /// How the client asked. Servers are asked the same way.
    pub transport: Transport,
    /// The query as it came.
    pub message: &'a [u8],
    /// The servers, most preferred first.
    pub servers: &'a [SocketAddr],
}

/// What the caller has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action<C> {
    /// Send the message from a new socket. What comes back goes to [`super::Forwarder::received`], errors to
    /// [`super::Forwarder::failed`].
    SendUdp {
        /// Whose socket that is.
        attempt: AttemptId,
        /// Where to.
        server: SocketAddr,
        /// What.
        message: Vec<u8>,
    },
    /// The same over a new connection.
    SendTcp {
        /// Whose connection that is.
        attempt: AttemptId,
        /// Where to.
        server: SocketAddr,
        /// What, without the length in front of it.
        message: Vec<u8>,
    },
    /// Send the message of [`Action::SendUdp`] once more, over the socket of this attempt.
    Repeat {
        /// Whose socket that is.
        attempt: AttemptId,
        /// What.
        message: Vec<u8>,
    },
    /// The socket or connection of this attempt is of no more use.
    Close {
        /// Whose.
        attempt: AttemptId,
    },
    /// A message of an answer that has more of them: more are to come.
    Part {
        /// From whose connection. It may be left unread while the client takes no more.
        attempt: AttemptId,
        /// Whose.
        client: C,
        /// With the client's id.
        message: Vec<u8>,
    },
    /// The answer, or the end of it.
    Reply {
        /// Whose.
        client: C,
        /// With the client's id.
        message: Vec<u8>,
    },
    /// There is no answer, and nothing is said.
    GiveUp {
        /// Whose.
        client: C,
    },
}

/// Why the socket of an attempt failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nobody is there, or there is no way: the server is dead.
    Refused,
    /// The connection ended without an answer, or with something else: the server may answer the next question.
    Broken,
    /// We have no descriptor, no memory, no port left for it: nothing is said to the client, who may ask again.
    Ours,
}

/// What became of something received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// It answers the question, or leads to the next attempt.
    Accepted,
    /// It is a part of the answer; the attempt goes on, and the next may have come already.
    Part,
    /// It belongs to nothing that is under way.
    Stale,
    /// Another server, id or question than asked: a forgery or a mistake. The attempt goes on.
    Mismatch,
}

/// Counters, all since the beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Questions.
    pub asked: u64,
    /// Answered from the cache.
    pub cached: u64,
    /// Not asked, because the same was being asked already.
    pub shared: u64,
    /// Answered by a server.
    pub answered: u64,
    /// Not answered by any server.
    pub failed: u64,
    /// Had to wait for a place.
    pub queued: u64,
    /// Given up because too much waited, or for too long.
    pub refused: u64,
    /// Attempts that nobody answered in time.
    pub timeouts: u64,
    /// Messages that did not belong to the attempt.
    pub mismatches: u64,
}
