//! What the kernel's error numbers and error queues mean to the engine.

use super::batch;
use crate::sys::message::{Control, Name, control_messages, decode_address};
use crate::sys::mmsg;
use nix::errno::Errno as Code;
use slipway_netstack::upstream::{DatagramError, Empty, Errno};
use std::io::IoSliceMut;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;

/// The engine's name for an error number.
#[must_use]
pub fn errno(code: Code) -> Errno {
    match code {
        Code::ECONNREFUSED => Errno::Refused,
        Code::ECONNRESET | Code::EPIPE | Code::ECONNABORTED | Code::ENOTCONN => Errno::Reset,
        Code::ETIMEDOUT => Errno::TimedOut,
        Code::EHOSTUNREACH | Code::EHOSTDOWN => Errno::HostUnreachable,
        Code::ENETUNREACH | Code::ENETDOWN | Code::EADDRNOTAVAIL | Code::EAFNOSUPPORT => {
            Errno::NetUnreachable
        }
        Code::EACCES | Code::EPERM => Errno::Prohibited,
        Code::EMSGSIZE => Errno::TooBig { mtu: 0 },
        Code::EMFILE | Code::ENFILE | Code::ENOBUFS | Code::ENOMEM | Code::ENOSPC => Errno::Exhausted,
        Code::EBADF => Errno::BadSocket,
        _ => Errno::Other,
    }
}

/// Entries of an error queue that are no errors (time stamps and the like), passed over in one call.
const SKIPPED: usize = 16;

/// Takes one report from the error queue of a datagram socket. What comes with it of the datagram itself, its payload
/// or, from a ping socket, the message from its ICMP header on, tells `sequence` which one it was.
pub(super) fn take(
    fd: BorrowedFd<'_>,
    sequence: impl FnOnce(&[u8]) -> Option<u16>,
) -> Result<DatagramError, Empty> {
    for _ in 0..SKIPPED {
        let mut datagram = [0; 8];
        let arrived = match mmsg::receive_one(fd, &mut [IoSliceMut::new(&mut datagram)], true) {
            Ok(arrived) => arrived,
            Err(Code::EINTR) => continue,
            Err(_) => return Err(Empty),
        };
        let Some(to) = arrived.name.decode() else { continue };
        let report = control_messages(arrived.control.as_bytes()).find_map(|message| match message {
            (libc::IPPROTO_IP, libc::IP_RECVERR, data) | (libc::IPPROTO_IPV6, libc::IPV6_RECVERR, data) => {
                parse(to, data)
            }
            _ => None,
        });
        if let Some(report) = report {
            let sequence = sequence(datagram.get(..arrived.len).unwrap_or(&datagram));
            return Ok(DatagramError { sequence, ..report });
        }
    }
    Err(Empty)
}

/// `struct sock_extended_err` (linux/errqueue.h), then the address of the host that complained.
fn parse(to: SocketAddr, data: &[u8]) -> Option<DatagramError> {
    let (&[c0, c1, c2, c3, origin, kind, code, _pad], rest) = data.split_first_chunk::<8>()?;
    let (&info, rest) = rest.split_first_chunk::<4>()?;
    let offender = decode_address(rest.get(4..)?).map(|address| address.ip());
    let error = match Code::from_raw(i32::from_ne_bytes([c0, c1, c2, c3])) {
        Code::EMSGSIZE => Errno::TooBig { mtu: u16::try_from(u32::from_ne_bytes(info)).unwrap_or(u16::MAX) },
        other => errno(other),
    };
    let report = |reporter, icmp| Some(DatagramError { to, error, reporter, icmp, sequence: None });
    match origin {
        // The call that sent it has said so, too, and knew to which port.
        libc::SO_EE_ORIGIN_LOCAL if matches!(error, Errno::TooBig { .. }) => None,
        libc::SO_EE_ORIGIN_LOCAL => report(None, None),
        libc::SO_EE_ORIGIN_ICMP | libc::SO_EE_ORIGIN_ICMP6 => report(offender, Some((kind, code))),
        _ => None,
    }
}

/// Reads any bytes as a socket address (28 of them) and the control messages that came with it.
pub(crate) fn fuzz(bytes: &[u8]) {
    let (name, control) = bytes.split_at(bytes.len().min(Name::ROOM));
    let address = decode_address(name);
    assert_eq!(
        address,
        address.and_then(|address| Name::from(address).decode()),
        "it is written as it was read"
    );
    let to = address.unwrap_or_else(|| SocketAddr::from(([192, 0, 2, 1], 9)));
    let mut read = 0;
    for (level, kind, data) in control_messages(control) {
        read += size_of::<usize>() + 8 + data.len();
        assert!(read <= control.len(), "no message is invented");
        let mut again = Control::EMPTY;
        again.push(level, kind, data);
        let there = again.as_bytes().is_empty();
        assert!(
            there || control_messages(again.as_bytes()).eq([(level, kind, data)]),
            "it is written as it was read"
        );
        if let Some(report) = parse(to, data) {
            assert_eq!(report.to, to);
            assert!(report.icmp.is_some() || report.reporter.is_none(), "only routers and hosts report");
        }
    }
    let _ = batch::read_control(control);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(errno: i32, origin: u8, info: u32, offender: &[u8]) -> Vec<u8> {
        let mut data = errno.to_ne_bytes().to_vec();
        data.extend([origin, 3, 4, 0]);
        data.extend(info.to_ne_bytes());
        data.extend([0; 4]);
        data.extend(offender);
        data
    }

    #[test]
    fn error_numbers_that_matter_have_names() {
        assert_eq!(errno(Code::ECONNREFUSED), Errno::Refused);
        assert_eq!(errno(Code::EPIPE), Errno::Reset);
        assert_eq!(errno(Code::EHOSTUNREACH), Errno::HostUnreachable);
        assert_eq!(errno(Code::EADDRNOTAVAIL), Errno::NetUnreachable);
        assert_eq!(errno(Code::EPERM), Errno::Prohibited);
        assert_eq!(errno(Code::EMFILE), Errno::Exhausted);
        assert_eq!(errno(Code::EMSGSIZE), Errno::TooBig { mtu: 0 });
        assert_eq!(errno(Code::ENOTTY), Errno::Other);
    }

    #[test]
    fn a_router_that_needs_fragments_is_understood() {
        let to = "192.0.2.1:9".parse().unwrap();
        let router = Name::from("198.51.100.7:0".parse::<SocketAddr>().unwrap());
        let data = report(libc::EMSGSIZE, libc::SO_EE_ORIGIN_ICMP, 1400, router.as_bytes());
        let expected = DatagramError {
            to,
            error: Errno::TooBig { mtu: 1400 },
            reporter: Some("198.51.100.7".parse().unwrap()),
            icmp: Some((3, 4)),
            sequence: None,
        };
        assert_eq!(parse(to, &data), Some(expected));
        let local = report(libc::EMSGSIZE, libc::SO_EE_ORIGIN_LOCAL, 1_000_000, router.as_bytes());
        assert_eq!(parse(to, &local), None, "told by the call that sent it");
    }

    #[test]
    fn other_and_cut_reports_are_passed_over() {
        let to = "192.0.2.1:9".parse().unwrap();
        assert_eq!(parse(to, &report(0, libc::SO_EE_ORIGIN_TIMESTAMPING, 0, &[0; 16])), None);
        let whole = report(libc::ECONNREFUSED, libc::SO_EE_ORIGIN_ICMP, 0, &[]);
        for len in 0..whole.len() {
            assert_eq!(parse(to, &whole[..len]), None);
        }
        let unknown_offender = parse(to, &whole).unwrap();
        assert_eq!(unknown_offender.reporter, None);
        assert_eq!(unknown_offender.error, Errno::Refused);
    }
}
