//! Stage: capabilities. Only those that are named are left, CAP_NET_BIND_SERVICE as a rule, and nothing brings others
//! back.
//!
//! Source: capabilities(7). No-new-privileges comes first: from then on exec grants nothing, set-uid or not.

use super::SandboxError;
pub use caps::Capability;
use caps::{CapSet, CapsHashSet};
use std::io;

/// Drops everything but CAP_NET_BIND_SERVICE, as far as that is held.
///
/// # Errors
/// When a set cannot be written.
pub fn drop_all() -> Result<(), SandboxError> {
    drop_all_but(&[Capability::CAP_NET_BIND_SERVICE])
}

/// Drops everything but these, as far as they are held.
///
/// # Errors
/// When a set cannot be written.
pub fn drop_all_but(wanted: &[Capability]) -> Result<(), SandboxError> {
    nix::sys::prctl::set_no_new_privs().map_err(|e| SandboxError::new("forbid new privileges", e))?;
    let failed = |set: &'static str| {
        move |error: caps::errors::CapsError| {
            SandboxError::new(format!("drop {set} capabilities"), io::Error::other(error.to_string()))
        }
    };
    // Kernels before 4.3 have no ambient set; then there is nothing to clear.
    let _ = caps::clear(None, CapSet::Ambient);
    // The bounding set can be shrunk only with CAP_SETPCAP. Without it, nothing here could use it either: exec grants
    // nothing any more.
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP).unwrap_or(false) {
        for cap in caps::runtime::thread_all_supported() {
            if !wanted.contains(&cap) {
                caps::drop(None, CapSet::Bounding, cap).map_err(failed("bounding"))?;
            }
        }
    }
    let held = caps::read(None, CapSet::Permitted).map_err(failed("permitted"))?;
    let kept: CapsHashSet = wanted.iter().copied().filter(|cap| held.contains(cap)).collect();
    // The effective set must be within the permitted one at every moment, and only shrinks here.
    caps::set(None, CapSet::Effective, &kept).map_err(failed("effective"))?;
    caps::set(None, CapSet::Permitted, &kept).map_err(failed("permitted"))?;
    caps::set(None, CapSet::Inheritable, &kept).map_err(failed("inheritable"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::proc::{fork_child, wait_for};
    use nix::sys::wait::WaitStatus;

    #[test]
    fn only_one_capability_is_left() {
        let before = caps::read(None, CapSet::Permitted).unwrap();
        let bind = before.contains(&Capability::CAP_NET_BIND_SERVICE);
        let child = fork_child(|| {
            drop_all().unwrap();
            for set in [CapSet::Effective, CapSet::Permitted] {
                let held = caps::read(None, set).unwrap();
                assert_eq!(held.len(), usize::from(bind), "{set:?}: {held:?}");
            }
            assert!(nix::sys::prctl::get_no_new_privs().unwrap());
            // Twice is no error.
            drop_all().unwrap();
            0
        })
        .unwrap();
        assert!(matches!(wait_for(child).unwrap(), WaitStatus::Exited(_, 0)));
    }
}
