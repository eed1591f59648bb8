//! The two structured parts of a message that travel beside its bytes, as the kernel lays them out in memory: the
//! socket address ([`Name`]) and the control messages ([`Control`], [`control_messages`]).
//!
//! Plain bytes with an alignment, encoded and decoded by hand: no pointers, no unions, and nothing in this file is
//! unsafe. Sources: ip(7), ipv6(7), cmsg(3); the kernel's own `struct cmsghdr` begins with a `size_t`.

use slipway_netstack::surely::Surely;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// Room for a socket address of either family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct Name {
    bytes: [u8; Self::ROOM],
    len: u32,
}

impl Name {
    /// `struct sockaddr_in6` has 28 bytes.
    pub const ROOM: usize = 28;
    /// No address.
    pub const EMPTY: Self = Self { bytes: [0; Self::ROOM], len: 0 };

    /// The bytes that are in use.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        usize::try_from(self.len).ok().and_then(|len| self.bytes.get(..len)).unwrap_or(&self.bytes)
    }

    /// All the room, for the kernel to write into.
    pub(super) fn room(&mut self) -> &mut [u8; Self::ROOM] {
        &mut self.bytes
    }

    /// After the kernel wrote: how much it said there was.
    pub(super) fn set_len(&mut self, len: u32) {
        self.len = len;
    }

    /// As the standard library's type; `None` for another family.
    #[must_use]
    pub fn decode(&self) -> Option<SocketAddr> {
        decode_address(self.as_bytes())
    }
}

impl From<SocketAddr> for Name {
    fn from(address: SocketAddr) -> Self {
        let mut name = Self::EMPTY;
        let mut at = 0;
        let mut put = |part: &[u8]| {
            for (to, from) in name.bytes.iter_mut().skip(at).zip(part) {
                *to = *from;
            }
            at += part.len();
        };
        match address {
            SocketAddr::V4(v4) => {
                put(&family_bytes(libc::AF_INET));
                put(&v4.port().to_be_bytes());
                put(&v4.ip().octets());
                name.len = 16;
            }
            SocketAddr::V6(v6) => {
                put(&family_bytes(libc::AF_INET6));
                put(&v6.port().to_be_bytes());
                put(&v6.flowinfo().to_be_bytes());
                put(&v6.ip().octets());
                put(&v6.scope_id().to_ne_bytes());
                name.len = 28;
            }
        }
        name
    }
}

fn family_bytes(family: i32) -> [u8; 2] {
    u16::try_from(family).surely().to_ne_bytes()
}

/// Decodes a `struct sockaddr_in` or `sockaddr_in6`; `None` for anything else. The scope id is kept.
#[must_use]
pub fn decode_address(bytes: &[u8]) -> Option<SocketAddr> {
    let (family, rest) = bytes.split_first_chunk::<2>()?;
    let (port, rest) = rest.split_first_chunk::<2>()?;
    let port = u16::from_be_bytes(*port);
    match i32::from(u16::from_ne_bytes(*family)) {
        libc::AF_INET => {
            let (octets, _) = rest.split_first_chunk::<4>()?;
            Some(SocketAddr::from((Ipv4Addr::from_octets(*octets), port)))
        }
        libc::AF_INET6 => {
            let (flow, rest) = rest.split_first_chunk::<4>()?;
            let (octets, rest) = rest.split_first_chunk::<16>()?;
            let (scope, _) = rest.split_first_chunk::<4>()?;
            let (flow, scope) = (u32::from_be_bytes(*flow), u32::from_ne_bytes(*scope));
            Some(SocketAddr::V6(SocketAddrV6::new(Ipv6Addr::from_octets(*octets), port, flow, scope)))
        }
        _ => None,
    }
}

/// Room for control messages.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(8))]
pub struct Control {
    bytes: [u8; Self::ROOM],
    len: usize,
}

/// Bytes of the kernel's `struct cmsghdr`.
const HEADER: usize = size_of::<usize>() + 8;

impl Control {
    /// The largest set that we ask for: an IPv6 socket error with its offender (HEADER + 16 + 28), hop limit and
    /// traffic class in both families' forms, and a train's segment size, each padded: 168 bytes. A listener has no
    /// error queue but asks for the destination in both families' forms, which needs as much.
    pub const ROOM: usize = 192;
    /// None.
    pub const EMPTY: Self = Self { bytes: [0; Self::ROOM], len: 0 };

    /// Adds a message. It is left out if there is no room, which the few that we send never meet.
    pub fn push(&mut self, level: i32, kind: i32, data: &[u8]) {
        let end = self.len + HEADER + data.len();
        let Some(room) = self.bytes.get_mut(self.len..end) else { return };
        let header = (HEADER + data.len()).to_ne_bytes().into_iter();
        let header = header.chain(level.to_ne_bytes()).chain(kind.to_ne_bytes());
        for (to, from) in room.iter_mut().zip(header.chain(data.iter().copied())) {
            *to = from;
        }
        self.len = align(end).min(Self::ROOM);
    }

    /// The bytes that are in use.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&self.bytes)
    }

    /// All the room, for the kernel to write into.
    pub(super) fn room(&mut self) -> &mut [u8; Self::ROOM] {
        &mut self.bytes
    }

    /// After the kernel wrote: how much.
    pub(super) fn set_len(&mut self, len: usize) {
        self.len = len;
    }
}

const fn align(len: usize) -> usize {
    len.next_multiple_of(size_of::<usize>())
}

/// The control messages in `bytes`: level, type and data of each. Ends at the first that makes no sense.
pub fn control_messages(mut bytes: &[u8]) -> impl Iterator<Item = (i32, i32, &[u8])> {
    std::iter::from_fn(move || {
        let (len, rest) = bytes.split_first_chunk()?;
        let (level, rest) = rest.split_first_chunk()?;
        let (kind, _) = rest.split_first_chunk()?;
        let len = usize::from_ne_bytes(*len);
        let data = bytes.get(HEADER..len)?;
        bytes = bytes.get(align(len)..).unwrap_or_default();
        Some((i32::from_ne_bytes(*level), i32::from_ne_bytes(*kind), data))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_go_both_ways() {
        for text in ["127.0.0.1:53", "0.0.0.0:0", "[::1]:65535", "[fe80::1%3]:7"] {
            let address: SocketAddr = text.parse().unwrap();
            assert_eq!(Name::from(address).decode(), Some(address));
        }
        assert_eq!(Name::EMPTY.decode(), None);
    }

    #[test]
    fn hostile_addresses_are_refused() {
        let mut bytes = [0xff; 40];
        for len in 0..bytes.len() {
            assert_eq!(decode_address(&bytes[..len]), None);
        }
        bytes[..2].copy_from_slice(&family_bytes(libc::AF_INET6));
        for len in 0..28 {
            assert_eq!(decode_address(&bytes[..len]), None);
        }
    }

    #[test]
    fn control_messages_go_both_ways() {
        let mut control = Control::EMPTY;
        control.push(1, 2, &[3]);
        control.push(4, 5, &6i32.to_ne_bytes());
        control.push(7, 8, &[]);
        let found: Vec<_> = control_messages(control.as_bytes()).collect();
        assert_eq!(found, [(1, 2, &[3][..]), (4, 5, &6i32.to_ne_bytes()[..]), (7, 8, &[][..])]);
    }

    #[test]
    fn what_does_not_fit_is_left_out() {
        let mut control = Control::EMPTY;
        for _ in 0..100 {
            control.push(1, 2, &[0; 20]);
        }
        assert!(control_messages(control.as_bytes()).count() < 10);
    }

    #[test]
    fn hostile_control_messages_end_the_list() {
        for len in [0, 1, HEADER - 1, HEADER + 100, usize::MAX, usize::MAX - 6] {
            let mut bytes = [0xff; 64];
            bytes[..size_of::<usize>()].copy_from_slice(&len.to_ne_bytes());
            assert_eq!(control_messages(&bytes).count(), 0, "{len}");
        }
        for len in 0..HEADER {
            assert_eq!(control_messages(&[0; HEADER][..len]).count(), 0);
        }
    }
}
