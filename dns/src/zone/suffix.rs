//! Zones by suffix: gvproxy's names, which grow at run time.
//!
//! A zone covers what ends in `.` and its name, not the name itself; one without a name covers everything. The first
//! zone of the list that covers a name decides, so a wide zone hides a narrow one behind it. Of the rest of the name
//! the first record that is equal to it or whose regular expression finds something in it gives the address, else the
//! zone's default, else there is no such name.
//!
//! Two manners. [`Manner::Contract`] is what gvproxy does, and what its callers may have built on: only A is
//! answered, other types of our names go upstream, letters count with their case, no EDNS in answers.
//! [`Manner::Strict`] keeps our names at home: other types have no data (a missing AAAA must not be NXDOMAIN, or musl
//! gives up on the name), AAAA is answered where a record has an IPv6 address, case does not matter, of the record, of
//! its expression and of the question, EDNS is answered with EDNS.
//!
//! Regular expressions are Go's, which are nearly those of the `regex` crate: both run in linear time, without back
//! references. Classes are ASCII, as in Go; Go's `\p{..}` is refused as an error, as is what compiles to more than
//! 256 KiB.

use crate::config::gvproxy::{Record, Zone};
use crate::message::{
    self, AnswerBuilder, CLASS_ANY, CLASS_IN, MAX_NAME, Query, Rcode, RecordType, Transport,
};
use core::net::IpAddr;
use regex::bytes::{Regex, RegexBuilder};

/// Memory that one expression may take once compiled.
const MAX_REGEX: usize = 256 << 10;
/// Records of all zones together. The interface that adds them has no way to take them away.
const MAX_RECORDS: usize = 65_536;
/// RFC 1035 §4.1.1.
const QUERY: u8 = 0;
/// RFC 1996 §3.3.
const NOTIFY: u8 = 4;

/// How questions about our names are treated that have no answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Manner {
    /// As gvproxy does.
    #[default]
    Contract,
    /// As it should be.
    Strict,
}

/// What becomes of a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The answer is in the buffer.
    Answered(Rcode),
    /// The name is not ours: ask upstream.
    NotOurs,
}

/// Why a zone was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not a regular expression that we can use.
    #[error("zone {zone:?}, record {record:?}: {reason}")]
    Regexp {
        /// Which zone.
        zone: String,
        /// Which record: its expression.
        record: String,
        /// In one line.
        reason: String,
    },
    /// There are too many.
    #[error("more than {MAX_RECORDS} DNS records")]
    TooMany,
}

/// Zones, in order.
#[derive(Clone, Debug, Default)]
pub struct Zones {
    manner: Manner,
    zones: Vec<Compiled>,
    records: usize,
}

/// A zone, with its expressions compiled: one for each record, in the same order.
#[derive(Clone, Debug)]
struct Compiled {
    zone: Zone,
    expressions: Vec<Option<Regex>>,
}

impl Zones {
    /// No zones.
    #[must_use]
    pub fn new(manner: Manner) -> Self {
        Self { manner, ..Self::default() }
    }

    /// Adds a zone. One that is there already gets the new records in front of its old ones, and the new default, even
    /// if that is none.
    ///
    /// # Errors
    /// Nothing was added.
    pub fn add(&mut self, zone: Zone) -> Result<(), Error> {
        let count = self.records + zone.records.len();
        if count > MAX_RECORDS || self.zones.len() >= MAX_RECORDS {
            return Err(Error::TooMany);
        }
        let mut expressions =
            zone.records.iter().map(|r| compile(&zone, r, self.manner)).collect::<Result<Vec<_>, _>>()?;
        self.records = count;
        match self.zones.iter_mut().find(|known| known.zone.name == zone.name) {
            Some(known) => {
                expressions.append(&mut known.expressions);
                let mut records = zone.records;
                records.append(&mut known.zone.records);
                known.zone = Zone { name: zone.name, records, default_ip: zone.default_ip };
                known.expressions = expressions;
            }
            None => self.zones.push(Compiled { zone, expressions }),
        }
        Ok(())
    }

    /// The zones as they were given, in order.
    pub fn list(&self) -> impl Iterator<Item = &Zone> {
        self.zones.iter().map(|compiled| &compiled.zone)
    }

    /// Answers a query about a name of ours. The answer, if there is one, is all that is in `out` afterwards.
    pub fn answer(&self, query: &Query<'_>, transport: Transport, out: &mut Vec<u8>) -> Outcome {
        let mut buffer = [0; MAX_NAME];
        let name = match self.manner {
            Manner::Contract => query.name_as_asked(&mut buffer),
            Manner::Strict => query.name().text(),
        };
        let limit = match transport {
            Transport::Tcp => message::MAX_MESSAGE,
            Transport::Udp => usize::from(query.udp_size()),
        };
        let rcode = |rcode, out: &mut Vec<u8>| {
            self.builder(query, rcode, limit, out).finish();
            Outcome::Answered(rcode)
        };
        if !matches!(query.opcode(), QUERY | NOTIFY) {
            return rcode(Rcode::NOTIMP, out);
        }
        if query.questions() != 1 {
            return rcode(Rcode::FORMERR, out);
        }
        let found = matches!(query.class(), CLASS_IN | CLASS_ANY) && query.name().plain().is_some();
        let Some((zone, rest)) = found.then(|| self.find(name)).flatten() else { return Outcome::NotOurs };
        let strict = self.manner == Manner::Strict;
        let wanted = query.record_type();
        if wanted != RecordType::A && !strict {
            return Outcome::NotOurs;
        }
        let Some(address) = zone.lookup(rest, wanted, self.manner) else {
            return rcode(Rcode::NXDOMAIN, out);
        };
        let mut answer = self.builder(query, Rcode::NOERROR, limit, out);
        match (wanted, address) {
            (RecordType::A, IpAddr::V4(address)) => answer.record(wanted, 0, &address.octets()),
            (RecordType::AAAA, IpAddr::V6(address)) => answer.record(wanted, 0, &address.octets()),
            _ => {} // the name is there, this is not
        }
        answer.finish();
        Outcome::Answered(Rcode::NOERROR)
    }

    fn builder<'q, 'o>(
        &self,
        query: &'o Query<'q>,
        rcode: Rcode,
        limit: usize,
        out: &'o mut Vec<u8>,
    ) -> AnswerBuilder<'q, 'o> {
        let builder = AnswerBuilder::new(query, rcode, limit, out);
        if self.manner == Manner::Strict { builder } else { builder.without_edns().recursion_available() }
    }

    /// The zone that covers a name, and the name without its domain.
    fn find<'n>(&self, name: &'n [u8]) -> Option<(&Compiled, &'n [u8])> {
        self.zones.iter().find_map(|compiled| Some((compiled, compiled.covers(name, self.manner)?)))
    }
}

impl Compiled {
    fn covers<'n>(&self, name: &'n [u8], manner: Manner) -> Option<&'n [u8]> {
        let domain = self.zone.name.as_bytes();
        let (before, end) = name.split_at_checked(name.len().checked_sub(domain.len())?)?;
        let same = match manner {
            Manner::Contract => end == domain,
            Manner::Strict => end.eq_ignore_ascii_case(domain),
        };
        before.strip_suffix(b".").filter(|_| same)
    }

    /// The address of a name. Where records of both families fit, it is the first of the `wanted` type's.
    fn lookup(&self, rest: &[u8], wanted: RecordType, manner: Manner) -> Option<IpAddr> {
        let is_called = |record: &Record| match manner {
            Manner::Contract => record.name.as_bytes() == rest,
            Manner::Strict => record.name.as_bytes().eq_ignore_ascii_case(rest),
        };
        let records = self.zone.records.iter().zip(&self.expressions);
        let mut found = records.filter(|(record, expression)| {
            expression.as_ref().is_some_and(|expression| expression.is_match(rest)) || is_called(record)
        });
        let first = found.next().map_or(self.zone.default_ip, |(record, _)| record.ip)?.to_canonical();
        let suits = |address: &IpAddr| address.is_ipv6() == (wanted == RecordType::AAAA);
        if manner == Manner::Contract || suits(&first) {
            return Some(first);
        }
        let other = found.filter_map(|(record, _)| Some(record.ip?.to_canonical())).find(suits);
        other.or(Some(first))
    }
}

fn compile(zone: &Zone, record: &Record, manner: Manner) -> Result<Option<Regex>, Error> {
    let Some(pattern) = record.regexp.as_ref().filter(|pattern| !pattern.is_empty()) else { return Ok(None) };
    let compiled = RegexBuilder::new(pattern)
        .unicode(false)
        .case_insensitive(manner == Manner::Strict)
        .size_limit(MAX_REGEX)
        .build();
    compiled.map(Some).map_err(|error| Error::Regexp {
        zone: zone.name.clone(),
        record: pattern.clone(),
        // The last line says what is wrong, those before it draw where.
        reason: error.to_string().lines().last().unwrap_or("not a regular expression").to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::gvproxy::default_zones;

    fn query(name: &str, record_type: RecordType) -> Vec<u8> {
        let mut bytes = vec![0x12, 0x34, 0x01, 0x00, 0, 1, 0, 0, 0, 0, 0, 0];
        bytes.extend_from_slice(&crate::zone::wire_name(name).unwrap());
        bytes.extend_from_slice(&record_type.0.to_be_bytes());
        bytes.extend_from_slice(&[0, 1]);
        bytes
    }

    /// The outcome, and the one address if there is one.
    fn ask(zones: &Zones, name: &str, record_type: RecordType) -> (Outcome, Option<[u8; 4]>) {
        let (message, mut out) = (query(name, record_type), Vec::new());
        let outcome = zones.answer(&Query::parse(&message).unwrap(), Transport::Udp, &mut out);
        let one = out.get(7) == Some(&1);
        (outcome, one.then(|| *out.last_chunk().unwrap()))
    }

    fn zone(name: &str, records: &[(&str, &str, &str)], default_ip: &str) -> Zone {
        let records = records.iter().map(|(name, regexp, ip)| Record {
            name: (*name).into(),
            ip: ip.parse().ok(),
            regexp: (!regexp.is_empty()).then(|| (*regexp).into()),
        });
        Zone { name: name.into(), records: records.collect(), default_ip: default_ip.parse().ok() }
    }

    const FOUND: Outcome = Outcome::Answered(Rcode::NOERROR);
    const NONE: (Outcome, Option<[u8; 4]>) = (Outcome::Answered(Rcode::NXDOMAIN), None);
    const ELSEWHERE: (Outcome, Option<[u8; 4]>) = (Outcome::NotOurs, None);

    #[test]
    fn the_default_zones() {
        let mut zones = Zones::new(Manner::Contract);
        let [gateway, host] = ["192.168.127.1", "192.168.127.254"].map(|text| text.parse().unwrap());
        default_zones(gateway, host).into_iter().for_each(|zone| zones.add(zone).unwrap());
        for domain in ["containers.internal", "docker.internal"] {
            let name = |host| format!("{host}.{domain}");
            assert_eq!(ask(&zones, &name("gateway"), RecordType::A), (FOUND, Some([192, 168, 127, 1])));
            assert_eq!(ask(&zones, &name("host"), RecordType::A), (FOUND, Some([192, 168, 127, 254])));
            assert_eq!(ask(&zones, &name("nobody"), RecordType::A), NONE);
            assert_eq!(ask(&zones, &name("a.host"), RecordType::A), NONE);
            // The contract's leak, its case, and the apex.
            assert_eq!(ask(&zones, &name("host"), RecordType::AAAA), ELSEWHERE);
            assert_eq!(ask(&zones, &name("HOST"), RecordType::A), NONE);
            assert_eq!(ask(&zones, &name("host").to_uppercase(), RecordType::A), ELSEWHERE);
            assert_eq!(ask(&zones, domain, RecordType::A), ELSEWHERE);
            assert_eq!(ask(&zones, &format!("x{domain}"), RecordType::A), ELSEWHERE);
        }
    }

    #[test]
    fn strict_zones_keep_their_names() {
        let mut zones = Zones::new(Manner::Strict);
        zones.add(zone("example.", &[("six", "", "2001:db8::6"), ("a", "", "192.0.2.1")], "")).unwrap();
        assert_eq!(ask(&zones, "A.Example", RecordType::A), (FOUND, Some([192, 0, 2, 1])));
        assert_eq!(ask(&zones, "a.example", RecordType::AAAA), (FOUND, None));
        assert_eq!(ask(&zones, "a.example", RecordType(65)), (FOUND, None));
        assert_eq!(ask(&zones, "six.example", RecordType::A), (FOUND, None));
        assert_eq!(ask(&zones, "six.example", RecordType::AAAA), (FOUND, Some([0, 0, 0, 6])));
        assert_eq!(ask(&zones, "b.example", RecordType(16)), NONE);
        assert_eq!(ask(&zones, "example", RecordType::A), ELSEWHERE);
    }

    #[test]
    fn strict_zones_know_both_addresses_of_a_name() {
        let mut zones = Zones::new(Manner::Strict);
        let records = [
            ("a", "", "192.0.2.1"),
            ("a", "", "192.0.2.2"),
            ("a", "", "2001:db8::6"),
            ("b", "", "192.0.2.3"),
        ];
        zones.add(zone("z.", &records, "")).unwrap();
        assert_eq!(ask(&zones, "a.z", RecordType::A), (FOUND, Some([192, 0, 2, 1])));
        assert_eq!(ask(&zones, "a.z", RecordType::AAAA), (FOUND, Some([0, 0, 0, 6])));
        assert_eq!(ask(&zones, "b.z", RecordType::AAAA), (FOUND, None));
        assert_eq!(ask(&zones, "a.z", RecordType(16)), (FOUND, None));
    }

    #[test]
    fn strict_zones_know_names_in_any_case() {
        let mut zones = Zones::new(Manner::Strict);
        let records = [("Api-Int", "", "192.0.2.1"), ("", "^APPS[.-]", "192.0.2.2")];
        zones.add(zone("Crc.Testing.", &records, "")).unwrap();
        for (name, expected) in [
            ("api-int.crc.testing", Some([192, 0, 2, 1])),
            ("API-INT.CRC.TESTING", Some([192, 0, 2, 1])),
            ("console.crc.testing", None),
            ("apps.crc.testing", None),
            ("apps.x.crc.testing", Some([192, 0, 2, 2])),
            ("aPPs-y.crc.testing", Some([192, 0, 2, 2])),
        ] {
            assert_eq!(ask(&zones, name, RecordType::A).1, expected, "{name}");
        }
    }

    #[test]
    fn a_zone_without_a_name_covers_what_is_left() {
        for manner in [Manner::Contract, Manner::Strict] {
            let mut zones = Zones::new(manner);
            zones.add(zone("test.", &[("a", "", "192.0.2.1")], "")).unwrap();
            zones.add(zone("", &[("a.example", "", "192.0.2.2")], "192.0.2.9")).unwrap();
            for (name, last) in [("a.test", 1), ("a.example", 2), ("b.example", 9), ("test", 9)] {
                assert_eq!(ask(&zones, name, RecordType::A), (FOUND, Some([192, 0, 2, last])), "{name}");
            }
            assert_eq!(ask(&zones, "b.test", RecordType::A), NONE);
        }
    }

    /// What people write for clusters and hosts, in the syntax that both languages share.
    #[test]
    fn expressions_of_go_mean_the_same() {
        for (expression, yes, no) in [
            ("^crc-\\d+-(.*?)-host$", "crc-7-x-host", "crc-x-host"),
            ("(?i)^API$", "api", "apis"),
            ("^[[:alpha:]]+$", "abc", "ab1"),
            ("^(?:a|b)\\.c\\z", "b.c", "bxc"),
            ("^\\x61+$", "aa", "b"),
            ("^(?P<host>[a-z-]{2,5})$", "ab-c", "a"),
            ("", "exactly", "other"),
        ] {
            let mut zones = Zones::new(Manner::Contract);
            zones.add(zone("z.", &[("exactly", expression, "192.0.2.1")], "")).unwrap();
            let answered = |name| ask(&zones, &format!("{name}.z"), RecordType::A);
            assert_eq!(answered(yes), (FOUND, Some([192, 0, 2, 1])), "{expression}");
            assert_eq!(answered(no), NONE, "{expression}");
            assert_eq!(answered("exactly").0, FOUND, "{expression}");
        }
    }

    #[test]
    fn expressions_are_unanchored_and_the_first_record_counts() {
        let mut zones = Zones::new(Manner::Contract);
        let records = [("", "^crc-\\d+$", "192.0.2.1"), ("", "api", "192.0.2.2"), ("crc-7", "", "192.0.2.3")];
        zones.add(zone("test.", &records, "192.0.2.9")).unwrap();
        for (name, last) in [("crc-7", 1), ("my-api-1.x", 2), ("crc-x", 9), ("else.where", 9)] {
            let name = format!("{name}.test");
            assert_eq!(ask(&zones, &name, RecordType::A), (FOUND, Some([192, 0, 2, last])), "{name}");
        }
    }

    #[test]
    fn zones_grow_in_front_and_keep_their_place() {
        let mut zones = Zones::new(Manner::Contract);
        zones.add(zone("wide.", &[("a", "", "192.0.2.1")], "192.0.2.9")).unwrap();
        zones.add(zone("narrow.wide.", &[("a", "", "192.0.2.2")], "")).unwrap();
        // The wide zone hides the narrow one.
        assert_eq!(ask(&zones, "a.narrow.wide", RecordType::A), (FOUND, Some([192, 0, 2, 9])));
        zones.add(zone("wide.", &[("a", "", "192.0.2.3"), ("b", "", "192.0.2.4")], "")).unwrap();
        assert_eq!(ask(&zones, "a.wide", RecordType::A), (FOUND, Some([192, 0, 2, 3])));
        assert_eq!(ask(&zones, "c.wide", RecordType::A), NONE);
        let names: Vec<_> = zones.list().map(|zone| (&*zone.name, zone.records.len())).collect();
        assert_eq!(names, [("wide.", 3), ("narrow.wide.", 1)]);
    }

    #[test]
    fn bad_expressions_are_told_and_change_nothing() {
        let mut zones = Zones::new(Manner::Contract);
        for bad in ["(", "a{100000}{1000}", "(?P<", "\\1"] {
            let error = zones.add(zone("z.", &[("", bad, "192.0.2.1")], "")).unwrap_err();
            assert!(matches!(&error, Error::Regexp { record, .. } if record == bad), "{error}");
            assert_eq!(error.to_string().lines().count(), 1, "{error}");
        }
        assert_eq!(zones.list().count(), 0);
    }

    #[test]
    fn odd_queries_are_refused_as_they_should() {
        let zones = Zones::new(Manner::Contract);
        let mut out = Vec::new();
        let mut ask = |bytes: &[u8]| zones.answer(&Query::parse(bytes).unwrap(), Transport::Tcp, &mut out);
        let mut update = query("a.b", RecordType::A);
        update[2] |= 5 << 3;
        assert_eq!(ask(&update), Outcome::Answered(Rcode::NOTIMP));
        assert_eq!(ask(&[0; 12]), Outcome::Answered(Rcode::FORMERR));
    }
}
