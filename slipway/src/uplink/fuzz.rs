//! For the fuzzer: what an uplink without networks makes of a message, parser and printers in one call.

use super::ports::Port;
use core::net::{Ipv4Addr, Ipv6Addr};
use serde_json::{Value, json};
use slipway_uplink::envelope::{Refusal, read};
use slipway_uplink::protocol::Request;

/// Any bytes, as a request and as a reply. What comes back is what would be said to it.
#[must_use]
pub fn request(message: &[u8]) -> String {
    let _ = read::<Value>(message);
    match Request::parse(message) {
        Err(refusal) => refusal.to_json(),
        Ok(Request::Join(join)) => {
            let (network, container) = *join;
            // What goes to a worker and is read there again must be the same.
            let (told, also) = (json!(network), json!(container));
            let text = format!("{told} {also}");
            assert_eq!(serde_json::from_value(told).ok(), Some(network));
            assert_eq!(serde_json::from_value(also).ok(), Some(container));
            text
        }
        Ok(Request::Publish { mappings, .. }) => {
            let ports: Result<Vec<_>, _> = mappings.iter().map(Port::of).collect();
            let (v4, v6) =
                (Some(Ipv4Addr::new(10, 89, 0, 2)), Some(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2)));
            let rules = ports.and_then(|ports| {
                ports.iter().flatten().map(|port| port.rules(v4, v6)).collect::<Result<Vec<_>, Refusal>>()
            });
            rules.map_or_else(|refusal| refusal.to_json(), |rules| format!("{rules:?}"))
        }
        Ok(other) => format!("{other:?}"),
    }
}
