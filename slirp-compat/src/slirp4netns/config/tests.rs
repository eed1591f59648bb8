use super::*;
use crate::slirp4netns::args;
use proptest::prelude::*;
use std::ffi::OsString;

/// A world with one file, /there, and one interface, eth0.
struct Fake;

impl World for Fake {
    fn find(&self, path: &Path) -> Result<(), Errno> {
        if path == Path::new("/there") { Ok(()) } else { Err(Errno::ENOENT) }
    }

    fn interface_address(&self, name: &str, ipv6: bool) -> Option<IpAddr> {
        match (name, ipv6) {
            ("eth0", false) => Some("192.0.2.7".parse().unwrap()),
            ("eth0", true) => Some("2001:db8::7".parse().unwrap()),
            _ => None,
        }
    }
}

fn run(line: &[&str]) -> (Vec<String>, Result<Config, Stop>) {
    let words: Vec<_> = line.iter().map(OsString::from).collect();
    let mut notices = Vec::new();
    let low = args::parse("slirp4netns", &words, &mut notices, &|path| Fake.find(path).is_ok());
    let config = low.and_then(|low| Config::new(low, &mut notices, &Fake));
    (notices, config)
}

fn good(line: &[&str]) -> Config {
    run(line).1.unwrap()
}

/// The diagnostic of a mistake that is followed by the usage text; empty if there is none.
fn usage_of(line: &[&str]) -> String {
    match run(line).1 {
        Err(Stop::Usage(text)) => text.unwrap_or_default(),
        other => panic!("{line:?}: {other:?}"),
    }
}

/// The diagnostic of a bad value.
fn value_of(line: &[&str]) -> String {
    match run(line).1 {
        Err(Stop::Value(text)) => text,
        other => panic!("{line:?}: {other:?}"),
    }
}

#[test]
fn the_defaults_are_those_everybody_computes() {
    let config = good(&["1", "tap0"]);
    let v4 = config.v4;
    assert_eq!(v4.network.to_string(), "10.0.2.0/24");
    assert_eq!(
        (v4.gateway, v4.dns.unwrap(), v4.guest),
        (Ipv4Addr::new(10, 0, 2, 2), Ipv4Addr::new(10, 0, 2, 3), Ipv4Addr::new(10, 0, 2, 100))
    );
    let pool = v4.dhcp.unwrap();
    assert_eq!((pool.first, pool.count, pool.lease.as_secs()), (Ipv4Addr::new(10, 0, 2, 15), 16, 86400));
    assert_eq!(config.gateway_mac.to_string(), "52:55:0a:00:02:02");
    assert_eq!((config.mtu, config.link_mtu), (Mtu::ETHERNET, 1500));
    assert!(config.host_loopback && config.v6.is_none() && config.configure.is_none());
    assert_eq!(config.outbound, Outbound::default());
    assert_eq!(config.target, Target::Netns { netns: Netns::Pid(1), userns: None, tap: "tap0".into() });
}

#[test]
fn addresses_follow_the_network() {
    let config = good(&["--cidr=10.0.135.128/25", "--disable-dns", "-6", "1", "tap0"]);
    assert_eq!(config.v4.guest, Ipv4Addr::new(10, 0, 135, 228));
    assert_eq!(config.v4.gateway, Ipv4Addr::new(10, 0, 135, 130));
    assert_eq!(config.v4.dns, None);
    let v6 = config.v6.unwrap();
    assert_eq!(
        (v6.network.to_string(), v6.gateway.to_string(), v6.dns),
        ("fd00::/64".into(), "fd00::2".into(), None)
    );
    assert!(v6.advertise);
    assert_eq!(good(&["-6", "1", "tap0"]).v6.unwrap().dns.unwrap().to_string(), "fd00::3");
    assert_eq!(good(&["--cidr=128.0.0.0/1", "1", "tap0"]).v4.guest, Ipv4Addr::new(128, 0, 0, 100));
}

#[test]
fn networks_are_judged_in_order() {
    for text in [
        "24",
        "foo",
        "",
        "10.0.2.0",
        "10.0.2.0/",
        "10.0.2.0/24/24",
        " 10.0.2.0/24",
        "10.0.2.0/024",
        "10.0.2/24",
        "10.0.2.0/-1",
        "+10.0.2.0/24",
        "10.0.2.0/99999999999",
        "fd00::/64",
        "/24",
        "1.2.3.4.5/24",
    ] {
        assert_eq!(value_of(&["--cidr", text, "1", "tap0"]), format!("invalid CIDR: {text}"));
    }
    for text in ["10.0.2.300", "010.0.2.0", "1.2.3.99999999999"] {
        let cidr = format!("{text}/24");
        assert_eq!(value_of(&["--cidr", &cidr, "1", "tap0"]), format!("invalid network address: {text}"));
    }
    for text in ["10.0.2.0/0", "10.0.2.0/26", "10.0.2.100/33", "10.0.2.0/99"] {
        assert_eq!(value_of(&["--cidr", text, "1", "tap0"]), "prefix length needs to be 1-25");
    }
    for text in ["10.0.2.100/24", "10.0.2.0/8", "10.0.2.0/08"] {
        assert_eq!(
            value_of(&["--cidr", text, "1", "tap0"]),
            "CIDR needs to be a network address like 10.0.2.0/24, not like 10.0.2.100/24"
        );
    }
}

#[test]
fn outbound_addresses_may_be_interfaces() {
    let config = good(&["--outbound-addr=eth0", "--outbound-addr6=eth0", "1", "tap0"]);
    assert_eq!(config.outbound.v4.unwrap().to_string(), "192.0.2.7");
    assert_eq!(config.outbound.v6.unwrap().to_string(), "2001:db8::7", "without help of the other option");
    let config = good(&["--outbound-addr=127.0.0.1", "--outbound-addr6=::1", "1", "tap0"]);
    assert_eq!(config.outbound.v4.unwrap(), Ipv4Addr::LOCALHOST);
    assert_eq!(config.outbound.v6.unwrap(), Ipv6Addr::LOCALHOST);
    for text in ["foo", "", "::1", "1.2.3"] {
        assert_eq!(
            value_of(&["--outbound-addr", text, "1", "tap0"]),
            "outbound-addr has to be valid ipv4 address or interface name."
        );
    }
    for text in ["foo", "", "1.2.3.4", "fe80::1"] {
        assert_eq!(
            value_of(&["--outbound-addr6", text, "1", "tap0"]),
            "outbound-addr has to be valid ipv4 address or iterface name."
        );
    }
}

#[test]
fn mac_addresses_need_configure() {
    let config = good(&["-c", "--macaddress=a:B:0c:d:EE:f", "1", "tap0"]);
    assert_eq!(config.configure.unwrap().mac.unwrap().to_string(), "0a:0b:0c:0d:ee:0f");
    assert_eq!(good(&["-c", "1", "tap0"]).configure, Some(Configure { mac: None }));
    for line in
        [&["--macaddress=aa", "1", "tap0"][..], &["--macaddress=aa"], &["--macaddress=aa", "--target-type=x"]]
    {
        assert_eq!(usage_of(line), "--macaddr cannot be specified when --configure or -c is not specified");
    }
    let second =
        "macaddress has to be a valid MAC address (hex string, 6 bytes, each byte separated by a ':').";
    for text in ["", "aa:bb", "aa:bb:cc:dd:ee:fff", "aa:bb:cc:dd:ee:fg", "aa-bb-cc-dd-ee-ff"] {
        assert_eq!(
            value_of(&["-c", "--macaddress", text, "1", "tap0"]),
            format!("\"{text}\" is an invalid MAC address.\n{second}")
        );
    }
    for text in ["aa:bb:cc:dd:ee:ff:00", "aa:bb:cc:dd:ee:ff:"] {
        assert_eq!(
            value_of(&["-c", "--macaddress", text, "1", "tap0"]),
            format!("\"{text}\" is an invalid MAC address.  Is it too long?\n{second}")
        );
    }
}

#[test]
fn values_are_judged_in_order() {
    let line = ["-c", "--macaddress=x", "--outbound-addr=x", "--outbound-addr6=x", "--cidr=x", "1", "tap0"];
    assert_eq!(value_of(&line), "invalid CIDR: x");
    let line = ["-c", "--macaddress=x", "--outbound-addr6=x", "--outbound-addr=x", "1", "tap0"];
    assert!(value_of(&line).contains("interface name"));
    let line = ["-c", "--macaddress=x", "--outbound-addr6=x", "1", "tap0"];
    assert!(value_of(&line).contains("iterface name"));
}

#[test]
fn processes_and_paths_are_targets() {
    for line in [
        &[][..],
        &["1"],
        &["0"],
        &["--netns-type=path"],
        &["--netns-type=path", "/not"],
        &["--netns-type=tapfd"],
    ] {
        assert_eq!(usage_of(line), "", "{line:?}");
    }
    for pid in ["0", "x", "1x", "", "99999999999", "4294967297"] {
        assert_eq!(usage_of(&[pid, "tap0"]), "PID must be a positive integer", "{pid}");
    }
    assert_eq!(usage_of(&["tap0", "--", "-5"]), "PID must be a positive integer");
    for kind in ["path", "foo", ""] {
        assert_eq!(
            usage_of(&["--netns-type", kind, "/not", "tap0"]),
            "existing path expected when --netns-type=path: No such file or directory"
        );
    }
    let config = good(&["--netns-type=path", "--userns-path=/there", "/there", "tap0"]);
    assert_eq!(
        config.target,
        Target::Netns {
            netns: Netns::Path("/there".into()),
            userns: Some("/there".into()),
            tap: "tap0".into()
        }
    );
    let (notices, config) = run(&["--netns-type=pid", "+12", "tap0", "more", "and more"]);
    assert_eq!(
        config.unwrap().target,
        Target::Netns { netns: Netns::Pid(12), userns: None, tap: "tap0".into() }
    );
    assert_eq!(notices, ["WARNING: too many arguments"]);
}

#[test]
fn long_interface_names_are_cut() {
    for (typed, cut) in [
        ("thisnameismuchtoolong", "thisnameismucht"),
        ("123456789012345", "123456789012345"),
        ("12345678901234\u{e9}", "12345678901234"),
    ] {
        match good(&["1", typed]).target {
            Target::Netns { tap, .. } => assert_eq!(tap, cut),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn descriptors_are_targets() {
    assert_eq!(good(&["--netns-type=tapfd", "5"]).target, Target::TapFd(5));
    for text in ["x", "-1", ""] {
        assert_eq!(usage_of(&["--netns-type=tapfd", "--", text]), "TAPFD must a file descriptor");
    }
    let (notices, config) = run(&["--netns-type=tapfd", "-c", "5", "tap0"]);
    assert_eq!(config.unwrap().target, Target::TapFd(5));
    assert_eq!(notices, ["WARNING: too many arguments"]);
}

#[test]
fn bess_sockets_are_targets() {
    let (notices, config) = run(&["--target-type=bess", "/s"]);
    assert_eq!(config.unwrap().target, Target::Bess("/s".into()));
    assert_eq!(notices, ["WARNING: BESS mode is experimental"]);
    let line = |words: &[&str]| usage_of(&[&["--target-type=bess"], words].concat());
    assert_eq!(line(&[]), "");
    assert_eq!(line(&["-c"]), "", "nothing to connect to is noticed first");
    assert_eq!(line(&["-c", "/s", "x"]), "too many arguments");
    assert_eq!(line(&["-c", "--netns-type=pid", "/s"]), "--configure conflicts with --target-type=bess");
    assert_eq!(
        line(&["--userns-path=/there", "--netns-type=pid", "/s"]),
        "--netns-type conflicts with --target-type=bess"
    );
    assert_eq!(line(&["--userns-path=/there", "/s"]), "--userns-path conflicts with --target-type=bess");
    for word in ["x", "", "NETNS"] {
        assert_eq!(
            usage_of(&["--target-type", word, "-c", "1", "tap0"]),
            "--target-type must be either \"netns\" or \"bess\""
        );
    }
    assert!(good(&["--target-type=netns", "1", "tap0"]).host_loopback);
}

#[test]
fn tiny_mtus_are_accepted_but_not_believed() {
    let config = good(&["-m1", "1", "tap0"]);
    assert_eq!((config.link_mtu, config.mtu), (1, Mtu::MIN));
    assert_eq!(good(&["-m65521", "1", "tap0"]).mtu.bytes(), 65521);
}

proptest! {
    /// Whatever is typed, there is an answer, and what is accepted is coherent.
    #[test]
    fn no_line_breaks_it(line in prop::collection::vec("(-[a-z0-9]{1,3}|--(cidr|mtu|macaddress|outbound-addr|netns-type|target-type)(=[0-9a-f./:]{0,20})?|[0-9a-z./]{0,12})", 0..7)) {
        let words: Vec<&str> = line.iter().map(String::as_str).collect();
        if let (_, Ok(config)) = run(&words) {
            prop_assert!(config.v4.network.contains(&config.v4.guest));
            prop_assert_eq!(config.v4.network.network(), config.v4.network.addr());
            prop_assert!(config.mtu >= Mtu::MIN);
        }
    }

    #[test]
    fn good_networks_are_accepted(bits: u32, prefix in 1_u8..=25) {
        let network = Ipv4Net::new(Ipv4Addr::from_bits(bits), prefix).unwrap().trunc();
        let config = good(&["--cidr", &network.to_string(), "1", "tap0"]);
        prop_assert_eq!(config.v4.network, network);
        for address in [config.v4.gateway, config.v4.guest, config.v4.dns.unwrap()] {
            prop_assert!(network.contains(&address));
        }
    }
}
