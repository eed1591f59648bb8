//! With directories and servers made for the purpose; a shell script plays the server.

use super::*;
use std::os::unix::fs::PermissionsExt as _;
use tempfile::TempDir;

fn ips(list: &[&str]) -> Vec<IpAddr> {
    list.iter().map(|text| text.parse().unwrap()).collect()
}

fn entry(network: &str, id: &str, ip: &str) -> DnsEntry {
    DnsEntry {
        network: network.to_owned(),
        internal: false,
        listen: ips(&["10.0.0.1", "fd00::1"]),
        network_servers: Vec::new(),
        container_id: id.to_owned(),
        addresses: ips(&[ip]),
        names: vec![format!("name-{id}"), "alias".to_owned()],
        container_servers: Vec::new(),
        others: usize::MAX,
    }
}

struct Lab {
    dir: TempDir,
    handover: Handover,
}

impl Lab {
    /// With a server whose launcher runs `script`.
    fn new(script: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let binary = dir.path().join("server");
        fs::write(&binary, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&binary, fs::Permissions::from_mode(0o755)).unwrap();
        let config = dir.path().join("config");
        fs::create_dir(&config).unwrap();
        let mut handover = Handover::new(&config, binary.as_os_str(), false, 5353);
        // Not through systemd, whatever this machine runs.
        handover.server.rootless = true;
        let everybody = (0..=255).map(|last| IpAddr::from([10, 0, 0, last]));
        handover.living = Living::with(&everybody.collect::<Vec<_>>());
        Self { dir, handover }
    }

    fn text(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.dir.path().join("config/aardvark-dns").join(name)).ok()
    }

    fn files(&self) -> Vec<String> {
        let Ok(list) = fs::read_dir(self.dir.path().join("config/aardvark-dns")) else { return Vec::new() };
        list.map(|file| file.unwrap().file_name().into_string().unwrap()).collect()
    }
}

#[test]
fn the_port_comes_from_the_environment() {
    assert_eq!(port(None).unwrap(), 53);
    assert_eq!(port(Some(OsStr::new("5353"))).unwrap(), 5353);
    let error = port(Some(OsStr::new("65536"))).unwrap_err();
    assert_eq!(error.to_string(), "Invalid NETAVARK_DNS_PORT 65536: number too large to fit in target type");
}

#[test]
fn a_plan_tells_every_step_and_takes_none() {
    let lab = Lab::new("exit 0");
    let dir = lab.dir.path().join("config/aardvark-dns").display().to_string();
    let (first, second) = (entry("net", "c1", "10.0.0.2"), entry("net", "c2", "10.0.0.3"));
    let start = format!("host       {} --config {dir} -p 5353 run", lab.dir.path().join("server").display());
    let add = format!("host       write {dir}/net: 10.0.0.1,fd00::1 / c1 10.0.0.2  name-c1,alias");
    assert_eq!(lab.handover.describe_commit(std::slice::from_ref(&first)).unwrap(), [add, start.clone()]);
    assert_eq!(lab.handover.describe_remove(&["c1"], ["net"]).unwrap(), [""; 0]);
    assert_eq!(lab.files(), [""; 0]);
    lab.handover.commit(&[first]).unwrap();
    let add = format!("host       write {dir}/net: c2 10.0.0.3  name-c2,alias");
    assert_eq!(lab.handover.describe_commit(std::slice::from_ref(&second)).unwrap(), [add, start]);
    lab.handover.commit(&[second]).unwrap();
    let before = lab.text("net");
    let kept = format!("host       write {dir}/net: all but c2");
    assert_eq!(lab.handover.describe_remove(&["c2"], ["net", "other"]).unwrap(), [kept]);
    let gone = format!("host       rm {dir}/net");
    assert_eq!(lab.handover.describe_remove(&["c2", "c1"], ["net"]).unwrap(), [gone]);
    assert_eq!(lab.text("net"), before);
}

#[test]
fn lines_are_added_and_removed() {
    let lab = Lab::new("exit 0");
    let mut first = entry("net", "c1", "10.0.0.2");
    first.network_servers = ips(&["1.1.1.1", "8.8.8.8"]);
    first.container_servers = ips(&["9.9.9.9"]);
    let mut second = entry("net", "c12", "fd00::3");
    second.names = vec!["ok".into(), "not ok".into(), String::new(), "a,b".into(), "c\nd".into()];
    lab.handover.commit(&[first]).unwrap();
    lab.handover.commit(&[second]).unwrap();
    let header = "10.0.0.1,fd00::1 1.1.1.1,8.8.8.8\n";
    let second_line = "c12  fd00::3 ok\n";
    assert_eq!(
        lab.text("net").unwrap(),
        format!("{header}c1 10.0.0.2  name-c1,alias 9.9.9.9\n{second_line}")
    );
    // Only the whole ID counts, and once more is no harm.
    for _ in 0..2 {
        lab.handover.remove("c1", ["net", "other"]).unwrap();
        assert_eq!(lab.text("net").unwrap(), format!("{header}{second_line}"));
    }
    lab.handover.update("net", "7.7.7.7").unwrap();
    assert_eq!(lab.text("net").unwrap(), format!("10.0.0.1,fd00::1 7.7.7.7\n{second_line}"));
    lab.handover.update("net", "").unwrap();
    assert_eq!(lab.text("net").unwrap(), format!("10.0.0.1,fd00::1\n{second_line}"));
    assert!(lab.handover.update("net", "1.1.1.1\nx").is_err());
    lab.handover.update("unused", "7.7.7.7").unwrap();
    lab.handover.remove("c12", ["net"]).unwrap();
    assert!(lab.files().is_empty(), "nobody left, no file left");
}

#[test]
fn a_network_is_served_at_addresses_that_it_got_later() {
    let lab = Lab::new("exit 0");
    let mut first = entry("net", "c1", "10.0.0.2");
    (first.listen, first.network_servers) = (ips(&["10.0.0.1"]), ips(&["1.1.1.1"]));
    lab.handover.commit(&[first]).unwrap();
    let header = || lab.text("net").unwrap().lines().next().unwrap().to_owned();
    let mut second = entry("net", "c2", "fd00::3");
    second.listen = ips(&["fd00::1"]);
    lab.handover.commit(&[second.clone()]).unwrap();
    assert_eq!(header(), "10.0.0.1,fd00::1 1.1.1.1");
    lab.handover.commit(&[second.clone()]).unwrap();
    assert_eq!(header(), "10.0.0.1,fd00::1 1.1.1.1", "no address twice");
    // Without the older container nobody asks at its address.
    lab.handover.remove("c1", ["net"]).unwrap();
    lab.handover.commit(&[second]).unwrap();
    assert_eq!(header(), "fd00::1");
}

#[test]
fn a_line_left_behind_is_replaced() {
    let lab = Lab::new("exit 0");
    lab.handover.commit(&[entry("net", "c1", "10.0.0.2")]).unwrap();
    lab.handover.commit(&[entry("net", "c1", "10.0.0.9")]).unwrap();
    assert_eq!(lab.text("net").unwrap(), "10.0.0.1,fd00::1\nc1 10.0.0.9  name-c1,alias\n");
}

#[test]
fn an_internal_network_has_another_name() {
    let lab = Lab::new("exit 0");
    let mut internal = entry("net", "c2", "10.0.0.3");
    internal.internal = true;
    lab.handover.commit(&[entry("net", "c1", "10.0.0.2")]).unwrap();
    lab.handover.commit(&[internal]).unwrap();
    assert_eq!(lab.files(), ["net%int"]);
    assert_eq!(lab.text("net%int").unwrap().lines().count(), 3);
    lab.handover.commit(&[entry("net", "c3", "10.0.0.4")]).unwrap();
    assert_eq!(lab.files(), ["net"]);
    assert_eq!(lab.text("net").unwrap().lines().count(), 4);
    for id in ["c1", "c2", "c3"] {
        lab.handover.remove(id, ["net"]).unwrap();
    }
    assert!(lab.files().is_empty());
}

#[test]
fn a_server_that_does_not_start_leaves_nothing() {
    for (script, text) in [
        ("echo ' no such address ' >&2; exit 1", "aardvark-dns failed to start: no such address"),
        ("exit 3", "aardvark-dns exited unexpectedly without error message"),
    ] {
        let lab = Lab::new(script);
        let error = lab.handover.commit(&[entry("net", "c1", "10.0.0.2")]).unwrap_err();
        assert_eq!(error.to_string(), text);
        assert!(lab.files().is_empty());
    }
}

#[test]
fn a_server_that_keeps_its_stderr_open_holds_nobody_up() {
    let lab = Lab::new("sleep 5 & exit 0");
    let begin = slipway_host::clock::now();
    lab.handover.commit(&[entry("net", "c1", "10.0.0.2")]).unwrap();
    assert!(slipway_host::clock::now() - begin < std::time::Duration::from_secs(4));
}

#[test]
fn a_stale_process_id_is_nobodys() {
    let lab = Lab::new("exit 0");
    lab.handover.commit(&[entry("net", "c1", "10.0.0.2")]).unwrap();
    let pid_file = lab.dir.path().join("config/aardvark-dns/aardvark.pid");
    // This test must not be hung up on, nor a whole group of processes.
    for stale in [&std::process::id().to_string(), "0", "-1", "1", "", "x", "4194304999"] {
        fs::write(&pid_file, stale).unwrap();
        assert!(lab.handover.server.notify().unwrap().is_none(), "{stale:?}");
    }
    lab.handover.remove("c1", ["net"]).unwrap();
}

/// A process that has ended shows none; one of another user may not let us look.
#[test]
fn a_process_that_hides_its_command_line_is_not_the_server() {
    let lab = Lab::new("exit 0");
    let pid_file = lab.dir.path().join("config/aardvark-dns/aardvark.pid");
    fs::create_dir_all(pid_file.parent().unwrap()).unwrap();
    let mut ended = std::process::Command::new("true").spawn().unwrap();
    let shown = || fs::read(format!("/proc/{}/cmdline", ended.id())).unwrap();
    while !shown().is_empty() {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    fs::write(&pid_file, ended.id().to_string()).unwrap();
    assert!(lab.handover.server.notify().unwrap().is_none(), "it has not been waited for");
    ended.wait().unwrap();
}

#[test]
fn a_running_server_is_told() {
    let lab = Lab::new("exit 0");
    lab.handover.commit(&[entry("net", "c1", "10.0.0.2")]).unwrap();
    // The directory stands on its command line.
    let mut server = std::process::Command::new("/bin/sh")
        .args(["-c", "trap 'exit 7' HUP; echo ready; while :; do sleep 0.05; done", "--config"])
        .arg(lab.dir.path().join("config/aardvark-dns"))
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut ready = [0; 5];
    std::io::Read::read_exact(server.stdout.as_mut().unwrap(), &mut ready).unwrap();
    fs::write(lab.dir.path().join("config/aardvark-dns/aardvark.pid"), server.id().to_string()).unwrap();
    lab.handover.commit(&[entry("net", "c2", "10.0.0.3")]).unwrap();
    assert_eq!(server.wait().unwrap().code(), Some(7));
}

#[test]
fn a_server_never_asks_itself() {
    let lab = Lab::new("exit 0");
    let mut own = entry("net", "c1", "10.0.0.2");
    own.container_servers = ips(&["8.8.8.8", "10.0.0.1"]);
    let error = lab.handover.commit(&[own]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "DNS server 10.0.0.1 is the gateway of network \"net\"; using it would cause aardvark-dns to forward queries \
         to itself."
    );
    let mut other = entry("other", "c1", "10.9.0.2");
    other.listen = ips(&["10.9.0.1"]);
    other.network_servers = ips(&["fd00::1"]);
    let error = lab.handover.commit(&[entry("net", "c1", "10.0.0.2"), other]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "network DNS server fd00::1 matches the gateway of network \"net\"; using it would cause aardvark-dns to \
         forward queries to itself."
    );
    assert!(lab.files().is_empty());
}

#[test]
fn without_a_server_nothing_happens() {
    let dir = tempfile::tempdir().unwrap();
    for binary in ["", "/nonexistent/aardvark-dns"] {
        let handover = Handover::new(dir.path(), OsStr::new(binary), false, 53);
        handover.commit(&[entry("net", "c1", "10.0.0.2")]).unwrap();
        handover.update("net", "1.1.1.1").unwrap();
        handover.remove("c1", ["net"]).unwrap();
        assert!(fs::read_dir(dir.path()).unwrap().next().is_none());
    }
}

#[test]
fn what_cannot_be_written_is_left_out_or_refused() {
    let lab = Lab::new("exit 0");
    lab.handover.commit(&[entry("net", "c 1", "10.0.0.2")]).unwrap();
    let mut nowhere = entry("net", "c1", "10.0.0.2");
    nowhere.listen.clear();
    lab.handover.commit(&[nowhere]).unwrap();
    assert!(lab.files().is_empty());
    for name in ["../escape", "..", "", "aardvark.pid"] {
        assert!(lab.handover.commit(&[entry(name, "c1", "10.0.0.2")]).is_err(), "{name:?}");
    }
    assert_eq!(fs::read_dir(lab.dir.path().join("config")).unwrap().count(), 2, "lock and directory");
}

proptest::proptest! {
    #[test]
    fn editing_any_text_is_harmless(text in proptest::prelude::any::<Vec<u8>>()) {
        fuzz(&text);
    }
}

#[test]
fn names_of_the_dead_go_with_the_next_container() {
    let mut lab = Lab::new("exit 0");
    let add = |lab: &Lab, id: &str, ip: &str, others: usize| {
        lab.handover
            .commit(&[DnsEntry { others, names: vec![format!("n-{id}")], ..entry("net", id, ip) }])
            .unwrap();
        let text = lab.text("net").unwrap();
        text.lines().skip(1).map(|line| line.split(' ').next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    add(&lab, "c1", "10.0.0.2", 0);
    add(&lab, "c2", "10.0.0.3", 1);
    assert_eq!(add(&lab, "c3", "10.0.0.4", 2), ["c1", "c2", "c3"]);
    assert_eq!(add(&lab, "c4", "10.0.0.2", 3), ["c2", "c3", "c4"], "its address has another one");
    lab.handover.living = Living::with(&ips(&["10.0.0.2", "10.0.0.4", "10.0.0.5"]));
    assert_eq!(add(&lab, "c5", "10.0.0.5", 3), ["c2", "c3", "c4", "c5"], "nobody asks");
    assert_eq!(add(&lab, "c6", "10.0.0.6", 3), ["c3", "c4", "c5", "c6"], "more lines than containers");
    let namesake = DnsEntry { names: vec!["n-c3".into()], ..entry("net", "c7", "10.0.0.7") };
    lab.handover.living = Living::with(&[]);
    lab.handover.commit(&[namesake]).unwrap();
    assert!(!lab.text("net").unwrap().contains("10.0.0.4"));
    assert_eq!(add(&lab, "c8", "10.0.0.8", 0), ["c8"], "nobody else is there");
}

#[test]
fn a_newcomer_takes_its_names_from_the_dead_of_all_networks() {
    let mut lab = Lab::new("exit 0");
    let add = |lab: &Lab, network: &str, id: &str, ip: &str, name: &str| {
        lab.handover.commit(&[DnsEntry { names: vec![name.into()], ..entry(network, id, ip) }]).unwrap();
    };
    lab.handover.living = Living::with(&ips(&["10.0.1.2", "10.0.1.3", "10.0.1.4", "10.0.2.2", "10.0.3.2"]));
    add(&lab, "one", "c1", "10.0.1.2", "web");
    add(&lab, "one", "c2", "10.0.1.3", "db");
    add(&lab, "one", "c3", "10.0.1.4", "web");
    add(&lab, "two", "c4", "10.0.2.2", "web");
    let mut internal = entry("three", "c5", "10.0.3.2");
    (internal.internal, internal.names) = (true, vec!["web".into()]);
    lab.handover.commit(&[internal]).unwrap();
    fs::write(lab.dir.path().join("config/aardvark-dns/aardvark.pid"), "4194304999\n1 10.0.1.9  web\n")
        .unwrap();
    // Of the namesakes one lives; the one with another name is in nobody's way.
    lab.handover.living = Living::with(&ips(&["10.0.1.4"]));
    add(&lab, "four", "c6", "10.0.4.2", "web");
    let header = "10.0.0.1,fd00::1\n";
    assert_eq!(lab.text("one").unwrap(), format!("{header}c2 10.0.1.3  db\nc3 10.0.1.4  web\n"));
    assert_eq!(lab.text("four").unwrap(), format!("{header}c6 10.0.4.2  web\n"));
    let mut left = lab.files();
    left.sort();
    assert_eq!(left, ["aardvark.pid", "four", "one"], "nobody left, no file left");
}

#[test]
fn a_container_on_several_networks_is_no_namesake_of_its_own() {
    let mut lab = Lab::new("exit 0");
    lab.handover.living = Living::with(&ips(&["10.0.1.2", "10.0.2.2"]));
    let both = [entry("one", "c1", "10.0.1.2"), entry("two", "c1", "10.0.2.2")];
    for _ in 0..2 {
        lab.handover.commit(&both).unwrap();
        assert_eq!(["one", "two"].map(|name| lab.text(name).unwrap().lines().count()), [2, 2]);
    }
}
