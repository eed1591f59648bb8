//! Tunnels between two containers, each behind a stack of its own, with TCP inside.
//!
//! A kernel leaves the checksum *inside* a tunnel to the device below (a TAP: Linux 6.17 for VXLAN, Geneve, FOU), and
//! the peer's kernel throws away what nobody completed. So both directions of a connection are the proof.

use slipway_lab::{Container, GATEWAY4, GATEWAY6, GUEST4, LIMIT, Lab, Running, Slirp, lab};

/// The port that each end listens on, and sends to. On host they lead to the other end.
const PORTS: [u16; 2] = [4789, 4790];

/// How one end of a tunnel is made as `tun0`; `LOCAL`, `REMOTE` and `PORT` stand for what is around it, `IPV` for its
/// family.
const TUNNELS: [(&str, &str); 3] = [
    ("vxlan", "ip link add tun0 type vxlan id 42 remote REMOTE dstport PORT"),
    ("geneve", "ip link add tun0 type geneve id 42 remote REMOTE dstport PORT"),
    (
        "fou",
        "[ IPV = 4 ] && ip fou add port PORT ipproto 4 &&
         ip link add tun0 type ipip local LOCAL remote REMOTE encap fou encap-sport auto encap-dport PORT",
    ),
];

/// Has what arrives at this port of host's loopback reach the container's end of the tunnel.
fn publish(slirp: &Slirp, loopback: &str, host_port: u16, guest: &str, guest_port: u16) {
    let request = format!(
        r#"{{"execute":"add_hostfwd","arguments":{{"proto":"udp","host_addr":"{loopback}","host_port":{host_port},"guest_addr":"{guest}","guest_port":{guest_port}}}}}"#
    );
    let reply = slirp.api(&request).unwrap();
    assert!(reply.contains("\"id\""), "{reply}");
}

/// TCP between the two ends in both directions, each way opened from either side.
fn talk(lab: &Lab, ends: [&Container; 2]) {
    let peer = lab.program("slipway-lab-peer");
    let inner = ["10.99.0.1:9000", "10.99.0.2:9000"];
    let _servers =
        [0, 1].map(|n| Running::server(ends[n].cmd([&peer, "serve", inner[n]]), "tcp", 9000).unwrap());
    for (from, to) in [(0, 1), (1, 0)] {
        let rate = ends[from].cmd([&peer, "rr", inner[to], "0.3"]).run(LIMIT).unwrap();
        assert!(rate.success() && rate.out().trim().parse::<f64>().unwrap() > 5.0, "{from}: {rate}");
        let upload = ends[from].cmd([&peer, "upload", inner[to], "0.3"]).run(LIMIT).unwrap();
        assert!(upload.success(), "{from}: {upload}");
    }
}

#[test]
fn tcp_crosses_a_tunnel_between_two_containers() {
    let name = "tcp_crosses_a_tunnel_between_two_containers";
    let (lab, _) = lab!(ours "tcp_crosses_a_tunnel_between_two_containers", []);
    if slipway_lab::peer().is_none() {
        println!("SKIP {name}: slipway-lab-peer is not built");
        return;
    }
    // Each sends to its gateway, which is host's loopback, and sees the gateway as the sender.
    for (version, loopback, gateway) in [("4", "127.0.0.1", GATEWAY4), ("6", "::1", GATEWAY6)] {
        let ends = [lab.container().unwrap(), lab.container().unwrap()];
        let slirps = [0, 1].map(|n| {
            let api = format!("--api-socket=tunnel{version}{n}.sock");
            lab.slirp(&ends[n], &["-c", "--enable-ipv6", &api]).unwrap()
        });
        let inside = ends.each_ref().map(|end| match version {
            "4" => GUEST4.to_owned(),
            _ => crate::ipv6(end),
        });
        for n in [0, 1] {
            publish(&slirps[n], loopback, PORTS[1 - n], &inside[n], PORTS[n]);
        }
        for (kind, make) in TUNNELS {
            let made = [0, 1].map(|n| {
                let make =
                    make.replace("REMOTE", gateway).replace("LOCAL", &inside[n]).replace("IPV", version);
                let make = make.replace("PORT", &PORTS[n].to_string());
                let script = format!(
                    "{make} && ip address add 10.99.0.{}/24 dev tun0 && ip link set tun0 mtu 1300 up",
                    n + 1
                );
                ends[n].sh(&script).unwrap()
            });
            if made.iter().all(slipway_lab::Output::success) {
                talk(&lab, ends.each_ref());
                println!("{kind} over IPv{version}");
            } else {
                println!("SKIP {name}: no {kind} over IPv{version} on this kernel: {}", made[0].err());
            }
            for end in &ends {
                end.sh("ip link delete tun0; ip fou del port 4789; ip fou del port 4790").unwrap();
            }
        }
    }
}
