//! Workers as the supervisor has them: started, spoken to, ended, and what became of them.

use super::orders::{BROKEN, LastWord, Line, Order};
use super::starter::Starter;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use serde_json::Value;
use slipway_host::clock;
use slipway_netstack::Instant;
use slipway_uplink::envelope::Refusal;
use slipway_uplink::protocol::Network;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

/// A worker that died sooner is not started again: it would die again.
const GROWN_UP: Duration = Duration::from_secs(5);

/// A worker that has said its last word may deliver what is left; after so long it is stuck.
const OVERDUE: Duration = Duration::from_secs(4);

/// How long all workers together may take for their last words, before those that have none are killed.
const PARTING: Duration = Duration::from_secs(1);

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
    /// By process id, none of which has been waited for, and when they are overdue, unless they have been killed.
    workers: Vec<(i32, Option<Instant>)>,
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
        leaving: &mut Leaving,
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
            leaving.kill(process.pid);
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
        match self.line.part(PARTING) {
            Some(last_word) => {
                leaving.add(self.pid);
                if last_word == LastWord::LinkLost {
                    return Fate::LinkLost;
                }
            }
            // It is dying already, or means to stay: nobody waits for it.
            None => leaving.kill(self.pid),
        }
        if !grown_up {
            return Fate::Stillborn;
        }
        log::warn!("the process {} of a network has died and is replaced", self.pid);
        self.tap.try_clone().map_or(Fate::Stillborn, Fate::Died)
    }

    /// Serves its network no longer. When this returns its ports and the TAP are free; it is waited for later.
    pub fn release(self, leaving: &mut Leaving) {
        Self::release_all(vec![self], leaving);
    }

    /// The same for several, which end at the same time.
    pub fn release_all(processes: Vec<Self>, leaving: &mut Leaving) {
        processes.iter().for_each(|process| process.line.hang_up());
        let deadline = clock::now() + PARTING;
        for process in processes {
            match process.line.part(deadline - clock::now()) {
                Some(_) => leaving.add(process.pid),
                // It has crashed, or is stuck.
                None => leaving.kill(process.pid),
            }
        }
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
        self.workers.retain_mut(|(pid, overdue)| {
            if overdue.is_some_and(|at| now >= at) {
                log::warn!("the process {pid} of a network does not end, and is killed");
                starter.kill(*pid);
                *overdue = None;
            }
            starter.has(*pid)
        });
    }

    /// This one is not waited for, but for what the kernel does.
    fn kill(&mut self, pid: i32) {
        // Without effect on one that has ended.
        self.starter.kill(pid);
        self.workers.push((pid, None));
        self.tidy();
    }

    /// They are to end without delivering anything more.
    pub fn hurry(&self) {
        self.workers.iter().for_each(|&(pid, _)| self.starter.terminate(pid));
    }

    fn add(&mut self, pid: i32) {
        self.workers.push((pid, Some(clock::now() + OVERDUE)));
        self.tidy();
    }
}

#[cfg(test)]
mod tests {
    use super::super::orders;
    use super::*;
    use slipway_host::sys::fdpass;

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap()
    }

    /// A worker that may be in a stranger's hands must not hold up those of other networks.
    #[test]
    fn nobody_waits_for_a_worker_that_hangs_up_and_stays() {
        let (ours, starters) = pair();
        let starter = Rc::new(Starter::played(ours));
        let (line, worker) = pair();
        let tap = worker.try_clone().unwrap();
        let line = Line::new(line).unwrap();
        // Without a last word.
        nix::sys::socket::shutdown(
            std::os::fd::AsRawFd::as_raw_fd(&worker),
            nix::sys::socket::Shutdown::Both,
        )
        .unwrap();
        let orders = std::thread::spawn(move || {
            let mut orders = Vec::new();
            loop {
                let mut order = [0; 16];
                let (len, _) = fdpass::receive(starters.as_fd(), &mut order).unwrap();
                if len == 0 {
                    return orders;
                }
                orders.push(order[0]);
                // Killed, and still there.
                fdpass::send(starters.as_fd(), &1_i32.to_ne_bytes(), None).unwrap();
            }
        });
        let mut leaving = Leaving::new(Rc::clone(&starter));
        let process = Process { pid: 7, starter: Rc::clone(&starter), line, tap, began: clock::now() };
        assert!(matches!(process.bury(&mut leaving), Fate::Stillborn));
        leaving.tidy();
        assert!(!leaving.is_empty());
        drop((leaving, starter));
        assert_eq!(orders.join().unwrap(), b"khh", "killed, and looked at");
        orders::part(worker.as_fd(), LastWord::Ends);
    }
}
