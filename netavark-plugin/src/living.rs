//! Who lives: the addresses that containers of this host have now.
//!
//! A container whose processes and namespace were killed is never torn down in time. Its interface is gone, but rules,
//! names and files are not, and nothing in them says so. What does is the kernel: the host's end of a container's pair
//! names the namespace of the other end, whose addresses can be asked for (RTM_GETADDR with IFA_TARGET_NETNSID, Linux
//! 4.20).
//!
//! That takes a question for each container, so it is asked when there is a reason to: something is in the way of a
//! newcomer, or there are more records than containers. What cannot be found out counts as alive.

use slipway_host::netlink::{Error, Interface, Netlink};
use std::cell::OnceCell;
use std::collections::HashSet;
use std::net::IpAddr;

/// The addresses of the containers of the calling thread's network namespace, looked up when they are first asked for.
#[derive(Debug, Default)]
pub(crate) struct Living(OnceCell<Option<HashSet<IpAddr>>>);

impl Living {
    /// Whether somebody has this address.
    pub(crate) fn has(&self, address: IpAddr) -> bool {
        let all = self.0.get_or_init(|| {
            addresses().inspect_err(|error| log::debug!("nobody counts as dead: {error}")).ok()
        });
        all.as_ref().is_none_or(|all| all.contains(&address))
    }

    /// For tests: those have these.
    #[cfg(test)]
    pub(crate) fn with(addresses: &[IpAddr]) -> Self {
        Self(OnceCell::from(Some(addresses.iter().copied().collect())))
    }
}

fn addresses() -> Result<HashSet<IpAddr>, Error> {
    let mut netlink = Netlink::open()?;
    let pairs = netlink.interfaces()?.into_iter().filter(Interface::leads_to_a_container);
    let namespaces: HashSet<_> = pairs.filter_map(|port| port.peer_namespace).collect();
    let mut all = HashSet::new();
    for namespace in namespaces {
        match netlink.addresses_in(namespace) {
            Ok(list) => all.extend(list.into_iter().map(|address| address.net.addr())),
            // It has just ended, unless no pair leads there any more either.
            Err(error) if netlink.interfaces()?.iter().all(|it| it.peer_namespace != Some(namespace)) => {
                log::debug!("{error}");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(all)
}

/// Who else is on a network.
#[derive(Debug, Default)]
pub(crate) struct Others {
    /// How many containers its bridge has besides the one that is spoken of.
    pub(crate) count: usize,
    /// The addresses of all containers.
    pub(crate) living: Living,
    /// Whether there is a record of what each has.
    pub(crate) recorded: bool,
    /// Whether the records say that no other network has the bridge.
    pub(crate) only_network: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::namespaces::Place;
    use crate::testing::{another_namespace, driver, no_firewall, on_a_machine, options};

    #[test]
    fn addresses_live_as_long_as_their_namespace() {
        on_a_machine("addresses_live_as_long_as_their_namespace", |places| {
            let join = |places: &mut crate::namespaces::Places, last: u8| {
                let ips = format!(r#""10.88.0.{last}""#);
                let subnets = r#","network_interface":"br7","subnets":[{"subnet":"10.88.0.0/16","gateway":"10.88.0.1"}]"#;
                let options = options("bridge", &ips, subnets, "");
                driver(&options).unwrap().setup(places, &no_firewall()).unwrap();
            };
            join(places, 2);
            let mut other = Place::at(another_namespace().unwrap()).ok();
            std::mem::swap(&mut places.container, &mut other);
            join(places, 3);
            let bridge = places.host.netlink.interface("br7").unwrap().index;
            let ports = places.host.netlink.ports(bridge).unwrap();
            let mut count = |but: Option<u32>| places.host.netlink.count_containers(bridge, but).unwrap();
            assert_eq!((count(None), count(Some(ports[0].index)), count(Some(bridge))), (2, 1, 2));
            let has = |last: u8| Living::default().has([10, 88, 0, last].into());
            assert_eq!((has(2), has(3), has(1), has(4)), (true, true, false, false));
            drop(other);
            for _ in 0..500 {
                if !has(2) {
                    break;
                }
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            assert_eq!((has(2), has(3), count(None)), (false, true, 1));
        });
    }
}
