//! What a Podman left behind: processes, mounts, files and links.
//!
//! A process is Podman's when the lab's directory stands in its arguments or its environment and it does not descend
//! from the test: monitors, DNS servers, slirp4netns and rootlessport all go their own way, while what a test starts
//! itself stays its child.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use slipway_lab::{LIMIT, now};

use super::{Podman, User};

impl Podman {
    /// Demands that nothing is left on host once no container runs, but for rootless Podman's pause process.
    pub(crate) fn leaves_nothing(&self) {
        // Monitors clean up after their container has been reported gone.
        let end = now() + LIMIT;
        while !self.processes().is_empty() && now() < end {
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        let processes: Vec<_> = self.processes().into_iter().map(|pid| (pid, line(pid))).collect();
        assert!(processes.is_empty(), "processes are left: {processes:?}");
        let holder = self.pause().unwrap_or_else(|| self.lab.host_pid());
        let now = namespaces(holder);
        let left: Vec<_> = now.difference(&self.others).collect();
        assert!(left.is_empty(), "namespaces are left: {left:?}");
        let run = match self.user {
            User::Ordinary => self.lab.dir().join("run"),
            User::Root => PathBuf::from(format!("/proc/{}/root/run", self.lab.host_pid())),
        };
        for dir in [
            "netns",
            "libpod/tmp/rp",
            "containers/networks/aardvark-dns",
            "containers/networks/rootless-netns",
        ] {
            let left: Vec<_> = std::fs::read_dir(run.join(dir)).into_iter().flatten().flatten().collect();
            assert!(left.is_empty(), "files are left in {dir}: {left:?}");
        }
        let links = self.sh("ip -o link");
        assert_eq!(links.lines().count(), 2, "only lo and veth0: {links}");
        let rules = self.lab.host_root(["nft", "list", "ruleset"]).ok(LIMIT).unwrap().out();
        // A rule that all networks share asks for the state `dnat`.
        assert!(!rules.contains("10.89.") && !rules.contains("dnat ip"), "rules are left: {rules}");
    }

    /// The pause process, if there is one.
    pub(super) fn pause(&self) -> Option<u32> {
        let number = slurp(self.lab.dir().join("run/libpod/tmp/pause.pid"));
        number.trim().parse().ok().filter(|pid| Path::new(&format!("/proc/{pid}")).exists())
    }

    /// Podman's processes, without the pause process.
    fn processes(&self) -> Vec<u32> {
        let (dir, pause) = (self.lab.dir().to_string_lossy().into_owned(), self.pause());
        let all = std::fs::read_dir("/proc").unwrap().flatten();
        all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
            .filter(|pid| Some(*pid) != pause)
            .filter(|pid| {
                ["cmdline", "environ"].iter().any(|file| slurp(format!("/proc/{pid}/{file}")).contains(&dir))
            })
            .filter(|pid| !descends(*pid))
            .collect()
    }

    /// Whether a helper of this name runs.
    pub(super) fn runs(&self, name: &str) -> bool {
        let program = format!("{} ", self.lab.program(name));
        self.processes().into_iter().any(|pid| line(pid).starts_with(&program))
    }

    /// Ends whatever is left, by number, the pause process last.
    pub(super) fn end(&self) {
        for pid in self.processes().into_iter().chain(self.pause()) {
            if let Ok(pid) = i32::try_from(pid) {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
    }
}

/// The namespaces that are mounted for a process, each with its place.
pub(super) fn namespaces(pid: u32) -> BTreeSet<String> {
    let mounts = slurp(format!("/proc/{pid}/mountinfo"));
    // proc_pid_mountinfo(5): behind three numbers come the root, which is the namespace's name, and the place.
    let namespaces = mounts.lines().filter(|line| line.contains(" nsfs "));
    namespaces.map(|line| line.split(' ').skip(3).take(2).collect::<Vec<_>>().join(" at ")).collect()
}

/// Whether a process is this one or a descendant of it.
fn descends(pid: u32) -> bool {
    let mut pid = pid;
    while pid > 1 {
        if pid == std::process::id() {
            return true;
        }
        let status = slurp(format!("/proc/{pid}/status"));
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"));
        pid = parent.and_then(|number| number.trim().parse().ok()).unwrap_or(0);
    }
    false
}

fn line(pid: u32) -> String {
    slurp(format!("/proc/{pid}/cmdline")).replace('\0', " ")
}

/// A file's text, nothing when it is gone.
fn slurp(path: impl AsRef<Path>) -> String {
    String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
}
