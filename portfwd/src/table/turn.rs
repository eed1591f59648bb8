//! One round of one socket: its clients are taken, a bounded number at a time, and led across the border.
//!
//! Three ways lead there. To a target that the rule names, through the guest's link always. To nobody in particular,
//! from the host: a client of the host's own loopback takes the shortcut from socket to socket if there is one, all
//! others the link. From the guest's namespace: loopback clients take the shortcut, others are refused, for nothing but
//! loopback traffic was to cross.

use super::Counters;
use crate::forwarder::Forwarder;
use crate::listen::{self, Accepted};
use crate::rule::Rule;
use core::num::NonZeroU16;
use slipway_host::inside::Side;
use slipway_host::upstream::batch::{Hint, Receiver};
use slipway_netstack::addr::canonical;
use slipway_netstack::upstream::{Client, Forwarded, Received};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd as _, OwnedFd};
use std::rc::Rc;

/// Connections accepted from one listener in one round.
pub(super) const ACCEPTS_PER_ROUND: usize = 64;
/// More than UDP can carry.
const LARGEST_DATAGRAM: usize = 1 << 16;

/// Where datagrams are received; takes no memory until a UDP rule has some.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    receiver: Receiver,
    buffer: Vec<u8>,
}

/// One round of one socket.
pub(super) struct Turn<'a> {
    pub(super) rule: &'a Rule,
    pub(super) local: SocketAddr,
    pub(super) port: NonZeroU16,
    pub(super) counters: &'a mut Counters,
}

impl Turn<'_> {
    /// Where `client` is to be led; `None` if the guest has no known address of its family.
    fn guest(&self, client: SocketAddr, host: &impl Forwarder) -> Option<SocketAddr> {
        if self.rule.side() == Side::Namespace {
            return None;
        }
        let address: IpAddr = match self.rule.target() {
            Some(target) => Some(target)
                .filter(|target| self.rule.manner().crossing || target.is_ipv6() == client.is_ipv6()),
            None => host.guest_address_toward(client.ip()),
        }?;
        Some(SocketAddr::new(address, self.port.get()))
    }

    /// Whether `client` goes from socket to socket, if it has come to an address that may.
    fn may_take_shortcut(&self, client: SocketAddr, host: &impl Forwarder) -> bool {
        client.ip().is_loopback() && self.rule.target().is_none() && host.shortcut(self.rule.side())
    }

    /// Out of the namespace leads only what stays on a loopback.
    fn may_cross(&self, local: SocketAddr) -> bool {
        self.rule.side() == Side::Host || local.ip().is_loopback()
    }

    /// The way from socket to socket, and the address that `client` has come to.
    fn shortcut(
        &self,
        stream: &std::net::TcpStream,
        client: SocketAddr,
        host: &impl Forwarder,
    ) -> Option<SocketAddr> {
        if !self.may_take_shortcut(client, host) {
            return None;
        }
        stream.local_addr().ok().map(canonical).filter(|local| self.may_cross(*local))
    }

    /// Accepts who is waiting; the error is the reason for a pause.
    pub(super) fn accept_all(
        &mut self,
        listener: &std::net::TcpListener,
        host: &mut impl Forwarder,
    ) -> Option<io::Error> {
        for _ in 0..ACCEPTS_PER_ROUND {
            let (stream, client) = match listen::accept(listener) {
                Accepted::Client(stream, client) => (stream, client),
                Accepted::Lost => continue,
                Accepted::Nobody => return None,
                Accepted::Exhausted(error) => return Some(error),
            };
            if let Some(local) = self.shortcut(&stream, client, host) {
                let taken = host.splice_tcp(self.rule.side(), stream.into(), client, local, self.port.get());
                self.count(taken.is_ok(), 1);
                continue;
            }
            let Some(guest) = self.guest(client, host) else {
                listen::reset(stream);
                self.count(false, 1);
                continue;
            };
            let taken = host.accept_tcp(stream.into(), seen_from(guest, client), guest).is_ok();
            self.count(taken, 1);
        }
        None
    }

    /// Takes one batch of the datagrams that are waiting.
    pub(super) fn receive_batch(
        &mut self,
        socket: &Rc<OwnedFd>,
        hint: &mut Hint,
        inbox: &mut Inbox,
        host: &mut impl Forwarder,
    ) {
        inbox.buffer.resize(LARGEST_DATAGRAM, 0);
        inbox.receiver.receive_batch(socket.as_fd(), hint, &mut inbox.buffer, |train, at, payload| {
            let Received { segment, from, meta, .. } = *train;
            let mut at = at.unwrap_or(self.local);
            at.set_port(self.local.port());
            let client = Client { address: from, at };
            let taken = if self.may_take_shortcut(from, host) && self.may_cross(at) {
                let guest = SocketAddr::new(unspecified(from.is_ipv6()), self.port.get());
                let datagrams = Forwarded { client, guest, payload, segment, meta };
                host.splice_udp(self.rule.side(), socket, &datagrams).is_ok()
            } else {
                self.guest(from, host).is_some_and(|guest| {
                    let datagrams = Forwarded { client, guest, payload, segment, meta };
                    host.accept_udp(socket, &datagrams).is_ok()
                })
            };
            let datagrams = payload.len().div_ceil(segment.max(1)).max(1);
            self.count(taken, u64::try_from(datagrams).unwrap_or(u64::MAX));
        });
    }

    fn count(&mut self, accepted: bool, how_many: u64) {
        if accepted {
            self.counters.accepted += how_many;
        } else {
            self.counters.refused += how_many;
        }
    }
}

/// Whom `guest` is to see. A client of the other family is none that it could answer: it becomes one of the loopback,
/// and those look like the gateway.
fn seen_from(guest: SocketAddr, client: SocketAddr) -> SocketAddr {
    let loopback: IpAddr = match (guest, client) {
        (SocketAddr::V4(_), SocketAddr::V6(_)) => Ipv4Addr::LOCALHOST.into(),
        (SocketAddr::V6(_), SocketAddr::V4(_)) => Ipv6Addr::LOCALHOST.into(),
        _ => return client,
    };
    SocketAddr::new(loopback, client.port())
}

fn unspecified(ipv6: bool) -> IpAddr {
    if ipv6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() }
}
