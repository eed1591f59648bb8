//! The steps that configure the guest's interface.
//!
//! Order. Loopback first, so that `localhost` works whatever else fails. Then MTU and MAC address, while the interface
//! is down; then it comes up, with the link-local address that it is given here. Addresses follow, none of which is
//! looked for elsewhere, then routes, and at the end it is seen that nothing is tentative.

use super::copy::Change;
use super::{Side, Template};
use slipway_netstack::addr::MacAddr;
use slipway_netstack::config::Mtu;

/// What the guest's interface is, whatever it is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Device {
    /// Its MTU; `None`: the kernel's.
    pub mtu: Option<Mtu>,
    /// Its MAC address; `None`: the kernel draws one.
    pub mac: Option<MacAddr>,
}

/// A step, for the guest's interface in its namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Brings the loopback interface up.
    Loopback,
    /// Sets MTU and MAC address.
    Device(Device),
    /// Brings the interface up, with a link-local address that can be used at once.
    Up,
    /// Adds an address, or renews it.
    Address(Change),
    /// Adds a route.
    Route(Change),
    /// Has nothing new begin from an address.
    Deprecate(Change),
    /// Takes a route away.
    RemoveRoute(Change),
    /// From now on, with an address of IPv4 the others of its network do not go.
    PromoteSecondaries,
    /// Takes an address away.
    RemoveAddress(Change),
    /// Waits, for a bounded time, until no address is tentative.
    Settled,
}

/// The steps from a fresh interface to one that is as the template says.
#[must_use]
pub fn plan(template: &Template, device: Device) -> Vec<Op> {
    let begin = [Op::Loopback, Op::Device(device), Op::Up];
    let addresses = template.sides().flat_map(Side::given).cloned().map(Op::Address);
    let routes = template.sides().flat_map(Side::routes).cloned().map(Op::Route);
    begin.into_iter().chain(addresses).chain(routes).chain([Op::Settled]).collect()
}
