//! What a start of `pasta` and one of `passt` have in common: a look at the host, ports, the sandbox, the background.

use super::config::{Config, Guest, Ids, Namespace};
use super::network;
use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::unistd::{Gid, Uid, setgid, setgroups, setuid};
use slipway_host::device::Link;
use slipway_host::driver::Driver;
use slipway_host::inside::Side;
use slipway_host::ports;
use slipway_host::resolv_conf::{self, ResolvConf};
use slipway_host::sandbox::seccomp::Profile;
use slipway_host::sandbox::tracers;
use slipway_host::scope::ZonedAddr;
use slipway_host::strerror::{strerror, words};
use slipway_host::template::Following;
use slipway_netstack::ip::plan::Plan;
use slipway_netstack::ip::plan::pasta::Pasta;
use slipway_portfwd::Rule;
use slipway_portfwd::api::socket::BindError;
use slipway_portfwd::rule::passt::{Context, Draft};
use slipway_portfwd::table::Policy;
use slipway_runtime::background::Tell;
use slipway_runtime::logging::journal;
use slipway_runtime::network::{HostNetwork, OpenError};
use slipway_runtime::pid_file::Promise;
use slipway_runtime::serve::{ApiError, Session};
use slipway_runtime::start::{Confinement, Nameservers, Rights};
use std::fs::File;
use std::net::IpAddr;
use std::path::Path;

/// What the kernel refused, in a line.
pub(super) fn system(doing: &str) -> impl Fn(std::io::Error) -> String {
    move |error| format!("cannot {doing}: {}", words(&error))
}

/// Ports, sockets over which they are changed, signals.
pub(super) fn listen(config: &Config, session: &mut Session) -> Result<(), String> {
    let rules: Vec<Rule> = config.forwards.all().collect();
    let policy = |descriptors| Policy { free: config.freebind, ..Policy::passt(descriptors) };
    session
        .replace_rules(&rules, policy)
        .map_err(|error| format!("{}\nCouldn't listen on requested ports", error.in_passts_words()))?;
    for rule in &rules {
        log::info!("{}", Draft::from(rule).to_string().trim_end());
    }
    open_sockets(config, session)?;
    session.catch(&[Signal::SIGTERM, Signal::SIGQUIT]).map_err(system("catch signals"))
}

/// The end of a start: the sandbox, the PID file, the background.
pub(super) fn settle(
    config: &Config,
    session: &mut Session,
    addresses: &Pasta,
    (rights, calls): (Rights<'_>, Profile),
    pid_file: Option<Promise>,
    tell: &mut Tell,
) -> Result<(), String> {
    let servers = network::named_servers(config.dns_host);
    let confinement = Confinement {
        rights,
        names: match (network::answers_names(addresses), servers.as_slice()) {
            (false, _) => Nameservers::Nobody,
            (true, []) => Nameservers::Hosts,
            (true, these) => Nameservers::These(these),
        },
        calls: Some(calls),
    };
    session.drop_rights(&confinement).map_err(|error| error.to_string())?;
    if let Some(promise) = pid_file {
        promise.keep().map_err(system("write the PID file"))?;
    }
    tell.detach().map_err(system("go to the background"))?;
    session.forbid_calls(&confinement).map_err(|error| error.to_string())?;
    tell.ready().map_err(system("tell that the network works"))?;
    journal::settle();
    if let Some(every) = config.stats {
        session.show_counters(every);
    }
    Ok(())
}

/// The sockets over which rules are changed.
fn open_sockets(config: &Config, session: &mut Session) -> Result<(), String> {
    let can = config.abilities;
    if let Some(path) = &config.conf_path {
        let sides: &[Side] = match config.guest {
            Guest::Namespace(_) => &[Side::Host, Side::Namespace],
            Guest::Machine(_) => &[Side::Host],
        };
        let tables = sides.iter().map(|side| (*side, can));
        session.open_pesto(path, tables).map_err(|error| error.to_string())?;
    }
    if let Some(path) = &config.control {
        let context = Context { can, ephemeral: ports::ephemeral_range() };
        match session.open_control(path, context) {
            Ok(()) => {}
            Err(error @ ApiError::Taken(BindError::InUse(_))) => return Err(error.to_string()),
            // Where the profile of another program forbids it, everything else goes on.
            Err(error) => log::warn!("no orders are taken: {error}"),
        }
    }
    Ok(())
}

/// What the host's network says about the guest's. It is looked at before any namespace is joined.
pub(super) struct Host<'a> {
    config: &'a Config,
    pub(super) network: HostNetwork,
    /// Those of the host's resolv.conf as it is at the start.
    nameservers: Vec<IpAddr>,
    /// The host's search domains.
    pub(super) search: Vec<String>,
}

impl<'a> Host<'a> {
    pub(super) fn look(config: &'a Config, guest: Option<&Namespace>) -> Result<Self, String> {
        let network = HostNetwork::open(network::wishes(config, guest)).map_err(|error| match error {
            OpenError::Choose(error) => error.to_string(),
            OpenError::Netlink(error) => format!("cannot look at the host's network: {error}"),
        })?;
        let template = network.following().template();
        template.infos().for_each(|info| log::info!("{info}"));
        for (family, side) in [("IPv4", &template.v4), ("IPv6", &template.v6)] {
            let Some(side) = side else {
                log::debug!("{family}: not wanted");
                continue;
            };
            let like = side.interface.as_ref().map_or("none", |link| link.name.as_str());
            log::debug!(
                "{family}: template {like}, addresses {:?}, gateway {:?}",
                side.addresses,
                side.gateway
            );
        }
        let ResolvConf { nameservers, search, .. } = resolver();
        let nameservers = nameservers.iter().map(ZonedAddr::ip).collect();
        Ok(Self { config, network, nameservers, search })
    }

    /// What the engine's plan is made from.
    pub(super) fn addresses(&self) -> Pasta {
        network::addresses(self.config, self.network.following(), &self.nameservers)
    }

    /// Keeps the guest like the host for as long as it is served. One that we have configured is configured anew; any
    /// other hears of it by its own questions.
    pub(super) fn follow(self, is_configured: bool, session: &mut Session) -> Result<(), String> {
        let Self { config, network, nameservers, .. } = self;
        let config = config.clone();
        let readdress = move |following: &Following, driver: &mut Driver| {
            driver.readdress(Plan::pasta(&network::addresses(&config, following, &nameservers)));
            driver.set_shortcut(network::shortcut(&config, following.template()));
        };
        session
            .follow_host_network(network, is_configured, readdress)
            .map_err(system("watch the host's network"))
    }
}

/// Those of the host's resolv.conf as it is now, for what is fixed at the start.
fn resolver() -> ResolvConf {
    let text = resolv_conf::read_bounded(Path::new(resolv_conf::PATH)).unwrap_or_default();
    ResolvConf::parse(&text)
}

/// The PID file, opened for whoever will stay.
pub(super) fn promise(path: &Path) -> Result<Promise, String> {
    Promise::open(path)
        .map_err(|error| format!("Couldn't open PID file {}: {}", path.display(), words(&error)))
}

/// Becomes a user whom the machine trusts with nothing. The rights to the guest come from its user namespace.
pub(super) fn become_user(ids: Ids) -> Result<(), String> {
    let failed = |error: Errno| {
        format!("cannot become user {} and group {}: {}", ids.user, ids.group, strerror(error))
    };
    setgroups(&[]).map_err(failed)?;
    setgid(Gid::from_raw(ids.group)).map_err(failed)?;
    setuid(Uid::from_raw(ids.user)).map_err(failed)?;
    // The kernel has taken it back with the user.
    tracers::keep_out().map_err(|error| error.to_string())
}

/// The link, with its frames written down.
pub(super) fn record(link: Link, path: &Path) -> Result<Link, String> {
    let failed =
        |error: std::io::Error| format!("Couldn't open pcap file {}: {}", path.display(), words(&error));
    let file = File::create(path).map_err(failed)?;
    link.captured(file).map_err(failed)
}
