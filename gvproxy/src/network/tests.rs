//! What becomes of the configuration.

use super::*;
use crate::config::{DEVICE_MAC, GATEWAY_MAC, Interfaces};
use log::LevelFilter;
use slipway_dns::config::gvproxy::default_zones;
use slipway_netstack::config::Keys;
use slipway_netstack::device::Capabilities;
use slipway_netstack::ip::plan::Route;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

fn config(change: impl FnOnce(&mut Config)) -> Config {
    let host = Ipv4Addr::new(192, 168, 127, 254);
    let device = Ipv4Addr::new(192, 168, 127, 2);
    let stack = Stack {
        mtu: 1500,
        subnet: "192.168.127.0/24".parse().unwrap(),
        gateway_ip: Ipv4Addr::new(192, 168, 127, 1),
        device_ip: device,
        host_ip: host,
        gateway_mac: GATEWAY_MAC,
        dns: Vec::new(),
        search: vec!["example.org".into()],
        forwards: Vec::new(),
        nat: vec![(host, Ipv4Addr::LOCALHOST)],
        virtual_ips: vec![host],
        static_leases: vec![(device, DEVICE_MAC)],
        vpnkit_macs: Vec::new(),
        ec2_metadata: false,
        tcp_max_in_flight: 128,
        tcp_connect_timeout: Duration::from_secs(30),
        capture_file: None,
        debug: false,
    };
    let mut config = Config {
        listen: Vec::new(),
        services: None,
        stack,
        interfaces: Interfaces::default(),
        forwards: Vec::new(),
        pid_file: None,
        log_file: None,
        notification: None,
        log_level: LevelFilter::Info,
        stay: false,
        expose_all_protocols: false,
        preserve_source: false,
        ipv6: false,
    };
    change(&mut config);
    config
}

fn engine_of(config: &Config) -> EngineConfig {
    let keys = Keys { flow_hash: [1; 16], isn: [2; 16], others: [3; 16] };
    engine(config, EngineConfig::new(config.stack.gateway_mac, keys, Capabilities::default()))
}

#[test]
fn the_configuration_becomes_the_engines() {
    let usual = engine_of(&config(|_| {}));
    assert_eq!((usual.mtu.bytes(), &usual.dns_search[..]), (1500, &["example.org".to_owned()][..]));
    assert_eq!(
        (usual.tcp.max_in_flight, usual.tcp.connect_timeout),
        (Some(128), Some(Duration::from_secs(30)))
    );
    assert_eq!((usual.udp.timeout, usual.udp.contacted_only), (UDP_IDLE, true));
    let odd = engine_of(&config(|config| {
        config.stack.subnet = "10.1.2.99/16".parse().unwrap();
        config.stack.mtu = 9000;
        config.stack.tcp_connect_timeout = Duration::ZERO;
        config.stack.tcp_max_in_flight = 1;
    }));
    assert_eq!((odd.mtu.bytes(), odd.tcp.connect_timeout, odd.tcp.max_in_flight), (9000, None, Some(1)));
    assert_eq!(odd.plan.v4.unwrap().network.to_string(), "10.1.0.0/16");
}

#[test]
fn switches_reach_the_plan() {
    let metadata = SocketAddr::from(([169, 254, 169, 254], 80));
    let client = IpAddr::from([192, 0, 2, 7]);
    for on in [false, true] {
        let plan = plan(&config(|config| {
            (config.stack.ec2_metadata, config.preserve_source) = (on, on);
        }));
        let expected = if on { Route::Upstream(metadata.ip()) } else { Route::Blocked };
        assert_eq!(plan.outbound(metadata), expected);
        let seen = plan.inbound(client, [192, 168, 127, 2].into());
        assert_eq!(seen, Some(if on { client } else { [192, 168, 127, 1].into() }));
        assert_eq!(plan.dhcp_manner.reserved, [(Ipv4Addr::new(192, 168, 127, 2), DEVICE_MAC)]);
    }
}

#[test]
fn ipv6_adds_names_to_those_of_gateway_and_host() {
    let zone = default_zones([192, 168, 127, 1].into(), [192, 168, 127, 254].into()).remove(0);
    for on in [false, true] {
        let config = config(|config| {
            config.stack.dns = vec![zone.clone()];
            config.ipv6 = on;
        });
        assert_eq!(plan(&config).v6.is_some(), on);
        let zones = zones(&config);
        let all: Vec<_> = zones[0].records.iter().map(|record| (&*record.name, record.ip)).collect();
        let v6 = |text: &str| Some(text.parse::<IpAddr>().unwrap());
        let added = [("gateway", v6("fd5a:94ef:e40c:dd::1")), ("host", v6("fd5a:94ef:e40c:dd::fe"))];
        assert_eq!(all[2..], added[..if on { 2 } else { 0 }]);
    }
}
