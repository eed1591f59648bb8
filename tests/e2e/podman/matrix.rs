//! Who is put through what.
//!
//! | Podman | user | way out of the rootless-netns |
//! |---|---|---|
//! | the machine's (4.3 in Debian 12) | both | our slirp4netns |
//! | 5 | both | our slirp4netns, or the tree's pasta |
//! | 6 | both | the tree's pasta or ours, which may publish ports too |

use super::features::{clients_are_seen, leases, macvlan, ranges_isolation_and_reload, servers_change};
use super::scenes::{build, names_world_and_ports, networks_come_and_go, pasta};
use super::{Pair, Podman, User, Version, Wish};

macro_rules! matrix {
    ($($name:ident: $wish:expr => $($scene:ident)*;)*) => {$(
        #[test]
        fn $name() {
            let Some(podman) = Podman::new(stringify!($name), &$wish) else { return };
            $($scene(&podman);)*
        }
    )*};
}

fn rootless(version: Version, pair: Pair) -> Wish {
    Wish::new(pair).of(version)
}

fn root(version: Version, pair: Pair) -> Wish {
    Wish::new(pair).of(version).by(User::Root)
}

/// Podman 5 with the way out that Podman 4 had.
fn slirp4netns() -> Wish {
    Wish {
        network: "default_rootless_network_cmd = \"slirp4netns\"\n".to_owned(),
        ..rootless(Version::Five, Pair::OURS)
    }
}

/// Podman 6 with pasta as the one who publishes ports.
fn pasta_publishes() -> Wish {
    Wish { network: "rootless_port_forwarder = \"pasta\"\n".to_owned(), ..rootless(Version::Six, Pair::OURS) }
}

matrix! {
    rootless_4: rootless(Version::Machine, Pair::OURS) => names_world_and_ports networks_come_and_go;
    rootless_4_stock_dns: rootless(Version::Machine, Pair::STOCK_DNS) => names_world_and_ports;
    rootless_5_slirp4netns: slirp4netns() => names_world_and_ports networks_come_and_go;
    rootless_5_pasta: rootless(Version::Five, Pair::OURS) => names_world_and_ports servers_change;
    rootless_5_stock_dns: rootless(Version::Five, Pair::STOCK_DNS) => names_world_and_ports;
    rootless_6: rootless(Version::Six, Pair::OURS) => names_world_and_ports networks_come_and_go servers_change;
    rootless_6_stock_dns: rootless(Version::Six, Pair::STOCK_DNS) => names_world_and_ports;
    rootless_6_stock_netavark: rootless(Version::Six, Pair::OUR_DNS) => names_world_and_ports servers_change;
    rootless_5_our_pasta: rootless(Version::Five, Pair::OURS).our_pasta() => pasta build names_world_and_ports servers_change;
    rootless_6_our_pasta: rootless(Version::Six, Pair::OURS).our_pasta() => pasta build names_world_and_ports;
    rootless_6_our_pasta_publishes: pasta_publishes().our_pasta() => names_world_and_ports clients_are_seen;
    rootless_6_pasta_publishes: pasta_publishes() => names_world_and_ports clients_are_seen;

    root_4: root(Version::Machine, Pair::OURS) => names_world_and_ports ranges_isolation_and_reload macvlan;
    root_5: root(Version::Five, Pair::OURS) => names_world_and_ports networks_come_and_go;
    root_5_features: root(Version::Five, Pair::OURS) => servers_change ranges_isolation_and_reload macvlan leases;
    root_5_stock_dns: root(Version::Five, Pair::STOCK_DNS) => names_world_and_ports servers_change;
    root_5_stock_netavark: root(Version::Five, Pair::OUR_DNS) => names_world_and_ports servers_change;
    root_6: root(Version::Six, Pair::OURS) => names_world_and_ports networks_come_and_go;
    root_6_features: root(Version::Six, Pair::OURS) => servers_change ranges_isolation_and_reload macvlan leases;
    root_6_stock_dns: root(Version::Six, Pair::STOCK_DNS) => names_world_and_ports servers_change;
    root_6_stock_netavark: root(Version::Six, Pair::OUR_DNS) => names_world_and_ports servers_change;
}
