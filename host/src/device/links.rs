//! The links of one driver: one as a rule, or one for each of several guests.
//!
//! ```text
//!   link 0 ─┐                        ┌─▶ engine ─ give ─┐
//!   link 1 ─┼─ read ─▶ Switch ───────┤                  ├─▶ the link of the station that it is for
//!   link 2 ─┘                        └─ hand over ──────┘   or all of them, for a group
//! ```
//! To the engine all of them are one device, and it knows no links. Where a station is, and what becomes of a frame, a
//! [`Switch`] tells; what guests send each other never meets the engine.
//!
//! Invariants.
//! - With one link nothing is learnt or looked up, unless guests come and go ([`Links::expect_guests`]).
//! - A station of one link is on no other: a frame that says so is lost, and counted.
//! - A link does no harm to others. One that has no room holds up what leads to its own stations (see
//!   [`Device::is_full`]); what is for everybody, and what other guests send, passes it by, and is counted. What others
//!   send never takes all of a stream's room. One that ends takes along what led to its own stations. One that always
//!   has something gets short turns while others have something, too ([`Links::turn_of`]).
//! - One that can do less than the engine was told gets frames that are finished here ([`segment::finish`]); the others
//!   get trains. What one guest left undone is finished before another gets it ([`bare::finish`]).
//! - A frame is taken whole or not at all. What a link had no room for of a train that it has begun is kept, and goes
//!   before anything else.
//! - A number is given once: an event or a call for a link that is gone finds nothing.

use super::news::News;
use super::{GuestNews, Link, LinkId, Lost, UNCHECKED};
use crate::epoll::{EventSet, Events};
use crate::token::Token;
use nix::errno::Errno;
use nix::sys::epoll::EpollFlags;
use slipway_netstack::Instant;
use slipway_netstack::addr::MacAddr;
use slipway_netstack::device::switch::{Decision, Refusal, Way};
use slipway_netstack::device::{Capabilities, Device, Full, Offload, Switch, segment};
use slipway_netstack::drop_reason::DropReason;
use slipway_netstack::ethernet::source;
use slipway_netstack::ip::bare;
use slipway_netstack::surely::Surely;
use std::collections::VecDeque;
use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

/// A link that was heard of within this time is waiting for its turn.
const PRESENT: Duration = Duration::from_millis(5);

/// A frame of a guest.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrived {
    /// What is left to do in it.
    pub(crate) offload: Offload,
    /// Its bytes.
    pub(crate) len: usize,
    /// The engine gets it.
    pub(crate) ours: bool,
}

/// How much of a round is a link's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Nobody else has anything.
    Whole,
    /// Others have.
    Part,
    /// Others have, and this one had more than its part before.
    Short,
}

/// The links of a driver.
#[derive(Debug)]
pub struct Links {
    /// By number, upwards.
    members: Vec<Member>,
    switch: Switch,
    /// The engine's own address.
    ours: MacAddr,
    /// Guests come and go, so that each frame is looked at though there is one link.
    guests: bool,
    /// The longest packet that every guest takes, in bytes.
    mtu: usize,
    /// What the engine was told that a device can do, before there was any.
    least: Capabilities,
    next: u32,
    /// The links and nothing else, for waits during which other descriptors are left alone.
    alone: EventSet,
    /// What links did not carry that are gone, and what was sent when there was none.
    gone: Lost,
    news: News,
    /// Somebody else speaks for a station of this link: is it still there?
    contested: Option<LinkId>,
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
    /// It was told of.
    told: bool,
    /// When it was read last.
    heard: Instant,
    /// It had more than its turn allowed.
    greedy: bool,
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
        let given = if self.finish {
            self.give_finished(|caps, out| segment::finish(offload, frame, caps, out))
        } else {
            self.link.transmit(offload, frame)
        };
        // Until the kernel says otherwise, though the next frame may find room: whoever was refused waits for that
        // word.
        self.full |= given.is_err();
        given
    }

    /// What another guest sends: it waits for nobody.
    fn take_over(&mut self, offload: Offload, frame: &[u8], mtu: usize) {
        let given = if self.link.is_crowded() {
            Err(Full)
        } else {
            let given = self.give_finished(|caps, out| {
                if offload == UNCHECKED {
                    bare::finish(frame, mtu, caps, out)
                } else {
                    segment::finish(offload, frame, caps, out)
                }
            });
            self.full |= given.is_err();
            given
        };
        if given.is_err() {
            self.lost.no_room = self.lost.no_room.saturating_add(1);
        }
    }

    fn give_finished(
        &mut self,
        finish: impl FnOnce(Capabilities, &mut dyn FnMut(Offload, &[u8])) -> Result<(), DropReason>,
    ) -> Result<(), Full> {
        self.give_rest()?;
        let Self { link, rest, .. } = self;
        let (mut begun, mut refused) = (false, false);
        let finished = finish(link.capabilities(), &mut |offload, frame| {
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

    /// Watches it for room, or no longer.
    fn watch_room(&mut self, events: &EventSet) {
        let token = Token::Link(self.id.0);
        // They are in the set, or come into it, so this can fail for want of memory alone: then it is tried again.
        let done = match (self.link.output(), self.link.fd()) {
            (Some(output), _) if self.full => events.add(output, token, EpollFlags::EPOLLOUT),
            (Some(output), _) => {
                events.remove(output);
                Ok(())
            }
            (None, Some(fd)) => {
                let mut interest = EpollFlags::EPOLLIN;
                interest.set(EpollFlags::EPOLLOUT, self.full);
                events.modify(fd, token, interest)
            }
            (None, None) => Ok(()),
        };
        if done.is_ok() {
            self.awaited = self.full;
        }
    }

    fn lost(&self) -> Lost {
        self.link.lost().and(self.lost)
    }
}

impl Links {
    /// No links. `ours` is the engine's own MAC address, `least` what it was told that a device can do, and `mtu` the
    /// longest packet of it, in bytes.
    ///
    /// # Errors
    /// The kernel's: out of descriptors or memory.
    pub(crate) fn new(ours: MacAddr, least: Capabilities, mtu: u16) -> io::Result<Self> {
        Ok(Self {
            members: Vec::new(),
            switch: Switch::new(ours),
            ours,
            guests: false,
            mtu: mtu.into(),
            least,
            next: 0,
            alone: EventSet::new()?,
            gone: Lost::default(),
            news: News::default(),
            contested: None,
        })
    }

    /// From now on guests come and go: whatever is told of them is kept for [`Links::take_news`], and frames are
    /// switched though there is one link.
    pub(crate) const fn expect_guests(&mut self) {
        self.guests = true;
    }

    /// What the engine is to be told that a device can do: what any of them can.
    pub(crate) fn capabilities(&self) -> Capabilities {
        self.members.iter().fold(self.least, |all, member| all.or(member.link.capabilities()))
    }

    /// One has come: those that can do less than others get frames that are finished, from now on.
    fn agree(&mut self) {
        let told = self.capabilities();
        self.members.iter_mut().for_each(|member| member.finish |= told.exceed(member.link.capabilities()));
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

    /// Which station is behind which link, by address, as far as that is looked at.
    pub fn stations(&self) -> impl Iterator<Item = (MacAddr, LinkId)> {
        self.switch.stations().iter().map(|(station, port)| (station, LinkId(port)))
    }

    /// What has happened to guests since this was asked for.
    pub(crate) fn take_news(&mut self) -> Vec<GuestNews> {
        self.news.take()
    }

    /// Whether anything has.
    pub(crate) fn has_news(&self) -> bool {
        !self.news.is_empty()
    }

    /// Has somebody told of a guest that never came.
    pub(crate) fn tell(&mut self, news: GuestNews) {
        if self.guests {
            self.news.tell(news);
        }
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
        if let Some(fd) = link.fd() {
            events.add(fd, Token::Link(id.0), EpollFlags::EPOLLIN)?;
            if let Err(error) = self.alone.add(fd, Token::Link(id.0), EpollFlags::EPOLLIN) {
                events.remove(fd);
                return Err(error);
            }
        }
        if let [only] = self.members.as_slice() {
            for station in stations {
                self.switch.stations_mut().learn(station, only.id.0);
            }
        }
        let told = !link.is_greeting();
        if told {
            self.tell(GuestNews::Joined(id));
        }
        self.members.push(Member {
            id,
            finish: false,
            link,
            rest: VecDeque::new(),
            lost: Lost::default(),
            full: false,
            awaited: false,
            told,
            heard: Instant::ZERO,
            greedy: false,
        });
        self.agree();
        self.next = next;
        Ok(id)
    }

    /// Closes one: the interface, and the namespace it lives in, are nobody's reason to stay any more.
    pub(crate) fn leave(&mut self, id: LinkId, events: &EventSet) -> Option<Remains> {
        let member = self.members.remove(self.find(id)?);
        // Others may hold the same open file; closing ours alone would leave it in the sets.
        for fd in [member.link.fd(), member.link.output()].into_iter().flatten() {
            events.remove(fd);
            self.alone.remove(fd);
        }
        let left = Lost { down: u64::try_from(member.rest.len()).unwrap_or(u64::MAX), ..member.lost };
        let mut stations = self.switch.stations_mut().forget(id.0);
        stations.sort_unstable();
        if member.told {
            self.tell(GuestNews::Left { link: id, macs: stations.clone() });
        }
        let remains = Remains { lost: left.and(member.link.close()), stations };
        self.gone = self.gone.and(remains.lost);
        Some(remains)
    }

    /// The first one, if there is any.
    pub(crate) fn first(&self) -> Option<LinkId> {
        self.members.first().map(|member| member.id)
    }

    /// Whether anybody was told of it.
    pub(crate) fn was_told(&self, id: LinkId) -> bool {
        self.find(id).and_then(|at| self.members.get(at)).is_some_and(|member| member.told)
    }

    /// What was lost before it was known whose it is.
    pub(crate) fn note(&mut self, lost: Lost) {
        self.gone = self.gone.and(lost);
    }

    /// Whether there is one of that number.
    pub(crate) fn has(&self, id: LinkId) -> bool {
        self.find(id).is_some()
    }

    /// Reads a frame from one: see [`Link::read_frame`]. `None`: there is none now, or no such link.
    pub(crate) fn read_frame(&mut self, id: LinkId, into: &mut [u8]) -> io::Result<Option<Arrived>> {
        let switched = self.is_switched();
        let Some(member) = self.find(id).and_then(|at| self.members.get_mut(at)) else { return Ok(None) };
        let read = member.link.read_frame(into)?;
        if member.full && member.link.found_room() {
            member.full = false;
        }
        if !member.told && !member.link.is_greeting() {
            member.told = true;
            self.tell(GuestNews::Joined(id));
        }
        let Some((offload, len)) = read else { return Ok(None) };
        let ours = !switched || self.pass_on(id, offload, into.get(..len).surely());
        Ok(Some(Arrived { offload, len, ours }))
    }

    /// A frame has come from a guest whose link has no descriptor of its own; whether the engine gets it.
    pub(crate) fn arrived(&mut self, id: LinkId, frame: &[u8]) -> bool {
        if let Some(Link::Datagrams(guest)) =
            self.find(id).and_then(|at| self.members.get_mut(at)).map(|member| &mut member.link)
        {
            guest.is_heard();
        }
        self.pass_on(id, UNCHECKED, frame)
    }

    /// Whether a frame is looked at before the engine gets it.
    const fn is_switched(&self) -> bool {
        self.guests || self.members.len() > 1
    }

    /// Takes a frame of a guest to other guests, if it is for them; whether the engine gets it.
    fn pass_on(&mut self, id: LinkId, offload: Offload, frame: &[u8]) -> bool {
        let Decision { way, new } = self.switch.decide(id.0, frame);
        if let Some(mac) = new {
            self.tell(GuestNews::Seen { link: id, mac });
        }
        let mtu = self.mtu;
        match way {
            Way::Us => true,
            Way::Port(port) => {
                if let Some(member) = self.find(LinkId(port)).and_then(|at| self.members.get_mut(at)) {
                    member.take_over(offload, frame, mtu);
                }
                false
            }
            Way::Everybody => {
                for member in self.members.iter_mut().filter(|member| member.id != id) {
                    member.take_over(offload, frame, mtu);
                }
                true
            }
            Way::Nobody(refusal) => {
                self.refuse(id, refusal, frame);
                false
            }
        }
    }

    fn refuse(&mut self, id: LinkId, refusal: Refusal, frame: &[u8]) {
        if refusal == Refusal::Forged {
            let holder = source(frame).and_then(|station| self.switch.stations().port_of(station));
            self.contested = holder.map(LinkId).or(self.contested);
        }
        let Some(member) = self.find(id).and_then(|at| self.members.get_mut(at)) else { return };
        let count = match refusal {
            Refusal::Short => &mut member.lost.misshapen,
            Refusal::Source | Refusal::Forged => &mut member.lost.forged,
            Refusal::Unknown | Refusal::Local => &mut member.lost.astray,
        };
        *count = count.saturating_add(1);
    }

    /// A link for whose station another one speaks, since this was last asked for: maybe its guest has gone, and come
    /// back by that other one.
    pub(crate) fn take_contested(&mut self) -> Option<LinkId> {
        self.contested.take()
    }

    /// Looks whether a guest is still there whose end nothing tells; reading then says so.
    pub(crate) fn look_after(&mut self, id: LinkId) {
        let ours = self.ours;
        match self.find(id).and_then(|at| self.members.get_mut(at)).map(|member| &mut member.link) {
            Some(Link::Datagrams(guest)) => guest.look(),
            Some(Link::Seqpacket(guest)) => guest.look(ours),
            _ => {}
        }
    }

    /// How much of a round is this link's.
    pub(crate) fn turn_of(&self, id: LinkId, now: Instant) -> Turn {
        let present = |member: &Member| member.id != id && now - member.heard < PRESENT;
        if self.members.len() <= 1 || !self.members.iter().any(present) {
            return Turn::Whole;
        }
        let greedy = self.find(id).and_then(|at| self.members.get(at)).is_some_and(|member| member.greedy);
        if greedy { Turn::Short } else { Turn::Part }
    }

    /// It had its turn, and maybe more than that to say.
    pub(crate) fn had_turn(&mut self, id: LinkId, now: Instant, greedy: bool) {
        if let Some(member) = self.find(id).and_then(|at| self.members.get_mut(at)) {
            (member.heard, member.greedy) = (now, greedy);
        }
    }

    /// Forgets stations of a link that has too many, but for those that are `in_use`: asked for only if it has.
    pub(crate) fn thin_out<I: Iterator<Item = MacAddr>>(&mut self, in_use: impl FnOnce() -> I) {
        if let Some(port) = self.switch.stations().crowded() {
            let mut used: Vec<_> = in_use().collect();
            used.sort_unstable();
            self.switch.stations_mut().thin_out(port, |station| used.binary_search(&station).is_ok());
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
            member.link.has_room();
        }
    }

    /// Watches those for room that had none, and no others. Returns whether there is one of which no event will tell.
    pub(crate) fn await_room(&mut self, events: &EventSet) -> bool {
        let mut untold = false;
        for member in self.members.iter_mut().filter(|member| member.full != member.awaited || member.full) {
            untold |= member.full && member.link.fd().is_none();
            if member.full != member.awaited {
                member.watch_room(events);
            }
        }
        untold
    }

    /// Those may have room again of which no event will tell.
    pub(crate) fn suppose_room(&mut self) {
        for member in self.members.iter_mut().filter(|member| member.link.fd().is_none()) {
            member.full = false;
        }
    }

    /// Waits for a frame on any, at most `timeout`.
    pub(crate) fn wait(&self, events: &mut Events, timeout: Duration) -> io::Result<()> {
        self.alone.wait(events, Some(timeout))
    }

    /// Frames of some link come by this descriptor, too.
    pub(crate) fn wait_for(&self, fd: BorrowedFd<'_>, token: Token) -> io::Result<()> {
        self.alone.add(fd, token, EpollFlags::EPOLLIN)
    }

    fn find(&self, id: LinkId) -> Option<usize> {
        self.members.binary_search_by_key(&id, |member| member.id).ok()
    }

    /// With several, or none: to the one whose station it is for; to all, if it is for a group, or nobody has looked
    /// from the beginning where stations are.
    fn distribute(&mut self, offload: Offload, frame: &[u8]) -> Result<(), Full> {
        match self.switch.decide_ours(frame) {
            Way::Port(port) => {
                let member = self.find(LinkId(port)).and_then(|at| self.members.get_mut(at));
                return member.map_or(Ok(()), |member| member.give(offload, frame));
            }
            Way::Nobody(_) if self.guests && !self.members.is_empty() => {
                self.gone.astray = self.gone.astray.saturating_add(1);
                return Ok(());
            }
            _ => {}
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
        let port = self.switch.stations().port_of(station);
        let member = port.and_then(|port| self.find(LinkId(port))).and_then(|at| self.members.get(at));
        member.is_none_or(|member| !member.full)
    }

    fn flush(&mut self) {
        for member in &mut self.members {
            // Whoever has no room for more is told of what it was given.
            let (rest, sent) = (member.give_rest(), member.link.send_rest());
            let refused = rest.and(sent).is_err();
            member.full |= refused;
        }
    }
}

#[cfg(test)]
mod tests;
