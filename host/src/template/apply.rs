//! Carries out a plan in the namespace of a socket.
//!
//! What was asked for is done or is an error; a copy that the kernel refuses is left out, and one warning says how many
//! there were and what became of the first. Routes wait for others that their gateways need: they are tried in rounds,
//! as long as a round gets any of them through. Where IPv6 is switched off in the namespace the guest has IPv4 alone,
//! with a warning.

use super::copy::Change;
use super::link_local;
use super::plan::{Device, Op};
use super::record::Family;
use crate::netlink::{Error, Interface, Netlink, Replay, Request};
use nix::errno::Errno;
use std::thread::sleep;
use std::time::Duration;

/// Gateways are on the link, or behind a route that is on the link: two rounds do, and a third finds nothing new. More
/// are for kernels that allow more.
const ROUNDS: usize = 16;

/// Requests made ahead.
const AT_ONCE: usize = 32;

/// How often it is looked whether anything is still tentative, and how long to wait between: what is never looked for
/// is so for a moment, until a worker of the kernel gets to it. A second in all.
const LOOKS: u32 = 5000;
const PAUSE: Duration = Duration::from_micros(200);

/// Configures the interface `name` in the namespace of `netlink`.
///
/// # Errors
/// ENODEV without such an interface; the kernel's, for what was asked for.
pub fn apply(netlink: &mut Netlink, name: &str, ops: &[Op]) -> Result<(), Error> {
    if ops.is_empty() {
        return Ok(());
    }
    let tap = netlink.interface(name)?;
    let mut run = Run { netlink, tap, without_v6: false, refused: Vec::new() };
    let mut rest = ops;
    while let Some((op, behind)) = rest.split_first() {
        let routes = rest.iter().map_while(Op::route).count();
        if let Some((run_of_routes, behind)) = rest.split_at_checked(routes).filter(|_| routes > 0) {
            run.routes(run_of_routes.iter().filter_map(Op::route).collect())?;
            rest = behind;
        } else {
            run.step(op)?;
            rest = behind;
        }
    }
    run.report();
    Ok(())
}

impl Op {
    fn route(&self) -> Option<&Change> {
        match self {
            Self::Route(route) => Some(route),
            _ => None,
        }
    }
}

struct Run<'a> {
    netlink: &'a mut Netlink,
    tap: Interface,
    /// IPv6 is switched off, which was said.
    without_v6: bool,
    /// Why copies were refused.
    refused: Vec<Error>,
}

impl Run<'_> {
    fn step(&mut self, op: &Op) -> Result<(), Error> {
        match op {
            Op::Loopback => {
                let lo = self.netlink.interface("lo")?;
                self.netlink.set_up(&lo)
            }
            Op::Device(device) => self.device(*device),
            Op::Up => self.up(),
            Op::Address(address) | Op::Deprecate(address) => self.address(address),
            Op::RemoveRoute(route) => self.remove(route, Replay::NoRoute),
            Op::RemoveAddress(address) => self.remove(address, Replay::NoAddress),
            Op::PromoteSecondaries => self.promote_secondaries(),
            Op::Route(route) => self.routes(vec![route]),
            Op::Settled => self.settled(),
        }
    }

    fn device(&mut self, device: Device) -> Result<(), Error> {
        if let Some(mac) = device.mac.filter(|mac| self.tap.mac != Some(*mac)) {
            self.netlink.set_mac(&self.tap, mac)?;
        }
        match device.mtu {
            Some(mtu) => self.netlink.set_mtu(&self.tap, u32::from(mtu.bytes())),
            None => Ok(()),
        }
    }

    /// See [`link_local`].
    fn up(&mut self) -> Result<(), Error> {
        // The kernel has drawn its MAC address, if nobody gave it one.
        self.tap = self.netlink.interface(&self.tap.name)?;
        let index = self.tap.index;
        let mode = link_local::mode(self.netlink, index)?.filter(|mode| *mode != link_local::NONE);
        let address = self.tap.mac.and_then(link_local::address);
        let (Some(mode), Some(address)) = (mode, address) else {
            return self.netlink.run_one(&Request::set_up(index, true));
        };
        let requests = [
            link_local::set_mode(index, link_local::NONE),
            Request::set_up(index, true),
            request(&address, Replay::Address, index),
            link_local::set_mode(index, mode),
        ];
        let mut results = self.netlink.run(&requests).into_iter();
        let (_, up) = (results.next(), results.next());
        // Without such an address there is no IPv6 at all, which those that follow will say.
        results.filter_map(Result::err).for_each(|error| log::debug!("{error}"));
        up.unwrap_or(Ok(()))
    }

    fn settled(&mut self) -> Result<(), Error> {
        for _ in 0..LOOKS {
            let found = self.netlink.addresses_of(self.tap.index)?;
            if !found.iter().any(|address| address.tentative && !address.duplicate) {
                return Ok(());
            }
            sleep(PAUSE);
        }
        log::warn!("{} has addresses that cannot be used yet", self.tap.name);
        Ok(())
    }

    fn address(&mut self, address: &Change) -> Result<(), Error> {
        if self.skips(address) {
            return Ok(());
        }
        match self.netlink.run_one(&request(address, Replay::Address, self.tap.index)) {
            Err(error) if address.family() == Family::V6 && is_switched_off(&error) => {
                log::warn!("no IPv6 for the guest: {error}");
                self.without_v6 = true;
                Ok(())
            }
            Err(error) if address.is_copied() => {
                self.refused.push(error);
                Ok(())
            }
            result => result,
        }
    }

    /// What is not there need not go.
    fn remove(&mut self, change: &Change, replay: Replay) -> Result<(), Error> {
        match self.netlink.run_one(&request(change, replay, self.tap.index)) {
            Err(error) if matches!(error.errno(), Some(Errno::ESRCH | Errno::EADDRNOTAVAIL)) => Ok(()),
            result => result,
        }
    }

    /// The kernel's setting `promote_secondaries` of the interface.
    fn promote_secondaries(&mut self) -> Result<(), Error> {
        /// IFLA_INET_CONF, whose attributes are numbered as the settings are (IPV4_DEVCONF_PROMOTE_SECONDARIES).
        const INET_CONF: u16 = 1;
        const PROMOTE_SECONDARIES: u16 = 20;
        let body = link_local::family_setting(self.tap.index, Family::V4, |v4| {
            v4.nested(INET_CONF, |settings| settings.bytes(PROMOTE_SECONDARIES, &1_u32.to_ne_bytes()));
        });
        let doing = format!("keep the other addresses of {}", self.tap.name);
        self.netlink.run_one(&Request::raw(doing, Replay::Link, body))
    }

    fn skips(&self, change: &Change) -> bool {
        self.without_v6 && change.family() == Family::V6
    }

    /// In rounds, until nothing new gets through.
    fn routes(&mut self, routes: Vec<&Change>) -> Result<(), Error> {
        let mut left = routes;
        left.retain(|route| !self.skips(route));
        let mut errors = Vec::new();
        for _ in 0..ROUNDS {
            let (count, mut behind) = (left.len(), Vec::new());
            errors.clear();
            for some in left.chunks(AT_ONCE) {
                for (route, result) in some.iter().zip(self.some_routes(some)) {
                    if let Err(error) = result {
                        behind.push(*route);
                        errors.push(error);
                    }
                }
            }
            left = behind;
            if left.is_empty() || left.len() == count {
                break;
            }
        }
        for (route, error) in left.into_iter().zip(errors) {
            let is_missing = route.family() == Family::V6 && is_switched_off(&error);
            if !route.is_copied() && !is_missing {
                return Err(error);
            }
            self.refused.push(error);
        }
        Ok(())
    }

    fn some_routes(&mut self, routes: &[&Change]) -> Vec<Result<(), Error>> {
        let index = self.tap.index;
        let requests: Vec<_> = routes
            .iter()
            .map(|route| {
                // The kernel has made its own for the addresses, with what was stripped here.
                let replay = if route.is_the_kernels() { Replay::OnlyRoute } else { Replay::Route };
                request(route, replay, index)
            })
            .collect();
        let mut results = self.netlink.run(&requests);
        for result in &mut results {
            if result.as_ref().is_err_and(|error| error.errno() == Some(Errno::EEXIST)) {
                *result = Ok(());
            }
        }
        results
    }

    fn report(self) {
        if let Some(first) = self.refused.first() {
            let (count, name) = (self.refused.len(), &self.tap.name);
            log::warn!("{count} of the host's addresses and routes are not on {name}: {first}");
        }
    }
}

fn request(change: &Change, replay: Replay, index: u32) -> Request {
    let doing = match replay {
        Replay::NoAddress | Replay::NoRoute => format!("take away {change}"),
        _ => format!("add {change}"),
    };
    Request::raw(doing, replay, change.body(index))
}

/// There is no IPv6 in the namespace, or on the interface.
fn is_switched_off(error: &Error) -> bool {
    matches!(error.errno(), Some(Errno::EACCES | Errno::EOPNOTSUPP | Errno::EAFNOSUPPORT))
}
