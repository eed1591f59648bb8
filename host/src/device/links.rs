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
//! - A station of one link is on no other: a frame that says so is lost, and counted.
//! - A link does no harm to others. One that has no room holds up what leads to its own stations (see
//!   [`Device::is_full`]); what is for everybody passes it by, and is counted. One that ends takes along what led to
//!   its own stations. One that can do less than the engine was told gets frames that are finished here
//!   ([`segment::finish`]); the others get trains.
//! - A frame is taken whole or not at all. What a link had no room for of a train that it has begun is kept, and goes
//!   before anything else.
//! - A number is given once: an event or a call for a link that is gone finds nothing.

use super::{Link, Lost};
use crate::epoll::{EventSet, Events};
use crate::token::Token;
use nix::errno::Errno;
use nix::sys::epoll::EpollFlags;
use slipway_netstack::addr::MacAddr;
use slipway_netstack::device::{Capabilities, Device, Full, Offload, Stations, segment};
use slipway_netstack::ethernet::{destination, source};
use std::collections::VecDeque;
use std::io;
use std::time::Duration;

/// Frames in a neighbour's name that are passed over before others have their turn.
const FORGED_AT_ONCE: usize = 64;

/// A link, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u32);

/// The links of a driver.
#[derive(Debug)]
pub struct Links {
    /// By number, upwards.
    members: Vec<Member>,
    stations: Stations,
    /// What the engine was told that a device can do.
    told: Capabilities,
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
    /// It can do less than the engine was told.
    finish: bool,
    /// The end of a train, cut, that there was no room for.
    rest: VecDeque<(Offload, Vec<u8>)>,
    /// What never came to it.
    lost: Lost,
    /// It had no room for a frame, and has not said since that it has.
    full: bool,
    /// It is watched for room.
    awaited: bool,
}

/// What is left of a link.
#[derive(Debug)]
pub(crate) struct Remains {
    pub(crate) lost: Lost,
    /// Who was behind it, while there were others, in order.
    pub(crate) stations: Vec<MacAddr>,
}

impl Member {
    fn give(&mut self, offload: Offload, frame: &[u8]) -> Result<(), Full> {
        let given =
            if self.finish { self.give_finished(offload, frame) } else { self.link.transmit(offload, frame) };
        // Until the kernel says otherwise, though the next frame may find room: whoever was refused waits for that
        // word.
        self.full |= given.is_err();
        given
    }

    fn give_finished(&mut self, offload: Offload, frame: &[u8]) -> Result<(), Full> {
        self.give_rest()?;
        let Self { link, rest, .. } = self;
        let (mut begun, mut refused) = (false, false);
        let finished = segment::finish(offload, frame, link.capabilities(), &mut |offload, frame| {
            if refused {
                return;
            }
            if !rest.is_empty() {
                rest.push_back((offload, frame.to_vec()));
            } else if link.transmit(offload, frame).is_ok() {
                begun = true;
            } else if begun {
                rest.push_back((offload, frame.to_vec()));
            } else {
                refused = true;
            }
        });
        if finished.is_err() {
            self.lost.rejected = self.lost.rejected.saturating_add(1);
        }
        if refused { Err(Full) } else { Ok(()) }
    }

    /// Gives the end of a train that was begun.
    fn give_rest(&mut self) -> Result<(), Full> {
        while let Some((offload, frame)) = self.rest.front() {
            self.link.transmit(*offload, frame)?;
            self.rest.pop_front();
        }
        Ok(())
    }

    fn lost(&self) -> Lost {
        self.link.lost().and(self.lost)
    }
}

impl Links {
    /// No links. `ours` is the engine's own MAC address, and `told` what it was told that a device can do.
    ///
    /// # Errors
    /// The kernel's: out of descriptors or memory.
    pub(crate) fn new(ours: MacAddr, told: Capabilities) -> io::Result<Self> {
        let (stations, alone) = (Stations::new(ours), EventSet::new()?);
        Ok(Self { members: Vec::new(), stations, told, next: 0, alone, gone: Lost::default() })
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

    /// One more, which `events` then tells of. `stations`: those that flows lead to; they are behind the one link that
    /// there is, if there is one.
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
            for station in stations {
                self.stations.learn(station, only.id.0);
            }
        }
        let finish = self.told.exceed(link.capabilities());
        let (rest, lost) = (VecDeque::new(), Lost::default());
        self.members.push(Member { id, link, finish, rest, lost, full: false, awaited: false });
        self.next = next;
        Ok(id)
    }

    /// Closes one: the interface, and the namespace it lives in, are nobody's reason to stay any more.
    pub(crate) fn leave(&mut self, id: LinkId, events: &EventSet) -> Option<Remains> {
        let member = self.members.remove(self.find(id)?);
        // Others may hold the same open file; closing ours alone would leave it in the sets.
        events.remove(member.link.fd());
        self.alone.remove(member.link.fd());
        let left = Lost { down: u64::try_from(member.rest.len()).unwrap_or(u64::MAX), ..member.lost };
        let mut stations = self.stations.forget(id.0);
        stations.sort_unstable();
        let remains = Remains { lost: left.and(member.link.close()), stations };
        self.gone = self.gone.and(remains.lost);
        Some(remains)
    }

    /// The first one, if there is any.
    pub(crate) fn first(&self) -> Option<LinkId> {
        self.members.first().map(|member| member.id)
    }

    /// Reads a frame from one: see [`Link::read_frame`]. `None`: there is none now, none for a while that counts, or no
    /// such link.
    pub(crate) fn read_frame(&mut self, id: LinkId, into: &mut [u8]) -> io::Result<Option<(Offload, usize)>> {
        let several = self.members.len() > 1;
        let Some(member) = self.find(id).and_then(|at| self.members.get_mut(at)) else { return Ok(None) };
        for _ in 0..FORGED_AT_ONCE {
            let Some((offload, len)) = member.link.read_frame(into)? else { return Ok(None) };
            let station = if several { into.get(..len).and_then(source) } else { None };
            if station.is_none_or(|station| self.stations.learn(station, id.0)) {
                return Ok(Some((offload, len)));
            }
            member.lost.forged = member.lost.forged.saturating_add(1);
        }
        Ok(None)
    }

    /// Forgets stations of a link that has too many, but for those that are `in_use`: asked for only if it has.
    pub(crate) fn thin_out<I: Iterator<Item = MacAddr>>(&mut self, in_use: impl FnOnce() -> I) {
        if let Some(port) = self.stations.crowded() {
            let mut used: Vec<_> = in_use().collect();
            used.sort_unstable();
            self.stations.thin_out(port, |station| used.binary_search(&station).is_ok());
        }
    }

    /// Those that have frames of which no event tells.
    pub(crate) fn ahead(&self) -> impl Iterator<Item = LinkId> {
        self.members.iter().filter(|member| member.link.is_ahead()).map(|member| member.id)
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

    fn flush(&mut self) {
        for member in &mut self.members {
            let refused = member.give_rest().and_then(|()| member.link.send_rest()).is_err();
            member.full |= refused;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{MAX_FRAME, Seqpacket};
    use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, socketpair};
    use slipway_netstack::checksum;
    use slipway_netstack::device::Gso;
    use slipway_netstack::device::vnet::{Checksum, GsoKind};
    use std::os::fd::{AsRawFd as _, OwnedFd};

    const ALL: Capabilities = Capabilities { checksum: true, tso4: true, tso6: true, uso: true };
    const DATAGRAM: usize = 1000;
    const HEADERS: usize = 14 + 20 + 8;

    /// Links of a driver whose engine makes trains, with one that can do nothing, and the guest's end of that.
    fn plain() -> (Links, EventSet, LinkId, OwnedFd) {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let (ours, guest) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags).unwrap();
        let events = EventSet::new().unwrap();
        let mut links = Links::new(MacAddr([2, 0, 0, 0, 0, 2]), ALL).unwrap();
        let link = Link::from(Seqpacket::from_owned_fd(ours));
        let id = links.join(link, std::iter::empty(), &events).unwrap();
        (links, events, id, guest)
    }

    /// A train of UDP datagrams whose first bytes count on from `first`.
    fn train(first: u8, count: u8) -> (Offload, Vec<u8>) {
        let len = u16::try_from(8 + DATAGRAM * usize::from(count)).unwrap();
        let mut frame = [2, 0, 0, 0, 0, 3, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0].to_vec();
        frame.extend((20 + len).to_be_bytes());
        frame.extend([0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 2, 2, 10, 0, 2, 100]);
        frame.extend([0, 7, 0, 9]);
        frame.extend(len.to_be_bytes());
        let pseudo = [&frame[26..34], &[0, 17], &len.to_be_bytes()].concat();
        frame.extend((!checksum::finish(checksum::sum(&pseudo))).to_be_bytes());
        (first..first + count).for_each(|n| frame.extend([n; DATAGRAM]));
        let gso = Gso { kind: GsoKind::Udp, size: 1000, header_len: 42 };
        (Offload { checksum: Checksum::Partial { start: 34, offset: 6 }, gso: Some(gso) }, frame)
    }

    /// The datagrams that the guest reads, each whole and with the right checksum.
    fn read(guest: &OwnedFd) -> Vec<u8> {
        let mut buffer = vec![0; MAX_FRAME];
        std::iter::from_fn(|| {
            let len = recv(guest.as_raw_fd(), &mut buffer, MsgFlags::empty()).ok().filter(|len| *len > 0)?;
            let frame = &buffer[..len];
            assert_eq!(len, HEADERS + DATAGRAM);
            assert_eq!(checksum::finish(checksum::sum(&frame[14..34])), 0);
            let pseudo = [&frame[26..34], &[0, 17], &frame[38..40], &frame[34..]].concat();
            assert_eq!(checksum::finish(checksum::sum(&pseudo)), 0);
            Some(frame[HEADERS])
        })
        .collect()
    }

    #[test]
    fn a_link_that_can_do_less_is_given_finished_frames() {
        let (mut links, _events, _, guest) = plain();
        let (offload, frame) = train(0, 40);
        assert_eq!(links.transmit(offload, &frame), Ok(()));
        assert_eq!(read(&guest), (0..40).collect::<Vec<_>>());
        // Nobody leaves the cutting who has not left the checksum.
        let senseless = Offload { checksum: Checksum::Complete, ..offload };
        assert_eq!(links.transmit(senseless, &frame), Ok(()));
        assert_eq!((read(&guest), links.lost()), (vec![], Lost { rejected: 1, ..Lost::default() }));
    }

    #[test]
    fn a_train_that_was_begun_is_finished_before_anything_else() {
        let (mut links, events, id, guest) = plain();
        let mut given = 0;
        // The last one is cut off in the middle: it has been taken.
        while given < 6 && links.members[0].rest.is_empty() {
            let (offload, frame) = train(given * 40, 40);
            assert_eq!(links.transmit(offload, &frame), Ok(()));
            given += 1;
        }
        assert!(!links.members[0].rest.is_empty(), "{given} trains never fill it");
        let (offload, next) = train(0, 1);
        assert_eq!(links.transmit(offload, &next), Err(Full));
        links.flush();
        links.await_room(&events);
        assert!(links.is_full() && links.members[0].awaited);
        let mut found = read(&guest);
        links.has_room(id);
        links.flush();
        found.extend(read(&guest));
        assert_eq!(found, (0..given * 40).collect::<Vec<_>>(), "each once, in order");
        assert!(!links.is_full());
        assert_eq!(links.transmit(offload, &next), Ok(()));
        assert_eq!((read(&guest), links.lost()), (vec![0], Lost::default()));
    }

    #[test]
    fn whoever_was_refused_is_told_of_room_though_others_found_some() {
        let (mut links, events, id, guest) = plain();
        let (offload, frame) = train(0, 1);
        let refused = (0..10_000).any(|_| links.transmit(offload, &frame).is_err());
        assert!(refused && links.is_full());
        // Room comes between two writes of one drain.
        read(&guest);
        assert_eq!(links.transmit(offload, &frame), Ok(()));
        links.await_room(&events);
        assert!(links.is_full() && links.members[0].awaited, "the one who was refused would wait for ever");
        links.has_room(id);
        links.await_room(&events);
        assert!(!links.is_full() && !links.members[0].awaited);
    }

    #[test]
    fn what_is_left_of_a_train_when_the_link_ends_is_counted() {
        let (mut links, events, id, guest) = plain();
        let mut given = 0;
        while given < 6 && links.members[0].rest.is_empty() {
            let (offload, frame) = train(given * 40, 40);
            assert_eq!(links.transmit(offload, &frame), Ok(()));
            given += 1;
        }
        let remains = links.leave(id, &events).unwrap();
        let carried = u64::try_from(read(&guest).len()).unwrap();
        assert!(remains.lost.down > 0);
        assert_eq!(carried + remains.lost.down, u64::from(given) * 40);
        assert_eq!(links.lost(), remains.lost);
    }
}
