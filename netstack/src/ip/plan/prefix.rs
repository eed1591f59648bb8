//! Addresses as a mask has them, mostly a run of them, ready to be compared: two operations for an address.

use core::fmt::Debug;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::ops::BitAnd;
use ipnet::{Ipv4Net, Ipv6Net};

/// An address of one family.
pub trait Address: Copy + Eq + Debug + Into<IpAddr> {
    /// It as a number.
    type Bits: Copy + Eq + Debug + BitAnd<Output = Self::Bits>;
    /// A prefix with its length, for those who tell it to others.
    type Net: Copy + Eq + Debug;

    /// It as a number.
    fn bits(self) -> Self::Bits;

    /// The number whose first `len` bits are set; all are from the address's own length on.
    fn mask(len: u8) -> Self::Bits;

    /// Whether `net` has `self`.
    fn net_contains(net: &Self::Net, addr: Self) -> bool;
}

impl Address for Ipv4Addr {
    type Bits = u32;
    type Net = Ipv4Net;

    fn bits(self) -> u32 {
        self.to_bits()
    }

    fn mask(len: u8) -> u32 {
        !u32::MAX.checked_shr(len.into()).unwrap_or(0)
    }

    fn net_contains(net: &Ipv4Net, addr: Self) -> bool {
        net.contains(&addr)
    }
}

impl Address for Ipv6Addr {
    type Bits = u128;
    type Net = Ipv6Net;

    fn bits(self) -> u128 {
        self.to_bits()
    }

    fn mask(len: u8) -> u128 {
        !u128::MAX.checked_shr(len.into()).unwrap_or(0)
    }

    fn net_contains(net: &Ipv6Net, addr: Self) -> bool {
        net.contains(&addr)
    }
}

/// The addresses that begin alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefix<A: Address> {
    bits: A::Bits,
    mask: A::Bits,
}

impl<A: Address> Prefix<A> {
    /// Those that have the first `len` bits of `addr`.
    #[must_use]
    pub fn new(addr: A, len: u8) -> Self {
        let mask = A::mask(len);
        Self { bits: addr.bits() & mask, mask }
    }

    /// Those that are like `addr` wherever `mask` has ones.
    #[must_use]
    pub fn masked(addr: A, mask: A) -> Self {
        Self { bits: addr.bits() & mask.bits(), mask: mask.bits() }
    }

    /// `addr` alone.
    #[must_use]
    pub fn host(addr: A) -> Self {
        Self::new(addr, u8::MAX)
    }

    /// Whether `addr` is one of them.
    #[must_use]
    pub fn contains(&self, addr: A) -> bool {
        addr.bits() & self.mask == self.bits
    }
}

impl From<Ipv4Net> for Prefix<Ipv4Addr> {
    fn from(net: Ipv4Net) -> Self {
        Self::new(net.addr(), net.prefix_len())
    }
}

impl From<Ipv6Net> for Prefix<Ipv6Addr> {
    fn from(net: Ipv6Net) -> Self {
        Self::new(net.addr(), net.prefix_len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// `ipnet` computes the ends of the run instead.
        #[test]
        fn a_prefix_holds_what_ipnet_says(a: u32, b: u32, near in 0_u32..64, len in 0_u8..=32) {
            for b in [b, a ^ near, a ^ near.rotate_right(5)] {
                let (a, b) = (Ipv4Addr::from(a), Ipv4Addr::from(b));
                let net = Ipv4Net::new(a, len).unwrap();
                prop_assert_eq!(Prefix::from(net).contains(b), net.contains(&b));
                let (a, b) = (a.to_ipv6_mapped(), b.to_ipv6_mapped());
                let net = Ipv6Net::new(a, 96 + len).unwrap();
                prop_assert_eq!(Prefix::from(net).contains(b), net.contains(&b));
            }
            prop_assert!(Prefix::host(Ipv4Addr::from(a)).contains(a.into()));
            prop_assert_eq!(Prefix::host(Ipv4Addr::from(a)).contains(b.into()), a == b);
        }
    }
}
