//! No part of a crate uses one that uses it, directly or by way of others.
//!
//! The parts are the files and folders that lie side by side, at every place in the tree of modules: whatever a file
//! deep in one folder uses of a file deep in another, the one folder uses the other. A module and what is below it are
//! one part to those beside them, and may use each other. So each folder can be read by itself, in an order, and be
//! taken out with what is beneath it. Tests are free ([`super::modules`]).

use std::collections::BTreeMap;

use super::modules::{Crate, Names};

/// Types that lie along the path of what they work on, by crate: a file with an `impl` of theirs counts as the one that
/// defines them. The engine's stages stand in the folders of the layers, in the order in which a frame meets them.
const LAID_OUT: &[(&str, &str)] = &[("slipway-netstack", "Engine")];

/// Which part uses which, with one place where it does.
type Graph = BTreeMap<String, BTreeMap<String, String>>;

/// One circle for each folder that has any.
pub(super) fn breaches(name: &str, all: &Crate) -> Vec<String> {
    let graphs = graphs(name, all).into_iter();
    let found = graphs.filter_map(|(folder, graph)| Some((folder, circle(&graph)?, graph)));
    found.map(|(folder, circle, graph)| told(name, &folder, &circle, &graph)).collect()
}

/// Who uses whom in each folder.
fn graphs(name: &str, all: &Crate) -> BTreeMap<Names, Graph> {
    let homes = homes(name, all);
    let home = |path: Names| homes.get(&path).cloned().unwrap_or(path);
    let mut graphs = BTreeMap::<Names, Graph>::new();
    for (from, module) in &all.0 {
        for used in &module.uses {
            let to = all.resolve(&used.path);
            if from.starts_with(&to) || to.starts_with(from) {
                continue;
            }
            let (from, to) = (home(from.clone()), home(to));
            let shared = from.iter().zip(&to).take_while(|(one, two)| one == two).count();
            if let (Some(user), Some(part)) = (from.get(shared), to.get(shared)) {
                let folder = from.iter().take(shared).cloned().collect();
                let places = graphs.entry(folder).or_default().entry(user.clone()).or_default();
                places
                    .entry(part.clone())
                    .or_insert_with(|| format!("{}:{}: {}", module.file, used.line, used.path.join("::")));
            }
        }
    }
    graphs
}

/// The files that count as others.
fn homes(name: &str, all: &Crate) -> BTreeMap<Names, Names> {
    let types = LAID_OUT.iter().filter(|(of, _)| *of == name);
    let homes = types.flat_map(|(_, laid_out)| {
        let home = all.0.iter().find(|(_, module)| module.defines.contains(*laid_out)).map(|(path, _)| path);
        let parts = all.0.iter().filter(move |(_, module)| module.implements.contains(*laid_out));
        parts.filter_map(move |(path, _)| Some((path.clone(), home?.clone())))
    });
    homes.collect()
}

/// Parts each of which uses the next, and the last the first.
fn circle(graph: &Graph) -> Option<Vec<String>> {
    let mut left = graph.clone();
    // Who uses nobody that is left is in no circle.
    loop {
        let before = left.len();
        let names: Vec<String> = left.keys().cloned().collect();
        left.retain(|_, uses| uses.keys().any(|used| names.contains(used)));
        if left.len() == before {
            break;
        }
    }
    let mut way = vec![left.keys().next()?.clone()];
    loop {
        let next = left.get(way.last()?)?.keys().find(|used| left.contains_key(*used))?;
        if let Some(at) = way.iter().position(|met| met == next) {
            return Some(way.split_off(at));
        }
        way.push(next.clone());
    }
}

fn told(name: &str, folder: &[String], circle: &[String], graph: &Graph) -> String {
    let place = [&[name.to_owned()], folder].concat().join("::");
    let steps = circle.iter().zip(circle.iter().cycle().skip(1));
    let places = steps.filter_map(|(from, to)| graph.get(from)?.get(to));
    let places = places.map(|at| format!("\n    {at}")).collect::<String>();
    format!("{place}: {} use each other{places}", circle.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    /// The crate of these files, of which the first is its root.
    fn of(name: &str, files: &[(&str, &str)]) -> Vec<String> {
        let read = |path: &Path| {
            files.iter().find(|(file, _)| Path::new(file) == path).map(|(_, text)| (*text).to_owned())
        };
        breaches(name, &Crate::read(Path::new(files[0].0), read).unwrap())
    }

    #[test]
    fn folders_that_use_each_other_are_refused() {
        let apart = [
            ("src/lib.rs", "mod a;\nmod b;\npub use b::Two;"),
            ("src/a/mod.rs", "mod one;"),
            ("src/a/one.rs", "use crate::b::Two;"),
            ("src/b/mod.rs", "mod two;\npub use two::Two;"),
            ("src/b/two.rs", "pub struct Two;\n#[cfg(test)]\nmod tests { use crate::a::one::One; }"),
        ];
        assert_eq!(of("x", &apart), [""; 0]);
        for line in [
            "use crate::a::one::One;",
            "use crate::{a::{self}, b};",
            "fn f() { crate::a::one::f() }",
            "fn f() -> super::super::a::one::One {}",
            "pub use crate::a::*;",
            "mod within { use super::super::super::a; }",
        ] {
            let mut files = apart;
            files[4].1 = line;
            let wanted = "x: a, b use each other\n    src/a/one.rs:1: b::Two\n    src/b/two.rs:1: a";
            let found = of("x", &files);
            assert!(found.len() == 1 && found[0].starts_with(wanted), "{line}: {found:?}");
        }
        // What everybody may say.
        for line in ["use super::Two;", "pub(in crate::a) fn f() {}", "// crate::a::one", "use a::one;"] {
            let mut files = apart;
            files[4].1 = line;
            assert_eq!(of("x", &files), [""; 0], "{line}");
        }
    }

    #[test]
    fn a_circle_of_three_and_one_by_another_name_are_refused() {
        let files = [
            ("src/lib.rs", "mod a;\nmod b;\nmod c;\npub use c::Three;"),
            ("src/a.rs", "use crate::b;"),
            ("src/b.rs", "\nuse crate::Three;"),
            ("src/c.rs", "pub struct Three;\nuse super::a;"),
        ];
        let found = of("x", &files);
        let wanted = "x: a, b, c use each other\n    src/a.rs:1: b\n    src/b.rs:2: Three\n    src/c.rs:2: a";
        assert_eq!(found, [wanted]);
        // Deeper down the folder is named.
        let deeper = [
            ("src/lib.rs", "mod top;"),
            ("src/top.rs", "mod a;\nmod b;"),
            ("src/top/a.rs", "use super::b::B;"),
            ("src/top/b.rs", "pub struct B;\nuse super::a;"),
        ];
        assert!(of("x", &deeper)[0].starts_with("x::top: a, b use each other"));
    }

    #[test]
    fn the_stages_of_the_engine_count_as_the_engine() {
        let mut files = [
            ("src/lib.rs", "mod engine;\nmod ip;\npub use engine::Engine;"),
            ("src/engine.rs", "use crate::ip::table::Table;\npub struct Engine { table: Table }"),
            ("src/ip/mod.rs", "mod input;\npub mod table;"),
            ("src/ip/input.rs", "use crate::Engine;\nimpl Engine { fn on_packet(&mut self) {} }"),
            ("src/ip/table.rs", "pub struct Table;"),
        ];
        assert_eq!(of("slipway-netstack", &files), [""; 0]);
        assert_eq!(of("x", &files).len(), 1, "no other crate has one");
        files[4].1 = "use crate::Engine;\nimpl From<Engine> for Table {}";
        assert_eq!(of("slipway-netstack", &files).len(), 1, "an impl of a trait is no stage");
    }
}
