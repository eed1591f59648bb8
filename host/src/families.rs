//! For tests: the families of addresses that this machine has. A test of both proves what it can over those that are
//! there, and says what it left out. Tests in `tests/` include this file, for they see nothing of the library but what
//! is public.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

/// IPv4's loopback address.
pub(crate) const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// IPv6's.
pub(crate) const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

/// The loopback addresses that sockets can have here. A kernel without IPv6 has no such sockets; one where
/// `disable_ipv6` is set has no such address.
pub(crate) fn families(test: &str) -> Vec<IpAddr> {
    let there = |like: &IpAddr| match UdpSocket::bind((*like, 0)) {
        Ok(_) => true,
        Err(error) => {
            println!("SKIP {test}: nothing over {like} on this machine: {error}");
            false
        }
    };
    [V4, V6].into_iter().filter(there).collect()
}
