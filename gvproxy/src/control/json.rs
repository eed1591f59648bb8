//! JSON as Go's encoding/json reads and writes it, for what this API exchanges. Pure.
//!
//! Of a body the first value counts, and what follows it is ignored; names of fields are met in any case, unknown ones
//! are passed over, `null` leaves a field as it is. What is wrong is told in Go's words, as far as serde tells enough.

use core::fmt;
use core::marker::PhantomData;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};
use serde_json::error::Category;
use slipway_dns::config::gvproxy::{Record, Zone};
use slipway_netstack::addr::MacAddr;
use std::net::Ipv4Addr;

/// Records that one request may bring; those of all zones together are bounded, too.
const MOST_RECORDS: usize = 65_536;

/// What is asked for with `/services/forwarder/expose`, and with `unexpose`, where there is no remote.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Expose {
    /// Where the host listens.
    pub(crate) local: String,
    /// Where that leads.
    pub(crate) remote: String,
    /// `tcp` if nothing is said.
    pub(crate) protocol: String,
}

/// Reads the body of `expose` and `unexpose`.
///
/// # Errors
/// In Go's words.
pub(crate) fn expose(body: &[u8]) -> Result<Expose, String> {
    first(body)
}

/// Reads the body of the request for names.
///
/// # Errors
/// In Go's words.
pub(crate) fn zone(body: &[u8]) -> Result<Zone, String> {
    first(body)
}

/// Reads the body of the request that keeps an address for a station: both, as texts.
///
/// # Errors
/// In Go's words; one of the two is none.
pub(crate) fn lease(body: &[u8]) -> Result<(Ipv4Addr, String), String> {
    let Lease { ip, mac } = first(body)?;
    let address = ip.parse().map_err(|_| format!("invalid IP address: {ip}"))?;
    let station: MacAddr =
        mac.replace('-', ":").parse().map_err(|_| format!("address {mac}: invalid MAC address"))?;
    Ok((address, station.to_string()))
}

/// Its body.
#[derive(Debug, Default)]
struct Lease {
    ip: String,
    mac: String,
}

/// The first value in `body`.
fn first<T: Fields>(body: &[u8]) -> Result<T, String> {
    let mut json = serde_json::Deserializer::from_slice(body);
    Object(PhantomData).deserialize(&mut json).map_err(|error| in_gos_words(body, &error))
}

fn in_gos_words(body: &[u8], error: &serde_json::Error) -> String {
    let text = error.to_string();
    let what = text.rsplit_once(" at line ").map_or(text.as_str(), |(what, _)| what);
    match error.classify() {
        Category::Eof if body.trim_ascii().is_empty() => "EOF".to_owned(),
        Category::Eof => "unexpected EOF".to_owned(),
        Category::Io | Category::Data => what.to_owned(),
        Category::Syntax => {
            let place = match what {
                "expected value" => "looking for beginning of value",
                "key must be a string" => "looking for beginning of object key string",
                "expected `:`" => "after object key",
                "expected `,` or `}`" => "after object key:value pair",
                "expected `,` or `]`" => "after array element",
                "trailing comma" => "looking for beginning of object key string",
                "invalid number" => "in numeric literal",
                "invalid escape" => "in string escape code",
                "expected ident" => "in literal",
                _ if what.starts_with("control character") => "in string literal",
                other => return other.to_owned(),
            };
            let line = body.split(|byte| *byte == b'\n').nth(error.line().saturating_sub(1));
            let found = line.and_then(|line| line.get(error.column().saturating_sub(1))).copied();
            let found = char::from(found.unwrap_or_default());
            format!("invalid character {} {place}", quoted(found))
        }
    }
}

/// As Go quotes it.
fn quoted(found: char) -> String {
    match found {
        '\'' => r"'\''".to_owned(),
        '"' => "'\"'".to_owned(),
        '\n' => r"'\n'".to_owned(),
        '\t' => r"'\t'".to_owned(),
        '\r' => r"'\r'".to_owned(),
        found if found.is_ascii_control() => format!(r"'\x{:02x}'", u32::from(found)),
        found => format!("'{found}'"),
    }
}

/// A structure of Go: fields by name.
trait Fields: Default {
    /// What Go calls it.
    const NAME: &str;

    /// Reads the value of the field with this name, in small letters. `false`: there is none, and nothing was read.
    fn read<'de, A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<bool, A::Error>;
}

/// Something that reads a structure.
struct Object<T>(PhantomData<T>);

impl<'de, T: Fields> DeserializeSeed<'de> for Object<T> {
    type Value = T;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<T, D::Error> {
        json.deserialize_any(self)
    }
}

/// What another kind of value says.
macro_rules! refuse {
    ($($visit:ident: $kind:ty = $what:literal;)*) => {
        $(fn $visit<E: serde::de::Error>(self, _: $kind) -> Result<Self::Value, E> {
            Err(E::custom(self.refusal($what)))
        })*
    };
}

impl<T: Fields> Object<T> {
    #[expect(clippy::unused_self, reason = "one macro for both kinds of values")]
    fn refusal(&self, what: &str) -> String {
        format!("json: cannot unmarshal {what} into Go value of type types.{}", T::NAME)
    }
}

impl<'de, T: Fields> Visitor<'de> for Object<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::NAME)
    }

    refuse! {
        visit_bool: bool = "bool";
        visit_i64: i64 = "number";
        visit_u64: u64 = "number";
        visit_f64: f64 = "number";
        visit_str: &str = "string";
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<T, E> {
        Ok(T::default())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<T, A::Error> {
        Err(A::Error::custom(self.refusal("array")))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<T, A::Error> {
        let mut object = T::default();
        while let Some(name) = map.next_key::<String>()? {
            if !object.read(&name.to_ascii_lowercase(), &mut map)? {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(object)
    }
}

/// Something that reads a text; `None` for `null`.
struct Text(&'static str);

impl Text {
    fn refusal(&self, what: &str) -> String {
        format!("json: cannot unmarshal {what} into Go struct field {} of type string", self.0)
    }
}

impl<'de> DeserializeSeed<'de> for Text {
    type Value = Option<String>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Option<String>, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Text {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    refuse! {
        visit_bool: bool = "bool";
        visit_i64: i64 = "number";
        visit_u64: u64 = "number";
        visit_f64: f64 = "number";
    }

    fn visit_str<E>(self, text: &str) -> Result<Option<String>, E> {
        Ok(Some(text.to_owned()))
    }

    fn visit_unit<E>(self) -> Result<Option<String>, E> {
        Ok(None)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<Option<String>, A::Error> {
        Err(A::Error::custom(self.refusal("array")))
    }

    fn visit_map<A: MapAccess<'de>>(self, _: A) -> Result<Option<String>, A::Error> {
        Err(A::Error::custom(self.refusal("object")))
    }
}

impl Fields for Expose {
    const NAME: &str = "ExposeRequest";

    fn read<'de, A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<bool, A::Error> {
        let (field, place) = match name {
            "local" => ("ExposeRequest.local", &mut self.local),
            "remote" => ("ExposeRequest.remote", &mut self.remote),
            "protocol" => ("ExposeRequest.protocol", &mut self.protocol),
            _ => return Ok(false),
        };
        if let Some(text) = map.next_value_seed(Text(field))? {
            *place = text;
        }
        Ok(true)
    }
}

impl Fields for Lease {
    const NAME: &str = "LeaseRequest";

    fn read<'de, A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<bool, A::Error> {
        let (field, place) = match name {
            "ip" => ("LeaseRequest.ip", &mut self.ip),
            "mac" => ("LeaseRequest.mac", &mut self.mac),
            _ => return Ok(false),
        };
        if let Some(text) = map.next_value_seed(Text(field))? {
            *place = text;
        }
        Ok(true)
    }
}

/// An address; Go has none for an empty text.
fn address<E: serde::de::Error>(text: &str) -> Result<Option<core::net::IpAddr>, E> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| E::custom(format!("invalid IP address: {text}")))
}

impl Fields for Zone {
    const NAME: &str = "Zone";

    fn read<'de, A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<bool, A::Error> {
        match name {
            "name" => self.name = map.next_value_seed(Text("Zone.Name"))?.unwrap_or_default(),
            "defaultip" => {
                let text = map.next_value_seed(Text("Zone.DefaultIP"))?;
                self.default_ip = address(&text.unwrap_or_default())?;
            }
            "records" => self.records = map.next_value_seed(Records)?,
            _ => return Ok(false),
        }
        Ok(true)
    }
}

impl Fields for Record {
    const NAME: &str = "Record";

    fn read<'de, A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<bool, A::Error> {
        match name {
            "name" => self.name = map.next_value_seed(Text("Record.Name"))?.unwrap_or_default(),
            "ip" => {
                let text = map.next_value_seed(Text("Record.IP"))?;
                self.ip = address(&text.unwrap_or_default())?;
            }
            "regexp" => self.regexp = map.next_value_seed(Text("Record.Regexp"))?,
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// Something that reads a zone's records.
struct Records;

impl<'de> DeserializeSeed<'de> for Records {
    type Value = Vec<Record>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Vec<Record>, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Records {
    type Value = Vec<Record>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of records")
    }

    fn visit_unit<E>(self) -> Result<Vec<Record>, E> {
        Ok(Vec::new())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<Record>, A::Error> {
        let mut records = Vec::new();
        while let Some(record) = seq.next_element_seed(Object(PhantomData))? {
            if records.len() >= MOST_RECORDS {
                return Err(A::Error::custom(format!("more than {MOST_RECORDS} DNS records")));
            }
            records.push(record);
        }
        Ok(records)
    }
}

/// Zones as they are listed.
#[derive(Debug)]
pub(crate) struct Zones<'z>(pub Vec<&'z Zone>);

impl Serialize for Zones<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(self.0.iter().copied().map(Listed))
    }
}

struct Listed<'z, T>(&'z T);

fn address_text(address: Option<core::net::IpAddr>) -> String {
    address.map(|address| address.to_string()).unwrap_or_default()
}

impl Serialize for Listed<'_, Zone> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let Zone { name, records, default_ip } = self.0;
        let mut map = to.serialize_map(Some(3))?;
        map.serialize_entry("Name", name)?;
        let records: Vec<_> = records.iter().map(Listed).collect();
        map.serialize_entry("Records", &(!records.is_empty()).then_some(records))?;
        map.serialize_entry("DefaultIP", &address_text(*default_ip))?;
        map.end()
    }
}

impl Serialize for Listed<'_, Record> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let Record { name, ip, regexp } = self.0;
        let mut map = to.serialize_map(None)?;
        map.serialize_entry("Name", name)?;
        map.serialize_entry("IP", &address_text(*ip))?;
        if let Some(regexp) = regexp {
            map.serialize_entry("Regexp", regexp)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_fields_are_met_in_any_case() {
        let body = br#" {"LOCAL":":80","x":[{"deep":1}],"Remote":"1.2.3.4:80","protocol":null} trailing"#;
        let asked = expose(body).unwrap();
        assert_eq!(
            asked,
            Expose { local: ":80".into(), remote: "1.2.3.4:80".into(), protocol: String::new() }
        );
        assert_eq!(expose(b"null").unwrap(), Expose::default());
        assert_eq!(expose(b"{}{").unwrap(), Expose::default());
    }

    #[test]
    fn what_is_wrong_is_told_in_gos_words() {
        for (body, words) in [
            ("", "EOF"),
            (" \n", "EOF"),
            ("{", "unexpected EOF"),
            (r#"{"local":"#, "unexpected EOF"),
            ("x", "invalid character 'x' looking for beginning of value"),
            ("{x}", "invalid character 'x' looking for beginning of object key string"),
            (r#"{"a" 1}"#, "invalid character '1' after object key"),
            (r#"{"a":1 "b"}"#, "invalid character '\"' after object key:value pair"),
            ("[]", "json: cannot unmarshal array into Go value of type types.ExposeRequest"),
            ("7", "json: cannot unmarshal number into Go value of type types.ExposeRequest"),
            (
                r#"{"local":7}"#,
                "json: cannot unmarshal number into Go struct field ExposeRequest.local of type string",
            ),
            (
                r#"{"remote":{}}"#,
                "json: cannot unmarshal object into Go struct field ExposeRequest.remote of type string",
            ),
        ] {
            assert_eq!(expose(body.as_bytes()), Err(words.to_owned()), "{body}");
        }
    }

    #[test]
    fn what_is_deep_or_long_is_passed_over_or_refused() {
        let deep = format!("{{\"x\":{}", "[".repeat(1 << 20));
        assert!(expose(deep.as_bytes()).is_err());
        let nested = format!("{}{}", "{\"a\":".repeat(1 << 16), "1");
        assert!(expose(nested.as_bytes()).is_err());
        let many = format!("{{\"records\":[{}{{}}]}}", "{},".repeat(MOST_RECORDS));
        assert_eq!(zone(many.as_bytes()), Err("more than 65536 DNS records".to_owned()));
    }

    #[test]
    fn zones_are_read_and_listed() {
        let body = br#"{"name":"crc.testing.","Records":[{"Name":"host","IP":"192.168.127.254"},
            {"regexp":"apps-.*","ip":"192.168.126.11"}],"defaultip":""}"#;
        let read = zone(body).unwrap();
        let empty = Zone { name: "x.".into(), records: vec![], default_ip: "10.0.0.1".parse().ok() };
        assert_eq!(
            serde_json::to_string(&Zones(vec![&read, &empty])).unwrap(),
            concat!(
                r#"[{"Name":"crc.testing.","Records":[{"Name":"host","IP":"192.168.127.254"},"#,
                r#"{"Name":"","IP":"192.168.126.11","Regexp":"apps-.*"}],"DefaultIP":""},"#,
                r#"{"Name":"x.","Records":null,"DefaultIP":"10.0.0.1"}]"#
            )
        );
        assert_eq!(zone(br#"{"DefaultIP":"x"}"#), Err("invalid IP address: x".to_owned()));
    }
}
