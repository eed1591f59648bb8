//! The event loop: the guest's link, the host's sockets and the clock on one side, the engine's verbs on the other.
//!
//! One [`Driver::turn`] is one round:
//!
//! ```text
//!   wait (epoll) ─▶ frames from the links ▶ events of sockets ─▶ timers ─▶ drain ─▶ back to the caller
//!        ▲          until it is dry; at most                       at most 128 KiB   with what is ready
//!        │          128 KiB and half a millisecond                                   of the caller's own
//!        └── not at all while drain says that more is left
//! ```
//!
//! **Latency while others transfer.** Whatever comes waits for what is under way, and then goes first; so budgets are
//! bytes and time, small enough that a round is short, and not frames, of which one may be a question or sixty-four
//! kilobytes. A question of the guest stands in the link's queue behind what was sent before it: small frames,
//! acknowledgements of downloads above all, are read until there are none, and how much of an upload may lie there is
//! bounded by the windows that the engine advertises. An answer of the host is drained before any download goes on (see
//! the engine's schedule).
//!
//! Invariants.
//! - Nothing blocks but the wait, and the wait has a timeout only if the engine or the caller has a deadline: an idle
//!   program is never woken. While wakes follow each other closely the wait begins with looking (see
//!   [`crate::busy_poll`]); while datagrams come in a dense stream it begins with letting them gather (see
//!   `moderation`).
//! - Links are level-triggered: frames beyond one round's budget make the next wait return at once, after sockets and
//!   timers have had their turn. One is watched for room only while the engine waits for that. Sockets of flows are
//!   edge-triggered (see [`crate::upstream`]). Descriptors of the caller are level-triggered; errors and hang-ups on
//!   them are always reported, so the caller must act on them.
//! - A small frame that ends a sleep is most likely alone, so no system call is spent on learning that no other
//!   follows; it is on its way before the link is looked at again. If there was another, the next wait returns at once,
//!   and then the link is read until it is empty.
//! - What changes the engine between two rounds (a new forwarded connection) is drained before the next wait.
//! - No round fails for a flow's sake, nor for a link's: its end is told once ([`Driver::take_loss`]), and whatever
//!   is left goes on without it.
//! - Several links ([`crate::device::links`]) share a round's budget, so that one which always has something costs the
//!   others little. What is known of one guest's rhythm is of no use then: waits neither look nor let datagrams gather.
//! - What a link has read ahead is no reason to sleep: no event tells of it.

mod guests;
mod network;
mod ready;
mod record;
mod services;
mod shortcut;

use crate::busy_poll::{BusyPoll, Woken};
use crate::clock;
use crate::device::links::{Arrived, Remains, Turn};
use crate::device::pcap::Packets;
use crate::device::{Link, LinkId, Links, Lost, MAX_FRAME};
use crate::epoll::Events;
use crate::moderation::Moderation;
use crate::sys::heap;
use crate::token::Token;
use crate::trim::Trim;
use crate::upstream::{Sockets, Stream};
pub use guests::GuestListener;
use guests::Guests;
use nix::sys::epoll::EpollFlags;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
pub use ready::{Interest, Ready};
use shortcut::Bypass;
pub use shortcut::Shortcut;
use slipway_netstack::addr::canonical;
use slipway_netstack::drop_reason::DropReason;
use slipway_netstack::surely::Surely;
use slipway_netstack::upstream::{Client, Errno, Event, Forwarded};
use slipway_netstack::within::dns;
use slipway_netstack::{Engine, FlowId, Instant};
use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

/// How long frames are taken from the link in one round: what a frame costs depends on what it asks for.
const READING: Duration = Duration::from_micros(500);
/// After so many frames that time is looked at.
const FRAMES_A_LOOK: usize = 16;
/// Bytes taken from the link in one round: two super-frames. The guest gets its acknowledgement, and goes on on another
/// core, while we have not yet read all it sent; larger rounds cost a tenth of the upload.
const BYTE_BUDGET: usize = 128 << 10;
/// A turn of a link that always has something, while others have, too: what they ask waits for this.
const SHORT_READING: Duration = Duration::from_micros(32);
const SHORT_BUDGET: usize = 64 << 10;
/// A wait that took this long has slept: what ended it has only just come.
const SLEPT: Duration = Duration::from_micros(4);
/// A frame that asks or acknowledges, rather than one of a stream.
const SMALL_FRAME: usize = 512;

/// How a link has ended.
#[derive(Debug)]
pub struct Loss {
    /// Which one.
    pub link: LinkId,
    /// The interface was deleted, or the guest has hung up.
    pub reason: io::Error,
    /// What it had not carried.
    pub lost: Lost,
}

/// An engine at work: it owns the engine, the links, the sockets of flows and the epoll set.
#[derive(Debug)]
pub struct Driver {
    engine: Engine,
    links: Links,
    sockets: Sockets,
    events: Events,
    ready: Vec<Ready>,
    frame: Box<[u8]>,
    polling: BusyPoll,
    moderation: Moderation,
    trim: Trim,
    /// Bytes that the caller holds for guests besides the engine.
    held_by_caller: usize,
    /// Links that have ended, until the caller has asked.
    losses: VecDeque<Loss>,
    /// The engine has things to send that the last drain did not see.
    changed: bool,
    /// The last drain has left something.
    more: bool,
    /// What goes past the engine, if anything may.
    bypass: Option<Box<Bypass>>,
    /// Where packets are written down.
    packets: Option<Packets>,
    /// The port that the next connection of ours seems to come from.
    dial_port: u16,
    /// Where guests come in, if they come and go.
    guests: Option<Box<Guests>>,
}

impl Driver {
    /// Puts `engine` to work on `link`.
    ///
    /// # Errors
    /// The kernel's: out of descriptors or memory.
    pub fn new(engine: Engine, link: Link) -> io::Result<Self> {
        let mut driver = Self::idle(engine)?;
        driver.join_link(link)?;
        Ok(driver)
    }

    /// The same before there is a link.
    ///
    /// # Errors
    /// The kernel's: out of descriptors or memory.
    pub fn idle(engine: Engine) -> io::Result<Self> {
        Ok(Self {
            links: Links::new(engine.config().mac, engine.config().device, engine.config().mtu.bytes())?,
            engine,
            sockets: Sockets::new()?,
            events: Events::default(),
            ready: Vec::new(),
            frame: vec![0; MAX_FRAME].into_boxed_slice(),
            losses: VecDeque::new(),
            polling: BusyPoll::for_this_machine(),
            moderation: Moderation::default(),
            trim: Trim::default(),
            held_by_caller: 0,
            changed: true,
            more: false,
            bypass: None,
            packets: None,
            dial_port: services::FIRST_PORT,
            guests: None,
        })
    }

    /// Watches a descriptor of the caller's, level-triggered; [`Driver::turn`] reports it by `token`. Errors and
    /// hang-ups are reported whatever the interest. The caller keeps the descriptor, and calls [`Driver::unwatch`]
    /// before closing it.
    ///
    /// # Errors
    /// The kernel's: already watched, of a kind that cannot be waited for (a plain file), out of watches or memory.
    pub fn watch(&mut self, fd: BorrowedFd<'_>, interest: Interest, token: u32) -> io::Result<()> {
        self.sockets.events().add(fd, Token::Foreign(token), interest.flags())
    }

    /// Changes what a watched descriptor is waited for, or its token.
    ///
    /// # Errors
    /// The kernel's: not watched.
    pub fn modify(&mut self, fd: BorrowedFd<'_>, interest: Interest, token: u32) -> io::Result<()> {
        self.sockets.events().modify(fd, Token::Foreign(token), interest.flags())
    }

    /// Watches it no longer. A report of the current round may still name its token.
    pub fn unwatch(&mut self, fd: BorrowedFd<'_>) {
        self.sockets.events().remove(fd);
    }

    /// The engine, to look or to change a setting. What it then wants to send leaves in the next round.
    pub fn engine(&mut self) -> &mut Engine {
        self.changed = true;
        &mut self.engine
    }

    /// The engine, only to look.
    #[must_use]
    pub fn peek_engine(&self) -> &Engine {
        &self.engine
    }

    /// Sets how long a wait may look before it sleeps, while wakes follow each other closely; zero: not at all. See
    /// [`crate::busy_poll`].
    pub fn set_busy_poll(&mut self, window: Duration) {
        self.polling = BusyPoll::new(window);
    }

    /// The next question that the guest sent to the DNS address in the last round. Answers go to the engine.
    pub fn dns_query(&mut self) -> Option<dns::Query> {
        self.engine.dns_query()
    }

    /// The next connection that the guest made to the DNS address, and the flow it belongs to. What is written to the
    /// stream leaves in the next round.
    pub fn dns_stream(&mut self) -> Option<(FlowId, Stream)> {
        self.sockets.take_stream()
    }

    /// The next connection to the DNS address of which there is something to hear: see [`Stream::heard`].
    pub fn dns_news(&mut self) -> Option<FlowId> {
        self.sockets.news_for_resolver()
    }

    /// Ends a connection by a reset on both sides.
    pub fn reset(&mut self, flow: FlowId) {
        self.changed = true;
        self.engine.reset(clock::now(), flow, &mut self.sockets);
    }

    /// The guests' links.
    #[must_use]
    pub const fn links(&self) -> &Links {
        &self.links
    }

    /// Serves one more link. Whoever is behind it is somebody new: of a guest whose link has ended nothing is left.
    ///
    /// # Errors
    /// The kernel's: out of watches or memory.
    pub fn join_link(&mut self, link: Link) -> io::Result<LinkId> {
        let first = self.links.is_empty();
        let id = self.links.join(link, self.engine.stations(), self.sockets.events())?;
        self.engine.set_device(self.links.capabilities());
        if first {
            // Whoever has waited meanwhile did so for somebody else.
            self.forget_guests();
        }
        Ok(id)
    }

    /// Closes a link, and ends its flows as those of guests that are gone ([`Engine::forget_guests`]). Orphans live on.
    /// Nothing happens if it has ended already.
    pub fn leave(&mut self, link: LinkId) {
        self.hang_up(clock::now(), link);
    }

    /// Closes all of them, and ends all flows.
    pub fn close_links(&mut self) {
        while let Some(link) = self.links.first() {
            self.links.leave(link, self.sockets.events());
        }
        self.engine.set_device(self.links.capabilities());
        self.forget_guests();
    }

    fn hang_up(&mut self, now: Instant, link: LinkId) -> Option<Lost> {
        let Remains { lost, stations } = self.links.leave(link, self.sockets.events())?;
        self.engine.set_device(self.links.capabilities());
        self.changed = true;
        if self.links.is_empty() {
            self.engine.forget_guests(now, &mut self.sockets);
        } else {
            let gone = |station| stations.binary_search(&station).is_ok();
            self.engine.forget_stations(now, gone, &mut self.sockets);
        }
        Some(lost)
    }

    /// A link that has ended, told once. It is closed, and its flows have ended ([`Driver::leave`]); frames to its
    /// guest are lost and counted.
    pub fn take_loss(&mut self) -> Option<Loss> {
        self.losses.pop_front()
    }

    /// One round: sleeps until something happens or `deadline` comes (not at all while the engine has things to
    /// send), carries frames and socket data both ways, and returns the caller's own descriptors that are ready.
    ///
    /// # Errors
    /// Those of epoll_wait(2).
    pub fn turn(&mut self, deadline: Option<Instant>) -> io::Result<&[Ready]> {
        self.ready.clear();
        self.sockets.begin_round(clock::now());
        for (flow, event) in self.sockets.news_from_within() {
            self.engine.on_upstream(clock::now(), flow, event, &mut self.sockets);
            self.changed = true;
        }
        // While more is left there is a drain in each round anyway, and frames and events come before a second one.
        if self.changed && !self.more {
            self.drain(clock::now());
        }
        let before = clock::now();
        let now = self.wait(before, deadline)?;
        let slept = !self.more && now - before >= SLEPT;
        let woken = self.dispatch(now, slept);
        if !woken.by_guest && !woken.by_host && !self.engine.is_sending() {
            self.sockets.rest();
        }
        self.polling.waited(now - before, woken);
        self.moderation.waited(now - before, woken, self.sockets.take_datagrams());
        if self.engine.next_timeout().is_some_and(|due| due <= now) {
            self.engine.on_timeout(now, &mut self.sockets);
        }
        self.care_for_guests(now);
        self.drain(now);
        self.work_on_shortcut(now);
        self.give_back_memory(now);
        Ok(&self.ready)
    }

    /// Says how many bytes the caller holds for guests besides the engine: once they are given up, the heap is told to
    /// return them to the system as it is for the engine's own.
    pub fn count_memory(&mut self, bytes: usize) {
        if bytes != self.held_by_caller {
            self.held_by_caller = bytes;
            self.give_back_memory(clock::now());
        }
    }

    fn give_back_memory(&mut self, now: Instant) {
        if self.trim.is_due(now, self.engine.memory().saturating_add(self.held_by_caller)) {
            heap::trim();
        }
    }

    /// Lets the engine send, and watches links for room that had too little.
    fn drain(&mut self, now: Instant) {
        self.changed = false;
        self.more = self.drain_engine(now);
        let untold = self.links.await_room(self.sockets.events());
        self.expect_room(now, untold);
    }

    /// Waits, and returns when that ended.
    fn wait(&mut self, began: Instant, deadline: Option<Instant>) -> io::Result<Instant> {
        let timeout = self.timeout(began, deadline);
        if timeout.is_some_and(|timeout| timeout.is_zero()) {
            self.sockets.events().wait(&mut self.events, timeout)?;
            return Ok(clock::now());
        }
        let alone = self.links.len() <= 1;
        if alone && let Some(pause) = self.moderation.pause() {
            self.links.wait(&mut self.events, pause.min(timeout.unwrap_or(Duration::MAX)))?;
            self.sockets.events().wait(&mut self.events, Some(Duration::ZERO))?;
            return Ok(clock::now());
        }
        let budget = if alone { self.polling.budget(began) } else { Duration::ZERO };
        let budget = budget.min(timeout.unwrap_or(Duration::MAX));
        let mut now = began;
        while now - began < budget {
            let look = now;
            self.sockets.events().wait(&mut self.events, Some(Duration::ZERO))?;
            now = clock::now();
            if self.events.get(0).is_some() {
                return Ok(now);
            }
            if !self.polling.looked(now, now - look) {
                break;
            }
        }
        let left = self.timeout(now, deadline);
        self.sockets.events().wait(&mut self.events, left)?;
        Ok(clock::now())
    }

    /// How long the wait may last; `None`: for ever.
    fn timeout(&self, now: Instant, deadline: Option<Instant>) -> Option<Duration> {
        let bypass = self.bypass.as_deref();
        let ahead = self.links.ahead().next().is_some();
        if self.changed || self.more || ahead || bypass.is_some_and(Bypass::is_busy) {
            return Some(Duration::ZERO);
        }
        let bypass = bypass.and_then(Bypass::next_timeout);
        let guests = self.guests.as_ref().and_then(|guests| guests.next_timeout());
        let due = [self.engine.next_timeout(), deadline, self.trim.deadline(), bypass, guests];
        let due = due.into_iter().flatten().min()?;
        Some(due - now)
    }

    /// Hands out what the wait found.
    fn dispatch(&mut self, now: Instant, slept: bool) -> Woken {
        let mut woken = Woken::default();
        // Whatever a link has read beyond the last round's budget, the kernel tells of no more.
        let mut ahead: Vec<LinkId> = self.links.ahead().collect();
        let mut at = 0;
        while let Some((token, flags)) = self.events.get(at) {
            at += 1;
            match token {
                Some(Token::Link(number)) => {
                    ahead.retain(|link| *link != LinkId(number) || flags == EpollFlags::EPOLLOUT);
                    woken.by_guest |= self.on_link(LinkId(number), flags, now, slept);
                }
                Some(Token::Flow(flow)) => {
                    woken.by_host = true;
                    for event in self.sockets.decode(flow, flags) {
                        self.engine.on_upstream(now, flow, event, &mut self.sockets);
                    }
                }
                Some(Token::Foreign(token)) => {
                    woken.by_host = true;
                    self.ready.push(Ready::new(token, flags));
                }
                Some(Token::Door(number)) => {
                    let frames = self.on_door(number, now);
                    woken.by_guest |= frames;
                    woken.by_host |= !frames;
                }
                Some(token) => {
                    let by = self.on_shortcut(now, token, flags);
                    woken.by_guest |= by.by_guest;
                    woken.by_host |= by.by_host;
                }
                None => {}
            }
        }
        for link in ahead {
            woken.by_guest |= self.on_link(link, EpollFlags::EPOLLIN, now, slept);
        }
        woken
    }

    /// A link has news; whether it is more than room, of which the drain that follows makes use.
    fn on_link(&mut self, link: LinkId, flags: EpollFlags, now: Instant, slept: bool) -> bool {
        if flags.contains(EpollFlags::EPOLLOUT) {
            self.links.has_room(link);
            if flags == EpollFlags::EPOLLOUT {
                return false;
            }
        }
        if let Err(reason) = self.read_link(link, now, slept) {
            self.lose_link(now, link, reason);
        }
        true
    }

    /// Takes frames until there are none, or the link's part of the round's budget is spent.
    fn read_link(&mut self, link: LinkId, now: Instant, slept: bool) -> io::Result<()> {
        let (began, reading, most) = match self.links.turn_of(link, now) {
            Turn::Whole => (now, READING, BYTE_BUDGET),
            Turn::Part => (clock::now(), READING / 4, BYTE_BUDGET / 2),
            Turn::Short => (clock::now(), SHORT_READING, SHORT_BUDGET),
        };
        let (mut bytes, mut spent) = (0, false);
        for nth in 1usize.. {
            let Some(Arrived { offload, len, ours }) = self.links.read_frame(link, &mut self.frame)? else {
                break;
            };
            if ours {
                self.note_frame(len);
                let frame = self.frame.get(..len).surely();
                self.engine.on_frame(now, offload, frame, &mut self.sockets);
            }
            bytes += len;
            let lone = slept && bytes <= SMALL_FRAME;
            let late = nth.is_multiple_of(FRAMES_A_LOOK) && clock::now() - began >= reading;
            spent = late || bytes >= most;
            if lone || spent {
                break;
            }
        }
        self.links.had_turn(link, now, spent);
        self.links.thin_out(|| self.engine.stations());
        Ok(())
    }

    /// A connection accepted on a forwarded port becomes a flow from `client` to `guest`, the guest's own address.
    /// The driver owns `socket` from now on.
    ///
    /// # Errors
    /// When the engine has no place for it, or the host none in the epoll set; the client then gets a reset.
    pub fn accept_tcp(
        &mut self,
        socket: OwnedFd,
        client: SocketAddr,
        guest: SocketAddr,
    ) -> Result<FlowId, DropReason> {
        let now = clock::now();
        let flow = match self.engine.accept_tcp(now, canonical(client), guest) {
            Ok(flow) => flow,
            Err(reason) => {
                log::debug!("TCP from {client} to the guest's {guest} is refused: {}", reason.name());
                Sockets::refuse(socket);
                return Err(reason);
            }
        };
        log::trace!("{flow:?}: TCP from {client} to the guest's {guest}");
        self.changed = true;
        if self.sockets.attach_tcp(flow, socket).is_err() {
            self.engine.on_upstream(now, flow, Event::Failed(Errno::Exhausted), &mut self.sockets);
            return Err(DropReason::NoRoom);
        }
        Ok(flow)
    }

    /// `listener`, the socket of a forwarded UDP port, received `datagrams`. Answers leave through it, from the address
    /// that the client sent to; the caller alone reads from it, and says when it is to be closed
    /// ([`Driver::release_udp`]).
    ///
    /// # Errors
    /// When the engine has no place for it; the datagrams are lost, as on any network.
    pub fn accept_udp(
        &mut self,
        listener: &Rc<OwnedFd>,
        datagrams: &Forwarded<'_>,
    ) -> Result<FlowId, DropReason> {
        let now = clock::now();
        let client = Client { address: canonical(datagrams.client.address), ..datagrams.client };
        let inbound = self.engine.accept_udp(now, &Forwarded { client, ..*datagrams }, &mut self.links)?;
        self.changed = true;
        if inbound.new {
            log::trace!("{:?}: UDP from {} to the guest's {}", inbound.flow, client.address, datagrams.guest);
            self.sockets.attach_udp_shared(inbound.flow, Rc::clone(listener), client.at);
        }
        Ok(inbound.flow)
    }

    /// The station that had `guest` has left the link: its connections are reset, its other flows end.
    pub fn forget_guest(&mut self, guest: IpAddr) {
        self.changed = true;
        self.engine.forget_guest(clock::now(), guest, &mut self.sockets);
    }

    /// Nobody is on the link any more: all connections are reset, all other flows end.
    pub fn forget_guests(&mut self) {
        self.changed = true;
        self.engine.forget_guests(clock::now(), &mut self.sockets);
    }

    /// The guest's end of a flow.
    #[must_use]
    pub fn guest_of(&mut self, flow: FlowId) -> Option<SocketAddr> {
        self.engine.guest_of(flow)
    }

    /// Another station may have the address `guest` now.
    pub fn forget_neighbour(&mut self, guest: IpAddr) {
        self.engine.forget_neighbour(guest);
    }

    /// The forwarded port of `listener` is no more: the flows that hold on to the socket end, so that the port is free
    /// when the caller drops it.
    pub fn release_udp(&mut self, listener: &Rc<OwnedFd>) {
        for flow in self.sockets.sharing(listener) {
            self.engine.end_udp(flow, &mut self.sockets);
        }
        if let Some(bypass) = &mut self.bypass {
            bypass.release(listener);
        }
    }
}

impl Drop for Driver {
    /// However the program ends, a connection that is complete is closed, and its peer gets the rest from the kernel.
    /// Every other one is reset when the sockets go: nobody takes a part for the whole.
    fn drop(&mut self) {
        self.engine.forget_guests(clock::now(), &mut self.sockets);
    }
}

/// Raises the limit of open descriptors as far as the system allows without privilege, and returns it.
///
/// # Errors
/// The kernel's; the old limit then stays.
pub fn raise_descriptor_limit() -> io::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(hard)
}
