//! Whether the kernel has Landlock: for tests, which must not take a ruleset that was left out for a kernel without it.

use nix::errno::Errno;

/// `LANDLOCK_CREATE_RULESET_VERSION` of linux/landlock.h.
const VERSION: libc::c_uint = 1;

/// The version of Landlock that this kernel enforces.
///
/// # Errors
/// ENOSYS or EOPNOTSUPP: none.
pub(crate) fn version() -> nix::Result<i64> {
    // SAFETY: with this flag the attributes must be null and of no length; nothing is read or written.
    let answer = unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, core::ptr::null::<libc::c_void>(), 0_usize, VERSION)
    };
    Errno::result(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_has_a_version_of_it_or_says_that_it_has_none() {
        match version() {
            Ok(version) => assert!(version >= 1, "{version}"),
            Err(errno) => assert!(matches!(errno, Errno::ENOSYS | Errno::EOPNOTSUPP), "{errno}"),
        }
    }
}
