//! The lab's link with weather does what it says: the bench's figures stand on it.

use std::io::ErrorKind;
use std::net::UdpSocket;
use std::time::Duration;

use slipway_lab::{HOST4, Lab, LabOptions, WORLD4, Weather, now, skip, within};

/// As many as a socket has room for before anybody reads: some 300 small ones, in the kernel's default buffer.
const COUNT: u16 = 250;
const WEATHER: Weather = Weather { mbit: 500, rtt: 40, loss: 100_000, seed: 11 };

fn lab(name: &str) -> Option<(Lab, std::path::PathBuf)> {
    let Some(program) = slipway_lab::link() else { return skip(name, "slipway-lab-link is not built") };
    match Lab::new(&LabOptions::default()) {
        Ok(lab) if lab.by_root() => Some((lab, program)),
        Ok(_) => skip(name, "needs root"),
        Err(error) => skip(name, &error.to_string()),
    }
}

/// Which of so many numbered datagrams from host come to world.
fn arrived(lab: &Lab) -> Vec<u16> {
    let sink = lab.within_world(|| UdpSocket::bind((WORLD4, 9000))).unwrap();
    sink.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let source = within(lab.host_pid(), || UdpSocket::bind((HOST4, 9000))).unwrap();
    for number in 0..COUNT {
        source.send_to(&number.to_be_bytes(), (WORLD4, 9000)).unwrap();
    }
    let mut numbers = Vec::new();
    let mut datagram = [0; 2];
    loop {
        match sink.recv(&mut datagram) {
            Ok(_) => numbers.push(u16::from_be_bytes(datagram)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return numbers,
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_link_loses_the_same_packets_each_time() {
    let Some((lab, program)) = lab("a_link_loses_the_same_packets_each_time") else { return };
    let runs = [0, 1].map(|_| {
        let _link = lab.weather(&program, WEATHER).unwrap();
        let numbers = arrived(&lab);
        assert_eq!(lab.link_dropped().unwrap(), 0);
        numbers
    });
    assert_eq!(runs[0], runs[1]);
    assert!((190..245).contains(&runs[0].len()), "{} of {COUNT} with a loss of a tenth", runs[0].len());
    assert!(runs[0].is_sorted(), "{:?}", runs[0]);
    let other = Weather { seed: 12, ..WEATHER };
    let _link = lab.weather(&program, other).unwrap();
    assert_ne!(arrived(&lab), runs[0]);
}

#[test]
fn a_link_is_as_long_as_it_is_said_to_be() {
    let Some((lab, program)) = lab("a_link_is_as_long_as_it_is_said_to_be") else { return };
    let _link = lab.weather(&program, Weather { loss: 0, ..WEATHER }).unwrap();
    let sockets = (
        within(lab.host_pid(), || UdpSocket::bind((HOST4, 9000))).unwrap(),
        lab.within_world(|| UdpSocket::bind((WORLD4, 9000))).unwrap(),
    );
    let mut byte = [0];
    let start = now();
    sockets.0.send_to(b"?", (WORLD4, 9000)).unwrap();
    let (_, from) = sockets.1.recv_from(&mut byte).unwrap();
    let there = start.elapsed();
    sockets.1.send_to(b"!", from).unwrap();
    sockets.0.recv(&mut byte).unwrap();
    // How much longer it takes is the machine's business.
    assert!(there >= Duration::from_millis(20), "{there:?}");
    assert!(start.elapsed() >= Duration::from_millis(40), "{:?}", start.elapsed());
}
