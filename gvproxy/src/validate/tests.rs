use super::*;
use slipway_netstack::addr::MacAddr;
use std::collections::HashSet;
use std::ffi::OsString;

/// A machine with these paths.
#[derive(Debug, Default)]
struct Machine(HashSet<PathBuf>);

impl Machine {
    fn with(paths: &[&str]) -> Self {
        Self(paths.iter().map(PathBuf::from).collect())
    }
}

impl World for Machine {
    fn is_there(&self, path: &Path) -> bool {
        self.0.contains(path)
    }

    fn stat(&self, path: &Path) -> io::Result<()> {
        if self.is_there(path) { Ok(()) } else { Err(nix::errno::Errno::ENOENT.into()) }
    }

    fn search_domains(&self) -> Vec<String> {
        vec!["example.org".into()]
    }
}

fn typed(words: &str) -> Args {
    Args::parse(&words.split_whitespace().map(OsString::from).collect::<Vec<_>>()).unwrap()
}

fn written(text: &str) -> Document {
    crate::yaml::parse(text.as_bytes()).unwrap()
}

fn checked(words: &str) -> Result<Config, Failure> {
    config(&typed(words), None, &Machine::with(&["/key", "/taken"]))
}

fn with_file(words: &str, text: &str) -> Result<Config, Failure> {
    config(&typed(words), Some(&written(text)), &Machine::with(&["/key", "/taken"]))
}

fn refused(words: &str) -> String {
    match checked(words) {
        Err(Failure::Fatal(said)) => said,
        other => panic!("{words}: {other:?}"),
    }
}

#[test]
fn what_holds_without_a_word() {
    let config = checked("").unwrap();
    let stack = config.stack;
    assert_eq!((stack.mtu, stack.subnet.to_string().as_str()), (1500, "192.168.127.0/24"));
    let [gateway, device, host] = [1, 2, 254].map(|last| Ipv4Addr::new(192, 168, 127, last));
    assert_eq!((stack.gateway_ip, stack.device_ip, stack.host_ip), (gateway, device, host));
    assert_eq!(stack.gateway_mac.to_string(), "5a:94:ef:e4:0c:dd");
    assert_eq!(stack.forwards, [("127.0.0.1:2222".to_owned(), "192.168.127.2:22".to_owned())]);
    assert_eq!(stack.static_leases, [(device, DEVICE_MAC)]);
    assert_eq!((stack.nat, stack.virtual_ips), (vec![(host, Ipv4Addr::LOCALHOST)], vec![host]));
    assert_eq!(stack.search, ["example.org"]);
    assert_eq!(stack.dns.len(), 2);
    assert_eq!((stack.tcp_max_in_flight, stack.tcp_connect_timeout), (128, Duration::from_secs(30)));
    assert!(!stack.ec2_metadata && !config.stay && config.log_level == LevelFilter::Info);
}

#[test]
fn a_file_starts_empty() {
    let config = with_file("-ssh-port 3000 -pcap /p", "{}").unwrap();
    let stack = &config.stack;
    assert!(stack.dns.is_empty() && stack.search.is_empty() && stack.forwards.is_empty());
    assert!(stack.static_leases.is_empty() && stack.vpnkit_macs.is_empty() && stack.capture_file.is_none());
    assert_eq!(stack.nat.len(), 1, "what makes the network a network is there all the same");
}

#[test]
fn who_counts_more() {
    let file = "listen: [unix:///file]\nservices: f\nlog-level: error\npid-file: /f\nec2-metadata-access: true\nnotification: /f\n\
                stack: {mtu: 4000, subnet: 10.0.0.0/24, gatewayIP: 10.0.0.9, dhcpStaticLeases: {10.0.0.2: 5A:94:EF:E4:0C:EE}}\n\
                interfaces: {qemu: 'unix:///f'}\nforwards: [{socket: /f, identity: /key}]\n";
    let config = with_file(
        "-listen unix:///typed -services t -mtu 9000 -pid-file /t -subnet 10.1.0.0/24 -hostIP 10.0.0.8 -listen-qemu unix:///t \
         -forward-sock /t -forward-dest d -forward-user u -forward-identity /key -debug",
        file,
    )
    .unwrap();
    assert_eq!(config.listen, ["unix:///typed"]);
    assert_eq!(config.services.as_deref(), Some("t"));
    assert_eq!((config.stack.mtu, config.log_level), (9000, LevelFilter::Debug));
    assert_eq!(config.pid_file.as_deref(), Some(Path::new("/t")));
    assert_eq!(config.interfaces.qemu.as_deref(), Some("unix:///t"));
    let sockets: Vec<_> = config.forwards.iter().map(|forward| forward.socket.as_str()).collect();
    assert_eq!(sockets, ["/f", "/t"]);
    assert_eq!(config.stack.subnet.to_string(), "10.0.0.0/24", "the file");
    assert_eq!(config.stack.gateway_ip, Ipv4Addr::new(10, 0, 0, 9));
    assert_eq!(config.stack.host_ip, Ipv4Addr::new(10, 0, 0, 8), "the file does not say");
    assert_eq!(
        config.stack.static_leases,
        [(Ipv4Addr::new(10, 0, 0, 2), MacAddr([0x5a, 0x94, 0xef, 0xe4, 0xc, 0xee]))]
    );
    assert!(config.stack.ec2_metadata);
    assert_eq!(config.notification.as_deref(), Some(Path::new("/f")));
}

#[test]
fn every_way_to_the_metadata_address_opens_it() {
    assert!(checked("-ec2-metadata-access").unwrap().stack.ec2_metadata);
    assert!(with_file("-ec2-metadata-access", "{}").unwrap().stack.ec2_metadata);
    assert!(with_file("", "stack: {ec2MetadataAccess: true}").unwrap().stack.ec2_metadata);
    assert!(!with_file("-ec2-metadata-access=false", "stack: {}").unwrap().stack.ec2_metadata);
}

#[test]
fn complaints_have_the_words_of_the_contract() {
    let ips = "failed to validate configuration IPs: ";
    let together = "--forward-sock, --forward-dest, --forward-user, and --forward-identity must all be specified \
                    together, the same number of times, or not at all";
    let identity = "-forward-sock s -forward-dest d -forward-user u -forward-identity /no";
    let cases = [
        ("-subnet x", "failed to parse subnet: invalid CIDR address: x".to_owned()),
        (
            "-subnet 10.0.0.0/30",
            "failed to identify usable gateway IP address in subnet: subnet too small".to_owned(),
        ),
        (
            "-subnet 10.0.0.0/30 -gatewayIP 10.0.0.1",
            "failed to identify usable device IP address in subnet: subnet too small".to_owned(),
        ),
        ("-gatewayIP x", format!("{ips}invalid IP address: x")),
        ("-gatewayIP 10.0.0.1", format!("{ips}IP (10.0.0.1) not in subnet (192.168.127.0/24)")),
        ("-hostIP 192.168.127.0", format!("{ips}IP must not be address of subnet: 192.168.127.0")),
        ("-subnet 10.0.0.5/24 -hostIP 10.0.0.5", format!("{ips}IP must not be address of subnet: 10.0.0.5")),
        ("-deviceIP 192.168.127.255", format!("{ips}IP must not be broadcast address: 192.168.127.255")),
        ("-deviceIP 192.168.127.1", format!("{ips}IP addresses need to be distinct")),
        (
            "-notification :x",
            "invalid value for notification listen address: parse \":x\": missing protocol scheme".to_owned(),
        ),
        ("-notification tcp://:1", "notification listen address must be unix:// address".to_owned()),
        ("-listen-qemu 1:x", "invalid value for qemu listen address: parse \"1:x\": first path segment in URL cannot contain colon".to_owned()),
        ("-listen-qemu unix:///taken", "\"/taken\" already exists".to_owned()),
        ("-listen-bess unix:///b", "bess listen address must be unixpacket:// address".to_owned()),
        ("-listen-bess unixpacket:///taken", "\"/taken\" already exists".to_owned()),
        ("-listen-vfkit unix:///b", "vfkit listen address must be unixgram:// address".to_owned()),
        ("-listen-fd unixgram:///b", "fd listen address must be unix:// address".to_owned()),
        ("-listen-fd unix:///taken", "\"/taken\" already exists".to_owned()),
        ("-listen-vfkit unixgram:///taken", "\"/taken\" already exists".to_owned()),
        (
            "-listen-qemu unix:///q -listen-vpnkit unix:///v",
            "cannot use qemu and vpnkit protocol at the same time".to_owned(),
        ),
        (
            "-listen-bess unixpacket:///q -listen-vpnkit unix:///v",
            "cannot use bess and vpnkit protocol at the same time".to_owned(),
        ),
        (
            "-listen-bess unixpacket:///q -listen-qemu unix:///v",
            "cannot use qemu and bess protocol at the same time".to_owned(),
        ),
        ("-ssh-port 1023", "ssh-port value must be between 1024 and 65535".to_owned()),
        ("-ssh-port 0", "ssh-port value must be between 1024 and 65535".to_owned()),
        ("-forward-sock s", together.to_owned()),
        (identity, "identity file \"/no\" can't be loaded: stat /no: no such file or directory".to_owned()),
        // The first one is said.
        ("-ssh-port 1 -subnet x", "failed to parse subnet: invalid CIDR address: x".to_owned()),
    ];
    for (words, complaint) in cases {
        assert_eq!(refused(words), complaint, "{words}");
    }
}

#[test]
fn what_goes_together_does() {
    for words in [
        "-listen-qemu unix:///q -listen-vfkit unixgram:///v -listen-stdio accept",
        "-ssh-port -1",
        "-ssh-port=65535",
        "-listen-qemu tcp://127.0.0.1:1234",
        // What is no scheme of ours is found out when it is to be listened at.
        "-listen-qemu npipe:////./pipe/x",
    ] {
        checked(words).unwrap();
    }
    assert!(checked("-ssh-port -1").unwrap().stack.forwards.is_empty());
    // Beside a file nobody looks at it.
    assert!(with_file("-ssh-port 1", "{}").is_ok());
}

#[test]
fn an_mtu_that_nobody_has_is_found_out_late() {
    for words in ["-mtu 65536", "-mtu -1", "-mtu 67"] {
        assert_eq!(
            checked(words),
            Err(Failure::Late("gvproxy exiting: mtu is out of range".into())),
            "{words}"
        );
    }
    assert_eq!(checked("-mtu 65535").unwrap().stack.mtu, 65535);
    assert_eq!(with_file("", "stack: {mtu: 0}").unwrap().stack.mtu, 1500);
}

#[test]
fn values_of_the_file_that_make_no_sense_are_refused_by_their_key() {
    let cases = [
        ("stack: {nat: {x: 127.0.0.1}}", "nat: invalid IP address: x"),
        ("stack: {gatewayVirtualIPs: ['fd00::1']}", "gatewayVirtualIPs: invalid IP address: fd00::1"),
        ("stack: {dhcpStaticLeases: {10.0.0.1: x}}", "dhcpStaticLeases: address x: invalid MAC address"),
        ("stack: {gatewayMacAddress: 1}", "gatewayMacAddress: address 1: invalid MAC address"),
        ("stack: {dns: [{name: a., defaultIP: x}]}", "dns: invalid IP address: x"),
        ("stack: {tcpMaxInFlight: -1}", "tcpMaxInFlight: -1"),
        ("stack: {tcpConnectTimeout: soon}", "tcpConnectTimeout: time: invalid duration \"soon\""),
    ];
    for (text, complaint) in cases {
        let said = format!("failed to parse configuration: {complaint}");
        assert_eq!(with_file("", text), Err(Failure::Fatal(said)), "{text}");
    }
    let Err(Failure::Fatal(said)) = with_file("", "stack: {dns: [{name: a., records: [{regexp: '('}]}]}")
    else {
        panic!("an expression that is none")
    };
    assert!(said.starts_with("failed to parse configuration: dns: zone \"a.\""), "{said}");
    let said = with_file("", "stack: {subnet: 'fd00::/64'}").unwrap_err();
    assert!(
        matches!(said, Failure::Fatal(said) if said.starts_with("failed to parse subnet: fd00::/64 is not IPv4"))
    );
}

#[test]
fn the_journal_is_known_before_anything_is_checked() {
    let journal = |words, text: &str| Journal::new(&typed(words), Some(&written(text)));
    assert_eq!(journal("", "log-level: WARNING").level, LevelFilter::Warn);
    assert_eq!(journal("-debug", "log-level: error").level, LevelFilter::Debug);
    assert_eq!(journal("-log-file /t", "log-file: /f").file.unwrap(), Path::new("/t"));
    assert_eq!(journal("", "log-file: /f").file.unwrap(), Path::new("/f"));
    let odd = journal("", "log-level: loud");
    assert_eq!((odd.level, odd.unknown.as_deref()), (LevelFilter::Info, Some("loud")));
}

/// The file of docs/fronts.md.
#[test]
fn the_network_of_lima_can_be_had() {
    let page = include_str!("../../../docs/fronts.md");
    let (_, rest) = page.split_once("```yaml\n").unwrap();
    let config = with_file("", rest.split_once("```").unwrap().0).unwrap();
    let gateway = Ipv4Addr::new(192, 168, 104, 2);
    assert_eq!((config.stack.gateway_ip, config.stack.nat), (gateway, vec![(gateway, Ipv4Addr::LOCALHOST)]));
    assert!(config.stay && config.stack.static_leases.len() == 1);
    assert_eq!(config.interfaces.fd.as_deref(), Some("unix:///path/fd.sock"));
}
