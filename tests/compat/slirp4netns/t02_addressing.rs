//! Addresses: the network, the TAP, DHCP.

use slipway_lab::{Container, LIMIT, Lab, lab};

fn address(container: &Container, device: &str) -> String {
    container.cmd(["ip", "-o", "-4", "address", "show", device]).ok(LIMIT).unwrap().out()
}

fn refused(lab: &Lab, cidr: &str) -> String {
    let container = lab.container().unwrap();
    let output = lab
        .host([
            &lab.program("slirp4netns"),
            "-c",
            &format!("--cidr={cidr}"),
            &container.pid().to_string(),
            "tap0",
        ])
        .run(LIMIT)
        .unwrap();
    assert_eq!(output.code(), 1, "{cidr}: {output}");
    output.err()
}

#[test]
fn bad_networks_are_refused_by_name() {
    let (lab, _) = lab!("bad_networks_are_refused_by_name", []);
    for (cidr, expected) in [
        ("24", "invalid CIDR: 24"),
        ("foo", "invalid CIDR: foo"),
        ("10.0.2.0", "invalid CIDR: 10.0.2.0"),
        ("10.0.2.0/24/24", "invalid CIDR: 10.0.2.0/24/24"),
        ("10.0.2.256/24", "invalid network address: 10.0.2.256"),
        ("10.0.2.0/26", "prefix length needs to be 1-25"),
        ("10.0.2.0/0", "prefix length needs to be 1-25"),
        ("10.0.2.100/24", "CIDR needs to be a network address like 10.0.2.0/24, not like 10.0.2.100/24"),
    ] {
        let said = refused(&lab, cidr);
        assert!(said.contains(expected), "{cidr}: {said}");
    }
}

#[test]
fn another_network_moves_every_address() {
    let (lab, _) = lab!("another_network_moves_every_address", []);
    let container = lab.container().unwrap();
    let slirp = lab.slirp(&container, &["-c", "--cidr=10.0.135.128/25"]).unwrap();
    let shown = address(&container, "tap0");
    assert!(shown.contains("10.0.135.228/25"), "{shown}");
    let route = container.cmd(["ip", "-4", "route", "show", "default"]).ok(LIMIT).unwrap().out();
    assert!(route.contains("via 10.0.135.130"), "{route}");
    assert!(container.cmd(["ping", "-c1", "-W5", "10.0.135.130"]).run(LIMIT).unwrap().success());
    assert_eq!(slirp.exit().unwrap(), 0);
}

#[test]
fn configure_names_and_configures_the_tap() {
    let (lab, _) = lab!("configure_names_and_configures_the_tap", []);
    let container = lab.container().unwrap();
    let _slirp = lab.slirp_at(&["-c", "--mtu=65520"], &[&container.pid().to_string(), "tun11"]).unwrap();
    let shown = address(&container, "tun11");
    assert!(shown.contains("10.0.2.100/24"), "{shown}");
    let link = container.cmd(["ip", "-o", "link", "show", "tun11"]).ok(LIMIT).unwrap().out();
    assert!(link.contains("mtu 65520") && link.contains(",UP"), "{link}");
    let route = container.cmd(["ip", "route", "show", "default"]).ok(LIMIT).unwrap().out();
    assert!(route.contains("default via 10.0.2.2 dev tun11"), "{route}");
}

#[test]
fn without_configure_the_tap_stays_bare() {
    let (lab, _) = lab!("without_configure_the_tap_stays_bare", []);
    let container = lab.container().unwrap();
    let _slirp = lab.slirp(&container, &[]).unwrap();
    assert_eq!(address(&container, "tap0"), "");
    let link = container.cmd(["ip", "-o", "link", "show", "tap0"]).ok(LIMIT).unwrap().out();
    assert!(!link.contains(",UP"), "{link}");
}

#[test]
fn the_tap_has_the_mac_address() {
    let (lab, _) = lab!("the_tap_has_the_mac_address", []);
    let container = lab.container().unwrap();
    let _slirp = lab.slirp(&container, &["-c", "--macaddress=0e:d4:18:d9:38:fb"]).unwrap();
    let link = container.cmd(["ip", "-o", "link", "show", "tap0"]).ok(LIMIT).unwrap().out();
    assert!(link.contains("0e:d4:18:d9:38:fb"), "{link}");
}

#[test]
fn the_gateway_has_its_mac_address() {
    let (lab, _) = lab!("the_gateway_has_its_mac_address", ["ping"]);
    let container = lab.container().unwrap();
    let _slirp = lab.slirp(&container, &["-c"]).unwrap();
    container.cmd(["ping", "-c1", "-W5", "10.0.2.2"]).ok(LIMIT).unwrap();
    let neighbour = container.cmd(["ip", "neighbour", "show", "10.0.2.2"]).ok(LIMIT).unwrap().out();
    assert!(neighbour.contains("52:55:0a:00:02:02"), "{neighbour}");
}

#[test]
fn dhcp_gives_the_first_address_of_the_pool() {
    let (lab, _) = lab!("dhcp_gives_the_first_address_of_the_pool", ["udhcpc"]);
    let container = lab.container().unwrap();
    let _slirp = lab.slirp(&container, &[]).unwrap();
    container.cmd(["ip", "link", "set", "tap0", "up"]).ok(LIMIT).unwrap();
    // The script gets what was offered in its environment.
    let script = lab.home().join("lease");
    std::fs::write(&script, "#!/bin/sh\necho \"$1 ip=$ip router=$router dns=$dns mask=$subnet\"\n").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&script, mode).unwrap();
    let lease = container
        .cmd(["udhcpc", "-q", "-n", "-f", "-t", "5", "-T", "1", "-i", "tap0", "-s"])
        .arg(script.into_os_string())
        .ok(LIMIT)
        .unwrap();
    assert!(
        lease.all().contains("bound ip=10.0.2.15 router=10.0.2.2 dns=10.0.2.3 mask=255.255.255.0"),
        "{lease}"
    );
}
