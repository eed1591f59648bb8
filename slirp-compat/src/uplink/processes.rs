//! Workers as the supervisor has them: started, spoken to, ended, and what became of them.

use super::orders::{BROKEN, LastWord, Line, Order};
use super::protocol::{Network, Refusal};
use super::starter::Starter;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use serde_json::Value;
use slipway_host::clock;
use slipway_netstack::Instant;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

/// A worker that died sooner is not started again: it would die again.
const GROWN_UP: Duration = Duration::from_secs(5);

/// A worker that has said its last word may deliver what is left; after so long it is stuck.
const OVERDUE: Duration = Duration::from_secs(4);

/// A running worker. Dropped, it ends by itself; [`Process::release`] has it waited for.
#[derive(Debug)]
pub struct Process {
    pid: i32,
    /// Whose child it is.
    starter: Rc<Starter>,
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
    /// It died on the job, or was ended by somebody else: the TAP for another one.
    Died(OwnedFd),
    /// It died at once.
    Stillborn,
}

/// Workers that serve nothing any more, but are still there: they deliver what is left.
#[derive(Debug)]
pub struct Leaving {
    starter: Rc<Starter>,
    /// By process id, none of which has been waited for, and since when they leave.
    workers: Vec<(i32, Instant)>,
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
        let process = Self { pid, starter: Rc::clone(starter), line, tap, began: clock::now() };
        let start = Order::Start { network: network.clone(), host_loopback };
        if let Err(refusal) = process.line.call(&start, Some(process.tap.as_fd())) {
            // It serves nobody yet.
            process.starter.kill(process.pid);
            let _ = process.starter.wait(process.pid);
            return Err(refusal);
        }
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

    /// It has hung up: what became of it. Its ports are free.
    #[must_use]
    pub fn bury(self, leaving: &mut Leaving) -> Fate {
        let grown_up = clock::now() - self.began >= GROWN_UP;
        let status = match self.line.part() {
            Some(last_word) => {
                leaving.add(self.pid);
                if last_word == LastWord::LinkLost {
                    return Fate::LinkLost;
                }
                None
            }
            // Without a last word it is dying already.
            None => self.starter.wait(self.pid),
        };
        if !grown_up {
            return Fate::Stillborn;
        }
        log::warn!("the process of a network has died ({status:?}) and is replaced");
        self.tap.try_clone().map_or(Fate::Stillborn, Fate::Died)
    }

    /// Serves its network no longer. When this returns its ports and the TAP are free; it is waited for later.
    pub fn release(self, leaving: &mut Leaving) {
        if self.line.part().is_none() {
            // It has crashed, or is stuck. Both are without effect on one that has ended.
            self.starter.kill(self.pid);
        }
        leaving.add(self.pid);
    }
}

impl AsFd for Process {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.line.as_fd()
    }
}

impl Leaving {
    /// None so far; `starter` is whose children they are.
    #[must_use]
    pub const fn new(starter: Rc<Starter>) -> Self {
        Self { starter, workers: Vec::new() }
    }

    /// Whether there are any.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.workers.is_empty()
    }

    /// Forgets those that have ended, and kills those that should have.
    pub fn tidy(&mut self) {
        let now = clock::now();
        let starter = &self.starter;
        self.workers.retain(|&(pid, since)| {
            if now - since >= OVERDUE {
                log::warn!("the process {pid} of a network does not end, and is killed");
                starter.kill(pid);
                let _ = starter.wait(pid);
                return false;
            }
            starter.has(pid)
        });
    }

    /// They are to end without delivering anything more.
    pub fn hurry(&self) {
        self.workers.iter().for_each(|&(pid, _)| self.starter.terminate(pid));
    }

    fn add(&mut self, pid: i32) {
        self.workers.push((pid, clock::now()));
        self.tidy();
    }
}
