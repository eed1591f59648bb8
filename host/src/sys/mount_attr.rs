//! `mount_setattr(2)`: set mount flags on a whole tree of mounts at once (Linux 5.12).
//!
//! Flags are only added, never cleared, so flags that a parent user namespace has locked stay as they are and the
//! kernel has no reason to refuse.

use core::ffi::CStr;
use nix::errno::Errno;

/// Makes the mount at `path`, and every mount below it, read-only, nosuid, nodev and noexec.
///
/// # Errors
/// `ENOSYS` on kernels before 5.12; `EINVAL` if `path` is not the root of a mount; `EPERM` without `CAP_SYS_ADMIN` over
/// the mount namespace.
pub fn restrict_tree(path: &CStr) -> nix::Result<()> {
    let attr = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_RDONLY
            | libc::MOUNT_ATTR_NOSUID
            | libc::MOUNT_ATTR_NODEV
            | libc::MOUNT_ATTR_NOEXEC,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    // SAFETY: `path` is a NUL-terminated string and `attr` a whole `mount_attr` whose size is passed along; both
    // outlive the call, and the kernel only reads them.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            path.as_ptr(),
            libc::AT_RECURSIVE,
            core::ptr::from_ref(&attr),
            size_of::<libc::mount_attr>(),
        )
    };
    Errno::result(done).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_is_no_mount_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = std::ffi::CString::new(dir.path().to_str().unwrap()).unwrap();
        let refused = restrict_tree(&path).unwrap_err();
        assert!(matches!(refused, Errno::EINVAL | Errno::EPERM | Errno::ENOSYS), "{refused}");
        std::fs::write(dir.path().join("still-writable"), b"x").unwrap();
    }
}
