//! What the containers of a network are answered: the names of the supervisor's records, made into a snapshot for the
//! resolver.

use super::records::Records;
use slipway_dns::config::aardvark::{Container, NetworkFile};
use slipway_dns::zone::{Settings, Snapshot};
use slipway_runtime::names::Local;

/// What `records` say, seen from `network`; `None` if they do not know that.
#[must_use]
pub fn local(records: &Records, network: &str) -> Option<Local> {
    let own = records.network(network)?;
    let settings = Settings { strict_names: true, keep_udp_size: true, ..Settings::default() };
    let mut builder = Snapshot::builder(settings);
    for entry in records.networks().filter(|entry| entry.network.dns) {
        let of = &entry.network;
        builder.add(NetworkFile {
            name: of.id.clone(),
            internal: of.internal,
            listen: Vec::new(),
            servers: of.servers.clone(),
            containers: entry
                .containers()
                .map(|container| Container {
                    id: container.id.clone(),
                    v4: container.v4.clone(),
                    v6: container.v6.clone(),
                    names: container.names.clone(),
                    servers: container.servers.clone(),
                })
                .collect(),
        });
    }
    let snapshot = builder.build();
    let members = own.containers().flat_map(|container| container.addresses()).collect();
    let id = snapshot.network(network)?;
    Some(Local::new(snapshot, id, own.network.internal, members))
}

#[cfg(test)]
mod tests {
    use super::super::records::tests::{container, network};
    use super::*;
    use slipway_dns::message::Transport;
    use slipway_runtime::names::{Found, Known as _};

    /// A query for an IPv4 address, as a resolver writes it.
    fn query(name: &str) -> Vec<u8> {
        let mut message = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        message.push(u8::try_from(name.len()).unwrap());
        message.extend_from_slice(name.as_bytes());
        message.extend_from_slice(&[0, 0, 1, 0, 1]);
        message
    }

    /// Addresses in the answer and response code; or what is asked instead.
    fn asked(local: &Local, source: &str, name: &str) -> String {
        let mut out = Vec::new();
        match local.find(source.parse().unwrap(), Transport::Udp, &query(name), &mut out) {
            Found::Answer => format!("{} answers, rcode {}", out[7], out[3] & 15),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn records_are_told_as_each_network_sees_them() {
        let mut records = Records::default();
        let mut web = container("web", &["10.1.0.2", "fd00:1::2"]);
        web.servers = Some(vec!["198.51.100.53".parse().unwrap()]);
        let a = network("a", "10.1.0.0/24", "10.1.0.1", false);
        let inner = network("inner", "10.2.0.0/24", "10.2.0.1", true);
        records.join(a.clone(), web);
        records.join(a, container("db", &["10.1.0.3"]));
        records.join(inner.clone(), container("db", &["10.2.0.3"]));
        records.join(inner, container("vault", &["10.2.0.4"]));
        let seen = local(&records, "a").unwrap();
        assert_eq!(asked(&seen, "10.1.0.2", "db"), "1 answers, rcode 0");
        assert_eq!(asked(&seen, "10.1.0.2", "vault"), "Servers([198.51.100.53:53])");
        assert_eq!(asked(&seen, "10.1.0.3", "vault"), "1 answers, rcode 0");
        // Internal, and the source is on no other network.
        let seen = local(&records, "inner").unwrap();
        assert_eq!(asked(&seen, "10.2.0.4", "elsewhere"), "0 answers, rcode 3");
        assert_eq!(asked(&seen, "10.2.0.3", "elsewhere"), "Host");
        assert!(local(&records, "nope").is_none());
    }

    #[test]
    fn a_network_without_names_tells_none() {
        let mut records = Records::default();
        let mut quiet = network("q", "10.1.0.0/24", "10.1.0.1", false);
        quiet.dns = false;
        records.join(quiet, container("db", &["10.1.0.3"]));
        assert!(local(&records, "q").is_none());
    }
}
