use crate::families::{V4, V6, families};
use crate::{FLOW, World};
use slipway_host::upstream::batch::{self, Hint, Receiver};
use slipway_netstack::FlowId;
use slipway_netstack::upstream::{Errno, Event, Meta, Received, Source, Upstream};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

/// A world with a UDP flow, a peer, and the address under which the peer knows the flow.
fn world(like: IpAddr) -> (World, UdpSocket, SocketAddr) {
    let mut world = World::new();
    let peer = UdpSocket::bind((like, 0)).unwrap();
    peer.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    world.sockets.udp_open(FLOW, like, Source::default()).unwrap();
    let to = peer.local_addr().unwrap();
    world.sockets.udp_send(FLOW, to, b"hello", 5, Meta::default()).unwrap();
    let (len, flow) = peer.recv_from(&mut [0; 9]).unwrap();
    assert_eq!(len, 5);
    (world, peer, flow)
}

/// The loopback address of this one's family.
fn like(address: &str) -> IpAddr {
    if address.contains('[') { V6 } else { V4 }
}

fn receive(world: &mut World, flow: FlowId) -> Option<(Received, Vec<u8>)> {
    let mut into = vec![0; 65536];
    let received = world.sockets.udp_receive(flow, &mut into).ok()?;
    into.truncate(received.len);
    Some((received, into))
}

/// Everything that is there, as single datagrams.
fn datagrams(world: &mut World) -> (usize, Vec<Vec<u8>>) {
    let (mut calls, mut found) = (0, Vec::new());
    while let Some((received, bytes)) = receive(world, FLOW) {
        calls += 1;
        match received.segment {
            0 => found.push(bytes),
            segment => found.extend(bytes.chunks(segment).map(<[u8]>::to_vec)),
        }
    }
    (calls, found)
}

#[test]
fn datagrams_carry_sender_and_header_fields() {
    for like in families("datagrams_carry_sender_and_header_fields") {
        let (mut world, peer, flow) = world(like);
        peer.send_to(b"abc", flow).unwrap();
        assert_eq!(world.until(|_| true), Event::Readable);
        let (received, bytes) = receive(&mut world, FLOW).unwrap();
        assert_eq!(bytes, b"abc");
        assert_eq!(received.segment, 3);
        assert_eq!(received.from, peer.local_addr().unwrap());
        assert_eq!(received.meta, Meta::default());
        assert_eq!(receive(&mut world, FLOW), None);

        // The flow's own header fields arrive at another flow.
        let other = FlowId::new(4, 1);
        let meta = Meta { hops: 17, traffic_class: 0xb8, ..Meta::default() };
        world.sockets.udp_open(other, like, Some(like).into()).unwrap();
        world.sockets.udp_send(FLOW, peer.local_addr().unwrap(), b"x", 1, meta).unwrap();
        world.sockets.udp_send(other, flow, b"ab", 2, meta).unwrap();
        world.round(1000);
        let (received, _) = receive(&mut world, FLOW).unwrap();
        assert_eq!(received.meta, meta, "{like}");
    }
}

#[test]
fn an_empty_datagram_is_a_datagram() {
    let (mut world, peer, flow) = world(V4);
    for data in [&b""[..], b"x", b"", b"", b"yy"] {
        peer.send_to(data, flow).unwrap();
    }
    world.until(|event| event == Event::Readable);
    let (_, found) = datagrams(&mut world);
    assert_eq!(found, [&b""[..], b"x", b"", b"", b"yy"]);
    world.sockets.udp_send(FLOW, peer.local_addr().unwrap(), b"", 0, Meta::default()).unwrap();
    assert_eq!(peer.recv(&mut [0; 9]).unwrap(), 0);
}

#[test]
fn a_flood_of_equal_datagrams_arrives_as_few_trains() {
    for like in families("a_flood_of_equal_datagrams_arrives_as_few_trains") {
        let (mut world, peer, flow) = world(like);
        for round in 0..4u8 {
            for n in 0..100u8 {
                peer.send_to(&[n ^ round; 1000], flow).unwrap();
            }
            world.until(|event| event == Event::Readable);
            let (calls, found) = datagrams(&mut world);
            assert_eq!(found.len(), 100);
            assert!(found.iter().zip(0..).all(|(bytes, n)| bytes[..] == [n ^ round; 1000]));
            assert!(calls <= 8 || round == 0, "{calls} calls in round {round}");
        }
    }
}

/// Sizes and senders in a mixture: nothing may be lost, joined wrongly or change places.
#[test]
fn mixed_datagrams_keep_their_order_and_borders() {
    let (mut world, peer, flow) = world(V4);
    let second = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut state = 12345u32;
    for _ in 0..60 {
        let mut sent = Vec::new();
        for n in 0..30u8 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let len = match state >> 29 {
                0 => 0,
                1 => 1,
                2 => 9000,
                3 => usize::try_from(state >> 16 & 0x1fff).unwrap(),
                _ => 700,
            };
            let from = if state >> 24 & 7 == 0 { &second } else { &peer };
            let bytes = vec![n; len];
            from.send_to(&bytes, flow).unwrap();
            sent.push((from.local_addr().unwrap(), bytes));
        }
        world.until(|event| event == Event::Readable);
        let mut found = Vec::new();
        while let Some((received, bytes)) = receive(&mut world, FLOW) {
            match received.segment {
                0 => found.push((received.from, bytes)),
                segment => found.extend(bytes.chunks(segment).map(|bytes| (received.from, bytes.to_vec()))),
            }
        }
        assert_eq!(found, sent);
    }
}

#[test]
fn what_is_set_aside_for_one_flow_survives_reading_another() {
    let (mut world, peer, first) = world(V4);
    let other = FlowId::new(4, 1);
    world.sockets.udp_open(other, V4, Source::default()).unwrap();
    world.sockets.udp_send(other, peer.local_addr().unwrap(), b"hello", 5, Meta::default()).unwrap();
    let (_, second) = peer.recv_from(&mut [0; 9]).unwrap();
    for len in [500, 400, 300, 200, 100] {
        peer.send_to(&vec![1; len], first).unwrap();
        peer.send_to(&vec![2; len], second).unwrap();
    }
    world.round(1000);
    let (mut of_first, mut of_second) = (Vec::new(), Vec::new());
    for _ in 0..9 {
        of_first.extend(receive(&mut world, FLOW).map(|(received, _)| received.len));
        of_second.extend(receive(&mut world, other).map(|(received, _)| received.len));
    }
    assert_eq!(of_first, [500, 400, 300, 200, 100]);
    assert_eq!(of_second, of_first);

    // A flow that is closed takes what was set aside along.
    for len in [50, 40, 30, 20, 10] {
        peer.send_to(&vec![1; len], first).unwrap();
    }
    world.round(1000);
    receive(&mut world, FLOW).unwrap();
    world.sockets.close(FLOW);
    world.sockets.udp_open(FLOW, V4, Source::default()).unwrap();
    assert_eq!(receive(&mut world, FLOW), None);
}

#[test]
fn trains_leave_whole_or_in_pieces_but_complete() {
    for like in families("trains_leave_whole_or_in_pieces_but_complete") {
        let (mut world, peer, _) = world(like);
        let to = peer.local_addr().unwrap();
        for (len, segment) in
            [(10, 3), (64 * 1000, 1000), (200, 1), (65_000, 1472), (130_000, 65_000), (9, 9)]
        {
            let payload: Vec<u8> = (0..=255).cycle().take(len).collect();
            world
                .sockets
                .udp_send(FLOW, to, &payload, segment, Meta { hops: 9, traffic_class: 4, ..Meta::default() })
                .unwrap();
            let mut into = vec![0; 65536];
            for piece in payload.chunks(segment) {
                let got = peer.recv(&mut into).unwrap();
                assert!(into[..got] == *piece, "{len} by {segment}");
            }
        }
    }
}

#[test]
fn a_datagram_to_nobody_comes_back_as_an_error_with_its_destination() {
    for like in families("a_datagram_to_nobody_comes_back_as_an_error_with_its_destination") {
        let (mut world, peer, flow) = world(like);
        let gone = UdpSocket::bind((like, 0)).unwrap().local_addr().unwrap();
        let alive = peer.local_addr().unwrap();
        for _ in 0..3 {
            world.sockets.udp_send(FLOW, gone, b"anyone?", 7, Meta::default()).unwrap();
            world.until(|event| event == Event::Error);
            // The pending error disturbs neither sending nor receiving.
            world.sockets.udp_send(FLOW, alive, b"x", 1, Meta::default()).unwrap();
            peer.recv(&mut [0]).unwrap();
            peer.send_to(b"y", flow).unwrap();
            world.until(|event| event == Event::Readable);
            assert_eq!(receive(&mut world, FLOW).unwrap().1, b"y");
            let error = world.sockets.take_error(FLOW).unwrap();
            assert_eq!((error.to, error.error), (gone, Errno::Refused));
            assert_eq!(error.reporter, Some(like));
            assert_eq!(error.icmp, Some(if like.is_ipv4() { (3, 3) } else { (1, 4) }));
            assert!(world.sockets.take_error(FLOW).is_err());
        }
    }
}

#[test]
fn an_ipv4_address_in_disguise_is_refused() {
    if !families("an_ipv4_address_in_disguise_is_refused").contains(&V6) {
        return;
    }
    let (mut world, peer, _) = world(V4);
    let port = peer.local_addr().unwrap().port();
    world.sockets.udp_open(FLOW, V6, Source::default()).unwrap();
    let disguised = SocketAddr::from((Ipv4Addr::LOCALHOST.to_ipv6_mapped(), port));
    let sent = world.sockets.udp_send(FLOW, disguised, b"x", 1, Meta::default());
    assert_eq!(sent, Err(Errno::NetUnreachable));
}

#[test]
fn a_shared_socket_sends_but_does_not_read_and_outlives_its_listener() {
    let mut world = World::new();
    let there = families("a_shared_socket_sends_but_does_not_read_and_outlives_its_listener");
    let pairs = [("127.0.0.1:0", V4), ("[::1]:0", V6), ("[::]:0", V4), ("[::]:0", V6)];
    for (listen, client) in pairs.into_iter().filter(|(listen, _)| there.contains(&like(listen))) {
        let listener = UdpSocket::bind(listen).unwrap();
        let port = listener.local_addr().unwrap().port();
        let listener = Rc::new(OwnedFd::from(listener));
        world.sockets.attach_udp_shared(FLOW, Rc::clone(&listener), listen.parse().unwrap());
        let client = UdpSocket::bind((client, 0)).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        drop(listener);
        let to = client.local_addr().unwrap();
        world
            .sockets
            .udp_send(FLOW, to, b"answer", 6, Meta { hops: 3, traffic_class: 8, ..Meta::default() })
            .unwrap();
        assert_eq!(client.recv_from(&mut [0; 9]).unwrap().1.port(), port, "{listen}");
        assert_eq!(receive(&mut world, FLOW), None);
        world.sockets.close(FLOW);
    }
}

#[test]
fn flows_that_share_a_socket_are_found_by_it() {
    let mut world = World::new();
    let at = "127.0.0.1:0".parse().unwrap();
    let listeners = [0; 2].map(|_| Rc::new(OwnedFd::from(UdpSocket::bind(at).unwrap())));
    for n in 0..1000 {
        let listener = &listeners[usize::from(n % 10 != 0)];
        world.sockets.attach_udp_shared(FlowId::new(n, 1), Rc::clone(listener), at);
    }
    let few = world.sockets.sharing(&listeners[0]);
    assert_eq!(few, (0..100).map(|n| FlowId::new(n * 10, 1)).collect::<Vec<_>>());
    for flow in few {
        world.sockets.close(flow);
    }
    assert_eq!(world.sockets.sharing(&listeners[0]), []);
    assert_eq!(Rc::strong_count(&listeners[0]), 1);
    assert_eq!(world.sockets.sharing(&listeners[1]).len(), 900);
}

#[test]
fn answers_leave_from_the_address_that_was_asked() {
    let mut world = World::new();
    let (mut receiver, mut hint, mut into) = (Receiver::default(), Hint::default(), vec![0; 65536]);
    let there = families("answers_leave_from_the_address_that_was_asked");
    let pairs = [
        ("0.0.0.0:0", "127.0.0.5"),
        ("127.0.0.5:0", "127.0.0.5"),
        ("[::]:0", "127.0.0.5"),
        ("[::]:0", "::1"),
    ];
    for (listen, to) in pairs.into_iter().filter(|(listen, _)| there.contains(&like(listen))) {
        let listener = UdpSocket::bind(listen).unwrap();
        let to = SocketAddr::new(to.parse().unwrap(), listener.local_addr().unwrap().port());
        batch::tell_destination(listener.as_fd(), false);
        if listen.contains('[') {
            batch::tell_destination(listener.as_fd(), true);
        }
        // Connected, it hears nobody but whom it asked.
        let client = UdpSocket::bind((if to.is_ipv4() { V4 } else { V6 }, 0)).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        client.connect(to).unwrap();
        client.send(b"question").unwrap();
        let mut told = None;
        receiver.receive_batch(listener.as_fd(), &mut hint, &mut into, |_, at, _| told = at);
        assert_eq!(told, Some(SocketAddr::new(to.ip(), 0)), "{listen} {to}");
        let listener = Rc::new(OwnedFd::from(listener));
        world.sockets.attach_udp_shared(FLOW, listener, told.unwrap());
        let back = client.local_addr().unwrap();
        for (payload, segment) in [(&b"answer"[..], 6), (b"aabb", 2)] {
            world
                .sockets
                .udp_send(FLOW, back, payload, segment, Meta { hops: 9, traffic_class: 4, ..Meta::default() })
                .unwrap();
            for piece in payload.chunks(segment) {
                let mut answer = [0; 9];
                let len = client.recv(&mut answer).unwrap();
                assert_eq!(answer[..len], *piece, "{listen} {to}");
            }
        }
        world.sockets.close(FLOW);
    }
}

#[test]
fn a_listener_is_read_in_batches() {
    let listener = UdpSocket::bind("127.0.0.1:0").unwrap();
    batch::prepare(listener.as_fd(), false);
    let to = listener.local_addr().unwrap();
    let clients: Vec<_> = (0..3).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
    let (mut receiver, mut hint, mut into) = (Receiver::default(), Hint::default(), vec![0; 65536]);
    assert!(!receiver.receive_batch(listener.as_fd(), &mut hint, &mut into, |_, _, _| panic!()));
    for n in 0..30usize {
        clients[n / 10].send_to(&[1; 100], to).unwrap();
    }
    let mut by_client = [0; 3];
    for _ in 0..30 {
        let any = receiver.receive_batch(listener.as_fd(), &mut hint, &mut into, |received, at, bytes| {
            assert_eq!(at, None, "nobody asked");
            let client = clients.iter().position(|c| c.local_addr().unwrap() == received.from).unwrap();
            by_client[client] += bytes.chunks(received.segment).count();
        });
        assert!(!receiver.holds(listener.as_fd()), "nothing is kept back from a level-triggered owner");
        if !any {
            break;
        }
    }
    assert_eq!(by_client, [10, 10, 10]);
}
