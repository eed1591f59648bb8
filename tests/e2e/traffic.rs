//! TCP, UDP and echo between container and world; every byte of a transfer is compared.

use slipway_lab::{GATEWAY4, GATEWAY6, HOST4, LIMIT, Running, WORLD4, WORLD6, lab};

use crate::{digest, ipv6, payload, receiver};

fn transfers(options: &[&str], mebibytes: usize) {
    let Some((lab, _)) = slipway_lab::fixture("transfers", &["ncat", "sha256sum"]) else { return };
    let container = lab.container().unwrap();
    let mut options = options.to_vec();
    options.extend(["-c", "--api-socket=api.sock"]);
    let slirp = lab.slirp(&container, &options).unwrap();
    let (path, expected) = payload(&lab, mebibytes);

    let mut there = receiver(lab.world(["sh", "-c"]), 9000);
    let send = container.cmd(["sh", "-c", &format!("exec ncat --send-only {WORLD4} 9000 < {path}")]);
    send.ok(LIMIT).unwrap();
    let received = there.finish(LIMIT).unwrap().expect("the receiver in world ends");
    assert_eq!(digest(&received), expected, "container to world: {received}");

    slirp.publish("tcp", 9001, 9001).unwrap();
    let mut here = receiver(container.cmd(["sh", "-c"]), 9001);
    lab.world(["sh", "-c", &format!("exec ncat --send-only {HOST4} 9001 < {path}")]).ok(LIMIT).unwrap();
    let received = here.finish(LIMIT).unwrap().expect("the receiver in the container ends");
    assert_eq!(digest(&received), expected, "world to container: {received}");
}

#[test]
fn every_byte_arrives_at_mtu_65520() {
    transfers(&["--mtu=65520"], 24);
}

#[test]
fn every_byte_arrives_at_mtu_1500() {
    transfers(&["--mtu=1500"], 24);
}

#[test]
fn every_byte_arrives_at_mtu_1280() {
    transfers(&["--mtu=1280"], 8);
}

#[test]
fn every_byte_arrives_behind_the_sandbox() {
    transfers(&["--mtu=65520", "--enable-sandbox", "--enable-seccomp"], 24);
}

#[test]
fn a_download_over_ipv6_is_whole() {
    let (lab, _) = lab!("a_download_over_ipv6_is_whole", ["ncat", "sha256sum"]);
    let container = lab.container().unwrap();
    let _slirp = lab.slirp(&container, &["-c", "--enable-ipv6", "--mtu=65520"]).unwrap();
    ipv6(&container);
    let (path, expected) = payload(&lab, 16);
    let server = lab.world(["sh", "-c", &format!("exec ncat -6 -l 9000 --send-only < {path}")]);
    let _server = Running::server(server, "tcp", 9000).unwrap();
    let fetched = container
        .cmd(["sh", "-c", &format!("ncat -6 --recv-only {WORLD6} 9000 </dev/null | sha256sum")])
        .ok(LIMIT)
        .unwrap();
    assert_eq!(digest(&fetched), expected, "{fetched}");
}

#[test]
fn half_close_lets_the_answer_through() {
    let (lab, _) = lab!("half_close_lets_the_answer_through", []);
    if slipway_lab::peer().is_none() {
        println!("SKIP half_close_lets_the_answer_through: slipway-lab-peer is not built");
        return;
    }
    let container = lab.container().unwrap();
    let _slirp = lab.slirp(&container, &["-c"]).unwrap();
    // The server answers only after it has seen the end of the request.
    let peer = lab.program("slipway-lab-peer");
    let server = lab.world([&peer, "serve", &format!("{WORLD4}:9000")]);
    let _server = Running::server(server, "tcp", 9000).unwrap();
    let answer = container.cmd([&peer, "half-close", &format!("{WORLD4}:9000")]).run(LIMIT).unwrap();
    assert_eq!(answer.out(), "got 5\n", "{answer}");
}

#[test]
fn a_refused_connection_is_refused_at_once() {
    let (lab, _) = lab!("a_refused_connection_is_refused_at_once", ["ncat"]);
    let container = lab.container().unwrap();
    let _slirp = lab.slirp(&container, &["-c"]).unwrap();
    let answer = container.cmd(["ncat", "-w", "10", WORLD4, "9"]).run(LIMIT).unwrap();
    assert!(!answer.success() && answer.err().contains("refused"), "{answer}");
}

#[test]
fn echo_is_answered_inside_and_outside() {
    let (lab, subject) = lab!("echo_is_answered_inside_and_outside", ["ping"]);
    let container = lab.container().unwrap();
    let _slirp = lab.slirp(&container, &["-c", "--enable-ipv6", "--mtu=1500"]).unwrap();
    ipv6(&container);
    for (family, target) in [("-4", GATEWAY4), ("-6", GATEWAY6), ("-4", WORLD4), ("-6", WORLD6)] {
        if target == WORLD6 && !subject.is_slipway() {
            continue; // The original does not carry ICMPv6 echo.
        }
        let reply = container.cmd(["ping", family, "-c2", "-i0.2", "-W5", target]).run(LIMIT).unwrap();
        assert!(reply.success() && reply.out().contains("2 received"), "{target}: {reply}");
    }
    // Larger than the link: fragments both ways.
    let reply = container.cmd(["ping", "-c1", "-W5", "-s", "4000", WORLD4]).run(LIMIT).unwrap();
    assert!(reply.success(), "{reply}");
}

#[test]
fn udp_goes_and_comes_back() {
    let (lab, _) = lab!("udp_goes_and_comes_back", ["ncat", "busybox"]);
    let container = lab.container().unwrap();
    let _slirp = lab.slirp(&container, &["-c", "--enable-ipv6"]).unwrap();
    ipv6(&container);
    for (family, target) in [("-4", WORLD4), ("-6", WORLD6)] {
        let server = lab.world(["ncat", family, "-u", "-l", "9000", "-c", "read line; echo answer to $line"]);
        let _server = Running::server(server, "udp", 9000).unwrap();
        let script = format!("(echo question; sleep 1) | ncat {family} -u -w 3 {target} 9000");
        let answer = container.cmd(["sh", "-c", &script]).run(LIMIT).unwrap();
        assert_eq!(answer.out(), "answer to question\n", "{target}: {answer}");
    }
}

#[test]
fn iperf3_runs_both_ways() {
    let (lab, _) = lab!("iperf3_runs_both_ways", ["iperf3"]);
    let container = lab.container().unwrap();
    let _slirp = lab.slirp(&container, &["-c", "--mtu=65520", "--enable-ipv6"]).unwrap();
    ipv6(&container);
    let _server = Running::server(lab.world(["iperf3", "-s"]), "tcp", 5201).unwrap();
    for words in [&[WORLD4][..], &[WORLD4, "-R"], &[WORLD6], &[WORLD6, "-R"], &[WORLD4, "-u", "-b", "20M"]] {
        let report = container.cmd(["iperf3", "-J", "-t", "1", "-c"]).args(words).run(LIMIT).unwrap();
        assert!(report.success(), "{words:?}: {report}");
        let json: serde_json::Value = serde_json::from_str(&report.out()).unwrap();
        let end = &json["end"];
        let bits = end["sum_received"]["bits_per_second"].as_f64();
        let bits = bits.or_else(|| end["sum"]["bits_per_second"].as_f64());
        assert!(bits.unwrap_or(0.0) > 1e6, "{words:?}: {end}");
    }
}

#[test]
fn many_connections_at_once_all_answer() {
    let (lab, _) = lab!("many_connections_at_once_all_answer", ["ncat", "busybox"]);
    std::fs::write(lab.dir().join("www/index.html"), "hello\n").unwrap();
    let container = lab.container().unwrap();
    let _slirp = lab.slirp(&container, &["-c"]).unwrap();
    let _http = lab.http().unwrap();
    let script = format!(
        "for i in $(seq 60); do busybox wget -qO- http://{WORLD4}/index.html & done | sort | uniq -c"
    );
    let output = container.sh(&script).unwrap();
    assert_eq!(output.out().split_whitespace().collect::<Vec<_>>(), ["60", "hello"], "{output}");
}

#[test]
fn requests_are_answered_one_after_the_other() {
    let (lab, _) = lab!("requests_are_answered_one_after_the_other", []);
    if slipway_lab::peer().is_none() {
        println!("SKIP requests_are_answered_one_after_the_other: slipway-lab-peer is not built");
        return;
    }
    let container = lab.container().unwrap();
    let _slirp = lab.slirp(&container, &["-c"]).unwrap();
    let peer = lab.program("slipway-lab-peer");
    let at = format!("{WORLD4}:9000");
    let _server = Running::server(lab.world([&peer, "serve", &at]), "tcp", 9000).unwrap();
    for verb in ["rr", "crr", "udp-rr"] {
        let rate = container.cmd([&peer, verb, &at, "0.5"]).run(LIMIT).unwrap();
        assert!(rate.success() && rate.out().trim().parse::<f64>().unwrap() > 50.0, "{verb}: {rate}");
    }
    let mut holder = container.cmd([&peer, "hold", &at, "200"]).start().unwrap();
    holder.until(LIMIT, |running| running.stdout().contains("held 200")).unwrap();
    std::io::Write::write_all(holder.stdin.as_mut().unwrap(), b"again\n").unwrap();
    holder.until(LIMIT, |running| running.stdout().contains("answered 200")).unwrap();
}

#[test]
fn a_slow_reader_gets_every_byte() {
    let (lab, _) = lab!("a_slow_reader_gets_every_byte", ["ncat", "sha256sum"]);
    let container = lab.container().unwrap();
    let slirp = lab.slirp(&container, &["-c", "--mtu=65520", "--api-socket=api.sock"]).unwrap();
    slirp.publish("tcp", 9001, 9001).unwrap();
    let (path, expected) = payload(&lab, 16);
    // The reader fills its pipe, then nobody reads for a while: the window closes and opens again.
    let reader = |port: u16| format!("ncat -l {port} --recv-only | (sleep 2; sha256sum)");
    let sender = |to: &str, port: u16| format!("exec ncat --send-only {to} {port} < {path}");
    let mut there = Running::server(lab.world(["sh", "-c", &reader(9000)]), "tcp", 9000).unwrap();
    let mut here = Running::server(container.cmd(["sh", "-c", &reader(9001)]), "tcp", 9001).unwrap();
    let mut up = container.cmd(["sh", "-c", &sender(WORLD4, 9000)]).start().unwrap();
    let mut down = lab.world(["sh", "-c", &sender(HOST4, 9001)]).start().unwrap();
    for running in [&mut up, &mut down] {
        assert!(running.finish(LIMIT).unwrap().expect("a sender ends").success());
    }
    for (running, way) in [(&mut there, "container to world"), (&mut here, "world to container")] {
        let received = running.finish(LIMIT).unwrap().expect("a reader ends");
        assert_eq!(digest(&received), expected, "{way}: {received}");
    }
}
