//! The answer of `setup`: for each network, the interface that was made and the name servers to use.

use super::Map;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// The whole answer, by network.
pub type Status = Map<StatusBlock>;

/// One network's part. Absent and `null` differ for the caller: both keys are always written.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, Serialize)]
pub struct StatusBlock {
    /// For the container's `search` line.
    #[serde(default)]
    pub dns_search_domains: Option<Vec<String>>,
    /// For its `nameserver` lines.
    #[serde(default)]
    pub dns_server_ips: Option<Vec<IpAddr>>,
    /// By name inside the container.
    #[serde(default)]
    pub interfaces: Option<Map<NetInterface>>,
}

/// An interface of the container.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub struct NetInterface {
    /// Its MAC address.
    pub mac_address: String,
    /// Its addresses.
    #[serde(default)]
    pub subnets: Option<Vec<NetAddress>>,
}

/// An address of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
pub struct NetAddress {
    /// The gateway of its subnet.
    #[serde(default)]
    pub gateway: Option<IpAddr>,
    /// The address, with the length of its subnet.
    pub ipnet: IpNet,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_as_the_caller_expects_it() {
        let interface = NetInterface {
            mac_address: "aa:bb:cc:00:11:22".into(),
            subnets: Some(vec![NetAddress { gateway: None, ipnet: "10.0.0.2/16".parse().unwrap() }]),
        };
        let block = StatusBlock {
            dns_search_domains: Some(Vec::new()),
            dns_server_ips: None,
            interfaces: Some([("eth0".to_owned(), interface)].into_iter().collect()),
        };
        let status: Status = [("podman".to_owned(), block)].into_iter().collect();
        assert_eq!(
            serde_json::to_string(&status).unwrap(),
            r#"{"podman":{"dns_search_domains":[],"dns_server_ips":null,"interfaces":{"eth0":{"mac_address":"aa:bb:cc:00:11:22","subnets":[{"gateway":null,"ipnet":"10.0.0.2/16"}]}}}}"#
        );
    }
}
