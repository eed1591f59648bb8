//! What is built and fetched before anything is measured, and the process in which it is.
//!
//! Measuring happens in a child that lives by a pipe from its parent (`slipway_lab::watch`): whatever ends the parent,
//! Ctrl-C, a signal, even SIGKILL, the child stops what it started, removes what it made, and ends. It has a process
//! group of its own, so that no signal of a terminal reaches it first. It is this program again, with what was built as
//! an argument.

use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;
use slipway_lab::peer;

use crate::tool::{self, Done, cargo};
use crate::{deps, release, trees};

use super::{Part, Wish};

/// Where everything is that the parts need.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Prepared {
    pub(crate) client: PathBuf,
    pub(crate) stack: PathBuf,
    pub(crate) dns: PathBuf,
    pub(crate) netavark: PathBuf,
    /// The tree with the newest peers, if it can be had.
    pub(crate) peers: Option<PathBuf>,
}

impl Prepared {
    /// Installs, fetches and builds what the wish needs.
    pub(crate) fn new(wish: &Wish) -> Done<Self> {
        if let Err(error) = deps::ensure(deps::BENCH) {
            println!("{error}\nxtask: rows that need what is missing fail");
        }
        tool::run(&mut cargo(&["build", "--release", "--quiet", "--package", "slipway-lab"]))?;
        let client = tool::target().join("release/slipway-lab-peer");
        let client = Some(client).filter(|path| path.is_file()).or_else(peer);
        let mut prepared =
            Self { client: client.ok_or("slipway-lab-peer was not built")?, ..Self::default() };
        if wish.wants(Part::Stack) {
            let tree = trees::peers();
            let tree =
                tree.inspect_err(|error| println!("{error}\nxtask: the peers of this machine have to do"));
            prepared.peers = tree.ok();
            prepared.stack = match &wish.binary {
                Some(path) => path.clone(),
                None => release::build("slirp-compat", "slipway")?,
            };
        }
        let built = |package, program, variable: &str| match std::env::var_os(variable) {
            Some(path) => Ok(PathBuf::from(path)),
            None => release::build(package, program),
        };
        if wish.wants(Part::Dns) || wish.wants(Part::Netavark) {
            prepared.dns = built("slipway-dns", "aardvark-dns", "SLIPWAY_AARDVARK_BINARY")?;
        }
        if wish.wants(Part::Netavark) {
            prepared.netavark = built("slipway-netavark", "netavark", "SLIPWAY_NETAVARK_BINARY")?;
        }
        Ok(prepared)
    }

    /// Starts this program again to measure, and waits for its end.
    pub(crate) fn measure_in_child(&self) -> Done {
        let here = std::env::current_exe().map_err(|error| error.to_string())?;
        let mut command = Command::new(here);
        command.args(std::env::args_os().skip(1)).arg("--prepared").arg(self.write());
        let mut child = command
            .stdin(Stdio::piped())
            .process_group(0)
            .spawn()
            .map_err(|error| format!("cannot start the measuring: {error}"))?;
        // `Child::wait` would close the pipe first, and that is the wish to end.
        let pipe = child.stdin.take();
        let status = child.wait().map_err(|error| error.to_string())?;
        drop(pipe);
        // It has said what went wrong.
        if status.success() { Ok(()) } else { Err(format!("the measuring ended: {status}")) }
    }

    fn write(&self) -> String {
        let Self { client, stack, dns, netavark, peers } = self;
        serde_json::json!({
            "client": client, "stack": stack, "dns": dns, "netavark": netavark, "peers": peers
        })
        .to_string()
    }

    /// Reads what [`Prepared::write`] wrote.
    pub(crate) fn read(text: &str) -> Done<Self> {
        let json: Value = serde_json::from_str(text).map_err(|error| format!("--prepared: {error}"))?;
        let path = |name: &str| {
            json[name].as_str().map(PathBuf::from).ok_or_else(|| format!("--prepared has no {name}"))
        };
        Ok(Self {
            client: path("client")?,
            stack: path("stack")?,
            dns: path("dns")?,
            netavark: path("netavark")?,
            peers: path("peers").ok(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_prepared_crosses_to_the_child() {
        for peers in [None, Some(PathBuf::from("/trees/peers"))] {
            let prepared =
                Prepared { client: "/a client".into(), stack: "/s".into(), peers, ..Prepared::default() };
            assert_eq!(Prepared::read(&prepared.write()), Ok(prepared));
        }
        assert!(Prepared::read("{}").is_err());
        assert!(Prepared::read("no").is_err());
    }
}
