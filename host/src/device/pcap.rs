//! A decorator that writes down every frame that passes, both ways, in the classic pcap format.
//!
//! Format: 24 bytes of file header, then for each frame 16 bytes (seconds, microseconds, stored length, real
//! length) and the frame, all in the host's byte order (the magic number tells readers which). Source:
//! draft-ietf-opsawg-pcap; link type 1 is Ethernet.
//!
//! Trains are written as they cross the link, up to 64 KiB long and with checksums left undone, just as tcpdump
//! shows them on an interface with offloads. Each frame is one write, so the file is complete when we are killed.
//! A capture must not hurt what it watches: if the file cannot be written any more, it ends with one log line.

use super::Link;
use slipway_netstack::device::{Device, Full, Offload};
use std::fs::File;
use std::io::{self, IoSlice, Write};
use std::time::{SystemTime, UNIX_EPOCH};

const MAGIC_MICROSECONDS: u32 = 0xa1b2_c3d4;
const SNAPLEN: u32 = 262_144;
const LINKTYPE_ETHERNET: u32 = 1;

/// A link that is written down.
#[derive(Debug)]
pub struct Capture<L> {
    inner: L,
    /// `None` after a write has failed.
    file: Option<File>,
}

impl<L> Capture<L> {
    /// Writes the file's header.
    ///
    /// # Errors
    /// Those of write(2).
    pub fn new(inner: L, mut file: File) -> io::Result<Self> {
        let mut header = Vec::with_capacity(24);
        header.extend(MAGIC_MICROSECONDS.to_ne_bytes());
        header.extend(2_u16.to_ne_bytes()); // version 2.4
        header.extend(4_u16.to_ne_bytes());
        header.extend([0; 8]); // time zone and accuracy, never used
        header.extend(SNAPLEN.to_ne_bytes());
        header.extend(LINKTYPE_ETHERNET.to_ne_bytes());
        file.write_all(&header)?;
        Ok(Self { inner, file: Some(file) })
    }

    /// The link itself.
    pub fn inner(&self) -> &L {
        &self.inner
    }

    fn record(&mut self, frame: &[u8]) {
        let Some(file) = &mut self.file else { return };
        if let Err(error) = write_record(file, now(), frame) {
            log::warn!("the packet capture ends here: {error}");
            self.file = None;
        }
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
            self.record(frame);
        }
        Ok(read)
    }
}

impl<L: Device> Device for Capture<L> {
    fn transmit(&mut self, offload: Offload, frame: &[u8]) -> Result<(), Full> {
        self.inner.transmit(offload, frame)?;
        self.record(frame);
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

fn write_record(file: &mut File, at: SystemTime, frame: &[u8]) -> io::Result<()> {
    let at = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    // The format's clock wraps in 2106; its lengths are far above MAX_FRAME.
    let seconds = u32::try_from(at.as_secs() & u64::from(u32::MAX)).unwrap_or_default();
    let len = u32::try_from(frame.len()).map_err(io::Error::other)?;
    let mut header = [0; 16];
    for (to, from) in header.chunks_exact_mut(4).zip([seconds, at.subsec_micros(), len, len]) {
        to.copy_from_slice(&from.to_ne_bytes());
    }
    let written = file.write_vectored(&[IoSlice::new(&header), IoSlice::new(frame)])?;
    if written == header.len() + frame.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}
