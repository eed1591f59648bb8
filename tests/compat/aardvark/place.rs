//! The daemon under test, its configuration, and the clients that ask it.
//!
//! The addresses of all networks lie on the machine's `lo`, where a whole IPv4 prefix is local: a client is a socket
//! bound to the container's address. No bridge is needed, and the daemon cannot tell.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use slipway_lab::{Cmd, Machine, Output, built, machine, now, skip};

use crate::LIMIT;
use crate::message::{self, Message};

/// Gateways and resolvers. Containers are other addresses of the same prefixes.
pub(crate) const GATEWAY: &str = "10.89.0.1";
pub(crate) const GATEWAY_B: &str = "10.90.0.1";
pub(crate) const GATEWAY6: &str = "fd89::1";

/// A container's whole network file: one network, two containers.
pub(crate) const PODMAN1: &str = "10.89.0.1\nida 10.89.0.2  one,alpha\nidb 10.89.0.3  two\n";

#[derive(Debug)]
pub(crate) struct Daemon {
    pub(crate) machine: Machine,
    pub(crate) binary: PathBuf,
    config: PathBuf,
}

impl Daemon {
    /// A daemon that is not started yet; `None` after saying why the test is skipped.
    pub(crate) fn fixture(test: &str) -> Option<Self> {
        match built("SLIPWAY_AARDVARK_BINARY", "aardvark-dns") {
            Ok(binary) => Some(Self::new(machine(test, &["ip", "ss"])?, binary)),
            Err(reason) => skip(test, &reason),
        }
    }

    fn new(machine: Machine, binary: PathBuf) -> Self {
        let config = machine.dir().join("aardvark-dns");
        std::fs::create_dir(&config).unwrap();
        let script = "set -e
            for net in 10.89.0.1/24 10.90.0.1/24 10.91.0.1/24 198.51.100.1/24; do ip address add $net dev lo; done
            for address in fd89::1 fd89::2 fd89::3 fd90::1 fd90::2; do ip address add $address/128 dev lo; done";
        let output = machine.sh(script).unwrap();
        assert!(output.success(), "{output}");
        Self { machine, binary, config }
    }

    /// What it says of its version.
    pub(crate) fn version(&self) -> String {
        self.machine.cmd([&*self.binary.to_string_lossy(), "--version"]).ok(LIMIT).unwrap().out()
    }

    /// Whether it is this tree's.
    pub(crate) fn is_ours(&self) -> bool {
        self.version().contains("slipway")
    }

    pub(crate) fn config(&self) -> &Path {
        &self.config
    }

    /// Writes a network's file.
    pub(crate) fn network(&self, name: &str, text: &str) {
        std::fs::write(self.config.join(name), text).unwrap();
    }

    pub(crate) fn remove(&self, name: &str) {
        std::fs::remove_file(self.config.join(name)).unwrap();
    }

    /// Sets the machine's resolvers.
    pub(crate) fn resolvers(&self, servers: &[&str]) {
        let text: String = servers.iter().map(|server| format!("nameserver {server}\n")).collect();
        std::fs::write(self.machine.resolv_conf(), text).unwrap();
    }

    /// The command line as its starter gives it.
    pub(crate) fn cmd(&self) -> Cmd {
        let config = self.config.to_string_lossy();
        self.machine.cmd([&*self.binary.to_string_lossy(), "--config", &config, "-p", "53", "run"])
    }

    /// Starts it and expects that the launcher ends with 0.
    pub(crate) fn start(&self) {
        let output = self.cmd().run(LIMIT).unwrap();
        assert!(output.success(), "{output}");
        assert_eq!(output.all(), "", "nothing is printed");
    }

    /// Starts it and expects that it fails.
    pub(crate) fn fails(&self) -> Output {
        let output = self.cmd().run(LIMIT).unwrap();
        assert_eq!(output.code(), 1, "{output}");
        output
    }

    pub(crate) fn pid_file(&self) -> PathBuf {
        self.config.join("aardvark.pid")
    }

    pub(crate) fn pid(&self) -> i32 {
        let text = std::fs::read_to_string(self.pid_file()).unwrap();
        text.parse().unwrap_or_else(|_| panic!("a decimal number and nothing else: {text:?}"))
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).unwrap();
    }

    /// Tells it to read everything again. It does so in its own time.
    pub(crate) fn reload(&self) {
        self.signal(Signal::SIGHUP);
    }

    pub(crate) fn is_alive(&self, pid: i32) -> bool {
        let path = format!("/proc/{pid}/stat");
        std::fs::read_to_string(path).is_ok_and(|stat| !stat.contains(") Z "))
    }

    /// Processor time used so far, in hundredths of a second.
    pub(crate) fn ticks(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        let (_, rest) = stat.rsplit_once(") ").unwrap();
        rest.split(' ').skip(11).take(2).map(|field| field.parse::<u64>().unwrap()).sum()
    }

    /// A client with this address.
    pub(crate) fn client(&self, source: &str) -> Client<'_> {
        let source: IpAddr = source.parse().unwrap();
        let socket = self.machine.within(|| UdpSocket::bind((source, 0))).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        Client { daemon: self, source, socket }
    }

    /// One question from one address.
    pub(crate) fn ask(&self, source: &str, server: &str, name: &str, kind: u16) -> Message {
        self.client(source).ask(server, name, kind)
    }

    /// Asks until the reply is as wanted, for at most ten seconds: a reload has no acknowledgement.
    pub(crate) fn ask_until(
        &self,
        source: &str,
        name: &str,
        kind: u16,
        wanted: impl Fn(&Message) -> bool,
    ) -> Message {
        let client = self.client(source);
        let end = now() + Duration::from_secs(10);
        loop {
            let reply = client.ask(GATEWAY, name, kind);
            if wanted(&reply) {
                return reply;
            }
            assert!(now() < end, "still {reply:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let text = std::fs::read_to_string(self.pid_file()).unwrap_or_default();
        let Ok(pid) = text.parse::<i32>() else { return };
        // The number may be somebody else's by now: the command line tells.
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        if String::from_utf8_lossy(&command).contains(&*self.config.to_string_lossy()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

#[derive(Debug)]
pub(crate) struct Client<'a> {
    daemon: &'a Daemon,
    source: IpAddr,
    pub(crate) socket: UdpSocket,
}

impl Client<'_> {
    pub(crate) fn send(&self, server: &str, bytes: &[u8]) {
        let server: IpAddr = server.parse().unwrap();
        self.socket.send_to(bytes, (server, 53)).unwrap();
    }

    /// The next reply, or nothing within the time.
    pub(crate) fn receive(&self, limit: Duration) -> Option<Message> {
        self.socket.set_read_timeout(Some(limit)).unwrap();
        let mut bytes = [0; 65535];
        match self.socket.recv_from(&mut bytes) {
            Ok((count, _)) => Some(Message::read(&bytes[..count]).expect("a well-formed reply")),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            Err(error) => panic!("{error}"),
        }
    }

    pub(crate) fn ask(&self, server: &str, name: &str, kind: u16) -> Message {
        let query = message::query(0x2b67, name, kind);
        self.send(server, &query);
        let reply = self.receive(Duration::from_secs(10));
        let reply = reply.unwrap_or_else(|| panic!("no reply for {name} {kind} from {server}"));
        assert_eq!(reply.id, 0x2b67);
        reply
    }

    /// A TCP connection to the server.
    pub(crate) fn connect(&self, server: &str) -> Stream {
        use nix::sys::socket::{
            AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, setsockopt, socket, sockopt,
        };
        use std::os::fd::AsRawFd as _;
        let to = SocketAddr::new(server.parse().unwrap(), 53);
        let from = SocketAddr::new(self.source, 0);
        let made = self.daemon.machine.within(|| {
            let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
            let fd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
            setsockopt(&fd, sockopt::ReuseAddr, &true)?;
            bind(fd.as_raw_fd(), &SockaddrStorage::from(from))?;
            connect(fd.as_raw_fd(), &SockaddrStorage::from(to))?;
            Ok(TcpStream::from(fd))
        });
        let stream = made.unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        Stream(stream)
    }
}

/// A TCP connection to the daemon.
#[derive(Debug)]
pub(crate) struct Stream(pub(crate) TcpStream);

impl Stream {
    pub(crate) fn send(&mut self, query: &[u8]) {
        let mut frame = u16::try_from(query.len()).unwrap().to_be_bytes().to_vec();
        frame.extend_from_slice(query);
        self.0.write_all(&frame).unwrap();
    }

    pub(crate) fn receive(&mut self) -> Message {
        let mut length = [0; 2];
        self.0.read_exact(&mut length).unwrap();
        let mut bytes = vec![0; usize::from(u16::from_be_bytes(length))];
        self.0.read_exact(&mut bytes).unwrap();
        Message::read(&bytes).expect("a well-formed reply")
    }

    pub(crate) fn ask(&mut self, name: &str, kind: u16) -> Message {
        self.send(&message::query(7, name, kind));
        let reply = self.receive();
        assert_eq!(reply.id, 7);
        reply
    }

    /// Waits until the daemon closes the connection; how long that took.
    pub(crate) fn closed(&mut self, limit: Duration) -> Option<Duration> {
        let start = now();
        self.0.set_read_timeout(Some(limit)).unwrap();
        match self.0.read(&mut [0; 16]) {
            Ok(0) => Some(start.elapsed()),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Some(start.elapsed()),
            Err(_) => None,
            Ok(count) => panic!("{count} bytes"),
        }
    }
}
