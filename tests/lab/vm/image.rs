//! What a machine boots: the kernel of a tree, and a file system of its own that is made for it, from programs of the
//! tree and whatever a test adds.
//!
//! busybox is all that there always is. A program of the tree brings the libraries that the tree's own loader names.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::archive::{Entry, packed};
use super::modules::Modules;
use crate::command::Cmd;

const LIMIT: Duration = Duration::from_secs(20);
/// MiB of memory: enough for a small image twice.
const MEMORY: u32 = 256;
/// The first process. It moves into a file system that can be left again (pivot_root(2) does not leave the kernel's
/// first one), then does what it is told on the console of the test.
const INIT: &str = include_str!("init.sh");
/// Where the loader of the tree is, and where it is looked for.
const LOADER: &str = "usr/lib64/ld-linux-x86-64.so.2";
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";

/// A file system for a machine, and its kernel.
#[derive(Debug)]
pub struct Image {
    tree: PathBuf,
    kernel: PathBuf,
    modules: Modules,
    /// Modules that are loaded at the start, in order.
    load: Vec<String>,
    /// By path, without the slash in front.
    entries: BTreeMap<String, Entry>,
    /// More words for the kernel.
    words: String,
    /// `/etc/passwd` and `/etc/group`.
    accounts: (String, String),
    /// MiB.
    memory: u32,
}

impl Image {
    /// The least that boots with a network card: busybox, and what the card needs. `tree` is the one that
    /// `cargo xtask deps` calls `qemu`.
    ///
    /// # Errors
    /// What is missing there.
    pub fn new(tree: &Path) -> io::Result<Self> {
        let kernels = tree.join("usr/lib/modules");
        let kernel = std::fs::read_dir(&kernels)?.flatten().map(|entry| entry.path()).next();
        let kernel = kernel.ok_or_else(|| io::Error::other("the tree has no kernel"))?;
        let busybox = tree.join("usr/bin/busybox");
        let mut image = Self {
            modules: Modules::below(&kernel, busybox.clone())?,
            kernel: kernel.join("vmlinuz"),
            tree: tree.to_owned(),
            load: Vec::new(),
            entries: BTreeMap::new(),
            words: String::new(),
            accounts: Default::default(),
            memory: MEMORY,
        };
        for (at, target) in
            [("bin", "usr/bin"), ("sbin", "usr/sbin"), ("lib", "usr/lib"), ("lib64", "usr/lib64")]
        {
            image.entries.insert(at.into(), Entry::Link(target.into()));
        }
        for dir in
            ["dev", "proc", "sys", "run", "tmp", "root", "mnt", "usr/sbin", "usr/lib", "usr/lib64", "var"]
        {
            image.dir(dir);
        }
        image.copy("/usr/bin/busybox", &busybox)?;
        image.script("/init", INIT);
        image.user("root", 0, "/root");
        image.user("nobody", 65_534, "/");
        image.module("virtio_net")?;
        Ok(image)
    }

    /// Loads a module at the start, after what it needs.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn module(&mut self, name: &str) -> io::Result<()> {
        for (name, bytes) in self.modules.with_needs(name)? {
            if !self.load.contains(&name) {
                self.put(&format!("/modules/{name}.ko"), 0o644, bytes);
                self.load.push(name);
            }
        }
        Ok(())
    }

    /// A file that everybody may read.
    pub fn text(&mut self, at: &str, text: &str) {
        self.put(at, 0o644, text.as_bytes().to_vec());
    }

    /// A file that everybody may run.
    pub fn script(&mut self, at: &str, text: &str) {
        self.put(at, 0o755, text.as_bytes().to_vec());
    }

    /// A link.
    pub fn link(&mut self, at: &str, target: &str) {
        self.above(at);
        self.entries.insert(bare(at).into(), Entry::Link(target.into()));
    }

    /// A file of this machine, or a directory with all that is in it.
    ///
    /// # Errors
    /// Those of reading it.
    pub fn copy(&mut self, at: &str, from: &Path) -> io::Result<()> {
        let meta = std::fs::symlink_metadata(from)?;
        if meta.is_symlink() {
            self.link(at, &std::fs::read_link(from)?.to_string_lossy());
        } else if meta.is_dir() {
            self.dir(bare(at));
            for entry in std::fs::read_dir(from)?.flatten() {
                self.copy(&format!("{at}/{}", entry.file_name().to_string_lossy()), &entry.path())?;
            }
        } else {
            self.put(at, meta.permissions().mode() & 0o7777, std::fs::read(from)?);
        }
        Ok(())
    }

    /// A file or directory of the tree, at its own place.
    ///
    /// # Errors
    /// Those of reading it.
    pub fn of_tree(&mut self, at: &str) -> io::Result<()> {
        let from = self.tree.join(bare(at));
        self.copy(at, &from)
    }

    /// A program of this machine, with the libraries that it needs: those of the tree, which are newer.
    ///
    /// # Errors
    /// When it or one of them is not there.
    pub fn program(&mut self, at: &str, from: &Path) -> io::Result<()> {
        self.put(at, 0o755, std::fs::read(from)?);
        let listed = Cmd::new(by_loader(&self.tree)).arg("--list").arg(from).run(LIMIT)?;
        // One that is linked statically needs none, and the loader says so with an error.
        if !listed.success() && !listed.all().contains("statically linked") {
            return Err(io::Error::other(format!("{}: {listed}", from.display())));
        }
        let text = listed.out();
        let paths =
            text.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
        let names: Vec<&OsStr> = paths.filter_map(|path| Path::new(path).file_name()).collect();
        for name in names {
            let file = self.tree.join(LIBRARIES).join(name);
            let at = format!("/{LIBRARIES}/{}", name.to_string_lossy());
            if !self.entries.contains_key(bare(&at)) {
                self.put(&at, 0o755, std::fs::read(&file)?);
            }
        }
        self.put(&format!("/{LOADER}"), 0o755, std::fs::read(self.tree.join(LOADER))?);
        Ok(())
    }

    /// A program of the tree, at its own place.
    ///
    /// # Errors
    /// As [`Image::program`].
    pub fn program_of_tree(&mut self, at: &str) -> io::Result<()> {
        let from = self.tree.join(bare(at));
        self.program(at, &from)
    }

    /// A user whose group has the same name and number.
    pub fn user(&mut self, name: &str, id: u32, home: &str) {
        self.accounts.0 += &format!("{name}:x:{id}:{id}::{home}:/bin/sh\n");
        self.accounts.1 += &format!("{name}:x:{id}:\n");
        self.text("/etc/passwd", &self.accounts.0.clone());
        self.text("/etc/group", &self.accounts.1.clone());
    }

    /// MiB of memory, where it is not to be [`MEMORY`].
    pub const fn memory(&mut self, mebibytes: u32) {
        self.memory = mebibytes;
    }

    /// More words for the kernel's command line.
    pub fn kernel_words(&mut self, words: &str) {
        self.words += " ";
        self.words += words;
    }

    /// The root of the tree.
    #[must_use]
    pub fn tree(&self) -> &Path {
        &self.tree
    }

    /// From the root of the tree.
    pub(super) fn kernel(&self) -> &Path {
        self.kernel.strip_prefix(&self.tree).unwrap_or(&self.kernel)
    }

    pub(super) const fn mebibytes(&self) -> u32 {
        self.memory
    }

    pub(super) fn words(&self) -> &str {
        &self.words
    }

    /// Writes the file system to a file.
    ///
    /// # Errors
    /// Those of writing it.
    pub fn write(&self, to: &Path) -> io::Result<()> {
        let order = Entry::File { mode: 0o644, bytes: self.load.join("\n").into_bytes() };
        let entries = self.entries.iter().map(|(path, entry)| (path.as_str(), entry));
        std::fs::write(to, packed(entries.chain([("modules/order", &order)])))
    }

    fn dir(&mut self, path: &str) {
        self.above(path);
        self.entries.entry(path.into()).or_insert(Entry::Dir);
    }

    /// The directories that a path leads through.
    fn above(&mut self, at: &str) {
        let path = bare(at);
        for (end, _) in path.match_indices('/') {
            self.entries.entry(path[..end].into()).or_insert(Entry::Dir);
        }
    }

    fn put(&mut self, at: &str, mode: u32, bytes: Vec<u8>) {
        self.above(at);
        self.entries.insert(bare(at).into(), Entry::File { mode, bytes });
    }
}

fn bare(path: &str) -> &str {
    path.trim_start_matches('/')
}

/// The words that start a program of a tree by the tree's own loader and libraries, whatever this machine has.
pub fn by_loader(tree: &Path) -> [OsString; 3] {
    [tree.join(LOADER).into(), "--library-path".into(), tree.join(LIBRARIES).into()]
}
