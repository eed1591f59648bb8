//! A configuration for tests: what `slirp4netns --enable-ipv6` has, but for the key.

use crate::addr::MacAddr;
use crate::config::{Config, DhcpPool, Ipv4Config, Ipv6Config, Keys, Mtu, Outbound, TcpConfig, UdpConfig};
use crate::device::Capabilities;
use core::time::Duration;

pub(crate) const OURS: MacAddr = MacAddr([0x52, 0x55, 10, 0, 2, 2]);
pub(crate) const GUEST: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);

pub(crate) fn config() -> Config {
    Config {
        mac: OURS,
        guest_mac: None,
        mtu: Mtu::ETHERNET,
        device: Capabilities::default(),
        v4: Some(Ipv4Config {
            network: "10.0.2.0/24".parse().unwrap(),
            gateway: [10, 0, 2, 2].into(),
            dns: Some([10, 0, 2, 3].into()),
            guest: [10, 0, 2, 100].into(),
            silent: None,
            dhcp: Some(DhcpPool {
                first: [10, 0, 2, 15].into(),
                count: 16,
                lease: Duration::from_secs(86_400),
            }),
        }),
        v6: Some(Ipv6Config {
            network: "fd00::/64".parse().unwrap(),
            gateway: "fd00::2".parse().unwrap(),
            dns: Some("fd00::3".parse().unwrap()),
            guest: None,
            advertise: true,
            dhcp: true,
        }),
        host_loopback: false,
        outbound: Outbound::default(),
        dns_search: Vec::new(),
        tcp: TcpConfig::default(),
        udp: UdpConfig::default(),
        keys: Keys { flow_hash: [0; 16], isn: [0; 16] },
        max_flows: 64,
    }
}
