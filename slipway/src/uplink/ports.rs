//! Published ports: what the mappings of a request mean, and the rules that follow when the container's addresses are
//! known.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::num::NonZeroU16;
use slipway_host::scope::ZonedAddr;
use slipway_portfwd::Rule;
use slipway_portfwd::rule::{Ports, Proto};
use slipway_uplink::envelope::{Refusal, shown};
use slipway_uplink::wire::Mapping;

/// Ports of one protocol to be forwarded to a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Port {
    proto: Proto,
    listen: Option<ZonedAddr>,
    ports: Ports,
}

impl Port {
    /// What a mapping means: ports of each of its protocols.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn of(mapping: &Mapping) -> Result<Vec<Self>, Refusal> {
        Self::parse(mapping).map_err(Refusal::new)
    }

    fn parse(mapping: &Mapping) -> Result<Vec<Self>, String> {
        let listen = match mapping.host_ip.as_deref() {
            None | Some("") => None,
            Some(text) => Some(
                text.parse::<ZonedAddr>().map_err(|error| format!("host_ip {:?}: {error}", shown(text)))?,
            ),
        };
        let count = NonZeroU16::new(mapping.range).unwrap_or(NonZeroU16::MIN);
        let ports = NonZeroU16::new(mapping.host_port)
            .zip(NonZeroU16::new(mapping.container_port))
            .and_then(|(host, container)| Ports::run(Some(host), container, count))
            .ok_or_else(|| {
                format!(
                    "{} ports from {} to {}: ports are numbers from 1 to 65535",
                    count, mapping.host_port, mapping.container_port
                )
            })?;
        let protocols = if mapping.protocol.is_empty() { "tcp" } else { &mapping.protocol };
        let one = |name: &str| match name {
            "tcp" => Ok(Self { proto: Proto::Tcp, listen, ports }),
            "udp" => Ok(Self { proto: Proto::Udp, listen, ports }),
            other => Err(format!("protocol {:?} cannot be forwarded: expected tcp or udp", shown(other))),
        };
        protocols.split(',').take(8).map(|name| one(name.trim())).collect()
    }

    /// The rules that lead to a container with these addresses: one for each family that it listens on.
    ///
    /// # Errors
    /// When the container has no address of the family that is listened on.
    pub fn rules(&self, v4: Option<Ipv4Addr>, v6: Option<Ipv6Addr>) -> Result<Vec<Rule>, Refusal> {
        let (v4, v6) = (v4.map(IpAddr::V4), v6.map(IpAddr::V6));
        let targets = match self.listen.map(|listen| listen.ip()) {
            None => [v4, v6],
            Some(IpAddr::V4(_)) => [v4, None],
            Some(IpAddr::V6(_)) => [v6, None],
        };
        let rules = targets.into_iter().flatten();
        let rules: Vec<_> = rules
            .map(|target| Rule::new(self.proto, self.listen, self.ports, Some(target)))
            .collect::<Result<_, _>>()
            .map_err(|error| Refusal::new(error.to_string()))?;
        match (rules.is_empty(), self.listen) {
            (false, _) => Ok(rules),
            (true, None) => {
                Err(Refusal::new("the container has no address on any network that the uplink serves"))
            }
            (true, Some(listen)) => Err(Refusal::new(format!(
                "cannot forward {listen}: the container has no {} address on any network that the uplink serves",
                if listen.ip().is_ipv6() { "IPv6" } else { "IPv4" }
            ))),
        }
    }
}

#[cfg(test)]
mod tests;
