//! What ends a connection: nonsense in a ring, or memory that is gone.

/// What is wrong in a ring, or about it: the end of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Broken {
    #[error("a ring of {0} descriptors")]
    Size(u32),
    #[error("a ring that is not in the memory, or not aligned")]
    Outside,
    #[error("a ring with {0} chains more than it has descriptors for")]
    Index(u16),
    #[error("a chain that begins or goes on at descriptor {0}, which is none")]
    Descriptor(u16),
    #[error("a chain that never ends")]
    Endless,
    #[error("a descriptor with the flags {0:#x}")]
    Flags(u16),
    #[error("a buffer that is not in the memory: {0} bytes at {1:#x}")]
    Buffer(u32, u64),
    #[error("the machine's memory has become smaller")]
    Lost,
}
