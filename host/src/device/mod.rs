//! Stage 1 on the host's side: real guest links.
//!
//! A [`Link`] is a non-blocking descriptor that carries one Ethernet frame per system call: a TAP ([`tap`]), or a Unix
//! socket of type SOCK_SEQPACKET ([`seqpacket`]); or a stream of a virtual machine ([`stream`]), with trains and a
//! header between ends of ours ([`fast`]); or a part of a datagram socket that several share ([`datagram`]). One whose
//! memory is shared with us ([`vhost_user`]) needs no calls for frames, and has a descriptor for what there is news of.
//! [`pcap`] is a decorator that writes down what passes. [`links`] are those of one event loop, and [`news`] what
//! happens to them.
//!
//! Contract with the event loop: read frames while the descriptor is readable until [`Link::read_frame`] says
//! `None`; an error means that the link is gone for good. Frames to the guest are not queued here, but for those of a
//! stream: what the kernel does not take is [`Full`], and the descriptor becomes writable when there is room. Want of
//! memory is no such case: nothing tells of its end, so the frame is lost as on any link.

pub mod datagram;
pub mod fast;
pub mod framing;
pub mod links;
pub mod listener;
pub mod news;
pub mod pcap;
pub mod seqpacket;
pub mod stream;
pub mod tap;
pub mod vhost_user;
pub mod vpnkit;

pub use datagram::Datagrams;
pub use framing::Framing;
pub use links::Links;
pub use listener::Listener;
pub use news::{GuestNews, LinkId};
pub use pcap::{Capture, Recorder};
pub use seqpacket::Seqpacket;
pub use stream::Stream;
pub use tap::Tap;
pub use vhost_user::VhostUser;

use slipway_netstack::device::vnet::Checksum;
use slipway_netstack::device::{Capabilities, Device, Full, Offload};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};

/// A buffer of this size takes every frame: Ethernet and VLAN header, and the largest IP packet.
pub const MAX_FRAME: usize = 14 + 4 + 65_535;

/// What frames of a guest leave to us that come without a word about it: nothing, and nobody vouches for their
/// checksums either.
pub(crate) const UNCHECKED: Offload = Offload { checksum: Checksum::Verified, gso: None };

/// What happened to frames that a link did not carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lost {
    /// To the guest: the kernel was short of memory.
    pub no_memory: u64,
    /// To the guest: the interface is not up, or nobody is at the other end.
    pub down: u64,
    /// To the guest: the kernel refused the frame's shape.
    pub rejected: u64,
    /// To several guests at once, or from another guest: there was no room for this one's.
    pub no_room: u64,
    /// From the guest: a virtio-net header that makes no sense.
    pub malformed: u64,
    /// From the guest: shorter than an Ethernet header, or longer than any frame.
    pub misshapen: u64,
    /// From the guest: the source is a station of another link's, or ourselves, or none.
    pub forged: u64,
    /// From the guest, or for guests: for a station that nobody knows, or that is behind the same link.
    pub astray: u64,
}

impl Lost {
    /// Nothing.
    pub(crate) const NONE: Self = Self {
        no_memory: 0,
        down: 0,
        rejected: 0,
        no_room: 0,
        malformed: 0,
        misshapen: 0,
        forged: 0,
        astray: 0,
    };

    /// Both together.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self {
            no_memory: self.no_memory.saturating_add(other.no_memory),
            down: self.down.saturating_add(other.down),
            rejected: self.rejected.saturating_add(other.rejected),
            no_room: self.no_room.saturating_add(other.no_room),
            malformed: self.malformed.saturating_add(other.malformed),
            misshapen: self.misshapen.saturating_add(other.misshapen),
            forged: self.forged.saturating_add(other.forged),
            astray: self.astray.saturating_add(other.astray),
        }
    }
}

/// A guest's link.
#[derive(Debug)]
pub enum Link {
    /// A TAP.
    Tap(Tap),
    /// A connected SOCK_SEQPACKET socket.
    Seqpacket(Seqpacket),
    /// A connected stream socket, or two descriptors.
    Stream(Stream),
    /// Whoever sends from one address.
    Datagrams(Datagrams),
    /// The rings of a virtual machine.
    VhostUser(Box<VhostUser>),
    /// One of the others, written down.
    Captured(Box<Capture<Self>>),
}

impl Link {
    /// This link, with everything that passes written to `file` in pcap format.
    ///
    /// # Errors
    /// When the file's header cannot be written.
    pub fn captured(self, file: std::fs::File) -> io::Result<Self> {
        Ok(self.recorded(Recorder::new(file)?))
    }

    /// The same with a file that has frames of other links, too.
    #[must_use]
    pub fn recorded(self, recorder: Recorder) -> Self {
        Self::Captured(Box::new(Capture::new(self, recorder)))
    }

    /// The descriptor that tells of frames, if it has one of its own.
    #[must_use]
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Tap(tap) => Some(tap.as_fd()),
            Self::Seqpacket(socket) => Some(socket.as_fd()),
            Self::Stream(stream) => Some(stream.as_fd()),
            Self::VhostUser(rings) => Some(rings.as_fd()),
            Self::Datagrams(_) => None,
            Self::Captured(capture) => capture.inner().fd(),
        }
    }

    /// The one that tells of room, if that is another.
    #[must_use]
    pub fn output(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Tap(_) | Self::Seqpacket(_) | Self::Datagrams(_) | Self::VhostUser(_) => None,
            Self::Stream(stream) => stream.output(),
            Self::Captured(capture) => capture.inner().output(),
        }
    }

    /// Reads one frame into `into` (of [`MAX_FRAME`] bytes): what is left to do, and its length. `None`: there is
    /// none now.
    ///
    /// # Errors
    /// The link is gone: the interface was deleted, or the peer has hung up.
    pub fn read_frame(&mut self, into: &mut [u8]) -> io::Result<Option<(Offload, usize)>> {
        match self {
            Self::Tap(tap) => tap.read_frame(into),
            Self::Seqpacket(socket) => socket.read_frame(into),
            Self::Stream(stream) => stream.read_frame(into),
            Self::VhostUser(rings) => rings.read_frame(into),
            Self::Datagrams(guest) => guest.read_frame().map(|()| None),
            Self::Captured(capture) => capture.read_frame(into),
        }
    }

    /// Whether a frame was read that nobody has asked for yet, or it has ended, and no event will tell.
    #[must_use]
    pub fn is_ahead(&self) -> bool {
        match self {
            Self::Tap(_) => false,
            Self::Seqpacket(socket) => socket.has_gone(),
            Self::Stream(stream) => stream.is_ahead(),
            Self::VhostUser(rings) => rings.is_ahead(),
            Self::Datagrams(guest) => guest.has_gone(),
            Self::Captured(capture) => capture.inner().is_ahead(),
        }
    }

    /// Whether its guest has still to say who it is.
    #[must_use]
    pub const fn is_greeting(&self) -> bool {
        matches!(self, Self::Stream(stream) if stream.is_greeting())
    }

    /// Whether it has no room for what other guests send.
    #[must_use]
    pub fn is_crowded(&mut self) -> bool {
        match self {
            Self::Tap(_) | Self::Seqpacket(_) | Self::Datagrams(_) | Self::VhostUser(_) => false,
            Self::Stream(stream) => stream.is_crowded(),
            Self::Captured(capture) => capture.inner_mut().is_crowded(),
        }
    }

    /// The kernel says that there is room again.
    pub fn has_room(&mut self) {
        match self {
            Self::Tap(_) | Self::Seqpacket(_) | Self::Datagrams(_) | Self::VhostUser(_) => {}
            Self::Stream(stream) => stream.has_room(),
            Self::Captured(capture) => capture.inner_mut().has_room(),
        }
    }

    /// Sends what was taken and not sent yet.
    ///
    /// # Errors
    /// [`Full`]: some of it waits for room.
    pub fn send_rest(&mut self) -> Result<(), Full> {
        match self {
            Self::Tap(_) | Self::Seqpacket(_) | Self::Datagrams(_) => Ok(()),
            Self::Stream(stream) => stream.flush(),
            Self::VhostUser(rings) => {
                rings.call();
                Ok(())
            }
            Self::Captured(capture) => capture.inner_mut().send_rest(),
        }
    }

    /// Whether one that was [`Full`] has found that there is room since this was asked last, which no event of its
    /// descriptor tells.
    pub fn found_room(&mut self) -> bool {
        match self {
            Self::Tap(_) | Self::Seqpacket(_) | Self::Stream(_) | Self::Datagrams(_) => false,
            Self::VhostUser(rings) => rings.found_room(),
            Self::Captured(capture) => capture.inner_mut().found_room(),
        }
    }

    /// What it takes off the engine's hands.
    #[must_use]
    pub fn capabilities(&self) -> Capabilities {
        match self {
            Self::Tap(tap) => tap.capabilities(),
            Self::Seqpacket(_) | Self::Datagrams(_) => Capabilities::default(),
            Self::Stream(stream) => stream.capabilities(),
            Self::VhostUser(rings) => rings.capabilities(),
            Self::Captured(capture) => capture.inner().capabilities(),
        }
    }

    /// Closes it: the interface, and the namespace it lives in, are nobody's reason to stay any more. Returns what it
    /// did not carry.
    #[must_use]
    pub fn close(self) -> Lost {
        match self {
            Self::Tap(tap) => tap.lost(),
            Self::Seqpacket(socket) => socket.lost(),
            Self::Stream(stream) => stream.lost(),
            Self::VhostUser(rings) => rings.lost(),
            Self::Datagrams(guest) => guest.lost(),
            Self::Captured(capture) => capture.into_inner().close(),
        }
    }

    /// What it did not carry so far.
    #[must_use]
    pub fn lost(&self) -> Lost {
        match self {
            Self::Tap(tap) => tap.lost(),
            Self::Seqpacket(socket) => socket.lost(),
            Self::Stream(stream) => stream.lost(),
            Self::VhostUser(rings) => rings.lost(),
            Self::Datagrams(guest) => guest.lost(),
            Self::Captured(capture) => capture.inner().lost(),
        }
    }
}

impl Device for Link {
    fn transmit(&mut self, offload: Offload, frame: &[u8]) -> Result<(), Full> {
        match self {
            Self::Tap(tap) => tap.transmit(offload, frame),
            Self::Seqpacket(socket) => socket.transmit(offload, frame),
            Self::Stream(stream) => stream.transmit(offload, frame),
            Self::VhostUser(rings) => rings.transmit(offload, frame),
            Self::Datagrams(guest) => guest.transmit(offload, frame),
            Self::Captured(capture) => capture.transmit(offload, frame),
        }
    }
}

impl From<Tap> for Link {
    fn from(tap: Tap) -> Self {
        Self::Tap(tap)
    }
}

impl From<Stream> for Link {
    fn from(stream: Stream) -> Self {
        Self::Stream(stream)
    }
}

impl From<VhostUser> for Link {
    fn from(rings: VhostUser) -> Self {
        Self::VhostUser(Box::new(rings))
    }
}

impl From<Seqpacket> for Link {
    fn from(socket: Seqpacket) -> Self {
        Self::Seqpacket(socket)
    }
}

impl From<Datagrams> for Link {
    fn from(guest: Datagrams) -> Self {
        Self::Datagrams(guest)
    }
}
