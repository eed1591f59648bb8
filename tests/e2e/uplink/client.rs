//! Plays the network plugin for the uplink's tests: sends requests, with a TAP that it makes where it runs.
//!
//! `slipway-uplink-client SOCKET REQUEST [TAP]` prints the reply's `return`, or `errno text` on standard error and ends
//! with status 1. `slipway-uplink-client raw SOCKET TEXT` prints all that is said to the text, `slipway-uplink-client
//! hasty SOCKET TEXT..` says several things and leaves without an answer. It runs as the lab's user, in the namespace
//! whose TAP is wanted.

#![forbid(unsafe_code)]

use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use serde_json::Value;
use slipway_host::device::Tap;
use slipway_host::sys::fdpass;
use slipway_uplink::client::Client;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::Path;
use std::process::ExitCode;

/// Says each text in one packet.
fn say(path: &str, texts: &[&str]) -> OwnedFd {
    let socket = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::empty(), None).expect("a socket");
    connect(socket.as_raw_fd(), &UnixAddr::new(path).expect("a path")).expect("somebody there");
    for text in texts {
        fdpass::send(socket.as_fd(), text.as_bytes(), None).expect("to be heard");
    }
    socket
}

/// Says one thing and prints what is said until the other side hangs up.
fn raw(path: &str, text: &str) -> ExitCode {
    let socket = say(path, &[text]);
    let mut buffer = [0; 4096];
    loop {
        match fdpass::receive(socket.as_fd(), &mut buffer).expect("an answer") {
            (0, _) => return ExitCode::SUCCESS,
            (len, _) => println!("{}", String::from_utf8_lossy(&buffer[..len])),
        }
    }
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (socket, request, tap) = match words[..] {
        ["raw", socket, text] => return raw(socket, text),
        ["hasty", socket, ref texts @ ..] => {
            drop(say(socket, texts));
            return ExitCode::SUCCESS;
        }
        [socket, request] => (socket, request, None),
        [socket, request, tap] => (socket, request, Some(tap)),
        _ => return ExitCode::from(2),
    };
    let tap = tap.map(|name| OwnedFd::from(Tap::open(name).expect("a TAP")));
    if let Some(name) = words.get(2) {
        let script = format!("ip link set {name} master br0 up");
        assert!(std::process::Command::new("sh").args(["-c", &script]).status().expect("sh").success());
    }
    let request: Value = serde_json::from_str(request).expect("JSON");
    let client = Client::connect(Path::new(socket)).expect("an uplink");
    let fds: Vec<_> = tap.iter().map(|tap| tap.as_fd()).collect();
    match client.ask::<Value>(&request, &fds) {
        Ok(value) => {
            println!("{value}");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            eprintln!("{} {failure}", failure.errno().unwrap_or(0));
            ExitCode::FAILURE
        }
    }
}
