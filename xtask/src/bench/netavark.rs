//! `netavark`: ours and the original set up the same containers.
//!
//! Each side has a machine of its own, so that neither sees the other's bridges and rules, and its own DNS server
//! beside it. A measurement is one process, from fork to end, as a container engine waits for it; namespaces are made
//! beforehand. Sides take turns within a round.

use std::cell::RefCell;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;
use std::time::Duration;

use serde_json::{Value, json};
use slipway_lab::{Machine, Namespace, interrupted};

use crate::tool::{Done, first_line};

use super::duel::{Duel, Goal, Row, Side, rival};

const LIMIT: Duration = Duration::from_secs(60);
/// How often the small rows are taken in each round.
const EACH: usize = 6;

const SETUP: &str = "setup of a bridge with DNS and two ports";
const TEARDOWN: &str = "teardown of it";
const HUNDREDTH: &str = "setup of the hundredth container";
const ONE_PORT: &str = "setup with one port, no DNS";
const RANGE: &str = "setup with a range of 1000 ports, no DNS";
const RANGE_DOWN: &str = "teardown of the range";
const TRACKED: &str = "setup with a UDP port, 1000 entries in the connection table";
const MEMORY: &str = "peak resident memory of a setup";

/// The two programs of a side.
struct Pair {
    side: Side,
    netavark: PathBuf,
    dns: PathBuf,
}

/// Measures both sides.
pub(crate) fn run(rounds: usize, ours: (&Path, &Path), peer: &Path) -> Done<Duel> {
    let stock =
        rival("SLIPWAY_BENCH_NETAVARK", "netavark").zip(rival("SLIPWAY_BENCH_AARDVARK", "aardvark-dns"));
    let name = match &stock {
        Some((netavark, _)) => first_line(&mut Command::new(netavark)),
        None => "no netavark with aardvark-dns here".to_owned(),
    };
    let mut duel = Duel {
        rival: name,
        rows: vec![
            Row::new(SETUP, "ms", Goal::AtMost(0.35)),
            Row::new(TEARDOWN, "ms", Goal::AtMost(0.6)),
            Row::new(HUNDREDTH, "ms", Goal::OfOurs(1.3, SETUP)),
            Row::new(ONE_PORT, "ms", Goal::AtMost(1.0)),
            Row::new(RANGE, "ms", Goal::OfOurs(2.0, ONE_PORT)),
            Row::new(RANGE_DOWN, "ms", Goal::AtMost(1.0)),
            Row::new(TRACKED, "ms", Goal::AtMost(0.3)),
            Row::new(MEMORY, "MB", Goal::AtMost(1.0)),
        ],
        failures: Vec::new(),
    };
    let own = Pair { side: Side::Ours, netavark: ours.0.to_owned(), dns: ours.1.to_owned() };
    let pairs: Vec<Pair> = std::iter::once(own)
        .chain(stock.map(|(netavark, dns)| Pair { side: Side::Stock, netavark, dns }))
        .collect();
    let mut stages = Vec::new();
    for pair in &pairs {
        stages.push(Stage::new(pair, peer)?);
    }
    for round in 0..rounds.max(1) {
        for repeat in 0..EACH {
            for turn in 0..stages.len() {
                let Some(stage) = stages.get((round + repeat + turn) % stages.len()) else { continue };
                if interrupted() {
                    return Err("interrupted".to_owned());
                }
                let done = stage.small(&mut duel).and_then(|()| stage.tracked(&mut duel));
                duel.heed(stage.pair.side, &done);
            }
        }
    }
    for _ in 0..2 {
        for stage in &stages {
            if interrupted() {
                return Err("interrupted".to_owned());
            }
            let done = stage.hundred(&mut duel);
            duel.heed(stage.pair.side, &done);
        }
    }
    Ok(duel)
}

/// One side on its machine.
struct Stage<'a> {
    // They go before their machine does.
    kept: RefCell<Vec<Rc<Namespace>>>,
    pair: &'a Pair,
    machine: Machine,
    config: PathBuf,
    peer: &'a Path,
}

impl<'a> Stage<'a> {
    fn new(pair: &'a Pair, peer: &'a Path) -> Done<Self> {
        let machine = Machine::new().map_err(said)?;
        let config = machine.dir().join("config");
        std::fs::create_dir(&config).map_err(said)?;
        Ok(Self { kept: RefCell::default(), pair, machine, config, peer })
    }

    /// A container's, which stays until all is measured. The kernel takes seconds to clean up after one, tens of
    /// milliseconds of them with the lock that every change of a link needs: whatever is measured a second or two later
    /// would wait for that.
    fn namespace(&self) -> Done<Rc<Namespace>> {
        let namespace = Rc::new(self.machine.namespace().map_err(said)?);
        self.kept.borrow_mut().push(Rc::clone(&namespace));
        Ok(namespace)
    }

    /// Each of the small rows once.
    fn small(&self, duel: &mut Duel) -> Done {
        let side = self.pair.side;
        let namespace = self.namespace()?;
        let two = container(2, true, &[(8080, 80, 1), (8443, 443, 1)]);
        let (setup, memory) = self.call("setup", &namespace, &two)?;
        duel.add(SETUP, side, setup);
        duel.add(MEMORY, side, memory);
        duel.add(TEARDOWN, side, self.call("teardown", &namespace, &two)?.0);
        let one = container(2, false, &[(8080, 80, 1)]);
        let namespace = self.namespace()?;
        duel.add(ONE_PORT, side, self.call("setup", &namespace, &one)?.0);
        self.call("teardown", &namespace, &one)?;
        let range = container(2, false, &[(10000, 10000, 1000)]);
        let namespace = self.namespace()?;
        duel.add(RANGE, side, self.call("setup", &namespace, &range)?.0);
        duel.add(RANGE_DOWN, side, self.call("teardown", &namespace, &range)?.0);
        Ok(())
    }

    /// A UDP port where the kernel knows a thousand connections, among which stale ones are looked for. A container
    /// that is there already has them tracked.
    fn tracked(&self, duel: &mut Duel) -> Done {
        let first = (self.namespace()?, container(2, false, &[(8080, 80, 1)]));
        self.call("setup", &first.0, &first.1)?;
        let done = self.fill_table().and_then(|()| {
            let namespace = self.namespace()?;
            let input = published(3, false, "udp", &[(8081, 80, 1)]);
            duel.add(TRACKED, self.pair.side, self.call("setup", &namespace, &input)?.0);
            self.call("teardown", &namespace, &input)
        });
        self.call("teardown", &first.0, &first.1)?;
        done.map(|_| ())
    }

    /// A datagram to each of a thousand ports of the machine, always from the same one: from others, those of the turns
    /// before would still be tracked, and the thousand would be fifteen thousand.
    fn fill_table(&self) -> Done {
        let send = || {
            let socket = UdpSocket::bind("127.0.0.1:19999")?;
            // That nobody listens there is told to a connected socket only.
            (20_000..21_000_u16).try_for_each(|port| socket.send_to(b"?", ("127.0.0.1", port)).map(|_| ()))
        };
        self.machine.within(send).map_err(said)?;
        let count = self.machine.cmd(["cat", "/proc/sys/net/netfilter/nf_conntrack_count"]).ok(LIMIT);
        let count = count.map_err(said)?.out();
        match count.trim().parse::<u32>() {
            Ok(1000..1100) => Ok(()),
            _ => Err(format!("the kernel does not track a thousand connections, but {}", count.trim())),
        }
    }

    /// A hundred containers on one network; only the last setup counts.
    fn hundred(&self, duel: &mut Duel) -> Done {
        let mut kept: Vec<(Namespace, Value)> = Vec::new();
        let mut outcome = Ok(());
        for number in 1..=100_u16 {
            let namespace = self.machine.namespace().map_err(said)?;
            let ports = [(8000 + number, 80, 1), (9000 + number, 443, 1)];
            let input = container(1 + number, true, &ports);
            match self.call("setup", &namespace, &input) {
                Ok((took, _)) if number == 100 => duel.add(HUNDREDTH, self.pair.side, took),
                Ok(_) => {}
                Err(error) => {
                    outcome = Err(error);
                    break;
                }
            }
            kept.push((namespace, input));
        }
        // An interrupted bench leaves that to the machine's end.
        for (namespace, input) in kept.into_iter().filter(|_| !interrupted()) {
            self.call("teardown", &namespace, &input)?;
        }
        outcome
    }

    /// One call of the program: milliseconds and peak megabytes.
    fn call(&self, command: &str, namespace: &Namespace, input: &Value) -> Done<(f64, f64)> {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let output = self
            .machine
            .cmd([text(self.peer), "timed".to_owned(), text(&self.pair.netavark)])
            .args(["--config".to_owned(), text(&self.config), "--rootless=false".to_owned()])
            .args([
                format!("--aardvark-binary={}", text(&self.pair.dns)),
                command.to_owned(),
                namespace.path(),
            ])
            .env("NETAVARK_FW", "nftables")
            .env("RUST_LOG", "netavark=error")
            .input(format!("{input}\n"))
            .ok(LIMIT)
            .map_err(said)?;
        let shown = output.out();
        let mut words = shown.split_whitespace().filter_map(|word| word.parse::<f64>().ok());
        let took = words.next().zip(words.next());
        took.map(|(ms, kib)| (ms, kib * 1024.0 / 1e6)).ok_or_else(|| format!("not a time: {output}"))
    }
}

impl Drop for Stage<'_> {
    fn drop(&mut self) {
        // A DNS server that a failed run left behind; its own file names it.
        let dir = self.config.join("aardvark-dns");
        let pid = std::fs::read_to_string(dir.join("aardvark.pid")).unwrap_or_default();
        let command = std::fs::read(format!("/proc/{}/cmdline", pid.trim())).unwrap_or_default();
        if String::from_utf8_lossy(&command).contains(&*dir.to_string_lossy()) {
            let _ = self.machine.cmd(["kill", "-KILL", pid.trim()]).run(LIMIT);
        }
    }
}

/// What an engine asks for: one container on one bridge. Ports are (host, container, how many), of TCP.
fn container(number: u16, dns: bool, ports: &[(u16, u16, u16)]) -> Value {
    published(number, dns, "tcp", ports)
}

/// The same for another protocol.
fn published(number: u16, dns: bool, protocol: &str, ports: &[(u16, u16, u16)]) -> Value {
    let mappings: Vec<Value> = ports
        .iter()
        .map(|(host, container, range)| {
            json!({"container_port": container, "host_ip": "", "host_port": host, "protocol": protocol, "range": range})
        })
        .collect();
    let address = format!("10.89.{}.{}", number / 250, 1 + number % 250);
    let id = format!("{number:064x}");
    json!({
        "container_id": id, "container_name": format!("c{number}"), "port_mappings": mappings,
        "networks": {"net": {"interface_name": "eth0", "static_ips": [address], "aliases": [id.get(52..)]}},
        "network_info": {"net": {
            "name": "net", "id": format!("{:064x}", 0x7e57), "driver": "bridge", "network_interface": "podman1",
            "subnets": [{"subnet": "10.89.0.0/16", "gateway": "10.89.0.1"}], "ipv6_enabled": false,
            "internal": false, "dns_enabled": dns, "ipam_options": {"driver": "host-local"}
        }}
    })
}

fn said(error: impl std::fmt::Display) -> String {
    error.to_string()
}
