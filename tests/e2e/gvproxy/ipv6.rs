//! `-ipv6`: addresses by router advertisement and by DHCPv6, names, forwards.

use super::{FIRST, Network, lab, machine, shown};
use crate::ipv6;
use slipway_lab::{Container, LIMIT, Lab, Running, WORLD6, skip, tree};

/// Takes what DHCPv6 says, and tells it.
const LEASE6: &str = r#"#!/bin/sh
case "$reason" in
    BOUND6|RENEW6|REBIND6) ip -6 address add "$new_ip6_address/64" dev "$interface" nodad noprefixroute
        echo "leased $new_ip6_address for $new_max_life s, names $new_dhcp6_name_servers in $new_dhcp6_domain_search";;
    PREINIT6) ip link set "$interface" up;;
    *) echo "$reason";;
esac
"#;

/// ISC's client of the tree that QEMU's machines are made of, started by that tree's own loader.
fn dhclient(lab: &Lab) -> Result<Vec<String>, String> {
    let tree = tree("qemu")?;
    let libraries = tree.join("usr/lib/x86_64-linux-gnu");
    let [loader, program] = [libraries.join("ld-linux-x86-64.so.2"), tree.join("usr/sbin/dhclient")];
    for path in [&loader, &program] {
        if !path.exists() {
            return Err(format!("{} is not there", path.display()));
        }
    }
    let script = lab.home().join("lease6");
    std::fs::write(&script, LEASE6).unwrap();
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let text = |path: &std::path::Path| path.to_string_lossy().into_owned();
    let words = [text(&loader), "--library-path".into(), text(&libraries), text(&program)];
    Ok(words
        .into_iter()
        .chain(["-6", "-1", "-d", "-v", "-sf"].map(String::from))
        .chain([text(&script)])
        .collect())
}

/// A machine's lease of IPv6: what the client said.
fn leases(container: &Container, client: &[String], lab: &Lab, number: u8) -> (Running, String) {
    let at = |name: &str| lab.home().join(format!("{name}{number}")).to_string_lossy().into_owned();
    std::fs::write(at("leases"), "").unwrap();
    let words =
        client.iter().cloned().chain(["-lf".into(), at("leases"), "-pf".into(), at("pid"), "vm0".into()]);
    let mut client = container.cmd(words).start().unwrap();
    client.until(LIMIT, |client| client.stdout().contains("leased ")).unwrap();
    let said = client.stdout();
    let address = said.split_whitespace().skip_while(|word| *word != "leased").nth(1).unwrap().to_owned();
    (client, address)
}

#[test]
fn machines_have_addresses_of_ipv6_by_themselves_and_by_lease() {
    let test = "machines_have_addresses_of_ipv6_by_themselves_and_by_lease";
    let Some(lab) = lab(test, &["busybox", "ncat", "ping", "curl", "dnsmasq"]) else { return };
    let api = lab.home().join("api.sock").to_string_lossy().into_owned();
    let address = format!("unix://{api}");
    let network = Network::start(&lab, &["-ssh-port", "-1", "-ipv6", "-listen", &address]);
    let (first, one, _) = machine(&lab, &network, Some(FIRST));
    let own = ipv6(&first);
    assert!(own.starts_with("fd5a:94ef:e40c:dd:"), "{own}");
    let pings =
        shown(&first, "ping -6 -c 1 -W 5 fd5a:94ef:e40c:dd::1; ping -6 -c 1 -W 5 fd5a:94ef:e40c:dd::fe");
    assert_eq!(pings.matches(" 0% packet loss").count(), 2, "{pings}");
    let _dns = lab.dns().unwrap();
    let name = shown(&first, "busybox nslookup -type=aaaa host.containers.internal fd5a:94ef:e40c:dd::1");
    assert!(name.contains("Address: fd5a:94ef:e40c:dd::fe"), "{name}");
    let world = lab.world(["ncat", "-6", "-lk", WORLD6, "9000", "-c", "echo of the world"]);
    let _world = Running::server(world, "tcp", 9000).unwrap();
    assert_eq!(shown(&first, &format!("ncat -6 --recv-only -w 5 {WORLD6} 9000")), "of the world\n");
    // A port of the host that leads to an address which the machine has chosen.
    let web = first.cmd(["ncat", "-6", "-lk", "::", "80", "-c", "echo of the machine"]);
    let _web = Running::server(web, "tcp", 80).unwrap();
    let expose = |port: u16, to: &str| {
        let body = format!(r#"{{"local":"[::1]:{port}","remote":"[{to}]:80","protocol":"tcp"}}"#);
        let words = ["curl", "-sS", "--fail", "--unix-socket", &api, "-d", &body];
        let done = lab.host(words).args(["http://gvproxy/services/forwarder/expose"]).run(LIMIT).unwrap();
        assert!(done.success(), "{done}");
        lab.host(["ncat", "-6", "--recv-only", "-w", "5", "::1", &port.to_string()]).run(LIMIT).unwrap().out()
    };
    assert_eq!(expose(8080, &own), "of the machine\n");
    match dhclient(&lab) {
        Err(why) => skip::<()>("machines_have_addresses_of_ipv6_by_lease", &why).unwrap_or_default(),
        Ok(client) => {
            let (_client, leased) = leases(&first, &client, &lab, 1);
            assert!(leased.starts_with("fd5a:94ef:e40c:dd:1::"), "{leased}");
            let (second, two, _) = machine(&lab, &network, None);
            let (_other, theirs) = leases(&second, &client, &lab, 2);
            assert!(theirs.starts_with("fd5a:94ef:e40c:dd:1:") && theirs != leased, "{theirs}, {leased}");
            assert_eq!(expose(8081, &leased), "of the machine\n");
            let ping = shown(&second, &format!("ping -6 -c 1 -W 5 {leased}"));
            assert!(ping.contains(" 0% packet loss"), "{ping}");
            let asked = lab.host(["curl", "-sS", "--unix-socket", &api, "http://gvproxy/leases"]);
            let listed = asked.run(LIMIT).unwrap().out();
            assert!(listed.contains(&format!("\"{leased}\":\"{FIRST}\"")), "{listed}");
            two.hang_up();
        }
    }
    one.hang_up();
    network.ends();
}
