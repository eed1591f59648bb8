//! What a network costs while little happens, and while its rules change.

use std::thread;
use std::time::Duration;

use slipway_lab::{WORLD4, now};

use crate::iperf;
use crate::tool::Done;

use super::server::{LIMIT, said, server};
use super::stage::{CONTROL, PUBLISHED, Stage};

/// After a start, the kernels on both sides look around: they join groups and probe addresses, and five seconds later
/// (delay_first_probe_time) the neighbours that they have met.
const SETTLED: Duration = Duration::from_secs(12);
/// How long an idle process is watched.
const WATCHED: Duration = Duration::from_secs(5);
/// What all flows of [`trickle`] say together, half of it each way, in Mbit/s.
const TRICKLE: f64 = 100.0;

/// Proportional memory in MB.
pub(super) fn proportional(stage: &Stage<'_>) -> Done<f64> {
    thread::sleep(Duration::from_millis(300));
    stage.account()?.proportional().map(|kib| kib * 1024.0 / 1e6)
}

/// How often a second it is woken, while the guest has nothing to say: its kernel would go on soliciting routers, less
/// and less often, and each frame of it wakes whoever carries it.
pub(super) fn wakes(stage: &Stage<'_>) -> Done<f64> {
    const SILENCE: &str =
        "for knob in /proc/sys/net/ipv6/conf/*/router_solicitations; do echo 0 > $knob; done";
    let account = stage.account()?;
    stage.guest(&["sh", "-c", SILENCE]).ok(LIMIT).map_err(said)?;
    thread::sleep(SETTLED);
    let (began, before) = (now(), account.sleeps()?);
    thread::sleep(WATCHED);
    // A look that is due each second may fall on either side of both ends.
    let looks = account.sleeps()? - before;
    Ok(looks / began.elapsed().as_secs_f64().ceil())
}

/// The share of a core that the subject uses for many flows which say little, in the middle of that. All they say has
/// to come back.
pub(super) fn trickle(stage: &Stage<'_>, count: u32) -> Done<f64> {
    const SECONDS: u16 = 5;
    const PART: Duration = Duration::from_secs(3);
    let peer = stage.lab.program("slipway-lab-peer");
    let at = format!("{WORLD4}:9000");
    let raise = r#"ulimit -n $(ulimit -Hn); exec "$@""#;
    let _server = server(stage.lab.world(["sh", "-c", raise, "sh", &peer, "serve", &at]), 9000)?;
    let (flows, rate, seconds) = (count.to_string(), TRICKLE.to_string(), SECONDS.to_string());
    let words = ["sh", "-c", raise, "sh", &peer, "trickle", &at, &flows, &rate, &seconds];
    let mut client = stage.guest(&words).start().map_err(said)?;
    client.until(LIMIT, |running| running.stdout().contains("held")).map_err(said)?;
    thread::sleep(Duration::from_secs(1));
    let account = stage.account()?;
    let (began, before) = (now(), account.used()?);
    thread::sleep(PART);
    let (used, took) = (account.used()?.saturating_sub(before), began.elapsed());
    let done = client.finish(LIMIT).map_err(said)?.ok_or("the flows did not end")?;
    let shown = done.out();
    let last = shown.lines().last().unwrap_or_default().split_whitespace();
    let figures: Vec<f64> = last.filter_map(|word| word.parse().ok()).collect();
    let wanted = TRICKLE * 1e6 / 8.0 / 2.0 * f64::from(SECONDS);
    match figures.as_slice() {
        [sent, back, _] if sent == back && *sent >= wanted * 0.95 => {
            Ok(used.as_secs_f64() / took.as_secs_f64() * 100.0)
        }
        _ => Err(format!("not all was said and came back: {done}")),
    }
}

/// A hundred ports, added and removed one by one in the middle of four uploads: the middle of the times, the 99th
/// percentile, what the uploads carry, and the rate of connections to a port that stays. One that is refused there, or
/// a transfer that is not whole, is an error.
pub(super) fn rules(stage: &Stage<'_>) -> Done<Vec<f64>> {
    const BULK: u16 = 5;
    let peer = stage.lab.program("slipway-lab-peer");
    let _sink = server(stage.lab.world(["iperf3", "-s", "-1"]), 5201)?;
    let _count = server(stage.lab.world([&peer, "serve", &format!("{WORLD4}:9000")]), 9000)?;
    let _stays = server(stage.guest(&[&peer, "serve", &format!("0.0.0.0:{PUBLISHED}")]), PUBLISHED)?;
    let bulk = stage.guest(&["iperf3", "-J", "-P", "4", "-t", &BULK.to_string(), "-c", WORLD4]);
    let mut bulk = bulk.start().map_err(said)?;
    thread::sleep(Duration::from_secs(1));
    // Of this one, every byte is counted.
    let whole = stage.guest(&[&peer, "upload", &format!("{WORLD4}:9000"), "3"]);
    let mut whole = whole.start().map_err(said)?;
    let mut knocks =
        stage.lab.host([&peer, "crr", &format!("127.0.0.1:{PUBLISHED}"), "3"]).start().map_err(said)?;
    thread::sleep(Duration::from_millis(500));
    let path = stage.lab.home().join(CONTROL);
    let asked = stage.lab.host([&peer, "rules", &path.to_string_lossy(), "20000", "100"]);
    let asked = asked.ok(LIMIT).map_err(said)?.out();
    let knocked = knocks.finish(LIMIT).map_err(said)?.ok_or("the connections did not end")?;
    let rate = knocked.out().trim().parse().map_err(|_| format!("an unchanged port: {knocked}"))?;
    let counted = whole.finish(LIMIT).map_err(said)?.ok_or("the counted upload did not end")?;
    if !counted.success() {
        return Err(format!("another flow: {counted}"));
    }
    let report = bulk.finish(LIMIT).map_err(said)?.ok_or("iperf3 did not end")?;
    let carried = iperf::received(&report.out(), BULK)?;
    let words: Vec<f64> = asked.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    match words.as_slice() {
        [median, p99, _, 200.0] => Ok(vec![*median, *p99, carried, rate]),
        _ => Err(format!("not all rules came and went: {asked}")),
    }
}
