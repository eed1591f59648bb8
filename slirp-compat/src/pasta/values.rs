//! Values of options, each read as the program that we stand in for reads it, or refused in its words.

use super::stop::Stop;
use slipway_netstack::addr::MacAddr;
use std::ffi::OsStr;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

/// The longest path of a Unix socket (sun_path of unix(7), less the NUL at the end).
const SOCKET_PATH_MAX: usize = 107;
/// The longest path of a file (PATH_MAX, less the NUL at the end).
const PATH_MAX: usize = 4095;
/// The longest name of an interface (IFNAMSIZ, less the NUL at the end).
const INTERFACE_MAX: usize = 15;
/// The longest name of a machine (RFC 1035 §2.3.4, as text).
const NAME_MAX: usize = 253;

pub(super) fn refuse<T>(diagnostic: String) -> Result<T, Stop> {
    Err(Stop::Value(diagnostic))
}

/// A number as `strtoul` reads it with base 0, to the last byte: white space in front, a sign (of which minus wraps
/// around), `0x` and `0`. Unlike there, an empty text is no number.
pub(super) fn number(value: &OsStr) -> Option<u64> {
    let text = value.to_str()?.trim_start_matches([' ', '\t', '\n', '\x0b', '\x0c', '\r']);
    let (negative, text) = match text.as_bytes() {
        [b'-', ..] => (true, text.get(1..)?),
        [b'+', ..] => (false, text.get(1..)?),
        _ => (false, text),
    };
    let (digits, radix) = match text.as_bytes() {
        [b'0', b'x' | b'X', ..] => (text.get(2..)?, 16),
        [b'0', _, ..] => (text.get(1..)?, 8),
        _ => (text, 10),
    };
    // A second sign would be accepted by the parser of the standard library.
    let digits = Some(digits).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
    let number = u64::from_str_radix(digits, radix).ok()?;
    Some(if negative { number.wrapping_neg() } else { number })
}

/// What an address may be, and how it is refused.
#[derive(Debug)]
pub(super) struct Kind {
    words: &'static str,
    /// Whether 127.0.0.0/8, and whether ::1.
    loopback: (bool, bool),
}

impl Kind {
    pub(super) const GUEST: Self = Self { words: "Invalid guest address: ", loopback: (false, false) };
    pub(super) const GATEWAY: Self = Self { words: "Invalid gateway address: ", loopback: (false, false) };
    pub(super) const OUTBOUND: Self =
        Self { words: "Invalid or redundant outbound address: ", loopback: (true, false) };
    pub(super) const FORWARDER: Self =
        Self { words: "Invalid DNS forwarding address: ", loopback: (false, false) };
    pub(super) const NAMESERVER: Self =
        Self { words: "Invalid host nameserver address: ", loopback: (true, true) };
    pub(super) const MAPPED: Self =
        Self { words: "Invalid address to remap to host: ", loopback: (false, false) };
    pub(super) const TOLD: Self = Self { words: "Cannot use DNS address ", loopback: (true, true) };

    fn permits(&self, address: IpAddr) -> bool {
        let somebody = !address.is_unspecified()
            && !address.is_multicast()
            && address != IpAddr::V4(Ipv4Addr::BROADCAST);
        let (v4, v6) = self.loopback;
        somebody && (!address.is_loopback() || if address.is_ipv4() { v4 } else { v6 })
    }

    /// The address that `value` is.
    pub(super) fn read(&self, value: &OsStr) -> Result<IpAddr, Stop> {
        let text = value.to_string_lossy();
        match self.parse(&text) {
            Some(address) => Ok(address),
            None => self.refuse(&text),
        }
    }

    fn parse(&self, text: &str) -> Option<IpAddr> {
        text.parse()
            .ok()
            .map(|address: IpAddr| address.to_canonical())
            .filter(|address| self.permits(*address))
    }

    fn refuse<T>(&self, text: &str) -> Result<T, Stop> {
        refuse(format!("{}{text}", self.words))
    }
}

/// The guest's address, and the length of its network if that was given: `192.0.2.1/24`. An address of IPv4 in the
/// disguise of IPv6 has its length in disguise, too.
pub(super) fn guest_address(value: &OsStr) -> Result<(IpAddr, Option<u8>), Stop> {
    let text = value.to_string_lossy();
    let (address, length) =
        text.split_once('/').map_or((&*text, None), |(address, rest)| (address, Some(rest)));
    let disguised = address.contains(':');
    let Some(address) = Kind::GUEST.parse(address) else { return Kind::GUEST.refuse(&text) };
    let Some(length) = length else { return Ok((address, None)) };
    let Some(bits) = number(OsStr::new(length)) else { return Kind::GUEST.refuse(&text) };
    let (hidden, most) = match address {
        IpAddr::V4(_) if disguised => (96, 128),
        IpAddr::V4(_) => (0, 32),
        IpAddr::V6(_) => (0, 128),
    };
    let bits = u8::try_from(bits).ok().filter(|bits| *bits <= most).and_then(|bits| bits.checked_sub(hidden));
    bits.map_or_else(|| refuse(format!("Invalid prefix length: {text}")), |bits| Ok((address, Some(bits))))
}

/// `255.255.255.0` or `24`.
pub(super) fn netmask(value: &OsStr) -> Result<u8, Stop> {
    let text = value.to_string_lossy();
    let dotted = text.parse::<Ipv4Addr>().ok().and_then(|mask| ipnet::ip_mask_to_prefix(mask.into()).ok());
    let bits = || number(value).and_then(|bits| u8::try_from(bits).ok()).filter(|bits| *bits <= 32);
    dotted.or_else(bits).map_or_else(|| refuse(format!("Invalid prefix length: {text}")), Ok)
}

pub(super) fn mac_address(value: &OsStr) -> Result<MacAddr, Stop> {
    let text = value.to_string_lossy();
    text.parse().or_else(|_| refuse(format!("Invalid MAC address: {text}")))
}

/// The name of an interface that need not exist.
pub(super) fn interface(value: &OsStr) -> Result<String, Stop> {
    let name = value.to_str().filter(|name| (1..=INTERFACE_MAX).contains(&name.len()));
    name.map_or_else(
        || refuse(format!("Invalid interface name: {}", value.to_string_lossy())),
        |name| Ok(name.to_owned()),
    )
}

/// A name of a machine or a search domain.
pub(super) fn name(value: &OsStr, least: usize, words: &str) -> Result<String, Stop> {
    let name = value.to_str().filter(|name| (least..=NAME_MAX).contains(&name.len()));
    name.map_or_else(|| refuse(format!("{words}{}", value.to_string_lossy())), |name| Ok(name.to_owned()))
}

/// The path of a file.
pub(super) fn file(value: &OsStr, words: &str) -> Result<PathBuf, Stop> {
    path(value, words, PATH_MAX)
}

/// The path of a Unix socket.
pub(super) fn socket(value: &OsStr, words: &str) -> Result<PathBuf, Stop> {
    path(value, words, SOCKET_PATH_MAX)
}

fn path(value: &OsStr, words: &str, most: usize) -> Result<PathBuf, Stop> {
    if (1..=most).contains(&value.as_bytes().len()) {
        return Ok(value.into());
    }
    refuse(format!("{words}{}", value.to_string_lossy()))
}
