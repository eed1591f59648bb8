//! A driver with doors of every kind, and guests who come by them.

use crate::driver::config;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, MsgFlags, SockFlag, SockType, UnixAddr, bind, connect, listen, recv, send,
    socket, socketpair,
};
use slipway_host::clock;
use slipway_host::device::{Framing, GuestNews, LinkId, Lost, MAX_FRAME};
use slipway_host::driver::{Driver, GuestListener};
use slipway_netstack::Engine;
use slipway_netstack::addr::MacAddr;
use std::cell::RefCell;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

pub(super) const GATEWAY: [u8; 6] = [0x52, 0x55, 10, 0, 2, 2];
pub(super) const EVERYBODY: [u8; 6] = [0xff; 6];
pub(super) const ALL_NODES: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];

/// A driver with a door of each kind.
pub(super) struct House {
    pub(super) driver: Driver,
    pub(super) dir: TempDir,
}

impl House {
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(super) fn new() -> Self {
        let (driver, dir) = (Driver::idle(Engine::new(config())).unwrap(), tempfile::tempdir().unwrap());
        Self { driver, dir }
    }

    pub(super) fn listens(mut self, listener: impl FnOnce(&Path) -> GuestListener) -> Self {
        let listener = listener(self.dir.path());
        self.driver.listen_for_guests(listener).unwrap();
        self
    }

    pub(super) fn with_all_doors() -> Self {
        Self::new()
            .listens(|dir| GuestListener::Qemu(UnixListener::bind(dir.join("qemu")).unwrap().into()))
            .listens(|dir| GuestListener::Bess(packets(&dir.join("bess"))))
            .listens(|dir| GuestListener::Vfkit(UnixDatagram::bind(dir.join("vfkit")).unwrap().into()))
            .listens(|dir| vpnkit(&dir.join("vpnkit")))
    }

    pub(super) fn rounds(&mut self, count: usize) {
        for _ in 0..count {
            self.driver.turn(Some(clock::now())).unwrap();
        }
    }

    /// Rounds until something has come of them.
    pub(super) fn until<T>(&mut self, what: &str, mut done: impl FnMut(&mut Driver) -> Option<T>) -> T {
        let end = clock::now() + Duration::from_secs(10);
        loop {
            if let Some(found) = done(&mut self.driver) {
                return found;
            }
            assert!(clock::now() < end, "{what}");
            self.driver.turn(Some(clock::now() + Duration::from_millis(1))).unwrap();
        }
    }

    /// A guest by this door, which has been seen there.
    pub(super) fn guest(&mut self, door: &str, number: u8) -> Guest {
        let wire = match door {
            "qemu" => {
                let stream = UnixStream::connect(self.path(door)).unwrap();
                Wire::Stream(stream.into(), Framing::Be32)
            }
            "vpnkit" => {
                let mut stream = UnixStream::connect(self.path(door)).unwrap();
                stream.write_all(&[7; 49]).unwrap();
                stream.write_all(&[1; 41]).unwrap();
                self.rounds(5);
                stream.read_exact(&mut [0; 49 + 258]).unwrap();
                Wire::Stream(stream.into(), Framing::Le16)
            }
            "bess" => {
                let fd = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None);
                let fd = fd.unwrap();
                connect(fd.as_raw_fd(), &UnixAddr::new(&self.path(door)).unwrap()).unwrap();
                Wire::Packets(fd)
            }
            "vfkit" => {
                let fd = UnixDatagram::bind(self.path(&format!("guest{number}"))).unwrap();
                fd.connect(self.path(door)).unwrap();
                Wire::Packets(fd.into())
            }
            "connect" => {
                let (ours, guest) = UnixStream::pair().unwrap();
                self.driver.join(ours.into(), Framing::Le16, Vec::new()).unwrap();
                Wire::Stream(guest.into(), Framing::Le16)
            }
            "handed" | "pair" => {
                let kind = if door == "pair" { SockType::Datagram } else { SockType::SeqPacket };
                let (ours, guest) =
                    socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC).unwrap();
                self.driver.adopt(ours).unwrap();
                Wire::Packets(guest)
            }
            "stdio" => {
                let (input, to_us) = nix::unistd::pipe().unwrap();
                let (from_us, output) = nix::unistd::pipe().unwrap();
                self.driver.listen_for_guests(GuestListener::Stdio { input, output }).unwrap();
                Wire::Pipes(from_us, to_us)
            }
            _ => panic!("{door}"),
        };
        let guest = Guest { wire, number, inbox: RefCell::default() };
        guest.send(EVERYBODY, b"hello");
        let mac = MacAddr(guest.mac());
        self.until("it is seen", |driver| driver.cam().into_iter().find(|(known, _)| *known == mac));
        guest
    }

    pub(super) fn link_of(&self, guest: &Guest) -> LinkId {
        let mac = MacAddr(guest.mac());
        self.driver.cam().into_iter().find(|(known, _)| *known == mac).unwrap().1
    }

    pub(super) fn lost_by(&self, guest: &Guest) -> Lost {
        self.driver.links().lost_by(self.link_of(guest)).unwrap()
    }

    pub(super) fn frames_in(&self) -> u64 {
        self.driver.peek_engine().counters().frames_in
    }

    pub(super) fn news(&mut self) -> Vec<GuestNews> {
        self.driver.guest_news()
    }
}

/// Those whose guests' ends are noticed.
pub(super) const DOORS: [&str; 7] = ["qemu", "bess", "vfkit", "vpnkit", "connect", "handed", "stdio"];

pub(super) enum Wire {
    Stream(OwnedFd, Framing),
    Packets(OwnedFd),
    Pipes(OwnedFd, OwnedFd),
}

/// A guest's end.
pub(super) struct Guest {
    pub(super) wire: Wire,
    pub(super) number: u8,
    pub(super) inbox: RefCell<Vec<u8>>,
}

impl Guest {
    pub(super) fn mac(&self) -> [u8; 6] {
        [2, 0, 0, 0, 0, self.number]
    }

    pub(super) fn send(&self, to: [u8; 6], payload: &[u8]) {
        self.send_frame(&[&to[..], &self.mac(), &[0x88, 0xb5], payload].concat());
    }

    pub(super) fn send_frame(&self, frame: &[u8]) {
        match &self.wire {
            Wire::Stream(fd, framing) => self.write(fd, &behind_length(*framing, frame)),
            Wire::Packets(fd) => assert_eq!(send(fd.as_raw_fd(), frame, MsgFlags::empty()), Ok(frame.len())),
            Wire::Pipes(_, output) => {
                let bytes = behind_length(Framing::Le16, frame);
                assert_eq!(nix::unistd::write(output, &bytes), Ok(bytes.len()));
            }
        }
    }

    /// The same if there is room for it in a stream's socket, and whether there was.
    pub(super) fn sends_frame(&self, frame: &[u8]) -> bool {
        let Wire::Stream(fd, framing) = &self.wire else { panic!("no stream") };
        let bytes = behind_length(*framing, frame);
        match send(fd.as_raw_fd(), &bytes, MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT) {
            Err(Errno::EAGAIN) => false,
            sent => {
                assert_eq!(sent, Ok(bytes.len()), "{}", self.number);
                true
            }
        }
    }

    pub(super) fn write(&self, fd: &OwnedFd, bytes: &[u8]) {
        let sent = send(fd.as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL).unwrap();
        assert_eq!(sent, bytes.len(), "{}", self.number);
    }

    pub(super) fn send_bytes(&self, bytes: &[u8]) {
        let Wire::Stream(fd, _) = &self.wire else { panic!("no stream") };
        self.write(fd, bytes);
    }

    /// Every frame that has arrived, of those that were sent for these tests.
    pub(super) fn frames(&self) -> Vec<Vec<u8>> {
        let mut buffer = vec![0; 2 * MAX_FRAME];
        let mut frames = Vec::new();
        let (fd, framing) = match &self.wire {
            Wire::Packets(fd) => {
                while let Ok(len) = recv(fd.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT)
                    && len > 0
                {
                    frames.push(buffer[..len].to_vec());
                }
                return frames;
            }
            Wire::Stream(fd, framing) => (fd, *framing),
            Wire::Pipes(input, _) => (input, Framing::Le16),
        };
        let mut inbox = self.inbox.borrow_mut();
        loop {
            let read = match &self.wire {
                Wire::Pipes(..) => {
                    let mut fds =
                        [nix::poll::PollFd::new(std::os::fd::AsFd::as_fd(fd), nix::poll::PollFlags::POLLIN)];
                    if nix::poll::poll(&mut fds, nix::poll::PollTimeout::ZERO) != Ok(1) {
                        break;
                    }
                    nix::unistd::read(fd, &mut buffer)
                }
                _ => recv(fd.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT),
            };
            match read {
                Ok(len) if len > 0 => inbox.extend(&buffer[..len]),
                _ => break,
            }
        }
        let header = framing.header_len();
        while let Some(len) = framing.length(&inbox)
            && inbox.len() >= header + len
        {
            frames.push(inbox[header..header + len].to_vec());
            inbox.drain(..header + len);
        }
        frames
    }

    /// The payloads of those that guests sent each other.
    pub(super) fn heard(&self) -> Vec<Vec<u8>> {
        let ours = |frame: Vec<u8>| (frame[12..14] == [0x88, 0xb5]).then(|| frame[14..].to_vec());
        self.frames().into_iter().filter_map(ours).collect()
    }
}

pub(super) fn behind_length(framing: Framing, frame: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    assert!(framing.put(frame.len(), &mut bytes));
    bytes.extend(frame);
    bytes
}

pub(super) fn packets(path: &Path) -> OwnedFd {
    let fd = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).unwrap();
    bind(fd.as_raw_fd(), &UnixAddr::new(path).unwrap()).unwrap();
    listen(&fd, Backlog::new(8).unwrap()).unwrap();
    fd
}

pub(super) fn vpnkit(path: &Path) -> GuestListener {
    let macs = vec![("c3d68012-0208-11ea-9fd7-f2189899ab08".to_owned(), MacAddr([2, 0, 0, 0, 0, 9]))];
    GuestListener::Vpnkit { socket: UnixListener::bind(path).unwrap().into(), macs, mtu: 1500 }
}

/// A guest by each door.
pub(super) fn guests(house: &mut House) -> Vec<Guest> {
    let guests: Vec<_> = DOORS.iter().zip(1..).map(|(door, number)| house.guest(door, number)).collect();
    house.rounds(3);
    guests.iter().for_each(|guest| drop(guest.frames()));
    guests
}
