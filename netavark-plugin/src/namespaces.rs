//! The two network namespaces of a call: the *host*'s, in which the program was started, and the *container*'s.
//!
//! A netlink socket belongs to the namespace it was opened in, so the container's is entered once, for the moment in
//! which its socket is opened. Settings below `/proc/sys/net` belong to the namespace of whoever opens the file: they
//! are written in [`Place::enter`]. This program has one thread, so moving it back and forth disturbs nobody.
//! Source: namespaces(7), setns(2).

use crate::error::{Context, Result};
use nix::sched::{CloneFlags, setns};
use slipway_host::netlink::Netlink;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

/// Where the calling thread is.
const OWN: &str = "/proc/self/ns/net";

/// One namespace: its descriptor and a netlink socket in it.
#[derive(Debug)]
pub struct Place {
    namespace: File,
    home: File,
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

impl Place {
    /// The namespace of this thread.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn here() -> Result<Self> {
        let namespace = File::open(OWN).context("open host netns")?;
        let home = namespace.try_clone()?;
        Ok(Self { namespace, home, netlink: Netlink::open().context("host netlink socket")? })
    }

    /// The namespace behind an open descriptor.
    ///
    /// # Errors
    /// When it cannot be entered.
    pub fn at(namespace: File) -> Result<Self> {
        let home = File::open(OWN).context("open host netns")?;
        let netlink = within(&namespace, &home, || Netlink::open().context("container netlink socket"))??;
        Ok(Self { namespace, home, netlink })
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

/// Opens the namespace at `path`.
///
/// # Errors
/// `IO error: ...` when there is none.
pub fn open(path: &Path) -> Result<File> {
    Ok(File::open(path)?)
}

fn within<T>(namespace: &File, home: &File, work: impl FnOnce() -> T) -> Result<T> {
    setns(namespace, CloneFlags::CLONE_NEWNET).context("enter the network namespace of the container")?;
    let result = work();
    setns(home, CloneFlags::CLONE_NEWNET).context("return to the network namespace of the host")?;
    Ok(result)
}
