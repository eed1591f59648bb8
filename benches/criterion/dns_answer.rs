//! What a name costs without its socket: queries answered from a network of 200 containers, and files read.

use std::fmt::Write;
use std::hint::black_box;
use std::net::IpAddr;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use slipway_dns::answer::{Origin, Outcome, answer};
use slipway_dns::config::aardvark;
use slipway_dns::message::{RecordType, Transport};
use slipway_dns::zone::{Settings, Snapshot};

/// A network of `count` containers with two names each.
fn file(count: u16) -> String {
    let mut text = "10.89.0.1,fd00::1\n".to_owned();
    for n in 2..count + 2 {
        let [high, low] = n.to_be_bytes();
        writeln!(text, "{n:064x} 10.89.{high}.{low} fd00::{n:x} container-{n},{n:012x}").unwrap();
    }
    text
}

fn snapshot(text: &str) -> Snapshot {
    let mut builder = Snapshot::builder(Settings::default());
    builder.add(aardvark::parse("net", text.as_bytes()).unwrap());
    builder.build()
}

/// A query as the C library sends it, with EDNS as dig does.
fn query(name: &str, record_type: RecordType) -> Vec<u8> {
    let mut message = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\x01".to_vec();
    for label in name.split('.') {
        message.push(u8::try_from(label.len()).unwrap());
        message.extend_from_slice(label.as_bytes());
    }
    message.push(0);
    message.extend_from_slice(&record_type.0.to_be_bytes());
    message.extend_from_slice(b"\0\x01\0\0\x29\x04\xd0\0\0\0\0\0\0");
    message
}

fn answers(c: &mut Criterion) {
    let names = snapshot(&file(200));
    let network = names.network("net").unwrap();
    let origin = Origin { source: IpAddr::from([10, 89, 0, 7]), network, transport: Transport::Udp, turn: 0 };
    let mut group = c.benchmark_group("answer");
    group.throughput(Throughput::Elements(1));
    for (what, name, record_type) in [
        ("A", "container-77", RecordType::A),
        ("AAAA in the domain", "container-77.dns.podman", RecordType::AAAA),
        ("PTR", "77.0.89.10.in-addr.arpa", RecordType::PTR),
        ("not ours", "www.example.org", RecordType::A),
        ("not in the domain", "nobody.dns.podman", RecordType::A),
    ] {
        let message = query(name, record_type);
        let mut out = Vec::with_capacity(512);
        group.bench_function(what, |b| {
            b.iter(|| {
                let outcome = answer(&names, origin, black_box(&message), &mut out);
                assert!(!matches!(outcome, Outcome::Drop(_)));
                black_box(out.len())
            });
        });
    }
    group.finish();
}

fn reload(c: &mut Criterion) {
    let text = file(1000);
    c.bench_function("a network of 1000 containers, read and built", |b| {
        b.iter(|| snapshot(black_box(&text)));
    });
}

criterion_group!(benches, answers, reload);
criterion_main!(benches);
