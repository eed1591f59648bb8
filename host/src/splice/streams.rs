//! Connections: two sockets each, and a lane each way.
//!
//! States. A lane carries until it has met the end of its source and told it to the other side (half-close); when both
//! have, the connection is over and both sockets are closed in the ordinary way. When either socket has died, by reset,
//! refusal or a failed write, what it had sent before that is delivered as far as there is room, and both are reset:
//! nobody takes a part for the whole.
//!
//! A lane that has something to do is in the queue, once. Each gets [`BUDGET`] bytes and goes to
//! the back; a round of the event loop spends [`WORKING`] on them.

use super::lane::{BORDER, BUDGET, End, Lane, Outcome, Tools, Which};
use super::slab::{Id, Slab};
use super::{Conversation, Proto};
use crate::clock;
use crate::epoll::EventSet;
use crate::inside::Side;
use crate::sys::sockopt::{self, Opt};
use crate::token::Token;
use nix::sys::epoll::EpollFlags;
use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

/// Time for lanes in one round of the event loop.
const WORKING: Duration = Duration::from_micros(500);

/// A direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// From the client to the server.
    Up,
    /// Back.
    Down,
}

/// Between whom a connection is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Parties {
    /// Where the client is.
    pub(crate) side: Side,
    pub(crate) client: SocketAddr,
    /// Where the connection leads, on the other side.
    pub(crate) server: SocketAddr,
}

impl Parties {
    /// A client of the namespace's keeps its address, where the kernel would choose another: 127.0.0.5, say.
    pub(crate) fn address_across(self) -> Option<IpAddr> {
        let usual = self.client.ip() == IpAddr::V4(Ipv4Addr::LOCALHOST) || self.client.is_ipv6();
        (self.side == Side::Namespace && !usual).then_some(self.client.ip())
    }
}

#[derive(Debug)]
struct Stream {
    parties: Parties,
    client: End,
    server: End,
    /// What client and server are waited for.
    watched: [EpollFlags; 2],
    up: Lane,
    down: Lane,
}

impl Stream {
    /// Has both ends waited for as they want to be. What the kernel refuses now is asked for again at the next event.
    fn watch(&mut self, id: Id, events: &EventSet) {
        let ends = [(&self.client, false), (&self.server, true)];
        for ((end, is_server), watched) in ends.into_iter().zip(&mut self.watched) {
            let interest = end.interest();
            if interest != *watched && events.modify(end.as_fd(), token(id, is_server), interest).is_ok() {
                *watched = interest;
            }
        }
    }

    fn lane(&mut self, way: Way) -> &mut Lane {
        match way {
            Way::Up => &mut self.up,
            Way::Down => &mut self.down,
        }
    }

    /// A lane with the ends that it goes from and to.
    fn parts(&mut self, way: Way) -> (&mut Lane, &mut End, &mut End) {
        match way {
            Way::Up => (&mut self.up, &mut self.client, &mut self.server),
            Way::Down => (&mut self.down, &mut self.server, &mut self.client),
        }
    }
}

const fn token(id: Id, server: bool) -> Token {
    Token::Splice { place: id.place, generation: id.generation, server }
}

/// All connections of the shortcut.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    slab: Slab<Box<Stream>>,
    due: VecDeque<(Id, Way)>,
    tools: Tools,
}

impl Streams {
    /// Joins the accepted socket of a client and one that is connected, or about to be, to the server.
    ///
    /// # Errors
    /// The kernel's: out of watches or memory. Both sockets are closed then, the client's with a reset.
    pub(crate) fn join(
        &mut self,
        client: OwnedFd,
        server: OwnedFd,
        parties: Parties,
        events: &EventSet,
    ) -> io::Result<()> {
        let (client, server) = (End::new(client, true), End::new(server, false));
        let Some(id) = self.slab.next() else {
            client.reset();
            return Err(io::ErrorKind::QuotaExceeded.into());
        };
        let watch = |end: &End, server| events.add(end.as_fd(), token(id, server), end.interest());
        watch(&client, false).and_then(|()| watch(&server, true)).inspect_err(|_| client.reset())?;
        let watched = [client.interest(), server.interest()];
        let (up, down) = (Lane::default(), Lane::default());
        self.slab.put(Box::new(Stream { parties, client, server, watched, up, down }));
        // A question is often there already.
        self.turn(id, Way::Up, BORDER, events);
        Ok(())
    }

    /// Something has happened on a socket. Tells at which end there is something to read.
    pub(crate) fn on_event(
        &mut self,
        place: u32,
        generation: u32,
        is_server: bool,
        flags: EpollFlags,
        events: &EventSet,
    ) -> Option<Side> {
        let id = Id { place, generation };
        let stream = self.slab.get(id)?;
        let side = if is_server { stream.parties.side.other() } else { stream.parties.side };
        let (from_here, to_here) = if is_server { (Way::Down, Way::Up) } else { (Way::Up, Way::Down) };
        let (_, here, there) = stream.parts(from_here);
        let (readable, has_room) = here.note(flags);
        // The reset of an end has to be heard while the other one is slow, and nothing is read for it.
        if flags.contains(EpollFlags::EPOLLERR) && sockopt::get(here.as_fd(), Opt::ERROR) != Ok(0) {
            self.fail(id, from_here);
            return Some(side);
        }
        here.deaf |= readable && !there.has_room();
        // Who is listened to again is told of what has arrived meanwhile, too.
        there.deaf &= !has_room;
        stream.watch(id, events);
        for (way, wanted) in [(from_here, readable), (to_here, has_room)] {
            let lane = stream.lane(way);
            if wanted && !lane.queued && !lane.has_ended() {
                lane.queued = true;
                self.due.push_back((id, way));
            }
        }
        readable.then_some(side)
    }

    /// Whether there is something to do now.
    pub(crate) fn is_busy(&self) -> bool {
        !self.due.is_empty()
    }

    /// Carries for a while.
    pub(crate) fn work(&mut self, events: &EventSet) {
        if self.due.is_empty() {
            return;
        }
        let began = clock::now();
        while let Some((id, way)) = self.due.pop_front() {
            self.turn(id, way, BUDGET, events);
            if clock::now() - began >= WORKING {
                break;
            }
        }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.slab.len()
    }

    /// All of them.
    pub(crate) fn list(&self) -> impl Iterator<Item = Conversation> {
        self.slab.iter().map(|(id, stream)| Conversation {
            id: super::number(Proto::Tcp, id.place),
            proto: Proto::Tcp,
            side: stream.parties.side,
            client: stream.parties.client,
            server: stream.parties.server,
            up: stream.up.carried(),
            down: stream.down.carried(),
        })
    }

    fn turn(&mut self, id: Id, way: Way, budget: usize, events: &EventSet) {
        let Some(stream) = self.slab.get(id) else { return };
        let (lane, from, to) = stream.parts(way);
        lane.queued = false;
        match lane.pump(from, to, &mut self.tools, budget) {
            Outcome::Waits => stream.watch(id, events),
            Outcome::More => {
                lane.queued = true;
                self.due.push_back((id, way));
            }
            Outcome::Ended => {
                to.finish();
                if stream.up.has_ended() && stream.down.has_ended() {
                    self.slab.take(id);
                }
            }
            Outcome::Broken(which) => {
                let from_dead = match (way, which) {
                    (way, Which::From) => way,
                    (Way::Up, Which::To) => Way::Down,
                    (Way::Down, Which::To) => Way::Up,
                };
                self.fail(id, from_dead);
            }
        }
    }

    /// The socket from which this direction comes is dead.
    fn fail(&mut self, id: Id, way: Way) {
        let Some(mut stream) = self.slab.take(id) else { return };
        let (lane, from, to) = stream.parts(way);
        lane.salvage(from, to, &mut self.tools);
        stream.client.reset();
        stream.server.reset();
    }
}

impl Drop for Streams {
    /// A connection that is still here is incomplete, and both ends are told so.
    fn drop(&mut self) {
        for (_, stream) in self.slab.iter() {
            stream.client.reset();
            stream.server.reset();
        }
    }
}

#[cfg(test)]
mod tests;
