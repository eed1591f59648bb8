use super::*;
use crate::config::aardvark;

fn snapshot(files: &[(&str, &str)]) -> Snapshot {
    let mut builder = Snapshot::builder(Settings::default());
    for (name, text) in files {
        builder.add(aardvark::parse(name, text.as_bytes()).unwrap());
    }
    builder.build()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn at(text: &str) -> SocketAddr {
    SocketAddr::new(ip(text), PORT)
}

/// The IPv4 addresses that `source`, asking on `network`, sees behind a name.
fn seen(names: &Snapshot, source: &str, network: &str, name: &str) -> Vec<Ipv4Addr> {
    let asker = names.asker(ip(source), names.network(network).unwrap());
    asker.addresses(name.as_bytes()).flat_map(|a| &a.v4).copied().collect()
}

fn upstreams(names: &Snapshot, source: &str) -> Vec<SocketAddr> {
    match names.asker(ip(source), NetworkId(0)).upstreams() {
        Upstreams::Host => Vec::new(),
        Upstreams::Listed(list) => list.to_vec(),
    }
}

const A: &str = "10.1.0.1\nc1 10.1.0.2  one,shared\nc2 10.1.0.3  two,shared\n";
const B: &str = "10.2.0.1,fd02::1 203.0.113.2\nc2 10.2.0.3 fd02::3 two,other\nc3 10.2.0.4  three,shared\n";

#[test]
fn one_sees_the_networks_one_lives_on() {
    let names = snapshot(&[("a", A), ("b", B)]);
    let own = ["10.1.0.2", "10.1.0.3"].map(|text| text.parse::<Ipv4Addr>().unwrap());
    assert_eq!(seen(&names, "10.1.0.2", "a", "shared"), own);
    assert!(seen(&names, "10.1.0.2", "a", "three").is_empty());
    // c2 lives on both, whichever address it uses and wherever it asks.
    for source in ["10.1.0.3", "10.2.0.3", "fd02::3", "::ffff:10.1.0.3"] {
        for network in ["a", "b"] {
            assert_eq!(seen(&names, source, network, "shared").len(), 3, "{source} {network}");
            assert_eq!(seen(&names, source, network, "two").len(), 2);
        }
    }
    // The host and strangers see the network they ask on.
    assert!(seen(&names, "10.2.0.1", "b", "one").is_empty());
    assert_eq!(seen(&names, "198.51.100.7", "a", "one").len(), 1);
}

#[test]
fn an_address_shared_by_two_sees_the_union() {
    let names = snapshot(&[("a", "10.1.0.1\nx 10.0.0.9  ex\n"), ("b", "10.2.0.1\ny 10.0.0.9  why\n")]);
    assert_eq!(seen(&names, "10.0.0.9", "a", "ex").len(), 1);
    assert_eq!(seen(&names, "10.0.0.9", "a", "why").len(), 1);
}

#[test]
fn internal_is_one_who_lives_on_nothing_else() {
    let names = snapshot(&[("a", A), ("b%int", B)]);
    let internal = |source| names.asker(ip(source), NetworkId(1)).internal();
    assert!(internal("10.2.0.4") && !internal("10.2.0.3") && !internal("10.1.0.2") && !internal("192.0.2.9"));
    assert_eq!(
        names.networks().map(|(_, n)| (n.name(), n.internal())).collect::<Vec<_>>(),
        [("a", false), ("b", true)]
    );
}

#[test]
fn servers_of_the_container_then_of_its_networks_then_of_the_host() {
    let a =
        "10.1.0.1 203.0.113.1\nc1 10.1.0.2  one 192.0.2.1,192.0.2.2\nc2 10.1.0.3  two\nc4 10.1.0.5  four\n";
    let names = snapshot(&[("a", a), ("b", B)]);
    assert_eq!(upstreams(&names, "10.1.0.2"), [at("192.0.2.1"), at("192.0.2.2")]);
    assert_eq!(upstreams(&names, "10.1.0.3"), [at("203.0.113.1"), at("203.0.113.2")]);
    assert_eq!(upstreams(&names, "10.1.0.5"), [at("203.0.113.1")]);
    assert_eq!(upstreams(&names, "198.51.100.9"), []);
    // Internal networks have none, and neither have containers there.
    let names = snapshot(&[("a", a), ("b%int", "10.2.0.1 203.0.113.2\nc1 10.2.0.3  one 192.0.2.9\n")]);
    assert_eq!(upstreams(&names, "10.1.0.2").len(), 2);
    assert_eq!(upstreams(&names, "10.2.0.3"), [at("203.0.113.1")]);
}

#[test]
fn names_without_addresses_are_nobodys_and_duplicates_stay() {
    let names = snapshot(&[("a", "10.1.0.1\nc1   ghost\nc2 10.1.0.2,10.1.0.2  twice,,\n")]);
    assert!(!names.asker(ip("10.1.0.2"), NetworkId(0)).knows(b"ghost"));
    assert!(!names.asker(ip("10.1.0.2"), NetworkId(0)).knows(b""));
    assert_eq!(seen(&names, "10.1.0.2", "a", "twice").len(), 2);
}

#[test]
fn addresses_have_names_for_those_who_live_there() {
    let names = snapshot(&[("a", A), ("b", B)]);
    let of =
        |source, address| names.asker(ip(source), NetworkId(0)).names_of(ip(address)).map(<[WireName]>::len);
    assert_eq!(of("10.1.0.2", "10.1.0.3"), Some(2));
    assert_eq!(of("10.1.0.2", "10.2.0.4"), None);
    assert_eq!(of("10.1.0.3", "fd02::3"), Some(2));
    assert_eq!(of("10.1.0.1", "10.1.0.3"), None, "strangers are not told");
}

#[test]
fn one_network_in_two_files_is_one_network() {
    let names = snapshot(&[("a", A), ("a%int", "10.9.0.1\nc9 10.9.0.9  nine\n")]);
    assert_eq!(names.networks().count(), 1);
    assert_eq!(seen(&names, "10.1.0.2", "a", "nine").len(), 1);
    assert_eq!(names.networks().next().unwrap().1.listen(), [ip("10.1.0.1"), ip("10.9.0.1")]);
}

#[test]
fn an_id_of_another_snapshot_sees_nothing() {
    let names = snapshot(&[("a", A)]);
    assert!(!names.asker(ip("192.0.2.1"), NetworkId(7)).knows(b"one"));
}

#[test]
fn wire_names() {
    assert_eq!(wire_name("a.bc").as_deref(), Some(&b"\x01a\x02bc\x00"[..]));
    assert_eq!(wire_name("a.bc."), wire_name("a.bc"));
    assert_eq!(wire_name(""), None);
    assert_eq!(wire_name("a..b"), None);
    assert_eq!(wire_name(&"a".repeat(64)), None);
    assert_eq!(wire_name(&"a.".repeat(130)), None);
}

#[test]
fn names_beyond_ascii_are_found_in_either_form() {
    let names = snapshot(&[("a", "10.1.0.1\nc1 10.1.0.2  Bücher\nc2 10.1.0.3  bücher\n")]);
    for name in ["bücher", "xn--bcher-kva"] {
        assert_eq!(seen(&names, "10.1.0.2", "a", name).len(), 2, "{name}");
    }
    let asker = names.asker(ip("10.1.0.2"), NetworkId(0));
    assert_eq!(asker.names_of(ip("10.1.0.3")).unwrap(), [wire_name("xn--bcher-kva").unwrap()]);
}
