//! A virtual machine for tests: a container whose only interface is a TAP, with frames behind their lengths (four
//! bytes, big-endian) on the other side, as QEMU's `-netdev stream` has them.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread::JoinHandle;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use slipway_host::sys::tun::{DEVICE, Flags, attach, open_device};
use slipway_lab::{Container, LIMIT, Lab};

/// What carries the frames, and a way to hang up.
pub(crate) struct Machine {
    pump: JoinHandle<()>,
    stream: UnixStream,
}

impl Machine {
    /// Attaches a container to `socket`, by an interface `vm0` of that MAC address, or any.
    pub(super) fn attach(container: &Container, socket: &Path, mac: Option<&str>) -> Self {
        let tap = container.within(tap).unwrap();
        let up = container.sh(&up(mac)).unwrap();
        assert!(up.success(), "{up}");
        Self::carry(tap, socket)
    }

    /// The same for the lab's *host*, which plays a machine then.
    pub(crate) fn attach_host(lab: &Lab, socket: &Path, mac: &str) -> Self {
        let tap = lab.within_host(tap).unwrap();
        lab.host_root(["sh", "-c", &up(Some(mac))]).ok(LIMIT).unwrap();
        Self::carry(tap, socket)
    }

    fn carry(tap: File, socket: &Path) -> Self {
        let stream = UnixStream::connect(socket).unwrap();
        let held = stream.try_clone().unwrap();
        // It ends with the connection.
        Self { pump: std::thread::spawn(move || drop(pump(&tap, &stream))), stream: held }
    }

    /// Hangs up, and waits until nothing is carried any more.
    pub(crate) fn hang_up(self) {
        self.stream.shutdown(std::net::Shutdown::Both).unwrap();
        self.pump.join().unwrap();
    }
}

/// The interface `vm0` of the network namespace that this thread is in.
fn tap() -> io::Result<File> {
    let fd = open_device(Path::new(DEVICE))?;
    attach(fd.as_fd(), "vm0", Flags::TAP | Flags::NO_PI)?;
    Ok(File::from(fd))
}

/// What a shell says to it.
fn up(mac: Option<&str>) -> String {
    let address = mac.map(|mac| format!("ip link set vm0 address {mac}; ")).unwrap_or_default();
    format!("{address}ip link set lo up; ip link set vm0 up")
}

/// Carries frames between the two until either is gone.
fn pump(tap: &File, stream: &UnixStream) -> io::Result<()> {
    let (mut tap, mut stream) = (tap, stream);
    let (mut buffer, mut inbox) = (vec![0; 65_600], Vec::new());
    loop {
        let mut wait =
            [PollFd::new(tap.as_fd(), PollFlags::POLLIN), PollFd::new(stream.as_fd(), PollFlags::POLLIN)];
        poll(&mut wait, PollTimeout::NONE)?;
        let [from_tap, from_stream] = wait.map(|fd| fd.any().unwrap_or(true));
        if from_tap {
            let count = match tap.read(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                read => read?,
            };
            stream.write_all(&u32::try_from(count).unwrap().to_be_bytes())?;
            stream.write_all(&buffer[..count])?;
        }
        if from_stream {
            match stream.read(&mut buffer)? {
                0 => return Ok(()),
                count => inbox.extend_from_slice(&buffer[..count]),
            }
            while let Some(len) = inbox.first_chunk().map(|len| u32::from_be_bytes(*len) as usize)
                && inbox.len() >= 4 + len
            {
                tap.write_all(&inbox[4..4 + len])?;
                inbox.drain(..4 + len);
            }
        }
    }
}
