//! Throughput in virtual time: one transfer through the whole simulator, and tables of them.
//!
//! A cell is a transfer that must arrive complete and intact; its figure is payload over the time from the first
//! segment to the last byte, in Mbit/s, rounded to two digits so that a table changes only when something has changed.
//! The figures compare the engine with itself over time, not with the world.

use crate::guest::{SmolConfig, SmolGuest, Task};
use crate::link::LinkConfig;
use crate::upstream::HostConfig;
use crate::upstream::tcp::Script;
use crate::world::{World, WorldConfig};
use core::time::Duration;
use slipway_netstack::config::Mtu;
use slipway_netstack::device::Capabilities;
use std::fmt::Write;

/// Which way the bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the guest to a server.
    Up,
    /// From a server to the guest.
    Down,
}

/// One cell of a table.
#[derive(Debug, Clone, Copy)]
pub struct Cell {
    /// Which way.
    pub direction: Direction,
    /// Bytes to transfer.
    pub bytes: u64,
    /// IP MTU of the guest's link.
    pub mtu: u16,
    /// Offloads both ways, as with a TAP; otherwise none.
    pub offload: bool,
    /// IPv6.
    pub v6: bool,
    /// The guest's link.
    pub link: LinkConfig,
    /// The host and its path.
    pub host: HostConfig,
    /// Bytes of each of the guest's socket buffers.
    pub buffer: usize,
}

impl Cell {
    /// A transfer over a perfect 10 Gbit/s wire.
    #[must_use]
    pub fn new(direction: Direction, bytes: u64, mtu: u16) -> Self {
        Self {
            direction,
            bytes,
            mtu,
            offload: false,
            v6: false,
            link: LinkConfig { bandwidth: Some(TEN_GIGABIT), ..LinkConfig::default() },
            host: HostConfig { bandwidth: Some(TEN_GIGABIT), ..HostConfig::default() },
            buffer: 4 << 20,
        }
    }

    /// Runs it.
    ///
    /// # Panics
    /// When the bytes do not arrive, all and intact, within an hour, or the connection does not end as it should.
    #[must_use]
    pub fn run(&self) -> Outcome {
        let mut config = WorldConfig { host: self.host, link: self.link, ..WorldConfig::default() };
        config.engine.mtu = Mtu::new(self.mtu).expect("an MTU");
        config.guest_offload = self.offload;
        if self.offload {
            config.engine.device = Capabilities { checksum: true, tso4: true, tso6: true, uso: true };
        }
        let guest = SmolGuest::new(SmolConfig { mtu: self.mtu.into(), buffer: self.buffer, cubic: true });
        let mut world = World::new(config, guest);
        let server = if self.v6 { "[2001:db8::1]:80" } else { "192.0.2.1:80" };
        let task = match self.direction {
            Direction::Up => {
                world.host.serve(server, Script::sink(1));
                Task::upload(self.bytes, 1)
            }
            Direction::Down => {
                world.host.serve(server, Script::source(self.bytes, 2));
                Task::download(2)
            }
        };
        let handle = world.guest.connect(server.parse().expect("an endpoint"), task);
        let bytes = self.bytes;
        let done = world.run_until(Duration::from_secs(3600), |world| {
            let Some(peer) = world.host.peers().next() else { return false };
            match self.direction {
                Direction::Up => peer.finished && peer.received == bytes,
                Direction::Down => world.guest.task(handle).finished,
            }
        });
        let (peer, task) = (world.host.peer(0), world.guest.task(handle));
        assert!(done, "unfinished after an hour: {self:?}: {peer:?}, {task:?}");
        assert_eq!((peer.mismatch, task.mismatch), (None, None), "not intact: {self:?}");
        let (received, last) = match self.direction {
            Direction::Up => (peer.received, peer.last),
            Direction::Down => (task.received, task.last),
        };
        assert_eq!(received, bytes, "not complete: {self:?}");
        let counters = world.engine.counters();
        Outcome {
            elapsed: last - slipway_netstack::Instant::ZERO,
            retransmits: counters.tcp_retransmits,
            bytes,
        }
    }
}

/// What became of a transfer.
#[derive(Debug, Clone, Copy)]
pub struct Outcome {
    /// From the beginning to the last byte.
    pub elapsed: Duration,
    /// Segments that the engine repeated.
    pub retransmits: u64,
    bytes: u64,
}

impl Outcome {
    /// Megabits per second, in two digits or so.
    #[must_use]
    pub fn mbits(&self) -> String {
        let micros = u64::try_from(self.elapsed.as_micros()).expect("an hour at most").max(1);
        match self.bytes * 80 / micros {
            tenths @ 0..100 => format!("{}.{}", tenths / 10, tenths % 10),
            tenths => round(tenths / 10).to_string(),
        }
    }
}

/// Bytes per second of the usual wire.
pub const TEN_GIGABIT: u64 = 1_250_000_000;

/// Two significant digits.
fn round(number: u64) -> u64 {
    let mut unit = 1;
    while number / unit >= 100 {
        unit *= 10;
    }
    (number + unit / 2) / unit * unit
}

/// Runs a cell for each row and column and prints the table.
pub fn table<R: Copy, C: Copy>(
    title: &str,
    rows: &[(&str, R)],
    columns: &[(&str, C)],
    cell: impl Fn(R, C) -> Cell,
) -> String {
    let mut out = format!("{title}, Mbit/s\n\n{:>16}", "");
    for (name, _) in columns {
        write!(out, "{name:>10}").expect("a string takes all");
    }
    for (name, row) in rows {
        write!(out, "\n{name:>16}").expect("a string takes all");
        for (_, column) in columns {
            write!(out, "{:>10}", cell(*row, *column).run().mbits()).expect("a string takes all");
        }
    }
    out.push('\n');
    out
}
