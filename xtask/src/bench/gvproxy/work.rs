//! How each piece of work is done. One that was not done whole is an error, never a smaller figure.

use std::thread::sleep;
use std::time::Duration;

use slipway_lab::{Running, WORLD4, now};

use crate::iperf;
use crate::tool::Done;

use super::super::server::{LIMIT, said, server};
use super::stage::{Machine, Network, Stage};

/// How long a transfer and a series of requests last.
const SECONDS: u16 = 2;
/// Where the lab's server is, in the world.
const PORT: u16 = 9000;
/// After a start, a kernel looks around on its link.
const SETTLED: Duration = Duration::from_secs(3);

pub(super) fn up(stage: &Stage<'_>) -> Done<Vec<f64>> {
    let network = stage.network(&[])?;
    transfer(stage, &network.machine(2)?, &[]).map(|rate| vec![rate])
}

pub(super) fn down(stage: &Stage<'_>) -> Done<Vec<f64>> {
    let network = stage.network(&[])?;
    transfer(stage, &network.machine(2)?, &["-R"]).map(|rate| vec![rate])
}

pub(super) fn both_ends(stage: &Stage<'_>) -> Done<Vec<f64>> {
    let network = stage.network(&[])?;
    let machine = network.machine_of_the_house(2)?;
    Ok(vec![transfer(stage, &machine, &[])?, transfer(stage, &machine, &["-R"])?])
}

/// Gbit/s between a machine and the world.
fn transfer(stage: &Stage<'_>, machine: &Machine, words: &[&str]) -> Done<f64> {
    let _server = server(stage.ground.lab.world(["iperf3", "-s", "-1"]), 5201)?;
    let client = machine.cmd(&["iperf3", "-J", "-t", &SECONDS.to_string(), "-c", WORLD4]).args(words);
    iperf::received(&client.run(LIMIT).map_err(said)?.out(), SECONDS)
}

/// Gbit/s from one machine to another.
pub(super) fn across(stage: &Stage<'_>) -> Done<Vec<f64>> {
    let network = stage.network(&[])?;
    let (one, two) = (network.machine(2)?, network.machine(3)?);
    let _server = server(two.cmd(&["iperf3", "-s", "-1"]), 5201)?;
    let client = one.cmd(&["iperf3", "-J", "-t", &SECONDS.to_string(), "-c", "192.168.127.3"]);
    iperf::received(&client.run(LIMIT).map_err(said)?.out(), SECONDS).map(|rate| vec![rate])
}

pub(super) fn requests(stage: &Stage<'_>, verb: &str) -> Done<Vec<f64>> {
    let network = stage.network(&[])?;
    let machine = network.machine(2)?;
    let _server = answers(stage)?;
    ask(stage, &machine, verb).map(|rate| vec![rate])
}

/// The lab's server in the world.
fn answers(stage: &Stage<'_>) -> Done<Running> {
    let at = format!("{WORLD4}:{PORT}");
    server(stage.ground.lab.world([&*stage.ground.peer(), "serve", &at]), PORT)
}

/// How often a second a machine is answered.
fn ask(stage: &Stage<'_>, machine: &Machine, verb: &str) -> Done<f64> {
    let at = format!("{WORLD4}:{PORT}");
    let asked =
        machine.cmd(&[&stage.ground.peer(), verb, &at, &SECONDS.to_string()]).ok(LIMIT).map_err(said)?;
    asked.out().trim().parse().map_err(said)
}

/// Milliseconds from exec until the socket for machines is there, which is the last; the middle of seven.
pub(super) fn start(stage: &Stage<'_>) -> Done<Vec<f64>> {
    let mut times = Vec::new();
    for _ in 0..7 {
        let (api, machines) = (stage.ground.place("api"), stage.ground.place("qemu"));
        let line = stage.ground.lab.host([stage.ground.peer(), "listening".to_owned(), machines.clone()]);
        let line = line.args(stage.words());
        let line =
            line.args(["-listen", &format!("unix://{api}"), "-listen-qemu", &format!("unix://{machines}")]);
        let took = line.ok(LIMIT).map_err(said)?.out();
        times.push(took.trim().parse::<f64>().map_err(said)?);
    }
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).map(|middle| vec![*middle]).ok_or_else(|| "no start was timed".to_owned())
}

pub(super) fn memory(stage: &Stage<'_>) -> Done<Vec<f64>> {
    let network = stage.network(&[])?;
    let machine = network.machine(2)?;
    let _server = answers(stage)?;
    // Something has gone through it.
    ask(stage, &machine, "rr")?;
    let one = network.resident()?;
    let more: Done<Vec<Running>> =
        (11..21).map(|number| network.guest(&["sit", &network.api, &number.to_string()])).collect();
    let more = more?;
    sleep(Duration::from_millis(300));
    let eleven = network.resident()?;
    drop(more);
    Ok(vec![one, eleven - one])
}

pub(super) fn expose(stage: &Stage<'_>) -> Done<Vec<f64>> {
    let network = stage.network(&[])?;
    let words = [&*stage.ground.peer(), "expose", &network.api, "20000", "100"];
    let shown = stage.ground.lab.host(words).ok(LIMIT).map_err(said)?.out();
    let words: Vec<f64> = shown.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    match words.as_slice() {
        [all, each, 100.0] => Ok(vec![*all, *each]),
        _ => Err(format!("not all ports were exposed: {shown}")),
    }
}

pub(super) fn idle(stage: &Stage<'_>) -> Done<Vec<f64>> {
    let network = stage.network(&[])?;
    let _machine = network.machine(2)?;
    wakes(&network)
}

pub(super) fn idle_vfkit(stage: &Stage<'_>) -> Done<Vec<f64>> {
    let place = stage.ground.place("vfkit");
    let network = stage.network(&["-listen-vfkit", &format!("unixgram://{place}")])?;
    let _server = answers(stage)?;
    let own = stage.ground.place("guest");
    let _guest = network.guest(&["datagrams", &place, &own, WORLD4, &PORT.to_string(), "0"])?;
    wakes(&network)
}

/// How often it is woken in ten seconds; a little less, for what is due every two seconds may fall on both ends.
fn wakes(network: &Network<'_>) -> Done<Vec<f64>> {
    sleep(SETTLED);
    let before = network.sleeps()?;
    sleep(Duration::from_millis(9_900));
    Ok(vec![network.sleeps()? - before])
}

pub(super) fn refused(stage: &Stage<'_>) -> Done<Vec<f64>> {
    knocks(stage, &format!("{WORLD4}:9"))
}

pub(super) fn unreachable(stage: &Stage<'_>) -> Done<Vec<f64>> {
    let route = |verb: &str| {
        let words = ["ip", "route", verb, "default", "via", WORLD4];
        stage.ground.lab.host_root(words).ok(LIMIT).map(drop).map_err(said)
    };
    route("delete")?;
    let done = knocks(stage, "198.51.100.1:9");
    route("add")?;
    done
}

/// The share of a core while a machine sends a hundred datagrams a second to where nobody takes them.
fn knocks(stage: &Stage<'_>, to: &str) -> Done<Vec<f64>> {
    let network = stage.network(&[])?;
    let machine = network.machine(2)?;
    let mut knocks = machine.cmd(&[&stage.ground.peer(), "knock", to, "4", "100"]).start().map_err(said)?;
    sleep(Duration::from_secs(1));
    let share = share(&network)?;
    let done = knocks.finish(LIMIT).map_err(said)?.ok_or("the datagrams did not end")?;
    if done.success() { Ok(vec![share]) } else { Err(format!("the datagrams: {done}")) }
}

pub(super) fn deaf(stage: &Stage<'_>) -> Done<Vec<f64>> {
    let place = stage.ground.place("vfkit");
    let network = stage.network(&["-listen-vfkit", &format!("unixgram://{place}")])?;
    let _server = answers(stage)?;
    let own = stage.ground.place("guest");
    let _guest = network.guest(&["datagrams", &place, &own, WORLD4, &PORT.to_string(), "20000"])?;
    share(&network).map(|share| vec![share])
}

/// The share of a core that all processes use, in two seconds.
fn share(network: &Network<'_>) -> Done<f64> {
    let (began, before) = (now(), network.used()?);
    sleep(Duration::from_secs(2));
    let used = network.used()?.saturating_sub(before);
    Ok(used.as_secs_f64() / began.elapsed().as_secs_f64() * 100.0)
}

/// The rate of one machine's requests beside another guest that sends, in hundredths of what it is without.
pub(super) fn flooded(stage: &Stage<'_>) -> Done<Vec<f64>> {
    const SINK: u16 = 9009;
    let network = stage.network(&[])?;
    let machine = network.machine(2)?;
    let (_server, lab) = (answers(stage)?, &stage.ground.lab);
    let sink = lab.world([&*stage.ground.peer(), "sink", &format!("{WORLD4}:{SINK}")]);
    let _sink = Running::server(sink, "udp", SINK).map_err(said)?;
    let alone = ask(stage, &machine, "rr")?;
    let mut shares = Vec::new();
    for rate in ["20000", "0"] {
        let words = ["flood", &network.api, WORLD4, &SINK.to_string(), rate, &(SECONDS + 1).to_string()];
        let mut flood = network.guest(&words)?;
        sleep(Duration::from_millis(200));
        shares.push(ask(stage, &machine, "rr")? / alone * 100.0);
        let done = flood.finish(LIMIT).map_err(said)?.ok_or("the flood did not end")?;
        if !done.success() {
            return Err(format!("the flood: {done}"));
        }
        println!(
            "    {rate}: {} frames, {alone:.0} requests a second without",
            done.out().replace("ready", "").trim()
        );
    }
    Ok(shares)
}
