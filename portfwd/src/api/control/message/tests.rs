use super::*;
use crate::rule::passt::Capabilities;
use proptest::prelude::*;

const ALL: Context = Context { can: Capabilities::ALL, ephemeral: (32_768, 60_999) };

fn parsed(value: &Value) -> Result<Request, Refusal> {
    Request::parse(value.to_string().as_bytes(), &ALL)
}

fn added(rule: &Value) -> Vec<String> {
    match parsed(&json!({ "execute": "add", "arguments": { "rules": [rule] } })) {
        Ok(Request::Add(entries)) => {
            entries[0].iter().map(|rule| Draft::from(rule).to_string().trim_end().to_owned()).collect()
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_rule_is_fields_or_an_option_of_pasta() {
    assert_eq!(added(&json!({ "ports": 8080 })), ["TCP [*]:8080  =>  8080"]);
    let all = json!({ "side": "host", "proto": "udp", "listen": "::1", "interface": "lo", "ports": [5000, 5002],
        "to": 6000, "target": "fd00::2", "best_effort": true, "auto": true });
    assert_eq!(added(&all), ["UDP [::1]%lo:5000-5002  =>  fd00::2:6000-6002  (best effort) (auto-scan)"]);
    assert_eq!(added(&json!({ "listen": null, "ports": [80, 80], "target": "::" })), ["TCP [*]:80  =>  80"]);
    assert_eq!(added(&json!({ "spec": "80,82:83" })), ["TCP [*]:80  =>  80", "TCP [*]:82  =>  83"]);
    assert_eq!(added(&json!({ "option": "U", "spec": "53" })), ["UDP [*]%lo:53  =>  53"]);
    assert_eq!(added(&json!({ "option": "U", "spec": "none" })), [""; 0]);
}

#[test]
fn what_is_wrong_is_said_with_the_entry_that_is_to_blame() {
    let refused = |rule: Value| {
        let request = json!({ "execute": "replace", "arguments": { "rules": [{ "ports": 1 }, rule] } });
        let refusal = parsed(&request).unwrap_err();
        assert_eq!((refusal.entry, refusal.errno), (Some(1), Errno::EINVAL));
        refusal.text
    };
    assert!(
        refused(json!({ "listn": "127.0.0.1", "ports": 80 }))
            .starts_with("a rule has an unknown key: known are side")
    );
    assert_eq!(refused(json!(7)), "a rule must be an object");
    for ports in
        [json!(null), json!("80"), json!(65_536), json!(-1), json!(80.5), json!([80]), json!([80, 81, 82])]
    {
        let text = refused(json!({ "ports": ports }));
        assert_eq!(text, "ports of a rule must be a port, or a list of the first and the last");
    }
    assert!(refused(json!({ "ports": 0 })).starts_with("Forwarding rule attempts to map from port 0\n"));
    assert!(
        refused(json!({ "ports": [81, 80] }))
            .starts_with("Forwarding rule has an impossible range of ports\n")
    );
    assert!(
        refused(json!({ "ports": [1, 65_535], "to": 2 }))
            .starts_with("Forwarding rule has an impossible range")
    );
    assert_eq!(refused(json!({ "ports": 80, "to": 65_536 })), "to of a rule must be a port");
    assert_eq!(refused(json!({ "ports": 80, "listen": "x" })), "listen of a rule must be an IP address");
    assert_eq!(
        refused(json!({ "ports": 80, "interface": "a/b" })),
        "interface of a rule must be the name of an interface"
    );
    assert_eq!(refused(json!({ "ports": 80, "auto": 1 })), "auto of a rule must be true or false");
    assert_eq!(refused(json!({ "ports": 80, "side": "guest" })), "side of a rule must be host or namespace");
    assert_eq!(refused(json!({ "ports": 80, "proto": "sctp" })), "proto of a rule must be tcp or udp");
    assert_eq!(refused(json!({ "option": "t", "spec": "80:x" })), "Invalid port specifier '80:x'");
    assert_eq!(
        refused(json!({ "option": "x", "spec": "80" })),
        "option of a rule with spec must be one of t, u, T, U"
    );
    assert!(refused(json!({ "spec": "80", "ports": 80 })).starts_with("a rule with spec has an unknown key"));
    let families = json!({ "listen": "127.0.0.1", "ports": 80, "target": "::1" });
    assert!(refused(families).starts_with("Forward from IPv4 (127.0.0.1) to IPv6 (::1) unsupported\n"));
}

#[test]
fn requests_are_told_apart() {
    assert_eq!(parsed(&json!({ "execute": "list" })), Ok(Request::List(0)));
    assert_eq!(parsed(&json!({ "execute": "list", "arguments": { "after": 7 } })), Ok(Request::List(7)));
    let ids = |ids: Value| parsed(&json!({ "execute": "remove", "arguments": { "ids": ids } }));
    assert_eq!(ids(json!([])), Ok(Request::Remove(Vec::new())));
    assert!(matches!(ids(json!([3, 1])), Ok(Request::Remove(ids)) if ids.len() == 2));
    for wrong in [json!([0]), json!([-1]), json!(["1"]), json!(1), json!(null)] {
        assert_eq!(ids(wrong).unwrap_err().errno, Errno::EINVAL);
    }
    let text = |value: Value| parsed(&value).unwrap_err().text;
    assert_eq!(text(json!({})), "execute is one of add, replace, remove, list, connections");
    assert_eq!(text(json!([])), "the request must be an object");
    assert_eq!(text(json!({ "execute": 7 })), "execute of the request must be a string");
    assert_eq!(text(json!({ "execute": "list", "arguments": [] })), "arguments must be an object");
    let many = json!({ "execute": "add", "arguments": { "rules": vec![json!({}); MAX_BATCH + 1] } });
    assert_eq!(text(many), "rules of arguments must be no longer than 510");
    assert_eq!(
        Request::parse(&[b' '; MAX_REQUEST + 1], &ALL).unwrap_err().text,
        "a request has at most 65536 bytes"
    );
    assert!(Request::parse(b"{", &ALL).unwrap_err().text.starts_with("the request is no JSON: EOF"));
    let nested = "[".repeat(60_000);
    assert!(Request::parse(nested.as_bytes(), &ALL).unwrap_err().text.contains("recursion limit"));
}

#[test]
fn a_refusal_is_an_object() {
    let refusal = Refusal { text: "two\nlines".to_owned(), errno: Errno::EADDRINUSE, entry: Some(3) };
    assert_eq!(refusal.to_json(), r#"{"entry":3,"errno":98,"error":"two\nlines"}"#);
    assert_eq!(Refusal::bad("no").to_json(), r#"{"errno":22,"error":"no"}"#);
}

proptest! {
    #[test]
    fn any_rule_is_printed_so_that_it_is_read_again(
        first: u16, more in 0..9_u16, to: u16, six: bool, listens in 0..3, aims: bool, weak: bool, scan: bool,
    ) {
        let address = |n: u16| if six { format!("fd00::{n:x}") } else { format!("10.9.{}.9", n & 255) };
        let listen = match listens { 0 => None, 1 => Some(address(1)), _ => Some(if six { "::" } else { "0.0.0.0" }.to_owned()) };
        let rule = json!({ "listen": listen, "ports": [first, first.saturating_add(more)], "to": to,
            "target": aims.then(|| address(2)), "best_effort": weak, "auto": scan });
        let request = json!({ "execute": "add", "arguments": { "rules": [rule] } });
        prop_assert!(!dry_run(request.to_string().as_bytes(), &ALL).is_empty());
    }

    #[test]
    fn any_bytes_are_survived(packet: Vec<u8>) {
        prop_assert!(!dry_run(&packet, &ALL).is_empty());
    }
}
