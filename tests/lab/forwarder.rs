//! Guests of a gvproxy, for the bench: a plain forwarder, which is the same for whatever gvproxy is measured, and
//! guests that need no machine because they only say something.
//!
//! A guest comes as `gvforwarder` does: a request for `/connect`, of which nothing but frames comes back, each behind
//! two bytes of length, the lower first (contract: gvproxy §5.6). The forwarder is two threads, one for each way, with
//! a call for each frame on the TAP's side and as many frames as there are with one call on the other: what a careful
//! program of that kind does, and nothing more, so that it is not what is measured.

#![forbid(unsafe_code)]

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use slipway_host::sys::tun::{DEVICE, Flags, attach, open_device};
use slipway_lab::now;
use std::fs::File;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::Ipv4Addr;
use std::os::fd::AsFd as _;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

const USAGE: &str = "usage: slipway-lab-forwarder carry SOCKET TAP | sit SOCKET NUMBER | flood SOCKET WORLD PORT RATE SECONDS | \
     datagrams SOCKET OWN WORLD PORT COUNT";
/// The gateway's hardware address, unless a configuration says otherwise.
const GATEWAY: [u8; 6] = [0x5a, 0x94, 0xef, 0xe4, 0x0c, 0xdd];
/// A device's frame with its length; the lower side takes 65535 bytes.
const FRAME: usize = 2 + 65_535;
/// Whoever loses what comes right behind the request loses nothing of what comes later than this.
const PAUSE: Duration = Duration::from_millis(300);
/// Frames that a flood without a rate hands over at a time.
const TRAIN: usize = 32;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match run(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("slipway-lab-forwarder: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(words: &[&str]) -> io::Result<()> {
    match words {
        ["carry", socket, tap] => carry(socket, tap),
        ["sit", socket, number] => sit(socket, read(number)?),
        ["flood", socket, world, port, rate, seconds] => {
            flood(socket, (read(world)?, read(port)?), read(rate)?, read(seconds)?)
        }
        ["datagrams", socket, own, world, port, count] => {
            datagrams(socket, own, (read(world)?, read(port)?), read(count)?)
        }
        _ => Err(io::Error::new(ErrorKind::InvalidInput, USAGE)),
    }
}

fn read<T: std::str::FromStr>(text: &str) -> io::Result<T> {
    text.parse().map_err(|_| io::Error::new(ErrorKind::InvalidInput, format!("{text}? {USAGE}")))
}

/// A guest's stream.
fn join(socket: &str) -> io::Result<UnixStream> {
    let mut stream = UnixStream::connect(socket)?;
    stream.write_all(b"POST /connect HTTP/1.1\r\nHost: \r\nContent-Length: 0\r\n\r\n")?;
    std::thread::sleep(PAUSE);
    Ok(stream)
}

/// Makes a TAP in this network namespace and carries its frames until the other side hangs up.
fn carry(socket: &str, name: &str) -> io::Result<()> {
    let fd = open_device(Path::new(DEVICE))?;
    attach(fd.as_fd(), name, Flags::TAP | Flags::NO_PI)?;
    let (tap, stream) = (File::from(fd), join(socket)?);
    let (of_tap, of_stream) = (tap.try_clone()?, stream.try_clone()?);
    println!("ready");
    std::thread::spawn(move || up(of_tap, of_stream));
    down(stream, &tap)
}

fn up(mut tap: File, mut stream: UnixStream) -> io::Result<()> {
    let (mut buffer, mut filled) = (vec![0; 2 * FRAME], 0);
    loop {
        let room = buffer.get_mut(filled..).unwrap_or_default();
        let read = match room.split_at_mut_checked(2) {
            Some((head, frame)) if frame.len() >= FRAME - 2 => tap.read(frame).map(|len| (head, len)),
            // There is no room for another one.
            _ => Err(ErrorKind::WouldBlock.into()),
        };
        match read {
            Ok((head, len)) => {
                head.copy_from_slice(&u16::try_from(len).map_err(io::Error::other)?.to_le_bytes());
                filled += 2 + len;
            }
            Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(error),
            Err(_) if filled > 0 => {
                stream.write_all(buffer.get(..filled).unwrap_or_default())?;
                filled = 0;
            }
            Err(_) => {
                poll(&mut [PollFd::new(tap.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE)?;
            }
        }
    }
}

fn down(mut stream: UnixStream, mut tap: &File) -> io::Result<()> {
    let (mut buffer, mut filled) = (vec![0; 4 * FRAME], 0);
    loop {
        match stream.read(buffer.get_mut(filled..).unwrap_or_default())? {
            0 => return Ok(()),
            count => filled += count,
        }
        let mut rest = buffer.get(..filled).unwrap_or_default();
        while let Some((len, behind)) = rest.split_first_chunk()
            && let Some((frame, behind)) = behind.split_at_checked(u16::from_le_bytes(*len).into())
        {
            match tap.write(frame) {
                // A device that is not up yet loses what comes, as any card does.
                Err(error) if error.raw_os_error() == Some(libc::EIO) => {}
                done => drop(done?),
            }
            rest = behind;
        }
        let left = rest.len();
        buffer.copy_within(filled - left..filled, 0);
        filled = left;
    }
}

/// Is a guest that has been heard once and takes what comes.
fn sit(socket: &str, number: u8) -> io::Result<()> {
    let mut stream = join(socket)?;
    stream.write_all(&behind_length(&question(number))?)?;
    println!("ready");
    swallow(&stream)
}

fn swallow(mut stream: &UnixStream) -> io::Result<()> {
    let mut buffer = vec![0; FRAME];
    while stream.read(&mut buffer)? > 0 {}
    Ok(())
}

/// Sends datagrams of 64 bytes to a port of the world, so many a second or (0) as fast as they are taken; says how many
/// there were.
fn flood(socket: &str, to: (Ipv4Addr, u16), rate: u64, seconds: u64) -> io::Result<()> {
    const NUMBER: u8 = 77;
    let mut stream = join(socket)?;
    let heard = stream.try_clone()?;
    std::thread::spawn(move || swallow(&heard));
    stream.write_all(&behind_length(&question(NUMBER))?)?;
    let one = behind_length(&datagram(NUMBER, to)?)?;
    let train = one.repeat(TRAIN);
    println!("ready");
    let (begin, span, mut sent) = (now(), Duration::from_secs(seconds), 0);
    while begin.elapsed() < span {
        if rate == 0 {
            stream.write_all(&train)?;
            sent += TRAIN as u128;
            continue;
        }
        if sent < begin.elapsed().as_micros() * u128::from(rate) / 1_000_000 {
            stream.write_all(&one)?;
            sent += 1;
        } else {
            std::thread::sleep(Duration::from_micros(100));
        }
    }
    println!("{sent}");
    Ok(())
}

/// Is a guest that comes by datagrams, as vfkit's do: sends so many to a port of the world that sends them back, then
/// nothing, and takes nothing that comes.
fn datagrams(socket: &str, own: &str, to: (Ipv4Addr, u16), count: u32) -> io::Result<()> {
    const NUMBER: u8 = 78;
    let guest = UnixDatagram::bind(own)?;
    guest.connect(socket)?;
    guest.send(&question(NUMBER))?;
    let frame = datagram(NUMBER, to)?;
    for _ in 0..count {
        guest.send(&frame)?;
    }
    println!("ready");
    io::stdin().read_to_end(&mut Vec::new()).map(drop)
}

fn behind_length(frame: &[u8]) -> io::Result<Vec<u8>> {
    let len = u16::try_from(frame.len()).map_err(io::Error::other)?;
    Ok([&len.to_le_bytes()[..], frame].concat())
}

const fn mac(number: u8) -> [u8; 6] {
    [0x5a, 0x94, 0xef, 0, 0, number]
}

/// Who has 192.168.127.1?
fn question(number: u8) -> Vec<u8> {
    let (mac, head) = (mac(number), [8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    [&[0xff; 6][..], &mac, &head, &mac, &[192, 168, 127, number], &[0; 6], &[192, 168, 127, 1]].concat()
}

/// A frame with a datagram for somebody outside.
fn datagram(number: u8, (to, port): (Ipv4Addr, u16)) -> io::Result<Vec<u8>> {
    const DATA: [u8; 64] = [b'f'; 64];
    let len = u16::try_from(8 + DATA.len()).map_err(io::Error::other)?;
    let mut ip = [0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 17, 0, 0, 192, 168, 127, number, 0, 0, 0, 0];
    ip[2..4].copy_from_slice(&(20 + len).to_be_bytes());
    ip[16..].copy_from_slice(&to.octets());
    let sum = !slipway_netstack::checksum::sum(&ip);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    // RFC 768: without a checksum.
    let udp = [7_u16, port, len, 0].map(u16::to_be_bytes).concat();
    Ok([&GATEWAY[..], &mac(number), &[8, 0], &ip, &udp, &DATA].concat())
}
