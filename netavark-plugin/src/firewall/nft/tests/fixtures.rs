//! Networks, ports, namespaces.

use crate::firewall::{NetworkRules, PortRules};
use crate::spec::validate::Isolation;
use crate::spec::{Compat, PortMapping};
use nix::sched::{CloneFlags, unshare};
use std::process::Command;

pub(super) const ID: &str = "2f259bab93aaaaa2542ba43ef33eb990d0999ee1b9924b557b7be53c0b7a1bb9";

pub(super) fn network(subnets: &[&str]) -> NetworkRules {
    NetworkRules {
        subnets: Some(subnets.iter().map(|subnet| subnet.parse().unwrap()).collect()),
        bridge_name: "podman0".to_owned(),
        network_id: ID.to_owned(),
        network_hash_name: "1D8721804F16F".to_owned(),
        isolation: Isolation::Never,
        dns_port: 53,
        internal: false,
        outbound_addr4: None,
        outbound_addr6: None,
        compat: Compat::Two,
    }
}

/// The ports of a container with the second address of each of the first subnets of each family.
pub(super) fn ports(network: &NetworkRules, mappings: &[PortMapping]) -> PortRules {
    let mut ports = PortRules {
        container_id: "c1".to_owned(),
        network_id: network.network_id.clone(),
        port_mappings: Some(mappings.to_vec()).filter(|list| !list.is_empty()),
        network_name: "podman".to_owned(),
        network_hash_name: network.network_hash_name.clone(),
        container_ip_v4: None,
        subnet_v4: None,
        container_ip_v6: None,
        subnet_v6: None,
        dns_port: network.dns_port,
        dns_server_ips: Vec::new(),
        internal: network.internal,
        compat: network.compat,
    };
    for subnet in network.subnets() {
        let mut hosts = subnet.hosts();
        match subnet {
            ipnet::IpNet::V4(net) => {
                ports.subnet_v4 = Some(*net);
                ports.dns_server_ips.extend(hosts.next());
                ports.container_ip_v4 = hosts.next().and_then(|a| a.to_string().parse().ok());
            }
            ipnet::IpNet::V6(net) => {
                ports.subnet_v6 = Some(*net);
                let mut hosts = hosts.skip(1);
                ports.dns_server_ips.extend(hosts.next());
                ports.container_ip_v6 = hosts.next().and_then(|a| a.to_string().parse().ok());
            }
        }
    }
    ports
}

pub(super) fn mapping(host_ip: &str, protocol: &str, host: u16, container: u16, range: u16) -> PortMapping {
    PortMapping {
        container_port: container,
        host_port: host,
        host_ip: host_ip.to_owned(),
        protocol: protocol.to_owned(),
        range,
    }
}

/// Runs `work` in a thread with a network namespace of its own; says so where none is to be had.
pub(super) fn in_new_namespace(name: &str, work: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        scope.spawn(|| {
            if unshare(CloneFlags::CLONE_NEWNET).is_err() {
                println!("SKIP {name}: this machine gives it no namespace");
                return;
            }
            if Command::new("nft").arg("--version").output().is_err() {
                println!("SKIP {name}: no nft");
                return;
            }
            work();
        });
    });
}

/// What `nft` prints.
pub(super) fn nft(arguments: &[&str]) -> String {
    let output = Command::new("nft").args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

pub(super) fn table() -> String {
    nft(&["list", "table", "inet", "netavark"])
}
