//! `aardvark-dns`: ours and the original answer the same clients.
//!
//! Each side has a machine of its own with the addresses of a network of 200 containers on `lo`. The daemon is pinned
//! to one core and dnsperf to another, but where it has to ask as fast as the daemon can answer over UDP: one core is
//! too little for that, so it gets two threads and what the daemon leaves of both.
//!
//! In each round both sides start, and then take turns step by step: they answer as fast as they can for two seconds,
//! answer at a fixed rate (where the latency of each query is taken), and read a thousand containers again 20 times
//! while they are asked. The one whose turn it is not waits in epoll(7).

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use slipway_lab::{Cmd, Machine, interrupted};

use crate::tool::{Done, first_line};

use super::duel::{Duel, Goal, Row, Side, rival};

const LIMIT: Duration = Duration::from_secs(60);
const GATEWAY: &str = "10.89.0.1";
const CLIENT: &str = "10.89.0.2";

/// As many questions as can be answered.
const FLOOD: [&str; 8] = ["-l", "2", "-q", "200", "-T", "2", "-c", "4"];

const RATE: &str = "local answers over UDP";
const RATE_TCP: &str = "local answers over TCP";
const P99: &str = "99th percentile at 10 k queries a second";
const MEMORY: &str = "resident memory after that";
const START: &str = "start to ready";
const RELOAD_LOST: &str = "queries lost while 1000 containers are read again 20 times";
const RELOAD: &str = "a reload of 1000 containers, processor time";

/// Measures both sides.
pub(crate) fn run(rounds: usize, ours: &Path, peer: &Path) -> Done<Duel> {
    let stock = rival("SLIPWAY_BENCH_AARDVARK", "aardvark-dns");
    let name = stock
        .as_deref()
        .map_or_else(|| "no aardvark-dns here".to_owned(), |path| first_line(&mut Command::new(path)));
    let mut duel = Duel {
        rival: name,
        rows: vec![
            Row::new(RATE, "1/s", Goal::AtLeast(1.5)),
            Row::new(RATE_TCP, "1/s", Goal::AtLeast(1.0)),
            Row::new(P99, "ms", Goal::AtMost(1.0)),
            Row::new(MEMORY, "MB", Goal::AtMost(0.5)),
            Row::new(START, "ms", Goal::AtMost(1.0)),
            Row::new(RELOAD_LOST, "queries", Goal::Zero),
            Row::new(RELOAD, "ms", Goal::AtMost(1.0)),
        ],
        failures: Vec::new(),
    };
    let sides: Vec<(Side, PathBuf)> =
        std::iter::once((Side::Ours, ours.to_owned())).chain(stock.map(|path| (Side::Stock, path))).collect();
    for round in 0..rounds.max(1) {
        let mut stages = Vec::new();
        for turn in 0..sides.len() {
            let Some((side, program)) = sides.get((round + turn) % sides.len()) else { continue };
            stages.push((*side, Stage::new(program, peer)?));
        }
        for step in STEPS {
            if interrupted() {
                return Err("interrupted".to_owned());
            }
            stages.retain(|(side, stage)| {
                let done = step(stage, *side, &mut duel);
                duel.heed(*side, &done);
                done.is_ok()
            });
        }
    }
    Ok(duel)
}

/// What each side does in turn.
type Step = fn(&Stage, Side, &mut Duel) -> Done;

/// The fixed rate has several turns: the tail of one is whoever else wanted the core just then, for 20 ms of that make
/// the slowest of 100 in 2 s.
const STEPS: [Step; 8] = [
    Stage::ready,
    Stage::floods,
    Stage::paced,
    Stage::paced,
    Stage::paced,
    Stage::paced,
    Stage::memory,
    Stage::reloads,
];

/// One side on its machine.
struct Stage {
    machine: Machine,
    config: PathBuf,
    program: String,
    peer: String,
}

impl Stage {
    fn new(program: &Path, peer: &Path) -> Done<Self> {
        let machine = Machine::new().map_err(said)?;
        machine.cmd(["ip", "address", "add", "10.89.0.1/16", "dev", "lo"]).ok(LIMIT).map_err(said)?;
        let config = machine.dir().join("aardvark-dns");
        std::fs::create_dir(&config).map_err(said)?;
        let text = |path: &Path| path.to_string_lossy().into_owned();
        Ok(Self { machine, config, program: text(program), peer: text(peer) })
    }

    fn ready(&self, side: Side, duel: &mut Duel) -> Done {
        self.write(200)?;
        self.queries(200)?;
        duel.add(START, side, self.start()?);
        Ok(())
    }

    fn floods(&self, side: Side, duel: &mut Duel) -> Done {
        duel.add(RATE, side, self.dnsperf(&FLOOD)?.flood()?);
        let tcp = self.dnsperf(&["-l", "2", "-q", "100", "-m", "tcp", "-c", "10"])?;
        duel.add(RATE_TCP, side, tcp.flood()?);
        Ok(())
    }

    fn paced(&self, side: Side, duel: &mut Duel) -> Done {
        let load = self.dnsperf(&["-l", "2", "-Q", "10000", "-v"])?;
        duel.add(P99, side, load.p99.ok_or("dnsperf -v printed no latencies")?);
        Ok(())
    }

    fn memory(&self, side: Side, duel: &mut Duel) -> Done {
        duel.add(MEMORY, side, self.resident()?);
        Ok(())
    }

    /// A network of so many containers.
    fn write(&self, containers: u32) -> Done {
        let mut text = format!("{GATEWAY}\n");
        for number in 0..containers {
            let (high, low) = (number / 250, 2 + number % 250);
            let id = format!("{number:064x}");
            let short = id.get(52..).unwrap_or_default();
            let _ = writeln!(text, "{id} 10.89.{high}.{low}  c{number},{short}");
        }
        let fresh = self.machine.dir().join("fresh");
        std::fs::write(&fresh, text).map_err(said)?;
        std::fs::rename(fresh, self.config.join("podman1")).map_err(said)
    }

    fn queries(&self, containers: u32) -> Done {
        let text: String = (0..containers).map(|number| format!("c{number}.dns.podman A\n")).collect();
        std::fs::write(self.machine.dir().join("queries"), text).map_err(said)
    }

    /// Milliseconds from exec to the end of the launcher, which is when it serves.
    fn start(&self) -> Done<f64> {
        let config = self.config.to_string_lossy().into_owned();
        let words = ["taskset", "-c", "0", &self.peer, "timed", &self.program];
        let daemon = self.machine.cmd(words).args(["--config", &config, "-p", "53", "run"]);
        let shown = daemon.ok(LIMIT).map_err(said)?.out();
        let word = shown.split_whitespace().next().unwrap_or_default();
        word.parse().map_err(|_| format!("not a time: {shown}"))
    }

    fn dnsperf(&self, words: &[&str]) -> Done<Load> {
        let output = self.load(words).ok(LIMIT).map_err(said)?;
        Load::read(&output.out())
    }

    fn load(&self, words: &[&str]) -> Cmd {
        let queries = self.machine.dir().join("queries").to_string_lossy().into_owned();
        let cores = if *words == FLOOD[..] { "0,1" } else { "1" };
        let dnsperf = ["taskset", "-c", cores, "dnsperf", "-s", GATEWAY, "-a", CLIENT, "-d", &queries];
        self.machine.cmd(dnsperf).args(words)
    }

    /// Reads a thousand containers again and again while they are asked.
    fn reloads(&self, side: Side, duel: &mut Duel) -> Done {
        self.write(1000)?;
        self.queries(1000)?;
        self.hang_up()?;
        std::thread::sleep(Duration::from_millis(300));
        let before = self.ticks()?;
        for _ in 0..50 {
            self.hang_up()?;
            std::thread::sleep(Duration::from_millis(20));
        }
        duel.add(RELOAD, side, (self.ticks()? - before) * 10.0 / 50.0);
        // An answer later than this is lost to a resolver that asks again.
        let mut load = self.load(&["-l", "2", "-Q", "5000", "-t", "2"]).start().map_err(said)?;
        for _ in 0..20 {
            std::thread::sleep(Duration::from_millis(80));
            self.write(1000)?;
            self.hang_up()?;
        }
        let output = load.finish(LIMIT).map_err(said)?.ok_or("dnsperf did not end")?;
        duel.add(RELOAD_LOST, side, Load::read(&output.out())?.lost);
        Ok(())
    }

    fn pid(&self) -> Done<u32> {
        let text = std::fs::read_to_string(self.config.join("aardvark.pid")).map_err(said)?;
        text.trim().parse().map_err(said)
    }

    fn hang_up(&self) -> Done {
        let pid = self.pid()?.to_string();
        tool_ok(&self.machine, &["kill", "-HUP", &pid])
    }

    fn resident(&self) -> Done<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()?)).map_err(said)?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
        let kib: f64 = line.trim().trim_end_matches(" kB").parse().map_err(said)?;
        Ok(kib * 1024.0 / 1e6)
    }

    /// Processor time of the daemon, in hundredths of a second.
    fn ticks(&self) -> Done<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid()?)).map_err(said)?;
        let (_, rest) = stat.rsplit_once(") ").ok_or("no stat")?;
        let fields: Vec<f64> =
            rest.split(' ').skip(11).take(2).filter_map(|word| word.parse().ok()).collect();
        Ok(fields.iter().sum())
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // The daemon left its starter's process group; its own file names it.
        let Ok(pid) = self.pid() else { return };
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        if String::from_utf8_lossy(&command).contains(&*self.config.to_string_lossy()) {
            let _ = tool_ok(&self.machine, &["kill", "-KILL", &pid.to_string()]);
        }
    }
}

fn tool_ok(machine: &Machine, words: &[&str]) -> Done {
    machine.cmd(words.iter().copied()).ok(LIMIT).map(|_| ()).map_err(said)
}

/// What dnsperf said.
#[derive(Debug, PartialEq)]
struct Load {
    rate: f64,
    lost: f64,
    /// Seconds that it lasted.
    took: f64,
    /// Milliseconds, with `-v` only.
    p99: Option<f64>,
}

impl Load {
    fn read(text: &str) -> Done<Self> {
        let number = |label: &str| {
            let rest = text.lines().find_map(|line| line.trim().strip_prefix(label));
            rest.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok())
        };
        let mut latencies: Vec<f64> = text
            .lines()
            .filter(|line| line.starts_with("> "))
            .filter_map(|line| line.split_whitespace().last()?.parse().ok())
            .collect();
        latencies.sort_by(f64::total_cmp);
        let p99 = latencies.get(latencies.len() * 99 / 100).map(|seconds| seconds * 1e3);
        let rate = number("Queries per second:").ok_or_else(|| format!("dnsperf said: {text}"))?;
        let lost = number("Queries lost:").ok_or_else(|| format!("dnsperf said: {text}"))?;
        let took = number("Run time (s):").ok_or_else(|| format!("dnsperf said: {text}"))?;
        Ok(Self { rate, lost, took, p99 })
    }

    /// The rate of a flood of two seconds in which nobody failed: what was not answered, or ended early, is no figure
    /// to compare with.
    fn flood(self) -> Done<f64> {
        let Self { rate, lost, took, .. } = self;
        match rate > 0.0 && lost <= rate * took / 100.0 && took >= 1.9 {
            true => Ok(rate),
            false => Err(format!("{rate} answers a second, {lost} lost, in {took} s of 2")),
        }
    }
}

fn said(error: impl std::fmt::Display) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dnsperf_is_understood() {
        let text = "> NOERROR c1.dns.podman A 0.000200\n> NOERROR c2.dns.podman A 0.000100\nStatistics:\n\n  \
                    Queries lost:         3 (0.10%)\n  Run time (s):         2.000100\n  Queries per second:   30123.5\n";
        let load = Load::read(text).unwrap();
        assert_eq!(load, Load { rate: 30123.5, lost: 3.0, took: 2.0001, p99: Some(0.2) });
        assert!(Load::read("no route").is_err());
        assert_eq!(load.flood(), Ok(30123.5));
    }

    #[test]
    fn a_flood_that_was_not_answered_is_a_failure() {
        for (rate, lost, took) in [(0.0, 0.0, 2.0), (100.0, 50.0, 2.0), (30_000.0, 0.0, 0.7)] {
            assert!(Load { rate, lost, took, p99: None }.flood().is_err(), "{rate} {lost} {took}");
        }
    }
}
