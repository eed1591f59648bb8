use super::*;
use crate::orders::fake::Fake;
use crate::orders::message::Forward;
use slipway_dns::config::gvproxy::Record;
use slipway_portfwd::rule::Proto;
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;

fn desk() -> (Desk, Line) {
    let (ours, theirs) = Line::pair().unwrap();
    (Desk::new(Some(ours)), theirs)
}

/// What the desk says to an order.
fn ask(
    (desk, line): &mut (Desk, Line),
    network: &mut Fake,
    order: Order,
    descriptor: Option<OwnedFd>,
) -> (Reply, Option<OwnedFd>) {
    line.push(&Request { number: 41, order }, descriptor).unwrap();
    line.flush().unwrap();
    assert!(matches!(desk.on_ready(network), Standing::Up));
    assert!(line.fill(1 << 16).unwrap());
    let Arrived { message, descriptor } = line.receive::<Word>().unwrap().unwrap();
    let Word::Reply { number: 41, reply } = message else { panic!("{message:?}") };
    (reply, descriptor)
}

fn forward(protocol: &str, local: &str, remote: &str) -> Forward {
    Forward { local: local.into(), remote: remote.into(), protocol: protocol.into() }
}

#[test]
fn ports_are_exposed_listed_and_taken_back() {
    let (mut desk, mut network) = (desk(), Fake::default());
    let mut order = |network: &mut Fake, order| ask(&mut desk, network, order, None).0;
    let failed = |words: &str| Reply::Failed(words.to_owned());
    let web = forward("tcp", ":8080", "192.168.127.2:80");
    let names = forward("udp", "127.0.0.1:53", "[fd00::2]:53");
    assert_eq!(order(&mut network, Order::Expose(web.clone())), Reply::Done);
    assert_eq!(
        order(&mut network, Order::Expose(web.clone())),
        failed("proxy already running for tcp on :8080")
    );
    let (_, rule) = network.rules[0];
    assert!(rule.proto() == Proto::Tcp && rule.dual() && rule.target() == "192.168.127.2".parse().ok());
    assert!(matches!(order(&mut network, Order::Expose(names)), Reply::Failed(_)), "two families over UDP");
    let names = forward("udp", ":53", "192.168.127.2:53");
    assert_eq!(order(&mut network, Order::Expose(names.clone())), Reply::Done);
    assert_eq!(order(&mut network, Order::Forwards), Reply::Forwards(vec![names.clone(), web]));
    let unexpose = |protocol: &str, local: &str| Order::Unexpose {
        protocol: protocol.to_owned(),
        local: local.to_owned(),
    };
    assert_eq!(order(&mut network, unexpose("tcp", ":8080")), Reply::Done);
    assert_eq!(order(&mut network, unexpose("tcp", ":8080")), failed("proxy not found"));
    assert_eq!(order(&mut network, unexpose("tcp", ":53")), failed("proxy not found"));
    assert_eq!(network.rules.len(), 1);
    for (protocol, local, remote, words) in [
        ("sctp", ":1", "1.2.3.4:1", "unknown protocol sctp"),
        ("tcp", ":1", "guest:1", "invalid remote addr"),
        ("tcp", "1", "1.2.3.4:1", "listen tcp: address 1: missing port in address"),
        ("udp", ":x", "1.2.3.4:1", "lookup udp/x: unknown port"),
    ] {
        assert_eq!(order(&mut network, Order::Expose(forward(protocol, local, remote))), failed(words));
    }
    network.busy = true;
    let taken = order(&mut network, Order::Expose(forward("tcp", "127.0.0.1:80", "1.2.3.4:80")));
    assert_eq!(taken, failed("listen tcp 127.0.0.1:80: bind: address already in use"));
    assert_eq!(order(&mut network, Order::Forwards), Reply::Forwards(vec![names]));
}

#[test]
fn what_else_is_known_is_told() {
    let (mut desk, mut network) = (desk(), Fake::default());
    let mut order = |order| ask(&mut desk, &mut network, order, None).0;
    let Reply::Leases(leases) = order(Order::Leases) else { panic!() };
    assert_eq!(leases[0], ("192.168.127.1".parse().unwrap(), "01:01:01:01:01:01".to_owned()));
    assert_eq!(leases.len(), 2);
    let Reply::Stations(stations) = order(Order::Stations) else { panic!() };
    assert_eq!(stations[0], ("02:00:00:00:00:01".to_owned(), 0));
    let Reply::Stats(stats) = order(Order::Stats) else { panic!() };
    assert_eq!(stats.bytes_sent, 7);
    let zone = Zone { name: "x.".into(), records: vec![Record::default()], default_ip: None };
    assert_eq!(order(Order::AddZone(zone.clone())), Reply::Done);
    assert_eq!(network.zones, [zone]);
}

#[test]
fn a_stream_joins_and_a_guest_is_dialled() {
    let (mut desk, mut network) = (desk(), Fake::default());
    let (guest, mut far) = UnixStream::pair().unwrap();
    let join = || Order::Join { first: vec![1, 2], fast: true };
    assert_eq!(ask(&mut desk, &mut network, join(), Some(guest.into())).0, Reply::Done);
    let (stream, first, fast) = network.joined.pop().unwrap();
    assert!(first == [1, 2] && fast);
    std::fs::File::from(stream).write_all(b"frame").unwrap();
    let mut frame = [0; 5];
    far.read_exact(&mut frame).unwrap();
    assert_eq!(&frame, b"frame");
    assert!(matches!(ask(&mut desk, &mut network, join(), None).0, Reply::Failed(_)), "no descriptor");
    let at: SocketAddr = "192.168.127.2:22".parse().unwrap();
    let (reply, stream) = ask(&mut desk, &mut network, Order::Dial(at), None);
    assert_eq!(reply, Reply::Dialled(0));
    let mut is_open = |number| ask(&mut desk, &mut network, Order::IsOpen(number), None).0;
    assert_eq!((is_open(0), is_open(1)), (Reply::Open(true), Reply::Open(false)));
    std::fs::File::from(stream.unwrap()).write_all(b"x").unwrap();
    let (guest, mut peer) = network.peers.pop().unwrap();
    peer.read_exact(&mut frame[..1]).unwrap();
    assert!(guest == at && frame[0] == b'x');
}

#[test]
fn one_that_does_not_read_costs_a_bounded_amount_of_memory() {
    let (mut desk, mut line) = desk();
    let mut network = Fake::default();
    // Orders whose replies nobody takes.
    for _ in 0..100_000 {
        let full = line.is_sending();
        line.push(&Request { number: 1, order: Order::Stats }, None).unwrap();
        line.flush().unwrap();
        if !full && line.is_sending() {
            break;
        }
        desk.on_ready(&mut network);
    }
    for _ in 0..1_000 {
        desk.on_ready(&mut network);
    }
    let queued = || desk.line.as_ref().unwrap().queued();
    assert!(queued() < ENOUGH + (READ << 8), "{}", queued());
    assert!(!desk.interest().readable && desk.interest().writable);
    for _ in 0..100_000 {
        assert!(matches!(desk.news(News::Ready), Standing::Up));
    }
    let (guest, mut far) = UnixStream::pair().unwrap();
    desk.client("192.168.127.2:1".parse().unwrap(), guest.into());
    assert_eq!(far.read(&mut [0]).unwrap(), 0, "a client that cannot be served is let go");
    assert!(desk.lost() > 0 && desk.line.as_ref().unwrap().queued() < MOST_QUEUED + (1 << 10));
    // Everything that was asked is answered once it reads again.
    let mut replies = 0;
    for _ in 0..1_000_000 {
        desk.on_ready(&mut network);
        line.flush().unwrap();
        let got = line.fill(1 << 16).unwrap();
        while let Some(word) = line.receive::<Word>().unwrap() {
            replies += usize::from(matches!(word.message, Word::Reply { .. }));
        }
        if !got && !line.is_sending() && !desk.interest().writable {
            break;
        }
    }
    assert!(replies > 100 && desk.interest() == Interest::READ, "{replies}");
}

#[test]
fn nonsense_ends_the_line_and_nothing_else() {
    let (mut desk, line) = desk();
    let web = forward("tcp", ":8080", "192.168.127.2:80");
    desk.forwards().expose(web, &mut Fake::default()).unwrap();
    slipway_host::sys::fdpass::send_part(line.as_fd(), b"\0\0\0\x04nope", &[]).unwrap();
    let Standing::Down(error) = desk.on_ready(&mut Fake::default()) else { panic!("still up") };
    assert_eq!(error.kind(), ErrorKind::InvalidData);
    assert!(desk.fd().is_none() && desk.interest() == Interest::NONE);
    assert!(matches!(desk.news(News::Ready), Standing::Up));
    assert_eq!(desk.forwards().list().len(), 1);
}
