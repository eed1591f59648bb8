//! What fits behind the guest: sizes that its side of the link complains of.
//!
//! The guest may itself be a router, in front of containers, with narrower links behind it than ours. Who sends packets
//! that must not be fragmented has to act on "fragmentation needed" and "packet too big" (RFC 1191 §3, RFC 8201 §4), so
//! those that come from the guest are heard:
//!
//! * TCP repeats what was lost in smaller segments, and later connections to the same address begin with them;
//! * UDP and echo over IPv6 are fragmented here, as only their source may;
//! * UDP and echo over IPv4 above [`ATOMIC`] are left for the router to fragment, as they are by the kernels of other
//!   hosts, and nothing gets lost meanwhile; a smaller complaint lowers that bound.
//!
//! A complaint counts only if it quotes something that we may have sent: a packet of a flow that exists, for TCP one
//! whose bytes are in flight (RFC 5927 §7, RFC 8201 §6); so whoever makes one up must be able to see the flow. The
//! table is small, forgets after ten minutes (RFC 1191 §6.3, RFC 8201 §5.4), and its worst effect is smaller packets.

use crate::bytes;
use crate::clock::Instant;
use crate::ip::extension;
use core::net::IpAddr;
use core::time::Duration;

/// IPv4 datagrams up to this many bytes are sent as atomic ones (RFC 6864 §4.1): "don't fragment" and no
/// identification, of which 16 bits would not last long at the rate of small datagrams. Every link that also carries
/// IPv6 takes them whole (RFC 8200 §5), and one that does not can say so.
pub(crate) const ATOMIC: u16 = 1280;
/// The least that an IPv4 path is believed to be (Linux's `net.ipv4.route.min_pmtu`): the worst that a lie can do.
const LEAST_V4: u16 = 552;
/// RFC 8201 §4: a smaller one is ignored.
const LEAST_V6: u16 = 1280;
/// Guest addresses that are remembered; beyond, the one heard of longest ago goes.
const ADDRESSES: usize = 64;
const LIFETIME: Duration = Duration::from_secs(600);

/// Sizes of packets to one guest address, in bytes from the IP header on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Larger ones are fragmented here.
    pub(crate) whole: usize,
    /// Larger ones may be fragmented on their way.
    pub(crate) atomic: usize,
}

/// The narrowest link on the way to each guest address, where it is narrower than ours.
#[derive(Debug, Default)]
pub(crate) struct PathMtus {
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    guest: IpAddr,
    mtu: u16,
    until: Instant,
}

impl PathMtus {
    /// The path MTU toward a guest address, `link` being that of our own link.
    pub(crate) fn toward(&self, guest: IpAddr, link: u16) -> u16 {
        let known = self.entries.iter().find(|entry| entry.guest == guest);
        known.map_or(link, |entry| entry.mtu.min(link))
    }

    /// What packets to a guest address may measure.
    pub(crate) fn limits(&self, guest: IpAddr, link: u16) -> Limits {
        let path = self.toward(guest, link);
        match guest {
            IpAddr::V4(_) => Limits { whole: link.into(), atomic: path.min(ATOMIC).into() },
            IpAddr::V6(_) => Limits { whole: path.into(), atomic: usize::MAX },
        }
    }

    pub(super) fn learn(&mut self, now: Instant, guest: IpAddr, mtu: u16) {
        let until = now + LIFETIME;
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.guest == guest) {
            entry.mtu = entry.mtu.min(mtu);
            entry.until = until;
            return;
        }
        if self.entries.len() >= ADDRESSES
            && let Some(oldest) =
                (0..self.entries.len()).min_by_key(|&n| self.entries.get(n).map(|e| e.until))
        {
            self.entries.swap_remove(oldest);
        }
        self.entries.push(Entry { guest, mtu, until });
    }

    /// Forgets what was heard too long ago: the path may have widened.
    pub(crate) fn on_timeout(&mut self, now: Instant) {
        self.entries.retain(|entry| now < entry.until);
    }

    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.entries.iter().map(|entry| entry.until).min()
    }
}

/// "Fragmentation needed" or "packet too big", and the packet that it is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooBig<'a> {
    mtu: u16,
    pub(super) src: IpAddr,
    pub(super) dst: IpAddr,
    pub(super) protocol: u8,
    /// The beginning of what followed its IP headers.
    pub(super) rest: &'a [u8],
}

impl<'a> TooBig<'a> {
    /// Whether an ICMP message says so.
    pub(super) fn is_one(message: &[u8], ipv6: bool) -> bool {
        match message {
            [2, ..] => ipv6,
            [3, 4, ..] => !ipv6,
            _ => false,
        }
    }

    pub(super) fn parse(message: &'a [u8], ipv6: bool) -> Option<Self> {
        let quoted = message.get(8..)?;
        if quoted.first()? >> 4 != if ipv6 { 6 } else { 4 } {
            return None;
        }
        if ipv6 {
            let mtu = u32::from_be_bytes(bytes::array(message, 4)?);
            let upper = extension::upper(quoted)?;
            // Of later fragments nobody can tell whose they are.
            if upper.fragment.is_some_and(|fragment| fragment.offset != 0) {
                return None;
            }
            return Some(Self {
                mtu: u16::try_from(mtu).unwrap_or(u16::MAX),
                src: bytes::ipv6(quoted, 8)?.into(),
                dst: bytes::ipv6(quoted, 24)?.into(),
                protocol: upper.protocol,
                rest: quoted.get(upper.offset..)?,
            });
        }
        let header_len = usize::from(quoted.first()? & 15) * 4;
        if header_len < 20 || bytes::be16(quoted, 6)? & 0x1fff != 0 {
            return None;
        }
        let mtu = match bytes::be16(message, 6)? {
            0 => plateau(bytes::be16(quoted, 2)?),
            mtu => mtu,
        };
        Some(Self {
            mtu,
            src: bytes::ipv4(quoted, 12)?.into(),
            dst: bytes::ipv4(quoted, 16)?.into(),
            protocol: bytes::byte(quoted, 9)?,
            rest: quoted.get(header_len..)?,
        })
    }

    /// The MTU as it is believed; `None` when there is nothing to learn from it.
    pub(super) fn believed(self, link: u16) -> Option<u16> {
        let mtu = match self.dst {
            IpAddr::V4(_) => self.mtu.max(LEAST_V4),
            IpAddr::V6(_) => Some(self.mtu).filter(|mtu| *mtu >= LEAST_V6)?,
        };
        (mtu < link).then_some(mtu)
    }
}

/// RFC 1191 §5, §7.1: the router does not say, so the next smaller of the sizes that links usually have.
fn plateau(len: u16) -> u16 {
    const PLATEAUS: [u16; 7] = [32_000, 17_914, 8166, 4352, 2002, 1492, 1006];
    PLATEAUS.into_iter().find(|plateau| *plateau < len).unwrap_or(LEAST_V4)
}

#[cfg(test)]
mod tests;
