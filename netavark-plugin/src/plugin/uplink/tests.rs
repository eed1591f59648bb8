//! The conversation, with the test double and with answers that make no sense.

use super::*;
use crate::plugin::fake::Fake;
use serde_json::json;
use slipway_host::sys::fdpass;
use slipway_uplink::wire::Subnet;
use std::os::fd::AsFd as _;

fn network() -> Network {
    Network {
        id: "n1".into(),
        name: "net".into(),
        mtu: Some(65520),
        dns_enabled: true,
        internal: false,
        subnets: vec![Subnet {
            subnet: "10.89.0.0/24".parse().unwrap(),
            gateway: Some("10.89.0.1".parse().unwrap()),
        }],
        dns_servers: vec![],
    }
}

fn container(id: &str) -> Container {
    Container {
        id: id.into(),
        name: format!("name-{id}"),
        names: vec!["alias".into()],
        addresses: vec!["10.89.0.2".parse().unwrap()],
        dns_servers: None,
    }
}

fn ports() -> Vec<PortMapping> {
    serde_json::from_value(
        json!([{"container_port": 80, "host_port": 8080, "host_ip": "", "protocol": "tcp", "range": 1}]),
    )
    .unwrap()
}

fn started() -> (tempfile::TempDir, Fake) {
    let directory = tempfile::tempdir().unwrap();
    let fake = Fake::start(&directory.path().join("uplink.sock"));
    (directory, fake)
}

#[test]
fn requests_are_those_of_the_protocol() {
    let (_directory, fake) = started();
    let uplink = Uplink::connect(fake.path()).unwrap();
    assert!(!uplink.join(&network(), &container("c1")).unwrap());
    assert!(!uplink.join(&network(), &container("c2")).unwrap());
    uplink.publish("c1", &ports()).unwrap();
    {
        let books = fake.books();
        assert_eq!(
            books.networks["n1"].told,
            json!({"id": "n1", "name": "net", "mtu": 65520, "dns_enabled": true, "internal": false,
                "subnets": [{"subnet": "10.89.0.0/24", "gateway": "10.89.0.1"}], "dns_servers": []})
        );
        assert_eq!(
            books.networks["n1"].containers["c1"],
            json!({"id": "c1", "name": "name-c1", "names": ["alias"], "addresses": ["10.89.0.2"]})
        );
        assert_eq!(books.rules[0].1[0]["host_port"], 8080);
    }
    assert_eq!(uplink.leave("n1", "c1").unwrap(), 1);
    assert_eq!(uplink.leave("n1", "c2").unwrap(), 0);
    assert_eq!(uplink.leave("n1", "c2").unwrap(), 0, "gone already");
    assert_eq!(fake.asked(), ["join", "join", "publish", "leave", "leave", "leave"]);
}

#[test]
fn an_uplink_that_does_not_run_is_told_in_one_line() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("uplink.sock");
    let root = user::is_root_of_the_machine();
    let way = if root { "systemctl enable" } else { "systemctl --user enable" };
    let wanted = |words: &str| {
        format!(
            "slipway uplink does not run ({}: {words}): start it by `{way} --now slipway-uplink.socket`, or by `slipway uplink &`",
            path.display()
        )
    };
    let text = || Uplink::connect(&path).unwrap_err().to_string();
    assert_eq!(text(), wanted("No such file or directory"));
    let fake = Fake::start(&path);
    std::fs::hard_link(&path, directory.path().join("kept")).unwrap();
    drop(fake);
    std::fs::rename(directory.path().join("kept"), &path).unwrap();
    assert_eq!(text(), wanted("Connection refused"));
    let long = Path::new("/x").join("x".repeat(200));
    assert!(Uplink::connect(&long).unwrap_err().to_string().contains("File name too long"));
}

#[test]
fn a_refusal_is_told_and_a_port_in_use_with_advice() {
    let (_directory, fake) = started();
    let uplink = Uplink::connect(fake.path()).unwrap();
    fake.instead("join", json!({"error": "no luck"}));
    let error = uplink.join(&network(), &container("c1")).unwrap_err();
    assert_eq!(error.to_string(), "the uplink does not take the container in: no luck");
    let advice = "; if it is Podman itself that holds the port, set enable_port_reservation=false in the section [engine] of \
                  containers.conf";
    for (answer, advised) in [
        (json!({"error": "tcp 8080: taken", "errno": 98}), true),
        (json!({"error": "tcp 8080: Address already in use (os error 98)"}), true),
        (json!({"error": "tcp 80: Permission denied", "errno": 13}), false),
    ] {
        let said = answer["error"].as_str().unwrap().to_owned();
        fake.instead("publish", answer);
        let text = uplink.publish("c1", &ports()).unwrap_err().to_string();
        let end = if advised { advice } else { "" };
        assert_eq!(text, format!("the uplink does not publish ports: {said}{end}"));
    }
}

#[test]
fn answers_that_make_no_sense_are_told() {
    let request = Request::Leave { network_id: "n", container_id: "c" };
    for text in
        ["", "{", "[]", "{}", r#"{"return":null}"#, r#"{"return":{"containers":-1}}"#, r#"{"error":1}"#, "\0"]
    {
        let failure = read::<Left>(text.as_bytes()).unwrap_err();
        let error = explain(Path::new("/x"), request, failure).to_string();
        assert!(error.starts_with("the uplink's answer makes no sense: "), "{text}: {error}");
    }
    let left: Left = read(br#"{"return":{"containers":3,"more":[]},"id":1}"#).unwrap();
    assert_eq!(left.containers, 3);
}

#[test]
fn an_uplink_that_ends_in_between_is_told() {
    let (_directory, fake) = started();
    let uplink = Uplink::connect(fake.path()).unwrap();
    uplink.join(&network(), &container("c1")).unwrap();
    let end = std::thread::scope(|scope| {
        // The double ends the conversation when a message makes no sense to it.
        fdpass::send(uplink.client.as_fd(), b"{", None).unwrap();
        scope.spawn(|| uplink.leave("n1", "c1").unwrap_err().to_string()).join().unwrap()
    });
    assert!(end.contains("was lost"), "{end}");
}

#[test]
fn a_request_that_is_too_long_is_not_sent() {
    let (_directory, fake) = started();
    let uplink = Uplink::connect(fake.path()).unwrap();
    let mut many = container("c1");
    many.names = (0..10_000).map(|number| format!("alias-{number}")).collect();
    let error = uplink.join(&network(), &many).unwrap_err().to_string();
    assert!(error.starts_with("the uplink takes 65536 bytes at a time, not 1"), "{error}");
    assert_eq!(fake.asked(), [""; 0]);
}
