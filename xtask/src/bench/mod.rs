//! The system benches: slipway, its peers and the host itself do the same work in turn.
//!
//! World and host are namespaces joined by a veth, the container hangs on the subject's TAP: the set-up that the
//! figures of the design were taken on. In each round every subject gets a fresh container and does one row once (A B
//! A B), so that a busy neighbour hits all of them; the table shows medians and ratios. No measurement takes longer
//! than a few seconds, and no packet leaves the namespaces.
//!
//! A row in which a subject failed, or a transfer of his ended early, is refused: what is left of it is no comparison.
//! A table with such a row is printed, but not written into the page.
//!
//! `rows` says what is measured, `work` does it, `peers` finds the rivals, `stage` sets a subject up, `table` does the
//! arithmetic and the page. `dns` and `netavark` are duels of ours with the one program each stands in for, on
//! machines of their own.

mod dns;
mod duel;
mod netavark;
mod peers;
mod rows;
mod stage;
mod table;
mod work;

use std::path::{Path, PathBuf};

use slipway_lab::peer;

use crate::tool::{self, Done, cargo};
use crate::{deps, install, trees};

use peers::Peer;
use rows::Test;
pub(crate) use stage::Subject;
use stage::{Ground, Stage};
use table::{Result, Table};

/// The parts of the bench.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Part {
    /// The user-space stack against slirp4netns and pasta.
    Stack,
    /// aardvark-dns against the original.
    Dns,
    /// netavark against the original.
    Netavark,
}

/// What the person asked for.
#[derive(Debug)]
pub(crate) struct Wish {
    /// The parts; none means all.
    pub(crate) parts: Vec<Part>,
    /// How often every subject does every row.
    pub(crate) rounds: usize,
    /// Only rows with one of these in their name.
    pub(crate) only: Vec<String>,
    /// Only these; none means all.
    pub(crate) subjects: Vec<Subject>,
    /// A binary to measure instead of a fresh release build.
    pub(crate) binary: Option<PathBuf>,
    /// Another to compare it with.
    pub(crate) before: Option<PathBuf>,
    /// Whether docs/performance.md gets the table.
    pub(crate) write: bool,
}

/// Measures and prints.
pub(crate) fn run(wish: &Wish) -> Done {
    if let Err(error) = deps::ensure(deps::BENCH) {
        println!("{error}\nxtask: rows that need what is missing fail");
    }
    tool::run(&mut cargo(&["build", "--release", "--quiet", "--package", "slipway-lab"]))?;
    let peer =
        Some(tool::target().join("release/slipway-lab-peer")).filter(|path| path.is_file()).or_else(peer);
    let peer = peer.ok_or("slipway-lab-peer was not built")?;
    let wanted = |part| wish.parts.is_empty() || wish.parts.contains(&part);
    if wanted(Part::Stack) {
        stack(wish, &peer)?;
    }
    if wanted(Part::Dns) || wanted(Part::Netavark) {
        duels(wish, &peer, &wanted)?;
    }
    Ok(())
}

/// Ours against the program it stands in for, one part after the other.
fn duels(wish: &Wish, peer: &Path, wanted: &dyn Fn(Part) -> bool) -> Done {
    let built = |package, program, variable: &str| match std::env::var_os(variable) {
        Some(path) => Ok(PathBuf::from(path)),
        None => install::release(package, program),
    };
    let resolver = built("slipway-dns", "aardvark-dns", "SLIPWAY_AARDVARK_BINARY")?;
    let load = load();
    if wanted(Part::Dns) {
        let duel = dns::run(wish.rounds, &resolver, peer)?;
        duel_done("dns", &duel, wish, &load)?;
    }
    if wanted(Part::Netavark) {
        let plumber = built("slipway-netavark", "netavark", "SLIPWAY_NETAVARK_BINARY")?;
        let duel = netavark::run(wish.rounds, (&plumber, &resolver), peer)?;
        duel_done("netavark", &duel, wish, &load)?;
    }
    Ok(())
}

fn duel_done(name: &str, duel: &duel::Duel, wish: &Wish, load: &str) -> Done {
    println!("\n{}", duel.markdown());
    if wish.write {
        table::put(name, &table::machine(&duel.rival, wish.rounds, load), &duel.markdown())?;
    }
    Ok(())
}

/// The load average of the last minute.
fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}

fn stack(wish: &Wish, client: &Path) -> Done {
    let real = |path: &Path| path.canonicalize().map_err(|error| format!("{}: {error}", path.display()));
    let binary = match &wish.binary {
        Some(path) => real(path)?,
        None => install::release("slirp-compat", "slipway")?,
    };
    let mut ours = vec![(Subject::Slipway, binary)];
    if let Some(path) = &wish.before {
        ours.push((Subject::Before, real(path)?));
    }
    let tree = trees::peers().inspect_err(|error| println!("{error}\nxtask: the peers of this machine do"));
    let peers = [(Subject::Slirp4netns, "slirp4netns"), (Subject::Pasta, "pasta")]
        .map(|(subject, name)| Peer::find(name, tree.as_deref().ok()).map(|peer| (subject, peer)));
    let peers: Vec<(Subject, Peer)> = peers.into_iter().flatten().collect();
    let wanted = |subject: &Subject| wish.subjects.is_empty() || wish.subjects.contains(subject);
    let subjects = ours.iter().map(|(subject, _)| *subject).chain(peers.iter().map(|(subject, _)| *subject));
    let subjects: Vec<Subject> = subjects.chain([Subject::Host]).filter(wanted).collect();
    let versions = peers.iter().map(|(_, peer)| peer.version()).collect::<Vec<_>>().join("; ");
    let machine = table::machine(&versions, wish.rounds, &load());
    let _allowed = Allowed::cubic();
    let ground = Ground::new(&ours, &peers, client)?;
    println!("\n{machine}\n");
    let table = measure(&ground, wish, &subjects);
    println!("\n{machine}\n\n{}", table.markdown());
    let refused = table.refused();
    if !refused.is_empty() {
        return Err(format!("refused, because somebody failed: {}", refused.join("; ")));
    }
    if wish.write { table::put("table", &machine, &table.markdown()) } else { Ok(()) }
}

fn measure(ground: &Ground, wish: &Wish, subjects: &[Subject]) -> Table {
    let mut table = Table::new(subjects);
    for test in rows::TESTS.iter().filter(|test| test.is_among(&wish.only)) {
        let mut results: Vec<Result> = test.rows.iter().map(Result::new).collect();
        for round in 0..wish.rounds.max(1) {
            // Another one begins in each round, so that no subject always follows the same neighbour.
            for turn in 0..subjects.len() {
                let Some(subject) = subjects.get((round + turn) % subjects.len()).copied() else { continue };
                if test.does(subject) {
                    once(ground, subject, test, &mut results);
                }
            }
        }
        for result in results {
            println!("{}", table.line(&result));
            table.add(result);
        }
    }
    table
}

/// One subject's turn at one test.
fn once(ground: &Ground, subject: Subject, test: &Test, results: &mut [Result]) {
    match Stage::new(ground, subject, test.variation).and_then(|stage| work::measure(&stage, test.work)) {
        Ok(figures) => {
            results.iter_mut().zip(figures).for_each(|(result, figure)| result.add(subject, figure));
        }
        Err(error) => {
            let said: String = error.lines().take(3).collect::<Vec<_>>().join(" | ");
            let name = test.rows.first().map_or("", |row| row.name);
            println!("  {name} of {}: {}", subject.name(), said.chars().take(300).collect::<String>());
            results.iter_mut().for_each(|result| result.fail(subject));
        }
    }
}

/// Network namespaces may use only those congestion controls that the machine allows to everybody; the figures are
/// CUBIC's. Root allows it for the time of the bench.
struct Allowed(Option<String>);

impl Allowed {
    const FILE: &'static str = "/proc/sys/net/ipv4/tcp_allowed_congestion_control";

    fn cubic() -> Self {
        let before = std::fs::read_to_string(Self::FILE).unwrap_or_default();
        let names = before.trim();
        if names.split(' ').any(|name| name == "cubic") {
            return Self(None);
        }
        let done = std::fs::write(Self::FILE, format!("{names} cubic")).is_ok();
        Self(done.then(|| names.to_owned()))
    }
}

impl Drop for Allowed {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = std::fs::write(Self::FILE, before);
        }
    }
}
