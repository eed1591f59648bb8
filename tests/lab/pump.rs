//! A virtual machine's network card without the machine ([`testkit::pump`]): makes a TAP in the network namespace in
//! which it runs, and carries its frames to a `passt` at a socket, until that hangs up.

#![forbid(unsafe_code)]

use slipway_host::device::Tap;
use slipway_host::device::vhost_user::Wish;
use std::io;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use testkit::pump;

const USAGE: &str = "usage: slipway-lab-pump stream|rings SOCKET TAP";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("slipway-lab-pump: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> io::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let [kind, path, name] = words[..] else { return Err(io::Error::other(USAGE)) };
    let mut tap = Tap::open(name).map_err(io::Error::other)?;
    let socket = UnixStream::connect(path)?;
    match kind {
        "stream" => {
            println!("ready");
            pump::stream(&mut tap, socket)
        }
        "rings" => {
            let mut front = pump::card(&tap, socket, Wish::all())?;
            println!("ready");
            pump::rings(&mut tap, &mut front)
        }
        _ => Err(io::Error::other(USAGE)),
    }
}
