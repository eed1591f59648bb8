use super::*;
use proptest::prelude::*;

fn refusal(text: &str) -> String {
    match Request::parse(text.as_bytes(), true) {
        Some(Err(refusal)) => refusal.to_string(),
        other => panic!("{text}: {other:?}"),
    }
}

fn added(arguments: &str) -> Rule {
    let text = format!(r#"{{"execute":"add_hostfwd","arguments":{arguments}}}"#);
    match Request::parse(text.as_bytes(), false) {
        Some(Ok(Request::Add(rule))) => rule,
        other => panic!("{text}: {other:?}"),
    }
}

#[test]
fn every_error_has_the_words_of_the_contract() {
    for (text, expected) in [
        ("badjson\n", "bad request: cannot parse JSON"),
        ("", "bad request: cannot parse JSON"),
        (r#"{"execute":"list_hostfwd""#, "bad request: cannot parse JSON"),
        (r#"{"execute":"list_hostfwd",}"#, "bad request: cannot parse JSON"),
        ("[]", "bad request: json_object() failed"),
        ("42", "bad request: json_object() failed"),
        ("null", "bad request: json_object() failed"),
        (r#"{"unexpectedjson": 42}"#, "bad request: no execute found"),
        (r#"{"execute": 1}"#, "bad request: no execute found"),
        (r#"{"execute": null}"#, "bad request: no execute found"),
        (r#"{"execute": "bad"}"#, "bad request: unknown execute"),
        (r#"{"execute": ""}"#, "bad request: unknown execute"),
        (r#"{"execute":"remove_hostfwd"}"#, "bad request: remove_hostfwd: bad arguments.id"),
        (
            r#"{"execute":"remove_hostfwd","arguments":{"id":0}}"#,
            "bad request: remove_hostfwd: bad arguments.id",
        ),
        (
            r#"{"execute":"remove_hostfwd","arguments":{"id":-1}}"#,
            "bad request: remove_hostfwd: bad arguments.id",
        ),
        (
            r#"{"execute":"remove_hostfwd","arguments":{"id":1.5}}"#,
            "bad request: remove_hostfwd: bad arguments.id",
        ),
        (
            r#"{"execute":"remove_hostfwd","arguments":{"id":"1"}}"#,
            "bad request: remove_hostfwd: bad arguments.id",
        ),
        (r#"{"execute":"remove_hostfwd","arguments":[1]}"#, "bad request: remove_hostfwd: bad arguments.id"),
    ] {
        assert_eq!(refusal(text), expected, "{text}");
    }
}

#[test]
fn of_several_bad_arguments_the_first_is_named() {
    for (arguments, argument) in [
        ("null", "proto"),
        ("7", "proto"),
        ("{}", "proto"),
        (r#"{"host_port":8080,"guest_port":80}"#, "proto"),
        (r#"{"proto":"bad","host_addr":"bad"}"#, "proto"),
        (r#"{"proto":"TCP","host_port":8080,"guest_port":80}"#, "proto"),
        (r#"{"proto":6,"host_port":8080,"guest_port":80}"#, "proto"),
        (r#"{"proto":"tcp","host_addr":"bad","host_port":0}"#, "host_addr"),
        (r#"{"proto":"tcp","host_addr":5}"#, "host_addr"),
        (r#"{"proto":"tcp","host_addr":"127.0.0.1:80"}"#, "host_addr"),
        (r#"{"proto":"tcp","host_addr":"[::1]"}"#, "host_addr"),
        (r#"{"proto":"tcp4","host_addr":"::1"}"#, "host_addr"),
        (r#"{"proto":"tcp","host_addr":"fe80::1"}"#, "host_addr"),
        (r#"{"proto":"tcp","host_addr":"fe80::1%"}"#, "host_addr"),
        (r#"{"proto":"tcp","host_addr":"fe80::1%eth\"0"}"#, "host_addr"),
        (r#"{"proto":"tcp","host_addr":"::1%lo"}"#, "host_addr"),
        (r#"{"proto":"tcp","host_addr":"10.0.0.1%eth0"}"#, "host_addr"),
        (r#"{"proto":"tcp4","host_addr":"fe80::1%eth0"}"#, "host_addr"),
        (r#"{"proto":"tcp","host_port":8080,"guest_addr":"fe80::1%eth0"}"#, "guest_addr"),
        (r#"{"proto":"udp6","host_addr":"127.0.0.1"}"#, "host_addr"),
        (r#"{"proto":"tcp","guest_addr":"bad"}"#, "host_port"),
        (r#"{"proto":"tcp","host_port":0,"guest_port":80}"#, "host_port"),
        (r#"{"proto":"tcp","host_port":"8080","guest_port":80}"#, "host_port"),
        (r#"{"proto":"tcp","host_port":8080.5,"guest_port":80}"#, "host_port"),
        (r#"{"proto":"tcp","host_port":-1,"guest_port":80}"#, "host_port"),
        (r#"{"proto":"tcp","host_port":65536,"guest_port":80}"#, "host_port"),
        (r#"{"proto":"tcp","host_port":1e300,"guest_port":80}"#, "host_port"),
        (r#"{"proto":"tcp","host_port":18446744073709551616,"guest_port":80}"#, "host_port"),
        (r#"{"proto":"tcp","host_port":8080,"guest_addr":"bad","guest_port":0}"#, "guest_addr"),
        (
            r#"{"proto":"tcp","host_addr":"127.0.0.1","host_port":1,"guest_addr":"fd00::1","guest_port":1}"#,
            "guest_addr",
        ),
        (r#"{"proto":"tcp","host_port":1,"guest_addr":"224.0.0.1","guest_port":1}"#, "guest_addr"),
        (r#"{"proto":"tcp","host_port":8080}"#, "guest_port"),
        (r#"{"proto":"tcp","host_port":8080,"guest_port":65536}"#, "guest_port"),
    ] {
        let text = format!(r#"{{"execute":"add_hostfwd","arguments":{arguments}}}"#);
        let expected = format!("bad request: add_hostfwd: bad arguments.{argument}");
        assert_eq!(refusal(&text), expected, "{text}");
    }
}

#[test]
fn absent_and_empty_addresses_have_defaults() {
    let rule = added(r#"{"proto":"tcp","host_addr":"","host_port":8080,"guest_addr":"","guest_port":80}"#);
    assert_eq!(rule.to_string(), "0.0.0.0:8080:80/tcp");
    assert_eq!(added(r#"{"proto":"tcp","host_port":8080,"guest_port":80}"#), rule);
    assert_eq!(added(r#"{"proto":"tcp4","host_addr":null,"host_port":8080.0,"guest_port":8e1}"#), rule);
    let rule = added(
        r#"{"proto":"udp","host_addr":"127.0.0.1","host_port":1,"guest_addr":"10.0.2.7","guest_port":2}"#,
    );
    assert_eq!(rule.to_string(), "127.0.0.1:1:10.0.2.7:2/udp");
    let rule = added(r#"{"proto":"udp","host_port":1,"guest_addr":"0.0.0.0","guest_port":2}"#);
    assert_eq!(rule.to_string(), "0.0.0.0:1:2/udp");
}

#[test]
fn ipv6_is_understood() {
    let rule = added(r#"{"proto":"tcp","host_addr":"::1","host_port":8080,"guest_port":80}"#);
    assert_eq!(rule.to_string(), "[::1]:8080:80/tcp");
    let rule = added(r#"{"proto":"tcp6","host_port":8080,"guest_port":80}"#);
    assert_eq!(rule.to_string(), "[::]:8080:80/tcp");
    let rule = added(r#"{"proto":"udp","host_port":8080,"guest_addr":"fd00::7","guest_port":80}"#);
    assert_eq!(rule.to_string(), "[::]:8080:[fd00::7]:80/udp");
    let rule = added(r#"{"proto":"udp6","host_addr":"fe80::1%eth0","host_port":8080,"guest_port":80}"#);
    assert_eq!(rule.to_string(), "[fe80::1%eth0]:8080:80/udp");
}

#[test]
fn list_and_remove_are_read() {
    let parse = |text: &str| Request::parse(text.as_bytes(), false);
    assert_eq!(parse("{\"execute\": \"list_hostfwd\"}\n"), Some(Ok(Request::List)));
    assert_eq!(parse("{\"execute\": \"list_hostfwd\"} trailing"), Some(Ok(Request::List)));
    let id = RuleId::from(NonZeroU64::new(7).unwrap());
    assert_eq!(parse(r#"{"execute":"remove_hostfwd","arguments":{"id":7}}"#), Some(Ok(Request::Remove(id))),);
}

#[test]
fn an_endless_message_is_too_large() {
    assert_eq!(Request::parse(&[0; MAX_REQUEST], false), Some(Err(Refusal::TooLarge)));
    assert_eq!(Request::parse(&[b' '; MAX_REQUEST], false), Some(Err(Refusal::TooLarge)));
    assert_eq!(Request::parse(&[b'x'; MAX_REQUEST], false), Some(Err(Refusal::TooLarge)));
    assert_eq!(Refusal::TooLarge.to_string(), "bad request: too large message");
    // Fewer zeros are the empty text: there may be more.
    assert_eq!(Request::parse(&[0; MAX_REQUEST - 1], false), None);
}

#[test]
fn deep_nesting_is_refused() {
    assert_eq!(Request::parse(&[b'['; MAX_REQUEST - 1], false), Some(Err(Refusal::Json)));
}

#[test]
fn replies_are_compact_and_keep_their_order() {
    assert_eq!(Reply::Added(RuleId::FIRST).to_string(), r#"{"return":{"id":1}}"#);
    assert_eq!(Reply::Removed.to_string(), r#"{"return":{}}"#);
    assert_eq!(Reply::Entries(Vec::new()).to_string(), r#"{"return":{"entries":[]},"entries":[]}"#);
    assert_eq!(
        Reply::Refused(Refusal::AddFailed).to_string(),
        r#"{"error":{"desc":"bad request: add_hostfwd: slirp_add_hostfwd failed"}}"#,
    );
    let entry = Entry {
        id: RuleId::FIRST,
        proto: Proto::Tcp,
        host: Endpoint { address: "0.0.0.0".parse().unwrap(), port: 8080 },
        guest: "10.0.2.100:80".parse().unwrap(),
    };
    let list = concat!(
        r#"{"id":1,"proto":"tcp","host_addr":"0.0.0.0","host_port":8080,"#,
        r#""guest_addr":"10.0.2.100","guest_port":80}"#,
    );
    assert_eq!(
        Reply::Entries(vec![entry]).to_string(),
        format!(r#"{{"return":{{"entries":[{list}]}},"entries":[{list}]}}"#),
    );
}

/// Near misses of requests: the right words in the wrong places.
fn any_json() -> impl Strategy<Value = Value> {
    let text = prop_oneof![
        Just("add_hostfwd"),
        Just("list_hostfwd"),
        Just("remove_hostfwd"),
        Just("tcp"),
        Just("udp6"),
        Just("::1"),
        Just("127.0.0.1"),
        Just("fe80::1%lo"),
        Just(""),
        Just("\u{0}\"\\"),
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u16>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        text.prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        let key = prop_oneof![
            Just("execute"),
            Just("arguments"),
            Just("proto"),
            Just("host_addr"),
            Just("host_port"),
            Just("guest_addr"),
            Just("guest_port"),
            Just("id"),
        ];
        let fields = proptest::collection::vec((key.prop_map(str::to_owned), inner.clone()), 0..8);
        prop_oneof![
            proptest::collection::vec(inner, 0..4).prop_map(Value::from),
            fields.prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

fn assert_reply(reply: &str) {
    let value: Value = serde_json::from_str(reply).unwrap_or_else(|error| panic!("{reply}: {error}"));
    assert!(value.get("return").is_some() != value.get("error").is_some(), "{reply}");
}

proptest! {
    #[test]
    fn any_bytes_get_a_json_reply(bytes in proptest::collection::vec(any::<u8>(), 0..5000)) {
        assert_reply(&dry_run(&bytes));
    }

    #[test]
    fn any_json_gets_a_json_reply(value in any_json()) {
        assert_reply(&dry_run(value.to_string().as_bytes()));
    }

    #[test]
    fn an_object_is_complete_with_its_last_byte(value in any_json(), cut in any::<proptest::sample::Index>()) {
        prop_assume!(value.is_object());
        let text = value.to_string();
        prop_assume!(text.len() < MAX_REQUEST);
        prop_assert!(Request::parse(text.as_bytes(), false).is_some());
        let part = &text.as_bytes()[..cut.index(text.len())];
        prop_assert_eq!(Request::parse(part, false), None);
        prop_assert_eq!(Request::parse(part, true), Some(Err(Refusal::Json)));
    }
}
