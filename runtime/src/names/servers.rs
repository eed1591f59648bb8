//! The nameservers, as the forwarder knows them and as they can be reached.
//!
//! A link-local nameserver is reached on the interface that has its name at that moment: interfaces come and go, and
//! one that came back has another number. So the forwarder, which remembers servers by their address, is shown one that
//! does not change, whose scope is the server's place in our list; the interface is looked up for each attempt.

use slipway_dns::config::resolv_conf::PORT;
use slipway_host::scope::{Endpoint, ZonedAddr};
use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};

/// The nameservers to ask, most preferred first.
#[derive(Debug, Default)]
pub(super) struct Servers {
    given: Vec<ZonedAddr>,
    known: Vec<SocketAddr>,
}

impl Servers {
    pub(super) fn new(given: &[ZonedAddr]) -> Self {
        let known = |(place, server): (u32, &ZonedAddr)| match (server.ip(), server.zone()) {
            (IpAddr::V6(ip), Some(_)) => SocketAddrV6::new(ip, PORT, 0, place).into(),
            (ip, _) => SocketAddr::new(ip, PORT),
        };
        Self { given: given.to_vec(), known: (1..).zip(given).map(known).collect() }
    }

    /// For the forwarder.
    pub(super) fn known(&self) -> &[SocketAddr] {
        &self.known
    }

    /// Those that cannot be reached as things are, and why.
    pub(super) fn out_of_reach(&self) -> impl Iterator<Item = (ZonedAddr, io::Error)> {
        let errors = self.given.iter().map(|server| (*server, server.socket_addr(PORT)));
        errors.filter_map(|(server, at)| at.err().map(|errno| (server, errno.into())))
    }

    /// Where `server`, one of those known, is now.
    ///
    /// # Errors
    /// Its interface is not there, or the list has changed since.
    pub(super) fn find(&self, server: SocketAddr) -> io::Result<SocketAddr> {
        match server {
            SocketAddr::V6(at) if at.scope_id() > 0 => {
                let given = self.given(&at).ok_or(io::ErrorKind::NotFound)?;
                Ok(given.socket_addr(PORT)?)
            }
            _ => Ok(server),
        }
    }

    /// As it was given, for messages.
    pub(super) fn name(&self, server: SocketAddr) -> Endpoint {
        match server {
            SocketAddr::V6(at) => self.given(&at).map(|address| Endpoint { address, port: PORT }),
            SocketAddr::V4(_) => None,
        }
        .unwrap_or_else(|| server.into())
    }

    /// What stands at the place that the scope of `server` means.
    fn given(&self, server: &SocketAddrV6) -> Option<ZonedAddr> {
        let place = usize::try_from(server.scope_id().checked_sub(1)?).ok()?;
        self.given.get(place).copied().filter(|given| given.ip() == *server.ip())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_on_a_link_is_found_by_its_place() {
        let given =
            ["192.0.2.1", "fe80::1%lo", "fe80::1%no-such-one", "2001:db8::1"].map(|s| s.parse().unwrap());
        let servers = Servers::new(&given);
        let known: Vec<String> = servers.known().iter().map(ToString::to_string).collect();
        assert_eq!(known, ["192.0.2.1:53", "[fe80::1%2]:53", "[fe80::1%3]:53", "[2001:db8::1]:53"]);
        let [v4, lo, nope, v6] = *servers.known() else { panic!("{known:?}") };
        assert_eq!((servers.find(v4).unwrap(), servers.find(v6).unwrap()), (v4, v6));
        assert_eq!(servers.name(lo).to_string(), "[fe80::1%lo]:53");
        assert_eq!(servers.name(v4).to_string(), "192.0.2.1:53");
        if let Ok(at) = servers.find(lo) {
            assert_eq!(at.to_string(), "[fe80::1%1]:53");
            let gone: Vec<String> = servers.out_of_reach().map(|(server, _)| server.to_string()).collect();
            assert_eq!(gone, ["fe80::1%no-such-one"]);
        }
        assert!(servers.find(nope).is_err());
        // Of an older list.
        let fewer = Servers::new(&given[..1]);
        assert!(fewer.find(lo).is_err());
        assert_eq!(fewer.name(v4).to_string(), "192.0.2.1:53");
    }
}
