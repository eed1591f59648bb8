//! The engine's work counted in instructions, which a busy machine does not change: so a count can be a gate.
//!
//! Run by `cargo xtask bench --instructions`, which holds each count against `counts.txt` beside this file: one that
//! has grown means that somebody has put an allocation, a copy or a second look into the path of each segment.

#![expect(unused_qualifications, reason = "what the macros write")]

use std::hint::black_box;

use gungraun::prelude::*;
use slipway_benches::{Connection, Crowd};
use slipway_netstack::checksum;
use slipway_netstack::device::Capabilities;

const OFFLOADS: Capabilities = Capabilities { checksum: true, tso4: true, tso6: true, uso: true };
const PLAIN: Capabilities = Capabilities { checksum: false, tso4: false, tso6: false, uso: false };
/// Frames of one count.
const FRAMES: u32 = 64;
fn upload(payload: u16) -> (Connection, Vec<Vec<u8>>) {
    let connection = Connection::open(1460, OFFLOADS);
    let frames = connection.frames(FRAMES, payload);
    (connection, frames)
}

// 64 segments of the guest, and the acknowledgements that they are owed.
#[library_benchmark]
#[bench::of_1460(args = (1460), setup = upload)]
#[bench::of_61440(args = (61_440), setup = upload)]
fn segments_to_upstream((mut connection, frames): (Connection, Vec<Vec<u8>>)) -> (usize, Connection) {
    (black_box(connection.upload(&frames)), connection)
}

fn download(device: Capabilities) -> Connection {
    Connection::open(1460, device)
}

// A whole window to the guest: one super-segment after the other, or each segment with its checksum.
#[library_benchmark]
#[bench::offloads(args = (OFFLOADS), setup = download)]
#[bench::plain(args = (PLAIN), setup = download)]
fn segments_to_guest(mut connection: Connection) -> (usize, Connection) {
    (black_box(connection.download()), connection)
}

fn bytes(len: usize) -> Vec<u8> {
    vec![0x5a; len]
}

#[library_benchmark]
#[bench::of_1460(args = (1460), setup = bytes)]
#[bench::of_65000(args = (65_000), setup = bytes)]
fn sum(data: Vec<u8>) -> (u16, Vec<u8>) {
    (black_box(checksum::sum(black_box(&data))), data)
}

fn crowd(count: u32) -> (Crowd, Vec<Vec<u8>>) {
    let mut crowd = Crowd::new(count);
    (0..count).for_each(|_| crowd.open());
    // Spread over the table, so that each lookup is one of its own.
    let frames = (0..100).map(|n| crowd.acknowledgement(n * count as usize / 100)).collect();
    (crowd, frames)
}

// A hundred bare acknowledgements, each of another connection: the count must not depend on how many there are.
#[library_benchmark]
#[bench::among_100(args = (100), setup = crowd)]
#[bench::among_10000(args = (10_000), setup = crowd)]
fn find_a_flow((mut crowd, frames): (Crowd, Vec<Vec<u8>>)) -> (Crowd, Vec<Vec<u8>>) {
    for frame in &frames {
        crowd.deliver(black_box(frame));
    }
    (crowd, frames)
}

library_benchmark_group!(
    name = engine,
    benchmarks = [segments_to_upstream, segments_to_guest, sum, find_a_flow]
);
main!(library_benchmark_groups = engine);
