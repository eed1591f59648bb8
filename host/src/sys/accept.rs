//! accept4(2) for a listening socket of any family. `std` has one type for each family and none for vsock; the function
//! of `nix` returns a number.

use nix::errno::Errno;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// The next connection, which does not block.
///
/// # Errors
/// The kernel's; EAGAIN when the listener does not block and nobody has come.
pub(crate) fn accept(listener: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: null pointers say that the peer's address is not wanted (accept(2)).
    let fd =
        unsafe { libc::accept4(listener.as_raw_fd(), std::ptr::null_mut(), std::ptr::null_mut(), flags) };
    let fd = Errno::result(fd)?;
    // SAFETY: the kernel has just made the descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;

    #[test]
    fn a_connection_is_accepted_and_does_not_block() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        assert_eq!(accept(listener.as_fd()).unwrap_err(), Errno::EAGAIN);
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut server = TcpStream::from(accept(listener.as_fd()).unwrap());
        assert_eq!(server.read(&mut [0]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
        server.write_all(b"x").unwrap();
        client.read_exact(&mut [0]).unwrap();
        assert_eq!(accept(client.as_fd()).unwrap_err(), Errno::EINVAL);
    }
}
