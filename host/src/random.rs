//! Secrets for the engine, from the kernel's generator.

use crate::sys;
use slipway_netstack::config::Keys;
use std::io;

/// Fresh keys for one engine.
///
/// # Errors
/// When the kernel has no generator (before Linux 3.17), which no supported system meets.
pub fn keys() -> io::Result<Keys> {
    Ok(Keys { flow_hash: bytes()?, isn: bytes()?, others: bytes()? })
}

/// `N` random bytes.
///
/// # Errors
/// As [`keys`].
pub fn bytes<const N: usize>() -> io::Result<[u8; N]> {
    let mut out = [0; N];
    sys::random::fill(&mut out)?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_differ_from_each_other_and_from_call_to_call() {
        let (one, other) = (keys().unwrap(), keys().unwrap());
        assert_ne!(one.flow_hash, one.isn);
        assert_ne!(one.flow_hash, other.flow_hash);
        assert_ne!(one.isn, [0; 16]);
    }
}
