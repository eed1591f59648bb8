use super::*;
use crate::wire;
use proptest::prelude::*;
use serde_json::json;

fn parse(text: &str) -> Result<Request, String> {
    Request::parse(text.as_bytes()).map_err(|refusal| refusal.text)
}

fn join(network: &Value, container: &Value) -> Result<(Network, Container), String> {
    let text = json!({ "execute": "join", "arguments": { "network": network, "container": container } });
    match parse(&text.to_string())? {
        Request::Join(join) => Ok(*join),
        other => panic!("{other:?}"),
    }
}

fn network() -> Value {
    json!({
        "id": "n1", "name": "net", "mtu": 1500, "dns_enabled": true, "internal": false,
        "subnets": [
            { "subnet": "10.89.0.0/24", "gateway": "10.89.0.1" },
            { "subnet": "fd00:1::/64", "gateway": "fd00:1::1" },
        ],
        "dns_servers": ["198.51.100.53"],
    })
}

fn container() -> Value {
    json!({ "id": "c1", "name": "Web", "names": ["www", "WEB", "0123456789ab"], "addresses": ["10.89.0.2", "fd00:1::2"] })
}

fn with(mut value: Value, key: &str, new: Value) -> Value {
    value[key] = new;
    value
}

#[test]
fn a_join_is_read_into_valid_types() {
    let (network, container) = join(&network(), &container()).unwrap();
    assert_eq!(network.v4.unwrap().1.to_string(), "10.89.0.1");
    assert_eq!(network.v6.unwrap().0.to_string(), "fd00:1::/64");
    assert_eq!(network.servers.len(), 1);
    assert_eq!(container.names, ["web", "www", "0123456789ab"]);
    assert_eq!((container.v4.len(), container.v6.len()), (1, 1));
    assert!(
        network.contains("10.89.0.77".parse().unwrap()) && !network.contains("10.90.0.1".parse().unwrap())
    );
}

#[test]
fn a_worker_reads_what_the_supervisor_has_read() {
    let many: Vec<_> = (0..256).map(|n| format!("Alias-{n}")).collect();
    for names in [json!(many), json!([]), json!(["web", "x"])] {
        let (network, container) = join(&network(), &with(container(), "names", names)).unwrap();
        let again = join(&json!(network), &json!(container)).unwrap();
        assert_eq!(again, (network, container));
    }
}

#[test]
fn what_may_be_absent_may_be_null() {
    let bare = json!({ "id": "n", "name": "n", "mtu": null, "subnets": [{ "subnet": "10.0.0.5/24", "gateway": "10.0.0.1" }] });
    let (network, container) =
        join(&bare, &json!({ "id": "c", "name": "c", "addresses": [], "labels": {} })).unwrap();
    assert_eq!((network.mtu, network.dns, network.internal), (1500, false, false));
    assert_eq!(network.v4.unwrap().0.to_string(), "10.0.0.0/24", "without host bits");
    assert_eq!(container.names, ["c"]);
    let nulls = json!({ "id": "n", "name": "n", "dns_enabled": null, "internal": null, "dns_servers": null,
        "subnets": [{ "subnet": "10.0.0.0/24", "gateway": "10.0.0.1" }] });
    assert!(join(&nulls, &json!({ "id": "c", "name": "c", "names": null, "addresses": [] })).is_ok());
    let port =
        json!([{ "host_ip": null, "host_port": 1, "container_port": 1, "protocol": null, "range": null }]);
    assert_eq!(publish(&port), publish(&json!([{ "host_port": 1, "container_port": 1 }])));
    let without = json!([{ "subnet": "10.0.0.0/24", "gateway": "10.0.0.1" }, { "subnet": "10.1.0.0/24" }, { "subnet": "fd00::/64", "gateway": null }]);
    let (network, _) =
        join(&with(bare, "subnets", without), &container_of(&["10.0.0.2", "fd00::2"])).unwrap();
    assert!(network.v4.is_some() && network.v6.is_none());
}

fn container_of(addresses: &[&str]) -> Value {
    json!({ "id": "c", "name": "c", "addresses": addresses })
}

#[test]
fn a_network_that_cannot_be_served_is_refused() {
    let subnets = |list: &Value| with(network(), "subnets", list.clone());
    for (bad, why) in [
        (with(network(), "id", json!("")), "network id"),
        (with(network(), "name", json!("a b")), "network name"),
        (with(network(), "name", json!("x".repeat(257))), "network name"),
        (with(network(), "mtu", json!(1279)), "1280 is the least"),
        (with(network(), "mtu", json!(70000)), "bad request"),
        (with(network(), "mtu", json!(-1)), "bad request"),
        (with(network(), "dns_servers", json!(vec!["192.0.2.1"; 257])), "more than 256"),
        (with(network(), "dns_servers", json!(["name"])), "bad request"),
        (subnets(&json!([])), "no subnet"),
        (subnets(&json!([{ "subnet": "10.0.0.0/24" }])), "no subnet"),
        (subnets(&json!([{ "subnet": "10.0.0.0/24", "gateway": "10.0.1.1" }])), "cannot be the gateway"),
        (subnets(&json!([{ "subnet": "10.0.0.0/24", "gateway": "10.0.0.0" }])), "cannot be the gateway"),
        (subnets(&json!([{ "subnet": "10.0.0.0/24", "gateway": "10.0.0.255" }])), "cannot be the gateway"),
        (subnets(&json!([{ "subnet": "10.0.0.0/24", "gateway": "fd00::1" }])), "cannot be the gateway"),
        (subnets(&json!([{ "subnet": "127.0.0.0/8", "gateway": "127.0.0.1" }])), "cannot be the gateway"),
        (subnets(&json!([{ "subnet": "10.0.0.0/33", "gateway": "10.0.0.1" }])), "bad request"),
        (
            subnets(
                &json!([{ "subnet": "10.0.0.0/24", "gateway": "10.0.0.1" }, { "subnet": "10.1.0.0/24", "gateway": "10.1.0.1" }]),
            ),
            "two subnets of one family",
        ),
    ] {
        let error = join(&bad, &container_of(&[])).unwrap_err();
        assert!(error.contains(why), "{bad}: {error}");
    }
    assert!(
        join(
            &with(
                with(network(), "mtu", json!(576)),
                "subnets",
                json!([{ "subnet": "10.0.0.0/24", "gateway": "10.0.0.1" }])
            ),
            &container_of(&[])
        )
        .is_ok()
    );
}

#[test]
fn a_container_that_does_not_fit_is_refused() {
    for (bad, why) in [
        (with(container(), "id", json!("a\nb")), "container id"),
        (with(container(), "name", json!("")), "container name"),
        (with(container(), "names", json!(["ok", "not ok"])), "alias"),
        (with(container(), "names", json!(vec!["a"; 257])), "more than 256"),
        (with(container(), "addresses", json!(["10.89.0.1"])), "other than the gateway"),
        (with(container(), "addresses", json!(["10.89.1.2"])), "expected one of 10.89.0.0/24"),
        (with(container(), "addresses", json!(["10.89.0.255"])), "is not the address"),
        (with(container(), "addresses", json!(["fd00:2::2"])), "is not the address"),
        (with(container(), "addresses", json!("10.89.0.2")), "bad request"),
        (json!({ "id": "c", "name": "c" }), "bad request"),
    ] {
        let error = join(&network(), &bad).unwrap_err();
        assert!(error.contains(why), "{bad}: {error}");
    }
}

fn publish(ports: &Value) -> Result<Vec<Mapping>, String> {
    let text = json!({ "execute": "publish", "arguments": { "container_id": "c", "ports": ports } });
    match parse(&text.to_string())? {
        Request::Publish { mappings, .. } => Ok(mappings),
        other => panic!("{other:?}"),
    }
}

#[test]
fn mappings_are_read_as_they_are_written() {
    let read =
        publish(&json!([{ "host_port": 8080, "container_port": 80, "protocol": "udp, tcp" }])).unwrap();
    assert_eq!((read[0].host_port, read[0].container_port, read[0].range), (8080, 80, 0));
    assert_eq!((read[0].host_ip.as_deref(), read[0].protocol.as_str()), (None, "udp, tcp"));
    let mut one = json!({ "host_port": 1, "container_port": 1 });
    assert!(publish(&json!(vec![one.clone(); 1025])).unwrap_err().contains("more than 1024"));
    one["host_port"] = json!(65536);
    for bad in [json!([one]), json!([{ "container_port": 1 }]), json!({})] {
        assert!(publish(&bad).unwrap_err().starts_with("bad request"), "{bad}");
    }
}

#[test]
fn other_requests_and_none() {
    assert_eq!(parse(r#"{"execute":"status"}"#), Ok(Request::Status));
    assert_eq!(parse(r#"{"execute":"status","arguments":{}}"#), Ok(Request::Status));
    assert_eq!(
        parse(r#"{"execute":"attach","arguments":{"network_id":"n"}}"#),
        Ok(Request::Attach { network: "n".into() })
    );
    assert_eq!(
        parse(r#"{"execute":"leave","arguments":{"network_id":"n","container_id":"c"}}"#),
        Ok(Request::Leave { network: "n".into(), container: "c".into() })
    );
    for bad in [
        "",
        "{",
        "[]",
        "null",
        "{}",
        r#"{"execute":7}"#,
        r#"{"execute":"join"}"#,
        r#"{"execute":"leave","arguments":{"network_id":"n"}}"#,
        "\0",
    ] {
        assert!(parse(bad).unwrap_err().starts_with("bad request"), "{bad}");
    }
    let error = parse(&json!({ "execute": "x".repeat(1000) }).to_string()).unwrap_err();
    assert!(error.len() < 200 && error.contains("none of join"), "{error}");
    assert!(parse(&" ".repeat(MAX_REQUEST + 1)).unwrap_err().contains("longer than"));
    assert!(parse(&"[".repeat(MAX_REQUEST)).is_err(), "depth is bounded");
}

#[test]
fn what_those_who_ask_write_is_what_is_read() {
    let (network, container): (wire::Network, wire::Container) =
        (serde_json::from_value(network()).unwrap(), serde_json::from_value(container()).unwrap());
    let ports =
        [Mapping { host_ip: None, host_port: 1, container_port: 2, protocol: "udp".into(), range: 3 }];
    let read = |request: wire::Request<'_>| parse(&serde_json::to_string(&request).unwrap()).unwrap();
    let Request::Join(join) = read(wire::Request::Join { network: &network, container: &container }) else {
        panic!("another request")
    };
    assert_eq!((join.0.id.as_str(), join.1.names.len()), ("n1", 3));
    assert_eq!(wire::Network::from(join.0), network);
    let attach = wire::Request::Attach { network_id: "n" };
    assert_eq!(read(attach), Request::Attach { network: "n".into() });
    let leave = wire::Request::Leave { network_id: "n", container_id: "c" };
    assert_eq!(read(leave), Request::Leave { network: "n".into(), container: "c".into() });
    let publish = wire::Request::Publish { container_id: "c", ports: &ports };
    assert_eq!(read(publish), Request::Publish { container: "c".into(), mappings: ports.to_vec() });
    assert_eq!(read(wire::Request::Status), Request::Status);
}

proptest! {
    #[test]
    fn nothing_makes_it_fail(bytes in proptest::collection::vec(any::<u8>(), 0..400), cut in 0_usize..400) {
        let _ = Request::parse(&bytes);
        // Nearly a request.
        let text = json!({ "execute": "join", "arguments": { "network": network(), "container": container() } }).to_string();
        let mut near = text.into_bytes();
        for (place, byte) in bytes.iter().enumerate().take(3) {
            let at = (cut * 7 + place * 131) % near.len();
            near[at] = *byte;
        }
        let _ = Request::parse(&near);
        let _ = Request::parse(&near[..cut.min(near.len())]);
    }
}
