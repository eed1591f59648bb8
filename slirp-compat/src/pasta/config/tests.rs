use super::*;
use crate::fuzz::coherent;
use crate::pasta::read;
use proptest::prelude::*;
use slipway_portfwd::rule::passt::Draft;
use std::ffi::OsString;
use std::path::Path;

/// A world with the interface eth0, the users nobody and max, and the group net; both families, a kernel that binds to
/// interfaces and no special rights unless said otherwise.
struct Fake {
    families: [bool; 2],
    root: bool,
    binds: bool,
}

const PLAIN: Fake = Fake { families: [true, true], root: false, binds: true };

impl World for Fake {
    fn interface(&self, name: &OsStr) -> Result<(), Errno> {
        if name == "eth0" { Ok(()) } else { Err(Errno::ENODEV) }
    }

    fn family(&self, ipv6: bool) -> bool {
        self.families[usize::from(ipv6)]
    }

    fn user(&self, name: &str) -> Option<Ids> {
        match name {
            "nobody" => Some(Ids { user: 99, group: 98 }),
            "max" => Some(Ids { user: 1000, group: 100 }),
            _ => None,
        }
    }

    fn group(&self, name: &str) -> Option<u32> {
        (name == "net").then_some(7)
    }

    fn is_root_of_the_machine(&self) -> bool {
        self.root
    }

    fn binds_to_interfaces(&self) -> bool {
        self.binds
    }

    fn ephemeral(&self) -> (u16, u16) {
        (32_768, 60_999)
    }
}

fn run_in(world: &Fake, program: &str, line: &[&str]) -> (Vec<String>, Result<Config, Stop>) {
    let words: Vec<_> = line.iter().map(OsString::from).collect();
    let mut notices = Vec::new();
    let config = read(program, &words, &mut notices, world);
    (notices, config)
}

fn good(program: &str, line: &[&str]) -> Config {
    let (notices, config) = run_in(&PLAIN, program, line);
    assert_eq!(notices, [""; 0], "{line:?}");
    config.unwrap_or_else(|stop| panic!("{line:?}: {stop:?}"))
}

fn refusal(program: &str, line: &[&str]) -> String {
    match run_in(&PLAIN, program, line).1 {
        Err(Stop::Value(text)) => text,
        other => panic!("{line:?}: {other:?}"),
    }
}

fn namespace_of(config: &Config) -> &Namespace {
    match &config.guest {
        Guest::Namespace(namespace) => namespace,
        Guest::Machine(machine) => panic!("{machine:?}"),
    }
}

fn pair(v4: Option<&str>, v6: Option<&str>) -> Pair {
    Pair { v4: v4.map(|text| text.parse().unwrap()), v6: v6.map(|text| text.parse().unwrap()) }
}

/// The rules of both sides, as pesto shows them.
fn rules(config: &Config) -> Vec<String> {
    config.forwards.all().map(|rule| Draft::from(&rule).to_string().trim_end().to_owned()).collect()
}

#[test]
fn the_defaults_are_those_that_callers_count_on() {
    let config = good("pasta", &["--netns", "/run/n"]);
    let namespace = Namespace {
        place: Place::Path("/run/n".into()),
        userns: Userns::Ours,
        pidns: true,
        quit: true,
        tap: None,
        tap_mac: None,
        configure: None,
    };
    assert_eq!(config.guest, Guest::Namespace(namespace));
    assert_eq!((config.mtu, config.mac.to_string()), (Some(65520), "9a:55:9a:55:9a:55".to_owned()));
    assert_eq!((config.level, config.foreground, config.one_off), (LevelFilter::Info, false, false));
    assert_eq!((config.dns, config.search), (Told::Nothing, Told::Nothing), "pasta tells if it is asked to");
    assert!(
        config.map_gateway && config.splice.inbound && !config.splice.to_loopback && config.run_as.is_none()
    );
    let Handlers { tcp, udp, icmp, dhcp, dhcpv6, ndp, advertisements } = config.handlers;
    assert!(tcp && udp && icmp && dhcp && dhcpv6 && ndp && advertisements);

    let config = good("passt", &[]);
    let Guest::Machine(machine) = &config.guest else { panic!() };
    let expected = Machine {
        vhost_user: false,
        socket: None,
        repair: Repair::Beside,
        migrate_exit: false,
        migrate_no_linger: false,
    };
    assert_eq!(*machine, expected);
    assert_eq!((config.dns, config.search), (Told::Hosts, Told::Hosts), "passt tells unless it is forbidden");
    assert!(!config.splice.inbound);
}

#[test]
fn a_name_and_an_option_say_which_it_is() {
    let machine = |program, line: &[&str]| match good(program, line).guest {
        Guest::Machine(machine) => Some(machine.vhost_user),
        Guest::Namespace(_) => None,
    };
    assert_eq!(machine("/usr/bin/passt", &[]), Some(false));
    assert_eq!(machine("/opt/pasta/passt.avx2", &["--vhost-user"]), Some(true));
    assert_eq!(machine("/opt/passt/my-pasta", &["--netns", "x"]), None);
    assert_eq!(machine("pasta", &["--vhost-user"]), Some(true));
    assert_eq!(machine("pasta", &["true", "--vhost-user"]), None, "an option of the command");
    assert_eq!(refusal("slipway", &[]), "Cannot determine mode, invoke as \"passt\" or \"pasta\"");
}

#[test]
fn places() {
    let of = |line: &[&str]| {
        let config = good("pasta", line);
        let Namespace { place, userns, .. } = namespace_of(&config).clone();
        (place, userns)
    };
    let command = |words: &[&str]| Place::Command(words.iter().map(OsString::from).collect());
    let join = |path: &str| Userns::Join(path.into());
    assert_eq!(of(&[]), (command(&[]), Userns::New));
    assert_eq!(of(&["ls", "-l"]), (command(&["ls", "-l"]), Userns::New));
    assert_eq!(of(&["123", "456"]), (command(&["123", "456"]), Userns::New));
    assert_eq!(of(&["--netns-only", "ls"]), (command(&["ls"]), Userns::Ours));
    assert_eq!(of(&["--userns", "/u", "ls"]), (command(&["ls"]), join("/u")));
    assert_eq!(of(&["--userns", "/u", "--netns-only", "ls"]), (command(&["ls"]), Userns::Ours));
    assert_eq!(of(&["--netns-only", "--userns", "/u", "ls"]), (command(&["ls"]), join("/u")));
    assert_eq!(of(&["123"]), (Place::Pid(123), join("/proc/123/ns/user")));
    assert_eq!(of(&["+5"]), (Place::Pid(5), join("/proc/5/ns/user")));
    assert_eq!(of(&["--netns-only", "123"]), (Place::Pid(123), join("/proc/123/ns/user")));
    assert_eq!(of(&["--userns", "/u", "123"]), (Place::Pid(123), join("/u")));
    assert_eq!(of(&["--netns", "web"]), (Place::Path("/run/netns/web".into()), Userns::Ours));
    assert_eq!(of(&["--netns", "./web"]), (Place::Path("./web".into()), Userns::Ours));
    assert_eq!(of(&["--userns", "/u", "--netns", "/n"]), (Place::Path("/n".into()), join("/u")));
    assert_eq!(Place::Pid(7).netns().unwrap(), Path::new("/proc/7/ns/net"));
}

#[test]
fn what_does_not_go_together_is_refused_in_the_words_that_are_known() {
    let cases: &[(&[&str], &str)] = &[
        (&["--netns", "foo", "123"], "Both --netns and PID or command given"),
        (&["--netns", "foo", "true"], "Both --netns and PID or command given"),
        (&["9999999999999"], "Invalid PID 9999999999999"),
        (&["2147483648"], "Invalid PID 2147483648"),
        (&["--", "-1"], "Invalid PID -1"),
        (&["--no-pidns", "1"], "--no-pidns is incompatible with PID or --netns"),
        (&["--no-pidns", "--netns", "/x"], "--no-pidns is incompatible with PID or --netns"),
        (&["--host-lo-to-ns-lo", "--no-splice"], "--host-lo-to-ns-lo is incompatible with --no-splice"),
        (&["--splice-only", "--no-splice"], "--splice-only is incompatible with --no-splice"),
        (&["-i", "nosuch0"], "Invalid interface name nosuch0: No such device"),
        (&["--runas", "nosuch"], "Invalid --runas option: nosuch"),
        (&["--runas", "1:x"], "Invalid --runas option: 1:x"),
        (&["--runas", ""], "Invalid --runas option: "),
    ];
    for (line, words) in cases {
        assert_eq!(refusal("pasta", line), *words, "{line:?}");
    }
    for word in ["foo", "123"] {
        assert_eq!(refusal("passt", &["-f", word]), format!("Extra non-option argument: {word}"));
    }
    for name in ["routes", "addrs"] {
        let (notices, config) = run_in(&PLAIN, "pasta", &[&format!("--no-copy-{name}")]);
        assert_eq!(notices, [format!("--no-copy-{name} will be dropped soon")]);
        assert_eq!(config, Err(Stop::Value(format!("--no-copy-{name} needs --config-net"))));
    }
}

#[test]
fn families_are_those_that_are_wanted_and_there() {
    let v4 = Fake { families: [true, false], ..PLAIN };
    assert_eq!(good("pasta", &["-4"]).families, [true, false]);
    assert_eq!(good("pasta", &["-4", "-6"]).families, [false, true]);
    assert_eq!(run_in(&v4, "pasta", &[]).1.unwrap().families, [true, false]);
    let refused = Stop::Value("IPv6 not available but --ipv6-only given".to_owned());
    assert_eq!(run_in(&v4, "pasta", &["-6"]).1, Err(refused));
}

#[test]
fn root_of_the_machine_becomes_nobody() {
    let root = Fake { root: true, ..PLAIN };
    let (notices, config) = run_in(&root, "pasta", &["true"]);
    assert_eq!(notices, ["Started as root, will change to nobody."]);
    assert_eq!(config.unwrap().run_as, Some(Ids { user: 99, group: 98 }));
    for (text, user, group) in [
        ("max", 1000, 100),
        ("max:net", 1000, 7),
        ("max:5", 1000, 5),
        ("12", 12, 12),
        ("12:13", 12, 13),
        ("12:net", 12, 7),
    ] {
        let (notices, config) = run_in(&root, "pasta", &["--runas", text]);
        assert!(notices.is_empty());
        assert_eq!(config.unwrap().run_as, Some(Ids { user, group }), "{text}");
    }
}

#[test]
fn small_mtus_are_warned_of() {
    let warnings = |line: &[&str]| run_in(&PLAIN, "pasta", line).0.len();
    assert_eq!((warnings(&["-m67"]), warnings(&["-m1279"]), warnings(&["-m1280"])), (2, 1, 0));
    assert_eq!((warnings(&["-m1279", "-4"]), warnings(&["-m0"])), (0, 0));
    let (notices, config) = run_in(&PLAIN, "pasta", &["-4", "-m", "67"]);
    assert_eq!(notices, ["MTU 67 is too small for IPv4 (minimum 68)"]);
    let config = config.unwrap();
    assert_eq!((config.mtu, config.engine_mtu()), (Some(67), Mtu::MIN));
    let none = good("pasta", &["--mtu", "0"]);
    assert_eq!((none.mtu, none.engine_mtu()), (None, Mtu::ETHERNET));
}

#[test]
fn networks_without_a_length_have_that_of_their_class() {
    for (line, prefix) in [
        (&["-a", "10.1.2.3"][..], Some(8)),
        (&["-a", "172.16.0.1"], Some(16)),
        (&["-a", "192.168.1.1"], Some(24)),
        (&["-a", "240.0.0.1"], Some(32)),
        (&["-a", "10.1.2.3/0"], Some(8)),
        (&["-a", "10.1.2.3/12"], Some(12)),
        (&["-a", "10.1.2.3", "-n", "255.255.0.0"], Some(16)),
        (&["-a", "10.1.2.3", "-n", "0"], Some(8)),
        (&["-n", "20"], Some(20)),
        (&["-a", "fd00::1/48"], None),
        (&[], None),
    ] {
        assert_eq!(good("pasta", line).prefix, prefix, "{line:?}");
    }
}

#[test]
fn a_command_owns_the_terminal() {
    let config = good("pasta", &["true"]);
    assert!(config.foreground);
    assert_eq!(config.level, LevelFilter::Warn);
    assert_eq!(good("pasta", &["-d", "true"]).level, LevelFilter::Debug);
    assert_eq!(good("pasta", &["--trace", "--netns", "x"]).level, LevelFilter::Trace);
    assert_eq!(good("pasta", &["-q", "--netns", "x"]).level, LevelFilter::Warn);
}

#[test]
fn what_is_answered_follows_from_several_options() {
    let handlers = |line: &[&str]| good("pasta", line).handlers;
    assert!(!handlers(&["--no-icmp"]).ndp && !handlers(&["--no-ndp"]).advertisements);
    assert!(!handlers(&["--config-net"]).advertisements && handlers(&["--config-net"]).ndp);
    let only = good("pasta", &["--splice-only", "--dhcp-dns", "--dns-forward", "1.1.1.1"]);
    assert!(only.splice.to_loopback && only.splice.inbound && only.splice.only && only.handlers.tcp);
    assert!(!only.handlers.icmp && !only.handlers.dhcp && only.dns == Told::Nothing);
    assert_eq!(only.dns_forward, Pair::default());
    assert_eq!(good("pasta", &["--dhcp-dns"]).dns, Told::Hosts);
    assert_eq!(good("pasta", &["--dhcp-dns", "-D", "none"]).dns, Told::Nothing);
    assert_eq!(good("pasta", &["-S", "a"]).search, Told::Nothing);
    assert_eq!(good("pasta", &["-S", "a", "--dhcp-search"]).search, Told::These(vec!["a".to_owned()]));
    assert_eq!(good("passt", &["--no-dhcp-search", "-S", "a"]).search, Told::Nothing);
    assert_eq!(good("passt", &["--no-dhcp-dns"]).dns, Told::Nothing);
}

#[test]
fn what_is_set_is_not_copied() {
    let configure = |line: &[&str]| {
        let words = [&["--config-net"], line].concat();
        let Configure { copy_addresses, copy_routes } =
            namespace_of(&run_in(&PLAIN, "pasta", &words).1.unwrap()).configure.unwrap();
        (copy_addresses, copy_routes)
    };
    assert_eq!(configure(&[]), ([true, true], [true, true]));
    assert_eq!(configure(&["-a", "1.2.3.4"]), ([false, true], [true, true]));
    assert_eq!(configure(&["-g", "fd00::1", "-a", "fd00::3"]), ([true, false], [true, false]));
    assert_eq!(configure(&["--no-copy-routes"]), ([true, true], [false, false]));
    assert_eq!(configure(&["--no-copy-addrs"]), ([false, false], [true, true]));
}

/// What stock pasta of 2026-10-02 says.
#[test]
fn rules_that_cannot_be_are_refused_in_the_words_that_are_known() {
    let conflict = "Forwarding configuration conflict: TCP [*]:80  =>  80  versus TCP [*]:80  =>  80 \n\
                    Unable to add rule TCP [*]:80  =>  80 ";
    let cases: &[(&[&str], &str)] = &[
        (&["-t", "80", "-t", "none"], "-t none conflicts with previous options"),
        (&["-u", "auto", "-u", "none"], "-u none conflicts with previous options"),
        (&["-T", "80", "--tcp-ns", "none"], "-T none conflicts with previous options"),
        (&["-U", "80", "-U", "none"], "-U none conflicts with previous options"),
        (&["-t", "xx"], "Invalid port specifier 'xx'"),
        (&["-t", ""], "Invalid port specifier ''"),
        (&["-t", "65536"], "Invalid port specifier '65536'"),
        (&["-T", "1.2.3.4/80"], "Listening address not allowed for -T 1.2.3.4/80"),
        (&["-t", "80", "-t", "80"], conflict),
        (
            &["-4", "-t", "::1/80"],
            "IPv6 forward, but IPv6 not enabled\nUnable to add rule TCP [::1]:80  =>  80 ",
        ),
        (
            &["-t", "80", "--no-tcp"],
            "Can't add TCP forwarding rule, TCP not enabled\nUnable to add rule TCP [*]:80  =>  80 ",
        ),
        // Looked at before what follows the options.
        (&["--netns", "foo", "-t", "xx", "123"], "Invalid port specifier 'xx'"),
    ];
    for (line, words) in cases {
        assert_eq!(refusal("pasta", line), *words, "{line:?}");
    }
    assert_eq!(refusal("passt", &["-t", "auto"]), "'auto' port forwarding is only allowed for pasta");
    let old = Fake { binds: false, ..PLAIN };
    let refused =
        Stop::Value("Device binding for '-t %eth0/80' unsupported (requires kernel 5.7+)".to_owned());
    assert_eq!(run_in(&old, "pasta", &["-t", "%eth0/80"]).1, Err(refused));
}

#[test]
fn what_is_not_spoken_of_is_open_while_somebody_listens() {
    let scanned = |config: &Config| {
        let sides = [&config.forwards.host, &config.forwards.namespace];
        sides.map(|side| (side.has(Proto::Tcp), side.has(Proto::Udp)))
    };
    let none = |line: &[&str]| scanned(&good("pasta", line));
    assert_eq!(none(&[]), [(true, true), (true, true)]);
    assert_eq!(none(&["-t", "none", "-U", "none"]), [(false, true), (true, false)]);
    assert_eq!(none(&["-t", "none", "-t", "80"]), [(true, true), (true, true)]);
    assert_eq!(none(&["--no-tcp"]), [(false, true), (false, true)], "no default that cannot be");
    assert_eq!(scanned(&good("passt", &[])), [(false, false), (false, false)]);
    let config = good("pasta", &["-t", "8080:80"]);
    assert_eq!(rules(&config)[0], "TCP [*]:8080  =>  80");
}

/// The arguments of Podman 5: `pasta.go` puts the user's first, then fills up.
#[test]
fn podman_5_is_understood() {
    let config = good(
        "/usr/bin/pasta",
        &[
            "--config-net",
            "-t",
            "8080-8080:80-80",
            "-u",
            "::1/53-53:53-53",
            "--dns-forward",
            "169.254.1.1",
            "-T",
            "none",
            "-U",
            "none",
            "--no-map-gw",
            "--quiet",
            "--netns",
            "/run/user/1000/netns/netns-1",
            "--map-guest-addr",
            "169.254.1.2",
        ],
    );
    let namespace = namespace_of(&config);
    assert_eq!(namespace.place, Place::Path("/run/user/1000/netns/netns-1".into()));
    assert_eq!(namespace.userns, Userns::Ours);
    assert!(namespace.configure.is_some() && !config.foreground && !config.map_gateway);
    assert_eq!(config.level, LevelFilter::Warn);
    assert_eq!(config.dns_forward, pair(Some("169.254.1.1"), None));
    assert_eq!(config.map_guest, pair(Some("169.254.1.2"), None));
    assert_eq!(rules(&config), ["TCP [*]:8080  =>  80", "UDP [::1]:53  =>  53"]);
}

/// Podman 6: the namespace of all bridge networks, with a file for the process id, pesto's socket, and an address of
/// IPv6 of its own.
#[test]
fn podman_6_is_understood() {
    let line = [
        "--config-net",
        "--pid",
        "/run/user/1000/containers/networks/rootless-netns/rootless-netns-conn.pid",
        "-c",
        "/run/user/1000/containers/networks/rootless-netns/pasta.sock",
        "--map-guest-addr",
        "169.254.1.2",
        "--map-guest-addr",
        "fc00::2",
        "--address",
        "fc00::3",
        "--gateway",
        "fc00::1",
        "--dns-forward",
        "169.254.1.1",
        "-t",
        "none",
        "-u",
        "none",
        "-T",
        "none",
        "-U",
        "none",
        "--no-map-gw",
        "--quiet",
        "--netns",
        "/run/user/1000/containers/networks/rootless-netns/rootless-netns",
    ];
    let config = good("pasta", &line);
    assert_eq!(config.map_guest, pair(Some("169.254.1.2"), Some("fc00::2")));
    assert_eq!((config.address, config.gateway), (pair(None, Some("fc00::3")), pair(None, Some("fc00::1"))));
    let copied = Configure { copy_addresses: [true, false], copy_routes: [true, false] };
    assert_eq!(namespace_of(&config).configure, Some(copied));
    assert!(config.pid_file.unwrap().ends_with("rootless-netns-conn.pid"));
    assert!(config.conf_path.unwrap().ends_with("pasta.sock"));
    // For a single container the newest writes one, too, and knows it again in the user's options.
    for pid in [&["--pid=/tmp/p"][..], &["-P/tmp/p"]] {
        assert_eq!(good("pasta", &[pid, &["--netns", "/n"]].concat()).pid_file.unwrap(), Path::new("/tmp/p"));
    }
}

#[test]
fn rootlesskit_is_understood() {
    let common = [
        "--stderr",
        "--ns-ifname=tap0",
        "--mtu=65520",
        "--config-net",
        "--address=10.0.2.100",
        "--netmask=24",
        "--gateway=10.0.2.2",
        "--dns-forward=10.0.2.3",
        "--no-map-gw",
        "--ipv4-only",
        "--tcp-ports=auto",
        "--udp-ports=auto",
        "--host-lo-to-ns-lo",
    ];
    let (notices, config) = run_in(&PLAIN, "pasta", &[&common[..], &["4711"]].concat());
    assert_eq!(notices, ["--stderr will be dropped soon"]);
    let config = config.unwrap();
    assert_eq!((config.address, config.prefix), (pair(Some("10.0.2.100"), None), Some(24)));
    assert_eq!(config.gateway, pair(Some("10.0.2.2"), None));
    assert!(config.splice.to_loopback && config.families == [true, false]);
    // What it does not speak of is open, too.
    let shown = rules(&config);
    assert_eq!(shown.len(), 8, "{shown:?}");
    assert_eq!(shown[0], "TCP [0.0.0.0]:1-32767  =>  1-32767  (best effort) (auto-scan)");
    assert_eq!(shown[7], "UDP [0.0.0.0]%lo:61000-65535  =>  61000-65535  (best effort) (auto-scan)");

    let detached = ["--userns=/proc/4711/ns/user", "--netns=/run/user/1000/netns"];
    let config = run_in(&PLAIN, "pasta", &[&common[..], &detached].concat()).1.unwrap();
    let namespace = namespace_of(&config);
    assert_eq!(namespace.userns, Userns::Join("/proc/4711/ns/user".into()));
    assert_eq!(namespace.tap.as_deref(), Some("tap0"));
    assert_eq!(run_in(&PLAIN, "pasta", &["--host-lo-to-ns-lo", "--version"]).1, Err(Stop::Version));
}

#[test]
fn machines_of_qemu_libvirt_and_muvm_are_understood() {
    let qemu = [
        "--vhost-user",
        "--quiet",
        "--mtu",
        "1500",
        "--address",
        "10.0.2.15",
        "--search",
        "a.example b.example",
        "--tcp-ports",
        "2222:22,8080",
        "--pid",
        "/tmp/passt.pid",
        "--fd",
        "3",
    ];
    let config = good("/usr/bin/passt", &qemu);
    assert!(matches!(config.guest, Guest::Machine(Machine { vhost_user: true, socket: None, .. })));
    assert_eq!((config.fd, config.one_off, config.mtu), (Some(3), true, Some(1500)));
    assert_eq!(config.search, Told::These(vec!["a.example b.example".to_owned()]));

    let libvirt_9 = [
        "--one-off",
        "--socket",
        "/run/user/1000/libvirt/qemu/run/passt/1-vm-net0.socket",
        "--mac-addr",
        "52:54:00:12:34:56",
        "--mtu",
        "1500",
        "--interface",
        "eth0",
        "--log-file",
        "/tmp/passt.log",
        "--address",
        "172.17.2.4",
        "--netmask",
        "24",
        "--tcp-ports",
        "127.0.0.1%eth0/2022:22,8000-8100,~8050",
        "--udp-ports",
        "all",
    ];
    let config = good("passt", &libvirt_9);
    let Guest::Machine(Machine { socket: Some(socket), .. }) = &config.guest else { panic!() };
    assert!(socket.ends_with("1-vm-net0.socket") && config.one_off);
    assert_eq!((config.mac.to_string(), config.prefix), ("52:54:00:12:34:56".to_owned(), Some(24)));
    assert_eq!(config.log_file, Some(LogFile { path: "/tmp/passt.log".into(), size: LOG_SIZE }));
    let shown = rules(&config);
    assert_eq!(shown[0], "TCP [127.0.0.1]%eth0:2022  =>  22");
    assert!(shown.contains(&"UDP [*]:61000-65535  =>  61000-65535  (best effort)".to_owned()), "{shown:?}");

    let libvirt_12 = [
        "--pid",
        "/run/p",
        "--vhost-user",
        "--one-off",
        "--socket",
        "/s",
        "--hostname",
        "vm",
        "--fqdn",
        "vm.example.org",
        "--gateway",
        "172.17.2.1",
    ];
    let config = good("passt", &libvirt_12);
    assert_eq!((config.hostname.as_deref(), config.fqdn.as_deref()), (Some("vm"), Some("vm.example.org")));

    // KubeVirt goes through libvirt, with the helper for migrations.
    let kubevirt = ["--vhost-user", "--socket", "/s", "--repair-path", "/s.repair", "--migrate-exit"];
    let Guest::Machine(machine) = good("passt", &kubevirt).guest else { panic!() };
    assert!(machine.repair == Repair::At("/s.repair".into()) && machine.migrate_exit);

    let muvm = good(
        "passt",
        &["-q", "-f", "--fd", "12", "-t", "127.0.0.1/3334-3334:3334-3334", "-u", "53-53:53-53"],
    );
    assert!(muvm.foreground && muvm.level == LevelFilter::Warn && muvm.fd == Some(12));
    assert_eq!(rules(&muvm), ["TCP [127.0.0.1]:3334  =>  3334", "UDP [*]:53  =>  53"]);
}

proptest! {
    /// Whatever is typed, there is an answer, and what is accepted is coherent.
    #[test]
    fn no_line_breaks_it(
        passt: bool,
        line in prop::collection::vec(
            "(-[a-zA-Z0-9]{1,3}|--(mtu|address|netmask|gateway|dns|search|runas|fd|netns|userns|splice-only|no-icmp|config-net)(=[0-9a-f./:]{0,20})?|[0-9a-z./]{0,12})",
            0..7,
        )
    ) {
        let words: Vec<&str> = line.iter().map(String::as_str).collect();
        let program = if passt { "passt" } else { "pasta" };
        if let (_, Ok(config)) = run_in(&PLAIN, program, &words) {
            coherent(&config);
        }
    }
}
