//! What newer Podmans can do with a network, and what only root's can.

use slipway_lab::{HOST4, HOST6, LIMIT, Running, WORLD4, now};

use super::{Podman, Whose};

/// A second resolver in world, which knows a name that the first does not.
const OTHER: &str = "192.0.2.54";

/// A network's own DNS servers are set and taken away while a container uses them.
pub(super) fn servers_change(podman: &Podman) {
    let _dns = podman.lab.dns().unwrap();
    podman.lab.world(["ip", "address", "add", &format!("{OTHER}/24"), "dev", "veth0"]).ok(LIMIT).unwrap();
    let words = ["dnsmasq", "--no-daemon", "--no-resolv", "--no-hosts", "--pid-file=", "--bind-interfaces"];
    let options = [format!("--listen-address={OTHER}"), "--host-record=other.test,192.0.2.99".to_owned()];
    let _other = Running::server(podman.lab.world(words).args(options), "udp", 53).unwrap();
    podman.run(&["network", "create", "--subnet", "10.89.7.0/24", "one"]);
    podman.sleeper("client", &["--network", "one"]);
    let finds = |name: &str, wanted: &str| {
        let ask = || podman.exec("client", &format!("host -W 1 -t A {name} 10.89.7.1"));
        // Nobody waits until the server has done what it was told.
        let end = now() + LIMIT / 3;
        let mut shown = ask();
        while !shown.out().contains(wanted) && now() < end {
            shown = ask();
        }
        assert!(shown.out().contains(wanted), "{name} with {wanted}: {shown}");
    };
    finds("name.test", WORLD4);
    podman.run(&["network", "update", "one", "--dns-add", OTHER]);
    finds("other.test", "192.0.2.99");
    podman.run(&["network", "update", "one", "--dns-drop", OTHER]);
    if podman.pair.netavark == Whose::Ours {
        // The original does not tell the server.
        finds("name.test", WORLD4);
    }
    podman.remove(&["client"]);
    podman.run(&["network", "rm", "one"]);
    podman.lab.world(["ip", "address", "del", &format!("{OTHER}/24"), "dev", "veth0"]).ok(LIMIT).unwrap();
    podman.leaves_nothing();
}

/// Ports in ranges and on one address, over IPv6, networks that may and may not reach each other, and rules that
/// somebody threw away.
pub(super) fn ranges_isolation_and_reload(podman: &Podman) {
    let networks =
        [("one", "7", "false"), ("two", "8", "false"), ("alone", "9", "true"), ("apart", "10", "true")];
    for (name, number, isolate) in networks {
        let (subnet, subnet6) = (format!("10.89.{number}.0/24"), format!("fd89:{number}::/64"));
        let option = format!("isolate={isolate}");
        podman.run(&["network", "create", "--subnet", &subnet, "--subnet", &subnet6, "-o", &option, name]);
    }
    let ports =
        ["-p", "8080:80", "-p", &format!("{HOST4}:8081:80"), "-p", "9000-9009:80-89", "-p", "7000:7000/udp"];
    podman.server("web", &[&["--network", "one"], &ports[..]].concat());
    podman.server("lone", &["--network", "alone"]);
    podman
        .sleeper("client", &["--network", "two", "--ip", "10.89.8.20", "--mac-address", "02:00:00:00:00:20"]);
    podman.sleeper("apart", &["--network", "apart"]);
    let published = || {
        for from in [
            format!("{HOST4}:8080"),
            format!("[{HOST6}]:8080"),
            format!("{HOST4}:8081"),
            format!("{HOST4}:9000"),
        ] {
            assert_eq!(podman.fetch(&from), "page of web\n", "{from}");
        }
    };
    published();
    let (web, lone) = (podman.address("web"), podman.address("lone"));
    let reaches =
        |from: &str, address: &str| podman.exec(from, &format!("nc -w 2 {address} 80 < /dev/null")).success();
    assert!(reaches("client", &web), "neither is isolated");
    assert!(!reaches("apart", &lone), "both are isolated");
    let table = "nft delete table inet netavark";
    podman.sh(table);
    podman.run(&["network", "reload", "web", "lone", "apart"]);
    published();
    assert!(!reaches("apart", &lone), "isolated again");
    let shown = podman.exec("client", "ip address show eth0").out();
    assert!(shown.contains("10.89.8.20/24") && shown.contains("02:00:00:00:00:20"), "{shown}");
    podman.remove(&["web", "lone", "client", "apart"]);
    podman.run(&["network", "rm", "one", "two", "alone", "apart"]);
    podman.leaves_nothing();
}

/// Published ports that the way out itself delivers: the container sees who asks.
pub(super) fn clients_are_seen(podman: &Podman) {
    podman.run(&["network", "create", "--subnet", "10.89.7.0/24", "one"]);
    let script = "mkdir /w; echo page of web > /w/index.html; exec httpd -f -v -p 80 -h /w";
    let options = ["--network", "one", "-p", "8080:80", "localhost/bb", "sh", "-c", script];
    podman.run(&[&["run", "-d", "--name", "web"], &options[..]].concat());
    assert_eq!(podman.fetch(&format!("{HOST4}:8080")), "page of web\n");
    let logs = podman.cmd(&["logs", "web"]).ok(LIMIT).unwrap();
    assert!(logs.all().contains(WORLD4), "{logs}");
    assert!(!podman.runs("rootlessport"));
    podman.remove(&["web"]);
    podman.run(&["network", "rm", "one"]);
    podman.leaves_nothing();
}

/// A container with addresses that world's DHCP servers gave, through the proxy: of IPv4, then of both versions.
pub(super) fn leases(podman: &Podman) {
    let words = ["dnsmasq", "--no-daemon", "--port=0", "--no-ping", "--bind-interfaces", "--interface=veth0"];
    let range = "--dhcp-range=192.0.2.70,192.0.2.79,255.255.255.0,2m";
    let file = format!("--dhcp-leasefile={}", podman.lab.dir().join("leases").display());
    let range6 = "--dhcp-range=2001:db8:1::70,2001:db8:1::79,64,2m";
    let options = ["--pid-file=", "--dhcp-authoritative", range, range6, "--enable-ra", &file];
    let _server = Running::server(podman.lab.world(words).args(options), "udp", 67).unwrap();
    podman.sh("mkdir -p /run/podman");
    let mut proxy = podman.host(&[&podman.lab.program("netavark"), "dhcp-proxy"]).start().unwrap();
    let socket = format!("/proc/{}/root/run/podman/nv-proxy.sock", podman.lab.host_pid());
    proxy.until(LIMIT, |_| std::path::Path::new(&socket).exists()).unwrap();
    podman.run(&["network", "create", "-d", "macvlan", "--ipam-driver", "dhcp", "-o", "parent=veth0", "lan"]);
    podman.server("web", &["--network", "lan"]);
    let address = podman.address("web");
    assert!(address.starts_with("192.0.2.7"), "{address}");
    assert_eq!(podman.fetch(&format!("{address}:80")), "page of web\n");
    podman.remove(&["web"]);
    podman.run(&["network", "rm", "lan"]);
    let macvlan = ["-d", "macvlan", "--ipam-driver", "dhcp", "--ipv6", "-o", "parent=veth0"];
    podman.run(&[&["network", "create"][..], &macvlan, &["both"]].concat());
    podman.server("web", &["--network", "both"]);
    let shown = podman.exec("web", "ip -6 -o address show eth0 scope global").out();
    let address6 = shown.split_whitespace().find_map(|word| word.strip_suffix("/64"));
    let address6 = address6.filter(|address| address.starts_with("2001:db8:1::7"));
    let address6 = address6.unwrap_or_else(|| panic!("no leased address: {shown}{}", proxy.stderr()));
    for from in [format!("{}:80", podman.address("web")), format!("[{address6}]:80")] {
        assert_eq!(podman.fetch(&from), "page of web\n", "{from}");
    }
    podman.remove(&["web"]);
    podman.run(&["network", "rm", "both"]);
    proxy.signal(nix::sys::signal::Signal::SIGTERM);
    let ended = proxy.finish(LIMIT).unwrap().expect("it ends when told");
    assert!(ended.success(), "{ended}");
    podman.leaves_nothing();
}

/// A container with an address of world's own network.
pub(super) fn macvlan(podman: &Podman) {
    let _http = podman.lab.http().unwrap();
    std::fs::write(podman.lab.dir().join("www/index.html"), "page of world\n").unwrap();
    let subnet = ["--subnet", "192.0.2.0/24", "--gateway", WORLD4, "-o", "parent=veth0"];
    podman.run(&[&["network", "create", "-d", "macvlan"][..], &subnet, &["lan"]].concat());
    podman.server("web", &["--network", "lan", "--ip", "192.0.2.40"]);
    assert_eq!(podman.fetch("192.0.2.40:80"), "page of web\n");
    let page = podman.exec("web", &format!("wget -qO- http://{WORLD4}/index.html"));
    assert_eq!(page.out(), "page of world\n", "{page}");
    podman.remove(&["web"]);
    podman.run(&["network", "rm", "lan"]);
    podman.leaves_nothing();
}
