//! A TAP: one frame per system call, with a virtio-net header in front of it where the kernel allows.
//!
//! The header is what makes MTU 1500 as fast as MTU 65520: it lets a train of up to 64 KiB cross at once, and
//! leaves checksums undone. Every step falls back: no header → software does everything; no USO → UDP datagrams
//! one by one.
//!
//! The link may be down when we start (RootlessKit sets it up later) and may go down at any time. The kernel
//! then answers writes with EIO, so the frame is lost and counted, and reads simply find nothing. An interface
//! that was deleted answers EBADFD: that is the end.

use super::Lost;
use crate::strerror::words;
use crate::sys::tun::{self, Flags, OFFLOAD_LADDER, Offloads};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::uio::{readv, writev};
use slipway_netstack::device::vnet::HEADER_LEN;
use slipway_netstack::device::{Capabilities, Device, Full, Offload};
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// Frames with a senseless header that one call of `read_frame` skips before it lets others have their turn.
const SKIP_LIMIT: usize = 16;

/// An attached TAP, non-blocking.
#[derive(Debug)]
pub struct Tap {
    fd: OwnedFd,
    name: String,
    /// Whether each frame has a virtio-net header.
    header: bool,
    offloads: Offloads,
    lost: Lost,
}

impl Tap {
    /// Opens `/dev/net/tun` and attaches to the interface `name` in the calling thread's network namespace, or
    /// makes it.
    ///
    /// # Errors
    /// [`OpenError`], with a hint where there is one.
    pub fn open(name: &str) -> Result<Self, OpenError> {
        Self::open_at(Path::new(tun::DEVICE), name)
    }

    fn open_at(device: &Path, name: &str) -> Result<Self, OpenError> {
        let plain = Flags::TAP | Flags::NO_PI;
        let attempts = [
            plain | Flags::VNET_HDR,
            plain | Flags::VNET_HDR | Flags::MULTI_QUEUE,
            plain,
            plain | Flags::MULTI_QUEUE,
        ];
        let mut refusal = io::Error::from(Errno::EINVAL);
        for flags in attempts {
            // A new file for each attempt: one whose TUNSETIFF failed may be half attached.
            let fd = tun::open_device(device).map_err(OpenError::Device)?;
            match tun::attach(fd.as_fd(), name, flags) {
                Ok(_) => return Self::adopt(fd).map_err(|e| OpenError::attach(name, e)),
                Err(error) if error.raw_os_error() == Some(Errno::EINVAL as i32) => refusal = error,
                Err(error) => return Err(OpenError::attach(name, error)),
            }
        }
        Err(OpenError::attach(name, refusal))
    }

    /// Takes over a descriptor that is already attached to a TAP, and finds out what it can do.
    ///
    /// # Errors
    /// EINVAL when it is no TAP, or has packet information instead of bare frames.
    pub fn from_owned_fd(fd: OwnedFd) -> io::Result<Self> {
        if tun::has_packet_info(fd.as_fd())? {
            return Err(Errno::EINVAL.into());
        }
        Self::adopt(fd)
    }

    /// The same for a descriptor that is known to carry bare frames.
    fn adopt(fd: OwnedFd) -> io::Result<Self> {
        let attachment = tun::attachment(fd.as_fd())?;
        if !attachment.flags.contains(Flags::TAP) {
            return Err(Errno::EINVAL.into());
        }
        let status = OFlag::from_bits_retain(fcntl(fd.as_fd(), FcntlArg::F_GETFL)?);
        fcntl(fd.as_fd(), FcntlArg::F_SETFL(status | OFlag::O_NONBLOCK))?;
        let header = attachment.flags.contains(Flags::VNET_HDR);
        if header {
            let bytes = u8::try_from(HEADER_LEN).map_err(|_| Errno::EINVAL)?;
            tun::set_header_len(fd.as_fd(), bytes)?;
        }
        let offloads = Self::announce(fd.as_fd(), header);
        Ok(Self { fd, name: attachment.name, header, offloads, lost: Lost::default() })
    }

    /// Without a header nothing may be left undone; a persistent TAP remembers what its last owner announced, so
    /// "nothing" has to be said too.
    fn announce(fd: BorrowedFd<'_>, header: bool) -> Offloads {
        let none = Offloads::empty();
        let ladder = OFFLOAD_LADDER.into_iter().filter(|rung| header || *rung == none);
        ladder.into_iter().find(|rung| tun::set_offloads(fd, *rung).is_ok()).unwrap_or(none)
    }

    /// Whether frames from the guest come finished from now on, whatever was announced; or else as far as we
    /// understand.
    pub fn want_finished(&mut self, finished: bool) {
        self.offloads = Self::announce(self.fd.as_fd(), self.header && !finished);
    }

    /// The interface's name in its own namespace.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What we announced to understand in frames from the guest.
    #[must_use]
    pub fn offloads(&self) -> Offloads {
        self.offloads
    }

    /// What it takes off the engine's hands in frames to the guest.
    ///
    /// With the header any train that the kernel knows may be sent. It knows UDP trains exactly when it also let us
    /// announce them (Linux 6.2).
    #[must_use]
    pub fn capabilities(&self) -> Capabilities {
        Capabilities {
            checksum: self.header,
            tso4: self.header,
            tso6: self.header,
            uso: self.header && self.offloads.contains(Offloads::USO4 | Offloads::USO6),
        }
    }

    /// What it did not carry.
    #[must_use]
    pub fn lost(&self) -> Lost {
        self.lost
    }

    /// See [`super::Link::read_frame`].
    ///
    /// # Errors
    /// The interface was deleted.
    pub fn read_frame(&mut self, into: &mut [u8]) -> io::Result<Option<(Offload, usize)>> {
        for _ in 0..SKIP_LIMIT {
            let mut header = [0; HEADER_LEN];
            let read = if self.header {
                readv(&self.fd, &mut [IoSliceMut::new(&mut header), IoSliceMut::new(into)])
            } else {
                nix::unistd::read(&self.fd, into)
            };
            let len = match read {
                Ok(len) => len,
                // EIO: older kernels answer so while the interface is down. Nothing to read, not the end.
                Err(Errno::EAGAIN | Errno::EINTR | Errno::EIO | Errno::ENOBUFS) => return Ok(None),
                Err(error) => return Err(error.into()),
            };
            if !self.header {
                return Ok(Some((Offload::NONE, len)));
            }
            match (Offload::parse(&header), len.checked_sub(HEADER_LEN)) {
                (Some(offload), Some(len)) => return Ok(Some((offload, len))),
                _ => self.lost.malformed += 1,
            }
        }
        Ok(None)
    }
}

impl Device for Tap {
    fn transmit(&mut self, offload: Offload, frame: &[u8]) -> Result<(), Full> {
        let written = if self.header {
            writev(&self.fd, &[IoSlice::new(&offload.emit()), IoSlice::new(frame)])
        } else if offload == Offload::NONE {
            nix::unistd::write(&self.fd, frame)
        } else {
            Err(Errno::EINVAL)
        };
        match written {
            Ok(_) => Ok(()),
            Err(Errno::EAGAIN) => Err(Full),
            Err(Errno::ENOBUFS | Errno::ENOMEM | Errno::EINTR) => {
                self.lost.no_memory += 1;
                Ok(())
            }
            Err(Errno::EINVAL) => {
                self.lost.rejected += 1;
                Ok(())
            }
            // EIO: the interface is down. EBADFD: it is gone, which the next read reports.
            Err(_) => {
                self.lost.down += 1;
                Ok(())
            }
        }
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl From<Tap> for OwnedFd {
    fn from(tap: Tap) -> Self {
        tap.fd
    }
}

/// Why there is no TAP.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The device node cannot be opened.
    #[error("open(\"/dev/net/tun\"): {}{}", words(.0), device_hint(.0))]
    Device(#[source] io::Error),
    /// The interface cannot be made or attached to.
    #[error("cannot attach to the TAP \"{name}\": {}{}", words(.error), attach_hint(.error))]
    Attach {
        /// Its name.
        name: String,
        /// Why not.
        #[source]
        error: io::Error,
    },
}

impl OpenError {
    fn attach(name: &str, error: io::Error) -> Self {
        Self::Attach { name: name.to_owned(), error }
    }
}

fn device_hint(error: &io::Error) -> &'static str {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOENT | Errno::ENODEV | Errno::ENXIO) => {
            " (load the module: `modprobe tun`; inside a container, start it with `--device /dev/net/tun`)"
        }
        Some(Errno::EACCES) => " (allow its use: `chmod 0666 /dev/net/tun`)",
        Some(Errno::EPERM) => " (inside a container, start it with `--device /dev/net/tun`)",
        Some(Errno::EISDIR | Errno::ENOTDIR) => NO_DEVICE,
        _ => "",
    }
}

/// `docker run -v` of a path that is not there makes a directory or a file of it, and so do careless copies of /dev.
const NO_DEVICE: &str = " (/dev/net/tun is not the TUN device; make it anew: \
                         `rm -r /dev/net/tun; mknod -m 666 /dev/net/tun c 10 200`)";

fn attach_hint(error: &io::Error) -> &'static str {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EBUSY) => " (another program is attached to it; stop that one or choose another name)",
        Some(Errno::EPERM) => " (this needs CAP_NET_ADMIN in the network namespace)",
        Some(Errno::EINVAL) => {
            " (the name has 1 to 15 bytes, and must not be that of another kind of interface)"
        }
        // An ordinary file can be opened, and knows no TUNSETIFF; another device knows it no better.
        Some(Errno::ENOTTY) => NO_DEVICE,
        _ => "",
    }
}

#[cfg(test)]
mod tests;
