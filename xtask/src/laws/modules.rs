//! A crate as a tree of modules: which files it has, what each of them uses of the others, and what it passes on.
//!
//! Read from the text, not from the compiler: paths that begin with `crate`, `self` or `super`, in `use` and anywhere
//! else, and `use` of a module's own children. `#[cfg(test)]` hides the item behind it, so tests are not looked at.
//! What a macro makes is not seen, nor a path that begins with a name of another crate, which is another law's concern.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::source::{self, Rest, Token};
use crate::tool::Done;

/// A path of names, below the crate's root.
pub(super) type Names = Vec<String>;

/// One path in the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Use {
    pub(super) line: usize,
    pub(super) path: Names,
}

/// One file.
#[derive(Debug, Default)]
pub(super) struct Module {
    /// From the tree's root.
    pub(super) file: String,
    pub(super) uses: Vec<Use>,
    /// Types of which it has an `impl` of their own, not of a trait.
    pub(super) implements: BTreeSet<String>,
    /// Types that it defines.
    pub(super) defines: BTreeSet<String>,
    /// What its names stand for that come from elsewhere.
    names: BTreeMap<String, Names>,
    /// Modules in files of their own.
    children: Vec<String>,
}

/// All of a crate's, by their paths.
#[derive(Debug, Default)]
pub(super) struct Crate(pub(super) BTreeMap<Names, Module>);

impl Crate {
    /// Reads a crate from its first file. `read` gives the text of a file, or nothing if it is not there.
    pub(super) fn read(root: &Path, read: impl Fn(&Path) -> Option<String>) -> Done<Self> {
        let mut found = Self::default();
        let mut todo = vec![(Names::new(), root.to_path_buf(), root.parent().unwrap_or(root).to_path_buf())];
        while let Some((path, file, below)) = todo.pop() {
            let text = read(&file).ok_or_else(|| format!("{} is missing", file.display()))?;
            let module = Module::of(&path, &file, &text);
            for child in &module.children {
                let [thin, full] = [below.join(format!("{child}.rs")), below.join(child).join("mod.rs")];
                let file = if read(&thin).is_some() { thin } else { full };
                todo.push(([&path[..], std::slice::from_ref(child)].concat(), file, below.join(child)));
            }
            found.0.insert(path, module);
        }
        Ok(found)
    }

    /// The module in which a path ends: where its last name is defined, as far as that can be told, or else where it
    /// leads.
    pub(super) fn resolve(&self, path: &[String]) -> Names {
        self.resolved(path, 8)
    }

    fn resolved(&self, path: &[String], patience: usize) -> Names {
        let mut at = Names::new();
        for (index, name) in path.iter().enumerate() {
            let next = [&at[..], std::slice::from_ref(name)].concat();
            if self.0.contains_key(&next) {
                at = next;
                continue;
            }
            let elsewhere = self.0.get(&at).and_then(|module| module.names.get(name));
            return match elsewhere.filter(|target| patience > 0 && target.as_slice() != path) {
                Some(target) => {
                    let rest = path.get(index + 1..).unwrap_or_default();
                    self.resolved(&[&target[..], rest].concat(), patience - 1)
                }
                None => at,
            };
        }
        at
    }
}

impl Module {
    fn of(path: &[String], file: &Path, text: &str) -> Self {
        let code = source::code(text);
        let tokens = source::tokens(&code);
        let mut reader =
            Reader { at: path.to_vec(), depth: path.len(), tokens: &tokens, module: Self::default() };
        reader.module.children = children(&tokens);
        reader.module.file = PathBuf::from(file).display().to_string();
        reader.read();
        reader.module
    }
}

/// The modules that a file says are in files of their own, tests left out.
fn children(tokens: Rest<'_, '_>) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = tokens;
    while let [_, behind @ ..] = rest {
        if let [(_, Token::Word("mod")), (_, Token::Word(name)), (_, Token::Sign(';')), ..] = rest {
            found.push((*name).to_owned());
        }
        rest = behind_tests(rest).unwrap_or(behind);
    }
    found
}

/// If an attribute begins here that leaves what is behind it to tests: what comes after that.
fn behind_tests<'t, 'a>(tokens: Rest<'t, 'a>) -> Option<Rest<'t, 'a>> {
    use Token::{Sign, Word};
    let [(_, Sign('#')), attribute @ ..] = tokens else { return None };
    let [(_, Sign('[')), (_, Word("cfg")), (_, Sign('(')), inner @ ..] = attribute else { return None };
    let hides = matches!(
        inner,
        [(_, Word("test")), (_, Sign(')')), ..] | [(_, Word("all")), (_, Sign('(')), (_, Word("test")), ..]
    );
    hides.then(|| source::item_end(attribute))
}

/// Goes through the words of a file.
struct Reader<'t, 'a> {
    /// Where it is: the file's module, or one within the file.
    at: Names,
    /// How many names of that are the file's.
    depth: usize,
    tokens: Rest<'t, 'a>,
    module: Module,
}

impl Reader<'_, '_> {
    fn read(&mut self) {
        use Token::{Path, Sign, Word};
        // For each open brace, whether it is a module's.
        let mut braces = Vec::new();
        let mut before = [Sign(';'); 2];
        while let [(line, token), behind @ ..] = self.tokens {
            let (line, token) = (*line, *token);
            if let Some(rest) = behind_tests(self.tokens) {
                self.tokens = rest;
                continue;
            }
            let here = self.tokens;
            self.tokens = behind;
            match (token, behind) {
                (Word("mod"), [(_, Word(name)), (_, Sign('{')), rest @ ..]) => {
                    self.at.push((*name).to_owned());
                    braces.push(true);
                    self.tokens = rest;
                }
                (Sign('{'), _) => braces.push(false),
                (Sign('}'), _) => {
                    let of_module = braces.pop() == Some(true);
                    if of_module {
                        self.at.pop();
                    }
                }
                (Word("use"), [(_, next), ..]) if *next != Sign('<') => {
                    let (leaves, rest) = source::use_tree(behind);
                    self.tokens = rest;
                    leaves.into_iter().for_each(|leaf| self.take_in(line, &leaf));
                }
                (Word("struct" | "enum"), [(_, Word(name)), ..]) => {
                    self.module.defines.insert((*name).to_owned());
                }
                (Word("impl"), _) => self.module.implements.extend(source::implemented(behind)),
                // `pub(in crate::x)` uses nothing.
                (Word("crate" | "super" | "self"), [(_, Path), ..]) if before != [Sign('('), Word("in")] => {
                    let (names, rest) = source::path(here);
                    self.tokens = rest;
                    if let Some(path) = self.absolute(&names) {
                        self.module.uses.push(Use { line, path });
                    }
                }
                _ => {}
            }
            before = [before[1], token];
        }
    }

    /// One name of a `use`.
    fn take_in(&mut self, line: usize, leaf: &source::Leaf) {
        let path = self.absolute(&leaf.path).or_else(|| {
            let first = leaf.path.first()?;
            let own = self.at.len() == self.depth && self.module.children.contains(first);
            own.then(|| [&self.at[..], &leaf.path[..]].concat())
        });
        let Some(path) = path else { return };
        if let Some(name) = &leaf.name
            && self.at.len() == self.depth
        {
            self.module.names.insert(name.clone(), path.clone());
        }
        self.module.uses.push(Use { line, path });
    }

    /// A path from the crate's root; `None` for one that begins elsewhere.
    fn absolute(&self, names: &[String]) -> Option<Names> {
        let (first, mut rest) = names.split_first()?;
        let mut at = match first.as_str() {
            "crate" => Names::new(),
            "self" => self.at.clone(),
            "super" => self.at.split_last()?.1.to_vec(),
            _ => return None,
        };
        while let Some((next, behind)) = rest.split_first()
            && next == "super"
        {
            at.pop();
            rest = behind;
        }
        Some([&at[..], rest].concat())
    }
}
