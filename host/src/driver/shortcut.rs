//! What goes past the engine: the shortcut of loopback traffic ([`crate::splice`]), and the thread inside from which it
//! has its sockets ([`crate::inside`]).
//!
//! A socket of the namespace is taken from those that lie ready. While none does, the client waits for the bell. When
//! none can be had (the host is out of descriptors, the thread is gone), or the way there does not exist yet, the
//! client of a host's port goes by the guest's link, as without a shortcut: that is slower, and no error. A client
//! inside the namespace has no other way; it waits as long as the want is one of descriptors.

use super::Driver;
use crate::busy_poll::Woken;
use crate::clock;
use crate::epoll::EventSet;
use crate::inside::{Inside, Kind, Side};
use crate::netlink::Netlink;
use crate::splice::{Conversation, Datagrams, Parties, Proto, Streams};
use crate::token::Token;
use crate::upstream::{Sockets, bind_source};
use nix::errno::Errno;
use nix::sys::epoll::EpollFlags;
use nix::sys::socket::{SockaddrStorage, connect};
use slipway_netstack::Instant;
use slipway_netstack::addr::canonical;
use slipway_netstack::drop_reason::DropReason;
use slipway_netstack::upstream::{Client, Forwarded, Meta, Source};
use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

/// Clients that wait for a socket. What is beyond goes by the link, or is turned away.
const MOST_WAITING: usize = 256;
/// Bytes of datagrams that wait.
const MOST_BYTES: usize = 1 << 20;
/// A guest's link-local address may change; the next look is so much later.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// After descriptors ran out, those who wait are tried again.
const RETRY: Duration = Duration::from_millis(100);

/// What may go by the shortcut, and where it leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Shortcut {
    /// Connections.
    pub tcp: bool,
    /// Datagrams.
    pub udp: bool,
    /// Clients of the host come out at the loopback address that they went to, instead of at the guest's own address:
    /// they reach what listens on loopback alone.
    pub loopback_destination: bool,
    /// The guest's own addresses, IPv4 and IPv6, where they differ from those that the engine knows.
    pub guest: [Option<IpAddr>; 2],
}

/// The shortcut at work.
#[derive(Debug)]
pub(super) struct Bypass {
    inside: Inside,
    shortcut: Shortcut,
    streams: Streams,
    datagrams: Datagrams,
    waiting: VecDeque<Waiting>,
    retry_at: Option<Instant>,
    /// For a guest without a public address: where its link-local one is asked for, and what was found when.
    addresses: Option<Netlink>,
    link_local: Option<(Instant, Option<SocketAddrV6>)>,
}

/// A client whose socket is still to come.
#[derive(Debug)]
struct Waiting {
    since: Instant,
    parties: Parties,
    who: Who,
}

#[derive(Debug)]
enum Who {
    Stream(OwnedFd),
    Datagrams(Rc<OwnedFd>, Box<Train>),
}

/// [`Forwarded`], kept.
#[derive(Debug)]
struct Train {
    client: Client,
    guest: SocketAddr,
    payload: Box<[u8]>,
    segment: usize,
    meta: Meta,
}

impl Train {
    fn keep(train: &Forwarded<'_>) -> Self {
        let Forwarded { client, guest, payload, segment, meta } = *train;
        Self { client, guest, payload: payload.into(), segment, meta }
    }

    const fn forwarded(&self) -> Forwarded<'_> {
        let Self { client, guest, ref payload, segment, meta } = *self;
        Forwarded { client, guest, payload, segment, meta }
    }
}

/// Why a client does not go by the shortcut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Detour {
    /// There is no socket, or no way: it may go by the link.
    ByLink,
    /// Its socket is still to come.
    Wait,
    /// Nobody is there.
    Refused,
}

impl Bypass {
    fn new(inside: Inside, shortcut: Shortcut) -> Self {
        let addresses = inside.ask(Netlink::open).ok().and_then(Result::ok);
        Self {
            addresses,
            link_local: None,
            inside,
            shortcut,
            streams: Streams::default(),
            datagrams: Datagrams::default(),
            waiting: VecDeque::new(),
            retry_at: None,
        }
    }

    /// Whether there is something to do now.
    pub(super) fn is_busy(&self) -> bool {
        self.streams.is_busy() || self.datagrams.is_busy()
    }

    /// When there will be something to do.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        [self.datagrams.next_timeout(), self.retry_at].into_iter().flatten().min()
    }

    /// The listener is about to be closed.
    pub(super) fn release(&mut self, listener: &Rc<OwnedFd>) {
        self.datagrams.release(listener);
        let is_theirs = |who: &Who| matches!(who, Who::Datagrams(theirs, _) if Rc::ptr_eq(theirs, listener));
        self.waiting.retain(|one| !is_theirs(&one.who));
    }

    /// A link-local address of the guest's, with its link as the guest's namespace numbers it. Asked for once a second
    /// at most, of the kernel itself.
    fn link_local(&mut self, now: Instant) -> Option<SocketAddrV6> {
        if let Some((at, found)) = self.link_local
            && now < at + LOOK_AGAIN
        {
            return found;
        }
        let all = self.addresses.as_mut()?.addresses().unwrap_or_default();
        let found = all.iter().find_map(|address| match address.net.addr() {
            IpAddr::V6(v6) if v6.is_unicast_link_local() => {
                Some(SocketAddrV6::new(v6, 0, 0, address.interface))
            }
            _ => None,
        });
        self.link_local = Some((now, found));
        found
    }

    /// A socket that is connected, or about to be, on the side across.
    fn open(&mut self, parties: Parties, kind: Kind, from: Source) -> Result<OwnedFd, Detour> {
        let (side, to) = (parties.side, parties.server);
        let ready = match side {
            Side::Host => self.inside.take(kind),
            Side::Namespace => kind.open().map(Some).map_err(io::Error::from),
        };
        let socket = match ready {
            Ok(socket) => socket.ok_or(Detour::Wait)?,
            Err(error) => {
                log::debug!("{to}: no socket for the shortcut: {error}");
                return Err(if side == Side::Host { Detour::ByLink } else { Detour::Wait });
            }
        };
        // An address or port that cannot be had on this side is no reason to fail.
        let _ = bind_source(socket.as_fd(), to.ip(), from);
        match connect(socket.as_raw_fd(), &SockaddrStorage::from(to)) {
            Ok(()) | Err(Errno::EINPROGRESS | Errno::EINTR) => Ok(socket),
            Err(Errno::ECONNREFUSED) => Err(Detour::Refused),
            Err(errno) => {
                log::debug!("{to}: no way there by the shortcut: {errno}");
                Err(Detour::ByLink)
            }
        }
    }

    /// Leads a connection across.
    fn lead(
        &mut self,
        parties: Parties,
        client: OwnedFd,
        events: &EventSet,
    ) -> Result<(), (OwnedFd, Detour)> {
        let from = Source { address: parties.address_across(), ..Source::default() };
        match self.open(parties, Kind::tcp(parties.server.ip()), from) {
            Ok(server) => {
                log::trace!("TCP from {} to {} by the shortcut", parties.client, parties.server);
                if let Err(error) = self.streams.join(client, server, parties, events) {
                    log::debug!("{}: reset, for it cannot be watched: {error}", parties.client);
                }
                Ok(())
            }
            Err(detour) => Err((client, detour)),
        }
    }

    /// Leads datagrams across.
    fn lead_datagrams(
        &mut self,
        now: Instant,
        parties: Parties,
        listener: &Rc<OwnedFd>,
        train: &Forwarded<'_>,
        events: &EventSet,
    ) -> Result<(), Detour> {
        if self.datagrams.send(now, listener, train) {
            return Ok(());
        }
        let (address, port) = (parties.address_across(), parties.client.port());
        let from = Source { address, port, ..Source::default() };
        let socket = self.open(parties, Kind::udp(parties.server.ip()), from)?;
        let across = (parties.side, parties.server);
        log::trace!("UDP from {} to {} by the shortcut", parties.client, parties.server);
        self.datagrams
            .begin(now, (listener, train.client), socket, across, events)
            .map_err(|_| Detour::Refused)?;
        self.datagrams.send(now, listener, train);
        Ok(())
    }

    /// Has somebody wait; who it was if there are too many.
    fn put_off(&mut self, now: Instant, one: Waiting) -> Result<(), Waiting> {
        let bytes = |one: &Waiting| match &one.who {
            Who::Stream(_) => 0,
            Who::Datagrams(_, train) => train.payload.len(),
        };
        let all: usize = self.waiting.iter().map(bytes).sum();
        if self.waiting.len() >= MOST_WAITING || all >= MOST_BYTES {
            return Err(one);
        }
        self.waiting.push_back(one);
        self.retry_at.get_or_insert(now + RETRY);
        Ok(())
    }
}

impl Driver {
    /// Has a thread in the guest's namespace, and lets loopback traffic take the shortcut there.
    ///
    /// # Errors
    /// The kernel's: out of watches or memory.
    pub fn set_inside(&mut self, inside: Inside, shortcut: Shortcut) -> io::Result<()> {
        self.sockets.events().add(inside.bell(), Token::Inside, EpollFlags::EPOLLIN)?;
        self.bypass = Some(Box::new(Bypass::new(inside, shortcut)));
        Ok(())
    }

    /// The thread in the guest's namespace.
    #[must_use]
    pub fn inside(&self) -> Option<&Inside> {
        self.bypass.as_ref().map(|bypass| &bypass.inside)
    }

    /// Changes what goes by the shortcut from now on, and where it leads.
    pub fn set_shortcut(&mut self, shortcut: Shortcut) {
        if let Some(bypass) = &mut self.bypass {
            bypass.shortcut = shortcut;
        }
    }

    /// Whether loopback clients of this side may go by the shortcut. Those inside the namespace have no other way.
    #[must_use]
    pub fn has_shortcut(&self, side: Side) -> bool {
        self.bypass.as_ref().is_some_and(|bypass| match side {
            Side::Host => bypass.shortcut.tcp || bypass.shortcut.udp,
            Side::Namespace => true,
        })
    }

    /// The conversations that go by the shortcut. They are no flows of the engine's.
    pub fn conversations(&self) -> impl Iterator<Item = Conversation> {
        self.bypass.iter().flat_map(|bypass| bypass.streams.list().chain(bypass.datagrams.list()))
    }

    /// How many there are, each with two descriptors over TCP and one over UDP.
    #[must_use]
    pub fn count_conversations(&self) -> usize {
        self.bypass.as_ref().map_or(0, |bypass| bypass.streams.len() + bypass.datagrams.len())
    }

    /// Carries the connection of `client`, who came to `local` on `side`, on to `port` on the other side. The driver
    /// owns `socket` from now on.
    ///
    /// # Errors
    /// When there is no way for it; the client then gets a reset.
    pub fn splice_tcp(
        &mut self,
        side: Side,
        socket: OwnedFd,
        client: SocketAddr,
        local: SocketAddr,
        port: u16,
    ) -> Result<(), DropReason> {
        let now = clock::now();
        let client = canonical(client);
        match self.across(Proto::Tcp, side, (client, local), port) {
            Some(parties) => self.lead(now, now, parties, socket),
            None => self.by_link(side, socket, client, port),
        }
    }

    /// Carries datagrams that came to `listener` on `side` on to the other side, to the port of `datagrams.guest`.
    /// Answers leave through `listener`, as with [`Driver::accept_udp`].
    ///
    /// # Errors
    /// When there is no way for them; they are lost.
    pub fn splice_udp(
        &mut self,
        side: Side,
        listener: &Rc<OwnedFd>,
        datagrams: &Forwarded<'_>,
    ) -> Result<(), DropReason> {
        let now = clock::now();
        let client = Client { address: canonical(datagrams.client.address), ..datagrams.client };
        let train = Forwarded { client, ..*datagrams };
        match self.across(Proto::Udp, side, (client.address, client.at), train.guest.port()) {
            Some(parties) => self.lead_datagrams(now, now, parties, listener, &train),
            None => self.datagrams_by_link(side, listener, &train),
        }
    }

    /// Where `client`, who came to `local`, is led by the shortcut, if it may go there.
    fn across(
        &mut self,
        proto: Proto,
        side: Side,
        (client, local): (SocketAddr, SocketAddr),
        port: u16,
    ) -> Option<Parties> {
        let bypass = self.bypass.as_mut()?;
        let Shortcut { tcp, udp, loopback_destination, guest: [v4, v6] } = bypass.shortcut;
        let local = local.ip().to_canonical();
        let may = match proto {
            Proto::Tcp => tcp,
            Proto::Udp => udp,
        };
        if !client.ip().is_loopback() || !local.is_loopback() || (side == Side::Host && !may) {
            return None;
        }
        let server = if side == Side::Namespace || loopback_destination {
            SocketAddr::new(local, port)
        } else {
            let named = if local.is_ipv6() { v6 } else { v4 };
            let public = named.or_else(|| self.engine.guest_address(local.is_ipv6()));
            // To one of a link's own addresses the link has to be named, as the namespace calls it.
            let is_of_a_link = |ip: &IpAddr| matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local());
            match public.filter(|ip| !is_of_a_link(ip)) {
                Some(public) => SocketAddr::new(public, port),
                None if local.is_ipv6() => {
                    let mut address = bypass.link_local(clock::now())?;
                    address.set_port(port);
                    address.into()
                }
                None => return None,
            }
        };
        Some(Parties { side, client, server })
    }

    fn lead(
        &mut self,
        now: Instant,
        since: Instant,
        parties: Parties,
        socket: OwnedFd,
    ) -> Result<(), DropReason> {
        let Parties { side, client, server } = parties;
        let Some(bypass) = &mut self.bypass else { return self.by_link(side, socket, client, server.port()) };
        match bypass.lead(parties, socket, self.sockets.events()) {
            Ok(()) => Ok(()),
            Err((socket, Detour::Wait)) if now - since < patience(side) => {
                let one = Waiting { since, parties, who: Who::Stream(socket) };
                match bypass.put_off(now, one) {
                    Err(Waiting { who: Who::Stream(socket), .. }) => {
                        self.by_link(side, socket, client, server.port())
                    }
                    _ => Ok(()),
                }
            }
            Err((socket, Detour::Refused)) => {
                Sockets::refuse(socket);
                Err(DropReason::Upstream)
            }
            Err((socket, _)) => self.by_link(side, socket, client, server.port()),
        }
    }

    fn lead_datagrams(
        &mut self,
        now: Instant,
        since: Instant,
        parties: Parties,
        listener: &Rc<OwnedFd>,
        train: &Forwarded<'_>,
    ) -> Result<(), DropReason> {
        let Some(bypass) = &mut self.bypass else {
            return self.datagrams_by_link(parties.side, listener, train);
        };
        match bypass.lead_datagrams(now, parties, listener, train, self.sockets.events()) {
            Ok(()) => Ok(()),
            Err(Detour::Wait) if now - since < patience(parties.side) => {
                let who = Who::Datagrams(Rc::clone(listener), Box::new(Train::keep(train)));
                bypass.put_off(now, Waiting { since, parties, who }).map_err(|_| DropReason::NoRoom)
            }
            Err(Detour::Refused) => Err(DropReason::Upstream),
            Err(_) => self.datagrams_by_link(parties.side, listener, train),
        }
    }

    /// A client of the host goes to the guest as any other would.
    fn by_link(
        &mut self,
        side: Side,
        socket: OwnedFd,
        client: SocketAddr,
        port: u16,
    ) -> Result<(), DropReason> {
        let guest = self.engine.guest_address(client.is_ipv6()).filter(|_| side == Side::Host);
        let Some(guest) = guest else {
            Sockets::refuse(socket);
            return Err(DropReason::NoSuchHost);
        };
        self.accept_tcp(socket, client, SocketAddr::new(guest, port)).map(drop)
    }

    fn datagrams_by_link(
        &mut self,
        side: Side,
        listener: &Rc<OwnedFd>,
        train: &Forwarded<'_>,
    ) -> Result<(), DropReason> {
        let ipv6 = train.client.address.is_ipv6();
        let guest = self.engine.guest_address(ipv6).filter(|_| side == Side::Host);
        let guest = guest.ok_or(DropReason::NoSuchHost)?;
        let train = Forwarded { guest: SocketAddr::new(guest, train.guest.port()), ..*train };
        self.accept_udp(listener, &train).map(drop)
    }

    /// Something has happened that is no business of the engine's. Who it was: of an exchange by the shortcut, the one
    /// within the namespace is as good as a guest.
    pub(super) fn on_shortcut(&mut self, now: Instant, token: Token, flags: EpollFlags) -> Woken {
        let by_host = Woken { by_host: true, ..Woken::default() };
        let Some(bypass) = &mut self.bypass else { return by_host };
        match token {
            Token::Splice { place, generation, server } => {
                let side = bypass.streams.on_event(place, generation, server, flags, self.sockets.events());
                return Woken { by_guest: side == Some(Side::Namespace), by_host: side == Some(Side::Host) };
            }
            Token::SpliceUdp { place, generation } => bypass.datagrams.on_event(place, generation, flags),
            Token::Inside => {
                bypass.inside.answer_bell();
                self.lead_those_who_wait(now);
            }
            Token::Link(_) | Token::Door(_) | Token::Foreign(_) | Token::Flow(_) => {}
        }
        by_host
    }

    /// Carries for a while, and does what is due.
    pub(super) fn work_on_shortcut(&mut self, now: Instant) {
        let Some(bypass) = &mut self.bypass else { return };
        bypass.streams.work(self.sockets.events());
        bypass.datagrams.work(now);
        bypass.datagrams.on_timeout(now);
        if bypass.retry_at.is_some_and(|at| at <= now) {
            self.lead_those_who_wait(now);
        }
    }

    fn lead_those_who_wait(&mut self, now: Instant) {
        let Some(bypass) = &mut self.bypass else { return };
        bypass.retry_at = None;
        for Waiting { since, parties, who } in std::mem::take(&mut bypass.waiting) {
            // Who cannot be led has been told by a reset; datagrams are lost without a word.
            let _ = match who {
                Who::Stream(socket) => self.lead(now, since, parties, socket),
                Who::Datagrams(listener, train) => {
                    self.lead_datagrams(now, since, parties, &listener, &train.forwarded())
                }
            };
        }
    }
}

/// How long a client waits for a socket before it goes another way. One inside the namespace has none.
const fn patience(side: Side) -> Duration {
    match side {
        Side::Host => Duration::from_secs(1),
        Side::Namespace => Duration::from_secs(30),
    }
}

#[cfg(test)]
mod tests;
