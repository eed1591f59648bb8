//! Requests as a container engine writes them.

use serde_json::{Map, Value, json};

/// A network's definition and how the container joins it.
#[derive(Debug, Clone)]
pub(crate) struct Join {
    info: Value,
    options: Value,
}

impl Join {
    /// A managed bridge with these gateways (`10.88.0.1/16`), and the container's first address in each.
    pub(crate) fn bridge(name: &str, link: &str, gateways: &[&str]) -> Self {
        Self::new("bridge", name, link, gateways)
    }

    pub(crate) fn new(driver: &str, name: &str, link: &str, gateways: &[&str]) -> Self {
        let subnet = |gateway: &&str| {
            let (address, length) = gateway.split_once('/').unwrap();
            // The network's own address: ours all end in 1 behind a whole octet or a `::`.
            let base = address.strip_suffix('1').unwrap();
            let base = if address.contains(':') { base.to_owned() } else { format!("{base}0") };
            json!({"subnet": format!("{base}/{length}"), "gateway": address})
        };
        let second =
            |gateway: &&str| gateway.split_once('/').unwrap().0.strip_suffix('1').unwrap().to_owned() + "2";
        Self {
            info: json!({
                "name": name, "id": id(name), "driver": driver, "network_interface": link,
                "subnets": gateways.iter().map(subnet).collect::<Vec<_>>(),
                "ipv6_enabled": gateways.iter().any(|gateway| gateway.contains(':')),
                "internal": false, "dns_enabled": false, "ipam_options": {"driver": "host-local"}
            }),
            options: json!({
                "interface_name": "eth0",
                "static_ips": gateways.iter().map(second).collect::<Vec<_>>()
            }),
        }
    }

    /// Sets a key of the network.
    pub(crate) fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.info[key] = value.into();
        self
    }

    /// Sets one of the network's options.
    pub(crate) fn option(mut self, key: &str, value: &str) -> Self {
        if self.info.get("options").is_none() {
            self.info["options"] = json!({});
        }
        self.info["options"][key] = value.into();
        self
    }

    /// Sets a key of the container's part.
    pub(crate) fn own(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.options[key] = value.into();
        self
    }

    /// Other addresses for the container.
    pub(crate) fn addresses(self, addresses: &[&str]) -> Self {
        self.own("static_ips", addresses)
    }

    fn name(&self) -> String {
        self.info["name"].as_str().unwrap().to_owned()
    }
}

/// The identifier that belongs to a name: 64 digits that begin with the name's bytes.
pub(crate) fn id(name: &str) -> String {
    let digits: String = name.bytes().map(|byte| format!("{byte:02x}")).collect();
    format!("{digits:0<64}").chars().take(64).collect()
}

/// One container that joins these networks, as Podman 5 asks for it.
pub(crate) fn request(container: &str, joins: &[Join]) -> Value {
    let mut networks = Map::new();
    let mut info = Map::new();
    for join in joins {
        networks.insert(join.name(), join.options.clone());
        info.insert(join.name(), join.info.clone());
    }
    json!({
        "container_id": id(container), "container_name": container,
        "networks": networks, "network_info": info, "port_mappings": null
    })
}

/// The same as Podman 6 asks for it: the networks are a list.
pub(crate) fn request6(container: &str, joins: &[Join]) -> Value {
    let mut request = request(container, joins);
    let list = joins.iter().map(|join| {
        let mut entry = join.options.clone();
        entry["name"] = join.name().into();
        entry
    });
    request["networks"] = list.collect();
    request
}

/// Publishes ports: (host address, host port, container port, protocol, how many).
pub(crate) fn publish(mut request: Value, ports: &[(&str, u16, u16, &str, u16)]) -> Value {
    let mapping = |(ip, host, container, protocol, range): &(&str, u16, u16, &str, u16)| json!({"host_ip": ip, "host_port": host, "container_port": container, "protocol": protocol, "range": range});
    request["port_mappings"] = ports.iter().map(mapping).collect();
    request
}
