//! The text of `/etc/resolv.conf` (resolv.conf(5)), read as the C library reads it, within bounds.
//!
//! * A keyword starts in the first column and is followed by a space or a tab; `#` and `;` start a comment line.
//! * `nameserver`: one address; what follows it is ignored. The C library stops at three, we keep up to
//!   [`MAX_NAMESERVERS`], because failing over costs us nothing. Duplicates are dropped.
//! * `search` and `domain`: the last line wins.
//! * Everything else, `options` and `sortlist` included, is about how a *stub resolver* asks; the guest has its own.
//!
//! Addresses are brought into the form a socket can use: `0.0.0.0` and `::` mean this host to the C library, so they
//! become the loopback address; `::ffff:a.b.c.d` becomes `a.b.c.d`. A link-local address keeps its interface,
//! `fe80::1%eth0`, as home routers announce themselves; one without cannot be reached, and is left out and reported in
//! [`ResolvConf::skipped`] like everything else that makes no sense. Behind other addresses an interface is ignored.

use crate::scope::{ParseError, ZonedAddr};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What is read of the file; a line that is cut off there is ignored.
pub const MAX_BYTES: u64 = 64 << 10;
/// Nameservers kept.
pub const MAX_NAMESERVERS: usize = 16;
/// Search domains kept. DHCP and router advertisements carry them, in little room.
pub const MAX_SEARCH: usize = 32;
/// Reports kept in [`ResolvConf::skipped`].
const MAX_SKIPPED: usize = 16;
/// RFC 1035 §2.3.4: a name in text form, without the final dot.
const MAX_NAME: usize = 253;
/// RFC 1035 §2.3.4: a label.
const MAX_LABEL: usize = 63;

/// What the file says that matters to us.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResolvConf {
    /// The nameservers, most preferred first, without duplicates.
    pub nameservers: Vec<ZonedAddr>,
    /// The search list, without final dots.
    pub search: Vec<String>,
    /// Nameservers and search domains that cannot be used.
    pub skipped: Vec<Skipped>,
}

/// A value that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// The value, shortened and free of control characters.
    pub value: String,
    /// Why.
    pub reason: SkipReason,
}

/// Why a value cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SkipReason {
    /// Neither an IPv4 nor an IPv6 address in their usual forms.
    #[error("not an IP address")]
    NotAnAddress,
    /// An address that means nothing without an interface.
    #[error("{}", ParseError::ZoneMissing)]
    ZoneMissing,
    /// `fe80::1%` and what could never be one.
    #[error("{}", ParseError::Zone)]
    Zone,
    /// Multicast or broadcast.
    #[error("not the address of one host")]
    NotUnicast,
    /// Not a host name.
    #[error("not a domain name")]
    NotAName,
    /// Beyond [`MAX_NAMESERVERS`] or [`MAX_SEARCH`].
    #[error("too many")]
    TooMany,
}

impl ResolvConf {
    /// Reads `text`. Never fails: what cannot be understood is skipped.
    #[must_use]
    pub fn parse(text: &[u8]) -> Self {
        let mut conf = Self::default();
        for line in whole_lines(text) {
            let Some((keyword, rest)) = keyword(line) else { continue };
            match keyword {
                b"nameserver" => conf.add_nameserver(rest),
                b"search" => conf.set_search(words(rest)),
                b"domain" => conf.set_search(words(rest).take(1)),
                _ => {}
            }
        }
        conf
    }

    fn add_nameserver(&mut self, rest: &[u8]) {
        let Some(word) = words(rest).next() else { return };
        match address(word) {
            Ok(address) if self.nameservers.contains(&address) => {}
            Ok(_) if self.nameservers.len() >= MAX_NAMESERVERS => self.skip(word, SkipReason::TooMany),
            Ok(address) => self.nameservers.push(address),
            Err(reason) => self.skip(word, reason),
        }
    }

    fn set_search<'a>(&mut self, names: impl Iterator<Item = &'a [u8]>) {
        self.search.clear();
        for word in names {
            match domain(word) {
                Some(name) if self.search.contains(&name) => {}
                Some(_) if self.search.len() >= MAX_SEARCH => self.skip(word, SkipReason::TooMany),
                Some(name) => self.search.push(name),
                // The root, which asks for no suffix at all.
                None if word == b"." => {}
                None => self.skip(word, SkipReason::NotAName),
            }
        }
    }

    fn skip(&mut self, word: &[u8], reason: SkipReason) {
        if self.skipped.len() < MAX_SKIPPED {
            let value: String =
                String::from_utf8_lossy(word).chars().take(64).flat_map(char::escape_debug).collect();
            self.skipped.push(Skipped { value, reason });
        }
    }
}

/// The lines of `text`. If it fills the bound, its last line may be cut off and is left out.
fn whole_lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let bound = usize::try_from(MAX_BYTES).unwrap_or(usize::MAX);
    let whole = if text.len() < bound {
        text
    } else {
        let cut = text.iter().take(bound).rposition(|&byte| byte == b'\n').unwrap_or(0);
        text.get(..cut).unwrap_or_default()
    };
    whole.split(|&byte| byte == b'\n')
}

/// Splits a line after its keyword. `None` for comments and lines with no value.
fn keyword(line: &[u8]) -> Option<(&[u8], &[u8])> {
    if matches!(line.first(), None | Some(b'#' | b';')) {
        return None;
    }
    let end = line.iter().position(|&byte| matches!(byte, b' ' | b'\t'))?;
    line.split_at_checked(end)
}

fn words(rest: &[u8]) -> impl Iterator<Item = &[u8]> {
    rest.split(|&byte| matches!(byte, b' ' | b'\t' | b'\r')).filter(|word| !word.is_empty())
}

fn address(word: &[u8]) -> Result<ZonedAddr, SkipReason> {
    let text = str::from_utf8(word).map_err(|_| SkipReason::NotAnAddress)?;
    let zoned: ZonedAddr = match text.parse() {
        // The C library looks at the interface only where it means something.
        Err(ParseError::NoZones) => text.split('%').next().unwrap_or_default().parse(),
        other => other,
    }
    .map_err(|error| match error {
        ParseError::Address | ParseError::NoZones => SkipReason::NotAnAddress,
        ParseError::ZoneMissing => SkipReason::ZoneMissing,
        ParseError::Zone => SkipReason::Zone,
    })?;
    match zoned.ip() {
        IpAddr::V4(_) if text.contains('%') => Err(SkipReason::NotAnAddress),
        address if address.is_multicast() || address == IpAddr::V4(Ipv4Addr::BROADCAST) => {
            Err(SkipReason::NotUnicast)
        }
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ok(IpAddr::V4(Ipv4Addr::LOCALHOST).into()),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ok(IpAddr::V6(Ipv6Addr::LOCALHOST).into()),
        _ => Ok(zoned),
    }
}

/// `word` as a domain name without the final dot, if it can be put into DNS messages and shown to anybody.
fn domain(word: &[u8]) -> Option<String> {
    let text = str::from_utf8(word).ok()?;
    let name = text.strip_suffix('.').unwrap_or(text);
    let label_is_fine = |label: &str| {
        (1..=MAX_LABEL).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    (name.len() <= MAX_NAME && name.split('.').all(label_is_fine)).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> ResolvConf {
        ResolvConf::parse(text.as_bytes())
    }

    fn servers(text: &str) -> Vec<String> {
        parse(text).nameservers.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn an_ordinary_file() {
        let conf = parse(
            "# made by a tool\n; so is this\nnameserver 192.0.2.1\nnameserver\t2001:db8::53   # trailing\r\n\
             search example.org. sub.example.net\noptions edns0 trust-ad\nsortlist 192.0.2.0\n",
        );
        assert_eq!(
            conf.nameservers,
            ["192.0.2.1".parse::<ZonedAddr>().unwrap(), "2001:db8::53".parse().unwrap()]
        );
        assert_eq!(conf.search, ["example.org", "sub.example.net"]);
        assert_eq!(conf.skipped, []);
    }

    #[test]
    fn keywords_stand_in_the_first_column_and_are_whole() {
        assert!(
            servers(" nameserver 192.0.2.1\nnameservers 192.0.2.2\nnameserver192.0.2.3\nnameserver\n")
                .is_empty()
        );
        assert_eq!(servers("nameserver 192.0.2.1"), ["192.0.2.1"], "without a final newline");
    }

    #[test]
    fn addresses_are_brought_into_usable_form() {
        assert_eq!(
            servers("nameserver 0.0.0.0\nnameserver ::\nnameserver ::ffff:192.0.2.9\nnameserver 192.0.2.9\n"),
            ["127.0.0.1", "::1", "192.0.2.9"]
        );
    }

    #[test]
    fn link_local_addresses_keep_their_interface() {
        assert_eq!(
            servers(
                "nameserver fe80::1%eth0\nnameserver fe80::1%wlan0\nnameserver fe80::1%eth0 # again\n\
                 nameserver 2001:db8::1%eth0\nnameserver fe80::1%3\n"
            ),
            ["fe80::1%eth0", "fe80::1%wlan0", "2001:db8::1", "fe80::1%3"]
        );
    }

    #[test]
    fn unusable_values_are_reported() {
        let conf = parse(
            "nameserver fe80::1%eth/0\nnameserver fe80::2\nnameserver 127.1\nnameserver 1.2.3.4%5\nnameserver ff02::fb\n\
             nameserver 255.255.255.255\nsearch a..b x\u{1b}[2J . ok\n",
        );
        let reasons: Vec<SkipReason> = conf.skipped.iter().map(|skipped| skipped.reason).collect();
        use SkipReason::{NotAName, NotAnAddress, NotUnicast, Zone, ZoneMissing};
        assert_eq!(
            reasons,
            [Zone, ZoneMissing, NotAnAddress, NotAnAddress, NotUnicast, NotUnicast, NotAName, NotAName]
        );
        assert!(conf.nameservers.is_empty());
        assert_eq!(conf.search, ["ok"]);
        assert!(conf.skipped.iter().all(|skipped| !skipped.value.contains('\u{1b}')));
    }

    #[test]
    fn the_last_search_or_domain_line_wins() {
        assert_eq!(parse("search a b\ndomain c d\n").search, ["c"]);
        assert_eq!(parse("domain c\nsearch a b a\n").search, ["a", "b"]);
        assert_eq!(parse("search a b\nsearch \n").search, Vec::<String>::new());
    }

    #[test]
    fn counts_are_bounded() {
        let text: String = (0..200).map(|i| format!("nameserver 192.0.2.{i}\n")).collect();
        let conf = parse(&text);
        assert_eq!(conf.nameservers.len(), MAX_NAMESERVERS);
        assert_eq!(conf.skipped.len(), MAX_SKIPPED);
        let many: Vec<String> = (0..100).map(|i| format!("d{i}")).collect();
        assert_eq!(parse(&format!("search {}\n", many.join(" "))).search.len(), MAX_SEARCH);
    }

    #[test]
    fn a_line_cut_off_by_the_bound_is_ignored() {
        let mut text = b"nameserver 192.0.2.1\n".to_vec();
        text.resize(usize::try_from(MAX_BYTES).unwrap() - 20, b'\n');
        text.extend_from_slice(b"nameserver 192.0.2.22");
        text.truncate(usize::try_from(MAX_BYTES).unwrap());
        assert_eq!(ResolvConf::parse(&text).nameservers, ["192.0.2.1".parse::<ZonedAddr>().unwrap()]);
        assert_eq!(ResolvConf::parse(&vec![b'x'; 1 << 17]), ResolvConf::default());
    }

    #[test]
    fn garbage_never_fails() {
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let pieces: [&[u8]; 10] =
            [b"nameserver", b" ", b"\t", b"\n", b"search", b"fe80::%", b"\xff\xfe", b"\0", b"1.2.3.4", b"."];
        for _ in 0..2000 {
            let mut text = Vec::new();
            for _ in 0..40 {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                let pick = usize::try_from(state % 10).unwrap();
                text.extend_from_slice(pieces[pick]);
            }
            let conf = ResolvConf::parse(&text);
            assert!(conf.nameservers.len() <= MAX_NAMESERVERS);
            assert!(conf.search.iter().all(|name| name.len() <= MAX_NAME));
        }
    }
}
