//! Conversations over UDP: for each client of a listener, a socket on the other side.
//!
//! ```text
//!   client ──▶ listener, which its owner reads ──▶ socket, connected ──▶ server
//!   client ◀── listener, as the address asked ◀─── socket, connected ◀── server
//! ```
//! The socket has the client's port for its own where that is free, and is connected, so it hears nobody but the
//! server. Trains stay trains, both ways ([`crate::upstream::batch`]).
//!
//! **Limits.** A conversation ends after a silence, short if nobody has answered yet, as conntrack has it. There are
//! [`MOST`] at a time; one more takes the place of the one that has been silent longest, whose next datagram begins a
//! new one. An error on one socket (nobody listens, a way is gone) is of no concern to any other, and ends nothing.

use super::slab::{Id, Slab};
use super::streams::Parties;
use super::{Conversation, Proto};
use crate::epoll::EventSet;
use crate::inside::Side;
use crate::token::Token;
use crate::upstream::UdpSocket;
use crate::upstream::batch::Receiver;
use nix::sys::epoll::EpollFlags;
use slipway_netstack::Instant;
use slipway_netstack::surely::Surely;
use slipway_netstack::upstream::{Client, Forwarded, Meta, Received};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd, RawFd};
use std::rc::Rc;
use std::time::Duration;

/// Conversations at a time.
pub(super) const MOST: usize = 1024;
/// What is silent for so long, and was never answered, has ended (nf_conntrack_udp_timeout).
pub(super) const UNANSWERED: Duration = Duration::from_secs(30);
/// The same for one that was answered (nf_conntrack_udp_timeout_stream).
pub(super) const ANSWERED: Duration = Duration::from_secs(120);
/// Ends are looked for this often at most.
const SWEEP: Duration = Duration::from_secs(1);
/// Trains from one socket before others have their turn.
const TRAINS: usize = 16;
/// More than UDP can carry.
const LARGEST: usize = 1 << 16;

/// Who talks: the listener's number, the client, and the address of ours that it sent to.
type Key = (RawFd, SocketAddr, SocketAddr);

#[derive(Debug)]
struct Talk {
    parties: Parties,
    client: Client,
    listener: Rc<OwnedFd>,
    /// The way back, out of the listener.
    back: UdpSocket,
    socket: UdpSocket,
    used: Instant,
    up: u64,
    down: u64,
    queued: bool,
}

impl Talk {
    fn key(&self) -> Key {
        (self.listener.as_raw_fd(), self.client.address, self.client.at)
    }

    fn ends(&self) -> Instant {
        self.used + if self.down > 0 { ANSWERED } else { UNANSWERED }
    }
}

/// All conversations of the shortcut.
#[derive(Debug, Default)]
pub(crate) struct Datagrams {
    slab: Slab<Box<Talk>>,
    by_key: BTreeMap<Key, Id>,
    due: VecDeque<Id>,
    sweep_at: Option<Instant>,
    receiver: Receiver,
    buffer: Vec<u8>,
}

impl Datagrams {
    /// Carries datagrams of a conversation that exists; whether it does.
    pub(crate) fn send(&mut self, now: Instant, listener: &Rc<OwnedFd>, train: &Forwarded<'_>) -> bool {
        let key = (listener.as_raw_fd(), train.client.address, train.client.at);
        let talk = self.by_key.get(&key).and_then(|id| self.slab.get(*id));
        let Some(talk) = talk else { return false };
        talk.used = now;
        talk.up += bytes(train.payload);
        let meta = Meta { traffic_class: train.meta.traffic_class, ..Meta::default() };
        // What the other side will not have is lost, as on any network; so is one that nobody listens for.
        let _ = talk.socket.send(talk.parties.server, train.payload, train.segment, meta);
        true
    }

    /// Begins a conversation, by a socket that is connected to the server.
    ///
    /// # Errors
    /// The kernel's: out of watches or memory.
    pub(crate) fn begin(
        &mut self,
        now: Instant,
        (listener, client): (&Rc<OwnedFd>, Client),
        socket: OwnedFd,
        (side, server): (Side, SocketAddr),
        events: &EventSet,
    ) -> io::Result<()> {
        if self.slab.len() >= MOST {
            let silent = self.slab.iter().min_by_key(|(_, talk)| talk.used).map(|(id, _)| id);
            silent.into_iter().for_each(|id| self.end(id));
        }
        let Some(id) = self.slab.next() else { return Err(io::ErrorKind::QuotaExceeded.into()) };
        let token = Token::SpliceUdp { place: id.place, generation: id.generation };
        events.add(socket.as_fd(), token, EpollFlags::EPOLLIN | EpollFlags::EPOLLET)?;
        let talk = Talk {
            parties: Parties { side, client: client.address, server },
            client,
            listener: Rc::clone(listener),
            back: UdpSocket::shared(Rc::clone(listener), client.at),
            socket: UdpSocket::own(socket),
            used: now,
            up: 0,
            down: 0,
            queued: false,
        };
        self.by_key.insert(talk.key(), id);
        self.sweep_at = self.sweep_at.into_iter().chain([talk.ends()]).min();
        self.slab.put(Box::new(talk));
        Ok(())
    }

    /// Something has arrived on a socket.
    pub(crate) fn on_event(&mut self, place: u32, generation: u32, flags: EpollFlags) {
        let id = Id { place, generation };
        let Some(talk) = self.slab.get(id) else { return };
        talk.socket.decode(flags);
        if !talk.queued {
            talk.queued = true;
            self.due.push_back(id);
        }
    }

    /// Whether there is something to do now.
    pub(crate) fn is_busy(&self) -> bool {
        !self.due.is_empty()
    }

    /// Carries answers, of each conversation as many as its turn allows.
    pub(crate) fn work(&mut self, now: Instant) {
        for _ in 0..self.due.len() {
            let Some(id) = self.due.pop_front() else { return };
            let Some(talk) = self.slab.get(id) else { continue };
            talk.queued = false;
            self.buffer.resize(LARGEST, 0);
            for nth in 1..=TRAINS {
                // An error about an earlier datagram is passed over there.
                let Ok(Received { len, segment, meta, .. }) =
                    talk.socket.receive(&mut self.receiver, &mut self.buffer)
                else {
                    break;
                };
                let payload = self.buffer.get(..len).surely();
                (talk.used, talk.down) = (now, talk.down + bytes(payload).max(1));
                let meta = Meta { traffic_class: meta.traffic_class, ..Meta::default() };
                let _ = talk.back.send(talk.client.address, payload, segment, meta);
                if nth == TRAINS {
                    talk.queued = true;
                    self.due.push_back(id);
                }
            }
        }
    }

    /// When [`Datagrams::on_timeout`] wants to be called.
    pub(crate) const fn next_timeout(&self) -> Option<Instant> {
        self.sweep_at
    }

    /// Ends what has been silent for too long.
    pub(crate) fn on_timeout(&mut self, now: Instant) {
        if self.sweep_at.is_none_or(|at| now < at) {
            return;
        }
        let over: Vec<Id> =
            self.slab.iter().filter(|(_, talk)| talk.ends() <= now).map(|(id, _)| id).collect();
        over.into_iter().for_each(|id| self.end(id));
        self.sweep_at = self.slab.iter().map(|(_, talk)| talk.ends()).min().map(|at| at.max(now + SWEEP));
    }

    /// The listener is about to be closed: its conversations end.
    pub(crate) fn release(&mut self, listener: &Rc<OwnedFd>) {
        let theirs = self.slab.iter().filter(|(_, talk)| Rc::ptr_eq(&talk.listener, listener));
        let theirs: Vec<Id> = theirs.map(|(id, _)| id).collect();
        theirs.into_iter().for_each(|id| self.end(id));
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.slab.len()
    }

    /// All of them.
    pub(crate) fn list(&self) -> impl Iterator<Item = Conversation> {
        self.slab.iter().map(|(id, talk)| Conversation {
            id: super::number(Proto::Udp, id.place),
            proto: Proto::Udp,
            side: talk.parties.side,
            client: talk.parties.client,
            server: talk.parties.server,
            up: talk.up,
            down: talk.down,
        })
    }

    fn end(&mut self, id: Id) {
        if let Some(talk) = self.slab.take(id) {
            self.by_key.remove(&talk.key());
            self.receiver.forget(talk.socket.as_fd());
        }
    }
}

fn bytes(payload: &[u8]) -> u64 {
    u64::try_from(payload.len()).surely_or(u64::MAX)
}

#[cfg(test)]
mod tests;
