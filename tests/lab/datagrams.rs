//! A flood of datagrams and the place that counts what comes.
//!
//! The sender hands the kernel one datagram a call, or a train of them (`UDP_SEGMENT`, udp(7)), as QUIC servers do. The
//! counter takes trains (`UDP_GRO`), so that it is not what is measured, and tells its count to whoever sends one byte.

use std::io::{self, ErrorKind, Write as _};
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};
use slipway_lab::now;

/// How often the count is asked for; the question or the answer may be lost.
const ASKED: usize = 20;

/// Counts datagrams for ever.
pub(crate) fn sink(at: SocketAddr) -> io::Result<()> {
    let socket = UdpSocket::bind(at)?;
    setsockopt(&socket, sockopt::UdpGroSegment, &true)?;
    let mut tally = Tally::default();
    let mut buffer = vec![0_u8; 65536];
    loop {
        let (count, from) = socket.recv_from(&mut buffer)?;
        if count == 1 {
            let _ = socket.send_to(tally.to_string().as_bytes(), from);
        } else {
            tally.add(count, now());
        }
    }
}

/// Bytes, and the time from the first to the last.
#[derive(Default)]
struct Tally {
    bytes: usize,
    span: Option<(Instant, Instant)>,
}

impl Tally {
    fn add(&mut self, bytes: usize, at: Instant) {
        self.bytes += bytes;
        self.span = Some((self.span.map_or(at, |(first, _)| first), at));
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let span = self.span.map_or(Duration::ZERO, |(first, last)| last - first);
        write!(f, "{} {:.4}", self.bytes, span.as_secs_f64())
    }
}

/// Sends datagrams of `size` bytes, so many with each call, and prints what the sink counted: bytes and seconds.
pub(crate) fn flood(to: SocketAddr, span: Duration, size: u16, train: u16) -> io::Result<()> {
    let socket = UdpSocket::bind(if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
    socket.connect(to)?;
    if train > 1 {
        setsockopt(&socket, sockopt::UdpGsoSegment, &i32::from(size))?;
    }
    let bytes = vec![0_u8; usize::from(size) * usize::from(train)];
    let start = now();
    while start.elapsed() < span {
        match socket.send(&bytes) {
            // A full queue loses datagrams; that is what is counted at the other end.
            Err(error) if error.raw_os_error() != Some(nix::libc::ENOBUFS) => return Err(error),
            _ => {}
        }
    }
    std::thread::sleep(Duration::from_millis(100));
    socket.set_read_timeout(Some(Duration::from_millis(300)))?;
    let mut answer = [0_u8; 64];
    for _ in 0..ASKED {
        socket.send(b"?")?;
        match socket.recv(&mut answer) {
            Ok(count) => {
                let text = String::from_utf8_lossy(answer.get(..count).unwrap_or_default()).into_owned();
                return writeln!(io::stdout(), "{text}");
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::new(ErrorKind::TimedOut, "nobody tells what arrived"))
}

/// Sends so many datagrams a second to where perhaps nobody is, and prints how many were sent, and how many calls
/// failed because somebody on the way had complained.
pub(crate) fn knock(to: SocketAddr, span: Duration, rate: u32) -> io::Result<()> {
    let socket = UdpSocket::bind(if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
    socket.connect(to)?;
    let pause = Duration::from_secs(1).checked_div(rate).unwrap_or_default();
    let (start, mut sent, mut failed) = (now(), 0, 0);
    while start.elapsed() < span {
        match socket.send(b"knock") {
            Ok(_) => sent += 1,
            Err(_) => failed += 1,
        }
        std::thread::sleep(pause);
    }
    writeln!(io::stdout(), "{sent} {failed}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_and_the_last_make_the_span() {
        let start = now();
        let mut tally = Tally::default();
        assert_eq!(tally.to_string(), "0 0.0000");
        for milliseconds in [0, 100, 250] {
            tally.add(1000, start + Duration::from_millis(milliseconds));
        }
        assert_eq!(tally.to_string(), "3000 0.2500");
    }
}
