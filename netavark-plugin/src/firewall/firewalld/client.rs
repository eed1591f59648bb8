//! What firewalld is asked over D-Bus. Source: firewalld.dbus(5).

use super::bus::{Bus, Method};
use crate::error::{Error, Result};
use ipnet::IpNet;
use std::collections::BTreeMap;
use zbus::{OwnedVariant, Variant};

const NAME: &str = "org.fedoraproject.FirewallD1";
/// The signal that says that all rules were made anew, without ours.
const RELOADED: &str = "Reloaded";

/// A port that is forwarded: port or range, protocol, port or range, address.
pub(super) type ForwardPort = (String, String, String, String);

/// A connection to firewalld.
#[derive(Debug)]
pub(super) struct Client {
    bus: Bus,
}

/// The changeable part of a policy's settings. `None` is not changed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct PolicySettings {
    pub(super) forward_ports: Option<Vec<ForwardPort>>,
    pub(super) rich_rules: Option<Vec<String>>,
}

/// A policy to be created.
#[derive(Debug)]
pub(super) struct Policy {
    pub(super) name: &'static str,
    pub(super) ingress: &'static str,
    pub(super) egress: &'static str,
    pub(super) target: &'static str,
    pub(super) masquerade: bool,
}

/// A method of the running configuration; `interface` is the part of its name behind [`NAME`].
macro_rules! running {
    ($interface:literal, $member:literal) => {
        Method {
            destination: NAME,
            path: "/org/fedoraproject/FirewallD1",
            interface: concat!("org.fedoraproject.FirewallD1", $interface),
            member: $member,
        }
    };
}

/// A method of the permanent configuration.
const fn permanent(member: &'static str) -> Method {
    let interface = "org.fedoraproject.FirewallD1.config";
    Method { destination: NAME, path: "/org/fedoraproject/FirewallD1/config", interface, member }
}

impl Client {
    /// Connects to the bus, where there is one. Nobody says that firewalld is there.
    ///
    /// # Errors
    /// When there is a bus and it does not answer.
    pub(super) fn connect() -> Result<Option<Self>> {
        Ok(Bus::system()?.map(|bus| Self { bus }))
    }

    /// Whether firewalld is running.
    pub(super) fn is_running(&mut self) -> Result<bool> {
        self.bus.has_owner(NAME)
    }

    /// Makes the changes of the permanent configuration take effect.
    pub(super) fn reload(&mut self) -> Result<()> {
        self.bus.tell(running!("", "reload"), &())
    }

    /// From now on, [`Self::wait_for_reload`] sees when somebody has done that.
    pub(super) fn watch_reloads(&mut self) -> Result<()> {
        self.bus.subscribe(NAME, NAME, RELOADED)
    }

    /// Waits for the next reload.
    pub(super) fn wait_for_reload(&mut self) -> Result<()> {
        self.bus.wait_for(RELOADED)
    }

    /// Which version it is, such as `2.3.1`.
    pub(super) fn version(&mut self) -> Result<String> {
        let version = self.property("/org/fedoraproject/FirewallD1", NAME, "version")?;
        String::try_from(version).map_err(|_| Error::DbusVariant("the version is no string".to_owned()))
    }

    fn property(&mut self, path: &'static str, interface: &str, name: &str) -> Result<OwnedVariant> {
        let get =
            Method { destination: NAME, path, interface: "org.freedesktop.DBus.Properties", member: "Get" };
        self.bus.call(get, &(interface, name))
    }

    /// Makes a zone, unless there is one. Whether it needs a reload to be there.
    pub(super) fn ensure_zone(&mut self, name: &str) -> Result<bool> {
        let zones: Vec<String> = self.bus.call(running!(".zone", "getZones"), &())?;
        if zones.iter().any(|zone| zone == name) {
            return Ok(false);
        }
        let zones: Vec<String> = self.bus.call(permanent("getZoneNames"), &())?;
        if !zones.iter().any(|zone| zone == name) {
            self.bus.tell(permanent("addZone2"), &(name, BTreeMap::<&str, Variant<'_>>::new()))?;
        }
        Ok(true)
    }

    /// The policies of the running configuration.
    pub(super) fn policies(&mut self) -> Result<Vec<String>> {
        self.bus.call(running!(".policy", "getPolicies"), &())
    }

    /// Makes the policies that are missing. Whether that needs a reload.
    pub(super) fn ensure_policies(&mut self, wanted: &[&Policy]) -> Result<bool> {
        let there = self.policies()?;
        let missing: Vec<_> =
            wanted.iter().copied().filter(|policy| !there.iter().any(|name| name == policy.name)).collect();
        if missing.is_empty() {
            return Ok(false);
        }
        let saved: Vec<String> = self.bus.call(permanent("getPolicyNames"), &())?;
        for policy in missing {
            if saved.iter().any(|name| name == policy.name) {
                continue;
            }
            let mut settings: BTreeMap<&str, Variant<'_>> = [
                ("ingress_zones", Variant::new(vec![policy.ingress])),
                ("egress_zones", Variant::new(vec![policy.egress])),
                ("target", Variant::new(policy.target)),
            ]
            .into();
            if policy.masquerade {
                settings.insert("masquerade", Variant::new(true));
            }
            self.bus.tell(permanent("addPolicy"), &(policy.name, settings))?;
        }
        Ok(true)
    }

    /// Puts a subnet in a zone, wherever it was.
    pub(super) fn add_source(&mut self, zone: &str, net: &IpNet) -> Result<()> {
        if self.zone_of(net)? == zone {
            return Ok(());
        }
        self.bus.tell(running!(".zone", "changeZoneOfSource"), &(zone, net.to_string()))
    }

    /// Takes a subnet out of a zone, if it is in it.
    pub(super) fn remove_source(&mut self, zone: &str, net: &IpNet) -> Result<()> {
        if self.zone_of(net)? != zone {
            return Ok(());
        }
        self.bus.tell(running!(".zone", "removeSource"), &(zone, net.to_string()))
    }

    fn zone_of(&mut self, net: &IpNet) -> Result<String> {
        self.bus.call(running!(".zone", "getZoneOfSource"), &net.to_string())
    }

    /// What a policy of the running configuration has.
    pub(super) fn policy(&mut self, name: &str) -> Result<PolicySettings> {
        let mut settings: BTreeMap<String, OwnedVariant> =
            self.bus.call(running!(".policy", "getPolicySettings"), &name)?;
        let bad = |what: &str| Error::DbusVariant(format!("{what} of the policy {name} has a bad type"));
        let forward_ports = settings.remove("forward_ports").map(Vec::<ForwardPort>::try_from);
        let rich_rules = settings.remove("rich_rules").map(Vec::<String>::try_from);
        Ok(PolicySettings {
            forward_ports: forward_ports.transpose().map_err(|_| bad("forward_ports"))?,
            rich_rules: rich_rules.transpose().map_err(|_| bad("rich_rules"))?,
        })
    }

    /// Changes the settings that are given, of the running configuration.
    pub(super) fn set_policy(&mut self, name: &str, settings: PolicySettings) -> Result<()> {
        let mut changed: BTreeMap<&str, Variant<'_>> = BTreeMap::new();
        if let Some(ports) = settings.forward_ports {
            changed.insert("forward_ports", Variant::new(ports));
        }
        if let Some(rules) = settings.rich_rules {
            changed.insert("rich_rules", Variant::new(rules));
        }
        if changed.is_empty() {
            return Ok(());
        }
        self.bus.tell(running!(".policy", "setPolicySettings"), &(name, changed))
    }

    /// The setting StrictForwardPorts; versions before 2.3 do not have it.
    pub(super) fn strict_forward_ports(&mut self) -> Option<String> {
        let (path, interface) =
            ("/org/fedoraproject/FirewallD1/config", "org.fedoraproject.FirewallD1.config");
        let value = self.property(path, interface, "StrictForwardPorts").ok()?;
        match String::try_from(value) {
            Ok(text) => Some(text),
            Err(error) => {
                log::warn!(target: super::TARGET, "StrictForwardPorts is not a string: {error}");
                None
            }
        }
    }
}
