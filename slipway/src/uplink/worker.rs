//! The process that serves one network: an engine on the network's TAP, the published ports of its containers, its
//! names.
//!
//! ```text
//!   supervisor ── socket pair, our standard input ──▶ first order: network, TAP ─▶ engine, event loop ─▶ sandbox ─▶ reply
//!                                                  ▶ further orders, between two rounds of the loop ─▶ reply, reply, ..
//! ```
//! It is `slipway` again, executed afresh, so it shares neither memory nor its address-space layout with the supervisor
//! or other networks' workers: what a hostile container could make of a bug ends here. The stages of the sandbox are
//! those of the other commands: mounts (in a user namespace of its own where one is needed), capabilities, system
//! calls.
//!
//! It ends when the supervisor says no more, when the TAP is gone, and at a signal. First its ports and the TAP are
//! free, then it says its last word, so that the supervisor need not wait while it delivers what is left
//! ([`slipway_runtime::serve::Ending`]).

use super::names;
use super::orders::{self, LastWord, Order};
use super::records::Records;
use nix::errno::Errno;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use slipway_host::device::{Link, Tap};
use slipway_host::environment;
use slipway_host::sandbox::seccomp::Profile;
use slipway_host::strerror::words;
use slipway_host::sys::fdpass::take_inherited;
use slipway_netstack::addr::MacAddr;
use slipway_netstack::config::{Config, Mtu};
use slipway_netstack::ip::plan::Plan;
use slipway_netstack::ip::plan::slirp::{Ipv4Config, Ipv6Config, Slirp};
use slipway_portfwd::table::Counters;
use slipway_portfwd::{AddError, Rule, RuleId};
use slipway_runtime::logging;
use slipway_runtime::serve::{End, Ending, Session};
use slipway_runtime::start::{Confinement, Nameservers, Rights, StartError};
use slipway_uplink::envelope::Refusal;
use slipway_uplink::protocol::{Container, Network};
use std::ffi::OsString;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU64;
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::ExitCode;

/// What the program is called when it is a worker.
pub const NAME: &str = "slipway-uplink-worker";
/// The environment variable with the level of log lines.
pub const LEVEL: &str = "SLIPWAY_UPLINK_LOG";

/// Rules whose counters are told.
const MAX_COUNTED: usize = 2048;

/// One network being served.
struct Worker {
    id: String,
    session: Session,
    records: Records,
}

/// Runs a worker. Its one argument, the network's name, is for those who list processes.
#[must_use]
pub fn main(_args: &[OsString]) -> ExitCode {
    // It was executed by way of /proc, so it would be called "exe".
    let _ = nix::sys::prctl::set_name(c"slipway-uplink");
    let level = environment::text(LEVEL).and_then(|text| text.parse().ok());
    logging::init(level.unwrap_or(log::LevelFilter::Warn));
    let served = take_inherited(0).map_err(|error| words(&error)).and_then(serve);
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(line) => {
            log::error!("uplink worker: {line}");
            ExitCode::FAILURE
        }
    }
}

fn serve(control: OwnedFd) -> Result<(), String> {
    let spoken = |error: io::Error| format!("cannot speak with the uplink: {}", words(&error));
    let Some((Order::Start { network, host_loopback }, Some(tap))) =
        orders::next(control.as_fd()).map_err(spoken)?
    else {
        return Err("it is started by `slipway uplink`, and by nobody else".to_owned());
    };
    let worker = start(network, host_loopback, tap, &control);
    let mut worker = match worker {
        Ok(worker) => worker,
        Err(refusal) => {
            orders::reply(control.as_fd(), &Err(refusal)).map_err(spoken)?;
            return Ok(());
        }
    };
    orders::reply(control.as_fd(), &Ok(json!({}))).map_err(spoken)?;
    let last_word = loop {
        match worker.session.run().map_err(|error| format!("the network has ended: {}", words(&error)))? {
            End::Asked => match orders::next(control.as_fd()).map_err(spoken)? {
                None => break LastWord::Ends,
                Some((order, _)) => {
                    let result = worker.obey(order);
                    orders::reply(control.as_fd(), &result).map_err(spoken)?;
                }
            },
            End::Link(reason) => {
                log::info!("the network's TAP is gone: {}", words(&reason));
                break LastWord::LinkLost;
            }
            End::ExitFd | End::Signal(_) | End::Target => break LastWord::Ends,
        }
    };
    let rest = worker.session.let_go(Ending::Delivered);
    orders::part(control.as_fd(), last_word);
    drop(control);
    worker.session.deliver(rest);
    Ok(())
}

/// Everything that comes before the first frame.
fn start(network: Network, host_loopback: bool, tap: OwnedFd, control: &OwnedFd) -> Result<Worker, Refusal> {
    let doing = |doing: &'static str| move |error: io::Error| Refusal::system(doing, &error);
    let link = Link::from(Tap::from_owned_fd(tap).map_err(doing("use the descriptor as a TAP"))?);
    let opened =
        Session::open(link, gateway_mac(&network), |machine| configuration(&network, host_loopback, machine));
    let mut session = opened.map_err(refused)?;
    session.catch(&[Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP]).map_err(doing("catch signals"))?;
    let listened = control.try_clone().and_then(|control| session.attend(control));
    listened.map_err(doing("listen to the uplink"))?;
    let confinement = Confinement {
        rights: Rights::Apart,
        names: if network.dns { Nameservers::Hosts } else { Nameservers::Nobody },
        calls: Some(Profile::Network),
    };
    session.shut_in(&confinement).map_err(refused)?;
    let mut worker = Worker { id: network.id.clone(), session, records: Records::default() };
    worker.records.open(network);
    worker.tell_names();
    Ok(worker)
}

#[expect(clippy::needless_pass_by_value, reason = "used with map_err")]
fn refused(error: StartError) -> Refusal {
    Refusal { text: error.to_string(), errno: error.errno() }
}

/// The gateway's address on the link.
fn gateway_mac(network: &Network) -> MacAddr {
    let v4 = network.v4.map(|(_, gateway)| IpAddr::V4(gateway));
    let gateway = v4.or_else(|| network.v6.map(|(_, gateway)| gateway.into()));
    MacAddr::of_gateway(gateway.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)))
}

/// What the engine is told beside what the `machine` decides. Forwarded ports name their target, so it need not know a
/// guest's address.
fn configuration(network: &Network, host_loopback: bool, machine: Config) -> Config {
    let addresses = Slirp {
        v4: network.v4.map(|(net, gateway)| Ipv4Config {
            network: net,
            gateway,
            dns: network.dns.then_some(gateway),
            guest: Ipv4Addr::UNSPECIFIED,
            dhcp: None,
            silent: None,
        }),
        v6: network.v6.map(|(net, gateway)| Ipv6Config {
            network: net,
            gateway,
            dns: network.dns.then_some(gateway),
            guest: None,
            advertise: false,
            dhcp: false,
        }),
        host_loopback,
        internal: network.internal,
    };
    Config {
        mtu: Mtu::new(network.mtu).unwrap_or(Mtu::MIN),
        plan: Plan::slirp(machine.mac, &addresses),
        ..machine
    }
}

impl Worker {
    fn obey(&mut self, order: Order) -> Result<Value, Refusal> {
        match order {
            Order::Start { .. } => Err(Refusal::new("it serves a network already")),
            Order::Put { network, container, more } => {
                if network.id == self.id {
                    self.welcome(&container);
                }
                self.records.join(network, container);
                if !more {
                    self.tell_names();
                }
                Ok(json!({}))
            }
            Order::Remove { network, container } => {
                let left = self.records.leave(&network, &container);
                if network == self.id
                    && let Some(left) = left
                {
                    left.addresses().for_each(|address| self.session.forget_guest(address));
                }
                self.tell_names();
                Ok(json!({}))
            }
            Order::Publish { rules } => self.publish(&rules),
            Order::Withdraw { ids } => {
                for id in ids.into_iter().filter_map(NonZeroU64::new) {
                    self.session.withdraw(RuleId::from(id));
                }
                Ok(json!({}))
            }
            Order::Status => Ok(self.status()),
        }
    }

    /// A container is on our network, or is there in another way.
    fn welcome(&mut self, container: &Container) {
        let former = self.records.network(&self.id).and_then(|entry| entry.container(&container.id));
        let former: Vec<_> = former.map(|former| former.addresses().collect()).unwrap_or_default();
        let new: Vec<_> = container.addresses().collect();
        former
            .into_iter()
            .filter(|address| !new.contains(address))
            .for_each(|gone| self.session.forget_guest(gone));
        // It may have been another container's before, or have come back with another MAC address.
        new.into_iter().for_each(|address| self.session.forget_neighbour(address));
    }

    /// The names that are known from now on.
    fn tell_names(&mut self) {
        if let Some(names) = names::local(&self.records, &self.id) {
            self.session.use_names(names);
        }
    }

    /// All or none.
    fn publish(&mut self, texts: &[String]) -> Result<Value, Refusal> {
        let rules = texts.iter().map(|text| text.parse::<Rule>().map(|rule| (text, rule)));
        let rules: Vec<_> =
            rules.collect::<Result<_, _>>().map_err(|error| Refusal::new(error.to_string()))?;
        let mut ids = Vec::with_capacity(rules.len());
        for (_, rule) in rules {
            match self.session.publish(rule) {
                Ok(id) => ids.push(Some(id)),
                Err(error) if half_missing(&rule, &error) => ids.push(None),
                Err(error) => {
                    ids.into_iter().flatten().for_each(|id| self.session.withdraw(id));
                    return Err(Refusal { errno: error.raw_os_error(), text: error.to_string() });
                }
            }
        }
        let ids: Vec<_> = ids.into_iter().map(|id| id.map_or(0, RuleId::get)).collect();
        Ok(json!({ "ids": ids }))
    }

    fn status(&self) -> Value {
        let engine = self.session.driver().peek_engine();
        let counters = engine.counters();
        // Those that have done something, and not too many for one packet.
        let rules = self.session.table().list().map(|info| {
            let Counters { accepted, refused } = info.counters;
            json!([info.id.get(), accepted, refused])
        });
        let busy = rules.filter(|rule| rule[1] != 0 || rule[2] != 0).take(MAX_COUNTED);
        json!({
            "counters": {
                "flows": engine.flow_count(),
                "frames_in": counters.frames_in,
                "frames_out": counters.frames_out,
                "bytes_in": counters.bytes_in,
                "bytes_out": counters.bytes_out,
            },
            "rules": busy.collect::<Vec<_>>(),
        })
    }
}

/// A port published everywhere is published where it can be: on a host without IPv6, not on that.
fn half_missing(rule: &Rule, error: &AddError) -> bool {
    rule.listen().is_none()
        && rule.target().is_some_and(|target| matches!(target, IpAddr::V6(_)))
        && error.raw_os_error() == Some(Errno::EAFNOSUPPORT as i32)
}

#[cfg(test)]
mod tests {
    use super::super::records::tests::network;
    use super::*;
    use slipway_netstack::config::Keys;
    use slipway_netstack::device::Capabilities;
    use slipway_netstack::ip::plan::Route;

    fn config(network: &Network) -> Config {
        let keys = Keys { flow_hash: [1; 16], isn: [2; 16], others: [3; 16] };
        let machine = Config::new(gateway_mac(network), keys, Capabilities::default());
        configuration(network, false, machine)
    }

    #[test]
    fn the_gateway_is_the_nameserver_and_its_mac_address_a_stations() {
        for (subnet, gateway) in
            [("10.89.0.0/24", "10.89.0.1"), ("fd00:1::/64", "fd00:1::1"), ("ff::/16", "ff::1")]
        {
            let config = config(&network("n", subnet, gateway, false));
            assert!(config.mac.is_unicast());
            let gateway: IpAddr = gateway.parse().unwrap();
            assert_eq!(config.plan.outbound((gateway, 53).into()), Route::Dns);
            assert_eq!(config.plan.outbound((gateway, 80).into()), Route::Forbidden, "not the host");
        }
        let world: IpAddr = "192.0.2.1".parse().unwrap();
        let quiet = Network { dns: false, ..network("n", "10.89.0.0/24", "10.89.0.1", true) };
        let config = config(&quiet);
        assert_eq!(config.plan.outbound((world, 80).into()), Route::Forbidden, "internal");
        assert!(config.plan.v4.unwrap().dns.is_empty());
    }
}
