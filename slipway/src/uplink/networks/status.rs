//! Everything that the uplink serves, for people. A reply is one packet, so lists end where it would become too long,
//! and what is left out is counted.

use super::super::orders::Order;
use super::super::processes::Process;
use super::super::publications::Live;
use super::Networks;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Bytes for networks, for containers, and for rules. Together well below what a socket takes at once.
const ROOM: usize = 48 << 10;

/// A list of a certain length in bytes.
#[derive(Debug)]
struct Bounded {
    left: usize,
    left_out: u64,
}

impl Bounded {
    const fn new() -> Self {
        Self { left: ROOM, left_out: 0 }
    }

    /// Whether there is room for `value`, which takes it.
    fn takes(&mut self, value: &Value) -> bool {
        let rest = self.left.checked_sub(value.to_string().len() + 1);
        match rest {
            Some(rest) => self.left = rest,
            None => self.left_out += 1,
        }
        rest.is_some()
    }
}

impl Networks {
    /// Everything.
    #[must_use]
    pub fn status(&self) -> Value {
        let states: BTreeMap<&str, Value> = self
            .processes
            .iter()
            .filter_map(|(id, process)| Some((id.as_str(), process.call(&Order::Status).ok()?)))
            .collect();
        let [mut networks, mut containers, mut rules] = [const { Bounded::new() }; 3];
        let list: Vec<_> = self
            .records
            .networks()
            .filter_map(|entry| {
                let id = entry.network.id.as_str();
                let mut value = json!({
                    "network": entry.network,
                    "attached": self.processes.contains_key(id),
                    "pid": self.processes.get(id).map(Process::pid),
                    "counters": states.get(id).map(|state| &state["counters"]),
                });
                if !networks.takes(&value) {
                    return None;
                }
                let own = entry.containers().map(|container| json!(container));
                value["containers"] = own.filter(|container| containers.takes(container)).collect();
                Some(value)
            })
            .collect();
        let live = self.publications.iter().flat_map(|(container, publication)| {
            publication
                .live
                .iter()
                .map(move |live| (container, publication.ids.get(live.planned.mapping), live))
        });
        let all: Vec<_> = live
            .map(|(container, id, live)| rule(container, id, live, &states))
            .filter(|rule| rules.takes(rule))
            .collect();
        json!({
            "networks": list,
            "rules": all,
            "left_out": {
                "networks": networks.left_out, "containers": containers.left_out, "rules": rules.left_out,
            },
        })
    }
}

/// One rule, with what its worker has counted.
fn rule(
    container: &str,
    mapping: Option<&u64>,
    Live { planned, id }: &Live,
    states: &BTreeMap<&str, Value>,
) -> Value {
    let counted = states.get(planned.network.as_str()).and_then(|state| state["rules"].as_array());
    let counted = counted.and_then(|rules| rules.iter().find(|rule| rule[0].as_u64() == Some(*id)));
    let count = |place: usize| counted.and_then(|rule| rule[place].as_u64()).unwrap_or(0);
    json!({
        "id": mapping,
        "container_id": container,
        "network_id": planned.network,
        "rule": planned.rule.to_string(),
        "in_force": *id != 0,
        "accepted": count(1),
        "refused": count(2),
    })
}

#[cfg(test)]
mod tests {
    use super::super::super::records::tests::{container, network};
    use super::super::super::starter::Starter;
    use super::*;

    #[test]
    fn a_reply_never_grows_beyond_a_packet() {
        let mut networks = Networks::new(Starter::new().unwrap(), false);
        for n in 0..3000_u32 {
            let id = format!("n{}", n % 100);
            let name = format!("c{n}-{}", "x".repeat(200));
            networks.join(network(&id, "10.0.0.0/8", "10.0.0.1", false), container(&name, &["10.1.2.3"]));
        }
        let status = networks.status();
        assert!(status.to_string().len() < 180 << 10);
        assert_eq!(status["networks"].as_array().map(Vec::len), Some(100));
        assert!(status["left_out"]["containers"].as_u64() > Some(1000), "{}", status["left_out"]);
        assert_eq!(status["left_out"]["rules"], 0);
    }
}
