//! Ports of the host that lead into the network: by name as they were given, each a rule of portfwd's table.
//!
//! What is listed is what was written, and `tcp` on `:80` is another than on `0.0.0.0:80`, whatever the kernel says to
//! that. A port of all addresses is one of both families, also where it leads to an IPv4 address: the guest sees the
//! gateway, not the client ([`Rule::crossing`]).

use super::endpoint::{self, Local};
use super::message::Forward;
use core::num::NonZeroU16;
use slipway_portfwd::rule::{Ports, Proto};
use slipway_portfwd::{AddError, Rule, RuleId};
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;

/// Whoever puts rules in force.
pub trait Publisher {
    /// From now on it is.
    ///
    /// # Errors
    /// See [`AddError`].
    fn publish(&mut self, rule: Rule) -> Result<RuleId, AddError>;

    /// From now on it is not.
    fn withdraw(&mut self, id: RuleId);
}

/// Those in force.
#[derive(Debug, Default)]
pub struct Forwards {
    /// By what was to listen, and the protocol: the order in which they are listed.
    by_name: BTreeMap<(String, String), (String, RuleId)>,
}

impl Forwards {
    /// Has a port of the host lead into the network.
    ///
    /// # Errors
    /// In gvproxy's words.
    pub fn expose(&mut self, forward: Forward, publisher: &mut impl Publisher) -> Result<(), String> {
        let Forward { local, remote, protocol } = forward;
        let name = (local, protocol);
        if self.by_name.contains_key(&name) {
            return Err(already(&name.1, &name.0));
        }
        let proto = match name.1.as_str() {
            "tcp" => Proto::Tcp,
            "udp" => Proto::Udp,
            other => return Err(format!("unknown protocol {other}")),
        };
        let guest = endpoint::remote(&remote)?;
        let place = Local::parse(proto.name(), &name.0)?;
        let rule = rule(proto, place, guest)?;
        let id = publisher.publish(rule).map_err(|error| match error {
            AddError::Listen { error, .. } => place.refused(proto.name(), &error),
            AddError::Full(..) => {
                place.refused(proto.name(), &io::Error::from_raw_os_error(nix::libc::EMFILE))
            }
            other => other.to_string(),
        })?;
        self.by_name.insert(name, (remote, id));
        Ok(())
    }

    /// Has it lead there no more. Connections live on.
    ///
    /// # Errors
    /// In gvproxy's words.
    pub fn unexpose(
        &mut self,
        protocol: &str,
        local: &str,
        publisher: &mut impl Publisher,
    ) -> Result<(), String> {
        let name = (local.to_owned(), protocol.to_owned());
        let (_, id) = self.by_name.remove(&name).ok_or_else(|| NOT_FOUND.to_owned())?;
        publisher.withdraw(id);
        Ok(())
    }

    /// All, by what listens and the protocol.
    #[must_use]
    pub fn list(&self) -> Vec<Forward> {
        let row = |((local, protocol), (remote, _)): (&(String, String), &(String, RuleId))| Forward {
            local: local.clone(),
            remote: remote.clone(),
            protocol: protocol.clone(),
        };
        self.by_name.iter().map(row).collect()
    }
}

/// What is said to somebody who exposes twice.
#[must_use]
pub fn already(protocol: &str, local: &str) -> String {
    format!("proxy already running for {protocol} on {local}")
}

/// What is said to somebody who takes back what is not there.
pub const NOT_FOUND: &str = "proxy not found";

fn rule(proto: Proto, place: Local, guest: SocketAddr) -> Result<Rule, String> {
    // A port of a guest is none that was not named: `endpoint::remote` refuses 0.
    let target = NonZeroU16::new(guest.port()).ok_or("invalid remote addr")?;
    let ports = Ports::single(NonZeroU16::new(place.port), target);
    let made = match proto {
        Proto::Tcp => Rule::crossing(place.host, ports, guest.ip()),
        Proto::Udp => Rule::new(proto, place.host, ports, Some(guest.ip())),
    };
    made.map_err(|error| error.to_string())
}
