//! The programs that demo, suites and benches run, and the Debian packages they come from.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

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
pub(crate) const ALL: &[Need] = &[
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
    ("sshd", "openssh-server"),
    ("ssh-keygen", "openssh-client"),
    ("systemd-analyze", "systemd"),
    // What reads man pages and completions.
    ("groff", "groff-base"),
    ("zsh", "zsh"),
    ("fish", "fish"),
    ("dbus-daemon", "dbus-daemon"),
    ("firewalld", "firewalld"),
    ("firewall-cmd", "firewalld"),
    // The outside judges (`tests/judges`).
    ("atk6-implementation6", "thc-ipv6"),
    ("tcp6", "ipv6toolkit"),
    ("turnserver", "coturn"),
    ("nmap", "nmap"),
    // Not on anybody's search path: the other halves of the pairs that Podman runs.
    ("/usr/lib/podman/netavark", "netavark"),
    ("/usr/lib/podman/aardvark-dns", "aardvark-dns"),
];

/// What the bench measures with. The peers come from a tree of their own (`trees`).
pub(crate) const BENCH: &[Need] = &[
    ("iperf3", "iperf3"),
    ("ip", "iproute2"),
    ("setpriv", "util-linux"),
    ("dnsperf", "dnsperf"),
    ("taskset", "util-linux"),
];

/// Packages that bring a service, and its name. The suites run their programs themselves, in namespaces of their own.
const SERVICES: &[(&str, &str)] =
    &[("coturn", "coturn"), ("firewalld", "firewalld"), ("openssh-server", "ssh")];

/// Where a machine says whether a package may start its services, as Debian's `invoke-rc.d` and `deb-systemd-invoke`
/// ask.
const POLICY: &str = "/usr/sbin/policy-rc.d";
/// Nothing may be started (invoke-rc.d(8)).
const START_NOTHING: &str =
    "#!/bin/sh\n# Made by cargo xtask deps for the time of an installation; it may be removed.\nexit 101\n";

/// What counts instructions.
pub(crate) const INSTRUCTIONS: &[Need] = &[("valgrind", "valgrind")];

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
    let quiet = Quiet::begin(Path::new(POLICY));
    let installed =
        tool::run(apt().args(["install", "-qq", "-y", "--no-install-recommends"]).args(&packages));
    drop(quiet);
    for (_, service) in SERVICES.iter().filter(|(package, _)| packages.contains(package)) {
        // Not with the next start of the machine either.
        let _ = tool::run(Command::new("update-rc.d").args([service, "disable"]));
    }
    installed?;
    match needs.iter().find(|(program, _)| which(program).is_none()) {
        None => Ok(()),
        Some((program, package)) => Err(format!("{package} is installed but brought no {program}")),
    }
}

/// A time in which packages start none of their services: what the machine itself says about that stays as it is.
///
/// The file goes with a guard: a shell that removes it when the pipe from us ends, however we do. No key of a terminal
/// reaches it.
struct Quiet(Option<Child>);

impl Quiet {
    fn begin(policy: &Path) -> Self {
        // One that an interrupted run left is as good as none.
        let ours = std::fs::read_to_string(policy).is_ok_and(|text| text == START_NOTHING);
        if policy.exists() && !ours {
            return Self(None);
        }
        let guard = Command::new("sh")
            .args(["-c", "read -r end; rm -f -- \"$1\"", "sh"])
            .arg(policy)
            .stdin(Stdio::piped())
            .process_group(0)
            .spawn();
        let made = guard.and_then(|guard| {
            std::fs::write(policy, START_NOTHING)?;
            std::fs::set_permissions(policy, Permissions::from_mode(0o755))?;
            Ok(guard)
        });
        Self(
            made.inspect_err(|error| println!("{}: {error}; services may be started", policy.display())).ok(),
        )
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        // Waiting closes the pipe first.
        let _ = self.0.as_mut().map(Child::wait);
    }
}

fn apt() -> Command {
    let mut apt = Command::new("apt-get");
    apt.env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null());
    apt.args(["-o", "Acquire::Retries=3", "-o", "DPkg::Lock::Timeout=120", "-o", "Dpkg::Use-Pty=0"]);
    apt
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_rest_during_an_installation_and_the_machines_own_word_stays() {
        let dir = std::env::temp_dir().join(format!("slipway-policy-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let policy = dir.join("policy-rc.d");
        for left in [false, true] {
            if left {
                std::fs::write(&policy, START_NOTHING).unwrap();
            }
            let quiet = Quiet::begin(&policy);
            assert_eq!(Command::new(&policy).status().unwrap().code(), Some(101));
            drop(quiet);
            assert!(!policy.exists());
        }
        std::fs::write(&policy, "#!/bin/sh\nexit 0\n").unwrap();
        drop(Quiet::begin(&policy));
        assert_eq!(std::fs::read_to_string(&policy).unwrap(), "#!/bin/sh\nexit 0\n");
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn an_installation_that_is_killed_leaves_no_word_to_services() {
        const PLACE: &str = "SLIPWAY_POLICY_PLACE";
        const NAME: &str = "an_installation_that_is_killed_leaves_no_word_to_services";
        // In a process of its own, which dies in the middle.
        if let Some(place) = std::env::var_os(PLACE) {
            let _quiet = Quiet::begin(Path::new(&place));
            assert!(Path::new(&place).is_file());
            println!("begun");
            std::process::abort();
        }
        let dir = tempfile::tempdir().unwrap();
        let policy = dir.path().join("policy-rc.d");
        let mut other = Command::new(std::env::current_exe().unwrap());
        let output = other.args(["--nocapture", NAME]).env(PLACE, &policy).output().unwrap();
        assert!(String::from_utf8_lossy(&output.stdout).contains("begun"), "{output:?}");
        let gone = (0..200).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(50));
            !policy.exists()
        });
        assert!(gone, "it is still there");
    }

    #[test]
    fn a_package_with_a_service_is_one_that_we_install() {
        assert!(SERVICES.iter().all(|(package, _)| ALL.iter().any(|(_, needed)| needed == package)));
    }
}
