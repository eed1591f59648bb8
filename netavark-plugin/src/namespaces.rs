//! The two network namespaces of a call: the *host*'s, in which the program was started, and the *container*'s.
//!
//! A netlink socket belongs to the namespace it was opened in, so the container's is entered once, for the moment in
//! which its socket is opened. Settings below `/proc/sys/net` belong to the namespace of whoever opens the file: they
//! are written in [`Place::enter`]. This program has one thread, so moving it back and forth disturbs nobody.
//! Source: namespaces(7), setns(2).

use crate::error::{Context, Errors, Result};
use nix::errno::Errno;
use nix::libc;
use nix::sched::{CloneFlags, setns};
use slipway_host::netlink::{self, Interface, Netlink, Request};
use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// Where the calling thread is.
const OWN: &str = "/proc/self/ns/net";

/// One namespace: its descriptor and a netlink socket in it.
#[derive(Debug)]
pub struct Place {
    namespace: File,
    home: File,
    leaving: Vec<Interface>,
    /// Requests to the kernel about this namespace.
    pub netlink: Netlink,
}

/// Both.
#[derive(Debug)]
pub struct Places {
    /// The host's.
    pub host: Place,
    /// The container's; gone when a teardown comes late.
    pub container: Option<Place>,
}

impl Places {
    /// Brings the container's loopback interface up: a new namespace has it down.
    ///
    /// # Errors
    /// The kernel's.
    pub fn bring_loopback_up(&mut self) -> Result<()> {
        let Some(container) = &mut self.container else { return Ok(()) };
        let lo = container.netlink.interface("lo").context("get loopback interface")?;
        container.netlink.set_up(&lo).context("set loopback interface up")
    }
}

impl Places {
    /// Deletes the interfaces that teardown has found, of all networks, the host's and the container's.
    ///
    /// # Errors
    /// All that could not be deleted.
    pub fn delete_leaving(&mut self) -> Result<()> {
        let mut errors = Errors::new();
        errors.note(self.host.delete_leaving());
        if let Some(container) = &mut self.container {
            errors.note(container.delete_leaving());
        }
        errors.finish()
    }
}

impl Place {
    /// The namespace of this thread.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn here() -> Result<Self> {
        let namespace = File::open(OWN).context("open host netns")?;
        let home = namespace.try_clone()?;
        let netlink = Netlink::open().context("host netlink socket")?;
        Ok(Self { namespace, home, leaving: Vec::new(), netlink })
    }

    /// The namespace behind an open descriptor.
    ///
    /// # Errors
    /// When it cannot be entered.
    pub fn at(namespace: File) -> Result<Self> {
        let home = File::open(OWN).context("open host netns")?;
        let netlink = within(&namespace, &home, || Netlink::open().context("container netlink socket"))??;
        Ok(Self { namespace, home, leaving: Vec::new(), netlink })
    }

    /// Has an interface deleted by [`Places::delete_leaving`].
    pub fn delete_later(&mut self, interface: &Interface) {
        self.leaving.push(interface.clone());
    }

    /// Whether that was asked for, for the interface of this number.
    #[must_use]
    pub fn deletes_later(&self, index: u32) -> bool {
        self.leaving.iter().any(|interface| interface.index == index)
    }

    /// Deletes what is to be deleted. The kernel waits some ten milliseconds after each request to delete, until nobody
    /// looks at the interfaces any more: so all go by one request, as a group made for it.
    fn delete_leaving(&mut self) -> Result<()> {
        let leaving = std::mem::take(&mut self.leaving);
        let netlink = &mut self.netlink;
        if leaving.len() > 1 {
            let group = unused_group()?;
            let mut requests: Vec<_> =
                leaving.iter().map(|link| Request::set_group(link.index, group)).collect();
            requests.push(Request::delete_group(group));
            if netlink.run(&requests).iter().all(Result::is_ok) {
                return Ok(());
            }
        }
        // One alone; or one of several could not be, and the others are not to wait for it.
        let mut errors = Errors::new();
        for link in leaving {
            let result = gone(netlink.run_one(&Request::delete(link.index)));
            errors.note(result.with_context(|| format!("failed to delete interface {}", link.name)));
        }
        errors.finish()
    }

    /// Runs `work` inside the namespace and comes back.
    ///
    /// # Errors
    /// When it cannot be entered, or not be left again.
    pub fn enter<T>(&self, work: impl FnOnce() -> T) -> Result<T> {
        within(&self.namespace, &self.home, work)
    }
}

impl AsFd for Place {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.namespace.as_fd()
    }
}

/// Opens the namespace at `path`. Whatever else is there is not waited for, such as the writer of a FIFO.
///
/// # Errors
/// `IO error: ...` when there is none.
pub fn open(path: &Path) -> Result<File> {
    Ok(OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?)
}

/// The namespace of a container that leaves; it may be gone, and its interfaces with it.
pub(crate) fn unless_gone(path: &Path, errors: &mut Errors) -> Option<Place> {
    match open(path).and_then(Place::at).context("open container netns") {
        Ok(place) => Some(place),
        Err(error) if error.errno() == Some(Errno::ENOENT) => {
            log::warn!("container netns not found: {error}");
            None
        }
        Err(error) => {
            errors.push(error);
            None
        }
    }
}

fn within<T>(namespace: &File, home: &File, work: impl FnOnce() -> T) -> Result<T> {
    setns(namespace, CloneFlags::CLONE_NEWNET).context("enter the network namespace of the container")?;
    let result = work();
    setns(home, CloneFlags::CLONE_NEWNET).context("return to the network namespace of the host")?;
    Ok(result)
}

/// What is gone already needs no deleting.
///
/// # Errors
/// All others.
pub(crate) fn gone(result: Result<(), netlink::Error>) -> Result<()> {
    match result {
        Err(error) if matches!(error.errno(), Some(Errno::ENODEV | Errno::ESRCH)) => Ok(()),
        result => Ok(result?),
    }
}

/// A group that nobody has put an interface into: one of a thousand million, drawn by lot. (Groups in use have small
/// numbers, given by hand.)
fn unused_group() -> Result<u32> {
    const ONE: u32 = 1 << 30;
    Ok(ONE | (u32::from_ne_bytes(slipway_host::random::bytes()?) & (ONE - 1)))
}
