//! One connection after the other, and what is to be done while there is one: frames, the address, programs, signals.
//!
//! One thread, one epoll set. What a descriptor is waited for follows from what could be done about it: a full box
//! takes the TAP out of the set, a full TAP the stream, so nothing spins.
//!
//! A connection that ends takes along its relay and the DHCP client; the interface stays, with its address and whatever
//! the guest has made of it.

use super::args::Args;
use super::confine::confine;
use super::dhcp::{self, Dhcp};
use super::dial::{Connection, Place};
use super::interface::Interface;
use super::program::Program;
use super::relay::{End, Relay, Wants};
use crate::listen::words;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::EpollFlags;
use nix::sys::signal::Signal;
use slipway_host::clock;
use slipway_host::epoll::{EventSet, Events};
use slipway_host::signals::Signals;
use slipway_host::token::Token;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::Duration;

const INPUT: Token = Token::Foreign(0);
const OUTPUT: Token = Token::Foreign(1);
const TAP: Token = Token::Foreign(2);
const SIGNALS: Token = Token::Foreign(3);

/// Between two connections.
const PAUSE: Duration = Duration::from_secs(1);

/// Why a connection is over.
#[derive(Debug)]
enum Over {
    /// Something has failed; the next connection is tried.
    Failed(String),
    /// A signal says so. There is no next one.
    Signal,
}

impl From<String> for Over {
    fn from(why: String) -> Self {
        Self::Failed(why)
    }
}

/// The forwarder, between connections.
#[derive(Debug)]
pub(crate) struct Forwarder {
    args: Args,
    signals: Signals,
    set: EventSet,
    /// Made with the first connection.
    interface: Option<Interface>,
    dhcp: Dhcp,
    /// Nothing can be executed any more.
    confined: bool,
}

/// A connection.
struct Serving<'a> {
    forwarder: &'a mut Forwarder,
    interface: Interface,
    relay: Relay,
    input: Watch,
    output: Watch,
    tap: Watch,
    /// Behind the relay, for its streams are closed before it is told to end.
    program: Option<Program>,
}

/// What a descriptor is waited for now.
struct Watch {
    token: Token,
    flags: EpollFlags,
}

impl Watch {
    const fn new(token: Token) -> Self {
        Self { token, flags: EpollFlags::empty() }
    }

    /// One that is waited for nothing is not in the set: the kernel would tell of its end again and again.
    fn want(&mut self, set: &EventSet, fd: BorrowedFd<'_>, flags: EpollFlags) -> io::Result<()> {
        if flags == self.flags {
            return Ok(());
        }
        if flags.is_empty() {
            set.remove(fd);
        } else if self.flags.is_empty() {
            set.add(fd, self.token, flags)?;
        } else {
            set.modify(fd, self.token, flags)?;
        }
        self.flags = flags;
        Ok(())
    }
}

impl Forwarder {
    /// A forwarder that has not begun.
    ///
    /// # Errors
    /// The kernel's: out of descriptors.
    pub(crate) fn new(args: Args) -> io::Result<Self> {
        let signals = Signals::catch(&[Signal::SIGTERM, Signal::SIGINT, Signal::SIGCHLD])?;
        let set = EventSet::new()?;
        set.add(signals.as_fd(), SIGNALS, EpollFlags::EPOLLIN)?;
        Ok(Self { args, signals, set, interface: None, dhcp: Dhcp::Nobody, confined: false })
    }

    /// Connects again and again, until a signal ends it.
    pub(crate) fn run(&mut self) {
        loop {
            match self.connect() {
                Over::Signal => return,
                Over::Failed(why) => log::error!("{why}"),
            }
            if self.pause() {
                return;
            }
        }
    }

    /// One connection, from its beginning to its end.
    fn connect(&mut self) -> Over {
        log::info!("Dialing to {}…", self.args.url);
        let place = Place::parse(&self.args.url);
        let dialed = place.and_then(|place| place.dial(self.signals.as_fd()));
        let connection = match dialed {
            Ok(connection) => connection,
            Err(why) => return Over::Failed(format!("cannot connect to host: {why}")),
        };
        let interface = match self.interface.take() {
            Some(interface) => interface,
            None => match Interface::open(&self.args) {
                Ok(interface) => interface,
                Err(why) => return Over::Failed(why),
            },
        };
        let mut serving = Serving::new(self, interface, connection);
        let (over, keep) = match serving.serve() {
            Ok(End::Stream(why)) => (Over::Failed(why), true),
            Ok(End::Tap(error)) => (Over::Failed(words("cannot read packet from tap", &error)), false),
            Err(over) => (over, true),
        };
        serving.end(keep);
        over
    }

    /// Gives up what is not needed any more, unless somebody else's program is, now or for the next connection.
    fn shut_in(&mut self, carried_by_aprogram: bool) {
        let alone = self.args.preexisting || matches!(self.dhcp, Dhcp::Own(_));
        if alone && !carried_by_aprogram && !self.confined {
            self.confined = true;
            confine();
        }
    }

    /// Waits for the next try. Whether a signal says that there is none.
    fn pause(&mut self) -> bool {
        let end = clock::now() + PAUSE;
        loop {
            if self.is_told_to_end() {
                return true;
            }
            let left = end.since(clock::now());
            // Rounded up, so that it is never shorter.
            let millis = u16::try_from(left.as_micros().div_ceil(1000)).unwrap_or(u16::MAX);
            if millis == 0 {
                return false;
            }
            let mut wait = [PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
            let _ = poll(&mut wait, PollTimeout::from(millis));
        }
    }

    /// Takes the signals that have come.
    fn is_told_to_end(&self) -> bool {
        while let Ok(Some(signal)) = self.signals.next() {
            if signal != Signal::SIGCHLD {
                return true;
            }
        }
        false
    }
}

impl<'a> Serving<'a> {
    fn new(forwarder: &'a mut Forwarder, interface: Interface, mut connection: Connection) -> Self {
        // A TAP without headers can say nothing of what is left open.
        let asks = interface.tap.capabilities().tso4 && connection.ask_for_fast_link();
        let Connection { input, output, greeting, program } = connection;
        let relay = Relay::new(input, output, &greeting);
        let relay = if asks { relay.asks(interface.mac) } else { relay };
        Self {
            forwarder,
            interface,
            relay,
            input: Watch::new(INPUT),
            output: Watch::new(OUTPUT),
            tap: Watch::new(TAP),
            program,
        }
    }

    /// Carries frames until it is over.
    fn serve(&mut self) -> Result<End, Over> {
        // The request, if there is one.
        if let Err(end) = self.relay.flush() {
            return Ok(end);
        }
        if !self.forwarder.args.preexisting {
            let before = std::mem::replace(&mut self.forwarder.dhcp, Dhcp::Nobody);
            self.forwarder.dhcp = Dhcp::start(&self.interface, before, &self.forwarder.set)?;
        }
        self.forwarder.shut_in(self.program.is_some());
        let mut events = Events::default();
        loop {
            self.attend().map_err(|error| words("epoll_ctl", &error))?;
            let waited = self.forwarder.set.wait(&mut events, None);
            waited.map_err(|error| words("epoll_wait", &error))?;
            let mut at = 0;
            while let Some((token, flags)) = events.get(at) {
                at += 1;
                let Some(token) = token else { continue };
                if let Err(end) = self.turn(token, flags)? {
                    return Ok(end);
                }
            }
        }
    }

    fn turn(&mut self, token: Token, flags: EpollFlags) -> Result<Result<(), End>, Over> {
        let tap = &mut self.interface.tap;
        Ok(match token {
            INPUT => {
                let mut done = Ok(());
                if flags.contains(EpollFlags::EPOLLOUT) {
                    done = self.relay.flush();
                }
                if flags.intersects(EpollFlags::EPOLLIN | EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR) {
                    done = done.and_then(|()| self.relay.stream_has_bytes(tap));
                }
                done
            }
            OUTPUT => self.relay.flush(),
            TAP => self.relay.tap_is_ready(tap),
            SIGNALS if self.forwarder.is_told_to_end() => return Err(Over::Signal),
            SIGNALS => {
                self.forwarder.dhcp.look()?;
                Ok(())
            }
            dhcp::ANSWERS | dhcp::TIMER => {
                self.forwarder.dhcp.turn(&self.forwarder.set);
                Ok(())
            }
            _ => Ok(()),
        })
    }

    /// Waits for what can be done something about.
    fn attend(&mut self) -> io::Result<()> {
        let Wants { frames, tap_room, bytes, stream_room } = self.relay.wants();
        let wanted = |read: bool, write: bool| {
            let flags = if read { EpollFlags::EPOLLIN } else { EpollFlags::empty() };
            if write { flags | EpollFlags::EPOLLOUT } else { flags }
        };
        let set = &self.forwarder.set;
        self.tap.want(set, self.interface.tap.as_fd(), wanted(frames, tap_room))?;
        let apart = self.relay.output().is_some();
        self.input.want(set, self.relay.input(), wanted(bytes, stream_room && !apart))?;
        match self.relay.output() {
            Some(output) => self.output.want(set, output, wanted(false, stream_room)),
            None => Ok(()),
        }
    }

    /// The connection is over; the interface is kept for the next one, if there still is one.
    fn end(self, keep: bool) {
        let Self { forwarder, mut interface, relay, .. } = self;
        // The next one may know of no other.
        interface.tap.want_finished(true);
        let lost = interface.tap.lost();
        if relay.misshapen() > 0 || lost != Default::default() {
            log::debug!("{} frames were none; lost on the way to the guest: {lost:?}", relay.misshapen());
        }
        forwarder.set.remove(interface.tap.as_fd());
        forwarder.dhcp = std::mem::replace(&mut forwarder.dhcp, Dhcp::Nobody).rest();
        forwarder.interface = Some(interface).filter(|_| keep);
    }
}
