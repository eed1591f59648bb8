use super::*;
use crate::config::aardvark;
use crate::zone::Settings;

/// A query: id 0x1234, RD, one question.
fn query(name: &str, record_type: RecordType) -> Vec<u8> {
    let mut bytes = vec![0x12, 0x34, 0x01, 0x00, 0, 1, 0, 0, 0, 0, 0, 0];
    bytes.extend_from_slice(&crate::zone::wire_name(name).unwrap());
    bytes.extend_from_slice(&record_type.0.to_be_bytes());
    bytes.extend_from_slice(&CLASS_IN.to_be_bytes());
    bytes
}

fn snapshot(settings: Settings, files: &[(&str, &str)]) -> Snapshot {
    let mut builder = Snapshot::builder(settings);
    for (name, text) in files {
        builder.add(aardvark::parse(name, text.as_bytes()).unwrap());
    }
    builder.build()
}

fn origin(snapshot: &Snapshot, source: &str, network: &str) -> Origin {
    let network = snapshot.network(network).unwrap();
    Origin { source: source.parse().unwrap(), network, transport: Transport::Udp, turn: 0 }
}

#[test]
fn a_name_is_answered() {
    let names = snapshot(Settings::default(), &[("net", "10.89.0.1\nabc 10.89.0.2  web,alias\n")]);
    let mut out = Vec::new();
    let outcome =
        answer(&names, origin(&names, "10.89.0.2", "net"), &query("Web.dns.podman", RecordType::A), &mut out);
    assert_eq!(outcome, Outcome::Answered(Rcode::NOERROR));
    assert!(out.ends_with(&[10, 89, 0, 2]), "{out:x?}");
    let outcome =
        answer(&names, origin(&names, "10.89.0.2", "net"), &query("other", RecordType::A), &mut out);
    assert_eq!(outcome, Outcome::Forward(Upstreams::Host));
}
