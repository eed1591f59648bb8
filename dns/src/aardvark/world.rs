//! What answers depend on: the snapshot, the host's servers, and the counters that go with them.

use super::args::Options;
use super::counters::AllCounters;
use super::logging::ASKED_FOR;
use super::rotation::Rotation;
use crate::answer::{Origin, Outcome, answer_query};
use crate::config::resolv_conf::{self, ResolvConf};
use crate::forward;
use crate::io::conversation::Verdict;
use crate::message::{Query, Rcode, Transport};
use crate::zone::{NetworkId, Order, Settings, Snapshot, Upstreams};
use nix::errno::Errno;
use slipway_host::resolv_conf::read_bounded;
use slipway_host::scope::Zone;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

/// What answers depend on.
#[derive(Debug, Default)]
pub(super) struct World {
    snapshot: Snapshot,
    counters: AllCounters,
    host: Vec<SocketAddr>,
    rotation: Rotation,
    /// Whether each query is a line in the log.
    pub(super) log_queries: bool,
}

/// Who asks, and where.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asker {
    pub(super) source: IpAddr,
    pub(super) network: NetworkId,
    pub(super) transport: Transport,
}

/// What the command line says about answers.
pub(super) fn settings(options: &Options) -> Settings {
    Settings {
        filter_domain: options.domain.clone(),
        forwarding: !options.no_proxy,
        strict_names: options.strict_names,
        order: if options.rotate { Order::Rotated } else { Order::Listed },
        ..Settings::default()
    }
}

impl World {
    /// Nothing is known yet.
    pub(super) fn new(log_queries: bool) -> Self {
        Self { log_queries, ..Self::default() }
    }

    pub(super) fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// Takes a new snapshot and tells how to find an old network in it.
    pub(super) fn replace(&mut self, fresh: Snapshot) -> impl Fn(NetworkId) -> Option<NetworkId> + '_ {
        self.counters = self.counters.carry_over(&self.snapshot, &fresh);
        let old = std::mem::replace(&mut self.snapshot, fresh);
        let mut now_called = vec![None; old.networks().count()];
        for ((id, network), place) in old.networks().zip(&mut now_called) {
            debug_assert!(old.network(network.name()) == Some(id));
            *place = self.snapshot.network(network.name());
        }
        move |id| now_called.get(id.index()).copied().flatten()
    }

    /// The servers of the host. Whether they are others than before.
    pub(super) fn set_host(&mut self, servers: Vec<SocketAddr>) -> bool {
        let changed = servers != self.host;
        if changed {
            log::debug!("upstream servers of the host: {servers:?}");
            self.host = servers;
        }
        changed
    }

    /// Writes the counters.
    pub(super) fn report(&self, forwarder: &forward::Counters, file: Option<&Path>) {
        self.counters.report(&self.snapshot, forwarder, file);
    }

    /// Decides about a message. `forward` is told the servers, if it is to be asked upstream.
    pub(super) fn decide(
        &mut self,
        asker: Asker,
        message: &[u8],
        out: &mut Vec<u8>,
        forward: impl FnOnce(&[SocketAddr]),
    ) -> Verdict {
        let Asker { source, network, transport } = asker;
        let Self { snapshot, counters, host, rotation, log_queries } = self;
        let Some(counters) = counters.of(network) else { return Verdict::Close };
        match transport {
            Transport::Udp => counters.udp += 1,
            Transport::Tcp => counters.tcp += 1,
        }
        let query = match Query::parse(message) {
            Ok(query) => query,
            Err(malformed) => {
                counters.malformed += 1;
                log::debug!("{source}: {malformed}");
                return Verdict::Close;
            }
        };
        let rotated = snapshot.settings().order == Order::Rotated;
        let turn = if rotated { rotation.next(&query) } else { 0 };
        let origin = Origin { source, network, transport, turn };
        let (verdict, said) = match answer_query(snapshot, origin, &query, out) {
            Outcome::Answered(rcode) => {
                counters.local.add(rcode);
                (Verdict::Answered, Said::Rcode(rcode))
            }
            Outcome::Forward(upstreams) => {
                let servers = match upstreams {
                    Upstreams::Host => host.as_slice(),
                    Upstreams::Listed(servers) => servers,
                };
                forward(servers);
                counters.forwarded += 1;
                (Verdict::Later, Said::Word("forwarded"))
            }
            Outcome::Drop(_) => (Verdict::Close, Said::Word("dropped")),
        };
        if *log_queries {
            let (name, kind) = (query.name(), query.record_type());
            log::info!(target: ASKED_FOR, "query from {source}: {name} {kind}: {said}");
        }
        verdict
    }

    /// What was forwarded has come to its end, with this message or with none.
    pub(super) fn finished(&mut self, network: NetworkId, reply: Option<&[u8]>) {
        let Some(counters) = self.counters.of(network) else { return };
        match reply {
            Some(reply) => counters.relayed.add(Rcode(reply.get(3).map_or(0, |flags| flags & 0x0f))),
            None => counters.unanswered += 1,
        }
    }
}

/// What the query log says.
enum Said {
    Rcode(Rcode),
    Word(&'static str),
}

impl std::fmt::Display for Said {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Rcode(rcode) => rcode.fmt(f),
            Self::Word(word) => f.write_str(word),
        }
    }
}

/// Why the host's servers are not known. The texts reach the user.
#[derive(Debug, thiserror::Error)]
pub(super) enum HostError {
    #[error("open resolv.conf: IO error: {0}")]
    Open(io::Error),
}

/// The number of an interface; by a way that the sandbox leaves open.
fn interface(name: &str) -> Result<u32, Errno> {
    Zone::new(name).ok_or(Errno::ENODEV)?.index()
}

/// The host's servers. A line that makes no sense is told and left out; so is a server whose interface is not here (the
/// file was written for another network namespace): it could not be reached, and the others can.
pub(super) fn host_servers(path: &Path) -> Result<Vec<SocketAddr>, HostError> {
    let text = read_bounded(path).map_err(HostError::Open)?;
    let ResolvConf { servers, skipped } = resolv_conf::parse(&String::from_utf8_lossy(&text));
    for error in skipped {
        log::warn!("{}: a nameserver is passed over: {error}", path.display());
    }
    let resolved = servers.iter().filter_map(|server| match server.resolve(interface) {
        Ok(address) => Some(address),
        Err(errno) => {
            let zone = server.zone.as_deref().unwrap_or_default();
            log::warn!("nameserver {}%{zone} is left out: {}", server.address, errno.desc());
            None
        }
    });
    Ok(resolved.collect())
}
