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
    /// The link with weather; the rest does without.
    pub(crate) link: Option<PathBuf>,
    pub(crate) stack: PathBuf,
    pub(crate) dns: PathBuf,
    pub(crate) netavark: PathBuf,
    pub(crate) gvproxy: PathBuf,
    /// Guests for it.
    pub(crate) forwarder: PathBuf,
    /// The tree with the original gvproxy, if it can be had.
    pub(crate) gvproxy_tree: Option<PathBuf>,
    /// The original gvforwarder, if somebody has one (`SLIPWAY_BENCH_GVFORWARDER`).
    pub(crate) gvforwarder: Option<PathBuf>,
    /// What carries a machine's frames to a passt.
    pub(crate) pump: PathBuf,
    /// The tree with QEMU and what its machines boot, if it can be had.
    pub(crate) qemu: Option<PathBuf>,
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
        let client = client.ok_or("slipway-lab-peer was not built")?;
        let mut prepared = Self { client, ..Self::default() };
        if wish.weather.is_some() {
            let words = ["build", "--release", "--package", "slipway-tests", "--bin", "slipway-lab-link"];
            tool::run(&mut cargo(&words))?;
            prepared.link = Some(tool::target().join("release/slipway-lab-link"));
        }
        if wish.wants(Part::Passt) {
            let words = ["build", "--release", "--package", "slipway-tests", "--bin", "slipway-lab-pump"];
            tool::run(&mut cargo(&words))?;
            prepared.pump = tool::target().join("release/slipway-lab-pump");
            let tree =
                trees::qemu().inspect_err(|error| println!("{error}\nxtask: rows with it are skipped"));
            prepared.qemu = tree.ok();
        }
        if wish.wants(Part::Stack) || wish.wants(Part::Passt) {
            let tree = trees::peers();
            let tree =
                tree.inspect_err(|error| println!("{error}\nxtask: the peers of this machine have to do"));
            prepared.peers = tree.ok();
            prepared.stack = match &wish.binary {
                Some(path) => path.clone(),
                None => release::build("slipway", "slipway")?,
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
        if wish.wants(Part::Gvproxy) {
            prepared.gvproxy = built("slipway-gvproxy", "slipway-gvproxy", "SLIPWAY_GVPROXY_BINARY")?;
            let words =
                ["build", "--release", "--package", "slipway-tests", "--bin", "slipway-lab-forwarder"];
            tool::run(&mut cargo(&words))?;
            prepared.forwarder = tool::target().join("release/slipway-lab-forwarder");
            let tree = trees::gvproxy();
            let tree =
                tree.inspect_err(|error| println!("{error}\nxtask: the gvproxy of this machine has to do"));
            prepared.gvproxy_tree = tree.ok();
            let named = std::env::var_os("SLIPWAY_BENCH_GVFORWARDER").map(PathBuf::from);
            prepared.gvforwarder = named.filter(|path| path.is_file());
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
        let Self { client, link, stack, dns, netavark, gvproxy, forwarder, .. } = self;
        let Self { gvproxy_tree, gvforwarder, pump, qemu, peers, .. } = self;
        serde_json::json!({
            "client": client, "link": link, "stack": stack, "dns": dns, "netavark": netavark,
            "gvproxy": gvproxy, "forwarder": forwarder, "gvproxy_tree": gvproxy_tree, "gvforwarder": gvforwarder,
            "pump": pump, "qemu": qemu, "peers": peers
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
            link: path("link").ok(),
            stack: path("stack")?,
            dns: path("dns")?,
            netavark: path("netavark")?,
            gvproxy: path("gvproxy")?,
            forwarder: path("forwarder")?,
            gvproxy_tree: path("gvproxy_tree").ok(),
            gvforwarder: path("gvforwarder").ok(),
            pump: path("pump")?,
            qemu: path("qemu").ok(),
            peers: path("peers").ok(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_prepared_crosses_to_the_child() {
        for path in [None, Some(PathBuf::from("/trees/peers"))] {
            let prepared = Prepared {
                client: "/a client".into(),
                link: path.clone(),
                stack: "/s".into(),
                peers: path,
                ..Prepared::default()
            };
            assert_eq!(Prepared::read(&prepared.write()), Ok(prepared));
        }
        assert!(Prepared::read("{}").is_err());
        assert!(Prepared::read("no").is_err());
    }

    /// The processes that descend from this one, each with the time of its start, so that another one that gets its
    /// number later is not taken for it.
    fn descendants(pid: u32) -> Vec<(u32, String)> {
        let read = |pid: u32| std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let all = std::fs::read_dir("/proc").unwrap().flatten();
        let all = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let all: Vec<(u32, u32, String)> = all
            .filter_map(|pid| {
                let stat = read(pid);
                let words: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
                Some((pid, words.get(1)?.parse().ok()?, (*words.get(19)?).to_owned()))
            })
            .collect();
        let mut found: Vec<(u32, String)> = Vec::new();
        let mut parents = vec![pid];
        while let Some(parent) = parents.pop() {
            for (child, _, start) in all.iter().filter(|(_, of, _)| *of == parent) {
                found.push((*child, start.clone()));
                parents.push(*child);
            }
        }
        found
    }

    fn lives((pid, start): &(u32, String)) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.split(' ').nth(19) == Some(start))
    }

    // What ends the parent ends the pipe, be it SIGINT, SIGTERM or SIGKILL; so the pipe is what is ended here.
    #[test]
    fn a_bench_whose_parent_is_gone_leaves_nothing_behind() {
        const NAME: &str = "a_bench_whose_parent_is_gone_leaves_nothing_behind";
        let here = std::env::current_exe().unwrap();
        let beside = here.ancestors().nth(2).unwrap();
        let [bench, stack, client] = ["xtask", "slipway", "slipway-lab-peer"].map(|name| beside.join(name));
        let missing = [&bench, &stack, &client].into_iter().find(|path| !path.is_file());
        if let Some(path) = missing.filter(|_| tool::is_root()) {
            println!("SKIP {NAME}: {} is not built", path.display());
            return;
        }
        if !tool::is_root()
            || slipway_lab::missing(&["ip", "nsenter", "unshare", "setpriv", "mount"]).is_some()
        {
            println!("SKIP {NAME}: needs root, iproute2 and util-linux");
            return;
        }
        let scratch = tempfile::tempdir().unwrap();
        // The lab's user has to get through.
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(scratch.path(), open).unwrap();
        let prepared = Prepared { client, stack, ..Prepared::default() }.write();
        let mut child = Command::new(bench)
            .args([
                "bench",
                "stack",
                "--rounds",
                "50",
                "--subject",
                "slipway",
                "--only",
                "UDP request/response",
            ])
            .args(["--prepared", &prepared])
            .env("TMPDIR", scratch.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let patience = std::time::Duration::from_millis(20);
        // A client in a container is the last that is started: nsenter under a holder of a holder.
        let mut made = Vec::new();
        for _ in 0..1500 {
            made = descendants(child.id());
            if made.len() >= 6 || child.try_wait().unwrap().is_some() {
                break;
            }
            std::thread::sleep(patience);
        }
        assert!(made.len() >= 6, "the bench has made but {made:?}");
        assert!(std::fs::read_dir(scratch.path()).unwrap().count() > 0);
        made.extend(descendants(child.id()));
        drop(child.stdin.take());
        assert!(!child.wait().unwrap().success());
        // The kernel ends a killed process when it is next looked at.
        let gone = |_: &u32| {
            std::thread::sleep(patience);
            !made.iter().any(lives)
        };
        assert!(
            (0..250).any(|count| gone(&count)),
            "these live on: {:?}",
            made.iter().filter(|p| lives(p)).collect::<Vec<_>>()
        );
        assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0);
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(&*scratch.path().to_string_lossy()), "{mounts}");
    }
}
