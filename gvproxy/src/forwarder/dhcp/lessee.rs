//! Our own DHCP client: it has a lease, and keeps it as long as there is a connection.
//!
//! The socket is a packet socket, for there is no address yet, and open only while an answer may come; the kernel's
//! filter lets nothing through but that. Time goes on while the machine sleeps, for the server's does.

use super::holding::Holding;
use super::resolv_conf;
use crate::forwarder::interface::Interface;
use nix::sys::epoll::EpollFlags;
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use slipway_host::epoll::EventSet;
use slipway_host::sys::packet;
use slipway_host::token::Token;
use slipway_host::{clock, dhcp_filter, random};
use slipway_netstack::addr::MacAddr;
use slipway_netstack::dhcp_client::{Client, Event, Identity, Loss, Machine as _, Step};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

/// The tokens of our descriptors.
pub(crate) const ANSWERS: Token = Token::Foreign(16);
pub(crate) const TIMER: Token = Token::Foreign(17);

/// The longest answer that is read whole: servers are told not to send more.
const LONGEST: usize = 1600;
/// Answers in one turn.
const TURN: usize = 16;
/// A moment that has passed already, as a timer has it: zero would stop it.
const AT_ONCE: Duration = Duration::from_nanos(1);

/// The client.
#[derive(Debug)]
pub(crate) struct Lessee {
    mac: MacAddr,
    client: Client,
    holding: Holding,
    /// Open while an answer may come.
    answers: Option<OwnedFd>,
    timer: TimerFd,
}

impl Lessee {
    /// A client that has not begun.
    ///
    /// # Errors
    /// The kernel's: out of descriptors.
    pub(crate) fn new(interface: &Interface, set: &EventSet) -> io::Result<Self> {
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        let timer = TimerFd::new(ClockId::CLOCK_BOOTTIME, flags)?;
        set.add(timer.as_fd(), TIMER, EpollFlags::EPOLLIN)?;
        let holding = Holding::new(interface.index, interface.tap.name());
        Ok(Self { mac: interface.mac, client: client(interface.mac)?, holding, answers: None, timer })
    }

    /// Whether it is the client of this interface.
    pub(crate) fn is_of(&self, interface: &Interface) -> bool {
        self.holding.is_at(interface.index) && self.mac == interface.mac
    }

    /// Asks for an address. The one that is held from before stays until there is an answer.
    ///
    /// # Errors
    /// The kernel's: there is no randomness.
    pub(crate) fn begin(&mut self, set: &EventSet) -> io::Result<()> {
        self.client = client(self.mac)?;
        self.turn(set);
        Ok(())
    }

    /// Stops asking.
    pub(crate) fn rest(&mut self) {
        self.answers = None;
        let _ = self.timer.unset();
    }

    /// Answers have come, or the time has.
    pub(crate) fn turn(&mut self, set: &EventSet) {
        let now = clock::boot();
        let mut frame = [0; LONGEST];
        for _ in 0..TURN {
            let Some(answers) = &self.answers else { break };
            match packet::receive(answers.as_fd(), &mut frame) {
                Ok(len) => {
                    let step = self.client.received(now, frame.get(..len).unwrap_or_default());
                    self.heed(step, set);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // The interface went down, or away. The question is asked again in time, by a new socket.
                Err(error) => {
                    log::debug!("no answers of a DHCP server: {error}");
                    self.answers = None;
                }
            }
        }
        if self.client.deadline().is_some_and(|deadline| deadline <= now) {
            let step = self.client.timeout(now);
            self.heed(step, set);
        }
        if !self.client.listening() {
            self.answers = None;
        }
        if let Err(error) = self.wait() {
            log::error!("dhcp error: the lease will not be renewed: {error}");
        }
    }

    fn heed(&mut self, step: Step<Event>, set: &EventSet) {
        if let Some(frame) = step.send
            && let Err(error) = self.send(&frame, set)
        {
            log::debug!("a question to DHCP servers is not sent, and repeated later: {error}");
            self.answers = None;
        }
        match step.event {
            Some(Event::Bound(lease)) => {
                log::info!("lease of {} obtained, lease time {} s", lease.address, lease.times.end);
                resolv_conf::write(&lease);
                self.holding.follow(&lease);
            }
            Some(Event::Lost(why)) => {
                let why = match why {
                    Loss::Refused => "refused",
                    Loss::Expired => "expired",
                };
                log::warn!("lease {why}");
                self.holding.give_up();
            }
            None => {}
        }
    }

    fn send(&mut self, frame: &[u8], set: &EventSet) -> io::Result<()> {
        let answers = match self.answers.take() {
            Some(open) => open,
            None => {
                let fresh = packet::listen(self.holding.index(), &dhcp_filter::answers_to(self.mac))?;
                set.add(fresh.as_fd(), ANSWERS, EpollFlags::EPOLLIN)?;
                fresh
            }
        };
        let answers = self.answers.insert(answers);
        packet::send(answers.as_fd(), frame)
    }

    /// Has the timer go off at the deadline.
    fn wait(&self) -> nix::Result<()> {
        let Some(deadline) = self.client.deadline() else { return self.timer.unset() };
        let left = deadline.since(clock::boot()).max(AT_ONCE);
        // Setting it takes back what it has told.
        self.timer.set(Expiration::OneShot(TimeSpec::from_duration(left)), TimerSetTimeFlags::empty())
    }
}

fn client(mac: MacAddr) -> io::Result<Client> {
    let identity = Identity { is_host: true, ..Identity::of_mac(mac) };
    Ok(Client::new(identity, random::bytes()?, clock::boot()))
}
