//! Guests that come and go: the sockets where they come in, and what nothing tells about those who are there.
//!
//! | door | a guest is | told apart by |
//! |---|---|---|
//! | [`GuestListener::Qemu`], [`GuestListener::Vpnkit`] | a connection, and its frames follow their lengths | connection |
//! | [`GuestListener::Bess`] | a connection whose packets are frames | connection |
//! | [`GuestListener::Vfkit`] | whoever sends to the socket, a frame in each datagram | address |
//! | [`GuestListener::Stdio`] | two descriptors, once | |
//! | [`Driver::join`], [`Driver::join_fast`] | a connection that somebody else has accepted | |
//! | [`Driver::adopt`] | a socket of packets or datagrams that somebody has handed over | |
//!
//! Any number come by each door; when descriptors are short the doors rest, and guests wait in the kernel's queues. Of
//! guests behind a datagram socket ([`crate::device::datagram`]) nothing tells that they have gone or have room, so two
//! clocks run while there are some: one looks who is there, and one tries again while something waits for room, ever
//! more seldom. An idle driver without them has no clock.
//!
//! Contract: gvproxy 5.

use super::{BYTE_BUDGET, Driver, FRAMES_A_LOOK, Loss, READING};
use crate::clock;
use crate::device::datagram::Post;
use crate::device::vpnkit::{Handshake, Macs};
use crate::device::{Datagrams, Framing, GuestNews, Link, LinkId, Lost, Seqpacket, Stream, UNCHECKED};
use crate::random;
use crate::sys::accept::accept;
use crate::sys::sockopt::{self, Opt};
use crate::token::Token;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::epoll::EpollFlags;
use nix::sys::socket::UnixAddr;
use slipway_netstack::Instant;
use slipway_netstack::addr::MacAddr;
use slipway_netstack::surely::Surely;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

/// Guests let in by a door in one round.
const AT_ONCE: usize = 16;
/// How long doors are shut when there are no descriptors.
const REST: Duration = Duration::from_millis(100);
/// How often is looked who is there: the end of a guest is to be noticed within two seconds.
const LOOK: Duration = Duration::from_millis(1950);
/// How soon one guest is looked after again whose station somebody else has.
const CONTEST: Duration = Duration::from_millis(100);
/// When the first try follows a refusal that nothing tells the end of, and how long it may come to take.
const RETRY: Duration = Duration::from_micros(100);
const LONGEST_RETRY: Duration = Duration::from_millis(64);
/// Guests that share a datagram socket. More are not heard until some have gone.
const SHARING: usize = 256;
/// What vfkit once sent first.
const GREETING: &[u8] = b"VFKT";

/// Where guests come in. Sockets are bound, and those for connections listen.
#[derive(Debug)]
pub enum GuestListener {
    /// Streams in QEMU's framing: Unix, TCP or vsock.
    Qemu(OwnedFd),
    /// Streams that begin with VPNKit's handshake.
    Vpnkit {
        /// Where they connect.
        socket: OwnedFd,
        /// The addresses of machines, by UUID.
        macs: Vec<(String, MacAddr)>,
        /// What they are told of the longest packet, in bytes.
        mtu: u16,
    },
    /// SOCK_SEQPACKET.
    Bess(OwnedFd),
    /// SOCK_DGRAM.
    Vfkit(OwnedFd),
    /// Two descriptors of any kind that epoll knows, with frames in VPNKit's framing.
    Stdio {
        /// Where frames of the guest come from.
        input: OwnedFd,
        /// Where frames for it go.
        output: OwnedFd,
    },
}

/// What is watched for guests, and when something is to be done for them.
#[derive(Debug, Default)]
pub(super) struct Guests {
    doors: Vec<Door>,
    /// The doors are shut until then.
    opens: Option<Instant>,
    /// When to look who is there.
    look: Option<Instant>,
    /// When to try again whether there is room.
    retry: Option<Instant>,
    /// How long after the next refusal that is.
    pause: Duration,
    /// When a guest whose station somebody else has was looked after last.
    contested: Instant,
}

#[derive(Debug)]
enum Door {
    Qemu(OwnedFd),
    Vpnkit { socket: OwnedFd, macs: Macs, mtu: u16 },
    Bess(OwnedFd),
    Vfkit { post: Rc<Post>, known: Vec<(UnixAddr, LinkId)>, nameless: bool },
}

impl Door {
    fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Qemu(socket) | Self::Vpnkit { socket, .. } | Self::Bess(socket) => socket.as_fd(),
            Self::Vfkit { post, .. } => post.as_fd(),
        }
    }

    /// The link of one who was let in.
    fn link(&self, guest: OwnedFd) -> io::Result<Link> {
        // On TCP frames leave at once; other streams know no such option.
        let _ = sockopt::set(guest.as_fd(), Opt::NO_DELAY, 1);
        Ok(match self {
            Self::Qemu(_) => Stream::of_guest(guest, Framing::Be32, Vec::new()).into(),
            Self::Vpnkit { macs, mtu, .. } => {
                let handshake = Handshake::new(Rc::clone(macs), random::bytes()?, *mtu);
                Stream::greeted(guest, Framing::Le16, handshake).into()
            }
            Self::Bess(_) | Self::Vfkit { .. } => Seqpacket::unchecked(guest).into(),
        })
    }
}

impl Guests {
    /// When something is to be done.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        [self.opens, self.look, self.retry].into_iter().flatten().min()
    }
}

impl Driver {
    /// Lets guests in by `listener` from now on. What happens to them, [`Driver::guest_news`] tells.
    ///
    /// # Errors
    /// The kernel's: out of watches or memory; for [`GuestListener::Stdio`] also that a descriptor is of a kind that
    /// cannot be waited for (a plain file).
    pub fn listen_for_guests(&mut self, listener: GuestListener) -> io::Result<()> {
        self.links.expect_guests();
        let door = match listener {
            GuestListener::Qemu(socket) => Door::Qemu(unblocked(socket)?),
            GuestListener::Vpnkit { socket, macs, mtu } => {
                Door::Vpnkit { socket: unblocked(socket)?, macs: macs.into(), mtu }
            }
            GuestListener::Bess(socket) => Door::Bess(unblocked(socket)?),
            GuestListener::Vfkit(socket) => {
                Door::Vfkit { post: Rc::new(Post::new(socket)?), known: Vec::new(), nameless: false }
            }
            GuestListener::Stdio { input, output } => {
                let stream = Stream::between(input, output, Framing::Le16)?;
                return self.join_link(stream.into()).map(drop);
            }
        };
        let guests = self.guests.get_or_insert_default();
        let number = u32::try_from(guests.doors.len()).map_err(|_| Errno::EOVERFLOW)?;
        self.sockets.events().add(door.fd(), Token::Door(number), EpollFlags::EPOLLIN)?;
        if matches!(door, Door::Vfkit { .. }) {
            self.links.wait_for(door.fd(), Token::Door(number))?;
        }
        guests.doors.push(door);
        Ok(())
    }

    /// Serves the guest at the other end of `stream`, which has sent `first` already.
    ///
    /// # Errors
    /// The kernel's: out of watches or memory.
    pub fn join(&mut self, stream: OwnedFd, framing: Framing, first: Vec<u8>) -> io::Result<LinkId> {
        self.links.expect_guests();
        let _ = sockopt::set(stream.as_fd(), Opt::NO_DELAY, 1);
        self.join_link(Stream::of_guest(unblocked(stream)?, framing, first).into())
    }

    /// Serves the guest at the other end of a socket whose packets or datagrams are frames.
    ///
    /// # Errors
    /// Those of [`Seqpacket::handed`]; the kernel's: out of watches or memory.
    pub fn adopt(&mut self, socket: OwnedFd) -> io::Result<LinkId> {
        let link = Seqpacket::handed(unblocked(socket)?)?;
        self.links.expect_guests();
        // Whoever comes back by another socket has the old one looked after.
        self.guests.get_or_insert_default();
        self.join_link(link.into())
    }

    /// Serves the guest whose forwarder has asked for the fast link ([`crate::device::fast`]), with two-byte lengths
    /// until that changes. It has sent `first` already.
    ///
    /// # Errors
    /// As [`Driver::join`].
    pub fn join_fast(&mut self, stream: OwnedFd, first: Vec<u8>) -> io::Result<LinkId> {
        self.links.expect_guests();
        let _ = sockopt::set(stream.as_fd(), Opt::NO_DELAY, 1);
        let gateway = self.engine.config().mac;
        self.join_link(Stream::fast(unblocked(stream)?, gateway, first).into())
    }

    /// What has happened to guests since this was asked for, in order.
    pub fn guest_news(&mut self) -> Vec<GuestNews> {
        self.links.take_news()
    }

    /// Whether anything has.
    #[must_use]
    pub fn has_guest_news(&self) -> bool {
        self.links.has_news()
    }

    /// Which station is behind which link.
    #[must_use]
    pub fn cam(&self) -> Vec<(MacAddr, LinkId)> {
        self.links.stations().collect()
    }

    /// Somebody is at a door; whether it is a guest with frames.
    pub(super) fn on_door(&mut self, number: u32, now: Instant) -> bool {
        let at = usize::try_from(number).unwrap_or(usize::MAX);
        let door = self.guests.as_ref().and_then(|guests| guests.doors.get(at));
        match door {
            Some(Door::Vfkit { post, .. }) => {
                let post = Rc::clone(post);
                if let Err(error) = self.read_post(at, &post, now) {
                    self.links.tell(GuestNews::Failed(error));
                }
                true
            }
            Some(_) => {
                self.admit(at, now);
                false
            }
            None => false,
        }
    }

    /// Lets in who has come to a door.
    fn admit(&mut self, at: usize, now: Instant) {
        for _ in 0..AT_ONCE {
            let Some(door) = self.guests.as_ref().and_then(|guests| guests.doors.get(at)) else { return };
            let link = match accept(door.fd()) {
                Ok(guest) => door.link(guest),
                Err(Errno::EAGAIN) => return,
                // One that has gone away again is no reason to stop.
                Err(Errno::ECONNABORTED | Errno::EINTR) => continue,
                Err(error) => {
                    self.shut_doors(now + REST);
                    return self.links.tell(GuestNews::Failed(error.into()));
                }
            };
            if let Err(error) = link.and_then(|link| self.join_link(link)) {
                self.links.tell(GuestNews::Failed(error));
            }
        }
    }

    /// Until then guests wait in the kernel's queues.
    fn shut_doors(&mut self, until: Instant) {
        self.watch_doors(EpollFlags::empty());
        if let Some(guests) = &mut self.guests {
            guests.opens = Some(until);
        }
    }

    fn watch_doors(&self, interest: EpollFlags) {
        let doors = self.guests.iter().flat_map(|guests| &guests.doors);
        for (number, door) in (0..).zip(doors).filter(|(_, door)| !matches!(door, Door::Vfkit { .. })) {
            // It is in the set, so this cannot fail.
            let _ = self.sockets.events().modify(door.fd(), Token::Door(number), interest);
        }
    }

    /// Takes datagrams of guests until there are none, or the round's budget is spent.
    fn read_post(&mut self, at: usize, post: &Rc<Post>, now: Instant) -> io::Result<()> {
        let began = clock::now();
        let mut bytes = 0;
        for nth in 1usize.. {
            let Some((len, from)) = post.receive(&mut self.frame)? else { break };
            let is_greeting = self.frame.get(..len).surely().starts_with(GREETING);
            if let Some(link) = self.sender(at, post, from, now)?
                && !(is_greeting && (link.new || len == GREETING.len()))
            {
                let frame = self.frame.get(..len).surely();
                if self.links.arrived(link.id, frame) {
                    self.note_frame(len);
                    self.engine.on_frame(now, UNCHECKED, frame, &mut self.sockets);
                }
                self.links.had_turn(link.id, now, false);
            }
            bytes += len;
            let late = nth.is_multiple_of(FRAMES_A_LOOK) && clock::now() - began >= READING;
            if late || bytes >= BYTE_BUDGET {
                break;
            }
        }
        self.links.thin_out(|| self.engine.stations());
        Ok(())
    }

    /// Whose datagram it is; `None`: it is nobody's that can be answered.
    fn sender(
        &mut self,
        at: usize,
        post: &Rc<Post>,
        from: Option<UnixAddr>,
        now: Instant,
    ) -> io::Result<Option<Sender>> {
        let Self { guests: Some(guests), links, .. } = self else { return Ok(None) };
        let Some(Door::Vfkit { known, nameless, .. }) = guests.doors.get_mut(at) else { return Ok(None) };
        let Some(from) = from else {
            links.note(Lost { forged: 1, ..Lost::default() });
            if std::mem::replace(nameless, true) {
                return Ok(None);
            }
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "vfkit socket address is empty"));
        };
        if let Some((_, id)) = known.iter().find(|(address, id)| *address == from && links.has(*id)) {
            return Ok(Some(Sender { id: *id, new: false }));
        }
        known.retain(|(_, id)| links.has(*id));
        if known.len() >= SHARING {
            links.note(Lost { no_room: 1, ..Lost::default() });
            return Ok(None);
        }
        let id = self.join_link(Datagrams::new(Rc::clone(post), from).into())?;
        if let Some(guests) = &mut self.guests
            && let Some(Door::Vfkit { known, .. }) = guests.doors.get_mut(at)
        {
            known.push((from, id));
            guests.look.get_or_insert(now + LOOK);
        }
        Ok(Some(Sender { id, new: true }))
    }

    /// Does what is due for guests; before the engine sends.
    pub(super) fn care_for_guests(&mut self, now: Instant) {
        let Some(guests) = &mut self.guests else { return };
        let is_due = |due: &mut Option<Instant>| due.take_if(|due| *due <= now).is_some();
        if is_due(&mut guests.retry) {
            self.links.suppose_room();
        }
        if is_due(&mut guests.look) {
            let mut anybody = false;
            for door in &mut guests.doors {
                let Door::Vfkit { known, .. } = door else { continue };
                known.retain(|(_, id)| self.links.has(*id));
                anybody |= !known.is_empty();
                known.iter().for_each(|(_, id)| self.links.look_after(*id));
            }
            guests.look = anybody.then_some(now + LOOK);
        }
        if let Some(link) = self.links.take_contested()
            && now - guests.contested >= CONTEST
        {
            guests.contested = now;
            self.links.look_after(link);
        }
        if is_due(&mut guests.opens) {
            self.watch_doors(EpollFlags::EPOLLIN);
        }
    }

    /// The engine has sent. `untold`: there was no room for some of it, and nothing will tell when there is.
    pub(super) fn expect_room(&mut self, now: Instant, untold: bool) {
        let Some(guests) = &mut self.guests else { return };
        if !untold {
            (guests.retry, guests.pause) = (None, RETRY);
        } else if guests.retry.is_none() {
            guests.retry = Some(now + guests.pause);
            guests.pause = (guests.pause * 2).min(LONGEST_RETRY);
        }
    }

    /// A link has ended by itself.
    pub(super) fn lose_link(&mut self, now: Instant, link: LinkId, reason: io::Error) {
        let told = self.links.was_told(link);
        let Some(lost) = self.hang_up(now, link) else { return };
        if told {
            self.losses.push_back(Loss { link, reason, lost });
        } else {
            self.links.tell(GuestNews::Failed(reason));
        }
    }
}

/// Who sent a datagram.
#[derive(Debug, Clone, Copy)]
struct Sender {
    id: LinkId,
    /// It is the first one.
    new: bool,
}

/// The same descriptor, which does not block.
fn unblocked(fd: OwnedFd) -> io::Result<OwnedFd> {
    let status = OFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFL)?);
    fcntl(&fd, FcntlArg::F_SETFL(status | OFlag::O_NONBLOCK))?;
    Ok(fd)
}
