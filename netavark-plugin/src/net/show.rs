//! `show`: the networks and who is on them.

use super::state::{Record, Records};
use crate::error::{Error, Result};
use crate::spec::PortMapping;
use std::fmt::{self, Write as _};
use std::io::Write as _;

pub(super) fn run(records: &Records, name: Option<&str>, json: bool) -> Result<()> {
    let list = match name {
        Some(name) => {
            vec![records.get(name)?.ok_or_else(|| Error::msg(format!("there is no network {name}")))?]
        }
        None => records.all()?,
    };
    let text =
        if json { serde_json::to_string_pretty(&list)? + "\n" } else { text(&list).unwrap_or_default() };
    // A reader that has gone away does not want the rest.
    let _ = std::io::stdout().write_all(text.as_bytes());
    Ok(())
}

fn text(list: &[Record]) -> Result<String, fmt::Error> {
    let mut out = String::new();
    for Record { network, members } in list {
        write!(out, "{}: bridge {}", network.name, network.network_interface.as_deref().unwrap_or("-"))?;
        for subnet in network.subnets() {
            write!(out, ", {}", subnet.subnet)?;
            subnet.gateway.iter().try_for_each(|gateway| write!(out, " via {gateway}"))?;
        }
        for (word, yes) in [("internal", network.internal), ("names", network.dns_enabled)] {
            out.push_str(if yes { ", " } else { "" });
            out.push_str(if yes { word } else { "" });
        }
        for (key, value) in network.options.iter().flatten() {
            write!(out, ", {key}={value}")?;
        }
        out.push('\n');
        for member in members {
            write!(out, "  {}: {}", member.name, member.options.interface_name)?;
            member.options.ips().iter().try_for_each(|address| write!(out, " {address}"))?;
            member.ports.iter().try_for_each(|port| write!(out, " {}", Shown(port)))?;
            let gone = if member.number.is_at(&member.namespace) { "" } else { ", gone" };
            writeln!(out, " ({}{gone})", member.namespace.display())?;
        }
    }
    Ok(out)
}

/// A published port as it was written.
struct Shown<'a>(&'a PortMapping);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PortMapping { container_port, host_port, host_ip, protocol, .. } = self.0;
        if host_ip.contains(':') {
            write!(f, "[{host_ip}]:")?;
        } else if !host_ip.is_empty() {
            write!(f, "{host_ip}:")?;
        }
        let more = self.0.count() - 1;
        if more == 0 {
            return write!(f, "{host_port}:{container_port}/{protocol}");
        }
        let last = |first: u16| first.saturating_add(more);
        write!(f, "{host_port}-{}:{container_port}-{}/{protocol}", last(*host_port), last(*container_port))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::ports::Publish;

    #[test]
    fn a_port_is_shown_as_it_is_written() {
        for text in ["80:8080/tcp", "198.51.100.1:53:5353/udp", "[2001:db8::1]:1-9:11-19/sctp"] {
            let Publish(mapping) = text.parse().unwrap();
            assert_eq!(Shown(&mapping).to_string(), text);
        }
    }
}
