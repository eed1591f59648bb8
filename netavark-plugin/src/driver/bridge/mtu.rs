//! How large packets of a new bridge network may be, when its definition does not say: as large as every way out takes
//! that a container's packets may go, of the families that the network has, so that nothing needs to be cut or refused
//! behind the bridge. A family without a way out asks for nothing; if that is so for all of them, the other one is
//! asked.
//!
//! An interface of a container cannot have every MTU that a way out may have: a pair takes 68 to 65535 bytes (Linux
//! `drivers/net/veth.c`, ETH_MIN_MTU and ETH_MAX_MTU; lo has 65536), and IPv6 needs 1280 (RFC 8200 §5).

use crate::error::{Context, Result};
use crate::spec::Ipam;
use slipway_host::netlink::Netlink;

const LEAST: u32 = 68;
const LEAST_V6: u32 = 1280;
const MOST: u32 = 65535;

/// The MTU for the network, if anything leads out.
pub(super) fn of_the_way_out(ipam: &Ipam, table: u32, netlink: &mut Netlink) -> Result<Option<u32>> {
    let ipv4 = !ipam.ipv6 || ipam.addresses.iter().any(|address| address.ipnet.addr().is_ipv4());
    let families = [(false, ipv4), (true, ipam.ipv6)];
    for wanted in [true, false] {
        let mut mtus = Vec::new();
        for (ipv6, _) in families.iter().filter(|(_, has)| *has == wanted) {
            let ways = netlink.ways_out(table, *ipv6).context("dump routes")?;
            mtus.extend(ways.iter().map(|way| way.mtu));
        }
        if let Some(mtu) = mtus.into_iter().min() {
            return Ok(Some(possible(mtu, ipam.ipv6)));
        }
    }
    Ok(None)
}

/// The nearest MTU that a container's interface can have.
fn possible(mtu: u32, ipv6: bool) -> u32 {
    let possible = mtu.clamp(if ipv6 { LEAST_V6 } else { LEAST }, MOST);
    if possible > mtu {
        log::warn!("the way out takes packets of {mtu} bytes only: the network has an MTU of {possible}");
    }
    possible
}

#[cfg(test)]
mod tests {
    use super::possible;

    #[test]
    fn a_pair_has_no_mtu_of_its_own_choice() {
        assert_eq!(
            [40, 68, 1500, 65535, 65536, u32::MAX].map(|mtu| possible(mtu, false)),
            [68, 68, 1500, 65535, 65535, 65535]
        );
        assert_eq!([576, 1280, 1500].map(|mtu| possible(mtu, true)), [1280, 1280, 1500]);
    }
}
