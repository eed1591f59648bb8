//! What `slirp4netns` says while it starts. Nobody parses it, but it ends up in the logs of container engines, and
//! people who look for a problem expect to find these lines there.

use super::config::Config;
use slipway_host::logging::stream::{STDERR, STDOUT};
use slipway_portfwd::api::slirp::Notice;
use std::fmt::Write as _;
use std::io::Write as _;

/// The block that describes the network, for stdout.
#[must_use]
pub fn start_up(config: &Config) -> String {
    let mut out = String::with_capacity(512);
    let mut line = |name: &str, value: &dyn std::fmt::Display| {
        let _ = writeln!(out, "* {:<16} {value}", format!("{name}:"));
    };
    let v4 = &config.v4;
    line("MTU", &config.link_mtu);
    line("Network", &v4.network.network());
    line("Netmask", &v4.network.netmask());
    line("Gateway", &v4.gateway);
    // The address is shown even when nobody answers there: it is a line that people compare.
    let dns = v4.dns.map_or_else(|| "disabled".to_owned(), |address| address.to_string());
    line("DNS", &dns);
    if let Some(pool) = v4.dhcp {
        let last = pool.first.to_bits().saturating_add(u32::from(pool.count).saturating_sub(1));
        line("DHCP begin", &pool.first);
        line("DHCP end", &std::net::Ipv4Addr::from_bits(last));
    }
    line("Recommended IP", &v4.guest);
    if let Some(path) = &config.api_socket {
        line("API Socket", &path.display());
    }
    if let Some(address) = config.outbound.v4 {
        line("Outbound IPv4", &address);
    }
    if let Some(address) = config.outbound.v6 {
        line("Outbound IPv6", &address);
    }
    if let Some(mac) = config.configure.and_then(|configure| configure.mac) {
        line("MAC address", &mac);
    }
    if config.host_loopback {
        let _ = writeln!(
            out,
            "WARNING: 127.0.0.1:* on the host can be reached as {} (forbid it with --disable-host-loopback)",
            v4.gateway
        );
    }
    format!("Starting slirp\n{out}")
}

/// Writes to stdout what somebody has asked for, and waits for the reader: help, the version. That it is closed is no
/// reason to fail.
pub fn answer(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Before anything is said by [`say`], and before the sandbox.
pub fn prepare() {
    STDOUT.own(std::io::stdout());
}

/// Writes to stdout what nobody has to read: that it is closed, or full, is no reason to fail, nor to wait.
pub fn say(text: &str) {
    STDOUT.offer(std::io::stdout().lock(), "", text);
}

/// Writes a line to stderr, or counts it as lost if there is no room.
pub fn complain(line: &str) {
    STDERR.offer(std::io::stderr().lock(), "", &format!("{line}\n"));
}

/// What the API's clients do, for stderr.
pub fn on_api(notice: Notice<'_>) {
    match notice {
        Notice::Connected => complain("apifd event"),
        Notice::Request(bytes) => {
            // Escaped: a client must not write lines or terminal sequences into the log of the engine that started us.
            let request: String = String::from_utf8_lossy(bytes)
                .trim_end()
                .chars()
                .flat_map(|c| {
                    let escape = c.is_control().then(|| c.escape_default());
                    let plain = escape.is_none().then_some(c);
                    escape.into_iter().flatten().chain(plain)
                })
                .collect();
            complain(&format!("api_handler: got request: {request}"));
        }
        Notice::Refused(reason) => complain(&format!("api_handler: {reason}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slirp4netns::{args, config};
    use std::ffi::OsString;
    use std::net::IpAddr;
    use std::path::Path;

    struct Nothing;

    impl config::World for Nothing {
        fn find(&self, _: &Path) -> Result<(), nix::errno::Errno> {
            Err(nix::errno::Errno::ENOENT)
        }

        fn interface_address(&self, _: &str, _: bool) -> Option<IpAddr> {
            None
        }
    }

    fn text(line: &[&str]) -> String {
        let words: Vec<_> = line.iter().map(OsString::from).collect();
        let mut notices = Vec::new();
        let low = args::parse("slirp4netns", &words, &mut notices, &|_| false).unwrap();
        start_up(&Config::new(low, &mut notices, &Nothing).unwrap())
    }

    #[test]
    fn the_lines_come_in_their_order() {
        let all = text(&[
            "-c",
            "--mtu=65520",
            "--api-socket=/run/s",
            "--outbound-addr=192.0.2.1",
            "--outbound-addr6=::1",
            "--macaddress=2:0:0:0:0:1",
            "7",
            "tap0",
        ]);
        let expected = [
            "Starting slirp",
            "* MTU:             65520",
            "* Network:         10.0.2.0",
            "* Netmask:         255.255.255.0",
            "* Gateway:         10.0.2.2",
            "* DNS:             10.0.2.3",
            "* DHCP begin:      10.0.2.15",
            "* DHCP end:        10.0.2.30",
            "* Recommended IP:  10.0.2.100",
            "* API Socket:      /run/s",
            "* Outbound IPv4:   192.0.2.1",
            "* Outbound IPv6:   ::1",
            "* MAC address:     02:00:00:00:00:01",
        ];
        let lines: Vec<_> = all.lines().collect();
        assert_eq!(lines[..expected.len()], expected);
        assert_eq!(lines.len(), expected.len() + 1);
        assert!(lines[expected.len()].starts_with("WARNING: 127.0.0.1:*"));
    }

    #[test]
    fn a_closed_loopback_is_not_warned_about() {
        let quiet = text(&["--disable-host-loopback", "--disable-dns", "7", "tap0"]);
        assert!(!quiet.contains("WARNING"));
        assert!(quiet.contains("* DNS:             disabled"));
    }
}
