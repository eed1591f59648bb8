//! Subnets: choosing free ones, and checking those that were given.

use super::{Options, Pool, Used};
use crate::error::{Error, Result};
use crate::spec::validate::{distinct, overlap};
use crate::spec::{LeaseRange, Network, Subnet};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// As many random subnets as are tried. One collision in 2^56 is not expected.
const RANDOM_MAX: usize = 1000;

/// Gives a network that has none a subnet, and one of the missing family if it has IPv6.
pub(super) fn choose(
    network: &mut Network,
    used: &Used,
    options: &Options,
    unused: bool,
    random: fn() -> [u8; 7],
) -> Result<()> {
    let mut subnets = network.subnets.take().unwrap_or_default();
    let has = |subnets: &[Subnet], ipv6: bool| subnets.iter().any(|net| net.subnet.addr().is_ipv6() == ipv6);
    if subnets.is_empty() || (network.ipv6_enabled && !has(&subnets, false)) {
        let taken = if unused { used.subnets.as_slice() } else { &[] };
        subnets.push(plain(free_v4(taken, &options.subnet_pools)?.into()));
    }
    if network.ipv6_enabled && !has(&subnets, true) {
        subnets.push(plain(free_v6(&used.subnets, random)?.into()));
    }
    network.subnets = Some(subnets);
    Ok(())
}

fn plain(subnet: IpNet) -> Subnet {
    Subnet { subnet, gateway: None, lease_range: None }
}

/// The first subnet of the pools that touches nothing that is taken.
fn free_v4(taken: &[IpNet], pools: &[Pool]) -> Result<Ipv4Net> {
    let taken: Vec<Ipv4Net> = taken
        .iter()
        .filter_map(|net| match net {
            IpNet::V4(net) => Some(net.trunc()),
            IpNet::V6(_) => None,
        })
        .collect();
    let mut problem = None;
    for pool in pools {
        let IpNet::V4(base) = pool.base else { continue };
        match u8::try_from(pool.size).ok().filter(|size| (base.prefix_len()..=32).contains(size)) {
            Some(size) => {
                if let Some(free) = first_free(base.trunc(), size, &taken) {
                    return Ok(free);
                }
            }
            None => {
                problem =
                    Some(format!("subnet pool {base} cannot be cut into subnets of size {}", pool.size));
            }
        }
    }
    Err(Error::msg(problem.unwrap_or_else(|| "could not find free subnet from subnet pools".to_owned())))
}

/// Steps over what is taken, not over each candidate: a pool may have millions.
fn first_free(base: Ipv4Net, size: u8, taken: &[Ipv4Net]) -> Option<Ipv4Net> {
    let mut at = base.network();
    loop {
        let candidate = Ipv4Net::new(at, size).ok()?;
        if !base.contains(&at) {
            return None;
        }
        let Some(end) = taken
            .iter()
            .filter(|net| net.contains(&candidate) || candidate.contains(*net))
            .map(|net| net.broadcast().max(candidate.broadcast()))
            .max()
        else {
            return Some(candidate);
        };
        // The next address begins a subnet: the end of a larger one and of the candidate itself are both ends of ours.
        at = u32::from(end).checked_add(1).map(Ipv4Addr::from)?;
    }
}

/// A random subnet of fd00::/8 (RFC 4193 §3.2: random, not counted up) that touches nothing that is taken.
fn free_v6(taken: &[IpNet], random: fn() -> [u8; 7]) -> Result<Ipv6Net> {
    for _ in 0..RANDOM_MAX {
        let [a, b, c, d, e, f, g] = random();
        let address = Ipv6Addr::from([0xfd, a, b, c, d, e, f, g, 0, 0, 0, 0, 0, 0, 0, 0]);
        if let Ok(net) = Ipv6Net::new(address, 64)
            && !taken.iter().any(|other| overlap(&net.into(), other))
        {
            return Ok(net);
        }
    }
    Err(Error::msg("could not find a free random IPv6 subnet"))
}

/// Checks all subnets and gives each its gateway. `used` is what they must not touch.
pub(super) fn check(network: &mut Network, used: Option<&Vec<IpNet>>) -> Result<()> {
    distinct(network.subnets().iter().map(|subnet| &subnet.subnet))?;
    let needs_gateway = !network.internal || network.dns_enabled;
    for subnet in network.subnets.iter_mut().flatten() {
        let net = subnet.subnet;
        if used.is_some_and(|used| used.iter().any(|other| overlap(&net, other))) {
            return Err(Error::msg(format!("subnet {net} is already used on the host or by another config")));
        }
        match subnet.gateway {
            Some(gateway) if !net.contains(&gateway) => {
                return Err(Error::msg(format!("gateway {gateway} not in subnet {net}")));
            }
            None if needs_gateway => subnet.gateway = Some(first_address(net)?),
            _ => {}
        }
        if let Some(range) = &subnet.lease_range {
            check_range(range, net)?;
        }
        network.ipv6_enabled |= net.addr().is_ipv6();
    }
    Ok(())
}

/// The first address that a gateway can have. Without room for another one there is none.
fn first_address(net: IpNet) -> Result<IpAddr> {
    let (last, first) = match net {
        IpNet::V4(net) => (31, u32::from(net.network()).checked_add(1).map(|a| IpAddr::V4(a.into()))),
        IpNet::V6(net) => (128, u128::from(net.network()).checked_add(1).map(|a| IpAddr::V6(a.into()))),
    };
    first.filter(|_| net.prefix_len() < last).ok_or_else(|| {
        Error::msg(format!(
            "could not create gateway for subnet {net} because it has a {last} or greater subnet prefix"
        ))
    })
}

fn check_range(range: &LeaseRange, net: IpNet) -> Result<()> {
    let parse = |name: &str, text: &Option<String>| -> Result<Option<IpAddr>> {
        let Some(text) = text else { return Ok(None) };
        let ip: IpAddr =
            text.parse().map_err(|error| Error::msg(format!("invalid {name} {text:?}: {error}")))?;
        if net.contains(&ip) {
            Ok(Some(ip))
        } else {
            Err(Error::msg(format!("lease range {name} {ip} not in subnet {net}")))
        }
    };
    match (parse("start_ip", &range.start_ip)?, parse("end_ip", &range.end_ip)?) {
        (Some(start), Some(end)) if start > end => {
            Err(Error::msg(format!("lease range start_ip {start} comes after end_ip {end}")))
        }
        _ => Ok(()),
    }
}
