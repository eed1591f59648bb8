//! The end of a process, in the one order that all commands have.
//!
//! ```text
//!   let go          what others wait for: listeners, the API socket and its file, the door, the control line, the PID file
//!   hear out        frames that the guest had sent before
//!   close the link  with it goes the namespace, unless somebody else is in it; flows part from their guest
//!   deliver         host sockets get the bytes that the guest was told are taken
//!   reset           what is left, when the session is dropped
//! ```
//! A connection that is complete is closed in the ordinary way, every other one is reset: nobody takes a part for the
//! whole (`slipway_netstack::transport::parting`). All of it together takes [`PATIENCE`] at most, no time at all when
//! there is nothing to deliver, and ends at the next signal that asks for the end.
//!
//! **The guest's own queue.** When a command of `slipway run` has ended, its last bytes may lie in the send queue of
//! *its* kernel, which goes on sending for sockets whose program is gone, as long as there is a namespace to do it in.
//! Nobody else can want that namespace, so there the link is heard until every connection's guest has closed. Anywhere
//! else the link goes at once.

use super::{ExitFd, NAMES, SIGNALS, Session};
use crate::names::Names;
use nix::sys::signal::Signal;
use slipway_host::clock;
use slipway_netstack::Instant;
pub use slipway_netstack::transport::parting::PATIENCE;
use std::os::fd::AsFd as _;
use std::time::Duration;

/// How long frames are read that came before the end. A guest that goes on sending has no right to more.
const GLANCE: Duration = Duration::from_millis(10);

/// How much is done for the guest's last bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// What is not in the kernel's hands by now is reset.
    AtOnce,
    /// Bytes that the guest was told are taken are delivered.
    Delivered,
    /// So are those that its kernel still holds: no process is left in the namespace, and nobody else's can come.
    HeardOut,
}

/// Until when the rest may take; `None`: nothing more is to be waited for.
#[derive(Debug)]
#[must_use]
pub struct Rest(Option<Instant>);

impl Session {
    /// Ends everything but the counters. What is reset is so when the session is dropped.
    pub fn end(&mut self, ending: Ending) {
        let rest = self.let_go(ending);
        self.deliver(rest);
    }

    /// The first part of it: ports, paths and link are free when this returns. The rest is for [`Session::deliver`].
    pub fn let_go(&mut self, ending: Ending) -> Rest {
        // What has come so far asked for the end that this is.
        let _ = self.is_asked_again();
        let deadline = clock::now() + PATIENCE;
        self.close_doors();
        let go_on = ending != Ending::AtOnce && self.hear_out(ending, deadline);
        self.driver.close_links();
        Rest(go_on.then_some(deadline))
    }

    /// Serves sockets until none has anything left to get.
    pub fn deliver(&mut self, Rest(deadline): Rest) {
        let Some(deadline) = deadline else { return };
        while self.driver.peek_engine().flow_count() > 0 && clock::now() < deadline {
            if !self.turn(deadline) {
                return;
            }
        }
    }

    fn close_doors(&mut self) {
        self.table.close_all(&mut self.driver);
        self.apis.clear();
        if let Some(door) = self.door.take() {
            self.driver.unwatch(door.as_fd());
        }
        // Others may hold the same open file; closing ours alone would leave it in the epoll set.
        if let Some(control) = self.control.take() {
            self.driver.unwatch(control.as_fd());
        }
        if let Some(target) = self.target.take() {
            self.driver.unwatch(target.as_fd());
        }
        if let Some(ExitFd::Open(exit)) = self.exit.take() {
            self.driver.unwatch(exit.as_fd());
        }
        self.pid_file = None;
        self.names = Names::new(NAMES, 0);
        // Last: the kernel takes tens of milliseconds to close an inotify.
        self.host_servers = None;
    }

    /// Reads what the guest has sent. `false`: there is no more time.
    fn hear_out(&mut self, ending: Ending, deadline: Instant) -> bool {
        let until = if ending == Ending::HeardOut { deadline } else { clock::now() + GLANCE };
        let mut dry = false;
        while clock::now() < until {
            let open = ending == Ending::HeardOut && self.driver.peek_engine().has_open_connections();
            if dry && !open {
                break;
            }
            let before = self.driver.peek_engine().counters().frames_in;
            let wait = if dry { until } else { clock::now() };
            if !self.turn(wait) {
                return false;
            }
            dry = before == self.driver.peek_engine().counters().frames_in;
        }
        true
    }

    /// One round. `false`: nothing more is to be waited for.
    fn turn(&mut self, until: Instant) -> bool {
        match self.driver.turn(Some(until)) {
            Err(error) => {
                log::warn!("the last bytes are lost: {error}");
                false
            }
            Ok(ready) => !ready.iter().any(|ready| ready.token == SIGNALS) || !self.is_asked_again(),
        }
    }

    /// Whether a signal has come that asks for the end.
    fn is_asked_again(&self) -> bool {
        const ASK: [Signal; 4] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGHUP];
        let next = || self.signal_so_far().ok().flatten();
        // All of them are read: there are as many as there are numbers.
        let caught: Vec<_> = std::iter::from_fn(next).collect();
        caught.iter().any(|caught| ASK.iter().any(|ask| caught.is(*ask)))
    }
}
