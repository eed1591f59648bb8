//! Published ports in firewalld's terms. Pure.
//!
//! A port on all addresses is a `forward_ports` entry of the policy towards the host, and a rich rule for 127.0.0.1 in
//! the policy away from the host, because the host's own packets never come in. A port on one address is a rich rule;
//! for an address of the loopback, in the policy away from the host alone, for who comes from elsewhere forges it.
//!
//! A range that keeps its numbers is one entry. One that is shifted has an entry for each port: the kernel leaves a
//! port that lies in the range it is led to as it is, and gives any other one of them by chance.

use super::client::{ForwardPort, PolicySettings};
use crate::error::{Error, Result};
use crate::firewall::{DNS_PORT, PortRules};
use crate::spec::PortMapping;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;

/// What one container needs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Forwards {
    /// Of what comes in.
    pub(super) ports: Vec<ForwardPort>,
    /// Of what comes in for one address.
    pub(super) rules: Vec<String>,
    /// Of what the host itself sends to 127.0.0.1.
    pub(super) local_rules: Vec<String>,
}

impl Forwards {
    /// Those of a container.
    ///
    /// # Errors
    /// `invalid host ip ...`
    pub(super) fn of(ports: &PortRules) -> Result<Self> {
        let mut forwards = Self::default();
        for mapping in ports.ports() {
            forwards.add(mapping, ports)?;
        }
        if ports.dns_port != DNS_PORT {
            forwards
                .rules
                .extend(ports.dns_server_ips.iter().map(|server| dns_rule(*server, ports.dns_port)));
        }
        Ok(forwards)
    }

    fn add(&mut self, mapping: &PortMapping, ports: &PortRules) -> Result<()> {
        let v4 = ports.container_ip_v4.map(IpAddr::V4);
        let v6 = ports.container_ip_v6.map(IpAddr::V6);
        let host = match mapping.host_ip.as_str() {
            "" => None,
            text => Some(text.parse::<IpAddr>().map_err(|_| {
                let port = mapping.host_port;
                Error::msg(format!("invalid host ip \"{text}\" provided for port {port}"))
            })?),
        };
        match host {
            // The kernel translates no connection to ::1.
            Some(IpAddr::V6(host)) if host.is_loopback() => {}
            Some(host) if host.is_loopback() => {
                self.local_rules.extend(v4.into_iter().flat_map(|to| rules(mapping, host, to)));
            }
            Some(host) if !host.is_unspecified() => {
                let to = if host.is_ipv4() { v4 } else { v6 };
                self.rules.extend(to.into_iter().flat_map(|to| rules(mapping, host, to)));
            }
            any => {
                if any.is_none_or(|host| host.is_ipv4()) {
                    self.ports.extend(v4.into_iter().flat_map(|to| forward_ports(mapping, to)));
                    let local = Ipv4Addr::LOCALHOST.into();
                    self.local_rules.extend(v4.into_iter().flat_map(|to| rules(mapping, local, to)));
                }
                if any.is_none_or(|host| host.is_ipv6()) {
                    self.ports.extend(v6.into_iter().flat_map(|to| forward_ports(mapping, to)));
                }
            }
        }
        Ok(())
    }
}

/// The settings with what is missing added; keys to which nothing is added are left out.
pub(super) fn added(there: PolicySettings, ports: Vec<ForwardPort>, rules: Vec<String>) -> PolicySettings {
    PolicySettings {
        forward_ports: union(there.forward_ports, ports),
        rich_rules: union(there.rich_rules, rules),
    }
}

fn union<T: PartialEq>(there: Option<Vec<T>>, more: Vec<T>) -> Option<Vec<T>> {
    let mut all = there.unwrap_or_default();
    let before = all.len();
    for entry in more {
        if !all.contains(&entry) {
            all.push(entry);
        }
    }
    (all.len() > before).then_some(all)
}

/// A list with entries taken out, and then with them behind all others; the key that they are not of is left out.
pub(super) struct Move {
    pub(super) out: PolicySettings,
    pub(super) behind: PolicySettings,
}

/// What brings the entries of others for a newcomer's ports behind its own, which are there by now. What is new in a
/// list, firewalld makes in any order; so they are moved one after the other as far as they take something from each
/// other, and keep their order.
pub(super) fn put_behind(there: PolicySettings, ports: &[ForwardPort], rules: &[String]) -> Vec<Move> {
    let ours: Vec<Reach> = ports
        .iter()
        .filter_map(Reach::of_port)
        .chain(rules.iter().filter_map(|rule| Reach::of_rule(rule)))
        .collect();
    let is_rival = |it: Option<Reach>| it.is_some_and(|it| ours.iter().any(|ours| ours.meets(&it)));
    let PolicySettings { forward_ports, rich_rules } = there;
    let is_port = |it: &ForwardPort| !ports.contains(it) && is_rival(Reach::of_port(it));
    let is_rule = |it: &String| !rules.contains(it) && is_rival(Reach::of_rule(it));
    let (ports, rules) = (
        moves(forward_ports, Reach::of_port, is_port),
        moves(rich_rules, |rule| Reach::of_rule(rule), is_rule),
    );
    let of_ports = |list| PolicySettings { forward_ports: Some(list), rich_rules: None };
    let of_rules = |list| PolicySettings { forward_ports: None, rich_rules: Some(list) };
    let ports = ports.into_iter().map(|(out, behind)| Move { out: of_ports(out), behind: of_ports(behind) });
    let rules = rules.into_iter().map(|(out, behind)| Move { out: of_rules(out), behind: of_rules(behind) });
    ports.chain(rules).collect()
}

/// The lists without and with those entries behind; at once as many as do not meet.
fn moves<T: Clone + PartialEq>(
    there: Option<Vec<T>>,
    reach: impl Fn(&T) -> Option<Reach>,
    such: impl Fn(&T) -> bool,
) -> Vec<(Vec<T>, Vec<T>)> {
    let mut list = there.unwrap_or_default();
    let rivals: Vec<T> = list.iter().filter(|entry| such(entry)).cloned().collect();
    let mut rest = rivals.as_slice();
    let mut moves = Vec::new();
    while !rest.is_empty() {
        let (some, others) = rest.split_at(apart(rest.iter().filter_map(&reach)).clamp(1, rest.len()));
        list.retain(|entry| !some.contains(entry));
        let out = list.clone();
        list.extend_from_slice(some);
        moves.push((out, list.clone()));
        rest = others;
    }
    moves
}

/// How many of the first do not meet.
fn apart(all: impl Iterator<Item = Reach>) -> usize {
    let mut first: Vec<Reach> = Vec::new();
    for reach in all {
        if first.iter().any(|other| other.meets(&reach)) {
            break;
        }
        first.push(reach);
    }
    first.len()
}

/// What an entry takes.
#[derive(Debug, PartialEq, Eq)]
struct Reach {
    /// `None`: of all addresses.
    host: Option<IpAddr>,
    protocol: String,
    ports: RangeInclusive<u16>,
    ipv6: bool,
}

impl Reach {
    /// `None` for one that we would not write.
    fn of_port((port, protocol, _, to): &ForwardPort) -> Option<Self> {
        Self::new(None, port, protocol, to)
    }

    /// The same of a [`rich_rule`].
    fn of_rule(rule: &str) -> Option<Self> {
        let words: Vec<&str> = rule.split('"').collect();
        match words.as_slice() {
            [
                "rule family=",
                _,
                " destination address=",
                host,
                " forward-port port=",
                port,
                " protocol=",
                protocol,
                " to-port=",
                _,
                " to-addr=",
                to,
                "",
            ] => Self::new(Some(host.parse().ok()?), port, protocol, to),
            _ => None,
        }
    }

    fn new(host: Option<IpAddr>, port: &str, protocol: &str, to: &str) -> Option<Self> {
        let (first, last) = port.split_once('-').unwrap_or((port, port));
        let ports = first.parse().ok()?..=last.parse().ok()?;
        Some(Self { host, protocol: protocol.to_owned(), ports, ipv6: to.parse::<IpAddr>().ok()?.is_ipv6() })
    }

    /// Whether a packet could be for both.
    fn meets(&self, other: &Self) -> bool {
        let host = self.host.zip(other.host).is_none_or(|(one, other)| one == other);
        let ports = self.ports.start() <= other.ports.end() && other.ports.start() <= self.ports.end();
        host && ports && self.protocol == other.protocol && self.ipv6 == other.ipv6
    }
}

/// The settings without what leads to the container and, with the last one (`complete`), to the DNS server; keys from
/// which nothing is taken are left out.
pub(super) fn removed(there: PolicySettings, ports: &PortRules, complete: bool) -> PolicySettings {
    let containers: Vec<String> = ports.addresses().map(|(address, _)| address.to_string()).collect();
    let mut texts: Vec<String> = containers.iter().map(|to| format!("to-addr=\"{to}\"")).collect();
    if complete && ports.dns_port != DNS_PORT {
        texts.extend(ports.dns_server_ips.iter().map(|server| dns_rule(*server, ports.dns_port)));
    }
    PolicySettings {
        forward_ports: without(there.forward_ports, |(_, _, _, to)| containers.contains(to)),
        rich_rules: without(there.rich_rules, |rule| texts.iter().any(|text| rule.contains(text.as_str()))),
    }
}

/// A list without those; `None` when nothing of it is such.
pub(super) fn without<T>(there: Option<Vec<T>>, gone: impl Fn(&T) -> bool) -> Option<Vec<T>> {
    let mut all = there?;
    let before = all.len();
    all.retain(|entry| !gone(entry));
    (all.len() < before).then_some(all)
}

fn forward_ports(mapping: &PortMapping, to: IpAddr) -> impl Iterator<Item = ForwardPort> {
    ranges(mapping).map(move |(port, to_port)| (port, mapping.protocol.clone(), to_port, to.to_string()))
}

fn rules(mapping: &PortMapping, host: IpAddr, to: IpAddr) -> impl Iterator<Item = String> {
    ranges(mapping).map(move |(port, to_port)| rich_rule(host, &port, &mapping.protocol, &to_port, to))
}

fn dns_rule(server: IpAddr, port: u16) -> String {
    rich_rule(server, &DNS_PORT.to_string(), "udp", &port.to_string(), server)
}

fn rich_rule(host: IpAddr, port: &str, protocol: &str, to_port: &str, to: IpAddr) -> String {
    let family = if to.is_ipv4() { "ipv4" } else { "ipv6" };
    format!(
        "rule family=\"{family}\" destination address=\"{host}\" forward-port port=\"{port}\" \
         protocol=\"{protocol}\" to-port=\"{to_port}\" to-addr=\"{to}\""
    )
}

/// The ports of the host and those of the container that they lead to, in pieces that firewalld leads so.
fn ranges(mapping: &PortMapping) -> impl Iterator<Item = (String, String)> {
    let PortMapping { host_port, container_port, .. } = *mapping;
    let (pieces, more) =
        if host_port == container_port { (1, mapping.count() - 1) } else { (mapping.count(), 0) };
    (0..pieces).map(move |nth| (range(host_port, nth, more), range(container_port, nth, more)))
}

/// firewalld refuses what goes beyond 65535.
fn range(first: u16, nth: u16, more: u16) -> String {
    let first = u32::from(first) + u32::from(nth);
    if more == 0 { first.to_string() } else { format!("{first}-{}", first + u32::from(more)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Compat;

    fn ports(mappings: &[(&str, u16)]) -> PortRules {
        let mapping = |(host, range): &(&str, u16)| PortMapping {
            container_port: 80,
            host_port: 8080,
            host_ip: (*host).to_owned(),
            protocol: "tcp".to_owned(),
            range: *range,
        };
        PortRules {
            container_id: "c".to_owned(),
            network_id: "n".to_owned(),
            port_mappings: Some(mappings.iter().map(mapping).collect()),
            network_name: "n".to_owned(),
            network_hash_name: "N".to_owned(),
            container_ip_v4: "10.88.0.2".parse().ok(),
            subnet_v4: "10.88.0.0/16".parse().ok(),
            container_ip_v6: "fd10::2".parse().ok(),
            subnet_v6: "fd10::/64".parse().ok(),
            dns_port: 53,
            dns_server_ips: vec!["10.88.0.1".parse().unwrap()],
            internal: false,
            compat: Compat::Two,
        }
    }

    const LOCAL: &str = "rule family=\"ipv4\" destination address=\"127.0.0.1\" forward-port port=\"8080\" protocol=\"tcp\" to-port=\"80\" to-addr=\"10.88.0.2\"";

    #[test]
    fn each_kind_of_host_address() {
        let tuple = |to: &str| ("8080".to_owned(), "tcp".to_owned(), "80".to_owned(), to.to_owned());
        let of = |host: &str| Forwards::of(&ports(&[(host, 1)])).unwrap();
        assert_eq!(
            of(""),
            Forwards {
                ports: vec![tuple("10.88.0.2"), tuple("fd10::2")],
                rules: vec![],
                local_rules: vec![LOCAL.to_owned()]
            }
        );
        assert_eq!(of("0.0.0.0").ports, [tuple("10.88.0.2")]);
        assert_eq!(of("::").ports, [tuple("fd10::2")]);
        assert!(of("::").local_rules.is_empty());
        assert_eq!(of("::1"), Forwards::default());
        assert_eq!((of("127.0.0.1").ports.len(), of("127.0.0.1").local_rules), (0, vec![LOCAL.to_owned()]));
        let second =
            Forwards { local_rules: vec![LOCAL.replace("127.0.0.1", "127.0.0.2")], ..Forwards::default() };
        assert_eq!(of("127.0.0.2"), second);
        assert_eq!(of("198.51.100.7").rules, [LOCAL.replace("127.0.0.1", "198.51.100.7")]);
        assert_eq!(
            of("2001:db8::7").rules,
            [LOCAL.replace("127.0.0.1", "2001:db8::7").replace("10.88.0.2", "fd10::2").replace("v4", "v6")]
        );
        let error = Forwards::of(&ports(&[("blah", 1)])).unwrap_err();
        assert_eq!(error.to_string(), "invalid host ip \"blah\" provided for port 8080");
    }

    #[test]
    fn ranges_are_written_as_ranges() {
        let led = |host_port, container_port, range| {
            let mut of = ports(&[("0.0.0.0", range), ("198.51.100.7", range)]);
            for mapping in of.port_mappings.iter_mut().flatten() {
                (mapping.host_port, mapping.container_port) = (host_port, container_port);
            }
            let Forwards { ports, rules, local_rules } = Forwards::of(&of).unwrap();
            assert_eq!((rules.len(), local_rules.len()), (ports.len(), ports.len()));
            let text = |(port, _, to_port, _): &ForwardPort| format!("{port} {to_port}");
            ports.iter().map(text).collect::<Vec<_>>()
        };
        assert_eq!(led(8080, 8080, 3), ["8080-8082 8080-8082"]);
        assert_eq!(led(8080, 80, 1), ["8080 80"]);
        // Of these the kernel would leave 80 and 81 as they are.
        assert_eq!(led(80, 79, 3), ["80 79", "81 80", "82 81"]);
        assert_eq!(led(65535, 80, 2), ["65535 80", "65536 81"]);
    }

    #[test]
    fn what_was_added_is_removed_and_the_rest_stays() {
        let mut mine = ports(&[("", 1), ("198.51.100.7", 1)]);
        mine.dns_port = 1053;
        let forwards = Forwards::of(&mine).unwrap();
        let other = ("1".to_owned(), "tcp".to_owned(), "1".to_owned(), "10.88.0.22".to_owned());
        let there = PolicySettings { forward_ports: Some(vec![other.clone()]), rich_rules: None };
        let now = added(there.clone(), forwards.ports.clone(), forwards.rules.clone());
        assert_eq!(now.forward_ports.as_ref().unwrap().len(), 3);
        assert_eq!(added(now.clone(), forwards.ports, forwards.rules), PolicySettings::default());
        let without_dns = removed(now.clone(), &mine, false);
        assert_eq!(without_dns.rich_rules.unwrap().len(), 1);
        let rest = removed(now, &mine, true);
        assert_eq!(rest, PolicySettings { forward_ports: Some(vec![other]), rich_rules: Some(vec![]) });
        assert_eq!(removed(there, &mine, true), PolicySettings::default());
    }

    #[test]
    fn the_entries_of_others_for_a_port_come_behind() {
        let port = |ports: &str, protocol: &str, to: &str| {
            (ports.to_owned(), protocol.to_owned(), "80".to_owned(), to.to_owned())
        };
        let (ours, other) = (port("8080-8082", "tcp", "10.88.0.3"), port("8080", "udp", "10.88.0.2"));
        let (old, older) = (port("8079-8080", "tcp", "10.88.0.2"), port("8082", "tcp", "10.89.0.2"));
        let six = port("8080", "tcp", "fd10::2");
        let at = |host: &str| LOCAL.replace("127.0.0.1", host);
        let foreign = LOCAL.replace("rule family", "rule priority=\"-1\" family");
        let there = PolicySettings {
            forward_ports: Some(vec![old.clone(), older.clone(), six.clone(), other.clone(), ours.clone()]),
            rich_rules: Some(vec![at("198.51.100.7"), foreign.clone(), at("198.51.100.8")]),
        };
        let mut now = there.clone();
        for Move { out, behind } in put_behind(there.clone(), std::slice::from_ref(&ours), &[]) {
            // Never are two missing of which one would have the other's packets.
            let length = |it: &PolicySettings| {
                (it.forward_ports.as_ref().map(Vec::len), it.rich_rules.as_ref().map(Vec::len))
            };
            assert!([(Some(3), None), (None, Some(1))].contains(&length(&out)), "{out:?}");
            now.forward_ports = behind.forward_ports.or(now.forward_ports);
            now.rich_rules = behind.rich_rules.or(now.rich_rules);
        }
        assert_eq!(now.forward_ports.unwrap(), [six, other.clone(), ours, old, older]);
        assert_eq!(now.rich_rules.unwrap(), [foreign.clone(), at("198.51.100.7"), at("198.51.100.8")]);
        let moved = put_behind(there.clone(), &[], &[at("198.51.100.7").replace("0.2\"", "0.3\"")]);
        let behind: Vec<_> = moved.into_iter().map(|it| it.behind.rich_rules.or(it.out.rich_rules)).collect();
        // At one address, what is for all and what is for it; not what is for another.
        assert_eq!(behind.len(), 3, "{behind:?}");
        assert_eq!(behind.last().unwrap().as_ref().unwrap().last(), Some(&at("198.51.100.7")));
        assert!(put_behind(there, &[port("8080", "sctp", "10.88.0.3")], &[]).is_empty());
    }
}
