//! The link that `weather` describes: frames from one TAP to another and back, in one thread.
//!
//! It runs inside the network namespace of one end and makes a TAP there and in that of the other. Times are counted,
//! not slept: a frame's arrival follows from when its predecessors were sent, so waking late delays it once and slows
//! nothing down. The devices have no offloads: the kernel hands over frames of the device's size with their checksums,
//! which is what is numbered and lost.
//!
//! Limits: it is as punctual as the scheduler, some 50 µs on an idle machine.

#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::ExitCode;

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;
use slipway_host::sys::tun::{DEVICE, Flags, attach, open_device};
use slipway_lab::{LINK, Lane, Weather, now, within};

const USAGE: &str = "usage: slipway-lab-link PID_OF_WORLD MBIT RTT_MS LOST_OF_A_MILLION SEED";
/// Frames taken from one end before the other has its turn.
const BATCH: usize = 64;
/// More than an Ethernet frame of these devices.
const FRAME: usize = 4096;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("slipway-lab-link: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> io::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let [world, mbit, rtt, loss, seed] = words[..] else { return Err(invalid(USAGE)) };
    let weather = Weather::read([mbit, rtt, loss, seed]).ok_or_else(|| invalid(USAGE))?;
    let world = world.parse().map_err(|_| invalid(USAGE))?;
    let ends = [device()?, within(world, device)?];
    println!("ready");
    carry(&ends, [Lane::new(weather, false), Lane::new(weather, true)])
}

fn invalid(text: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidInput, text)
}

/// A new TAP in this thread's network namespace.
fn device() -> io::Result<File> {
    let fd = open_device(Path::new(DEVICE))?;
    attach(fd.as_fd(), LINK, Flags::TAP | Flags::NO_PI)?;
    Ok(File::from(fd))
}

/// Carries frames until somebody ends this program, or takes its devices away.
fn carry(ends: &[File; 2], mut lanes: [Lane; 2]) -> io::Result<()> {
    let [host, world] = ends;
    let mut buffer = [0; FRAME];
    loop {
        let [up, down] = &mut lanes;
        for (from, lane, to) in [(host, up, world), (world, down, host)] {
            take(from, lane, &mut buffer)?;
            let time = now();
            while let Some(frame) = lane.leave(time) {
                hand_over(to, &frame)?;
            }
        }
        let due = lanes.iter().filter_map(Lane::due).min();
        let pause = due.map(|due| TimeSpec::from_duration(due.saturating_duration_since(now())));
        let mut wait = [host, world].map(|end| PollFd::new(end.as_fd(), PollFlags::POLLIN));
        match ppoll(&mut wait, pause, None) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Takes the frames that an end has sent.
fn take(mut from: &File, lane: &mut Lane, buffer: &mut [u8]) -> io::Result<()> {
    let time = now();
    for _ in 0..BATCH {
        match from.read(buffer) {
            Ok(count) => lane.enter(time, buffer.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Gives a frame to an end. One that is not up yet says EIO: then it is lost, as on any wire.
fn hand_over(mut to: &File, frame: &[u8]) -> io::Result<()> {
    match to.write(frame) {
        Err(error) if error.raw_os_error() == Some(libc::EIO) => Ok(()),
        done => done.map(drop),
    }
}
