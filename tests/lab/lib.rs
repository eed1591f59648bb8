//! A laboratory of network namespaces: what the end-to-end tests, the demo and the benches stand on.
//!
//! ```text
//!   world 192.0.2.2 ──veth── host 192.0.2.1     container (unprivileged user namespace)
//!   2001:db8:1::2           2001:db8:1::1            └── tap0 ── slipway, which runs on "host"
//! ```
//!
//! *host* plays the machine: it has its own network and mount namespace, its own `/etc/resolv.conf` (which names a
//! DNS server in *world*), its own account list and a `/dev/net/tun` that everybody may open. Nothing of it is
//! visible on the real machine. *world* is everything beyond. A *container* is a fresh user and network namespace
//! made by an ordinary user.
//!
//! Invariants: no traffic leaves the lab's own namespaces; each namespace is held by a process that waits on a pipe
//! from this one, so that all of them vanish when this process ends, however it ends; every command has a deadline
//! and a process group of its own, which is killed by number when the deadline passes or its handle is dropped.
//!
//! Run by root, the lab's user is an otherwise unused id; run by anybody else, the lab lives inside an outer user
//! namespace and the user is that namespace's root, which is enough for the demo.

#![forbid(unsafe_code)]

mod command;
mod fixture;
mod handing;
mod interrupt;
mod machine;
mod nameserver;
mod namespaces;
mod servers;
mod subject;
mod traces;
mod unavailable;
mod vm;
mod weather;

pub use command::{Cmd, Output, Running, now, starved};
pub use fixture::{LIMIT, built, fixture, link, machine, peer, skip, subject, tree};
pub use handing::hand_over;
pub use interrupt::{interrupted, watch};
pub use machine::{Machine, Namespace, within};
pub use nameserver::{Dnsmasq, Place, Relay, Reply, Via, forged};
pub use namespaces::{Container, HOST4, HOST6, Lab, LabOptions, WORLD4, WORLD6};
pub use subject::{GATEWAY4, GATEWAY6, GUEST4, NAMESERVER4, NAMESERVER6, Slirp, Subject, api};
pub use traces::{hold, traced, traced_alone, under_filter, under_filters};
pub use unavailable::{NO_VSOCK, Unavailable};
pub use vm::{Image, Vm, by_loader, qemu, vm_fixture, vm_lab};
pub use weather::{LINK, Lane, Link, Weather};

/// Finds a program on the search path, also in the `sbin` directories that an ordinary user's path lacks.
#[must_use]
pub fn which(program: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':')
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"])
        .map(|dir| std::path::Path::new(dir).join(program))
        .find(|candidate| candidate.is_file())
}

/// The first of `programs` that is not installed.
#[must_use]
pub fn missing<'a>(programs: &[&'a str]) -> Option<&'a str> {
    programs.iter().copied().find(|program| which(program).is_none())
}
