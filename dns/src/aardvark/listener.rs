//! Where we are asked: a UDP socket and a TCP listener for each address of each network.
//!
//! A reload compares what there is with what there should be, by network and address. First those that are no longer
//! wanted are closed, because an address may have moved to another network; then new ones are bound. A listener that
//! stays is not touched: what waits in its queues is answered from the new snapshot.
//!
//! The sockets are bound plainly, to the bridge's own address: if it is not there (`tentative` says when that is too
//! early to tell) or somebody serves it already, that is an error with the address in it, which at the start reaches
//! the user. After a reload nobody who is served waits for it: it is told, and tried again, less and less often, until
//! it succeeds or the next reload.

use super::args::Options;
use super::slab::{Key, Slab};
use super::tentative::Tentative;
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
/// How long after a failure an address is tried again: at first, and at most. Detection of duplicates takes a second or
/// two.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));
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
pub(super) struct Listeners {
    slab: Slab<Listener>,
    retry: Option<Retry>,
}

/// When what could not be bound is tried again.
#[derive(Debug, Clone, Copy)]
struct Retry {
    at: Duration,
    pause: Duration,
}

impl Listeners {
    /// Makes the listeners those of `snapshot`.
    pub(super) fn follow(
        &mut self,
        snapshot: &Snapshot,
        options: &Options,
        tentative: Tentative,
        now: Duration,
        events: &EventSet,
    ) -> Vec<BindError> {
        let wanted = wanted(snapshot);
        self.close_others(&wanted);
        let errors = self.open_missing(&wanted, options, tentative, events);
        let (pause, _) = RETRY;
        self.retry = (!errors.is_empty()).then(|| Retry { at: now + pause, pause });
        errors
    }

    fn close_others(&mut self, wanted: &[Wanted<'_>]) {
        let mut gone = Vec::new();
        for (key, listener) in self.slab.iter_mut() {
            match wanted.iter().find(|want| want.is(listener)) {
                Some(want) => listener.id = want.id,
                None => gone.push(key),
            }
        }
        for key in gone {
            // Closing takes the descriptors out of the set.
            if let Some(listener) = self.slab.remove(key) {
                log::debug!("no longer serving {} on {}", listener.network, listener.address);
            }
        }
    }

    fn open_missing(
        &mut self,
        wanted: &[Wanted<'_>],
        options: &Options,
        tentative: Tentative,
        events: &EventSet,
    ) -> Vec<BindError> {
        let mut errors = Vec::new();
        for want in wanted {
            if self.slab.iter().any(|(_, listener)| want.is(listener)) {
                continue;
            }
            let address = options.listen(want.address);
            self.slab.insert(|key| match Listener::open(want, address, tentative, key, events) {
                Ok(listener) => Some(listener),
                Err(error) => {
                    errors.push(error);
                    None
                }
            });
        }
        errors
    }

    /// The listener in a place.
    pub(super) fn at(&mut self, index: u32) -> Option<(Key, &mut Listener)> {
        let key = self.slab.key(index)?;
        Some((key, self.slab.get_mut(key)?))
    }

    /// The listener that had that key, if it is still there.
    pub(super) fn get(&self, key: Key) -> Option<&Listener> {
        self.slab.get(key)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.slab.len()
    }

    /// When somebody is to be accepted again where nobody is, or an address is to be tried again.
    pub(super) fn deadline(&self) -> Option<Duration> {
        let muted = self.slab.iter().filter_map(|(_, listener)| listener.muted);
        muted.chain(self.retry.map(|retry| retry.at)).min()
    }

    /// Time has passed.
    pub(super) fn on_timeout(
        &mut self,
        snapshot: &Snapshot,
        options: &Options,
        now: Duration,
        events: &EventSet,
    ) {
        if let Some(Retry { at, pause }) = self.retry
            && at <= now
        {
            let errors = self.open_missing(&wanted(snapshot), options, Tentative::Refuse, events);
            let (_, longest) = RETRY;
            let pause = (pause * 2).min(longest);
            if errors.is_empty() {
                log::info!("what could not be bound is served now");
            }
            self.retry = (!errors.is_empty()).then(|| Retry { at: now + pause, pause });
        }
        for (key, listener) in self.slab.iter_mut() {
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

impl Wanted<'_> {
    /// Whether that listener serves it.
    fn is(&self, listener: &Listener) -> bool {
        self.network == listener.network && self.address == listener.address.ip()
    }
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
    fn open(
        want: &Wanted<'_>,
        address: SocketAddr,
        tentative: Tentative,
        key: Key,
        events: &EventSet,
    ) -> Result<Self, BindError> {
        let failed = |what| move |error| BindError { what, address, error };
        let udp = tentative.bind(address, UdpSocket::bind).and_then(|udp| {
            udp.set_nonblocking(true)?;
            let _ = sockopt::set(udp.as_fd(), Opt::RECEIVE_BUFFER, RECEIVE_BUFFER);
            events.add(udp.as_fd(), Source::Udp(key.index()).token(), EpollFlags::EPOLLIN)?;
            Ok(udp)
        });
        let udp = udp.map_err(failed("udp"))?;
        let tcp = tentative.bind(address, TcpListener::bind).and_then(|tcp| {
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
