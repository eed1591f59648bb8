//! The network and its three addresses: chosen where nobody names them, and checked.

use super::{Failure, chosen, fatal};
use crate::args::Args;
use crate::config::Subnet;
use crate::yaml::Stack;
use std::net::Ipv4Addr;

/// The network where none is named.
const SUBNET: &str = "192.168.127.0/24";
/// The longest prefix that leaves three addresses and some for guests.
const LONGEST: u8 = 29;

/// Valid, and distinct.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Addresses {
    pub(super) subnet: Subnet,
    pub(super) gateway: Ipv4Addr,
    pub(super) device: Ipv4Addr,
    pub(super) host: Ipv4Addr,
}

impl Addresses {
    /// Of these the file counts more.
    pub(super) fn choose(args: &Args, file: &Stack) -> Result<Self, Failure> {
        let either = |typed: &str, written: &Option<String>| {
            let written = written.as_deref().unwrap_or_default();
            chosen(written, Some(&typed.to_owned()))
        };
        let text = either(&args.subnet, &file.subnet).unwrap_or_else(|| SUBNET.to_owned());
        let subnet = parse(&text)?;
        let named = [
            ("gateway", either(&args.gateway_ip, &file.gateway_ip)),
            ("device", either(&args.device_ip, &file.device_ip)),
            ("host", either(&args.host_ip, &file.host_ip)),
        ];
        let mut texts = Vec::new();
        for (nth, (name, named)) in named.into_iter().enumerate() {
            texts.push(match named {
                Some(named) => named,
                None => usable(subnet, nth).map(|ip| ip.to_string()).map_err(|why| {
                    fatal(format!("failed to identify usable {name} IP address in subnet: {why}"))
                })?,
            });
        }
        let wrong = |why| fatal(format!("failed to validate configuration IPs: {why}"));
        let ips =
            texts.iter().map(|text| check(subnet, text)).collect::<Result<Vec<_>, _>>().map_err(wrong)?;
        match *ips.as_slice() {
            [gateway, device, host] if gateway != device && device != host && host != gateway => {
                Ok(Self { subnet, gateway, device, host })
            }
            _ => Err(wrong("IP addresses need to be distinct".to_owned())),
        }
    }
}

fn parse(text: &str) -> Result<Subnet, Failure> {
    let wrong = |why: String| fatal(format!("failed to parse subnet: {why}"));
    if text.parse::<ipnet::Ipv6Net>().is_ok() {
        return Err(wrong(format!(
            "{text} is not IPv4, which the network has to be; -ipv6 adds the other family"
        )));
    }
    text.parse().map_err(|_| wrong(format!("invalid CIDR address: {text}")))
}

/// The first, the second or the last address of a network that a machine may have.
fn usable(subnet: Subnet, nth: usize) -> Result<Ipv4Addr, &'static str> {
    if subnet.prefix_len() > LONGEST {
        return Err("subnet too small");
    }
    let (first, last) = (u32::from(subnet.network()), u32::from(subnet.broadcast()));
    let ip = match nth {
        0 => first.checked_add(1),
        1 => first.checked_add(2),
        _ => last.checked_sub(1),
    };
    ip.map(Ipv4Addr::from).ok_or("no usable IP in subnet")
}

fn check(subnet: Subnet, text: &str) -> Result<Ipv4Addr, String> {
    let ip: Ipv4Addr = text.parse().map_err(|_| format!("invalid IP address: {text}"))?;
    if !subnet.contains(&ip) {
        return Err(format!("IP ({ip}) not in subnet ({subnet})"));
    }
    // The network's own address, too, which nobody can have when it was written with another.
    if ip == subnet.addr() || ip == subnet.network() {
        return Err(format!("IP must not be address of subnet: {ip}"));
    }
    if ip == subnet.broadcast() {
        return Err(format!("IP must not be broadcast address: {ip}"));
    }
    Ok(ip)
}
