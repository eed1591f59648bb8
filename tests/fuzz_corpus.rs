//! Replays the fuzz corpora: `fuzz/corpus/TARGET/*`, seeds and what the fuzzer once broke (`regress-*`).
//!
//! `cargo test -p slipway-tests --test fuzz_corpus -- --ignored write_seeds` writes the seeds anew.

use core::net::{Ipv4Addr, SocketAddr};
use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use testkit::fuzz::TARGETS;
use testkit::packet::{Arp, ETHERTYPE_ARP, Icmp, Options, Tcp, Udp, ethernet, ethernet_of, flag};
use testkit::rng::Rng;
use testkit::world::{DNS4, DNS6, ENGINE_MAC, GATEWAY4, GATEWAY6, GUEST_MAC, GUEST4, GUEST6};

fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target)
}

#[test]
fn corpora_replay() {
    let mut failed = Vec::new();
    for target in TARGETS {
        let files =
            fs::read_dir(corpus(target.name)).unwrap_or_else(|e| panic!("corpus of {}: {e}", target.name));
        let mut count = 0;
        for file in files {
            let path = file.unwrap().path();
            let data = fs::read(&path).unwrap();
            if catch_unwind(|| (target.body)(&data)).is_err() {
                failed.push(path);
            }
            count += 1;
        }
        assert!(count > 0, "no corpus of {}", target.name);
    }
    assert!(failed.is_empty(), "these inputs break their promise: {failed:#?}");
}

#[test]
fn every_target_has_a_binary() {
    let targets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/fuzz_targets");
    let mut found: Vec<String> = fs::read_dir(targets)
        .unwrap()
        .map(|file| file.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    found.sort();
    assert_eq!(found, TARGETS.map(|target| target.name));
}

#[test]
fn random_bytes_are_survived() {
    let mut rng = Rng::new(2026);
    for target in TARGETS {
        for len in [0, 1, 2, 15, 64, 400, 2000] {
            let data: Vec<u8> = (0..len).map(|_| rng.next().to_le_bytes()[0]).collect();
            (target.body)(&data);
        }
    }
}

#[test]
#[ignore = "writes the seeds of fuzz/corpus"]
fn write_seeds() {
    for target in TARGETS {
        for (name, data) in seeds(target.name) {
            fs::create_dir_all(corpus(target.name)).unwrap();
            fs::write(corpus(target.name).join(format!("seed-{name}")), data).unwrap();
        }
    }
}

fn seeds(target: &str) -> Vec<(String, Vec<u8>)> {
    let named = |list: Vec<(&str, Vec<u8>)>| list.into_iter().map(|(n, d)| (n.to_owned(), d)).collect();
    match target {
        "frame" => {
            let frames = frames().into_iter().map(|(name, frames)| (name, with_header(&frames)));
            named(frames.chain(checksums_left()).collect())
        }
        "vnet" => named(vec![
            ("tcp4-train", vec![1, 1, 66, 0, 180, 5, 34, 0, 16, 0, 0, 64, 0]),
            ("udp-train", vec![1, 5, 42, 0, 180, 5, 34, 0, 6, 0, 0, 64, 0]),
            ("verified", vec![2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 100, 0, 3]),
        ]),
        // A header as above, the link's abilities (16: IPv6, 32: TCP for the train made of it), bytes.
        "frame_finish" => named(vec![
            ("tcp4-plain", [&[1, 1, 200, 5, 160, 15, 34, 0, 16, 0, 32][..], &[7; 40]].concat()),
            ("tcp6-sums", [&[1, 4, 200, 5, 160, 15, 54, 0, 16, 0, 49][..], &[7; 40]].concat()),
            ("udp-plain", [&[0, 5, 100, 0, 232, 3, 34, 0, 6, 0, 0][..], &[7; 40]].concat()),
            ("all", [&[1, 1, 8, 0, 232, 3, 34, 0, 16, 0, 47][..], &[7; 40]].concat()),
        ]),
        // A byte of port, one of length, a frame.
        "switch_frames" => {
            let frame = |port: u8, to: [u8; 6], from: u8| {
                [&[port, 14][..], &to, &[2, 0, 0, 0, 0, from, 8, 0]].concat()
            };
            let station = |number| [2, 0, 0, 0, 0, number];
            named(vec![
                ("talk", [frame(1, [0xff; 6], 5), frame(2, station(5), 6), frame(1, station(6), 5)].concat()),
                ("forged", [frame(1, station(1), 5), frame(2, station(1), 5), frame(2, [0xff; 6], 1)].concat()),
                ("gone", [frame(1, [0xff; 6], 5), vec![1, 0], frame(2, [0xff; 6], 5), frame(1, station(5), 7)].concat()),
                ("strange", [&[1, 13][..], &[2; 13], &frame(1, [0; 6], 5), &frame(1, [1, 0x80, 0xc2, 0, 0, 0], 5)].concat()),
            ])
        }
        // The size of pieces, a greeting, a request, a frame.
        "vpnkit_handshake" => {
            let whole = [&[3; 49][..], b"\x01c3d68012-0208-11ea-9fd7-f2189899ab08", &[0; 4], &[14, 0]].concat();
            named(vec![
                ("whole", [&[255][..], &whole].concat()),
                ("pieces", [&[7][..], &whole].concat()),
                ("begun", [&[50][..], &whole[..60]].concat()),
            ])
        }
        // Framing and pieces, frames behind their lengths.
        "frame_stream" => named(vec![
            ("be32", [&[0x20, 0, 0, 0, 20][..], &[1; 20], &[0, 0, 0, 0], &[0, 0, 0, 14], &[2; 14]].concat()),
            ("le16", [&[0x13, 20, 0][..], &[1; 20], &[0, 0, 14, 0], &[2; 14], &[60, 0, 1]].concat()),
            ("too-long", [&[0, 0, 0, 0, 14][..], &[1; 14], &[0, 2, 0, 1], &[9; 14]].concat()),
        ]),
        // Whether it begins behind the marker, and pieces; frames behind their lengths.
        "fast_link" => {
            let train = [&[0, 0, 0, 76][..], &[1, 1, 54, 0, 8, 0, 34, 0, 16, 0], &[3; 66]].concat();
            let marker = [&[60, 0, 1, 0x80, 0xc2, 0, 0, 0x0e, 2, 0, 0, 0, 0, 9, 0x88, 0xb5][..], b"slipway-fast-link"].concat();
            let (end, slow) = ([0; 28], [&[14, 0][..], &[7; 14]].concat());
            let change = |version: u8| [&slow[..], &marker, &[version], &end, &train].concat();
            named(vec![
                ("fast", [&[0][..], &train, &[0, 0, 0, 24], &[0; 24], &[0, 0, 0, 15], &[2; 15], &train].concat()),
                ("changes", [&[1][..], &change(1), &[0, 1, 0, 40]].concat()),
                ("version", [&[0x21][..], &change(2)].concat()),
                ("senseless", [&[6][..], &[0, 0, 0, 12, 1, 9, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1].repeat(20), &train].concat()),
            ])
        }
        "address_plan" => {
            let mut rng = Rng::new(7);
            let bytes = |len: u32, rng: &mut Rng| (0..len).map(|_| rng.next().to_le_bytes()[0]).collect::<Vec<u8>>();
            named(vec![("some", bytes(400, &mut rng)), ("many", bytes(3000, &mut rng))])
        }
        "dhcp4" => named(vec![
            ("discover", dhcp4(1, &[55, 4, 1, 3, 6, 15])),
            ("request", dhcp4(3, &[50, 4, 10, 0, 2, 15, 54, 4, 10, 0, 2, 2])),
            ("release", dhcp4(7, &[])),
            ("no-end", dhcp4(1, &[12, 200])),
        ]),
        "dhcp6" => named(vec![
            ("solicit", vec![1, 1, 2, 3, 0, 1, 0, 10, 0, 3, 0, 1, 2, 0, 0, 0, 0, 100, 0, 3, 0, 12, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]),
            ("information", vec![11, 1, 2, 3, 0, 6, 0, 4, 0, 23, 0, 24]),
            ("short", vec![3, 1, 2, 3, 0, 1, 255, 255]),
        ]),
        // Time, then an offer, a grant and a refusal: the byte says which, and how long its options are.
        "dhcp_client" => named(vec![
            ("granted", [&[0, 66][..], &[0; 66], &[67], &[0; 67], &[0, 0, 0, 0, 0]].concat()),
            ("refused", [&[0, 66][..], &[0; 66], &[67], &[0; 67], &[0, 68], &[0; 68], &[0, 66], &[0; 66], &[68]].concat()),
            ("masked", [&[0, 69, 1, 4, 255, 255, 255, 0, 3, 8, 198, 51, 100, 1, 198, 51, 100, 2][..], &[0; 53], &[70], &[0; 70]].concat()),
            ("cut", vec![0, 66, 255]),
        ]),
        // As above. Even bytes are offers, odd ones replies; 2: with an address, 4: at once. From 192 a router speaks:
        // bit 5 says that addresses are managed, bit 4 that there is more to know.
        "dhcpv6_reply" => {
            let advert = |kind: u8, options: usize| [&[0, kind], &ROUTER[6..], &[1, 1, 0, 0, 0, 0, 0, 0].repeat(options)].concat();
            let answer = |kind: u8| [&[kind, 0, 99, 0, kind - 4][..], &vec![0; usize::from(kind - 4)]].concat();
            let status = |kind: u8, code: u8| [&[kind, 0, 13, 0, kind - 4, 0, code][..], &vec![0; usize::from(kind - 6)]].concat();
            named(vec![
                ("granted", [&advert(226, 27)[..], &[0], &answer(71), &[0, 0, 0, 0, 0, 0]].concat()),
                ("offered", [&advert(226, 27)[..], &[0], &answer(66), &[0], &answer(67), &[0, 0], &answer(67), &[0]].concat()),
                ("told", [&advert(210, 25)[..], &[0, 69, 0, 23, 0, 16], &[0xfd; 16], &[0, 99, 0, 45], &[0; 45], &[0]].concat()),
                ("nothing", advert(194, 23)),
                ("refused", [&advert(226, 27)[..], &[0], &answer(66), &[0], &status(67, 4), &[0, 0]].concat()),
                ("no-router", [&[0, 0, 0, 0][..], &answer(71), &[0, 0]].concat()),
                ("cut", vec![0, 67, 255]),
            ])
        }
        "router_advert" => named(vec![
            ("whole", [&ROUTER[..], &PREFIX, &[5, 1, 0, 0, 0, 0, 5, 220, 25, 3, 0, 0, 0, 0, 7, 8], &[0xfd; 16],
                &[31, 2, 0, 0, 0, 0, 7, 8, 3, b'l', b'a', b'n', 0, 0, 0, 0]].concat()),
            ("prefixes", [&ROUTER[..], &PREFIX.repeat(12)].concat()),
            ("zero-option", [&ROUTER[..], &[3, 0, 64, 192, 0, 0, 0, 0]].concat()),
            ("cut", [&ROUTER[..], &PREFIX[..20]].concat()),
        ]),
        "ndp" => named(vec![
            ("router-solicitation", [&[0, 133, 0, 0, 0, 0, 0, 0, 0, 1, 1][..], &GUEST_MAC.0].concat()),
            ("neighbour-solicitation", [&[1, 135, 0, 0, 0, 0, 0, 0, 0][..], &GATEWAY6.octets(), &[1, 1], &GUEST_MAC.0].concat()),
            ("zero-option", [&[1, 135, 0, 0, 0, 0, 0, 0, 0][..], &GATEWAY6.octets(), &[1, 0]].concat()),
        ]),
        "slirp_json" => named(vec![
            ("add", br#"{"execute":"add_hostfwd","arguments":{"proto":"tcp","host_addr":"0.0.0.0","host_port":8080,"guest_addr":"10.0.2.100","guest_port":80}}"#.to_vec()),
            ("add-short", br#"{"execute":"add_hostfwd","arguments":{"host_port":8080,"guest_port":80}}"#.to_vec()),
            ("add-zone", br#"{"execute":"add_hostfwd","arguments":{"proto":"udp","host_addr":"fe80::1%eth0","host_port":53,"guest_port":53}}"#.to_vec()),
            ("list", br#"{"execute":"list_hostfwd"}"#.to_vec()),
            ("remove", br#"{"execute":"remove_hostfwd","arguments":{"id":1}}"#.to_vec()),
            ("cut", br#"{"execute":"remove_hostfwd","arguments":{"id":"#.to_vec()),
        ]),
        "resolv_conf" => named(vec![
            ("usual", b"# made by a tool\nnameserver 192.0.2.1\nnameserver 2001:db8::53\nsearch a.example b\noptions edns0\n".to_vec()),
            ("zones", b"nameserver fe80::1%eth0\nnameserver fe80::1\nnameserver fe80::2%3\nnameserver 2001:db8::1%eth0\nnameserver fe80::1%\n".to_vec()),
            ("odd", b"nameserver 0.0.0.0\nnameserver ::\nnameserver ::ffff:192.0.2.9\nnameserver 192.0.2.1%eth0\ndomain c d\nsearch .\n".to_vec()),
        ]),
        "uplink_request" => named(vec![
            ("join", br#"{"execute":"join","arguments":{"network":{"id":"n","name":"net","mtu":1500,"dns_enabled":true,"internal":false,"subnets":[{"subnet":"10.89.0.0/24","gateway":"10.89.0.1"},{"subnet":"fd00:1::/64","gateway":"fd00:1::1"}],"dns_servers":["198.51.100.53"]},"container":{"id":"c","name":"web","names":["www"],"addresses":["10.89.0.2","fd00:1::2"]}}}"#.to_vec()),
            ("join-short", br#"{"execute":"join","arguments":{"network":{"id":"n","name":"n","subnets":[{"subnet":"10.0.0.0/8","gateway":"10.0.0.1"}]},"container":{"id":"c","name":"c","addresses":[]}}}"#.to_vec()),
            ("publish", br#"{"execute":"publish","arguments":{"container_id":"c","ports":[{"host_ip":"::1","host_port":8080,"container_port":80,"protocol":"tcp,udp","range":3}]}}"#.to_vec()),
            ("leave", br#"{"execute":"leave","arguments":{"network_id":"n","container_id":"c"}}"#.to_vec()),
            ("status", br#"{"execute":"status"}"#.to_vec()),
            ("refused", br#"{"error":"no","errno":98}"#.to_vec()),
        ]),
        "port_rule" => named(vec![
            ("one", b"8080:80".to_vec()),
            ("addressed", b"127.0.0.1:5353:53/udp".to_vec()),
            ("six", b"[::1]:8000-8010:8000-8010/tcp".to_vec()),
            ("zone", b"[fe80::1%eth0.7]:8080:[fd00::5]:80/udp".to_vec()),
            ("zone-missing", b"[fe80::1]:8080:80".to_vec()),
        ]),
        // A byte of settings, then the text.
        "port_spec" => named(vec![
            ("podman", b"\x00::1/8080-8081:80-81".to_vec()),
            ("excepted", b"\x01*%lo/53,80-90:180-190,~85-87".to_vec()),
            ("all", b"\x000.0.0.0/~25,all:10.0.0.1".to_vec()),
            ("auto", b"\x02auto,~80".to_vec()),
            ("loopback", b"\x825,6:7".to_vec()),
            ("target", b"\x00[::]/8080:[fd00::2]/80".to_vec()),
            ("one-family", b"\x0880".to_vec()),
            ("lengths", b"\x0080-82:90-91".to_vec()),
        ]),
        "control_json" => named(vec![
            ("add", br#"{"execute":"add","arguments":{"rules":[{"option":"T","spec":"80,82-84:92-94,~83"},{"side":"host","proto":"udp","listen":"::1","interface":"lo","ports":[5000,5002],"to":6000,"target":"fd00::2","best_effort":true,"auto":true}]}}"#.to_vec()),
            ("replace", br#"{"execute":"replace","arguments":{"rules":[{"ports":8080,"to":80},{"listen":"127.0.0.1","ports":[1,9],"target":"10.0.0.2"}]}}"#.to_vec()),
            ("remove", br#"{"execute":"remove","arguments":{"ids":[1,2,18446744073709551615]}}"#.to_vec()),
            ("list", br#"{"execute":"list","arguments":{"after":7}}"#.to_vec()),
            ("unknown-key", br#"{"execute":"add","arguments":{"rules":[{"listn":"127.0.0.1","ports":80}]}}"#.to_vec()),
        ]),
        // 0: of a server, otherwise of a client in portions so large.
        "pesto_wire" => {
            let rule = |flags: u8| [&[0; 48][..], &[0, 80, 0, 82, 0, 90, 6, flags]].concat();
            let greeting = b"basil:s\0\0\0\0\x02\0\0\0\x80\0\0\0\x10";
            let head = |place: u8, count: u8| [&[place][..], b"HOST", &[0; 124], &[0, 0, 0, 63, 0, 0, 0, count]].concat();
            named(vec![
                ("server", [&[0][..], greeting, &head(1, 2), &rule(1), &rule(7), &head(3, 0), &[0]].concat()),
                ("server-many", [&[0][..], greeting, &head(1, 255), &rule(1).repeat(3)].concat()),
                ("server-huge", [&[0][..], greeting, &[1], &[65; 8], &[0; 124], &[255; 4]].concat()),
                ("client", [&[7, 1, 0, 0, 0, 2][..], &rule(1), &rule(6), &[3, 0, 0, 0, 0, 0]].concat()),
                ("client-huge", [&[1, 1][..], &[255; 4], &rule(1)].concat()),
                ("client-twice", vec![9, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0]),
                ("client-cut", [&[255, 1, 0, 0, 0, 1][..], &rule(1)[..40]].concat()),
            ])
        }
        "aardvark_config" => named(vec![
            ("network", b"10.89.0.1,fd00::1 192.0.2.53\nabc 10.89.0.2 fd00::2 web,alias 192.0.2.1\ndef 10.89.0.3  db\n".to_vec()),
            ("cut", b"10.89.0.1\nabc 10.89.0.2 fd00::2 we".to_vec()),
            ("no-header", b"\nabc 10.89.0.2  web\n".to_vec()),
            ("resolv-conf", b"# comment\nnameserver 192.0.2.1 ; c\nnameserver fe80::1%eth0\nsearch a b\n".to_vec()),
        ]),
        "dns_forward_reply" => named(vec![
            ("truncated", [&[0, 8, 60, 0][..], &[0; 60], &[0, 40, 0], &[0; 40]].concat()),
            ("strangers", [&[1, 6, 40, 0][..], &[0xff; 40], &[4, 3, 0, 1, 2, 3]].concat()),
        ]),
        // Pieces of messages (0), room for answers (3), an answer from elsewhere (4) or none (5), time (6).
        "dns_stream" => named(vec![
            ("answered", vec![3, 9, 0, 2, 0, 3, 0, 3, 1, 2, 3]),
            ("later", vec![3, 9, 0, 5, 0, 3, 2, 2, 3, 4, 2, 7, 8, 0, 5, 0, 3, 4, 2, 3, 5, 0]),
            ("many", [&[0, 60][..], &[0, 1, 2].repeat(20), &[4, 1, 9, 4, 1, 9, 3, 200, 4, 1, 9]].concat()),
            ("unread", [&[0, 250][..], &[0, 248], &[1; 248], &[3, 1, 6, 250, 6, 250]].concat()),
        ]),
        "dns_query" => named(vec![
            ("a", query(0b0011_0010, b"\x03web\x00", 1, 0)),
            ("strict-https", query(0b0011_0011, b"\x03Web\x03dns\x06podman\x00", 65, 11)),
            ("ptr", query(0b0011_0010, b"\x012\x010\x0289\x0210\x07in-addr\x04arpa\x00", 12, 0)),
            ("pointer", query(0b0011_0010, b"\xc0\x0c", 1, 0)),
            ("zone", query(0b0111_0010, b"\x03ab1\x03dns\x06podman\x00", 1, 0)),
        ]),
        "nft_rule" => slipway_netavark::fuzz::nft_rule_seeds(),
        "vhost_msg" => {
            // How many descriptors; then the request, flags, size and payload.
            let ask = |fds: u8, request: u32, payload: &[u64]| {
                let payload: Vec<u8> = payload.iter().flat_map(|number| number.to_ne_bytes()).collect();
                let head = [request, 1 | 8, u32::try_from(payload.len()).unwrap()].map(u32::to_ne_bytes).concat();
                [&[fds][..], &head, &payload].concat()
            };
            let region = [0x4000_0000, 0x10_0000, 0x7000_0000_0000, 0];
            let table = ask(1, 5, &[1, region[0], region[1], region[2], region[3]]);
            // Ring 1 of 256 descriptors, 32 KiB on what is available, 48 KiB on what is used.
            let ring = [1 | 256 << 32, 1, 1 | 1 << 32];
            let at = [1, region[2], region[2] + 0xc000, region[2] + 0x8000, 0];
            let bells = [ask(17, 13, &[1]), ask(17, 12, &[1]), ask(0, 18, &ring[2..])].concat();
            let rings = [ask(0, 8, &ring[..1]), ask(0, 10, &ring[1..2]), ask(0, 9, &at), bells].concat();
            named(vec![
                ("begin", [ask(0, 1, &[]), ask(0, 15, &[]), ask(0, 16, &[0x8008]), ask(0, 2, &[1 << 30 | 1 << 32]), table.clone(), rings.clone(), ask(0, 11, &ring[1..2])].concat()),
                ("slots", [ask(0, 16, &[0x8008]), ask(0, 36, &[]), ask(1, 37, &[0, region[0], region[1], region[2], 0]), rings, ask(0, 38, &[0, region[0], region[1], region[2], 0])].concat()),
                ("twice", [table, ask(1, 37, &[0, region[0], region[1], region[2] + 1, 0])].concat()),
                ("migration", [ask(1, 42, &[0]), ask(0, 43, &[]), ask(1, 6, &[4096, 0])].concat()),
            ])
        }
        "vhost_ring" => {
            let descriptor = |at: u64, len: u32, flags: u16, next: u16| {
                [&at.to_le_bytes()[..], &len.to_le_bytes(), &flags.to_le_bytes(), &next.to_le_bytes()].concat()
            };
            let available = |index: u16, heads: &[u16]| {
                let heads = heads.iter().copied().chain(std::iter::repeat(0)).take(16);
                [0, index].into_iter().chain(heads).flat_map(u16::to_le_bytes).collect::<Vec<u8>>()
            };
            let zeroes = |count: usize| vec![0; count * 16];
            let at = 0x4002_0000;
            let chain = [descriptor(at, 12, 1, 1), descriptor(at + 12, 60, 0, 0), zeroes(14)].concat();
            let circle = [descriptor(at, 12, 1, 1), descriptor(at, 12, 1, 0), zeroes(14)].concat();
            named(vec![
                ("chain", [chain, available(1, &[0])].concat()),
                ("circle", [circle, available(1, &[0])].concat()),
                ("far", [descriptor(at, 100, 0, 0), zeroes(15), available(17, &[])].concat()),
                ("outside", [descriptor(u64::MAX, u32::MAX, 0, 0), zeroes(15), available(1, &[0])].concat()),
                ("to-guest", [zeroes(16), available(0, &[]), descriptor(at, 9100, 2, 0), zeroes(15), available(1, &[0])].concat()),
            ])
        }
        // As a kernel told them once; they are not written anew.
        "route_netlink" | "route_replay" | "netfilter" | "sock_diag" => Vec::new(),
        "control_messages" => {
            // The sender; then 24 bytes for each message: length, level, kind, and an int.
            let from4 = [&[2, 0, 0, 53, 192, 0, 2, 1][..], &[0; 20]].concat();
            let int = |level: u8, kind: u8, value: u8| [20, 0, 0, 0, 0, 0, 0, 0, level, 0, 0, 0, kind, 0, 0, 0, value, 0, 0, 0, 0, 0, 0, 0];
            let report = [&[48, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 11, 0, 0, 0, 90, 0, 0, 0, 2, 3, 4, 0, 120, 5, 0, 0, 0, 0, 0, 0][..], &from4[..16]].concat();
            named(vec![
                ("train", [&from4[..], &int(0, 2, 64), &int(0, 1, 2), &int(17, 104, 100)].concat()),
                ("report", [&from4[..], &report].concat()),
                ("six", [&[10, 0, 0, 53, 0, 0, 0, 0, 0xfe, 0x80][..], &[0; 13], &[1, 3, 0, 0, 0], &int(41, 52, 64), &int(41, 67, 3)].concat()),
                ("cut", [&from4[..], &int(0, 2, 64)[..17]].concat()),
            ])
        }
        "dbus_answer" => named(vec![
            ("true", [&b"l\x02\x01\x01\x04\0\0\0\x07\0\0\0\x0f\0\0\0\x05\x01u\0\x02\0\0\0\x08\x01g\0\x01b\0\0"[..], &[1, 0, 0, 0]].concat()),
            ("refusal", b"l\x03\x01\x01\x0d\0\0\0\x07\0\0\0\x1b\0\0\0\x04\x01s\0\x05\0\0\0a.b.c\0\0\0\x05\x01u\0\x02\0\0\0\x08\x01g\0\x01s\0\0\0\0\0\0\0\x08\0\0\0not now.\0".to_vec()),
            ("names", b"l\x02\x01\x01\x12\0\0\0\x07\0\0\0\x10\0\0\0\x05\x01u\0\x02\0\0\0\x08\x01g\0\x02as\0\x0e\0\0\0\x01\0\0\0a\0\0\0\x01\0\0\0b\0".to_vec()),
        ]),
        "firewall_state" => named(vec![
            ("network", FIREWALL_NETWORK.as_bytes().to_vec()),
            ("ports", FIREWALL_PORTS.as_bytes().to_vec()),
            ("ports-old", br#"{"container_id":"c","port_mappings":null,"network_name":"n","network_hash_name":"h","container_ip_v4":null,"subnet_v4":null,"container_ip_v6":null,"subnet_v6":null,"dns_port":53,"dns_server_ips":[]}"#.to_vec()),
        ]),
        "proc_text" => named(vec![
            ("connection", b"ipv4     2 udp      17 29 src=192.0.2.1 dst=192.0.2.9 sport=4000 dport=5353 [UNREPLIED] src=10.88.0.2 dst=192.0.2.1 sport=53 dport=4000 mark=0 use=1\n".to_vec()),
            ("ports", b"32768\t60999\n80,40001,40003-40005,50000-60000\n".to_vec()),
        ]),
        "rootlessport" => named(vec![
            ("podman", br#"{"Mappings":[{"host_ip":"","container_port":80,"host_port":8080,"range":1,"protocol":"tcp"},{"host_ip":"::1","container_port":53,"host_port":5353,"range":3,"protocol":"tcp,udp"}],"NetNSPath":"/run/netns/x","ExitFD":3,"ReadyFD":4,"TmpDir":"/run/t","ChildIP":"10.89.0.2","ContainerID":"c0ffee","RootlessCNI":true}"#.to_vec()),
            ("empty", br#"{"Mappings":null,"ExitFD":3,"ReadyFD":4}"#.to_vec()),
        ]),
        "uplink_order" => named(vec![
            ("start", br#"{"execute":"start","arguments":{"network":{"id":"n","name":"net","mtu":1500,"dns_enabled":true,"internal":false,"subnets":[{"subnet":"10.89.0.0/24","gateway":"10.89.0.1"}],"dns_servers":["198.51.100.53"]},"host_loopback":true}}"#.to_vec()),
            ("put", br#"{"execute":"put","arguments":{"network":{"id":"n","name":"n","subnets":[{"subnet":"10.0.0.0/8","gateway":"10.0.0.1"}]},"container":{"id":"c","name":"web","names":["www"],"addresses":["10.0.0.2"]},"more":false}}"#.to_vec()),
            ("publish", br#"{"execute":"publish","arguments":{"rules":["8080:10.0.0.2:80/tcp"]}}"#.to_vec()),
            ("withdraw", br#"{"execute":"withdraw","arguments":{"ids":[1,2]}}"#.to_vec()),
            ("ends", br#""link-lost""#.to_vec()),
            ("reply", br#"{"return":{"ids":[1]}}"#.to_vec()),
        ]),
        "dns_zone" => (0..8u64).map(|n| (format!("random-{n}"), random(n + 8))).collect(),
        "netavark_options" => named(vec![
            ("object", NETAVARK_OBJECT.as_bytes().to_vec()),
            ("array", NETAVARK_ARRAY.as_bytes().to_vec()),
            ("create", NETAVARK_CREATE.as_bytes().to_vec()),
            ("names", b"10.89.0.1,fd00::1 1.1.1.1\nc1 10.89.0.2 fd00::2 web,short\nc2 10.89.0.3  db 9.9.9.9\n".to_vec()),
        ]),
        "plugin_request" => named(vec![
            ("call", PLUGIN_CALL.as_bytes().to_vec()),
            ("definition", PLUGIN_NETWORK.as_bytes().to_vec()),
            ("refusal", br#"{"error":"tcp 0.0.0.0:80: Address already in use","errno":98}"#.to_vec()),
            ("joined", br#"{"return":{"attached":true,"containers":2}}"#.to_vec()),
            ("record", PLUGIN_RECORD.as_bytes().to_vec()),
        ]),
        "getopt_argv" => named(vec![
            ("configure", b"-c\0-r\x003\0-e\x004\0--mtu=65520\x001234\0tap0".to_vec()),
            ("cluster", b"-cr3\0--conf\0--\0-6".to_vec()),
            ("bad", b"--nope\0-z\0--mtu".to_vec()),
        ]),
        "goflag_argv" => named(vec![
            ("podman", b"-mtu\x001500\0-ssh-port\x0041117\0-listen-qemu\0unix:///q\0-forward-sock\0/s\0-forward-dest\0/d\0-forward-user\0core\0-forward-identity\0/k\0-pid-file\0/p".to_vec()),
            ("addresses", b"--subnet=10.0.0.0/8\0--gatewayIP=10.0.0.1\0-debug=false\0-stay\0--\0rest".to_vec()),
            ("bad", b"-nosuch\0-mtu=0x_1\0---x".to_vec()),
        ]),
        "http_head" => named(vec![
            ("connect", b"POST /connect HTTP/1.1\r\nHost: \r\nContent-Length: 0\r\n\r\n\x3c\0frame".to_vec()),
            ("podman", b"POST /services/forwarder/expose HTTP/1.1\r\nHost: gateway.containers.internal\r\nContent-Length: 52\r\nExpect: 100-continue\r\n\r\n".to_vec()),
            ("chunked", b"GET http://x/tunnel?ip=1.2.3.4&port=%32 HTTP/1.0\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive, x\r\n\r\n".to_vec()),
        ]),
        "ssh_server" => named(vec![
            ("stream", b"\0hello\r\nSSH-2.0-OpenSSH_9.2\r\n\0\0\0\x0c\x06\x14aaaaaaaaaaaa".to_vec()),
            ("messages", b"\x01\0\x11\x5b\0\0\0\0\0\0\0\x07\0\0\x10\0\0\0\x10\0\0\x0c\x5e\0\0\0\0\0\0\0\x03abc\0\x05\x61\0\0\0\0".to_vec()),
            ("key", b"\x02-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAABG5vbmU=\n-----END OPENSSH PRIVATE KEY-----\n".to_vec()),
        ]),
        "expose_json" => named(vec![
            ("tcp", br#"{"local":"127.0.0.1:8080","remote":":80","protocol":"tcp"}"#.to_vec()),
            ("unix", br#"{"Local":"/s","REMOTE":"ssh-tunnel://core@[fd00::2]:22/run/s?key=%2Fk","protocol":"unix","x":[{}]}"#.to_vec()),
            ("bad", br#"{"local":7,"remote":"a[:1"}"#.to_vec()),
        ]),
        "dns_json" => named(vec![
            ("zone", br#"{"Name":"crc.testing.","Records":[{"Name":"host","IP":"192.168.127.254"},{"regexp":"a.*","ip":"::1"}],"DefaultIP":""}"#.to_vec()),
            ("bad", br#"{"records":[null,{"ip":"x"}]} trailing"#.to_vec()),
        ]),
        "yaml_config" => named(vec![
            ("whole", b"listen: [unix:///a]\nlog-level: debug\nstack:\n  mtu: 4000\n  subnet: 10.0.0.0/8\n  forwards: {':1': '10.0.0.2:2'}\n  dns:\n  - name: a.\n    records: [{name: b, ip: 10.0.0.3}, {regexp: 'c+', ip: 10.0.0.4}]\n    defaultIP: 10.0.0.5\n  dhcpStaticLeases: {10.0.0.2: '5A:94:EF:E4:0C:EE'}\n  tcpConnectTimeout: 1m30s\n".to_vec()),
            ("anchors", b"a: &a [x, x]\nb: &b [*a, *a]\nlisten: *b\nstack: {<<: {mtu: 1500}}\n---\nsecond: 1\n".to_vec()),
            ("bad", b"stack:\n\tmtu: [1\n".to_vec()),
        ]),
        "pasta_argv" => named(vec![
            ("podman", words(0, "--config-net -t 127.0.0.1/8080-8080:80-80 -T none --quiet --netns /run/n --map-guest-addr 169.254.1.2")),
            ("rootlesskit", words(0, "--stderr --ns-ifname=tap0 --mtu=65520 --address=10.0.2.100 --netmask=24 --gateway=10.0.2.2 4711")),
            ("command", words(0x44, "-fq -a::ffff:1.2.3.4/120 --splice-only --runas=a:b -- ls -l")),
            ("qemu", words(1, "--vhost-user --search a.b --tcp-ports 2222:22,80 --pid /p --fd 3")),
            ("libvirt", words(1, "--one-off --socket /s --mac-addr 52:54:00:12:34:56 --log-file /l --log-size 0x10000 -S none")),
        ]),
        _ => (0..8u64).map(|n| (format!("random-{n}"), random(n))).collect(),
    }
}

/// A byte of settings, and the words of a line, with zero bytes between them.
fn words(settings: u8, line: &str) -> Vec<u8> {
    [&[settings][..], line.replace(' ', "\0").as_bytes()].concat()
}

/// A byte of settings and a query: name, type, and an OPT if it has a length.
fn query(settings: u8, name: &[u8], record_type: u8, opt: usize) -> Vec<u8> {
    let mut message = vec![settings, 0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(opt > 0)];
    message.extend_from_slice(name);
    message.extend_from_slice(&[0, record_type, 0, 1]);
    message.extend_from_slice(&[0, 0, 41, 4, 208, 0, 0, 0x80, 0, 0, 0][..opt]);
    message
}

/// The fixed part of a router's advertisement, and an option with a prefix.
const ROUTER: [u8; 16] = [134, 0, 0, 0, 64, 0xc0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0];
const PREFIX: [u8; 32] =
    [3, 4, 64, 0xc0, 0, 0, 0, 9, 0, 0, 0, 9, 0, 0, 0, 0, 0xfd, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

const NETAVARK_OBJECT: &str = r#"{"container_id":"c1","container_name":"web","networks":{"n":{"interface_name":"eth0",
"static_ips":["10.89.0.2","fd00::2"],"static_mac":"02:00:00:00:00:01","aliases":["short"],"options":{"host_interface_name":"v0"}}},
"network_info":{"n":{"name":"n","id":"12","driver":"bridge","network_interface":"br0","subnets":[{"subnet":"10.89.0.0/24",
"gateway":"10.89.0.1"},{"subnet":"fd00::/64"}],"routes":[{"destination":"10.1.0.0/16","gateway":"10.89.0.9","metric":7},
{"destination":"10.2.0.0/16","route_type":"blackhole"}],"ipv6_enabled":true,"internal":false,"dns_enabled":true,
"options":{"isolate":"strict","vlan":"5","mtu":"1400"}}},"port_mappings":[{"container_port":80,"host_port":8080,
"host_ip":"","protocol":"tcp","range":3}],"dns_servers":["1.1.1.1"]}"#;
const NETAVARK_ARRAY: &str = r#"{"container_id":"c1","container_name":"web","networks":[{"name":"n","interface_name":"eth0"}],
"network_info":{"n":{"name":"n","id":"12","driver":"macvlan","ipv6_enabled":false,"internal":false,"dns_enabled":false,
"ipam_options":{"driver":"dhcp"}}}}"#;
const NETAVARK_CREATE: &str = r#"{"network":{"name":"n","id":"2f259bab93aaaaa2542ba43ef33eb990d0999ee1b9924b557b7be53c0b7a1bb9",
"driver":"bridge","dns_enabled":true,"internal":false,"ipv6_enabled":true,"options":{"mtu":"1400"}},"used":{"interfaces":["podman1"],
"names":{"o":"x"},"subnets":["10.89.0.0/24"]},"options":{"subnet_pools":[{"base":"10.89.0.0/16","size":24}],
"default_interface_name":"podman","check_used_subnets":true}}"#;

const FIREWALL_NETWORK: &str = r#"{"subnets":["10.88.0.0/16","fd00::/64"],"bridge_name":"podman0","network_id":"2f259bab",
"network_hash_name":"1FlXlb0P","isolation":"Strict","dns_port":1053,"outbound_addr4":"192.0.2.7"}"#;
const FIREWALL_PORTS: &str = r#"{"container_id":"c0ffee","network_id":"2f259bab","port_mappings":[{"container_port":80,"host_port":8080,
"host_ip":"","protocol":"tcp","range":3},{"container_port":53,"host_port":53,"host_ip":"127.0.0.1","protocol":"udp","range":1}],
"network_name":"podman","network_hash_name":"1FlXlb0P","container_ip_v4":"10.88.0.2","subnet_v4":"10.88.0.0/16",
"container_ip_v6":"fd00::2","subnet_v6":"fd00::/64","dns_port":1053,"dns_server_ips":["10.88.0.1","fd00::1"]}"#;

const PLUGIN_CALL: &str = r#"{"container_id":"c1","container_name":"web","port_mappings":[{"container_port":80,"host_port":8080,
"host_ip":"","protocol":"tcp","range":3}],"network":{"name":"n","id":"12","driver":"slipway","network_interface":"slip1",
"subnets":[{"subnet":"10.89.0.7/24","gateway":"10.89.0.1"},{"subnet":"fd00::/64","gateway":"fd00::1","lease_range":null}],
"routes":[{"destination":"10.1.0.0/16","gateway":"10.89.0.9"}],"ipv6_enabled":true,"internal":false,"dns_enabled":true,
"network_dns_servers":["192.0.2.53"],"options":{"mtu":"9000","no_default_route":"false"}},"network_options":{"interface_name":"eth0",
"static_ips":["10.89.0.2","fd00::2"],"static_mac":"02:00:00:00:00:01","aliases":["short"],"options":{"host_interface_name":"v0"}}}"#;
const PLUGIN_NETWORK: &str = r#"{"name":"n","id":"2f259bab93aaaaa2542ba43ef33eb990d0999ee1b9924b557b7be53c0b7a1bb9","driver":"slipway",
"created":"2024-05-06T07:08:09Z","dns_enabled":true,"internal":false,"ipv6_enabled":true,"options":{"com.docker.network.driver.mtu":"1400"}}"#;
const PLUGIN_RECORD: &str = r#"{"members":[{"container":{"id":"c1","name":"web","names":["a"],"addresses":["10.89.0.2"]},"port":7,
"port_name":"veth0","ports":[{"container_port":80,"host_port":8080,"host_ip":"","protocol":"tcp","range":1}]}]}"#;

fn random(n: u64) -> Vec<u8> {
    let mut rng = Rng::new(n);
    (0..256 + n * 64).map(|_| rng.next().to_le_bytes()[0]).collect()
}

fn with_header(frames: &[Vec<u8>]) -> Vec<u8> {
    let one = |frame: &Vec<u8>| {
        let len = u16::try_from(frame.len()).unwrap().to_le_bytes();
        [&len[..], &[0; 10], frame].concat()
    };
    frames.iter().flat_map(one).collect()
}

/// Datagrams with a checksum left undone: further in, as a tunnel's; at an odd place; outside; in the first fragment.
fn checksums_left() -> Vec<(&'static str, Vec<u8>)> {
    let own = SocketAddr::new(GUEST4.into(), 4000);
    let long = Udp::packet(own, "192.0.2.1:4789".parse().unwrap(), &[7; 3000]);
    let undone = |packets: &[testkit::packet::Ip], start: u16, offset: u16| {
        let frames = packets.iter().map(|packet| ethernet(ENGINE_MAC, GUEST_MAC, &packet.emit()));
        let mut data = with_header(&frames.collect::<Vec<_>>());
        // The first frame's virtio-net header: "needs checksum", where from, where to.
        data[2] = 1;
        data[8..10].copy_from_slice(&start.to_le_bytes());
        data[10..12].copy_from_slice(&offset.to_le_bytes());
        data
    };
    let pieces = long.cut(1, 1480);
    vec![
        ("tunnel", undone(core::slice::from_ref(&long), 84, 16)),
        ("tunnel-odd", undone(core::slice::from_ref(&long), 85, 7)),
        ("tunnel-outside", undone(core::slice::from_ref(&long), 84, u16::MAX)),
        ("tunnel-fragments", undone(&pieces, 84, 16)),
    ]
}

fn dhcp4(kind: u8, options: &[u8]) -> Vec<u8> {
    let mut message = vec![1, 1, 6, 0, 1, 2, 3, 4, 0, 0, 0x80, 0];
    message.extend_from_slice(&[0; 16]);
    message.extend_from_slice(&GUEST_MAC.0);
    message.extend_from_slice(&[0; 10 + 192]);
    message.extend_from_slice(&[99, 130, 83, 99, 53, 1, kind]);
    message.extend_from_slice(options);
    message.push(255);
    message
}

fn frames() -> Vec<(&'static str, Vec<Vec<u8>>)> {
    let out = |packet: testkit::packet::Ip| ethernet(ENGINE_MAC, GUEST_MAC, &packet.emit());
    let own = |port| SocketAddr::new(GUEST4.into(), port);
    let own6 = |port| SocketAddr::new(GUEST6.into(), port);
    let remote = SocketAddr::new(Ipv4Addr::new(192, 0, 2, 1).into(), 80);
    let syn = Tcp {
        seq: 1,
        window: 64_000,
        options: Options {
            mss: Some(1460),
            scale: Some(7),
            sack_permitted: true,
            timestamps: Some((1, 0)),
            ..Options::default()
        },
        ..Tcp::default()
    }
    .with(flag::SYN);
    let arp = Arp::request((GUEST_MAC, GUEST4), GATEWAY4).emit();
    let long = Udp::packet(own(9), remote, &[1; 3000]);
    vec![
        (
            "arp",
            vec![ethernet_of(slipway_netstack::addr::MacAddr::BROADCAST, GUEST_MAC, ETHERTYPE_ARP, &arp)],
        ),
        ("syn", vec![out(syn.packet(own(1024), remote))]),
        ("syn6", vec![out(syn.packet(own6(1024), "[2001:db8::1]:80".parse().unwrap()))]),
        ("dns", vec![out(Udp::packet(own(53), SocketAddr::new(DNS4.into(), 53), b"query"))]),
        ("dns6", vec![out(Udp::packet(own6(53), SocketAddr::new(DNS6.into(), 53), b"query"))]),
        ("fragments", long.cut(1, 1480).into_iter().map(out).collect()),
        (
            "ping",
            vec![
                out(Icmp::echo_request(GUEST4.into(), 1, 1, b"abcd").packet(GUEST4.into(), GATEWAY4.into())),
            ],
        ),
        (
            "ping6",
            vec![
                out(Icmp::echo_request(GUEST6.into(), 1, 1, b"abcd").packet(GUEST6.into(), GATEWAY6.into())),
            ],
        ),
    ]
}
