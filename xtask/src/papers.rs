//! What is said about the tree is true of it: files that documents and comments name are there, each page of `docs/` is
//! in its index, every source file of ours opens with its essay, and comments stay within a width that is read at a
//! glance.
//!
//! A name is what stands in backticks with a `.rs` or `.md` at its end, or begins with a folder of the tree's top, and
//! the target of a link. A link leads from where it stands; a name may be said from anywhere above the file, so that
//! some file's whole name must end with it. The changelog tells of what was, and is left alone.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use crate::tool::{self, Done};

/// The most characters of a line that is a comment, pictures and rows of a table aside.
const WIDTH: usize = 120;

/// Where what was true once stays.
const HISTORY: &[&str] = &["CHANGELOG.md"];

/// The index of the pages.
const INDEX: &str = "docs/README.md";

/// Checks all of it and reports every breach.
pub(crate) fn check() -> Done {
    println!(
        "$ papers: files that are named are there, comments within {WIDTH} characters, essays, the index of docs/"
    );
    let tree = Tree::new(tool::files("")?);
    let read = |path: &str| std::fs::read_to_string(tool::root().join(path)).unwrap_or_default();
    let mut breaches = tree.index(&read(INDEX));
    for path in tree.files.iter().filter(|path| !HISTORY.contains(&path.as_str())) {
        if path.ends_with(".md") {
            breaches.extend(tree.page(path, &read(path)));
        } else if path.ends_with(".rs") {
            breaches.extend(tree.source(path, &read(path)));
        }
    }
    if breaches.is_empty() {
        return Ok(());
    }
    for breach in &breaches {
        eprintln!("  {breach}");
    }
    Err(format!("{} thing(s) that the papers say are not so", breaches.len()))
}

/// What there is.
struct Tree {
    files: BTreeSet<String>,
    folders: BTreeSet<String>,
}

impl Tree {
    fn new(files: impl IntoIterator<Item = String>) -> Self {
        let files: BTreeSet<String> = files.into_iter().collect();
        let above = |path: &String| -> Vec<String> {
            let above = Path::new(path).ancestors().skip(1);
            above.map(|folder| folder.to_string_lossy().into_owned()).collect()
        };
        let folders = files.iter().flat_map(above).filter(|folder| !folder.is_empty()).collect();
        Self { files, folders }
    }

    /// Pages that nobody finds.
    fn index(&self, text: &str) -> Vec<String> {
        let pages = self.files.iter().filter_map(|path| path.strip_prefix("docs/"));
        let pages = pages.filter(|page| page.ends_with(".md") && !page.contains('/') && *page != "README.md");
        let missing = pages.filter(|page| !text.contains(&format!("({page})")));
        missing.map(|page| format!("{INDEX}: docs/{page} is not in the index")).collect()
    }

    /// A document: its links, and the files that it names.
    fn page(&self, path: &str, text: &str) -> Vec<String> {
        let mut breaches = Vec::new();
        for (number, line) in text.lines().enumerate() {
            for target in links(line).filter(|target| !target.contains(':') && !target.starts_with('#')) {
                let target = target.split('#').next().unwrap_or_default();
                if !self.has(&beside(path, target)) {
                    breaches.push(format!("{path}:{}: there is no {target}", number + 1));
                }
            }
            breaches.extend(self.named(path, number, line));
        }
        breaches
    }

    /// A source: its essay, and the width and the names of its comments.
    fn source(&self, path: &str, text: &str) -> Vec<String> {
        let mut breaches = Vec::new();
        let generated = text.starts_with("// This file is @generated");
        let product = path.contains("/src/") && !path.ends_with("/tests.rs");
        if product && !generated && !text.starts_with("//!") && !text.starts_with("#!") {
            breaches.push(format!("{path}: opens without saying what it is"));
        }
        let mut picture = false;
        for (number, line) in text.lines().enumerate().filter(|(_, line)| line.trim_start().starts_with("//"))
        {
            let said = line.trim_start_matches(['/', '!', ' ']);
            picture ^= said.starts_with("```");
            if line.chars().count() > WIDTH && !picture && !said.starts_with('|') {
                breaches.push(format!("{path}:{}: a comment beyond {WIDTH} characters", number + 1));
            }
            breaches.extend(self.named(path, number, line));
        }
        breaches
    }

    fn named(&self, path: &str, number: usize, line: &str) -> Vec<String> {
        let names = line.split('`').skip(1).step_by(2).flat_map(alternatives);
        let missing = names.filter(|name| !self.is_fine(path, name));
        missing.map(|name| format!("{path}:{}: there is no {name}", number + 1)).collect()
    }

    /// Whether it is there, or no name of a file of ours at all.
    fn is_fine(&self, path: &str, name: &str) -> bool {
        let plain = |c: char| c.is_ascii_alphanumeric() || "_-./".contains(c);
        let (first, rest) = name.split_once('/').unwrap_or((name, ""));
        let ours = name.ends_with(".rs") || name.ends_with(".md");
        let at_top = name.contains('/') && self.folders.contains(first) && !rest.is_empty();
        if !name.chars().all(plain) || name.starts_with('/') || name.starts_with('.') || !(ours || at_top) {
            return true;
        }
        // What is built is not there on a fresh clone.
        let made = name.split('/').any(|part| part == "target");
        let end = format!("/{}", name.trim_end_matches('/'));
        let known = |all: &BTreeSet<String>| all.iter().any(|place| place.ends_with(&end));
        made || self.has(&beside(path, name))
            || self.has(Path::new(name))
            || known(&self.files)
            || known(&self.folders)
    }

    fn has(&self, place: &Path) -> bool {
        let text = place.to_string_lossy();
        let text = text.trim_end_matches('/');
        self.files.contains(text) || self.folders.contains(text)
    }
}

/// Where a path leads that is said in the file `path`.
fn beside(path: &str, target: &str) -> PathBuf {
    let mut place = PathBuf::from(path);
    place.pop();
    for part in Path::new(target).components() {
        match part {
            Component::ParentDir => {
                place.pop();
            }
            Component::Normal(part) => place.push(part),
            _ => {}
        }
    }
    place
}

/// The targets of a line's links.
fn links(line: &str) -> impl Iterator<Item = &str> {
    line.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target)
}

/// A name with braces is several.
fn alternatives(name: &str) -> Vec<String> {
    let parts = name.split_once('{').and_then(|(head, rest)| Some((head, rest.split_once('}')?)));
    let Some((head, (middle, tail))) = parts else { return vec![name.to_owned()] };
    middle.split(',').map(|one| format!("{head}{}{tail}", one.trim())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> Tree {
        let files =
            ["README.md", "docs/README.md", "docs/a.md", "x/Cargo.toml", "x/src/deep/y.rs", "x/tests/t.rs"];
        Tree::new(files.map(str::to_owned))
    }

    #[test]
    fn a_file_that_is_named_and_not_there_is_told() {
        let tree = tree();
        for good in
            ["x/src/deep/y.rs", "deep/y.rs", "tests/t.rs", "y.rs", "x/{src/deep/y,tests/t}.rs", "x/src/"]
        {
            assert_eq!(tree.source("x/tests/t.rs", &format!("// see `{good}`")), [""; 0], "{good}");
        }
        for free in ["/etc/a.rs", "a * b.rs", "UDP/IP", "x", "target/a.rs", "f(x/y)"] {
            assert_eq!(tree.source("x/tests/t.rs", &format!("// see `{free}`")), [""; 0], "{free}");
        }
        for bad in ["x/src/z.rs", "deep/z.rs", "z.rs", "x/nothing", "x/{src/deep/y,tests/u}.rs"] {
            let told = tree.source("x/tests/t.rs", &format!("let a = 1;\n// see `{bad}`"));
            assert_eq!(told.len(), 1, "{bad}");
            assert!(told[0].starts_with("x/tests/t.rs:2: there is no "), "{told:?}");
        }
        assert_eq!(tree.source("x/tests/t.rs", "let a = \"`z.rs`\";"), [""; 0], "code says what it likes");
    }

    #[test]
    fn a_link_that_leads_nowhere_is_told() {
        let tree = tree();
        let good = "[a](docs/a.md), [b](docs/a.md#part), [c](#here), [d](https://example.org/z.md)";
        assert_eq!(tree.page("README.md", good), [""; 0]);
        assert_eq!(tree.page("docs/a.md", "[up](../README.md)"), [""; 0]);
        assert_eq!(tree.page("docs/a.md", "[up](README.rst)"), ["docs/a.md:1: there is no README.rst"]);
    }

    #[test]
    fn a_wide_comment_a_missing_essay_and_a_hidden_page_are_told() {
        let tree = tree();
        let wide = format!("//! Essay.\n    // {}", "x".repeat(WIDTH));
        let drawn = format!("//! Essay.\n//! ```text\n//! {}\n//! ```", "x".repeat(WIDTH));
        assert_eq!(tree.source("x/src/deep/y.rs", &drawn), [""; 0]);
        assert_eq!(tree.source("x/src/deep/y.rs", &wide).len(), 1);
        assert_eq!(
            tree.source("x/src/deep/y.rs", &format!("//! Essay.\n//! | {} |", "x".repeat(WIDTH))),
            [""; 0]
        );
        assert_eq!(
            tree.source("x/src/deep/y.rs", &format!("//! Essay.\nlet {}", "x".repeat(WIDTH))),
            [""; 0]
        );
        assert_eq!(tree.source("x/src/deep/y.rs", "use a;").len(), 1);
        assert_eq!(tree.source("x/tests/t.rs", "use a;"), [""; 0]);
        assert_eq!(tree.index("[a](a.md)"), [""; 0]);
        assert_eq!(tree.index("nothing").len(), 1);
    }
}
