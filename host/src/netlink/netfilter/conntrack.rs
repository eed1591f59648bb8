//! The connection tracker's entries: list those of one protocol, forget one.
//!
//! An entry holds on to its address rewriting for as long as packets flow. A UDP peer that keeps sending is therefore
//! never seen by a rule that came later, and keeps being sent to a container that has gone; such entries must be
//! deleted by whoever changes the rules.
//!
//! The kernel filters the list by protocol and port (CTA_FILTER, Linux 5.8 and newer); an older one tells everything,
//! so both are looked at here again. Source: Linux `net/netfilter/nf_conntrack_netlink.c`.

use super::socket::{ListEvent, Netfilter, Request};
use super::{Attributes, attributes};
use nix::errno::Errno;
use std::net::{IpAddr, SocketAddr};

const SUBSYSTEM: u8 = 1;
const GET: u8 = 1;
const DELETE: u8 = 2;

const TUPLE_ORIG: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const ID: u16 = 12;
const ZONE: u16 = 18;
const FILTER: u16 = 25;

const TUPLE_IP: u16 = 1;
const TUPLE_PROTO: u16 = 2;
const PROTO_NUM: u16 = 1;
const PROTO_SRC_PORT: u16 = 2;
const PROTO_DST_PORT: u16 = 3;

const FILTER_ORIG_FLAGS: u16 = 1;
/// Compare the protocol's number.
const FILTER_PROTO_NUM: u32 = 1 << 3;
/// Compare the port that was asked for.
const FILTER_PROTO_DST_PORT: u32 = 1 << 5;

/// An entry: who spoke first to whom, and who answers to whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// The first packet's source and destination, as they came in.
    pub original: (SocketAddr, SocketAddr),
    /// Source and destination of the answers, after rewriting: the source is the server that really got the packets.
    pub reply: (SocketAddr, SocketAddr),
    /// What names the entry to the kernel.
    pub(super) key: Attributes,
}

impl Netfilter {
    /// The tracked connections of one protocol (an IPPROTO number) in one family, all or those to one port.
    ///
    /// The kernel walks its whole table for it, some six milliseconds for 262144 slots, and what it lists comes on top:
    /// with the port it lists hardly anything.
    ///
    /// # Errors
    /// The kernel's: EINVAL or EPROTONOSUPPORT where it has no connection tracker.
    pub fn connections(
        &mut self,
        ipv6: bool,
        protocol: u8,
        port: Option<u16>,
    ) -> Result<Vec<Connection>, Errno> {
        let mut filter = Attributes::default();
        filter.nested(TUPLE_ORIG, |list| {
            list.nested(TUPLE_PROTO, |list| {
                list.bytes(PROTO_NUM, &[protocol]);
                if let Some(port) = port {
                    list.bytes(PROTO_DST_PORT, &port.to_be_bytes());
                }
            });
        });
        let compare = FILTER_PROTO_NUM | if port.is_some() { FILTER_PROTO_DST_PORT } else { 0 };
        filter.nested(FILTER, |list| list.bytes(FILTER_ORIG_FLAGS, &compare.to_ne_bytes()));
        let wanted = |found: &Connection| port.is_none_or(|port| found.original.1.port() == port);
        let mut found = Vec::new();
        self.list(request(GET, ipv6), &filter, |event| match event {
            ListEvent::Restart => found.clear(),
            ListEvent::Entry(entry) => found.extend(connection(entry, protocol).filter(wanted)),
        })?;
        Ok(found)
    }

    /// Forgets an entry. It is no error when it has gone already.
    ///
    /// # Errors
    /// The kernel's.
    pub fn forget(&mut self, connection: &Connection) -> Result<(), Errno> {
        match self.change(request(DELETE, connection.original.0.is_ipv6()), &connection.key) {
            Err(Errno::ENOENT) => Ok(()),
            result => result,
        }
    }
}

fn request(kind: u8, ipv6: bool) -> Request {
    // NFPROTO_IPV4, NFPROTO_IPV6.
    Request { subsystem: SUBSYSTEM, kind, family: if ipv6 { 10 } else { 2 } }
}

pub(super) fn connection(entry: &[u8], protocol: u8) -> Option<Connection> {
    let mut key = Attributes::default();
    let mut original = None;
    let mut reply = None;
    for (kind, value) in attributes(entry) {
        match kind {
            TUPLE_ORIG => {
                original = Some(tuple(value, protocol)?);
                key.nested(TUPLE_ORIG, |list| list.extend(value));
            }
            TUPLE_REPLY => reply = Some(tuple(value, protocol)?),
            ID | ZONE => key.bytes(kind, value),
            _ => {}
        }
    }
    Some(Connection { original: original?, reply: reply?, key })
}

/// Source and destination; `None` for another protocol.
fn tuple(value: &[u8], protocol: u8) -> Option<(SocketAddr, SocketAddr)> {
    let (mut source, mut destination) = (None, None);
    let mut ports = (0, 0);
    for (kind, value) in attributes(value) {
        match kind {
            TUPLE_IP => {
                // CTA_IP_V4_SRC, _V4_DST, _V6_SRC, _V6_DST.
                for (kind, value) in attributes(value) {
                    match kind {
                        1 | 3 => source = address(value),
                        2 | 4 => destination = address(value),
                        _ => {}
                    }
                }
            }
            TUPLE_PROTO => {
                for (kind, value) in attributes(value) {
                    let port = value.first_chunk::<2>().map_or(0, |port| u16::from_be_bytes(*port));
                    match kind {
                        PROTO_NUM if value.first() != Some(&protocol) => return None,
                        PROTO_SRC_PORT => ports.0 = port,
                        PROTO_DST_PORT => ports.1 = port,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    Some((SocketAddr::new(source?, ports.0), SocketAddr::new(destination?, ports.1)))
}

fn address(value: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(value)
        .map(IpAddr::from)
        .or_else(|_| <[u8; 16]>::try_from(value).map(IpAddr::from))
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netns::testing::in_new_namespace;

    #[test]
    fn entries_of_any_bytes_are_refused_or_read() {
        for len in 0..80_usize {
            for fill in [0_u8, 1, 4, 255] {
                let _ = connection(&vec![fill; len], 17);
            }
        }
        let mut entry = Attributes::default();
        for kind in [TUPLE_ORIG, TUPLE_REPLY] {
            entry.nested(kind, |list| {
                list.nested(TUPLE_IP, |list| {
                    list.bytes(1, &[10, 0, 0, 1]);
                    list.bytes(2, &[10, 0, 0, 2]);
                });
                list.nested(TUPLE_PROTO, |list| {
                    list.bytes(PROTO_NUM, &[17]);
                    list.bytes(PROTO_DST_PORT, &53_u16.to_be_bytes());
                });
            });
        }
        let found = connection(entry.as_bytes(), 17).unwrap();
        assert_eq!(found.original.1, "10.0.0.2:53".parse().unwrap());
        assert_eq!(connection(entry.as_bytes(), 6), None);
    }

    #[test]
    fn the_kernel_lists_connections() {
        in_new_namespace("the_kernel_lists_connections", || {
            let mut netfilter = Netfilter::open().unwrap();
            assert_eq!(netfilter.connections(false, 17, None).unwrap(), []);
            assert_eq!(netfilter.connections(true, 17, Some(53)).unwrap(), []);
        });
    }
}
