//! The programs that demo, suites and benches run, and the Debian packages they come from.

use std::path::Path;
use std::process::{Command, Stdio};

use slipway_lab::which;

use crate::tool::{self, Done};

/// A program and its package.
pub(crate) type Need = (&'static str, &'static str);

/// What the demo runs.
pub(crate) const DEMO: &[Need] = &[
    ("ip", "iproute2"),
    ("unshare", "util-linux"),
    ("setpriv", "util-linux"),
    ("mount", "mount"),
    ("ping", "iputils-ping"),
    ("curl", "curl"),
    ("busybox", "busybox"),
    ("dnsmasq", "dnsmasq-base"),
    ("iperf3", "iperf3"),
];

/// What everything together runs.
const ALL: &[Need] = &[
    ("ip", "iproute2"),
    ("unshare", "util-linux"),
    ("setpriv", "util-linux"),
    ("mount", "mount"),
    ("ping", "iputils-ping"),
    ("curl", "curl"),
    ("busybox", "busybox"),
    ("dnsmasq", "dnsmasq-base"),
    ("iperf3", "iperf3"),
    ("dig", "bind9-dnsutils"),
    ("ncat", "ncat"),
    ("udhcpc", "udhcpc"),
    ("tcpdump", "tcpdump"),
    ("strace", "strace"),
    ("newuidmap", "uidmap"),
    ("slirp4netns", "slirp4netns"),
    ("podman", "podman"),
    ("crun", "crun"),
    ("conmon", "conmon"),
    ("rootlesskit", "rootlesskit"),
    ("ss", "iproute2"),
    ("nft", "nftables"),
    ("iptables", "iptables"),
    ("getent", "libc-bin"),
    ("host", "bind9-host"),
    ("systemd-analyze", "systemd"),
    // What reads man pages and completions.
    ("groff", "groff-base"),
    ("zsh", "zsh"),
    ("fish", "fish"),
    ("dbus-daemon", "dbus-daemon"),
    // Not on anybody's search path: the other halves of the pairs that Podman runs.
    ("/usr/lib/podman/netavark", "netavark"),
    ("/usr/lib/podman/aardvark-dns", "aardvark-dns"),
];

/// What the suites start on a bus of their own, but a package starts on the machine itself, which it closes.
const GUARD: &[Need] = &[("firewalld", "firewalld"), ("firewall-cmd", "firewalld")];

/// What the bench measures with. The peers come from a tree of their own (`trees`).
pub(crate) const BENCH: &[Need] = &[
    ("iperf3", "iperf3"),
    ("ip", "iproute2"),
    ("setpriv", "util-linux"),
    ("dnsperf", "dnsperf"),
    ("taskset", "util-linux"),
];

/// What counts instructions.
pub(crate) const INSTRUCTIONS: &[Need] = &[("valgrind", "valgrind")];

/// [`ensure`] for everything; firewalld only where no systemd would start it.
pub(crate) fn ensure_all() -> Done {
    ensure(ALL)?;
    if Path::new("/run/systemd/system").exists() { Ok(()) } else { ensure(GUARD) }
}

/// Installs what is missing when run by root on Debian; otherwise says what to run.
pub(crate) fn ensure(needs: &[Need]) -> Done {
    let mut packages: Vec<&str> =
        needs.iter().filter(|(program, _)| which(program).is_none()).map(|(_, package)| *package).collect();
    packages.sort_unstable();
    packages.dedup();
    if packages.is_empty() {
        return Ok(());
    }
    let words = packages.join(" ");
    if which("apt-get").is_none() {
        return Err(format!("please install these (Debian's names): {words}"));
    }
    if !tool::is_root() {
        return Err(format!("please run: sudo apt-get install --no-install-recommends {words}"));
    }
    // Old lists may still do, so a failed update is not the end.
    if let Err(error) = tool::run(apt().arg("update").arg("-qq")) {
        println!("{error}; going on with the package lists that are here");
    }
    tool::run(apt().args(["install", "-qq", "-y", "--no-install-recommends"]).args(&packages))?;
    match needs.iter().find(|(program, _)| which(program).is_none()) {
        None => Ok(()),
        Some((program, package)) => Err(format!("{package} is installed but brought no {program}")),
    }
}

fn apt() -> Command {
    let mut apt = Command::new("apt-get");
    apt.env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null());
    apt.args(["-o", "Acquire::Retries=3", "-o", "DPkg::Lock::Timeout=120", "-o", "Dpkg::Use-Pty=0"]);
    apt
}
