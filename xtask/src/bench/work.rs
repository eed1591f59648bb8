//! How each test's work is done: the programs that do it, and what is read from them.
//!
//! A measurement that did not do all of its work is an error, never a smaller figure.

use std::time::Duration;

use slipway_lab::{Cmd, HOST4, Running, WORLD4};

use crate::iperf;
use crate::tool::Done;

use super::rows::{Way, Work};
use super::stage::{PUBLISHED, Stage};

const LIMIT: Duration = Duration::from_secs(30);
/// How long a transfer and a series of requests last.
const SECONDS: u16 = 2;
const DATAGRAMS: [&str; 5] = ["-u", "-l", "1400", "-b", "0"];

/// Does the work once; one figure for each row of its test.
pub(crate) fn measure(stage: &Stage<'_>, work: Work) -> Done<Vec<f64>> {
    let figure = match work {
        Work::Tcp(way, streams) => transfer(stage, way, &["-P", &streams.to_string()]),
        Work::Udp(way) => transfer(stage, way, &DATAGRAMS),
        Work::Published => published(stage, &[]),
        Work::PublishedUdp => published(stage, &DATAGRAMS),
        Work::Requests(verb) => requests(stage, verb),
        Work::Latency(way) => return latency(stage, way),
        Work::Start => start(stage),
        Work::Idle => {
            std::thread::sleep(Duration::from_millis(300));
            stage.resident().map(|kib| kib * 1024.0 / 1e6)
        }
        Work::Connections(count) => connections(stage, count),
    };
    figure.map(|figure| vec![figure])
}

fn server(command: Cmd, port: u16) -> Done<Running> {
    Running::server(command, "tcp", port).map_err(said)
}

fn direction(way: Way) -> &'static [&'static str] {
    match way {
        Way::Up => &[],
        Way::Down => &["-R"],
    }
}

fn transfer(stage: &Stage<'_>, way: Way, words: &[&str]) -> Done<f64> {
    let _server = server(stage.lab.world(["iperf3", "-s", "-1"]), 5201)?;
    let client = stage.guest(&["iperf3", "-J", "-t", &SECONDS.to_string(), "-c", WORLD4]);
    let client = client.args(direction(way)).args(words);
    iperf::received(&client.run(LIMIT).map_err(said)?.out(), SECONDS)
}

fn published(stage: &Stage<'_>, words: &[&str]) -> Done<f64> {
    let port = PUBLISHED.to_string();
    let _server = server(stage.guest(&["iperf3", "-s", "-1", "-p", &port]), PUBLISHED)?;
    let client =
        stage.lab.world(["iperf3", "-J", "-t", &SECONDS.to_string(), "-c", HOST4, "-p", &port]).args(words);
    iperf::received(&client.run(LIMIT).map_err(said)?.out(), SECONDS)
}

fn requests(stage: &Stage<'_>, verb: &str) -> Done<f64> {
    let peer = stage.lab.program("slipway-lab-peer");
    let at = format!("{WORLD4}:9000");
    let _server = server(stage.lab.world([&peer, "serve", &at]), 9000)?;
    let rate = stage.guest(&[&peer, verb, &at, &SECONDS.to_string()]).ok(LIMIT).map_err(said)?;
    rate.out().trim().parse().map_err(said)
}

/// Requests for three seconds in the middle of a transfer of five: the streams are at their pace when the first one is
/// sent, and still at work when the last one is answered.
fn latency(stage: &Stage<'_>, way: Way) -> Done<Vec<f64>> {
    const BULK: u16 = 5;
    const PACE: Duration = Duration::from_secs(1);
    let peer = stage.lab.program("slipway-lab-peer");
    let at = format!("{WORLD4}:9000");
    let _answers = server(stage.lab.world([&peer, "serve", &at]), 9000)?;
    let _server = server(stage.lab.world(["iperf3", "-s", "-1"]), 5201)?;
    let bulk = stage.guest(&["iperf3", "-J", "-P", "4", "-t", &BULK.to_string(), "-c", WORLD4]);
    let mut bulk = bulk.args(direction(way)).start().map_err(said)?;
    std::thread::sleep(PACE);
    let asked = stage.guest(&[&peer, "latency", &at, "3"]).ok(LIMIT).map_err(said)?;
    if bulk.ended().map_err(said)?.is_some() {
        return Err("the streams ended before the requests".to_owned());
    }
    let report = bulk.finish(LIMIT).map_err(said)?.ok_or("iperf3 did not end")?;
    let carried = iperf::received(&report.out(), BULK)?;
    let shown = asked.out();
    let mut words = shown.split_whitespace().filter_map(|word| word.parse::<f64>().ok());
    let (Some(median), Some(p99)) = (words.next(), words.next()) else {
        return Err(format!("no latencies: {shown}"));
    };
    Ok(vec![median, p99, carried])
}

fn start(stage: &Stage<'_>) -> Done<f64> {
    // Another start in a container of its own, timed from exec to the ready byte; the middle one of seven.
    let container = stage.lab.container().map_err(said)?;
    let words = stage.ground.words(stage.subject).ok_or("the host itself has no start")?;
    let mut times = Vec::new();
    for number in 0..7 {
        let took = stage
            .lab
            .host([stage.lab.program("slipway-lab-peer"), "start-up".to_owned()])
            .args(words)
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
