//! Name servers that fail in every way that one meets: dnsmasq itself, and a relay in front of it that is slow or lies.
//!
//! ```text
//!   asker ──▶ Relay, on port 53 of its address ──▶ Dnsmasq, on another port of the same address
//!         ◀── what the test's manner makes of ◀── the true answer
//! ```
//! dnsmasq can be stopped (its sockets stay, and TCP connections are still accepted by the kernel), made to truncate
//! (`edns-packet-max=`) and ended; delays and lies are the relay's, because not every kernel can delay packets, and no
//! honest server lies.
//!
//! Limits: the relay's threads end with its handle; a manner's pauses are bounded by the test that wrote them.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use nix::sys::signal::Signal;

use crate::command::{Cmd, Running};
use crate::machine::Machine;
use crate::namespaces::Lab;

/// The port of DNS.
const PORT: u16 = 53;
/// How long the relay waits for dnsmasq.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often a thread looks whether it is to end.
const LOOK: Duration = Duration::from_millis(10);

/// A network namespace that name servers run in.
#[derive(Debug, Clone)]
pub struct Place {
    prefix: Cmd,
    pid: u32,
    dir: PathBuf,
}

impl Machine {
    /// This machine, as a place for name servers.
    #[must_use]
    pub fn place(&self) -> Place {
        Place { prefix: self.cmd(["env"]), pid: self.pid(), dir: self.dir().to_owned() }
    }
}

impl Lab {
    /// Host, as a place for name servers.
    #[must_use]
    pub fn host_place(&self) -> Place {
        Place { prefix: self.host_root(["env"]), pid: self.host_pid(), dir: self.dir().to_owned() }
    }

    /// World, as a place for name servers.
    #[must_use]
    pub fn world_place(&self) -> Place {
        Place { prefix: self.world(["env"]), pid: self.world_pid(), dir: self.dir().to_owned() }
    }
}

impl Place {
    fn spawn(&self, work: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
        let net = std::fs::File::open(format!("/proc/{}/ns/net", self.pid))?;
        Ok(std::thread::spawn(move || {
            // A thread that stays outside finds no socket to bind, which its maker notices.
            if setns(net, CloneFlags::CLONE_NEWNET).is_ok() {
                work();
            }
        }))
    }
}

/// A dnsmasq. It is killed with its handle.
#[derive(Debug)]
pub struct Dnsmasq {
    process: Running,
}

impl Dnsmasq {
    /// One on port 53. It answers for `test.` from `lines` of its configuration, and asks nobody else.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(place: &Place, address: &str, lines: &str) -> io::Result<Self> {
        Self::at(place, address, PORT, lines)
    }

    /// The same on another port, for a [`Relay`].
    ///
    /// # Errors
    /// It does not start.
    pub fn behind(place: &Place, address: &str, lines: &str) -> io::Result<Self> {
        Self::at(place, address, BEHIND, lines)
    }

    fn at(place: &Place, address: &str, port: u16, lines: &str) -> io::Result<Self> {
        let file = place.dir.join(format!("dnsmasq-{}-{port}.conf", address.replace(':', "_")));
        let text = format!(
            "listen-address={address}\nport={port}\nlocal=/test/\nbind-interfaces\nno-resolv\nno-hosts\nlog-queries\n{lines}\n"
        );
        std::fs::write(&file, text)?;
        let words = ["dnsmasq", "--no-daemon", "--pid-file="];
        let command = place.prefix.clone().args(words).arg(conf_file(&file));
        let mut process = command.start()?;
        process.until_listens("udp", port)?;
        process.until_listens("tcp", port)?;
        Ok(Self { process })
    }

    /// Stops it where it is. Its sockets stay, and TCP connections to it are made.
    pub fn stop(&self) {
        self.process.signal(Signal::SIGSTOP);
    }

    /// Lets it go on.
    pub fn go_on(&self) {
        self.process.signal(Signal::SIGCONT);
    }

    /// How often it was asked for that name, whatever the type.
    #[must_use]
    pub fn asked(&self, name: &str) -> usize {
        let log = self.process.stderr();
        log.lines().filter(|line| line.contains("query[") && line.contains(&format!(" {name} from "))).count()
    }

    /// How often it was asked at all.
    #[must_use]
    pub fn asked_at_all(&self) -> usize {
        self.process.stderr().matches("query[").count()
    }
}

fn conf_file(path: &Path) -> String {
    format!("--conf-file={}", path.display())
}

/// Where dnsmasq is behind a relay.
const BEHIND: u16 = 5300;

/// From which socket a reply comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// From the one that was asked.
    Itself,
    /// From another port of the same address.
    OtherPort,
    /// From port 53 of another address, which must be one of the place's.
    OtherAddress(IpAddr),
}

/// One reply.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The pause before it.
    pub after: Duration,
    /// Where it comes from; over TCP always from the one that was asked.
    pub via: Via,
    /// The message.
    pub bytes: Vec<u8>,
}

impl Reply {
    /// One that comes at once, from where it should.
    #[must_use]
    pub const fn now(bytes: Vec<u8>) -> Self {
        Self { after: Duration::ZERO, via: Via::Itself, bytes }
    }
}

/// What a relay makes of a query and its true answer.
type Manner = dyn Fn(&[u8], &[u8]) -> Vec<Reply> + Send + Sync;

/// A server on port 53 that passes queries to the [`Dnsmasq::behind`] it, and answers in its own manner.
#[derive(Debug)]
pub struct Relay {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Relay {
    /// One on that address.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub fn start(
        place: &Place,
        address: &str,
        manner: impl Fn(&[u8], &[u8]) -> Vec<Reply> + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let address: IpAddr = address.parse().map_err(io::Error::other)?;
        let (stop, manner): (_, Arc<Manner>) = (Arc::new(AtomicBool::new(false)), Arc::new(manner));
        let (told, bound) = std::sync::mpsc::channel();
        let udp = place.spawn({
            let (stop, manner, told) = (stop.clone(), manner.clone(), told.clone());
            move || match UdpSocket::bind((address, PORT)) {
                Ok(socket) => {
                    let _ = told.send(Ok(()));
                    datagrams(&socket, address, &stop, &manner);
                }
                Err(error) => drop(told.send(Err(error))),
            }
        })?;
        let tcp = place.spawn({
            let (stop, manner) = (stop.clone(), manner.clone());
            move || match TcpListener::bind((address, PORT)) {
                Ok(listener) => {
                    let _ = told.send(Ok(()));
                    connections(&listener, address, &stop, &manner);
                }
                Err(error) => drop(told.send(Err(error))),
            }
        })?;
        let relay = Self { stop, threads: vec![udp, tcp] };
        for _ in 0..2 {
            bound.recv_timeout(PATIENCE).map_err(io::Error::other)??;
        }
        Ok(relay)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn datagrams(socket: &UdpSocket, address: IpAddr, stop: &AtomicBool, manner: &Arc<Manner>) {
    if socket.set_read_timeout(Some(LOOK)).is_err() {
        return;
    }
    let mut buffer = [0; 4096];
    std::thread::scope(|scope| {
        while !stop.load(Ordering::Relaxed) {
            let Ok((count, from)) = socket.recv_from(&mut buffer) else { continue };
            let query = buffer.get(..count).unwrap_or_default().to_vec();
            // Each in a thread of its own: a slow answer holds up no other.
            scope.spawn(move || {
                let Ok(truth) = ask_by_datagram(address, &query) else { return };
                for reply in manner(&query, &truth) {
                    sleep(reply.after);
                    let sent = match reply.via {
                        Via::Itself => socket.send_to(&reply.bytes, from),
                        Via::OtherPort => {
                            UdpSocket::bind((address, 0)).and_then(|s| s.send_to(&reply.bytes, from))
                        }
                        Via::OtherAddress(other) => {
                            UdpSocket::bind((other, PORT)).and_then(|s| s.send_to(&reply.bytes, from))
                        }
                    };
                    // The asker may have closed; then there is nobody to lie to.
                    let _ = sent;
                }
            });
        }
    });
}

fn ask_by_datagram(address: IpAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let socket = UdpSocket::bind((address, 0))?;
    socket.connect((address, BEHIND))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.send(query)?;
    let mut buffer = vec![0; 65_535];
    let count = socket.recv(&mut buffer)?;
    buffer.truncate(count);
    Ok(buffer)
}

fn connections(listener: &TcpListener, address: IpAddr, stop: &AtomicBool, manner: &Arc<Manner>) {
    if listener.set_nonblocking(true).is_err() {
        return;
    }
    std::thread::scope(|scope| {
        while !stop.load(Ordering::Relaxed) {
            match listener.accept() {
                Ok((stream, _)) => {
                    scope.spawn(move || drop(converse(stream, address, stop, manner)));
                }
                Err(_) => sleep(LOOK),
            }
        }
    });
}

/// Serves one connection until it ends or the relay does.
fn converse(
    mut stream: TcpStream,
    address: IpAddr,
    stop: &AtomicBool,
    manner: &Arc<Manner>,
) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(LOOK))?;
    let mut behind = TcpStream::connect(SocketAddr::new(address, BEHIND))?;
    behind.set_read_timeout(Some(PATIENCE))?;
    loop {
        while stream.peek(&mut [0; 2]).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
            if stop.load(Ordering::Relaxed) {
                return Ok(());
            }
        }
        stream.set_read_timeout(Some(PATIENCE))?;
        let query = message(&mut stream)?;
        write_message(&mut behind, &query)?;
        let truth = message(&mut behind)?;
        for reply in manner(&query, &truth) {
            sleep(reply.after);
            write_message(&mut stream, &reply.bytes)?;
        }
        stream.set_read_timeout(Some(LOOK))?;
    }
}

fn message(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut len = [0; 2];
    stream.read_exact(&mut len)?;
    let mut bytes = vec![0; usize::from(u16::from_be_bytes(len))];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn write_message(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let len = u16::try_from(message.len()).map_err(io::Error::other)?;
    stream.write_all(&[&len.to_be_bytes(), message].concat())
}

/// A lie about an address: the same message with `lie` wherever `truth` stands in it.
#[must_use]
pub fn forged(message: &[u8], truth: [u8; 4], lie: [u8; 4]) -> Vec<u8> {
    let mut bytes = message.to_vec();
    let mut at = 0;
    while let Some(place) = bytes.get_mut(at..).and_then(<[u8]>::first_chunk_mut::<4>) {
        if *place == truth {
            *place = lie;
        }
        at += 1;
    }
    bytes
}
