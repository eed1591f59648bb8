//! `up`: a namespace joins a network.

use super::cli::{Definition, Up};
use super::member::Namespace;
use super::state::{Member, Record, Records};
use super::{Surroundings, address};
use crate::commands::{setup, teardown};
use crate::definition::{self, Pool, Used};
use crate::error::{Context, Error, Result};
use crate::namespaces::{self, Place};
use crate::output::print;
use crate::spec::{Compat, Map, Network, NetworkOptions, Networks, PerNetworkOptions, PortMapping, Subnet};
use ipnet::IpNet;
use slipway_host::netlink::Netlink;
use std::path::Path;

/// Where subnets come from when none is given: the pools of container engines, in sizes of /24.
const POOLS: [&str; 3] = ["10.89.0.0/16", "10.90.0.0/15", "10.92.0.0/14"];
const POOL_SIZE: u32 = 24;
/// The beginning of the names of bridges.
const BRIDGE: &str = "slip";

pub(super) fn run(surroundings: &Surroundings<'_>, up: &Up) -> Result<()> {
    let namespace = Namespace::of(&up.namespace)?;
    let number = namespace.number()?;
    let records = Records::lock(surroundings.directory)?;
    let mut record = match records.get(&up.network)? {
        Some(_) if up.definition != Definition::default() => {
            return Err(Error::msg(format!(
                "network {0} is there already: the options for a new network do not apply (see `slipway net show {0}`)",
                up.network
            )));
        }
        Some(record) => record,
        None => Record { network: define(up, &records)?, members: Vec::new() },
    };
    if record.members.iter().any(|member| member.number == number) {
        return Err(Error::msg(format!("{} is on network {} already", namespace.path.display(), up.network)));
    }
    if record.members.len() >= address::MEMBERS {
        return Err(Error::msg(format!(
            "network {} has {} members, which is the limit",
            up.network,
            address::MEMBERS
        )));
    }
    let member = Member {
        number,
        id: hexadecimal()?,
        name: up.name.clone().unwrap_or(namespace.name),
        options: PerNetworkOptions {
            aliases: Some(up.alias.clone()),
            interface_name: match &up.interface {
                Some(name) => name.clone(),
                None => free_interface(&namespace.path)?,
            },
            static_ips: Some(address::choose(&record.network, &up.ip, &record.addresses())?),
            static_mac: up.mac.map(|mac| mac.to_string()),
            options: None,
        },
        ports: up.publish.iter().map(|publish| publish.0.clone()).collect(),
        namespace: namespace.path,
    };
    let options = request(&record.network, &member);
    if up.dry_run {
        for line in setup::describe(&surroundings.global(), &member.namespace, &options)? {
            print(&line);
        }
        return Ok(());
    }
    record.members.push(member.clone());
    records.put(&record)?;
    if let Err(error) = setup::connect_all(&surroundings.global(), &member.namespace, &options) {
        // Everything is undone: what is left is the record.
        record.members.pop();
        let forgotten =
            if record.members.is_empty() { records.remove(&up.network) } else { records.put(&record) };
        if let Err(error) = forgotten {
            log::error!("{error}");
        }
        return Err(error);
    }
    tell(&record.network, &member);
    Ok(())
}

/// Says what the namespace has got, and what is left to the user.
fn tell(network: &Network, member: &Member) {
    let addresses: Vec<_> =
        member.options.ips().iter().map(|address| with_length(network, *address)).collect();
    print(&format!("{}: {} {}", member.name, member.options.interface_name, addresses.join(" ")));
    let gateways: Vec<_> = network
        .subnets()
        .iter()
        .filter_map(|subnet| subnet.gateway)
        .map(|gateway| gateway.to_string())
        .collect();
    if network.dns_enabled && !gateways.is_empty() {
        print(&format!("nameserver {} (for resolv.conf(5); names end in .dns.podman)", gateways.join(", ")));
    }
}

fn with_length(network: &Network, address: std::net::IpAddr) -> String {
    let subnet = network.subnets().iter().find(|subnet| subnet.subnet.contains(&address));
    subnet.map_or_else(|| address.to_string(), |subnet| format!("{address}/{}", subnet.subnet.prefix_len()))
}

/// The request that a container engine would send.
pub(super) fn request(network: &Network, member: &Member) -> NetworkOptions {
    let ports: Vec<PortMapping> = member.ports.clone();
    NetworkOptions {
        container_id: member.id.clone(),
        container_name: member.name.clone(),
        container_hostname: Some(member.name.clone()),
        networks: Networks { shape: Compat::Two, list: vec![(network.name.clone(), member.options.clone())] },
        network_info: Map::from_iter([(network.name.clone(), network.clone())]),
        port_mappings: Some(ports),
        dns_servers: None,
    }
}

/// A new network, completed.
fn define(up: &Up, records: &Records) -> Result<Network> {
    let Definition { subnet, gateway, ipv6, internal, no_dns, bridge, option } = &up.definition;
    if gateway.len() > subnet.len() {
        return Err(Error::msg("--gateway belongs to a --subnet: there are more gateways than subnets"));
    }
    let gateways = gateway.iter().map(|gateway| Some(*gateway)).chain(std::iter::repeat(None));
    let subnets = subnet.iter().zip(gateways);
    let subnets: Vec<_> =
        subnets.map(|(subnet, gateway)| Subnet { subnet: *subnet, gateway, lease_range: None }).collect();
    let options: Map<String> = option.iter().cloned().collect();
    let network = Network {
        name: up.network.clone(),
        id: hexadecimal()?,
        driver: "bridge".to_owned(),
        network_interface: bridge.clone(),
        created: None,
        subnets: (!subnets.is_empty()).then_some(subnets),
        routes: None,
        ipv6_enabled: *ipv6,
        internal: *internal,
        dns_enabled: !no_dns,
        network_dns_servers: None,
        labels: None,
        options: (!options.is_empty()).then_some(options),
        ipam_options: None,
    };
    let others = records.all()?;
    let used = Used {
        interfaces: others.iter().filter_map(|other| other.network.network_interface.clone()).collect(),
        names: others.iter().map(|other| (other.network.name.clone(), other.network.id.clone())).collect(),
        subnets: used_subnets(&others)?,
    };
    let pools =
        POOLS.iter().filter_map(|base| Some(Pool { base: base.parse().ok()?, size: POOL_SIZE })).collect();
    definition::define(network, used, pools, BRIDGE)
}

/// The subnets of other networks, and what this host has addresses in.
fn used_subnets(others: &[Record]) -> Result<Vec<IpNet>> {
    let defined = others.iter().flat_map(|other| other.network.subnets()).map(|subnet| subnet.subnet);
    let addresses = Netlink::open().and_then(|mut netlink| netlink.addresses()).context("list addresses")?;
    Ok(defined.chain(addresses.iter().map(|address| address.net)).collect())
}

/// The first ethN that the namespace does not have.
fn free_interface(path: &Path) -> Result<String> {
    let mut place = Place::at(namespaces::open(path)?)?;
    let names: Vec<_> =
        place.netlink.interfaces().context("list interfaces")?.into_iter().map(|found| found.name).collect();
    let free = (0..=names.len()).map(|number| format!("eth{number}")).find(|name| !names.contains(name));
    free.ok_or_else(|| Error::msg("no name is left for the interface"))
}

/// 64 random hexadecimal digits.
fn hexadecimal() -> Result<String> {
    let bytes: [u8; 32] = slipway_host::random::bytes()?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Takes a member off, as far as it is still there.
pub(super) fn disconnect(surroundings: &Surroundings<'_>, network: &Network, member: &Member) -> Result<()> {
    teardown::disconnect_all(&surroundings.global(), where_it_is(member), &request(network, member))
}

/// The path of a member's namespace; nowhere, if that leads to another one by now.
pub(super) fn where_it_is(member: &Member) -> &Path {
    if member.number.is_at(&member.namespace) { &member.namespace } else { Path::new("/proc/self/ns/gone") }
}
