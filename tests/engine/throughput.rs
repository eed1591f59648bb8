//! Throughput tables, as snapshots. A figure that falls without a reason is a finding; one that rises may be accepted
//! with `INSTA_UPDATE=always cargo test -p slipway-tests --test engine throughput`.

use core::time::Duration;
use testkit::link::LinkConfig;
use testkit::throughput::{Cell, Direction, table};
use testkit::upstream::{Buffer, HostConfig};

const RTTS: [(&str, u64); 5] = [("0 ms", 0), ("1 ms", 1), ("20 ms", 20), ("100 ms", 100), ("200 ms", 200)];
const LOSSES: [(&str, u32); 4] = [("no loss", 0), ("0.1 %", 1), ("1 %", 10), ("2 %", 20)];

/// The same for all cells, so that they compare: beginnings and recoveries weigh the same everywhere.
const AMOUNT: u64 = 4 << 20;

fn guest_link(direction: Direction, mtu: u16, rtt: u64, loss: u32) -> Cell {
    let mut cell = Cell::new(direction, AMOUNT, mtu);
    cell.link.delay = Duration::from_millis(rtt) / 2;
    cell.link.loss = loss;
    cell
}

/// Delay and loss between guest and engine, as between a virtual machine and a busy host, or a link through a tunnel.
fn guest_link_table(direction: Direction, mtu: u16) -> String {
    let title = format!("guest's link, {direction:?}, MTU {mtu}");
    table(&title, &RTTS, &LOSSES, |rtt, loss| guest_link(direction, mtu, rtt, loss))
}

#[test]
fn guest_link_up_1500() {
    insta::assert_snapshot!(guest_link_table(Direction::Up, 1500));
}

#[test]
fn guest_link_up_65520() {
    insta::assert_snapshot!(guest_link_table(Direction::Up, 65_520));
}

#[test]
fn guest_link_down_1500() {
    insta::assert_snapshot!(guest_link_table(Direction::Down, 1500));
}

#[test]
fn guest_link_down_65520() {
    insta::assert_snapshot!(guest_link_table(Direction::Down, 65_520));
}

/// Reordering, and duplicates beside it.
#[test]
fn reordering() {
    let rows = [
        ("up 1500", (Direction::Up, 1500)),
        ("down 1500", (Direction::Down, 1500)),
        ("up 65520", (Direction::Up, 65_520)),
        ("down 65520", (Direction::Down, 65_520)),
    ];
    let columns =
        [("none", (0, 0)), ("1 %", (10, 0)), ("5 %", (50, 0)), ("20 %", (200, 0)), ("5 % dup", (50, 50))];
    insta::assert_snapshot!(table(
        "guest's link, RTT 20 ms, reordered by 200 us",
        &rows,
        &columns,
        |(direction, mtu), (reorder, duplicate)| {
            let mut cell = guest_link(direction, mtu, 20, 0);
            let hold = Duration::from_micros(200);
            cell.link = LinkConfig { reorder, duplicate, hold, ..cell.link };
            cell
        }
    ));
}

/// The usual place of delay: behind the host. The path from the guest's point of view is two connections.
fn path_table(direction: Direction) -> String {
    let title = format!("path behind the host, {direction:?}, by MTU and offloads");
    let columns = [("1500", (1500, false)), ("1500 TSO", (1500, true)), ("65520 TSO", (65_520, true))];
    table(&title, &RTTS, &columns, |rtt, (mtu, offload)| {
        let mut cell = Cell::new(direction, AMOUNT, mtu);
        cell.offload = offload;
        cell.host.delay = Duration::from_millis(rtt) / 2;
        cell
    })
}

#[test]
fn path_up() {
    insta::assert_snapshot!(path_table(Direction::Up));
}

#[test]
fn path_down() {
    insta::assert_snapshot!(path_table(Direction::Down));
}

/// Send buffers of the host's socket from the smallest to a tuned one: where others collapse.
#[test]
fn send_buffers() {
    let rows = [("0 ms", 0), ("1 ms", 1), ("20 ms", 20)];
    let columns = [
        ("4 K..4 K", (4 << 10, 4 << 10)),
        ("16 K..4 M", (16 << 10, 4 << 20)),
        ("85 K..4 M", (85 << 10, 4 << 20)),
        ("4 M..32 M", (4 << 20, 32 << 20)),
    ];
    insta::assert_snapshot!(table(
        "up, MTU 65520, offloads, by round trip and tcp_wmem",
        &rows,
        &columns,
        |rtt, (initial, max)| {
            let mut cell = Cell::new(Direction::Up, AMOUNT, 65_520);
            cell.offload = true;
            cell.host = HostConfig { send_buffer: Buffer { initial, max }, ..cell.host };
            cell.host.delay = Duration::from_millis(rtt) / 2;
            cell
        }
    ));
}

/// Small windows of the guest.
#[test]
fn guest_buffers() {
    let rows = [("up", Direction::Up), ("down", Direction::Down)];
    let columns = [("2 K", 2 << 10), ("8 K", 8 << 10), ("64 K", 64 << 10), ("1 M", 1 << 20)];
    insta::assert_snapshot!(table(
        "guest's socket buffers, RTT 1 ms, MTU 1500",
        &rows,
        &columns,
        |direction, buffer| {
            let mut cell = guest_link(direction, 1500, 1, 0);
            (cell.bytes, cell.buffer) = (1 << 20, buffer);
            cell
        }
    ));
}

/// IPv6 is not slower.
#[test]
fn ipv6() {
    let rows = [("up", Direction::Up), ("down", Direction::Down)];
    insta::assert_snapshot!(table(
        "IPv6, offloads, RTT 1 ms behind the host",
        &rows,
        &[("MTU 1500", 1500), ("MTU 65520", 65_520)],
        |direction, mtu| {
            let mut cell = Cell::new(direction, AMOUNT, mtu);
            (cell.offload, cell.v6) = (true, true);
            cell.host.delay = Duration::from_micros(500);
            cell
        }
    ));
}
