//! getrandom(2).

use nix::errno::Errno;
use slipway_netstack::surely::Surely;
use std::io;

/// Fills `out` from the kernel's generator.
pub(crate) fn fill(mut out: &mut [u8]) -> io::Result<()> {
    while !out.is_empty() {
        // SAFETY: pointer and length are those of a live, exclusively borrowed slice.
        let got = unsafe { libc::getrandom(out.as_mut_ptr().cast(), out.len(), 0) };
        match Errno::result(got) {
            Ok(got) => out = out.get_mut(usize::try_from(got).surely()..).surely(),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_filled() {
        let mut seen = [0u8; 300];
        for _ in 0..8 {
            let mut out = [0; 300];
            fill(&mut out).unwrap();
            seen.iter_mut().zip(out).for_each(|(seen, byte)| *seen |= byte);
        }
        assert!(seen.iter().all(|&byte| byte != 0), "each byte was non-zero in one of eight draws");
        fill(&mut []).unwrap();
    }
}
