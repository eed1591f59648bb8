//! The machine, the server, the container, the proxy.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use slipway_lab::{Cmd, Machine, Namespace, Output, Running, built, machine, now, skip};

use crate::LIMIT;

/// The container's MAC address.
pub(crate) const MAC: &str = "02:00:00:00:00:07";
/// What it calls itself before the server.
pub(crate) const ID: &str = "0123456789abcdef";

#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) machine: Machine,
    /// Where the server is.
    pub(crate) world: Namespace,
    pub(crate) container: Namespace,
    pub(crate) proxy: PathBuf,
    client: PathBuf,
}

impl Place {
    /// A machine whose bridge `br0` joins a world (198.51.100.1) and a container; nothing runs yet. `None` after saying
    /// why the test is skipped.
    pub(crate) fn fixture(test: &str) -> Option<Self> {
        let proxy = built("SLIPWAY_NETAVARK_BINARY", "netavark");
        let client = built("SLIPWAY_DHCP_CLIENT_BINARY", "netavark-dhcp-proxy-client");
        let (proxy, client) = match (proxy, client) {
            (Ok(proxy), Ok(client)) => (proxy, client),
            (Err(reason), _) | (_, Err(reason)) => return skip(test, &reason),
        };
        let machine = machine(test, &["ip", "dnsmasq"])?;
        let (world, container) = (machine.namespace().unwrap(), machine.namespace().unwrap());
        let place = Self { machine, world, container, proxy, client };
        place.sh(&format!(
            "ip link add br0 type bridge; ip link set br0 up
             ip link add w0 type veth peer name eth0 netns {}; ip link set w0 master br0 up
             ip link add c0 type veth peer name eth0 address {MAC} netns {}; ip link set c0 master br0 up",
            place.world.pid(),
            place.container.pid()
        ));
        place.in_world("ip link set lo up; ip address add 198.51.100.1/24 dev eth0; ip link set eth0 up");
        place.in_container("ip link set lo up; ip link set eth0 up");
        Some(place)
    }

    pub(crate) fn sh(&self, script: &str) {
        let output = self.machine.sh(&format!("set -e; {script}")).unwrap();
        assert!(output.success(), "{script}: {output}");
    }

    pub(crate) fn in_world(&self, script: &str) {
        let output = self.world.sh(&format!("set -e; {script}")).unwrap();
        assert!(output.success(), "{script}: {output}");
    }

    pub(crate) fn in_container(&self, script: &str) -> String {
        let output = self.container.sh(&format!("set -e; {script}")).unwrap();
        assert!(output.success(), "{script}: {output}");
        output.out()
    }

    pub(crate) fn dir(&self) -> &Path {
        self.machine.dir()
    }

    /// A DHCP server that gives out one address; `options` are dnsmasq's. It forgets everything with the test.
    pub(crate) fn server(&self, address: &str, options: &[&str]) -> Running {
        let router = format!("{}.1", address.rsplit_once('.').unwrap().0);
        let leases = self.server_leases();
        let mut server = self
            .world
            .cmd([
                "dnsmasq",
                "--keep-in-foreground",
                "--log-facility=-",
                "--log-dhcp",
                "--conf-file=/dev/null",
            ])
            .args(["--port=0", "--no-ping", "--bind-interfaces", "--interface=eth0", "--dhcp-authoritative"])
            .arg(format!("--dhcp-leasefile={}", leases.display()))
            .arg(format!("--dhcp-range={address},{address},255.255.255.0,2m"))
            .args([format!("--dhcp-option=3,{router}"), format!("--dhcp-option=6,{router}")])
            .args(options.iter().copied())
            .start()
            .unwrap();
        server.until(LIMIT, |server| server.stderr().contains("DHCP, IP range")).unwrap();
        server
    }

    /// What a router of the world has: addresses, before the server is started.
    pub(crate) fn world_with_ipv6(&self, addresses: &[&str]) {
        for address in addresses {
            self.in_world(&format!("ip address add {address} dev eth0 nodad"));
        }
        // The server speaks from its link-local address, which it can use only when nobody else turned out to have it.
        let settled = || self.in_world_out("ip -6 address show dev eth0 scope link");
        Self::until("the world's own address", || {
            let shown = settled();
            shown.contains("fe80:") && !shown.contains("tentative")
        });
    }

    fn in_world_out(&self, script: &str) -> String {
        let output = self.world.sh(script).unwrap();
        assert!(output.success(), "{script}: {output}");
        output.out()
    }

    /// What the server has given out.
    pub(crate) fn server_leases(&self) -> PathBuf {
        self.dir().join("dnsmasq.leases")
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir().join("nv-proxy.sock")
    }

    /// The proxy's command line.
    pub(crate) fn proxy_cmd(&self, options: &[&str]) -> Cmd {
        self.machine
            .cmd([self.proxy.as_os_str(), "dhcp-proxy".as_ref(), "--dir".as_ref(), self.dir().as_os_str()])
            .args(options.iter().copied())
            .env("RUST_LOG", "info")
    }

    /// The proxy, which is ready.
    pub(crate) fn proxy(&self, options: &[&str]) -> Running {
        let mut proxy = self.proxy_cmd(options).start().unwrap();
        let (socket, leases) = (self.socket(), self.dir().join("nv-proxy.lease"));
        // The socket is there first.
        let ready = || std::os::unix::net::UnixStream::connect(&socket).is_ok() && leases.exists();
        proxy.until(LIMIT, |_| ready()).unwrap();
        proxy
    }

    /// The request of a container on the bridge.
    pub(crate) fn request(&self) -> Value {
        json!({
            "host_iface": "br0",
            "container_iface": "eth0",
            "container_mac_addr": MAC,
            "domain_name": "example.com",
            "host_name": "box",
            "version": 0,
            "ns_path": self.container.path(),
            "container_id": ID,
        })
    }

    /// The same for IPv6.
    pub(crate) fn request_v6(&self) -> Value {
        let mut request = self.request();
        request["version"] = json!(1);
        request
    }

    pub(crate) fn client(&self, command: &str, request: &Value) -> Cmd {
        self.client_of(&self.socket(), command, request)
    }

    /// A call to the proxy behind another socket.
    pub(crate) fn client_of(&self, socket: &Path, command: &str, request: &Value) -> Cmd {
        self.machine
            .cmd([self.client.as_os_str(), "--uds".as_ref(), socket.as_os_str()])
            .arg(command)
            .input(request.to_string())
    }

    pub(crate) fn call(&self, command: &str, request: &Value) -> Output {
        self.client(command, request).run(LIMIT).unwrap()
    }

    /// A call that succeeds.
    pub(crate) fn lease(&self, command: &str, request: &Value) -> Value {
        let output = self.call(command, request);
        assert!(output.success(), "{output}");
        serde_json::from_str(&output.out()).unwrap()
    }

    /// A call that fails, and what it says.
    pub(crate) fn refusal(&self, request: &Value) -> String {
        let output = self.call("setup", request);
        assert_eq!((output.code(), output.out()), (1, String::new()), "{output}");
        output.err()
    }

    /// `netavark setup` or `teardown` of a container on one network, by way of the proxy.
    pub(crate) fn netavark(&self, command: &str, container: &Namespace, network: &Value) -> Output {
        let request = json!({
            "container_id": ID,
            "container_name": "box",
            "container_hostname": "box",
            "networks": {"lan": {"interface_name": "eth0", "static_mac": MAC}},
            "network_info": {"lan": network},
        });
        self.machine
            .cmd([self.proxy.as_os_str(), "--config".as_ref(), self.dir().as_os_str(), command.as_ref()])
            .arg(container.path())
            .env("SLIPWAY_DHCP_PROXY_SOCKET", self.socket())
            .env("RUST_LOG", "netavark=warn")
            .input(request.to_string())
            .run(LIMIT)
            .unwrap()
    }

    /// What is in the lease file.
    pub(crate) fn cache(&self) -> Value {
        serde_json::from_slice(&std::fs::read(self.dir().join("nv-proxy.lease")).unwrap()).unwrap()
    }

    /// Waits until `probe` is true.
    pub(crate) fn until(what: &str, mut probe: impl FnMut() -> bool) {
        let end = now() + LIMIT;
        while !probe() {
            assert!(now() < end, "{what}");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}
