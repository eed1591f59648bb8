//! A list of things that can happen to an engine, in any order.

use super::frames::FrameSpec;
use super::{BUDGET, afford};
use crate::raw_guest::RawGuest;
use crate::upstream::tcp::Script;
use crate::world::World;
use arbitrary::{Arbitrary, Unstructured};
use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use core::time::Duration;
use slipway_netstack::FlowId;
use slipway_netstack::device::Offload;
use slipway_netstack::device::vnet::HEADER_LEN;
use slipway_netstack::upstream::{DatagramError, Errno, Event, Meta};

#[derive(Debug, Arbitrary)]
enum Action {
    Frame(Box<FrameSpec>),
    Bytes {
        header: [u8; HEADER_LEN],
        bytes: Vec<u8>,
    },
    /// Milliseconds, squared: from nothing to more than an hour.
    Wait(u16),
    Server {
        conn: u8,
        what: Server,
    },
    Host {
        flow: u8,
        what: HostNews,
    },
    AcceptTcp {
        from: u8,
        port: u8,
        v6: bool,
    },
    AcceptUdp {
        from: u8,
        port: u8,
        v6: bool,
        payload: Vec<u8>,
        segment: u8,
    },
    RefuseNext(Error),
    /// To a query that waits, if one does.
    DnsAnswer(Vec<u8>),
    SilentNeighbour(bool),
}

#[derive(Debug, Arbitrary)]
enum Server {
    Send(u16),
    Finish,
    Reset,
    Stall(bool),
    Break(Error),
}

#[derive(Debug, Arbitrary)]
enum HostNews {
    Stale(u8),
    Datagram { from: [u8; 4], port: u16, len: u16, hops: u8 },
    Error { error: Error, reporter: [u8; 4], kind: u8, code: u8 },
}

#[derive(Debug, Clone, Copy, Arbitrary)]
enum Error {
    Refused,
    Reset,
    TimedOut,
    HostUnreachable,
    NetUnreachable,
    Prohibited,
    TooBig(u16),
    Exhausted,
    Other,
}

impl From<Error> for Errno {
    fn from(error: Error) -> Self {
        match error {
            Error::Refused => Self::Refused,
            Error::Reset => Self::Reset,
            Error::TimedOut => Self::TimedOut,
            Error::HostUnreachable => Self::HostUnreachable,
            Error::NetUnreachable => Self::NetUnreachable,
            Error::Prohibited => Self::Prohibited,
            Error::TooBig(mtu) => Self::TooBig { mtu },
            Error::Exhausted => Self::Exhausted,
            Error::Other => Self::Other,
        }
    }
}

/// A list of things that can happen: frames built layer by layer, host events, rules, time.
pub fn engine_actions(data: &[u8]) {
    let mut world = super::world();
    let mut input = Unstructured::new(data);
    let mut budget = BUDGET;
    for _ in 0..200 {
        if input.is_empty() {
            break;
        }
        let Ok(action) = Action::arbitrary(&mut input) else { break };
        act(&mut world, action, &mut budget);
        world.run_for(Duration::from_millis(1));
        world.guest.take();
        world.host.take_datagrams();
    }
    super::run(&mut world);
}

fn act(world: &mut World<RawGuest>, action: Action, budget: &mut usize) {
    match action {
        Action::Frame(spec) => {
            let (offload, frame) = spec.build();
            world.guest.send_frame(offload, frame);
        }
        Action::Bytes { header, bytes } => {
            if let Some(offload) = Offload::parse(&header) {
                world.guest.send_frame(offload, bytes);
            }
        }
        Action::Wait(root) => {
            world.run_for(Duration::from_millis(u64::from(root) * u64::from(root) / 1000));
        }
        Action::Server { conn, what } => server(world, usize::from(conn), &what, budget),
        Action::Host { flow, what } => host(world, usize::from(flow), &what, budget),
        Action::AcceptTcp { from, port, v6 } => {
            let (from, to) = ends(from, port, v6);
            // Nothing to do when the engine has no room for it.
            let _ = world.accept_tcp(&from, &to, Script::echo());
        }
        Action::AcceptUdp { from, port, v6, payload, segment } => {
            let (from, to) = ends(from, port, v6);
            let segment = usize::from(segment).clamp(usize::from(!payload.is_empty()), payload.len());
            let _ = world.accept_udp(&from, &to, &payload, segment);
        }
        Action::RefuseNext(error) => world.host.refuse_next(error.into()),
        Action::DnsAnswer(message) => {
            if let Some(query) = world.engine.dns_query() {
                world.engine.dns_answer(&query.asker, &message);
            }
        }
        Action::SilentNeighbour(silent) => world.guest.answers = !silent,
    }
}

fn ends(from: u8, port: u8, v6: bool) -> (String, String) {
    let port = 1 + u16::from(port);
    if v6 {
        (format!("[2001:db8::{from}]:{port}"), format!("[fd00::64]:{}", 40_000 + port % 16))
    } else {
        // From 127.0.0.1 as well.
        let net = if from.is_multiple_of(2) { "127.0.0" } else { "192.0.2" };
        (format!("{net}.{from}:{port}"), format!("10.0.2.100:{}", 40_000 + port % 16))
    }
}

fn server(world: &mut World<RawGuest>, conn: usize, what: &Server, budget: &mut usize) {
    let count = world.host.peers().count();
    if count == 0 {
        return;
    }
    let conn = conn % count;
    match what {
        Server::Send(len) => world.host.peer_send(conn, &vec![7; afford(budget, *len)], false),
        Server::Finish => world.host.peer_send(conn, &[], true),
        Server::Reset => world.host.peer_reset(conn),
        Server::Stall(stall) => world.host.peer_stall(conn, *stall),
        Server::Break(error) => world.host.break_connection(conn, (*error).into()),
    }
}

fn host(world: &mut World<RawGuest>, flow: usize, what: &HostNews, budget: &mut usize) {
    let datagram_flows: Vec<FlowId> = world.host.datagram_flows().collect();
    match what {
        HostNews::Stale(n) => {
            let event = match n % 4 {
                0 => Event::Readable,
                1 => Event::Connected,
                2 => Event::Failed(Errno::Other),
                _ => Event::Error,
            };
            let stale = FlowId::new(u32::from(*n), 0x00ab_cdef);
            let now = world.now();
            world.engine.on_upstream(now, stale, event, &mut world.host);
        }
        _ if datagram_flows.is_empty() => {}
        HostNews::Datagram { from, port, len, hops } => {
            let from = SocketAddr::new(Ipv4Addr::from(*from).into(), *port);
            let meta = Meta { hops: *hops, traffic_class: *hops, ..Meta::default() };
            let flow = datagram_flows[flow % datagram_flows.len()];
            world.host.inject_datagram(flow, from, &vec![9; afford(budget, *len)], meta);
        }
        HostNews::Error { error, reporter, kind, code } => {
            let to = SocketAddr::new(Ipv4Addr::new(192, 0, 2, 1).into(), 80);
            let reporter = Some(IpAddr::from(*reporter));
            let error = DatagramError {
                to,
                error: (*error).into(),
                reporter,
                icmp: Some((*kind, *code)),
                sequence: None,
            };
            let flow = datagram_flows[flow % datagram_flows.len()];
            world.host.inject_error(flow, error);
        }
    }
}
