//! The configuration file, as it is written: every key may be left out, and none is checked beyond its type.
//!
//! Keys that nobody knows are passed over, as in the original, so that a file for a newer version is read. What one
//! document may cost is bounded by the reader: its size here, aliases and depth by the parser's budget. Only the first
//! document of a file counts.
//!
//! Truth values may be those of YAML 1.1 (`yes`, `on`), numbers may stand where texts are wanted; maps keep their
//! order. Contract: gvproxy §2.

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_saphyr::{Options, budget, options};
use std::fmt;

/// The most that a file may have, in bytes.
pub const MAX_BYTES: u64 = 1 << 20;
/// Maps and lists within each other.
const MAX_DEPTH: usize = 32;
/// Keys, values and brackets, also those that aliases repeat.
const MAX_EVENTS: usize = 100_000;

/// The whole file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the keys are those of the flags")]
pub struct Document {
    pub listen: Option<Vec<String>>,
    pub log_level: Option<String>,
    pub stack: Option<Stack>,
    pub interfaces: Option<Interfaces>,
    pub forwards: Option<Vec<Forward>>,
    pub pid_file: Option<String>,
    pub log_file: Option<String>,
    pub services: Option<String>,
    pub ec2_metadata_access: Option<bool>,
    pub notification: Option<String>,
    pub stay: Option<bool>,
    pub ipv6: Option<bool>,
    pub preserve_source: Option<bool>,
    pub gateway_expose_all_protocols: Option<bool>,
}

/// `stack`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[expect(missing_docs, reason = "crate::config says what each is")]
pub struct Stack {
    pub debug: Option<bool>,
    #[serde(rename = "capture-file")]
    pub capture_file: Option<String>,
    pub mtu: Option<i64>,
    pub subnet: Option<String>,
    #[serde(rename = "gatewayIP")]
    pub gateway_ip: Option<String>,
    #[serde(rename = "deviceIP")]
    pub device_ip: Option<String>,
    #[serde(rename = "hostIP")]
    pub host_ip: Option<String>,
    pub gateway_mac_address: Option<String>,
    pub dns: Option<Vec<Zone>>,
    pub dns_search_domains: Option<Vec<String>>,
    pub forwards: Option<Pairs>,
    pub nat: Option<Pairs>,
    #[serde(rename = "gatewayVirtualIPs")]
    pub gateway_virtual_ips: Option<Vec<String>>,
    pub dhcp_static_leases: Option<Pairs>,
    #[serde(rename = "vpnKitUUIDMacAddresses")]
    pub vpnkit_uuid_mac_addresses: Option<Pairs>,
    pub ec2_metadata_access: Option<bool>,
    pub tcp_max_in_flight: Option<i64>,
    pub tcp_connect_timeout: Option<String>,
}

/// `interfaces`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "crate::config says what each is")]
pub struct Interfaces {
    pub vpnkit: Option<String>,
    pub qemu: Option<String>,
    pub bess: Option<String>,
    pub stdio: Option<String>,
    pub vfkit: Option<String>,
    pub fd: Option<String>,
}

/// One of `forwards`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "crate::config says what each is")]
pub struct Forward {
    pub socket: Option<String>,
    pub dest: Option<String>,
    pub user: Option<String>,
    pub identity: Option<String>,
}

/// One of `stack.dns`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "slipway_dns::config::gvproxy says what each is")]
pub struct Zone {
    pub name: Option<String>,
    pub records: Option<Vec<Record>>,
    #[serde(rename = "defaultIP")]
    pub default_ip: Option<String>,
}

/// One of a zone's `records`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "slipway_dns::config::gvproxy says what each is")]
pub struct Record {
    pub name: Option<String>,
    pub ip: Option<String>,
    pub regexp: Option<String>,
}

/// A map of texts, in the order of the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pairs(pub Vec<(String, String)>);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Pairs;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of texts")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
                let mut pairs = Vec::new();
                while let Some((key, value)) = map.next_entry::<String, Option<String>>()? {
                    pairs.push((key, value.unwrap_or_default()));
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(Collect)
    }
}

/// Reads a file's text.
///
/// # Errors
/// What is wrong with it, in a line.
pub fn parse(text: &[u8]) -> Result<Document, String> {
    let mut rest = text;
    let mut documents = serde_saphyr::read_with_options::<_, Document>(&mut rest, limits());
    match documents.next() {
        None => Ok(Document::default()),
        Some(Ok(document)) => Ok(document),
        Some(Err(_)) if is_mangled(text) => Err("yaml: invalid leading UTF-8 octet".to_owned()),
        Some(Err(error)) => Err(error.to_string().lines().collect::<Vec<_>>().join(" ")),
    }
}

/// Whether a text is no UTF-8, nor UTF-16, which YAML may be, too, and then begins with a mark.
fn is_mangled(text: &[u8]) -> bool {
    let marked = text.starts_with(&[0xff, 0xfe]) || text.starts_with(&[0xfe, 0xff]);
    !marked && core::str::from_utf8(text).is_err()
}

fn limits() -> Options {
    options! {
        budget: budget! {
            max_reader_input_bytes: usize::try_from(MAX_BYTES).ok(),
            max_depth: MAX_DEPTH,
            flow_nesting_limit: MAX_DEPTH,
            max_events: MAX_EVENTS,
            max_aliases: 1000,
            max_anchors: 1000,
            max_recorded_anchor_events: MAX_EVENTS,
        },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: MAX_EVENTS },
        with_snippet: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Document {
        parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn a_whole_file_is_read() {
        let document = read(
            "listen: [unix:///a, tcp://:1]\nlog-level: Debug\nstay: yes\nunknown: {x: [1, 2]}\nstack:\n  mtu: 4000\n  \
             subnet: 10.0.0.0/8\n  gatewayIP: 10.0.0.1\n  capture-file: /p\n  forwards:\n    ':2222': 10.0.0.2:22\n    \
             udp:127.0.0.1:53: 10.0.0.2:53\n  dhcpStaticLeases: {10.0.0.2: '5A:94:EF:E4:0C:EE'}\n  \
             ec2MetadataAccess: on\n  tcpConnectTimeout: 5s\n  dns:\n  - name: x.\n    records:\n    - {regexp: a+, ip: 10.0.0.3}\n    \
             defaultIP: 10.0.0.4\ninterfaces:\n  qemu: unix:///q\nforwards:\n- socket: /s\n  user: 1000\n",
        );
        assert_eq!(document.listen.unwrap(), ["unix:///a", "tcp://:1"]);
        assert_eq!((document.log_level.as_deref(), document.stay), (Some("Debug"), Some(true)));
        assert_eq!(document.interfaces.unwrap().qemu.as_deref(), Some("unix:///q"));
        assert_eq!(document.forwards.unwrap()[0].user.as_deref(), Some("1000"), "a number as text");
        let stack = document.stack.unwrap();
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        let forwards = [pair(":2222", "10.0.0.2:22"), pair("udp:127.0.0.1:53", "10.0.0.2:53")];
        assert_eq!(stack.forwards.unwrap().0, forwards, "in order");
        assert_eq!((stack.mtu, stack.ec2_metadata_access), (Some(4000), Some(true)));
        let zone = &stack.dns.unwrap()[0];
        assert_eq!(zone.records.as_ref().unwrap()[0].regexp.as_deref(), Some("a+"));
        assert_eq!(zone.default_ip.as_deref(), Some("10.0.0.4"));
    }

    #[test]
    fn nothing_is_a_document_too_and_the_first_counts() {
        for empty in ["", "---\n", "# words\n", "{}", "stack:\n", "null", "stack: ~\nlisten: null"] {
            let document = read(empty);
            assert_eq!((document.stack, document.listen), (None, None), "{empty:?}");
        }
        assert_eq!(read("services: a\n---\nservices: b\n").services.as_deref(), Some("a"));
    }

    #[test]
    fn what_is_wrong_is_said_in_a_line() {
        let cases = [
            "stack:\n\tmtu: 1\n",
            "stack: []",
            "listen: 7: 8",
            "stack: {mtu: many}",
            "stack: {mtu: [1]}",
            "listen: {a: b}",
            "services: a\nservices: b",
            "stay: perhaps",
            "a: &a [*a]\nlisten: [",
            "\u{0}",
        ];
        for text in cases {
            let said = parse(text.as_bytes()).unwrap_err();
            assert!(!said.is_empty() && !said.contains('\n'), "{text:?}: {said:?}");
        }
        assert!(parse(&[0xff, 0xfe, 0xff]).is_err());
        assert_eq!(parse(b"listen: [\"\xff\"]").unwrap_err(), "yaml: invalid leading UTF-8 octet");
    }

    #[test]
    fn a_bomb_costs_little() {
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..30 {
            let alias = format!("*a{}", level - 1);
            bomb += &format!("a{level}: &a{level} [{}]\n", vec![alias; 10].join(", "));
        }
        assert!(parse(bomb.as_bytes()).is_err());
        let deep = format!("listen: {}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(parse(deep.as_bytes()).is_err());
        assert!(parse(format!("x: {}", "y".repeat(2 << 20)).as_bytes()).is_err());
    }
}
