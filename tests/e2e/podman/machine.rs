//! Podman in a machine of `podman machine`: *host* has no network but one interface, whose frames go to a gvproxy in
//! *world*, and a file that says what kind of machine it is. Podman then asks `gateway.containers.internal` for the
//! ports that it publishes, of its own accord.
//!
//! ```text
//!   world: clients, servers, gvproxy ◀── frames ── vm0: host, with Podman ── bridge ── containers
//! ```

use std::path::PathBuf;

use slipway_lab::{Cmd, LIMIT, Running, WORLD4, built, skip};

use super::{Pair, Podman, User, Version, Wish};
use crate::machine::Machine;

/// The MAC address of the machine, for which an address is kept.
const MAC: &str = "5a:94:ef:e4:0c:ee";

/// The network of all containers.
const ON: [&str; 2] = ["--network", "one"];

/// Takes what DHCP says.
const LEASE: &str = "#!/bin/sh
[ \"$1\" = bound ] || exit 0
ip address add $ip/$mask broadcast + dev $interface
ip link set $interface mtu $mtu
ip route add default via $router
echo leased $ip, names $dns
";

/// What *world* is once the cable to *host* is gone: the same address on an interface of its own, and a resolver that
/// gvproxy finds where it looks for one.
struct Outside {
    _network: Running,
    machine: Option<Machine>,
    api: PathBuf,
}

impl Outside {
    /// Puts the machine `podman` on a gvproxy in world.
    fn of(podman: &Podman, gvproxy: &str) -> Self {
        let lab = &podman.lab;
        let at = |name: &str| lab.dir().join(name);
        let world = format!(
            "ip link del veth0; ip link add veth0 type veth peer name veth1; ip address add {WORLD4}/24 dev veth0
             ip address add {world6}/64 dev veth0 nodad; ip link set veth0 up; ip link set veth1 up",
            world6 = slipway_lab::WORLD6
        );
        lab.world(["sh", "-c", &world]).ok(LIMIT).unwrap();
        let (socket, api, resolv) = (at("qemu.sock"), at("api.sock"), at("resolv.world"));
        std::fs::write(&resolv, format!("nameserver {WORLD4}\n")).unwrap();
        let script = format!(
            "mount --bind {} /etc/resolv.conf; exec {gvproxy} -mtu 1500 -ssh-port -1 -listen unix://{} -listen-qemu unix://{}",
            resolv.display(),
            api.display(),
            socket.display()
        );
        let line = lab.world(["unshare", "--mount", "--propagation", "private", "sh", "-c", &script]);
        let mut network = line.start().unwrap();
        network.until(LIMIT, |_| socket.exists()).unwrap();
        let machine = Machine::attach_host(lab, &socket, MAC);
        let lease = at("lease");
        std::fs::write(&lease, LEASE).unwrap();
        // The tree has no client of DHCP.
        let within = ["nsenter", "--target", &lab.host_pid().to_string(), "--net"].map(String::from);
        let asked = Cmd::new(within).args(["busybox", "udhcpc", "-i", "vm0", "-nqf", "-t", "5", "-s"]);
        let run = format!("chmod 755 {}", lease.display());
        Cmd::new(["sh", "-c", &run]).ok(LIMIT).unwrap();
        let said = asked.arg(lease.into_os_string()).ok(LIMIT).unwrap();
        assert!(said.all().contains("leased 192.168.127.2, names 192.168.127.1"), "{said}");
        lab.set_resolv_conf("nameserver 192.168.127.1\n").unwrap();
        // What the newest look for, and what older ones do.
        let marks = "mkdir -p /etc/containers; echo qemu >/etc/podman-machine; echo qemu >/etc/containers/podman-machine";
        lab.host_root(["sh", "-c", marks]).ok(LIMIT).unwrap();
        Self { _network: network, machine: Some(machine), api }
    }

    /// Ports that lead into the network.
    fn exposed(&self, podman: &Podman) -> String {
        let socket = self.api.to_string_lossy().into_owned();
        let words = ["curl", "-sS", "--max-time", "20", "--unix-socket", &socket];
        podman.lab.world(words).arg("http://x/services/forwarder/all").ok(LIMIT).unwrap().out()
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        if let Some(machine) = self.machine.take() {
            machine.hang_up();
        }
    }
}

/// Ports lead from the world into containers, and containers reach the world and its loopback, all of it by the
/// gateway.
fn publishes(test: &str, version: Version, user: User) {
    let gvproxy = match built("SLIPWAY_GVPROXY_BINARY", "slipway-gvproxy") {
        Ok(gvproxy) => gvproxy,
        Err(reason) => {
            skip::<()>(test, &reason);
            return;
        }
    };
    let Some(podman) = Podman::new(test, &Wish::new(Pair::OURS).of(version).by(user)) else { return };
    std::fs::write(podman.lab.dir().join("www/index.html"), "page of world\n").unwrap();
    let outside = Outside::of(&podman, &gvproxy.to_string_lossy());
    let (_dns, _http) = (podman.lab.dns().unwrap(), podman.lab.http().unwrap());
    podman.run(&["network", "create", "--subnet", "10.89.7.0/24", "one"]);

    // Single ports, and a range.
    podman.server("web", &[&ON[..], &["-p", "8080:80", "-p", "9000-9004:80-84"]].concat());
    for port in ["8080", "9000"] {
        assert_eq!(podman.fetch(&format!("127.0.0.1:{port}")), "page of web\n", "{port}");
    }
    let all = outside.exposed(&podman);
    assert_eq!(all.matches("\"remote\":\"192.168.127.2:").count(), 6, "{all}");

    // Out of the container: the world, names, and the host's loopback by its name.
    let page = podman.exec("web", "wget -qO- http://name.test/index.html");
    assert_eq!(page.out(), "page of world\n", "{page}");
    let www = podman.lab.dir().join("www").into_os_string();
    let service = podman.lab.world(["busybox", "httpd", "-f", "-p", "127.0.0.1:7007", "-h"]).arg(www);
    let _service = Running::server(service, "tcp", 7007).unwrap();
    let page = podman.exec("web", "wget -qO- http://host.containers.internal:7007/index.html");
    assert_eq!(page.out(), "page of world\n", "{page}");
    assert_eq!(
        podman.exec("web", "getent ahostsv4 host.containers.internal").out().split(' ').next(),
        Some("192.168.127.254")
    );
}

macro_rules! machines {
    ($($name:ident: $version:ident $user:ident;)*) => {$(
        #[test]
        fn $name() {
            publishes(stringify!($name), Version::$version, User::$user);
        }
    )*};
}

machines! {
    podman_5_in_a_machine: Five Root;
    podman_6_in_a_machine: Six Root;
    podman_6_in_a_machine_rootless: Six Ordinary;
}
