//! Entrances for the fuzzer: a command line, and a file; what clients of the API and guests' SSH servers send. Promise
//! of the first two: no panic, and what comes out is a network that could be. Of the others: no panic, and what was
//! accepted keeps its bounds.

use crate::args::Args;
use crate::config::Config;
use crate::control::http::head::{self, Parsed};
use crate::control::http::reply::Reply;
use crate::control::wait::Wanted;
use crate::control::{json, ssh, url};
use crate::orders::endpoint;
use crate::validate::{self, Journal, World};
use crate::yaml::{self, Document};
use nix::errno::Errno;
use slipway_netstack::addr::MacAddr;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::Duration;

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

/// The beginning of a connection to the API.
pub fn http_head(data: &[u8]) {
    match head::parse(data) {
        Parsed::Whole(head, len) => {
            assert!(len <= data.len() && len <= head::LONGEST);
            let cleaned = head::clean(&head.path);
            assert_eq!(head::clean(&cleaned), cleaned);
            let _ = head::parameter(&head.query, "ip");
            let _ = Wanted::parse(&head.query);
            let answer = Reply::not_found().bytes(&head, head.last, Duration::ZERO);
            assert!(answer.starts_with(b"HTTP/1."));
        }
        Parsed::Partial => assert!(data.len() < head::LONGEST),
        Parsed::Refused(refusal) => assert!(refusal.bytes().starts_with(b"HTTP/1.1 ")),
    }
}

/// What a guest's SSH server says, or a file that is to be a key.
pub fn ssh_server(data: &[u8]) {
    ssh::fuzz::server(data);
}

/// The body of a request to expose a port. What would be ordered is a place to listen at and one to lead to.
pub fn expose_json(data: &[u8]) {
    // The other body that is two texts.
    if let Ok((_, mac)) = json::lease(data) {
        assert!(mac.parse::<MacAddr>().is_ok());
    }
    let Ok(asked) = json::expose(data) else { return };
    if let Ok(guest) = endpoint::remote(&asked.remote) {
        assert_ne!(guest.port(), 0);
    }
    for network in ["tcp", "udp"] {
        let _ = endpoint::Local::parse(network, &asked.local);
    }
    let _ = url::parse(&asked.remote);
}

/// The body of a request to add names. What is listed is read as the same again.
pub fn dns_json(data: &[u8]) {
    let Ok(zone) = json::zone(data) else { return };
    let listed = serde_json::to_vec(&json::Zones(vec![&zone])).unwrap_or_default();
    let inner = listed.strip_prefix(b"[").and_then(|rest| rest.strip_suffix(b"]"));
    assert_eq!(json::zone(inner.unwrap_or_default()), Ok(zone));
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
            http_head(text);
            expose_json(text);
            dns_json(text);
            ssh_server(text);
        }
        http_head(b"GET /tunnel?ip=1 HTTP/1.1\r\nHost: x\r\n\r\n");
        expose_json(b"{\"local\":\":1\",\"remote\":\"tcp://1.2.3.4:1\"}");
        dns_json(b"{\"Name\":\"x.\",\"Records\":[{\"Regexp\":\"\"}],\"DefaultIP\":\"::1\"}");
    }
}
