//! Privileges only fall: the stages that shut the program in before it meets the guest.
//!
//! | stage | what is gone afterwards | who asks |
//! |---|---|---|
//! | [`mounts`] | the host's files but /etc and /run (read-only), so that resolv.conf can be followed | `--enable-sandbox` |
//! | [`caps`] | every capability but CAP_NET_BIND_SERVICE; set-uid programs give none back | `--enable-sandbox`, our own commands |
//! | [`seccomp`] | every system call that the event loop does not make | `--enable-seccomp`, our own commands |
//!
//! The stages come after all descriptors are open (TAP, listeners, API socket, log) and before the ready byte; their order is
//! that of the table, since mounting needs capabilities and dropping them needs prctl(2), which the filter
//! forbids. CAP_NET_BIND_SERVICE stays because ports are opened while running, and a container engine that was
//! granted low ports expects them to work. Source: contract slirp4netns §6 and §7.
//!
//! Limits: a kernel bug reachable through the allowed calls is not stopped; the network itself is the program's
//! purpose and stays open. docs/threat-model.md says what each stage is for.

pub mod caps;
pub mod mounts;
pub mod seccomp;

use std::io;
use std::path::Path;

/// A stage that could not be taken.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing}: {source}")]
pub struct SandboxError {
    doing: String,
    #[source]
    source: io::Error,
}

impl SandboxError {
    fn new(doing: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self { doing: doing.into(), source: source.into() }
    }
}

/// The stages `mounts` and `caps`: what `--enable-sandbox` asks for.
///
/// `userns` is the user namespace in which mounting is allowed: that of the guest. It is joined unless we are real root; that
/// we are in it already is no error. Only for a process with one thread.
///
/// # Errors
/// When a step fails that the rest depends on. The process is then in an undefined state and should end.
pub fn enter(userns: Option<&Path>) -> Result<(), SandboxError> {
    mounts::isolate(userns)?;
    caps::drop_all()
}
