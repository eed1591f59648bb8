//! Dumps as the kernel sends them, written by hand; and plans in words.

use super::super::plan::{Device, Op, plan};
use super::super::record::rta;
use super::super::{Change, Snapshot, Template, Wishes};
use crate::netlink::netfilter::{Attributes, attributes};
use ipnet::IpNet;
use nix::libc;
use slipway_netstack::config::Mtu;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Everything a host says about itself.
#[derive(Debug, Clone, Default)]
pub(super) struct Dump(pub(super) Vec<u8>);

/// A route being written.
pub(super) struct RouteText {
    pub(super) head: [u8; 12],
    pub(super) list: Attributes,
}

/// The number of an interface by its name: lo is 1, a digit at the end says more.
pub(super) fn number(name: &str) -> u32 {
    if name == "lo" { 1 } else { 2 + u32::from(name.bytes().last().unwrap() - b'0') }
}

impl Dump {
    fn message(mut self, kind: u16, body: &[u8]) -> Self {
        let length = u32::try_from(16 + body.len()).unwrap();
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend([0; 10]);
        self.0.extend(body);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    pub(super) fn link(self, name: &str) -> Self {
        let mut body = Attributes::default();
        let mut head = [0; 16];
        head[4..8].copy_from_slice(&number(name).to_ne_bytes());
        let flags = if name == "lo" { 0x49_u32 } else { 0x1043 };
        head[8..12].copy_from_slice(&flags.to_ne_bytes());
        body.head(&head);
        body.text(libc::IFLA_IFNAME, name);
        body.bytes(libc::IFLA_MTU, &1500_u32.to_ne_bytes());
        // A TUN has no such attribute at all.
        if !name.starts_with("tun") {
            body.bytes(libc::IFLA_ADDRESS, &[2, 0, 0, 0, 0, 1]);
        }
        self.message(16, body.as_bytes())
    }

    /// `lo` and the given ones.
    pub(super) fn links(names: &[&str]) -> Self {
        names.iter().fold(Self::default().link("lo"), |dump, name| dump.link(name))
    }

    /// An address `10.0.0.2/24`; `scope` and `flags` as the kernel numbers them.
    pub(super) fn address_with(self, name: &str, net: &str, scope: u8, flags: u32) -> Self {
        let net: IpNet = net.parse().unwrap();
        let family = if net.addr().is_ipv4() { 2 } else { 10 };
        let mut body = Attributes::default();
        let [a, b, c, d] = number(name).to_ne_bytes();
        body.head(&[family, net.prefix_len(), u8::try_from(flags & 0xff).unwrap(), scope, a, b, c, d]);
        body.bytes(libc::IFA_ADDRESS, &octets(net.addr()));
        if net.addr().is_ipv4() {
            body.bytes(libc::IFA_LOCAL, &octets(net.addr()));
            body.text(libc::IFA_LABEL, name);
        }
        body.bytes(libc::IFA_FLAGS, &flags.to_ne_bytes());
        body.bytes(libc::IFA_CACHEINFO, &[0x10; 16]);
        self.message(20, body.as_bytes())
    }

    pub(super) fn address(self, name: &str, net: &str) -> Self {
        let link_local = net.starts_with("fe80") || net.starts_with("169.254");
        self.address_with(name, net, if link_local { 253 } else { 0 }, 0x80)
    }

    pub(super) fn route(self, RouteText { head, list }: RouteText) -> Self {
        let mut body = head.to_vec();
        body.extend(list.as_bytes());
        self.message(24, &body)
    }

    /// `default` or a prefix, `via` a gateway or none.
    pub(super) fn via(self, to: &str, via: Option<&str>, name: &str) -> Self {
        let family = if via.unwrap_or(to).contains(':') { 10 } else { 2 };
        let route = RouteText::new(family, to);
        self.route(match via {
            Some(gateway) => route.gateway(gateway).interface(name),
            None => route.interface(name),
        })
    }

    /// A next hop object: of a hop, or of a group of `(number, weight less one)`.
    pub(super) fn nexthop(self, id: u32, via: Option<(&str, &str)>, group: &[(u32, u8)]) -> Self {
        let mut body = Attributes::default();
        body.head(&[2, 0, 0, 0, 0, 0, 0, 0]);
        body.bytes(1, &id.to_ne_bytes());
        if let Some((gateway, name)) = via {
            body.bytes(5, &number(name).to_ne_bytes());
            body.bytes(6, &octets(gateway.parse().unwrap()));
        }
        if !group.is_empty() {
            let members = group.iter().flat_map(|(id, weight)| {
                let [a, b, c, d] = id.to_ne_bytes();
                [a, b, c, d, *weight, 0, 0, 0]
            });
            body.bytes(2, &members.collect::<Vec<u8>>());
        }
        self.message(104, body.as_bytes())
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        Snapshot::from_messages(&self.0)
    }

    /// What follows from it, in words: interface, addresses and gateway of each family.
    pub(super) fn template(&self, wishes: &Wishes) -> Template {
        Template::choose(&self.snapshot(), wishes).unwrap()
    }

    /// The addresses and routes of the plan, in words.
    pub(super) fn planned(&self, wishes: &Wishes) -> Vec<String> {
        words(&plan(&self.template(wishes), Device { mtu: Some(Mtu::ETHERNET), mac: None }))
    }
}

impl RouteText {
    pub(super) fn new(family: u8, to: &str) -> Self {
        let mut head = [family, 0, 0, 0, 254, 4, 0, 1, 0, 0, 0, 0];
        let mut list = Attributes::default();
        if to != "default" {
            let net: IpNet = to.parse().unwrap();
            head[1] = net.prefix_len();
            list.bytes(libc::RTA_DST, &octets(net.addr()));
        }
        list.bytes(libc::RTA_TABLE, &254_u32.to_ne_bytes());
        Self { head, list }
    }

    pub(super) fn gateway(self, gateway: &str) -> Self {
        self.bytes(libc::RTA_GATEWAY, &octets(gateway.parse().unwrap()))
    }

    pub(super) fn interface(self, name: &str) -> Self {
        self.number(libc::RTA_OIF, number(name))
    }

    pub(super) fn number(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_ne_bytes())
    }

    pub(super) fn bytes(mut self, kind: u16, value: &[u8]) -> Self {
        self.list.bytes(kind, value);
        self
    }

    pub(super) fn table(mut self, table: u8) -> Self {
        self.head[4] = table;
        let mut list = Attributes::default();
        for (kind, value) in attributes(self.list.as_bytes()) {
            let table = u32::from(table).to_ne_bytes();
            list.bytes(kind, if kind == libc::RTA_TABLE { &table } else { value });
        }
        self.list = list;
        self
    }

    pub(super) fn scope(mut self, scope: u8) -> Self {
        self.head[6] = scope;
        self
    }

    pub(super) fn flags(mut self, flags: u32) -> Self {
        self.head[8..].copy_from_slice(&flags.to_ne_bytes());
        self
    }

    /// Hops: gateway, interface, flags.
    pub(super) fn multipath(self, hops: &[(&str, &str, u8)]) -> Self {
        let mut value = Vec::new();
        for (gateway, name, flags) in hops {
            let mut list = Attributes::default();
            list.bytes(libc::RTA_GATEWAY, &octets(gateway.parse().unwrap()));
            value.extend(u16::try_from(8 + list.as_bytes().len()).unwrap().to_ne_bytes());
            value.extend([*flags, 2]);
            value.extend(number(name).to_ne_bytes());
            value.extend(list.as_bytes());
        }
        self.bytes(libc::RTA_MULTIPATH, &value)
    }
}

pub(super) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// Addresses and routes of a plan; `dev7` is the guest's interface.
pub(super) fn words(steps: &[Op]) -> Vec<String> {
    let changes = steps.iter().filter_map(|step| match step {
        Op::Address(change) | Op::Route(change) => Some(change),
        _ => None,
    });
    changes.map(in_words).collect()
}

/// Steps of a change, each with what it does.
pub(super) fn deeds(steps: &[Op]) -> Vec<String> {
    let deed = |step: &Op| match step {
        Op::Address(change) | Op::Route(change) => format!("add {}", in_words(change)),
        Op::Deprecate(change) => format!("deprecate {}", in_words(change)),
        Op::RemoveAddress(change) | Op::RemoveRoute(change) => format!("remove {}", in_words(change)),
        Op::PromoteSecondaries => "promote".to_owned(),
        Op::Settled => "settled".to_owned(),
        other => format!("{other:?}"),
    };
    steps.iter().map(deed).collect()
}

fn in_words(change: &Change) -> String {
    let body = change.body(7);
    let mut text = change.to_string();
    let word = |value: &[u8]| u32::from_ne_bytes(value.try_into().unwrap());
    if text.starts_with("the address") {
        write!(text, " dev{} scope {}", word(&body[4..8]), body[3]).unwrap();
        for (kind, value) in attributes(&body[8..]) {
            match kind {
                libc::IFA_FLAGS => write!(text, " flags {:x}", word(value)).unwrap(),
                libc::IFA_ADDRESS | libc::IFA_LOCAL | libc::IFA_BROADCAST => {}
                _ => write!(text, " {kind}").unwrap(),
            }
        }
        return text;
    }
    let flags = word(&body[8..12]);
    if flags != 0 {
        write!(text, " flags {flags:x}").unwrap();
    }
    if body[6] != 0 {
        write!(text, " scope {}", body[6]).unwrap();
    }
    for (kind, value) in attributes(&body[12..]) {
        match kind {
            libc::RTA_OIF => write!(text, " dev{}", word(value)).unwrap(),
            libc::RTA_MULTIPATH => text.push_str(&hops(value)),
            libc::RTA_PREFSRC => write!(text, " src {}", ip(value)).unwrap(),
            rta::VIA => write!(text, " via {}", ip(&value[2..])).unwrap(),
            libc::RTA_DST | libc::RTA_TABLE | libc::RTA_GATEWAY | libc::RTA_PRIORITY => {}
            _ => write!(text, " +{kind}").unwrap(),
        }
    }
    text
}

fn hops(mut rest: &[u8]) -> String {
    let mut text = String::new();
    while let [low, high, flags, weight, a, b, c, d, ..] = *rest {
        let length = usize::from(u16::from_ne_bytes([low, high]));
        write!(text, " [dev{} weight {}", u32::from_ne_bytes([a, b, c, d]), u16::from(weight) + 1).unwrap();
        if flags != 0 {
            write!(text, " flags {flags:x}").unwrap();
        }
        for (kind, value) in attributes(&rest[8..length]) {
            match kind {
                libc::RTA_GATEWAY => write!(text, " via {}", ip(value)).unwrap(),
                _ => write!(text, " +{kind}").unwrap(),
            }
        }
        text.push(']');
        rest = &rest[length.next_multiple_of(4)..];
    }
    text
}

fn ip(value: &[u8]) -> IpAddr {
    match value.len() {
        4 => Ipv4Addr::from(<[u8; 4]>::try_from(value).unwrap()).into(),
        _ => Ipv6Addr::from(<[u8; 16]>::try_from(value).unwrap()).into(),
    }
}
