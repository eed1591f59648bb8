//! Several guests behind one driver, each on a link of its own.

use crate::driver::{config, link};
use slipway_host::clock;
use slipway_host::device::{LinkId, Lost};
use slipway_host::driver::Driver;
use slipway_netstack::Engine;
use slipway_netstack::config::Config;
use slipway_netstack::device::Capabilities;
use slipway_netstack::ethernet::neighbour::OnLink;
use slipway_netstack::ip::plan::{Case, Leads};
use slipway_netstack::upstream::{Client, Forwarded, Meta, ServiceId};
use std::cell::Cell;
use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::time::Duration;

const GATEWAY: [u8; 6] = [0x52, 0x55, 10, 0, 2, 2];

/// A guest with its end of the link.
struct Guest {
    wire: UnixDatagram,
    number: u8,
    link: LinkId,
    heard: Cell<u64>,
}

impl Guest {
    fn mac(&self) -> [u8; 6] {
        [2, 0, 0, 0, 0, self.number]
    }

    /// Sends a packet to the gateway, which stands for the host's loopback.
    fn send(&self, protocol: u8, payload: &[u8]) {
        self.send_from(self.mac(), [10, 0, 2, self.number], protocol, payload);
    }

    fn send_from(&self, mac: [u8; 6], ip: [u8; 4], protocol: u8, payload: &[u8]) {
        let len = u16::try_from(20 + payload.len()).unwrap().to_be_bytes();
        let mut header = vec![0x45, 0, len[0], len[1], 0, 0, 0, 0, 64, protocol, 0, 0];
        header.extend([&ip[..], &[10, 0, 2, 2]].concat());
        let sum = checksum(&header).to_be_bytes();
        header[10..12].copy_from_slice(&sum);
        let frame = [&GATEWAY[..], &mac, &[8, 0], &header, payload].concat();
        self.wire.send(&frame).unwrap();
    }

    fn send_udp(&self, port: u16, text: &[u8]) {
        self.send(17, &datagram(port, text));
    }

    /// A frame of a station behind the guest: a datagram to that port of the host's, or nothing that is carried.
    fn send_as(&self, mac: [u8; 6], port: Option<u16>) {
        let [.., high, low] = mac;
        let protocol = if port.is_some() { 17 } else { 254 };
        self.send_from(mac, [10, 1, high, low], protocol, &datagram(port.unwrap_or(0), b"x"));
    }

    fn send_syn(&self, port: u16) {
        let mut segment = [5000_u16.to_be_bytes(), port.to_be_bytes()].concat();
        segment.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0]);
        let pseudo = [&[10, 0, 2, self.number, 10, 0, 2, 2, 0, 6, 0, 20][..], &segment].concat();
        segment[16..18].copy_from_slice(&checksum(&pseudo).to_be_bytes());
        self.send(6, &segment);
    }

    /// Every frame that has arrived.
    fn frames(&self) -> Vec<Vec<u8>> {
        let mut buffer = vec![0; 2048];
        let next = || self.wire.recv(&mut buffer).ok().map(|len| buffer[..len].to_vec());
        let frames: Vec<_> = std::iter::from_fn(next).collect();
        self.heard.set(self.heard.get() + frames.len() as u64);
        frames
    }

    /// What UDP datagrams have arrived.
    fn datagrams(&self) -> Vec<Vec<u8>> {
        let udp = |frame: Vec<u8>| (frame[12..14] == [8, 0] && frame[23] == 17).then(|| frame[42..].to_vec());
        self.frames().into_iter().filter_map(udp).collect()
    }
}

fn datagram(port: u16, text: &[u8]) -> Vec<u8> {
    let len = u16::try_from(8 + text.len()).unwrap();
    let ports = [5000_u16.to_be_bytes(), port.to_be_bytes(), len.to_be_bytes(), [0, 0]].concat();
    [&ports, text].concat()
}

fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap()
}

/// A driver with so many guests.
fn guests<const N: usize>() -> (Driver, [Guest; N]) {
    guests_of(config())
}

fn guests_of<const N: usize>(config: Config) -> (Driver, [Guest; N]) {
    let (first, wire) = link();
    let mut driver = Driver::new(Engine::new(config), first).unwrap();
    let mut wires = vec![(LinkId(0), wire)];
    for _ in 1..N {
        let (another, wire) = link();
        wires.push((driver.join_link(another).unwrap(), wire));
    }
    let guest = |(number, (link, wire))| Guest { wire, number, link, heard: Cell::new(0) };
    let guests: Vec<Guest> = (100..).zip(wires).map(guest).collect();
    (driver, guests.try_into().unwrap_or_else(|_| panic!("as many as asked for")))
}

/// Rounds until `done` says so.
fn until(driver: &mut Driver, what: &str, mut done: impl FnMut() -> bool) {
    let end = clock::now() + Duration::from_secs(10);
    while !done() {
        assert!(clock::now() < end, "{what}");
        driver.turn(Some(clock::now() + Duration::from_millis(1))).unwrap();
    }
}

fn rounds(driver: &mut Driver, count: usize) {
    for _ in 0..count {
        driver.turn(Some(clock::now())).unwrap();
    }
}

fn peer() -> (UdpSocket, u16) {
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    peer.set_nonblocking(true).unwrap();
    let port = peer.local_addr().unwrap().port();
    (peer, port)
}

/// Says something for a guest to the host; returns from where the host hears it.
fn say(driver: &mut Driver, guest: &Guest, (peer, port): &(UdpSocket, u16)) -> SocketAddr {
    guest.send_udp(*port, b"question");
    let mut from = None;
    until(driver, "the host hears it", || {
        from = from.or_else(|| peer.recv_from(&mut [0; 99]).ok().map(|(_, from)| from));
        from.is_some()
    });
    from.unwrap()
}

#[test]
fn each_guest_hears_what_is_for_it() {
    let (mut driver, guests) = guests::<3>();
    let peer = peer();
    let flows: Vec<_> = guests.iter().map(|guest| say(&mut driver, guest, &peer)).collect();
    for (number, flow) in flows.iter().enumerate() {
        peer.0.send_to(format!("answer {number}").as_bytes(), flow).unwrap();
    }
    for (number, guest) in guests.iter().enumerate() {
        let mut heard = Vec::new();
        until(&mut driver, "an answer", || {
            heard.extend(guest.datagrams());
            !heard.is_empty()
        });
        rounds(&mut driver, 5);
        heard.extend(guest.datagrams());
        assert_eq!(heard, [format!("answer {number}").into_bytes()]);
    }
    assert_eq!(driver.links().lost(), Lost::default());
}

#[test]
fn guests_that_can_do_less_than_the_engine_was_told_get_whole_frames() {
    let device = Capabilities { checksum: true, tso4: true, tso6: true, uso: true };
    let (mut driver, guests) = guests_of::<2>(Config { device, ..config() });
    let peer = peer();
    let flows: Vec<_> = guests.iter().map(|guest| say(&mut driver, guest, &peer)).collect();
    for flow in &flows {
        for n in 0..50 {
            peer.0.send_to(&[n; 1000], flow).unwrap();
        }
    }
    for guest in &guests {
        let mut heard = Vec::new();
        until(&mut driver, "all of them", || {
            heard.extend(guest.datagrams());
            heard.len() >= 50
        });
        assert_eq!(heard, (0..50).map(|n| vec![n; 1000]).collect::<Vec<_>>());
    }
    assert_eq!(driver.links().lost(), Lost::default());
}

#[test]
fn who_came_first_and_was_alone_is_known_to_be_there() {
    let (mut driver, [first]) = guests::<1>();
    let peer = peer();
    let flow = say(&mut driver, &first, &peer);
    let (link, second) = link();
    driver.join_link(link).unwrap();
    peer.0.send_to(b"answer", flow).unwrap();
    let mut heard = Vec::new();
    until(&mut driver, "an answer", || {
        heard.extend(first.datagrams());
        !heard.is_empty()
    });
    assert!(second.recv(&mut [0; 2048]).is_err(), "it is nobody else's business");
}

#[test]
fn what_is_for_everybody_passes_by_whom_there_is_no_room_for() {
    let (mut driver, [silent, other]) = guests::<2>();
    let peer = peer();
    let flow = say(&mut driver, &silent, &peer);
    fill(&mut driver, &peer.0, flow, &silent);
    // A client of a guest that is not known is a question to all.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let _client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (socket, from) = listener.accept().unwrap();
    driver.accept_tcp(OwnedFd::from(socket), from, "10.0.2.200:80".parse().unwrap()).unwrap();
    let asks = |frame: &[u8]| frame[..6] == [0xff; 6] && frame[12..14] == [8, 6];
    let mut asked = 0;
    until(&mut driver, "a question", || {
        asked += other.frames().iter().filter(|frame| asks(frame)).count();
        asked > 0
    });
    let passed_by = driver.links().lost_by(silent.link).unwrap();
    assert_eq!(passed_by, Lost { no_room: 1, ..Lost::default() });
    assert_eq!(driver.links().lost_by(other.link), Some(Lost::default()));
    assert_eq!(driver.links().lost(), passed_by);
}

/// Answers until there is no room for them on the guest's link.
fn fill(driver: &mut Driver, peer: &UdpSocket, flow: SocketAddr, guest: &Guest) {
    let (mut waiting, end) = (0, clock::now() + Duration::from_secs(10));
    // A stall shows in bytes that stay in the host's socket: no round carries anything.
    while waiting < 3 {
        assert!(clock::now() < end, "{} never fills", guest.number);
        for _ in 0..20 {
            peer.send_to(&[7; 1400], flow).unwrap();
        }
        let before = driver.peek_engine().counters().frames_out;
        rounds(driver, 3);
        waiting = if driver.peek_engine().counters().frames_out == before { waiting + 1 } else { 0 };
    }
}

#[test]
fn a_guest_that_does_not_read_holds_up_nobody_else_and_loses_nothing_it_was_given() {
    let (mut driver, [silent, other]) = guests::<2>();
    let peer = peer();
    let of_silent = say(&mut driver, &silent, &peer);
    let of_other = say(&mut driver, &other, &peer);
    fill(&mut driver, &peer.0, of_silent, &silent);
    assert!(driver.peek_engine().awaits_link());
    for n in 0..200_u32 {
        peer.0.send_to(&n.to_be_bytes(), of_other).unwrap();
        peer.0.send_to(&[7; 1400], of_silent).unwrap();
        let mut heard = Vec::new();
        until(&mut driver, "an answer", || {
            heard.extend(other.datagrams());
            !heard.is_empty()
        });
        assert_eq!(heard, [n.to_be_bytes()]);
    }
    let (before, mut wakes) = (clock::now(), 0);
    while clock::now() - before < Duration::from_millis(50) {
        driver.turn(Some(before + Duration::from_millis(50))).unwrap();
        wakes += 1;
    }
    assert!(wakes <= 3, "it sleeps meanwhile: {wakes} wakes");
    // When it reads, it gets all that was on the way, and what had to wait.
    let given = driver.peek_engine().counters().frames_out;
    for _ in 0..50 {
        silent.frames();
        rounds(&mut driver, 1);
    }
    silent.frames();
    assert!(!driver.peek_engine().awaits_link());
    let in_all = driver.peek_engine().counters().frames_out;
    assert!(in_all > given, "what had waited has come");
    assert_eq!(silent.heard.get() + other.heard.get(), in_all);
    assert_eq!(driver.links().lost(), Lost::default());
}

#[test]
fn a_guest_that_hangs_up_takes_its_own_flows_along_and_no_others() {
    let (mut driver, [leaves, stays]) = guests::<2>();
    let peer = peer();
    say(&mut driver, &leaves, &peer);
    let flow = say(&mut driver, &stays, &peer);
    let mut stream = connect(&mut driver, &leaves);
    assert_eq!(driver.peek_engine().flow_count(), 3);
    let gone = leaves.link;
    drop(leaves);
    let mut loss = None;
    let end = clock::now() + Duration::from_secs(10);
    while loss.is_none() && clock::now() < end {
        driver.turn(Some(clock::now() + Duration::from_millis(1))).unwrap();
        loss = driver.take_loss();
    }
    let loss = loss.unwrap();
    assert_eq!((loss.link, loss.reason.kind()), (gone, ErrorKind::UnexpectedEof));
    assert_eq!((driver.links().len(), driver.links().lost_by(gone)), (1, None));
    assert_eq!(driver.peek_engine().flow_count(), 1);
    assert_eq!(stream.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    peer.0.send_to(b"still there?", flow).unwrap();
    let mut heard = Vec::new();
    until(&mut driver, "an answer", || {
        heard.extend(stays.datagrams());
        !heard.is_empty()
    });
    assert_eq!(heard, [b"still there?"]);
    assert!(driver.take_loss().is_none(), "told once");
}

#[test]
fn a_number_is_given_once() {
    let (mut driver, [first, second]) = guests::<2>();
    driver.leave(first.link);
    driver.leave(first.link);
    assert_eq!(driver.links().len(), 1);
    let (link, _third) = link();
    let third = driver.join_link(link).unwrap();
    assert!(![first.link, second.link].contains(&third));
    driver.leave(first.link);
    assert_eq!(driver.links().len(), 2, "it was somebody else's number before");
    driver.close_links();
    assert!(driver.links().is_empty());
    rounds(&mut driver, 3);
    assert!(driver.take_loss().is_none(), "whoever closes a link knows");
}

/// Whoever writes a neighbour's address into its frames gets nothing of the neighbour's, and does it no harm.
#[test]
fn a_neighbours_frames_are_not_taken_by_forging_its_address() {
    let (mut driver, [victim, thief]) = guests::<2>();
    let peer = peer();
    let flow = say(&mut driver, &victim, &peer);
    let forged = Guest { number: victim.number, ..thief };
    for _ in 0..200 {
        forged.send_udp(peer.1, b"mine");
        rounds(&mut driver, 1);
    }
    assert!(peer.0.recv_from(&mut [0; 99]).is_err(), "nothing of it has left");
    peer.0.send_to(b"answer", flow).unwrap();
    let mut heard = Vec::new();
    until(&mut driver, "an answer", || {
        heard.extend(victim.datagrams());
        !heard.is_empty()
    });
    assert_eq!((heard, forged.frames()), (vec![b"answer".to_vec()], vec![]));
    let lost = driver.links().lost_by(forged.link);
    assert_eq!(lost, Some(Lost { forged: 200, ..Lost::default() }));
    // When the neighbour is gone, its address is anybody's.
    driver.leave(victim.link);
    say(&mut driver, &forged, &peer);
}

/// More stations behind one link than are kept, some of which have flows.
#[test]
fn all_flows_of_a_link_end_with_it_however_many_stations_it_has() {
    let (mut driver, [bridge, stays]) = guests::<2>();
    let (peer, other) = (peer(), peer());
    say(&mut driver, &stays, &other);
    for n in 0..3000_u16 {
        let [high, low] = n.to_be_bytes();
        bridge.send_as([2, 1, 0, 0, high, low], n.is_multiple_of(10).then_some(peer.1));
        rounds(&mut driver, 1);
    }
    rounds(&mut driver, 10);
    assert_eq!(driver.peek_engine().flow_count(), 301);
    driver.leave(bridge.link);
    assert_eq!(driver.peek_engine().flow_count(), 1, "the neighbour's");
}

#[test]
fn a_plan_that_changes_ends_what_it_does_not_allow_and_tells_both_sides() {
    let (mut driver, [guest]) = guests::<1>();
    let peer = peer();
    say(&mut driver, &guest, &peer);
    let mut connection = connect(&mut driver, &guest);
    rounds(&mut driver, 5);
    guest.frames();
    let mut plan = config().plan;
    driver.readdress(plan.clone());
    rounds(&mut driver, 3);
    assert_eq!((driver.peek_engine().flow_count(), guest.frames().len()), (2, 0), "nothing has changed");
    plan.v4.as_mut().unwrap().cases.retain(|case| !case.to.contains([10, 0, 2, 2].into()));
    driver.readdress(plan);
    let mut resets = 0;
    until(&mut driver, "a reset", || {
        resets += guest.frames().iter().filter(|frame| is_reset(frame)).count();
        resets > 0
    });
    assert_eq!(connection.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(driver.peek_engine().flow_count(), 1, "a socket for anybody leads nowhere in particular");
}

#[test]
fn flows_from_an_address_that_the_host_has_lost_end_and_others_notice_nothing() {
    let (mut driver, [guest]) = guests::<1>();
    let peer = peer();
    let flow = say(&mut driver, &guest, &peer);
    let mut stays = connect(&mut driver, &guest);
    let listener = TcpListener::bind("127.0.0.2:0").unwrap();
    let mut client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (socket, from) = listener.accept().unwrap();
    let at = UdpSocket::bind("127.0.0.2:0").unwrap();
    let (to, listening) = (at.local_addr().unwrap(), std::rc::Rc::new(OwnedFd::from(at)));
    driver.accept_tcp(OwnedFd::from(socket), from, "10.0.2.100:80".parse().unwrap()).unwrap();
    let sender = Client { address: "127.0.0.1:9".parse().unwrap(), at: to };
    let meta = Meta::default();
    let guest_end = "10.0.2.100:81".parse().unwrap();
    let datagrams = Forwarded { client: sender, guest: guest_end, payload: b"x", segment: 1, meta };
    driver.accept_udp(&listening, &datagrams).unwrap();
    rounds(&mut driver, 3);
    guest.frames();
    assert_eq!(driver.lose(&BTreeSet::from([IpAddr::from([192, 0, 2, 1])])), 0);
    assert_eq!(driver.lose(&BTreeSet::from([IpAddr::from([127, 0, 0, 2])])), 2);
    assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    let mut resets = 0;
    until(&mut driver, "a reset", || {
        resets += guest.frames().iter().filter(|frame| is_reset(frame)).count();
        resets > 0
    });
    assert_eq!(driver.peek_engine().flow_count(), 2);
    peer.0.send_to(b"still there?", flow).unwrap();
    let mut heard = Vec::new();
    until(&mut driver, "an answer", || {
        heard.extend(guest.datagrams());
        !heard.is_empty()
    });
    stays.set_nonblocking(true).unwrap();
    assert_eq!(stays.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
}

/// A container behind the guest's own bridge answers no request on our link (`pesto --add -t …:10.89.0.2/80`).
#[test]
fn the_one_station_of_a_link_has_every_address() {
    let config = Config { on_link: OnLink::One { mac: None }, ..config() };
    let (mut driver, [guest]) = guests_of::<1>(config);
    let peer = peer();
    say(&mut driver, &guest, &peer);
    guest.frames();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let _client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (socket, from) = listener.accept().unwrap();
    driver.accept_tcp(OwnedFd::from(socket), from, "10.89.0.2:80".parse().unwrap()).unwrap();
    let mut frames = Vec::new();
    until(&mut driver, "a connection", || {
        frames.extend(guest.frames());
        !frames.is_empty()
    });
    let [syn] = &frames[..] else { panic!("{} frames", frames.len()) };
    assert_eq!((&syn[..6], &syn[30..34], syn[47]), (&guest.mac()[..], &[10, 89, 0, 2][..], 2));
}

fn is_reset(frame: &[u8]) -> bool {
    frame[12..14] == [8, 0] && frame[23] == 6 && frame[47] & 4 != 0
}

/// The guest connects to a server on the host, which has accepted.
fn connect(driver: &mut Driver, guest: &Guest) -> std::net::TcpStream {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    guest.send_syn(listener.local_addr().unwrap().port());
    listener.set_nonblocking(true).unwrap();
    let mut connection = None;
    until(driver, "a connection", || {
        connection = connection.take().or_else(|| listener.accept().ok());
        connection.is_some()
    });
    let (stream, _) = connection.unwrap();
    stream.set_nonblocking(false).unwrap();
    stream
}

/// Rounds until what is asked of the driver is there.
fn wait_for<T>(driver: &mut Driver, what: &str, mut found: impl FnMut(&mut Driver) -> Option<T>) -> T {
    let end = clock::now() + Duration::from_secs(10);
    loop {
        if let Some(found) = found(driver) {
            return found;
        }
        assert!(clock::now() < end, "{what}");
        driver.turn(Some(clock::now() + Duration::from_millis(1))).unwrap();
    }
}

#[test]
fn a_guest_meets_services_of_the_program_and_they_meet_it() {
    let mut config = config();
    let service = Case::port(Ipv4Addr::new(10, 0, 2, 2), 80, Leads::Service(ServiceId(80)));
    config.plan.v4.as_mut().unwrap().cases.insert(0, service);
    let (mut driver, [guest]) = guests_of(config);
    guest.send_syn(80);
    let (service, from, _far) = wait_for(&mut driver, "a client", |driver| driver.service_clients().pop());
    assert_eq!((service, from), (ServiceId(80), "10.0.2.100:5000".parse().unwrap()));
    // Flags and ports of a segment.
    let segment = |frame: Vec<u8>| (frame[12..14] == [8, 0]).then(|| (frame[47], frame[34..38].to_vec()));
    let heard = wait_for(&mut driver, "an answer", |_| guest.frames().into_iter().find_map(segment));
    assert_eq!(heard, (0x12, vec![0, 80, 0x13, 0x88]), "SYN and ACK");
    let mut ports = BTreeSet::new();
    for _ in 0..3 {
        let (flow, ours) = driver.dial("10.0.2.100:22".parse().unwrap()).unwrap();
        let (flags, at) = wait_for(&mut driver, "a SYN", |_| guest.frames().into_iter().find_map(segment));
        assert_eq!((flags, &at[2..]), (2, &[0, 22][..]));
        ports.insert(at[..2].to_vec());
        assert!(!driver.is_open(flow));
        let mut ours = UnixStream::from(ours);
        assert_eq!(ours.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock, "nobody has answered yet");
        driver.forget_guest("10.0.2.100".parse().unwrap());
        assert_eq!(ours.read(&mut [0]).unwrap(), 0);
        assert_eq!(ours.write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
        guest.send_udp(9, b"it is back");
        rounds(&mut driver, 3);
        guest.frames();
    }
    assert_eq!(ports.len(), 3, "each from a port of its own");
}
