//! Podman with bridge networks on a lab's *host*: rootless through its rootless-netns, or as root; Debian's own
//! version or the one of a tree.
//!
//! ```text
//! let wish = Wish { user: User::Ordinary, ..Wish::new(Pair::OURS) };
//! let Some(podman) = Podman::new("name_of_the_test", &wish) else { return };
//! podman.run(&["network", "create", "one"]);
//! podman.server("web", &["--network", "one", "-p", "8080:80"]);
//! assert_eq!(podman.fetch("192.0.2.1:8080"), "page of web\n");       // from world
//! podman.remove(&["web"]);
//! podman.leaves_nothing();
//! ```
//!
//! Every helper program that Podman looks for lies in one directory, [`Lab::program`]'s, under the name Podman knows
//! it by: `netavark`, `aardvark-dns`, `rootlessport`, `slirp4netns`, `slipway`, `pasta`. [`Wish::programs`] adds to
//! them or replaces one, also in a directory of their own (`plugins/slipway`); [`Wish::engine`] and [`Wish::network`]
//! add lines to these sections of containers.conf, in which `BIN` stands for the directory of the programs (a network
//! plugin wants `netavark_plugin_dirs = ["BIN/plugins"]` in the latter).
//!
//! A Podman of a tree ([`Version`]) has that tree as its root file system. Without the tree, which is fetched, a test
//! is skipped by name even where nothing else may be.
//!
//! World is the lab's: it has the names of [`Lab::dns`] and whatever a test starts there. Images are made from the
//! machine's busybox, `getent` and `host`; nothing is fetched. No control groups, the `vfs` driver.
//!
//! Rootless Podman keeps one process by design, the *pause* process that holds its user and mount namespace; it is
//! ended by the number it wrote down when this fixture goes.

mod features;
mod left;
mod machine;
mod matrix;
mod scenes;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use slipway_lab::{Cmd, LIMIT, Lab, Output, built, skip};

/// Who runs Podman.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum User {
    /// The lab's ordinary user, who has a range of ids.
    Ordinary,
    /// Host's administrator.
    Root,
}

/// Which Podman.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    /// The machine's own.
    Machine,
    /// That of the tree `podman-5`.
    Five,
    /// That of the tree `podman-6`.
    Six,
}

/// Whose program plays a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whose {
    /// The one under test.
    Ours,
    /// The one that comes with this Podman.
    Stock,
}

/// Who sets up networks and who answers names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pair {
    pub(crate) netavark: Whose,
    pub(crate) dns: Whose,
}

impl Pair {
    /// Stock netavark drives our DNS server.
    pub(crate) const OUR_DNS: Self = Self { netavark: Whose::Stock, dns: Whose::Ours };
    /// Both are ours.
    pub(crate) const OURS: Self = Self { netavark: Whose::Ours, dns: Whose::Ours };
    /// Our netavark drives the stock DNS server.
    pub(crate) const STOCK_DNS: Self = Self { netavark: Whose::Ours, dns: Whose::Stock };
}

/// What a test wants of its Podman.
#[derive(Debug, Clone)]
pub(crate) struct Wish {
    pub(crate) version: Version,
    pub(crate) user: User,
    pub(crate) pair: Pair,
    /// More helper programs: (name, path on the machine).
    pub(crate) programs: Vec<(String, PathBuf)>,
    /// Lines for the section `[engine]`.
    pub(crate) engine: String,
    /// Lines for the section `[network]`.
    pub(crate) network: String,
}

impl Wish {
    /// The same of another version.
    pub(crate) fn of(self, version: Version) -> Self {
        Self { version, ..self }
    }

    /// The same for another user.
    pub(crate) fn by(self, user: User) -> Self {
        Self { user, ..self }
    }

    fn way_out(&self) -> &'static str {
        let slirp4netns = self.version == Version::Machine || self.network.contains("slirp4netns");
        if slirp4netns { "slirp4netns" } else { "pasta" }
    }

    /// The root file system of host, if it is not the machine's.
    fn tree(&self) -> Result<Option<PathBuf>, String> {
        match self.version {
            Version::Machine => Ok(None),
            Version::Five => slipway_lab::tree("podman-5").map(Some),
            Version::Six => slipway_lab::tree("podman-6").map(Some),
        }
    }

    /// What [`Lab`] is to show in its `bin`.
    fn helpers(&self, tree: Option<&Path>) -> Result<Vec<(String, PathBuf)>, String> {
        let root = tree.unwrap_or_else(|| Path::new("/"));
        let stock =
            |name: &str| STOCK.iter().map(|dir| root.join(dir).join(name)).find(|path| path.is_file());
        let of = |whose, name: &str, variable: &str| match whose {
            Whose::Ours => built(variable, name),
            Whose::Stock => stock(name).ok_or_else(|| format!("{name} is not installed (cargo xtask deps)")),
        };
        let mut helpers = vec![
            ("netavark".to_owned(), of(self.pair.netavark, "netavark", "SLIPWAY_NETAVARK_BINARY")?),
            ("aardvark-dns".to_owned(), of(self.pair.dns, "aardvark-dns", "SLIPWAY_AARDVARK_BINARY")?),
        ];
        let others = ["rootlessport", "pasta", "pesto"];
        helpers.extend(others.iter().filter_map(|name| Some(((*name).to_owned(), stock(name)?))));
        for (name, path) in &self.programs {
            helpers.retain(|(other, _)| other != name);
            helpers.push((name.clone(), path.clone()));
        }
        Ok(helpers)
    }

    /// The same, with our `pasta` and `pesto` in the place of the version's own.
    pub(crate) fn our_pasta(mut self) -> Self {
        // Where it is not built, the fixture says so.
        let ours = built("SLIPWAY_E2E_BINARY", "slipway").unwrap_or_default();
        self.programs.extend(["pasta", "pesto"].map(|name| (name.to_owned(), ours.clone())));
        self
    }

    /// An ordinary user's, with this pair.
    pub(crate) fn new(pair: Pair) -> Self {
        Self {
            version: Version::Machine,
            user: User::Ordinary,
            pair,
            programs: Vec::new(),
            engine: String::new(),
            network: String::new(),
        }
    }
}

/// Podman on a lab's host.
#[derive(Debug)]
pub(crate) struct Podman {
    pub(crate) lab: Lab,
    user: User,
    pair: Pair,
    /// The program that joins the rootless-netns to host.
    way_out: &'static str,
    config: PathBuf,
    /// Namespaces of others, whose mounts host has got with all the rest of the machine's.
    others: BTreeSet<String>,
}

const PROGRAMS: &[&str] =
    &["podman", "crun", "conmon", "newuidmap", "busybox", "getent", "host", "dnsmasq", "ncat", "curl", "nft"];

/// Where Debian has the helpers that come with a Podman.
const STOCK: [&str; 3] = ["usr/lib/podman", "usr/libexec/podman", "usr/bin"];

const IDENTITY: &str = "{{.Version.Version}} {{.Host.NetworkBackend}} {{.Host.NetworkBackendInfo.Path}} \
                        {{.Host.NetworkBackendInfo.DNS.Path}}";

impl Podman {
    /// Makes it; `None` after saying why the test is skipped.
    pub(crate) fn new(test: &str, wish: &Wish) -> Option<Self> {
        if let Err(reason) = wish.tree() {
            println!("SKIP {test}: {reason}");
            return None;
        }
        let made = Self::make(wish);
        made.map_or_else(|reason| skip(test, &reason), Some)
    }

    fn make(wish: &Wish) -> Result<Self, String> {
        if let Some(program) = slipway_lab::missing(PROGRAMS) {
            return Err(format!("{program} is not installed (cargo xtask deps)"));
        }
        if !nix::unistd::geteuid().is_root() {
            return Err("needs root to give the lab's user a range of ids".to_owned());
        }
        let mut options = slipway_lab::subject()?.lab_options();
        options.tree = wish.tree()?;
        options.programs.extend(wish.helpers(options.tree.as_deref())?);
        let lab = Lab::new(&options).map_err(|error| error.to_string())?;
        let config = lab.home().join(".config/containers");
        let others = left::namespaces(lab.host_pid());
        let podman = Self { lab, user: wish.user, pair: wish.pair, way_out: wish.way_out(), config, others };
        podman.configure(wish);
        let image = crate::image::tar(podman.lab.dir(), &["getent", "host"]);
        podman.run(&["import", &image.to_string_lossy(), "localhost/bb"]);
        podman.is_what_was_wished(wish.version);
        Ok(podman)
    }

    /// The version, and that it found the programs of its pair.
    fn is_what_was_wished(&self, version: Version) {
        let (start, format) = match version {
            // An old one does not tell more.
            Version::Machine => ("", "{{.Version.Version}} {{.Host.NetworkBackend}}"),
            Version::Five => ("5.", IDENTITY),
            Version::Six => ("6.", IDENTITY),
        };
        let shown = self.run(&["info", "--format", format]);
        assert!(shown.starts_with(start) && shown.contains(" netavark"), "{shown}");
        if version != Version::Machine {
            let programs = format!("{} {}", self.lab.program("netavark"), self.lab.program("aardvark-dns"));
            assert!(shown.contains(&programs), "{programs}: {shown}");
        }
    }

    fn configure(&self, wish: &Wish) {
        let (dir, home, config) = (self.lab.dir(), self.lab.home(), &self.config);
        let networks = home.join("networks");
        let script = match self.user {
            User::Ordinary => format!("mkdir -p {} {}", config.display(), networks.display()),
            User::Root => format!(
                "mount -t tmpfs -o mode=755 tmpfs /run; mkdir -p {} {}",
                config.display(),
                networks.display()
            ),
        };
        self.sh(&script);
        // Limits that need no right to raise them.
        let containers = format!(
            "[containers]\ncgroups = \"disabled\"\nlog_driver = \"k8s-file\"\n\
             default_ulimits = [\"nofile=1024:1024\", \"nproc=1024:1024\"]\n\
             [engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"none\"\n\
             helper_binaries_dir = [\"{bin}\"]\nnetwork_cmd_path = \"{slirp}\"\n{engine}\n\
             [network]\nnetwork_backend = \"netavark\"\nnetwork_config_dir = \"{networks}\"\n{network}\n",
            bin = dir.join("bin").display(),
            slirp = self.lab.program("slirp4netns"),
            networks = networks.display(),
            engine = wish.engine,
            network = wish.network,
        )
        .replace("BIN", &dir.join("bin").to_string_lossy());
        let storage = format!(
            "[storage]\ndriver = \"vfs\"\nrunroot = \"{}/run/storage\"\ngraphroot = \"{}/storage\"\n",
            dir.display(),
            home.display()
        );
        std::fs::write(config.join("containers.conf"), containers).unwrap();
        std::fs::write(config.join("storage.conf"), storage).unwrap();
        self.lab.host_root(["mount", "-t", "cgroup2", "cgroup2", "/sys/fs/cgroup"]).ok(LIMIT).unwrap();
    }

    /// A command on host as the user who runs Podman.
    pub(crate) fn host(&self, words: &[&str]) -> Cmd {
        match self.user {
            User::Ordinary => self.lab.host(words.iter().copied()),
            User::Root => self.lab.host_root(words.iter().copied()).env("HOME", self.lab.home()),
        }
    }

    /// A shell script on host as the user who runs Podman.
    pub(crate) fn sh(&self, script: &str) -> String {
        self.host(&["sh", "-c", script]).ok(LIMIT).unwrap().out()
    }

    /// Podman with these words.
    pub(crate) fn cmd(&self, words: &[&str]) -> Cmd {
        let cmd = self.host(&["podman"]).args(words.iter().copied());
        match self.user {
            // Found below the home; named by the environment, its storage.conf would be half ignored.
            User::Ordinary => cmd,
            User::Root => cmd
                .env("CONTAINERS_CONF", self.config.join("containers.conf"))
                .env("CONTAINERS_STORAGE_CONF", self.config.join("storage.conf")),
        }
    }

    /// Runs Podman, demands success, gives what it printed.
    pub(crate) fn run(&self, words: &[&str]) -> String {
        self.cmd(words).ok(LIMIT).unwrap().out()
    }

    /// A container that sleeps.
    pub(crate) fn sleeper(&self, name: &str, options: &[&str]) {
        self.run(&[&["run", "-d", "--name", name], options, &["localhost/bb", "sleep", "120"]].concat());
    }

    /// A container that serves a page on port 80.
    pub(crate) fn server(&self, name: &str, options: &[&str]) {
        let script = format!("mkdir /w; echo page of {name} > /w/index.html; exec httpd -f -p 80 -h /w");
        self.run(&[&["run", "-d", "--name", name], options, &["localhost/bb", "sh", "-c", &script]].concat());
    }

    /// A shell script in a container.
    pub(crate) fn exec(&self, name: &str, script: &str) -> Output {
        self.cmd(&["exec", name, "sh", "-c", script]).run(LIMIT).unwrap()
    }

    /// A container's IPv4 address on its first network.
    pub(crate) fn address(&self, name: &str) -> String {
        let shown = self.exec(name, "ip -4 -o address show eth0").out();
        let address = shown.split_whitespace().find_map(|word| Some(word.split_once('/')?.0.to_owned()));
        address.unwrap_or_else(|| panic!("{name} has no address: {shown}"))
    }

    /// The addresses of a name as a container's libc finds them, sorted.
    pub(crate) fn found(&self, from: &str, name: &str) -> Vec<String> {
        let shown = self.exec(from, &format!("getent ahosts {name}")).out();
        let stream = shown.lines().filter(|line| line.contains("STREAM"));
        let mut found: Vec<_> = stream.filter_map(|line| line.split(' ').next().map(str::to_owned)).collect();
        found.sort();
        found
    }

    /// Fetches a page from world; its server may need a moment.
    pub(crate) fn fetch(&self, from: &str) -> String {
        let script =
            format!("for i in $(seq 20); do curl -sgm 2 http://{from}/index.html && break; sleep 0.1; done");
        self.lab.world(["sh", "-c", &script]).run(LIMIT).unwrap().out()
    }

    /// Removes containers at once.
    pub(crate) fn remove(&self, names: &[&str]) {
        self.run(&[&["rm", "-f", "-t", "0"], names].concat());
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        let _ = self.cmd(&["rm", "-f", "-a", "-t", "0"]).run(LIMIT);
        self.end();
        // Layers belong to mapped ids: remove them before the directory goes.
        let storage = self.lab.home().join("storage").into_os_string();
        let _ = self.lab.host_root(["rm", "-rf"]).arg(storage).run(LIMIT);
    }
}
