//! What is listened on is seen, by either way, in the namespace where the look was opened.

use super::*;
use crate::netns::testing::in_new_namespace;
use std::net::{TcpListener, TcpStream, UdpSocket};

fn ports(set: &PortSet) -> Vec<u16> {
    set.iter().collect()
}

#[test]
fn both_ways_see_who_listens_and_nobody_else() {
    in_new_namespace("both_ways_see_who_listens_and_nobody_else", || {
        crate::inside::tests::loopback_up();
        let mut ways = vec![Diag::by_files().unwrap()];
        match Diag::by_netlink().and_then(|mut diag| diag.look().map(|_| diag)) {
            Ok(diag) => ways.push(diag),
            Err(error) => println!("SKIP sock_diag: {error}"),
        }
        let v6 = std::path::Path::new("/proc/self/net/tcp6").exists();
        let tcp = TcpListener::bind("127.0.0.5:81").unwrap();
        let _tcp6 = v6.then(|| TcpListener::bind("[::1]:82").unwrap());
        let _client = TcpStream::connect("127.0.0.5:81").unwrap();
        let _accepted = tcp.accept().unwrap();
        let _udp = UdpSocket::bind("0.0.0.0:53").unwrap();
        let _udp6 = v6.then(|| UdpSocket::bind("[::1]:54").unwrap());
        let connected = UdpSocket::bind("127.0.0.1:55").unwrap();
        connected.connect("127.0.0.1:53").unwrap();
        for diag in &mut ways {
            // Twice: each look begins anew.
            for _ in 0..2 {
                let seen = diag.look().unwrap();
                let (tcp, udp) = (ports(&seen.tcp), ports(&seen.udp));
                assert_eq!(tcp, if v6 { vec![81, 82] } else { vec![81] }, "{diag:?}");
                assert_eq!(udp, if v6 { vec![53, 54] } else { vec![53] }, "{diag:?}");
            }
        }
        drop(tcp);
        for diag in &mut ways {
            assert!(!diag.look().unwrap().tcp.contains(81));
        }
    });
}

#[test]
fn a_list_of_many_datagrams_is_read_whole() {
    in_new_namespace("a_list_of_many_datagrams_is_read_whole", || {
        crate::inside::tests::loopback_up();
        let listeners: Vec<_> =
            (2000..2900).map(|port| TcpListener::bind(("127.0.0.1", port)).unwrap()).collect();
        let mut diag = Diag::open().unwrap();
        assert_eq!(diag.look().unwrap().tcp.iter().count(), listeners.len());
    });
}

#[test]
fn a_look_is_of_the_namespace_where_it_was_opened() {
    in_new_namespace("a_look_is_of_the_namespace_where_it_was_opened", || {
        crate::inside::tests::loopback_up();
        let _here = TcpListener::bind("127.0.0.1:81").unwrap();
        let inside = crate::inside::tests::start_in_new_namespace();
        let there = inside.ask(|| TcpListener::bind("127.0.0.1:82")).unwrap().unwrap();
        let opens: [fn() -> io::Result<Diag>; 2] = [Diag::open, Diag::by_files];
        for open in opens {
            let mut theirs = inside.ask(open).unwrap().unwrap();
            assert_eq!(ports(&theirs.look().unwrap().tcp), [82], "{theirs:?}");
            assert_eq!(ports(&open().unwrap().look().unwrap().tcp), [81]);
        }
        drop(there);
    });
}

/// A message about a socket, as the kernel writes it, as far as it is read.
fn message(kind: u16, sequence: u32, state: u8, port: u16) -> Vec<u8> {
    let mut bytes = 88_u32.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend([2, 0]);
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend([0; 4]);
    bytes.extend([AF_INET, state, 0, 0]);
    bytes.extend(port.to_be_bytes());
    bytes.resize(88, 0);
    bytes
}

#[test]
fn only_listeners_of_the_right_list_are_taken() {
    let mut found = PortSet::default();
    let mut datagram = message(BY_FAMILY, 7, TCP_LISTEN, 80);
    datagram.extend(message(BY_FAMILY, 6, TCP_LISTEN, 81));
    datagram.extend(message(BY_FAMILY, 7, 1, 82));
    datagram.extend(message(99, 7, TCP_LISTEN, 83));
    assert_eq!(read_piece(&datagram, 7, TCP_LISTEN, &mut found), Ok(Piece::One));
    datagram.extend([20, 0, 0, 0, 3, 0, 2, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(read_piece(&datagram, 7, TCP_LISTEN, &mut found), Ok(Piece::Last));
    assert_eq!(ports(&found), [80]);
}

#[test]
#[cfg(target_endian = "little")]
fn a_refused_list_is_an_error_and_a_cut_one_too() {
    let mut found = PortSet::default();
    for kind in [2, 3] {
        let refused = [20, 0, 0, 0, kind, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0xfe, 0xff, 0xff, 0xff];
        assert_eq!(read_piece(&refused, 7, TCP_LISTEN, &mut found), Err(Errno::ENOENT));
    }
    let whole = message(BY_FAMILY, 7, TCP_LISTEN, 80);
    for len in 4..whole.len() {
        assert_eq!(read_piece(&whole[..len], 7, TCP_LISTEN, &mut found), Err(Errno::EBADMSG), "{len}");
    }
    assert_eq!(ports(&found), [0; 0]);
}

#[test]
fn lines_that_are_none_say_nothing() {
    let line = "   0: 0100007F:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1";
    assert_eq!(port_of(line, TCP_LISTEN), Some(22));
    assert_eq!(port_of(line, TCP_CLOSE), None);
    let six = "  12: 00000000000000000000000001000000:1F90 00000000000000000000000000000000:0000 07 0";
    assert_eq!(port_of(six, TCP_CLOSE), Some(8080));
    let head =
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode";
    for odd in ["", "0:", head, "0: 1 2 0A", "0: 1:x 2 0A", "0: 1:12345 2 0A", "0: 1:16 2 10A"] {
        assert_eq!(port_of(odd, TCP_LISTEN), None, "{odd}");
    }
}
