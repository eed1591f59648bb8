//! Front ends and guests of any kind: no panic, no circle, no wait. See [`crate::fuzz`].

use super::front::{Front, Wish};
use super::inbox::Message;
use super::message::{HEADER_LEN, Header};
use super::{MAX_FRAME, VhostUser};
use nix::sys::eventfd::EventFd;
use nix::sys::memfd::{MFdFlags, memfd_create};
use slipway_netstack::device::vnet::{Checksum, GsoKind};
use slipway_netstack::device::{Device as _, Gso, Offload};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

/// Descriptors of each ring.
const SIZE: usize = 16;
/// Its descriptors, and what is available.
const PARTS: [usize; 2] = [SIZE * 16, 4 + SIZE * 2];

pub(crate) fn requests(bytes: &[u8]) {
    let _ = answered(bytes);
}

fn answered(mut bytes: &[u8]) -> io::Result<()> {
    let (ours, _theirs) = UnixStream::pair()?;
    let mut link = VhostUser::from_owned_fd(ours.into())?;
    let file = File::from(memfd_create(c"fuzz", MFdFlags::MFD_CLOEXEC)?);
    file.set_len(1 << 20)?;
    while let Some((count, rest)) = bytes.split_first()
        && let Some((header, rest)) = rest.split_first_chunk::<HEADER_LEN>()
        && let Ok(header) = Header::parse(header)
        && let Some((payload, rest)) = rest.split_at_checked(header.size)
    {
        bytes = rest;
        let fd =
            |nth: u8| if nth < 16 { file.try_clone().map(OwnedFd::from) } else { Ok(EventFd::new()?.into()) };
        let fds = (0..count & 7).map(|_| fd(*count)).collect::<io::Result<_>>()?;
        link.obey(Message { header, payload: payload.to_vec(), fds })?;
        carry(&mut link)?;
    }
    Ok(())
}

pub(crate) fn rings(bytes: &[u8]) {
    let _ = scribbled(bytes);
}

fn scribbled(bytes: &[u8]) -> io::Result<()> {
    let (ours, theirs) = UnixStream::pair()?;
    let mut link = VhostUser::from_owned_fd(ours.into())?;
    let size = u16::try_from(SIZE).unwrap_or(1);
    let front = Front::start(theirs, Wish { size, ..Wish::all() })?;
    carry(&mut link)?;
    let mut bytes = bytes;
    for to_guest in [false, true] {
        let [descriptors, available, _] = front.ring(to_guest);
        for (at, len) in [descriptors, available].into_iter().zip(PARTS) {
            let (part, rest) = bytes.split_at(len.min(bytes.len()));
            let _ = front.memory().write(at, part);
            bytes = rest;
        }
    }
    for _ in 0..4 {
        carry(&mut link)?;
    }
    Ok(())
}

/// A round: what there is to read, and a train to send.
fn carry(link: &mut VhostUser) -> io::Result<()> {
    let mut into = vec![0; MAX_FRAME];
    for _ in 0..64 {
        if link.read_frame(&mut into)?.is_none() {
            break;
        }
    }
    let gso = Gso { kind: GsoKind::Tcp4, size: 1448, header_len: 54 };
    let offload = Offload { checksum: Checksum::Partial { start: 34, offset: 16 }, gso: Some(gso) };
    let _ = link.transmit(offload, into.get(..9000).unwrap_or_default());
    link.call();
    Ok(())
}
