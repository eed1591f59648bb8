//! Texts and messages that never meet the engine: command lines, requests on sockets, files, what the kernel and the
//! bus tell.

use core::net::IpAddr;
use nix::errno::Errno;
use slipway_netavark::net::ports::Publish;
use slirp_compat::slirp4netns::args;
use slirp_compat::slirp4netns::config::{Config, World};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// A request to slirp4netns's API socket.
pub fn slirp_json(data: &[u8]) {
    let reply = slipway_portfwd::api::slirp::dry_run(data);
    assert!(!reply.is_empty(), "every request has a reply");
}

/// A request to the uplink. What is understood means the same when it is told to a worker.
pub fn uplink_request(data: &[u8]) {
    let _ = slipway::uplink::fuzz::request(data);
}

/// The text of a forwarding rule. What is understood is printed so that it is understood again.
pub fn port_rule(data: &[u8]) {
    let Ok(text) = core::str::from_utf8(data) else { return };
    if let Ok(rule) = text.parse::<slipway_portfwd::Rule>() {
        let printed = rule.to_string();
        assert_eq!(printed.parse().as_ref(), Ok(&rule), "{text:?} printed as {printed:?}");
        // Two grammars have this form; what both understand, both understand alike.
        if let Ok(Publish(mapping)) = text.parse() {
            let ports = rule.ports();
            assert_eq!(ports.first_listen().map(u16::from), Some(mapping.host_port), "{text:?}");
            assert_eq!(u16::from(ports.first_target()), mapping.container_port, "{text:?}");
            assert_eq!(u16::from(ports.count()), mapping.count(), "{text:?}");
            assert_eq!(rule.proto().name(), mapping.protocol, "{text:?}");
            let host = mapping.host_ip.parse::<IpAddr>().ok();
            assert_eq!(rule.listen().map(|listen| listen.ip()), host, "{text:?}");
        }
    }
}

/// A port option of pasta or pesto: which, what the guest has, and the SPEC. Each of its rules is one again when it is
/// looked at anew, and what was added can be deleted.
pub fn port_spec(data: &[u8]) {
    use slipway_portfwd::rule::passt::{
        Capabilities, Context, Draft, Forwards, MAX_RULES, Verb, parse, side_of,
    };
    let [settings, text @ ..] = data else { return };
    let Ok(text) = core::str::from_utf8(text) else { return };
    let bit = |bit: u8| settings & (1 << bit) == 0;
    let option = ['t', 'u', 'T', 'U'][usize::from(settings & 3)];
    let can = Capabilities {
        ipv4: bit(2),
        ipv6: bit(3),
        tcp: bit(4),
        udp: bit(5),
        scan: bit(6),
        interface: bit(7),
    };
    let context = Context { can, ephemeral: (32_768, 60_999) };
    let spec = match parse(option, text, &context) {
        Ok(spec) => spec,
        Err(error) => return assert!(!error.to_string().is_empty(), "{text:?}"),
    };
    assert!(spec.rules.len() <= MAX_RULES && (spec.rules.is_empty() || !spec.none), "{text:?}");
    for rule in &spec.rules {
        assert_eq!(Draft::from(rule).check(side_of(option), can).as_ref(), Ok(rule), "{text:?}");
        assert!(!rule.ports().pairs().any(|(port, _)| port == 0), "{text:?}");
    }
    let mut forwards = Forwards::default();
    if forwards.apply(Verb::Add, option, text, &context).is_ok() && !spec.none {
        forwards.apply(Verb::Delete, option, text, &context).unwrap();
        assert_eq!(forwards, Forwards::default(), "{text:?}");
    }
}

/// A packet to the control socket. Each rule that is understood is printed so that it is understood again.
pub fn control_json(data: &[u8]) {
    use slipway_portfwd::api::control::dry_run;
    use slipway_portfwd::rule::passt::{Capabilities, Context};
    let context = Context { can: Capabilities::ALL, ephemeral: (32_768, 60_999) };
    assert!(!dry_run(data, &context).is_empty(), "every request has a reply");
}

/// The first byte: 0, what a server of pesto says; otherwise what a client says, in portions of that size. Neither
/// takes more memory than the bytes themselves, whatever they announce.
pub fn pesto_wire(data: &[u8]) {
    use slipway_portfwd::api::pesto::{client, wire};
    let Some((&portion, bytes)) = data.split_first() else { return };
    if portion == 0 {
        let tables = client::dry_run(bytes).unwrap_or_default();
        let rules: usize = tables.iter().map(|table| table.rules.len()).sum();
        assert!(rules * wire::RULE_LEN + tables.len() * wire::HEAD_LEN <= bytes.len());
        return;
    }
    let mut update = wire::Update::default();
    let mut portions = bytes.chunks(portion.into());
    let complete = portions.any(|some| update.feed(some).unwrap_or(true));
    let rules: usize = update.tables().iter().map(|(_, rules)| rules.len()).sum();
    assert!(rules * wire::RULE_LEN + update.tables().len() * 5 <= bytes.len());
    if complete {
        let mut again = Vec::new();
        for (side, rules) in update.tables() {
            wire::new_table(wire::place(*side), rules, &mut again);
        }
        again.push(0);
        let mut same = wire::Update::default();
        assert_eq!(same.feed(&again), Ok(true));
        assert_eq!(same.tables(), update.tables());
    }
}

/// The host's resolver configuration. Whatever it says, its nameservers can be asked.
pub fn resolv_conf(data: &[u8]) {
    use slipway_host::resolv_conf::text::{MAX_NAMESERVERS, MAX_SEARCH, ResolvConf};
    let conf = ResolvConf::parse(data);
    assert!(conf.nameservers.len() <= MAX_NAMESERVERS && conf.search.len() <= MAX_SEARCH, "bounds hold");
    for server in &conf.nameservers {
        assert!(!server.lacks_zone() && !server.ip().is_multicast(), "{server} cannot be asked");
        assert_eq!(server.to_string().parse().as_ref(), Ok(server), "it is printed as it was understood");
    }
}

/// What a container engine sends to netavark.
pub fn netavark_options(data: &[u8]) {
    slipway_netavark::fuzz::options(data);
}

/// What the network driver is told: by an engine, by the uplink, by its own record.
pub fn plugin_request(data: &[u8]) {
    slipway_netavark::fuzz::plugin_request(data);
}

/// A rule of the kernel's firewall.
pub fn nft_rule(data: &[u8]) {
    slipway_netavark::fuzz::nft_rule(data);
}

/// What DHCP servers tell the proxy, and when.
pub fn dhcp_client(data: &[u8]) {
    slipway_netstack::dhcp_client::fuzz(data);
}

/// What DHCPv6 servers and routers tell the proxy, and when.
pub fn dhcpv6_reply(data: &[u8]) {
    slipway_netavark::dhcp::fuzz_replies(data);
}

/// A router's advertisement, as the proxy reads it.
pub fn router_advert(data: &[u8]) {
    slipway_netavark::dhcp::fuzz_advert(data);
}

/// Words of a command line, with zero bytes between them: taken apart, and made a start of `slirp4netns`.
pub fn getopt_argv(data: &[u8]) {
    slirp_compat::fuzz::command_line(data);
    let words: Vec<OsString> =
        data.split(|byte| *byte == 0).map(|word| OsStr::from_bytes(word).into()).collect();
    for world in [Nowhere(Err(Errno::ENOENT)), Nowhere(Ok(()))] {
        let mut notices = Vec::new();
        let low = args::parse("slirp4netns", &words, &mut notices, &|_| world.0.is_ok());
        let Ok(Ok(config)) = low.map(|low| Config::new(low, &mut notices, &world)) else { continue };
        let v4 = config.v4;
        let ours = [Some(v4.gateway), Some(v4.guest), v4.dns].into_iter().flatten();
        assert!(ours.clone().all(|ours| v4.network.contains(&ours)), "{v4:?}");
        assert!(ours.clone().all(|one| ours.clone().filter(|other| *other == one).count() == 1), "{v4:?}");
    }
}

/// A byte that says which name and what the machine has, and words of a command line: made a start of `pasta` or
/// `passt`.
pub fn pasta_argv(data: &[u8]) {
    slirp_compat::fuzz::start_of_pasta(data);
}

/// Words of a command line of `gvproxy`, with zero bytes between them.
pub fn goflag_argv(data: &[u8]) {
    slipway_gvproxy::fuzz::command_line(data);
}

/// A configuration file of `gvproxy`.
pub fn yaml_config(data: &[u8]) {
    slipway_gvproxy::fuzz::file(data);
}

/// The beginning of a connection to the API of `gvproxy`.
pub fn http_head(data: &[u8]) {
    slipway_gvproxy::fuzz::http_head(data);
}

/// What a guest's SSH server says to it.
pub fn ssh_server(data: &[u8]) {
    slipway_gvproxy::fuzz::ssh_server(data);
}

/// What is sent to it to expose a port.
pub fn expose_json(data: &[u8]) {
    slipway_gvproxy::fuzz::expose_json(data);
}

/// What is sent to it to add names.
pub fn dns_json(data: &[u8]) {
    slipway_gvproxy::fuzz::dns_json(data);
}

/// A machine on which everything is there, or nothing.
struct Nowhere(Result<(), Errno>);

impl World for Nowhere {
    fn find(&self, _: &Path) -> Result<(), Errno> {
        self.0
    }

    fn interface_address(&self, _: &str, _: bool) -> Option<IpAddr> {
        None
    }
}

/// What Podman tells its port helper.
pub fn rootlessport(data: &[u8]) {
    slirp_compat::rootlessport::fuzz(data);
}

/// What the uplink's supervisor and its workers tell each other.
pub fn uplink_order(data: &[u8]) {
    slipway::uplink::orders::fuzz(data);
}

/// A state file of the firewall.
pub fn firewall_state(data: &[u8]) {
    slipway_netavark::fuzz::firewall_state(data);
}

/// What the system bus sends.
pub fn dbus_answer(data: &[u8]) {
    slipway_netavark::fuzz::dbus_answer(data);
}

/// A datagram of route netlink: links, addresses, routes, neighbours.
pub fn route_netlink(data: &[u8]) {
    slipway_host::fuzz::route_netlink(data);
}

/// What a host is said to have, of which the guest is a copy.
pub fn route_replay(data: &[u8]) {
    slipway_host::fuzz::route_replay(data);
}

/// Requests of a hypervisor, each behind a byte that says how many descriptors come with it, and of which kind.
pub fn vhost_msg(data: &[u8]) {
    slipway_host::fuzz::vhost_msg(data);
}

/// What a guest has in its rings.
pub fn vhost_ring(data: &[u8]) {
    slipway_host::fuzz::vhost_ring(data);
}

/// A datagram of sock_diag, or a text of /proc/net.
pub fn sock_diag(data: &[u8]) {
    slipway_host::fuzz::sock_diag(data);
}

/// A datagram of netfilter's netlink, or an entry of the connection tracker.
pub fn netfilter(data: &[u8]) {
    slipway_host::fuzz::netfilter(data);
}

/// What arrives beside a datagram.
pub fn control_messages(data: &[u8]) {
    slipway_host::fuzz::control_messages(data);
}

/// Texts of /proc: the connection tracker's, and settings.
pub fn proc_text(data: &[u8]) {
    let Ok(text) = core::str::from_utf8(data) else { return };
    slipway_netavark::fuzz::conntrack_line(text);
    slipway_host::fuzz::settings(text);
}
