//! The thread inside: what a process does in the guest's network namespace while it stays in the host's.
//!
//! ```text
//!   the event loop (host's namespace)                the thread inside (guest's namespace)
//!   ─────────────────────────────────                ─────────────────────────────────────
//!   ask: one order, one answer ───── channel ──────▶ listeners, netlink, sock_diag
//!   take a socket that is ready ◀─── channel, bell ─ pools, filled before they are empty
//! ```
//! A socket belongs to the network namespace of the *thread* that makes it, and to the process by its number: so one
//! thread that has gone inside makes sockets, and the event loop uses them like any other. Everything but making them
//! (connect, accept, a dump of sock_diag) is done by the event loop itself. A process of its own would do as
//! well, but container engines move *the* process of the PID file out of somebody's systemd unit, and a second one
//! would die with that unit.
//!
//! Invariants.
//! - The data path never waits for the thread. It takes what is ready ([`Inside::take`]); what is missing comes later,
//!   told by a descriptor ([`Inside::bell`]). A thread that hangs in the kernel, or is gone, costs what is new across
//!   the border and nothing else.
//! - Orders that have an answer ([`Inside::ask`]) are for the start and for changes of rules. They wait for
//!   [`PATIENCE`], and while the thread is behind with one, the next fails at once.
//! - Capabilities and the filter of system calls belong to a thread: [`Inside::confine`] gives it its own, shorter than
//!   the event loop's. Nothing in its filter takes a path.
//! - The thread ends with the handle, at its next look at the channel; nobody waits for that. Signals are none of its
//!   business: it blocks all.
//!
//! Sources: namespaces(7), setns(2) (a network namespace is joined by a thread, and needs CAP_SYS_ADMIN in the user
//! namespaces of both), seccomp(2), capabilities(7).

mod pool;

use crate::clock::LocalTime;
use crate::netlink::{self, Netlink, Request};
use crate::sandbox::caps::{self, Capability};
use crate::sandbox::{SandboxError, files, seccomp};
use nix::sched::{CloneFlags, setns};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::signal::SigSet;
pub use pool::Kind;
use pool::{Fresh, Pools};
use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// How long an order is waited for. The kernel does each in microseconds; what takes longer hangs.
pub const PATIENCE: Duration = Duration::from_secs(2);
/// The thread makes sockets and dumps, a few calls deep.
const STACK: usize = 256 << 10;

/// A side of the border between host and guest, where a listener may stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// In the host's network namespace.
    Host,
    /// In the guest's network namespace.
    Namespace,
}

impl Side {
    /// The side across.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Host => Self::Namespace,
            Self::Namespace => Self::Host,
        }
    }
}

/// Something to do inside.
type Order = Box<dyn FnOnce() + Send>;

/// The thread inside, as the event loop holds it. It ends when this is dropped.
#[derive(Debug)]
pub struct Inside {
    orders: Sender<Order>,
    /// Orders given.
    given: Cell<u64>,
    /// Orders carried out.
    done: Arc<AtomicU64>,
    /// The number of an order for which [`Inside::ask`] has run out of patience.
    late: Cell<Option<u64>>,
    bell: Arc<EventFd>,
    fresh: Receiver<Fresh>,
    /// For orders to answer with.
    maker: Sender<Fresh>,
    pools: Pools,
    thread: JoinHandle<()>,
}

impl Inside {
    /// Starts the thread and has it join the network namespace `netns`. It takes over the caller's privileges, of which
    /// CAP_SYS_ADMIN is needed here; so this comes before the sandbox.
    ///
    /// # Errors
    /// Those of setns(2); no thread can be had.
    pub fn start(netns: OwnedFd) -> io::Result<Self> {
        let (orders, inbox) = mpsc::channel();
        let (maker, fresh) = mpsc::channel();
        let (entered, entry) = mpsc::sync_channel(1);
        let done = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&done);
        let bell = EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        let thread = thread::Builder::new().name("inside".to_owned()).stack_size(STACK).spawn(move || {
            let outcome = enter(netns);
            let is_inside = outcome.is_ok();
            if entered.send(outcome).is_ok() && is_inside {
                serve(&inbox, &counter);
            }
        })?;
        answer(&entry)??;
        Ok(Self {
            orders,
            given: Cell::new(0),
            done,
            late: Cell::new(None),
            bell: Arc::new(bell),
            fresh,
            maker,
            pools: Pools::default(),
            thread,
        })
    }

    /// Has `work` done inside, and waits for what it says; [`PATIENCE`] at most.
    ///
    /// # Errors
    /// [`io::ErrorKind::TimedOut`]: the thread hangs in this order or an earlier one, which it may still carry out;
    /// what that makes is dropped. [`io::ErrorKind::BrokenPipe`]: it is gone.
    pub fn ask<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
        if self.late.get().is_some_and(|late| self.done.load(Ordering::Acquire) < late) {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let (told, answered) = mpsc::sync_channel(1);
        self.post(move || {
            // If nobody waits any more, the answer is dropped here, and closed if it is a descriptor.
            let _ = told.send(work());
        })?;
        let outcome = answer(&answered);
        let is_late = matches!(&outcome, Err(error) if error.kind() == io::ErrorKind::TimedOut);
        self.late.set(is_late.then(|| self.given.get()));
        outcome
    }

    /// Has `work` done inside, and does not wait.
    ///
    /// # Errors
    /// [`io::ErrorKind::BrokenPipe`]: the thread is gone.
    pub fn post(&self, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
        self.orders.send(Box::new(work)).map_err(|_| io::ErrorKind::BrokenPipe)?;
        self.given.set(self.given.get() + 1);
        Ok(())
    }

    /// Carries out requests of route netlink inside, each with its own result.
    ///
    /// # Errors
    /// As [`Inside::ask`]; no socket can be had.
    pub fn netlink(&self, requests: Vec<Request>) -> io::Result<Vec<Result<(), netlink::Error>>> {
        self.ask(move || Netlink::open().map(|mut netlink| netlink.run(&requests)))?.map_err(io::Error::other)
    }

    /// Leaves the thread these capabilities at most (CAP_NET_BIND_SERVICE for listeners on low ports, CAP_NET_ADMIN for
    /// [`Inside::netlink`]), no files where the kernel has Landlock, and with `filter` the system calls of
    /// [`seccomp::Profile::Inside`].
    ///
    /// A mount namespace is a thread's, too: one that the event loop goes into is not this one's.
    ///
    /// # Errors
    /// When a set cannot be written or the kernel has no seccomp; what came before it is done then.
    pub fn confine(
        &self,
        capabilities: &'static [Capability],
        filter: Option<seccomp::Mode>,
    ) -> Result<(), SandboxError> {
        let shut = move || {
            if let Err(error) = files::keep(&[]) {
                log::debug!("the thread inside keeps sight of files: {error}");
            }
            // The C library reads the time zone's file when it is first asked, by a line of the log, say.
            let _ = LocalTime::now();
            caps::drop_all_but(capabilities)?;
            filter.map_or(Ok(()), |mode| seccomp::install(seccomp::Profile::Inside, mode))
        };
        self.ask(shut).map_err(|error| SandboxError::new("shut in the thread inside", error))?
    }

    /// A socket of the guest's namespace, if one is ready; more are ordered before there are none. `Ok(None)`: one will
    /// come, and the bell ring.
    ///
    /// # Errors
    /// Why none could be made when that was tried last (EMFILE, EAFNOSUPPORT, ...); the next call has it tried again.
    /// [`io::ErrorKind::BrokenPipe`]: the thread is gone.
    pub fn take(&mut self, kind: Kind) -> io::Result<Option<OwnedFd>> {
        let is_gone = self.thread.is_finished();
        self.pools.collect(&self.fresh);
        let taken = self.pools.take(kind);
        if is_gone && matches!(taken, Ok(None)) {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        if let Some(count) = self.pools.lacking(kind) {
            let (maker, bell) = (self.maker.clone(), Arc::clone(&self.bell));
            if self.post(move || pool::make(kind, count, &maker, &bell)).is_ok() {
                self.pools.ordered(kind, count);
            }
        }
        taken
    }

    /// Readable when sockets have come ([`Inside::answer_bell`]).
    #[must_use]
    pub fn bell(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    /// The bell has been heard.
    pub fn answer_bell(&mut self) {
        // EAGAIN: it was heard already.
        let _ = self.bell.read();
        self.pools.collect(&self.fresh);
    }
}

/// What the thread says, if it says anything in time.
fn answer<T>(from: &Receiver<T>) -> io::Result<T> {
    from.recv_timeout(PATIENCE).map_err(|error| match error {
        RecvTimeoutError::Timeout => io::ErrorKind::TimedOut.into(),
        RecvTimeoutError::Disconnected => io::ErrorKind::BrokenPipe.into(),
    })
}

/// Makes the calling thread one of the namespace's.
fn enter(netns: OwnedFd) -> io::Result<()> {
    // Those of the process are for the event loop to read, from a descriptor.
    SigSet::all().thread_block()?;
    Ok(setns(netns, CloneFlags::CLONE_NEWNET)?)
}

/// Carries out orders until nobody is left to give any.
fn serve(inbox: &Receiver<Order>, done: &AtomicU64) {
    while let Ok(order) = inbox.recv() {
        order();
        done.fetch_add(1, Ordering::Release);
    }
}

#[cfg(test)]
pub(crate) mod tests;
