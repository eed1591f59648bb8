//! Upstream servers with manners of a test's choosing, on UDP and TCP port 53.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use slipway_lab::Machine;

use crate::message::{self, A, Message, OPT};

/// A query as an upstream got it.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) name: String,
    pub(crate) kind: u16,
    pub(crate) tcp: bool,
    pub(crate) opt: bool,
}

/// A server; it ends with this.
#[derive(Debug)]
pub(crate) struct Upstream {
    seen: Arc<Mutex<Vec<Seen>>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// What a server replies: datagrams, or the messages of a stream; nothing at all is silence.
type Manner = dyn Fn(&[u8], bool) -> Vec<Vec<u8>> + Send + Sync;

impl Upstream {
    pub(crate) fn new(
        machine: &Machine,
        address: &str,
        manner: impl Fn(&[u8], bool) -> Vec<Vec<u8>> + Send + Sync + 'static,
    ) -> Self {
        let address: IpAddr = address.parse().unwrap();
        let (udp, tcp) = machine
            .within(|| Ok((UdpSocket::bind((address, 53))?, TcpListener::bind((address, 53))?)))
            .unwrap();
        let (seen, stop) = (Arc::<Mutex<Vec<Seen>>>::default(), Arc::new(AtomicBool::new(false)));
        let manner: Arc<Manner> = Arc::new(manner);
        let threads = vec![
            std::thread::spawn({
                let (seen, stop, manner) = (seen.clone(), stop.clone(), manner.clone());
                move || datagrams(&udp, &seen, &stop, &*manner)
            }),
            std::thread::spawn({
                let (seen, stop) = (seen.clone(), stop.clone());
                move || streams(&tcp, &seen, &stop, &manner)
            }),
        ];
        Self { seen, stop, threads }
    }

    /// Answers every question for an address with this one.
    pub(crate) fn with_address(machine: &Machine, address: &str, says: &str) -> Self {
        let Ok(IpAddr::V4(says)) = says.parse() else { panic!("an IPv4 address: {says}") };
        let record = (A, says.octets().to_vec());
        Self::new(machine, address, move |query, _| {
            vec![message::answer(query, 0x0180, std::slice::from_ref(&record))]
        })
    }

    /// Takes everything and says nothing.
    pub(crate) fn silent(machine: &Machine, address: &str) -> Self {
        Self::new(machine, address, |_, _| Vec::new())
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub(crate) fn was_asked(&self, name: &str) -> bool {
        self.seen().iter().any(|seen| seen.name == name)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn note(seen: &Mutex<Vec<Seen>>, query: &[u8], tcp: bool) {
    let message = Message::read(query).expect("the daemon forwards proper queries");
    let opt = message.rest.iter().any(|record| record.kind == OPT);
    seen.lock().unwrap().push(Seen { name: message.name, kind: message.kind, tcp, opt });
}

fn datagrams(socket: &UdpSocket, seen: &Mutex<Vec<Seen>>, stop: &AtomicBool, manner: &Manner) {
    socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let mut bytes = [0; 4096];
    while !stop.load(Ordering::Relaxed) {
        let Ok((count, from)) = socket.recv_from(&mut bytes) else { continue };
        note(seen, &bytes[..count], false);
        for reply in manner(&bytes[..count], false) {
            let _ = socket.send_to(&reply, from);
        }
    }
}

fn streams(listener: &TcpListener, seen: &Mutex<Vec<Seen>>, stop: &AtomicBool, manner: &Arc<Manner>) {
    listener.set_nonblocking(true).unwrap();
    // Kept open: silence is not a refusal.
    let mut open = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let Ok((mut stream, _)) = listener.accept() else {
            std::thread::sleep(Duration::from_millis(5));
            continue;
        };
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        let mut length = [0; 2];
        if stream.read_exact(&mut length).is_err() {
            continue;
        }
        let mut bytes = vec![0; usize::from(u16::from_be_bytes(length))];
        if stream.read_exact(&mut bytes).is_err() {
            continue;
        }
        note(seen, &bytes, true);
        for reply in manner(&bytes, true) {
            let _ = stream.write_all(&u16::try_from(reply.len()).unwrap().to_be_bytes());
            let _ = stream.write_all(&reply);
        }
        open.push(stream);
    }
}
