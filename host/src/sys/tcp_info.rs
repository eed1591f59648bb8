//! TCP_INFO: what the kernel knows about a connection.

use super::sockopt::get_bytes;
use nix::errno::Errno;
use std::os::fd::BorrowedFd;

/// Whether the peer has closed its half of the connection, or the connection is over; data may still wait to be read.
///
/// # Errors
/// The kernel's: not a TCP socket.
pub fn peer_has_closed(fd: BorrowedFd<'_>) -> Result<bool, Errno> {
    // The state is the first byte of `struct tcp_info`; the kernel cuts the answer to the room it is given.
    let mut state = [0];
    get_bytes(fd, libc::IPPROTO_TCP, libc::TCP_INFO, &mut state)?;
    let [state] = state;
    Ok(matches!(state, TIME_WAIT | CLOSE | CLOSE_WAIT | LAST_ACK | CLOSING))
}

// include/net/tcp_states.h
const TIME_WAIT: u8 = 6;
const CLOSE: u8 = 7;
const CLOSE_WAIT: u8 = 8;
const LAST_ACK: u8 = 9;
const CLOSING: u8 = 11;

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::net::{Shutdown, TcpListener, TcpStream};
    use std::os::fd::AsFd;

    #[test]
    fn a_half_closed_connection_is_told() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        assert_eq!(peer_has_closed(server.as_fd()), Ok(false));
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(server.read(&mut [0]).unwrap(), 0);
        assert_eq!(peer_has_closed(server.as_fd()), Ok(true));
        assert_eq!(peer_has_closed(client.as_fd()), Ok(false));
    }
}
