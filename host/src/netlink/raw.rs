//! The descriptor: the one place where a netlink socket is made.
//!
//! It is of type SOCK_RAW. To netlink(7) that is the same as SOCK_DGRAM, but not to AppArmor, whose rules name the
//! type: the profiles that Debian ships for programs with our names say `network netlink raw`, and a socket of the
//! other type is refused there. `cargo xtask lint` finds a netlink socket that is made anywhere else.
//!
//! What anybody but the kernel (port 0) sends is passed over here.

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, connect, recvmsg, send,
    socket,
};
use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

/// A netlink socket in one network namespace: that of the thread that opened it.
#[derive(Debug)]
pub(super) struct RawSocket {
    fd: OwnedFd,
}

impl RawSocket {
    /// One that speaks with the kernel.
    pub(super) fn connected(protocol: SockProtocol) -> Result<Self, Errno> {
        let opened = Self::open(protocol, SockFlag::empty())?;
        // The kernel chooses our port by the way.
        connect(opened.fd.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        Ok(opened)
    }

    /// One that hears what the kernel tells these multicast groups, a bit each, and does not block.
    pub(super) fn listening(protocol: SockProtocol, groups: u32) -> Result<Self, Errno> {
        let opened = Self::open(protocol, SockFlag::SOCK_NONBLOCK)?;
        bind(opened.fd.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
        Ok(opened)
    }

    fn open(protocol: SockProtocol, flags: SockFlag) -> Result<Self, Errno> {
        let fd = socket(AddressFamily::Netlink, SockType::Raw, flags | SockFlag::SOCK_CLOEXEC, protocol)?;
        Ok(Self { fd })
    }

    /// Sends one datagram: a message or several. The kernel does what they ask for before this returns.
    pub(super) fn send(&self, datagram: &[u8]) -> Result<(), Errno> {
        send(self.fd.as_raw_fd(), datagram, MsgFlags::empty()).map(drop)
    }

    /// Receives the kernel's next datagram; returns its length. EMSGSIZE: it was longer than `into`, and the rest is
    /// lost.
    pub(super) fn receive(&self, into: &mut [u8], flags: MsgFlags) -> Result<usize, Errno> {
        loop {
            let mut room = [IoSliceMut::new(into)];
            match recvmsg::<NetlinkAddr>(self.fd.as_raw_fd(), &mut room, None, flags) {
                Ok(got) if got.address.is_none_or(|from| from.pid() != 0) => {}
                Ok(got) if got.flags.contains(MsgFlags::MSG_TRUNC) => return Err(Errno::EMSGSIZE),
                Ok(got) => return Ok(got.bytes),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }
}

impl AsFd for RawSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::super::netfilter::Netfilter;
    use super::super::{Monitor, Netlink};
    use super::*;
    use nix::sys::socket::{getsockopt, sockopt};

    #[test]
    fn the_kernel_calls_every_netlink_socket_raw() {
        let kind = |fd: BorrowedFd<'_>| getsockopt(&fd, sockopt::SockType).unwrap();
        assert_eq!(kind(Netlink::open().unwrap().as_fd()), SockType::Raw);
        assert_eq!(kind(Monitor::open().unwrap().as_fd()), SockType::Raw);
        match Netfilter::open() {
            Ok(netfilter) => assert_eq!(kind(netfilter.as_fd()), SockType::Raw),
            Err(error) if error.errno() == Some(Errno::EPROTONOSUPPORT) => {
                println!("SKIP the_kernel_calls_every_netlink_socket_raw: no netfilter in this kernel");
            }
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn a_datagram_without_room_is_told_and_strangers_are_not_heard() {
        let ours = RawSocket::listening(SockProtocol::NetlinkUserSock, 0).unwrap();
        let (mut answer, mut short) = ([0; 64], [0; 8]);
        // To the kernel, which answers that protocol with nothing but an acknowledgement (NLMSG_NOOP, NLM_F_ACK).
        let kernel = RawSocket::connected(SockProtocol::NetlinkRoute).unwrap();
        let noop = |sequence: u32| {
            let mut message = [0; 16];
            message[..4].copy_from_slice(&16_u32.to_ne_bytes());
            message[4..6].copy_from_slice(&1_u16.to_ne_bytes());
            message[6..8].copy_from_slice(&5_u16.to_ne_bytes());
            message[8..12].copy_from_slice(&sequence.to_ne_bytes());
            message
        };
        kernel.send(&noop(1)).unwrap();
        assert_eq!(kernel.receive(&mut short, MsgFlags::empty()), Err(Errno::EMSGSIZE));
        kernel.send(&noop(2)).unwrap();
        assert!(kernel.receive(&mut answer, MsgFlags::empty()).unwrap() >= 20);
        assert_eq!(answer[8..12], 2_u32.to_ne_bytes());
        // From another socket of this process: its port is not the kernel's.
        let port = nix::sys::socket::getsockname::<NetlinkAddr>(ours.fd.as_raw_fd()).unwrap();
        let stranger = RawSocket::listening(SockProtocol::NetlinkUserSock, 0).unwrap();
        nix::sys::socket::sendto(stranger.fd.as_raw_fd(), &noop(3), &port, MsgFlags::empty()).unwrap();
        assert_eq!(ours.receive(&mut answer, MsgFlags::empty()), Err(Errno::EAGAIN));
    }
}
