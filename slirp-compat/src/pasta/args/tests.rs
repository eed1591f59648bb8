use super::*;
use crate::flags::usage;

const PASSTS: [Mode; 2] = [Mode::Passt { vhost_user: false }, Mode::Passt { vhost_user: true }];

fn run(mode: Mode, line: &[&str]) -> (Vec<String>, Result<LowArgs, Stop>) {
    let args: Vec<_> = line.iter().map(OsString::from).collect();
    let mut notices = Vec::new();
    let result = parse(mode, mode.name(), &args, &mut notices);
    (notices, result)
}

fn good(line: &[&str]) -> LowArgs {
    run(Mode::Pasta, line).1.unwrap_or_else(|stop| panic!("{line:?}: {stop:?}"))
}

/// The lines of a refusal without usage text.
fn refusal(mode: Mode, line: &[&str]) -> String {
    match run(mode, line).1 {
        Err(Stop::Value(text)) => text,
        other => panic!("{line:?}: {other:?}"),
    }
}

/// What stock pasta of 2026-10-02 says to values that are none.
#[test]
fn bad_values_are_refused_in_the_words_that_are_known() {
    let long = "x".repeat(300);
    let cases: &[(&[&str], &str)] = &[
        (&["--mtu=99999"], "MTU 99999 too large (max 65521)"),
        (&["--mtu=65522"], "MTU 65522 too large (max 65521)"),
        (&["--mtu=x"], "Invalid MTU: x"),
        (&["--mtu="], "Invalid MTU: "),
        (&["--mtu=1500x"], "Invalid MTU: 1500x"),
        (&["--mtu=-1"], "MTU 18446744073709551615 too large (max 65521)"),
        (&["-a", "127.0.0.1"], "Invalid guest address: 127.0.0.1"),
        (&["-a", "127.0.0.1/8"], "Invalid guest address: 127.0.0.1/8"),
        (&["-a", "224.0.0.1"], "Invalid guest address: 224.0.0.1"),
        (&["-a", "255.255.255.255"], "Invalid guest address: 255.255.255.255"),
        (&["-a", "::"], "Invalid guest address: ::"),
        (&["-a", "ff02::1"], "Invalid guest address: ff02::1"),
        (&["-a", "x"], "Invalid guest address: x"),
        (&["-a", "1.2.3.4/x"], "Invalid guest address: 1.2.3.4/x"),
        (&["-a", "1.2.3.4/33"], "Invalid prefix length: 1.2.3.4/33"),
        (&["-a", "fd00::1/129"], "Invalid prefix length: fd00::1/129"),
        (&["-a", "::ffff:1.2.3.4/64"], "Invalid prefix length: ::ffff:1.2.3.4/64"),
        (&["-a", "1.2.3.4/24", "-n", "24"], "Redundant prefix length specification"),
        (&["-n", "24", "-a", "1.2.3.4/24"], "Redundant prefix length specification"),
        (&["-a", "fd00::1/64", "-n", "24"], "Redundant prefix length specification"),
        (&["-a", "10.0.0.1/0", "-n", "24"], "Redundant prefix length specification"),
        (&["-n", "33"], "Invalid prefix length: 33"),
        (&["-n", "x"], "Invalid prefix length: x"),
        (&["-n", "255.0.255.0"], "Invalid prefix length: 255.0.255.0"),
        (&["-M", "x"], "Invalid MAC address: x"),
        (&["--ns-mac-addr", "x"], "Invalid MAC address: x"),
        (&["-g", "x"], "Invalid gateway address: x"),
        (&["-g", "127.0.0.1"], "Invalid gateway address: 127.0.0.1"),
        (&["-g", "0.0.0.0"], "Invalid gateway address: 0.0.0.0"),
        (&["-g", "fe80::1%lo"], "Invalid gateway address: fe80::1%lo"),
        (&["-g", "::1"], "Invalid gateway address: ::1"),
        (&["-o", "x"], "Invalid or redundant outbound address: x"),
        (&["-o", "0.0.0.0"], "Invalid or redundant outbound address: 0.0.0.0"),
        (&["-o", "::1"], "Invalid or redundant outbound address: ::1"),
        (&["-o", "eth0"], "Invalid or redundant outbound address: eth0"),
        (&["--outbound-if4", "aaaaaaaaaaaaaaaa"], "Invalid interface name: aaaaaaaaaaaaaaaa"),
        (&["--outbound-if6", ""], "Invalid interface name: "),
        (&["-I", "aaaaaaaaaaaaaaaa"], "Invalid interface name: aaaaaaaaaaaaaaaa"),
        (&["-I", ""], "Invalid interface name: "),
        (&["-D", "x"], "Cannot use DNS address x"),
        (&["-D", ""], "Cannot use DNS address "),
        (&["-D", "1.1.1.1,2.2.2.2"], "Cannot use DNS address 1.1.1.1,2.2.2.2"),
        (&["-S", ""], "Cannot use DNS search domain "),
        (&["--dns-forward", "127.0.0.1"], "Invalid DNS forwarding address: 127.0.0.1"),
        (&["--dns-forward", "none"], "Invalid DNS forwarding address: none"),
        (&["--dns-forward", "::1"], "Invalid DNS forwarding address: ::1"),
        (&["--dns-host", "0.0.0.0"], "Invalid host nameserver address: 0.0.0.0"),
        (&["--dns-host", "none"], "Invalid host nameserver address: none"),
        (&["--map-host-loopback", "127.0.0.1"], "Invalid address to remap to host: 127.0.0.1"),
        (&["--map-host-loopback", ""], "Invalid address to remap to host: "),
        (&["--map-guest-addr", "x"], "Invalid address to remap to host: x"),
        (&["--map-guest-addr", "224.0.0.1"], "Invalid address to remap to host: 224.0.0.1"),
        (&["-H", &long], &format!("Invalid hostname: {long}")),
        (&["--fqdn", &long], &format!("Invalid FQDN: {long}")),
        (&["-P", ""], "Invalid PID file: "),
        (&["-p", ""], "Invalid pcap path: "),
        (&["-c", ""], "Invalid configuration path: "),
        (&["-c", &long], &format!("Invalid configuration path: {long}")),
        (&["--control", &long], &format!("Invalid control path: {long}")),
        (&["--userns", ""], "Invalid userns: "),
        (&["-F", "x"], "Invalid --fd: x"),
        (&["-F", "-1"], "Invalid --fd: -1"),
        (&["--fd="], "Invalid --fd: "),
        (&["-F", "2147483648"], "Invalid --fd: 2147483648"),
        (&["--log-size", "40959"], "Invalid --log-size: 40959"),
        (&["--log-size", "x"], "Invalid --log-size: x"),
        (&["--stats", "1"], "Can't display statistics if not running in foreground"),
        (&["--stats", "1", "-f"], "Can't display statistics if not running in foreground"),
        (&["-f", "--stats", "x"], "Invalid --stats: x"),
    ];
    for (line, words) in cases {
        assert_eq!(refusal(Mode::Pasta, line), *words, "{line:?}");
    }
    assert_eq!(refusal(PASSTS[0], &["-s", ""]), "Invalid socket path: ");
}

#[test]
fn options_of_the_other_name_are_refused() {
    let pasta: &[&[&str]] = &[
        &["-I", "x"],
        &["--netns", "x"],
        &["--userns", "x"],
        &["--netns-only"],
        &["--config-net"],
        &["--no-copy-routes"],
        &["--no-copy-addrs"],
        &["--ns-mac-addr", "x"],
        &["-T", "1"],
        &["-U", "1"],
        &["--host-lo-to-ns-lo"],
        &["--splice-only"],
        &["--no-netns-quit"],
        &["--no-pidns"],
        &["--dhcp-dns"],
        &["--dhcp-search"],
    ];
    for line in pasta {
        let words = format!("{} is for pasta mode only", line[0]);
        assert!(PASSTS.iter().all(|mode| refusal(*mode, line) == words), "{line:?}");
        assert_ne!(run(Mode::Pasta, line).1, Err(Stop::Value(words)));
    }
    for (typed, named) in [("--ns-ifname=x", "-I"), ("--tcp-ns=1", "-T"), ("--udp-ns=1", "-U")] {
        assert_eq!(refusal(PASSTS[0], &[typed]), format!("{named} is for pasta mode only"));
    }
    let passt: &[(&[&str], &str)] = &[
        (&["-s", "x"], "-s is for passt / vhost-user mode only"),
        (&["--socket", "x"], "-s is for passt / vhost-user mode only"),
        (&["--socket-path", "x"], "-s is for passt / vhost-user mode only"),
        (&["-1"], "--one-off is for passt mode only"),
        (&["--one-off"], "--one-off is for passt mode only"),
        (&["--no-dhcp-dns"], "--no-dhcp-dns is for passt mode only"),
        (&["--no-dhcp-search"], "--no-dhcp-search is for passt mode only"),
    ];
    for (line, words) in passt {
        assert_eq!(refusal(Mode::Pasta, line), *words);
        assert!(PASSTS.iter().all(|mode| run(*mode, line).1.is_ok()), "{line:?}");
    }
    for option in ["--repair-path=x", "--migrate-exit", "--migrate-no-linger"] {
        let words = format!("{} is for vhost-user mode only", option.trim_end_matches("=x"));
        assert_eq!(refusal(Mode::Pasta, &[option]), words);
        assert_eq!(refusal(PASSTS[0], &[option]), words);
        assert!(run(PASSTS[1], &[option]).1.is_ok());
    }
    assert!(run(PASSTS[0], &["--repair-path", "none", "--no-splice"]).1.is_ok());
}

#[test]
fn what_cannot_be_understood_is_answered_as_by_glibc() {
    let cases = [
        (&["--bogus"][..], "unrecognized option '--bogus'"),
        (&["--map-guest-addrs", "1.1.1.1"], "unrecognized option '--map-guest-addrs'"),
        (&["-Z"], "invalid option -- 'Z'"),
        (&["--mtu"], "option '--mtu' requires an argument"),
        (&["-m"], "option requires an argument -- 'm'"),
        (&["--config-net=1"], "option '--config-net' doesn't allow an argument"),
        (&["--b=1"], "unrecognized option '--b=1'"),
        (
            &["--no-d"],
            "option '--no-d' is ambiguous; possibilities: '--no-dhcp' '--no-dhcpv6' '--no-dhcp-dns' \
             '--no-dhcp-search'",
        ),
        (
            &["--d=1"],
            "option '--d=1' is ambiguous; possibilities: '--debug' '--dns' '--dhcp-dns' '--dhcp-search' \
             '--dns-forward' '--dns-host'",
        ),
        (
            &["--m=1"],
            "option '--m=1' is ambiguous; possibilities: '--mtu' '--mac-addr' '--map-host-loopback' \
             '--map-guest-addr' '--migrate-exit' '--migrate-no-linger'",
        ),
        (
            &["--s=1"],
            "option '--s=1' is ambiguous; possibilities: '--socket' '--stderr' '--search' '--splice-only' \
             '--socket-path' '--stats'",
        ),
        (
            &["--n=1"],
            "option '--n=1' is ambiguous; possibilities: '--ns-ifname' '--netmask' '--no-tcp' '--no-udp' \
             '--no-icmp' '--no-dhcp' '--no-dhcpv6' '--no-ndp' '--no-ra' '--no-splice' '--no-map-gw' '--netns' \
             '--ns-mac-addr' '--no-dhcp-dns' '--no-dhcp-search' '--no-netns-quit' '--no-copy-routes' \
             '--no-copy-addrs' '--netns-only' '--no-pidns'",
        ),
    ];
    let sorted = |text: &str| {
        let mut words: Vec<_> = text.split(' ').map(str::to_owned).collect();
        words.sort();
        words
    };
    for (line, words) in cases {
        let Err(Stop::Usage(text)) = run(Mode::Pasta, line).1 else { panic!("{line:?}") };
        let text = text.strip_prefix("pasta: ").unwrap();
        // In which order possibilities come is nobody's business.
        assert_eq!(sorted(text), sorted(words), "{text}");
    }
}

#[test]
fn the_first_mistake_is_the_one_reported() {
    assert_eq!(run(Mode::Pasta, &["--help", "--bogus"]).1, Err(Stop::Help));
    assert_eq!(run(Mode::Pasta, &["--version", "--help"]).1, Err(Stop::Version));
    assert_eq!(run(Mode::Pasta, &["-hq"]).1, Err(Stop::Help));
    assert_eq!(run(Mode::Pasta, &["--host-lo-to-ns-lo", "--version"]).1, Err(Stop::Version));
    assert_eq!(run(Mode::Pasta, &["-t", "none", "-t", "80", "--version"]).1, Err(Stop::Version));
    assert_eq!(run(Mode::Pasta, &["-t", "rubbish", "--version"]).1, Err(Stop::Version));
    assert_eq!(run(PASSTS[1], &["--vhost-user", "--print-capabilities"]).1, Err(Stop::Capabilities));
    assert_eq!(refusal(Mode::Pasta, &["--mtu", "x", "--help"]), "Invalid MTU: x");
    assert!(matches!(run(Mode::Pasta, &["--bogus", "--help"]).1, Err(Stop::Usage(_))));
    assert!(matches!(run(PASSTS[0], &["--print-capabilities=1"]).1, Err(Stop::Usage(_))));
}

#[test]
fn options_end_where_the_command_begins() {
    let low = good(&["-f", "ls", "-l", "--mtu", "x"]);
    assert_eq!(low.positionals, ["ls", "-l", "--mtu", "x"]);
    assert!(low.switches.has(Key::Foreground) && low.mtu.is_none());
    assert_eq!(good(&["--", "--mtu"]).positionals, ["--mtu"]);
}

#[test]
fn warnings_are_kept_apart() {
    let (notices, low) = run(Mode::Pasta, &["-e", "--no-copy-routes", "--config-net", "--no-copy-addrs"]);
    assert!(low.is_ok());
    let words = [
        "--stderr will be dropped soon",
        "--no-copy-routes will be dropped soon",
        "--no-copy-addrs will be dropped soon",
    ];
    assert_eq!(notices, words);
}

#[test]
fn the_last_one_counts_and_lists_add_up() {
    let low =
        good(&["-a", "1.2.3.4/20", "-a", "1.2.3.5", "-g", "1.2.3.1", "-g", "1.2.3.2", "-m1", "-m0x500"]);
    assert_eq!((low.address.v4, low.prefix), (Some(Ipv4Addr::new(1, 2, 3, 5)), None));
    assert_eq!((low.gateway.v4, low.mtu), (Some(Ipv4Addr::new(1, 2, 3, 2)), Some(1280)));
    let low = good(&["-a", "::ffff:1.2.3.4/120", "-a", "fd00::1/48", "-4", "-6"]);
    assert_eq!((low.prefix, low.only), (Some(24), Some(true)));
    assert!(low.address.v4.is_some() && low.address.v6.is_some());
    for (line, verbosity) in [
        (&["-q", "-d"][..], Verbosity::Debug),
        (&["-d", "-q"], Verbosity::Quiet),
        (&["--trace", "-d"], Verbosity::Trace),
        (&[], Verbosity::Normal),
    ] {
        assert_eq!(good(line).verbosity, verbosity);
    }
    let one = |text: &str| Told::These(vec![text.parse::<IpAddr>().unwrap()]);
    assert_eq!(good(&["-D", "1.1.1.1", "-D", "none"]).dns, Told::Nothing);
    assert_eq!(good(&["-D", "none", "-D", "1.1.1.1"]).dns, one("1.1.1.1"));
    assert!(
        matches!(good(&["-D", "1.1.1.1", "-D", "::1", "-D", "1.1.1.1"]).dns, Told::These(list) if list.len() == 3)
    );
    let search = good(&["-S", "none", "-S", "a b", "--search", "c"]).search;
    assert_eq!(search, Told::These(vec!["a b".to_owned(), "c".to_owned()]));
    let low = good(&["-t", "80", "-U", "auto", "--udp-ports=53", "-t81", "--tcp-ns", "none"]);
    let ports = [('t', "80"), ('U', "auto"), ('u', "53"), ('t', "81"), ('T', "none")];
    assert_eq!(low.ports, ports.map(|(letter, spec)| (letter, spec.to_owned())));
}

#[test]
fn who_unmaps_the_gateway_may_still_map() {
    let one = Some(Ipv4Addr::new(1, 1, 1, 1));
    for (line, mapped, gateway) in [
        (&["--map-host-loopback", "1.1.1.1"][..], one, true),
        (&["--map-host-loopback", "1.1.1.1", "--map-host-loopback", "none"], None, false),
        (&["--map-host-loopback", "none", "--map-host-loopback", "1.1.1.1"], one, false),
        (&["--no-map-gw", "--map-host-loopback", "1.1.1.1"], one, false),
        (&[], None, true),
    ] {
        let low = good(line);
        assert_eq!((low.map_host_loopback.v4, low.no_map_gw), (mapped, !gateway), "{line:?}");
    }
    assert_eq!(good(&["--map-guest-addr", "1.1.1.1", "--map-guest-addr", "none"]).map_guest, Pair::default());
}

#[test]
fn a_link_is_a_descriptor_or_a_socket() {
    let low = |line| run(PASSTS[0], line).1.unwrap();
    let fd = low(&["-s", "/s", "-F", "0x5"]);
    assert_eq!((fd.fd, fd.socket, fd.switches.has(Key::OneOff)), (Some(5), None, true));
    let socket = low(&["-F", "5", "--socket", "/s"]);
    assert_eq!((socket.fd, socket.socket), (None, Some("/s".into())));
}

#[test]
fn every_option_is_known_by_one_name_and_letter() {
    let mut letters: Vec<_> = FLAGS.iter().filter_map(|flag| flag.short).collect();
    letters.sort_unstable();
    let all = "146DFHIMPSTUacdefghilmnopqstu";
    assert_eq!(String::from_utf8(letters).unwrap(), all);
    for flag in FLAGS {
        assert_eq!(FLAGS.iter().filter(|other| other.long == flag.long).count(), 1, "{}", flag.long);
        assert!(!usage::line(flag).contains("..\n"), "{}", flag.long);
        // The bits of Switches.
        assert!((flag.key as u32) < u128::BITS);
    }
}
