//! A process that may have few descriptors serves with what it has.

use slipway_lab::{LIMIT, NAMESERVER4, Running, WORLD4, lab, now};
use std::time::Duration;

/// More than it can have flows for.
const CROWD: u32 = 40;

#[test]
fn out_of_descriptors_newcomers_wait_and_nothing_ends() {
    let (lab, _) =
        lab!(ours "out_of_descriptors_newcomers_wait_and_nothing_ends", ["ncat", "dig", "dnsmasq"]);
    let _dns = lab.dns().unwrap();
    // A crowd may be too much for the server, which is not what is looked at.
    let servers = ["9000", "9001"].map(|port| {
        let server = lab.world(["ncat", "-l", "-k", "-m", "200", port, "-c", "cat"]);
        Running::server(server, "tcp", port.parse().unwrap()).unwrap()
    });
    let container = lab.container().unwrap();
    let script = r#"ulimit -n 64; cd "$HOME"; exec "$@" 3>ready"#;
    let mut slirp = lab
        .host(["sh", "-c", script, "sh", &lab.program("slirp4netns"), "--exit-fd=0", "--ready-fd=3", "-c"])
        .args([&container.pid().to_string(), "tap0"])
        .start()
        .unwrap();
    slirp.until(LIMIT, |_| std::fs::read(lab.home().join("ready")).is_ok_and(|text| text == b"1")).unwrap();
    let answers =
        |script: &str| container.sh(script).unwrap().out().lines().filter(|line| *line == "ask").count();
    let crowd =
        format!("for i in $(seq {CROWD}); do (echo ask; sleep 3) | ncat -w 4 {WORLD4} 9001 & done; wait");
    let served = answers(&crowd);
    assert!(served >= 8, "{served} of {CROWD} were served");
    let open = std::fs::read_dir(format!("/proc/{}/fd", slirp.pid())).unwrap().count();
    assert!(open <= 64, "{open} descriptors");
    // When they have gone, others are served, and names found.
    let end = now() + Duration::from_secs(25);
    while answers(&format!("(echo ask; sleep 1) | ncat -w 3 {WORLD4} 9000")) == 0 {
        assert!(now() < end, "nobody is served any more: {}", slirp.stderr());
    }
    let dig = ["dig", "+short", "+tries=3", "+time=3", &format!("@{NAMESERVER4}"), "name.test"];
    assert_eq!(container.cmd(dig).run(LIMIT).unwrap().out().trim(), WORLD4);
    drop(servers);
    assert!(slirp.ended().unwrap().is_none(), "{}", slirp.stderr());
}
