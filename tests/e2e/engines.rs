//! Container engines from Debian start the slirp4netns role themselves.
//!
//! Podman runs unprivileged in the lab's host, with a control-group tree of its own over `/sys/fs/cgroup`, the `vfs`
//! driver and an image made from the machine's busybox; its pause process is ended by the number it wrote down.

use std::time::Duration;

use slipway_lab::{Cmd, HOST4, LIMIT, Lab, Output, Running, WORLD4, lab};

struct Podman<'a> {
    lab: &'a Lab,
}

impl<'a> Podman<'a> {
    fn new(lab: &'a Lab) -> Self {
        let home = lab.home();
        let config = home.join(".config/containers");
        let (home_text, run) = (home.display(), lab.dir().join("run"));
        let storage = format!(
            "[storage]\ndriver = \"vfs\"\nrunroot = \"{}/storage\"\ngraphroot = \"{home_text}/storage\"\n",
            run.display()
        );
        let containers = format!(
            "[containers]\ncgroups = \"disabled\"\nlog_driver = \"k8s-file\"\n[engine]\ncgroup_manager = \"cgroupfs\"\n\
             events_logger = \"none\"\nnetwork_cmd_path = \"{}\"\n",
            lab.program("slirp4netns")
        );
        let files = [("storage.conf", storage), ("containers.conf", containers)];
        lab.host(["mkdir", "-p"]).arg(config.clone().into_os_string()).ok(LIMIT).unwrap();
        for (name, text) in files {
            std::fs::write(config.join(name), text).unwrap();
        }
        lab.host_root(["mount", "-t", "cgroup2", "cgroup2", "/sys/fs/cgroup"]).ok(LIMIT).unwrap();
        let podman = Self { lab };
        let image = crate::image::tar(lab.dir(), &[]);
        podman.cmd(&["import"]).arg(image.into_os_string()).arg("localhost/bb").ok(LIMIT).unwrap();
        podman
    }

    fn cmd(&self, words: &[&str]) -> Cmd {
        self.lab.host(["podman"]).args(words)
    }

    /// `podman run --rm` with a network, extra options and a shell script.
    fn run(&self, network: &str, options: &[&str], script: &str) -> Cmd {
        self.cmd(&["run", "--rm", "--network", network]).args(options).args([
            "localhost/bb",
            "sh",
            "-c",
            script,
        ])
    }
}

impl Drop for Podman<'_> {
    fn drop(&mut self) {
        let pid =
            std::fs::read_to_string(self.lab.dir().join("run/libpod/tmp/pause.pid")).unwrap_or_default();
        if let Ok(pid) = pid.trim().parse::<i32>() {
            let _ =
                nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        }
        // Layers belong to mapped ids: remove them before the directory goes.
        let _ = self
            .lab
            .host_root(["rm", "-rf"])
            .arg(self.lab.home().join("storage").into_os_string())
            .run(LIMIT);
    }
}

macro_rules! podman_lab {
    ($name:literal) => {{
        let (lab, subject) =
            lab!($name, ["podman", "crun", "conmon", "newuidmap", "busybox", "dnsmasq", "ncat"]);
        if !lab.by_root() {
            println!("SKIP {}: needs root to give the lab's user a range of ids", $name);
            return;
        }
        (lab, subject)
    }};
}

fn succeeded(output: &Output) -> String {
    assert!(output.success(), "{output}");
    output.out()
}

#[test]
fn podman_gives_a_container_the_network() {
    let (lab, _) = podman_lab!("podman_gives_a_container_the_network");
    std::fs::write(lab.dir().join("www/index.html"), "fetched\n").unwrap();
    let (_dns, _http) = (lab.dns().unwrap(), lab.http().unwrap());
    let podman = Podman::new(&lab);
    let script = "ip -4 address show tap0; cat /etc/resolv.conf; wget -qO- http://name.test/index.html";
    let shown = succeeded(&podman.run("slirp4netns", &[], script).run(LIMIT).unwrap());
    assert!(shown.contains("10.0.2.100/24") && shown.contains("mtu 65520"), "{shown}");
    assert!(shown.contains("nameserver 10.0.2.3") && shown.contains("fetched"), "{shown}");
}

#[test]
fn podman_options_take_effect() {
    let (lab, _) = podman_lab!("podman_options_take_effect");
    lab.host_root(["ip", "address", "add", "192.0.2.77/24", "dev", "veth0"]).ok(LIMIT).unwrap();
    let words = ["ncat", "-4", "-l", "-k", "8000", "-c", "echo peer=$NCAT_REMOTE_ADDR"];
    let _server = Running::server(lab.world(words), "tcp", 8000).unwrap();
    let podman = Podman::new(&lab);
    let shown = succeeded(&podman.run("slirp4netns:mtu=9000", &[], "ip link show tap0").run(LIMIT).unwrap());
    assert!(shown.contains("mtu 9000"), "{shown}");
    let script = "ip address show tap0; ip route; cat /etc/resolv.conf";
    let network = "slirp4netns:cidr=10.5.0.0/24,enable_ipv6=true";
    let shown = succeeded(&podman.run(network, &[], script).run(LIMIT).unwrap());
    for expected in ["10.5.0.100/24", "via 10.5.0.2", "nameserver 10.5.0.3", "inet6 fd00:"] {
        assert!(shown.contains(expected), "{expected}: {shown}");
    }
    for (outbound, expected) in [("192.0.2.77", "192.0.2.77"), ("veth0", HOST4)] {
        let script = format!("sleep 2 | nc -w 5 {WORLD4} 8000");
        let network = format!("slirp4netns:outbound_addr={outbound}");
        let shown = succeeded(&podman.run(&network, &[], &script).run(LIMIT).unwrap());
        assert_eq!(shown, format!("peer={expected}\n"));
    }
}

#[test]
fn podman_allows_the_host_only_when_told() {
    let (lab, _) = podman_lab!("podman_allows_the_host_only_when_told");
    let server = lab.host(["ncat", "-l", "127.0.0.1", "8000", "-k", "-c", "echo from loopback"]);
    let _server = Running::server(server, "tcp", 8000).unwrap();
    let podman = Podman::new(&lab);
    let script = "sleep 2 | nc -w 3 10.0.2.2 8000";
    let open = podman.run("slirp4netns:allow_host_loopback=true", &[], script).run(LIMIT).unwrap();
    assert_eq!(open.out(), "from loopback\n", "{open}");
    let closed = podman.run("slirp4netns", &[], script).run(LIMIT).unwrap();
    assert_eq!(closed.out(), "", "{closed}");
}

#[test]
fn podman_publishes_ports_through_the_api() {
    let (lab, _) = podman_lab!("podman_publishes_ports_through_the_api");
    let podman = Podman::new(&lab);
    let script = "echo page > /tmp/index.html; exec httpd -f -v -p 80 -h /tmp";
    let mut container = podman
        .run(
            "slirp4netns:port_handler=slirp4netns",
            &["--init=false", "--name", "web", "-p", "8080:80"],
            script,
        )
        .start()
        .unwrap();
    let fetch = format!(
        "for i in $(seq 50); do busybox wget -qO- http://{HOST4}:8080/index.html 2>/dev/null && break; sleep 0.2; done"
    );
    let page = lab.world(["sh", "-c", &fetch]).run(LIMIT).unwrap();
    // busybox httpd -v names the client: world itself, not a gateway. Podman brings that a moment after the page.
    let named = container
        .until(Duration::from_secs(5), |running| (running.stdout() + &running.stderr()).contains(WORLD4));
    podman.cmd(&["rm", "-f", "-t", "0", "web"]).run(LIMIT).unwrap();
    assert_eq!(page.out(), "page\n", "{page}");
    named.unwrap();
    container.finish(LIMIT).unwrap();
}

#[test]
fn podman_info_knows_the_program() {
    let (lab, _) = podman_lab!("podman_info_knows_the_program");
    let podman = Podman::new(&lab);
    let info =
        succeeded(&podman.cmd(&["info", "--format", "{{.Host.Slirp4NetNS.Version}}"]).run(LIMIT).unwrap());
    assert!(info.starts_with("slirp4netns version "), "{info}");
}

#[test]
fn rootlesskit_uses_it_for_network_and_ports() {
    let (lab, _) =
        lab!("rootlesskit_uses_it_for_network_and_ports", ["rootlesskit", "newuidmap", "busybox", "dnsmasq"]);
    if !lab.by_root() {
        println!(
            "SKIP rootlesskit_uses_it_for_network_and_ports: needs root to give the lab's user a range of ids"
        );
        return;
    }
    let _dns = lab.dns().unwrap();
    std::fs::write(lab.dir().join("www/index.html"), "fetched\n").unwrap();
    let _http = lab.http().unwrap();
    let www = lab.dir().join("www");
    let script = format!(
        "ip -4 address show tap0; busybox wget -qO- http://name.test/index.html; echo started
         exec busybox httpd -f -p 80 -h {}",
        www.display()
    );
    let state = lab.dir().join("run/rootlesskit");
    let mut kit = lab
        .host([
            "rootlesskit",
            "--net=slirp4netns",
            "--mtu=65520",
            "--copy-up=/etc",
            "--port-driver=slirp4netns",
        ])
        .args(["--disable-host-loopback", "--slirp4netns-seccomp=auto", "--slirp4netns-sandbox=auto", "-p"])
        .args(["0.0.0.0:8080:80/tcp".to_owned(), format!("--state-dir={}", state.display())])
        .args([format!("--slirp4netns-binary={}", lab.program("slirp4netns"))])
        .args(["sh", "-c", &script])
        .start()
        .unwrap();
    kit.until(LIMIT, |running| running.stdout().contains("started")).unwrap();
    let shown = kit.stdout();
    assert!(shown.contains("10.0.2.100/24") && shown.contains("fetched"), "{shown}{}", kit.stderr());
    let fetch = format!(
        "for i in $(seq 50); do busybox wget -qO- http://{HOST4}:8080/index.html 2>/dev/null && break; sleep 0.2; done"
    );
    let page = lab.world(["sh", "-c", &fetch]).run(LIMIT).unwrap();
    assert_eq!(page.out(), "fetched\n", "{page} {}", kit.stderr());
    kit.signal(nix::sys::signal::Signal::SIGTERM);
    kit.finish(LIMIT).unwrap();
}
