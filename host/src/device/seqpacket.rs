//! A guest behind a Unix socket of type SOCK_SEQPACKET: one packet is one Ethernet frame, with no header and no
//! offload. User-Mode Linux speaks it (`vec0:transport=bess`), and so do the BESS and VPP switches. A pair of sockets
//! of type SOCK_DGRAM is the same ([`Seqpacket::handed`]): so macOS' Virtualization.framework has it, and QEMU's
//! `-netdev dgram,local.type=fd`.
//!
//! Invariants.
//! - An empty packet is the end of a connection (recv(2) cannot tell the two apart); an empty datagram is none, and no
//!   frame either.
//! - Of a pair of datagram sockets nothing tells of the other's end (`net/unix/af_unix.c`, Linux 6.12: only the peers
//!   of connections are shut down). Whoever sends is told, by ECONNREFUSED; [`Seqpacket::look`] sends what no station
//!   minds.

use super::{Lost, UNCHECKED};
use crate::sys::sockopt::{self, Opt};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockType, SockaddrLike as _, SockaddrStorage, getpeername, getsockname,
    getsockopt, recv, send, sockopt::SockType as Kind,
};
use slipway_netstack::addr::MacAddr;
use slipway_netstack::device::{Device, Full, Offload};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// The connection to the guest, non-blocking.
#[derive(Debug)]
pub struct Seqpacket {
    fd: OwnedFd,
    /// What frames of the guest leave to us.
    offload: Offload,
    /// It has no connection that could end.
    datagrams: bool,
    /// Nobody is at the other end any more, as sending told.
    gone: bool,
    lost: Lost,
}

/// Bytes that may wait in the socket of a pair, as far as the kernel allows.
const SEND_BUFFER: i32 = 1 << 20;
/// IEEE 802 §9.2.4: an EtherType for experiments, which nothing in the world takes.
const NOTHING: [u8; 2] = [0x88, 0xb5];

impl Seqpacket {
    /// Takes over a connected, non-blocking socket.
    #[must_use]
    pub fn from_owned_fd(fd: OwnedFd) -> Self {
        Self { fd, offload: Offload::NONE, datagrams: false, gone: false, lost: Lost::default() }
    }

    /// The same of a guest whose checksums are not looked at.
    #[must_use]
    pub fn unchecked(fd: OwnedFd) -> Self {
        Self { offload: UNCHECKED, ..Self::from_owned_fd(fd) }
    }

    /// Takes over a non-blocking socket that somebody has handed over, as [`Seqpacket::unchecked`]: of AF_UNIX, with
    /// packets or datagrams, and with another end.
    ///
    /// # Errors
    /// ENOTSOCK, EAFNOSUPPORT, ESOCKTNOSUPPORT: it is something else; ENOTCONN: it has no other end.
    pub fn handed(fd: OwnedFd) -> io::Result<Self> {
        let datagrams = match getsockopt(&fd, Kind)? {
            SockType::Datagram => true,
            SockType::SeqPacket => false,
            _ => return Err(Errno::ESOCKTNOSUPPORT.into()),
        };
        if getsockname::<SockaddrStorage>(fd.as_raw_fd())?.family() != Some(AddressFamily::Unix) {
            return Err(Errno::EAFNOSUPPORT.into());
        }
        getpeername::<SockaddrStorage>(fd.as_raw_fd())?;
        // Cut to what the system allows; a smaller buffer is slower, and no failure.
        let _ = sockopt::set(fd.as_fd(), Opt::SEND_BUFFER, SEND_BUFFER);
        Ok(Self { datagrams, ..Self::unchecked(fd) })
    }

    /// Looks whether somebody is at the other end still, if nothing would tell: a frame from us to us, `ours`, is for
    /// no station, and says nothing. Reading then tells ([`Seqpacket::read_frame`]).
    pub fn look(&mut self, ours: MacAddr) {
        if self.datagrams {
            let mut frame = [0; 60];
            for (place, byte) in frame.iter_mut().zip(ours.0.into_iter().chain(ours.0).chain(NOTHING)) {
                *place = byte;
            }
            // No room is an answer, too.
            let _ = self.transmit(Offload::NONE, &frame);
        }
    }

    /// Whether it has gone, and no event tells.
    #[must_use]
    pub const fn has_gone(&self) -> bool {
        self.gone
    }

    /// What it did not carry.
    #[must_use]
    pub fn lost(&self) -> Lost {
        self.lost
    }

    /// See [`super::Link::read_frame`].
    ///
    /// # Errors
    /// `UnexpectedEof` when the guest has hung up; otherwise those of recv(2).
    pub fn read_frame(&mut self, into: &mut [u8]) -> io::Result<Option<(Offload, usize)>> {
        if self.gone {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match recv(self.fd.as_raw_fd(), into, MsgFlags::MSG_DONTWAIT) {
            Ok(0) if self.datagrams => Ok(Some((self.offload, 0))),
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(len) => Ok(Some((self.offload, len))),
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

impl Device for Seqpacket {
    fn transmit(&mut self, offload: Offload, frame: &[u8]) -> Result<(), Full> {
        if offload != Offload::NONE {
            self.lost.rejected += 1;
            return Ok(());
        }
        match send(self.fd.as_raw_fd(), frame, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL) {
            Ok(_) => Ok(()),
            Err(Errno::EAGAIN) => Err(Full),
            Err(Errno::ENOBUFS | Errno::ENOMEM | Errno::EINTR) => {
                self.lost.no_memory += 1;
                Ok(())
            }
            Err(Errno::EMSGSIZE) => {
                self.lost.rejected += 1;
                Ok(())
            }
            // The guest has hung up; the next read reports it.
            Err(_) => {
                self.gone |= self.datagrams;
                self.lost.down += 1;
                Ok(())
            }
        }
    }
}

impl AsFd for Seqpacket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Listener;
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket, socketpair};
    use std::path::Path;

    fn client(path: &Path) -> OwnedFd {
        let fd = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).unwrap();
        connect(fd.as_raw_fd(), &UnixAddr::new(path).unwrap()).unwrap();
        fd
    }

    #[test]
    fn one_packet_is_one_frame_until_the_guest_hangs_up() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bess");
        std::fs::write(&path, "left over").unwrap();
        let listener = Listener::packets(&path).unwrap();
        let guest = client(&path);
        let mut link = listener.accept().unwrap();
        let mut buffer = vec![0; super::super::MAX_FRAME];
        assert!(link.read_frame(&mut buffer).unwrap().is_none(), "it does not block");
        for len in [14, 1514, 65_553] {
            let frame: Vec<u8> = (0..=255).cycle().take(len).collect();
            assert_eq!(send(guest.as_raw_fd(), &frame, MsgFlags::empty()).unwrap(), len);
            assert_eq!(link.read_frame(&mut buffer).unwrap(), Some((Offload::NONE, len)));
            assert_eq!(buffer[..len], frame);
            assert_eq!(link.transmit(Offload::NONE, &frame), Ok(()));
            assert_eq!(recv(guest.as_raw_fd(), &mut buffer, MsgFlags::empty()).unwrap(), len);
            assert_eq!(buffer[..len], frame);
        }
        drop(guest);
        // A child that another test's thread forked just now has a copy of the descriptor, and hangs up when it ends.
        let mut fds = [PollFd::new(link.fd().unwrap(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut fds, PollTimeout::from(30_000_u16)), Ok(1));
        let end = link.read_frame(&mut buffer).unwrap_err();
        assert_eq!(end.kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(link.transmit(Offload::NONE, &[0; 60]), Ok(()), "EPIPE, and no signal");
        assert_eq!(link.lost(), Lost { down: 1, ..Lost::default() });
    }

    #[test]
    fn a_guest_that_does_not_read_fills_the_link() {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let (ours, _guest) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags).unwrap();
        let mut link = Seqpacket::from_owned_fd(ours);
        let filled = (0..10_000).any(|_| link.transmit(Offload::NONE, &[0; 1514]) == Err(Full));
        assert!(filled);
        assert_eq!(link.lost(), Lost::default(), "what is refused is not lost");
    }

    #[test]
    fn a_path_that_is_too_long_or_a_directory_is_refused() {
        let long = "x".repeat(108);
        assert_eq!(
            Listener::packets(Path::new(&long)).unwrap_err().raw_os_error(),
            Some(Errno::ENAMETOOLONG as i32)
        );
        let dir = tempfile::tempdir().unwrap();
        assert!(Listener::packets(dir.path()).is_err());
        assert!(dir.path().is_dir());
    }
}
