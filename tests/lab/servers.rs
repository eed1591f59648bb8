//! The servers that world (or anything else) offers, and how to wait until one listens.

use std::io;
use std::time::Duration;

use crate::command::{Cmd, Running, slurp};
use crate::namespaces::{Lab, WORLD4, WORLD6};

const START: Duration = Duration::from_secs(10);

impl Lab {
    /// A DNS server in world: `name.test` and `world.test` are world's own addresses, `big.test` holds a text record
    /// that does not fit a datagram.
    pub fn dns(&self) -> io::Result<Running> {
        let long = "x".repeat(200);
        let mut text = format!("listen-address={WORLD4}\nlisten-address={WORLD6}\nlocal=/test/\n");
        for name in ["name.test", "world.test"] {
            text += &format!("host-record={name},{WORLD4}\nhost-record={name},{WORLD6}\n");
        }
        text += &format!("host-record=kept.test,{WORLD4},300\n");
        for number in 0..12 {
            text += &format!("txt-record=big.test,{number}{long}\n");
        }
        let file = self.dir().join("etc/dnsmasq.conf");
        std::fs::write(&file, text)?;
        // In its debugging mode it stays in front and keeps its user, which inside a user namespace is all it can do.
        let mut server = self
            .world([
                "dnsmasq",
                "--no-daemon",
                "--no-resolv",
                "--no-hosts",
                "--pid-file=",
                "--bind-interfaces",
            ])
            .args(["--log-queries".to_owned(), format!("--conf-file={}", file.display())])
            .start()?;
        server.until_listens("udp", 53)?;
        server.until_listens("tcp", 53)?;
        Ok(server)
    }

    /// An HTTP server in world on port 80 that serves [`Lab::dir`]`/www`.
    pub fn http(&self) -> io::Result<Running> {
        let root = self.dir().join("www");
        let mut server =
            self.world(["busybox", "httpd", "-f", "-p", "80", "-h"]).arg(root.into_os_string()).start()?;
        server.until_listens("tcp", 80)?;
        Ok(server)
    }
}

impl Running {
    /// Starts a server and waits until it listens.
    pub fn server(command: Cmd, protocol: &str, port: u16) -> io::Result<Self> {
        let mut server = command.start()?;
        server.until_listens(protocol, port)?;
        Ok(server)
    }

    /// Waits until something in this command's network namespace listens on the port.
    pub fn until_listens(&mut self, protocol: &str, port: u16) -> io::Result<()> {
        self.until(START, |running| listens(running.pid(), protocol, port))
    }
}

/// Whether a socket is bound (`udp`) or listening (`tcp`) on the port, as `/proc/PID/net` tells of that process's
/// network namespace. A command that is still on its way there, by nsenter(1), is in the one it came from, where
/// somebody may listen on the same port: whoever publishes the one that is waited for.
pub(crate) fn listens(pid: u32, protocol: &str, port: u16) -> bool {
    let program = std::fs::read_link(format!("/proc/{pid}/exe"));
    if program.is_ok_and(|program| program.file_name().is_some_and(|name| name == "nsenter")) {
        return false;
    }
    let state = if protocol == "tcp" { "0A" } else { "07" };
    ["", "6"].iter().any(|family| {
        let path = format!("/proc/{pid}/net/{protocol}{family}");
        String::from_utf8_lossy(&slurp(path.as_ref())).lines().skip(1).any(|line| {
            let mut words = line.split_whitespace().skip(1);
            let local = words.next().unwrap_or_default();
            let is = words.nth(1).unwrap_or_default();
            let bound = local.rsplit(':').next().and_then(|hex| u16::from_str_radix(hex, 16).ok());
            bound == Some(port) && is == state
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn a_command_on_its_way_into_a_namespace_listens_nowhere() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let dir = tempfile::tempdir().unwrap();
        for (name, is) in [("nsenter", false), ("server", true)] {
            let path = dir.path().join(name);
            std::fs::copy("/bin/sleep", &path).unwrap();
            let running = Cmd::new([path.as_os_str(), "20".as_ref()]).start().unwrap();
            assert_eq!(listens(running.pid(), "tcp", port), is, "{name}");
        }
    }
}
