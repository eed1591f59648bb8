//! `gvforwarder`: a machine whose way out is a TAP that a program inside keeps. A container of the lab stands for the
//! machine; our gvproxy is on the host, or Debian's.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use slipway_lab::{
    Cmd, Container, LIMIT, Lab, LabOptions, NO_VSOCK, Running, WORLD4, built, missing, skip, tree,
};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

const NO_SSH: [&str; 2] = ["-ssh-port", "-1"];

/// A lab with both programs, and with these installed; `None` after saying why the test is skipped.
pub(super) fn lab(test: &str, programs: &[&str], more: Vec<(String, PathBuf)>) -> Option<Lab> {
    let made = built("SLIPWAY_GVPROXY_BINARY", "slipway-gvproxy").and_then(|program| {
        if let Some(program) = missing(programs) {
            return Err(format!("{program} is not installed (cargo xtask deps)"));
        }
        let ours = ["gvproxy", "gvforwarder"].map(|name| (name.to_owned(), program.clone()));
        let programs = ours.into_iter().chain(more).collect();
        let options = LabOptions { programs, ..LabOptions::default() };
        Lab::new(&options).map_err(|error| error.to_string())
    });
    made.map_or_else(|reason| skip(test, &reason), Some)
}

/// A machine of the lab, whose resolv.conf is its own.
pub(super) struct Guest<'a> {
    lab: &'a Lab,
    pub(super) container: Container,
}

impl<'a> Guest<'a> {
    pub(super) fn new(lab: &'a Lab) -> Self {
        let container = lab.container().unwrap();
        let file = Self::resolv_conf_in(lab);
        // As written by somebody who knew less.
        std::fs::write(&file, "nameserver 203.0.113.1\n").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o666)).unwrap();
        let mounted = container.sh(&format!("mount --bind {} /etc/resolv.conf", file.display())).unwrap();
        assert!(mounted.success(), "{mounted}");
        Self { lab, container }
    }

    fn resolv_conf_in(lab: &Lab) -> PathBuf {
        lab.home().join("resolv.guest")
    }

    fn resolv_conf(&self) -> String {
        std::fs::read_to_string(Self::resolv_conf_in(self.lab)).unwrap()
    }

    pub(super) fn sh(&self, script: &str) -> String {
        self.container.sh(script).unwrap().all()
    }

    /// gvforwarder with these words, where DHCP clients are looked for in `path` alone.
    pub(super) fn forwarder(&self, path: &Path, words: &[&str]) -> Running {
        let path = format!("PATH={}", path.display());
        let words = words.iter().map(|word| (*word).to_owned());
        let line = ["env".to_owned(), path, self.lab.program("gvforwarder")].into_iter().chain(words);
        self.container.cmd(line).start().unwrap()
    }

    /// Until the interface has this address.
    pub(super) fn has(&self, forwarder: &mut Running, address: &str) {
        let told = forwarder.until(LIMIT, |_| self.sh("ip -4 address").contains(&format!("inet {address}")));
        told.unwrap_or_else(|error| panic!("{error}\n{}", self.sh("ip address; ip route")));
    }

    fn pings(&self, address: &str) {
        let ping = self.sh(&format!("ping -c 1 -W 5 {address}"));
        assert!(ping.contains(" 0% packet loss"), "{ping}");
    }
}

/// Where no program is.
pub(super) fn nowhere() -> &'static Path {
    Path::new("/nonexistent")
}

fn api(lab: &Lab) -> PathBuf {
    lab.home().join("api.sock")
}

pub(super) fn url(lab: &Lab) -> String {
    format!("unix://{}", api(lab).display())
}

/// gvproxy on the host, which lets guests in at the lab's socket.
pub(super) fn gvproxy(lab: &Lab, words: &[&str]) -> Running {
    listening(lab, lab.host([&lab.program("gvproxy"), "-listen", &url(lab)]).args(NO_SSH).args(words))
}

fn listening(lab: &Lab, line: Cmd) -> Running {
    let mut network = line.start().unwrap();
    network.until(LIMIT, |_| api(lab).exists()).unwrap();
    network
}

/// What a machine does on its network.
fn uses_the_network(guest: &Guest<'_>) {
    guest.pings("192.168.127.1");
    let page = guest.sh(&format!("busybox wget -qO- http://{WORLD4}/index.html"));
    assert_eq!(page, "fetched\n");
    let name = guest.sh("busybox nslookup -type=a world.test");
    assert!(name.contains(&format!("Address: {WORLD4}\n")), "{name}");
}

#[test]
fn a_machine_without_a_dhcp_client_is_online() {
    let test = "a_machine_without_a_dhcp_client_is_online";
    let Some(lab) = lab(test, &["busybox", "ping", "dnsmasq"], Vec::new()) else { return };
    std::fs::write(lab.dir().join("www/index.html"), "fetched\n").unwrap();
    let (_http, _dns) = (lab.http().unwrap(), lab.dns().unwrap());
    lab.set_resolv_conf(&format!("search lab.test\nnameserver {WORLD4}\n")).unwrap();
    let _network = gvproxy(&lab, &["-mtu", "1400"]);
    let guest = Guest::new(&lab);
    let mut forwarder = guest.forwarder(nowhere(), &["-url", &url(&lab)]);
    guest.has(&mut forwarder, "192.168.127.2/24");
    forwarder.until(LIMIT, |_| guest.sh("ip route").contains("default via 192.168.127.1 dev tap0")).unwrap();
    let link = guest.sh("ip link show tap0");
    assert!(link.contains("mtu 1400") && link.contains("5a:94:ef:e4:0c:ee"), "{link}");
    assert_eq!(guest.resolv_conf(), "search lab.test\nnameserver 192.168.127.1\n");
    uses_the_network(&guest);
    // It has shut itself in.
    let status = std::fs::read_to_string(format!("/proc/{}/status", forwarder.pid())).unwrap();
    for line in
        ["CapEff:\t0000000000003000\n", "CapBnd:\t0000000000003000\n", "NoNewPrivs:\t1\n", "Seccomp:\t2\n"]
    {
        assert!(status.contains(line), "{line}: {status}");
    }
    // Large packets in both directions, whole and in pieces.
    let pings =
        guest.sh("ping -c 3 -i 0.2 -W 5 -s 1372 192.168.127.1; ping -c 3 -i 0.2 -W 5 -s 9000 192.168.127.1");
    assert_eq!(pings.matches(" 0% packet loss").count(), 2, "{pings}");
    // One that somebody deletes is made anew, from where it is now.
    guest.sh("ip link delete tap0");
    forwarder.until(LIMIT, |running| running.stderr().contains("cannot read packet from tap: ")).unwrap();
    guest.has(&mut forwarder, "192.168.127.2/24");
    forwarder.until(LIMIT, |_| guest.sh("ip route").contains("default via 192.168.127.1 dev tap0")).unwrap();
    uses_the_network(&guest);
    forwarder.signal(Signal::SIGTERM);
    let output = forwarder.finish(LIMIT).unwrap().expect("it ends");
    assert_eq!(output.code(), 0, "{output}");
    assert!(output.err().contains(&format!("level=info msg=\"Dialing to {}…\"", url(&lab))), "{output}");
    assert!(!guest.sh("ip link").contains("tap0"));
}

#[test]
fn much_is_carried_in_both_directions() {
    let test = "much_is_carried_in_both_directions";
    let Some(lab) = lab(test, &["ncat"], Vec::new()) else { return };
    let _network = gvproxy(&lab, &[]);
    let guest = Guest::new(&lab);
    let mut forwarder = guest.forwarder(nowhere(), &["-url", &url(&lab)]);
    guest.has(&mut forwarder, "192.168.127.2/24");
    forwarder.until(LIMIT, |_| guest.sh("ip route").contains("default")).unwrap();
    let source = "head -c 50000000 /dev/zero";
    let down = lab.world(["sh", "-c", &format!("{source} | ncat -l --send-only {WORLD4} 9000")]);
    let up = lab.world(["sh", "-c", &format!("ncat -l --recv-only {WORLD4} 9001 | wc -c")]);
    let (_down, mut up) =
        (Running::server(down, "tcp", 9000).unwrap(), Running::server(up, "tcp", 9001).unwrap());
    let fetch = format!("ncat --recv-only {WORLD4} 9000 | wc -c");
    let send = format!("{source} | ncat --send-only {WORLD4} 9001");
    let script = format!("{fetch} & {send}; wait");
    let carried = guest.container.cmd(["sh", "-c", &script]).run(LIMIT * 3).unwrap();
    assert_eq!(carried.out(), "50000000\n", "{carried}");
    assert_eq!(up.finish(LIMIT).unwrap().expect("it ends").out(), "50000000\n");
}

#[test]
fn it_comes_back_when_the_network_does() {
    let test = "it_comes_back_when_the_network_does";
    let Some(lab) = lab(test, &["ping"], Vec::new()) else { return };
    let guest = Guest::new(&lab);
    // It is there before the network.
    let mut forwarder = guest.forwarder(nowhere(), &["-url", &url(&lab)]);
    let refused = "level=error msg=\"cannot connect to host: dial unix ";
    forwarder.until(LIMIT, |running| running.stderr().matches(refused).count() >= 2).unwrap();
    assert!(!guest.sh("ip link").contains("tap0"), "there is no interface without a network");
    let network = gvproxy(&lab, &[]);
    guest.has(&mut forwarder, "192.168.127.2/24");
    guest.pings("192.168.127.1");
    let number = || guest.sh("cat /sys/class/net/tap0/ifindex || ip -o link show tap0 | cut -d: -f1");
    let before = number();
    let end = |mut network: Running| {
        network.signal(Signal::SIGTERM);
        assert!(network.finish(LIMIT).unwrap().is_some());
    };
    end(network);
    let ended = "level=error msg=\"cannot read size from socket: EOF\"";
    forwarder.until(LIMIT, |running| running.stderr().contains(ended)).unwrap();
    assert!(guest.sh("ip -4 address show tap0").contains("192.168.127.2/24"), "it is kept");
    let network = gvproxy(&lab, &[]);
    forwarder
        .until(LIMIT, |running| running.stderr().matches("lease of 192.168.127.2/24").count() == 2)
        .unwrap();
    guest.pings("192.168.127.1");
    assert_eq!(number(), before, "the same interface");
    // Another network has another address for it.
    end(network);
    let _network = gvproxy(&lab, &["-subnet", "10.77.0.0/24"]);
    guest.has(&mut forwarder, "10.77.0.");
    forwarder.until(LIMIT, |_| guest.sh("ip route").contains("default via 10.77.0.1")).unwrap();
    guest.pings("10.77.0.1");
    let addresses = guest.sh("ip -4 address show tap0; ip route");
    assert!(!addresses.contains("192.168.127"), "{addresses}");
    assert_eq!(guest.resolv_conf(), "nameserver 10.77.0.1\n");
}

#[test]
fn an_interface_that_is_there_is_left_as_it_is() {
    let test = "an_interface_that_is_there_is_left_as_it_is";
    let Some(lab) = lab(test, &["ping"], Vec::new()) else { return };
    let _network = gvproxy(&lab, &[]);
    let guest = Guest::new(&lab);
    let made = guest
        .sh("ip tuntap add vsock0 mode tap && ip link set vsock0 address 02:00:00:00:00:07 up && \
         ip address add 192.168.127.9/24 dev vsock0");
    assert_eq!(made, "");
    let words = ["-preexisting", "-iface", "vsock0", "-url", &url(&lab)];
    let mut forwarder = guest.forwarder(nowhere(), &words);
    forwarder.until(LIMIT, |_| guest.sh("ip link show vsock0").contains("LOWER_UP")).unwrap();
    guest.pings("192.168.127.1");
    let addresses = guest.sh("ip -o address show vsock0; ip route");
    assert!(addresses.contains("192.168.127.9/24") && !addresses.contains("192.168.127.2/24"), "{addresses}");
    assert!(!addresses.contains("default"), "{addresses}");
    assert_eq!(guest.resolv_conf(), "nameserver 203.0.113.1\n");
    forwarder.signal(Signal::SIGTERM);
    assert_eq!(forwarder.finish(LIMIT).unwrap().expect("it ends").code(), 0);
    let link = guest.sh("ip link show vsock0");
    assert!(link.contains("02:00:00:00:00:07"), "it outlives the program: {link}");
}

/// A directory with a program of this name, which has what it needs in itself.
fn bin(lab: &Lab, name: &str, script: &str) -> PathBuf {
    let dir = lab.home().join(format!("bin-{name}"));
    std::fs::create_dir(&dir).unwrap();
    let path = dir.join(name);
    std::fs::write(&path, script).unwrap();
    for path in [&dir, &path] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    dir
}

/// The program that it has started.
fn child(forwarder: &Running) -> Option<Pid> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let mut numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    // Behind the name, which is in brackets: the state, and the parent's number (proc(5)).
    let parent = |number: i32| -> Option<u32> {
        let stat = std::fs::read_to_string(format!("/proc/{number}/stat")).ok()?;
        stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
    };
    numbers.find(|number| parent(*number) == Some(forwarder.pid())).map(Pid::from_raw)
}

/// What was started does not outlive whoever started it.
fn ends_with_its_child(mut forwarder: Running) {
    let child = child(&forwarder).unwrap();
    // To the one, not to its group.
    kill(Pid::from_raw(forwarder.pid().try_into().unwrap()), Signal::SIGTERM).unwrap();
    assert_eq!(forwarder.finish(LIMIT).unwrap().expect("it ends").code(), 0);
    assert!(!Path::new(&format!("/proc/{child}")).exists());
}

const PATH: &str = "PATH=/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin";

#[test]
fn udhcpc_goes_first_and_keeps_its_lease() {
    let test = "udhcpc_goes_first_and_keeps_its_lease";
    let Some(lab) = lab(test, &["busybox", "ping"], Vec::new()) else { return };
    let _network = gvproxy(&lab, &[]);
    let guest = Guest::new(&lab);
    let set = bin(
        &lab,
        "set",
        &format!(
            "#!/bin/sh\n{PATH}\n[ \"$1\" = bound ] || exit 0\n\
             ip address add $ip/$mask dev $interface; ip route add default via $router\n"
        ),
    );
    let script = format!(
        "#!/bin/sh\n{PATH}\necho \"with $*\"\nexec busybox udhcpc \"$@\" -s {}\n",
        set.join("set").display()
    );
    let mut forwarder = guest.forwarder(&bin(&lab, "udhcpc", &script), &["-url", &url(&lab)]);
    guest.has(&mut forwarder, "192.168.127.2/24");
    guest.pings("192.168.127.1");
    assert!(forwarder.stderr().contains("with -f -i tap0 -v\n"), "{}", forwarder.stderr());
    let client = child(&forwarder).expect("it is there to renew");
    // One that ends without an address takes the connection along, and there is another try.
    kill(client, Signal::SIGKILL).unwrap();
    forwarder
        .until(LIMIT, |running| running.stderr().contains("msg=\"dhcp error: signal: killed\""))
        .unwrap();
    forwarder.until(LIMIT, |running| running.stderr().matches("with -f -i tap0 -v\n").count() == 2).unwrap();
    ends_with_its_child(forwarder);
}

#[test]
fn dhclient_is_taken_where_there_is_no_udhcpc() {
    let test = "dhclient_is_taken_where_there_is_no_udhcpc";
    let root = match tree("qemu") {
        Ok(root) if root.join("usr/sbin/dhclient").is_file() => root,
        Ok(root) => return skip(test, &format!("{} has no dhclient", root.display())).unwrap_or_default(),
        Err(reason) => return skip(test, &reason).unwrap_or_default(),
    };
    let more = vec![("tree".to_owned(), root)];
    let Some(lab) = lab(test, &["ping"], more) else { return };
    let _network = gvproxy(&lab, &[]);
    let guest = Guest::new(&lab);
    let set = bin(
        &lab,
        "set",
        &format!(
            "#!/bin/sh\n{PATH}\n[ \"$reason\" = BOUND ] || exit 0\n\
             ip address add $new_ip_address/$new_subnet_mask dev $interface\n\
             ip route add default via $new_routers\n"
        ),
    );
    let (tree, home) = (lab.program("tree"), lab.home());
    let script = format!(
        "#!/bin/sh\n{PATH}\necho \"with $*\" >&2\nfor loader in {tree}/usr/lib/*/ld-linux*.so.*; do\n\
         exec $loader --library-path ${{loader%/*}} {tree}/usr/sbin/dhclient -sf {set}/set -lf {home}/leases \
         -pf {home}/pid -cf /dev/null \"$@\"\ndone\n",
        set = set.display(),
        home = home.display()
    );
    let mut forwarder = guest.forwarder(&bin(&lab, "dhclient", &script), &["-url", &url(&lab)]);
    guest.has(&mut forwarder, "192.168.127.2/24");
    guest.pings("192.168.127.1");
    assert!(forwarder.stderr().contains("with -4 -d -v tap0\n"), "{}", forwarder.stderr());
}

/// As in Podman's helper for WSL: gvproxy is started from within.
#[test]
fn a_program_can_stand_for_the_host() {
    let test = "a_program_can_stand_for_the_host";
    let Some(lab) = lab(test, &["ping"], Vec::new()) else { return };
    let guest = Guest::new(&lab);
    let url = format!("stdio:{}?listen-stdio=accept&ssh-port=-1", lab.program("gvproxy"));
    let words = ["-iface", "podman-usermode", "-stop-if-exist", "ignore", "-mac", "", "-url", &url];
    let mut forwarder = guest.forwarder(nowhere(), &words);
    guest.has(&mut forwarder, "192.168.127.3/24");
    guest.pings("192.168.127.1");
    ends_with_its_child(forwarder);
}

#[test]
fn debians_gvproxy_is_as_good_a_host() {
    let test = "debians_gvproxy_is_as_good_a_host";
    let root = match tree("gvproxy") {
        Ok(root) => root,
        Err(reason) => return skip(test, &reason).unwrap_or_default(),
    };
    let Some(lab) = lab(test, &["busybox", "ping", "dnsmasq"], vec![("tree".to_owned(), root)]) else {
        return;
    };
    std::fs::write(lab.dir().join("www/index.html"), "fetched\n").unwrap();
    let (_http, _dns) = (lab.http().unwrap(), lab.dns().unwrap());
    lab.set_resolv_conf(&format!("nameserver {WORLD4}\n")).unwrap();
    let tree = lab.program("tree");
    let line = format!(
        "for loader in {tree}/usr/lib/*/ld-linux*.so.*; do\n\
         exec $loader --library-path ${{loader%/*}} {tree}/usr/bin/gvproxy -listen {} -ssh-port 41118\ndone",
        url(&lab)
    );
    let _network = listening(&lab, lab.host(["sh", "-c", &line]));
    let guest = Guest::new(&lab);
    let mut forwarder = guest.forwarder(nowhere(), &["-url", &url(&lab)]);
    guest.has(&mut forwarder, "192.168.127.2/24");
    forwarder.until(LIMIT, |_| guest.sh("ip route").contains("default via 192.168.127.1 dev tap0")).unwrap();
    uses_the_network(&guest);
    assert_eq!(guest.resolv_conf(), "nameserver 192.168.127.1\n");
}

#[test]
fn the_host_is_reached_over_vsock() {
    let test = "the_host_is_reached_over_vsock";
    if vsock_reaches_itself().is_err() {
        return skip(test, NO_VSOCK).unwrap_or_default();
    }
    let Some(lab) = lab(test, &["ping"], Vec::new()) else { return };
    // Ports of vsock are the machine's, whatever namespace one is in.
    let port = 40_000 + std::process::id() % 20_000;
    let address = format!("vsock://:{port}");
    let _network = gvproxy(&lab, &["-listen", &address]);
    let guest = Guest::new(&lab);
    let url = format!("vsock://1:{port}/connect");
    let mut forwarder = guest.forwarder(nowhere(), &["-url", &url]);
    guest.has(&mut forwarder, "192.168.127.2/24");
    guest.pings("192.168.127.1");
}

/// Whether a machine's own CID (1, VMADDR_CID_LOCAL) leads back to it: the kernel's vsock_loopback.
fn vsock_reaches_itself() -> nix::Result<()> {
    use nix::sys::socket::{
        AddressFamily, Backlog, SockFlag, SockType, VsockAddr, bind, connect, getsockname, listen, socket,
    };
    use std::os::fd::AsRawFd as _;
    let open = || socket(AddressFamily::Vsock, SockType::Stream, SockFlag::SOCK_CLOEXEC, None);
    let (listener, client) = (open()?, open()?);
    bind(listener.as_raw_fd(), &VsockAddr::new(u32::MAX, u32::MAX))?;
    listen(&listener, Backlog::new(1)?)?;
    let port = getsockname::<VsockAddr>(listener.as_raw_fd())?.port();
    // The kernel gives up after two seconds.
    connect(client.as_raw_fd(), &VsockAddr::new(1, port))
}
