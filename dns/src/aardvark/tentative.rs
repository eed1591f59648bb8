//! Addresses that are there but cannot be bound yet.
//!
//! An IPv6 address is tentative until duplicate address detection is over, and with detection switched off until a
//! worker of the kernel gets to it (RFC 4862 §5.4; `accept_dad`). netavark gives the bridge its address a moment
//! before it starts us. Stock netavark switches detection off but does not wait, so on a busy machine binding can come
//! too early.

use slipway_host::netlink::Netlink;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::thread::sleep;
use std::time::Duration;

/// What is done about such an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tentative {
    /// It is waited for: at the start, when nobody is served yet.
    Await,
    /// It is an error like any other.
    Refuse,
}

impl Tentative {
    /// Binds; after waiting, once more when an address that was tentative no longer is.
    pub(super) fn bind<T>(
        self,
        address: SocketAddr,
        bind: impl Fn(SocketAddr) -> io::Result<T>,
    ) -> io::Result<T> {
        bind(address).or_else(|error| {
            let unavailable = error.kind() == io::ErrorKind::AddrNotAvailable;
            let too_early = unavailable && self == Self::Await && has_settled(address.ip());
            if too_early { bind(address) } else { Err(error) }
        })
    }
}

/// Waits until an address that is tentative can be used; false if it is not there at all.
fn has_settled(address: IpAddr) -> bool {
    let Ok(mut netlink) = Netlink::open() else { return false };
    for _ in 0..PAUSES {
        let listed = netlink.addresses().unwrap_or_default();
        match listed.iter().find(|listed| listed.net.addr() == address) {
            Some(found) if found.tentative => sleep(PAUSE),
            found => return found.is_some(),
        }
    }
    false
}

/// Detection takes two seconds at most with the kernel's settings.
const PAUSES: u32 = 1500;
const PAUSE: Duration = Duration::from_millis(2);
