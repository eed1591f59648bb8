//! What a machine may lack of a laboratory, and the words for it.

use std::io;
use std::net::{Ipv6Addr, UdpSocket};

/// Why no lab can be made on this machine.
#[derive(Debug)]
pub struct Unavailable(pub String);

impl std::fmt::Display for Unavailable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unavailable {}

impl From<io::Error> for Unavailable {
    fn from(error: io::Error) -> Self {
        Self(error.to_string())
    }
}

/// Why a machine without IPv6 has no laboratory.
pub(crate) const NO_IPV6: &str = "this machine has no IPv6, which every network of the laboratory has";

/// Why a machine without the driver has none.
pub(crate) const NO_TUN: &str = "this machine lets nobody open /dev/net/tun (modprobe tun)";

/// Why a machine does not reach itself by vsock.
pub const NO_VSOCK: &str = "this machine's kernel leads no vsock back to it (modprobe vsock_loopback)";

/// Whether the kernel has IPv6: without it, no socket of the family is to be had.
#[must_use]
pub(crate) fn ipv6() -> bool {
    UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).is_ok()
}
