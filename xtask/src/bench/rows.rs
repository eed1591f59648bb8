//! What is measured: one row each, with the goal it is held against.

use std::time::Duration;

use slipway_lab::{Cmd, HOST4, Running, WORLD4};

use crate::demo::gigabits;
use crate::tool::Done;

use super::stage::{PUBLISHED, Stage, Subject, words};

const LIMIT: Duration = Duration::from_secs(30);
const SECONDS: &str = "2";

/// How the stage is set for a row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Variation {
    pub(crate) mtu: u32,
    pub(crate) bbr: bool,
    pub(crate) tuned: bool,
}

/// The work of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    TcpUp,
    TcpDown,
    Published,
    UdpUp,
    UdpDown,
    Requests(&'static str),
    Start,
    Idle,
    Connections(u32),
}

/// What a row is held against.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Goal {
    /// At least this share of the host itself.
    OfHost(f64),
    /// At least this much times the best peer.
    OverBest(f64),
    /// At most what slirp4netns needs.
    LikeSlirp,
    /// At most the best peer.
    LikeBest,
    /// At least this share of another row of ours.
    OfOurs(f64, &'static str),
    /// At most this much.
    AtMost(f64),
}

/// A row of the table.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) work: Work,
    pub(crate) variation: Variation,
    pub(crate) goal: Goal,
}

impl Row {
    /// Whether less is better.
    pub(crate) fn less_is_better(&self) -> bool {
        matches!(self.work, Work::Start | Work::Idle | Work::Connections(_))
    }

    /// Whether a subject can do this row at all.
    pub(crate) fn does(&self, subject: Subject) -> bool {
        match self.work {
            Work::Start => matches!(subject, Subject::Slipway | Subject::Slirp4netns),
            Work::Idle | Work::Connections(_) => subject != Subject::Host,
            _ => true,
        }
    }
}

const LARGE: Variation = Variation { mtu: 65520, bbr: false, tuned: false };
const SMALL: Variation = Variation { mtu: 1500, ..LARGE };
const BBR: Variation = Variation { bbr: true, ..LARGE };
const TUNED: Variation = Variation { tuned: true, ..LARGE };

const UP: &str = "TCP container to world";
const DOWN: &str = "TCP world to container";

/// All rows, in the order of the table.
pub(crate) const ROWS: &[Row] = &[
    Row { name: UP, unit: "Gbit/s", work: Work::TcpUp, variation: LARGE, goal: Goal::OfHost(0.45) },
    Row { name: DOWN, unit: "Gbit/s", work: Work::TcpDown, variation: LARGE, goal: Goal::OverBest(1.25) },
    Row {
        name: "TCP container to world, MTU 1500",
        unit: "Gbit/s",
        work: Work::TcpUp,
        variation: SMALL,
        goal: Goal::OfOurs(0.9, UP),
    },
    Row {
        name: "TCP world to container, MTU 1500",
        unit: "Gbit/s",
        work: Work::TcpDown,
        variation: SMALL,
        goal: Goal::OfOurs(0.9, DOWN),
    },
    Row {
        name: "TCP container to world, BBR guest",
        unit: "Gbit/s",
        work: Work::TcpUp,
        variation: BBR,
        goal: Goal::OfHost(0.45),
    },
    Row {
        name: "TCP container to world, tuned tcp_wmem",
        unit: "Gbit/s",
        work: Work::TcpUp,
        variation: TUNED,
        goal: Goal::OfHost(0.45),
    },
    Row {
        name: "published port through the device",
        unit: "Gbit/s",
        work: Work::Published,
        variation: LARGE,
        goal: Goal::OverBest(1.25),
    },
    Row {
        name: "UDP 1400 B up, received",
        unit: "Gbit/s",
        work: Work::UdpUp,
        variation: LARGE,
        goal: Goal::OverBest(1.4),
    },
    Row {
        name: "UDP 1400 B down, received",
        unit: "Gbit/s",
        work: Work::UdpDown,
        variation: LARGE,
        goal: Goal::OverBest(2.0),
    },
    Row {
        name: "TCP request/response",
        unit: "1/s",
        work: Work::Requests("rr"),
        variation: LARGE,
        goal: Goal::OverBest(1.15),
    },
    Row {
        name: "TCP connect+request+close",
        unit: "1/s",
        work: Work::Requests("crr"),
        variation: LARGE,
        goal: Goal::OverBest(1.5),
    },
    Row {
        name: "UDP request/response",
        unit: "1/s",
        work: Work::Requests("udp-rr"),
        variation: LARGE,
        goal: Goal::OverBest(1.15),
    },
    Row { name: "start to ready", unit: "ms", work: Work::Start, variation: LARGE, goal: Goal::LikeSlirp },
    Row {
        name: "resident memory idle",
        unit: "MB",
        work: Work::Idle,
        variation: LARGE,
        goal: Goal::LikeBest,
    },
    Row {
        name: "8000 open connections, each",
        unit: "KiB",
        work: Work::Connections(8000),
        variation: LARGE,
        goal: Goal::AtMost(1.0),
    },
];

/// Does a row's work once.
pub(crate) fn measure(stage: &Stage<'_>, work: Work) -> Done<f64> {
    match work {
        Work::TcpUp => iperf3(stage, &[]),
        Work::TcpDown => iperf3(stage, &["-R"]),
        Work::UdpUp => iperf3(stage, &["-u", "-l", "1400", "-b", "0"]),
        Work::UdpDown => iperf3(stage, &["-u", "-l", "1400", "-b", "0", "-R"]),
        Work::Published => published(stage),
        Work::Requests(verb) => requests(stage, verb),
        Work::Start => start(stage),
        Work::Idle => {
            std::thread::sleep(Duration::from_millis(300));
            stage.resident().map(|kib| kib * 1024.0 / 1e6)
        }
        Work::Connections(count) => connections(stage, count),
    }
}

fn server(command: Cmd, port: u16) -> Done<Running> {
    Running::server(command, "tcp", port).map_err(said)
}

fn iperf3(stage: &Stage<'_>, words: &[&str]) -> Done<f64> {
    let _server = server(stage.lab.world(["iperf3", "-s", "-1"]), 5201)?;
    let client = stage.guest(&["iperf3", "-J", "-t", SECONDS, "-c", WORLD4]).args(words);
    gigabits(&client.run(LIMIT).map_err(said)?.out())
}

fn published(stage: &Stage<'_>) -> Done<f64> {
    let port = PUBLISHED.to_string();
    let _server = server(stage.guest(&["iperf3", "-s", "-1", "-p", &port]), PUBLISHED)?;
    let client = stage.lab.world(["iperf3", "-J", "-t", SECONDS, "-c", HOST4, "-p", &port]);
    gigabits(&client.run(LIMIT).map_err(said)?.out())
}

fn requests(stage: &Stage<'_>, verb: &str) -> Done<f64> {
    let peer = stage.lab.program("slipway-lab-peer");
    let at = format!("{WORLD4}:9000");
    let _server = server(stage.lab.world([&peer, "serve", &at]), 9000)?;
    let rate = stage.guest(&[&peer, verb, &at, SECONDS]).ok(LIMIT).map_err(said)?;
    rate.out().trim().parse().map_err(said)
}

fn start(stage: &Stage<'_>) -> Done<f64> {
    // Another start in a container of its own, timed from exec to the ready byte; the middle one of seven.
    let container = stage.lab.container().map_err(said)?;
    let mut times = Vec::new();
    for number in 0..7 {
        let took = stage
            .lab
            .host([stage.lab.program("slipway-lab-peer"), "start-up".to_owned()])
            .args(words(stage.lab, stage.subject))
            .args(["-c", "-e", "0", "-r", "3", &format!("--mtu={}", stage.variation.mtu)])
            .args([container.pid().to_string(), format!("tap{number}")])
            .ok(LIMIT)
            .map_err(said)?;
        times.push(took.out().trim().parse::<f64>().map_err(said)?);
    }
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().ok_or_else(|| "no start was timed".to_owned())
}

fn connections(stage: &Stage<'_>, count: u32) -> Done<f64> {
    let peer = stage.lab.program("slipway-lab-peer");
    let at = format!("{WORLD4}:9000");
    let raise = r#"ulimit -n $(ulimit -Hn); exec "$@""#;
    let _server = server(stage.lab.world(["sh", "-c", raise, "sh", &peer, "serve", &at]), 9000)?;
    let idle = stage.resident()?;
    let mut client = stage
        .guest(&["sh", "-c", raise, "sh", &peer, "hold", &at, &count.to_string()])
        .start()
        .map_err(said)?;
    client.until(LIMIT, |running| running.stdout().contains("held")).map_err(said)?;
    if let Some(stdin) = &mut client.stdin {
        std::io::Write::write_all(stdin, b"again\n").map_err(said)?;
    }
    client.until(LIMIT, |running| running.stdout().contains("answered")).map_err(said)?;
    Ok((stage.resident()? - idle) / f64::from(count))
}

fn said(error: impl std::fmt::Display) -> String {
    error.to_string()
}
