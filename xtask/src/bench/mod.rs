//! The system benches: slipway, its peers and the host itself do the same work in turn.
//!
//! World and host are namespaces joined by a veth, the container hangs on the subject's TAP: the set-up that the
//! figures of the design were taken on. In each round every subject gets a fresh container and does one row once (A B
//! A B), so that a busy neighbour hits all of them; the table shows medians and ratios. No measurement takes longer
//! than a few seconds, and no packet leaves the namespaces.
//!
//! `rows` says what is measured, `stage` sets a subject up, `table` does the arithmetic and the page. `dns` and
//! `netavark` are duels of ours with the one program each stands in for, on machines of their own.

mod dns;
mod duel;
mod netavark;
mod rows;
mod stage;
mod table;

use std::path::{Path, PathBuf};

use slipway_lab::{Lab, LabOptions, peer, which};

use crate::tool::{self, Done, cargo};
use crate::{deps, install};

use rows::Row;
use stage::{Stage, Subject};
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
    /// Only rows with this in their name.
    pub(crate) only: Option<String>,
    /// A binary to measure instead of a fresh release build.
    pub(crate) binary: Option<PathBuf>,
    /// Whether docs/performance.md gets the table.
    pub(crate) write: bool,
}

/// Measures and prints.
pub(crate) fn run(wish: &Wish) -> Done {
    if let Err(error) = deps::ensure(deps::BENCH) {
        println!("{error}\nxtask: peers that are missing are left out");
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

fn stack(wish: &Wish, peer: &Path) -> Done {
    let binary = match &wish.binary {
        Some(path) => path.canonicalize().map_err(|error| format!("{}: {error}", path.display()))?,
        None => install::release("slirp-compat", "slipway")?,
    };
    let mut programs =
        vec![("slirp4netns-ours".to_owned(), binary), ("slipway-lab-peer".to_owned(), peer.to_owned())];
    let mut subjects = vec![Subject::Slipway];
    for (subject, program) in [(Subject::Slirp4netns, "slirp4netns"), (Subject::Pasta, "pasta")] {
        if let Some(path) = which(program) {
            programs.push((program.to_owned(), path));
            subjects.push(subject);
        }
    }
    subjects.push(Subject::Host);
    let load = load();
    let _allowed = Allowed::cubic();
    let options = LabOptions { programs, congestion: Some("cubic".to_owned()), tree: None };
    let lab = Lab::new(&options).or_else(|_| Lab::new(&LabOptions { congestion: None, ..options.clone() }));
    let lab = lab.map_err(|error| format!("cannot make the bench's namespaces: {error}"))?;
    let table = measure(&lab, wish, &subjects);
    println!("\n{}", table.markdown());
    if wish.write {
        table::write(&table, wish.rounds, &load)?;
    }
    Ok(())
}

fn measure(lab: &Lab, wish: &Wish, subjects: &[Subject]) -> Table {
    let mut table = Table::new(subjects);
    let wanted = |row: &&Row| wish.only.as_ref().is_none_or(|only| row.name.contains(only.as_str()));
    for row in rows::ROWS.iter().filter(wanted) {
        let mut result = Result::new(row);
        for round in 0..wish.rounds.max(1) {
            // Another one begins in each round, so that no subject always follows the same neighbour.
            for turn in 0..subjects.len() {
                let Some(subject) = subjects.get((round + turn) % subjects.len()).copied() else { continue };
                if !row.does(subject) {
                    continue;
                }
                let value =
                    Stage::new(lab, subject, row.variation).and_then(|stage| rows::measure(&stage, row.work));
                match value {
                    Ok(value) => result.add(subject, value),
                    Err(error) => {
                        let said: String = error.lines().take(3).collect::<Vec<_>>().join(" | ");
                        println!(
                            "  {} of {}: {}",
                            row.name,
                            subject.name(),
                            said.chars().take(300).collect::<String>()
                        );
                        result.fail(subject);
                    }
                }
            }
        }
        println!("{}", table.line(&result));
        table.add(result);
    }
    table
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
