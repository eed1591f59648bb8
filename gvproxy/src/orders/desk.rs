//! The half in the packets process: it reads orders, has a [`Network`] carry them out, and sends what came of it.
//!
//! It runs between two rounds of the loop that carries packets, so a round of its own is small: one read of
//! [`READ`] bytes, and the orders in it; what is left makes the socket ready again. No order takes longer than opening
//! a socket does. While replies wait for a control process that does not read them, no further order is read.
//!
//! What the control process is told unasked is queued up to [`MOST_QUEUED`]. Beyond that news are lost, and a guest's
//! connection to gateway:80 is closed. That end of the line says that the control process is gone; packets flow on, and
//! so do forwarded ports.

use super::endpoint;
use super::forwards::{Forwards, Publisher};
use super::line::{Arrived, Line};
use super::message::{Door, News, Order, Reply, Request, Word};
use super::stats::Stats;
use slipway_dns::config::gvproxy::Zone;
use slipway_host::driver::Interest;
use slipway_netstack::addr::MacAddr;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

/// Bytes of orders that one round takes.
const READ: usize = 4 << 10;
/// Bytes of replies with which no further order is read.
const ENOUGH: usize = 256 << 10;
/// Bytes that may wait in all.
const MOST_QUEUED: usize = 1 << 20;

/// What orders are about.
pub trait Network: Publisher {
    /// A connection to a guest: its number, and our end of it.
    ///
    /// # Errors
    /// Out of descriptors or flows.
    fn dial(&mut self, guest: SocketAddr) -> io::Result<(u64, OwnedFd)>;

    /// Whether the guest has answered there.
    fn is_open(&mut self, connection: u64) -> bool;

    /// `socket` is a guest's own, with packets or datagrams.
    ///
    /// # Errors
    /// It is something else; out of watches or memory.
    fn adopt(&mut self, socket: OwnedFd) -> io::Result<()>;

    /// `stream` is a guest's link from here on, of which `first` has been read. `fast`: it offers the fast link.
    ///
    /// # Errors
    /// Out of watches or memory.
    fn join(&mut self, stream: OwnedFd, first: Vec<u8>, fast: bool) -> io::Result<()>;

    /// The stations that have been seen, and the numbers of their links.
    fn stations(&self) -> Vec<(MacAddr, u64)>;

    /// Addresses that are somebody's, the gateway's among them.
    fn leases(&self) -> Vec<(IpAddr, MacAddr)>;

    /// Keeps an address for a station from now on, and no other.
    ///
    /// # Errors
    /// In one line: nobody can have it, or somebody has it.
    fn keep(&mut self, address: Ipv4Addr, station: MacAddr) -> Result<(), String>;

    /// Names, in front of those that the zone has.
    ///
    /// # Errors
    /// In one line: there are too many, or an expression is none.
    fn add_zone(&mut self, zone: Zone) -> Result<(), String>;

    /// What was counted so far.
    fn stats(&self) -> Stats;
}

/// Whether there is a control process.
#[derive(Debug)]
pub enum Standing {
    /// There is.
    Up,
    /// There is none any more, for this reason; the desk takes no part in anything from here on.
    Down(io::Error),
}

/// The packets process's half.
#[derive(Debug)]
pub struct Desk {
    /// `None`: there is no control process.
    line: Option<Line>,
    forwards: Forwards,
    /// Clients and news that the control process had no room for.
    lost: u64,
}

impl Desk {
    /// The half that has this end of the line; `None` where no control process is wanted.
    #[must_use]
    pub fn new(line: Option<Line>) -> Self {
        Self { line, forwards: Forwards::default(), lost: 0 }
    }

    /// The line, to be watched for [`Desk::interest`].
    #[must_use]
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.line.as_ref().map(AsFd::as_fd)
    }

    /// What the line is to be watched for. It may be another after each call that changes something here.
    #[must_use]
    pub fn interest(&self) -> Interest {
        let Some(line) = &self.line else { return Interest::NONE };
        Interest { readable: line.queued() < ENOUGH, writable: line.is_sending() }
    }

    /// Ports of the host that lead into the network, to add those of the start.
    pub const fn forwards(&mut self) -> &mut Forwards {
        &mut self.forwards
    }

    /// Clients and news that were lost, because the control process did not read.
    #[must_use]
    pub const fn lost(&self) -> u64 {
        self.lost
    }

    /// `listener` waits for clients of the API. Its `file`, if it has one, goes when this network ends.
    pub fn listen(&mut self, door: Door, listener: OwnedFd, file: Option<PathBuf>) -> Standing {
        self.tell(&Word::Listen { door, file }, Some(listener))
    }

    /// `listener` waits for clients of a guest's socket, by the forward with this number. Its `file` goes when this
    /// network ends.
    pub fn forward(&mut self, at: usize, listener: OwnedFd, file: PathBuf) -> Standing {
        self.tell(&Word::Forward { at, file }, Some(listener))
    }

    /// `guest` has connected to the gateway's port 80, by `stream`.
    pub fn client(&mut self, guest: SocketAddr, stream: OwnedFd) -> Standing {
        self.tell(&Word::Client(guest), Some(stream))
    }

    /// Somebody may want to hear of this.
    pub fn news(&mut self, news: News) -> Standing {
        self.tell(&Word::News(news), None)
    }

    fn tell(&mut self, word: &Word, descriptor: Option<OwnedFd>) -> Standing {
        let Some(line) = &mut self.line else { return Standing::Up };
        if line.queued() > MOST_QUEUED {
            self.lost += 1;
            return Standing::Up;
        }
        let sent = line.push(word, descriptor).and_then(|()| line.flush());
        self.standing(sent)
    }

    /// The line is ready: what it has to say is done, and what waits is sent.
    pub fn on_ready(&mut self, network: &mut impl Network) -> Standing {
        let round = self.round(network);
        self.standing(round)
    }

    fn round(&mut self, network: &mut impl Network) -> io::Result<()> {
        let Some(line) = &mut self.line else { return Ok(()) };
        line.flush()?;
        if line.queued() >= ENOUGH || !line.fill(READ)? {
            return Ok(());
        }
        while let Some(Arrived { message: Request { number, order }, descriptor }) = line.receive()? {
            let (reply, answer) = self.forwards.carry_out(order, descriptor, network);
            line.push(&Word::Reply { number, reply }, answer)?;
        }
        line.flush()
    }

    fn standing(&mut self, outcome: io::Result<()>) -> Standing {
        match outcome {
            Ok(()) => Standing::Up,
            Err(error) => {
                self.line = None;
                Standing::Down(error)
            }
        }
    }
}

impl Forwards {
    /// Does what an order says: the reply, and the descriptor that goes with it.
    fn carry_out(
        &mut self,
        order: Order,
        descriptor: Option<OwnedFd>,
        network: &mut impl Network,
    ) -> (Reply, Option<OwnedFd>) {
        let reply = match order {
            Order::Expose(forward) => done(self.expose(forward, network)),
            Order::Unexpose { protocol, local } => done(self.unexpose(&protocol, &local, network)),
            Order::Forwards => Reply::Forwards(self.list()),
            Order::AddZone(zone) => done(network.add_zone(zone)),
            Order::Leases => {
                let mut leases = network.leases();
                leases.sort_unstable_by_key(|(address, _)| *address);
                Reply::Leases(leases.into_iter().map(|(address, mac)| (address, mac.to_string())).collect())
            }
            Order::Keep { ip, mac } => {
                let station = mac.parse().map_err(|_| format!("address {mac}: invalid MAC address"));
                done(station.and_then(|station| network.keep(ip, station)))
            }
            Order::Stations => {
                let mut stations = network.stations();
                stations.sort_unstable_by_key(|(mac, _)| mac.0);
                Reply::Stations(stations.into_iter().map(|(mac, link)| (mac.to_string(), link)).collect())
            }
            Order::Stats => Reply::Stats(Box::new(network.stats())),
            Order::Join { first, fast } => {
                let stream = descriptor.ok_or_else(no_descriptor);
                done(
                    stream
                        .and_then(|stream| network.join(stream, first, fast))
                        .map_err(|error| in_words(&error)),
                )
            }
            Order::Adopt => {
                let socket = descriptor.ok_or_else(no_descriptor);
                done(socket.and_then(|socket| network.adopt(socket)).map_err(|error| in_words(&error)))
            }
            Order::Dial(guest) => match network.dial(guest) {
                Ok((number, stream)) => return (Reply::Dialled(number), Some(stream)),
                Err(error) => Reply::Failed(in_words(&error)),
            },
            Order::IsOpen(number) => Reply::Open(network.is_open(number)),
        };
        (reply, None)
    }
}

/// One came along, and this process had no room for it.
fn no_descriptor() -> io::Error {
    nix::errno::Errno::EMFILE.into()
}

fn in_words(error: &io::Error) -> String {
    endpoint::in_small_letters(&slipway_host::strerror::words(error))
}

fn done(outcome: Result<(), String>) -> Reply {
    outcome.map_or_else(Reply::Failed, |()| Reply::Done)
}

#[cfg(test)]
mod tests;
