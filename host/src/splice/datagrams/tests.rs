//! Conversations over UDP: both ways, their bounds, and that none harms another.

use super::*;
use crate::clock;
use crate::epoll::Events;
use crate::inside::Kind;
use nix::sys::socket::{SockaddrStorage, connect};
use std::net::UdpSocket as Std;

struct Rig {
    datagrams: Datagrams,
    events: EventSet,
    listener: Rc<OwnedFd>,
    door: Std,
    server: Std,
    now: Instant,
}

impl Rig {
    fn new() -> Self {
        let door = Std::bind("127.0.0.1:0").unwrap();
        Self {
            datagrams: Datagrams::default(),
            events: EventSet::new().unwrap(),
            listener: Rc::new(door.try_clone().unwrap().into()),
            door,
            server: server(),
            now: clock::now(),
        }
    }

    fn client(&self) -> Std {
        let client = server();
        client.connect(self.door.local_addr().unwrap()).unwrap();
        client
    }

    /// Leads what has come to the listener on to `to`.
    fn forward(&mut self, to: SocketAddr) {
        let mut buffer = [0; 2048];
        let (len, address) = self.door.recv_from(&mut buffer).unwrap();
        self.lead(address, &buffer[..len], len, to);
    }

    fn lead(&mut self, address: SocketAddr, payload: &[u8], segment: usize, to: SocketAddr) {
        let client = Client { address, at: self.door.local_addr().unwrap() };
        let train = Forwarded { client, guest: to, payload, segment, meta: Meta::default() };
        let listener = Rc::clone(&self.listener);
        if !self.datagrams.send(self.now, &listener, &train) {
            let socket = Kind::UdpV4.open().unwrap();
            connect(socket.as_raw_fd(), &SockaddrStorage::from(to)).unwrap();
            let across = (Side::Host, to);
            self.datagrams.begin(self.now, (&listener, client), socket, across, &self.events).unwrap();
            assert!(self.datagrams.send(self.now, &listener, &train));
        }
    }

    /// Carries answers, until a client has one.
    fn answers(&mut self, client: &Std) -> Vec<u8> {
        let (mut found, mut buffer) = (Events::default(), [0; 2048]);
        client.set_nonblocking(true).unwrap();
        for _ in 0..5000 {
            self.events.wait(&mut found, Some(Duration::from_millis(1))).unwrap();
            let mut at = 0;
            while let Some((token, flags)) = found.get(at) {
                at += 1;
                if let Some(Token::SpliceUdp { place, generation }) = token {
                    self.datagrams.on_event(place, generation, flags);
                }
            }
            while self.datagrams.is_busy() {
                self.datagrams.work(self.now);
            }
            if let Ok(len) = client.recv(&mut buffer) {
                client.set_nonblocking(false).unwrap();
                return buffer[..len].to_vec();
            }
        }
        panic!("no answer");
    }
}

fn server() -> Std {
    let socket = Std::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    socket
}

#[test]
fn each_client_has_a_conversation_of_its_own() {
    let mut rig = Rig::new();
    let to = rig.server.local_addr().unwrap();
    let clients = [rig.client(), rig.client()];
    let mut seen = Vec::new();
    for round in 0..3_u8 {
        for (client, name) in clients.iter().zip(0_u8..) {
            client.send(&[round, name]).unwrap();
            rig.forward(to);
            let mut buffer = [0; 16];
            let (len, from) = rig.server.recv_from(&mut buffer).unwrap();
            assert_eq!(buffer[..len], [round, name]);
            seen.push(from);
            rig.server.send_to(&[round, name, 9], from).unwrap();
            assert_eq!(rig.answers(client), [round, name, 9]);
        }
    }
    assert_eq!(rig.datagrams.len(), 2);
    assert_eq!(seen[..2], seen[2..4], "the server hears a client from one address");
    assert_ne!(seen[0], seen[1]);
    let up: Vec<(u64, u64)> = rig.datagrams.list().map(|it| (it.up, it.down)).collect();
    assert_eq!(up, [(6, 9), (6, 9)]);
}

#[test]
fn trains_and_empty_datagrams_arrive_as_they_were() {
    let mut rig = Rig::new();
    let (to, client) = (rig.server.local_addr().unwrap(), rig.client());
    rig.lead(client.local_addr().unwrap(), b"aaaabbbbcc", 4, to);
    let mut buffer = [0; 16];
    for expected in [&b"aaaa"[..], b"bbbb", b"cc"] {
        let (len, from) = rig.server.recv_from(&mut buffer).unwrap();
        assert_eq!(&buffer[..len], expected);
        rig.server.send_to(expected, from).unwrap();
    }
    for expected in [&b"aaaa"[..], b"bbbb", b"cc"] {
        assert_eq!(rig.answers(&client), expected);
    }
    client.send(b"").unwrap();
    rig.forward(to);
    let (len, from) = rig.server.recv_from(&mut buffer).unwrap();
    assert_eq!(len, 0);
    rig.server.send_to(b"", from).unwrap();
    assert_eq!(rig.answers(&client), b"");
}

#[test]
fn a_silence_ends_a_conversation() {
    let mut rig = Rig::new();
    let to = rig.server.local_addr().unwrap();
    let (asked, answered) = (rig.client(), rig.client());
    for client in [&asked, &answered] {
        client.send(b"?").unwrap();
        rig.forward(to);
    }
    let mut buffer = [0; 4];
    rig.server.recv_from(&mut buffer).unwrap();
    let (_, from) = rig.server.recv_from(&mut buffer).unwrap();
    rig.server.send_to(b"!", from).unwrap();
    rig.answers(&answered);
    let began = rig.now;
    assert_eq!(rig.datagrams.next_timeout(), Some(began + UNANSWERED));
    rig.datagrams.on_timeout(began + (UNANSWERED - Duration::from_secs(1)));
    assert_eq!(rig.datagrams.len(), 2);
    rig.datagrams.on_timeout(began + UNANSWERED);
    assert_eq!(rig.datagrams.len(), 1, "nobody has answered that one");
    assert_eq!(rig.datagrams.next_timeout(), Some(began + ANSWERED));
    // A datagram begins the time anew.
    rig.now = began + Duration::from_secs(100);
    answered.send(b"?").unwrap();
    rig.forward(to);
    rig.datagrams.on_timeout(began + ANSWERED);
    assert_eq!(rig.datagrams.len(), 1);
    rig.datagrams.on_timeout(rig.now + ANSWERED);
    assert_eq!(
        (rig.datagrams.len(), rig.datagrams.next_timeout()),
        (0, None),
        "an idle shortcut is not woken"
    );
}

#[test]
fn one_conversation_too_many_ends_the_most_silent() {
    let mut rig = Rig::new();
    let to = rig.server.local_addr().unwrap();
    let address = |nth: usize| SocketAddr::from(([127, 0, 0, 9], u16::try_from(nth).unwrap() + 1));
    for nth in 0..MOST {
        rig.now = rig.now + Duration::from_millis(1);
        rig.lead(address(nth), b"", 0, to);
    }
    rig.now = rig.now + Duration::from_millis(1);
    rig.lead(address(0), b"", 0, to);
    rig.now = rig.now + Duration::from_millis(1);
    rig.lead(address(MOST), b"", 0, to);
    assert_eq!(rig.datagrams.len(), MOST);
    let has = |rig: &Rig, nth| rig.datagrams.list().any(|it| it.client == address(nth));
    assert!(has(&rig, 0) && !has(&rig, 1) && has(&rig, 2) && has(&rig, MOST));
}

#[test]
fn an_error_is_nobody_elses() {
    let mut rig = Rig::new();
    let (lost, well) = (rig.client(), rig.client());
    let nobody = Std::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let to = rig.server.local_addr().unwrap();
    let mut buffer = [0; 4];
    for _ in 0..3 {
        lost.send(b"?").unwrap();
        rig.forward(nobody);
        well.send(b"?").unwrap();
        rig.forward(to);
        let (_, from) = rig.server.recv_from(&mut buffer).unwrap();
        rig.server.send_to(b"!", from).unwrap();
        assert_eq!(rig.answers(&well), b"!");
    }
    assert_eq!(rig.datagrams.len(), 2);
    // Somebody begins to listen there: the conversation was never over.
    let late = Std::bind(nobody).unwrap();
    late.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    lost.send(b"!").unwrap();
    rig.forward(nobody);
    assert_eq!(late.recv(&mut buffer).unwrap(), 1);
}

#[test]
fn the_end_of_a_listener_ends_its_conversations() {
    let mut rig = Rig::new();
    let to = rig.server.local_addr().unwrap();
    let client = rig.client();
    client.send(b"?").unwrap();
    rig.forward(to);
    let other = Rc::new(OwnedFd::from(server()));
    rig.datagrams.release(&other);
    assert_eq!(rig.datagrams.len(), 1);
    let listener = Rc::clone(&rig.listener);
    rig.datagrams.release(&listener);
    assert_eq!(rig.datagrams.len(), 0);
    assert_eq!(Rc::strong_count(&listener), 2, "nobody holds on to it");
}
