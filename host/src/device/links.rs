//! The links of one driver: one as a rule, or one for each of several guests.
//!
//! ```text
//!   link 0 ─┐                                              ┌─▶ the link of the station that it is for
//!   link 1 ─┼─ read, learn who is there ─▶ engine ─ give ──┤
//!   link 2 ─┘                                              └─▶ all links: for a group, or a station that nobody has seen
//! ```
//! To the engine all of them are one device, and it knows no links: where a station is, [`Stations`] tells. What guests
//! send each other is for nobody here.
//!
//! Invariants.
//! - With one link nothing is learnt or looked up.
//! - A link does no harm to others. One that has no room holds up what leads to its own stations (see
//!   [`Device::is_full`]); what is for everybody passes it by, and is counted. One that ends takes along what led to its own
//!   stations.
//! - A number is given once: an event or a call for a link that is gone finds nothing.

use super::{Link, Lost};
use crate::epoll::{EventSet, Events};
use crate::token::Token;
use nix::errno::Errno;
use nix::sys::epoll::EpollFlags;
use slipway_netstack::addr::MacAddr;
use slipway_netstack::device::{Device, Full, Offload, Stations};
use slipway_netstack::ethernet::{destination, source};
use std::io;
use std::time::Duration;

/// A link, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u32);

/// The links of a driver.
#[derive(Debug)]
pub struct Links {
    /// By number, upwards.
    members: Vec<Member>,
    stations: Stations,
    next: u32,
    /// The links and nothing else, for waits during which other descriptors are left alone.
    alone: EventSet,
    /// What links did not carry that are gone, and what was sent when there was none.
    gone: Lost,
}

#[derive(Debug)]
struct Member {
    id: LinkId,
    link: Link,
    /// What passed it by.
    lost: Lost,
    /// It had no room for what it was given last.
    full: bool,
    /// It is watched for room.
    awaited: bool,
}

/// What is left of a link.
#[derive(Debug)]
pub(crate) struct Remains {
    pub(crate) lost: Lost,
    /// Who was behind it, while there were others.
    pub(crate) stations: Vec<MacAddr>,
}

impl Member {
    fn give(&mut self, offload: Offload, frame: &[u8]) -> Result<(), Full> {
        let given = self.link.transmit(offload, frame);
        self.full = given.is_err();
        given
    }

    fn lost(&self) -> Lost {
        self.link.lost().and(self.lost)
    }
}

impl Links {
    /// No links. `ours` is the engine's own MAC address.
    ///
    /// # Errors
    /// The kernel's: out of descriptors or memory.
    pub(crate) fn new(ours: MacAddr) -> io::Result<Self> {
        let (stations, alone) = (Stations::new(ours), EventSet::new()?);
        Ok(Self { members: Vec::new(), stations, next: 0, alone, gone: Lost::default() })
    }

    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// What they did not carry, all together, also those that are gone.
    #[must_use]
    pub fn lost(&self) -> Lost {
        self.members.iter().fold(self.gone, |sum, member| sum.and(member.lost()))
    }

    /// What this one did not carry; `None`: there is none of that number.
    #[must_use]
    pub fn lost_by(&self, id: LinkId) -> Option<Lost> {
        Some(self.members.get(self.find(id)?)?.lost())
    }

    /// One more, which `events` then tells of. `stations`: those that flows lead to; they are behind the one link that there
    /// is, if there is one.
    pub(crate) fn join(
        &mut self,
        link: Link,
        stations: impl Iterator<Item = MacAddr>,
        events: &EventSet,
    ) -> io::Result<LinkId> {
        let next = self.next.checked_add(1).ok_or(Errno::EOVERFLOW)?;
        let id = LinkId(self.next);
        events.add(link.fd(), Token::Link(id.0), EpollFlags::EPOLLIN)?;
        if let Err(error) = self.alone.add(link.fd(), Token::Link(id.0), EpollFlags::EPOLLIN) {
            events.remove(link.fd());
            return Err(error);
        }
        if let [only] = self.members.as_slice() {
            stations.for_each(|station| self.stations.learn(station, only.id.0));
        }
        self.members.push(Member { id, link, lost: Lost::default(), full: false, awaited: false });
        self.next = next;
        Ok(id)
    }

    /// Closes one: the interface, and the namespace it lives in, are nobody's reason to stay any more.
    pub(crate) fn leave(&mut self, id: LinkId, events: &EventSet) -> Option<Remains> {
        let member = self.members.remove(self.find(id)?);
        // Others may hold the same open file; closing ours alone would leave it in the sets.
        events.remove(member.link.fd());
        self.alone.remove(member.link.fd());
        let remains =
            Remains { lost: member.lost.and(member.link.close()), stations: self.stations.forget(id.0) };
        self.gone = self.gone.and(remains.lost);
        Some(remains)
    }

    /// The first one, if there is any.
    pub(crate) fn first(&self) -> Option<LinkId> {
        self.members.first().map(|member| member.id)
    }

    /// Reads a frame from one: see [`Link::read_frame`]. `None`: there is none now, or no such link.
    pub(crate) fn read_frame(&mut self, id: LinkId, into: &mut [u8]) -> io::Result<Option<(Offload, usize)>> {
        let several = self.members.len() > 1;
        let Some(member) = self.find(id).and_then(|at| self.members.get_mut(at)) else { return Ok(None) };
        let read = member.link.read_frame(into)?;
        if several && let Some(station) = read.and_then(|(_, len)| source(into.get(..len)?)) {
            self.stations.learn(station, id.0);
        }
        Ok(read)
    }

    /// The kernel says that one has room again.
    pub(crate) fn has_room(&mut self, id: LinkId) {
        if let Some(member) = self.find(id).and_then(|at| self.members.get_mut(at)) {
            member.full = false;
        }
    }

    /// Watches those for room that had none, and no others.
    pub(crate) fn await_room(&mut self, events: &EventSet) {
        for member in self.members.iter_mut().filter(|member| member.full != member.awaited) {
            let mut interest = EpollFlags::EPOLLIN;
            interest.set(EpollFlags::EPOLLOUT, member.full);
            // It is in the set, so this cannot fail.
            let _ = events.modify(member.link.fd(), Token::Link(member.id.0), interest);
            member.awaited = member.full;
        }
    }

    /// Waits for a frame on any, at most `timeout`.
    pub(crate) fn wait(&self, events: &mut Events, timeout: Duration) -> io::Result<()> {
        self.alone.wait(events, Some(timeout))
    }

    fn find(&self, id: LinkId) -> Option<usize> {
        self.members.binary_search_by_key(&id, |member| member.id).ok()
    }

    /// The one that a station is behind, if it is known.
    fn toward(&self, station: MacAddr) -> Option<usize> {
        self.stations.port_of(station).and_then(|port| self.find(LinkId(port)))
    }

    /// With several, or none: to the one whose station it is for, else to all.
    fn distribute(&mut self, offload: Offload, frame: &[u8]) -> Result<(), Full> {
        let one = destination(frame).and_then(|station| self.toward(station));
        if let Some(member) = one.and_then(|at| self.members.get_mut(at)) {
            return member.give(offload, frame);
        }
        for member in &mut self.members {
            if member.give(offload, frame).is_err() {
                member.lost.no_room = member.lost.no_room.saturating_add(1);
            }
        }
        if self.members.is_empty() {
            self.gone.down = self.gone.down.saturating_add(1);
        }
        Ok(())
    }
}

impl Device for Links {
    fn transmit(&mut self, offload: Offload, frame: &[u8]) -> Result<(), Full> {
        match self.members.as_mut_slice() {
            [only] => only.give(offload, frame),
            _ => self.distribute(offload, frame),
        }
    }

    fn is_full(&self) -> bool {
        self.members.iter().all(|member| member.full)
    }

    fn may_have_room(&self, station: MacAddr) -> bool {
        self.toward(station).and_then(|at| self.members.get(at)).is_none_or(|member| !member.full)
    }
}
