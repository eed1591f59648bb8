//! Descriptors that change hands: over a Unix socket (SCM_RIGHTS, unix(7)), and by number on a command line.

use nix::cmsg_space;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::libc;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, accept4, getsockopt, recvmsg, sendmsg,
    sockopt,
};
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;

/// Descriptors that one message can bring.
pub const MAX_FDS: usize = 8;

/// The kernel's limit for one message (unix(7)).
const SCM_MAX_FD: usize = 253;

/// Sends `payload`, and `fd` with it, over a connected Unix socket.
///
/// # Errors
/// Those of sendmsg(2). The payload must not be empty: a descriptor travels with at least one byte.
pub fn send(socket: BorrowedFd<'_>, payload: &[u8], fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
    send_all(socket, payload, fd.as_slice())
}

/// The same with any number of descriptors up to [`MAX_FDS`].
///
/// # Errors
/// As [`send`].
pub fn send_all(socket: BorrowedFd<'_>, payload: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let sent = send_part(socket, payload, fds)?;
    if sent == payload.len() { Ok(()) } else { Err(io::Error::from(io::ErrorKind::WriteZero)) }
}

/// The same over a stream that may be full: so many bytes of `payload` were taken, and with the first of them all
/// descriptors.
///
/// # Errors
/// Those of sendmsg(2): EAGAIN when nothing was taken, of a socket that does not block.
pub fn send_part(socket: BorrowedFd<'_>, payload: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let fds: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&fds)];
    let control: &[ControlMessage<'_>] = if fds.is_empty() { &[] } else { &rights };
    let parts = [IoSlice::new(payload)];
    Ok(sendmsg::<()>(socket.as_raw_fd(), &parts, control, MsgFlags::MSG_NOSIGNAL, None)?)
}

/// Receives what [`send`] sent: the number of payload bytes (0 at the end), and the descriptor if one came, with
/// close-on-exec set. Further descriptors in the same message are closed.
///
/// # Errors
/// As [`receive_all`].
pub fn receive(socket: BorrowedFd<'_>, payload: &mut [u8]) -> io::Result<(usize, Option<OwnedFd>)> {
    let (len, mut fds) = receive_all(socket, payload)?;
    fds.truncate(1);
    Ok((len, fds.pop()))
}

/// Receives what [`send_all`] sent: the number of payload bytes (0 at the end), and the descriptors, with close-on-exec
/// set.
///
/// # Errors
/// Those of recvmsg(2); `InvalidData` when there were more descriptors than [`MAX_FDS`] or than this process may have,
/// or a packet longer than `payload`. What came is closed then, unless this process may have no more descriptors: then
/// some stay.
pub fn receive_all(socket: BorrowedFd<'_>, payload: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let Part { len, fds, cut, lost } = receive_part(socket, payload)?;
    if lost || cut || fds.len() > MAX_FDS {
        return Err(io::Error::from(io::ErrorKind::InvalidData));
    }
    Ok((len, fds))
}

/// What [`receive_part`] received.
#[derive(Debug)]
pub struct Part {
    /// So many bytes; 0 at the end.
    pub len: usize,
    /// The descriptors, with close-on-exec set. Of a stream, those of one message at the most: the kernel reads no
    /// further than to the end of one that had some.
    pub fds: Vec<OwnedFd>,
    /// A packet was longer than the buffer, and the rest is gone. Never of a stream.
    pub cut: bool,
    /// Descriptors are missing: this process may have no more.
    pub lost: bool,
}

/// Receives part of what [`send_part`] sent, and tells what is missing instead of failing.
///
/// # Errors
/// Those of recvmsg(2).
pub fn receive_part(socket: BorrowedFd<'_>, payload: &mut [u8]) -> io::Result<Part> {
    // As many as the kernel ever sends at once: those that find no room here would be open, and unknown.
    let mut space = cmsg_space!([RawFd; SCM_MAX_FD]);
    let mut parts = [IoSliceMut::new(payload)];
    let message =
        recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
    let cut = message.flags.contains(MsgFlags::MSG_TRUNC);
    // Control messages that were cut short are not to be taken apart.
    if message.flags.contains(MsgFlags::MSG_CTRUNC) {
        return Ok(Part { len: message.bytes, fds: Vec::new(), cut, lost: true });
    }
    let mut received = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(fds) = control {
            for fd in fds {
                // SAFETY: the kernel has just installed this descriptor for us; nobody else knows its number.
                received.push(unsafe { OwnedFd::from_raw_fd(fd) });
            }
        }
    }
    Ok(Part { len: message.bytes, fds: received, cut, lost: false })
}

/// Accepts a connection of any family, whose address nobody asks for: it does not block and has close-on-exec set.
///
/// # Errors
/// Those of accept4(2).
pub fn accept(listener: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = accept4(listener.as_raw_fd(), flags)?;
    // SAFETY: the kernel has just made this descriptor for us; nobody else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The listening Unix socket of this kind that somebody else has opened; `None` when `fd` is anything else. Whoever
/// waits for clients on what can have none waits in vain, or is woken again and again: accept(2) fails there for ever.
#[must_use]
pub fn unix_listener(fd: OwnedFd, kind: SockType) -> Option<UnixListener> {
    let listens =
        getsockopt(&fd, sockopt::SockType) == Ok(kind) && getsockopt(&fd, sockopt::AcceptConn) == Ok(true);
    let listener = UnixListener::from(fd);
    (listens && listener.local_addr().is_ok()).then_some(listener)
}

/// Takes over a descriptor that was inherited through exec and whose number stands on the command line
/// (`--ready-fd 3`), and sets close-on-exec.
///
/// Whatever this process opened itself has close-on-exec set, in `std` and in this crate; what came through exec
/// cannot have it. So that flag tells the two apart, and also makes a second call for the same number fail. Numbers 0
/// to 2 belong to the standard streams and are duplicated.
///
/// # Errors
/// EBADF when the number is not open; EBUSY when it is, but was not inherited or is already taken.
pub fn take_inherited(number: RawFd) -> io::Result<OwnedFd> {
    if number < 0 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: used only for fcntl calls within this function, which report a closed number as EBADF.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    let flags = FdFlag::from_bits_retain(fcntl(borrowed, FcntlArg::F_GETFD)?);
    if number <= 2 {
        return borrowed.try_clone_to_owned();
    }
    if flags.contains(FdFlag::FD_CLOEXEC) {
        return Err(io::Error::from_raw_os_error(libc::EBUSY));
    }
    fcntl(borrowed, FcntlArg::F_SETFD(flags | FdFlag::FD_CLOEXEC))?;
    // SAFETY: it is open and was inherited (no close-on-exec), so no object of this process owns it; the flag that
    // has just been set keeps a second call from taking it again.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::{AddressFamily, socketpair};
    use std::io::{Read, Seek, Write};
    use std::os::fd::{AsFd, IntoRawFd};
    use std::os::unix::net::UnixStream;

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap()
    }

    #[test]
    fn a_descriptor_travels_with_its_payload() {
        let (a, b) = pair();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"hello").unwrap();
        send(a.as_fd(), b"x", Some(file.as_fd())).unwrap();
        let mut buffer = [0; 8];
        let (len, fd) = receive(b.as_fd(), &mut buffer).unwrap();
        assert_eq!(&buffer[..len], b"x");
        let mut copy = std::fs::File::from(fd.unwrap());
        copy.rewind().unwrap();
        let mut text = String::new();
        copy.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
        let flags = fcntl(copy.as_fd(), FcntlArg::F_GETFD).unwrap();
        assert!(FdFlag::from_bits_retain(flags).contains(FdFlag::FD_CLOEXEC));
    }

    #[test]
    fn a_payload_travels_alone_and_the_end_is_zero() {
        let (a, b) = pair();
        send(a.as_fd(), b"text", None).unwrap();
        drop(a);
        let mut buffer = [0; 8];
        assert_eq!(receive(b.as_fd(), &mut buffer).map(|(len, fd)| (len, fd.is_none())).unwrap(), (4, true));
        assert_eq!(receive(b.as_fd(), &mut buffer).unwrap().0, 0);
        assert!(send(b.as_fd(), b"late", None).is_err(), "EPIPE, and no signal");
    }

    #[test]
    fn several_travel_in_order_and_too_many_are_refused() {
        let (a, b) = pair();
        let (x, y) = pair();
        send_all(a.as_fd(), b"2", &[x.as_fd(), y.as_fd()]).unwrap();
        let mut buffer = [0; 8];
        let (len, fds) = receive_all(b.as_fd(), &mut buffer).unwrap();
        assert_eq!((len, fds.len()), (1, 2));
        send(fds[0].as_fd(), b"through", None).unwrap();
        drop((x, fds));
        assert_eq!(receive(y.as_fd(), &mut buffer).unwrap().0, 7);
        // Other tests open and close their own meanwhile.
        let socket = std::fs::read_link(format!("/proc/self/fd/{}", y.as_raw_fd())).unwrap();
        let open = || {
            let all = std::fs::read_dir("/proc/self/fd").unwrap();
            all.filter(|fd| std::fs::read_link(fd.as_ref().unwrap().path()).is_ok_and(|to| to == socket))
                .count()
        };
        send_all(a.as_fd(), b"9", &[y.as_fd(); 9]).unwrap();
        assert_eq!(receive_all(b.as_fd(), &mut buffer).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(open(), 1, "what did come is closed");
        send(a.as_fd(), b"longer than the buffer", None).unwrap();
        assert_eq!(receive_all(b.as_fd(), &mut buffer).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn a_stream_takes_what_it_can_and_the_descriptor_comes_with_the_first_byte() {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let (a, b) = socketpair(AddressFamily::Unix, SockType::Stream, None, flags).unwrap();
        let (x, _y) = pair();
        send_all(a.as_fd(), b"before", &[]).unwrap();
        let taken = send_part(a.as_fd(), &vec![7; 4 << 20], &[x.as_fd()]).unwrap();
        assert!((1..4 << 20).contains(&taken), "{taken}");
        let full = send_part(a.as_fd(), &vec![7; 4 << 20], &[]).unwrap_err();
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
        let mut buffer = [0; 8];
        let mut fds = Vec::new();
        let mut left = 6 + taken;
        while left > 0 {
            let part = receive_part(b.as_fd(), &mut buffer).unwrap();
            assert!(part.len > 0 && !part.cut && !part.lost);
            left -= part.len;
            fds.extend(part.fds.into_iter().map(|_| left));
        }
        assert!(fds.len() == 1 && fds[0] >= taken - 8, "{fds:?} of {taken}");
        let none = receive_part(b.as_fd(), &mut buffer).unwrap_err();
        assert_eq!(none.kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn a_connection_is_accepted_whatever_its_family() {
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let dir = tempfile::tempdir().unwrap();
        let unix = UnixListener::bind(dir.path().join("s")).unwrap();
        unix.set_nonblocking(true).unwrap();
        assert_eq!(accept(unix.as_fd()).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let mut clients = (
            std::net::TcpStream::connect(tcp.local_addr().unwrap()).unwrap(),
            UnixStream::connect(dir.path().join("s")).unwrap(),
        );
        for (listener, client) in
            [(tcp.as_fd(), &mut clients.0 as &mut dyn Write), (unix.as_fd(), &mut clients.1)]
        {
            let mut accepted = std::fs::File::from(accept(listener).unwrap());
            let mut buffer = [0; 1];
            assert_eq!(accepted.read(&mut buffer).unwrap_err().kind(), io::ErrorKind::WouldBlock);
            client.write_all(b"x").unwrap();
            // A byte on a loopback is there when write(2) has returned.
            assert_eq!(accepted.read(&mut buffer).unwrap(), 1);
        }
    }

    #[test]
    fn only_a_listening_unix_socket_of_the_kind_is_one() {
        let dir = tempfile::tempdir().unwrap();
        let stream = || UnixListener::bind(dir.path().join("s")).unwrap();
        assert!(unix_listener(stream().into(), SockType::SeqPacket).is_none());
        std::fs::remove_file(dir.path().join("s")).unwrap();
        assert!(unix_listener(stream().into(), SockType::Stream).is_some());
        let (a, _b) = UnixStream::pair().unwrap();
        assert!(unix_listener(a.into(), SockType::Stream).is_none(), "connected");
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(unix_listener(tcp.into(), SockType::Stream).is_none(), "of another family");
        assert!(unix_listener(tempfile::tempfile().unwrap().into(), SockType::Stream).is_none());
    }

    #[test]
    fn only_an_inherited_descriptor_can_be_taken_and_only_once() {
        assert_eq!(take_inherited(-1).unwrap_err().raw_os_error(), Some(libc::EBADF));
        assert_eq!(take_inherited(999_999).unwrap_err().raw_os_error(), Some(libc::EBADF));
        let own = tempfile::tempfile().unwrap();
        assert_eq!(take_inherited(own.as_raw_fd()).unwrap_err().raw_os_error(), Some(libc::EBUSY));
        // As if it had come through exec: nobody owns it, close-on-exec is off.
        let number = own.into_raw_fd();
        // SAFETY: the number was released by `into_raw_fd` one line above.
        let loose = unsafe { BorrowedFd::borrow_raw(number) };
        fcntl(loose, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
        let taken = take_inherited(number).unwrap();
        assert_eq!(take_inherited(number).unwrap_err().raw_os_error(), Some(libc::EBUSY));
        drop(taken);
    }
}
