//! Root file systems with newer programs than the machine's: Podmans and RootlessKit, for suites that run them on a
//! lab's *host*, QEMU with what its machines boot, User Mode Linux, the gvproxy beside which ours is tested, and the
//! peers that the bench compares with.
//!
//! apt resolves and fetches the packages as if nothing were installed, in directories of its own, from the Debian
//! mirror that the machine already uses; they are unpacked, not configured, for nothing in them is started but by name.
//! A tree is made once, at 150 to 170 MB (RootlessKit's at 80, the others at 10 to 20), and kept below `target/trees`;
//! it is made anew when its description changes, and the peers' when it is a week old, for they are to be the newest.
//! Where it cannot be had, the suites that want it are skipped by name.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::tool::{self, Done};

/// A tree: its directory's name, how the file of the package that it is for begins, the suites its packages come from,
/// the packages preferred from the last of them, the packages, what of them is left out, and when it is too old.
struct Tree {
    name: &'static str,
    proof: &'static str,
    suites: &'static [&'static str],
    preferred: &'static str,
    packages: &'static [&'static str],
    without: &'static [&'static str],
    age: Option<Duration>,
}

/// MiB that a tree may take when every run of the suites makes it: each of them is fetched and written by everybody.
const LARGEST: u64 = 200;

const TREES: [Tree; 6] = [
    Tree {
        name: "podman-5",
        proof: "podman_5.",
        suites: &["trixie"],
        preferred: "",
        packages: PACKAGES,
        without: &[],
        age: None,
    },
    Tree {
        name: "podman-6",
        proof: "podman_6.",
        suites: &["sid", "experimental"],
        preferred: "podman netavark aardvark-dns golang-github-containers-*",
        packages: PACKAGES,
        without: &[],
        age: None,
    },
    // QEMU and what its machines are made of: a kernel with AppArmor, the parser and profiles for it, DHCP clients.
    Tree {
        name: "qemu",
        proof: "qemu-system-x86_",
        suites: &["sid", "trixie"],
        preferred: "",
        packages: &[
            "apparmor",
            "base-files",
            "busybox-static",
            "iproute2",
            "isc-dhcp-client",
            "linux-image-cloud-amd64",
            "passt",
            "qemu-system-x86",
        ],
        without: &[
            "bin/qemu-system-i386",
            "bin/qemu-system-x86_64-microvm",
            "lib/systemd",
            "lib/udev",
            "lib/x86_64-linux-gnu/gconv",
            "lib/x86_64-linux-gnu/systemd",
        ],
        age: None,
    },
    // User Mode Linux, without its modules. It is started by this machine's own loader, hence the older suite.
    Tree {
        name: "uml",
        proof: "user-mode-linux_",
        suites: &["bookworm"],
        preferred: "",
        packages: &["user-mode-linux"],
        without: &["lib/uml", "lib/x86_64-linux-gnu"],
        age: None,
    },
    Tree {
        name: "gvproxy",
        proof: "gvproxy_",
        suites: &["sid"],
        preferred: "",
        packages: &["gvproxy"],
        without: &[],
        age: None,
    },
    Tree {
        name: "rootlesskit",
        proof: "rootlesskit_2.",
        suites: &["sid"],
        preferred: "",
        packages: &[
            "base-files",
            "busybox",
            "coreutils",
            "dash",
            "iproute2",
            "mount",
            "rootlesskit",
            "uidmap",
            "util-linux",
        ],
        without: &[],
        age: None,
    },
];

/// The newest peers, with the libraries that they need.
const PEERS: Tree = Tree {
    name: "peers",
    proof: "passt_",
    suites: &["sid"],
    preferred: "",
    packages: &["passt", "slirp4netns"],
    without: &[],
    age: Some(Duration::from_secs(7 * 86400)),
};

/// The engine and its helpers, and what the laboratory runs on *host*.
const PACKAGES: &[&str] = &[
    "aardvark-dns",
    "base-files",
    "conmon",
    "coreutils",
    "crun",
    "dash",
    "iproute2",
    "mount",
    "netavark",
    "nftables",
    "passt",
    "podman",
    "uidmap",
    "util-linux",
];

/// What no program reads, and one large program for Podman's own tests.
const LEFT_OUT: [&str; 5] =
    ["share/doc", "share/locale", "share/man", "share/info", "libexec/podman/podman-testing"];

/// Makes the trees that are not there yet; says which cannot be had, and why.
pub(crate) fn ensure() {
    if !tool::is_root() {
        TREES.iter().for_each(|tree| tool::skip(&format!("tree {}", tree.name), "needs root"));
        return;
    }
    for tree in &TREES {
        if let Err(error) = tree.ensure() {
            tool::skip(
                &format!("tree {}", tree.name),
                &format!("{error}; tests that need it are skipped by name"),
            );
        }
    }
}

/// The root of the tree with the newest slirp4netns and passt.
pub(crate) fn peers() -> Done<PathBuf> {
    PEERS.ensure()
}

/// The root of the tree with the original gvproxy.
pub(crate) fn gvproxy() -> Done<PathBuf> {
    let tree = TREES.iter().find(|tree| tree.name == "gvproxy");
    tree.ok_or("there is no such tree")?.ensure()
}

/// The root of the tree with QEMU.
pub(crate) fn qemu() -> Done<PathBuf> {
    TREES.iter().find(|tree| tree.name == "qemu").ok_or("there is no such tree")?.ensure()
}

impl Tree {
    /// Its root; an old one is better than none.
    fn ensure(&self) -> Done<PathBuf> {
        let trees = tool::target().join("trees");
        let place = trees.join(self.name);
        let mut description =
            format!("{:?} {} {:?} {LEFT_OUT:?}", self.suites, self.preferred, self.packages);
        if !self.without.is_empty() {
            let _ = write!(description, " {:?}", self.without);
        }
        description += "\n";
        let mark = trees.join(format!("{}.made", self.name));
        let here = place.is_dir() && std::fs::read_to_string(&mark).is_ok_and(|made| made == description);
        if here && !self.age.is_some_and(|age| older(&mark, age)) {
            return Ok(place);
        }
        let work = trees.join(format!("{}.work", self.name));
        remove(&work)?;
        if !here {
            remove(&place)?;
        }
        let made = self.make(&work).and_then(|()| {
            let _ = std::fs::remove_file(&mark);
            remove(&place)?;
            std::fs::rename(work.join("root"), &place).map_err(|error| said(&place, &error))?;
            write(&mark, &description)
        });
        // Lists and packages have served; of a failure nothing is kept.
        let _ = std::fs::remove_dir_all(&work);
        match made {
            Err(error) if here && place.is_dir() => {
                println!("{error}\nxtask: going on with the tree {} that is here", self.name);
                Ok(place)
            }
            made => made.map(|()| place),
        }
    }

    fn make(&self, work: &Path) -> Done {
        std::fs::create_dir_all(work).map_err(|error| said(work, &error))?;
        // apt on a full disk tries for minutes.
        let (free, wanted) = (room(work)?, 2 * LARGEST);
        if free < wanted {
            return Err(format!("{} has room for {free} MiB, and {wanted} are wanted", work.display()));
        }
        let apt = Apt::new(self, work)?;
        println!("xtask: fetching packages for the tree {}", self.name);
        tool::run(apt.cmd("apt-get").arg("update"))?;
        let words = ["install", "--yes", "--download-only", "--no-install-recommends"];
        tool::run(apt.cmd("apt-get").args(words).args(self.packages))?;
        let root = work.join("root");
        std::fs::create_dir(&root).map_err(|error| said(&root, &error))?;
        let archives = work.join("cache/archives");
        let listed = std::fs::read_dir(&archives).map_err(|error| said(&archives, &error))?;
        let mut packages: Vec<PathBuf> = listed.flatten().map(|entry| entry.path()).collect();
        packages.retain(|path| path.extension().is_some_and(|end| end == "deb"));
        if !packages.iter().any(|path| name(path).starts_with(self.proof)) {
            return Err(format!("{} has no package {}…", self.suites.join(" with "), self.proof));
        }
        // The package that says where /bin and /lib lead comes before those that put something there.
        packages.sort_by_key(|path| !name(path).starts_with("base-files_"));
        packages.iter().try_for_each(|package| unpack(package, self.without, &root))?;
        match size(&root) >> 20 {
            ..=LARGEST => Ok(()),
            takes => Err(format!(
                "the tree {} takes {takes} MiB, more than {LARGEST}: make it for `cargo xtask test --all`, and for one row otherwise",
                self.name
            )),
        }
    }
}

/// MiB that are free where a directory is.
pub(crate) fn room(dir: &Path) -> Done<u64> {
    let told = tool::output(Command::new("df").args(["--output=avail", "-B1M"]).arg(dir))?;
    let number = told.lines().last().and_then(|line| line.trim().parse().ok());
    number.ok_or_else(|| format!("df says nothing of {}: {told}", dir.display()))
}

/// Bytes of the files below a directory.
fn size(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let each = entries.map(|entry| match entry.metadata() {
        Ok(data) if data.is_dir() => size(&entry.path()),
        Ok(data) => data.len(),
        Err(_) => 0,
    });
    each.sum()
}

/// Whether a file was written longer ago than this.
fn older(file: &Path, age: Duration) -> bool {
    let written = std::fs::metadata(file).and_then(|data| data.modified());
    // A file from the future is no older than now.
    written.is_ok_and(|written| written.elapsed().is_ok_and(|elapsed| elapsed > age))
}

fn remove(dir: &Path) -> Done {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(said(dir, &error)),
        _ => Ok(()),
    }
}

/// apt with a world of its own.
struct Apt {
    settings: PathBuf,
}

impl Apt {
    fn new(tree: &Tree, work: &Path) -> Done<Self> {
        for dir in ["lists/partial", "cache/archives/partial", "none"] {
            let dir = work.join(dir);
            std::fs::create_dir_all(&dir).map_err(|error| said(&dir, &error))?;
        }
        let mirror = mirror()?;
        let sources: String =
            tree.suites.iter().map(|suite| format!("deb {mirror} {suite} main\n")).collect();
        let preferences = match (tree.preferred, tree.suites.last()) {
            ("", _) | (_, None) => String::new(),
            (packages, Some(suite)) => {
                format!("Package: {packages}\nPin: release a={suite}\nPin-Priority: 600\n")
            }
        };
        let mut settings = String::from(
            "APT::Sandbox::User \"root\";\nAPT::Update::Error-Mode \"any\";\nAcquire::Languages \"none\";\nAcquire::Retries \"2\";\n\
             Acquire::http::Timeout \"20\";\nAcquire::https::Timeout \"20\";\nDpkg::Use-Pty \"0\";\nquiet \"2\";\n",
        );
        for (key, file) in [
            ("Etc::SourceList", "sources.list"),
            ("Etc::SourceParts", "none"),
            ("Etc::Preferences", "preferences"),
            ("Etc::PreferencesParts", "none"),
            ("State", "."),
            ("State::Lists", "lists"),
            ("State::status", "status"),
            ("Cache", "cache"),
        ] {
            let _ = writeln!(settings, "Dir::{key} \"{}\";", work.join(file).display());
        }
        for (file, text) in [
            ("sources.list", &*sources),
            ("preferences", &*preferences),
            ("status", ""),
            ("apt.conf", &*settings),
        ] {
            write(&work.join(file), text)?;
        }
        Ok(Self { settings: work.join("apt.conf") })
    }

    /// One of apt's programs there.
    fn cmd(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env("APT_CONFIG", &self.settings)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .stdin(Stdio::null());
        command
    }
}

/// Where this machine gets Debian from: the first of its sources whose path ends the way mirrors' do.
fn mirror() -> Done<String> {
    let listed = tool::output(Command::new("apt-get").args(["indextargets", "--format", "$(REPO_URI)"]))?;
    first_mirror(&listed).ok_or_else(|| "this machine's apt knows no Debian mirror".to_owned())
}

fn first_mirror(listed: &str) -> Option<String> {
    let mut uris = listed.lines().map(str::trim);
    uris.find(|uri| uri.trim_end_matches('/').ends_with("/debian") && !uri.contains(' ')).map(str::to_owned)
}

/// Lays a package's files below `root`, but for those `without` which it does.
fn unpack(package: &Path, without: &[&str], root: &Path) -> Done {
    let mut unpacker = Command::new("dpkg-deb");
    let mut unpacker = unpacker
        .arg("--fsys-tarfile")
        .arg(package)
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("dpkg-deb: {error}"))?;
    let mut tar = Command::new("tar");
    let left_out = LEFT_OUT.iter().chain(without);
    tar.args(left_out.map(|path| format!("--exclude=./usr/{path}"))).arg("-xpC").arg(root);
    tar.stdin(unpacker.stdout.take().map_or_else(Stdio::null, Stdio::from));
    let status = tar.status().map_err(|error| format!("tar: {error}"))?;
    drop(tar);
    let source = unpacker.wait().map_err(|error| format!("dpkg-deb: {error}"))?;
    if status.success() && source.success() {
        Ok(())
    } else {
        Err(format!("{}: cannot be unpacked", name(package)))
    }
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn write(path: &Path, text: &str) -> Done {
    std::fs::write(path, text).map_err(|error| said(path, &error))
}

fn said(path: &Path, error: &std::io::Error) -> String {
    format!("{}: {error}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_is_the_machines_own() {
        let listed =
            "http://mirror.test/debian-security/\nhttp://mirror.test/debian/\nhttp://other.test/debian\n";
        assert_eq!(first_mirror(listed).as_deref(), Some("http://mirror.test/debian/"));
        assert_eq!(first_mirror("http://mirror.test/ubuntu/\nhttp://x.test/a b/debian\n"), None);
        assert_eq!(first_mirror(""), None);
    }

    #[test]
    fn apt_lives_in_directories_of_its_own() {
        let Ok(_) = mirror() else { return };
        let work = tempfile::tempdir().unwrap();
        let apt = Apt::new(&TREES[1], work.path()).unwrap();
        let settings = std::fs::read_to_string(&apt.settings).unwrap();
        let place = work.path().display().to_string();
        assert!(settings.lines().filter(|line| line.starts_with("Dir::")).all(|line| line.contains(&place)));
        let sources = std::fs::read_to_string(work.path().join("sources.list")).unwrap();
        assert_eq!(sources.lines().count(), TREES[1].suites.len(), "{sources}");
    }
}
