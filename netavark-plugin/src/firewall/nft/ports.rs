//! A container's published ports, and the DNS server's port where that is not 53.
//!
//! A range of ports has one rule for each port, as the contract lists them; a long range has one rule for all, with a
//! map in it. Removal takes either form, with and without the connection mark, whichever version made them.

use super::chains::{DNAT, PUBLISHED_MARK, SETMARK, dnat_chain, jump};
use super::plan::{Plan, Wanted};
use super::rule::{Clause, End, PROTOCOLS, PortMap, Rule};
use super::translation::{Translation, prune};
use crate::error::{Error, Result};
use crate::firewall::{DNS_PORT, PortRules};
use crate::spec::{Compat, PortMapping};
use ipnet::IpNet;
use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// The longest range that has a rule for each port.
const LONGEST_IN_RULES: u16 = 16;

/// Which rules of a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    RulePerPort,
    Map,
}

/// What [`add`] looks at. A restore adds nothing twice, so it looks at the rules.
pub(super) fn look_to_add(ports: &PortRules, restore: bool, wanted: &mut Wanted) {
    look_to_keep_names(ports.dns_port, &ports.dns_server_ips, wanted);
    if restore || ports.moved_dns_servers().next().is_some() || ports.cover_dns() {
        wanted.rules(DNAT);
    }
    for chain in own_chains(ports) {
        if restore {
            wanted.rules(chain);
        } else {
            wanted.existence(chain);
        }
    }
}

/// The chains of the container's network.
pub(super) fn own_chains(ports: &PortRules) -> impl Iterator<Item = String> {
    ports.addresses().map(|(_, subnet)| dnat_chain(&ports.network_id, &subnet))
}

/// Adds the rules. A restore leaves out those that are there.
///
/// # Errors
/// When an address, a protocol or a range makes no sense.
pub(super) fn add(plan: &mut Plan, ports: &PortRules, restore: bool) -> Result<()> {
    for server in ports.moved_dns_servers() {
        if !plan.has(DNAT, |rule| moves_dns(rule, server)) {
            plan.insert(DNAT, move_dns(server, ports.dns_port));
        }
    }
    if ports.internal || ports.port_mappings.is_none() {
        return Ok(());
    }
    for (address, subnet) in ports.addresses() {
        plan.make_chain(&dnat_chain(&ports.network_id, &subnet));
        for mapping in ports.ports() {
            let form = if mapping.count() > LONGEST_IN_RULES { Form::Map } else { Form::RulePerPort };
            for (chain, rule) in rules(ports, mapping, address, subnet, form)? {
                if !(restore && plan.has(&chain, |there| *there == rule)) {
                    plan.append(&chain, rule);
                }
            }
        }
    }
    Ok(())
}

/// What [`keep_names`] looks at, for the servers of a network that is coming.
pub(super) fn look_to_keep_names(dns_port: u16, servers: &[IpAddr], wanted: &mut Wanted) {
    if dns_port == DNS_PORT && !servers.is_empty() {
        wanted.rules(DNAT);
    }
}

/// Puts what is sent to the port of DNS servers before published ports that would take it, if there are any. A server
/// with another port has such a rule anyway.
pub(super) fn keep_names(plan: &mut Plan, dns_port: u16, servers: &[IpAddr]) {
    if dns_port != DNS_PORT || !plan.has(DNAT, takes_dns) {
        return;
    }
    for server in servers {
        if !plan.has(DNAT, |rule| moves_dns(rule, *server)) {
            plan.insert(DNAT, move_dns(*server, DNS_PORT));
        }
    }
}

/// Whether it leads what is sent to the port of DNS servers to a container.
fn takes_dns(rule: &Rule) -> bool {
    let covers = |clause: &Clause| match clause {
        Clause::Port { first, last } => (*first..=*last).contains(&DNS_PORT),
        _ => false,
    };
    let jumps = rule.clauses().iter().any(|clause| matches!(clause, Clause::Jump(_)));
    let may = [Clause::Protocol(6), Clause::Protocol(17)].iter().any(|one| rule.clauses().contains(one));
    jumps && may && rule.clauses().iter().any(covers)
}

/// Whether [`keep_names`] made it.
pub(super) fn keeps_names(rule: &Rule) -> bool {
    match rule.clauses() {
        [Clause::Address { net, .. }, ..] => *rule == move_dns(net.addr(), DNS_PORT),
        _ => false,
    }
}

/// What [`remove`] looks at.
pub(super) fn look_to_remove(ports: &PortRules, complete: bool, wanted: &mut Wanted) {
    let published = !ports.ports().is_empty();
    if complete || published {
        wanted.rules(DNAT);
    }
    for chain in ports.addresses().map(|(_, subnet)| dnat_chain(&ports.network_id, &subnet)) {
        if published {
            wanted.rules(chain);
        } else if complete {
            wanted.existence(chain);
        }
    }
}

/// Removes whatever is there of them; with the last container (`complete`), the subnet's chain and the DNS rules too.
pub(super) fn remove(plan: &mut Plan, ports: &PortRules, complete: bool) {
    let expected = expected(ports);
    let mut chains = vec![DNAT.to_owned()];
    chains.extend(ports.addresses().map(|(_, subnet)| dnat_chain(&ports.network_id, &subnet)));
    // Translations first: what leads to them stays as long as another container's need it.
    for chain in chains.iter().skip(1) {
        let ours = |rule: &Rule| expected.contains(&(chain.clone(), rule.clone().without_mark()));
        plan.delete(chain, |rule| Translation::of(rule).is_some() && ours(rule));
        prune(plan, chain, |chain, rule| expected.contains(&(chain.to_owned(), rule.clone())));
    }
    if !plan.has(DNAT, takes_dns) {
        plan.delete(DNAT, keeps_names);
    }
    if complete {
        // Other versions make such rules even when no names are served, for an address of the subnet.
        plan.delete(DNAT, |rule| {
            ports.dns_server_ips.iter().any(|server| moves_dns(rule, *server))
                || ports.addresses().any(|(_, subnet)| moves_dns_within(rule, &subnet))
        });
        for chain in chains.iter().skip(1) {
            // What a container that was never torn down has left.
            plan.delete(DNAT, |rule| rule.jumps_to(chain));
            plan.delete_chain(chain);
        }
    }
}

/// What the container's ports translate, each in one form.
pub(super) fn translations(ports: &PortRules) -> Vec<Translation> {
    let mut list = Vec::new();
    for (address, subnet) in ports.addresses() {
        for mapping in ports.ports() {
            let rules = rules(ports, mapping, address, subnet, Form::Map).unwrap_or_default();
            list.extend(rules.iter().filter_map(|(_, rule)| Translation::of(rule)));
        }
    }
    list
}

/// All rules that any version would have made for these ports, without marks. A mapping that makes no sense has none.
fn expected(ports: &PortRules) -> HashSet<(String, Rule)> {
    let mut expected = HashSet::new();
    for (address, subnet) in ports.addresses() {
        for mapping in ports.ports() {
            for form in [Form::RulePerPort, Form::Map] {
                let rules = rules(ports, mapping, address, subnet, form).unwrap_or_default();
                expected.extend(rules.into_iter().map(|(chain, rule)| (chain, rule.without_mark())));
            }
        }
    }
    expected
}

/// Chain and rule, in order, of one mapping to one of the container's addresses.
fn rules(
    ports: &PortRules,
    mapping: &PortMapping,
    address: IpAddr,
    subnet: IpNet,
    form: Form,
) -> Result<Vec<(String, Rule)>> {
    let Some(host) = host_address(mapping, address)? else { return Ok(Vec::new()) };
    let protocol = protocol(mapping)?;
    let last = last(mapping)?;
    let chain = dnat_chain(&ports.network_id, &subnet);
    // [ip daddr HOST] PROTOCOL dport FIRST-LAST
    let to_port = |first: u16, last: u16| {
        let port = [Clause::Protocol(protocol), Clause::Port { first, last }];
        host.iter().cloned().chain(port).collect::<Vec<_>>()
    };
    let range = to_port(mapping.host_port, last);
    let masqueraded = |from: IpNet| Rule([vec![source(from)], range.clone(), vec![jump(SETMARK)]].concat());
    let mut list = vec![(DNAT.to_owned(), Rule([range.clone(), vec![jump(&chain)]].concat()))];
    // A container that uses its own published port, and the host that uses it by 127.0.0.1: without another source
    // address, the answers would not come back past the translation.
    list.push((chain.clone(), masqueraded(subnet.trunc())));
    if address.is_ipv4() {
        list.push((chain.clone(), masqueraded(exactly(Ipv4Addr::LOCALHOST.into()))));
    }
    let translated = |first: u16, last: u16, clause: Clause| {
        let mark = (ports.compat >= Compat::Two).then_some(Clause::SetConnectionMark(PUBLISHED_MARK));
        let clauses = to_port(first, last).into_iter().chain(mark).chain([clause]);
        (chain.clone(), Rule(clauses.collect()))
    };
    let to = SocketAddr::new(address, mapping.container_port);
    let map = PortMap { first: mapping.host_port, more: mapping.count() - 1, to };
    match form {
        Form::Map => list.push(translated(map.first, last, Clause::DnatByPort(map))),
        Form::RulePerPort => {
            list.extend(map.entries().map(|(port, to)| translated(port, port, Clause::Dnat(to))));
        }
    }
    Ok(list)
}

/// The condition on the address that was connected to: `Some([])` for all of them, `None` when the mapping is not for
/// this family.
fn host_address(mapping: &PortMapping, container: IpAddr) -> Result<Option<Option<Clause>>> {
    let host = match mapping.host_ip.as_str() {
        "" => return Ok(Some(None)),
        text => text.parse::<IpAddr>().map_err(|_| {
            let port = mapping.host_port;
            Error::msg(format!("invalid host ip \"{text}\" provided for port {port}"))
        })?,
    };
    if host.is_ipv4() != container.is_ipv4() {
        return Ok(None);
    }
    Ok(Some((!host.is_unspecified()).then(|| destination(host))))
}

fn protocol(mapping: &PortMapping) -> Result<u8> {
    let name = mapping.protocol.as_str();
    PROTOCOLS.iter().find(|(_, known)| *known == name).map(|(number, _)| *number).ok_or_else(|| {
        Error::msg(format!(
            "nftables error: protocol \"{name}\" of port {} has no ports or is unknown",
            mapping.host_port
        ))
    })
}

/// The last port of the range on the host.
fn last(mapping: &PortMapping) -> Result<u16> {
    let more = mapping.count() - 1;
    mapping
        .host_port
        .checked_add(more)
        .filter(|_| mapping.container_port.checked_add(more).is_some())
        .ok_or_else(|| {
            let (host, container) = (mapping.host_port, mapping.container_port);
            Error::msg(format!("a range of {} ports from {host} to {container} goes beyond 65535", more + 1))
        })
}

/// `ip daddr SERVER meta l4proto { tcp, udp } th dport 53 dnat ip to SERVER:PORT`
pub(super) fn move_dns(server: IpAddr, port: u16) -> Rule {
    let dns = Clause::Port { first: DNS_PORT, last: DNS_PORT };
    Rule(vec![destination(server), Clause::TcpOrUdp, dns, Clause::Dnat(SocketAddr::new(server, port))])
}

pub(super) fn moves_dns(rule: &Rule, server: IpAddr) -> bool {
    rule.clauses().starts_with(&[destination(server), Clause::TcpOrUdp])
}

/// The same for any server of a subnet.
pub(super) fn moves_dns_within(rule: &Rule, subnet: &IpNet) -> bool {
    match rule.clauses() {
        [Clause::Address { end: End::Destination, net, equal: true }, Clause::TcpOrUdp, ..] => {
            subnet.contains(net)
        }
        _ => false,
    }
}

fn source(net: IpNet) -> Clause {
    Clause::Address { end: End::Source, net, equal: true }
}

fn destination(address: IpAddr) -> Clause {
    Clause::Address { end: End::Destination, net: exactly(address), equal: true }
}

fn exactly(address: IpAddr) -> IpNet {
    IpNet::from(address)
}
