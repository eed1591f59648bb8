//! What passes is written down, both ways, in the classic pcap format: every frame of a link ([`Capture`]), or every IP
//! packet that the engine gets and sends, whatever link it is on ([`Packets`]).
//!
//! Format: 24 bytes of file header, then for each frame 16 bytes (seconds, microseconds, stored length, real
//! length) and the frame, all in the host's byte order (the magic number tells readers which). Source:
//! draft-ietf-opsawg-pcap; link type 1 is Ethernet, 101 is IP without anything before it.
//!
//! Trains are written as they cross the link, up to 64 KiB long and with checksums left undone, just as tcpdump shows
//! them on an interface with offloads. Each frame is one write, so the file is complete when we are killed. A capture
//! must not hurt what it watches: if the file cannot be written any more, it ends with one log line, behind the last
//! frame that is whole. The line is an error, for somebody asked for what is not there now: it is said under `--quiet`
//! too. A file may have the frames of several links, of guests that come one after the other.

use super::Link;
use slipway_netstack::addr::MacAddr;
use slipway_netstack::device::{Device, Full, Offload};
use std::cell::RefCell;
use std::fs::File;
use std::io::{self, IoSlice, Write};
use std::rc::Rc;
use std::time::{SystemTime, UNIX_EPOCH};

const MAGIC_MICROSECONDS: u32 = 0xa1b2_c3d4;
const SNAPLEN: u32 = 262_144;
/// Of Ethernet, the type last.
const HEADER: usize = 14;
const LINKTYPE_ETHERNET: u32 = 1;
const LINKTYPE_RAW: u32 = 101;

/// A file in which frames are written down.
#[derive(Debug, Clone)]
pub struct Recorder {
    /// `None` after a write has failed.
    records: Rc<RefCell<Option<Records>>>,
}

/// A link that is written down.
#[derive(Debug)]
pub struct Capture<L> {
    inner: L,
    recorder: Recorder,
}

/// The file, and how much of it is whole.
#[derive(Debug)]
struct Records {
    file: File,
    whole: u64,
}

impl Recorder {
    /// Writes the file's header.
    ///
    /// # Errors
    /// Those of write(2).
    pub fn new(file: File) -> io::Result<Self> {
        Self::begin(file, LINKTYPE_ETHERNET)
    }

    fn begin(mut file: File, link: u32) -> io::Result<Self> {
        let mut header = Vec::with_capacity(24);
        header.extend(MAGIC_MICROSECONDS.to_ne_bytes());
        header.extend(2_u16.to_ne_bytes()); // version 2.4
        header.extend(4_u16.to_ne_bytes());
        header.extend([0; 8]); // time zone and accuracy, never used
        header.extend(SNAPLEN.to_ne_bytes());
        header.extend(link.to_ne_bytes());
        file.write_all(&header)?;
        let whole = u64::try_from(header.len()).map_err(io::Error::other)?;
        Ok(Self { records: Rc::new(RefCell::new(Some(Records { file, whole }))) })
    }

    fn record(&self, frame: &[u8]) {
        let mut records = self.records.borrow_mut();
        let Some(open) = records.as_mut() else { return };
        if let Err(error) = open.add(now(), frame) {
            log::error!("the packet capture ends here: {error}");
            *records = None;
        }
    }
}

/// A file in which the IP packets of an engine are written down.
#[derive(Debug)]
pub struct Packets(Recorder);

impl Packets {
    /// Writes the file's header.
    ///
    /// # Errors
    /// Those of write(2).
    pub fn new(file: File) -> io::Result<Self> {
        Recorder::begin(file, LINKTYPE_RAW).map(Self)
    }

    /// Writes down the packet in a frame; one that has none is left out.
    pub(crate) fn record(&self, frame: &[u8]) {
        if let Some((header, packet)) = frame.split_first_chunk::<HEADER>()
            && matches!(header, [.., 0x08, 0x00] | [.., 0x86, 0xdd])
        {
            self.0.record(packet);
        }
    }
}

/// A device whose packets are written down as they leave.
#[derive(Debug)]
pub(crate) struct Recorded<'a, L> {
    pub(crate) inner: &'a mut L,
    pub(crate) packets: &'a Packets,
}

impl<L: Device> Device for Recorded<'_, L> {
    fn transmit(&mut self, offload: Offload, frame: &[u8]) -> Result<(), Full> {
        self.inner.transmit(offload, frame)?;
        self.packets.record(frame);
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.inner.is_full()
    }

    fn may_have_room(&self, station: MacAddr) -> bool {
        self.inner.may_have_room(station)
    }

    fn flush(&mut self) {
        self.inner.flush();
    }
}

impl<L> Capture<L> {
    /// The link, written down there.
    pub const fn new(inner: L, recorder: Recorder) -> Self {
        Self { inner, recorder }
    }

    /// The link itself.
    pub const fn inner(&self) -> &L {
        &self.inner
    }

    /// The decorated link, to work with past the file.
    pub const fn inner_mut(&mut self) -> &mut L {
        &mut self.inner
    }

    /// The link itself, no longer written down.
    pub fn into_inner(self) -> L {
        self.inner
    }
}

impl Capture<Link> {
    /// See [`Link::read_frame`].
    ///
    /// # Errors
    /// The link's own.
    pub fn read_frame(&mut self, into: &mut [u8]) -> io::Result<Option<(Offload, usize)>> {
        let read = self.inner.read_frame(into)?;
        if let Some(frame) = read.and_then(|(_, len)| into.get(..len)) {
            self.recorder.record(frame);
        }
        Ok(read)
    }
}

impl<L: Device> Device for Capture<L> {
    fn transmit(&mut self, offload: Offload, frame: &[u8]) -> Result<(), Full> {
        self.inner.transmit(offload, frame)?;
        self.recorder.record(frame);
        Ok(())
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a capture is stamped with wall-clock time, at the border itself"
)]
fn now() -> SystemTime {
    SystemTime::now()
}

impl Records {
    /// Adds a record, or leaves the file as it was.
    fn add(&mut self, at: SystemTime, frame: &[u8]) -> io::Result<()> {
        let header = header(at, frame)?;
        let len = self.write(&header, frame).inspect_err(|_| {
            // What is no file, such as a pipe, cannot be cut, and takes all or nothing of this length as a rule.
            let _ = self.file.set_len(self.whole);
        })?;
        self.whole += u64::try_from(len).map_err(io::Error::other)?;
        Ok(())
    }

    fn write(&self, header: &[u8], frame: &[u8]) -> io::Result<usize> {
        let len = header.len() + frame.len();
        let mut file = &self.file;
        let written = file.write_vectored(&[IoSlice::new(header), IoSlice::new(frame)])?;
        if written < len {
            // The disk is full: the next write says so, or finds room again.
            file.write_all([header, frame].concat().get(written..).unwrap_or_default())?;
        }
        Ok(len)
    }
}

/// What stands before a frame.
fn header(at: SystemTime, frame: &[u8]) -> io::Result<[u8; 16]> {
    let at = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    // The format's clock wraps in 2106; its lengths are far above MAX_FRAME.
    let seconds = u32::try_from(at.as_secs() & u64::from(u32::MAX)).unwrap_or_default();
    let len = u32::try_from(frame.len()).map_err(io::Error::other)?;
    let mut header = [0; 16];
    for (to, from) in header.chunks_exact_mut(4).zip([seconds, at.subsec_micros(), len, len]) {
        to.copy_from_slice(&from.to_ne_bytes());
    }
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Seqpacket;
    use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, send, socketpair};
    use std::io::{Read as _, Seek as _};
    use std::os::fd::AsRawFd as _;

    /// The frames of a capture, with their times in seconds.
    fn parse(bytes: &[u8]) -> Vec<(u32, Vec<u8>)> {
        let word = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap());
        assert_eq!(
            (word(0), bytes[4..8].to_vec()),
            (0xa1b2_c3d4, [2_u16.to_ne_bytes(), 4_u16.to_ne_bytes()].concat())
        );
        assert_eq!((word(8), word(12), word(20)), (0, 0, 1), "Ethernet");
        assert!(usize::try_from(word(16)).unwrap() >= crate::device::MAX_FRAME);
        let mut frames = Vec::new();
        let mut at = 24;
        while at < bytes.len() {
            let len = usize::try_from(word(at + 8)).unwrap();
            assert_eq!(word(at + 8), word(at + 12), "nothing is cut");
            assert!(word(at + 4) < 1_000_000, "microseconds");
            frames.push((word(at), bytes[at + 16..at + 16 + len].to_vec()));
            at += 16 + len;
        }
        frames
    }

    fn pair() -> (Seqpacket, std::os::fd::OwnedFd) {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let (ours, guest) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags).unwrap();
        (Seqpacket::from_owned_fd(ours), guest)
    }

    #[test]
    fn both_directions_are_in_the_file_in_order() {
        let mut file = tempfile::tempfile().unwrap();
        let (socket, guest) = pair();
        let mut link = Link::from(socket).captured(file.try_clone().unwrap()).unwrap();
        let mut buffer = vec![0; crate::device::MAX_FRAME];
        send(guest.as_raw_fd(), &[1; 60], MsgFlags::empty()).unwrap();
        assert_eq!(link.read_frame(&mut buffer).unwrap(), Some((Offload::NONE, 60)));
        assert_eq!(link.read_frame(&mut buffer).unwrap(), None);
        assert_eq!(link.transmit(Offload::NONE, &[2; 65_000]), Ok(()));
        let mut bytes = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut bytes).unwrap();
        let frames = parse(&bytes);
        assert_eq!(frames.iter().map(|(_, frame)| frame.len()).collect::<Vec<_>>(), [60, 65_000]);
        assert_eq!((frames[0].1[0], frames[1].1[0]), (1, 2));
        assert!(frames[0].0 > 1_700_000_000, "wall-clock time");
    }

    #[test]
    fn an_engine_s_packets_are_written_without_what_stands_before_them() {
        let mut file = tempfile::tempfile().unwrap();
        let packets = Packets::new(file.try_clone().unwrap()).unwrap();
        let frame = |kind: [u8; 2], content: &[u8]| [&[2; 12][..], &kind, content].concat();
        packets.record(&frame([8, 6], b"ARP"));
        packets.record(&frame([8, 0], b"four"));
        packets.record(&[8, 0]);
        let (mut link, _guest) = pair();
        let mut recorded = Recorded { inner: &mut link, packets: &packets };
        assert_eq!(recorded.transmit(Offload::NONE, &frame([0x86, 0xdd], b"six")), Ok(()));
        let mut bytes = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes[20..24], 101_u32.to_ne_bytes(), "raw IP");
        bytes[20..24].copy_from_slice(&1_u32.to_ne_bytes());
        let found: Vec<_> = parse(&bytes).into_iter().map(|(_, packet)| packet).collect();
        assert_eq!(found, [b"four".to_vec(), b"six".to_vec()]);
    }

    #[test]
    fn a_file_that_cannot_be_written_does_not_hurt_the_traffic() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pcap");
        std::fs::write(&path, "").unwrap();
        let (socket, _guest) = pair();
        assert!(Link::from(socket).captured(File::open(&path).unwrap()).is_err(), "told at the start");
        let (socket, _guest) = pair();
        let records = Some(Records { file: File::open(&path).unwrap(), whole: 0 });
        let recorder = Recorder { records: Rc::new(RefCell::new(records)) };
        let mut capture = Capture::new(Link::from(socket), recorder.clone());
        assert_eq!(capture.transmit(Offload::NONE, &[0; 60]), Ok(()));
        assert!(recorder.records.borrow().is_none(), "it has ended");
        assert_eq!(capture.transmit(Offload::NONE, &[0; 60]), Ok(()));
    }

    #[test]
    fn on_a_full_disk_the_last_record_is_whole() {
        use nix::mount::{MsFlags, mount};
        use nix::sched::{CloneFlags, unshare};
        let name = "on_a_full_disk_the_last_record_is_whole";
        let dir = tempfile::tempdir().unwrap();
        let child = crate::sys::proc::fork_child(|| {
            let nothing = None::<&str>;
            let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            let full = unshare(CloneFlags::CLONE_NEWNS)
                .and_then(|()| mount(nothing, "/", nothing, private, nothing))
                .and_then(|()| {
                    mount(Some("tmpfs"), dir.path(), Some("tmpfs"), MsFlags::empty(), Some("size=64k"))
                });
            if full.is_err() {
                return 77;
            }
            let path = dir.path().join("pcap");
            let (socket, _guest) = pair();
            let mut link = Link::from(socket).captured(File::create(&path).unwrap()).unwrap();
            for _ in 0..100 {
                // The guest's queue may be full; what has not left is not recorded either.
                let _ = link.transmit(Offload::NONE, &[7; 1500]);
            }
            let frames = parse(&std::fs::read(&path).unwrap());
            assert!((40..44).contains(&frames.len()), "{} frames of 1516 bytes in 64 KiB", frames.len());
            0
        });
        match crate::sys::proc::wait_for(child.unwrap()).unwrap() {
            nix::sys::wait::WaitStatus::Exited(_, 0) => {}
            nix::sys::wait::WaitStatus::Exited(_, 77) => println!("SKIP {name}: nothing may be mounted here"),
            status => panic!("{status:?}"),
        }
    }
}
