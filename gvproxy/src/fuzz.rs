//! Entrances for the fuzzer: a command line, and a file. Promise of both: no panic, and what comes out is a network
//! that could be.

use crate::args::Args;
use crate::config::Config;
use crate::validate::{self, Journal, World};
use crate::yaml::{self, Document};
use nix::errno::Errno;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// Words of a command line, with zero bytes between them.
pub fn command_line(data: &[u8]) {
    let words: Vec<OsString> =
        data.split(|byte| *byte == 0).map(|word| OsStr::from_bytes(word).into()).collect();
    if let Ok(args) = Args::parse(&words) {
        make(&args, None);
        make(&args, Some(&Document::default()));
    }
}

/// The text of a file.
pub fn file(data: &[u8]) {
    if let Ok(document) = yaml::parse(data) {
        make(&Args::default(), Some(&document));
    }
}

fn make(args: &Args, document: Option<&Document>) {
    let journal = Journal::new(args, document);
    for is_there in [false, true] {
        if let Ok(config) = validate::config(args, document, &Nowhere(is_there)) {
            assert_eq!(config.log_level, journal.level);
            check(&config);
        }
    }
}

fn check(config: &Config) {
    let stack = &config.stack;
    let ours = [stack.gateway_ip, stack.device_ip, stack.host_ip];
    for (at, one) in ours.iter().enumerate() {
        assert!(stack.subnet.contains(one), "{stack:?}");
        assert!(*one != stack.subnet.network() && *one != stack.subnet.broadcast(), "{stack:?}");
        assert!(ours.iter().skip(at + 1).all(|other| other != one), "{stack:?}");
    }
    assert!(stack.mtu >= 68 && stack.tcp_max_in_flight > 0 && !stack.tcp_connect_timeout.is_zero());
    assert!(!stack.nat.is_empty() && !stack.virtual_ips.is_empty());
}

/// A machine on which everything is there, or nothing.
struct Nowhere(bool);

impl World for Nowhere {
    fn is_there(&self, _: &Path) -> bool {
        self.0
    }

    fn stat(&self, _: &Path) -> io::Result<()> {
        if self.0 { Ok(()) } else { Err(Errno::ENOENT.into()) }
    }

    fn search_domains(&self) -> Vec<String> {
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_survived() {
        command_line(b"-listen-qemu\0unix:///q\0-ssh-port\0-1\0-subnet\0 10.0.0.0/8");
        file(b"stack: {subnet: 10.0.0.0/29, forwards: {':80': 10.0.0.2:80}}");
        for text in [&b""[..], b"\0", b"-", b"\xff", b"&a [*a]"] {
            command_line(text);
            file(text);
        }
    }
}
