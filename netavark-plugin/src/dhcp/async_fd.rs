//! Descriptors as the runtime waits for them.

use std::io;
use std::os::fd::OwnedFd;
use tokio::io::unix::AsyncFd;

/// Has the runtime wait for a descriptor. Call it within the runtime.
///
/// # Errors
/// EPERM for one that cannot be waited for (a file), EMFILE and the like.
#[expect(
    deprecated,
    reason = "an owned descriptor stays the same, which the unsafe successor asks its caller to promise"
)]
pub(crate) fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::new(fd)
}
