//! Who a machine sees when somebody comes through a forwarded port, and what is left after the host's network was away.

use super::{FIRST, Network, lab, machine, shown};
use nix::sys::signal::Signal;
use slipway_lab::{Container, HOST4, LIMIT, Lab, Running, WORLD4, now};
use std::time::Duration;

/// A second client of the world.
const OTHER: &str = "192.0.2.3";

/// Opens a port of the host that leads to this port of the first machine.
fn expose(lab: &Lab, api: &str, protocol: &str, port: u16, to: u16) {
    let body = format!(r#"{{"local":":{port}","remote":"192.168.127.2:{to}","protocol":"{protocol}"}}"#);
    let words = ["curl", "-sS", "--fail", "--max-time", "20", "--unix-socket", api, "-d", &body];
    let asked = lab.host(words).args(["http://gvproxy/services/forwarder/expose"]).run(LIMIT).unwrap();
    assert!(asked.success(), "{asked}");
}

/// What tells clients how they look, over TCP and UDP.
fn mirrors(container: &Container) -> [Running; 2] {
    let tell = "echo $NCAT_REMOTE_ADDR:$NCAT_REMOTE_PORT; cat";
    let tcp = container.cmd(["ncat", "-lk", "0.0.0.0", "80", "-c", tell]);
    let udp = container.cmd(["ncat", "-ulk", "0.0.0.0", "81", "-c", tell]);
    [Running::server(tcp, "tcp", 80).unwrap(), Running::server(udp, "udp", 81).unwrap()]
}

fn sees(test: &str, words: &[&str], expected: impl Fn(&str) -> String, on_the_host: &str) {
    let Some(lab) = lab(test, &["busybox", "ncat", "curl"]) else { return };
    let api = lab.home().join("api.sock").to_string_lossy().into_owned();
    let address = format!("unix://{api}");
    let network = Network::start(&lab, &[&["-ssh-port", "-1", "-listen", &address][..], words].concat());
    let (container, machine, _) = machine(&lab, &network, Some(FIRST));
    let _mirrors = mirrors(&container);
    expose(&lab, &api, "tcp", 8080, 80);
    expose(&lab, &api, "udp", 8081, 81);
    lab.world(["ip", "address", "add", &format!("{OTHER}/24"), "dev", "veth0"]).ok(LIMIT).unwrap();
    for (port, more) in [("8080", &[][..]), ("8081", &["-u"][..])] {
        // Two clients with one port, at the same time: what each says comes back to it.
        let clients = [WORLD4, OTHER].map(|from| {
            let words = [&["ncat", "-s", from, "-p", "5555"][..], more, &[HOST4, port]].concat();
            let mut client = lab.world(words).start().unwrap();
            std::io::Write::write_all(client.stdin.as_mut().unwrap(), format!("i am {from}\n").as_bytes())
                .unwrap();
            client.until(LIMIT, |client| client.stdout().lines().count() >= 2).unwrap();
            (from, client)
        });
        for (from, client) in clients {
            let said = client.stdout();
            let looks = said.lines().next().unwrap_or_default();
            let wanted = expected(&format!("{from}:5555"));
            assert!(looks.starts_with(&wanted), "{from} looks like {looks}, not {wanted}");
            assert!(said.ends_with(&format!("i am {from}\n")), "{said}");
        }
        let words = [&["ncat", "-w", "5"][..], more, &["127.0.0.1", port]].concat();
        let mut near = lab.host(words).start().unwrap();
        std::io::Write::write_all(near.stdin.as_mut().unwrap(), b"near\n").unwrap();
        near.until(LIMIT, |near| near.stdout().lines().count() >= 2).unwrap();
        assert!(near.stdout().starts_with(on_the_host), "{}", near.stdout());
    }
    machine.hang_up();
    network.ends();
}

#[test]
fn clients_look_like_the_gateway() {
    sees("clients_look_like_the_gateway", &[], |_| "192.168.127.1:".into(), "192.168.127.1:");
}

#[test]
fn clients_look_as_they_are_where_that_is_wished_for() {
    let test = "clients_look_as_they_are_where_that_is_wished_for";
    sees(test, &["-preserve-source"], ToOwned::to_owned, "192.168.127.1:");
}

/// A suspended host, and a network that is another one when it wakes: `SLIPWAY_OUTAGE` says for how many seconds, three
/// without it.
#[test]
fn after_an_outage_new_connections_work_and_old_ones_end() {
    let test = "after_an_outage_new_connections_work_and_old_ones_end";
    let Some(lab) = lab(test, &["busybox", "ncat"]) else { return };
    let seconds = std::env::var("SLIPWAY_OUTAGE").ok().and_then(|text| text.parse().ok()).unwrap_or(3);
    let network = Network::start(&lab, &["-ssh-port", "-1"]);
    let (container, machine, _) = machine(&lab, &network, Some(FIRST));
    let serve = |port: &str, script: &str| {
        let line = lab.world(["ncat", "-lk", WORLD4, port, "-c", script]);
        Running::server(line, "tcp", port.parse().unwrap()).unwrap()
    };
    let before = serve("9000", "echo before; cat");
    let mut old = container.cmd(["ncat", WORLD4, "9000"]).start().unwrap();
    old.until(LIMIT, |old| old.stdout().contains("before")).unwrap();
    network.process.signal(Signal::SIGSTOP);
    lab.host_root(["ip", "link", "set", "veth0", "down"]).ok(LIMIT).unwrap();
    // What it has to say meanwhile gets lost.
    drop(before);
    std::thread::sleep(Duration::from_secs(seconds));
    lab.host_root(["ip", "link", "set", "veth0", "up"]).ok(LIMIT).unwrap();
    let _after = serve("9001", "echo after");
    network.process.signal(Signal::SIGCONT);
    let began = now();
    let fresh = shown(&container, &format!("ncat --recv-only -w 20 {WORLD4} 9001"));
    println!("after {seconds} s of outage the first connection took {:?}", began.elapsed());
    assert_eq!(fresh, "after\n");
    // The old connection's other end knows nothing of it any more; who goes on writing is told.
    let ends = |_| {
        let _ = std::io::Write::write_all(old.stdin.as_mut().unwrap(), b"still there?\n");
        std::thread::sleep(Duration::from_millis(50));
        old.ended().unwrap().is_some()
    };
    assert!((0..600).any(ends), "the old connection lives on");
    machine.hang_up();
    network.ends();
}
