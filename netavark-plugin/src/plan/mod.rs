//! Plans: what has to be done for one container on one network, worked out without touching the system.
//!
//! ```text
//! bridge.rs      a bridge on the host, and a pair of interfaces from it into the container
//! switch.rs      a bridge whose way out is a TAP that a program elsewhere serves, and a pair as above
//! child.rs       a macvlan or ipvlan child of an interface of the host, inside the container
//! container.rs   what both give the interface inside: settings, addresses, routes
//! ```
//! A plan is a list of [`Op`]s, each one request to the kernel or one file. Interfaces that do not exist yet are spoken
//! of as [`On`]; [`crate::apply`] learns their numbers. Printed, a step reads like the command that would do the same.

pub mod bridge;
pub mod child;
mod container;
mod print;
pub mod switch;

use ipnet::IpNet;
use slipway_host::netlink::{IpvlanMode, MacvlanMode, NewRoute};
use slipway_netstack::addr::MacAddr;
use std::borrow::Cow;
use std::path::PathBuf;

pub use print::text;

/// An interface of the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum On {
    /// The bridge.
    Bridge,
    /// The host's end of the pair, a port of the bridge.
    Port,
    /// The container's interface.
    Inside,
    /// The TAP, a port of the bridge.
    Tap,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// A file from which the settings of the host are restored when somebody reloads them all. One that is there is
    /// kept.
    SysctlFile {
        /// Where.
        path: PathBuf,
        /// Keys and values.
        lines: Vec<(String, &'static str)>,
    },
    /// The bridge.
    MakeBridge {
        /// Its name.
        name: String,
        /// Its MTU, if it is fixed; otherwise it follows its ports.
        mtu: Option<u32>,
        /// Whether it keeps VLANs apart.
        vlan_filtering: bool,
        /// The vrf it belongs to, by number.
        vrf: Option<u32>,
    },
    /// A pair of interfaces: one end a port of the bridge, the other inside the container.
    MakePair {
        /// The name of the host's end; empty: the kernel's choice.
        port: String,
        /// The name of the container's end.
        inside: String,
        /// The MTU of both.
        mtu: Option<u32>,
        /// The MAC address of the container's end.
        mac: Option<MacAddr>,
    },
    /// A child of an interface of the host, inside the container.
    MakeChild {
        /// Its name.
        inside: String,
        /// The parent, by number.
        parent: u32,
        /// Its MTU.
        mtu: Option<u32>,
        /// Its MAC address.
        mac: Option<MacAddr>,
        /// What it is.
        kind: ChildKind,
    },
    /// A TAP, a port of the bridge; its other side is a descriptor of ours.
    MakeTap {
        /// Its name; a `%d` in it is the kernel's to count.
        name: String,
        /// Its MTU.
        mtu: u32,
    },
    /// A setting of the kernel, written if it has another value.
    Sysctl {
        /// Which.
        key: Key,
        /// Its value.
        value: Cow<'static, str>,
        /// Whether it is a convenience: a kernel without it, and a file system that is read-only, will do.
        optional: bool,
    },
    /// A change of an interface.
    Change {
        /// Which.
        on: On,
        /// The change.
        change: Change,
    },
    /// An address for an interface.
    Address {
        /// Which.
        on: On,
        /// The address.
        net: IpNet,
    },
    /// A route inside the container.
    Route(NewRoute),
    /// No such route inside the container any more.
    DeleteRoute(NewRoute),
    /// No such interfaces any more, all by one request at the end.
    Delete(Vec<On>),
    /// No such file any more.
    RemoveFile(PathBuf),
}

/// A change of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Up.
    Up,
    /// Frames without a tag belong to this VLAN.
    Vlan(u16),
    /// VLANs are kept apart.
    VlanFiltering,
    /// What leads back to where it came from goes there.
    Hairpin,
    /// The MAC address that it has becomes its own, so that it does not follow its ports.
    PinMac,
}

/// Kinds of children.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChildKind {
    /// With a MAC address of its own.
    Macvlan {
        /// Who may talk to whom.
        mode: MacvlanMode,
        /// From how many children on broadcasts are queued.
        broadcast_cutoff: Option<i32>,
    },
    /// With the parent's.
    Ipvlan(IpvlanMode),
}

/// A setting below `/proc/sys`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// One of the host as a whole.
    Host(&'static str),
    /// One of an interface.
    Of {
        /// Whether it is one of IPv6.
        ipv6: bool,
        /// Which interface.
        on: On,
        /// Its name.
        name: &'static str,
    },
}

impl Key {
    fn v4(on: On, name: &'static str) -> Self {
        Self::Of { ipv6: false, on, name }
    }

    fn v6(on: On, name: &'static str) -> Self {
        Self::Of { ipv6: true, on, name }
    }

    /// Its path below `/proc/sys`, for an interface called `interface`.
    #[must_use]
    pub fn path(&self, interface: &str) -> String {
        match self {
            Self::Host(path) => (*path).to_owned(),
            Self::Of { ipv6, name, .. } => {
                format!("net/{}/conf/{interface}/{name}", if *ipv6 { "ipv6" } else { "ipv4" })
            }
        }
    }
}

impl Op {
    fn sysctl(key: Key, value: &'static str) -> Self {
        Self::Sysctl { key, value: value.into(), optional: false }
    }

    /// A setting without which the network works, if not as well.
    fn optional(key: Key, value: impl Into<Cow<'static, str>>) -> Self {
        Self::Sysctl { key, value: value.into(), optional: true }
    }

    fn change(on: On, change: Change) -> Self {
        Self::Change { on, change }
    }
}

#[cfg(test)]
mod tests;
