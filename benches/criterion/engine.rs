//! The engine's own cost per byte and per frame, without kernel: TCP both ways, UDP, checksums.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use slipway_benches::{Connection, Null, Sink, datagrams, send_datagrams};
use slipway_netstack::device::Capabilities;
use slipway_netstack::{Engine, checksum};
use testkit::world::engine_config;

const OFFLOADS: Capabilities = Capabilities { checksum: true, tso4: true, tso6: true, uso: true };

fn tcp(c: &mut Criterion) {
    let mut group = c.benchmark_group("tcp");
    for (name, payload) in [("upload, segments of 1460", 1460_u16), ("upload, segments of 61440", 61_440)] {
        let frames = Connection::open(1460, OFFLOADS).frames(64, payload);
        group.throughput(Throughput::Bytes(64 * u64::from(payload)));
        group.bench_function(name, |b| {
            b.iter_batched_ref(
                || Connection::open(1460, OFFLOADS),
                |end| end.upload(&frames),
                BatchSize::SmallInput,
            );
        });
    }
    for (name, device) in
        [("download, no offload", Capabilities::default()), ("download, offloads", OFFLOADS)]
    {
        let mut one = Connection::open(1460, device);
        let before = one.device.bytes;
        group.throughput(Throughput::Bytes((one.download() - before) as u64));
        group.bench_function(name, |b| {
            b.iter_batched_ref(
                || Connection::open(1460, device),
                Connection::download,
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

fn udp(c: &mut Criterion) {
    let frames = datagrams(64, 1400);
    let mut group = c.benchmark_group("udp");
    group.throughput(Throughput::Elements(64));
    group.bench_function("64 datagrams of 1400 to one peer", |b| {
        let (mut engine, mut host, mut device) =
            (Engine::new(engine_config()), Null::default(), Sink::default());
        b.iter(|| send_datagrams(&mut engine, &mut host, &mut device, &frames));
    });
    group.finish();
}

fn sums(c: &mut Criterion) {
    let mut group = c.benchmark_group("checksum");
    for len in [40_usize, 1460, 65_000] {
        let data = vec![0x5a; len];
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(len.to_string(), |b| b.iter(|| checksum::sum(black_box(&data))));
    }
    group.finish();
}

criterion_group!(engine, tcp, udp, sums);
criterion_main!(engine);
