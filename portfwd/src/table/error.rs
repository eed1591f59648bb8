//! Why a rule could not be put in force, in one line that says what to do.

use crate::listen::Spot;
use crate::rule::passt::{Draft, Reason, Refusal};
use crate::rule::{Proto, Rule};
use core::fmt;
use nix::errno::Errno;
use slipway_host::inside::Side;
use slipway_host::scope::Endpoint;
use slipway_host::strerror::words;
use std::io;

/// A port that cannot be had: where, and why.
pub(super) type Failed = (Spot, io::Error);

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
    /// The table's policy forbids it.
    #[error(transparent)]
    Refused(#[from] Box<Refusal>),
}

impl AddError {
    pub(super) fn of((spot, error): Failed) -> Self {
        let Spot { proto, bind, port, .. } = spot;
        Self::Listen { proto, endpoint: Endpoint { address: bind.address(), port }, error }
    }

    /// The errno behind it, or the one that the kernel would have had for it.
    #[must_use]
    pub fn raw_os_error(&self) -> Option<i32> {
        match self {
            Self::Listen { error, .. } => error.raw_os_error(),
            Self::FamilyOff(..) | Self::Full(..) => None,
            Self::Refused(refusal) => Some(match refusal.reason {
                Reason::Conflict(_) => Errno::EADDRINUSE as i32,
                Reason::TooManyRules | Reason::TooManySockets => Errno::ENOSPC as i32,
                _ => Errno::EINVAL as i32,
            }),
        }
    }

    /// As pasta says that it cannot put `rule` in force.
    #[must_use]
    pub fn in_passts_words(&self, rule: &Rule) -> String {
        let Self::Listen { endpoint, error, .. } = self else { return self.to_string() };
        let Draft { listen, interface, first, last, .. } = Draft::from(rule);
        let place = match rule.side() {
            Side::Host => "HOST",
            Side::Namespace => "SPLICE",
        };
        let proto = rule.proto().name().to_ascii_uppercase();
        let address = listen.map_or_else(|| "*".to_owned(), |address| address.to_string());
        let interface = interface.map(|name| format!("%{name}")).unwrap_or_default();
        if rule.weak() {
            return format!("All listens failed for {place} {proto} {address}{interface}/{first}-{last}");
        }
        format!(
            "Listen failed for {place} {proto} port {address}{interface}/{}: {}",
            endpoint.port,
            words(error)
        )
    }
}

/// Why other rules could not take the place of those in force, which are in force still.
#[derive(Debug)]
pub struct ReplaceError {
    /// The rule that cannot be had.
    pub rule: Rule,
    /// Why not.
    pub error: AddError,
    /// Sockets that had to be closed to try, and that could not be opened again.
    pub lost: usize,
}

impl ReplaceError {
    /// In pasta's words.
    #[must_use]
    pub fn in_passts_words(&self) -> String {
        format!("{}{}", self.error.in_passts_words(&self.rule), Lost(self.lost))
    }
}

impl fmt::Display for ReplaceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.error, Lost(self.lost))
    }
}

impl std::error::Error for ReplaceError {}

struct Lost(usize);

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => Ok(()),
            lost => write!(f, "; {lost} ports that had to be closed to try could not be opened again"),
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
