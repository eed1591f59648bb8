//! The peers: the newest slirp4netns and pasta that Debian has, run where they lie.
//!
//! They come in a tree with libraries of their own (`trees`), because a machine of some years has peers of some years:
//! a pasta of 2023 is half as fast as today's. A peer of the tree is started by the tree's own dynamic loader, which
//! is all that the kernel would do: `/proc/self/exe` then names the loader, and of that a peer notices nothing but
//! that pasta cannot find the build for newer processors beside itself. So we choose that build, as it would have.
//!
//! Without the tree, peers that the machine has installed do; their versions stand above the table either way.

use std::path::{Path, PathBuf};
use std::process::Command;

use slipway_lab::which;

use crate::tool::first_line;

/// A program to compare with.
#[derive(Debug)]
pub(crate) struct Peer {
    name: &'static str,
    /// A file, or the root of a tree in which it is.
    place: PathBuf,
    /// The loader and the program, below the tree's root.
    inside: Option<(PathBuf, PathBuf)>,
}

impl Peer {
    /// The newest that can be had.
    pub(crate) fn find(name: &'static str, tree: Option<&Path>) -> Option<Self> {
        let fetched = tree.and_then(|tree| {
            let inside = Some((loader(tree)?, build(tree, name, newer_processor())?));
            Some(Self { name, place: tree.to_owned(), inside })
        });
        fetched.or_else(|| which(name).map(|place| Self { name, place, inside: None }))
    }

    /// What the lab shows in its `bin`: by what name, and where it really is.
    pub(crate) fn shown(&self) -> (String, PathBuf) {
        (self.name.to_owned(), self.place.clone())
    }

    /// The words that start it, when it (or its tree) is seen at this path.
    pub(crate) fn words(&self, at: &Path) -> Vec<String> {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let Some((loader, program)) = &self.inside else { return vec![text(at)] };
        let loader = at.join(loader);
        let libraries = loader.parent().map(text).unwrap_or_default();
        vec![
            text(&loader),
            "--library-path".to_owned(),
            libraries,
            "--argv0".to_owned(),
            self.name.to_owned(),
            text(&at.join(program)),
        ]
    }

    /// What it says of its version, with its name.
    pub(crate) fn version(&self) -> String {
        let words = self.words(&self.place);
        let mut words = words.iter();
        let mut command = Command::new(words.next().map_or("", String::as_str));
        let said = first_line(command.args(words));
        if said.starts_with(self.name) { said } else { format!("{} {said}", self.name) }
    }
}

/// The dynamic loader of a tree, below its root.
fn loader(tree: &Path) -> Option<PathBuf> {
    let dirs = std::fs::read_dir(tree.join("usr/lib")).ok()?;
    let mut files = dirs.flatten().filter_map(|dir| std::fs::read_dir(dir.path()).ok()).flatten().flatten();
    let found = files.find(|file| file.file_name().to_string_lossy().starts_with("ld-linux"))?;
    found.path().strip_prefix(tree).ok().map(Path::to_path_buf)
}

/// A program of a tree, below its root: the build for newer processors when there is one and this is such.
fn build(tree: &Path, name: &str, newer: bool) -> Option<PathBuf> {
    let plain = Path::new("usr/bin").join(name);
    let best = Path::new("usr/bin").join(format!("{name}.avx2"));
    [newer.then_some(best), Some(plain)].into_iter().flatten().find(|path| tree.join(path).is_file())
}

fn newer_processor() -> bool {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    info.lines()
        .find(|line| line.starts_with("flags"))
        .is_some_and(|flags| flags.split(' ').any(|flag| flag == "avx2"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> tempfile::TempDir {
        let tree = tempfile::tempdir().unwrap();
        for file in [
            "usr/lib/systemd/nothing",
            "usr/lib/some-linux-gnu/ld-linux-some.so.2",
            "usr/bin/pasta",
            "usr/bin/pasta.avx2",
        ] {
            let path = tree.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        tree
    }

    #[test]
    fn a_peer_of_the_tree_is_started_by_its_own_loader() {
        let tree = tree();
        let peer = Peer::find("pasta", Some(tree.path())).unwrap();
        let words = peer.words(Path::new("/bin/pasta"));
        assert_eq!(
            words.iter().take(5).map(String::as_str).collect::<Vec<_>>(),
            [
                "/bin/pasta/usr/lib/some-linux-gnu/ld-linux-some.so.2",
                "--library-path",
                "/bin/pasta/usr/lib/some-linux-gnu",
                "--argv0",
                "pasta"
            ]
        );
    }

    #[test]
    fn the_build_for_this_processor_is_chosen() {
        let tree = tree();
        assert_eq!(build(tree.path(), "pasta", true).unwrap(), Path::new("usr/bin/pasta.avx2"));
        assert_eq!(build(tree.path(), "pasta", false).unwrap(), Path::new("usr/bin/pasta"));
        assert_eq!(build(tree.path(), "slirp4netns", true), None);
    }
}
