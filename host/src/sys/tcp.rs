//! Reading a TCP socket's receive queue without taking, and taking without reading.

use nix::errno::Errno;
use slipway_netstack::surely::Surely;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Copies into `into` what lies in the receive queue from where the socket's peek offset points; takes nothing.
/// Returns 0 at the end of the stream.
///
/// # Errors
/// EAGAIN when there is nothing; the connection's error.
pub fn peek(fd: BorrowedFd<'_>, into: &mut [u8]) -> Result<usize, Errno> {
    // SAFETY: pointer and length are those of a live, exclusively borrowed slice.
    let got = unsafe {
        libc::recv(fd.as_raw_fd(), into.as_mut_ptr().cast(), into.len(), libc::MSG_PEEK | libc::MSG_DONTWAIT)
    };
    Errno::result(got).map(|got| usize::try_from(got).surely())
}

/// [`peek`] for kernels without a peek offset: the first `skip` bytes of the queue are copied into `scratch`, again and
/// again over one another, and only those behind them into `into`. Returns how many were copied in all, the skipped
/// ones included.
///
/// # Errors
/// As [`peek`]; EMSGSIZE when `skip` is more than 1023 times the length of `scratch`.
pub fn peek_behind(
    fd: BorrowedFd<'_>,
    skip: usize,
    scratch: &mut [u8],
    into: &mut [u8],
) -> Result<usize, Errno> {
    let mut parts = Vec::with_capacity(skip.div_ceil(scratch.len().max(1)) + 1);
    let mut left = skip;
    while left > 0 {
        let len = left.min(scratch.len());
        if len == 0 || parts.len() >= MAX_PARTS - 1 {
            return Err(Errno::EMSGSIZE);
        }
        parts.push(libc::iovec { iov_base: scratch.as_mut_ptr().cast(), iov_len: len });
        left -= len;
    }
    parts.push(libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: into.len() });
    // SAFETY: an all-zero msghdr is valid: no name, no control data, no parts.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = parts.as_mut_ptr();
    header.msg_iovlen = parts.len();
    // SAFETY: each part points to a live, exclusively borrowed slice and is no longer than it. That several parts
    // name the same bytes is fine: the kernel writes them one after the other, and bytes have no invalid value.
    let got = unsafe { libc::recvmsg(fd.as_raw_fd(), &raw mut header, libc::MSG_PEEK | libc::MSG_DONTWAIT) };
    Errno::result(got).map(|got| usize::try_from(got).surely())
}

/// UIO_MAXIOV.
const MAX_PARTS: usize = 1024;

/// Takes up to `count` bytes from the receive queue without copying them anywhere (MSG_TRUNC, see tcp(7)). Returns how
/// many; 0 at the end of the stream.
///
/// # Errors
/// EAGAIN when there is nothing; the connection's error.
pub fn discard(fd: BorrowedFd<'_>, count: usize) -> Result<usize, Errno> {
    // SAFETY: with MSG_TRUNC a TCP socket writes nothing to the buffer, so the null pointer is never followed; were it
    // followed, the kernel would answer EFAULT.
    let got = unsafe {
        libc::recv(fd.as_raw_fd(), std::ptr::null_mut(), count, libc::MSG_TRUNC | libc::MSG_DONTWAIT)
    };
    Errno::result(got).map(|got| usize::try_from(got).surely())
}

/// Sends one byte as urgent data: the peer is told of it out of band. Returns how many the kernel took.
///
/// # Errors
/// EAGAIN when there is no room; the connection's error.
pub fn send_urgent(fd: BorrowedFd<'_>, byte: u8) -> Result<usize, Errno> {
    let flags = libc::MSG_OOB | libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the pointer is that of a live byte, which the kernel only reads.
    let sent = unsafe { libc::send(fd.as_raw_fd(), (&raw const byte).cast(), 1, flags) };
    Errno::result(sent).map(|sent| usize::try_from(sent).surely())
}

/// How many bytes are in the receive queue; without SO_OOBINLINE those before the urgent byte, if there is one
/// (FIONREAD, tcp(7)).
///
/// # Errors
/// The kernel's: not a connected socket.
pub fn queued(fd: BorrowedFd<'_>) -> Result<usize, Errno> {
    let mut count: libc::c_int = 0;
    // SAFETY: the request takes a pointer to an int, which is live and exclusively borrowed.
    let done = unsafe { libc::ioctl(fd.as_raw_fd(), libc::FIONREAD, &raw mut count) };
    Errno::result(done)?;
    usize::try_from(count).map_err(|_| Errno::EINVAL)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::{SocketAddr, TcpListener, TcpStream};
    use std::os::fd::{AsFd, FromRawFd, OwnedFd};

    /// A connection whose first end has `data` in its receive queue.
    fn holding(data: &[u8]) -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        client.write_all(data).unwrap();
        server.peek(&mut [0]).unwrap(); // Waits until it is there.
        (server, client)
    }

    #[test]
    fn peeking_takes_nothing_and_discarding_copies_nothing() {
        let (server, _client) = holding(b"hello, world");
        let mut into = [0; 5];
        for _ in 0..2 {
            assert_eq!(peek(server.as_fd(), &mut into), Ok(5));
            assert_eq!(&into, b"hello");
        }
        assert_eq!(discard(server.as_fd(), 7), Ok(7));
        assert_eq!(peek(server.as_fd(), &mut into), Ok(5));
        assert_eq!(&into, b"world");
        assert_eq!(discard(server.as_fd(), 1 << 30), Ok(5), "no more than there is");
        assert_eq!(discard(server.as_fd(), 1), Err(Errno::EAGAIN));
        assert_eq!(peek(server.as_fd(), &mut into), Err(Errno::EAGAIN));
    }

    #[test]
    fn peeking_behind_skips() {
        let (server, _client) = holding(b"hello, world");
        let (mut scratch, mut into) = ([0; 3], [0; 16]);
        assert_eq!(peek_behind(server.as_fd(), 7, &mut scratch, &mut into), Ok(12));
        assert_eq!(&into[..5], b"world");
        assert_eq!(peek_behind(server.as_fd(), 0, &mut [], &mut into), Ok(12));
        assert_eq!(&into[..12], b"hello, world");
        assert_eq!(peek_behind(server.as_fd(), 99, &mut scratch, &mut into), Ok(12), "all of it skipped");
        assert_eq!(peek_behind(server.as_fd(), 1, &mut [], &mut into), Err(Errno::EMSGSIZE));
        assert_eq!(peek_behind(server.as_fd(), 3 * 1024, &mut scratch, &mut into), Err(Errno::EMSGSIZE));
    }

    /// Such sockets come from listeners that others opened: Go's are MPTCP, which has no peek offset.
    #[test]
    fn a_socket_that_refuses_an_offset_falls_back_for_itself() {
        use crate::epoll::Events;
        use crate::families::families;
        use crate::sys::sockopt::{self, Opt};
        use crate::upstream::{Peeking, Sockets, Ways};
        use nix::sys::epoll::EpollFlags;
        use nix::sys::socket::{Backlog, SockaddrStorage, bind, connect, listen};
        use slipway_netstack::FlowId;
        use slipway_netstack::upstream::{Peek, Upstream};
        let name = "a_socket_that_refuses_an_offset_falls_back_for_itself";
        for like in families(name) {
            let family = if like.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
            // SAFETY: socket(2) takes no pointers; what it returns is ours alone.
            let Ok(fd) =
                Errno::result(unsafe { libc::socket(family, libc::SOCK_STREAM, libc::IPPROTO_MPTCP) })
            else {
                println!("SKIP {name}: this kernel has no MPTCP");
                return;
            };
            // SAFETY: it was just opened and nobody else knows it.
            let listener = TcpListener::from(unsafe { OwnedFd::from_raw_fd(fd) });
            let address = SocketAddr::new(like, 0);
            bind(listener.as_raw_fd(), &SockaddrStorage::from(address)).unwrap();
            listen(&listener, Backlog::new(1).unwrap()).unwrap();
            // SAFETY: as above, both times.
            let peer = unsafe { libc::socket(family, libc::SOCK_STREAM, libc::IPPROTO_MPTCP) };
            // SAFETY: as above.
            let mut peer = TcpStream::from(unsafe { OwnedFd::from_raw_fd(peer) });
            connect(peer.as_raw_fd(), &SockaddrStorage::from(listener.local_addr().unwrap())).unwrap();
            let accepted = OwnedFd::from(listener.accept().unwrap().0);
            assert!(sockopt::set(accepted.as_fd(), Opt::PEEK_OFFSET, 0).is_err(), "it has an offset by now");

            let mut sockets = Sockets::with_peeking(Ways::both(Peeking::Offset)).unwrap();
            let flow = FlowId::new(1, 1);
            sockets.attach_tcp(flow, accepted).unwrap();
            let (mut events, mut into) = (Events::default(), [0; 4]);
            let patience = Some(std::time::Duration::from_secs(5));
            // What happens next, and what a peek finds then.
            let mut look = |sockets: &mut Sockets, offset: usize| {
                sockets.events().wait(&mut events, patience).unwrap();
                let (_, flags) = events.get(0).expect("something happens");
                sockets.decode(flow, flags).for_each(drop);
                (flags, sockets.tcp_peek(flow, offset, &mut into), into)
            };
            peer.write_all(b"01234567").unwrap();
            let (_, found, bytes) = look(&mut sockets, 0);
            assert_eq!((found, &bytes), (Peek::Data(4), b"0123"));
            assert_eq!(sockets.tcp_peek(flow, 4, &mut [0; 9]), Peek::Data(4));
            peer.shutdown(std::net::Shutdown::Write).unwrap();
            let (mut flags, mut end, _) = look(&mut sockets, 8);
            if !flags.contains(EpollFlags::EPOLLRDHUP) {
                (flags, end, _) = look(&mut sockets, 8);
            }
            assert!(flags.contains(EpollFlags::EPOLLRDHUP));
            // The state of its first path does not tell that the stream is at its end, and no further event will.
            assert!(matches!(end, Peek::Empty | Peek::End));
            sockets.tcp_consume(flow, 8);
            assert_eq!(look(&mut sockets, 0).1, Peek::End);
        }
    }

    #[test]
    fn an_urgent_byte_is_sent_and_what_is_queued_is_counted() {
        let (server, client) = holding(b"hello");
        assert_eq!(queued(server.as_fd()), Ok(5));
        assert_eq!(send_urgent(client.as_fd(), b'!'), Ok(1));
        let mut urgent = [0];
        let mut got = Err(Errno::EINVAL);
        for _ in 0..1000 {
            got =
                nix::sys::socket::recv(server.as_raw_fd(), &mut urgent, nix::sys::socket::MsgFlags::MSG_OOB);
            if got.is_ok() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        assert_eq!((got, urgent), (Ok(1), *b"!"));
        assert_eq!(queued(std::fs::File::open("/dev/null").unwrap().as_fd()), Err(Errno::ENOTTY));
    }
}
