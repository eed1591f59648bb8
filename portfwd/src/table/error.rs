//! Why a rule could not be put in force, in one line that says what to do.

use crate::rule::{Proto, Rule};
use nix::errno::Errno;
use slipway_host::scope::Endpoint;
use slipway_host::strerror::words;
use std::io;

/// Why a rule could not be added.
#[derive(Debug, thiserror::Error)]
pub enum AddError {
    /// The kernel does not let us listen there.
    #[error("cannot listen on {proto} {endpoint}: {}{}", words(.error), advice(.error, .endpoint))]
    Listen {
        /// The rule's protocol.
        proto: Proto,
        /// The address and port that failed.
        endpoint: Endpoint,
        /// The kernel's word.
        error: io::Error,
    },
    /// The guest's link does not have the family that the rule is about.
    #[error("cannot forward {0}: the guest has no {family}", family = if *.1 { "IPv6" } else { "IPv4" })]
    FamilyOff(Rule, bool),
    /// More listening sockets than there are tokens.
    #[error("cannot forward {0}: {1} listening sockets are open, which is the limit")]
    Full(Rule, usize),
}

impl AddError {
    /// The errno behind it, if there is one.
    #[must_use]
    pub fn raw_os_error(&self) -> Option<i32> {
        match self {
            Self::Listen { error, .. } => error.raw_os_error(),
            Self::FamilyOff(..) | Self::Full(..) => None,
        }
    }
}

/// What to do about it, where that is known.
fn advice(error: &io::Error, endpoint: &Endpoint) -> String {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EACCES) if endpoint.port < 1024 => format!(
            " (for ports from {0} on: sysctl net.ipv4.ip_unprivileged_port_start={0}, or give this program \
             CAP_NET_BIND_SERVICE)",
            endpoint.port,
        ),
        Some(Errno::EADDRINUSE) => {
            " (something else listens there: stop it, or choose another port)".to_owned()
        }
        Some(Errno::EADDRNOTAVAIL) => " (choose an address that an interface of this host has)".to_owned(),
        Some(Errno::ENODEV) => match endpoint.address.zone() {
            Some(zone) => format!(" (this host has no interface {zone})"),
            None => String::new(),
        },
        Some(Errno::EPERM) if endpoint.address.zone().is_some() => {
            " (before Linux 5.7 write the interface's number in place of its name)".to_owned()
        }
        Some(Errno::EAFNOSUPPORT) => " (this host has IPv6 switched off)".to_owned(),
        Some(Errno::EMFILE) => " (raise the limit of open files, ulimit -n)".to_owned(),
        _ => String::new(),
    }
}
