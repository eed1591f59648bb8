//! Names that are known here: those of containers, asked for at their gateway, before any nameserver hears of it.
//!
//! Who asks is known by the source address, but only one on the network where the query came counts: nobody has to
//! speak with the address of another network, so one that does has forged it, and sees what a stranger sees. Names that
//! we know belong to us for every type (no data, instead of a question to strangers), in any case and with or without
//! the domain that container engines append.
//!
//! From an internal network nothing is asked outside, unless a container that has another network, too, does so: it
//! would get an answer there, and gives up when the first server it asks says that there is none.

use slipway_dns::answer::{Origin, Outcome, answer_query};
use slipway_dns::message::{self, Query, Rcode, Transport};
use slipway_dns::zone::{NetworkId, Snapshot, Upstreams};
use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// The names that are seen from one network.
#[derive(Debug)]
pub struct Local {
    snapshot: Snapshot,
    network: NetworkId,
    internal: bool,
    /// The addresses of containers on this network.
    members: HashSet<IpAddr>,
}

/// Whoever knows names here, before any nameserver is asked.
pub trait Known: std::fmt::Debug {
    /// Decides about a query that `source` has sent. An answer is all that is in `out` afterwards.
    fn find<'a>(
        &'a self,
        source: IpAddr,
        transport: Transport,
        message: &[u8],
        out: &mut Vec<u8>,
    ) -> Found<'a>;
}

/// What becomes of a query.
#[derive(Debug, PartialEq, Eq)]
pub enum Found<'a> {
    /// The answer is in the buffer.
    Answer,
    /// The nameservers of the host are to be asked.
    Host,
    /// These are to be asked.
    Servers(&'a [SocketAddr]),
    /// It is no query.
    Nothing,
}

impl Local {
    /// What `snapshot` says, seen from `network`, on which `members` are the addresses of containers. With `internal`
    /// nothing is asked outside for a stranger.
    #[must_use]
    pub const fn new(
        snapshot: Snapshot,
        network: NetworkId,
        internal: bool,
        members: HashSet<IpAddr>,
    ) -> Self {
        Self { snapshot, network, internal, members }
    }
}

impl Known for Local {
    fn find<'a>(
        &'a self,
        source: IpAddr,
        transport: Transport,
        message: &[u8],
        out: &mut Vec<u8>,
    ) -> Found<'a> {
        let Ok(query) = Query::parse(message) else { return Found::Nothing };
        let member = self.members.contains(&source);
        let source = if member { source } else { IpAddr::V4(Ipv4Addr::UNSPECIFIED) };
        let origin = Origin { source, network: self.network, transport, turn: 0 };
        match answer_query(&self.snapshot, origin, &query, out) {
            Outcome::Answered(_) => Found::Answer,
            Outcome::Forward(_) if self.internal && !member => {
                message::empty(&query, Rcode::NXDOMAIN, out);
                Found::Answer
            }
            Outcome::Forward(Upstreams::Host) => Found::Host,
            Outcome::Forward(Upstreams::Listed(servers)) => Found::Servers(servers),
            Outcome::Drop(_) => Found::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use slipway_dns::config::aardvark::{Container, NetworkFile};
    use slipway_dns::zone::Settings;

    /// A query as a resolver writes it.
    fn query(name: &str, kind: u16) -> Vec<u8> {
        let mut message = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.') {
            message.push(u8::try_from(label.len()).unwrap());
            message.extend_from_slice(label.as_bytes());
        }
        message.push(0);
        message.extend_from_slice(&kind.to_be_bytes());
        message.extend_from_slice(&[0, 1]);
        message
    }

    fn network(name: &str, internal: bool, containers: Vec<Container>) -> NetworkFile {
        NetworkFile { name: name.into(), internal, listen: Vec::new(), servers: Vec::new(), containers }
    }

    fn container(name: &str, v4: &str, v6: Option<&str>) -> Container {
        Container {
            id: name.into(),
            v4: vec![v4.parse().unwrap()],
            v6: v6.map(|text| text.parse().unwrap()).into_iter().collect(),
            names: vec![name.into()],
            servers: None,
        }
    }

    /// Two networks, one of them internal, with a container on both; seen from one of them.
    fn local(seen_from: &str) -> Local {
        let mut web = container("web", "10.1.0.2", Some("fd00:1::2"));
        web.servers = Some(vec!["198.51.100.53".parse().unwrap()]);
        let outer = network("a", false, vec![web, container("db", "10.1.0.3", None)]);
        let both = vec![container("db", "10.2.0.3", None), container("vault", "10.2.0.4", None)];
        let inner = network("inner", true, both);
        let own = if seen_from == "a" { &outer } else { &inner };
        let internal = own.internal;
        let addresses = |container: &Container| {
            let v4 = container.v4.iter().copied().map(IpAddr::V4);
            v4.chain(container.v6.iter().copied().map(IpAddr::V6)).collect::<Vec<_>>()
        };
        let members = own.containers.iter().flat_map(addresses).collect();
        let settings = Settings { strict_names: true, keep_udp_size: true, ..Settings::default() };
        let mut builder = Snapshot::builder(settings);
        builder.add(outer);
        builder.add(inner);
        let snapshot = builder.build();
        let network = snapshot.network(seen_from).unwrap();
        Local::new(snapshot, network, internal, members)
    }

    /// Records in the answer and response code; or what is asked instead.
    fn asked(local: &Local, source: &str, name: &str, kind: u16) -> String {
        let mut out = Vec::new();
        match local.find(source.parse().unwrap(), Transport::Udp, &query(name, kind), &mut out) {
            Found::Answer => format!("{} answers, rcode {}", out[7], out[3] & 15),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn containers_see_the_names_of_their_networks_and_ask_the_world_for_others() {
        let a = local("a");
        for (source, name, kind, expected) in [
            ("10.1.0.2", "db", 1, "1 answers, rcode 0"),
            ("10.1.0.2", "DB.dns.podman", 1, "1 answers, rcode 0"),
            ("10.1.0.3", "web", 28, "1 answers, rcode 0"),
            ("10.1.0.3", "web", 15, "0 answers, rcode 0"),
            ("10.1.0.2", "3.0.1.10.in-addr.arpa", 12, "1 answers, rcode 0"),
            ("10.1.0.2", "nobody.dns.podman", 1, "0 answers, rcode 3"),
            ("10.1.0.2", "vault", 1, "Servers([198.51.100.53:53])"),
            ("10.1.0.3", "vault", 1, "1 answers, rcode 0"),
            ("10.1.0.3", "example.org", 1, "Host"),
            // Forged: db's address on the other network.
            ("10.2.0.3", "vault", 1, "Host"),
            ("10.1.0.99", "db", 1, "1 answers, rcode 0"),
        ] {
            assert_eq!(asked(&a, source, name, kind), expected, "{source} {name} {kind}");
        }
        assert_eq!(
            a.find("10.1.0.2".parse().unwrap(), Transport::Udp, b"no query", &mut Vec::new()),
            Found::Nothing
        );
    }

    #[test]
    fn nothing_is_asked_outside_for_an_internal_network() {
        let inner = local("inner");
        for (source, name, expected) in [
            ("10.2.0.4", "db", "1 answers, rcode 0"),
            ("10.2.0.4", "example.org", "0 answers, rcode 3"),
            ("10.2.0.99", "example.org", "0 answers, rcode 3"),
            ("10.1.0.3", "example.org", "0 answers, rcode 3"),
            ("10.2.0.3", "example.org", "Host"),
        ] {
            assert_eq!(asked(&inner, source, name, 1), expected, "{source} {name}");
        }
    }
}
