//! The machine that the program under test sets up, and what the kernel's tools say about it afterwards.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::Value;
use slipway_lab::{Cmd, LIMIT, Machine, Namespace, Output, built, machine, skip, tree};

#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) machine: Machine,
    pub(crate) binary: PathBuf,
    pub(crate) config: PathBuf,
    /// The DNS server that is handed over to; the empty path is none.
    pub(crate) dns: PathBuf,
    /// What the program finds in its environment beyond that.
    pub(crate) environment: Vec<(&'static str, String)>,
}

impl Host {
    pub(crate) fn fixture(test: &str, programs: &[&str]) -> Option<Self> {
        let binary = match built("SLIPWAY_NETAVARK_BINARY", "netavark") {
            Ok(binary) => binary,
            Err(reason) => return skip(test, &reason),
        };
        let machine = machine(test, &[&["ip", "nft", "ping", "curl"], programs].concat())?;
        let config = machine.dir().join("config");
        std::fs::create_dir(&config).unwrap();
        Some(Self { machine, binary, config, dns: PathBuf::new(), environment: Vec::new() })
    }

    /// Hands over to this tree's DNS server, or the one that the environment names.
    pub(crate) fn with_dns(mut self, test: &str) -> Option<Self> {
        match built("SLIPWAY_AARDVARK_BINARY", "aardvark-dns") {
            Ok(path) => self.dns = path,
            Err(reason) => return skip(test, &reason),
        }
        Some(self)
    }

    /// Other netavarks to compare with: the one that `SLIPWAY_NETAVARK_PEER` names, those of Podmans' trees, the
    /// machine's own.
    pub(crate) fn peers(&self) -> Vec<PathBuf> {
        let named = std::env::var_os("SLIPWAY_NETAVARK_PEER").map(PathBuf::from);
        let of_trees = ["podman-6", "podman-5"].into_iter().filter_map(|name| of_tree(&self.machine, name));
        named.into_iter().chain(of_trees).chain(["/usr/lib/podman/netavark".into()]).collect()
    }

    pub(crate) fn is_ours(&self) -> bool {
        let output = self.bare(&["version"]).ok(LIMIT).unwrap();
        output.out().contains("slipway")
    }

    /// The program without any of the options that an engine gives.
    pub(crate) fn bare(&self, words: &[&str]) -> Cmd {
        let binary = self.binary.to_string_lossy().into_owned();
        // An empty address keeps the machine's own D-Bus out of it.
        self.machine.cmd([binary]).args(words).env("DBUS_SYSTEM_BUS_ADDRESS", "")
    }

    /// The program as an engine starts it.
    pub(crate) fn cmd(&self, words: &[&str]) -> Cmd {
        self.cmd_of(&self.binary, words)
    }

    pub(crate) fn cmd_of(&self, binary: &Path, words: &[&str]) -> Cmd {
        let cmd = self.machine.cmd(self.words(binary, words)).env("DBUS_SYSTEM_BUS_ADDRESS", "");
        self.environment.iter().fold(cmd, |cmd, (name, value)| cmd.env(*name, value))
    }

    /// The words of a call as an engine makes it.
    pub(crate) fn words(&self, binary: &Path, words: &[&str]) -> Vec<String> {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let options =
            [text(binary), "--config".to_owned(), text(&self.config), "--rootless=false".to_owned()];
        let dns = format!("--aardvark-binary={}", self.dns.display());
        options.into_iter().chain([dns]).chain(words.iter().map(|word| (*word).to_owned())).collect()
    }

    pub(crate) fn container(&self) -> Namespace {
        self.machine.namespace().unwrap()
    }

    /// Connects a container: success, one line of JSON, nothing on standard error.
    pub(crate) fn setup(&self, container: &Namespace, request: &Value) -> Value {
        let output = self.cmd(&["setup", &container.path()]).input(line(request)).run(LIMIT).unwrap();
        assert!(output.success(), "{output}");
        assert_eq!(output.err(), "");
        assert_eq!(output.out().lines().count(), 1, "{output}");
        serde_json::from_str(&output.out()).unwrap()
    }

    /// Disconnects it: success, and nothing printed at all.
    pub(crate) fn teardown(&self, container: &Namespace, request: &Value) {
        let output = self.cmd(&["teardown", &container.path()]).input(line(request)).run(LIMIT).unwrap();
        assert!(output.success(), "{output}");
        assert_eq!(output.all(), "");
    }

    /// A setup that fails: the error's text.
    pub(crate) fn refused(&self, container: &Namespace, request: &Value) -> String {
        error(&self.cmd(&["setup", &container.path()]).input(line(request)).run(LIMIT).unwrap())
    }

    /// What `ip -j` shows on the host.
    pub(crate) fn ip(&self, words: &str) -> Value {
        json(&self.machine.sh(&format!("ip -j -d {words}")).unwrap())
    }

    /// A chain's rules as nft prints them, without the frame.
    pub(crate) fn chain(&self, name: &str) -> Vec<String> {
        let output = self.machine.sh(&format!("nft list chain inet netavark {name}")).unwrap();
        assert!(output.success(), "{output}");
        let text = output.out();
        let inner = text.lines().skip(2).map(str::trim).filter(|line| !line.is_empty() && *line != "}");
        inner.filter(|line| !line.starts_with("type ")).map(str::to_owned).collect()
    }

    pub(crate) fn rules(&self) -> String {
        self.machine.sh("nft list ruleset").unwrap().out()
    }

    /// Nothing of any container or network is left.
    pub(crate) fn is_clean(&self) {
        self.is_clean_by(&self.rules());
    }

    /// The same, where the rules are these.
    pub(crate) fn is_clean_by(&self, rules: &str) {
        let links = self.ip("link show");
        assert_eq!(links.as_array().unwrap().len(), 1, "only lo: {links:#}");
        for trace in ["nv_", "10.88.", "10.89.", "fd10:", "dport", "podman", "netavark_internal"] {
            assert!(!rules.contains(trace), "{trace}: {rules}");
        }
        for dir in ["firewall/networks", "firewall/ports", "firewall/internal"] {
            let left = std::fs::read_dir(self.config.join(dir)).map_or(0, Iterator::count);
            assert_eq!(left, 0, "{dir}");
        }
        if let Ok(driver) = std::fs::read_to_string(self.config.join("firewall/firewall-driver")) {
            assert!(["nftables", "firewalld", "none"].contains(&driver.as_str()), "{driver:?}");
        }
        let names = self.config.join("aardvark-dns");
        let left: Vec<_> = std::fs::read_dir(names).into_iter().flatten().flatten().collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

/// A program that starts a tree's netavark with the tree's libraries, for those of the machine may be too old for it.
fn of_tree(machine: &Machine, name: &str) -> Option<PathBuf> {
    let root = tree(name).ok()?;
    let (program, libraries) = (root.join("usr/lib/podman/netavark"), root.join("usr/lib/x86_64-linux-gnu"));
    let script = machine.dir().join(format!("netavark-of-{name}"));
    let quoted = |path: &Path| format!("'{}'", path.display());
    let text = format!(
        "#!/bin/sh\nexec {} --library-path {} {} \"$@\"\n",
        quoted(&libraries.join("ld-linux-x86-64.so.2")),
        quoted(&libraries),
        quoted(&program)
    );
    std::fs::write(&script, text).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    program.exists().then_some(script)
}

impl Drop for Host {
    fn drop(&mut self) {
        // The DNS server left its starter's process group; its own file names it.
        let dir = self.config.join("aardvark-dns");
        let pid = std::fs::read_to_string(dir.join("aardvark.pid")).unwrap_or_default();
        let command = std::fs::read(format!("/proc/{}/cmdline", pid.trim())).unwrap_or_default();
        if String::from_utf8_lossy(&command).contains(&*dir.to_string_lossy()) {
            let _ = self.machine.cmd(["kill", "-KILL", pid.trim()]).run(LIMIT);
        }
    }
}

/// What `ip -j` shows in a container.
pub(crate) fn ip(container: &Namespace, words: &str) -> Value {
    json(&container.sh(&format!("ip -j -d {words}")).unwrap())
}

/// The addresses of a container's interface, as `address/length`, without the link's own.
pub(crate) fn addresses(container: &Namespace, link: &str) -> Vec<String> {
    let shown = ip(container, &format!("address show {link}"));
    let list = shown[0]["addr_info"].as_array().cloned().unwrap_or_default();
    list.iter()
        .filter(|entry| entry["scope"] == "global")
        .map(|entry| format!("{}/{}", entry["local"].as_str().unwrap(), entry["prefixlen"]))
        .collect()
}

pub(crate) fn line(request: &Value) -> String {
    format!("{request}\n")
}

/// The text of a failure, which is one object with one key on standard output and exit status 1.
pub(crate) fn error(output: &Output) -> String {
    assert_eq!(output.code(), 1, "{output}");
    let object: Value =
        serde_json::from_str(&output.out()).unwrap_or_else(|error| panic!("{error}: {output}"));
    assert_eq!(output.out().lines().count(), 1, "{output}");
    assert_eq!(object.as_object().map(serde_json::Map::len), Some(1), "{output}");
    object["error"].as_str().unwrap().to_owned()
}

fn json(output: &Output) -> Value {
    assert!(output.success(), "{output}");
    let text = output.out();
    if text.trim().is_empty() { Value::Array(Vec::new()) } else { serde_json::from_str(&text).unwrap() }
}
