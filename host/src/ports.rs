//! The host's ephemeral ports: how many there are for those who ask for none in particular.
//!
//! From `ip_local_port_range` and `ip_local_reserved_ports` of /proc/sys/net/ipv4, which count for IPv6 as well, of the
//! network namespace that we are in. What cannot be read is taken to be the kernel's default. Read once, at the start:
//! the sandbox hides /proc.

use slipway_netstack::config::PortConfig;
use std::fs::read_to_string;

/// The ephemeral ports of this network namespace.
#[must_use]
pub fn ephemeral() -> PortConfig {
    let read = |name: &str| read_to_string(format!("/proc/sys/net/ipv4/{name}")).unwrap_or_default();
    parse(&read("ip_local_port_range"), &read("ip_local_reserved_ports")).unwrap_or_default()
}

/// The first and the last ephemeral port of this network namespace, reserved ones among them; those of IANA
/// (RFC 6335 §6) if /proc does not tell.
#[must_use]
pub fn ephemeral_range() -> (u16, u16) {
    let range = read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    bounds(&range).filter(|(first, last)| first <= last).unwrap_or((49_152, u16::MAX))
}

fn bounds(range: &str) -> Option<(u16, u16)> {
    let mut words = range.split_whitespace().map(|word| word.parse::<u16>().ok());
    Some((words.next()??, words.next()??))
}

/// What both files say; `None` if the first says nothing.
fn parse(range: &str, reserved: &str) -> Option<PortConfig> {
    let (first, last) = bounds(range)?;
    // The list may have a thousand entries, in any order, one upon the other: each is looked at once.
    let mut taken: Vec<_> = reserved.split(',').filter_map(run).collect();
    taken.sort_unstable();
    let (mut next, last) = (u32::from(first), u32::from(last));
    let mut count = (last + 1).checked_sub(next).filter(|count| *count > 0)?;
    for (begin, end) in taken {
        let (begin, end) = (u32::from(begin).max(next), u32::from(end).min(last));
        if let Some(more) = (end + 1).checked_sub(begin) {
            count -= more;
            next = end + 1;
        }
    }
    u16::try_from(count).ok().map(|ephemeral| PortConfig { ephemeral, ..PortConfig::default() })
}

/// One entry of a list of ports, first and last: `80`, or `8000-8010`.
fn run(entry: &str) -> Option<(u16, u16)> {
    let entry = entry.trim();
    let (first, last) = entry.split_once('-').unwrap_or((entry, entry));
    Some((first.parse().ok()?, last.parse().ok()?))
}

/// Reads any texts as the two files: there are never more ports than the range has.
pub(crate) fn fuzz(range: &str, reserved: &str) {
    if let (Some(left), Some(all)) = (parse(range, reserved), parse(range, "")) {
        assert!(left.ephemeral <= all.ephemeral, "{range:?} {reserved:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(range: &str, reserved: &str) -> Option<u16> {
        parse(range, reserved).map(|ports| ports.ephemeral)
    }

    #[test]
    fn reserved_ports_do_not_count() {
        assert_eq!(count("32768\t60999\n", "\n"), Some(28_232));
        assert_eq!(count("40000\t40009\n", "80,40001,40003-40005,50000-60000\n"), Some(6));
        assert_eq!(count("40000 40009", "40004-50000,1-40001,40004,40003-40005,40009-40002"), Some(1));
        assert_eq!(count("40000 40009", "0-65535"), Some(0));
        assert_eq!(count("1 65535", ""), Some(65_535));
        assert_eq!(count("40000 40009", "nonsense,,7-"), Some(10));
        for odd in ["", "1", "9 x", "60999 32768", "0 70000"] {
            assert_eq!(count(odd, ""), None, "{odd}");
        }
    }

    #[test]
    fn this_namespace_has_some() {
        assert!(ephemeral().ephemeral > 0);
        let (first, last) = ephemeral_range();
        assert!(usize::from(ephemeral().ephemeral) <= usize::from(last - first) + 1);
    }
}
