//! Lists and changes in the kernel's own bytes, for whoever copies what it does not need to understand.
//!
//! The typed readers of this folder keep what they know, and skip a message in which a codec finds anything that it
//! does not. Here each message is handed over as it came, with all its attributes, and one that is to be sent goes out
//! as it was made. A list is never held as a whole: it may have a million entries. Source: rtnetlink(7), Linux
//! `include/uapi/linux/rtnetlink.h`, `include/uapi/linux/nexthop.h`.

use super::MAIN_TABLE;
use super::netfilter::Attributes;
use super::socket::{Error, Message, Netlink, Request};
use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use nix::errno::Errno;
use nix::libc;

/// RTM_GETNEXTHOP; its entries are RTM_NEWNEXTHOP, 104. Since Linux 5.3.
const GET_NEXTHOP: u16 = 106;

/// Nobody wants the counters (RTEXT_FILTER_SKIP_STATS), which are half of a link's description.
const SKIP_STATISTICS: u32 = 1 << 3;

/// What is listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum List {
    /// Interfaces.
    Links,
    /// Addresses of both families.
    Addresses,
    /// The main table of one family. A kernel that has no such family may send the other's.
    Routes {
        /// IPv6, not IPv4.
        ipv6: bool,
    },
    /// Objects that routes may name instead of saying where they lead (ip-nexthop(8)).
    Nexthops,
}

impl List {
    fn doing(self) -> &'static str {
        match self {
            Self::Links => "list the interfaces",
            Self::Addresses => "list the addresses",
            Self::Routes { .. } => "list the routes",
            Self::Nexthops => "list the next hops",
        }
    }

    fn message(self) -> Message {
        let mut body = Attributes::default();
        let kind = match self {
            Self::Links => {
                body.head(&[0; 16]);
                body.bytes(libc::IFLA_EXT_MASK, &SKIP_STATISTICS.to_ne_bytes());
                libc::RTM_GETLINK
            }
            Self::Addresses => {
                body.head(&[0; 8]);
                libc::RTM_GETADDR
            }
            Self::Routes { ipv6 } => {
                let family = if ipv6 { libc::AF_INET6 } else { libc::AF_INET };
                let mut head = [0; 12];
                head[0] = u8::try_from(family).unwrap_or_default();
                body.head(&head);
                body.bytes(libc::RTA_TABLE, &MAIN_TABLE.to_ne_bytes());
                libc::RTM_GETROUTE
            }
            Self::Nexthops => {
                body.head(&[0; 8]);
                GET_NEXTHOP
            }
        };
        Message::Raw { kind, body: body.as_bytes().to_vec() }
    }
}

impl Netlink {
    /// Hands over each entry of a list, a whole message with its header; `add` keeps of it what it likes, and begins
    /// anew when the kernel does. A list that changes all the time is taken as it was seen the last time.
    ///
    /// # Errors
    /// The kernel's; a table that nobody uses and objects that it does not know are empty lists.
    pub(crate) fn list_raw<T: Default>(
        &mut self,
        list: List,
        add: impl FnMut(&mut T, &[u8]),
    ) -> Result<T, Error> {
        match self.dump_into(list.doing(), &list.message(), add) {
            Ok((made, whole)) => {
                if !whole {
                    log::debug!("what changes all the time: cannot {} in peace", list.doing());
                }
                Ok(made)
            }
            Err(error) => match error.errno() {
                Some(Errno::ENOENT | Errno::EOPNOTSUPP | Errno::EAFNOSUPPORT) => Ok(T::default()),
                _ => Err(error),
            },
        }
    }
}

/// A change in the kernel's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Replay {
    /// Adds an address, or renews it.
    Address,
    /// Adds a route, behind others to the same destination.
    Route,
    /// The same, unless there is any to that destination with that priority.
    OnlyRoute,
    /// Takes an address away.
    NoAddress,
    /// Takes a route away.
    NoRoute,
    /// Changes an interface.
    Link,
}

impl Request {
    /// A change whose `body` (fixed part and attributes) was made by hand; `doing` says what for.
    pub(crate) fn raw(doing: String, replay: Replay, body: Vec<u8>) -> Self {
        let (kind, flags) = match replay {
            Replay::Address => (libc::RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE),
            Replay::Route => (libc::RTM_NEWROUTE, NLM_F_CREATE | NLM_F_APPEND),
            Replay::OnlyRoute => (libc::RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL),
            Replay::NoAddress => (libc::RTM_DELADDR, 0),
            Replay::NoRoute => (libc::RTM_DELROUTE, 0),
            Replay::Link => (libc::RTM_SETLINK, 0),
        };
        Self::new(doing, Message::Raw { kind, body }, flags)
    }
}
