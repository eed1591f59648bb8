//! Where we are asked: a UDP socket and a TCP listener for each address of each network.
//!
//! A reload compares what there is with what there should be, by network and address. First those that are no longer
//! wanted are closed, because an address may have moved to another network; then new ones are bound. A listener that stays is not
//! touched: what waits in its queues is answered from the new snapshot.
//!
//! The sockets are bound plainly, to the bridge's own address: if it is not there (`tentative` says when that is too
//! early to tell) or somebody serves it already, that is an error with the address in it, which at the start reaches the
//! user.

use super::args::Options;
use super::slab::{Key, Slab};
use super::tentative;
use super::token::Source;
use crate::zone::{NetworkId, Snapshot};
use nix::sys::epoll::EpollFlags;
use slipway_host::epoll::EventSet;
use slipway_host::sys::sockopt::{self, Opt};
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::AsFd as _;
use std::time::Duration;

/// How long nobody is accepted after a failure that the next accept would meet too.
const MUTE: Duration = Duration::from_millis(100);
/// Cut by the kernel to `net.core.rmem_max`. Queries wait here while files are read.
const RECEIVE_BUFFER: i32 = 1 << 20;

/// One address of one network.
#[derive(Debug)]
pub(super) struct Listener {
    network: String,
    /// The network's number in the snapshot of today.
    pub(super) id: NetworkId,
    address: SocketAddr,
    pub(super) udp: UdpSocket,
    pub(super) tcp: TcpListener,
    /// Until when nobody is accepted.
    muted: Option<Duration>,
}

/// What could not be bound.
#[derive(Debug, thiserror::Error)]
#[error("failed to bind {what} listener on {address}: IO error: {error}")]
pub(super) struct BindError {
    what: &'static str,
    address: SocketAddr,
    error: io::Error,
}

/// All listeners.
#[derive(Debug, Default)]
pub(super) struct Listeners(Slab<Listener>);

impl Listeners {
    /// Makes the listeners those of `snapshot`.
    pub(super) fn follow(
        &mut self,
        snapshot: &Snapshot,
        options: &Options,
        events: &EventSet,
    ) -> Vec<BindError> {
        let wanted = wanted(snapshot);
        let mut gone = Vec::new();
        for (key, listener) in self.0.iter_mut() {
            let is_it = |want: &&Wanted<'_>| {
                want.network == listener.network && want.address == listener.address.ip()
            };
            match wanted.iter().find(is_it) {
                Some(want) => listener.id = want.id,
                None => gone.push(key),
            }
        }
        for key in gone {
            // Closing takes the descriptors out of the set.
            if let Some(listener) = self.0.remove(key) {
                log::debug!("no longer serving {} on {}", listener.network, listener.address);
            }
        }
        let mut errors = Vec::new();
        for want in wanted {
            let served = |listener: &Listener| {
                listener.network == want.network && listener.address.ip() == want.address
            };
            if self.0.iter().any(|(_, listener)| served(listener)) {
                continue;
            }
            let mut outcome = None;
            self.0.insert(|key| match Listener::open(&want, options.listen(want.address), key, events) {
                Ok(listener) => Some(listener),
                Err(error) => {
                    outcome = Some(error);
                    None
                }
            });
            errors.extend(outcome);
        }
        errors
    }

    /// The listener in a place.
    pub(super) fn at(&mut self, index: u32) -> Option<(Key, &mut Listener)> {
        let key = self.0.key(index)?;
        Some((key, self.0.get_mut(key)?))
    }

    /// The listener that had that key, if it is still there.
    pub(super) fn get(&self, key: Key) -> Option<&Listener> {
        self.0.get(key)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// When somebody is to be accepted again, if anywhere nobody is.
    pub(super) fn deadline(&self) -> Option<Duration> {
        self.0.iter().filter_map(|(_, listener)| listener.muted).min()
    }

    /// Time has passed.
    pub(super) fn on_timeout(&mut self, now: Duration, events: &EventSet) {
        for (key, listener) in self.0.iter_mut() {
            if listener.muted.is_some_and(|until| until <= now) {
                listener.muted = None;
                let token = Source::Tcp(key.index()).token();
                // Fails for want of memory only; then the listener is deaf to TCP until it is bound anew.
                if let Err(error) = events.modify(listener.tcp.as_fd(), token, EpollFlags::EPOLLIN) {
                    log::error!("tcp listener on {}: {error}", listener.address);
                }
            }
        }
    }
}

/// An address of a network that is to be served.
struct Wanted<'a> {
    network: &'a str,
    id: NetworkId,
    address: IpAddr,
}

/// IPv4 first; each once.
fn wanted(snapshot: &Snapshot) -> Vec<Wanted<'_>> {
    let mut all: Vec<Wanted<'_>> = Vec::new();
    for ipv4 in [true, false] {
        for (id, network) in snapshot.networks() {
            let mut seen: Vec<IpAddr> = Vec::new();
            for &address in network.listen().iter().filter(|address| address.is_ipv4() == ipv4) {
                if !seen.contains(&address) {
                    seen.push(address);
                    all.push(Wanted { network: network.name(), id, address });
                }
            }
        }
    }
    all
}

impl Listener {
    fn open(want: &Wanted<'_>, address: SocketAddr, key: Key, events: &EventSet) -> Result<Self, BindError> {
        let failed = |what| move |error| BindError { what, address, error };
        let udp = tentative::bind(address, UdpSocket::bind).and_then(|udp| {
            udp.set_nonblocking(true)?;
            let _ = sockopt::set(udp.as_fd(), Opt::RECEIVE_BUFFER, RECEIVE_BUFFER);
            events.add(udp.as_fd(), Source::Udp(key.index()).token(), EpollFlags::EPOLLIN)?;
            Ok(udp)
        });
        let udp = udp.map_err(failed("udp"))?;
        let tcp = tentative::bind(address, TcpListener::bind).and_then(|tcp| {
            tcp.set_nonblocking(true)?;
            events.add(tcp.as_fd(), Source::Tcp(key.index()).token(), EpollFlags::EPOLLIN)?;
            Ok(tcp)
        });
        let tcp = tcp.map_err(failed("tcp"))?;
        Ok(Self { network: want.network.to_owned(), id: want.id, address, udp, tcp, muted: None })
    }

    /// Accepts nobody for a moment: the queue keeps them, and the loop does not spin.
    pub(super) fn mute(&mut self, key: Key, now: Duration, events: &EventSet) {
        let token = Source::Tcp(key.index()).token();
        if events.modify(self.tcp.as_fd(), token, EpollFlags::empty()).is_ok() {
            self.muted = Some(now + MUTE);
        }
    }
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.address)
    }
}
