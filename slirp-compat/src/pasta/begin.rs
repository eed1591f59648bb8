//! What a start of `pasta` and one of `passt` have in common: a look at the host, ports, the sandbox, the background.

use super::args::Told;
use super::config::{Config, Guest, Ids, Namespace};
use super::{network, said};
use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::unistd::{Gid, Uid, setgid, setgroups, setuid};
use slipway_host::driver::Driver;
use slipway_host::inside::Side;
use slipway_host::ports;
use slipway_host::resolv_conf::{self, ResolvConf};
use slipway_host::sandbox::seccomp::Profile;
use slipway_host::sandbox::tracers;
use slipway_host::scope::ZonedAddr;
use slipway_host::strerror::{strerror, words};
use slipway_host::template::Following;
use slipway_netstack::config::Config as EngineConfig;
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
    said::network(config, addresses).iter().for_each(|line| log::debug!("{line}"));
    let servers = network::named_servers(config.dns_host);
    // The guest may be told of us later, when the host's nameservers come to be where it cannot reach them.
    let asked = network::answers_names(addresses) || config.dns == Told::Hosts;
    let confinement = Confinement {
        rights,
        names: match (asked, servers.as_slice()) {
            (false, _) => Nameservers::Nobody,
            (true, []) => Nameservers::Hosts,
            (true, these) => Nameservers::These(these),
        },
        calls: Some(calls),
    };
    session.drop_rights(&confinement).map_err(|error| error.to_string())?;
    if network::tells_hosts(config) {
        session.tell_host_nameservers().map_err(system("follow the host's resolv.conf"))?;
    }
    if let Some(promise) = pid_file {
        promise.keep().map_err(system("write the PID file"))?;
    }
    tell.detach().map_err(system("go to the background"))?;
    log::debug!("shut in; the process that stays is {}", std::process::id());
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
    /// The host's resolv.conf as it is at the start.
    resolver: ResolvConf,
}

impl<'a> Host<'a> {
    pub(super) fn look(config: &'a Config, guest: Option<&Namespace>) -> Result<Self, String> {
        let network = HostNetwork::open(network::wishes(config, guest)).map_err(|error| match error {
            OpenError::Choose(error) => error.to_string(),
            OpenError::Netlink(error) => format!("cannot look at the host's network: {error}"),
        })?;
        let template = network.following().template();
        template.infos().for_each(|info| log::info!("{info}"));
        said::template(template).iter().for_each(|line| log::debug!("{line}"));
        Ok(Self { config, network, resolver: resolver() })
    }

    /// What the engine's plan is made from.
    pub(super) fn addresses(&self) -> Pasta {
        network::addresses(self.config, self.network.following(), &servers(&self.resolver))
    }

    /// The engine's configuration, over what the `machine` decides.
    pub(super) fn engine(&self, addresses: &Pasta, machine: &EngineConfig) -> EngineConfig {
        let template = self.network.following().template();
        network::engine(self.config, template, addresses, &self.resolver.search, machine)
    }

    /// Keeps the guest like the host for as long as it is served. One that we have configured is configured anew; any
    /// other hears of it by its own questions.
    pub(super) fn follow(self, is_configured: bool, session: &mut Session) -> Result<(), String> {
        let Self { config, network, resolver } = self;
        let config = config.clone();
        let readdress = move |following: &Following, resolver: &ResolvConf, driver: &mut Driver| {
            let template = following.template();
            driver.readdress(Plan::pasta(&network::addresses(&config, following, &servers(resolver))));
            driver.set_dns_search(network::searched(&config.search, &resolver.search));
            driver.set_outbound(network::outbound_now(driver.peek_engine().config().outbound, template));
            driver.set_shortcut(network::shortcut(&config, template));
        };
        session
            .follow_host_network(network, resolver, is_configured, readdress)
            .map_err(system("watch the host's network"))
    }
}

fn servers(resolver: &ResolvConf) -> Vec<IpAddr> {
    resolver.nameservers.iter().map(ZonedAddr::ip).collect()
}

/// The host's resolv.conf as it is now.
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

/// What `record` makes of the file of `--pcap`.
pub(super) fn recorded<T>(path: &Path, record: impl FnOnce(File) -> std::io::Result<T>) -> Result<T, String> {
    File::create(path)
        .and_then(record)
        .map_err(|error| format!("Couldn't open pcap file {}: {}", path.display(), words(&error)))
}

/// The descriptor of `--fd` is none.
pub(super) fn not_open(error: &std::io::Error) -> String {
    format!("Could not move --fd descriptor: {}", words(error))
}
