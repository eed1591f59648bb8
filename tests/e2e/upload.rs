//! An upload that works once works every time: ten in a row, none of them collapsed.
//!
//! The kernel's socket towards the world starts with a small send buffer while the guest sends 64 KiB at a time. A
//! stack that drops what the socket cannot take at once makes the guest retransmit and wait: a few runs in ten then
//! carry a hundredth of the others. So each run is held against the median of all, and against what the same two
//! namespaces do without a container between them.
//!
//! What a busy machine takes away is not held against a run: it may be as slow as the time in which the three programs
//! at work (sender, stack, receiver) waited for a processor, as the scheduler accounts for it. A collapsed run is
//! idle, waiting for timers, so that does not excuse it, however the machine is loaded.

use slipway_lab::{Cmd, LIMIT, Lab, Running, WORLD4, starved};
use std::time::Duration;

const RUNS: usize = 10;
const SECONDS: &str = "0.3";
/// A run that carries less than this share of the median has collapsed.
const OF_MEDIAN: f64 = 1.0 / 3.0;
/// And so has one that carries less than this share of the host itself. A build without optimisation does a tenth or
/// more, a collapsed run less than a hundredth.
const OF_HOST: f64 = 1.0 / 40.0;

/// Where a send buffer of the host's begins, and where it may grow to.
const DEFAULT: &str = "4096 16384 4194304";
const SMALL: &str = "4096 4096 32768";
const TUNED: &str = "4096 262144 33554432";

/// One upload.
#[derive(Clone, Copy)]
struct Run {
    /// Megabytes per second.
    rate: f64,
    /// The same without the time in which the programs at work waited for a processor.
    excused: f64,
}

impl Run {
    /// An upload by `client` to a server with this process id, through the process `through`.
    fn of(client: Cmd, server: u32, through: Option<u32>) -> Self {
        let others = || -> Duration { [Some(server), through].into_iter().flatten().map(starved).sum() };
        let before = others();
        let told = client.args([&format!("{WORLD4}:9000"), SECONDS]).ok(LIMIT).unwrap().out();
        let words: Vec<f64> = told.split_whitespace().map(|word| word.parse().unwrap()).collect();
        let [bytes, seconds, waited] = words[..] else { panic!("{told}") };
        let waited = waited + (others() - before).as_secs_f64();
        // The waits overlap in part; a run that hardly ran says little.
        let ran = (seconds - waited).max(seconds / 5.0);
        Self { rate: bytes / 1e6 / seconds, excused: bytes / 1e6 / ran }
    }
}

impl std::fmt::Debug for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.0} ({:.0})", self.rate, self.excused)
    }
}

fn median(runs: &[Run]) -> f64 {
    let mut rates: Vec<f64> = runs.iter().map(|run| run.rate).collect();
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

fn uploads(name: &str, wmem: &str, congestion: &str) {
    let Some((lab, subject)) = slipway_lab::fixture(name, &[]) else { return };
    if !subject.is_slipway() {
        println!("SKIP {name}: the original collapses");
        return;
    }
    if slipway_lab::peer().is_none() {
        println!("SKIP {name}: slipway-lab-peer is not built");
        return;
    }
    let tune = format!("echo {wmem} > /proc/sys/net/ipv4/tcp_wmem");
    lab.host_root(["sh", "-c", &tune]).ok(LIMIT).unwrap();
    let container = lab.container().unwrap();
    let choose = format!("echo {congestion} > /proc/sys/net/ipv4/tcp_congestion_control");
    if !container.sh(&choose).unwrap().success() {
        println!("SKIP {name}: this kernel gives an ordinary user's namespace no {congestion}");
        return;
    }
    let slirp = lab.slirp(&container, &["-c", "--mtu=65520"]).unwrap();
    let server = server(&lab);
    let upload = [lab.program("slipway-lab-peer"), "upload".to_owned()];
    let alone: Vec<Run> = (0..3).map(|_| Run::of(lab.host(&upload), server.pid(), None)).collect();
    let through = Some(slirp.process.pid());
    let runs: Vec<Run> = (0..RUNS).map(|_| Run::of(container.cmd(&upload), server.pid(), through)).collect();
    let told = format!("MB/s, and without waits: {runs:?}; the host itself: {alone:?}");
    println!("{name}: {told}");
    let least = runs.iter().map(|run| run.excused).fold(f64::INFINITY, f64::min);
    assert!(least >= median(&runs) * OF_MEDIAN, "a run collapsed beside the others; {told}");
    assert!(least >= median(&alone) * OF_HOST, "a run collapsed beside the host; {told}");
}

fn server(lab: &Lab) -> Running {
    let peer = lab.program("slipway-lab-peer");
    Running::server(lab.world([&peer, "serve", &format!("{WORLD4}:9000")]), "tcp", 9000).unwrap()
}

#[test]
fn ten_uploads_none_collapses() {
    uploads("ten_uploads_none_collapses", DEFAULT, "cubic");
}

#[test]
fn ten_uploads_into_small_send_buffers_none_collapses() {
    uploads("ten_uploads_into_small_send_buffers_none_collapses", SMALL, "cubic");
}

#[test]
fn ten_uploads_into_tuned_send_buffers_none_collapses() {
    uploads("ten_uploads_into_tuned_send_buffers_none_collapses", TUNED, "cubic");
}

#[test]
fn ten_uploads_of_a_bbr_guest_none_collapses() {
    uploads("ten_uploads_of_a_bbr_guest_none_collapses", DEFAULT, "bbr");
}
