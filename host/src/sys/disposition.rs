//! Signal dispositions: what happens to a signal that nobody blocks.
//!
//! Only two questions are asked of the kernel here, so no handler of ours ever runs in signal context.

use nix::errno::Errno;
use nix::sys::signal::Signal;

/// Whether `signal` is ignored, as `nohup` and the `&` of a shell leave SIGHUP and SIGINT for a new program.
pub fn is_ignored(signal: Signal) -> nix::Result<bool> {
    is_ignored_number(signal as i32)
}

/// The same by number.
pub fn is_ignored_number(number: i32) -> nix::Result<bool> {
    let mut now = core::mem::MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: the new action is null, so nothing changes; the old one is written to `now`, which is large enough.
    let done = unsafe { libc::sigaction(number, core::ptr::null(), now.as_mut_ptr()) };
    Errno::result(done)?;
    // SAFETY: sigaction(2) succeeded, so it has filled `now`.
    let now = unsafe { now.assume_init() };
    Ok(now.sa_sigaction == libc::SIG_IGN)
}

/// Gives `signal` its default disposition.
pub fn set_default(signal: Signal) -> nix::Result<()> {
    // SAFETY: SIG_DFL is no handler of ours, so there is no code that could run in signal context.
    let before = unsafe { libc::signal(signal as libc::c_int, libc::SIG_DFL) };
    if before == libc::SIG_ERR { Err(Errno::last()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rust_programs_ignore_sigpipe_and_the_default_can_be_restored() {
        // The runtime of Rust sets SIGPIPE to ignored. SIGWINCH is ignored by *default*, which is not SIG_IGN.
        assert!(is_ignored(Signal::SIGPIPE).unwrap());
        assert!(!is_ignored(Signal::SIGWINCH).unwrap());
        set_default(Signal::SIGWINCH).unwrap();
        assert!(!is_ignored(Signal::SIGWINCH).unwrap());
    }
}
