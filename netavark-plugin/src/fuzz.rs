//! What a fuzzer may do to the pure parts: any bytes as a request, as a definition, as a file of the DNS server, as a
//! firewall rule of the kernel's, as a request to the network driver.
//!
//! Each is a promise: no panic, no circle, and what was accepted is what the types say.

use crate::spec::validate::{Isolation, mac, vlan};
use crate::spec::{Compat, Ipam, NetworkOptions};
use crate::{definition, dns_handover, plugin};

/// Bytes that a container engine could have sent.
pub fn options(data: &[u8]) {
    dns_handover::fuzz(data);
    definition::fuzz(data);
    let request: NetworkOptions = match serde_json::from_slice(data) {
        Ok(request) => request,
        Err(error) => {
            let line = crate::Error::from(error).to_json();
            let object: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
            assert!(object.as_object().is_some_and(|object| object.len() == 1), "one key: {line}");
            return;
        }
    };
    for (name, options) in &request.networks.list {
        let Ok(network) = request.network(name) else { continue };
        for compat in [Compat::One, Compat::Two] {
            if let Ok(ipam) = Ipam::of(network, options, compat) {
                assert!(ipam.addresses.len() <= options.ips().len(), "no address is invented");
                let _ = (ipam.default_gateway(false), ipam.default_gateway(true));
            }
            let _ = Isolation::from_option(network.option("isolate"), compat);
        }
        let _ = (vlan(network.options.as_ref()), options.static_mac.as_deref().map(mac));
        // What is written for a plugin is read again as the same.
        if let Ok(text) = serde_json::to_vec(network) {
            assert_eq!(serde_json::from_slice(&text).ok().as_ref(), Some(network));
        }
    }
}

/// Bytes that a container engine could have sent to the network driver, that an uplink could have answered, or that a
/// record could have.
pub fn plugin_request(data: &[u8]) {
    plugin::fuzz_request(data);
    plugin::fuzz_create(data);
}

/// Bytes that a kernel could have listed as a rule.
pub fn nft_rule(data: &[u8]) {
    crate::firewall::fuzz_rule(data);
}

/// Bytes that a state file of the firewall could have, of this version or another.
pub fn firewall_state(data: &[u8]) {
    crate::firewall::fuzz_state(data);
}

/// Bytes that the system bus could have sent.
pub fn dbus_answer(data: &[u8]) {
    crate::firewall::fuzz_bus(data);
}

/// A line of the connection tracker's text.
pub fn conntrack_line(line: &str) {
    crate::firewall::fuzz_line(line);
}

/// Rules as a kernel lists them, with their names.
#[must_use]
pub fn nft_rule_seeds() -> Vec<(String, Vec<u8>)> {
    crate::firewall::rule_seeds()
}
