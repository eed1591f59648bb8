//! Single values of the file: addresses, MAC addresses, durations, zones. What the original takes and never uses, or
//! fails over much later, is refused here, with the key that it stands behind.

use super::{Failure, fatal};
use crate::yaml::{Pairs, Zone};
use slipway_dns::config::gvproxy::{Record, Zone as DnsZone};
use slipway_dns::zone::suffix::{Manner, Zones};
use slipway_netstack::addr::MacAddr;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

fn wrong(why: impl std::fmt::Display) -> Failure {
    fatal(format!("failed to parse configuration: {why}"))
}

/// An IPv4 address.
pub(super) fn ip(key: &str, text: &str) -> Result<Ipv4Addr, Failure> {
    text.parse().map_err(|_| wrong(format!("{key}: invalid IP address: {text}")))
}

/// A MAC address, in letters of any case, with colons or dashes.
pub(super) fn mac(key: &str, text: &str) -> Result<MacAddr, Failure> {
    text.replace('-', ":").parse().map_err(|_| wrong(format!("{key}: address {text}: invalid MAC address")))
}

/// Any text.
#[expect(clippy::unnecessary_wraps, reason = "one of several parsers")]
pub(super) fn any(_key: &str, text: &str) -> Result<String, Failure> {
    Ok(text.to_owned())
}

/// A parser of a value behind a key.
type Parser<T> = fn(&str, &str) -> Result<T, Failure>;

pub(super) fn all<T>(key: &str, texts: &Option<Vec<String>>, one: Parser<T>) -> Result<Vec<T>, Failure> {
    texts.iter().flatten().map(|text| one(key, text)).collect()
}

pub(super) fn pairs<A, B>(
    key: &str,
    pairs: &Option<Pairs>,
    left: Parser<A>,
    right: Parser<B>,
) -> Result<Vec<(A, B)>, Failure> {
    let pairs = pairs.iter().flat_map(|pairs| &pairs.0);
    pairs.map(|(a, b)| Ok((left(key, a)?, right(key, b)?))).collect()
}

/// Zones whose expressions can be used.
pub(super) fn zones<'a>(zones: impl Iterator<Item = &'a Zone>) -> Result<Vec<DnsZone>, Failure> {
    let mut tried = Zones::new(Manner::Strict);
    let mut all = Vec::new();
    for zone in zones {
        let address = |text: &Option<String>| {
            let text = text.as_deref().filter(|text| !text.is_empty());
            let parsed = text.map(|text| {
                text.parse::<IpAddr>().map_err(|_| wrong(format!("dns: invalid IP address: {text}")))
            });
            parsed.transpose()
        };
        let records = zone.records.iter().flatten().map(|record| {
            Ok(Record {
                name: record.name.clone().unwrap_or_default(),
                ip: address(&record.ip)?,
                regexp: record.regexp.clone().filter(|text| !text.is_empty()),
            })
        });
        let zone = DnsZone {
            name: zone.name.clone().unwrap_or_default(),
            records: records.collect::<Result<_, Failure>>()?,
            default_ip: address(&zone.default_ip)?,
        };
        tried.add(zone.clone()).map_err(|error| wrong(format!("dns: {error}")))?;
        all.push(zone);
    }
    Ok(all)
}

/// A number of connections; 0 is as good as none.
pub(super) fn in_flight(number: Option<i64>) -> Result<Option<u32>, Failure> {
    let number = number.filter(|number| *number != 0);
    let number =
        number.map(|number| u32::try_from(number).map_err(|_| wrong(format!("tcpMaxInFlight: {number}"))));
    number.transpose()
}

/// A duration as Go writes it (`1m30s`, `2.5s`, `500ms`), or a number of nanoseconds; 0 is as good as none.
pub(super) fn timeout(text: Option<&str>) -> Result<Option<Duration>, Failure> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(None) };
    let parsed = match text.parse() {
        Ok(nanos) => Some(Duration::from_nanos(nanos)),
        Err(_) => duration(text),
    };
    let parsed = parsed.ok_or_else(|| {
        wrong(format!("tcpConnectTimeout: time: invalid duration {}", crate::flags::quote(text)))
    })?;
    Ok(Some(parsed).filter(|it| !it.is_zero()))
}

fn duration(text: &str) -> Option<Duration> {
    const UNITS: [(&str, f64); 8] = [
        ("ns", 1e-9),
        ("us", 1e-6),
        ("µs", 1e-6),
        ("μs", 1e-6),
        ("ms", 1e-3),
        ("s", 1.0),
        ("m", 60.0),
        ("h", 3600.0),
    ];
    let (mut rest, mut sum) = (text, Duration::ZERO);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at_checked(digits)?;
        let end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (name, next) = tail.split_at_checked(end)?;
        let (_, unit) = UNITS.iter().find(|(known, _)| *known == name)?;
        let part = Duration::try_from_secs_f64(number.parse::<f64>().ok()? * unit).ok()?;
        sum = sum.checked_add(part)?;
        rest = next;
    }
    Some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_those_of_go() {
        let ms = Duration::from_millis;
        for (text, value) in
            [("30s", ms(30_000)), ("1m30s", ms(90_000)), ("2.5s", ms(2500)), ("500ms", ms(500))]
        {
            assert_eq!(timeout(Some(text)), Ok(Some(value)), "{text}");
        }
        assert_eq!(timeout(Some("1000000")), Ok(Some(ms(1))), "a number counts nanoseconds");
        assert_eq!((timeout(Some("0s")), timeout(None)), (Ok(None), Ok(None)));
        for bad in ["s", "5", "-5s", "5 s", "1x", "1s2", ".s", "1e9h", "99999999999999999999h"] {
            let read = timeout(Some(bad));
            assert!(read.is_err() || bad == "5", "{bad}: {read:?}");
        }
    }

    #[test]
    fn mac_addresses_may_be_written_in_capitals() {
        let known = MacAddr([0x5a, 0x94, 0xef, 0xe4, 0x0c, 0xee]);
        for text in ["5a:94:ef:e4:0c:ee", "5A:94:EF:E4:0C:EE", "5A-94-EF-E4-0C-EE"] {
            assert_eq!(mac("k", text), Ok(known));
        }
        assert_eq!(mac("k", "5a"), Err(wrong("k: address 5a: invalid MAC address")));
    }
}
