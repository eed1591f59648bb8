//! A DHCPv6 server of a few lines, for what no real one would do: leases of seconds, and silence on demand.
//!
//! It grants one address to whoever asks, the next one when that is declined, as long as it is not told to be deaf for
//! that kind of message.

use std::net::{Ipv6Addr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::place::Place;

/// Messages of clients, by number.
pub(crate) const SOLICIT: u8 = 1;
pub(crate) const RENEW: u8 = 5;
pub(crate) const REBIND: u8 = 6;
pub(crate) const RELEASE: u8 = 8;
pub(crate) const DECLINE: u8 = 9;

/// What the server grants: T1, T2 and how long the address is valid, in seconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Grant {
    pub(crate) address: Ipv6Addr,
    pub(crate) times: [u32; 3],
}

#[derive(Debug, Default)]
struct Shared {
    heard: Mutex<Vec<u8>>,
    deaf: Mutex<Vec<u8>>,
    over: AtomicBool,
}

#[derive(Debug)]
pub(crate) struct Server {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// A server in the world.
    pub(crate) fn start(place: &Place, grant: Grant) -> Self {
        let socket = place.world.within(|| {
            let index = std::fs::read_to_string("/proc/thread-self/net/if_inet6")?
                .lines()
                .find(|line| line.ends_with(" eth0"))
                .and_then(|line| u32::from_str_radix(line.split_whitespace().nth(1)?, 16).ok())
                .unwrap_or_default();
            let socket = UdpSocket::bind("[::]:547")?;
            socket.join_multicast_v6(&Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2), index)?;
            socket.set_read_timeout(Some(Duration::from_millis(100)))?;
            Ok(socket)
        });
        let (socket, shared) = (socket.unwrap(), Arc::new(Shared::default()));
        let its = Arc::clone(&shared);
        Self { shared, thread: Some(std::thread::spawn(move || serve(&its, &socket, grant))) }
    }

    /// From now on messages of these kinds are not answered.
    pub(crate) fn ignore(&self, kinds: &[u8]) {
        *self.shared.deaf.lock().unwrap() = kinds.to_vec();
    }

    /// How many messages of a kind have come.
    pub(crate) fn heard(&self, kind: u8) -> usize {
        self.shared.heard.lock().unwrap().iter().filter(|heard| **heard == kind).count()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(shared: &Shared, socket: &UdpSocket, mut grant: Grant) {
    let mut buffer = [0; 1500];
    while !shared.over.load(Ordering::Relaxed) {
        let Ok((len, from)) = socket.recv_from(&mut buffer) else { continue };
        let message = &buffer[..len];
        shared.heard.lock().unwrap().push(message[0]);
        if message[0] == DECLINE {
            grant.address = Ipv6Addr::from_bits(grant.address.to_bits() + 1);
        }
        if !shared.deaf.lock().unwrap().contains(&message[0]) {
            let _ = socket.send_to(&answer(message, grant), from);
        }
    }
}

/// A reply that repeats who asks and for which interface.
fn answer(message: &[u8], grant: Grant) -> Vec<u8> {
    let mut reply = vec![7];
    reply.extend(&message[1..4]);
    reply.extend([0, 2, 0, 10, 0, 3, 0, 1, 2, 0, 0, 0, 0, 0xfe, 0, 14, 0, 0]);
    let mut options = &message[4..];
    while let [c0, c1, l0, l1, rest @ ..] = options {
        let (value, behind) = rest.split_at(usize::from(u16::from_be_bytes([*l0, *l1])));
        match u16::from_be_bytes([*c0, *c1]) {
            1 => reply.extend([&[0, 1, *l0, *l1], value].concat()),
            3 => {
                let [renew, rebind, valid] = grant.times.map(u32::to_be_bytes);
                reply.extend([&[0, 3, 0, 40], &value[..4], &renew, &rebind, &[0, 5, 0, 24]].concat());
                reply.extend([&grant.address.octets()[..], &valid, &valid].concat());
            }
            _ => {}
        }
        options = behind;
    }
    reply
}
