//! Addresses and ports as people write them for Go's programs, with what Go's net package says about those that are
//! none: such texts reach users by way of Podman, and tools look for them.
//!
//! Where Go would ask for a name, this does not: the process that listens has no sight of the host's files. `localhost`
//! and the services that Go knows by heart are known here, too.

use nix::errno::Errno;
use slipway_host::scope::ZonedAddr;
use slipway_host::strerror::words;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Services that have a port without /etc/services.
const SERVICES: [(&str, u16); 18] = [
    ("domain", 53),
    ("ftp", 21),
    ("ftps", 990),
    ("gopher", 70),
    ("http", 80),
    ("https", 443),
    ("imap2", 143),
    ("imap3", 220),
    ("imaps", 993),
    ("pop3", 110),
    ("pop3s", 995),
    ("smtp", 25),
    ("submissions", 465),
    ("ssh", 22),
    ("telnet", 23),
    ("ntp", 123),
    ("snmp", 161),
    ("syslog", 514),
];

/// The two halves of `host:port` or `[host]:port`.
///
/// # Errors
/// In Go's words.
pub fn split(endpoint: &str) -> Result<(&str, &str), String> {
    // Go names an address if there is something to be named.
    let of = if endpoint.is_empty() { String::new() } else { format!("address {endpoint}: ") };
    let wrong = |what: &str| Err(format!("{of}{what}"));
    let Some((before, port)) = endpoint.rsplit_once(':') else { return wrong("missing port in address") };
    let (host, rest) = match endpoint.strip_prefix('[') {
        Some(inner) => {
            let Some((host, behind)) = inner.split_once(']') else { return wrong("missing ']' in address") };
            match behind.strip_prefix(':') {
                Some(after) if after == port => (host, behind),
                Some(_) => return wrong("too many colons in address"),
                None => return wrong("missing port in address"),
            }
        }
        None if before.contains(':') => return wrong("too many colons in address"),
        None => (before, endpoint),
    };
    if host.contains('[') || rest.contains('[') {
        return wrong("unexpected '[' in address");
    }
    if rest.contains(']') {
        return wrong("unexpected ']' in address");
    }
    Ok((host, port))
}

/// A place on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Local {
    /// `None`: every address.
    pub host: Option<ZonedAddr>,
    /// 0: the kernel chooses.
    pub port: u16,
}

impl Local {
    /// The place that `text` names, for a listener of this network, `tcp` or `udp`.
    ///
    /// # Errors
    /// In Go's words: those of `net.Listen` for TCP, of `net.ResolveUDPAddr` for UDP, which says not what it was to do.
    pub fn parse(network: &str, text: &str) -> Result<Self, String> {
        let told = |what: String| if network == "tcp" { format!("listen tcp: {what}") } else { what };
        let (host, service) = split(text).map_err(told)?;
        let port = port_of(network, service).map_err(told)?;
        let host = match host {
            "" => None,
            "localhost" => Some(IpAddr::V4(Ipv4Addr::LOCALHOST).into()),
            text => {
                let address: ZonedAddr =
                    text.parse().map_err(|_| told(format!("lookup {text}: no such host")))?;
                Some(address)
            }
        };
        Ok(Self { host, port })
    }

    /// Why nobody can listen here.
    #[must_use]
    pub fn refused(&self, network: &str, error: &io::Error) -> String {
        let host = self.host.map_or_else(String::new, |host| host.to_string());
        let place = if host.contains(':') { format!("[{host}]") } else { host };
        format!("listen {network} {place}:{}: {}", self.port, refusal(error))
    }
}

/// A failed bind(2), or what comes before it, in Go's words: which call it was, and the kernel's text in small letters.
#[must_use]
pub fn refusal(error: &io::Error) -> String {
    let early = [Errno::EMFILE, Errno::ENFILE, Errno::EAFNOSUPPORT].map(|errno| Some(errno as i32));
    let call = if early.contains(&error.raw_os_error()) { "socket" } else { "bind" };
    format!("{call}: {}", in_small_letters(&words(error)))
}

/// Go writes the kernel's texts without the capital.
#[must_use]
pub fn in_small_letters(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_ascii_lowercase().to_string() + letters.as_str())
}

fn port_of(network: &str, service: &str) -> Result<u16, String> {
    let digits = service.strip_prefix(['+', '-']).unwrap_or(service);
    if service.is_empty() {
        return Ok(0);
    }
    if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        let number = service.strip_prefix('+').unwrap_or(service);
        return number.parse().map_err(|_| format!("address {service}: invalid port"));
    }
    let known = SERVICES.iter().find(|(name, _)| service.eq_ignore_ascii_case(name));
    known.map(|(_, port)| *port).ok_or_else(|| format!("lookup {network}/{service}: unknown port"))
}

/// A place in the network: an address and a port, nothing that would have to be asked for.
///
/// # Errors
/// In the words of gvproxy; a host name, over which that stumbles, is no address.
pub fn remote(text: &str) -> Result<SocketAddr, String> {
    let invalid = || "invalid remote addr".to_owned();
    let (host, port) = split(text).map_err(|_| invalid())?;
    let port = unsigned(port)?;
    let host: IpAddr = host.parse().map_err(|_| invalid())?;
    Some(SocketAddr::new(host, port)).filter(|_| port != 0).ok_or_else(invalid)
}

/// A number of 16 bits, as Go's `strconv.ParseUint` reads it.
fn unsigned(text: &str) -> Result<u16, String> {
    let wrong = |what: &str| format!("strconv.ParseUint: parsing {text:?}: {what}");
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong("invalid syntax"));
    }
    text.parse().map_err(|_| wrong("value out of range"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_told_apart_as_go_does() {
        for (text, halves) in [
            ("127.0.0.1:80", Ok(("127.0.0.1", "80"))),
            (":80", Ok(("", "80"))),
            (":", Ok(("", ""))),
            ("[::1]:80", Ok(("::1", "80"))),
            ("[fe80::1%eth0]:http", Ok(("fe80::1%eth0", "http"))),
            ("[]:1", Ok(("", "1"))),
            ("8080", Err("address 8080: missing port in address")),
            ("", Err("missing port in address")),
            ("::1:80", Err("address ::1:80: too many colons in address")),
            ("[::1]", Err("address [::1]: missing port in address")),
            ("[::1]80:1", Err("address [::1]80:1: missing port in address")),
            ("[::1]:80:1", Err("address [::1]:80:1: too many colons in address")),
            ("[::1:80", Err("address [::1:80: missing ']' in address")),
            ("a[:80", Err("address a[:80: unexpected '[' in address")),
            ("a]:80", Err("address a]:80: unexpected ']' in address")),
        ] {
            assert_eq!(split(text), halves.map_err(str::to_owned), "{text}");
        }
    }

    #[test]
    fn places_on_the_host_are_read_and_refused_as_go_does() {
        let place = |text: &str| Local::parse("tcp", text);
        assert_eq!(place(":6443"), Ok(Local { host: None, port: 6443 }));
        assert_eq!(
            place("localhost:ssh").unwrap().host.map(|host| host.ip()),
            Some("127.0.0.1".parse().unwrap())
        );
        assert_eq!(place("[::1]:HTTPS").unwrap().port, 443);
        for (text, words) in [
            ("8080", "listen tcp: address 8080: missing port in address"),
            (":99999", "listen tcp: address 99999: invalid port"),
            (":-1", "listen tcp: address -1: invalid port"),
            (":nosuch", "listen tcp: lookup tcp/nosuch: unknown port"),
            ("no.such:1", "listen tcp: lookup no.such: no such host"),
        ] {
            assert_eq!(place(text), Err(words.to_owned()), "{text}");
        }
        assert_eq!(Local::parse("udp", "1"), Err("address 1: missing port in address".into()));
        for (text, words) in [
            ("127.0.0.1:80", "listen tcp 127.0.0.1:80: bind: address already in use"),
            (":80", "listen tcp :80: bind: address already in use"),
            ("[::1]:80", "listen tcp [::1]:80: bind: address already in use"),
        ] {
            assert_eq!(place(text).unwrap().refused("tcp", &Errno::EADDRINUSE.into()), words);
        }
        let place = place("127.0.0.1:1").unwrap();
        for (errno, words) in [
            (Errno::EACCES, "bind: permission denied"),
            (Errno::EADDRNOTAVAIL, "bind: cannot assign requested address"),
            (Errno::EMFILE, "socket: too many open files"),
            (Errno::EAFNOSUPPORT, "socket: address family not supported by protocol"),
        ] {
            assert_eq!(place.refused("udp", &errno.into()), format!("listen udp 127.0.0.1:1: {words}"));
        }
    }

    #[test]
    fn places_in_the_network_are_addresses() {
        assert_eq!(remote("192.168.127.2:80"), Ok("192.168.127.2:80".parse().unwrap()));
        assert_eq!(remote("[fd00::2]:80"), Ok("[fd00::2]:80".parse().unwrap()));
        for text in ["guest:80", ":80", "192.168.127.2", "1.2.3.4:80:1", "1.2.3.4:0", "", "fd00::2:80"] {
            assert_eq!(remote(text), Err("invalid remote addr".into()), "{text}");
        }
        let wrong = |text: &str| remote(text).unwrap_err();
        assert_eq!(wrong("1.2.3.4:x"), "strconv.ParseUint: parsing \"x\": invalid syntax");
        assert_eq!(wrong("1.2.3.4:"), "strconv.ParseUint: parsing \"\": invalid syntax");
        assert_eq!(wrong("1.2.3.4:65536"), "strconv.ParseUint: parsing \"65536\": value out of range");
    }
}
