//! A machine with the network of one side: a container whose frames a pump carries, or a guest of QEMU.

use std::path::Path;
use std::time::Duration;

use slipway_lab::{Container, HOST4, Image, Lab, LabOptions, Running, Vm, WORLD4};

use crate::bench::account::Account;
use crate::bench::duel::Side;
use crate::bench::peers::Peer;
use crate::bench::prepared::Prepared;
use crate::bench::server::{LIMIT, said, server};
use crate::iperf;
use crate::tool::Done;

const START: Duration = Duration::from_secs(10);
/// How long a transfer and a series of requests last.
const SECONDS: u16 = 2;
/// Under emulation, where the guest's kernel wakes up slowly.
const EMULATED_SECONDS: u16 = 4;
const DATAGRAMS: [&str; 5] = ["-u", "-l", "1400", "-b", "0"];
/// The machine's port that is published, for TCP.
const PUBLISHED: u16 = 9001;
const SOCKET: &str = "machine.socket";
/// MiB of a guest.
const MEMORY: u32 = 256;

/// What the machine's card is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Card {
    /// Frames follow their lengths.
    Stream,
    /// Frames are in memory that the machine shares.
    Rings,
}

/// Where both sides appear.
#[derive(Debug)]
pub(super) struct Ground {
    lab: Lab,
    words: Vec<(Side, Vec<String>)>,
    /// What a guest of QEMU boots.
    image: Option<Image>,
}

impl Ground {
    /// Makes the namespaces, with ours, the original, the pump, and QEMU if there is one.
    pub(super) fn new(prepared: &Prepared, rival: Option<&Peer>) -> Done<Self> {
        let mut programs = vec![
            ("slipway".to_owned(), prepared.stack.clone()),
            ("slipway-lab-peer".to_owned(), prepared.client.clone()),
            ("slipway-lab-pump".to_owned(), prepared.pump.clone()),
        ];
        programs.extend(rival.map(Peer::shown));
        let image = prepared.qemu.as_deref().map(|tree| image(tree, &prepared.client)).transpose()?;
        programs.extend(image.iter().map(|image| ("vm".to_owned(), image.tree().to_owned())));
        let options = LabOptions { programs, congestion: Some("cubic".to_owned()), tree: None };
        let lab =
            Lab::new(&options).map_err(|error| format!("cannot make the bench's namespaces: {error}"))?;
        let mut words = vec![(Side::Ours, vec![lab.program("slipway"), "passt".to_owned()])];
        words.extend(
            rival.map(|peer| (Side::Stock, peer.words(Path::new(&lab.program(peer.shown().0.as_str()))))),
        );
        Ok(Self { lab, words, image })
    }

    /// Who is there.
    pub(super) fn sides(&self) -> impl Iterator<Item = Side> {
        self.words.iter().map(|(side, _)| *side)
    }

    pub(super) const fn has_qemu(&self) -> bool {
        self.image.is_some()
    }

    /// `passt` of a side, once its socket takes machines.
    fn passt(&self, side: Side, card: Card) -> Done<Running> {
        let words = self.words.iter().find(|(of, _)| *of == side).map(|(_, words)| words.as_slice());
        let words = words.ok_or("that side is not there")?;
        let path = self.socket();
        let script = r#"ulimit -n $(ulimit -Hn); rm -f "$1"; shift; exec "$@""#;
        let mut process = self
            .lab
            .host(["sh", "-c", script, "sh", &path])
            .args(words)
            .args(["-f", "-q", "--no-map-gw", "-s", &path])
            .args((card == Card::Rings).then_some("--vhost-user"))
            .args(["-t", &PUBLISHED.to_string(), "-u", "none"])
            .start()
            .map_err(said)?;
        // Flags of a socket that listens (unix(7) has no word for this table: net/unix/af_unix.c, unix_seq_show).
        let listens =
            |line: &str| line.ends_with(&path) && line.split_whitespace().nth(3) == Some("00010000");
        process
            .until(START, |running| {
                let table = std::fs::read_to_string(format!("/proc/{}/net/unix", running.pid()));
                table.is_ok_and(|table| table.lines().any(listens))
            })
            .map_err(said)?;
        Ok(process)
    }

    fn socket(&self) -> String {
        self.lab.home().join(SOCKET).to_string_lossy().into_owned()
    }

    fn peer(&self) -> String {
        self.lab.program("slipway-lab-peer")
    }
}

/// A system for guests, with the lab's own client and server.
fn image(tree: &Path, client: &Path) -> Done<Image> {
    let mut image = Image::new(tree).map_err(said)?;
    image.program("/usr/bin/peer", client).map_err(said)?;
    image.memory(MEMORY);
    Ok(image)
}

/// What makes a card named `name` the machine's network.
fn configured(name: &str) -> String {
    format!(
        "ip link set {name} mtu 65520 up && ip address add {HOST4}/24 dev {name} && \
         ip route add default via {WORLD4}"
    )
}

/// A container with a pump.
struct Native<'a> {
    ground: &'a Ground,
    // The pump ends before what it joins.
    _pump: Running,
    container: Container,
    _passt: Running,
}

impl<'a> Native<'a> {
    fn new(ground: &'a Ground, side: Side, card: Card) -> Done<Self> {
        let container = ground.lab.container().map_err(said)?;
        let passt = ground.passt(side, card)?;
        let kind = if card == Card::Rings { "rings" } else { "stream" };
        let words = [&ground.lab.program("slipway-lab-pump"), kind, &ground.socket(), "vm0"];
        let mut pump = container.cmd(words).start().map_err(said)?;
        pump.until(START, |running| running.stdout().contains("ready")).map_err(said)?;
        let congestion = "echo cubic > /proc/sys/net/ipv4/tcp_congestion_control";
        let done = container.sh(&format!("{congestion} && {}", configured("vm0"))).map_err(said)?;
        if !done.success() {
            return Err(format!("the machine's network: {done}"));
        }
        Ok(Self { ground, _pump: pump, container, _passt: passt })
    }

    fn transfer(&self, words: &[&str]) -> Done<Vec<f64>> {
        let _server = server(self.ground.lab.world(["iperf3", "-s", "-1"]), 5201)?;
        let client = self.container.cmd(["iperf3", "-J", "-t", &SECONDS.to_string(), "-c", WORLD4]);
        let report = client.args(words.iter().copied()).run(LIMIT).map_err(said)?;
        iperf::received(&report.out(), SECONDS).map(|rate| vec![rate])
    }
}

/// One stream from the machine.
pub(super) fn upload(ground: &Ground, side: Side, card: Card) -> Done<Vec<f64>> {
    Native::new(ground, side, card)?.transfer(&[])
}

/// One stream to the machine.
pub(super) fn download(ground: &Ground, side: Side, card: Card) -> Done<Vec<f64>> {
    Native::new(ground, side, card)?.transfer(&["-R"])
}

/// Datagrams from the machine.
pub(super) fn datagrams_up(ground: &Ground, side: Side, card: Card) -> Done<Vec<f64>> {
    Native::new(ground, side, card)?.transfer(&DATAGRAMS)
}

/// Datagrams to the machine.
pub(super) fn datagrams_down(ground: &Ground, side: Side, card: Card) -> Done<Vec<f64>> {
    Native::new(ground, side, card)?.transfer(&[&["-R"], &DATAGRAMS[..]].concat())
}

/// One stream to the machine's published port, which the world begins.
pub(super) fn published(ground: &Ground, side: Side, card: Card) -> Done<Vec<f64>> {
    let machine = Native::new(ground, side, card)?;
    let port = PUBLISHED.to_string();
    let _server = server(machine.container.cmd(["iperf3", "-s", "-1", "-p", &port]), PUBLISHED)?;
    let words = ["iperf3", "-J", "-t", &SECONDS.to_string(), "-c", HOST4, "-p", &port];
    let report = ground.lab.world(words).run(LIMIT).map_err(said)?;
    iperf::received(&report.out(), SECONDS).map(|rate| vec![rate])
}

/// Questions of a byte, each of which waits for the answer to the last.
pub(super) fn requests(ground: &Ground, side: Side, card: Card) -> Done<Vec<f64>> {
    let machine = Native::new(ground, side, card)?;
    let (peer, at) = (ground.peer(), format!("{WORLD4}:9000"));
    let _server = server(ground.lab.world([&peer, "serve", &at]), 9000)?;
    let client = machine.container.cmd([&peer, "rr", &at, &SECONDS.to_string()]);
    let rate = client.ok(LIMIT).map_err(said)?;
    Ok(vec![rate.out().trim().parse().map_err(said)?])
}

/// A guest of QEMU, from it and to it: the rate, and the processor time of `passt` for a gigabyte.
pub(super) fn emulated(ground: &Ground, side: Side, card: Card) -> Done<Vec<f64>> {
    let image = ground.image.as_ref().ok_or("there is no QEMU")?;
    let passt = ground.passt(side, card)?;
    let account = Account(passt.pid());
    let words = card_of_qemu(card, &ground.socket());
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut guest = Vm::boot(&ground.lab, image, &words).map_err(said)?;
    guest.ok(&configured("eth0")).map_err(said)?;
    let (peer, seconds) = (ground.peer(), EMULATED_SECONDS.to_string());
    let at = format!("{WORLD4}:9000");
    let server = server(ground.lab.world([&peer, "serve", &at]), 9000)?;
    let mut figures = costed(account, || guest.ok(&format!("peer upload {at} {seconds}")).map_err(said))?;
    drop(server);
    guest.ok(&format!("peer serve 0.0.0.0:{PUBLISHED} >/dev/null 2>&1 & sleep 1")).map_err(said)?;
    let at = format!("{HOST4}:{PUBLISHED}");
    figures.extend(costed(account, || {
        let client = ground.lab.world([&peer, "upload", &at, &seconds]);
        Ok(client.ok(LIMIT).map_err(said)?.out())
    })?);
    Ok(figures)
}

/// QEMU's words for a card at a socket.
fn card_of_qemu(card: Card, socket: &str) -> Vec<String> {
    let device = "virtio-net-pci,netdev=net";
    let words = match card {
        Card::Stream => {
            vec!["-netdev".into(), format!("stream,id=net,server=off,addr.type=unix,addr.path={socket}")]
        }
        Card::Rings => vec![
            "-object".into(),
            format!("memory-backend-memfd,id=memory,size={MEMORY}M,share=on"),
            "-machine".into(),
            "memory-backend=memory".into(),
            "-chardev".into(),
            format!("socket,id=card,path={socket}"),
            "-netdev".into(),
            "vhost-user,id=net,chardev=card".into(),
        ],
    };
    words.into_iter().chain(["-device".into(), device.into()]).collect()
}

/// The rate of an upload by the lab's client in Gbit/s, and the processor time that a process used for each gigabyte.
fn costed(account: Account, upload: impl FnOnce() -> Done<String>) -> Done<Vec<f64>> {
    let before = account.used()?;
    let (bytes, took) = uploaded(&upload()?)?;
    let used = account.used()?.saturating_sub(before);
    Ok(vec![bytes * 8.0 / took / 1e9, used.as_secs_f64() / (bytes / 1e9)])
}

/// The bytes and the seconds that `slipway-lab-peer upload` tells.
fn uploaded(text: &str) -> Done<(f64, f64)> {
    let mut words = text.split_whitespace().filter_map(|word| word.parse::<f64>().ok());
    match (words.next(), words.next()) {
        (Some(bytes), Some(took)) if bytes > 0.0 && took >= f64::from(EMULATED_SECONDS) * 0.95 => {
            Ok((bytes, took))
        }
        _ => Err(format!("not a whole upload (bytes, seconds): {text}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upload_is_a_rate_and_its_cost() {
        assert_eq!(uploaded("1000000000 4.0000 0.1000\n"), Ok((1e9, 4.0)));
        for text in ["", "1000000000", "0 4.0 0.0", "1000000000 1.2 0.0", "slipway-lab-peer: got 3"] {
            assert!(uploaded(text).is_err(), "{text}");
        }
        let this = Account(std::process::id());
        let figures = costed(this, || Ok("2000000000 4.0 0.0".to_owned())).unwrap();
        let [rate, cost] = figures[..] else { panic!("{figures:?}") };
        assert!((rate - 4.0).abs() < 1e-9 && (0.0..1.0).contains(&cost), "{figures:?}");
    }
}
