//! Workers as the supervisor has them: started, spoken to, ended, and what became of them.

use super::orders::{BROKEN, Line, Order};
use super::protocol::{Network, Refusal};
use super::starter::Starter;
use super::worker::LINK_LOST;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use serde_json::Value;
use slipway_host::clock;
use slipway_netstack::Instant;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

/// A worker that died sooner is not started again: it would die again.
const GROWN_UP: Duration = Duration::from_secs(5);

/// A running worker. Dropped, it is killed.
#[derive(Debug)]
pub struct Process {
    pid: i32,
    /// Whose child it is.
    starter: Rc<Starter>,
    /// It has been waited for: its number may be another's.
    reaped: bool,
    line: Line,
    /// For the next worker, if this one dies.
    tap: OwnedFd,
    began: Instant,
}

/// What became of a worker.
#[derive(Debug)]
pub enum Fate {
    /// The TAP is gone, so there is nothing to serve.
    LinkLost,
    /// It died on the job: the TAP for another one.
    Died(OwnedFd),
    /// It died at once.
    Stillborn,
}

impl Process {
    /// Starts one for `network` on `tap`; it serves when this returns.
    ///
    /// # Errors
    /// Why it does not.
    pub fn start(
        starter: &Rc<Starter>,
        network: &Network,
        tap: OwnedFd,
        host_loopback: bool,
    ) -> Result<Self, Refusal> {
        let (ours, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
                .map_err(|errno| Refusal::system("make a socket pair", &errno.into()))?;
        let line = Line::new(ours).map_err(|error| Refusal::system("set up a socket", &error))?;
        let pid = starter
            .start(&network.name, theirs.as_fd())
            .map_err(|error| Refusal::system("start a process for the network", &error))?;
        drop(theirs);
        let starter = Rc::clone(starter);
        let process = Self { pid, starter, reaped: false, line, tap, began: clock::now() };
        let start = Order::Start { network: network.clone(), host_loopback };
        process.line.call(&start, Some(process.tap.as_fd()))?;
        Ok(process)
    }

    /// Its process id.
    #[must_use]
    pub const fn pid(&self) -> i32 {
        self.pid
    }

    /// Gives it an order.
    ///
    /// # Errors
    /// Its refusal, or that it does not answer; then it is killed.
    pub fn call(&self, order: &Order) -> Result<Value, Refusal> {
        self.line.call(order, None).inspect_err(|refusal| {
            if refusal.errno == Some(BROKEN) {
                // What it says later would be taken for the answer to something else.
                self.starter.kill(self.pid);
            }
        })
    }

    /// It has hung up: what became of it.
    #[must_use]
    pub fn bury(mut self) -> Fate {
        let status = self.starter.wait(self.pid);
        self.reaped = true;
        let grown_up = clock::now() - self.began >= GROWN_UP;
        match status {
            Some(code) if code == i32::from(LINK_LOST) => Fate::LinkLost,
            _ if grown_up => {
                log::warn!("the process of a network has died ({status:?}) and is replaced");
                self.tap.try_clone().map_or(Fate::Stillborn, Fate::Died)
            }
            _ => Fate::Stillborn,
        }
    }
}

impl AsFd for Process {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.line.as_fd()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.reaped {
            self.starter.kill(self.pid);
            let _ = self.starter.wait(self.pid);
        }
    }
}
