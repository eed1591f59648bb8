//! Ping sockets of flows: ICMP echo without privilege, where `net.ipv4.ping_group_range` admits this process.
//!
//! The kernel writes identifier and checksum and delivers only replies to our own identifier. The 8 bytes of ICMP
//! header are RFC 792 and RFC 4443 §4.1: type, code, checksum, identifier, sequence number.

use super::batch::{read_control, sender};
use super::errors::{self, errno};
use super::fragmentation::Fragmentation;
use super::source;
use super::tcp::refuse_disguised;
use super::udp::{decode, forgive, outgoing_control, prepare_errors, twice};
use crate::sys::message::Name;
use crate::sys::mmsg;
use crate::sys::sockopt::{self, Opt};
use nix::errno::Errno as Code;
use nix::sys::epoll::EpollFlags;
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};
use slipway_netstack::upstream::{DatagramError, Empty, Errno, Event, Meta, Received, Source};
use std::io::{IoSlice, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Once;

/// The socket of one flow.
#[derive(Debug)]
pub(super) struct PingSocket {
    fd: OwnedFd,
    ipv6: bool,
    fragmentation: Fragmentation,
    /// Where addresses are that mean something on one link only ([`source::scoped`]).
    zone: u32,
}

/// Messages that are no echo replies, and errors about earlier requests, that one call passes over.
const PASSED_OVER: usize = 16;

impl PingSocket {
    /// A socket of the family of `like`.
    pub(super) fn open(like: IpAddr, from: Source) -> Result<Self, Errno> {
        let ipv6 = like.is_ipv6();
        let (family, protocol, fields) = if ipv6 {
            let fields = [Opt::RECEIVE_HOP_LIMIT, Opt::RECEIVE_TRAFFIC_CLASS];
            (AddressFamily::Inet6, SockProtocol::IcmpV6, fields)
        } else {
            (AddressFamily::Inet, SockProtocol::Icmp, [Opt::RECEIVE_TTL, Opt::RECEIVE_TOS])
        };
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let fd = socket(family, SockType::Datagram, flags, protocol).map_err(refused)?;
        prepare_errors(fd.as_fd(), ipv6);
        for opt in fields {
            // Refused, it costs a header field.
            let _ = sockopt::set(fd.as_fd(), opt, 1);
        }
        source::bind(fd.as_fd(), like, from).map_err(errno)?;
        Ok(Self { fd, ipv6, fragmentation: Fragmentation::Anybody, zone: source::zone(from) })
    }

    /// What an epoll event means.
    pub(super) fn decode(flags: EpollFlags) -> [Option<Event>; 3] {
        decode(flags)
    }

    /// Sends an echo request.
    pub(super) fn send(&mut self, to: IpAddr, sequence: u16, data: &[u8], meta: Meta) -> Result<(), Errno> {
        refuse_disguised(to)?;
        let [high, low] = sequence.to_be_bytes();
        let request = if self.ipv6 { V6_REQUEST } else { V4_REQUEST };
        let header = [request, 0, 0, 0, 0, 0, high, low];
        self.fragmentation.adapt(self.fd.as_fd(), self.ipv6, meta, HEADER + data.len());
        let control = outgoing_control(to, meta);
        let to = source::scoped(SocketAddr::new(to, 0), self.zone);
        let name = Name::from(to);
        let parts = [IoSlice::new(&header), IoSlice::new(data)];
        forgive(to, twice(|| mmsg::send_one(self.as_fd(), &name, &control, &parts)))
    }

    /// Receives an echo reply: sequence number, and the data in `into`.
    pub(super) fn receive(&self, into: &mut [u8]) -> Result<(u16, Received), Empty> {
        let reply = if self.ipv6 { V6_REPLY } else { V4_REPLY };
        for _ in 0..PASSED_OVER {
            let mut header = [0; HEADER];
            let mut parts = [IoSliceMut::new(&mut header), IoSliceMut::new(into)];
            let arrived = match mmsg::receive_one(self.as_fd(), &mut parts, false) {
                Ok(arrived) => arrived,
                Err(Code::EAGAIN) => return Err(Empty),
                // Interrupted, or an error about an earlier request, which the error queue tells.
                Err(_) => continue,
            };
            let ([kind, 0, _, _, _, _, high, low], Some(from), Some(len)) =
                (header, sender(&arrived.name), arrived.len.checked_sub(HEADER))
            else {
                continue;
            };
            if kind != reply {
                continue;
            }
            let meta = read_control(arrived.control.as_bytes()).meta;
            let received = Received { len, segment: len, from, meta };
            return Ok((u16::from_be_bytes([high, low]), received));
        }
        Err(Empty)
    }

    /// Takes one report from the error queue.
    pub(super) fn take_error(&self) -> Result<DatagramError, Empty> {
        let request = if self.ipv6 { V6_REQUEST } else { V4_REQUEST };
        errors::take(self.as_fd(), |message| match *message {
            [kind, _, _, _, _, _, high, low] if kind == request => Some(u16::from_be_bytes([high, low])),
            _ => None,
        })
    }
}

/// The guest only hears that nobody answers, so whoever runs us is told why; once, or a guest could fill the log.
fn refused(error: Code) -> Errno {
    static TOLD: Once = Once::new();
    if error == Code::EACCES {
        TOLD.call_once(|| {
            log::warn!(
                "ping does not work: this host lets nobody of our group send it (as root: `sysctl -w \
                 net.ipv4.ping_group_range=\"0 2147483647\"`)"
            );
        });
    }
    errno(error)
}

impl AsFd for PingSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

const HEADER: usize = 8;
const V4_REQUEST: u8 = 8;
const V4_REPLY: u8 = 0;
const V6_REQUEST: u8 = 128;
const V6_REPLY: u8 = 129;
