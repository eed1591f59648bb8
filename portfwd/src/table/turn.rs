//! One round of one socket: its clients are taken, a bounded number at a time, and led to the guest.

use super::Counters;
use crate::forwarder::Forwarder;
use crate::listen::{self, Accepted};
use crate::rule::Rule;
use core::num::NonZeroU16;
use slipway_host::upstream::batch::{Hint, Receiver};
use slipway_netstack::upstream::{Client, Forwarded, Received};
use std::io;
use std::net::{IpAddr, SocketAddr};
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
        let address: IpAddr = match self.rule.target() {
            Some(target) => Some(target).filter(|target| target.is_ipv6() == client.is_ipv6()),
            None => host.guest_address(client.is_ipv6()),
        }?;
        Some(SocketAddr::new(address, self.port.get()))
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
            let Some(guest) = self.guest(client, host) else {
                listen::reset(stream);
                self.count(false, 1);
                continue;
            };
            let taken = host.accept_tcp(stream.into(), client, guest).is_ok();
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
            let taken = self.guest(from, host).is_some_and(|guest| {
                let datagrams = Forwarded { client, guest, payload, segment, meta };
                host.accept_udp(socket, &datagrams).is_ok()
            });
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
