//! The API: which path does what, for whom.
//!
//! What is asked is judged here, and carried out by the packets process ([`Errands`]); names and sockets are kept here
//! as well, names so that a long list costs no packet's time.

use super::errands::Errands;
use super::exposed::{Exposed, UNIX};
use super::http::head::{Head, clean, parameter};
use super::http::reply::Reply;
use super::http::serve::Handler;
use super::json::{self, Expose};
use super::stream::{Stream, relay};
use super::wait::Wanted;
use crate::orders::endpoint;
use crate::orders::message::{Door, Forward, Order, Reply as Answer};
use slipway_dns::config::gvproxy::{Record, Zone};
use slipway_dns::zone::suffix::Zones;
use slipway_host::clock;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::Semaphore;

/// Records that one order brings: so many are compiled in the time of a few packets.
const RECORDS: usize = 64;
/// The same of those with an expression.
const EXPRESSIONS: usize = 4;

/// What can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Endpoint {
    Forwards,
    Expose,
    Unexpose,
    Zones,
    AddZone,
    Leases,
    Stations,
    Stats,
    KeepAddress,
    WaitPort,
    Tunnel,
    Connect,
}

/// Where it is asked for, and how far in from the outside one has to stand: [`Door::Inside`] has the least.
const ROUTES: [(&str, Endpoint, Door); 13] = [
    ("/services/forwarder/all", Endpoint::Forwards, Door::Inside),
    ("/services/forwarder/expose", Endpoint::Expose, Door::Inside),
    ("/services/forwarder/unexpose", Endpoint::Unexpose, Door::Inside),
    ("/services/dns/all", Endpoint::Zones, Door::Services),
    ("/services/dns/add", Endpoint::AddZone, Door::Services),
    ("/services/dhcp/leases", Endpoint::Leases, Door::Services),
    ("/services/dhcp/add", Endpoint::KeepAddress, Door::Services),
    ("/leases", Endpoint::Leases, Door::Services),
    ("/cam", Endpoint::Stations, Door::Services),
    ("/stats", Endpoint::Stats, Door::Services),
    ("/extension/wait_port", Endpoint::WaitPort, Door::Services),
    ("/tunnel", Endpoint::Tunnel, Door::Services),
    ("/connect", Endpoint::Connect, Door::Whole),
];

/// Directories, which are written with a slash at the end; and by which doors there are any.
const DIRECTORIES: [(&str, Door); 4] = [
    ("/services", Door::Services),
    ("/services/forwarder", Door::Inside),
    ("/services/dns", Door::Services),
    ("/services/dhcp", Door::Services),
];

/// Whether what stands open at `needed` is open to those who come by `door`.
const fn is_open(door: Door, needed: Door) -> bool {
    matches!(
        (door, needed),
        (Door::Whole, _) | (Door::Services, Door::Services | Door::Inside) | (Door::Inside, Door::Inside)
    )
}

fn find(door: Door, path: &str) -> Option<Endpoint> {
    ROUTES
        .iter()
        .find(|(known, _, needed)| *known == path && is_open(door, *needed))
        .map(|(_, endpoint, _)| *endpoint)
}

/// What all connections share.
#[derive(Debug)]
pub(crate) struct Api {
    /// The way to the packets process.
    pub(crate) errands: Rc<Errands>,
    /// Sockets that lead into the network.
    pub(crate) exposed: Exposed,
    /// Names, as they are listed.
    pub(crate) zones: RefCell<Zones>,
    /// Whether guests may have sockets made on the host.
    pub(crate) all_protocols_inside: bool,
    /// Tries to reach ports that are waited for.
    pub(crate) tries: Semaphore,
}

/// The API for one connection.
#[derive(Debug)]
pub(crate) struct Caller<'a> {
    /// What is shared.
    pub(crate) api: &'a Api,
    /// Where it came in.
    pub(crate) door: Door,
    /// Who it is, as far as that is an address.
    pub(crate) address: Option<SocketAddr>,
}

fn outcome(answer: Answer) -> Reply {
    match answer {
        Answer::Done => Reply::Done,
        Answer::Failed(why) => Reply::Error(500, why),
        Answer::Dialled(_) | Answer::Open(_) => Reply::Error(500, "not asked for".to_owned()),
        Answer::Forwards(forwards) => Reply::json(&forwards),
        Answer::Leases(leases) => Reply::json(&leases.into_iter().collect::<BTreeMap<IpAddr, String>>()),
        Answer::Stations(stations) => Reply::json(&stations.into_iter().collect::<BTreeMap<String, u64>>()),
        Answer::Stats(stats) => Reply::json(&stats),
    }
}

fn failed(why: String) -> Reply {
    Reply::Error(500, why)
}

impl Api {
    async fn ask(&self, order: Order) -> Answer {
        self.errands.ask(order, None).await.0
    }

    async fn forwards(&self) -> Reply {
        match self.ask(Order::Forwards).await {
            Answer::Forwards(mut forwards) => {
                forwards.extend(self.exposed.list());
                forwards.sort_by(|a, b| (&a.local, &a.protocol).cmp(&(&b.local, &b.protocol)));
                Reply::json(&forwards)
            }
            other => outcome(other),
        }
    }

    /// Adds names here, which finds out whether they can be had, and then there, a few at a time: they come in front of
    /// those that are there, so the last ones go first.
    async fn add_zone(&self, zone: Zone) -> Reply {
        if let Err(error) = self.zones.borrow_mut().add(zone.clone()) {
            return Reply::Error(400, error.to_string());
        }
        for piece in pieces(zone) {
            match self.ask(Order::AddZone(piece)).await {
                Answer::Done => {}
                other => return outcome(other),
            }
        }
        Reply::Done
    }
}

/// A zone, to be added piece by piece.
fn pieces(mut zone: Zone) -> Vec<Zone> {
    let mut pieces = Vec::new();
    loop {
        let expressions =
            |records: &[Record]| records.iter().filter(|record| record.regexp.is_some()).count();
        let mut from = zone.records.len().saturating_sub(RECORDS);
        while zone.records.get(from..).is_some_and(|rest| expressions(rest) > EXPRESSIONS) {
            from += 1;
        }
        let records = zone.records.split_off(from);
        pieces.push(Zone { name: zone.name.clone(), records, default_ip: zone.default_ip });
        if zone.records.is_empty() {
            return pieces;
        }
    }
}

impl Caller<'_> {
    fn endpoint(&self, head: &Head) -> Option<Endpoint> {
        find(self.door, &head.path)
    }

    async fn expose(&self, body: &[u8]) -> Reply {
        let Expose { local, remote, protocol } = match json::expose(body) {
            Ok(asked) => asked,
            Err(why) => return Reply::Error(400, why),
        };
        let protocol = if protocol.is_empty() { "tcp".to_owned() } else { protocol };
        match protocol.as_str() {
            UNIX | "npipe" if !self.may_have_sockets() => {
                Reply::Error(403, format!("protocol {protocol} is not for guests"))
            }
            UNIX => self.api.exposed.expose(&local, &remote).map_or_else(failed, |()| Reply::Done),
            "npipe" => failed("named pipes are not supported by this platform".to_owned()),
            _ => match self.remote(&remote) {
                Ok(remote) => outcome(self.api.ask(Order::Expose(Forward { local, remote, protocol })).await),
                Err(why) => Reply::Error(400, why),
            },
        }
    }

    /// A guest has no business with the host's files.
    fn may_have_sockets(&self) -> bool {
        self.door != Door::Inside || self.api.all_protocols_inside
    }

    /// Where a port leads: to the caller, if no address is named.
    fn remote(&self, text: &str) -> Result<String, String> {
        let (host, port) = endpoint::split(text)?;
        if !host.is_empty() {
            return Ok(text.to_owned());
        }
        // So Go writes the address of a client that has none.
        let caller = self.address.ok_or("address @: missing port in address")?.ip();
        Ok(match caller.to_canonical() {
            IpAddr::V4(caller) => format!("{caller}:{port}"),
            IpAddr::V6(caller) => format!("[{caller}]:{port}"),
        })
    }

    async fn unexpose(&self, body: &[u8]) -> Reply {
        let Expose { local, protocol, .. } = match json::expose(body) {
            Ok(asked) => asked,
            Err(why) => return Reply::Error(400, why),
        };
        let protocol = if protocol.is_empty() { "tcp".to_owned() } else { protocol };
        if protocol != UNIX {
            return outcome(self.api.ask(Order::Unexpose { protocol, local }).await);
        }
        if !self.may_have_sockets() {
            return Reply::Error(403, format!("protocol {protocol} is not for guests"));
        }
        self.api.exposed.unexpose(&local).map_or_else(failed, |()| Reply::Done)
    }

    /// `None`: the tunnel is there; what went wrong is answered.
    fn tunnel(head: &Head) -> Result<Option<SocketAddr>, String> {
        let address = parameter(&head.query, "ip");
        if address.is_empty() {
            return Err("ip is mandatory".to_owned());
        }
        let port = parameter(&head.query, "port");
        let number: i64 = port.parse().map_err(|error: core::num::ParseIntError| {
            let what = match error.kind() {
                core::num::IntErrorKind::PosOverflow | core::num::IntErrorKind::NegOverflow => {
                    "value out of range"
                }
                _ => "invalid syntax",
            };
            format!("strconv.Atoi: parsing {port:?}: {what}")
        })?;
        let place = address.parse().ok().zip(u16::try_from(number).ok());
        Ok(place.map(|(address, port): (IpAddr, u16)| SocketAddr::new(address, port)))
    }
}

impl Handler for Caller<'_> {
    fn takes(&self, head: &Head) -> bool {
        match self.endpoint(head) {
            Some(Endpoint::Connect) => true,
            Some(Endpoint::Tunnel) => Self::tunnel(head).is_ok(),
            Some(Endpoint::WaitPort) => Wanted::parse(&head.query).is_ok(),
            _ => false,
        }
    }

    async fn take(&self, head: &Head, mut stream: Stream, first: Vec<u8>) {
        if self.endpoint(head) == Some(Endpoint::Connect) {
            let order = Order::Join { first, fast: head.fast };
            let (answer, _) = self.api.errands.ask(order, Some(stream.into_fd())).await;
            if let Answer::Failed(why) = answer {
                log::warn!("a guest cannot join: {why}");
            }
            return;
        }
        if let Ok(wanted) = Wanted::parse(&head.query)
            && self.endpoint(head) == Some(Endpoint::WaitPort)
        {
            let reply = tokio::select! {
                reply = wanted.wait(&self.api.errands, &self.api.tries) => reply,
                () = stream.closed() => return,
            };
            // The client may have gone away.
            let _ = stream.write_all(&reply.bytes(head, true, clock::since_1970())).await;
            return;
        }
        // The client is told before the guest is asked; what comes of that it sees by the connection.
        if stream.write_all(b"OK").await.is_err() {
            return;
        }
        let Ok(Some(guest)) = Self::tunnel(head) else { return };
        let Some(mut peer) = self.api.errands.dial(guest).await else { return };
        if peer.write_all(&first).await.is_ok() {
            relay(stream, peer).await;
        }
    }

    async fn answer(&self, head: &Head, body: &[u8]) -> Reply {
        let cleaned = clean(&head.path);
        let query = if head.query.is_empty() { String::new() } else { format!("?{}", head.query) };
        if cleaned != head.path && head.method != "CONNECT" {
            return Reply::Moved(format!("{cleaned}{query}"));
        }
        let is_directory = |(path, needed): &(&str, Door)| *path == head.path && is_open(self.door, *needed);
        if DIRECTORIES.iter().any(is_directory) {
            return Reply::Moved(format!("{cleaned}/{query}"));
        }
        let Some(endpoint) = self.endpoint(head) else { return Reply::not_found() };
        let changes = matches!(
            endpoint,
            Endpoint::Expose | Endpoint::Unexpose | Endpoint::AddZone | Endpoint::KeepAddress
        );
        if changes && head.method != "POST" {
            return Reply::Error(400, "post only".to_owned());
        }
        match endpoint {
            Endpoint::Forwards => self.api.forwards().await,
            Endpoint::Expose => self.expose(body).await,
            Endpoint::Unexpose => self.unexpose(body).await,
            Endpoint::Zones => Reply::json(&json::Zones(self.api.zones.borrow().list().collect())),
            Endpoint::AddZone => match json::zone(body) {
                Ok(zone) => self.api.add_zone(zone).await,
                Err(why) => Reply::Error(400, why),
            },
            Endpoint::Leases => outcome(self.api.ask(Order::Leases).await),
            Endpoint::KeepAddress => match json::lease(body) {
                Ok((ip, mac)) => outcome(self.api.ask(Order::Keep { ip, mac }).await),
                Err(why) => Reply::Error(400, why),
            },
            Endpoint::Stations => outcome(self.api.ask(Order::Stations).await),
            Endpoint::Stats => outcome(self.api.ask(Order::Stats).await),
            // Good ones of these two have been taken.
            Endpoint::WaitPort => {
                Wanted::parse(&head.query).err().map_or_else(Reply::not_found, |why| Reply::Error(400, why))
            }
            Endpoint::Tunnel => Self::tunnel(head).err().map_or_else(Reply::not_found, failed),
            Endpoint::Connect => Reply::not_found(),
        }
    }
}
