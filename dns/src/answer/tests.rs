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

use hickory_proto::op::Message;
use proptest::prelude::*;

const A: &str = "10.1.0.1\nc1 10.1.0.2 fd01::2 web,alias\nc2 10.1.0.3  web\nc3  fd01::4 six\n";
const B: &str = "10.2.0.1\nc1 10.2.0.2  web,alias\nc4 10.2.0.4  hidden\n";

/// One question: the outcome, and the answer's records as text.
fn ask(
    names: &Snapshot,
    (source, network): (&str, &str),
    name: &str,
    record_type: RecordType,
) -> (Outcome<'static>, Vec<String>) {
    ask_turn(names, (source, network), name, record_type, 0)
}

fn ask_turn(
    names: &Snapshot,
    (source, network): (&str, &str),
    name: &str,
    record_type: RecordType,
    turn: u32,
) -> (Outcome<'static>, Vec<String>) {
    let mut out = Vec::new();
    let origin = Origin { turn, ..origin(names, source, network) };
    match answer(names, origin, &query(name, record_type), &mut out) {
        Outcome::Answered(rcode) => {
            let message = Message::from_vec(&out).unwrap();
            assert_eq!(message.queries.len(), 1);
            assert!(message.answers.iter().all(|record| record.ttl == 0));
            let data = message.answers.iter().map(|record| record.data.to_string());
            (Outcome::Answered(rcode), data.collect())
        }
        Outcome::Forward(Upstreams::Host) => (Outcome::Forward(Upstreams::Host), Vec::new()),
        other => panic!("{other:?}"),
    }
}

const NOERROR: Outcome<'_> = Outcome::Answered(Rcode::NOERROR);
const NXDOMAIN: Outcome<'_> = Outcome::Answered(Rcode::NXDOMAIN);
const FORWARD: Outcome<'_> = Outcome::Forward(Upstreams::Host);

#[test]
fn addresses_of_both_families() {
    let names = snapshot(Settings::default(), &[("a", A), ("b", B)]);
    let (c1, c2) = (("10.1.0.2", "a"), ("10.1.0.3", "a"));
    let all = ["10.1.0.2", "10.1.0.3", "10.2.0.2"].map(String::from).to_vec();
    assert_eq!(ask(&names, c1, "web", RecordType::A), (NOERROR, all.clone()));
    assert_eq!(ask(&names, c1, "WEB.dns.PODMAN", RecordType::A), (NOERROR, all));
    assert_eq!(ask(&names, c2, "web", RecordType::A).1, ["10.1.0.2", "10.1.0.3"]);
    assert_eq!(ask(&names, c2, "web", RecordType::AAAA), (NOERROR, vec!["fd01::2".into()]));
    // The name is there, the family is not.
    assert_eq!(ask(&names, c2, "six", RecordType::A), (NOERROR, vec![]));
    assert_eq!(ask(&names, c1, "hidden", RecordType::AAAA), (NOERROR, vec![]));
    // Not one's own networks: whoever is upstream may know.
    assert_eq!(ask(&names, c2, "hidden", RecordType::A), (FORWARD, vec![]));
    assert_eq!(ask(&names, c2, "hidden.dns.podman", RecordType::A), (NXDOMAIN, vec![]));
    assert_eq!(ask(&names, c2, "web.dns.podman.dns.podman", RecordType::A), (NXDOMAIN, vec![]));
    // The domain itself is not in the domain.
    assert_eq!(ask(&names, c2, "dns.podman", RecordType::A), (FORWARD, vec![]));
    // The gate compares the case, as the original does.
    assert_eq!(ask(&names, c2, "hidden.dns.Podman", RecordType::A), (FORWARD, vec![]));
}

#[test]
fn names_of_addresses() {
    let names = snapshot(Settings::default(), &[("a", A), ("b", B)]);
    let c2 = ("10.1.0.3", "a");
    assert_eq!(ask(&names, c2, "2.0.1.10.In-Addr.Arpa", RecordType::PTR).1, ["web.", "alias."]);
    let six = format!("4.{}1.0.d.f.ip6.arpa", "0.".repeat(27));
    assert_eq!(ask(&names, c2, &six, RecordType::PTR), (NOERROR, vec!["six.".into()]));
    for strange in
        ["4.0.2.10.in-addr.arpa", "1.10.in-addr.arpa", "x.2.0.1.10.in-addr.arpa", "02.0.1.10.in-addr.arpa"]
    {
        assert_eq!(ask(&names, c2, strange, RecordType::PTR), (FORWARD, vec![]), "{strange}");
    }
    assert_eq!(ask(&names, ("10.1.0.1", "a"), "2.0.1.10.in-addr.arpa", RecordType::PTR), (FORWARD, vec![]));
}

#[test]
fn other_types_of_a_name_that_exists_have_no_data() {
    let c2 = ("10.1.0.3", "a");
    for strict_names in [false, true] {
        let names = snapshot(Settings { strict_names, ..Settings::default() }, &[("a", A)]);
        for record_type in [15, 16, 33, 64, 65, 255, 12].map(RecordType) {
            for name in ["web", "WEB.dns.podman"] {
                assert_eq!(ask(&names, c2, name, record_type), (NOERROR, vec![]), "{name} {record_type}");
            }
            assert_eq!(ask(&names, c2, "elsewhere", record_type), (FORWARD, vec![]));
            assert_eq!(ask(&names, c2, "elsewhere.dns.podman", record_type), (NXDOMAIN, vec![]));
        }
        // An address's name, too.
        assert_eq!(ask(&names, c2, "2.0.1.10.in-addr.arpa", RecordType::A), (NOERROR, vec![]));
        assert_eq!(ask(&names, c2, "9.0.1.10.in-addr.arpa", RecordType::A), (FORWARD, vec![]));
        let in_capitals = if strict_names { NXDOMAIN } else { FORWARD };
        assert_eq!(ask(&names, c2, "hidden.dns.Podman", RecordType::A), (in_capitals, vec![]));
        let mut chaos = query("web", RecordType::A);
        *chaos.last_mut().unwrap() = 3;
        assert_eq!(answer(&names, origin(&names, "10.1.0.3", "a"), &chaos, &mut Vec::new()), FORWARD);
    }
}

#[test]
fn nothing_leaves_an_internal_network_or_a_server_that_forwards_nothing() {
    let names = snapshot(Settings::default(), &[("a%int", A), ("b", B)]);
    assert_eq!(ask(&names, ("10.1.0.3", "a"), "example.org", RecordType::A), (NXDOMAIN, vec![]));
    assert_eq!(ask(&names, ("10.1.0.3", "a"), "web", RecordType(16)), (NOERROR, vec![]));
    assert_eq!(ask(&names, ("10.1.0.2", "a"), "example.org", RecordType::A), (FORWARD, vec![]));
    assert_eq!(ask(&names, ("10.1.0.1", "a"), "example.org", RecordType::A), (FORWARD, vec![]));
    let names = snapshot(Settings { forwarding: false, ..Settings::default() }, &[("a", A)]);
    assert_eq!(ask(&names, ("10.1.0.2", "a"), "example.org", RecordType::A), (NXDOMAIN, vec![]));
    assert_eq!(ask(&names, ("10.1.0.2", "a"), "web", RecordType::A).0, NOERROR);
}

#[test]
fn another_filter_domain_or_none() {
    let domain = |text: &str| Settings { filter_domain: text.into(), ..Settings::default() };
    let names = snapshot(domain(".Example"), &[("a", A)]);
    let c2 = ("10.1.0.3", "a");
    assert_eq!(ask(&names, c2, "six.example", RecordType::AAAA).1, ["fd01::4"]);
    assert_eq!(ask(&names, c2, "no.example", RecordType::A), (NXDOMAIN, vec![]));
    assert_eq!(ask(&names, c2, "six.dns.podman", RecordType::A), (FORWARD, vec![]));
    let names = snapshot(domain(""), &[("a", A)]);
    assert_eq!(ask(&names, c2, "elsewhere", RecordType::A), (FORWARD, vec![]));
}

#[test]
fn rotation_moves_the_first_address() {
    let rotated = Settings { order: Order::Rotated, ..Settings::default() };
    let names = snapshot(rotated, &[("a", A), ("b", B)]);
    let turn = |turn| ask_turn(&names, ("10.1.0.2", "a"), "web", RecordType::A, turn).1;
    assert_eq!(turn(0), ["10.1.0.2", "10.1.0.3", "10.2.0.2"]);
    assert_eq!(turn(1), ["10.1.0.3", "10.2.0.2", "10.1.0.2"]);
    assert_eq!(turn(u32::MAX), turn(0));
    assert_eq!(ask_turn(&names, ("10.1.0.2", "a"), "six", RecordType::A, 5).1, [""; 0]);
    // Not on request: never.
    let names = snapshot(Settings::default(), &[("a", A), ("b", B)]);
    assert_eq!(ask_turn(&names, ("10.1.0.2", "a"), "web", RecordType::A, 1).1, turn(0));
}

#[test]
fn many_addresses_over_udp() {
    let addresses: Vec<String> = (0..9000).map(|n| format!("10.9.{}.{}", n / 250, n % 250 + 1)).collect();
    let file = format!("10.9.255.1\nc {}  many\n", addresses.join(","));
    let size = |settings: Settings, transport| {
        let names = snapshot(settings, &[("a", &file)]);
        let origin = Origin { transport, ..origin(&names, "10.9.0.1", "a") };
        let mut out = Vec::new();
        assert_eq!(answer(&names, origin, &query("many", RecordType::A), &mut out), NOERROR);
        let message = Message::from_vec(&out).unwrap();
        (out.len(), message.metadata.truncation)
    };
    let (len, truncated) = size(Settings::default(), Transport::Udp);
    assert!(len <= MAX_DATAGRAM && len > MAX_DATAGRAM - 16 && truncated, "{len}");
    let (len, truncated) = size(Settings::default(), Transport::Tcp);
    assert!(len <= message::MAX_MESSAGE && truncated);
    let keep = Settings { keep_udp_size: true, ..Settings::default() };
    let (len, truncated) = size(keep.clone(), Transport::Udp);
    assert!(len <= 512 && len > 512 - 16 && truncated);
    assert!(size(keep, Transport::Tcp).0 > 512);
}

#[test]
fn several_questions_and_none() {
    let names = snapshot(Settings::default(), &[("a", A)]);
    let mut two = query("six", RecordType::AAAA);
    two[5] = 2;
    two.extend_from_slice(b"\xc0\x0c\x00\x01\x00\x01");
    let mut out = Vec::new();
    assert_eq!(answer(&names, origin(&names, "10.1.0.3", "a"), &two, &mut out), NOERROR);
    let message = Message::from_vec(&out).unwrap();
    assert_eq!((message.queries.len(), message.answers.len()), (2, 1));
    assert_eq!(answer(&names, origin(&names, "10.1.0.3", "a"), &[0; 12], &mut out), FORWARD);
    let dropped = answer(&names, origin(&names, "10.1.0.3", "a"), &[0; 11], &mut out);
    assert_eq!(dropped, Outcome::Drop(Malformed::Truncated));
}

#[test]
fn reverse_names() {
    let address = |text: &str| reverse_address(text.as_bytes());
    assert_eq!(address("4.3.2.1.in-addr.arpa."), "1.2.3.4".parse().ok());
    for bad in ["", ".", "in-addr.arpa.", ".in-addr.arpa.", "3.2.1.in-addr.arpa.", "5.4.3.2.1.in-addr.arpa."]
    {
        assert_eq!(address(bad), None, "{bad}");
    }
    for bad in ["+4.3.2.1.in-addr.arpa.", "256.3.2.1.in-addr.arpa.", "..2.1.in-addr.arpa.", "f.ip6.arpa."] {
        assert_eq!(address(bad), None, "{bad}");
    }
    let long = format!("{}ip6.arpa.", "f.".repeat(33));
    assert_eq!(address(&long), None);
    assert_eq!(address(&long[2..]), "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff".parse().ok());
}

proptest! {
    /// Whatever comes, an answer can be read and is about the question.
    #[test]
    fn any_message(bytes in proptest::collection::vec(any::<u8>(), 12..200), strict: bool) {
        let settings = Settings { strict_names: strict, ..Settings::default() };
        let names = snapshot(settings, &[("a", A)]);
        let mut bytes = bytes;
        (bytes[2], bytes[4], bytes[5]) = (bytes[2] & 0x7f, 0, bytes[5] & 3);
        bytes[6..12].fill(0);
        let mut out = Vec::new();
        if let Outcome::Answered(_) = answer(&names, origin(&names, "10.1.0.3", "a"), &bytes, &mut out) {
            prop_assert_eq!(&out[..2], &bytes[..2]);
        }
    }

    /// Addresses and their reverse names.
    #[test]
    fn reverse_names_of_all_addresses(v4: [u8; 4], v6: [u8; 16]) {
        let name = format!("{}.{}.{}.{}.in-addr.arpa.", v4[3], v4[2], v4[1], v4[0]);
        prop_assert_eq!(reverse_address(name.as_bytes()), Some(v4.into()));
        let nibbles: String = v6.iter().rev().map(|b| format!("{:x}.{:x}.", b & 15, b >> 4)).collect();
        prop_assert_eq!(reverse_address(format!("{nibbles}ip6.arpa.").as_bytes()), Some(v6.into()));
    }
}
