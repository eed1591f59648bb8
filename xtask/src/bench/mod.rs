//! The system benches: slipway, its peers and the host itself do the same work in turn.
//!
//! World and host are namespaces joined by a veth, the container hangs on the subject's TAP: the set-up that the
//! figures of the design were taken on. In each round every subject gets a fresh container and does one row once (A B
//! A B), so that a busy neighbour hits all of them; the table shows medians and ratios. No measurement takes longer
//! than a few seconds, and no packet leaves the namespaces.
//!
//! A row in which ours or the host failed, or a transfer of theirs ended early, is refused: what is left of it is no
//! comparison. A table with such a row is printed, but not written into the page, and the bench fails. A peer may fail
//! [`TRIES`] times; that is told in its place, and where it never succeeded nothing is compared with it.
//!
//! A bench that is interrupted leaves nothing behind; `prepared` says how.
//!
//! `rows` and `weather` say what is measured, `work` does it, `peers` finds the rivals, `stage` sets a subject up,
//! `table` does the arithmetic and the page, `chart` the pictures. `dns` and `netavark` are duels of ours with the one
//! program each stands in for, on machines of their own; `gvproxy` and `passt` are such in the stack's set-up.

mod account;
mod busy;
mod chart;
mod dns;
mod duel;
mod gvproxy;
mod netavark;
mod passt;
mod peers;
mod prepared;
mod rows;
mod server;
mod stage;
mod table;
mod upkeep;
mod weather;
mod work;

use std::path::{Path, PathBuf};

use slipway_lab::interrupted;

use crate::tool::{self, Done};

use peers::Peer;
use prepared::Prepared;
pub(crate) use rows::Group;
use rows::Test;
use stage::{Ground, Stage};
pub(crate) use stage::{Role, Subject};
use table::{Result, Table};
pub(crate) use weather::Sky;

/// The parts of the bench.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Part {
    /// The user-space stack against slirp4netns and pasta.
    Stack,
    /// aardvark-dns against the original.
    Dns,
    /// netavark against the original.
    Netavark,
    /// gvproxy against the original.
    Gvproxy,
    /// passt against the original.
    Passt,
}

/// What the person asked for.
#[derive(Debug)]
pub(crate) struct Wish {
    /// The parts; none means all.
    pub(crate) parts: Vec<Part>,
    /// Rows over a link with weather instead of the parts.
    pub(crate) weather: Option<Sky>,
    /// How often every subject does every row.
    pub(crate) rounds: usize,
    /// Of the stack, of gvproxy and of passt, only what these groups show.
    pub(crate) groups: Vec<Group>,
    /// Only rows with one of these in their name.
    pub(crate) only: Vec<String>,
    /// Only these; none means all.
    pub(crate) subjects: Vec<Subject>,
    /// The name that ours answers to.
    pub(crate) role: Role,
    /// A binary to measure instead of a fresh release build.
    pub(crate) binary: Option<PathBuf>,
    /// Another to compare it with.
    pub(crate) before: Option<PathBuf>,
    /// Whether docs/performance.md gets the table.
    pub(crate) write: bool,
    /// What is there to measure, in the child that does it.
    pub(crate) prepared: Option<String>,
}

impl Wish {
    /// Whether a part is to be measured.
    fn wants(&self, part: Part) -> bool {
        match self.weather {
            Some(_) => part == Part::Stack,
            None => self.parts.is_empty() || self.parts.contains(&part),
        }
    }

    /// The tests of the stack.
    fn tests(&self) -> Vec<Test> {
        let all = match self.weather {
            Some(sky) => weather::tests(sky, sky == Sky::Goals || has_bbr()),
            None => rows::TESTS.to_vec(),
        };
        let wanted = |test: &Test| {
            // What only pasta does is nothing for another role.
            test.does(Subject::Slipway, self.role)
                && (self.groups.is_empty() || self.groups.contains(&test.group()))
        };
        all.into_iter().filter(|test| test.is_among(&self.only) && wanted(test)).collect()
    }
}

/// A part, its name, the programs that it cannot do without, and the measuring.
type MeasuredPart<'a> = (Part, &'static str, &'static [&'static str], &'a dyn Fn() -> Done);

/// Measures and prints.
pub(crate) fn run(wish: &Wish) -> Done {
    let Some(prepared) = &wish.prepared else { return Prepared::new(wish)?.measure_in_child() };
    let prepared = Prepared::read(prepared)?;
    slipway_lab::watch(std::io::stdin()).map_err(|error| error.to_string())?;
    let load = load();
    let Prepared { client, dns, netavark, .. } = &prepared;
    let parts: [MeasuredPart<'_>; 5] = [
        (Part::Stack, "stack", &["iperf3"], &|| stack(wish, &prepared)),
        (Part::Dns, "dns", &["dnsperf", "taskset"], &|| {
            duel_done("dns", &dns::run(wish.rounds, dns, client)?, wish, &load)
        }),
        (Part::Netavark, "netavark", &[], &|| {
            duel_done("netavark", &netavark::run(wish.rounds, (netavark, dns), client)?, wish, &load)
        }),
        (Part::Gvproxy, "gvproxy", &["iperf3"], &|| {
            let tables = gvproxy::run(wish, &prepared)?;
            tables.iter().try_for_each(|(mark, duel)| duel_done(mark, duel, wish, &load))
        }),
        (Part::Passt, "passt", &["iperf3"], &|| {
            let tables = passt::run(wish, &prepared)?;
            tables.iter().try_for_each(|(mark, duel)| duel_done(mark, duel, wish, &load))
        }),
    ];
    // What one part lacks is nothing to the others.
    let mut failed = Vec::new();
    for (_, name, programs, measure) in parts.iter().filter(|(part, ..)| wish.wants(*part)) {
        if let Some(program) = programs.iter().find(|program| slipway_lab::which(program).is_none()) {
            tool::skip(&format!("bench {name}"), &format!("{program} is not installed"));
        } else if interrupted() {
            return Err("interrupted".to_owned());
        } else if let Err(error) = measure() {
            eprintln!("xtask: {name}: {error}");
            failed.push(*name);
        }
    }
    let skipped = tool::skipped();
    println!("\n{} part(s) failed, {} skipped", failed.len(), skipped.len());
    skipped.iter().for_each(|line| println!("{line}"));
    if failed.is_empty() { Ok(()) } else { Err(format!("not measured: {}", failed.join(", "))) }
}

fn duel_done(name: &str, duel: &duel::Duel, wish: &Wish, load: &str) -> Done {
    println!("\n{}", duel.markdown());
    if !duel.failures.is_empty() {
        return Err(format!("{name}: refused, because somebody failed: {}", duel.failures.join("; ")));
    }
    if wish.write && duel.alone() {
        return Err(format!("{name}: there is nobody to compare with, so nothing is written"));
    }
    if wish.write {
        let machine = table::machine(&duel.rival, wish.rounds, load);
        table::put(name, &machine, &duel.chart(name), &duel.markdown())?;
    }
    Ok(())
}

/// The load average of the last minute.
fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}

fn stack(wish: &Wish, prepared: &Prepared) -> Done {
    let real = |path: &Path| path.canonicalize().map_err(|error| format!("{}: {error}", path.display()));
    let mut ours = vec![(Subject::Slipway, real(&prepared.stack)?)];
    if let Some(path) = &wish.before {
        ours.push((Subject::Before, real(path)?));
    }
    let tests = wish.tests();
    let wanted = |subject: Subject| {
        (wish.subjects.is_empty() || wish.subjects.contains(&subject))
            && tests.iter().any(|test| test.does(subject, wish.role))
    };
    let rivals = [(Subject::Slirp4netns, "slirp4netns"), (Subject::Pasta, "pasta")];
    let rivals = rivals.into_iter().filter(|(subject, _)| wanted(*subject));
    let mut peers: Vec<(Subject, Peer)> = Vec::new();
    let mut absent = Vec::new();
    for (subject, name) in rivals {
        if let Some(peer) = Peer::find(name, prepared.peers.as_deref()) {
            peers.push((subject, peer));
        } else {
            tool::skip(&format!("bench of {name}"), "neither fetched nor installed");
            absent.push(name);
        }
    }
    let subjects = ours.iter().map(|(subject, _)| *subject).chain(peers.iter().map(|(subject, _)| *subject));
    let subjects: Vec<Subject> = subjects.chain([Subject::Host]).filter(|subject| wanted(*subject)).collect();
    let versions = peers.iter().map(|(_, peer)| peer.version()).collect::<Vec<_>>().join("; ");
    let machine = table::machine(&versions, wish.rounds, &load());
    let _allowed = Allowed::new();
    let ground = Ground::new(&ours, &peers, prepared, wish.role)?;
    println!("\n{machine}\n");
    let tables = measure(&ground, wish, &tests, &subjects)?;
    println!("\n{machine}");
    let mut refused = Vec::new();
    for (group, table) in &tables {
        println!("\n{}:\n\n{}", group.title(), table.markdown());
        refused.extend(table.refused());
        if wish.write && table.refused().is_empty() && absent.is_empty() {
            let mark = format!("{}{}", wish.role.mark(), group.mark());
            table::put(&mark, &machine, &table.chart(group.title()), &table.markdown())?;
        }
    }
    if !refused.is_empty() {
        return Err(format!("refused, because somebody failed: {}", refused.join("; ")));
    }
    match wish.write && !absent.is_empty() {
        true => Err(format!("without {} there is nothing to be written", absent.join(" and "))),
        false => Ok(()),
    }
}

/// All tests, with a table for each group.
fn measure(ground: &Ground, wish: &Wish, tests: &[Test], subjects: &[Subject]) -> Done<Vec<(Group, Table)>> {
    let mut tables: Vec<(Group, Table)> = Vec::new();
    for of_group in tests.chunk_by(|one, next| one.group() == next.group()) {
        let does = |subject: &Subject| of_group.iter().any(|test| test.does(*subject, wish.role));
        let subjects: Vec<Subject> = subjects.iter().copied().filter(does).collect();
        let mut table = Table::new(&subjects);
        for test in of_group {
            for result in rounds(ground, wish, test, &subjects)? {
                println!("{}", table.line(&result));
                table.add(result);
            }
        }
        tables.extend(of_group.first().map(|test| (test.group(), table)));
    }
    Ok(tables)
}

/// All rounds of one test.
fn rounds(ground: &Ground, wish: &Wish, test: &Test, subjects: &[Subject]) -> Done<Vec<Result>> {
    let mut results: Vec<Result> = test.rows.iter().map(Result::new).collect();
    for round in 0..wish.rounds.max(1) {
        // Another one begins in each round, so that no subject always follows the same neighbour.
        for turn in 0..subjects.len() {
            let Some(subject) = subjects.get((round + turn) % subjects.len()).copied() else { continue };
            if test.does(subject, wish.role) {
                once(ground, subject, test, &mut results)?;
            }
        }
    }
    Ok(results)
}

/// How often a peer may try a piece of work.
const TRIES: usize = 3;

/// One subject's turn at one test. An error is the end of the bench.
fn once(ground: &Ground, subject: Subject, test: &Test, results: &mut [Result]) -> Done {
    let tries = if subject.is_peer() { TRIES } else { 1 };
    for left in (0..tries).rev() {
        let done =
            Stage::new(ground, subject, test.variation).and_then(|stage| work::measure(&stage, test.work));
        if interrupted() {
            return Err("interrupted".to_owned());
        }
        match done {
            Ok(figures) => {
                results.iter_mut().zip(figures).for_each(|(result, figure)| result.add(subject, figure));
                break;
            }
            Err(error) => {
                let said: String = error.lines().take(3).collect::<Vec<_>>().join(" | ");
                let name = test.rows.first().map_or("", |row| row.name);
                println!("  {name} of {}: {}", subject.name(), said.chars().take(300).collect::<String>());
                let note = if left > 0 { Result::spoil } else { Result::fail };
                results.iter_mut().for_each(|result| note(result, subject));
            }
        }
    }
    Ok(())
}

/// Whether the kernel has BBR, asked in a way that loads it.
fn has_bbr() -> bool {
    let names = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_available_congestion_control");
    let has = names.is_ok_and(|names| names.split_whitespace().any(|name| name == "bbr"));
    if !has {
        println!("SKIP weather with BBR: this kernel has no tcp_bbr");
    }
    has
}

/// Network namespaces may use only those congestion controls that the machine allows to everybody. Root allows the
/// bench's for its time.
struct Allowed(Option<String>);

impl Allowed {
    const FILE: &'static str = "/proc/sys/net/ipv4/tcp_allowed_congestion_control";

    fn new() -> Self {
        let before = std::fs::read_to_string(Self::FILE).unwrap_or_default();
        let names = before.trim();
        let mut wanted = names.to_owned();
        for name in ["cubic", "bbr"] {
            if names.split(' ').all(|known| known != name) {
                // One that the kernel does not have would spoil the line for the others.
                let more = format!("{wanted} {name}");
                if std::fs::write(Self::FILE, &more).is_ok() {
                    wanted = more;
                }
            }
        }
        Self((wanted != names).then(|| names.to_owned()))
    }
}

impl Drop for Allowed {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = std::fs::write(Self::FILE, before);
        }
    }
}
