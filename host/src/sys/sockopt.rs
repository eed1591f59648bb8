//! Socket options whose value is an int, by name, and the one other that we need.
//!
//! `nix` has a type for many of them, but not for the peek offset and path MTU discovery; here they are all alike.

use nix::errno::Errno;
use std::os::fd::{AsRawFd, BorrowedFd};

/// A socket option whose value is an int.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opt {
    level: i32,
    name: i32,
}

impl Opt {
    /// SO_PEEK_OFF: where MSG_PEEK starts reading. TCP has it since Linux 6.9.
    pub const PEEK_OFFSET: Self = Self::socket(libc::SO_PEEK_OFF);
    /// SO_ERROR: what went wrong since it was last asked.
    pub const ERROR: Self = Self::socket(libc::SO_ERROR);
    /// SO_RCVBUF: the kernel doubles the value and cuts it to `net.core.rmem_max`.
    pub const RECEIVE_BUFFER: Self = Self::socket(libc::SO_RCVBUF);
    /// SO_SNDBUF, to look at only: setting it ends the kernel's own tuning.
    pub const SEND_BUFFER: Self = Self::socket(libc::SO_SNDBUF);
    /// SO_KEEPALIVE.
    pub const KEEPALIVE: Self = Self::socket(libc::SO_KEEPALIVE);
    /// SO_OOBINLINE: urgent data stays where it was in the stream.
    pub const URGENT_INLINE: Self = Self::socket(libc::SO_OOBINLINE);
    /// SO_BINDTOIFINDEX, to look at: the number of the interface that the socket is bound to.
    pub const BOUND_INTERFACE: Self = Self::socket(libc::SO_BINDTOIFINDEX);
    /// TCP_NODELAY.
    pub const NO_DELAY: Self = Self { level: libc::IPPROTO_TCP, name: libc::TCP_NODELAY };
    /// UDP_GRO: deliver trains of datagrams.
    pub const UDP_GRO: Self = Self { level: libc::SOL_UDP, name: libc::UDP_GRO };
    /// IP_BIND_ADDRESS_NO_PORT: the port is chosen by connect, which may share it between destinations.
    pub const BIND_NO_PORT: Self = Self::v4(libc::IP_BIND_ADDRESS_NO_PORT);
    /// IP_MTU_DISCOVER.
    pub const MTU_DISCOVER_V4: Self = Self::v4(libc::IP_MTU_DISCOVER);
    /// IPV6_MTU_DISCOVER.
    pub const MTU_DISCOVER_V6: Self = Self::v6(libc::IPV6_MTU_DISCOVER);
    /// IP_RECVERR: keep an error queue.
    pub const ERROR_QUEUE_V4: Self = Self::v4(libc::IP_RECVERR);
    /// IPV6_RECVERR: keep an error queue.
    pub const ERROR_QUEUE_V6: Self = Self::v6(libc::IPV6_RECVERR);
    /// IP_RECVTTL: tell each datagram's time to live.
    pub const RECEIVE_TTL: Self = Self::v4(libc::IP_RECVTTL);
    /// IPV6_RECVHOPLIMIT: tell each datagram's hop limit.
    pub const RECEIVE_HOP_LIMIT: Self = Self::v6(libc::IPV6_RECVHOPLIMIT);
    /// IP_RECVTOS: tell each datagram's type of service.
    pub const RECEIVE_TOS: Self = Self::v4(libc::IP_RECVTOS);
    /// IPV6_RECVTCLASS: tell each datagram's traffic class.
    pub const RECEIVE_TRAFFIC_CLASS: Self = Self::v6(libc::IPV6_RECVTCLASS);
    /// IP_PKTINFO: tell which of our addresses each datagram was sent to.
    pub const RECEIVE_DESTINATION_V4: Self = Self::v4(libc::IP_PKTINFO);
    /// IPV6_RECVPKTINFO: tell which of our addresses each datagram was sent to.
    pub const RECEIVE_DESTINATION_V6: Self = Self::v6(libc::IPV6_RECVPKTINFO);
    /// IPV6_V6ONLY: no IPv4 in disguise.
    pub const V6_ONLY: Self = Self::v6(libc::IPV6_V6ONLY);

    const fn socket(name: i32) -> Self {
        Self { level: libc::SOL_SOCKET, name }
    }

    const fn v4(name: i32) -> Self {
        Self { level: libc::IPPROTO_IP, name }
    }

    const fn v6(name: i32) -> Self {
        Self { level: libc::IPPROTO_IPV6, name }
    }
}

/// Sets an option.
///
/// # Errors
/// The kernel's.
pub fn set(fd: BorrowedFd<'_>, opt: Opt, value: i32) -> Result<(), Errno> {
    set_bytes(fd, opt, &value.to_ne_bytes())
}

/// Asks for an option.
///
/// # Errors
/// The kernel's.
pub fn get(fd: BorrowedFd<'_>, opt: Opt) -> Result<i32, Errno> {
    let mut value = [0; 4];
    get_bytes(fd, opt.level, opt.name, &mut value)?;
    Ok(i32::from_ne_bytes(value))
}

/// Makes close(2) reset the connection at once (SO_LINGER with a time of zero).
///
/// # Errors
/// The kernel's.
pub fn reset_on_close(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    // struct linger { int l_onoff; int l_linger; }
    let [a, b, c, d] = 1i32.to_ne_bytes();
    set_bytes(fd, Opt::socket(libc::SO_LINGER), &[a, b, c, d, 0, 0, 0, 0])
}

fn set_bytes(fd: BorrowedFd<'_>, opt: Opt, value: &[u8]) -> Result<(), Errno> {
    let len = libc::socklen_t::try_from(value.len()).map_err(|_| Errno::EINVAL)?;
    // SAFETY: pointer and length are those of a live slice, which the kernel only reads.
    let done = unsafe { libc::setsockopt(fd.as_raw_fd(), opt.level, opt.name, value.as_ptr().cast(), len) };
    Errno::result(done).map(drop)
}

/// Asks for an option of any shape; returns how many bytes the kernel wrote.
pub(super) fn get_bytes(fd: BorrowedFd<'_>, level: i32, name: i32, into: &mut [u8]) -> Result<usize, Errno> {
    let mut len = libc::socklen_t::try_from(into.len()).map_err(|_| Errno::EINVAL)?;
    // SAFETY: pointer and length are those of a live, exclusively borrowed slice; the kernel writes no more than
    // `len` bytes and stores into `len` how many.
    let done =
        unsafe { libc::getsockopt(fd.as_raw_fd(), level, name, into.as_mut_ptr().cast(), &raw mut len) };
    Errno::result(done)?;
    usize::try_from(len).map_err(|_| Errno::EINVAL)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::fd::AsFd;

    #[test]
    fn what_is_set_is_got() {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        for opt in [Opt::ERROR_QUEUE_V4, Opt::RECEIVE_TTL, Opt::RECEIVE_TOS, Opt::UDP_GRO] {
            assert_eq!(get(udp.as_fd(), opt), Ok(0), "{opt:?}");
            set(udp.as_fd(), opt, 1).unwrap();
            assert_eq!(get(udp.as_fd(), opt), Ok(1), "{opt:?}");
        }
        assert_eq!(get(udp.as_fd(), Opt::ERROR), Ok(0));
        assert_eq!(set(udp.as_fd(), Opt { level: -1, name: -1 }, 1), Err(Errno::ENOPROTOOPT));
        let pipe = std::fs::File::open("/dev/null").unwrap();
        assert_eq!(get(pipe.as_fd(), Opt::ERROR), Err(Errno::ENOTSOCK));
    }

    #[test]
    fn reset_on_close_resets() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        reset_on_close(client.as_fd()).unwrap();
        drop(client);
        let error = std::io::Read::read(&mut server, &mut [0]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    }
}
