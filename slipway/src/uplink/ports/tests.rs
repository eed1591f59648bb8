use super::*;
use proptest::prelude::*;
use serde_json::{Value, json};
use slipway_portfwd::Rule;
use slipway_uplink::protocol::Request;

fn publish(ports: &Value) -> Result<Vec<Vec<Port>>, String> {
    let text = json!({ "execute": "publish", "arguments": { "container_id": "c", "ports": ports } });
    match Request::parse(text.to_string().as_bytes()).map_err(|refusal| refusal.text)? {
        Request::Publish { mappings, .. } => {
            mappings.iter().map(Port::of).collect::<Result<_, _>>().map_err(|refusal| refusal.text)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn mappings_are_checked() {
    let mapping = |key: &str, value: Value| {
        let mut mapping =
            json!({ "host_ip": "", "host_port": 8080, "container_port": 80, "protocol": "tcp", "range": 1 });
        mapping[key] = value;
        json!([mapping])
    };
    assert_eq!(publish(&mapping("protocol", json!("udp, tcp"))).unwrap()[0].len(), 2);
    assert_eq!(
        publish(&mapping("host_ip", Value::Null)).unwrap(),
        publish(&mapping("host_ip", json!(""))).unwrap()
    );
    assert_eq!(publish(&mapping("range", json!(0))).unwrap(), publish(&mapping("range", json!(1))).unwrap());
    assert_eq!(
        publish(&mapping("host_ip", json!("::ffff:127.0.0.1"))).unwrap(),
        publish(&mapping("host_ip", json!("127.0.0.1"))).unwrap()
    );
    let zoned = publish(&mapping("host_ip", json!("fe80::1%eth0"))).unwrap();
    let rules = zoned[0][0].rules(None, Some([0xfd00, 0, 0, 0, 0, 0, 0, 2].into())).unwrap();
    assert_eq!(rules[0].to_string(), "[fe80::1%eth0]:8080:[fd00::2]:80/tcp");
    for (bad, why) in [
        (mapping("host_ip", json!("localhost")), "host_ip \"localhost\": not an IP address"),
        (mapping("host_ip", json!("fe80::1")), "write it as fe80::1%eth0"),
        (mapping("host_ip", json!("fe80::1%a b")), "not the name of an interface"),
        (mapping("host_ip", json!("fd00::1%eth0")), "only link-local addresses"),
        (mapping("host_ip", json!(7)), "bad request"),
        (mapping("host_port", json!(0)), "1 to 65535"),
        (mapping("container_port", json!(0)), "1 to 65535"),
        (mapping("host_port", json!(65536)), "bad request"),
        (mapping("range", json!(60000)), "1 to 65535"),
        (mapping("protocol", json!("sctp")), "expected tcp or udp"),
        (mapping("protocol", json!("tcp,")), "expected tcp or udp"),
        (json!(vec![json!({ "host_port": 1, "container_port": 1 }); 1025]), "more than 1024"),
        (json!({}), "bad request"),
    ] {
        let error = publish(&bad).unwrap_err();
        assert!(error.contains(why), "{bad}: {error}");
    }
}

proptest! {
    #[test]
    fn any_port_that_is_taken_leads_somewhere(host in 1_u16.., guest in 1_u16.., range: u16, udp: bool) {
        let protocol = if udp { "udp" } else { "tcp" };
        let ports = json!([{ "host_port": host, "container_port": guest, "protocol": protocol, "range": range }]);
        if let Ok(mappings) = publish(&ports) {
            let rules = mappings[0][0].rules(Some([10, 0, 0, 2].into()), None).unwrap();
            // What a worker is told is what was meant.
            prop_assert_eq!(rules[0].to_string().parse::<Rule>().unwrap(), rules[0]);
            prop_assert!(mappings[0][0].rules(None, None).is_err());
        }
    }
}
