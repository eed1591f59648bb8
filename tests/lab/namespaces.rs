//! The three kinds of place in a lab and how commands get into them.
//!
//! Every place is a namespace held by a process of ours; a command gets in by `nsenter` with the holder's id. Files
//! of *host* that differ from the machine's own (accounts, resolver, `/dev/net/tun`) are bind-mounted inside its
//! private mount namespace.

use std::ffi::OsString;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use crate::command::{Cmd, Output, Running, slurp};
use crate::machine;
use crate::missing;
use crate::unavailable::{NO_IPV6, NO_TUN, Unavailable, ipv6};

/// The host's address on the veth.
pub const HOST4: &str = "192.0.2.1";
/// The world's address on the veth, where its servers and its DNS are.
pub const WORLD4: &str = "192.0.2.2";
/// The host's IPv6 address.
pub const HOST6: &str = "2001:db8:1::1";
/// The world's IPv6 address.
pub const WORLD6: &str = "2001:db8:1::2";

const USER: &str = "slipway-lab";
const UID: u32 = 64_210;
const SUBIDS: &str = "slipway-lab:2000000:65536\n";
const START: Duration = Duration::from_secs(10);

/// What can be chosen about a lab.
#[derive(Debug, Clone, Default)]
pub struct LabOptions {
    /// Programs that appear in the lab's `bin` under another name: (name, real path). A name may hold a directory, and
    /// a path may be one: then all that is in it appears.
    pub programs: Vec<(String, PathBuf)>,
    /// Congestion control of host and world; the kernel's default when `None`.
    pub congestion: Option<String>,
    /// The root file system of host, read only where it lies; the machine's own when `None`. World keeps the
    /// machine's, so its servers need not be in it. Root only.
    pub tree: Option<PathBuf>,
}

/// Host and world, joined by a veth.
#[derive(Debug)]
pub struct Lab {
    // Holders first: dropped before the directory that their mounts stand on.
    world: Running,
    host: Running,
    dir: TempDir,
    root: bool,
    tree: bool,
}

impl Lab {
    /// Builds host and world.
    pub fn new(options: &LabOptions) -> Result<Self, Unavailable> {
        if let Some(program) = missing(&["ip", "nsenter", "unshare", "setpriv", "mount"]) {
            return Err(Unavailable(format!("{program} is not installed")));
        }
        if !ipv6() {
            return Err(Unavailable(NO_IPV6.to_owned()));
        }
        let root = nix::unistd::geteuid().is_root();
        let dir = TempDir::with_prefix("slipway-lab-")?;
        lay_out(dir.path(), options)?;
        let mut host = Cmd::new(["unshare", "--net", "--mount", "--propagation", "private"])
            .args(if root { &[][..] } else { &["--user", "--map-root-user"][..] })
            .args(["sh", "-c", &host_script(dir.path(), options, root)])
            .start()?;
        ready(&mut host)?;
        if host.stdout().contains(NO_TUN) {
            return Err(Unavailable(NO_TUN.to_owned()));
        }
        let tree = options.tree.is_some();
        let mut world = Cmd::new(["unshare", "--net", "sh", "-c", "echo ready; exec cat"])
            .under(if tree { Vec::new() } else { enter(host.pid(), root) })
            .start()?;
        ready(&mut world)?;
        let lab = Self { world, host, dir, root, tree };
        lab.host_root(["sh", "-c", &veth_script(lab.world.pid())]).ok(START)?;
        lab.world(["sh", "-c", &world_script()]).ok(START)?;
        if let Some(name) = &options.congestion {
            let script = format!("echo {name} > /proc/sys/net/ipv4/tcp_congestion_control");
            lab.host_root(["sh", "-c", &script]).ok(START)?;
            lab.world(["sh", "-c", &script]).ok(START)?;
        }
        Ok(lab)
    }

    /// The lab's own directory, readable by its user.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The user's home and scratch directory.
    #[must_use]
    pub fn home(&self) -> PathBuf {
        self.dir.path().join("home")
    }

    /// Where a program of [`LabOptions::programs`] is found inside host.
    #[must_use]
    pub fn program(&self, name: &str) -> String {
        self.dir.path().join("bin").join(name).to_string_lossy().into_owned()
    }

    /// Whether the lab was made by root and so has a real second user.
    #[must_use]
    pub fn by_root(&self) -> bool {
        self.root
    }

    /// Whether `/dev/net/tun` is the lab's own, whose mode a test may change. Without CAP_MKNOD it is the machine's.
    #[must_use]
    pub fn has_own_tun(&self) -> bool {
        let device = self.dir.path().join("dev/tun");
        self.host_root(["test".as_ref(), "-c".as_ref(), device.as_os_str()]).ok(START).is_ok()
    }

    /// The process that holds host's namespaces.
    #[must_use]
    pub fn host_pid(&self) -> u32 {
        self.host.pid()
    }

    /// The process that holds world's namespace.
    #[must_use]
    pub fn world_pid(&self) -> u32 {
        self.world.pid()
    }

    /// A command on host, as its administrator.
    pub fn host_root<I, S>(&self, argv: I) -> Cmd
    where
        I: IntoIterator<Item = S>,
        S: Into<OsString>,
    {
        Cmd::new(argv).under(enter(self.host.pid(), self.root))
    }

    /// A command on host, as its ordinary user.
    pub fn host<I, S>(&self, argv: I) -> Cmd
    where
        I: IntoIterator<Item = S>,
        S: Into<OsString>,
    {
        Cmd::new(argv)
            .under(set_user(self.root))
            .under(enter(self.host.pid(), self.root))
            .env("HOME", self.home())
            .env("USER", if self.root { USER } else { "root" })
            .env("XDG_RUNTIME_DIR", self.dir.path().join("run"))
    }

    /// A command in world.
    pub fn world<I, S>(&self, argv: I) -> Cmd
    where
        I: IntoIterator<Item = S>,
        S: Into<OsString>,
    {
        let mut prefix = if self.tree { Vec::new() } else { enter(self.host.pid(), self.root) };
        prefix.extend(["nsenter".into(), format!("--net=/proc/{}/ns/net", self.world.pid())]);
        Cmd::new(argv).under(prefix)
    }

    /// Runs a function on a thread inside world's network namespace; that takes a lab made by root.
    pub fn within_world<T: Send>(&self, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        machine::within(self.world_pid(), work)
    }

    /// The same inside host's.
    pub fn within_host<T: Send>(&self, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        machine::within(self.host_pid(), work)
    }

    /// A fresh container: a user, network and mount namespace made by the ordinary user, with `lo` up and nothing else.
    pub fn container(&self) -> io::Result<Container> {
        let resolv = self.dir.path().join("etc/resolv.container");
        let script = format!(
            "set -e; ip link set lo up; mount --bind {} /etc/resolv.conf
             echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad
             echo '0 2147483647' > /proc/sys/net/ipv4/ping_group_range 2>/dev/null || echo '0 0' > /proc/sys/net/ipv4/ping_group_range
             echo ready; exec cat",
            resolv.display()
        );
        let mut holder = self
            .host(["unshare", "--user", "--map-root-user", "--net", "--mount", "--propagation", "private"])
            .args(["sh", "-c", &script])
            .start()?;
        ready(&mut holder)?;
        let mut prefix = enter(self.host.pid(), self.root);
        prefix.extend(set_user(self.root));
        prefix.extend(enter(holder.pid(), false));
        Ok(Container { holder, prefix })
    }

    /// Replaces the host's `/etc/resolv.conf` text in place.
    pub fn set_resolv_conf(&self, text: &str) -> io::Result<()> {
        std::fs::write(self.dir.path().join("etc/resolv.conf"), text)
    }
}

/// What makes a command the ordinary user's, in a lab that root has made.
fn set_user(root: bool) -> Vec<String> {
    if root {
        let id = UID.to_string();
        ["setpriv", "--reuid", &id, "--regid", &id, "--clear-groups"].map(String::from).to_vec()
    } else {
        Vec::new()
    }
}

/// A container of the lab; its namespaces go when this does.
#[derive(Debug)]
pub struct Container {
    holder: Running,
    prefix: Vec<String>,
}

impl Container {
    /// A process inside, for `--netns-type=pid` and for `/proc/PID/ns/…`.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.holder.pid()
    }

    /// A command inside, as the container's root.
    pub fn cmd<I, S>(&self, argv: I) -> Cmd
    where
        I: IntoIterator<Item = S>,
        S: Into<OsString>,
    {
        Cmd::new(argv).under(&self.prefix)
    }

    /// A shell script inside, for at most 20 seconds.
    pub fn sh(&self, script: &str) -> io::Result<Output> {
        self.cmd(["sh", "-c", script]).run(Duration::from_secs(20))
    }

    /// Runs a function on a thread inside its network namespace; that takes a lab made by root.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        machine::within(self.pid(), work)
    }

    /// Ends the holder; the namespaces live on only as long as somebody else pins them.
    pub fn end(&mut self) {
        self.holder.stdin.take();
        let _ = self.holder.finish(START);
    }
}

/// Waits for the word `ready`.
fn ready(holder: &mut Running) -> io::Result<()> {
    holder.until(START, |running| running.stdout().contains("ready"))
}

fn enter(pid: u32, root: bool) -> Vec<String> {
    let mut words: Vec<String> = ["nsenter", "--target", &pid.to_string()].map(String::from).to_vec();
    if !root {
        words.extend(["--user", "--preserve-credentials"].map(String::from));
    }
    words.extend(["--net", "--mount"].map(String::from));
    words
}

/// The files that host shows instead of the machine's.
fn lay_out(dir: &Path, options: &LabOptions) -> io::Result<()> {
    let open = |path: &Path| std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755));
    open(dir)?;
    for name in ["etc", "bin", "dev", "tree", "www"] {
        std::fs::create_dir(dir.join(name))?;
        open(&dir.join(name))?;
    }
    for name in ["home", "run"] {
        let path = dir.join(name);
        std::fs::create_dir(&path)?;
        if nix::unistd::geteuid().is_root() {
            std::os::unix::fs::chown(&path, Some(UID), Some(UID))?;
        }
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700))?;
    }
    let etc = dir.join("etc");
    let with = |file: &str, line: &str| -> io::Result<()> {
        let mut text = slurp(&Path::new("/etc").join(file));
        text.extend_from_slice(line.as_bytes());
        std::fs::write(etc.join(file), text)
    };
    with("passwd", &format!("{USER}:x:{UID}:{UID}::{}:/bin/sh\n", dir.join("home").display()))?;
    with("group", &format!("{USER}:x:{UID}:\n"))?;
    std::fs::write(etc.join("subuid"), SUBIDS)?;
    std::fs::write(etc.join("subgid"), SUBIDS)?;
    std::fs::write(etc.join("resolv.conf"), format!("nameserver {WORLD4}\nnameserver {WORLD6}\n"))?;
    std::fs::write(etc.join("resolv.container"), "nameserver 10.0.2.3\n")?;
    for (name, real) in &options.programs {
        let path = dir.join("bin").join(name);
        path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
        if real.is_dir() {
            std::fs::create_dir(path)?;
        } else {
            std::fs::write(path, "")?;
        }
    }
    Ok(())
}

/// What the holder of host does before it waits.
fn host_script(dir: &Path, options: &LabOptions, root: bool) -> String {
    let dir_text = dir.display();
    let mut script = String::from("set -e\n");
    for (name, path) in &options.programs {
        script += &format!("mount --bind '{}' '{dir_text}/bin/{name}'\n", path.display());
    }
    script += &format!("mount --bind {dir_text}/etc/resolv.conf /etc/resolv.conf\n");
    if root {
        script += &format!(
            "for file in passwd group subuid subgid; do
               [ -e /etc/$file ] || : > /etc/$file
               mount --bind {dir_text}/etc/$file /etc/$file
             done
             mount -t tmpfs -o mode=755 tmpfs {dir_text}/dev
             if mknod {dir_text}/dev/tun c 10 200 2>/dev/null; then
               chmod 666 {dir_text}/dev/tun
               mkdir -p /dev/net; [ -e /dev/net/tun ] || : > /dev/net/tun
               mount --bind {dir_text}/dev/tun /dev/net/tun
             fi\n"
        );
    }
    // As whoever runs slipway there: without a device of the lab's own it is the machine's.
    let user = set_user(root).join(" ");
    script += &format!("{user} sh -c ': <>/dev/net/tun' 2>/dev/null || echo '{NO_TUN}'\n");
    if let Some(tree) = &options.tree {
        script += &tree_script(tree, dir);
    }
    script
        + "ip link set lo up
           echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad
           echo '0 2147483647' > /proc/sys/net/ipv4/ping_group_range 2>/dev/null || echo '0 0' > /proc/sys/net/ipv4/ping_group_range
           echo ready; exec cat"
}

/// Makes a tree the root of host. Changes go to memory; devices, the lab's files and its directory come along.
fn tree_script(tree: &Path, dir: &Path) -> String {
    format!(
        "cd {dir}/tree; mount -t tmpfs -o mode=755 tmpfs .; cd {dir}/tree; mkdir upper work root
         mount -t overlay -o lowerdir={tree},upperdir=upper,workdir=work overlay root
         cd root; mkdir -p proc sys dev run tmp var/tmp old .{dir}; chmod 1777 tmp var/tmp
         for name in proc sys dev; do mount --rbind /$name $name; done
         mount -t tmpfs -o mode=755 tmpfs run
         for file in passwd group subuid subgid resolv.conf; do
           : > etc/$file; mount --bind {dir}/etc/$file etc/$file
         done
         mount --rbind {dir} .{dir}
         pivot_root . old; cd /; umount -l /old; rmdir /old; hash -r\n",
        tree = tree.display(),
        dir = dir.display()
    )
}

fn veth_script(world: u32) -> String {
    format!(
        "set -e
         ip link add veth0 type veth peer name veth0 netns {world}
         ip address add {HOST4}/24 dev veth0; ip address add {HOST6}/64 dev veth0 nodad
         ip link set veth0 up
         ip route add default via {WORLD4}; ip -6 route add default via {WORLD6}"
    )
}

fn world_script() -> String {
    format!(
        "set -e
         ip link set lo up
         echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad
         ip address add {WORLD4}/24 dev veth0; ip address add {WORLD6}/64 dev veth0 nodad
         ip link set veth0 up"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{LIMIT, skip};

    const STANDS: &str = "a_lab_stands_or_says_what_is_missing";

    #[test]
    fn a_lab_stands_or_says_what_is_missing() {
        match Lab::new(&LabOptions::default()) {
            Ok(lab) => assert!(lab.host_root(["ip", "link", "show", "veth0"]).ok(LIMIT).is_ok()),
            Err(Unavailable(reason)) => {
                let known = [NO_IPV6, NO_TUN].contains(&reason.as_str());
                assert!(known || !nix::unistd::geteuid().is_root(), "{reason}");
                skip::<()>(STANDS, &reason);
            }
        }
    }

    /// Containers that run tests often cannot make devices, but have been given this one.
    #[test]
    fn a_lab_needs_no_right_to_make_devices() {
        if !nix::unistd::geteuid().is_root() || missing(&["setpriv"]).is_some() {
            println!("SKIP a_lab_needs_no_right_to_make_devices: needs root and setpriv");
            return;
        }
        let this = std::env::current_exe().unwrap().into_os_string();
        let words = ["setpriv", "--bounding-set=-mknod", "--inh-caps=-mknod"].map(OsString::from);
        let stands = format!("namespaces::tests::{STANDS}").into();
        let output = Cmd::new(words.into_iter().chain([this, "--exact".into(), stands])).run(LIMIT).unwrap();
        assert!(output.out().contains("1 passed"), "{output}");
    }
}
