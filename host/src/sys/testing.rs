//! Calls that nobody makes but tests: what a program that was taken over would try.

use nix::errno::Errno;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

/// fcntl(2) with any command that takes a number.
pub(crate) fn fcntl(fd: BorrowedFd<'_>, command: i32, argument: i32) -> Result<i32, Errno> {
    // SAFETY: no command that the callers use follows its argument as a pointer; were it one, the kernel would check
    // it.
    Errno::result(unsafe { libc::fcntl(fd.as_raw_fd(), command, argument) })
}

/// socket(2) of any kind.
pub(crate) fn socket(family: i32, kind: i32, protocol: i32) -> Result<OwnedFd, Errno> {
    // SAFETY: three numbers go in, a descriptor or -1 comes out.
    let fd = Errno::result(unsafe { libc::socket(family, kind, protocol) })?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// setsockopt(2) of any option, with an int.
pub(crate) fn set_option(fd: BorrowedFd<'_>, (level, name): (i32, i32), value: i32) -> Result<(), Errno> {
    let value = value.to_ne_bytes();
    // SAFETY: the pointer is to four live bytes, which the kernel only reads.
    let done = unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, value.as_ptr().cast(), 4) };
    Errno::result(done).map(drop)
}
