//! A side on stage: its gvproxy on the lab's host, and the guests of its network.

use std::cell::Cell;
use std::path::Path;
use std::time::Duration;

use slipway_lab::{Cmd, Container, Lab, LabOptions, Running};

use crate::tool::Done;

use super::super::account::Account;
use super::super::duel::Side;
use super::super::peers::Peer;
use super::super::prepared::Prepared;
use super::super::server::{LIMIT, said};

const PEER: &str = "slipway-lab-peer";
const FORWARDER: &str = "slipway-lab-forwarder";
const STOCK: &str = "stock-gvproxy";
const STOCK_FORWARDER: &str = "stock-gvforwarder";

/// The namespaces, and the words that start each side there.
#[derive(Debug)]
pub(super) struct Ground {
    pub(super) lab: Lab,
    stock: Option<Vec<String>>,
    both_forwarders: bool,
    /// Sockets that were made: each has a name of its own, for whoever is killed may leave his behind.
    made: Cell<u32>,
}

impl Ground {
    /// Makes the namespaces, with all programs in them.
    pub(super) fn new(prepared: &Prepared, rival: Option<&Peer>) -> Done<Self> {
        let mut programs = vec![
            (PEER.to_owned(), prepared.client.clone()),
            (FORWARDER.to_owned(), prepared.forwarder.clone()),
            ("gvproxy".to_owned(), prepared.gvproxy.clone()),
            ("gvforwarder".to_owned(), prepared.gvproxy.clone()),
        ];
        programs.extend(rival.map(|peer| (STOCK.to_owned(), peer.shown().1)));
        programs.extend(prepared.gvforwarder.clone().map(|path| (STOCK_FORWARDER.to_owned(), path)));
        let options = LabOptions { programs, congestion: Some("cubic".to_owned()), tree: None };
        let lab = Lab::new(&options);
        let lab = lab.map_err(|error| format!("cannot make the bench's namespaces: {error}"))?;
        let stock = rival.map(|peer| peer.words(Path::new(&lab.program(STOCK))));
        Ok(Self { lab, stock, both_forwarders: prepared.gvforwarder.is_some(), made: Cell::new(0) })
    }

    /// Whoever there is.
    pub(super) fn sides(&self) -> impl Iterator<Item = Side> {
        std::iter::once(Side::Ours).chain(self.stock.as_ref().map(|_| Side::Stock))
    }

    /// Whether each side has a forwarder of its own house.
    pub(super) const fn has_both_forwarders(&self) -> bool {
        self.both_forwarders
    }

    /// The lab's client and server.
    pub(super) fn peer(&self) -> String {
        self.lab.program(PEER)
    }

    /// A path for a socket, where nothing is.
    pub(super) fn place(&self, name: &str) -> String {
        self.made.set(self.made.get() + 1);
        self.lab.home().join(format!("{name}-{}", self.made.get())).to_string_lossy().into_owned()
    }
}

/// A side, before anything is started.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stage<'a> {
    pub(super) ground: &'a Ground,
    pub(super) side: Side,
}

impl<'a> Stage<'a> {
    /// What starts its gvproxy; no port of the host is taken for SSH.
    pub(super) fn words(&self) -> Vec<String> {
        let ours = || vec![self.ground.lab.program("gvproxy")];
        let mut words = match self.side {
            Side::Ours => ours(),
            Side::Stock => self.ground.stock.clone().unwrap_or_default(),
        };
        words.extend(["-ssh-port".to_owned(), "-1".to_owned()]);
        words
    }

    /// Its network, without guests.
    pub(super) fn network(&self, words: &[&str]) -> Done<Network<'a>> {
        let api = self.ground.place("api");
        let script = r#"ulimit -n $(ulimit -Hn); exec "$@""#;
        let line = self.ground.lab.host(["sh", "-c", script, "sh"]).args(self.words());
        let line = line.args(["-listen".to_owned(), format!("unix://{api}")]).args(words);
        let mut process = line.start().map_err(said)?;
        process.until(LIMIT, |_| Path::new(&api).exists()).map_err(said)?;
        Ok(Network { stage: *self, process, api })
    }
}

/// A gvproxy at work; it ends with this.
#[derive(Debug)]
pub(super) struct Network<'a> {
    pub(super) stage: Stage<'a>,
    process: Running,
    pub(super) api: String,
}

impl Network<'_> {
    /// All of its processes.
    fn processes(&self) -> Done<Vec<Account>> {
        Account(self.process.pid()).of_group()
    }

    /// Resident memory in MB, what processes share counted for each.
    pub(super) fn resident(&self) -> Done<f64> {
        let each = self.processes()?.into_iter().map(Account::resident);
        Ok(each.sum::<Done<f64>>()? * 1024.0 / 1e6)
    }

    /// Processor time.
    pub(super) fn used(&self) -> Done<Duration> {
        self.processes()?.into_iter().map(Account::used).sum()
    }

    /// How often any of them was woken.
    pub(super) fn sleeps(&self) -> Done<f64> {
        self.processes()?.into_iter().map(Account::sleeps).sum()
    }

    /// A machine with this address in the network, behind the plain forwarder.
    pub(super) fn machine(&self, number: u8) -> Done<Machine> {
        let lab = &self.stage.ground.lab;
        let container = lab.container().map_err(said)?;
        let forwarder = container.cmd([lab.program(FORWARDER).as_str(), "carry", &self.api, "tap0"]);
        let mut forwarder = forwarder.start().map_err(said)?;
        forwarder.until(LIMIT, |running| running.stdout().contains("ready")).map_err(said)?;
        Machine { container, _forwarder: forwarder }.settle(number)
    }

    /// The same, behind the forwarder of its own house.
    pub(super) fn machine_of_the_house(&self, number: u8) -> Done<Machine> {
        let lab = &self.stage.ground.lab;
        let container = lab.container().map_err(said)?;
        let made = container.sh("ip tuntap add dev tap0 mode tap").map_err(said)?;
        if !made.success() {
            return Err(format!("the machine's device: {made}"));
        }
        let program = if self.stage.side == Side::Ours { "gvforwarder" } else { STOCK_FORWARDER };
        let url = format!("unix://{}/connect", self.api);
        let words = [
            &*lab.program(program),
            "-preexisting",
            "-iface",
            "tap0",
            "-stop-if-exist",
            "none",
            "-url",
            &url,
        ];
        let forwarder = container.cmd(words).start().map_err(said)?;
        Machine { container, _forwarder: forwarder }.settle(number)
    }

    /// A guest of the forwarder program that does what these words say, once it has begun.
    pub(super) fn guest(&self, words: &[&str]) -> Done<Running> {
        let lab = &self.stage.ground.lab;
        let mut guest = lab.host([lab.program(FORWARDER)]).args(words).start().map_err(said)?;
        guest.until(LIMIT, |running| running.stdout().contains("ready")).map_err(said)?;
        Ok(guest)
    }
}

/// A machine on a network.
#[derive(Debug)]
pub(super) struct Machine {
    container: Container,
    _forwarder: Running,
}

impl Machine {
    /// Gives it its address, and waits until the gateway is there. Of IPv6 it knows nothing, and so says nothing by
    /// itself.
    fn settle(self, number: u8) -> Done<Self> {
        let script = format!(
            "set -e; echo 1 > /proc/sys/net/ipv6/conf/tap0/disable_ipv6
             ip link set tap0 mtu 1500 address 5a:94:ef:00:00:{number:02x}
             ip address add 192.168.127.{number}/24 dev tap0; ip link set tap0 up
             ip route add default via 192.168.127.1
             echo cubic > /proc/sys/net/ipv4/tcp_congestion_control
             ping -c 1 -W 1 192.168.127.1 || ping -c 1 -W 5 192.168.127.1"
        );
        match self.container.sh(&script).map_err(said)? {
            up if up.success() => Ok(self),
            up => Err(format!("the machine is not online: {up}")),
        }
    }

    /// A command in it.
    pub(super) fn cmd(&self, words: &[&str]) -> Cmd {
        self.container.cmd(words)
    }
}
