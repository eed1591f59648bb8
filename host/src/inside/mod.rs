//! The thread inside: what a process does in the guest's network namespace while it stays in the host's.

/// A side of the border between host and guest, where a listener may stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// In the host's network namespace.
    Host,
    /// In the guest's network namespace.
    Namespace,
}

impl Side {
    /// The side across.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Host => Self::Namespace,
            Self::Namespace => Self::Host,
        }
    }
}
