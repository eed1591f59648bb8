//! How each test's work is done: the programs that do it, and what is read from them.
//!
//! A measurement that did not do all of its work is an error, never a smaller figure.

use std::time::Duration;

use slipway_lab::{HOST4, Running, WORLD4};

use crate::iperf;
use crate::tool::Done;

use super::busy;
use super::rows::{Way, Work};
use super::server::{LIMIT, said, server};
use super::stage::{PUBLISHED, Stage};
use super::upkeep;

/// How long a transfer and a series of requests last.
const SECONDS: u16 = 2;
/// Long enough for a window that begins with ten segments and doubles in 100 ms.
const WEATHER_SECONDS: u16 = 10;
/// Long enough that the clock ticks in which the kernel counts processor time do not matter.
const BUSY_SECONDS: u16 = 4;
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
        Work::Busy(way) => busy::per_gigabyte(|| whole_transfer(stage, way, BUSY_SECONDS)),
        Work::Train => flood(stage, 1200, 32).map(|bytes| bytes * 8.0 / 1e9),
        Work::Small => flood(stage, 64, 1).map(|bytes| bytes / 64.0),
        Work::Near => near(stage),
        Work::NearRequests => near_requests(stage),
        Work::Background => start_in_background(stage),
        Work::Start => start(stage),
        Work::Trickle(count) => upkeep::trickle(stage, count),
        Work::Rules => return upkeep::rules(stage),
        Work::Proportional => upkeep::proportional(stage),
        Work::Wakes => upkeep::wakes(stage),
        Work::Idle => {
            std::thread::sleep(Duration::from_millis(300));
            stage.resident().map(|kib| kib * 1024.0 / 1e6)
        }
        Work::Connections(count) => connections(stage, count),
        Work::Weather(way) => weather(stage, way),
    };
    figure.map(|figure| vec![figure])
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

/// The gigabytes of one stream.
fn whole_transfer(stage: &Stage<'_>, way: Way, seconds: u16) -> Done<f64> {
    let _server = server(stage.lab.world(["iperf3", "-s", "-1"]), 5201)?;
    let client = stage.guest(&["iperf3", "-J", "-t", &seconds.to_string(), "-c", WORLD4]);
    let report = client.args(direction(way)).run(LIMIT).map_err(said)?.out();
    iperf::received_bytes(&report, seconds).map(|(bytes, _)| bytes / 1e9)
}

/// The megabits a second of one stream. A link that lost frames of its own accord would not be the one that was asked
/// for.
fn weather(stage: &Stage<'_>, way: Way) -> Done<f64> {
    let _server = server(stage.lab.world(["iperf3", "-s", "-1"]), 5201)?;
    let client = stage.guest(&["iperf3", "-J", "-t", &WEATHER_SECONDS.to_string(), "-c", WORLD4]);
    let report = client.args(direction(way)).run(LIMIT).map_err(said)?.out();
    let rate = iperf::received(&report, WEATHER_SECONDS)?;
    match stage.lab.link_dropped().map_err(said)? {
        0 => Ok(rate * 1e3),
        dropped => Err(format!("the link's devices dropped {dropped} frames by themselves")),
    }
}

/// The bytes a second that arrive of datagrams sent as fast as one program can, so many with each call.
fn flood(stage: &Stage<'_>, size: u16, train: u16) -> Done<f64> {
    let peer = stage.lab.program("slipway-lab-peer");
    let at = format!("{WORLD4}:9000");
    let _sink = Running::server(stage.lab.world([&peer, "sink", &at]), "udp", 9000).map_err(said)?;
    let words = [&peer, "flood", &at, &SECONDS.to_string(), &size.to_string(), &train.to_string()];
    let shown = stage.guest(&words).ok(LIMIT).map_err(said)?.out();
    let mut words = shown.split_whitespace().filter_map(|word| word.parse::<f64>().ok());
    match (words.next(), words.next()) {
        (Some(bytes), Some(took)) if took >= f64::from(SECONDS) * 0.9 => Ok(bytes / took),
        _ => Err(format!("not a whole flood (bytes, seconds): {shown}")),
    }
}

fn published(stage: &Stage<'_>, words: &[&str]) -> Done<f64> {
    let port = PUBLISHED.to_string();
    let _server = server(stage.guest(&["iperf3", "-s", "-1", "-p", &port]), PUBLISHED)?;
    let client =
        stage.lab.world(["iperf3", "-J", "-t", &SECONDS.to_string(), "-c", HOST4, "-p", &port]).args(words);
    iperf::received(&client.run(LIMIT).map_err(said)?.out(), SECONDS)
}

/// Where a client on the host's loopback goes: to the published port, or for the host itself to the server.
fn near(stage: &Stage<'_>) -> Done<f64> {
    let port = PUBLISHED.to_string();
    let _server = server(stage.guest(&["iperf3", "-s", "-1", "-p", &port]), PUBLISHED)?;
    let words = ["iperf3", "-J", "-t", &SECONDS.to_string(), "-c", "127.0.0.1", "-p", &port];
    iperf::received(&stage.lab.host(words).run(LIMIT).map_err(said)?.out(), SECONDS)
}

fn near_requests(stage: &Stage<'_>) -> Done<f64> {
    let peer = stage.lab.program("slipway-lab-peer");
    let _server = server(stage.guest(&[&peer, "serve", &format!("0.0.0.0:{PUBLISHED}")]), PUBLISHED)?;
    let at = format!("127.0.0.1:{PUBLISHED}");
    let rate = stage.lab.host([&peer, "crr", &at, &SECONDS.to_string()]).ok(LIMIT).map_err(said)?;
    rate.out().trim().parse().map_err(said)
}

/// From exec to the end of the process in the foreground, each in a container of its own; the middle one of seven.
fn start_in_background(stage: &Stage<'_>) -> Done<f64> {
    let words = stage.ground.words(stage.subject).ok_or("the host itself has no start")?;
    let mut times = Vec::new();
    for _ in 0..7 {
        let mut container = stage.lab.container().map_err(said)?;
        let took = stage
            .lab
            .host([stage.lab.program("slipway-lab-peer"), "timed".to_owned()])
            .args(words)
            .args(["--config-net", "-q", "-t", "none", "-u", "none", "-T", "none", "-U", "none"])
            .args([format!("--mtu={}", stage.variation.mtu), container.pid().to_string()])
            .ok(LIMIT)
            .map_err(said)?;
        let first = took.out();
        let first = first.split_whitespace().next().unwrap_or_default();
        times.push(first.parse::<f64>().map_err(said)?);
        // What stays in the background ends with its namespace.
        container.end();
    }
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().ok_or_else(|| "no start was timed".to_owned())
}

fn requests(stage: &Stage<'_>, verb: &str) -> Done<f64> {
    let peer = stage.lab.program("slipway-lab-peer");
    let at = format!("{WORLD4}:9000");
    let _server = server(stage.lab.world([&peer, "serve", &at]), 9000)?;
    let rate = stage.guest(&[&peer, verb, &at, &SECONDS.to_string()]).ok(LIMIT).map_err(said)?;
    rate.out().trim().parse().map_err(said)
}

/// Requests for three seconds in the middle of a transfer of five: the streams are at their pace when the first one is
/// sent, and still at work when the last one is.
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
    if bulk.ended().map_err(said)?.is_some() {
        return Err(format!("the streams ended at once: {}", bulk.stdout()));
    }
    let asked = stage.guest(&[&peer, "latency", &at, "3", "1"]).ok(LIMIT).map_err(said)?;
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
