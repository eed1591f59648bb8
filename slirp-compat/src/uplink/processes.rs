//! Workers as the supervisor has them: started, spoken to, ended, and what became of them.

use super::orders::{BROKEN, Line, Order};
use super::protocol::{Network, Refusal};
use super::worker::{LEVEL, LINK_LOST, NAME};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::unistd::Pid;
use serde_json::Value;
use slipway_host::clock;
use slipway_netstack::Instant;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// The running program, also when its file has been replaced since.
const SELF: &str = "/proc/self/exe";
/// A worker that died sooner is not started again: it would die again.
const GROWN_UP: Duration = Duration::from_secs(5);

/// A running worker. Dropped, it is killed.
#[derive(Debug)]
pub struct Process {
    child: Child,
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
    pub fn start(network: &Network, tap: OwnedFd, host_loopback: bool) -> Result<Self, Refusal> {
        let (ours, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
                .map_err(|errno| Refusal::system("make a socket pair", &errno.into()))?;
        let line = Line::new(ours).map_err(|error| Refusal::system("set up a socket", &error))?;
        let child = Command::new(SELF)
            .arg0(NAME)
            .arg(&network.name)
            .env(LEVEL, log::max_level().as_str())
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            // The terminal's signals are for the supervisor.
            .process_group(0)
            .spawn()
            .map_err(|error| Refusal::system("start a process for the network", &error))?;
        let process = Self { child, line, tap, began: clock::now() };
        let start = Order::Start { network: network.clone(), host_loopback };
        process.line.call(&start, Some(process.tap.as_fd()))?;
        Ok(process)
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Gives it an order.
    ///
    /// # Errors
    /// Its refusal, or that it does not answer; then it is killed.
    pub fn call(&self, order: &Order) -> Result<Value, Refusal> {
        self.line.call(order, None).inspect_err(|refusal| {
            if refusal.errno == Some(BROKEN) {
                // What it says later would be taken for the answer to something else. Not waited for yet, so the number is its own.
                let _ = i32::try_from(self.child.id()).map(|pid| kill(Pid::from_raw(pid), Signal::SIGKILL));
            }
        })
    }

    /// It has hung up: what became of it.
    #[must_use]
    pub fn bury(mut self) -> Fate {
        let status = self.child.wait().ok();
        let grown_up = clock::now() - self.began >= GROWN_UP;
        match status.and_then(|status| status.code()) {
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
        // Both are without effect on one that is waited for already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
