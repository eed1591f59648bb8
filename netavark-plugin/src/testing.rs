//! For tests: a machine of their own, with one container.

use crate::driver::{Driver, Request};
use crate::error::{Errors, Result};
use crate::firewall::Firewall;
use crate::namespaces::{Place, Places};
use crate::spec::{Compat, NetworkOptions};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::wait::WaitStatus;
use nix::unistd::geteuid;
use slipway_host::sys::proc::{fork_child, wait_for};
use slipway_host::sys::tun;
use std::fs::{self, File};
use std::path::Path;

/// The child's exit status when this machine gives it no namespace.
const SKIPPED: u8 = 77;

/// Runs `work` in a child with namespaces of its own, in which `/run` is empty but for a sign of systemd. Fails when it
/// panics; says so and passes where no namespace is to be had.
pub(crate) fn on_a_machine(name: &str, work: impl FnOnce(&mut Places)) {
    let child = fork_child(|| match machine() {
        Ok(mut places) => {
            work(&mut places);
            0
        }
        Err(error) => {
            println!("{error}");
            SKIPPED
        }
    })
    .unwrap();
    match wait_for(child).unwrap() {
        WaitStatus::Exited(_, 0) => {}
        WaitStatus::Exited(_, status) if status == i32::from(SKIPPED) => {
            println!("SKIP {name}: this machine gives it no namespaces");
        }
        status => panic!("{name}: {status:?}"),
    }
}

/// Runs `work`, which makes TAPs, as [`on_a_machine`] does.
pub(crate) fn on_a_machine_with_tun(name: &str, work: impl FnOnce(&mut Places)) {
    match tun::open_device(Path::new(tun::DEVICE)) {
        Ok(_) => on_a_machine(name, work),
        Err(error) => println!("SKIP {name}: no TAP can be made here: {error}"),
    }
}

/// Whether new interfaces here have IPv6; says so when not: it may be switched off, or not be in the kernel.
pub(crate) fn has_ipv6(name: &str) -> bool {
    let setting = fs::read_to_string("/proc/sys/net/ipv6/conf/default/disable_ipv6");
    let has = setting.is_ok_and(|value| value.trim() == "0");
    if !has {
        println!("SKIP {name}: nothing over IPv6 on this machine");
    }
    has
}

fn machine() -> Result<Places> {
    const NONE: Option<&str> = None;
    let mut flags = CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS;
    if !geteuid().is_root() {
        flags |= CloneFlags::CLONE_NEWUSER;
    }
    unshare(flags)?;
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)?;
    mount(Some("run"), "/run", Some("tmpfs"), MsFlags::empty(), NONE)?;
    fs::create_dir_all("/run/systemd/system")?;
    let container = Place::at(another_namespace()?)?;
    Ok(Places { host: Place::here()?, container: Some(container) })
}

/// A network namespace besides the one we are in, which we do not leave for long.
pub(crate) fn another_namespace() -> Result<File> {
    let home = File::open("/proc/self/ns/net")?;
    unshare(CloneFlags::CLONE_NEWNET)?;
    let there = File::open("/proc/self/ns/net")?;
    setns(&home, CloneFlags::CLONE_NEWNET)?;
    Ok(there)
}

/// What a plan may change of the host, as text.
pub(crate) fn state(places: &mut Places) -> String {
    let mut links: Vec<_> =
        places.host.netlink.interfaces().unwrap().into_iter().map(|link| link.name).collect();
    links.sort();
    let inside = places.container.as_mut().unwrap().netlink.interfaces().unwrap();
    let inside: Vec<_> = inside.into_iter().map(|link| link.name).collect();
    let files: Vec<_> = fs::read_dir("/run/sysctl.d")
        .map(|dir| dir.map(|entry| entry.unwrap().file_name()).collect())
        .unwrap_or_default();
    let settings = ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"]
        .map(|key| fs::read_to_string(format!("/proc/sys/{key}")).unwrap_or_default());
    format!("{links:?} {inside:?} {files:?} {settings:?}")
}

/// A request for one network of the given kind; `rest` is more of its definition.
pub(crate) fn options(driver: &str, ips: &str, rest: &str, per_network: &str) -> NetworkOptions {
    let text = format!(
        r#"{{"container_id":"6ce776ea58b5","container_name":"someName",
        "networks":[{{"name":"net1","interface_name":"eth0","static_ips":[{ips}]{per_network}}}],
        "network_info":{{"net1":{{"name":"net1","id":"2f259bab93aaaaa2542ba43ef33eb990d0999ee1b9924b557b7be53c0b7a1bb9",
        "driver":"{driver}","ipv6_enabled":false,"internal":false,"dns_enabled":false{rest}}}}}}}"#
    );
    serde_json::from_str(&text).unwrap()
}

/// What the driver is told of it.
pub(crate) fn request(options: &NetworkOptions) -> Request<'_> {
    let (name, per_network) = options.networks.list.first().unwrap();
    Request {
        container_id: &options.container_id,
        container_name: &options.container_name,
        container_hostname: None,
        container_dns_servers: options.dns_servers.as_deref(),
        netns_path: Path::new("/nonexistent"),
        network: options.network(name).unwrap(),
        options: per_network,
        port_mappings: options.port_mappings.as_deref(),
        compat: Compat::Two,
        rules: Compat::Two,
        config_dir: Path::new("/run/config"),
        rootless: false,
        dns_port: 53,
    }
}

/// A whole teardown.
pub(crate) fn teardown(options: &NetworkOptions, places: &mut Places) -> Result<()> {
    let mut errors = Errors::new();
    errors.note(driver(options)?.teardown(places, &no_firewall()));
    errors.note(places.delete_leaving());
    errors.finish()
}

/// No rules.
pub(crate) fn no_firewall() -> Firewall {
    Firewall::select(Some("none"), Path::new("/run/config"), false).unwrap()
}

/// The driver for it.
pub(crate) fn driver(options: &NetworkOptions) -> Result<Driver<'_>> {
    Driver::find(request(options), &[])
}
