//! A virtual machine without the machine: a TAP in some namespace at one end, at the other what a hypervisor speaks, a
//! stream of frames or rings in shared memory. The kernel behind the TAP is the guest.

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use slipway_host::device::vhost_user::message::Features;
use slipway_host::device::vhost_user::{Front, Wish};
use slipway_host::device::{MAX_FRAME, Stream, Tap};
use slipway_host::sys::tun::{Offloads, set_offloads};
use slipway_netstack::device::vnet::Checksum;
use slipway_netstack::device::{Device as _, Offload};
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;

/// Frames taken from one side before the other has its turn.
const BATCH: usize = 64;

/// Connects a card to the device at the other end of `socket`, with as much of `wish` as that offers, and has the TAP
/// leave to it what it can do.
///
/// # Errors
/// The kernel's.
pub fn card(tap: &Tap, socket: UnixStream, wish: Wish) -> io::Result<Front> {
    let features = Features::from_bits_truncate(wish.features & Front::offered(&socket)?);
    let mut offloads = Offloads::empty();
    offloads.set(Offloads::CSUM, features.contains(Features::CSUM));
    offloads.set(Offloads::TSO4, features.contains(Features::CSUM | Features::HOST_TSO4));
    offloads.set(Offloads::TSO6, features.contains(Features::CSUM | Features::HOST_TSO6));
    set_offloads(tap.as_fd(), offloads)?;
    Front::start(socket, Wish { features: features.bits(), ..wish })
}

/// The frame that is next: the one that there was no room for, or one of the TAP's.
fn next(
    waiting: &mut Option<(Offload, usize)>,
    tap: &mut Tap,
    frame: &mut [u8],
) -> io::Result<Option<(Offload, usize)>> {
    match waiting.take() {
        Some(next) => Ok(Some(next)),
        None => tap.read_frame(frame),
    }
}

/// What to tell the kernel behind the TAP of a frame. A card's driver believes a device that vouches for a checksum,
/// whatever the frame says of it, and a device may count on that (the original passt does); a TAP hears it only of
/// checksums that are still to be written (`tun_get_user` of Linux).
fn believed(offload: Offload, frame: &[u8]) -> Offload {
    let upper = match frame.get(12..14) {
        Some([0x08, 0x00]) => frame.get(14).map(|first| 14 + usize::from(first & 15) * 4).zip(frame.get(23)),
        Some([0x86, 0xdd]) => Some(54).zip(frame.get(20)),
        _ => None,
    };
    let offset = match upper {
        Some((_, 6)) => 16,
        Some((_, 17)) => 6,
        _ => return offload,
    };
    let start = upper.and_then(|(start, _)| u16::try_from(start).ok());
    match (offload.checksum, start) {
        (Checksum::Verified, Some(start)) => {
            Offload { checksum: Checksum::Partial { start, offset }, ..offload }
        }
        _ => offload,
    }
}

/// Carries frames between the TAP and the rings, until the device hangs up.
///
/// # Errors
/// The kernel's.
pub fn rings(tap: &mut Tap, front: &mut Front) -> io::Result<()> {
    let mut frame = vec![0; MAX_FRAME];
    let mut waiting: Option<(Offload, usize)> = None;
    let mut got = Vec::new();
    loop {
        let mut idle = true;
        for _ in 0..BATCH {
            let next = next(&mut waiting, tap, &mut frame)?;
            let Some((offload, len)) = next else { break };
            if !front.send(&offload.emit_le(0), &frame[..len])? {
                waiting = Some((offload, len));
                break;
            }
            idle = false;
        }
        front.kick()?;
        for _ in 0..BATCH {
            let Some(header) = front.receive(&mut got)? else { break };
            idle = false;
            if let Some(offload) = Offload::parse_le(&header) {
                // What the kernel does not take is lost, as on any wire.
                let _ = tap.transmit(believed(offload, &got), &got);
            }
        }
        front.kick()?;
        if !idle {
            continue;
        }
        front.want_calls(true);
        if front.has_news()? {
            front.want_calls(false);
            continue;
        }
        let [to_guest, from_guest] = front.bells();
        let other = if waiting.is_some() { from_guest } else { tap.as_fd() };
        let mut wait = [to_guest, other, front.socket().as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        poll(&mut wait, PollTimeout::NONE)?;
        if wait[2].any().unwrap_or(true) {
            return Ok(());
        }
        front.want_calls(false);
        let _ = front.calls();
    }
}

/// The same between the TAP, which can do nothing for anybody then, and a stream.
///
/// # Errors
/// The kernel's, and the end of the connection.
pub fn stream(tap: &mut Tap, socket: UnixStream) -> io::Result<()> {
    set_offloads(tap.as_fd(), Offloads::empty())?;
    socket.set_nonblocking(true)?;
    let mut stream = Stream::from_owned_fd(socket.into());
    let (mut frame, mut got) = (vec![0; MAX_FRAME], vec![0; MAX_FRAME]);
    let mut waiting = None;
    loop {
        let mut idle = true;
        for _ in 0..BATCH {
            let next = next(&mut waiting, tap, &mut frame)?;
            let Some((_, len)) = next else { break };
            if stream.transmit(Offload::NONE, &frame[..len]).is_err() {
                waiting = next;
                break;
            }
            idle = false;
        }
        let full = stream.flush().is_err();
        for _ in 0..BATCH {
            let Some((_, len)) = stream.read_frame(&mut got)? else { break };
            idle = false;
            let _ = tap.transmit(Offload::NONE, &got[..len]);
        }
        if !idle {
            continue;
        }
        let mut flags = PollFlags::POLLIN;
        flags.set(PollFlags::POLLOUT, full);
        let from_tap = if waiting.is_some() { PollFlags::empty() } else { PollFlags::POLLIN };
        poll(
            &mut [PollFd::new(stream.as_fd(), flags), PollFd::new(tap.as_fd(), from_tap)],
            PollTimeout::NONE,
        )?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_that_is_vouched_for_is_one_to_be_written() {
        let vouched = Offload { checksum: Checksum::Verified, gso: None };
        let of = |kind: [u8; 2], first: u8, at: usize, protocol: u8| {
            let mut frame = vec![0; 80];
            frame[12..14].copy_from_slice(&kind);
            (frame[14], frame[at]) = (first, protocol);
            believed(vouched, &frame).checksum
        };
        assert_eq!(of([8, 0], 0x46, 23, 6), Checksum::Partial { start: 38, offset: 16 });
        assert_eq!(of([8, 0], 0x45, 23, 17), Checksum::Partial { start: 34, offset: 6 });
        assert_eq!(of([0x86, 0xdd], 0x60, 20, 6), Checksum::Partial { start: 54, offset: 16 });
        assert_eq!(of([8, 0], 0x45, 23, 1), Checksum::Verified, "ICMP has its own");
        assert_eq!(of([8, 6], 0, 23, 6), Checksum::Verified, "ARP");
        assert_eq!(believed(vouched, &[0; 13]).checksum, Checksum::Verified);
        assert_eq!(believed(Offload::NONE, &[8; 60]), Offload::NONE);
    }
}
