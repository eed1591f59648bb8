//! Socket options, by name: one table of all that are used.
//!
//! `nix` has a type for many of them, but not for the peek offset and path MTU discovery; here they are all alike. And
//! setsockopt(2) is a door to much of the kernel (filters, upper layers, other protocols' state), so the process of a
//! network may open it for what stands in the table and nothing else (`host/src/sandbox/seccomp.rs`). Nobody calls it
//! but by way of this file (`cargo xtask lint`); the packet sockets of `packet.rs`, which no network has, are the
//! exception.

use nix::errno::Errno;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

/// An option of a socket: all that this project ever sets or asks for are in the table below.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opt {
    level: i32,
    name: i32,
    usage: Use,
}

/// Who uses an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    /// A network's process sets it, so its filter of system calls lets that pass.
    Network,
    /// It is set, but never where a network is served.
    Elsewhere,
    /// It is asked for only. To set it is refused here, and by that filter.
    Look,
}

/// Declares options: `Use NAME = LEVEL, OPTION;`. An option that is not declared cannot be named, and one that is
/// declared is in [`Opt::ALL`], from which the filter is made: neither can be forgotten.
macro_rules! options {
    ($($(#[$about:meta])* $usage:ident $name:ident = $level:ident, $option:ident;)*) => {
        impl Opt {
            $($(#[$about])*
            pub const $name: Self =
                Self { level: libc::$level, name: libc::$option, usage: Use::$usage };)*

            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name),*];
        }
    };
}

options! {
    /// SO_PEEK_OFF: where MSG_PEEK starts reading. TCP has it since Linux 6.9. First in the table, for it is set most
    /// often.
    Network PEEK_OFFSET = SOL_SOCKET, SO_PEEK_OFF;
    /// SO_ERROR: what went wrong since it was last asked.
    Look ERROR = SOL_SOCKET, SO_ERROR;
    /// SO_RCVBUF: the kernel doubles the value and cuts it to `net.core.rmem_max`.
    Network RECEIVE_BUFFER = SOL_SOCKET, SO_RCVBUF;
    /// SO_SNDBUF. To set it on a TCP socket would end the kernel's own tuning; netlink sockets have none.
    Elsewhere SEND_BUFFER = SOL_SOCKET, SO_SNDBUF;
    /// SO_SNDBUFFORCE: the same beyond `net.core.wmem_max`, with CAP_NET_ADMIN.
    Elsewhere SEND_BUFFER_FORCED = SOL_SOCKET, SO_SNDBUFFORCE;
    /// SO_KEEPALIVE.
    Network KEEPALIVE = SOL_SOCKET, SO_KEEPALIVE;
    /// TCP_KEEPIDLE: seconds of silence before the first probe.
    Network KEEPALIVE_IDLE = IPPROTO_TCP, TCP_KEEPIDLE;
    /// TCP_KEEPINTVL: seconds between probes that are not answered.
    Network KEEPALIVE_INTERVAL = IPPROTO_TCP, TCP_KEEPINTVL;
    /// SO_OOBINLINE: urgent data stays where it was in the stream.
    Network URGENT_INLINE = SOL_SOCKET, SO_OOBINLINE;
    /// SO_LINGER, whose value is a structure: [`reset_on_close`].
    Network LINGER = SOL_SOCKET, SO_LINGER;
    /// SO_REUSEADDR: a listener takes over a port that old connections of it still hold.
    Network REUSE_ADDRESS = SOL_SOCKET, SO_REUSEADDR;
    /// IP_FREEBIND: a socket may have an address that the host does not have (yet).
    Network FREE_ADDRESS_V4 = IPPROTO_IP, IP_FREEBIND;
    /// IPV6_FREEBIND: the same.
    Network FREE_ADDRESS_V6 = IPPROTO_IPV6, IPV6_FREEBIND;
    /// SO_BINDTODEVICE, whose value is a name: [`bind_to_device`].
    Network DEVICE = SOL_SOCKET, SO_BINDTODEVICE;
    /// SO_BINDTOIFINDEX: the same by its number (Linux 5.0).
    Network BOUND_INTERFACE = SOL_SOCKET, SO_BINDTOIFINDEX;
    /// SO_BROADCAST: datagrams may go to everybody on a network.
    Network BROADCAST = SOL_SOCKET, SO_BROADCAST;
    /// NETLINK_GET_STRICT_CHK: the kernel refuses attributes that it does not know instead of ignoring them.
    Elsewhere STRICT_CHECKING = SOL_NETLINK, NETLINK_GET_STRICT_CHK;
    /// NETLINK_CAP_ACK: acknowledgements come without a copy of the request.
    Elsewhere SHORT_ACKNOWLEDGEMENTS = SOL_NETLINK, NETLINK_CAP_ACK;
    /// SO_RCVTIMEO, whose value is a time: [`set_patience`].
    Elsewhere RECEIVE_PATIENCE = SOL_SOCKET, SO_RCVTIMEO;
    /// SO_SNDTIMEO, whose value is a time: [`set_patience`].
    Elsewhere SEND_PATIENCE = SOL_SOCKET, SO_SNDTIMEO;
    /// TCP_NODELAY.
    Network NO_DELAY = IPPROTO_TCP, TCP_NODELAY;
    /// UDP_GRO: deliver trains of datagrams.
    Network UDP_GRO = SOL_UDP, UDP_GRO;
    /// IP_BIND_ADDRESS_NO_PORT: the port is chosen by connect, which may share it between destinations.
    Network BIND_NO_PORT = IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT;
    /// IP_MTU_DISCOVER.
    Network MTU_DISCOVER_V4 = IPPROTO_IP, IP_MTU_DISCOVER;
    /// IPV6_MTU_DISCOVER.
    Network MTU_DISCOVER_V6 = IPPROTO_IPV6, IPV6_MTU_DISCOVER;
    /// IP_MTU: the path MTU toward the peer of a connected socket, as far as this host knows.
    Look PATH_MTU_V4 = IPPROTO_IP, IP_MTU;
    /// IPV6_MTU: the same.
    Look PATH_MTU_V6 = IPPROTO_IPV6, IPV6_MTU;
    /// IP_TOS: the type of service of what is sent. Of TCP's, the ECN bits are the kernel's.
    Network TOS = IPPROTO_IP, IP_TOS;
    /// IPV6_TCLASS: the traffic class of what is sent.
    Network TRAFFIC_CLASS = IPPROTO_IPV6, IPV6_TCLASS;
    /// IP_RECVERR: keep an error queue.
    Network ERROR_QUEUE_V4 = IPPROTO_IP, IP_RECVERR;
    /// IPV6_RECVERR: keep an error queue.
    Network ERROR_QUEUE_V6 = IPPROTO_IPV6, IPV6_RECVERR;
    /// IP_RECVTTL: tell each datagram's time to live.
    Network RECEIVE_TTL = IPPROTO_IP, IP_RECVTTL;
    /// IPV6_RECVHOPLIMIT: tell each datagram's hop limit.
    Network RECEIVE_HOP_LIMIT = IPPROTO_IPV6, IPV6_RECVHOPLIMIT;
    /// IP_RECVTOS: tell each datagram's type of service.
    Network RECEIVE_TOS = IPPROTO_IP, IP_RECVTOS;
    /// IPV6_RECVTCLASS: tell each datagram's traffic class.
    Network RECEIVE_TRAFFIC_CLASS = IPPROTO_IPV6, IPV6_RECVTCLASS;
    /// IP_PKTINFO: tell which of our addresses each datagram was sent to.
    Network RECEIVE_DESTINATION_V4 = IPPROTO_IP, IP_PKTINFO;
    /// IPV6_RECVPKTINFO: tell which of our addresses each datagram was sent to.
    Network RECEIVE_DESTINATION_V6 = IPPROTO_IPV6, IPV6_RECVPKTINFO;
    /// IPV6_V6ONLY: no IPv4 in disguise.
    Network V6_ONLY = IPPROTO_IPV6, IPV6_V6ONLY;
}

impl Opt {
    /// Its level and name, as setsockopt(2) takes them.
    #[must_use]
    pub const fn number(self) -> (i32, i32) {
        (self.level, self.name)
    }

    /// Whether the process of a network may set it.
    #[must_use]
    pub const fn is_for_networks(self) -> bool {
        matches!(self.usage, Use::Network)
    }
}

/// Sets an option.
///
/// # Errors
/// The kernel's. EPERM for an option that is only looked at.
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
    set_bytes(fd, Opt::LINGER, &[a, b, c, d, 0, 0, 0, 0])
}

/// Has the socket speak by way of the interface of this name only. Granted to everybody since Linux 5.7.
///
/// # Errors
/// ENODEV: there is none of that name. EPERM on older kernels, without CAP_NET_RAW.
pub fn bind_to_device(fd: BorrowedFd<'_>, name: &str) -> Result<(), Errno> {
    set_bytes(fd, Opt::DEVICE, name.as_bytes())
}

/// How long a blocking socket waits for the other side, in either direction; to the microsecond.
///
/// # Errors
/// The kernel's.
pub fn set_patience(fd: BorrowedFd<'_>, patience: Duration) -> Result<(), Errno> {
    // struct timeval { time_t tv_sec; suseconds_t tv_usec; }
    let seconds = libc::time_t::try_from(patience.as_secs()).unwrap_or(libc::time_t::MAX).to_ne_bytes();
    let micros = libc::suseconds_t::from(patience.subsec_micros().cast_signed()).to_ne_bytes();
    let value = [seconds, micros].concat();
    set_bytes(fd, Opt::RECEIVE_PATIENCE, &value).and_then(|()| set_bytes(fd, Opt::SEND_PATIENCE, &value))
}

fn set_bytes(fd: BorrowedFd<'_>, opt: Opt, value: &[u8]) -> Result<(), Errno> {
    if opt.usage == Use::Look {
        return Err(Errno::EPERM);
    }
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
        assert_eq!(set(udp.as_fd(), Opt::NO_DELAY, 1), Err(Errno::ENOPROTOOPT));
        assert_eq!(set(udp.as_fd(), Opt::ERROR, 1), Err(Errno::EPERM), "to look at only");
        let pipe = std::fs::File::open("/dev/null").unwrap();
        assert_eq!(get(pipe.as_fd(), Opt::ERROR), Err(Errno::ENOTSOCK));
    }

    #[test]
    fn each_option_stands_in_the_table_once() {
        for (at, opt) in Opt::ALL.iter().enumerate() {
            let again = Opt::ALL.iter().skip(at + 1).find(|other| other.number() == opt.number());
            assert_eq!(again, None, "{opt:?}");
        }
    }

    #[test]
    fn patience_ends() {
        let (here, _there) = std::os::unix::net::UnixStream::pair().unwrap();
        set_patience(here.as_fd(), Duration::from_micros(1_500)).unwrap();
        let error = std::io::Read::read(&mut &here, &mut [0]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
        set_patience(here.as_fd(), Duration::new(3, 7_000)).unwrap();
        let patience = (here.read_timeout().unwrap(), here.write_timeout().unwrap());
        // In whole ticks of the kernel.
        assert!([patience.0, patience.1].into_iter().flatten().all(|it| it.as_secs() == 3), "{patience:?}");
    }

    #[test]
    fn a_device_is_bound_by_name() {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert_eq!(bind_to_device(udp.as_fd(), "no-such-device"), Err(Errno::ENODEV));
        match bind_to_device(udp.as_fd(), "lo") {
            Err(Errno::EPERM) => println!("SKIP a_device_is_bound_by_name: needs Linux 5.7 or CAP_NET_RAW"),
            result => assert_eq!(result.and_then(|()| get(udp.as_fd(), Opt::BOUND_INTERFACE)), Ok(1)),
        }
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
